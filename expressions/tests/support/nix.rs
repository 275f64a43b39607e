//! forge and Nix, asked the same: both as `nix-instantiate` with the same arguments.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Command;

use expressions::frontend::{Invocation, nix_instantiate};

/// What was printed, data and words, and whether it went well.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub output: String,
    pub errors: String,
    pub okay: bool,
}

impl Answer {
    fn new(output: &[u8], errors: &[u8], okay: bool) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { output: text(output), errors: text(errors), okay }
    }
}

/// What forge says, with nothing of this machine's environment.
pub fn ours(arguments: Vec<OsString>) -> Answer {
    let printed = nix_instantiate(&Invocation {
        arguments,
        directory: "/".into(),
        environment: BTreeMap::new(),
        input: Vec::new(),
        terminal: false,
        system: "x86_64-linux".to_owned(),
        time: 0,
        recorder: None,
        lock: store::lock::Lock::default(),
        fetched: BTreeMap::new(),
    });
    Answer::new(&printed.output, &printed.errors, printed.code == 0)
}

/// What the Nix on the `PATH` says, which was there a moment ago.
pub fn theirs(arguments: Vec<OsString>) -> Answer {
    let output = Command::new("nix-instantiate").args(arguments).output().expect("Nix was here a moment ago");
    Answer::new(&output.stdout, &output.stderr, output.status.success())
}

/// The version of Nix on the `PATH`, for instance (2, 8).
pub fn version() -> Option<(u32, u32)> {
    let output = Command::new("nix-instantiate").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.split_whitespace().last()?.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??);
    // forge under that name says the version of Nix whose language it speaks, and is no judge of itself.
    (!text.contains("forge")).then_some(version)
}

/// Whether the Nix whose words the fixtures hold can be asked.
pub fn is_here() -> bool {
    let is_here = version() == Some((2, 34));
    if !is_here {
        eprintln!("skipped: there is no nix-instantiate 2.34 on the PATH");
    }
    is_here
}
