//! What a store keeps for others: claims that others have signed, and which blob has which hash.

use std::io::Write;

use super::{Claim, Store, objects::pump};
use crate::derivation::StorePath;
use crate::nix::hash::Hasher;
use crate::peer::{Realisation, Subject, join_realisations, realisation_texts};
use crate::{BlobId, Error, FileHash, Result};

/// More signed claims about one thing than this are none.
const MOST_BYTES: usize = 64 << 10;

impl Store {
    /// What is claimed of this, each with its signatures. What the result of is gone is no claim.
    pub fn realisations(&self, subject: &Subject) -> Result<Vec<Realisation>> {
        let Some(bytes) = self.read_if_there(&path(subject))?.filter(|bytes| bytes.len() <= MOST_BYTES) else {
            return Ok(Vec::new());
        };
        let text = String::from_utf8_lossy(&bytes);
        let parse = |part: &str| Realisation::parse(&format!("{}\n", part.trim_end()));
        Ok(text.split("\n\n").filter_map(parse).filter(|found| self.has_result(&found.claim)).collect())
    }

    /// Keeps a claim with its signatures, beside others about the same. Whoever reads it judges the signatures.
    pub fn put_realisation(&self, realisation: &Realisation) -> Result<()> {
        let known = self.realisations(&realisation.subject)?;
        let all = join_realisations(known.clone(), realisation.clone());
        if all == known {
            return Ok(());
        }
        self.sync()?;
        self.replace(&path(&realisation.subject), realisation_texts(&all).as_bytes())
    }

    /// What this store itself knows to have come of this, unsigned.
    pub fn own_realisation(&self, subject: &Subject) -> Result<Option<Realisation>> {
        let claim = match subject {
            Subject::Step(key) => self.claim_of_step(key)?,
            Subject::Output(path, output) => match StorePath::parse(path) {
                Some(path) => self.claim_of_output(&path, output)?,
                None => None,
            },
        };
        Ok(claim.map(|claim| Realisation::new(subject.clone(), claim)))
    }

    /// Keeps what came of this as the store's own knowledge: the caller believes it.
    pub fn believe(&self, realisation: &Realisation) -> Result<()> {
        match &realisation.subject {
            Subject::Step(key) => self.put_claim_of_step(key, &realisation.claim),
            Subject::Output(path, output) => match StorePath::parse(path) {
                Some(path) => self.put_claim_of_output(&path, output, &realisation.claim),
                None => Ok(()),
            },
        }
    }

    fn has_result(&self, claim: &Claim) -> bool {
        match claim {
            Claim::Blob(id) => self.has_blob(*id),
            Claim::Delta(id) => self.delta(*id).is_ok(),
        }
    }

    /// The blob with this hash, if it is here and known.
    pub fn blob_with_hash(&self, hash: &FileHash) -> Result<Option<BlobId>> {
        Ok(match self.claim_of_step(&hash.key())? {
            Some(Claim::Blob(blob)) if self.has_blob(blob) => Some(blob),
            _ => None,
        })
    }

    /// Remembers the hash of a blob. The caller has hashed it.
    pub fn put_blob_with_hash(&self, hash: &FileHash, blob: BlobId) -> Result<()> {
        self.put_claim_of_step(&hash.key(), &Claim::Blob(blob))
    }

    /// Whether a blob's bytes have this hash.
    pub fn has_hash(&self, id: BlobId, hash: &FileHash) -> Result<bool> {
        let mut hasher = Hasher::new(hash.algorithm());
        let read = pump(&mut self.open_blob(id)?, &mut |bytes| hasher.write_all(bytes));
        read.map_err(Error::file("read", self.path()))?;
        Ok(hasher.finish().as_bytes() == hash.as_bytes())
    }
}

/// Among the claims: collection treats it as one, by its first line.
fn path(subject: &Subject) -> String {
    super::object_path("claims/signed", &blake3::hash(subject.to_string().as_bytes()).to_hex())
}

#[cfg(test)]
mod tests {
    use super::super::testing::world;
    use super::*;
    use crate::digest::StepKey;
    use crate::signing::NamedKey;

    #[test]
    fn signed_claims_are_kept_side_by_side_until_their_results_go() {
        let world = world();
        let (one, other) =
            (world.store.put_blob(b"one", false).unwrap(), world.store.put_blob(b"other", false).unwrap());
        let subject = Subject::Step(StepKey::of(b"step"));
        let (ours, theirs) = (NamedKey::from_seed("ours", [1; 32]), NamedKey::from_seed("theirs", [2; 32]));
        let put = |blob, key: &NamedKey| {
            let mut realisation = Realisation::new(subject.clone(), Claim::Blob(blob));
            realisation.sign(key);
            world.store.put_realisation(&realisation).unwrap();
        };
        put(one, &ours);
        put(one, &theirs);
        put(other, &theirs);
        put(one, &ours);
        let kept = world.store.realisations(&subject).unwrap();
        assert_eq!(kept.iter().map(|it| it.signatures.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(kept[0].claim, Claim::Blob(one));
        let gone = Realisation::new(subject.clone(), Claim::Blob(BlobId::of(b"gone")));
        world.store.put_realisation(&gone).unwrap();
        assert_eq!(world.store.realisations(&subject).unwrap(), kept);
        assert!(world.store.own_realisation(&subject).unwrap().is_none());
        world.store.believe(&kept[0]).unwrap();
        assert_eq!(world.store.claim_of_step(&StepKey::of(b"step")).unwrap(), Some(Claim::Blob(one)));
    }

    #[test]
    fn a_blob_is_found_by_a_hash_of_its_own() {
        let world = world();
        let blob = world.store.put_blob(b"abc", false).unwrap();
        for text in [
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "a9993e364706816aba3e25717850c26c9cd0d89d",
        ] {
            let hash = FileHash::parse(text).unwrap();
            assert!(world.store.has_hash(blob, &hash).unwrap());
            assert_eq!(world.store.blob_with_hash(&hash).unwrap(), None);
            world.store.put_blob_with_hash(&hash, blob).unwrap();
            assert_eq!(world.store.blob_with_hash(&hash).unwrap(), Some(blob));
            let other = FileHash::new([7; 64]).unwrap();
            assert!(!world.store.has_hash(blob, &other).unwrap());
        }
    }
}
