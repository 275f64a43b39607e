//! The plainest `forge run …` read without clap: describing a hundred options to it takes longer than the kernel needs for all the
//! namespaces (0.4 ms for those of `run` alone, 1.3 ms for every command's).
//!
//! What it does not take, and every mistake, is left to the whole command line: it knows how to say what is wrong.

use std::ffi::{OsStr, OsString};

use super::{Arguments, Command, Global, NetworkChoice, RunArguments};

/// The arguments, if the words are a plain `forge run` without a mistake.
pub fn parse(words: &[OsString]) -> Option<Arguments> {
    let mut plain = Plain::default();
    let mut words = words.get(1..)?.iter();
    let mut is_run = false;
    while let Some(word) = words.next() {
        let text = word.to_str()?;
        match text {
            "--" if is_run && plain.has_formation => {
                plain.run.command = words.cloned().collect();
                break;
            }
            "run" if !is_run => is_run = true,
            _ if text.starts_with('-') => {
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                    _ => (text, None),
                };
                let done = plain.global(name, value, &mut words)
                    || is_run && (plain.flag(name, value) || plain.option(name, value, &mut words)?);
                if !done {
                    return None;
                }
            }
            _ if is_run && !plain.has_formation => {
                plain.has_formation = true;
                plain.run.target.formation = text.to_owned();
            }
            _ => return None,
        }
    }
    let Plain { run, global, has_formation } = plain;
    has_formation.then_some(Arguments { command: Command::Run(run), global })
}

#[derive(Default)]
struct Plain {
    run: RunArguments,
    global: Global,
    has_formation: bool,
}

type Words<'a> = std::slice::Iter<'a, OsString>;

impl Plain {
    /// Sets what is set by being there; false if it is something else. What may be there once only and is there twice is a mistake.
    fn flag(&mut self, name: &str, value: Option<&str>) -> bool {
        let options = &mut self.run.target.options;
        let (flag, other) = match name {
            _ if value.is_some() => return false,
            "-i" | "--interactive" => (&mut options.interactive, None),
            "-t" | "--tty" => (&mut options.tty, None),
            "-it" => (&mut options.interactive, Some(&mut options.tty)),
            "--rm" => (&mut options.habits.rm, None),
            "--read-only" => (&mut options.read_only, None),
            "-P" | "--publish-all" => (&mut options.publish_all, None),
            _ => return false,
        };
        let was_set = std::mem::replace(flag, true) | other.is_some_and(|flag| std::mem::replace(flag, true));
        !was_set
    }

    /// The same for what every command takes.
    fn global(&mut self, name: &str, value: Option<&str>, words: &mut Words<'_>) -> bool {
        let flag = match name {
            "--store" => {
                let value = value.map(OsStr::new).or_else(|| argument(words)).filter(|value| !value.is_empty());
                let was_set = self.global.store.is_some();
                self.global.store = value.map(Into::into);
                return !was_set && self.global.store.is_some();
            }
            "-q" | "--quiet" => &mut self.global.quiet,
            "--json" => &mut self.global.json,
            _ => return false,
        };
        value.is_none() && !std::mem::replace(flag, true)
    }

    /// Sets what has a value; `None` if that is a mistake.
    fn option(&mut self, name: &str, value: Option<&str>, words: &mut Words<'_>) -> Option<bool> {
        let options = &mut self.run.target.options;
        let bounds = &mut options.bounds;
        let (list, one) = match name {
            "-e" | "--env" => (Some(&mut options.env), None),
            "-v" | "--volume" => (Some(&mut options.volume), None),
            "-B" | "--bind" => (Some(&mut options.bind), None),
            "-p" | "--port" | "--publish" => (Some(&mut options.ports), None),
            "--tmpfs" => (Some(&mut options.tmpfs), None),
            "-m" | "--memory" => (None, Some(&mut bounds.memory)),
            "--cpus" => (None, Some(&mut bounds.cpus)),
            "--timeout" => (None, Some(&mut bounds.timeout)),
            "--hostname" => (None, Some(&mut options.hostname)),
            "-u" | "--user" => (None, Some(&mut options.user)),
            "--pids" | "--pids-limit" | "--network" | "--net" => (None, None),
            _ => return Some(false),
        };
        let value = match value {
            Some(value) => value,
            None => argument(words)?.to_str()?,
        };
        match (list, one, name) {
            (Some(list), ..) => list.push(value.to_owned()),
            (None, Some(one), _) => set(one, value.to_owned())?,
            (None, None, "--network" | "--net") => {
                let network = match value {
                    "none" => NetworkChoice::None,
                    "host" => NetworkChoice::Host,
                    _ => return None,
                };
                set(&mut options.network, network)?;
            }
            (None, None, _) => set(&mut bounds.pids, value.parse().ok()?)?,
        }
        Some(true)
    }
}

/// The next word, if it cannot be another option.
fn argument<'a>(words: &mut Words<'a>) -> Option<&'a OsStr> {
    words.next().map(OsString::as_os_str).filter(|word| !word.as_encoded_bytes().starts_with(b"-"))
}

fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn it_reads_as_the_whole_command_line_does() {
        for line in [
            "forge run box",
            "forge run box -- true --json",
            "forge run run -- run",
            "forge run box -- --color blue --store -- x",
            "forge -q run --json box --memory 1M --pids 3 -- sh -c ls",
            "forge run box --store /s",
            "forge --store=/s run box --",
            "forge run -it --rm -v /a:/b -e A=1 -e B=2=3 -p 80 -p 81 --net host -u 1:2 ./x.expr",
            "forge run -i -t --read-only -P box --hostname= --tmpfs /x --cpus=1.5 --timeout 3s --network=none -m 1G -B /a",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let whole = Arguments::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            let quick = parse(&words).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn what_is_no_plain_run_is_left_to_it() {
        for line in [
            "forge",
            "forge run",
            "forge run --",
            "forge run -- true",
            "forge -m 1G run box",
            "forge run box tin",
            "forge run box --rm --rm",
            "forge run box -it -t",
            "forge run box -q -q",
            "forge run box --json=true",
            "forge run box --memory",
            "forge run box --memory --rm",
            "forge run box --memory 1 -m 2",
            "forge run box --pids x",
            "forge run box --net moon",
            "forge run box --store",
            "forge run box --store=",
            "forge run box -eA=1",
            "forge run - -- true",
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
