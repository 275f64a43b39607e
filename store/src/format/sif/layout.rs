//! The bytes of a SIF: one header, a table of descriptors, and what they describe.
//!
//! Drawn in `docs/formats/sif.md`. What is read here comes from outside: every number is checked before it is used, and nothing is
//! read that the file does not have.

use crate::format::{Artifact, TIME};
use crate::{Error, FormationId, Result};

/// As errors name the format.
pub const FORMAT: &str = "SIF";
/// Bytes of the header.
pub const HEADER_LENGTH: usize = 128;
/// Bytes of a descriptor.
pub const DESCRIPTOR_LENGTH: usize = 585;
/// Descriptors that we make room for, as Apptainer does: signatures and overlays take free ones.
pub const DESCRIPTOR_COUNT: usize = 48;
/// Where we put the descriptors.
pub const DESCRIPTORS_START: u64 = 4096;
/// Where we put the first object.
pub const DATA_START: u64 = 32768;
/// Every object that we write begins at a multiple of this: a page, so that a partition can be mounted.
pub const ALIGNMENT: u64 = 4096;
/// A table of more is refused: Apptainer makes 48.
const MOST_DESCRIPTORS: u64 = 16 * 1024;
/// Object groups are numbered from here, and so are links to a group.
pub const GROUP_BASE: u32 = 0xf000_0000;
/// The group that all objects of an image of ours are in, as Apptainer makes it.
pub const GROUP: u32 = GROUP_BASE | 1;

const MAGIC: &[u8] = b"SIF_MAGIC\0";
const VERSION: &[u8] = b"01\0";
const LAUNCH: &[u8] = b"#!/usr/bin/env run-singularity\n";

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(pub i32);

impl Kind {
    /// The definition that the image was built from.
    pub const DEFINITION: Self = Self(0x4001);
    /// Labels, as a JSON object.
    pub const LABELS: Self = Self(0x4003);
    /// A file system.
    pub const PARTITION: Self = Self(0x4004);
    /// A signature over a group of objects.
    pub const SIGNATURE: Self = Self(0x4005);
    /// JSON known by its name.
    pub const JSON: Self = Self(0x4006);
    /// Bytes known by their name.
    pub const GENERIC: Self = Self(0x4007);
    /// The key of an encrypted partition.
    pub const CRYPTO: Self = Self(0x4008);

    /// In a word or two.
    pub fn words(self) -> String {
        let word = match self.0 {
            0x4001 => "definition",
            0x4002 => "environment",
            0x4003 => "labels",
            0x4004 => "partition",
            0x4005 => "signature",
            0x4006 => "JSON",
            0x4007 => "data",
            0x4008 => "encrypted key",
            0x4009 => "SBOM",
            0x400a => "OCI index",
            0x400b => "OCI blob",
            other => return format!("unknown ({other:#x})"),
        };
        word.to_owned()
    }
}

/// The file system of a partition.
pub mod filesystem {
    /// squashfs
    pub const SQUASHFS: i32 = 1;
    /// ext3
    pub const EXT3: i32 = 2;
    /// squashfs in a LUKS container
    pub const ENCRYPTED: i32 = 5;
    /// squashfs in gocryptfs
    pub const GOCRYPTFS: i32 = 6;

    /// In a word or two.
    pub fn words(number: i32) -> String {
        match number {
            SQUASHFS => "squashfs".to_owned(),
            EXT3 => "ext3".to_owned(),
            3 => "archive".to_owned(),
            4 => "raw".to_owned(),
            ENCRYPTED => "encrypted squashfs".to_owned(),
            GOCRYPTFS => "squashfs in gocryptfs".to_owned(),
            other => format!("unknown ({other})"),
        }
    }
}

/// What a partition is for.
pub mod usage {
    /// An operating system.
    pub const SYSTEM: i32 = 1;
    /// The operating system that is run.
    pub const PRIMARY: i32 = 2;
    /// Data only.
    pub const DATA: i32 = 3;
    /// Laid over the primary system.
    pub const OVERLAY: i32 = 4;

    /// In a word or two.
    pub fn words(number: i32) -> String {
        match number {
            SYSTEM => "system".to_owned(),
            PRIMARY => "primary system".to_owned(),
            DATA => "data".to_owned(),
            OVERLAY => "overlay".to_owned(),
            other => format!("unknown ({other})"),
        }
    }
}

