use super::*;
use crate::aterm::read;

/// What Nix wrote for `fixtures/expressions/derivations`, by path.
fn fixtures() -> BTreeMap<StorePath, Derivation> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/expressions/derivations");
    let mut derivations = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "drv") {
            let base_name = path.file_name().unwrap().to_str().unwrap();
            let name = base_name[33..].strip_suffix(".drv").unwrap();
            let derivation = read(name, &std::fs::read(&path).unwrap()).unwrap();
            derivations.insert(StorePath::parse(&format!("/nix/store/{base_name}")).unwrap(), derivation);
        }
    }
    derivations
}

/// The derivation as an evaluator has it before it knows any path of its outputs.
fn without_paths(derivation: &Derivation) -> Derivation {
    let mut derivation = derivation.clone();
    for (name, output) in &mut derivation.outputs {
        output.path = None;
        derivation.environment.remove(name.as_bytes());
    }
    derivation
}

#[test]
fn every_derivation_gets_the_paths_that_nix_gave_it() {
    let fixtures = fixtures();
    let mut namer = Namer::default();
    let mut left: Vec<_> = fixtures.keys().collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|path| {
            let expected = &fixtures[*path];
            let mut derivation = without_paths(expected);
            match namer.finish(&mut derivation) {
                Err(ModuloError::UnknownInput { .. }) => true,
                named => {
                    assert_eq!(&derivation, expected);
                    assert_eq!(named, Ok(((*path).clone(), write(expected))));
                    false
                }
            }
        });
        assert!(left.len() < before, "{left:?} use something that is not there");
    }
}

#[test]
fn what_depends_on_a_floating_output_refers_to_it_by_a_placeholder() {
    let fixtures = fixtures();
    let (path, _) = fixtures.iter().find(|(path, _)| path.name() == "floating.drv").unwrap();
    let (_, user) = fixtures.iter().find(|(path, _)| path.name() == "on-floating.drv").unwrap();
    let value = |name: &[u8]| String::from_utf8(user.environment[name].clone()).unwrap();
    assert_eq!(value(b"a"), store_path::upstream_placeholder(path, "out"));
    assert_eq!(value(b"b"), store_path::upstream_placeholder(path, "dev"));
}

#[test]
fn outputs_that_make_no_store_path_are_refused() {
    let mut derivation = without_paths(fixtures().values().find(|derivation| derivation.name == "simple").unwrap());
    derivation.outputs.insert("a b".into(), Output { path: None, fixed: None });
    assert!(matches!(Namer::default().finish(&mut derivation), Err(ModuloError::Path(_))));
}
