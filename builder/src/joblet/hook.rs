//! Which statements of a hook only install packages, so that they can be packages of a lock instead.
//!
//! Only what is understood in full is taken away, and only where it stands alone: inside `if`, in a pipe or in a text it stays, and what
//! stays is the hook's own, byte for byte.

use super::shell::{Command, Statement, statements};

/// What became of a hook.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parted {
    /// Packages of Debian.
    pub debian: Vec<String>,
    /// Requirements for pip.
    pub pip: Vec<String>,
    /// Packages of npm.
    pub npm: Vec<String>,
    /// What is left of the script; empty if nothing that does anything.
    pub rest: String,
    /// What cannot be turned: the line within the script, from 1, and why.
    pub notes: Vec<(usize, String)>,
}

/// Takes a script apart. What only installs goes, everything else stays as it is.
pub fn part(script: &str) -> Parted {
    let mut parted = Parted::default();
    let mut rest = String::new();
    let mut does_something = false;
    for statement in statements(script) {
        let meanings: Vec<Meaning> = statement.commands.iter().map(|command| understand(&command.words)).collect();
        let is_understood = statement.is_simple && statement.is_literal && meanings.iter().all(Meaning::is_turned);
        // A setting alone is for what comes after it.
        if is_understood && !meanings.iter().all(|meaning| matches!(meaning, Meaning::Setting)) {
            for meaning in meanings {
                match meaning {
                    Meaning::Debian(names) => parted.debian.extend(names),
                    Meaning::Pip(names) => parted.pip.extend(names),
                    Meaning::Npm(names) => parted.npm.extend(names),
                    _ => {}
                }
            }
            continue;
        }
        let notes = statement
            .commands
            .iter()
            .zip(meanings)
            .filter_map(|(command, meaning)| Some((command.line, meaning.why()?)));
        parted.notes.extend(notes);
        does_something |= !only_tells(&statement);
        rest.push_str(statement.text);
    }
    if does_something {
        parted.notes.extend(other_shell(script).map(|why| (1, why)));
        parted.rest = rest;
        if !parted.rest.ends_with('\n') {
            parted.rest.push('\n');
        }
    }
    parted
}

/// Whether a statement does nothing alone: settings of the shell, and what a script tells its reader.
fn only_tells(statement: &Statement<'_>) -> bool {
    let tells = |command: &Command| matches!(command.words[0].as_str(), "set" | "export" | "echo");
    statement.is_simple && statement.commands.iter().all(tells)
}

/// A first line that names another shell than the one that runs it.
fn other_shell(script: &str) -> Option<String> {
    let line = script.lines().next()?.strip_prefix("#!")?.trim();
    let is_posix = |word: &str| matches!(word.rsplit('/').next(), Some("sh" | "dash"));
    if line.split_whitespace().any(is_posix) {
        return None;
    }
    Some(format!(
        "`{line}` does not run it, but /bin/sh: what only the other understands stands in a script of its own"
    ))
}

/// What a command is for.
enum Meaning {
    /// Of no effect here: an update of indexes, a clean-up.
    Nothing,
    /// How the package managers ask questions.
    Setting,
    Debian(Vec<String>),
    Pip(Vec<String>),
    Npm(Vec<String>),
    /// A package manager of another distribution.
    Foreign(String),
    /// Something that needs the network.
    Network(String),
    /// An installation that says more than which packages: what of it cannot be turned, and what to write instead.
    Peculiar(String),
    Other,
}

impl Meaning {
    /// Whether a step without network need not do it.
    fn is_turned(&self) -> bool {
        matches!(self, Self::Nothing | Self::Setting | Self::Debian(_) | Self::Pip(_) | Self::Npm(_))
    }

    /// Why it cannot stay what it is in a step.
    fn why(self) -> Option<String> {
        match self {
            Self::Nothing | Self::Setting | Self::Other => None,
            Self::Debian(names) | Self::Pip(names) | Self::Npm(names) => Some(format!(
                "installs {} beside other things: a step has no network; name them as packages",
                names.join(" ")
            )),
            Self::Foreign(program) => {
                Some(format!("`{program}` installs packages of another distribution: name Debian's instead"))
            }
            Self::Network(program) => {
                Some(format!("`{program}` needs the network, which a step has not: forge.fetchurl brings files"))
            }
            Self::Peculiar(why) => Some(why),
        }
    }
}