/// SIF's numbers of architectures, and OCI's words for them.
const ARCHITECTURES: [(&[u8; 3], &str); 13] = [
    (b"01\0", "386"),
    (b"02\0", "amd64"),
    (b"03\0", "arm"),
    (b"04\0", "arm64"),
    (b"05\0", "ppc64"),
    (b"06\0", "ppc64le"),
    (b"07\0", "mips"),
    (b"08\0", "mipsle"),
    (b"09\0", "mips64"),
    (b"10\0", "mips64le"),
    (b"11\0", "s390x"),
    (b"12\0", "riscv64"),
    (b"13\0", "loong64"),
];

/// SIF's number of a platform's architecture: two digits and a NUL. `00` is "unknown".
pub fn architecture_of(platform: &str) -> &'static [u8; 3] {
    let word = platform.split('/').nth(1).unwrap_or(platform);
    ARCHITECTURES.iter().find(|(_, known)| *known == word).map_or(b"00\0", |(number, _)| number)
}

/// OCI's word for one of SIF's numbers.
pub fn architecture_word(number: &[u8]) -> Option<&'static str> {
    ARCHITECTURES.iter().find(|(known, _)| known.as_slice() == number).map(|(_, word)| *word)
}

/// The header, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub [u8; HEADER_LENGTH]);

impl Header {
    /// Of an image of ours, with so many descriptors used and the last object ending at `end`.
    pub fn new(id: FormationId, architecture: &[u8; 3], used: usize, end: u64) -> Self {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..LAUNCH.len()].copy_from_slice(LAUNCH);
        bytes[32..42].copy_from_slice(MAGIC);
        bytes[42..45].copy_from_slice(VERSION);
        bytes[45..48].copy_from_slice(architecture);
        // A UUID of version 8 (RFC 9562): its bits are the formation's.
        let mut uuid: [u8; 16] = id.as_bytes()[..16].try_into().expect("16 bytes");
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        bytes[48..64].copy_from_slice(&uuid);
        let mut header = Self(bytes);
        let table = (DESCRIPTOR_COUNT * DESCRIPTOR_LENGTH) as u64;
        let free = (DESCRIPTOR_COUNT - used) as u64;
        let numbers = [TIME.into(), TIME.into(), free, DESCRIPTOR_COUNT as u64, DESCRIPTORS_START, table, DATA_START];
        for (index, number) in numbers.into_iter().enumerate() {
            header.set(index, number);
        }
        header.set_data_length(end - DATA_START);
        header
    }

    fn number(&self, index: usize) -> u64 {
        number(&self.0, 64 + 8 * index)
    }

    fn set(&mut self, index: usize, number: u64) {
        self.0[64 + 8 * index..][..8].copy_from_slice(&number.to_le_bytes());
    }

    /// Two digits and a NUL.
    pub fn architecture(&self) -> &[u8] {
        &self.0[45..48]
    }

    /// The image's UUID, as usually written.
    pub fn uuid(&self) -> String {
        let hex: String = self.0[48..64].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Descriptors that are free.
    pub fn free(&self) -> u64 {
        self.number(2)
    }

    /// Says how many descriptors are free.
    pub fn set_free(&mut self, free: u64) {
        self.set(2, free);
    }

    /// Descriptors, used and free.
    pub fn total(&self) -> u64 {
        self.number(3)
    }

    /// Where the descriptors are.
    pub fn descriptors_start(&self) -> u64 {
        self.number(4)
    }

    /// Where the objects begin.
    pub fn data_start(&self) -> u64 {
        self.number(6)
    }

    /// How long the objects are together.
    pub fn data_length(&self) -> u64 {
        self.number(7)
    }

    /// Says how long the objects are together.
    pub fn set_data_length(&mut self, length: u64) {
        self.set(7, length);
    }

    /// What a signature covers: launch line, magic, version and id.
    pub fn signed_bytes(&self) -> Vec<u8> {
        [&self.0[..45], &self.0[48..64]].concat()
    }
}

/// A descriptor, as it stands in the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Descriptor(pub [u8; DESCRIPTOR_LENGTH]);

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} {} `{}` at {}, {} bytes",
            self.id(),
            self.kind().words(),
            self.name(),
            self.start(),
            self.length()
        )
    }
}

