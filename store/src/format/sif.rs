//! SIF, the Singularity image format, as Apptainer runs it.
//!
//! A header of 128 bytes, 48 descriptors of 585 bytes at 4096, data from 32768 on, each 4 KiB aligned (`pkg/sif` of
//! `github.com/apptainer/sif` defines the fields). Three objects: a definition, labels (JSON), and the primary partition, a
//! squashfs of the formation's root with Apptainer's own files (`/.singularity.d`) put in beside it.
//! Id and times follow from the formation, so that the same formation gives the same bytes.

use std::collections::BTreeMap;
use std::io::{BufReader, Seek, SeekFrom, Write};

use super::{Format, Options, TIME, squashfs, write_failed};
use crate::{File, Formation, FormationId, Launch, Metadata, Name, Node, Result, Store, Tree, TreeId};

/// `sif`
pub struct Sif;

const DESCRIPTOR_COUNT: usize = 48;
const DESCRIPTOR_LENGTH: usize = 585;
const DESCRIPTORS_START: u64 = 4096;
const DATA_START: u64 = 32768;
const ALIGNMENT: u64 = 4096;
/// All our objects are in one group, as Apptainer makes it.
const GROUP: u32 = 0xf000_0001;
const DEFINITION: i32 = 0x4001;
const LABELS: i32 = 0x4003;
const PARTITION: i32 = 0x4004;
const SQUASHFS: i32 = 1;
const PRIMARY_SYSTEM: i32 = 2;

impl Format for Sif {
    fn name(&self) -> &'static str {
        "sif"
    }

    fn extension(&self) -> &'static str {
        "sif"
    }

    fn pack(&self, store: &Store, id: FormationId, options: &Options, output: &mut dyn Write) -> Result<()> {
        let formation = store.formation(id)?;
        let root = with_singularity_files(store, &formation, id)?;
        let mut partition = squashfs::image(store, root, &formation.encode(), options)?;
        let partition_length = partition.seek(SeekFrom::End(0)).map_err(write_failed)?;
        let definition = definition(&formation, id).into_bytes();
        let labels = labels(&formation, id).into_bytes();

        let architecture = architecture(&formation.platform);
        let mut extra = Vec::new();
        extra.extend(SQUASHFS.to_le_bytes());
        extra.extend(PRIMARY_SYSTEM.to_le_bytes());
        extra.extend(architecture);
        let objects = [
            Object { kind: DEFINITION, name: "definition", length: definition.len() as u64, extra: Vec::new() },
            Object { kind: LABELS, name: "labels", length: labels.len() as u64, extra: Vec::new() },
            Object { kind: PARTITION, name: "root", length: partition_length, extra },
        ];
        let mut descriptors = Vec::with_capacity(DESCRIPTOR_COUNT * DESCRIPTOR_LENGTH);
        let mut end = DATA_START;
        let mut starts = Vec::new();
        for (number, object) in objects.iter().enumerate() {
            let before = end;
            let start = end.next_multiple_of(ALIGNMENT);
            end = start + object.length;
            starts.push(start);
            descriptors.extend(object.descriptor(number as u32 + 1, start, end - before));
        }
        descriptors.resize(DESCRIPTOR_COUNT * DESCRIPTOR_LENGTH, 0);

        let mut writer = Writer { output, position: 0 };
        writer.write(&header(id, architecture, objects.len(), end))?;
        writer.pad_to(DESCRIPTORS_START)?;
        writer.write(&descriptors)?;
        for (bytes, start) in [&definition, &labels].into_iter().zip(&starts) {
            writer.pad_to(*start)?;
            writer.write(bytes)?;
        }
        writer.pad_to(starts[2])?;
        partition.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        std::io::copy(&mut BufReader::with_capacity(1 << 20, partition), writer.output).map_err(write_failed)?;
        Ok(())
    }
}

/// SIF's number of an architecture, two digits and a NUL.
fn architecture(platform: &str) -> &'static [u8; 3] {
    match platform.rsplit('/').next() {
        Some("386") => b"01\0",
        Some("amd64") => b"02\0",
        Some("arm") => b"03\0",
        Some("arm64") => b"04\0",
        Some("riscv64") => b"13\0",
        _ => b"00\0",
    }
}

struct Writer<'a> {
    output: &'a mut dyn Write,
    position: u64,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.output.write_all(bytes).map_err(write_failed)
    }

    fn pad_to(&mut self, position: u64) -> Result<()> {
        self.write(&vec![0; (position - self.position) as usize])
    }
}

struct Object {
    kind: i32,
    name: &'static str,
    length: u64,
    extra: Vec<u8>,
}

