//! SIFs as stories: signed, tampered with, made by others, and made up.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use pkcs8::{EncodePrivateKey, EncodePublicKey};

use super::layout::{DESCRIPTOR_LENGTH, DESCRIPTORS_START, Image, Kind};
use super::signature::{self, sign, verify};
use crate::directory::Record;
use crate::format::{self, Artifact, Bounds, Options};
use crate::signing::{KeyError, SecretKey, Trust};
use crate::{Error, File, Formation, Launch, Metadata, Name, Node, Store, Tree};

/// 2026-11-22: the keys of the fixtures are a day old.
const NOW: u32 = 1_795_305_600;

struct World {
    store: Store,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open(directory.path().join("store")).unwrap(), directory }
    }

    fn file(&self, content: &str, mode: u16) -> Node {
        let blob = self.store.put_blob(content.as_bytes(), mode & 0o111 != 0).unwrap();
        Node::File(File { blob, size: content.len() as u64, metadata: Metadata::root(mode) })
    }

    fn tree<const N: usize>(&self, entries: [(&str, Node); N]) -> Node {
        let entries = entries.map(|(name, node)| (Name::new(name).unwrap(), node)).into();
        Node::Directory(self.store.put_tree(&Tree { entries, ..Tree::empty() }).unwrap())
    }

    fn formation(&self, root: Node) -> Formation {
        let Node::Directory(root) = root else { panic!("a root is a directory") };
        Formation {
            name: "hello".to_owned(),
            version: "1.0".to_owned(),
            variant: String::new(),
            platform: "linux/amd64".to_owned(),
            root,
            launch: Launch { command: vec![b"/hello".to_vec()], ..Launch::default() },
        }
    }

    /// A SIF of a formation.
    fn sif(&self, formation: &Formation) -> PathBuf {
        let id = self.store.put_formation(formation, &Record::default()).unwrap();
        let path = self.directory.path().join("hello-1.0-linux-amd64.sif");
        let mut file = fs::File::create(&path).unwrap();
        format::Format::pack(&super::Sif, &self.store, id, &Options::default(), &mut file).unwrap();
        path
    }

    fn small(&self) -> PathBuf {
        let root = self.tree([("hello", self.file("hello\n", 0o755))]);
        self.sif(&self.formation(root))
    }
}

/// An ed25519 key, and the trust in it.
fn ed25519(seed: u8) -> (SecretKey, Trust) {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let pem = key.to_pkcs8_pem(LineEnding::LF).unwrap();
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let mut trust = Trust::default();
    trust.add(public.as_bytes()).unwrap();
    (SecretKey::read(pem.as_bytes(), &mut || None).unwrap(), trust)
}