/// What a new descriptor says.
#[derive(Debug, Clone)]
pub struct Description<'a> {
    /// What it describes.
    pub kind: Kind,
    /// From 1.
    pub id: u32,
    /// Its group, or 0.
    pub group: u32,
    /// What it is linked to, or 0.
    pub link: u32,
    /// Where the object begins.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// Its bytes and those skipped before it.
    pub length_with_padding: u64,
    /// What it is called, 128 bytes at most.
    pub name: &'a str,
    /// What depends on the kind, 384 bytes at most.
    pub extra: &'a [u8],
}

impl Descriptor {
    /// In the file's form, all its times [`TIME`].
    pub fn new(description: &Description) -> Self {
        let mut bytes = Vec::with_capacity(DESCRIPTOR_LENGTH);
        bytes.extend(description.kind.0.to_le_bytes());
        bytes.push(1);
        bytes.extend(description.id.to_le_bytes());
        bytes.extend(description.group.to_le_bytes());
        bytes.extend(description.link.to_le_bytes());
        let (start, length) = (description.start, description.length);
        for value in [start, length, description.length_with_padding, TIME.into(), TIME.into(), 0, 0] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(description.name.as_bytes());
        bytes.resize(NAME + NAME_LENGTH, 0);
        bytes.extend(description.extra);
        bytes.resize(DESCRIPTOR_LENGTH, 0);
        Self(bytes.try_into().expect("a descriptor's length"))
    }

    /// What it describes.
    pub fn kind(&self) -> Kind {
        Kind(small(&self.0, 0) as i32)
    }

    /// Whether it describes anything; what was deleted does not.
    pub fn is_used(&self) -> bool {
        self.0[4] != 0
    }

    /// The object's number.
    pub fn id(&self) -> u32 {
        small(&self.0, 5)
    }

    /// Its group, or 0.
    pub fn group(&self) -> u32 {
        small(&self.0, 9)
    }

    /// The object or group that it is about, or 0.
    pub fn link(&self) -> u32 {
        small(&self.0, 13)
    }

    /// Where the object begins.
    pub fn start(&self) -> u64 {
        number(&self.0, 17)
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        number(&self.0, 25)
    }

    /// What it is called.
    pub fn name(&self) -> String {
        let name = &self.0[NAME..NAME + NAME_LENGTH];
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).chars().filter(|letter| !letter.is_control()).collect()
    }

    /// What depends on the kind.
    pub fn extra(&self) -> &[u8] {
        &self.0[NAME + NAME_LENGTH..]
    }

    /// Of a partition: its file system ([`filesystem`]).
    pub fn filesystem(&self) -> i32 {
        small(self.extra(), 0) as i32
    }

    /// Of a partition: what it is for ([`usage`]).
    pub fn usage(&self) -> i32 {
        small(self.extra(), 4) as i32
    }

    /// Of a partition: OCI's word for its architecture.
    pub fn architecture(&self) -> Option<&'static str> {
        architecture_word(&self.extra()[8..11])
    }

    /// Whether it is a partition for this.
    pub fn is_partition_for(&self, usage: i32) -> bool {
        self.kind() == Kind::PARTITION && self.usage() == usage
    }

    /// What a signature covers: everything but where the object lies; its number counts from the least of its group.
    pub fn signed_bytes(&self, least: u32) -> Vec<u8> {
        let relative = self.id().wrapping_sub(least).to_le_bytes();
        let bytes = &self.0;
        // Type and use; id; link; length; time of creation; user and group; name and extra.
        [&bytes[..5], &relative, &bytes[13..17], &bytes[25..33], &bytes[41..49], &bytes[57..73], &bytes[NAME..]]
            .concat()
    }
}

const NAME: usize = 73;
const NAME_LENGTH: usize = 128;

