//! Layers over layers: what is written is read back, what others write is read by the rules, and what is hostile harms nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;

use super::descriptor::{Descriptor, Digest, Index, Manifest, media, to_json};
use super::*;
use crate::directory::{LayerRecord, Record};
use crate::format::tar::read::Archive;
use crate::format::testing::{World, trees};
use crate::format::{Compression, read as read_artifact};
use crate::{Delta, DeltaId, Error, File, Formation, Metadata, Name, Node, RelativePath, Tree, TreeId};

fn path(text: &str) -> RelativePath {
    RelativePath::parse(text.as_bytes()).unwrap()
}

/// A formation whose record lists these deltas.
fn layered(world: &World, deltas: &[DeltaId]) -> FormationId {
    let root = world.store.merge(deltas).unwrap();
    let bare = world.store.formation(world.formation(root)).unwrap();
    let record = |(number, id): (usize, &DeltaId)| LayerRecord {
        label: format!("layer {number}"),
        delta: id.to_string(),
        size: 0,
        files: 0,
    };
    let record = Record { layers: deltas.iter().enumerate().map(record).collect(), ..Record::default() };
    // A name of its own: the first record of a formation stays.
    let formation = Formation { name: format!("layered{}", deltas.len()), ..bare };
    world.store.put_formation(&formation, &record).unwrap()
}

fn packed(world: &World, id: FormationId, name: &str) -> std::path::PathBuf {
    let path = world.directory.path().join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    Oci.pack(&world.store, id, &Options::default(), &mut file).unwrap();
    path
}

fn import(world: &World, path: &Path) -> Result<Imported> {
    let artifact = Artifact::open(path).unwrap();
    read_artifact(&world.store, &artifact, &Bounds::for_size(artifact.size()))
}

/// The digests of the layers before they were compressed.
fn diff_ids(path: &Path) -> Vec<Digest> {
    let parts = Parts::open(&Artifact::open(path).unwrap(), None).unwrap();
    parts.find(&Wanted::default()).unwrap().config.rootfs.diff_ids
}

/// The names in each layer, in order.
fn names(path: &Path) -> Vec<Vec<String>> {
    let parts = Parts::open(&Artifact::open(path).unwrap(), None).unwrap();
    let layers = parts.find(&Wanted::default()).unwrap().layers;
    let list = |layer: &Layer| {
        let Layer::Part(descriptor) = layer else { panic!("a part") };
        let mut archive = Archive::new(crate::format::unpacked(parts.stream(descriptor).unwrap()).unwrap().1);
        let mut names = Vec::new();
        while let Some(entry) = archive.next().unwrap() {
            names.push(format!("{} {:o}", String::from_utf8_lossy(&entry.path), entry.mode));
        }
        names
    };
    layers.iter().map(list).collect()
}

fn file(world: &World, text: &str) -> Node {
    let blob = world.store.put_blob(text.as_bytes(), false).unwrap();
    Node::File(File { blob, size: text.len() as u64, metadata: Metadata::root(0o644) })
}

fn tree<const N: usize>(world: &World, mode: u16, entries: [(&str, Node); N]) -> TreeId {
    let entries = entries.into_iter().map(|(name, node)| (Name::new(name).unwrap(), node)).collect();
    world.store.put_tree(&Tree { metadata: Metadata::root(mode), entries }).unwrap()
}

