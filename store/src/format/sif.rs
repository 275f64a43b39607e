//! SIF, the Singularity image format, as Apptainer 1.4 makes and runs it.
//!
//! What forge writes: a definition, labels, what `apptainer inspect` reads, the formation's encoding, and the primary partition: a
//! squashfs of the formation's root with `/.singularity.d` put in (`scripts.rs`), each object 4 KiB aligned. Id and times
//! follow from the formation, so that the same formation gives the same bytes. What others made is read too: the file system from the
//! primary partition if that is squashfs, and how it wants to be run (`foreign.rs`).
//! Signatures are in `signature.rs`; the bytes are drawn in `docs/formats/sif.md`.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::{Artifact, Bounds, FileName, Format, Imported, Inspection, Options, Packed, Part, squashfs, write_failed};
use crate::{Error, Formation, FormationId, Node, Result, Store};

mod environment;
mod foreign;
mod layout;
mod scripts;
pub mod signature;
#[cfg(test)]
mod tests;

use foreign::{MOST_METADATA, one_line};
use layout::{
    ALIGNMENT, DATA_START, DESCRIPTOR_COUNT, DESCRIPTOR_LENGTH, DESCRIPTORS_START, Description, Descriptor, FORMAT,
    GROUP, GROUP_BASE, Header, Image, Kind, architecture_of, filesystem, usage,
};
use scripts::Scripts;

/// `sif`
pub struct Sif;

/// The object that holds the formation's encoding.
const FORMATION: &str = "forge.formation";

impl Format for Sif {
    fn name(&self) -> &'static str {
        "sif"
    }

    fn extension(&self) -> &'static str {
        "sif"
    }

    fn pack(&self, store: &Store, id: FormationId, options: &Options, output: &mut dyn Write) -> Result<()> {
        let formation = store.formation(id)?;
        let front = Front::new(store, &formation, id)?;
        let root = front.scripts.added_to(store, formation.root, &formation.launch)?;
        let mut partition = squashfs::image(store, root, &formation.name, &[], options)?;
        let length = partition.seek(SeekFrom::End(0)).map_err(write_failed)?;
        output.write_all(&front.bytes(&formation, id, length)).map_err(write_failed)?;
        partition.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        std::io::copy(&mut BufReader::with_capacity(1 << 20, partition), output).map_err(write_failed)?;
        Ok(())
    }

    fn pack_file(&self, store: &Store, id: FormationId, options: &Options, file: &File) -> Result<Packed> {
        let formation = store.formation(id)?;
        let front = Front::new(store, &formation, id)?;
        let root = front.scripts.added_to(store, formation.root, &formation.launch)?;
        let base = front.bytes(&formation, id, 0).len() as u64;
        let packed = squashfs::image_at(store, root, &formation.name, &[], options, file, base)?;
        file.write_all_at(&front.bytes(&formation, id, packed.length), 0).map_err(write_failed)?;
        Ok(Packed { length: base + packed.length, ..packed })
    }

    fn recognises(&self, artifact: &Artifact) -> bool {
        Image::recognises(artifact.head())
    }

    fn inspect(&self, artifact: &Artifact) -> Result<Inspection> {
        let image = Image::read(artifact)?;
        let formation = formation(artifact, &image)?;
        let mut inspection = Inspection { format: "sif", size: artifact.size(), ..Inspection::default() };
        let signatures = image.used().filter(|descriptor| descriptor.kind() == Kind::SIGNATURE).count();
        let several_groups = image.used().any(|other| ![0, GROUP].contains(&other.group()));
        let whole = Whole { signatures, several_groups };
        inspection.parts =
            image.used().map(|descriptor| part(artifact, &image, &whole, descriptor)).collect::<Result<_>>()?;
        let mut fact = |name: &str, value: String| _ = inspection.facts.insert(name.to_owned(), value);
        fact("image id", image.header.uuid());
        fact("signatures", signatures.to_string());
        if let Some(primary) = image.used().find(|descriptor| descriptor.is_partition_for(usage::PRIMARY)) {
            inspection.platform = primary.architecture().map(|word| format!("linux/{word}"));
            fact("file system", filesystem::words(primary.filesystem()));
            if primary.filesystem() == filesystem::SQUASHFS {
                inspection.compression = open(artifact, primary)?.superblock().codec.name().to_owned();
            }
        }
        if formation.is_none() {
            let described = foreign::from_objects(artifact, &image)?;
            let called = FileName::whole(artifact.path());
            inspection.name = called.as_ref().map(|called| called.name.clone()).or(described.name());
            inspection.version = called.map(|called| called.version).or(described.version());
            inspection.launch = described.launch;
            inspection.launch.labels = described.labels;
        }
        inspection.formation = formation;
        Ok(inspection)
    }

    fn read(&self, store: &Store, artifact: &Artifact, bounds: &Bounds) -> Result<Imported> {
        let image = Image::read(artifact)?;
        let formation = formation(artifact, &image)?;
        let primary = primary(artifact, &image)?;
        let mut imported = open(artifact, primary)?.extract(store, bounds)?;
        for other in image.used().filter(|other| other.kind() == Kind::PARTITION && other.id() != primary.id()) {
            let kind = format!("{} partition ({})", usage::words(other.usage()), filesystem::words(other.filesystem()));
            imported.dropped.add(kind, format!("object {}", other.id()).as_bytes());
        }
        if formation.is_some() {
            imported.root = scripts::restored(store, imported.root)?;
            imported.formation = formation;
            return Ok(imported);
        }
        // Apptainer may have packed what forge had packed, and put its own files beside it: then it is that formation no more.
        imported.formation = imported.formation.filter(|formation| formation.root == imported.root);
        if imported.formation.is_some() {
            return Ok(imported);
        }
        let described = foreign::from_objects(artifact, &image)?;
        let config = foreign::json(artifact, &image, Kind::JSON, "oci-config.json")?;
        let called = FileName::whole(artifact.path());
        imported.name = called.as_ref().map(|called| called.name.clone()).or(described.name());
        imported.version = called.map(|called| called.version).or(described.version());
        imported.platform = primary.architecture().map(|word| format!("linux/{word}"));
        imported.launch = foreign::from_tree(store, imported.root, &described, &config, &mut imported.dropped)?;
        imported.launch.labels = described.labels;
        Ok(imported)
    }
}

