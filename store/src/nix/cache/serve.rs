//! What is made here, as a Nix binary cache: which answer belongs to which path. Whoever listens sends it.
//!
//! Archives are not compressed (they are made while they are sent, and a proxy in front may compress); each is named by the store
//! path's own 32 digits. What Nix asks for is signed with the server's key, if it has one.

use std::io::Write;

use super::{CacheInfo, NarInfo};
use crate::format::write_failed;
use crate::nix::info::hash_part;
use crate::signing::NamedKey;
use crate::{Node, Result, Store};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// `content-type`
    pub media_type: &'static str,
    /// `content-length`
    pub length: u64,
    /// What follows.
    pub body: Body,
}

/// What follows the head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A text.
    Text(String),
    /// The archive of this: see [`Served::write`].
    Archive(Node),
}

impl Served {
    fn text(media_type: &'static str, text: String) -> Self {
        Self { media_type, length: text.len() as u64, body: Body::Text(text) }
    }

    /// Writes the body.
    pub fn write(&self, store: &Store, output: &mut dyn Write) -> Result<()> {
        match &self.body {
            Body::Text(text) => output.write_all(text.as_bytes()).map_err(write_failed),
            Body::Archive(node) => store.write_nar(node, &mut |bytes| output.write_all(bytes)),
        }
    }
}

/// Whether a path of an address is one of a cache: what a server answers by [`serve`].
pub fn is_of_a_cache(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    path == "nix-cache-info" || path.ends_with(".narinfo") || path.starts_with("nar/") && path.ends_with(".nar")
}

/// The answer to a path of an address, without the query; none if there is nothing. Only what is here with everything that it
/// refers to is offered, and damaged archives are not: the client hashes what it gets.
pub fn serve(store: &Store, key: Option<&NamedKey>, path: &str) -> Result<Option<Served>> {
    let path = path.trim_start_matches('/');
    if path == "nix-cache-info" {
        let info = CacheInfo { mass_query: true, priority: 30 };
        return Ok(Some(Served::text("text/x-nix-cache-info", info.to_text())));
    }
    let (digits, archive) = match (path.strip_suffix(".narinfo"), path.strip_prefix("nar/")) {
        (Some(digits), _) => (digits, false),
        (None, Some(name)) => match name.strip_suffix(".nar") {
            Some(digits) => (digits, true),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let Some((delta, info)) = store.store_path_of_digits(digits)? else { return Ok(None) };
    if archive {
        let Some((_, node)) = store.node_of_store_delta(delta)? else { return Ok(None) };
        return Ok(Some(Served {
            media_type: "application/x-nix-nar",
            length: info.nar_size,
            body: Body::Archive(node),
        }));
    }
    if store.store_closure([&info.path])?.is_none() {
        return Ok(None);
    }
    let mut narinfo = NarInfo {
        url: format!("nar/{}.nar", hash_part(&info.path)),
        compression: "none".to_owned(),
        file_size: Some(info.nar_size),
        path: info.path,
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references,
        deriver: info.deriver,
        signatures: Vec::new(),
        content_address: None,
    };
    if let Some(key) = key {
        narinfo.sign(key);
    }
    Ok(Some(Served::text("text/x-nix-narinfo", narinfo.to_text())))
}