fn small(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A SIF's header and descriptors.
#[derive(Debug, Clone)]
pub struct Image {
    /// The header.
    pub header: Header,
    /// All descriptors, the unused too, as they stand in the file.
    pub descriptors: Vec<Descriptor>,
}

impl Image {
    /// Whether this begins as a SIF does.
    pub fn recognises(head: &[u8]) -> bool {
        head.get(32..42) == Some(MAGIC)
    }

    /// Reads and checks them: every object that is used lies within the file.
    pub fn read(artifact: &Artifact) -> Result<Self> {
        let bad = |reason: String| -> Error { artifact.bad(FORMAT, reason) };
        let bytes = artifact.bytes(FORMAT, 0, HEADER_LENGTH)?;
        let header = Header(bytes.try_into().expect("a header's length"));
        if !Self::recognises(&header.0) {
            return Err(bad("it does not begin as a SIF".to_owned()));
        }
        if &header.0[42..45] != VERSION {
            return Err(bad(format!("it has version {}, and 01 is known", header.0[42..44].escape_ascii())));
        }
        let total = header.total();
        if total > MOST_DESCRIPTORS {
            return Err(bad(format!("it has room for {total} descriptors, and {MOST_DESCRIPTORS} are allowed")));
        }
        let start = header.descriptors_start();
        if start < HEADER_LENGTH as u64 {
            return Err(bad(format!("its descriptors begin at byte {start}, within the header")));
        }
        let table = artifact.bytes(FORMAT, start, total as usize * DESCRIPTOR_LENGTH)?;
        let rows = table.chunks_exact(DESCRIPTOR_LENGTH);
        let descriptors: Vec<_> = rows.map(|row| Descriptor(row.try_into().expect("a descriptor's length"))).collect();
        let image = Self { header, descriptors };
        for descriptor in image.used() {
            let end = descriptor.start().checked_add(descriptor.length());
            if end.is_none_or(|end| end > artifact.size()) {
                let (id, start, length) = (descriptor.id(), descriptor.start(), descriptor.length());
                let size = artifact.size();
                return Err(bad(format!("its object {id} has {length} bytes at {start}, and the file ends at {size}")));
            }
        }
        Ok(image)
    }

    /// The descriptors that describe something.
    pub fn used(&self) -> impl Iterator<Item = &Descriptor> {
        self.descriptors.iter().filter(|descriptor| descriptor.is_used())
    }

    /// The first object of a kind and name; any name if it is empty.
    pub fn find(&self, kind: Kind, name: &str) -> Option<&Descriptor> {
        self.used().find(|descriptor| descriptor.kind() == kind && (name.is_empty() || descriptor.name() == name))
    }

    /// The content of a small object; none if it is larger than `most`.
    pub fn content(&self, artifact: &Artifact, descriptor: &Descriptor, most: u64) -> Result<Option<Vec<u8>>> {
        if descriptor.length() > most {
            return Ok(None);
        }
        artifact.bytes(FORMAT, descriptor.start(), descriptor.length() as usize).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format() {
        let id = FormationId::from_bytes([7; 32]);
        let header = Header::new(id, b"02\0", 3, DATA_START + 5);
        assert_eq!((header.free(), header.total(), header.data_length()), (45, 48, 5));
        assert_eq!(header.uuid(), "07070707-0707-8707-8707-070707070707");
        assert_eq!(header.signed_bytes().len(), 32 + 10 + 3 + 16);
        assert!(DESCRIPTORS_START + (DESCRIPTOR_COUNT * DESCRIPTOR_LENGTH) as u64 <= DATA_START);
    }

    #[test]
    fn a_descriptor_says_what_it_was_told() {
        let (kind, group, link, name) = (Kind::PARTITION, GROUP, 0, "root");
        let extra = [1_u32.to_le_bytes().as_slice(), &2_u32.to_le_bytes(), b"04\0"].concat();
        let (start, length, length_with_padding) = (4096, 5, 6);
        let description =
            Description { kind, id: 3, group, link, start, length, length_with_padding, name, extra: &extra };
        let descriptor = Descriptor::new(&description);
        assert!(descriptor.is_used() && descriptor.is_partition_for(usage::PRIMARY));
        assert_eq!((descriptor.id(), descriptor.start(), descriptor.length()), (3, 4096, 5));
        assert_eq!((descriptor.name().as_str(), descriptor.architecture()), ("root", Some("arm64")));
        assert_eq!(descriptor.signed_bytes(1).len(), 4 + 1 + 4 + 4 + 8 + 8 + 8 + 8 + 128 + 384);
    }

    #[test]
    fn architectures_are_numbered_as_sif_does() {
        assert_eq!(architecture_of("linux/amd64"), b"02\0");
        assert_eq!(architecture_of("linux/arm64/v8"), b"04\0");
        assert_eq!(architecture_of("linux/riscv64"), b"12\0");
        assert_eq!(architecture_of("linux/none"), b"00\0");
        assert_eq!(architecture_word(b"00\0"), None);
    }
}