fn understand(words: &[String]) -> Meaning {
    // How the package managers go about it, not what they install.
    const SETTINGS: &[&str] = &[
        "APT_LISTCHANGES_FRONTEND",
        "DEBCONF_NONINTERACTIVE_SEEN",
        "DEBIAN_FRONTEND",
        "DEBIAN_PRIORITY",
        "LANG",
        "LC_ALL",
        "PIP_BREAK_SYSTEM_PACKAGES",
        "PIP_DISABLE_PIP_VERSION_CHECK",
        "PIP_NO_CACHE_DIR",
        "PIP_ROOT_USER_ACTION",
    ];
    let setting = |word: &str| {
        let (name, _) = word.split_once('=')?;
        name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_').then(|| name.to_owned())
    };
    let before = words.iter().take_while(|word| *word == "sudo" || setting(word).is_some()).count();
    let (before, words) = words.split_at(before);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let unknown = before.iter().find(|word| setting(word).is_some_and(|name| !SETTINGS.contains(&name.as_str())));
    match (without_settings(&words), unknown) {
        (Meaning::Debian(_) | Meaning::Pip(_) | Meaning::Npm(_), Some(unknown)) => {
            Meaning::Peculiar(not_followed(words[0], unknown))
        }
        (meaning, _) => meaning,
    }
}

/// What a command is for, without variables that are set for it.
fn without_settings(words: &[&str]) -> Meaning {
    match words {
        // Variables alone are for what comes after them.
        [] => Meaning::Other,
        ["export", setting] if setting.starts_with("DEBIAN_FRONTEND=") => Meaning::Setting,
        ["rm", flags, rest @ ..] if flags.starts_with('-') && rest.iter().all(|path| is_cache(path)) => {
            Meaning::Nothing
        }
        ["apt-get" | "apt", rest @ ..] => apt(words[0], rest),
        ["pip" | "pip3", "install", rest @ ..] | ["python" | "python3", "-m", "pip", "install", rest @ ..] => {
            pip(words[0], rest)
        }
        ["npm", "install" | "i" | "add", rest @ ..] if rest.iter().any(|word| matches!(*word, "-g" | "--global")) => {
            npm(rest)
        }
        ["yum" | "dnf" | "microdnf" | "apk" | "zypper" | "pacman" | "brew" | "amazon-linux-extras", ..] => {
            Meaning::Foreign(words[0].to_owned())
        }
        [
            "curl" | "wget" | "git" | "npm" | "yarn" | "pnpm" | "npx" | "go" | "cargo" | "mvn" | "gradle"
            | "add-apt-repository" | "pip" | "pip3",
            ..,
        ] if !words.contains(&"--version") => Meaning::Network(words[0].to_owned()),
        _ => Meaning::Other,
    }
}

/// Whether a path is of what apt keeps for itself.
fn is_cache(path: &str) -> bool {
    let is_below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !path.split('/').any(|part| part == "..") && ["/var/lib/apt", "/var/cache/apt"].into_iter().any(is_below)
}

/// `apt-get` and its words. An option whose meaning is not known here may take the next word with it.
fn apt(program: &str, words: &[&str]) -> Meaning {
    let mut plain = Vec::new();
    let mut peculiar = None;
    let mut left = words.iter();
    while let Some(word) = left.next() {
        let (name, attached) = option(word);
        let takes_value = matches!(
            name,
            "-t" | "--target-release"
                | "--default-release"
                | "-o"
                | "--option"
                | "-c"
                | "--config-file"
                | "-a"
                | "--host-architecture"
        );
        if takes_value {
            let value = attached.or_else(|| left.next().copied()).unwrap_or_default();
            peculiar = peculiar.or_else(|| apt_option(name, value));
        } else if !word.starts_with('-') {
            plain.push((*word).to_owned());
        } else if !is_harmless_of_apt(word) {
            peculiar = peculiar.or_else(|| Some(not_followed(program, word)));
        }
    }
    match plain.split_first() {
        Some((action, _)) if matches!(action.as_str(), "update" | "clean" | "autoclean" | "autoremove") => {
            Meaning::Nothing
        }
        Some((action, names)) if action == "install" && !names.is_empty() => match peculiar {
            Some(why) => Meaning::Peculiar(why),
            None => match names.iter().find_map(|name| name.split_once('/')) {
                Some((_, suite)) => Meaning::Peculiar(other_suite(&format!("/{suite}"), suite)),
                None if names.iter().all(|name| is_package(name)) => Meaning::Debian(names.to_vec()),
                None => Meaning::Network(program.to_owned()),
            },
        },
        _ => Meaning::Network(program.to_owned()),
    }
}

