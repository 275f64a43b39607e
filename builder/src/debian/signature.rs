//! Whether an index is signed by somebody this machine trusts.
//!
//! As with apt, one good signature is enough: by a key (or signing subkey) of the trusted rings that is neither expired nor revoked,
//! over a digest that is not broken. What is read afterwards is the signed text, never the bytes around it.

use std::path::PathBuf;

use pgp::composed::{CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

use super::date;
use super::sources::{SignedBy, Source, in_directory};
use crate::{Machine, Result};

/// Debian's archive keys of 2025 (`keys/README.md`), for machines without.
const DEBIAN_KEYS: &[u8] = include_bytes!("../../keys/debian-archive-keyring.gpg");

/// Keys that are trusted for one source.
#[derive(Default)]
pub struct Ring {
    keys: Vec<SignedPublicKey>,
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

    /// A key that cannot be read (another version, GnuPG's keybox) signs nothing; apt too goes on without.
    fn add(&mut self, bytes: &[u8]) {
        if let Ok((keys, _)) = SignedPublicKey::from_reader_many_buf(bytes) {
            self.keys.extend(keys.filter_map(Result::ok));
        }
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
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            return Err("a signature is not one of a document".to_owned());
        }
        let hash = signature.hash_alg().unwrap_or(HashAlgorithm::None);
        if is_weak(hash) {
            return Err(format!("a signature uses the weak digest {hash}"));
        }
        let mut problem = None;
        for key in &self.keys {
            let primary = &key.primary_key;
            if issued(signature, primary) && self.allows(key, None) {
                match state(key, now).and_then(|()| verify(signature, primary, text, now)) {
                    Ok(()) => return Ok(()),
                    Err(reason) => problem = Some(reason),
                }
            }
            for subkey in key.public_subkeys.iter().filter(|subkey| issued(signature, &subkey.key)) {
                if !self.allows(key, Some(subkey)) {
                    continue;
                }
                let good = state(key, now).and_then(|()| subkey_state(key, subkey, now));
                match good.and_then(|()| verify(signature, &subkey.key, text, now)) {
                    Ok(()) => return Ok(()),
                    Err(reason) => problem = Some(reason),
                }
            }
        }
        let by = || signature.issuer_key_id().first().map_or("an unnamed key".to_owned(), |id| format!("key {id}"));
        Err(problem.unwrap_or_else(|| format!("{} is not trusted here", by())))
    }

    fn allows(&self, key: &SignedPublicKey, subkey: Option<&SignedPublicSubKey>) -> bool {
        let named = |fingerprint: String| self.fingerprints.iter().any(|known| fingerprint.ends_with(known.as_str()));
        self.fingerprints.is_empty()
            || named(fingerprint(&key.primary_key))
            || subkey.is_some_and(|subkey| named(fingerprint(&subkey.key)))
    }
}

/// What apt and GnuPG no longer accept for signatures of documents.
fn is_weak(hash: HashAlgorithm) -> bool {
    matches!(hash, HashAlgorithm::None | HashAlgorithm::Md5 | HashAlgorithm::Sha1 | HashAlgorithm::Ripemd160)
}

fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

/// Whether a signature says that it is by this key.
fn issued(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (id, fingerprint) = (key.legacy_key_id(), key.fingerprint());
    signature.issuer_key_id().into_iter().any(|issuer| *issuer == id)
        || signature.issuer_fingerprint().into_iter().any(|issuer| *issuer == fingerprint)
}

fn seconds(time: pgp::types::Timestamp) -> i64 {
    i64::from(time.as_secs())
}

/// A duration of zero stands for none (RFC 9580, section 5.2.3.13).
fn end(start: i64, duration: Option<pgp::types::Duration>) -> Option<i64> {
    let duration = std::time::Duration::from(duration?).as_secs();
    (duration > 0).then(|| start.saturating_add(i64::try_from(duration).unwrap_or(i64::MAX)))
}

/// Whether a key is in force: self-signed, not revoked, not expired.
fn state(key: &SignedPublicKey, now: i64) -> Result<(), String> {
    let primary = &key.primary_key;
    if key.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(primary).is_ok()) {
        return Err(format!("key {} was revoked", fingerprint(primary)));
    }
    let by_user = key.details.users.iter().flat_map(|user| {
        let good = |signature: &&Signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        // A revocation of the user id says nothing about when the key ends.
        user.signatures
            .iter()
            .filter(|signature| signature.typ() != Some(SignatureType::CertRevocation))
            .filter(move |signature| good(signature))
    });
    let direct = key.details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
    let newest = by_user.chain(direct).max_by_key(|signature| signature.created().map(seconds));
    let newest = newest.ok_or_else(|| format!("key {} is not signed by itself", fingerprint(primary)))?;
    in_force(primary, newest, now)
}

/// Whether a subkey is in force: bound to its key for signing, by both, not revoked, not expired.
fn subkey_state(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: i64) -> Result<(), String> {
    let primary = &key.primary_key;
    let of_type = |kind| {
        let of_kind = subkey.signatures.iter().filter(move |signature| signature.typ() == Some(kind));
        of_kind.filter(|signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok())
    };
    if of_type(SignatureType::SubkeyRevocation).next().is_some() {
        return Err(format!("key {} was revoked", fingerprint(&subkey.key)));
    }
    let newest = of_type(SignatureType::SubkeyBinding).max_by_key(|signature| signature.created().map(seconds));
    let signs = newest.filter(|binding| {
        let back = binding.embedded_signature();
        binding.key_flags().sign()
            && back.is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok())
    });
    let binding = signs.ok_or_else(|| format!("key {} may not sign", fingerprint(&subkey.key)))?;
    in_force(&subkey.key, binding, now)
}

/// Whether a key has not expired, by the signature that says when it does.
fn in_force(key: &impl KeyDetails, by: &Signature, now: i64) -> Result<(), String> {
    let created = seconds(key.created_at());
    match end(created, by.key_expiration_time()) {
        Some(end) if end <= now => Err(format!("key {} expired on {}", fingerprint(key), date::format(end))),
        _ => Ok(()),
    }
}

fn verify(signature: &Signature, key: &impl VerifyingKey, text: &[u8], now: i64) -> Result<(), String> {
    let created = signature.created().map(seconds).ok_or("a signature does not say when it was made")?;
    if created < seconds(key.created_at()) {
        return Err(format!("a signature is older than its key {}", fingerprint(key)));
    }
    if let Some(end) = end(created, signature.signature_expiration_time()).filter(|end| *end <= now) {
        return Err(format!("a signature expired on {}", date::format(end)));
    }
    let good = signature.verify(key, text);
    good.map_err(|_| format!("a signature by key {} does not fit the text: it was changed", fingerprint(key)))
}

#[cfg(test)]
mod tests;
