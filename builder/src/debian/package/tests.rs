use super::*;

/// A `.deb` in the making: what its two archives hold.
pub struct Deb {
    control: Vec<(String, u32, Vec<u8>)>,
    data: tar::Builder<Vec<u8>>,
}

impl Deb {
    pub fn new(control: &str) -> Self {
        let control = vec![("./control".to_owned(), 0o644, control.as_bytes().to_vec())];
        let mut deb = Self { control, data: tar::Builder::new(Vec::new()) };
        deb.entry("./", tar::EntryType::Directory, 0o755, b"", "");
        deb
    }

    fn hello() -> Self {
        Self::new("Package: hello\nVersion: 1.0-1\nArchitecture: amd64\nDescription: greets\n in two lines\n")
    }

    fn control_file(mut self, name: &str, mode: u32, content: &str) -> Self {
        self.control.push((name.to_owned(), mode, content.as_bytes().to_vec()));
        self
    }

    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, content, "");
        self
    }

    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, b"", "");
        self
    }

    fn link(mut self, path: &str, kind: tar::EntryType, target: &str) -> Self {
        self.entry(path, kind, 0o777, b"", target);
        self
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8], target: &str) {
        let mut header = header(path, kind, mode, content.len() as u64, target);
        header.set_cksum();
        self.data.append(&header, content).unwrap();
    }

    pub fn build(self, ending: &str) -> Vec<u8> {
        let mut control = tar::Builder::new(Vec::new());
        for (name, mode, content) in &self.control {
            let mut header = header(name, tar::EntryType::Regular, *mode, content.len() as u64, "");
            header.set_cksum();
            control.append(&header, content.as_slice()).unwrap();
        }
        let control = compress(&control.into_inner().unwrap(), ".gz");
        let data = compress(&self.data.into_inner().unwrap(), ending);
        let data_name = format!("data.tar{ending}");
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control), (&data_name, &data)])
    }
}

fn header(path: &str, kind: tar::EntryType, mode: u32, size: u64, target: &str) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    // The crate refuses names that lead elsewhere; here they are wanted.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn compress(bytes: &[u8], ending: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match ending {
        ".gz" => {
            let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
            encoder.read_to_end(&mut out).unwrap();
        }
        ".xz" => {
            liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut out).unwrap();
        }
        ".zst" => out = zstd::encode_all(bytes, 1).unwrap(),
        _ => out.extend(bytes),
    }
    out
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
    }
    bytes
}

