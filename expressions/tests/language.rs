//! The language, by example: what expressions in `fixtures/expressions/language` give or say is written beside or in them. What they
//! give was compared with Nix 2.34.8.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use expressions::frontend::{Invocation, nix_instantiate};
use expressions::{Format, Input, Request, Sources, check, eval_to};
use store::lock::Lock;

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/expressions/language").join(folder);
    let entries = std::fs::read_dir(folder.canonicalize().unwrap()).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "nix"));
    files.sort();
    files
}

fn request(file: &Path) -> Request {
    Request {
        input: Input::File(file.to_owned()),
        attribute: String::new(),
        arguments: Vec::new(),
        system: "x86_64-linux".to_owned(),
        sources: Sources::pure(file.parent().unwrap()),
        listener: None,
    }
}

fn invocation(arguments: &[&str], directory: &Path) -> Invocation {
    Invocation {
        arguments: arguments.iter().map(Into::into).collect(),
        directory: directory.to_owned(),
        environment: [("GIVEN".into(), "yes".into())].into(),
        input: b"{ a ? 1, ... }@all: -a".to_vec(),
        terminal: false,
        system: "x86_64-linux".to_owned(),
        time: 1,
        recorder: None,
        lock: Lock::default(),
        fetched: BTreeMap::new(),
    }
}

fn printed(arguments: &[&str]) -> String {
    let printed = nix_instantiate(&invocation(arguments, Path::new("/")));
    String::from_utf8([printed.output, printed.errors].concat()).unwrap()
}

#[test]
fn values_are_what_nix_says() {
    for file in fixtures("okay") {
        let expected = std::fs::read_to_string(file.with_extension("expected")).unwrap();
        let outcome = eval_to(&request(&file), &Lock::default(), Format::Nix, true);
        let expressions::Outcome::Done(output) =
            outcome.unwrap_or_else(|error| panic!("{}: {error:?}", file.display()))
        else {
            panic!("{} asks the lock", file.display())
        };
        assert_eq!(String::from_utf8_lossy(&output), expected.trim_end(), "{}", file.display());
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let mut wrong = String::new();
    for file in fixtures("fail") {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# ").unwrap();
        let error = eval_to(&request(&file), &Lock::default(), Format::Nix, true).unwrap_err();
        let finding = &error.findings[0];
        let place = finding.place.as_ref().map_or("nowhere".to_owned(), |place| {
            let (line, column) = place.line_and_column();
            format!("{line}:{column}")
        });
        let hint = finding.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        let folder = format!("{}/", file.parent().unwrap().display());
        let actual = format!("{} ({place}{hint})", finding.message.replace(&folder, "")).replace('\n', " ");
        if actual != expected {
            wrong += &format!("{}\n  expected {expected}\n  actually {actual}\n", file.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn arguments_of_the_program_are_those_of_nix() {
    assert_eq!(printed(&["--parse", "-"]), "({ a ? 1, ... } @ all: (__sub 0 a))\n");
    assert_eq!(printed(&["--eval", "-", "--arg", "a", "2 + 3"]), "-5\n");
    assert_eq!(printed(&["--eval", "--json", "-E", "{ b = [ 1.5 null ]; }.b"]), "[1.5,null]\n");
    assert_eq!(printed(&["--eval", "-E", "builtins.getEnv \"GIVEN\""]), "\"yes\"\n");
    assert_eq!(
        printed(&["--eval", "-A", "a.1", "-E", "{ a = [ 1 { b = 2; c = 1 + 1; } ]; }"]),
        "{ b = 2; c = <CODE>; }\n"
    );
    assert_eq!(
        printed(&[
            "-E",
            "rec { x = derivation { name = \"a\"; builder = \"b\"; system = \"c\"; }; y = { inherit x; }; }"
        ])
        .lines()
        .collect::<Vec<_>>(),
        ["/nix/store/arhvjaf6zmlyn8vh8fgn55rpwnxq0n7l-a.drv"]
    );
    assert_eq!(
        printed(&["--eval", "-E", "x"]),
        "error: undefined variable 'x'\n       at «string»:1:1:\n            1| x\n             | ^\n"
    );
}

#[test]
fn depth_is_an_error_and_no_crash() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(30_000), close.repeat(30_000));
    let texts = [
        deep("(", ")"),
        deep("[", "]"),
        deep("{ a = ", "; }"),
        deep("x: ", ""),
        deep("1 + ", ""),
        deep("- ", ""),
        deep("\"${", "}\""),
        "let f = x: f (x + 1); in f 0".to_owned(),
        "let x = { a = x; b = [ x ]; }; in builtins.toJSON x".to_owned(),
        "builtins.foldl' (a: b: { inherit a b; }) null (builtins.genList (x: x) 200000)".to_owned(),
    ];
    for text in texts {
        let printed = nix_instantiate(&invocation(&["--eval", "--strict", "-E", &text], Path::new("/")));
        assert!(printed.code == 0 || !printed.errors.is_empty());
    }
}

#[test]
fn what_nobody_uses_is_a_warning_and_what_nobody_explains_an_error() {
    let project = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(project.path().join(name), text).unwrap();
    write("main.nix", "{ forge, unused ? 1 }:\nlet a = 1; b = a; _c = 2; in\nimport ./other.nix + fogre");
    write("other.nix", "let x = 1; in { inherit (x) y; z = nothing; }");
    let findings = check(&project.path().join("main.nix"), &Sources::pure(project.path()));
    let texts = findings.iter().map(|finding| {
        let (line, column) = finding.place.as_ref().unwrap().line_and_column();
        format!("{line}:{column} {} {:?}", finding.message, finding.hint)
    });
    insta::assert_snapshot!(texts.collect::<Vec<_>>().join("\n"), @r#"
    1:3 argument `forge` is not used None
    1:10 argument `unused` is not used None
    2:12 binding `b` is not used None
    3:22 undefined variable 'fogre' Some("did you mean `forge`?")
    1:36 undefined variable 'nothing' None
    "#);
}

#[test]
fn files_outside_the_project_are_not_read() {
    let project = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), project.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/", project.path().join("root")).unwrap();
    let secret = outside.path().display().to_string();
    let reads = [
        format!("builtins.readFile {secret}"),
        format!("builtins.readFile \"{secret}\""),
        "builtins.readFile ./link".to_owned(),
        "builtins.readDir ./root/etc".to_owned(),
        "builtins.readDir ./..".to_owned(),
        "import ./root/etc/passwd".to_owned(),
        "builtins.hashFile \"sha256\" ./link".to_owned(),
        format!("\"${{{secret}}}\""),
        "builtins.path { path = ./root/etc/hostname; }".to_owned(),
    ];
    for read in reads {
        let file = project.path().join("main.nix");
        std::fs::write(&file, &read).unwrap();
        let error = eval_to(&request(&file), &Lock::default(), Format::Nix, true).expect_err(&read);
        assert!(error.findings[0].message.contains("is forbidden in pure evaluation mode"), "{read}: {error:?}");
    }
}
