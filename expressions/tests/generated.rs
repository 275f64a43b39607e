//! Nix judges us, whichever version is installed (Debian's own will do): thousands of generated expressions have the value that they
//! have there, and fail where they fail there. Without `nix-instantiate` on the `PATH` this says that it was skipped.
//!
//! `GENERATED=50000` asks so many, `GENERATED_SEED=1` others, `GENERATED_SHOWN=1` shows each before it is asked.

#[path = "support/nix.rs"]
mod nix;

use std::fs;
use std::path::Path;

fn arguments(file: &Path) -> Vec<std::ffi::OsString> {
    ["--eval", "--strict", "--json", "--store", "dummy://"].map(Into::into).into_iter().chain([file.into()]).collect()
}

/// The values of all questions, or nothing if any of them has none.
fn theirs(directory: &Path, questions: &[String]) -> Option<Vec<String>> {
    let file = directory.join("questions.nix");
    fs::write(&file, list(questions)).expect("the questions are written");
    values(&nix::theirs(arguments(&file)))
}

fn ours(directory: &Path, questions: &[String]) -> Option<Vec<String>> {
    let file = directory.join("ours.nix");
    fs::write(&file, list(questions)).expect("the questions are written");
    values(&nix::ours(arguments(&file)))
}

fn values(answer: &nix::Answer) -> Option<Vec<String>> {
    // A character that was cut in two is no text.
    let is_text = !answer.output.contains(char::REPLACEMENT_CHARACTER);
    if answer.okay && is_text { serde_json::from_str(&answer.output).ok() } else { None }
}

/// Names that all questions see. What drags along a whole `.drv` wants a store that has it, and is asked elsewhere.
const SCOPE: &str = r#"let
  x = 2; y = 0.5; s = "s-a"; l = [ 1 "a" 2 ]; t = { a = { b = 1; }; d = "d"; }; f = x: x; g = { a ? 1, ... }@all: all // { inherit a; };
  p = /a/b; d = derivation { name = "d"; system = "x"; builder = "b"; outputs = [ "out" "dev" ]; };
in [
"#;

fn list(questions: &[String]) -> String {
    let items: String = questions.iter().map(|question| format!("(builtins.toXML ({question}))\n")).collect();
    format!("{SCOPE}{items}]\n")
}

/// Small numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }
}

#[rustfmt::skip]
const LEAVES: [(char, &[&str]); 8] = [
    ('n', &["0", "1", "7", "(-3)", "2.5", "x", "y", "1000000", "0.1", "1.0e-7", "123456789.0", "9223372036854775807"]),
    ('s', &["\"\"", "\"a\"", "\"b-1.2\"", "''\n  a\n    b\n  ''", "\"é\\n\\t\\${\"", "s", "\"10\"", "http://a.b/c", "\"\\\"<&>'\""]),
    ('b', &["true", "false", "(x == y)", "(s < \"t\")", "(t ? d)", "(p == p)"]),
    ('l', &["[ ]", "[ 1 2 ]", "[ x \"a\" null ]", "l", "[ [ 1 ] [ ] ]", "[ 3 1 2 ]", "[ \"b\" \"a\" ]"]),
    ('a', &["{ }", "{ a = 1; }", "{ a = x; b = \"t\"; }", "rec { a = 1; b = a; }", "t", "{ a.b.c = 1; a.b.d = 2; }", "{ inherit x s; }"]),
    ('p', &["/a", "p", "/a/b/../c", "(/a + \"/b\")", "(p + \"c\")"]),
    ('f', &["f", "(x: [ x ])", "({ a, ... }: a)", "(x: y: x)", "builtins.typeOf", "(_: throw \"f\")", "toString"]),
    ('c', &["d", "d.dev", "\"${d}\"", "\"${d.dev}/x\"", "(d.outPath + \"b\")", "(builtins.unsafeDiscardOutputDependency d.drvPath)", "\"${s}${d}\""]),
];

