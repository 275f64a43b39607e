//! What the arguments of `nix-instantiate` say.
//!
//! Much of what it takes is about building and the network: that is read, so that nothing after it is misunderstood, and
//! has no effect here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use crate::plan::Format;

/// What the arguments say.
#[derive(Debug, Default)]
pub struct Options {
    /// `-`
    pub read_input: bool,
    /// `-E`: the other words are expressions, not files.
    pub expressions: bool,
    /// `--eval`
    pub evaluate: bool,
    /// `--parse`
    pub parse: bool,
    /// `--find-file`
    pub find: bool,
    /// `--version`
    pub version: bool,
    /// `--strict`
    pub strict: bool,
    /// `--show-trace`
    pub show_trace: bool,
    /// `--pure-eval`
    pub pure: bool,
    /// `--json`, `--xml`, `--raw`
    pub format: Option<Format>,
    /// `--no-location`
    pub no_location: bool,
    /// `-A`
    pub attributes: Vec<String>,
    /// Files, or expressions.
    pub files: Vec<OsString>,
    /// `--arg`, `--argstr` and what reads files: name, sort, text.
    pub arguments: Vec<(String, Given, OsString)>,
    /// `--add-root`
    pub add_root: bool,
    /// `-I`
    pub search: Vec<String>,
    /// Settings by Nix's names, in order.
    pub settings: Vec<(String, String)>,
    /// `--override-flake`
    pub overridden_flakes: Vec<(String, String)>,
    /// What was set and is not known: said, and ignored.
    pub unknown: Vec<String>,
}

/// What an argument's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// `--arg`: an expression.
    Expression,
    /// `--argstr`: a string.
    String,
    /// `--arg-from-file`: the name of a file with the string.
    File,
    /// `--arg-from-stdin`
    Input,
}

/// Why the arguments make no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misuse(pub String);

/// Flags for builds, with the number of words that follow.
const FOR_BUILDS: &[(&str, usize)] = &[
    ("--cores", 1),
    ("--debug", 0),
    ("--dry-run", 0),
    ("--eval-store", 1),
    ("--fallback", 0),
    ("--impure", 0),
    ("--indirect", 0),
    ("--keep-failed", 0),
    ("-K", 0),
    ("--keep-going", 0),
    ("-k", 0),
    ("--log-format", 1),
    ("--max-jobs", 1),
    ("-j", 1),
    ("--max-silent-time", 1),
    ("--no-build-output", 0),
    ("-Q", 0),
    ("--quiet", 0),
    ("--read-write-mode", 0),
    ("--readonly-mode", 0),
    ("--repair", 0),
    ("--timeout", 1),
    ("--verbose", 0),
    ("-v", 0),
];

/// Settings that are on or off: `--NAME` and `--no-NAME`.
const SWITCHES: &[&str] = &[
    "abort-on-warn",
    "accept-flake-config",
    "allow-dirty",
    "allow-dirty-locks",
    "allow-import-from-derivation",
    "allow-new-privileges",
    "allow-symlinked-store",
    "allow-unsafe-native-code-during-evaluation",
    "always-allow-substitutes",
    "auto-allocate-uids",
    "auto-optimise-store",
    "builders-use-substitutes",
    "compress-build-log",
    "debugger-on-trace",
    "debugger-on-warn",
    "eval-cache",
    "filter-syscalls",
    "fsync-metadata",
    "fsync-store-paths",
    "http2",
    "ignore-try",
    "impersonate-linux-26",
    "keep-build-log",
    "keep-derivations",
    "keep-env-derivations",
    "keep-outputs",
    "preallocate-contents",
    "print-missing",
    "pure-eval",
    "require-drop-supplementary-groups",
    "require-sigs",
    "restrict-eval",
    "run-diff-hook",
    "sandbox",
    "sandbox-fallback",
    "show-trace",
    "substitute",
    "sync-before-registering",
    "trace-function-calls",
    "trace-import-from-derivation",
    "trace-verbose",
    "trust-tarballs-from-git-forges",
    "use-case-hack",
    "use-cgroups",
    "use-registries",
    "use-sqlite-wal",
    "use-xdg-base-directories",
    "warn-dirty",
    "warn-short-path-literals",
];

