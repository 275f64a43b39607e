//! Keys that artifacts are signed with, and keys that are trusted. Their bytes come from files that the user names; nothing of them
//! is ever kept in a store.
//!
//! Three kinds: OpenPGP keys, armoured or binary, and ed25519 keys as `openssl genpkey -algorithm ed25519` writes them (PKCS#8 in PEM),
//! for artifacts; ed25519 keys in Nix's form (`signing/named.rs`), for claims.

mod named;

pub use named::{NamedKey, NamedPublicKey, named};

use ed25519_dalek::Signer as _;
use pgp::composed::{ArmorOptions, CleartextSignedMessage, Deserializable, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SecretKey as PrimaryKey, SecretSubkey, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{KeyDetails, KeyVersion, Password, SigningKey, Timestamp};
use pkcs8::{DecodePrivateKey, DecodePublicKey};
use sha2::{Digest, Sha256};

use crate::nix::hash::to_base64;
use crate::openpgp::Keys;

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something else.
    #[error("it is neither an OpenPGP key nor an ed25519 key in PEM")]
    NotAKey,
    /// A passphrase is needed.
    #[error("it is locked, and no passphrase was given")]
    Locked,
    /// Another passphrase is needed.
    #[error("the passphrase does not open it")]
    Passphrase,
    /// It is a key, of a kind that does not do.
    #[error("{reason}")]
    Unfit {
        /// Why not.
        reason: String,
    },
}

fn unfit(reason: impl Into<String>) -> KeyError {
    KeyError::Unfit { reason: reason.into() }
}

/// What stands in the first line of a PEM file, for instance `PRIVATE KEY`; none if it is not PEM.
fn pem_label(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let begin = text.lines().find_map(|line| line.trim().strip_prefix("-----BEGIN "))?;
    begin.strip_suffix("-----").map(str::to_owned)
}

/// A key that signs.
pub enum SecretKey {
    /// OpenPGP.
    Pgp(Box<PgpKey>),
    /// ed25519.
    Ed25519(Box<Ed25519Key>),
}

impl SecretKey {
    /// Reads a key; the passphrase is asked for if the key is locked.
    pub fn read(bytes: &[u8], passphrase: &mut dyn FnMut() -> Option<Vec<u8>>) -> Result<Self, KeyError> {
        let Some(label) = pem_label(bytes).filter(|label| !label.starts_with("PGP ")) else {
            return PgpKey::read(bytes, passphrase).map(Box::new).map(Self::Pgp);
        };
        let text = std::str::from_utf8(bytes).expect("a PEM file is a text");
        let not_ed25519 = |_| unfit("it is not an ed25519 key: `openssl genpkey -algorithm ed25519` makes one");
        let key = match label.as_str() {
            "PRIVATE KEY" => ed25519_dalek::SigningKey::from_pkcs8_pem(text).map_err(not_ed25519)?,
            "ENCRYPTED PRIVATE KEY" => {
                let passphrase = passphrase().ok_or(KeyError::Locked)?;
                let opened = ed25519_dalek::SigningKey::from_pkcs8_encrypted_pem(text, passphrase);
                opened.map_err(|error| match error {
                    pkcs8::Error::EncryptedPrivateKey(_) => KeyError::Passphrase,
                    error => not_ed25519(error),
                })?
            }
            "PUBLIC KEY" => return Err(unfit("it is a public key, and signing takes the private one")),
            label => return Err(unfit(format!("it is a `{label}`, and forge signs with ed25519 or OpenPGP keys"))),
        };
        Ok(Self::Ed25519(Box::new(Ed25519Key(key))))
    }
}

/// An ed25519 key that signs.
pub struct Ed25519Key(ed25519_dalek::SigningKey);

impl Ed25519Key {
    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// As [`Ed25519PublicKey::id`].
    pub fn id(&self) -> String {
        Ed25519PublicKey(self.0.verifying_key()).id()
    }
}

/// An ed25519 key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ed25519PublicKey(ed25519_dalek::VerifyingKey);

impl Ed25519PublicKey {
    /// As DSSE's library names keys, and OpenSSH: the SHA-256 of its SSH form (RFC 8709, section 4). A verifier passes over a
    /// signature that names another key.
    pub fn id(&self) -> String {
        let mut form = Vec::new();
        for part in [&b"ssh-ed25519"[..], self.0.as_bytes()] {
            form.extend((part.len() as u32).to_be_bytes());
            form.extend(part);
        }
        format!("SHA256:{}", to_base64(&Sha256::digest(&form)).trim_end_matches('='))
    }

