//! What every format must do: over [`ALL`], whatever is in it.

use proptest::prelude::*;

use super::testing::{World, trees};
use super::*;

/// Packs a formation into a file of its own.
fn packed(world: &World, format: &dyn Format, id: FormationId) -> PathBuf {
    let path = world.directory.path().join(format!("artifact.{}", format.extension()));
    let mut file = File::create(&path).unwrap();
    format.pack(&world.store, id, &Options::default(), &mut file).unwrap();
    path
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_is_read_back_by_whoever_has_nothing_else(tree in trees()) {
        let here = World::new();
        let id = here.formation(here.keep(&tree));
        let formation = here.store.formation(id).unwrap();
        for format in ALL.iter().copied() {
            let artifact = Artifact::open(&packed(&here, format, id)).unwrap();
            prop_assert!(format.recognises(&artifact), "{}", format.name());
            prop_assert_eq!(of(&artifact).unwrap().name(), format.name());
            let inspection = inspect(artifact.path()).unwrap();
            prop_assert_eq!(inspection.formation.as_ref(), Some(&formation));
            prop_assert_eq!(inspection.size, artifact.size());
            let elsewhere = World::new();
            let imported = read(&elsewhere.store, &artifact, &Bounds::for_size(artifact.size())).unwrap();
            prop_assert_eq!(imported.root, formation.root, "{}", format.name());
            prop_assert_eq!(imported.formation.as_ref(), Some(&formation));
            prop_assert_eq!(&imported.dropped, &Dropped::default());
            prop_assert!(elsewhere.store.verify().unwrap().is_empty());
            prop_assert_eq!(elsewhere.store.extent(imported.root).unwrap(), here.store.extent(formation.root).unwrap());
        }
    }
}

#[test]
fn times_are_written_as_iso_8601_has_them() {
    let texts = [0, TIME, 951_826_154, u32::MAX].map(time_text);
    let expected = ["1970-01-01T00:00:00Z", "1980-01-02T00:00:00Z", "2000-02-29T12:09:14Z", "2106-02-07T06:28:15Z"];
    assert_eq!(texts, expected);
}

#[test]
fn what_is_taken_within_bounds_is_counted_together() {
    let mut bounds = Bounds { bytes: 10, entries: 3, depth: 2 };
    assert_eq!(bounds.take(4, 3), Err("it is too deep"));
    assert_eq!((bounds.take(4, 2), bounds.take(6, 0)), (Ok(()), Ok(())));
    assert_eq!(bounds.take(1, 1), Err("with it there are more bytes than are allowed"));
    assert_eq!(bounds.take(0, 1), Err("with it there are more entries than are allowed"));
}
