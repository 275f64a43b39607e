//! `forge run …` read without describing the other forty commands, which takes longer than the kernel needs for the namespaces.
//!
//! What it does not take, and every mistake, is left to the whole command line: it knows how to say what is wrong.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser};

use super::{Arguments, Color, Command, Global, RunArguments};

#[derive(Debug, Parser)]
#[command(name = "run", disable_help_flag = true, disable_version_flag = true)]
struct OnlyRun {
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    global: OfRun,
}

/// [`Global`] as `run` has it: `-v` is a volume there, and `--verbose` its own.
#[derive(Debug, Args)]
struct OfRun {
    #[arg(long)]
    store: Option<PathBuf>,
    #[arg(long)]
    json: bool,
    #[arg(short, long)]
    quiet: bool,
    #[arg(long)]
    show_trace: bool,
    #[arg(long)]
    no_eval_cache: bool,
    #[arg(long, default_value = "auto")]
    color: Color,
}

/// The arguments, if the words are a `forge run` without a mistake.
pub fn parse(words: &[OsString]) -> Option<Arguments> {
    if words.get(1)? != "run" {
        return None;
    }
    let OnlyRun { run, global } = OnlyRun::try_parse_from(&words[1..]).ok()?;
    let OfRun { store, json, quiet, show_trace, no_eval_cache, color } = global;
    let verbose = run.target.options.verbose;
    let global = Global { store, json, quiet, verbose, show_trace, no_eval_cache, color };
    Some(Arguments { command: Command::Run(run), global })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_the_whole_command_line_does() {
        for line in [
            "forge run box",
            "forge run box -- true --json",
            "forge run -q --json box --memory 1M --pids 3 -- sh -c ls",
            "forge run box --store /s --color never --verbose --verbose --show-trace --no-eval-cache",
            "forge run -it --rm -v /a:/b -e A=1 -e B -p 80 --net host -u 1:2 -w / --cap-add KILL,CHOWN ./x.expr -A a.b",
            "forge run --input a --input b --output o --trust --entrypoint x box --require user,memory -- a b",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let whole = Arguments::try_parse_from(&words).unwrap();
            let quick = parse(&words).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn what_is_no_plain_run_is_left_to_it() {
        for line in [
            "forge",
            "forge run",
            "forge --json run box",
            "forge run --help",
            "forge run -h",
            "forge run box --version",
            "forge run box --moon",
            "forge list",
            "forge run box --color blue",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(parse(&words).is_none(), "{line}");
        }
    }
}