#[test]
fn what_a_layer_removed_is_whited_out_and_what_it_passed_through_keeps_its_mode() {
    let world = World::new();
    let gone = tree(&world, 0o700, [("a", file(&world, "a")), ("b", file(&world, "b"))]);
    let anew = tree(&world, 0o755, [("old", file(&world, "old"))]);
    let lower = tree(
        &world,
        0o711,
        [
            ("anew", Node::Directory(anew)),
            ("gone", Node::Directory(gone)),
            ("kept", Node::Directory(tree(&world, 0o1777, [("x", file(&world, "x")), ("y", file(&world, "y"))]))),
            ("other", file(&world, "other")),
        ],
    );
    let upper = tree(
        &world,
        0o755,
        [
            ("anew", Node::Directory(tree(&world, 0o750, [("new", file(&world, "new"))]))),
            ("kept", Node::Directory(tree(&world, 0o755, [("z", file(&world, "z"))]))),
            ("other", Node::Directory(tree(&world, 0o755, []))),
        ],
    );
    let removed = ["anew", "gone/a", "kept/x", "not/there", "other"].map(path);
    let passed = ["", "kept"].map(path);
    let delta = Delta { tree: upper, removed: BTreeSet::from(removed), passed: BTreeSet::from(passed) };
    let deltas = [Delta::whole(lower), delta].map(|delta| world.store.put_delta(&delta).unwrap());
    let archive = packed(&world, layered(&world, &deltas), "layered.tar");
    let expected = [
        "./ 711",
        "anew/ 750",
        "anew/.wh..wh..opq 644",
        "anew/new 644",
        "gone/ 700",
        "gone/.wh.a 644",
        "kept/ 1777",
        "kept/.wh.x 644",
        "kept/z 644",
        "other/ 755",
    ];
    assert_eq!(names(&archive)[1], expected);

    let elsewhere = World::new();
    let imported = import(&elsewhere, &archive).unwrap();
    assert_eq!(imported.root, world.store.merge(&deltas).unwrap());
    assert!(imported.formation.is_some());
    assert_eq!(imported.layers.iter().map(|layer| layer.label.as_str()).collect::<Vec<_>>(), ["layer 0", "layer 1"]);
    // From there it goes out again with the same layers.
    let record = Record { layers: imported.layers, ..Record::default() };
    let id = elsewhere.store.put_formation(&imported.formation.unwrap(), &record).unwrap();
    let again = packed(&elsewhere, id, "again.tar");
    assert!(std::fs::read(again).unwrap() == std::fs::read(&archive).unwrap());
    // A second time nothing is compressed: the blobs are there.
    let before = std::fs::metadata(&archive).unwrap().len();
    assert_eq!(std::fs::metadata(packed(&world, layered(&world, &deltas), "second.tar")).unwrap().len(), before);
    // A formation over the same base shares its layer.
    let base = packed(&world, layered(&world, &deltas[..1]), "base.tar");
    assert_eq!(diff_ids(&base), diff_ids(&archive)[..1]);
}

#[test]
fn a_record_that_does_not_give_the_root_is_not_used() {
    let world = World::new();
    let deltas = [tree(&world, 0o755, [("a", file(&world, "a"))]), tree(&world, 0o755, [("b", file(&world, "b"))])];
    let deltas = deltas.map(|tree| world.store.put_delta(&Delta::whole(tree)).unwrap());
    let formation = world.store.formation(world.formation(world.store.merge(&deltas).unwrap())).unwrap();
    for (name, listed) in [
        ("short", deltas[..1].iter().map(DeltaId::to_string).collect()),
        ("gone", vec!["00".repeat(32)]),
        ("odd", vec!["x".to_owned()]),
    ] {
        let layer = |delta: &String| LayerRecord { label: "l".to_owned(), delta: delta.clone(), size: 0, files: 0 };
        let record = Record { layers: listed.iter().map(layer).collect(), ..Record::default() };
        let formation = Formation { name: name.to_owned(), ..formation.clone() };
        let id = world.store.put_formation(&formation, &record).unwrap();
        let archive = packed(&world, id, name);
        assert_eq!(diff_ids(&archive).len(), 1, "{name}");
        assert_eq!(import(&World::new(), &archive).unwrap().formation, Some(formation));
    }
}

/// A directory with an image of these layers (uncompressed tars), as somebody else would make it.
fn foreign(world: &World, name: &str, layers: &[Vec<u8>]) -> std::path::PathBuf {
    let directory = world.directory.path().join(name);
    std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(directory.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        Descriptor::of("", bytes)
    };
    let layers: Vec<Descriptor> =
        layers.iter().map(|layer| Descriptor { media_type: media::LAYER.to_owned(), ..put(layer) }).collect();
    let ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["x"] },
        "rootfs": { "type": "layers", "diff_ids": ids } });
    let config = Descriptor { media_type: media::CONFIG.to_owned(), ..put(&to_json(&config)) };
    let (schema_version, media_type, annotations) = (2, media::MANIFEST.to_owned(), BTreeMap::new());
    let manifest =
        Manifest { schema_version, media_type, artifact_type: None, config, layers, subject: None, annotations };
    let manifest = Descriptor { media_type: media::MANIFEST.to_owned(), ..put(&to_json(&manifest)) };
    std::fs::write(directory.join("oci-layout"), layout::MARKER).unwrap();
    std::fs::write(directory.join("index.json"), to_json(&Index::new(vec![manifest]))).unwrap();
    directory
}

