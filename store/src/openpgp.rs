//! OpenPGP keys that are trusted, and what they signed: for Debian's indexes and for artifacts.
//!
//! As with apt and GnuPG, a signature counts if it is by a key (or a signing subkey) that is neither expired nor revoked, over a
//! digest that is not broken.

use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

use crate::format::time_text;

/// Keys that are trusted for one purpose.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    keys: Vec<SignedPublicKey>,
}

/// Which of the keys may have signed: a key, and a subkey of it if it was that.
pub type Allows<'a> = &'a dyn Fn(&SignedPublicKey, Option<&SignedPublicSubKey>) -> bool;

impl Keys {
    /// Adds keys, binary or armoured; says how many. A key that cannot be read (another version, GnuPG's keybox) signs nothing;
    /// apt too goes on without.
    pub fn add(&mut self, bytes: &[u8]) -> usize {
        let before = self.keys.len();
        if let Ok((keys, _)) = SignedPublicKey::from_reader_many_buf(bytes) {
            self.keys.extend(keys.filter_map(Result::ok));
        }
        self.keys.len() - before
    }

    /// Of each key: its fingerprint, and whether it is in force at the time `now`.
    pub fn states(&self, now: i64) -> Vec<(String, Result<(), String>)> {
        self.keys.iter().map(|key| (fingerprint(&key.primary_key), state(key, now))).collect()
    }

    /// Whether a key of this (primary) fingerprint is among them.
    pub fn knows(&self, fingerprint: &[u8]) -> bool {
        self.keys.iter().any(|key| key.primary_key.fingerprint().as_bytes() == fingerprint)
    }

    /// By which of the keys a text was signed, at the time `now`. Otherwise why it does not count.
    pub fn check(&self, signature: &Signature, text: &[u8], now: i64, allows: Allows) -> Result<Signer, String> {
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
            if issued(signature, primary) && allows(key, None) {
                match state(key, now).and_then(|()| verify(signature, primary, text, now)) {
                    Ok(()) => return Ok(Signer::of(key)),
                    Err(reason) => problem = Some(reason),
                }
            }
            for subkey in key.public_subkeys.iter().filter(|subkey| issued(signature, &subkey.key)) {
                if !allows(key, Some(subkey)) {
                    continue;
                }
                let good = state(key, now).and_then(|()| subkey_state(key, subkey, now));
                match good.and_then(|()| verify(signature, &subkey.key, text, now)) {
                    Ok(()) => return Ok(Signer::of(key)),
                    Err(reason) => problem = Some(reason),
                }
            }
        }
        let by = || signature.issuer_key_id().first().map_or("an unnamed key".to_owned(), |id| format!("key {id}"));
        Err(problem.unwrap_or_else(|| format!("{} is not trusted here", by())))
    }
}

/// Whose key it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Of the primary key.
    pub fingerprint: Vec<u8>,
    /// The first user id, if it has one.
    pub user: Option<String>,
}

impl Signer {
    fn of(key: &SignedPublicKey) -> Self {
        let user = key.details.users.first().map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
        Self { fingerprint: key.primary_key.fingerprint().as_bytes().to_vec(), user }
    }
}

/// What apt and GnuPG no longer accept for signatures of documents.
fn is_weak(hash: HashAlgorithm) -> bool {
    matches!(hash, HashAlgorithm::None | HashAlgorithm::Md5 | HashAlgorithm::Sha1 | HashAlgorithm::Ripemd160)
}

/// As people compare them.
pub fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

/// Whether a signature says that it is by this key.
fn issued(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (id, fingerprint) = (key.legacy_key_id(), key.fingerprint());
    signature.issuer_key_id().into_iter().any(|issuer| *issuer == id)
        || signature.issuer_fingerprint().into_iter().any(|issuer| *issuer == fingerprint)
}

fn time(seconds: i64) -> String {
    time_text(u32::try_from(seconds).unwrap_or(u32::MAX))
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
        Some(end) if end <= now => Err(format!("key {} expired on {}", fingerprint(key), time(end))),
        _ => Ok(()),
    }
}

fn verify(signature: &Signature, key: &impl VerifyingKey, text: &[u8], now: i64) -> Result<(), String> {
    let created = signature.created().map(seconds).ok_or("a signature does not say when it was made")?;
    if created < seconds(key.created_at()) {
        return Err(format!("a signature is older than its key {}", fingerprint(key)));
    }
    if let Some(end) = end(created, signature.signature_expiration_time()).filter(|end| *end <= now) {
        return Err(format!("a signature expired on {}", time(end)));
    }
    let good = signature.verify(key, text);
    good.map_err(|_| format!("a signature by key {} does not fit the text: it was changed", fingerprint(key)))
}
