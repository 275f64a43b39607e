use super::*;

fn environment(directory: &Path) -> Environment {
    Environment {
        directory: directory.to_owned(),
        sources: Sources::impure(directory),
        system: "x86_64-linux".to_owned(),
        lock: Lock::default(),
        arguments: Vec::new(),
        listener: None,
    }
}

fn session<T: Send>(work: impl FnOnce(Session) -> T + Send) -> T {
    begin(environment(Path::new("/")), work)
}

fn plain(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text.as_str()).collect()
}

#[track_caller]
fn shown(session: &mut Session, text: &str) -> String {
    plain(&session.show(text, false).unwrap())
}

fn message(trouble: Trouble) -> String {
    match trouble {
        Trouble::Wrong(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_was_bound_is_seen_later() {
    session(|mut session| {
        for text in ["a = 1; b = 2;", "inherit ({ c = 3; }) c", "d.e.f = a + b + c", "a = 10"] {
            assert_eq!(session.read(text), Reading::Bindings, "{text}");
            session.bind(text).unwrap();
        }
        // A binding sees what was there when it was made.
        assert_eq!(shown(&mut session, "d.e.f"), "6");
        assert_eq!(shown(&mut session, "a"), "10");
        assert_eq!(message(session.bind("f = n: f n").unwrap_err()), "undefined variable 'f'");
    });
}

#[test]
fn a_beginning_is_told_from_a_mistake() {
    session(|session| {
        for text in
            ["x = ''\n  hello", "{", "[ 1", "let a = 1;", "1 +", "\"text", "x = {", "f: if a then", "inherit (a"]
        {
            assert_eq!(session.read(text), Reading::Incomplete, "{text}");
        }
        for text in ["", "  \n", "# words", "  # words\n"] {
            assert_eq!(session.read(text), Reading::Nothing, "{text}");
        }
        for text in [")", "{ a = 1 b = 2; }", "a = ;", "1 = 2"] {
            assert!(matches!(session.read(text), Reading::Wrong(_)), "{text}");
        }
        for text in ["1", "x: x", "a == b", "{ a = 1; }"] {
            assert_eq!(session.read(text), Reading::Expression, "{text}");
        }
    });
}

/// As Nix 2.34.8 prints them.
#[test]
fn values_are_shown_as_nix_shows_them() {
    session(|mut session| {
        let text = "{ a = { b = 2; }; l = [ 1 2 3 ]; s = \"string\"; n = 1234; f = x: x; e = throw \"no\"; }";
        let expected = "{\n  a = { ... };\n  e = «error: no»;\n  f = «lambda f@ «repl»:1:62»;\n  l = [ ... ];\n  n = 1234;\n  s = \"string\";\n}";
        assert_eq!(shown(&mut session, text).replace("f @", "f@"), expected);
        assert_eq!(shown(&mut session, "{ homepage = \"x\"; }"), "{ homepage = \"x\"; }");
        assert_eq!(shown(&mut session, "{ a = { b = 1; }; }"), "{\n  a = { ... };\n}");
        assert_eq!(shown(&mut session, "let x = { y = 1; inherit x; }; in x"), "{\n  x = «repeated»;\n  y = 1;\n}");
        let text = "{ a = { b = 2; }; x = rec { y = { z = { inherit y; }; }; }; }";
        let whole = plain(&session.show(text, true).unwrap());
        assert_eq!(
            whole,
            "{\n  a = { b = 2; };\n  x = {\n    y = {\n      z = {\n        y = «repeated»;\n      };\n    };\n  };\n}"
        );
        assert_eq!(plain(&session.show("\"a\\nb\"", true).unwrap()), "a\nb");
        let derivation = "derivation { name = \"x\"; builder = \"b\"; system = \"s\"; }";
        let expected = "«derivation /nix/store/5wq5jx7219pmi3xklyhl77fjbqvy6qaj-x.drv»";
        assert_eq!(shown(&mut session, derivation), expected);
        assert_eq!(session.kind("1.5").unwrap(), "a float");
        assert_eq!(session.json("{ a = [ 1 ]; }").unwrap(), b"{\"a\":[1]}");
    });
}

#[test]
fn a_value_without_end_is_shown_as_far_as_there_is_room() {
    session(|mut session| {
        session.bind("f = { f }: n: { inherit n; next = f { inherit f; } (n + 1); }").unwrap();
        let result = session.show("f { inherit f; } 0", true);
        assert!(result.is_ok() || matches!(result, Err(Trouble::Wrong(_))));
        assert_eq!(shown(&mut session, "1 + 1"), "2");
    });
}

#[test]
fn a_failure_does_not_end_the_session() {
    session(|mut session| {
        session.bind("x = throw \"no\"").unwrap();
        assert_eq!(message(session.show("x", false).unwrap_err()), "no");
        assert_eq!(message(session.show("{ a = 1; }.b", false).unwrap_err()), "attribute 'b' missing");
        assert_eq!(shown(&mut session, "1"), "1");
    });
}

#[test]
fn an_interrupted_evaluation_begins_again_when_it_is_asked_for_again() {
    session(|mut session| {
        let interrupter = session.interrupter();
        let sum = "builtins.foldl' (a: b: builtins.foldl' (c: d: c + d) a (builtins.genList (x: x) 1000)) 0";
        session.bind(&format!("wait = {sum} (builtins.genList (x: x) 1000000)")).unwrap();
        for _ in 0..2 {
            let thread = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(100));
                interrupter.interrupt();
            });
            assert_eq!(session.show("wait", false).unwrap_err(), Trouble::Interrupted);
            thread.join().unwrap();
        }
        assert_eq!(shown(&mut session, "1 + 1"), "2");
    });
}