/// A tar of entries: kind, path, content or target.
fn tar(entries: &[(u8, &str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, path, text) in entries {
        let mut block = [0_u8; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[100..108].copy_from_slice(if *kind == b'5' { b"0000700\0" } else { b"0000644\0" });
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        let content = if *kind == b'0' { text.as_bytes() } else { b"" };
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = *kind;
        if *kind != b'0' {
            block[157..157 + text.len()].copy_from_slice(text.as_bytes());
        }
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(block);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

/// The paths of files and links in a tree, with what they hold.
fn flat(world: &World, root: TreeId) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waiting = vec![(String::new(), root)];
    while let Some((path, id)) = waiting.pop() {
        for (name, node) in &world.store.tree(id).unwrap().entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(name.as_bytes()));
            match node {
                Node::Directory(id) => {
                    lines.push(format!("{path}/ {:o}", world.store.tree(*id).unwrap().metadata.mode));
                    waiting.push((path, *id));
                }
                Node::File(file) => {
                    lines.push(format!("{path} {}", String::from_utf8(world.store.blob(file.blob).unwrap()).unwrap()));
                }
                Node::Symlink { target, .. } => lines.push(format!("{path} -> {}", String::from_utf8_lossy(target))),
                _ => lines.push(path),
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn layers_of_others_are_read_by_the_rules() {
    let lower = tar(&[
        (b'5', "usr/", ""),
        (b'5', "usr/bin/", ""),
        (b'0', "usr/bin/a", "a"),
        (b'2', "bin", "usr/bin"),
        (b'5', "opaque/", ""),
        (b'0', "opaque/gone", "x"),
        (b'5', "both/", ""),
        (b'0', "both/hidden", "x"),
        (b'0', "removed", "x"),
        (b'5', "dir/", ""),
        (b'0', "dir/below", "x"),
        (b'5', "dir2/", ""),
        (b'0', "dir2/below", "x"),
    ]);
    let upper = tar(&[
        // Through a link of the layer below, as containerd follows it; a hard link to what lies below.
        (b'0', "bin/b", "b"),
        (b'1', "usr/bin/c", "bin/a"),
        // Opaque after its own entries; a whiteout after its own name: only what is below goes.
        (b'0', "opaque/own", "own"),
        (b'0', "opaque/.wh..wh..opq", ""),
        (b'0', "both/own", "own"),
        (b'0', ".wh.both", ""),
        (b'0', ".wh.removed", ""),
        (b'0', ".wh.never", ""),
        (b'0', "never-made/.wh.x", ""),
        (b'0', ".wh..wh.plnk", ""),
        // A file in place of a directory, and a directory in place of that.
        (b'0', "dir", "file"),
        (b'0', "dir2", "file"),
        (b'5', "dir2/", ""),
        // Twice: the later one counts.
        (b'0', "twice", "1"),
        (b'0', "./twice", "2"),
        (b'0', "/implied/deep/file", "f"),
    ]);
    let world = World::new();
    let imported = import(&world, &foreign(&world, "image", &[lower, upper])).unwrap();
    let expected = [
        "/bin -> usr/bin",
        "/both/ 700",
        "/both/own own",
        "/dir file",
        "/dir2/ 700",
        "/implied/ 755",
        "/implied/deep/ 755",
        "/implied/deep/file f",
        "/opaque/ 700",
        "/opaque/own own",
        "/twice 2",
        "/usr/ 700",
        "/usr/bin/ 700",
        "/usr/bin/a a",
        "/usr/bin/b b",
        "/usr/bin/c a",
    ];
    assert_eq!(flat(&world, imported.root), expected);
    assert_eq!((imported.formation, imported.launch.command), (None, vec![b"x".to_vec()]));
    assert_eq!(imported.platform.as_deref(), Some("linux/amd64"));
}

#[test]
fn what_is_hostile_is_refused_or_stays_inside() {
    let refused: [&[(u8, &str, &str)]; 12] = [
        &[(b'0', "../outside", "x")],
        &[(b'0', "a/../../outside", "x")],
        &[(b'0', "a", "x"), (b'0', "a/b", "x")],
        &[(b'2', "loop", "loop"), (b'0', "loop/x", "x")],
        &[(b'2', "nowhere", "/etc"), (b'0', "nowhere/passwd", "x")],
        &[(b'1', "hard", "/etc/passwd")],
        &[(b'1', "hard", "../../etc/passwd")],
        &[(b'5', "d/", ""), (b'1', "hard", "d")],
        &[(b'0', ".wh.", "")],
        &[(b'0', ".wh...", "")],
        &[(b'0', "../.wh.etc", "")],
        &[(b'2', "empty", "")],
    ];
    for (number, entries) in refused.iter().enumerate() {
        let world = World::new();
        let image = foreign(&world, "image", &[tar(&[(b'0', "base", "x")]), tar(entries)]);
        let error = import(&world, &image).unwrap_err();
        assert!(matches!(error, Error::Archive { .. }), "{number}: {error}");
    }
    let world = World::new();
    let inside = tar(&[
        (b'5', "etc/", ""),
        (b'2', "link", "/../../etc"),
        (b'0', "link/passwd", "x"),
        (b'0', "link/.wh.none", ""),
    ]);
    let imported = import(&world, &foreign(&world, "image", &[inside])).unwrap();
    assert_eq!(flat(&world, imported.root), ["/etc/ 700", "/etc/passwd x", "/link -> /../../etc"]);
}

#[test]
fn what_holds_more_than_is_allowed_is_refused() {
    let world = World::new();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&tar(&[(b'0', "zeros", &"0".repeat(1 << 20))])).unwrap();
    let image = foreign(&world, "image", &[encoder.finish().unwrap()]);
    let artifact = Artifact::open(&image).unwrap();
    let bounds = Bounds { bytes: 1 << 19, entries: 10, depth: 5 };
    assert!(matches!(read_artifact(&world.store, &artifact, &bounds), Err(Error::Archive { .. })));
    let many: Vec<(u8, String, &str)> = (0..20).map(|number| (b'0', number.to_string(), "")).collect();
    let many: Vec<(u8, &str, &str)> = many.iter().map(|(kind, path, text)| (*kind, path.as_str(), *text)).collect();
    let image = foreign(&world, "many", &[tar(&many)]);
    assert!(matches!(
        read_artifact(&world.store, &Artifact::open(&image).unwrap(), &bounds),
        Err(Error::Archive { .. })
    ));
    let image = foreign(&world, "deep", &[tar(&[(b'0', "a/b/c/d/e/f/g", "")])]);
    assert!(matches!(
        read_artifact(&world.store, &Artifact::open(&image).unwrap(), &bounds),
        Err(Error::Archive { .. })
    ));
}

#[test]
fn a_changed_byte_of_any_part_is_noticed() {
    let world = World::new();
    let image = foreign(&world, "image", &[tar(&[(b'0', "file", "content")])]);
    for entry in std::fs::read_dir(image.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        for damaged in [changed, whole[..last].to_vec(), [&whole[..], b"x"].concat()] {
            std::fs::write(&path, damaged).unwrap();
            let error = import(&world, &image).unwrap_err();
            assert!(matches!(error, Error::Mismatch { .. } | Error::Archive { .. }), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(import(&world, &image), Err(Error::Archive { .. })));
        std::fs::write(&path, whole).unwrap();
    }
    assert!(import(&world, &image).is_ok());
}

fn wanted(world: &World, artifact: &Artifact, wanted: Wanted<'_>) -> Result<Imported> {
    read_wanted(&world.store, artifact, &Bounds::for_size(0), &wanted)
}

#[test]
fn one_of_several_images_is_picked_by_its_name_tag_or_digest() {
    let world = World::new();
    let path = world.directory.path().join("layout");
    let mut entries = Vec::new();
    let names = ["registry.example:5000/team/web:1.2", "registry.example:5000/team/db:latest"];
    let ids = names.map(|name| {
        let root = tree(&world, 0o755, [("name", file(&world, name))]);
        let id = world.formation(root);
        let one = collection(&world.store, &[id], &Options::default()).unwrap();
        write_directory(&world.store, &one, &path).unwrap();
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path.join("index.json")).unwrap()).unwrap();
        let mut entry = index["manifests"][0].clone();
        entry["annotations"]["org.opencontainers.image.ref.name"] = name.into();
        entries.push(entry);
        id
    });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(path.join("index.json"), index.to_string()).unwrap();
    let artifact = Artifact::open(&path).unwrap();
    let pick = |image: Option<&str>| wanted(&world, &artifact, Wanted { platform: None, image });
    let ambiguous = pick(None).unwrap_err().to_string();
    assert!(names.iter().all(|name| ambiguous.contains(name)), "{ambiguous}");
    let digest = entries[1]["digest"].as_str().unwrap();
    for (image, id) in [
        (names[0], ids[0]),
        ("web", ids[0]),
        ("web:1.2", ids[0]),
        ("1.2", ids[0]),
        ("registry.example:5000/team/web", ids[0]),
        ("db", ids[1]),
        ("latest", ids[1]),
        (digest, ids[1]),
    ] {
        assert_eq!(pick(Some(image)).unwrap().formation.unwrap().id(), id, "{image}");
    }
    for image in ["we", "web:1.3", "team", "", "registry.example"] {
        let unknown = pick(Some(image)).unwrap_err().to_string();
        assert!(unknown.contains("it has no image") && unknown.contains(names[0]), "{image}: {unknown}");
    }
}

#[test]
fn an_index_has_an_image_for_each_platform() {
    let world = World::new();
    let root = tree(&world, 0o755, [("a", file(&world, "a"))]);
    let here = world.store.formation(world.formation(root)).unwrap();
    let ids = ["linux/amd64", "linux/arm64"].map(|platform| {
        let formation = Formation { platform: platform.to_owned(), ..here.clone() };
        world.store.put_formation(&formation, &Record::default()).unwrap()
    });
    let path = world.directory.path().join("several");
    let both = collection(&world.store, &ids, &Options::default()).unwrap();
    write_directory(&world.store, &both, &path).unwrap();
    // The order in which they are given does not show.
    assert_eq!(collection(&world.store, &[ids[1], ids[0]], &Options::default()).unwrap(), both);
    for (platform, id) in ["linux/amd64", "linux/arm64"].into_iter().zip(ids) {
        let artifact = Artifact::open(&path).unwrap();
        let imported = wanted(&world, &artifact, Wanted { platform: Some(platform), image: None }).unwrap();
        assert_eq!(imported.formation.unwrap().id(), id);
    }
    let artifact = Artifact::open(&path).unwrap();
    let missing = wanted(&world, &artifact, Wanted { platform: Some("linux/s390x"), image: None }).unwrap_err();
    assert!(
        missing.to_string().ends_with("it has no image for linux/s390x, but for linux/amd64, linux/arm64"),
        "{missing}"
    );
    let twice = collection(&world.store, &[ids[0], ids[0]], &Options::default());
    assert!(matches!(twice, Err(Error::SamePlatform { .. })));
}

#[test]
fn what_was_compressed_is_used_again_unless_everything_is_to_be_made_anew() {
    let world = World::new();
    // Too large to be kept together with others.
    let content = "to be or not to be\n".repeat(200_000);
    let root = tree(&world, 0o755, [("a", file(&world, &content))]);
    let id = world.formation(root);
    let remembered = Options { remembered: true, ..Options::default() };
    let first = collection(&world.store, &[id], &remembered).unwrap();
    assert_eq!(collection(&world.store, &[id], &Options::default()).unwrap(), first);
    let blob = crate::BlobId::of(content.as_bytes()).to_string();
    std::fs::remove_file(world.store.path().join("blobs").join(&blob[..2]).join(&blob[2..])).unwrap();
    let again = collection(&world.store, &[id], &remembered).unwrap();
    assert_eq!(again.index, first.index);
    assert!(
        matches!((&first.contents[0].source, &again.contents[0].source), (Source::Made(a), Source::Blob(b)) if a == b)
    );
    assert!(collection(&world.store, &[id], &Options::default()).is_err());
}

#[test]
fn a_name_as_long_as_names_may_be_is_removed_all_the_same() {
    let world = World::new();
    let longest = "n".repeat(255);
    let lower = tree(&world, 0o755, [(longest.as_str(), file(&world, "a")), ("b", file(&world, "b"))]);
    let mut removing = Delta::whole(tree(&world, 0o755, []));
    removing.removed.insert(RelativePath::parse(longest.as_bytes()).unwrap());
    let deltas = [Delta::whole(lower), removing].map(|delta| world.store.put_delta(&delta).unwrap());
    let archive = packed(&world, layered(&world, &deltas), "longest.tar");
    let elsewhere = World::new();
    assert_eq!(flat(&elsewhere, import(&elsewhere, &archive).unwrap().root), ["/b b"]);
}

#[test]
fn a_layer_cannot_hold_a_name_that_removes() {
    let world = World::new();
    let root = tree(&world, 0o755, [(".wh.a", file(&world, "a"))]);
    let packed = Oci.pack(&world.store, world.formation(root), &Options::default(), &mut Vec::new());
    assert!(matches!(packed, Err(Error::Unsupported { .. })));
}

/// Of our own images, in the spelling of `docs/formats/oci.md`. A change here is a change of format.
#[test]
fn digests_are_pinned() {
    let world = World::new();
    let root = tree(&world, 0o755, [("a", file(&world, "a"))]);
    let formation = Formation {
        name: "pinned".to_owned(),
        version: "1".to_owned(),
        variant: String::new(),
        platform: "linux/amd64".to_owned(),
        root,
        launch: crate::Launch { command: vec![b"a".to_vec()], ..crate::Launch::default() },
    };
    let id = world.store.put_formation(&formation, &Record::default()).unwrap();
    let digests = [Compression::Zstd(3), Compression::Gzip(6)].map(|compression| {
        let options = Options { compression, ..Options::default() };
        image(&world.store, id, &options).unwrap().manifest.digest.hex()[..16].to_owned()
    });
    assert_eq!(digests, ["31ae906d3e7191b9", "7cdff70935ddca40"]);
}

#[test]
fn a_referrer_names_its_subject() {
    let world = World::new();
    let subject = image(&world.store, world.formation(tree(&world, 0o755, [])), &Options::default()).unwrap().manifest;
    let contents = referrer(&subject, "application/spdx+json", b"{}".to_vec());
    let Source::Bytes(manifest) = &contents[2].source else { panic!("bytes") };
    let manifest: Manifest = serde_json::from_slice(manifest).unwrap();
    assert_eq!(manifest.subject.unwrap().digest, subject.digest);
    assert_eq!(manifest.config.digest, Digest::of(b"{}"));
    assert_eq!(manifest.artifact_type.as_deref(), Some("application/spdx+json"));
}

/// The same bytes each time: every byte of a layer's headers, with the values that mean something there.
#[test]
fn a_layer_with_any_byte_changed_is_read_or_refused() {
    let world = World::new();
    let below = tree(&world, 0o755, [("d", Node::Directory(tree(&world, 0o755, [("f", file(&world, "x"))])))]);
    let layer = tar(&[
        (b'2', "l", "d"),
        (b'0', "l/g", "y"),
        (b'0', ".wh.d", ""),
        (b'1', "h", "l/g"),
        (b'0', "d/.wh..wh..opq", ""),
    ]);
    let bounds = Bounds { bytes: 1 << 20, entries: 100, depth: 16 };
    let mut read = 0;
    // Behind byte 345 a header says nothing that is read.
    for at in (0..layer.len() - 1024).filter(|at| at % 512 < 345) {
        for value in [0, b'/', b'7'] {
            let mut changed = layer.clone();
            changed[at] = value;
            let block = at / 512 * 512;
            // The check sum fits, or nothing would be looked at.
            if changed[block + 257..block + 262] == *b"ustar" {
                changed[block + 148..block + 156].fill(b' ');
                let sum: u32 = changed[block..block + 512].iter().map(|byte| u32::from(*byte)).sum();
                changed[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let digest = Digest::of(&changed);
            let result = read_layer(&world.store, &mut changed.as_slice(), "layer", Some(below), &bounds, digest);
            match result {
                Ok(_) => read += 1,
                Err(Error::Archive { .. }) => {}
                Err(error) => panic!("{at} {value}: {error}"),
            }
        }
    }
    assert!(read > 1000, "{read}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    /// Any two trees as layers, the upper one a delta over the lower: what podman would see is what merging gives.
    #[test]
    fn layers_add_up_to_what_merging_gives(lower in trees(), upper in trees(), removing in any::<u64>()) {
        let world = World::new();
        let (lower, upper) = (world.keep(&lower), world.keep(&upper));
        let mut delta = Delta::whole(upper);
        // Some names of the lower tree go; some directories of the upper are passed through.
        for (number, name) in world.store.tree(lower).unwrap().entries.keys().enumerate() {
            if removing >> (number % 32) & 1 == 1 {
                delta.removed.insert(RelativePath(vec![name.clone()]));
            }
        }
        for (number, (name, node)) in world.store.tree(upper).unwrap().entries.iter().enumerate() {
            if matches!(node, Node::Directory(_)) && removing >> (32 + number % 32) & 1 == 1 {
                delta.passed.insert(RelativePath(vec![name.clone()]));
            }
        }
        let deltas = [Delta::whole(lower), delta].map(|delta| world.store.put_delta(&delta).unwrap());
        let id = layered(&world, &deltas);
        let archive = packed(&world, id, "layers.tar");
        let elsewhere = World::new();
        let imported = import(&elsewhere, &archive).unwrap();
        prop_assert_eq!(imported.root, world.store.merge(&deltas).unwrap());
        prop_assert_eq!(imported.formation.map(|formation| formation.id()), Some(id));
    }

    /// Bytes changed anywhere, with the digests made to fit: errors are fine, panics and hangs are not.
    #[test]
    fn changed_layers_and_documents_harm_nothing(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        what in 0..4_usize,
    ) {
        let world = World::new();
        let change = |bytes: &mut Vec<u8>| {
            for (index, byte) in &changes {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
        };
        let base = tar(&[(b'5', "d/", ""), (b'0', "d/f", "x"), (b'2', "l", "d")]);
        let mut layer = tar(&[(b'0', "l/g", "y"), (b'0', ".wh.d", ""), (b'1', "h", "l/g"), (b'0', "d/.wh..wh..opq", "")]);
        if what == 0 {
            change(&mut layer);
        }
        if what == 1 {
            layer.truncate(cut.index(layer.len()));
        }
        let image = foreign(&world, "image", &[base, layer]);
        if what == 2 {
            let mut index = std::fs::read(image.join("index.json")).unwrap();
            change(&mut index);
            std::fs::write(image.join("index.json"), index).unwrap();
        }
        if what == 3 {
            for entry in std::fs::read_dir(image.join("blobs/sha256")).unwrap() {
                let path = entry.unwrap().path();
                let mut bytes = std::fs::read(&path).unwrap();
                if bytes.starts_with(b"{") {
                    change(&mut bytes);
                    std::fs::write(&path, bytes).unwrap();
                }
            }
        }
        let artifact = Artifact::open(&image).unwrap();
        let _ = crate::format::inspect(&image);
        let _ = read_artifact(&world.store, &artifact, &Bounds { bytes: 1 << 20, entries: 1000, depth: 64 });
    }

    /// The documents themselves, with whatever JSON in them.
    #[test]
    fn documents_of_any_bytes_are_errors_at_worst(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut near = br#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"platform":{"os":"linux","architecture":"amd64"}}],"config":{"Env":["A=B"],"User":"1:2","ExposedPorts":{"1/tcp":{}},"StopSignal":"SIGTERM","Labels":{"forge.formation":"01"}},"rootfs":{"diff_ids":[]}}"#.to_vec();
        for (index, byte) in changes {
            let index = index.index(near.len());
            near[index] = byte;
        }
        for bytes in [noise, near] {
            let _ = serde_json::from_slice::<Index>(&bytes);
            let _ = serde_json::from_slice::<Manifest>(&bytes);
            if let Ok(config) = serde_json::from_slice::<config::ImageConfig>(&bytes) {
                let _ = (config.launch(&mut crate::format::Dropped::default()), config.formation());
            }
        }
    }
}
