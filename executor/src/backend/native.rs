//! Linux namespaces, by our own launcher.

pub mod supervisor;

use super::Backend;
use crate::{Outcome, Result, Sandbox};

/// Runs on this kernel, without a daemon.
#[derive(Debug, Default)]
pub struct Native {}

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }
    fn run(&self, _sandbox: &Sandbox) -> Result<Outcome> {
        unimplemented!()
    }
}
