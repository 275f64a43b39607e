//! The builders that Nix has in itself: `builtin:fetchurl`, `builtin:buildenv` and `builtin:unpack-channel`.

use std::collections::BTreeMap;
use std::io::Read;

use store::derivation::HashAlgorithm;
use store::{File, Metadata, Name, Node, Tree};

use super::environment::words;
use super::{Prepared, invalid};
use crate::fetch::Wanted;
use crate::{Builder, Error, Result, unpack};

mod profile;

/// Their names.
pub const NAMES: [&[u8]; 3] = [b"fetchurl", b"buildenv", b"unpack-channel"];

/// What an archive may hold, unpacked: more is none of a bootstrap's, and a few bytes of a compressed one may stand for any number.
const LARGEST_ARCHIVE: u64 = 16 << 30;

/// Makes the output `out`.
pub fn build(builder: &Builder<'_>, prepared: &Prepared, name: &[u8]) -> Result<Node> {
    match name {
        b"fetchurl" => fetchurl(builder, prepared),
        b"buildenv" => profile::build(builder.store, prepared),
        _ => unpack_channel(builder, prepared),
    }
}

fn text<'a>(prepared: &'a Prepared, name: &str) -> Result<&'a str> {
    let value = prepared.variable(name).and_then(|value| std::str::from_utf8(value).ok());
    value.ok_or_else(|| invalid(&prepared.derivation.name, format!("it has no `{name}`, which its builder needs")))
}

fn is_set(prepared: &Prepared, name: &str) -> bool {
    prepared.variable(name) == Some(b"1")
}

/// A file of the network, as it is or unpacked from a Nix archive.
fn fetchurl(builder: &Builder<'_>, prepared: &Prepared) -> Result<Node> {
    let name = prepared.derivation.name.as_str();
    let url = text(prepared, "url")?;
    let Some(fixed) = prepared.fixed() else {
        return Err(invalid(name, "what is fetched is to be fixed by a hash"));
    };
    let plain = !is_set(prepared, "unpack") && !is_set(prepared, "executable");
    let sha256 = (plain && !fixed.recursive && fixed.algorithm == HashAlgorithm::Sha256)
        .then(|| fixed.hash.as_slice().try_into().ok())
        .flatten();
    let (blob, _) = builder.fetcher.fetch(builder, &Wanted { url, sha256, size: None })?;
    let file = builder.store.open_blob(blob)?;
    let mode = if is_set(prepared, "executable") { 0o555 } else { 0o444 };
    if is_set(prepared, "unpack") {
        // Nix goes by the address too.
        let mut reader: Box<dyn Read> = match url.ends_with(".xz") {
            true => Box::new(liblzma::read::XzDecoder::new(file)),
            false => Box::new(file),
        };
        let unpacked = store::nix::cache::unpack(builder.store, &mut reader, LARGEST_ARCHIVE, url)?;
        return Ok(match unpacked.node {
            Node::File(file) if mode == 0o555 => Node::File(File { metadata: Metadata::root(mode), ..file }),
            node => node,
        });
    }
    let size = file.metadata().map_err(Error::file("read", builder.store.path()))?.len();
    Ok(Node::File(File { blob, size, metadata: Metadata::root(mode) }))
}

/// An archive's one directory, under another name.
fn unpack_channel(builder: &Builder<'_>, prepared: &Prepared) -> Result<Node> {
    let name = prepared.derivation.name.as_str();
    let (channel, src) = (text(prepared, "channelName")?, text(prepared, "src")?);
    let bad = || invalid(name, format!("`{channel}` is no name for a channel"));
    let channel = Name::new(channel.as_bytes()).map_err(|_| bad())?;
    let Some(Node::File(archive)) = input(builder, prepared, src)? else {
        return Err(invalid(name, format!("`src` is no archive among its inputs: {src}")));
    };
    let tree = unpack::unpack(builder, archive.blob, name)?.tree;
    let node = super::inputs::canonical(builder.store, &Node::Directory(tree))?;
    let entries = BTreeMap::from([(channel, node)]);
    Ok(Node::Directory(builder.store.put_tree(&Tree { metadata: Metadata::root(0o555), entries })?))
}

/// What lies at a path among the inputs; links are followed.
fn input(builder: &Builder<'_>, prepared: &Prepared, path: &str) -> Result<Option<Node>> {
    for (input, found) in &prepared.inputs.paths {
        let Some(below) = path.strip_prefix(input.as_str()) else { continue };
        match &found.node {
            Node::Directory(id) if below.starts_with('/') || below.is_empty() => {
                return Ok(builder.store.look(*id, below.as_bytes())?);
            }
            node if below.is_empty() => return Ok(Some(node.clone())),
            _ => {}
        }
    }
    Ok(None)
}

/// Words of a variable.
fn list<'a>(prepared: &'a Prepared, name: &str) -> Result<Vec<&'a str>> {
    let value = text(prepared, name)?;
    Ok(words(value.as_bytes()).filter_map(|word| std::str::from_utf8(word).ok()).collect())
}