struct World {
    _directory: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        Self { _directory: directory, store }
    }

    fn unpack(&self, bytes: &[u8]) -> Result<store::Delta> {
        let id = unpack(&self.store, "hello.deb", bytes, &|| Ok(()))?;
        Ok(self.store.delta(id)?)
    }

    /// Why a package is refused.
    fn refusal(&self, bytes: &[u8]) -> String {
        match self.unpack(bytes) {
            Err(Error::Invalid { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn find(&self, delta: &store::Delta, path: &str) -> Option<Node> {
        crate::draft::find(&self.store, delta.tree, &names(path)).unwrap()
    }

    fn text(&self, delta: &store::Delta, path: &str) -> String {
        match self.find(delta, path) {
            Some(Node::File(file)) => String::from_utf8(self.store.blob(file.blob).unwrap()).unwrap(),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[test]
fn a_package_becomes_what_dpkg_would_lay_out() {
    let world = World::new();
    for ending in ["", ".gz", ".xz", ".zst"] {
        let deb = Deb::hello()
            .control_file("./conffiles", 0o644, "/etc/hello.conf\n")
            .control_file("./postinst", 0o755, "#!/bin/sh\n")
            .control_file("./list", 0o644, "nonsense")
            .directory("./bin/", 0o755)
            .file("./bin/hello", 0o4755, b"greet")
            .directory("./etc/", 0o755)
            .file("./etc/hello.conf", 0o644, b"loud\n")
            .directory("./tmp/", 0o1777)
            .directory("./usr/", 0o755)
            .link("./usr/hola", tar::EntryType::Symlink, "../bin/hello");
        let delta = world.unpack(&deb.build(ending)).unwrap();
        let Some(Node::File(hello)) = world.find(&delta, "usr/bin/hello") else { panic!("no hello") };
        assert_eq!((hello.metadata, hello.size), (Metadata::root(0o4755), 5));
        assert_eq!(world.find(&delta, "bin"), None);
        assert!(
            matches!(world.find(&delta, "usr/hola"), Some(Node::Symlink { target, .. }) if target == b"../bin/hello")
        );
        let passed: Vec<_> = delta.passed.iter().map(|path| String::from_utf8(path.to_bytes()).unwrap()).collect();
        assert!(passed.contains(&String::new()) && passed.contains(&"usr/bin".to_owned()), "{passed:?}");
        assert!(!passed.contains(&"tmp".to_owned()));
        let list = world.text(&delta, "var/lib/dpkg/info/hello.list");
        assert_eq!(list, "/.\n/bin\n/bin/hello\n/etc\n/etc/hello.conf\n/tmp\n/usr\n/usr/hola\n");
        let paragraph = world.text(&delta, "var/lib/dpkg/status.d/hello");
        let (own, conffiles) = paragraph.split_once("Conffiles:\n").unwrap();
        assert!(own.ends_with("greets\n in two lines\n"), "{own}");
        assert_eq!(conffiles, " /etc/hello.conf newconffile\n");
        assert_eq!(world.text(&delta, "etc/hello.conf.dpkg-new"), "loud\n");
        assert_eq!(world.find(&delta, "etc/hello.conf"), None);
        let Some(Node::File(postinst)) = world.find(&delta, "var/lib/dpkg/info/hello.postinst") else { panic!() };
        assert_eq!(postinst.metadata.mode, 0o755);
    }
}

#[test]
fn hard_links_are_equal_entries() {
    let world = World::new();
    let deb = Deb::hello().file("./usr/a", 0o755, b"one").link("./lib/b", tar::EntryType::Link, "./usr/a");
    let delta = world.unpack(&deb.build("")).unwrap();
    assert!(world.find(&delta, "usr/a").is_some());
    assert_eq!(world.find(&delta, "usr/a"), world.find(&delta, "usr/lib/b"));
}

#[test]
fn owners_go_by_name_where_it_is_known() {
    let world = World::new();
    let mut deb = Deb::hello();
    for (path, group) in [("./a", "shadow"), ("./b", "nobody-knows")] {
        let mut header = header(path, tar::EntryType::Regular, 0o644, 0, "");
        header.set_gid(7);
        header.set_groupname(group).unwrap();
        header.set_cksum();
        deb.data.append(&header, io::empty()).unwrap();
    }
    let delta = world.unpack(&deb.build("")).unwrap();
    for (path, gid) in [("a", 42), ("b", 7)] {
        assert!(matches!(world.find(&delta, path), Some(Node::File(file)) if file.metadata.gid == gid), "{path}");
    }
}

#[test]
fn large_files_and_long_names_are_read() {
    let world = World::new();
    let content: Vec<u8> = (0..SMALL as usize + 1).map(|index| (index * 7) as u8).collect();
    let path = format!("usr/{}/file", "long".repeat(40));
    let mut deb = Deb::hello();
    let mut header = header("", tar::EntryType::Regular, 0o644, content.len() as u64, "");
    deb.data.append_data(&mut header, &path, content.as_slice()).unwrap();
    let delta = world.unpack(&deb.build(".xz")).unwrap();
    let Some(Node::File(file)) = world.find(&delta, &path) else { panic!("not found") };
    assert_eq!(world.store.blob(file.blob).unwrap(), content);
}

#[test]
fn what_the_merged_usr_holds_twice_is_a_conflict() {
    let world = World::new();
    let both = |other: &[u8]| Deb::hello().file("./bin/x", 0o755, b"one").file("./usr/bin/x", 0o755, other).build("");
    assert_eq!(world.refusal(&both(b"two")), "`/usr/bin/x` is there already");
    world.unpack(&both(b"one")).unwrap();
    let link = |target: &str| Deb::hello().link("./lib64", tar::EntryType::Symlink, target).build("");
    world.unpack(&link("usr/lib64")).unwrap();
    assert_eq!(world.refusal(&link("lib")), "its `/lib64` is no directory");
}

#[test]
fn archives_that_would_write_elsewhere_are_refused() {
    let world = World::new();
    let file = |path: &str| Deb::hello().file(path, 0o644, b"x").build("");
    assert_eq!(world.refusal(&file("../x")), "`..` is not a file name");
    assert_eq!(world.refusal(&file("./usr/../../x")), "`..` is not a file name");
    assert_eq!(world.refusal(&file("./")), "it has a directory with content");
    assert_eq!(world.refusal(&file("a\nb")), "it has a name with a line break, which dpkg's own files cannot hold");
    // An absolute path is one below the root, as for tar.
    world.unpack(&file("/usr/x")).unwrap();
    let link = |target: &str| Deb::hello().link("./x", tar::EntryType::Link, target).build("");
    assert_eq!(world.refusal(&link("../../etc/passwd")), "`..` is not a file name");
    assert_eq!(world.refusal(&link("etc/passwd")), "`/x` is a link to what it has not got");
    let through = Deb::hello().link("./x", tar::EntryType::Symlink, "/etc").file("./x/passwd", 0o644, b"x");
    assert_eq!(world.refusal(&through.build("")), "`/x` is there already");
    let device = Deb::hello().link("./x", tar::EntryType::Char, "");
    assert_eq!(world.refusal(&device.build("")), "it has a device that is none");
    let pax = Deb::hello().link("./x", tar::EntryType::XHeader, "");
    assert_eq!(world.refusal(&pax.build("")), "tar entry type `x` is not used in packages");
}

#[test]
fn control_files_that_are_not_what_they_should_be_are_refused() {
    let world = World::new();
    let refusal = |deb: Deb| world.refusal(&deb.build(""));
    assert_eq!(
        refusal(Deb::new("Package: ../../x\nVersion: 1\nArchitecture: all\n")),
        "`Package: ../../x` is not what policy allows"
    );
    assert_eq!(refusal(Deb::new("Package: x\nArchitecture: all\n")), "its control file has no `Version`");
    assert_eq!(
        refusal(Deb::hello().control_file("./a/b", 0o644, "")),
        "its control archive has something else than files"
    );
}

#[test]
fn a_cut_or_damaged_package_is_an_error() {
    let world = World::new();
    for ending in ["", ".gz", ".xz", ".zst"] {
        let good = Deb::hello().file("./usr/x", 0o644, &[7; 5000]).build(ending);
        let mut cuts: Vec<usize> = (0..good.len()).step_by(97).collect();
        cuts.extend([7, 8, 67, 68]);
        for cut in cuts.into_iter().filter(|cut| *cut < good.len()) {
            let outcome = world.unpack(&good[..cut]);
            assert!(outcome.is_err(), "{ending} cut at {cut}");
        }
        for at in (8..good.len()).step_by(61) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x55;
            // Some bytes mean nothing; what counts is that none leads to a panic.
            let _ = world.unpack(&bytes);
        }
    }
}

#[test]
fn what_grows_without_end_is_stopped() {
    let zeros = vec![0; 1 << 20];
    let packed = compress(&zeros, ".zst");
    let mut reader = decompress("data.tar.zst", ".zst", packed.as_slice(), 1 << 19).unwrap();
    let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "it is too large when unpacked");
    // A name of a gigabyte is not waited for.
    let mut long = header("././@LongLink", tar::EntryType::GNULongName, 0o644, 1 << 30, "");
    long.set_cksum();
    let error = Tar::new(long.as_bytes().as_slice()).next_entry().unwrap_err();
    assert_eq!(error.to_string(), "a name is too long");
}

#[test]
fn a_size_beyond_all_bounds_is_an_error() {
    let world = World::new();
    // The last of them have no next multiple of a block.
    for size in [1 << 63, u64::MAX - 511, u64::MAX - 510, u64::MAX] {
        let mut deb = Deb::hello();
        let mut header = header("./x", tar::EntryType::Regular, 0o644, size, "");
        header.set_cksum();
        deb.data.append(&header, &b""[..]).unwrap();
        assert_eq!(world.refusal(&deb.build(".gz")), "it ends within a file", "{size}");
    }
}

#[test]
fn a_negative_number_is_an_error_as_dpkg_has_it() {
    let mut deb = Deb::hello();
    let mut header = header("./x", tar::EntryType::Regular, 0o644, 0, "");
    header.as_old_mut().mode = [0xff; 8];
    header.set_cksum();
    deb.data.append(&header, &b""[..]).unwrap();
    assert_eq!(World::new().refusal(&deb.build(".gz")), "a number in a tar header is negative");
}

#[test]
fn other_archives_are_told_apart() {
    let world = World::new();
    assert_eq!(world.refusal(b""), "it is not an ar archive");
    assert_eq!(world.refusal(b"PK\x03\x04 whatever"), "it is not an ar archive");
    assert_eq!(world.refusal(&ar(&[])), "it has no data");
    assert_eq!(world.refusal(&ar(&[("debian-binary", b"3.0\n")])), "it is no package of format 2");
    assert_eq!(
        world.refusal(&ar(&[("debian-binary", b"2.0\n"), ("data.tar", b"")])),
        "its data comes before its control files"
    );
    let control = compress(&[0; 1024], "");
    let members = [("debian-binary", b"2.0\n".as_slice()), ("control.tar", &control), ("data.tar.bz2", b"")];
    assert_eq!(world.refusal(&ar(&members)), "`data.tar.bz2` is compressed in a way that is not known");
}
