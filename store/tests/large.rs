//! Files and images over 4 GiB, where 32 bits are no longer enough: written, read by others, and read back.
//!
//! They take some minutes and 20 GiB of disk, so they are run when they are asked for: `just large`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use store::directory::Record;
use store::format::{self, Artifact, Bounds, Options};
use store::{BlobId, Formation, Launch, Metadata, Name, Node, Store, Tree};

/// More than 32 bits count, and no whole number of blocks.
const LENGTH: u64 = (4 << 30) + 300_007;

/// Noise, so that the image is as long as the file.
fn noise(path: &Path, length: u64) {
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut output = blake3::Hasher::new().finalize_xof();
    let mut part = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let count = left.min(part.len() as u64) as usize;
        output.fill(&mut part[..count]);
        writer.write_all(&part[..count]).unwrap();
        left -= count as u64;
    }
    writer.flush().unwrap();
}

fn digest(mut reader: impl Read) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut reader, &mut hasher).unwrap();
    BlobId::from_bytes(*hasher.finalize().as_bytes())
}

#[test]
#[ignore = "writes 20 GiB"]
fn files_and_images_over_4_gib_come_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store = Store::open(path("store")).unwrap();
    let source = path("source");
    fs::create_dir(&source).unwrap();
    noise(&source.join("noise"), LENGTH);
    // What follows a large file starts beyond 4 GiB, in blocks and in a fragment.
    fs::write(source.join("small"), "after it").unwrap();
    noise(&source.join("zz-blocks"), 1_000_003);
    let hole = File::create(source.join("hole")).unwrap();
    hole.set_len(6 << 30).unwrap();
    hole.write_all_at(b"in the middle", 5 << 30).unwrap();
    let expected: BTreeMap<String, BlobId> = ["noise", "small", "zz-blocks", "hole"]
        .map(|name| (name.to_owned(), digest(File::open(source.join(name)).unwrap())))
        .into();

    let root = store.ingest_exact(&source).unwrap().0;
    let tree: Tree = (*store.tree(root).unwrap()).clone();
    for (name, blob) in &expected {
        let Node::File(file) = &tree.entries[&Name::new(name.as_bytes()).unwrap()] else { panic!("{name}") };
        assert_eq!(file.blob, *blob, "{name}");
    }
    fs::remove_dir_all(&source).unwrap();
    // What is zeros need not take room: the store hashes what it reads, and not how it lies there.
    let blob = expected["hole"].to_string();
    let lying = store.path().join("blobs").join(&blob[..2]).join(&blob[2..]);
    let _ = Command::new("fallocate").arg("--dig-holes").arg(&lying).status();
    let root = store.put_tree(&Tree { metadata: Metadata::root(0o755), entries: tree.entries }).unwrap();
    let launch = Launch { command: vec![b"/bin/true".to_vec()], ..Launch::default() };
    let (name, version, variant, platform) =
        ("large".to_owned(), "1".to_owned(), String::new(), "linux/amd64".to_owned());
    let formation = Formation { name, version, variant, platform, root, launch };
    let id = store.put_formation(&formation, &Record::default()).unwrap();

    for format in format::ALL {
        let image = path("image");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&image).unwrap();
        format.pack_file(&store, id, &Options::default(), &file).unwrap();
        assert!(file.metadata().unwrap().len() > 4 << 30, "{}", format.name());
        let artifact = Artifact::open(&image).unwrap();
        assert_eq!(format::of(&artifact).unwrap().name(), format.name());
        // Into the same store, which has all of it: what is read is hashed, and no second copy stays.
        let imported = format::read(&store, &artifact, &Bounds::for_size(64 << 30)).unwrap();
        assert_eq!(imported.root, root, "{}", format.name());
        assert_eq!(imported.formation.map(|formation| formation.id()), Some(id), "{}", format.name());
        if format.name() == "squashfs" {
            outsiders(&image, &path("unpacked"), &expected);
        }
    }
}

/// What `unsquashfs` reads.
fn outsiders(image: &Path, unpacked: &Path, expected: &BTreeMap<String, BlobId>) {
    match Command::new("unsquashfs").args(["-n", "-q", "-d"]).arg(unpacked).arg(image).output() {
        Err(_) => eprintln!("skipped: no unsquashfs"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            for (name, blob) in expected {
                assert_eq!(digest(File::open(unpacked.join(name)).unwrap()), *blob, "{name}");
            }
            fs::remove_dir_all(unpacked).unwrap();
        }
    }
}