/// Forms of each kind; a letter in `<>` stands for a part of that kind.
#[rustfmt::skip]
const FORMS: [(char, &[&str]); 8] = [
    ('n', &[
        "(<n> + <n>)", "(<n> - <n> * 2)", "(<n> * <n>)", "(<n> / <n>)", "(-<n>)", "(builtins.length <l>)", "(builtins.stringLength <s>)",
        "(builtins.foldl' (x: y: x + 1) <n> <l>)", "(<a>.a or <n>)", "(<a>.a.b or <n>)", "(builtins.compareVersions <s> <s>)", "(builtins.floor <n>)",
        "(builtins.ceil <n>)", "((f: f (f <n>)) (x: x + <n>))", "(builtins.bitAnd <n> <n>)", "(builtins.bitXor 5 <n>)", "(builtins.add <n> <n>)",
        "(builtins.fromJSON (builtins.toJSON <n>))", "(builtins.stringLength (toString <n>))", "(builtins.elemAt <l> 1)", "(builtins.head <l>)",
    ]),
    ('s', &[
        "(<s> + <s>)", "\"<${<s>}>\"", "''${<s>} ''\\n ''$ ''", "(toString <l>)", "(toString <n>)", "(toString <b>)", "(toString <p>)",
        "(builtins.substring 0 2 <s>)", "(builtins.substring 1 (-1) <s>)", "(builtins.concatStringsSep \",\" (builtins.attrNames <a>))",
        "(builtins.replaceStrings [ \"a\" \"-\" ] [ \"b\" \"\" ] <s>)", "(builtins.replaceStrings [ \"\" ] [ <s> ] <s>)", "(builtins.toJSON <a>)", "(builtins.toJSON <l>)",
        "(builtins.hashString \"sha256\" <s>)", "(builtins.hashString \"md5\" <s>)", "(builtins.typeOf <n>)", "(baseNameOf <s>)", "(dirOf <s>)", "(baseNameOf <p>)",
        "(builtins.toXML <a>)", "(builtins.unsafeDiscardStringContext <c>)", "(builtins.concatStringsSep <s> [ <s> <s> ])",
        "(builtins.placeholder \"out\")", "(<a>.${<s>} or <s>)", "(builtins.toJSON (builtins.fromJSON \"[1.5,{\\\"a\\\":null}]\"))",
    ]),
    ('b', &[
        "(<n> < <n>)", "(<n> <= <n>)", "(<s> == <s>)", "(!<b> || <n> >= <n>)", "(<b> && <b>)", "(<a> ? a.b)", "(<a> ? ${<s>})", "(<l> == <l>)", "(<a> == <a>)",
        "(<a> != <a>)", "(builtins.elem <n> <l>)", "(<b> -> <s> < <s>)", "(<l> < <l>)", "(builtins.isFunction <f>)", "(builtins.isAttrs <c>)",
        "(builtins.hasContext <c>)", "(builtins.hasContext <s>)", "(builtins.all builtins.isInt <l>)", "(builtins.any (x: x == <n>) <l>)", "(<c> == <c>)",
        "(builtins.lessThan <n> <n>)", "(<p> == <p>)", "(<f> == <f>)", "(builtins.isPath <p>)", "(null == <a>)",
    ]),
    ('l', &[
        "(<l> ++ <l>)", "[ <n> <s> <a> ]", "[ <f> <b> <p> ]", "(map <f> <l>)", "(map (x: [ x ]) <l>)", "(builtins.filter (x: builtins.isInt x) <l>)", "(builtins.attrValues <a>)",
        "(builtins.attrNames <a>)", "(builtins.genList (x: x + <n>) 3)", "(builtins.split \"([a-b])\" <s>)", "(builtins.split \"(-)|([0-9])\" <s>)",
        "(builtins.match \"(.*)-(.*)\" <s>)", "(builtins.match \"[[:alpha:]]+(-[a-z])?\" <s>)", "(builtins.sort (x: y: builtins.typeOf x < builtins.typeOf y) <l>)",
        "(builtins.sort builtins.lessThan [ <n> <n> <n> ])", "(builtins.sort (a: b: a < b) [ <s> <s> ])", "(builtins.tail <l>)", "(builtins.concatLists [ <l> <l> ])",
        "(builtins.concatMap (x: [ x x ]) <l>)", "(builtins.catAttrs \"a\" [ <a> <a> ])", "(builtins.splitVersion <s>)", "(builtins.attrNames (builtins.getContext <c>))",
        "(builtins.genericClosure { startSet = [ { key = 1; v = <n>; } ]; operator = i: if i.key < 3 then [ { key = i.key + 1; v = <s>; } ] else [ ]; })", "(builtins.fromJSON (builtins.toJSON <l>))",
    ]),
    ('a', &[
        "(<a> // <a>)", "(<a> // <a> // <a>)", "{ a = <n>; c = <s>; }", "{ ${<s>} = <n>; b.c = <l>; }", "{ a.b = <n>; a.c = <a>; }", "{ inherit (<a>) a; x = <l>; }",
        "rec { a = <n>; b = a; \"q r\" = <b>; }", "rec { inherit (<a>) d; e = <s>; }", "(builtins.mapAttrs (name: x: { inherit name x; }) <a>)", "(removeAttrs <a> [ \"a\" ])",
        "(builtins.listToAttrs [ { name = <s>; value = <n>; } { name = \"a\"; value = <l>; } ])", "(builtins.intersectAttrs <a> <a>)", "(builtins.tryEval <l>)", "(builtins.tryEval (<f> <a>))",
        "(builtins.parseDrvName <s>)", "(builtins.partition builtins.isString <l>)", "(builtins.groupBy builtins.typeOf <l>)", "(builtins.zipAttrsWith (name: values: { inherit name values; }) [ <a> <a> ])",
        "(g <a>)", "(builtins.functionArgs <f>)", "(builtins.functionArgs g)", "(builtins.getContext <c>)", "{ c = <c>; }", "(builtins.tryEval (assert <b>; <n>))", "(builtins.tryEval (throw <s>))",
        "{ __toString = self: <s>; }", "(let r = rec { a = <n>; b = a; }; in r // { a = <a>; })", "(builtins.fromTOML \"a = 1\\nb = [ 1.5, 'c' ]\\n[d]\\ne = true\")", "(let { body = <a>; b = 1; })",
    ]),
    ('p', &["(<p> + <s>)", "(dirOf <p>)", "(builtins.head [ <p> ])", "(<p> + \"/../b\")"]),
    ('f', &["(x: <n>)", "(if <b> then <f> else <f>)", "({ a ? <n>, b ? a, ... }@c: [ a b (c.d or <s>) ])", "(builtins.add 1)", "({ __functor = self: x: [ x ]; })", "(x: { y = x; })"]),
    ('c', &[
        "(<c> + <s>)", "\"${<c>}${<c>}\"", "(derivation { name = \"e\"; system = \"x\"; builder = \"${<c>}\"; a = <l>; b = <b>; c = <s>; })",
        "(derivation { name = \"e\"; system = \"x\"; builder = \"b\"; args = [ <s> <c> ]; __structuredAttrs = true; t = <a>; })", "(builtins.substring 3 9 <c>)",
        "(builtins.replaceStrings [ \"-\" ] [ <s> ] <c>)", "(builtins.toJSON [ <c> ])",
        "(builtins.toFile \"f\" <s>)", "(builtins.addErrorContext \"a\" <c>)", "(builtins.appendContext <s> (builtins.getContext <c>))",
        "(derivation { name = \"h\"; system = \"x\"; builder = \"b\"; outputHash = builtins.hashString \"sha256\" <s>; outputHashAlgo = \"sha256\"; outputHashMode = \"recursive\"; })",
    ]),
];