/// Settings that have a value: `--NAME VALUE`; lists can be added to by `--extra-NAME VALUE`.
const VALUES: &[&str] = &[
    "access-tokens",
    "allowed-impure-host-deps",
    "allowed-uris",
    "allowed-users",
    "bash-prompt",
    "bash-prompt-prefix",
    "bash-prompt-suffix",
    "build-dir",
    "build-hook",
    "build-poll-interval",
    "build-users-group",
    "builders",
    "commit-lock-file-summary",
    "connect-timeout",
    "diff-hook",
    "download-attempts",
    "download-buffer-size",
    "download-speed",
    "eval-attrset-update-layer-rhs-threshold",
    "eval-profile-file",
    "eval-profiler",
    "eval-profiler-frequency",
    "eval-system",
    "experimental-features",
    "external-builders",
    "extra-platforms",
    "flake-registry",
    "gc-reserved-space",
    "hashed-mirrors",
    "http-connections",
    "id-count",
    "ignored-acls",
    "impure-env",
    "json-log-path",
    "lint-absolute-path-literals",
    "lint-short-path-literals",
    "lint-url-literals",
    "log-lines",
    "max-build-log-size",
    "max-call-depth",
    "max-free",
    "max-substitution-jobs",
    "min-free",
    "min-free-check-interval",
    "nar-buffer-size",
    "narinfo-cache-meta-ttl",
    "narinfo-cache-negative-ttl",
    "narinfo-cache-positive-ttl",
    "netrc-file",
    "nix-path",
    "plugin-files",
    "post-build-hook",
    "pre-build-hook",
    "sandbox-build-dir",
    "sandbox-dev-shm-size",
    "sandbox-paths",
    "secret-key-files",
    "ssl-cert-file",
    "stalled-download-timeout",
    "start-id",
    "store",
    "substituters",
    "system",
    "system-features",
    "tarball-ttl",
    "trusted-public-keys",
    "trusted-substituters",
    "trusted-users",
    "upgrade-nix-store-path-url",
    "user-agent-suffix",
    "warn-large-path-threshold",
];

/// What `--option` knows beside those, because there are flags of the same name.
const ALSO_SETTINGS: &[&str] =
    &["cores", "fallback", "keep-failed", "keep-going", "max-jobs", "max-silent-time", "timeout"];

/// `-qlf` is `-q -l -f`, `-j3` is `-j 3`.
fn spread(argument: &OsStr) -> Option<Vec<OsString>> {
    let bytes = argument.as_bytes();
    let [b'-', first, rest @ ..] = bytes else { return None };
    if rest.is_empty() || !first.is_ascii_alphabetic() {
        return None;
    }
    let mut words = vec![OsString::from_vec(vec![b'-', *first])];
    for (number, byte) in rest.iter().enumerate() {
        if !byte.is_ascii_alphabetic() {
            words.push(OsString::from_vec(rest[number..].to_vec()));
            break;
        }
        words.push(OsString::from_vec(vec![b'-', *byte]));
    }
    Some(words)
}