fn key_file(name: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// An OpenPGP key of the fixtures, and the trust in it.
fn pgp(name: &str, passphrase: Option<&str>) -> (SecretKey, Trust) {
    let mut trust = Trust::default();
    trust.add(&key_file(&format!("{name}.pub.asc"))).unwrap();
    let secret = key_file(&format!("{name}.sec.asc"));
    (SecretKey::read(&secret, &mut || passphrase.map(|text| text.as_bytes().to_vec())).unwrap(), trust)
}

fn verified(path: &std::path::Path, trust: &Trust) -> Result<Vec<signature::Signature>, String> {
    verify(&Artifact::open(path).unwrap(), trust, NOW.into()).map_err(|error| match error {
        Error::Signature { reason, .. } => reason,
        error => error.to_string(),
    })
}

#[test]
fn what_is_signed_is_verified_and_what_was_there_stays() {
    let world = World::new();
    for (key, trust) in [ed25519(1), pgp("ed25519", None), pgp("locked", Some("secret"))] {
        let path = world.small();
        let before = fs::read(&path).unwrap();
        assert_eq!(verified(&path, &trust).unwrap_err(), "it has no signature");
        sign(&path, &key, NOW).unwrap();
        let after = fs::read(&path).unwrap();
        // One descriptor, and two numbers of the header.
        let slot = DESCRIPTORS_START as usize + 5 * DESCRIPTOR_LENGTH;
        let mut unsigned = after[..before.len()].to_vec();
        unsigned[80..88].copy_from_slice(&before[80..88]);
        unsigned[120..128].copy_from_slice(&before[120..128]);
        unsigned[slot..slot + DESCRIPTOR_LENGTH].fill(0);
        assert!(unsigned == before);

        let signatures = verified(&path, &trust).unwrap();
        assert_eq!((signatures.len(), signatures[0].object, &signatures[0].refused), (1, 6, &None));
        // Nobody else's word counts.
        let other = verified(&path, &ed25519(2).1).unwrap_err();
        assert!(other.contains("trusted"), "{other}");
        // It is still the formation, and says who signed it.
        let inspection = format::inspect(&path).unwrap();
        assert_eq!(inspection.formation.unwrap().name, "hello");
        let part = inspection.parts.last().unwrap();
        assert_eq!(part.kind, "signature");
        assert!(part.detail.contains(signatures[0].signer.split(' ').next().unwrap()), "{}", part.detail);
        // A second signature stands beside the first.
        sign(&path, &ed25519(3).0, NOW).unwrap();
        let signatures = verified(&path, &trust).unwrap();
        assert_eq!(signatures.iter().filter(|signature| signature.refused.is_none()).count(), 1);
    }
}

#[test]
fn a_signature_by_ed25519_is_reproducible() {
    let signed = || {
        let world = World::new();
        let path = world.small();
        sign(&path, &ed25519(1).0, NOW).unwrap();
        fs::read(path).unwrap()
    };
    assert!(signed() == signed());
}

#[test]
fn whatever_is_changed_is_noticed() {
    let world = World::new();
    let (key, trust) = ed25519(1);
    let path = world.small();
    sign(&path, &key, NOW).unwrap();
    let good = fs::read(&path).unwrap();
    let image = Image::read(&Artifact::open(&path).unwrap()).unwrap();
    let object = |kind: Kind| image.find(kind, "").unwrap().start() as usize;
    let row = |number: usize| DESCRIPTORS_START as usize + number * DESCRIPTOR_LENGTH;
    let cases = [
        ("the header's id", 50, "header was changed"),
        ("the launch line", 3, "header was changed"),
        ("the definition", object(Kind::DEFINITION) + 3, "object 1 was changed"),
        ("the labels", object(Kind::LABELS) + 3, "object 2 was changed"),
        ("the partition", object(Kind::PARTITION) + 200, "object 5 was changed"),
        ("a partition's use", row(4) + 201 + 4, "descriptor of object 5 was changed"),
        ("a name", row(0) + 73, "descriptor of object 1 was changed"),
        ("a number", row(2) + 5, "object"),
        ("a group", row(1) + 9, ""),
        ("that an object is there", row(3) + 4, "object 4 was removed"),
        ("the signature", object(Kind::SIGNATURE) + 200, ""),
    ];
    for (what, at, words) in cases {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let reason = verified(&path, &trust).expect_err(what);
        assert!(reason.contains(words), "{what}: {reason}");
    }
    // An object that nobody signed.
    let mut bytes = good.clone();
    let descriptor = good[row(0)..row(1)].to_vec();
    bytes[row(9)..row(10)].copy_from_slice(&descriptor);
    bytes[row(9) + 5] = 77;
    fs::write(&path, bytes).unwrap();
    assert!(verified(&path, &trust).unwrap_err().contains("object 77 is not signed"));
    fs::write(&path, &good).unwrap();
    verified(&path, &trust).unwrap();
}

#[test]
fn a_key_that_does_not_do_says_why() {
    let read = |bytes: &[u8], passphrase: Option<&str>| {
        SecretKey::read(bytes, &mut || passphrase.map(|text| text.as_bytes().to_vec())).err()
    };
    assert_eq!(read(b"no key", None), Some(KeyError::NotAKey));
    assert_eq!(read(b"", None), Some(KeyError::NotAKey));
    assert_eq!(read(&key_file("locked.sec.asc"), None), Some(KeyError::Locked));
    assert_eq!(read(&key_file("locked.sec.asc"), Some("guess")), Some(KeyError::Passphrase));
    assert_eq!(read(&key_file("locked.pem"), None), Some(KeyError::Locked));
    assert_eq!(read(&key_file("locked.pem"), Some("guess")), Some(KeyError::Passphrase));
    assert_eq!(read(&key_file("locked.pem"), Some("secret")), None);
    for public in
        [key_file("ed25519.pub.asc"), b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n".to_vec()]
    {
        assert!(matches!(read(&public, None), Some(KeyError::Unfit { .. })));
    }
    assert!(matches!(read(b"-----BEGIN RSA PRIVATE KEY-----\n", None), Some(KeyError::Unfit { .. })));
    let mut trust = Trust::default();
    assert!(trust.add(b"-----BEGIN CERTIFICATE-----\n").is_err() && trust.add(b"x").is_err());
    assert!(trust.add(&key_file("locked.pem")).is_err());
}

/// As Singularity before 3.6 signed: over the bytes alone.
#[test]
fn a_legacy_signature_does_not_count() {
    let world = World::new();
    let (key, trust) = pgp("ed25519", None);
    let path = world.small();
    sign(&path, &key, NOW).unwrap();
    let SecretKey::Pgp(key) = key else { panic!("it is an OpenPGP key") };
    let legacy = key.sign_text("SIFHASH:\n0123456789abcdef\n", NOW).unwrap();
    let image = Image::read(&Artifact::open(&path).unwrap()).unwrap();
    let signature = image.find(Kind::SIGNATURE, "").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(signature.start() as usize);
    bytes.extend(legacy.as_bytes());
    let row = DESCRIPTORS_START as usize + 5 * DESCRIPTOR_LENGTH;
    bytes[row + 25..row + 33].copy_from_slice(&(legacy.len() as u64).to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let reason = verified(&path, &trust).unwrap_err();
    assert!(reason.contains("legacy"), "{reason}");
    let parts = format::inspect(&path).unwrap().parts;
    assert!(parts.last().unwrap().detail.contains("legacy"));
}

/// What Apptainer makes has no encoding of ours; what it wants to run lies in the root.
#[test]
fn an_image_of_somebody_elses_is_read_with_its_way_to_run() {
    let world = World::new();
    let scripts = world.tree([
        ("runscript", world.file("#!/bin/sh\nexec /hello \"$@\"\n", 0o755)),
        ("labels.json", world.file("{}", 0o644)),
        (
            "env",
            world.tree([
                ("01-base.sh", world.file("export NOBODY=1\n", 0o755)),
                (
                    "10-docker2singularity.sh",
                    world.file("#!/bin/sh\nexport PATH=\"/opt/bin\"\nexport A=\"${A:-\"it's a\"}\"\n", 0o755),
                ),
                ("90-environment.sh", world.file("export B=$A\nexport C=$(date)\n", 0o755)),
            ]),
        ),
    ]);
    let shell = world.tree([("sh", world.file("", 0o755))]);
    let root = world.tree([(".singularity.d", scripts), ("bin", shell), ("hello", world.file("", 0o755))]);
    let mut formation = world.formation(root);
    formation.launch.command = vec![super::scripts::RUN_SCRIPT.to_vec()];
    let path = world.sif(&formation);
    let theirs = world.directory.path().join("theirs-2.1-cuda-linux-amd64.sif");
    let foreign = |path: &std::path::Path| {
        let artifact = Artifact::open(path).unwrap();
        format::read(&world.store, &artifact, &Bounds::for_size(artifact.size())).unwrap()
    };
    assert_eq!(foreign(&path).formation.as_ref(), Some(&formation));

    // Without our object, it is an image like any other.
    let mut bytes = fs::read(&path).unwrap();
    bytes[DESCRIPTORS_START as usize + 3 * DESCRIPTOR_LENGTH + 4] = 0;
    fs::write(&theirs, bytes).unwrap();
    let imported = foreign(&theirs);
    assert_eq!(imported.formation, None);
    assert_eq!((imported.name.as_deref(), imported.version.as_deref()), (Some("theirs"), Some("2.1")));
    assert_eq!(imported.platform.as_deref(), Some("linux/amd64"));
    assert_eq!(imported.launch.command, [super::scripts::RUN_SCRIPT]);
    let value =
        |name: &str| imported.launch.environment.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value));
    assert_eq!((value("A").unwrap(), value("B").unwrap()), ("it's a".into(), "it's a".into()));
    assert_eq!((value("C"), value("NOBODY")), (None, None));
    assert!(value("PATH").unwrap().starts_with("/opt/bin:/usr/local/sbin:"), "{:?}", value("PATH"));
    let (left_out, first) = imported.dropped.0.values().next().unwrap();
    assert_eq!((*left_out, first.as_slice()), (1, &b"/.singularity.d/env/90-environment.sh"[..]));
    assert_eq!(imported.launch.labels.get("org.opencontainers.image.title").unwrap(), "hello");
}

#[test]
fn what_cannot_be_read_is_refused_with_words() {
    let world = World::new();
    let path = world.small();
    let good = fs::read(&path).unwrap();
    let extra = DESCRIPTORS_START as usize + 4 * DESCRIPTOR_LENGTH + 201;
    let words = |at: usize, number: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let artifact = Artifact::open(&path).unwrap();
        let inspection = format::inspect(&path).unwrap();
        assert_eq!(inspection.parts.len(), 5);
        format::read(&world.store, &artifact, &Bounds::for_size(artifact.size())).unwrap_err().to_string()
    };
    assert!(words(extra, 2).contains("ext3"));
    assert!(words(extra, 5).contains("encrypted"));
    assert!(words(extra, 6).contains("encrypted"));
    assert!(words(extra, 9).contains("neither squashfs"));
    assert!(words(extra + 4, 4).contains("no primary system partition"));
}

