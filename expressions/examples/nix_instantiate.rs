//! `nix-instantiate` by this evaluator alone, which is sooner compiled than all of forge: for comparing it with the original.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use expressions::frontend::{Invocation, nix_instantiate, reads_input};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let mut input = Vec::new();
    if reads_input(&arguments) {
        std::io::stdin().read_to_end(&mut input).expect("the input can be read");
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs() as i64);
    let printed = nix_instantiate(&Invocation {
        arguments,
        directory: std::env::current_dir().expect("there is a current directory"),
        environment: std::env::vars_os().collect(),
        input,
        terminal: false,
        system: format!("{}-linux", std::env::consts::ARCH),
        time: now,
        recorder: None,
        lock: store::lock::Lock::default(),
        fetched: BTreeMap::new(),
    });
    std::io::stdout().write_all(&printed.output).expect("the output can be written");
    std::io::stderr().write_all(&printed.errors).expect("the errors can be written");
    ExitCode::from(printed.code)
}
