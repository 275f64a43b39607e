//! Mistakes as users make them: each is shown at the user's own words, whatever failed inside the library.

use crate::world::World;

/// An expression with these layers, which begin in line 4, column 14.
fn layers(layers: &str) -> String {
    format!("{{ forge }}:\nforge.formation {{\n  name = \"bad\";\n  layers = [ {layers} ];\n}}\n")
}

/// An expression with this setting, which begins in line 5, column 3.
fn setting(text: &str) -> String {
    format!("{{ forge }}:\nforge.formation {{\n  name = \"bad\";\n  layers = [ ];\n  {text}\n}}\n")
}

#[track_caller]
fn says(expression: &str, line: usize, column: usize, words: &[&str]) {
    let world = World::new();
    world.write("runtime.expr", expression);
    let ran = world.forge(["build", "-q", "--locked"]);
    assert_eq!(ran.code, Some(1), "{expression}\n{}{}", ran.stdout, ran.stderr);
    let place = format!("/project/runtime.expr:{line}:{column}\n");
    assert!(ran.stderr.contains(&place), "{expression}\nnot at {line}:{column}\n{}", ran.stderr);
    for words in words {
        assert!(ran.stderr.contains(words), "{expression}\nnot `{words}`\n{}", ran.stderr);
    }
}

#[test]
fn arguments_of_the_library_are_shown_where_they_are_written() {
    let packages = "`packages` is a list of strings, for instance [ \"python3\" \"git\" ], not a string: \"python3\"";
    says(&layers("(forge.debian { packages = \"python3\"; })"), 4, 30, &[packages]);
    says(&layers("(forge.debian { packages = [ 1 ]; })"), 4, 30, &["not a list: [ 1 ]"]);
    says(
        &layers("(forge.debian { packages = [ ]; siute = 1; })"),
        4,
        46,
        &["argument 'siute'", "did you mean `suite`?"],
    );
    says(&layers("(forge.debian { packges = [ ]; })"), 4, 30, &["'packges'", "did you mean `packages`?"]);
    says(&layers("(forge.python { })"), 4, 15, &["`requirements` is missing, or a `lock`"]);
    says(&layers("(forge.run { script = 1; })"), 4, 27, &["`script` is a text", "not an integer: 1"]);
    says(
        &layers("(forge.run { script = \"a\"; environment = 1; })"),
        4,
        41,
        &["an attribute set", "not an integer: 1"],
    );
    let hash = |text: &str| layers(&format!("(forge.run {{ script = \"a\"; outputHash = {text}; }})"));
    says(&hash("5"), 4, 41, &["`outputHash` is a string"]);
    for text in ["\"sha256-AAAA\"".to_owned(), format!("\"{}\"", "a".repeat(63)), format!("\"{}\"", "A".repeat(64))] {
        says(&hash(&text), 4, 41, &["`outputHash` is the id of what must come out, 64 hexadecimal digits"]);
    }
    says(&layers("(forge.files ./app)"), 4, 15, &["takes an attribute set", "not a path"]);
    says(&layers("(forge.files { \"/app\" = 5; })"), 4, 29, &["/app is a path, a text", "^^^^^^\n"]);
    says(&layers("(forge.files { \"/app\" = ./nowhere; })"), 4, 29, &["/project/nowhere' does not exist", "^^^^^^\n"]);
    says(&layers("(forge.files { \"/a\" = forge.fetchurl { url = 5; }; })"), 4, 53, &["`url` is a string"]);
    says(&layers("null"), 4, 3, &["a layer is what forge.debian"]);
}

