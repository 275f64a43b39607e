//! `forge`: joins the rooms. Arguments, environment, terminal and exit codes are handled here and nowhere else.

#![warn(clippy::print_stderr, clippy::print_stdout)]
#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

mod args;
mod commands;
mod context;
mod engines;
mod error;
mod evaluation_cache;
mod exit;
mod importing;
mod interrupt;
mod joblet;
mod keys;
mod names;
mod outside;
mod peers;
mod plan;
mod progress;
mod pushing;
mod registries;
mod render;
mod runner_image;
mod runtimes;
mod secrets;
mod settings;
mod transfer;
mod units;
mod volumes;
mod words;
mod workshop;

use std::io::Write;

use clap::Parser;

use crate::exit::ExitCode;
use crate::words::say;

/// What the C library calls. Rust's own `main` reads `/proc/self/maps` and makes a stack for telling of an overflow, a tenth of a
/// millisecond each time; what else it does, [`executor::begin_process`] does.
// SAFETY: there is one function of this name, with the C library's signature for it, and it does not unwind.
#[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
#[unsafe(no_mangle)]
extern "C" fn main(_: std::ffi::c_int, _: *const *const std::ffi::c_char) -> std::ffi::c_int {
    executor::begin_process();
    let code = std::panic::catch_unwind(begin).unwrap_or(ExitCode::from(error::code::BUG));
    // Writes what is still to be written to stdout, too.
    std::process::exit(code.into())
}

/// Where the arguments would not be found without Rust's own start.
#[cfg(not(all(target_os = "linux", target_env = "gnu", not(test))))]
fn main() {
    std::process::exit(begin().into())
}

fn begin() -> ExitCode {
    if let Some(arguments) = commands::nix_instantiate::arguments() {
        return guarded(|| {
            commands::nix_instantiate::run(arguments).unwrap_or_else(|failure| {
                words::show(&failure.render(false, false));
                ExitCode::from(failure.code)
            })
        });
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == commands::parity::probe::WORD) {
        let _ = writeln!(std::io::stdout(), "{}", commands::parity::probe::record());
        return ExitCode::SUCCESS;
    }
    let words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == executor::backend::libcontainer::WORD) {
        return executor::backend::libcontainer::main(&words[2..]).map(ExitCode::from).unwrap_or_else(|why| {
            say!("libcontainer: {why}");
            ExitCode::FAILURE
        });
    }
    let parsed = match args::quick::parse(&words) {
        Some(arguments) => Ok(arguments),
        None => args::Arguments::try_parse_from(commands::runtime::arguments(words.into_iter())),
    };
    let arguments = match parsed {
        Ok(arguments) => arguments.settled(),
        Err(error) => {
            let _ = error.print();
            if let Some(hint) = args::hint(&error) {
                say!("\nhint: {hint}");
            }
            // A typing error in `forge run` must not look like the program's own exit status.
            return ExitCode::from(match args::command_of(std::env::args_os().skip(1)).as_deref() {
                _ if !error.use_stderr() => 0,
                Some("run" | "shell") => error::code::RUN_FAILED,
                _ => error::code::USAGE,
            });
        }
    };
    guarded(|| commands::run(arguments))
}

fn guarded(run: impl FnOnce() -> ExitCode + std::panic::UnwindSafe) -> ExitCode {
    // The panic itself has been printed, with its place.
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        say!("error: this is a bug in forge\nhint: please report it with the lines above and what you typed");
        ExitCode::from(error::code::BUG)
    })
}
