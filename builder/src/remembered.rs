//! Answers that are worked out once and remembered in a claim: to questions of forge's own, which no derivation asks.
//!
//! A claim whose object has been collected since is as good as none: the question is answered again.

use store::DeltaId;
use store::digest::StepKey;
use store::directory::Claim;

use crate::{Builder, Result};

/// A text.
pub fn text(builder: &Builder<'_>, key: &StepKey, find: impl FnOnce() -> Result<String>) -> Result<String> {
    if let Some(Claim::Blob(blob)) = builder.store.claim_of_step(key)?
        && let Ok(bytes) = builder.store.blob(blob)
    {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let text = find()?;
    let blob = builder.store.put_blob(text.as_bytes(), false)?;
    builder.store.put_claim_of_step(key, &Claim::Blob(blob))?;
    Ok(text)
}

/// A layer.
pub fn layer(builder: &Builder<'_>, key: &StepKey, make: impl FnOnce() -> Result<DeltaId>) -> Result<DeltaId> {
    if let Some(Claim::Delta(id)) = builder.store.claim_of_step(key)?
        && builder.store.delta(id).is_ok()
    {
        return Ok(id);
    }
    let id = make()?;
    builder.store.put_claim_of_step(key, &Claim::Delta(id))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use store::{BlobId, Delta, Tree};

    use super::*;
    use crate::world::World;

    #[test]
    fn what_was_answered_is_not_asked_again_while_the_answer_is_there() {
        let world = World::new();
        let builder = world.builder();
        let key = StepKey::of(b"a question");
        builder.store.put_claim_of_step(&key, &Claim::Blob(BlobId::of(b"collected"))).unwrap();
        assert_eq!(text(&builder, &key, || Ok("an answer".to_owned())).unwrap(), "an answer");
        assert_eq!(text(&builder, &key, || panic!("it is known")).unwrap(), "an answer");
        // A text is no layer, whatever was asked.
        let made = || Ok(builder.store.put_delta(&Delta::whole(builder.store.put_tree(&Tree::empty())?))?);
        let id = layer(&builder, &key, made).unwrap();
        assert_eq!(layer(&builder, &key, || panic!("it is known")).unwrap(), id);
    }
}