/// An option and the value that is written in one word with it: `-tX`, `-t=X`, `--target-release=X`.
fn option(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        return word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    }
    match word.get(..2) {
        Some(name) if name.starts_with('-') && word.len() > 2 => (name, Some(word[2..].trim_start_matches('='))),
        _ => (word, None),
    }
}

/// Why one of apt's options with a value cannot be turned; nothing if it only says how apt goes about it.
fn apt_option(name: &str, value: &str) -> Option<String> {
    match name {
        "-o" | "--option" => {
            let lower = value.to_ascii_lowercase();
            let is_harmless = ["acquire::", "debug::", "dpkg::", "quiet", "apt::get::assume-yes"]
                .into_iter()
                .any(|start| lower.starts_with(start))
                || matches!(
                    lower.as_str(),
                    "apt::install-recommends=0"
                        | "apt::install-recommends=false"
                        | "apt::install-suggests=0"
                        | "apt::install-suggests=false"
                );
            (!is_harmless).then(|| not_followed("apt-get", &format!("{name} {value}")))
        }
        "-c" | "--config-file" => Some(not_followed("apt-get", &format!("{name} {value}"))),
        "-a" | "--host-architecture" => Some(format!(
            "`{name} {value}` cannot be turned: forge.debian installs packages of the formation's own architecture"
        )),
        _ => Some(other_suite(&format!("{name} {value}"), value)),
    }
}

fn other_suite(written: &str, suite: &str) -> String {
    format!(
        "`{written}` cannot be turned: a formation has one suite of Debian; write `suite = \"{suite}\"` in forge.debian, and the \
         packages among its `packages`"
    )
}

fn not_followed(program: &str, option: &str) -> String {
    format!(
        "`{option}` of `{program}` cannot be turned, and a step has no network; name what it would install as packages"
    )
}

/// Options that change nothing in which packages there are afterwards.
fn is_harmless_of_apt(word: &str) -> bool {
    let is_quiet = |rest: &str| !rest.is_empty() && rest.bytes().all(|letter| b"yqfmuV".contains(&letter));
    matches!(
        word,
        "--yes"
            | "--assume-yes"
            | "--quiet"
            | "--no-install-recommends"
            | "--no-install-suggests"
            | "--fix-broken"
            | "--fix-missing"
            | "--ignore-missing"
            | "--no-upgrade"
            | "--show-upgraded"
            | "--verbose-versions"
            | "--show-progress"
            | "--reinstall"
            | "--auto-remove"
            | "--autoremove"
            | "--purge"
            | "--allow-downgrades"
            | "--allow-change-held-packages"
            | "--allow-releaseinfo-change"
            | "--force-yes"
            | "-q=1"
            | "-q=2"
            | "--quiet=1"
            | "--quiet=2"
    ) || !word.starts_with("--") && word.strip_prefix('-').is_some_and(is_quiet)
}

