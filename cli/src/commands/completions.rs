//! `forge completions`: a shell's completion script.

use clap::CommandFactory;

use crate::args::{Arguments, CompletionsArguments};
use crate::error::Result;
use crate::exit::ExitCode;

/// `forge completions`
pub fn run(arguments: &CompletionsArguments) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "forge", &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