#[test]
fn files_are_loaded_and_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.expr");
    std::fs::write(&file, "{ forge, number ? 1 }: { inherit number; library = forge ? formation; }").unwrap();
    begin(environment(directory.path()), |mut session| {
        assert_eq!(session.load(Path::new("a.expr")).unwrap(), ["library", "number"]);
        assert_eq!(shown(&mut session, "[ number library ]"), "[\n  1\n  true\n]");
        std::fs::write(&file, "{ number = 2; }").unwrap();
        session.bind("other = 1").unwrap();
        let again = session.reload();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].1.as_ref().unwrap(), &["number"]);
        assert_eq!(shown(&mut session, "number"), "2");
        assert_eq!(message(session.show("other", false).unwrap_err()), "undefined variable 'other'");
        assert!(message(session.load(Path::new("none.expr")).unwrap_err()).contains("does not exist"));
    });
}

#[test]
fn words_are_completed() {
    session(|mut session| {
        session.bind("outer = { inner = { a = 1; \"b c\" = 2; }; }").unwrap();
        assert_eq!(session.complete("1 + out"), (4, vec!["outer".to_owned()]));
        assert_eq!(session.complete("outer.i"), (0, vec!["outer.inner".to_owned()]));
        assert_eq!(
            session.complete("(outer.inner."),
            (1, vec!["outer.inner.a".to_owned(), "outer.inner.\"b c\"".to_owned()])
        );
        assert!(session.complete("builtins.mapA").1.contains(&"builtins.mapAttrs".to_owned()));
        assert!(session.complete("forge.").1.contains(&"forge.formation".to_owned()));
        assert_eq!(session.complete("outer.none.x").1, Vec::<String>::new());
        assert_eq!(session.complete("").0, 0);
    });
}

#[test]
fn what_is_written_about_something_is_found() {
    session(|mut session| {
        session.bind("lib = {\n  /**\n    Adds.\n  */\n  add = a: b: a + b;\n\n  /** Fixed. */\n  version = \"1\";\n  plain = 1;\n}").unwrap();
        let mut text = |of: &str| session.documentation(of).unwrap().map(|found| (found.title, found.text));
        let pair = |title: &str, text: &str| Some((title.to_owned(), text.to_owned()));
        assert_eq!(text("lib.add"), pair("function `add`", "Adds."));
        assert_eq!(text("lib.add 1"), pair("function `add`", "Adds."));
        assert_eq!(text("lib.version"), pair("attribute `version`", "Fixed."));
        assert_eq!(text("lib.plain"), pair("attribute `plain`", ""));
        assert!(text("map").is_some_and(|(title, _)| title == "builtins.map function list"));
        assert_eq!(text("1"), None);
        let place = session.place("lib.add").unwrap().unwrap();
        assert_eq!(place.line_and_column(), (5, 9));
    });
}