/// Reads the arguments.
pub fn read(arguments: &[OsString]) -> Result<Options, Misuse> {
    let mut options = Options::default();
    let mut waiting: Vec<OsString> = arguments.iter().rev().cloned().collect();
    let mut flags_end = false;
    while let Some(mut argument) = waiting.pop() {
        if flags_end {
            return Err(Misuse(format!("unexpected argument '{}'", argument.to_string_lossy())));
        }
        if let Some(words) = spread(&argument) {
            waiting.extend(words.into_iter().rev());
            argument = waiting.pop().unwrap_or_default();
        }
        let text = argument.to_string_lossy().into_owned();
        let mut next = |count: usize| -> Result<Vec<OsString>, Misuse> {
            if waiting.len() < count {
                let got = waiting.len();
                return Err(Misuse(format!("flag '{text}' requires {count} argument(s), but only {got} were given")));
            }
            Ok((0..count).filter_map(|_| waiting.pop()).collect())
        };
        match text.as_str() {
            "--" => flags_end = true,
            "-" => options.read_input = true,
            "--expr" | "-E" => options.expressions = true,
            "--eval" | "--eval-only" => options.evaluate = true,
            "--parse" | "--parse-only" => (options.parse, options.evaluate) = (true, true),
            "--find-file" => options.find = true,
            "--version" => options.version = true,
            "--strict" => options.strict = true,
            "--raw" => options.format = Some(Format::Raw),
            "--xml" => options.format = Some(Format::XmlWithPlaces),
            "--json" => options.format = Some(Format::Json),
            "--no-location" => options.no_location = true,
            "--attr" | "-A" => options.attributes.extend(next(1)?.into_iter().map(lossy)),
            "--arg" | "--argstr" | "--arg-from-file" => {
                let sort = match text.as_str() {
                    "--arg" => Given::Expression,
                    "--argstr" => Given::String,
                    _ => Given::File,
                };
                if let [name, value] = &next(2)?[..] {
                    options.arguments.push((lossy(name.clone()), sort, value.clone()));
                }
            }
            "--arg-from-stdin" => {
                options.arguments.extend(next(1)?.into_iter().map(|name| (lossy(name), Given::Input, OsString::new())));
            }
            "--add-root" => {
                next(1)?;
                options.add_root = true;
            }
            "--override-flake" => {
                if let [from, to] = &next(2)?[..] {
                    options.overridden_flakes.push((lossy(from.clone()), lossy(to.clone())));
                }
            }
            "-I" | "--include" => options.search.extend(next(1)?.into_iter().map(lossy)),
            "--option" => {
                if let [name, value] = &next(2)?[..] {
                    options.set(lossy(name.clone()), lossy(value.clone()));
                }
            }
            _ => {
                if let Some((_, count)) = FOR_BUILDS.iter().find(|(flag, _)| *flag == text) {
                    next(*count)?;
                } else if !text.starts_with('-') {
                    options.files.push(argument);
                } else if let Some((name, value)) = switch(&text) {
                    options.set(name, value.to_owned());
                } else if let Some(name) = valued(&text) {
                    let value = next(1)?.into_iter().map(lossy).next();
                    options.set(name, value.unwrap_or_default());
                } else {
                    return Err(Misuse(format!("unrecognised flag '{text}'")));
                }
            }
        }
    }
    Ok(options)
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

fn switch(flag: &str) -> Option<(String, &'static str)> {
    let name = flag.strip_prefix("--")?;
    let known = |name: &str| SWITCHES.contains(&name).then(|| name.to_owned());
    match name.strip_prefix("no-").and_then(known) {
        Some(name) => Some((name, "false")),
        None => Some((known(name)?, "true")),
    }
}

fn valued(flag: &str) -> Option<String> {
    let name = flag.strip_prefix("--")?;
    let plain = name.strip_prefix("extra-").unwrap_or(name);
    VALUES.contains(&plain).then(|| name.to_owned())
}

impl Options {
    fn set(&mut self, name: String, value: String) {
        let on = value == "true";
        match name.as_str() {
            "pure-eval" => self.pure = on,
            "show-trace" => self.show_trace = on,
            _ => {
                let plain = name.strip_prefix("extra-").unwrap_or(&name);
                if ![SWITCHES, VALUES, ALSO_SETTINGS].concat().contains(&plain) {
                    self.unknown.push(name.clone());
                }
                self.settings.push((name, value));
            }
        }
    }

    /// What a setting was set to last.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Result<Options, Misuse> {
        read(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_for_builds_take_their_words_along() {
        let options = of("--eval --timeout 1 --cores 3 -j4 -kQ --log-format raw -vv --add-root x a.nix").unwrap();
        assert!(options.evaluate);
        assert_eq!(options.files, ["a.nix"]);
    }

    #[test]
    fn settings_are_flags_and_options() {
        let options =
            of("--extra-experimental-features flakes --no-sandbox --option lint-url-literals fatal -E 1").unwrap();
        assert_eq!(options.setting("lint-url-literals"), Some("fatal"));
        assert_eq!(options.setting("sandbox"), Some("false"));
        assert_eq!(options.unknown, Vec::<String>::new());
        assert_eq!(of("--option nonsense 1").unwrap().unknown, ["nonsense"]);
    }

    /// The words of Nix 2.34.8.
    #[test]
    fn misuse_is_told_as_nix_tells_it() {
        let words = |text: &str| of(text).unwrap_err().0;
        assert_eq!(words("--foo"), "unrecognised flag '--foo'");
        assert_eq!(words("--arg x"), "flag '--arg' requires 2 argument(s), but only 1 were given");
        assert_eq!(words("--timeout"), "flag '--timeout' requires 1 argument(s), but only 0 were given");
        assert_eq!(words("-qE 1"), "unrecognised flag '-q'");
    }

    #[test]
    fn after_two_dashes_there_is_nothing() {
        assert_eq!(of("-E -- -1").unwrap_err().0, "unexpected argument '-1'");
    }
}