impl Object {
    fn descriptor(&self, id: u32, start: u64, length_with_padding: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(DESCRIPTOR_LENGTH);
        bytes.extend(self.kind.to_le_bytes());
        bytes.push(1);
        bytes.extend(id.to_le_bytes());
        bytes.extend(GROUP.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        for value in [start, self.length, length_with_padding, u64::from(TIME), u64::from(TIME), 0, 0] {
            bytes.extend(value.to_le_bytes());
        }
        let mut name = self.name.as_bytes().to_vec();
        name.resize(128, 0);
        bytes.extend(name);
        bytes.extend(&self.extra);
        bytes.resize(DESCRIPTOR_LENGTH, 0);
        bytes
    }
}

fn header(id: FormationId, architecture: &[u8; 3], used: usize, end: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let mut launch = b"#!/usr/bin/env run-singularity\n".to_vec();
    launch.resize(32, 0);
    bytes.extend(launch);
    bytes.extend(b"SIF_MAGIC\0");
    bytes.extend(b"01\0");
    bytes.extend(architecture);
    // A UUID of version 8 (RFC 9562): its bits are the formation's.
    let mut uuid: [u8; 16] = id.as_bytes()[..16].try_into().expect("16 bytes");
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    bytes.extend(uuid);
    let free = (DESCRIPTOR_COUNT - used) as u64;
    let descriptors = (DESCRIPTOR_COUNT * DESCRIPTOR_LENGTH) as u64;
    for value in [
        u64::from(TIME),
        u64::from(TIME),
        free,
        DESCRIPTOR_COUNT as u64,
        DESCRIPTORS_START,
        descriptors,
        DATA_START,
        end - DATA_START,
    ] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

fn definition(formation: &Formation, id: FormationId) -> String {
    format!("bootstrap: forge\nfrom: {}@{id}\n", formation.name)
}

fn labels(formation: &Formation, id: FormationId) -> String {
    let labels = BTreeMap::from([
        ("forge.formation", id.to_string()),
        ("org.opencontainers.image.title", formation.name.clone()),
        ("org.opencontainers.image.version", formation.version.clone()),
    ]);
    serde_json::to_string(&labels).expect("texts have a JSON form")
}

/// The formation's root with what Apptainer looks for in it: environment, run script, labels.
fn with_singularity_files(store: &Store, formation: &Formation, id: FormationId) -> Result<TreeId> {
    let file = |content: &[u8], mode: u16| -> Result<Node> {
        let blob = store.put_blob(content, mode & 0o111 != 0)?;
        Ok(Node::File(File { blob, size: content.len() as u64, metadata: Metadata::root(mode) }))
    };
    let directory = |entries: Vec<(&str, Node)>| -> Result<Node> {
        let name = |name: &str| Name::new(name).expect("a fixed name");
        let entries = entries.into_iter().map(|(entry, node)| (name(entry), node)).collect();
        Ok(Node::Directory(store.put_tree(&Tree { entries, ..Tree::empty() })?))
    };
    let script = run_script(&formation.launch);
    let singularity = directory(vec![
        ("env", directory(vec![("90-environment.sh", file(&environment_script(&formation.launch), 0o755)?)])?),
        ("labels.json", file(labels(formation, id).as_bytes(), 0o644)?),
        ("runscript", file(&script, 0o755)?),
        ("startscript", file(&script, 0o755)?),
    ])?;
    let mut root = Tree::clone(&*store.tree(formation.root)?);
    root.entries.insert(Name::new(*b".singularity.d").expect("a name"), singularity);
    store.put_tree(&root)
}

fn environment_script(launch: &Launch) -> Vec<u8> {
    let mut script = b"#!/bin/sh\n".to_vec();
    for (name, value) in &launch.environment {
        // What is no identifier cannot be set by a shell.
        let identifier = name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
            && name.first().is_some_and(|byte| !byte.is_ascii_digit());
        if identifier {
            script.extend([b"export ", name.as_slice(), b"=", &quoted(value), b"\n"].concat());
        }
    }
    script
}

fn run_script(launch: &Launch) -> Vec<u8> {
    let mut script = b"#!/bin/sh\n".to_vec();
    if let Some(directory) = &launch.directory {
        script.extend([b"cd ", quoted(directory).as_slice(), b" || exit\n"].concat());
    }
    if !launch.entrypoint.is_empty() {
        // What is given takes the command's place behind the entrypoint.
        if !launch.command.is_empty() {
            script.extend(b"[ $# -gt 0 ] || set --");
            for word in &launch.command {
                script.extend([b" ", quoted(word).as_slice()].concat());
            }
            script.push(b'\n');
        }
        script.extend(b"exec");
        for word in &launch.entrypoint {
            script.extend([b" ", quoted(word).as_slice()].concat());
        }
        script.extend(b" \"$@\"\n");
    } else if launch.command.is_empty() {
        script.extend(b"exec /bin/sh \"$@\"\n");
    } else {
        script.extend(b"exec");
        for word in &launch.command {
            script.extend([b" ", quoted(word).as_slice()].concat());
        }
        script.extend(b" \"$@\"\n");
    }
    script
}

/// A word for a POSIX shell: in single quotes, each single quote in it taken out of them.
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut text = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => text.extend(br"'\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format() {
        let id = FormationId::from_bytes([7; 32]);
        assert_eq!(header(id, b"02\0", 3, DATA_START).len(), 128);
        let object = Object { kind: PARTITION, name: "root", length: 1, extra: vec![1; 11] };
        assert_eq!(object.descriptor(1, 0, 1).len(), DESCRIPTOR_LENGTH);
        assert!(DESCRIPTORS_START + (DESCRIPTOR_COUNT * DESCRIPTOR_LENGTH) as u64 <= DATA_START);
    }

    #[test]
    fn a_word_is_quoted_for_the_shell() {
        assert_eq!(quoted(b"it's $HOME"), br"'it'\''s $HOME'");
    }

    #[test]
    fn only_what_a_shell_can_name_is_exported() {
        let environment = [("A", "1"), ("a-b", "2"), ("1a", "3")].map(|(name, value)| (name.into(), value.into()));
        let launch = Launch { environment: BTreeMap::from(environment), ..Launch::default() };
        assert_eq!(environment_script(&launch), b"#!/bin/sh\nexport A='1'\n");
    }
}