/// The numbers of a header and of descriptors, each with values that lead out of the file or round the end of numbers.
#[test]
fn crafted_numbers_are_refused_without_harm() {
    let world = World::new();
    let (key, trust) = ed25519(1);
    let path = world.small();
    sign(&path, &key, NOW).unwrap();
    let good = fs::read(&path).unwrap();
    let elsewhere = World::new();
    let mut turn = 0;
    let mut everything = |bytes: &[u8]| {
        turn += 1;
        fs::write(&path, bytes).unwrap();
        let Ok(artifact) = Artifact::open(&path) else { return };
        let _ = format::inspect(&path);
        let _ = format::read(&elsewhere.store, &artifact, &Bounds { bytes: 1 << 20, entries: 1000, depth: 20 });
        let _ = verify(&artifact, &trust, NOW.into());
        // It waits for the disk.
        if turn % 16 == 0 {
            let _ = sign(&path, &key, NOW);
        }
    };
    let numbers = [0, 1, 127, 4097, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 4095, u64::MAX];
    let rows = (0..6).flat_map(|row| {
        let row = DESCRIPTORS_START as usize + row * DESCRIPTOR_LENGTH;
        [0, 5, 9, 13, 17, 25, 33, 201, 205].map(|field| row + field)
    });
    let places: Vec<usize> = (64..128).step_by(8).chain(rows).collect();
    for place in &places {
        for number in numbers {
            let mut bytes = good.clone();
            bytes[*place..*place + 8].copy_from_slice(&number.to_le_bytes());
            everything(&bytes);
        }
    }
    for length in (0..good.len()).step_by(997) {
        everything(&good[..length]);
    }
    // The same changes on every machine.
    let mut state = 0x1234_5678_9abc_def1_u64;
    for _ in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (state >> 33) as usize;
            // Most of it is zeros: what says something lies at the beginnings.
            let place = match place % 4 {
                0 => place % 128,
                1 => DESCRIPTORS_START as usize + place % (6 * DESCRIPTOR_LENGTH),
                2 => good.len() - 1 - place % 4096,
                _ => place % good.len(),
            };
            bytes[place] ^= 1 << (state >> 61);
        }
        everything(&bytes);
    }
}
