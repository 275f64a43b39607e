//! Images that nobody should make: each wrong in one way, and thousands wrong in ways that nobody thought of.

use super::tests::file_with;
use super::*;
use crate::format::Bounds;

/// An image of which every byte is ours: no compression, one metadata block to a table.
struct Crafted {
    /// One after the other; the root directory is at `root`.
    inodes: Vec<u8>,
    root: u16,
    listings: Vec<u8>,
    ids: Vec<u32>,
    fragments: Vec<(u64, u32)>,
    data: Vec<u8>,
    block_log: u16,
}

/// What an inode begins with.
fn inode(kind: u16, number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in [kind, 0o755, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes
}

/// A short directory inode whose listing is at `offset`.
fn directory(offset: u16, length: u16) -> Vec<u8> {
    let mut bytes = inode(1, 1);
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend((length + 3).to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.extend(9_u32.to_le_bytes());
    bytes
}

/// A short file inode without a fragment.
fn file(start: u32, size: u32, blocks: &[u32]) -> Vec<u8> {
    let mut bytes = inode(2, 2);
    for value in [start, u32::MAX, 0, size].iter().chain(blocks) {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// A run of entries: name, place of the inode, kind.
fn run(entries: &[(&[u8], u16, u16)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((entries.len() as u32 - 1).to_le_bytes());
    bytes.extend([0; 8]);
    for (name, offset, kind) in entries {
        for value in [*offset, 0, *kind, name.len() as u16 - 1] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(*name);
    }
    bytes
}

impl Crafted {
    /// A root with these entries, all of them the inode behind it.
    fn with(entries: &[(&[u8], u16, u16)], inode: &[u8]) -> Self {
        let listings = run(entries);
        let mut inodes = directory(0, listings.len() as u16);
        inodes.extend(inode);
        let (ids, fragments, data) = (vec![0], Vec::new(), b"some data".to_vec());
        Self { inodes, root: 0, listings, ids, fragments, data, block_log: 17 }
    }

    /// One file, `a`, at offset 32 of the inodes.
    fn with_file(inode: &[u8]) -> Self {
        Self::with(&[(b"a", 32, 2)], inode)
    }

    fn bytes(&self) -> Vec<u8> {
        let block = |bytes: &[u8]| [&(bytes.len() as u16 | 0x8000).to_le_bytes()[..], bytes].concat();
        let mut image = vec![0; 96];
        image.extend(&self.data);
        let inode_table = image.len() as u64;
        image.extend(block(&self.inodes));
        let directory_table = image.len() as u64;
        image.extend(block(&self.listings));
        let indexed = |image: &mut Vec<u8>, bytes: Vec<u8>| {
            let at = image.len() as u64;
            image.extend(block(&bytes));
            let list = image.len() as u64;
            image.extend(at.to_le_bytes());
            list
        };
        let fragments = self.fragments.iter();
        let fragments: Vec<u8> =
            fragments.flat_map(|(at, size)| [&at.to_le_bytes()[..], &size.to_le_bytes(), &[0; 4]].concat()).collect();
        let fragment_table = if fragments.is_empty() { u64::MAX } else { indexed(&mut image, fragments) };
        let id_table = indexed(&mut image, self.ids.iter().flat_map(|id| id.to_le_bytes()).collect());
        let mut head = Vec::new();
        head.extend(*b"hsqs");
        for value in [2, 0, 1 << self.block_log, self.fragments.len() as u32] {
            head.extend(u32::to_le_bytes(value));
        }
        for value in [1, self.block_log, 0, self.ids.len() as u16, 4, 0] {
            head.extend(u16::to_le_bytes(value));
        }
        let used = image.len() as u64;
        let none = u64::MAX;
        let root = u64::from(self.root);
        for value in [root, used, id_table, none, inode_table, directory_table, fragment_table, none] {
            head.extend(value.to_le_bytes());
        }
        image[..96].copy_from_slice(&head);
        image
    }

    fn check(&self) -> Result<usize> {
        check(&self.bytes())
    }

    #[track_caller]
    fn refused(&self, why: &str) {
        let error = self.check().expect_err("a hostile image was read").to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Bounds that a test reaches.
const TIGHT: Bounds = Bounds { bytes: 1 << 20, entries: 1000, depth: 20 };

fn check(bytes: &[u8]) -> Result<usize> {
    Image::open(file_with(bytes), Path::new("image"), 0, bytes.len() as u64)?.check(&TIGHT)
}

const STORED: u32 = 1 << 24;

#[test]
fn the_crafted_image_is_one_until_something_is_wrong() {
    let good = Crafted::with_file(&file(96, 9, &[9 | STORED]));
    assert_eq!(good.check().unwrap(), 1);
    let bytes = good.bytes();
    let image = Image::open(file_with(&bytes), Path::new("image"), 0, bytes.len() as u64).unwrap();
    let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap();
    let found = image.find(&path("a")).unwrap().unwrap();
    let mut content = image.content(&found).unwrap();
    content.skip(5).unwrap();
    assert_eq!(std::io::read_to_string(&mut content).unwrap(), "data");
    assert_eq!(image.find(&path("b")).unwrap(), None);
    assert_eq!(image.find(&path("a/b")).unwrap(), None);
    for length in 0..bytes.len() {
        let cut = Image::open(file_with(&bytes[..length]), Path::new("image"), 0, length as u64);
        assert!(cut.is_err(), "{length}");
    }
}

#[test]
fn names_that_lead_elsewhere_or_are_there_twice_are_refused() {
    let good = file(96, 9, &[9 | STORED]);
    for name in [&b"a/b"[..], b"..", b".", b"a\0", b"/", &[b'x'; 256]] {
        Crafted::with(&[(name, 32, 2)], &good).refused("is not a file name");
    }
    Crafted::with(&[(b"a", 32, 2), (b"a", 32, 2)], &good).refused("there twice");
    Crafted::with(&[(b"a", 32, 1)], &good).refused("of two kinds");
    Crafted::with(&[(b"a", 32, 9)], &good).refused("of two kinds");
    // Out of order is nobody's loss.
    assert_eq!(Crafted::with(&[(b"b", 32, 2), (b"a", 32, 2)], &good).check().unwrap(), 2);
}

#[test]
fn a_directory_that_lies_in_itself_is_refused() {
    Crafted::with(&[(b"self", 0, 1)], &[]).refused("there twice");
    // Two directories that have the same one in them: 2^n paths, were they followed.
    let mut twice = Crafted::with(&[(b"a", 32, 1), (b"b", 32, 1)], &[]);
    twice.inodes.extend(directory(0, twice.listings.len() as u16));
    twice.refused("there twice");
    let mut not_a_directory = Crafted::with_file(&file(96, 9, &[9 | STORED]));
    not_a_directory.root = 32;
    not_a_directory.refused("root is no directory");
}

#[test]
fn sizes_and_places_out_of_bounds_are_refused() {
    let refused = |inode: Vec<u8>, why: &str| Crafted::with_file(&inode).refused(why);
    refused(file(96, 9, &[200_000 | STORED]), "a block has 200000 bytes");
    refused(file(96, 9, &[8 | STORED]), "has 8 bytes, not 9");
    refused(file(96, 9, &[10 | STORED]), "is damaged");
    refused(file(u32::MAX, 9, &[9 | STORED]), "ends before");
    refused(file(96, 9, &[9]), "is damaged");
    // A bomb: a few bytes that say how much there is.
    refused(file(96, 2 << 20, &[]), "holds more than 1048576 bytes");
    let mut fragment = inode(2, 2);
    for value in [0, 0, 5, 9_u32] {
        fragment.extend(value.to_le_bytes());
    }
    refused(fragment.clone(), "there is no fragment 0 of 0");
    let mut with_fragment = Crafted::with_file(&fragment);
    with_fragment.fragments = vec![(96, 9 | STORED)];
    with_fragment.refused("ends outside of fragment 0");
    with_fragment.fragments = vec![(96, 200_000 | STORED)];
    with_fragment.refused("fragment 0 has");
    let mut symlink = inode(3, 2);
    symlink.extend([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    Crafted::with(&[(b"a", 32, 3)], &symlink).refused("target has 4294967295 bytes");
    Crafted::with(&[(b"a", 32, 2)], &inode(99, 2)).refused("no inode of kind 99");
    Crafted::with(&[(b"a", 40, 2)], &file(96, 9, &[9 | STORED])).check().unwrap_err();
    Crafted::with(&[(b"a", 9000, 2)], &[]).refused("behind the block");
    let mut owner = Crafted::with_file(&file(96, 9, &[9 | STORED]));
    owner.inodes[4] = 7;
    owner.refused("owner 7 is not in the table of 1");
    let mut listing = Crafted::with_file(&file(96, 9, &[9 | STORED]));
    listing.listings[0] = 0xff;
    listing.refused("ends within an entry");
    listing.listings[1] = 1;
    listing.refused("a run of 511 entries");
}

#[test]
fn what_is_too_much_is_refused_before_it_is_read() {
    let entries: Vec<Vec<u8>> = (0..200_u32).map(|number| number.to_string().into_bytes()).collect();
    let entries: Vec<(&[u8], u16, u16)> = entries.iter().map(|name| (name.as_slice(), 32, 2)).collect();
    let many = Crafted::with(&entries, &file(96, 9, &[9 | STORED]));
    let bytes = many.bytes();
    let open = || Image::open(file_with(&bytes), Path::new("image"), 0, bytes.len() as u64).unwrap();
    assert_eq!(open().check(&TIGHT).unwrap(), 200);
    let error = open().check(&Bounds { entries: 199, ..TIGHT }).unwrap_err().to_string();
    assert!(error.contains("more than 199 entries"), "{error}");
    let error = open().check(&Bounds { bytes: 199 * 9, ..TIGHT }).unwrap_err().to_string();
    assert!(error.contains("more than 1791 bytes"), "{error}");
}

#[test]
fn superblocks_of_others_are_told_apart() {
    let good = Crafted::with_file(&file(96, 9, &[9 | STORED])).bytes();
    let refused = |at: usize, bytes: &[u8], why: &str| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let error = check(&image).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(0, b"sqsh", "big-endian");
    refused(0, b"XXXX", "does not begin as one");
    refused(28, &[3, 0], "version 3.0");
    refused(20, &[7, 0], "compression 7");
    refused(12, &[1, 2], "not the size of a block");
    refused(22, &[40, 0], "not the size of a block");
    refused(64, &[0xff; 7], "a table begins at");
}

/// Every image that differs from a good one in a few bytes is read or refused: no panic, no end of memory or time.
#[test]
fn thousands_of_changed_images_are_read_or_refused() {
    let mut link = inode(3, 3);
    link.extend([1, 0, 0, 0, 1, 0, 0, 0, b'a']);
    let mut inodes = file(96, 9, &[9 | STORED]);
    let link_at = 32 + inodes.len() as u16;
    inodes.extend(link);
    let mut tail = inode(2, 4);
    for value in [0, 0, 2, 4_u32] {
        tail.extend(value.to_le_bytes());
    }
    let tail_at = 32 + inodes.len() as u16;
    inodes.extend(tail);
    let entries: [(&[u8], u16, u16); 3] = [(b"a", 32, 2), (b"link", link_at, 3), (b"tail", tail_at, 2)];
    let mut crafted = Crafted::with(&entries, &inodes);
    crafted.fragments = vec![(96, 9 | STORED)];
    let good = crafted.bytes();
    assert_eq!(check(&good).unwrap(), 2);

    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let interesting = [0, 1, 0x7f, 0x80, 0xff];
    let mut read = 0;
    for _ in 0..6000 {
        let mut image = good.clone();
        for _ in 0..=next(3) {
            // The superblock decides the most.
            let at = if next(3) == 0 { next(96) } else { next(image.len()) };
            image[at] = if next(2) == 0 { interesting[next(interesting.len())] } else { next(256) as u8 };
        }
        image.truncate(if next(10) == 0 { next(image.len()) } else { image.len() });
        read += usize::from(check(&image).is_ok());
    }
    // Some changes change nothing that matters.
    assert!((100..5900).contains(&read), "{read}");
}
