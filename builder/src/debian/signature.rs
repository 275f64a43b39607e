//! Whether an index is signed by somebody this machine trusts.
//!
//! As with apt, one good signature is enough: by a key (or signing subkey) of the trusted rings that is neither expired nor revoked,
//! over a digest that is not broken. What is read afterwards is the signed text, never the bytes around it.

use std::path::PathBuf;

use pgp::composed::{CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::Signature;
use store::openpgp::{Keys, fingerprint};

use super::sources::{SignedBy, Source, in_directory};
use crate::{Machine, Result};

/// Debian's archive keys of 2025 (`keys/README.md`), for machines without.
const DEBIAN_KEYS: &[u8] = include_bytes!("../../keys/debian-archive-keyring.gpg");

/// Keys that are trusted for one source.
#[derive(Default)]
pub struct Ring {
    keys: Keys,
    /// If there are any, only keys with these fingerprints count.
    fingerprints: Vec<String>,
}

impl Ring {
    /// The keys that apt on this machine would trust for a source.
    ///
    /// A source that is configured says itself whom it trusts. Debian's own keys are added where it does not, and where the suite is
    /// not the one configured: a machine of an older release has not got the newer keys.
    pub fn of(machine: &Machine, source: &Source) -> Result<Self> {
        let mut ring = Self::default();
        let mut machines = source.suite.is_none();
        match &source.signed_by {
            SignedBy::Inline(text) => ring.add(text.as_bytes()),
            SignedBy::Named { files, fingerprints } => {
                ring.add_files(files.clone())?;
                ring.fingerprints.clone_from(fingerprints);
                machines |= files.is_empty();
            }
            SignedBy::Machine => machines = true,
        }
        if machines {
            let mut files = vec![machine.file("etc/apt/trusted.gpg")];
            files.extend(in_directory(&machine.file("etc/apt/trusted.gpg.d"), &["gpg", "asc"]));
            files.push(machine.file("usr/share/keyrings/debian-archive-keyring.gpg"));
            ring.add_files(files)?;
            ring.add(DEBIAN_KEYS);
        }
        Ok(ring)
    }

    /// A ring of these keys, binary or armoured.
    #[cfg(test)]
    pub fn new(bytes: &[u8]) -> Self {
        let mut ring = Self::default();
        ring.add(bytes);
        ring
    }

    fn add_files(&mut self, files: Vec<PathBuf>) -> Result<()> {
        for path in files {
            match std::fs::read(&path) {
                Ok(bytes) => self.add(&bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(crate::Error::file("read", path)(error)),
            }
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.keys.add(bytes);
    }

    /// The text of a clearsigned index (`InRelease`), if its signature is good at the time `now`. Otherwise why not.
    pub fn open(&self, message: &[u8], now: i64) -> Result<String, String> {
        let text = std::str::from_utf8(message).map_err(|_| "it is not a text".to_owned())?;
        if !text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
            return Err("it is not signed".to_owned());
        }
        let (message, _) =
            CleartextSignedMessage::from_string(text).map_err(|error| format!("it cannot be read: {error}"))?;
        let signed = message.signed_text();
        self.check(message.signatures(), signed.as_bytes(), now)?;
        // Line ends are signed as CR LF and were written as LF.
        Ok(signed.replace("\r\n", "\n"))
    }

    /// Whether a detached signature (`Release.gpg`) is good for a text at the time `now`. Otherwise why not.
    pub fn check_detached(&self, signature: &[u8], text: &[u8], now: i64) -> Result<(), String> {
        let (signatures, _) = DetachedSignature::from_reader_many_buf(signature)
            .map_err(|error| format!("its signature cannot be read: {error}"))?;
        let signatures: Vec<Signature> =
            signatures.filter_map(Result::ok).map(|signature| signature.signature).collect();
        self.check(&signatures, text, now)
    }

    fn check(&self, signatures: &[Signature], text: &[u8], now: i64) -> Result<(), String> {
        if signatures.is_empty() {
            return Err("it has no signature".to_owned());
        }
        let mut reasons = Vec::new();
        for signature in signatures {
            match self.check_one(signature, text, now) {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(reason),
            }
        }
        reasons.dedup();
        Err(reasons.join("; "))
    }

    fn check_one(&self, signature: &Signature, text: &[u8], now: i64) -> Result<(), String> {
        self.keys.check(signature, text, now, &|key, subkey| self.allows(key, subkey)).map(drop)
    }

    fn allows(&self, key: &SignedPublicKey, subkey: Option<&SignedPublicSubKey>) -> bool {
        let named = |fingerprint: String| self.fingerprints.iter().any(|known| fingerprint.ends_with(known.as_str()));
        self.fingerprints.is_empty()
            || named(fingerprint(&key.primary_key))
            || subkey.is_some_and(|subkey| named(fingerprint(&subkey.key)))
    }
}

#[cfg(test)]
mod tests;
