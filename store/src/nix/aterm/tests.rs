use super::*;
use proptest::prelude::*;

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/expressions/derivations");
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts = entries.filter(|path| path.extension().is_some_and(|extension| extension == "drv"));
    texts
        .map(|path| (path.file_stem().unwrap().to_str().unwrap()[33..].to_owned(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn what_nix_wrote_reads_back_and_is_written_the_same() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 13);
    for (name, text) in fixtures {
        let derivation = read(&name, &text).unwrap();
        assert_eq!(write(&derivation), text, "{name}");
    }
}

#[test]
fn a_text_that_nix_would_spell_otherwise_is_refused() {
    let good = r#"Derive([("out","","","")],[],[],"x","y",["\n"],[("a","1"),("b","2")])"#;
    assert!(read("x", good.as_bytes()).is_ok());
    let bad = [
        good.replace(r#"("a","1"),("b","2")"#, r#"("b","2"),("a","1")"#),
        good.replace(r#"("b","2")"#, r#"("a","2")"#),
        good.replace("\\n", "\n"),
        good.replace("\\n", "\\x"),
        good.replace(r#"("out","","","")"#, r#"("out","","","00")"#),
        good.replace(r#"("out","","","")"#, r#"("out","","r:sha256","00")"#),
        good.replace(r#"("out","","","")"#, r#"("out","/tmp/x","","")"#),
        format!("{good}\n"),
    ];
    for bad in bad {
        assert!(read("x", bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_in_the_environment_read_back(
        builder: Vec<u8>,
        arguments: Vec<Vec<u8>>,
        environment: BTreeMap<Vec<u8>, Vec<u8>>,
    ) {
        let derivation = Derivation {
            name: "x".into(),
            outputs: [("out".into(), Output { path: None, fixed: None })].into(),
            input_derivations: BTreeMap::new(),
            input_sources: BTreeSet::new(),
            system: b"x86_64-linux".to_vec(),
            builder,
            arguments,
            environment,
        };
        prop_assert_eq!(read("x", &write(&derivation)), Ok(derivation));
    }

    #[test]
    fn no_text_is_too_odd_to_be_looked_at(at in 0..600_usize, cut in 0..600_usize, byte: u8) {
        for (name, mut text) in fixtures().into_iter().take(2) {
            let length = text.len();
            text[at % length] = byte;
            let _ = read(&name, &text);
            let _ = read(&name, &text[..cut % length]);
        }
    }
}
