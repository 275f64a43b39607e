//! Words of the command line that name something: a formation, the steps of one.

use store::Store;

use crate::error::{Failure, Result, code};

/// Refuses what could not be told from a digest or a path.
pub fn check_name(name: &str) -> Result<()> {
    if store::directory::versioned::is_root(name) {
        return Ok(());
    }
    let failure = Failure::new(code::USAGE, format!("`{name}` is not a name for a formation"));
    Err(failure.hint("letters, digits, `.`, `_`, `+` and `-`, starting with a letter or digit, and not like a digest; `NAME@VERSION` too"))
}

/// A name for a formation, as a store has it: `NAME`, `NAME@VERSION`, or, as people wrote that once, `NAME:VERSION`.
pub fn root_name(given: &str) -> Result<String> {
    let name = given.replacen(':', "@", 1);
    check_name(&name).map(|()| name)
}

/// The derivations of a formation's steps, if that is what was meant.
pub fn steps_of(store: &Store, given: &str) -> Result<Option<Vec<String>>> {
    match store.find(given) {
        Ok(id) => Ok(Some(store.record(id)?.steps.into_iter().map(|step| step.derivation).collect())),
        Err(store::Error::NotFound { .. } | store::Error::NoVersion { .. } | store::Error::Malformed { .. }) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Nothing is called so.
pub fn unknown(given: &str) -> Failure {
    Failure::new(code::NOT_FOUND, format!("nothing is known of a step or formation `{given}`"))
        .hint("a step is named as in the lines of `forge build`, by its derivation's path or by 6 digits of its hash")
}
