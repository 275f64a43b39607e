//! What can go wrong between stores, and with whom.

use crate::peer::ObjectId;

/// The result of asking a peer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own store failed.
    #[error(transparent)]
    Store(#[from] crate::Error),
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted {
        /// By this signal.
        signal: i32,
    },
    /// Not the address of a peer.
    #[error("`{address}` is not the address of a peer: {reason}")]
    Address {
        /// As given, without a password.
        address: String,
        /// Why.
        reason: &'static str,
    },
    /// Nobody answers there, or not all of what was asked.
    #[error("peer `{peer}` does not answer: {reason}")]
    Unreachable {
        /// Who.
        peer: String,
        /// In words.
        reason: String,
    },
    /// It answers, and has not got it.
    #[error("peer `{peer}` has no {object}")]
    Missing {
        /// Who.
        peer: String,
        /// What was asked for.
        object: String,
    },
    /// It sent something else than was asked for.
    #[error("peer `{peer}` sent wrong bytes for {object}")]
    Lie {
        /// Who.
        peer: String,
        /// What was asked for.
        object: String,
    },
    /// It does not let us.
    #[error("peer `{peer}` refuses: {reason}")]
    Refused {
        /// Who.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// It speaks in a way that we do not understand.
    #[error("peer `{peer}` does not speak as it should: {reason}")]
    Protocol {
        /// Who.
        peer: String,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// It sent something else than was asked for.
    pub fn lie(peer: &str, object: ObjectId) -> Self {
        Self::Lie { peer: peer.to_owned(), object: object.to_string() }
    }

    /// It has not got it.
    pub fn missing(peer: &str, object: ObjectId) -> Self {
        Self::Missing { peer: peer.to_owned(), object: object.to_string() }
    }

    /// Whether the peer is at fault, so that another may be asked.
    pub fn is_the_peers(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Interrupted { .. } | Self::Address { .. })
    }

    /// Whether the peer should be asked nothing more: it is dead, or lies.
    pub fn ends_it(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Lie { .. } | Self::Protocol { .. })
    }
}