/// What stands before the partition.
struct Front {
    scripts: Scripts,
    metadata: String,
    encoded: Vec<u8>,
}

impl Front {
    fn new(store: &Store, formation: &Formation, id: FormationId) -> Result<Self> {
        let has_shell = matches!(store.look(formation.root, b"/bin/sh")?, Some(Node::File(_)));
        let scripts = Scripts::new(formation, id, has_shell);
        Ok(Self { metadata: scripts.metadata(), scripts, encoded: formation.encode() })
    }

    /// Header, descriptors and objects, up to where a partition of `length` bytes begins.
    fn bytes(&self, formation: &Formation, id: FormationId, length: u64) -> Vec<u8> {
        let architecture = architecture_of(&formation.platform);
        let number = |number: i32| number.to_le_bytes();
        let partition = [&number(filesystem::SQUASHFS)[..], &number(usage::PRIMARY), architecture].concat();
        let objects: [(Kind, &str, &[u8]); 4] = [
            (Kind::DEFINITION, "definition", self.scripts.definition.as_bytes()),
            (Kind::LABELS, "labels", self.scripts.labels.as_bytes()),
            (Kind::JSON, "inspect-metadata.json", self.metadata.as_bytes()),
            (Kind::GENERIC, FORMATION, &self.encoded),
        ];
        let mut descriptors = Vec::new();
        let mut end = DATA_START;
        let mut add = |kind: Kind, name: &str, length: u64, extra: &[u8]| -> u64 {
            let start = end.next_multiple_of(ALIGNMENT);
            let id = (descriptors.len() / DESCRIPTOR_LENGTH) as u32 + 1;
            let (group, link, length_with_padding) = (GROUP, 0, start + length - end);
            end = start + length;
            let description = Description { kind, id, group, link, start, length, length_with_padding, name, extra };
            descriptors.extend(Descriptor::new(&description).0);
            start
        };
        let starts = objects.map(|(kind, name, content)| add(kind, name, content.len() as u64, &[]));
        let partition_start = add(Kind::PARTITION, "root", length, &partition);
        let used = objects.len() + 1;
        descriptors.resize(DESCRIPTOR_COUNT * DESCRIPTOR_LENGTH, 0);

        let mut bytes = Header::new(id, architecture, used, end).0.to_vec();
        bytes.resize(DESCRIPTORS_START as usize, 0);
        bytes.extend(descriptors);
        for ((_, _, content), start) in objects.into_iter().zip(starts) {
            bytes.resize(start as usize, 0);
            bytes.extend(content);
        }
        bytes.resize(partition_start as usize, 0);
        bytes
    }
}