/// Forms of any kind.
#[rustfmt::skip]
const GENERAL: &[&str] = &[
    "(if <b> then <=> else <=>)", "(let x = <n>; y = x + 1; in <=>)", "(with <a>; <=>)", "(with { s = <s>; }; with <a>; <=>)", "(({ x ? <n>, s ? \"d\", ... }: <=>) <a>)",
    "(assert <b> || true; <=>)", "(builtins.seq <n> <=>)", "(builtins.deepSeq <a> <=>)", "((x: <=>) <l>)", "(let inherit (<a>) a; f = x: <=>; in f 1)", "(<a>.x or <=>)",
    "(builtins.elemAt [ <=> <n> ] 0)", "(let t = { x = <=>; }; in t.x)",
];

fn of(table: &[(char, &'static [&'static str])], kind: char) -> &'static [&'static str] {
    table.iter().find(|(name, _)| *name == kind).map_or(&[], |(_, list)| list)
}

/// An expression of a kind. Now and then something is wrong on purpose.
fn expression(numbers: &mut Numbers, kind: char, depth: usize) -> String {
    if numbers.below(60) == 0 {
        let wrong = [
            "(throw \"wrong\")",
            "(1 + \"a\")",
            "{ }.a",
            "null",
            "([ ] 1)",
            "(abort \"x\")",
            "(assert false; 1)",
            "(builtins.head [ ])",
        ];
        return numbers.pick(&wrong).to_owned();
    }
    if depth == 0 {
        return numbers.pick(of(&LEAVES, kind)).to_owned();
    }
    let forms = of(&FORMS, kind);
    let number = numbers.below(forms.len() + GENERAL.len() / 2);
    let form = forms.get(number).copied().unwrap_or_else(|| GENERAL[numbers.below(GENERAL.len())]);
    let mut text = String::new();
    let mut rest = form;
    while let Some(start) = rest.find('<') {
        let hole = rest[start + 1..].chars().next().filter(|_| rest[start + 2..].starts_with('>'));
        text.push_str(&rest[..start]);
        match hole {
            Some(hole) => {
                let depth = numbers.below(depth);
                text.push_str(&expression(numbers, if hole == '=' { kind } else { hole }, depth));
                rest = &rest[start + 3..];
            }
            None => {
                text.push('<');
                rest = &rest[start + 1..];
            }
        }
    }
    text.push_str(rest);
    text
}

