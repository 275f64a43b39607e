//! Which lines of a hook only install packages, so that they can be packages of a lock instead.

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

/// Takes a script apart.
pub fn part(script: &str) -> Parted {
    let mut parted = Parted::default();
    let mut rest: Vec<String> = Vec::new();
    let mut depth = 0usize;
    for (number, line) in logical_lines(script) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let opens =
            words.iter().filter(|word| matches!(**word, "if" | "for" | "while" | "until" | "case" | "{" | "(")).count();
        let closes = words
            .iter()
            .filter(|word| matches!(word.trim_end_matches(';'), "fi" | "done" | "esac" | "}" | ")"))
            .count();
        let inside = depth > 0 || opens > 0;
        depth = (depth + opens).saturating_sub(closes);
        let commands: Vec<Command> = commands(&line).into_iter().map(|command| understand(&command)).collect();
        if commands.iter().all(|command| matches!(command, Command::Nothing)) && !commands.is_empty() {
            continue;
        }
        let turns = |command: &Command| !matches!(command, Command::Other | Command::Foreign(_) | Command::Network(_));
        if !inside && commands.iter().all(turns) {
            for command in commands {
                match command {
                    Command::Debian(names) => parted.debian.extend(names),
                    Command::Pip(names) => parted.pip.extend(names),
                    Command::Npm(names) => parted.npm.extend(names),
                    _ => {}
                }
            }
            continue;
        }
        for command in &commands {
            match command {
                Command::Debian(names) | Command::Pip(names) | Command::Npm(names) => {
                    let why = format!(
                        "installs {} beside other things: a step has no network; name them as packages",
                        names.join(" ")
                    );
                    parted.notes.push((number, why));
                }
                Command::Foreign(program) => {
                    let why = format!("`{program}` installs packages of another distribution: name Debian's instead");
                    parted.notes.push((number, why));
                }
                Command::Network(program) => {
                    let why =
                        format!("`{program}` needs the network, which a step has not: forge.fetchurl brings files");
                    parted.notes.push((number, why));
                }
                _ => {}
            }
        }
        rest.push(line);
    }
    // `set -e` alone does nothing, and what a script tells its reader neither; what it tells a file, or another program, stays.
    let only_tells = |line: &String| !line.contains(['>', '|', '`', ';', '&']) && !line.contains("$(");
    let does = |line: &String| match line.split_whitespace().next() {
        Some("set" | "export") => line.contains([';', '&', '|', '`']) || line.contains("$("),
        Some("echo") => !only_tells(line),
        first => first.is_some(),
    };
    if rest.iter().any(does) {
        parted.rest = rest.join("\n") + "\n";
    }
    parted
}

/// Lines with their numbers; one that ends in a backslash goes on. Comments and empty lines are left out.
fn logical_lines(script: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in script.lines().enumerate() {
        let (text, goes_on) = match line.strip_suffix('\\') {
            Some(text) => (text, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| open) {
            Some((_, last)) => *last = format!("{} {}", last.trim_end(), text.trim_start()),
            None if text.trim().is_empty() || text.trim_start().starts_with('#') => {}
            None => lines.push((index + 1, text.to_owned())),
        }
        open = goes_on;
    }
    lines
}

/// What a line runs, one after the other. What is quoted or more than that stays whole.
fn commands(line: &str) -> Vec<String> {
    if line.contains(['\'', '"', '`', '|', '<', '$', '*', '&']) && !only_and(line) {
        return vec![line.to_owned()];
    }
    line.replace("&&", ";").split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Whether a line has nothing special but `&&`, quotes around requirements, and a glob below /var/lib/apt.
fn only_and(line: &str) -> bool {
    let plain = line.replace("&&", "").replace("/var/lib/apt/lists/*", "").replace("/var/cache/apt/*", "");
    let plain = plain.replace(">/dev/null", "").replace("> /dev/null", "").replace("2>&1", "");
    !plain.contains(['`', '|', '$', '*', '&', '<'])
        || plain.contains(['\'', '"']) && !plain.contains(['`', '|', '$', '*', '&'])
}

enum Command {
    /// Of no effect here: an update of indexes, a clean-up.
    Nothing,
    Debian(Vec<String>),
    Pip(Vec<String>),
    Npm(Vec<String>),
    /// A package manager of another distribution.
    Foreign(String),
    /// Something that needs the network.
    Network(String),
    Other,
}

fn understand(command: &str) -> Command {
    let command = command.replace(">/dev/null", "").replace("> /dev/null", "").replace("2>&1", "");
    let mut words: Vec<String> =
        command.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect();
    let is_setting = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    };
    while words.first().is_some_and(|word| word == "sudo" || is_setting(word)) {
        words.remove(0);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let plain = |words: &[&str]| -> Vec<String> {
        words.iter().filter(|word| !word.starts_with('-')).map(|word| (*word).to_owned()).collect()
    };
    match words.as_slice() {
        [] => Command::Nothing,
        ["export", setting, ..] if setting.starts_with("DEBIAN_FRONTEND=") => Command::Nothing,
        ["set", flags] if flags.starts_with('-') => Command::Other,
        ["rm", flags, rest @ ..]
            if flags.starts_with('-')
                && rest.iter().all(|path| path.starts_with("/var/lib/apt") || path.starts_with("/var/cache/apt")) =>
        {
            Command::Nothing
        }
        ["apt-get" | "apt", rest @ ..] => match plain(rest).split_first() {
            Some((action, _)) if matches!(action.as_str(), "update" | "clean" | "autoclean" | "autoremove") => {
                Command::Nothing
            }
            Some((action, names))
                if action == "install" && !names.is_empty() && names.iter().all(|name| is_package(name)) =>
            {
                Command::Debian(names.to_vec())
            }
            _ => Command::Network(words[0].to_owned()),
        },
        ["pip" | "pip3", "install", rest @ ..] | ["python" | "python3", "-m", "pip", "install", rest @ ..] => {
            let takes_value =
                ["-r", "--requirement", "-e", "--index-url", "-i", "--extra-index-url", "-c", "-f", "-t", "--target"];
            let names = plain(rest);
            let good = !rest.iter().any(|word| takes_value.contains(word));
            match good && !names.is_empty() && names.iter().all(|name| crate::python::resolver::checked(name).is_ok()) {
                // pip itself is not needed to have what it installs.
                true => Command::Pip(
                    names.into_iter().filter(|name| !matches!(name.as_str(), "pip" | "setuptools" | "wheel")).collect(),
                ),
                false => Command::Network(words[0].to_owned()),
            }
        }
        ["npm", "install" | "i" | "add", rest @ ..] if rest.iter().any(|word| matches!(*word, "-g" | "--global")) => {
            Command::Npm(plain(rest))
        }
        ["yum" | "dnf" | "microdnf" | "apk" | "zypper" | "pacman" | "brew" | "amazon-linux-extras", ..] => {
            Command::Foreign(words[0].to_owned())
        }
        [
            "curl" | "wget" | "git" | "npm" | "yarn" | "pnpm" | "npx" | "go" | "cargo" | "mvn" | "gradle"
            | "add-apt-repository" | "pip" | "pip3",
            ..,
        ] if !words.contains(&"--version") => Command::Network(words[0].to_owned()),
        _ => Command::Other,
    }
}

/// `name`, `name=version`: what apt-get takes and is a name.
fn is_package(text: &str) -> bool {
    let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
    crate::debian::index::is_name(name)
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
}