/// The formation that a SIF of forge's carries.
fn formation(artifact: &Artifact, image: &Image) -> Result<Option<Formation>> {
    let Some(descriptor) = image.find(Kind::GENERIC, FORMATION) else { return Ok(None) };
    let Some(encoded) = image.content(artifact, descriptor, MOST_METADATA)? else {
        return Err(artifact.bad(FORMAT, "the formation that it names is too large to be one"));
    };
    let bad = |error| artifact.bad(FORMAT, format!("what it says of its formation is damaged: {error}"));
    Formation::decode(&encoded).map(Some).map_err(bad)
}

/// The squashfs of a partition.
fn open(artifact: &Artifact, partition: &Descriptor) -> Result<squashfs::read::Image> {
    let Some(file) = artifact.file() else { return Err(artifact.bad(FORMAT, "it is a directory")) };
    let file = file.try_clone().map_err(Error::file("open", artifact.path()))?;
    squashfs::read::Image::open(file, artifact.path(), partition.start(), partition.length())
}

/// The partition that Apptainer would run, if it can be read.
fn primary<'a>(artifact: &Artifact, image: &'a Image) -> Result<&'a Descriptor> {
    let Some(primary) = image.used().find(|descriptor| descriptor.is_partition_for(usage::PRIMARY)) else {
        return Err(artifact.bad(FORMAT, "it has no primary system partition: nothing in it can be run"));
    };
    let unread = |reason: &'static str| Err(Error::Unsupported { path: artifact.path().to_owned(), reason });
    match primary.filesystem() {
        filesystem::SQUASHFS => Ok(primary),
        filesystem::ENCRYPTED | filesystem::GOCRYPTFS => {
            unread("its file system is encrypted, and forge takes no key for that: Apptainer runs it")
        }
        filesystem::EXT3 => {
            unread("its file system is ext3: `apptainer build squashfs.sif FILE` makes a squashfs of it")
        }
        _ => unread("its primary partition is neither squashfs nor anything else that can be read"),
    }
}

/// Where the root file system of an image lies in its file, and how long it is, if it is a squashfs.
pub fn partition(artifact: &Artifact) -> Result<(u64, u64)> {
    let image = Image::read(artifact)?;
    let primary = primary(artifact, &image)?;
    // What does not begin as a squashfs does is said here rather than by the kernel.
    open(artifact, primary)?;
    Ok((primary.start(), primary.length()))
}

/// What of an image decides how its parts are shown.
struct Whole {
    signatures: usize,
    several_groups: bool,
}

/// One line of what an image holds.
fn part(artifact: &Artifact, image: &Image, context: &Whole, descriptor: &Descriptor) -> Result<Part> {
    let mut detail = Vec::new();
    match descriptor.kind() {
        Kind::PARTITION => {
            detail.push(filesystem::words(descriptor.filesystem()));
            detail.push(usage::words(descriptor.usage()));
            detail.extend(descriptor.architecture().map(str::to_owned));
        }
        Kind::SIGNATURE => {
            if context.signatures <= signature::MOST_SIGNATURES {
                let (form, signer) = signature::describe(artifact, image, descriptor)?;
                detail.push(format!("{form} {signer}").trim_end().to_owned());
            }
            let link = descriptor.link();
            match link & GROUP_BASE == GROUP_BASE {
                true => detail.push(format!("of group {}", link & !GROUP_BASE)),
                false => detail.push(format!("of object {link}")),
            }
        }
        Kind::CRYPTO => detail.push(format!("of object {}", descriptor.link())),
        _ => {}
    }
    if context.several_groups && descriptor.group() != 0 {
        detail.push(format!("group {}", descriptor.group() & !GROUP_BASE));
    }
    Ok(Part {
        kind: descriptor.kind().words(),
        name: one_line(&descriptor.name()),
        offset: Some(descriptor.start()),
        size: descriptor.length(),
        detail: detail.join(", "),
    })
}
