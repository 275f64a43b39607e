//! Realisations: signed claims of what came of a step.
//!
//! An object proves itself, a claim does not. A realisation is one sentence, "SUBJECT gave RESULT", with signatures in Nix's form
//! (`name:base64`, ed25519); who trusts none of the signers learns nothing from it. What is signed is drawn in `docs/formats/peer.md`.

use std::fmt;

use crate::digest::StepKey;
use crate::directory::Claim;
use crate::nix::hash::to_base64;
use crate::signing::{NamedKey, NamedPublicKey};

/// What a claim is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An output of a derivation: the `.drv` path and the output's name.
    Output(String, String),
    /// Every step with this key.
    Step(StepKey),
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(path, output) => write!(formatter, "output {path}!{output}"),
            Self::Step(key) => write!(formatter, "step {key}"),
        }
    }
}

impl Subject {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("output", rest) => {
                let (path, output) = rest.rsplit_once('!')?;
                let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
                (plain(path) && plain(output) && rest.len() < 1024)
                    .then(|| Self::Output(path.to_owned(), output.to_owned()))
            }
            ("step", key) => Some(Self::Step(key.parse().ok()?)),
            _ => None,
        }
    }
}

/// One signature: whose, and the 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// The name of the key.
    pub key: String,
    /// ed25519 over the sentence.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.key, to_base64(&self.bytes))
    }
}

impl Signature {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (key, bytes) = crate::signing::named(text)?;
        (bytes.len() == 64).then_some(Self { key, bytes })
    }
}

/// "SUBJECT gave RESULT", signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realisation {
    /// What was made.
    pub subject: Subject,
    /// What came of it.
    pub claim: Claim,
    /// By whom; sorted.
    pub signatures: Vec<Signature>,
}

/// More than so many signatures nobody looks at.
const MOST_SIGNATURES: usize = 16;
/// Nor at more than so many answers to one question.
const MOST_CLAIMS: usize = 16;

impl Realisation {
    /// A claim without a signature.
    pub fn new(subject: Subject, claim: Claim) -> Self {
        Self { subject, claim, signatures: Vec::new() }
    }

    /// What is signed: one line, without its end.
    pub fn sentence(&self) -> String {
        format!("forge-realisation-1;{};{}", self.subject, result(&self.claim))
    }

    /// Signs it.
    pub fn sign(&mut self, key: &NamedKey) {
        let bytes = key.sign(self.sentence().as_bytes()).to_vec();
        self.signatures.retain(|signature| signature.key != key.name());
        self.signatures.push(Signature { key: key.name().to_owned(), bytes });
        self.signatures.sort();
    }

    /// The first of these keys that has signed it.
    pub fn signed_by<'a>(&self, keys: &'a [NamedPublicKey]) -> Option<&'a NamedPublicKey> {
        let sentence = self.sentence();
        keys.iter().find(|key| {
            let mut own = self.signatures.iter().filter(|signature| signature.key == key.name());
            own.any(|signature| key.verifies(sentence.as_bytes(), &signature.bytes))
        })
    }

    /// Three lines and more: result, subject, and `sig NAME:BASE64` each.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n", result(&self.claim), self.subject);
        for signature in &self.signatures {
            text.push_str(&format!("sig {signature}\n"));
        }
        text
    }

    /// Reads what [`Realisation::to_text`] writes; anything else is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let claim = match lines.next()?.split_once(' ')? {
            ("blob", id) => Claim::Blob(id.parse().ok()?),
            ("delta", id) => Claim::Delta(id.parse().ok()?),
            _ => return None,
        };
        let subject = Subject::parse(lines.next()?)?;
        let signatures: Option<Vec<Signature>> =
            lines.take(MOST_SIGNATURES + 1).map(|line| Signature::parse(line.strip_prefix("sig ")?)).collect();
        let mut signatures = signatures.filter(|signatures| signatures.len() <= MOST_SIGNATURES)?;
        signatures.sort();
        Some(Self { subject, claim, signatures })
    }
}

/// What is known of one subject, and a further claim: signatures of the same claim are joined, another claim comes behind.
pub(crate) fn join(mut known: Vec<Realisation>, further: Realisation) -> Vec<Realisation> {
    match known.iter().position(|other| other.claim == further.claim) {
        Some(place) => {
            let signatures = &mut known[place].signatures;
            signatures.extend(further.signatures);
            signatures.sort();
            signatures.dedup();
            signatures.truncate(MOST_SIGNATURES);
        }
        None if known.len() < MOST_CLAIMS => known.push(further),
        None => {}
    }
    known
}

/// Several claims in one file, an empty line between them.
pub(crate) fn texts(realisations: &[Realisation]) -> String {
    realisations.iter().map(Realisation::to_text).collect::<Vec<_>>().join("\n")
}

fn result(claim: &Claim) -> String {
    match claim {
        Claim::Blob(id) => format!("blob {id}"),
        Claim::Delta(id) => format!("delta {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlobId;

    fn realisation() -> Realisation {
        let subject = Subject::Output(format!("/nix/store/{}-a.drv", "0".repeat(32)), "out".to_owned());
        Realisation::new(subject, Claim::Blob(BlobId::of(b"x")))
    }

    #[test]
    fn what_is_signed_is_pinned_and_counts_for_its_key_only() {
        let (ours, other) = (NamedKey::from_seed("ours-1", [1; 32]), NamedKey::from_seed("ours-1", [2; 32]));
        let mut realisation = realisation();
        assert_eq!(
            realisation.sentence(),
            format!("forge-realisation-1;output /nix/store/{}-a.drv!out;blob {}", "0".repeat(32), BlobId::of(b"x"))
        );
        assert!(realisation.signed_by(&[ours.public()]).is_none());
        realisation.sign(&ours);
        assert!(realisation.signed_by(&[ours.public()]).is_some());
        assert!(realisation.signed_by(&[other.public()]).is_none());
        realisation.claim = Claim::Blob(BlobId::of(b"y"));
        assert!(realisation.signed_by(&[ours.public()]).is_none());
    }

    #[test]
    fn a_realisation_reads_back_and_no_cut_one_does() {
        let mut realisation = realisation();
        for name in ["b-1", "a-1"] {
            realisation.sign(&NamedKey::from_seed(name, [3; 32]));
        }
        let text = realisation.to_text();
        assert_eq!(Realisation::parse(&text).unwrap(), realisation);
        for length in 0..text.len() {
            // Cut at the end of a line it is a realisation with fewer signatures.
            assert!(Realisation::parse(&text[..length]).is_none_or(|cut| cut.signatures.len() < 2), "{length}");
        }
        assert!(Realisation::parse(&(text + &"sig x:AA==\n".repeat(100))).is_none());
    }
}