#[test]
fn targets_of_files_that_contradict_one_another_are_refused_at_the_second() {
    let files = |files: &str, column: usize, words: &[&str]| {
        says(&layers(&format!("(forge.files {{ {files} }})")), 4, column, words);
    };
    files("\"/x\" = \"a\"; \"/x/y\" = \"b\";", 41, &["`/x/y` lies below `/x`, which is a text"]);
    files("\"/x\" = \"a\"; \"/x/y/z\" = \"b\";", 41, &["`/x/y/z` lies below `/x`"]);
    files("\"/x\" = ./runtime.expr; \"/x/y\" = \"b\";", 52, &["`/x/y` lies below `/x`, which is a file"]);
    files("\"/x\" = \"a\"; \"/x/\" = \"b\";", 41, &["`/x/` is the same path as `/x`"]);
    files("\"//x\" = \"a\"; \"/x\" = \"b\";", 42, &["`/x` is the same path as `//x`"]);
    files("\"/a\" = \"a\"; \"/./b//c\" = \"b\"; \"/b/c\" = \"b\";", 58, &["`/b/c` is the same path as `/./b//c`"]);
    files("\"etc/x\" = \"a\";", 29, &["`etc/x` is no absolute path: one inside a formation starts with `/`"]);
    files("\"\" = \"a\";", 29, &["`` is no absolute path"]);
    files("\"/../x\" = \"a\";", 29, &["`/../x` is no path inside a formation"]);
    files(&format!("\"/{}\" = \"a\";", "x".repeat(256)), 29, &["is no path inside a formation"]);
    files("\"/\" = \"a\";", 29, &["the root is a directory, not a text"]);
}

#[test]
fn more_may_be_put_into_a_directory() {
    let world = World::new();
    world.write("app/a", "a");
    world.write("app/b/c", "c");
    world.write(
        "runtime.expr",
        &layers("(forge.files { \"/\" = ./app; \"/app\" = ./app; \"/app/b/d\" = \"d\"; \"/app/a\" = \"other\"; \"/app-b\" = \"e\"; })"),
    );
    world.forge(["build", "-q"]).ok();
}

#[test]
fn settings_of_a_formation_are_shown_where_they_are_written() {
    says(&setting("enviroment.A = \"1\";"), 5, 3, &["'enviroment'", "did you mean `environment`?"]);
    says(
        &setting("environment = [ \"A=1\" ];"),
        5,
        3,
        &["`environment` is an attribute set", "not a list: [ \"A=1\" ]"],
    );
    says(&setting("environment.A = { };"), 5, 3, &["cannot coerce a set to a string"]);
    says(&setting("limits = \"1G\";"), 5, 3, &["`limits` is an attribute set"]);
    says(&setting("limits.memroy = \"1G\";"), 5, 3, &["limits has no `memroy`: there are cpus, memory"]);
    // More bytes, milliseconds and thousandths than a number can be.
    for text in [
        "memory = \"9999999T\"",
        "memory = \"99999999999999999999\"",
        "timeout = \"9000000000000000000d\"",
        "timeout = 9223372036854775807",
        "cpus = 9223372036854775807",
        "cpus = 1.0e300",
    ] {
        says(&setting(&format!("limits.{text};")), 5, 3, &[" is a ", ", not a"]);
    }
    says(&setting("network = \"host\";"), 5, 3, &["expected a Boolean but found a string: \"host\""]);
    for version in ["1.0 beta", "1@3", "a/b", "1:2", "\\n", &"1".repeat(65)] {
        says(&setting(&format!("version = \"{version}\";")), 5, 3, &["is no version for a formation: letters, digits"]);
    }
    says(&setting("command = [ 1 ];"), 5, 3, &["`command` is a list of strings"]);
}

#[test]
fn mistakes_in_the_user_s_own_words_are_shown_there() {
    let own = |text: &str| layers("").replacen("forge.formation", &format!("{text}\nforge.formation"), 1);
    let deep = "let tools.python.packages = [ ]; in";
    let text = own(deep).replace("[  ]", "[ (forge.debian { packages = tools.pyhton.packages; }) ]");
    says(&text, 5, 47, &["attribute 'pyhton' missing", "did you mean `python`?", "outside your files: --show-trace"]);
    let text = own("let a = b + 1; b = a + 1; in").replace("\"bad\"", "\"x${toString a}\"");
    says(&text, 2, 20, &["infinite recursion encountered"]);
    says(&own("assert 1 == 2;"), 2, 1, &["value '1' is not equal to an integer"]);
    says(
        &own("let f = { suite, extra ? 1 }: suite; in").replace("[  ]", "[ (f { suite = 1; extar = 2; }) ]"),
        5,
        30,
        &[
            "function 'f' called with unexpected argument 'extar'",
            "the function is defined at ",
            "did you mean `extra`?",
        ],
    );
    says(&layers("(throw \"not yet\")"), 4, 15, &["error: not yet\n"]);
    says(&layers("(abort \"never\")"), 4, 15, &["error message: 'never'"]);
    says(&layers("(builtins.readFile ./nowhere)"), 4, 15, &["/project/nowhere' does not exist"]);
    says(&layers("pakcages"), 4, 14, &["undefined variable 'pakcages'"]);
    says(&layers("").replace("\"bad\"", "\"bad\" + 1"), 3, 16, &["cannot coerce an integer to a string: 1"]);
}

