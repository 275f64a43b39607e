//! Who may do what: bearer tokens, of which only digests are kept.
//!
//! A file has a line for each: `NAME SCOPES DIGEST`, scopes `read`, `write` or both with a comma, the digest BLAKE3 of the token in
//! hexadecimal. A token has 256 random bits: its digest tells nothing of it, so it needs no salt and no slow hash.

use store::BlobId;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Take.
    pub read: bool,
    /// Give.
    pub write: bool,
}

/// Tokens by their digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    tokens: Vec<(BlobId, Access)>,
    anonymous: Access,
}

/// A line that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `NAME SCOPES DIGEST` is expected")]
pub struct TokensError {
    /// Which.
    pub line: usize,
}

impl Tokens {
    /// The tokens of a file, and what may be done without one.
    pub fn parse(text: &str, anonymous: Access) -> Result<Self, TokensError> {
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let bad = || TokensError { line: number + 1 };
            match words.as_slice() {
                [] => {}
                [_, scopes, digest] => {
                    let mut access = Access::default();
                    for scope in scopes.split(',') {
                        match scope {
                            "read" => access.read = true,
                            "write" => access.write = true,
                            _ => return Err(bad()),
                        }
                    }
                    tokens.push((digest.parse().map_err(|_| bad())?, access));
                }
                _ => return Err(bad()),
            }
        }
        Ok(Self { tokens, anonymous })
    }

    /// What may be done with this `Authorization`; none if it names a token that there is not.
    pub fn access(&self, authorization: Option<&str>) -> Option<Access> {
        let Some(text) = authorization else { return Some(self.anonymous) };
        let (scheme, token) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        // Digests are compared, not tokens: how long that takes tells nothing of the token.
        let digest = BlobId::of(token.trim().as_bytes());
        self.tokens.iter().find(|(known, _)| *known == digest).map(|(_, access)| *access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_what_its_line_says() {
        let text =
            format!("# ours\nci read,write {}\nlaptop read {} # old\n\n", BlobId::of(b"one"), BlobId::of(b"two"));
        let tokens = Tokens::parse(&text, Access::default()).unwrap();
        let both = Access { read: true, write: true };
        assert_eq!(tokens.access(Some("Bearer one")), Some(both));
        assert_eq!(tokens.access(Some("bearer two")), Some(Access { read: true, write: false }));
        assert_eq!(tokens.access(Some("Bearer three")), None);
        assert_eq!(tokens.access(Some("Basic one")), None);
        assert_eq!(tokens.access(None), Some(Access::default()));
        for bad in ["x", "a b", "a admin 00", "a read 00", &format!("a read,all {}", BlobId::of(b"x"))] {
            assert_eq!(Tokens::parse(bad, both), Err(TokensError { line: 1 }), "{bad}");
        }
    }
}