    /// Whether this is the key's signature of a message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = ed25519_dalek::Signature::from_slice(signature);
        signature.is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

/// An OpenPGP key that signs: the key itself if it may, else the first of its subkeys that may.
pub struct PgpKey {
    key: SignedSecretKey,
    /// Which subkey; none for the key itself.
    subkey: Option<usize>,
    password: Password,
}

impl PgpKey {
    fn read(bytes: &[u8], passphrase: &mut dyn FnMut() -> Option<Vec<u8>>) -> Result<Self, KeyError> {
        let keys = SignedSecretKey::from_reader_many_buf(bytes).ok();
        let Some(key) = keys.and_then(|(keys, _)| keys.filter_map(Result::ok).next()) else {
            let is_public = Keys::default().add(bytes) > 0;
            let public = || unfit("it is a public key, and signing takes the secret one");
            return Err(if is_public { public() } else { KeyError::NotAKey });
        };
        if key.primary_key.version() != KeyVersion::V4 {
            return Err(unfit("it is not an OpenPGP key of version 4, which is what Apptainer reads"));
        }
        let flags = key.details.users.iter().flat_map(|user| &user.signatures).chain(&key.details.direct_signatures);
        let newest = flags.max_by_key(|signature| signature.created().map(|time| time.as_secs()));
        let primary_may = newest.is_some_and(|signature| signature.key_flags().sign());
        let may = |signatures: &[pgp::packet::Signature]| signatures.iter().any(|binding| binding.key_flags().sign());
        let subkeys = key.secret_subkeys.iter().enumerate().filter(|(_, subkey)| may(&subkey.signatures));
        let candidates = primary_may.then_some(None).into_iter().chain(subkeys.map(|(number, _)| Some(number)));
        let candidates: Vec<Option<usize>> = candidates.collect();
        if candidates.is_empty() {
            return Err(unfit("neither it nor a subkey of it may sign"));
        }
        let mut passwords = vec![Password::empty()];
        let mut asked = false;
        loop {
            let password = passwords.pop().expect("one to try");
            // The key itself may lie elsewhere (GnuPG's stub), and a subkey be here.
            if let Some(subkey) = candidates.iter().copied().find(|candidate| opens(&key, *candidate, &password)) {
                return Ok(Self { key, subkey, password });
            }
            if asked {
                return Err(KeyError::Passphrase);
            }
            asked = true;
            passwords.push(passphrase().ok_or(KeyError::Locked)?.as_slice().into());
        }
    }

    /// Of the key itself, not of a subkey.
    pub fn fingerprint(&self) -> Vec<u8> {
        self.key.primary_key.fingerprint().as_bytes().to_vec()
    }

    /// A text with its signature, made at this time, in the cleartext form of RFC 9580, section 7.
    pub fn sign_text(&self, text: &str, now: u32) -> Result<String, KeyError> {
        let primary: &PrimaryKey = &self.key.primary_key;
        match self.subkey {
            None => sign_text(primary, &self.password, text, now),
            Some(number) => {
                let subkey: &SecretSubkey = &self.key.secret_subkeys[number].key;
                sign_text(subkey, &self.password, text, now)
            }
        }
    }
}

fn opens(key: &SignedSecretKey, subkey: Option<usize>, password: &Password) -> bool {
    match subkey {
        None => key.primary_key.unlock(password, |_, _| Ok(())).is_ok_and(|opened| opened.is_ok()),
        Some(number) => {
            key.secret_subkeys[number].key.unlock(password, |_, _| Ok(())).is_ok_and(|opened| opened.is_ok())
        }
    }
}

fn sign_text(key: &impl SigningKey, password: &Password, text: &str, now: u32) -> Result<String, KeyError> {
    let sign = || -> pgp::errors::Result<String> {
        let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), HashAlgorithm::Sha256);
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(now)))?,
            Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
        ];
        config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
        let message = CleartextSignedMessage::new(text, config, key, password)?;
        message.to_armored_string(ArmorOptions::default())
    };
    sign().map_err(|error| unfit(format!("it cannot sign: {error}")))
}

/// Whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// OpenPGP keys.
    pub pgp: Keys,
    /// ed25519 keys.
    pub ed25519: Vec<Ed25519PublicKey>,
}

impl Trust {
    /// Adds the public keys of a file: OpenPGP, one or many, armoured or binary; or one ed25519 key in PEM.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        match pem_label(bytes).filter(|label| !label.starts_with("PGP ")).as_deref() {
            Some("PUBLIC KEY") => {
                let text = std::str::from_utf8(bytes).expect("a PEM file is a text");
                let key = ed25519_dalek::VerifyingKey::from_public_key_pem(text);
                let key = key.map_err(|_| unfit("it is not an ed25519 key, and forge verifies no other in PEM"))?;
                self.ed25519.push(Ed25519PublicKey(key));
                Ok(())
            }
            Some("PRIVATE KEY" | "ENCRYPTED PRIVATE KEY") => {
                Err(unfit("it is a private key: `openssl pkey -pubout` gives the public one"))
            }
            Some(label) => Err(unfit(format!("it is a `{label}`, and forge knows OpenPGP keys and ed25519 keys"))),
            None if self.pgp.add(bytes) > 0 => Ok(()),
            None => Err(KeyError::NotAKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ssh-keygen -l` says the same of this key; without it Apptainer does not look at the signature.
    #[test]
    fn a_key_is_named_as_openssh_names_it() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
        assert_eq!(Ed25519PublicKey(key).id(), "SHA256:fe85JkIjo8VPe+XqXJGH5Mau1EMFdK1OdKvJUFicyA8");
    }
}
