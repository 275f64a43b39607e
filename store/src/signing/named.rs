//! ed25519 keys in Nix's form, `NAME:BASE64`: of a secret key the 64 bytes that libsodium keeps (seed, then public key), of a public key
//! its 32, of a signature its 64. `nix key generate-secret` writes the same.

use std::fmt;

use ed25519_dalek::Signer as _;

use crate::nix::hash::{from_base64, to_base64};

/// A key that signs, and what it is called.
pub struct NamedKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

/// A key that is trusted, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPublicKey {
    name: String,
    key: ed25519_dalek::VerifyingKey,
}

/// Name and bytes of what is written in Nix's form; none if it is not.
pub fn named(text: &str) -> Option<(String, Vec<u8>)> {
    let (name, encoded) = text.trim().split_once(':')?;
    let plain = !name.is_empty() && name.len() <= 256 && name.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some(())?;
    Some((name.to_owned(), from_base64(encoded.as_bytes())?))
}

impl NamedKey {
    /// The key that these 32 random bytes stand for.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Self {
        Self { name: name.to_owned(), key: ed25519_dalek::SigningKey::from_bytes(&seed) }
    }

    /// Reads a secret key; none if it is not one, or its two halves do not belong together.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, bytes) = named(text)?;
        let key = ed25519_dalek::SigningKey::from_keypair_bytes(bytes.as_slice().try_into().ok()?).ok()?;
        Some(Self { name, key })
    }

    /// As it is written into a file. It is the secret.
    pub fn to_secret_text(&self) -> String {
        format!("{}:{}", self.name, to_base64(&self.key.to_keypair_bytes()))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> NamedPublicKey {
        NamedPublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl NamedPublicKey {
    /// Reads a public key; none if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, bytes) = named(text)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes.as_slice().try_into().ok()?).ok()?;
        Some(Self { name, key })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the key's signature of a message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = ed25519_dalek::Signature::from_slice(signature);
        signature.is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for NamedPublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, to_base64(self.key.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_what_is_none_does_not() {
        let key = NamedKey::from_seed("cache.example-1", [7; 32]);
        let (secret, public) = (key.to_secret_text(), key.public().to_string());
        assert_eq!(NamedKey::parse(&secret).unwrap().to_secret_text(), secret);
        assert_eq!(NamedPublicKey::parse(&public).unwrap(), key.public());
        assert!(key.public().verifies(b"message", &key.sign(b"message")));
        assert!(!key.public().verifies(b"another", &key.sign(b"message")));
        for bad in ["", "name", ":AAAA", "name:", "name:!", &public, "na me:AAAA"] {
            assert!(NamedKey::parse(bad).is_none(), "{bad}");
        }
        assert!(NamedPublicKey::parse(&secret).is_none());
        // The halves of two keys.
        let mut bytes = named(&secret).unwrap().1;
        bytes[0] ^= 1;
        assert!(NamedKey::parse(&format!("name:{}", to_base64(&bytes))).is_none());
    }
}
