//! A repository of an OCI registry as a peer: formations lie there as ordinary images, found by the tag `forge-ID`.
//!
//! Only whole formations travel: a registry knows nothing of objects and claims. Names are tags.

use super::{About, Error, Moved, ObjectId, Peer, Result, Settings, Watch};
use crate::directory::Record;
use crate::format::Options;
use crate::http::Client;
use crate::registry::{self, Access, How, Reference, Session, formation_tag, is_tag};
use crate::{FormationId, Store};

/// `oci://HOST[:PORT]/REPOSITORY`
pub struct Registry {
    name: String,
    reference: Reference,
    access: Access,
}

impl Registry {
    /// The repository that an address names; none if it is not one.
    pub fn new(settings: &Settings) -> Option<Self> {
        let reference: Reference = settings.address.parse().ok()?;
        let client = Client::new(settings.environment.clone(), settings.patience);
        let access = Access { client, settings: settings.registries.clone(), listener: None };
        Some(Self { name: settings.shown(), reference, access })
    }

    fn session(&self) -> Session<'_> {
        Session::new(&self.access, &self.reference)
    }

    /// A registry's failures in the words of peers.
    fn failed(&self, error: crate::Error) -> Error {
        let peer = self.name.clone();
        match error {
            crate::Error::Registry(error) => match error {
                registry::Error::Interrupted => Error::Interrupted {
                    signal: self.access.settings.interrupt.load(std::sync::atomic::Ordering::Relaxed),
                },
                registry::Error::Unreachable { reason, .. } => Error::Unreachable { peer, reason },
                registry::Error::NotFound { what, .. } => Error::Missing { peer, object: what },
                error @ registry::Error::Denied { .. } => Error::Refused { peer, reason: error.to_string() },
                error => Error::Protocol { peer, reason: error.to_string() },
            },
            crate::Error::Mismatch { from, .. } if from.starts_with(registry::SCHEME) => {
                Error::Lie { peer, object: from }
            }
            error => Error::Store(error),
        }
    }

    fn formation_of(&self, wanted: &ObjectId) -> Result<FormationId> {
        match wanted {
            ObjectId::Formation(id) => Ok(*id),
            other => Err(Error::missing(&self.name, *other)),
        }
    }
}

impl Peer for Registry {
    fn name(&self) -> &str {
        &self.name
    }

    fn about(&self) -> Result<About> {
        // A repository that nobody has pushed to answers that it is not there; what matters is that it answers.
        match self.session().digest_of("latest") {
            Ok(_) => Ok(About { kind: "registry".to_owned(), read: true, write: true }),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn greet(&self) -> Result<()> {
        self.session().greet().map_err(|error| self.failed(error.into()))
    }

    fn find(&self, given: &str) -> Result<Option<FormationId>> {
        let session = self.session();
        if let Ok(id) = given.parse::<FormationId>() {
            let found = session.digest_of(&formation_tag(id)).map_err(|error| self.failed(error))?;
            return Ok(found.map(|_| id));
        }
        if !is_tag(given) {
            return Ok(None);
        }
        match registry::inspect(&session, &self.reference.tagged(given), None) {
            Ok(inspection) => Ok(inspection.formation.map(|formation| formation.id())),
            Err(crate::Error::Registry(registry::Error::NotFound { .. })) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn pull(&self, store: &Store, wanted: &[ObjectId], watch: &Watch<'_>) -> Result<Moved> {
        let mut moved = Moved::default();
        for object in wanted {
            watch.check()?;
            let id = self.formation_of(object)?;
            let reference = self.reference.tagged(&formation_tag(id));
            let pulled = registry::pull(store, &self.session(), &reference, None, None);
            let pulled = pulled.map_err(|error| self.failed(error))?;
            match pulled.imported.formation {
                Some(formation) if formation.id() == id => {
                    let record = Record { layers: pulled.imported.layers, ..Record::default() };
                    store.put_formation(&formation, &record)?;
                }
                _ => return Err(Error::lie(&self.name, *object)),
            }
            moved.moved.push(*object);
            moved.bytes += pulled.fetched;
            moved.wire += pulled.fetched;
            (watch.progress)(moved.bytes, None);
        }
        Ok(moved)
    }

    fn push(&self, store: &Store, given: &[ObjectId], watch: &Watch<'_>) -> Result<Moved> {
        let mut moved = Moved::default();
        for object in given {
            watch.check()?;
            let id = self.formation_of(object)?;
            let tag = formation_tag(id);
            let pushed = registry::push(store, &self.session(), &[id], &Options::default(), Some(&tag));
            let pushed = pushed.map_err(|error| self.failed(error))?;
            match pushed.parts.iter().all(|part| part.how == How::There) {
                true => moved.had.push(*object),
                false => moved.moved.push(*object),
            }
            moved.bytes += pushed.sent();
            moved.wire += pushed.sent();
            (watch.progress)(moved.bytes, None);
        }
        Ok(moved)
    }

    fn set_name(&self, name: &str, id: FormationId) -> Result<()> {
        let tag = registry::as_tag(name);
        self.session().retag(&formation_tag(id), &tag).map_err(|error| self.failed(error))
    }
}