/// `pip install` and its words.
fn pip(program: &str, words: &[&str]) -> Meaning {
    let (options, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
    // Which options take the next word with them is not asked: any that is not known makes it another command.
    if options.iter().any(|option| !super::HARMLESS_PIP_OPTIONS.contains(option) && *option != "--user")
        || names.is_empty()
        || names.iter().any(|name| crate::python::resolver::checked(name).is_err())
    {
        return Meaning::Network(program.to_owned());
    }
    // pip itself is not needed to have what it installs.
    let is_wanted = |name: &&str| !matches!(*name, "pip" | "setuptools" | "wheel");
    Meaning::Pip(names.into_iter().filter(is_wanted).map(str::to_owned).collect())
}

/// `npm install -g` and its words.
fn npm(words: &[&str]) -> Meaning {
    const HARMLESS: &[&str] = &[
        "-g",
        "--global",
        "--no-audit",
        "--no-fund",
        "--quiet",
        "-q",
        "--silent",
        "-s",
        "--no-progress",
        "--unsafe-perm",
    ];
    let (options, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
    let is_local = |name: &&str| name.starts_with(['.', '/', '~']) || name.contains(':');
    if names.is_empty() || names.iter().any(is_local) || options.iter().any(|option| !HARMLESS.contains(option)) {
        return Meaning::Network("npm".to_owned());
    }
    Meaning::Npm(names.into_iter().map(str::to_owned).collect())
}

/// `name`, `name=version`: what apt-get takes and is a name.
fn is_package(text: &str) -> bool {
    let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
    // A sign at the end takes the package away, but for names such as `g++`.
    crate::debian::index::is_name(name)
        && !name.ends_with('-')
        && version.is_none_or(|version| {
            !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-:~".contains(&byte))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_only_install_become_packages() {
        let script = "#!/bin/bash\nset -e\nexport DEBIAN_FRONTEND=noninteractive\napt-get update && apt-get install -y --no-install-recommends \\\n  \
                      build-essential libgomp1=12.2.0-14 && rm -rf /var/lib/apt/lists/*\nsudo apt install -y git\n\
                      pip3 install --no-cache-dir 'numpy>=1.24' pandas\npip install --upgrade pip\n";
        let parted = part(script);
        assert_eq!(parted.debian, ["build-essential", "libgomp1=12.2.0-14", "git"]);
        assert_eq!(parted.pip, ["numpy>=1.24", "pandas"]);
        assert_eq!((parted.rest.as_str(), parted.notes.len()), ("", 0));
    }

    #[test]
    fn a_line_that_only_speaks_goes_and_one_that_writes_stays() {
        for speaks in ["set -e", "echo 'installing'", "export A=1", "echo start\nset -eu\nexport B=2"] {
            assert_eq!(part(speaks).rest, "", "{speaks}");
        }
        for writes in [
            "echo done > /etc/done",
            "echo a >> /f",
            "echo a | tee /f",
            "echo $(touch /f)",
            "set -e; touch /f",
            "export A=1 && touch /f",
        ] {
            assert_eq!(part(writes).rest, format!("{writes}\n"), "{writes}");
        }
    }

    #[test]
    fn what_cannot_be_turned_stays_and_is_said() {
        let script = "if command -v apt-get; then\n  apt-get install -y gcc\nelse\n  yum install -y gcc\nfi\ncurl -O https://x/y\n\
                      mkdir -p /data\npip install -r requirements.txt\napt-get install -y $PACKAGES\n";
        let parted = part(script);
        assert!(parted.debian.is_empty() && parted.pip.is_empty());
        assert!(parted.rest.contains("mkdir -p /data") && parted.rest.contains("$PACKAGES"));
        let notes: Vec<String> = parted.notes.iter().map(|(line, why)| format!("{line}: {why}")).collect();
        insta::assert_snapshot!(notes.join("\n"), @"
        2: installs gcc beside other things: a step has no network; name them as packages
        4: `yum` installs packages of another distribution: name Debian's instead
        6: `curl` needs the network, which a step has not: forge.fetchurl brings files
        8: `pip` needs the network, which a step has not: forge.fetchurl brings files
        9: `apt-get` needs the network, which a step has not: forge.fetchurl brings files
        ");
    }

    #[test]
    fn what_is_no_command_of_its_own_stays_byte_for_byte() {
        for script in [
            "cat > /x.sh <<'EOF'\n#!/bin/sh\n\n# why\napt-get install -y less\nrm -rf /var/lib/apt/lists/*\na \\\n   b\nEOF\n",
            "cat > /x.sh <<-EOF\n\tapt-get install -y less\n\tEOF\ntouch /f\n",
            "echo '\n\n# no comment\napt-get install -y less\n' > /f\n",
            "if test -f /x; then\n  rm -rf /var/lib/apt/lists/*\nfi\ntouch /f\n",
            "for x in a b; do\n  echo done\n  apt-get clean\ndone\n",
            "f() {\n  apt-get update\n}\ntouch /f\n",
            "case $x in\n  a) rm -rf /var/cache/apt;;\nesac\n",
            "(\n  apt-get update\n)\n",
            "test -f /x ||\n  rm -rf /var/lib/apt/lists/*\n",
            "# why\n\ntouch /f # what\n\n   # the end\n",
            "x='\napt-get update\n'\necho \"$x\" > /f\n",
            "rm -rf /var/lib/apt/../../srv\n",
            "rm -rf /var/lib/apt-of-ours\n",
            "export DEBIAN_FRONTEND=noninteractive\ndpkg-reconfigure tzdata\n",
            "LANG=C\ndpkg-reconfigure tzdata\n",
            "echo 'a\n",
        ] {
            let parted = part(script);
            assert_eq!(parted.rest, script);
            assert!(parted.debian.is_empty() && parted.pip.is_empty(), "{script}");
        }
        let parted = part(
            "# first\napt-get update &&\n  apt-get install -y less # why\ntouch /f\nrm -rf /var/lib/apt/lists/*\n",
        );
        assert_eq!((parted.rest.as_str(), parted.debian), ("# first\ntouch /f\n", vec!["less".to_owned()]));
    }

    #[test]
    fn options_that_say_more_than_which_packages_are_not_passed_over() {
        let said = |command: &str| {
            let parted = part(command);
            let installed = [parted.debian, parted.pip, parted.npm].concat().join(" ");
            let notes: Vec<&str> = parted.notes.iter().map(|(_, why)| why.as_str()).collect();
            assert_eq!(parted.rest.is_empty(), notes.is_empty(), "{command}");
            format!("{command}: {installed}{}\n", notes.join("\n"))
        };
        let commands = [
            "apt-get install -y -t bookworm-backports jq",
            "apt-get --target-release=bookworm-backports install -y jq",
            "apt-get install -y jq/bookworm-backports",
            "apt-get install -y -c /etc/our.conf jq",
            "apt-get install -y -a arm64 jq",
            "apt-get install -y -o APT::Install-Recommends=true jq",
            "apt-get install -y -o Dpkg::Options::=--force-confold -oAcquire::Retries=3 jq",
            "apt-get -qqy install --no-install-recommends jq",
            "apt-get install -y --download-only jq",
            "apt-get install -y jq-",
            "apt-get install -y jq && touch /f",
            "pip install --index-url=https://host.example/simple six",
            "pip install --no-deps six",
            "pip install six > /log",
            "PIP_INDEX_URL=https://host.example/simple pip install six",
            "npm install -g --prefix /opt left-pad",
            "npm install -g left-pad",
        ];
        insta::assert_snapshot!(commands.map(said).concat(), @r#"
        apt-get install -y -t bookworm-backports jq: `-t bookworm-backports` cannot be turned: a formation has one suite of Debian; write `suite = "bookworm-backports"` in forge.debian, and the packages among its `packages`
        apt-get --target-release=bookworm-backports install -y jq: `--target-release bookworm-backports` cannot be turned: a formation has one suite of Debian; write `suite = "bookworm-backports"` in forge.debian, and the packages among its `packages`
        apt-get install -y jq/bookworm-backports: `/bookworm-backports` cannot be turned: a formation has one suite of Debian; write `suite = "bookworm-backports"` in forge.debian, and the packages among its `packages`
        apt-get install -y -c /etc/our.conf jq: `-c /etc/our.conf` of `apt-get` cannot be turned, and a step has no network; name what it would install as packages
        apt-get install -y -a arm64 jq: `-a arm64` cannot be turned: forge.debian installs packages of the formation's own architecture
        apt-get install -y -o APT::Install-Recommends=true jq: `-o APT::Install-Recommends=true` of `apt-get` cannot be turned, and a step has no network; name what it would install as packages
        apt-get install -y -o Dpkg::Options::=--force-confold -oAcquire::Retries=3 jq: jq
        apt-get -qqy install --no-install-recommends jq: jq
        apt-get install -y --download-only jq: `--download-only` of `apt-get` cannot be turned, and a step has no network; name what it would install as packages
        apt-get install -y jq-: `apt-get` needs the network, which a step has not: forge.fetchurl brings files
        apt-get install -y jq && touch /f: installs jq beside other things: a step has no network; name them as packages
        pip install --index-url=https://host.example/simple six: `pip` needs the network, which a step has not: forge.fetchurl brings files
        pip install --no-deps six: `pip` needs the network, which a step has not: forge.fetchurl brings files
        pip install six > /log: installs six beside other things: a step has no network; name them as packages
        PIP_INDEX_URL=https://host.example/simple pip install six: `PIP_INDEX_URL=https://host.example/simple` of `pip` cannot be turned, and a step has no network; name what it would install as packages
        npm install -g --prefix /opt left-pad: `npm` needs the network, which a step has not: forge.fetchurl brings files
        npm install -g left-pad: left-pad
        "#);
    }

    #[test]
    fn a_script_of_another_shell_is_said_to_be_one() {
        assert!(part("#!/bin/bash\ntouch /f\n").notes[0].1.contains("/bin/bash"));
        assert!(part("#!/usr/bin/env sh\ntouch /f\n").notes.is_empty());
        assert!(part("#!/bin/bash\napt-get install -y less\n").notes.is_empty());
    }
}