/// Each of them costs a search.
const MOST_DIFFERENCES: usize = 5;

/// What older versions say otherwise, or do not know.
fn is_known_otherwise(question: &str, version: (u32, u32)) -> bool {
    // Floats in JSON had six digits, integers wrapped around; and attributes were compared in an order that depended on where
    // their names lay in memory, so that one that fails was met or not.
    const WORDS: &[&str] = &[
        "123456789.0",
        "1.0e-7",
        "9223372036854775807",
        "throw",
        "abort",
        "assert false",
        "(1 + \"a\")",
        "{ }.a",
        "([ ] 1)",
        "head [ ]",
    ];
    version < (2, 25) && WORDS.iter().any(|word| question.contains(word))
}

/// The first of these questions whose value is not the same; it is looked for by halves.
fn culprit<'a>(directory: &Path, questions: &'a [String]) -> &'a [String] {
    let mut questions = questions;
    while questions.len() > 1 {
        let (left, right) = questions.split_at(questions.len() / 2);
        questions = if theirs(directory, left) == ours(directory, left) { right } else { left };
    }
    questions
}

#[test]
fn what_is_generated_has_the_value_it_has_in_nix() {
    let Some(version) = nix::version() else {
        eprintln!("skipped: no nix-instantiate on the PATH");
        return;
    };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let wanted = number("GENERATED").unwrap_or(1500) as usize;
    let mut numbers = Numbers(number("GENERATED_SEED").unwrap_or(11));
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut differences = Vec::new();
    for _ in 0..wanted {
        let kind = LEAVES[numbers.below(LEAVES.len())].0;
        let depth = 1 + numbers.below(4);
        let question = expression(&mut numbers, kind, depth);
        if is_known_otherwise(&question, version) {
            continue;
        }
        if std::env::var_os("GENERATED_SHOWN").is_some() {
            eprintln!("{question}");
        }
        let value = ours(directory, std::slice::from_ref(&question));
        if value.is_some() { good.push(question) } else { bad.push(question) }
    }
    for questions in good.chunks(500) {
        let mut rest = questions;
        while !rest.is_empty() && theirs(directory, rest) != ours(directory, rest) {
            let [question] = culprit(directory, rest) else { break };
            let one = std::slice::from_ref(question);
            differences.push(format!(
                "{question}\n  theirs {:?}\n  ours   {:?}",
                theirs(directory, one),
                ours(directory, one)
            ));
            eprintln!("{}", differences.last().map_or("", String::as_str));
            let position = rest.iter().position(|it| it == question).unwrap_or(0);
            rest = &rest[position + 1..];
            if differences.len() >= MOST_DIFFERENCES {
                break;
            }
        }
    }
    // What has no value here has none there either; each ends a whole evaluation, so that few can be asked.
    for question in bad.iter().take(wanted / 100) {
        if let Some(value) = theirs(directory, std::slice::from_ref(question)) {
            differences.push(format!("{question}\n  theirs {value:?}\n  ours   fails"));
        }
    }
    assert!(good.len() > wanted / 2, "too few of them have a value: {} of {wanted}", good.len());
    eprintln!("{} have a value, {} have none", good.len(), bad.len());
    assert!(differences.is_empty(), "Nix {}.{} differs:\n{}", version.0, version.1, differences.join("\n"));
}
