use super::*;
use crate::error::Severity;

/// What is found in a text: lines, columns and messages.
fn found(text: &str) -> Vec<String> {
    let sources = Sources::pure("/nowhere");
    let findings = check_text(PathBuf::from("a.expr"), text.as_bytes().to_vec(), Path::new("/nowhere"), &sources);
    let words = findings.iter().map(|finding| {
        let place = finding.place.as_ref().map(|place| place.line_and_column()).unwrap_or_default();
        let kind = if finding.severity == Severity::Error { "error" } else { "warning" };
        format!("{}:{} {kind}: {}", place.0, place.1, finding.message)
    });
    words.collect()
}

#[test]
fn reading_goes_on_after_a_mistake() {
    let text = "{\n  a = 1\n  b = 2;\n  c = [ 1, 2, 3 ];\n  d: 4;\n  e == 5;\n  f = if a = 1 then 2 else 3;\n  g = (1 + );\n  h = 1;\n  h = 2;\n  i = undefined;\n}\n";
    assert_eq!(
        found(text),
        [
            "3:5 error: syntax error, unexpected '=', expecting ';'",
            "4:10 error: syntax error, unexpected ','",
            "4:13 error: syntax error, unexpected ','",
            "5:4 error: syntax error, unexpected ':', expecting '.' or '='",
            "6:5 error: syntax error, unexpected '==', expecting '.' or '='",
            "7:12 error: syntax error, unexpected '=', expecting 'then'",
            "7:10 error: undefined variable 'a'",
            "8:12 error: syntax error, unexpected ')'",
            "10:3 error: attribute 'h' already defined at a.expr:9:3",
            "11:7 error: undefined variable 'undefined'",
        ]
        .map(str::to_owned)
        .into_iter()
        .fold(Vec::new(), |mut sorted: Vec<String>, line| {
            // By place.
            let key = |line: &str| {
                let (place, _) = line.split_once(' ').unwrap();
                let (line, column) = place.split_once(':').unwrap();
                (line.parse::<usize>().unwrap(), column.parse::<usize>().unwrap())
            };
            let at = sorted.iter().position(|other| key(other) > key(&line)).unwrap_or(sorted.len());
            sorted.insert(at, line);
            sorted
        })
    );
}

#[test]
fn a_name_that_a_repair_took_away_is_not_reported() {
    assert_eq!(
        found("let\n  a = (;\n  b = 1;\nin a + b + c"),
        ["2:8 error: syntax error, unexpected ';'", "4:12 error: undefined variable 'c'"]
    );
}

#[test]
fn what_cannot_be_mended_is_still_reported() {
    for text in [
        "{ a = 1;",
        "[ 1",
        "\"a",
        "(",
        "}",
        "let a = 1;",
        "{ a = ${ }; }",
        "{ a = \"${ ) }\"; b = ; }",
        "a b = c",
        "if",
        ";",
        "{ , }",
        "{ a, a }: a",
        "x: { a = [ }; b = ]; }",
        "{\u{0}}",
    ] {
        let found = found(text);
        assert!(!found.is_empty() && found.len() < 4, "{text}: {found:?}");
    }
}

#[test]
fn names_that_nobody_uses_are_warned_of() {
    let text = "{ used, unused ? 1, _ignored, ... }:\nlet\n  binding = 1;\n  inherit (used) taken;\nin\nwith used;\nx: y: [ x (with used; z) (with used; builtins.length [ ]) ]";
    assert_eq!(
        found(text),
        [
            "1:9 warning: argument `unused` is not used",
            "3:3 warning: binding `binding` is not used",
            "4:18 warning: binding `taken` is not used",
            "7:4 warning: parameter `y` is not used",
            "7:27 warning: nothing is taken from the set of this `with`",
        ]
    );
    // The whole argument stands for its parts; a recursive set's attributes are for others.
    assert_eq!(found("all@{ a, b }: all"), Vec::<String>::new());
    assert_eq!(found("rec { a = 1; b = 2; }"), Vec::<String>::new());
    assert_eq!(found("let a = b; b = 1; in a"), Vec::<String>::new());
}

#[test]
fn what_is_imported_is_looked_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("a.nix", "{ x = import ./b.nix; y = builtins.import ./c.nix 1; z = import ./none.nix; }");
    write("b.nix", "import ./a.nix + undefined");
    write("c.nix", "{ a = ; }");
    let findings = check(&directory.path().join("a.nix"), &Sources::pure(directory.path()));
    let words: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(words.len(), 3, "{words:?}");
    assert_eq!(words[0], "undefined variable 'undefined'");
    assert!(words[1].starts_with("syntax error, unexpected ';'") && words[2].contains("does not exist"), "{words:?}");
}