#[test]
fn mistakes_of_syntax_say_what_is_probably_meant() {
    let text = layers("");
    says(&text.replace("\"bad\";", "\"bad\""), 4, 10, &["expecting ';'", "hint: the attribute before it wants a `;`"]);
    says(text.trim_end().trim_end_matches('}'), 2, 17, &["this `{` is not closed", "a `}` is missing"]);
    says(&text.replace("\"bad\"", "\"bad"), 3, 10, &["this `\"` is not closed"]);
    says(&text.replace("[  ]", "[ "), 4, 14, &["the `[` of line 4, column 12 is not closed"]);
    says(&text.replace("name =", "name =="), 3, 8, &["defined with a single `=`"]);
    says(&text.replace("name =", "name:"), 3, 7, &["an attribute is written `name = value;`"]);
    says(&text.replace("\"bad\"", "if forge = 1 then 2 else 3"), 3, 19, &["`==` compares"]);
    says(&text.replace("\"bad\"", "if true then 2"), 3, 24, &["every `if … then …` has an `else`"]);
    says(&layers("1, 2"), 4, 15, &["blanks between them, not commas"]);
    says(&text.replacen("forge.formation", "let a = 1;\nforge.formation", 1), 3, 17, &["a `let` ends in `in`"]);
}

#[test]
fn the_whole_trace_is_shown_if_asked() {
    let world = World::new();
    world.write("runtime.expr", &layers("(forge.debian { packages = \"python3\"; })"));
    let ran = world.forge(["build", "-q", "--show-trace"]);
    assert!(
        ran.stderr.contains(" at <forge library: debian>:") && !ran.stderr.contains("outside your files"),
        "{}",
        ran.stderr
    );
    world.write("elsewhere/lib.nix", "{ f = x: x.missing; }");
    world.write("inner/forge.toml", "");
    world.write("inner/a.expr", "let lib = import <elsewhere>; in {\n  value = lib.f { };\n}\n");
    let elsewhere = format!("elsewhere={}", world.path("project/elsewhere/lib.nix").display());
    let ran = world.forge(["eval", "inner/a.expr", "-A", "value", "-I", &elsewhere]);
    assert!(ran.stderr.contains("/inner/a.expr:2:") && ran.stderr.contains("outside your files"), "{}", ran.stderr);
    let ran = world.forge(["eval", "inner/a.expr", "-A", "value", "-I", &elsewhere, "--show-trace"]);
    assert!(ran.stderr.contains("elsewhere/lib.nix:1:"), "{}", ran.stderr);
}

#[test]
fn a_check_finds_everything_at_once() {
    let world = World::new();
    world.write(
        "runtime.expr",
        "{ forge, extra }:\nlet\n  unused = 1;\n  a = [ 1, 2 ];\n  b = ;\nin\nimport ./other.expr { inherit a; }\n",
    );
    world.write("other.expr", "{ a }: { inherit undefined; inherit a; }\n");
    let ran = world.forge(["check", "--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let json = ran.json();
    let lines: Vec<_> =
        json["findings"].as_array().unwrap().iter().map(|found| found["place"]["line"].clone()).collect();
    assert_eq!(lines, [4, 5, 1], "{json}");
    world.write("runtime.expr", "{ forge, extra }:\nlet\n  unused = 1;\nin\nforge\n");
    let ran = world.forge(["check"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("argument `extra` is not used") && ran.stderr.contains("binding `unused` is not used"));
}
