//! Writes a [`Description`] as a runtime expression, in the form that `nixfmt` gives.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::hook::{self, Parted};
use super::{Description, Script};

/// An expression, and what could not be turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    /// In the Nix language.
    pub text: String,
    /// What is otherwise than in Joblet, and what to do about it; each with the line of the `runtime.yaml` where it is about one.
    pub notes: Vec<(Option<usize>, String)>,
}

/// The expression that does what a description says.
pub fn expression(description: &Description) -> Turned {
    let mut notes: Vec<(Option<usize>, String)> = Vec::new();
    let mut hook = |script: &Option<Script>| -> Parted {
        let Some(script) = script else { return Parted::default() };
        let parted = hook::part(&script.text);
        notes.extend(parted.notes.iter().map(|(line, why)| (Some(script.line + line - 1), why.clone())));
        parted
    };
    let (before, after) = (hook(&description.pre_install), hook(&description.post_install));
    let unique = |lists: [&[String]; 3]| {
        let mut seen = BTreeSet::new();
        lists.concat().into_iter().filter(|name| seen.insert(name.clone())).collect::<Vec<String>>()
    };
    let packages = unique([&description.packages, &before.debian, &after.debian]);
    let pip = unique([&description.pip, &before.pip, &after.pip]);
    let npm = unique([&description.npm, &before.npm, &after.npm]);
    for option in &description.pip_options {
        notes.push((None, format!("`pip_options`: `{option}` is not followed: the index is this machine's, and wheels are chosen for the root")));
    }
    if !npm.is_empty() {
        let names = npm.join(" ");
        let why = format!(
            "`npm`: {names} need a lock: `npm install --package-lock-only {names}`, and (forge.node {{ lock = ./package-lock.json; }})"
        );
        notes.push((None, why));
    }
    if !description.libraries.is_empty() {
        let patterns = description.libraries.join(" ");
        notes.push((
            None,
            format!(
                "`libraries`: {patterns}: packages bring the libraries that they need; nothing of the host is copied"
            ),
        ));
    }
    let mut text = String::from("{ forge }:\nforge.formation {\n");
    let _ = writeln!(text, "  name = {};\n  version = {};", string(&description.name), string(&description.version));
    if !description.description.is_empty() {
        let _ = writeln!(text, "  description = {};", string(&description.description));
    }
    text.push_str("  layers = [\n    (forge.debian {\n");
    let _ = writeln!(text, "      suite = {};", string(description.suite));
    let _ = writeln!(text, "      packages = {};\n    }})", list(&packages, 6));
    text.push_str(&run("pre-install", &before.rest, &description.hook_timeout));
    if !pip.is_empty() {
        let _ = writeln!(text, "    (forge.python {{\n      requirements = {};\n    }})", list(&pip, 6));
    }
    text.push_str(&run("post-install", &after.rest, &description.hook_timeout));
    text.push_str("  ];\n");
    let environment: Vec<(String, String)> = environment(description);
    attributes(&mut text, "environment", &environment);
    let labels: Vec<(String, String)> =
        description.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    attributes(&mut text, "labels", &labels);
    let (command, test) = commands(description);
    let _ = writeln!(text, "  command = {};", list(&command, 2));
    let _ = writeln!(text, "  test = {};\n}}", list(&test, 2));
    Turned { text, notes }
}

/// Variables; `PATH_PREPEND` is put before the path that every formation has.
fn environment(description: &Description) -> Vec<(String, String)> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut found = Vec::new();
    for (name, value) in &description.environment {
        match name.as_str() {
            "PATH_PREPEND" if !description.environment.contains_key("PATH") => {
                found.push(("PATH".to_owned(), format!("{value}:{PATH}")));
            }
            "PATH_PREPEND" => {}
            "PATH" => {
                let before = description.environment.get("PATH_PREPEND").map(|before| format!("{before}:"));
                let value = value.replace("${PATH}", PATH).replace("$PATH", PATH);
                found.push(("PATH".to_owned(), before.unwrap_or_default() + &value));
            }
            _ => found.push((name.clone(), value.clone())),
        }
    }
    found
}

/// What is run where nothing else is said, and what shows that it works.
fn commands(description: &Description) -> (Vec<String>, Vec<String>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match description.language.as_str() {
        "python" => (words(&["python3"]), words(&["python3", "-c", "import sys; print(sys.version)"])),
        "java" => (words(&["java", "-version"]), words(&["java", "-version"])),
        "node" => (words(&["node"]), words(&["node", "--version"])),
        "go" => (words(&["go", "version"]), words(&["go", "version"])),
        _ => (words(&["cargo", "--version"]), words(&["rustc", "--version"])),
    }
}

fn run(name: &str, script: &str, timeout: &str) -> String {
    if script.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "    (forge.run {{\n      name = \"{name}\";\n      timeout = {};\n      script = ''\n",
        string(timeout)
    );
    // What all lines begin with would be taken for the expression's own indentation.
    let is_indented = script.split('\n').all(|line| line.trim_matches(' ').is_empty() || line.starts_with(' '));
    let mut lines = script.split_terminator('\n').map(indented).collect::<Vec<String>>();
    if is_indented && let Some(first) = lines.iter_mut().find(|line| !line.trim_matches(' ').is_empty()) {
        first.replace_range(..1, "''\\ ");
    }
    for line in lines {
        let _ = writeln!(text, "{}", if line.is_empty() { String::new() } else { format!("        {line}") });
    }
    text + "      '';\n    })\n"
}

/// A line as an indented string writes it: its own quotes, dollars and carriage returns are escaped.
fn indented(line: &str) -> String {
    let mut written = String::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('\'', Some('\'')) => {
                letters.next();
                written.push_str("'''");
            }
            // With the escape of what follows it, it would be another.
            ('\'', Some('$' | '\r')) => written.push_str("''\\'"),
            ('$', Some('{')) => written.push_str("''$"),
            ('\r', _) => written.push_str("''\\r"),
            _ => written.push(letter),
        }
    }
    written
}

fn attributes(text: &mut String, name: &str, pairs: &[(String, String)]) {
    if pairs.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {name} = {{");
    for (name, value) in pairs {
        let plain = name.bytes().enumerate().all(|(at, byte)| {
            byte.is_ascii_alphabetic() || byte == b'_' || at > 0 && (byte.is_ascii_digit() || byte == b'-')
        });
        let name = if plain && !name.is_empty() { name.clone() } else { string(name) };
        let _ = writeln!(text, "    {name} = {};", string(value));
    }
    text.push_str("  };\n");
}

/// A list, an entry a line if there are several.
fn list(items: &[String], indent: usize) -> String {
    let pad = " ".repeat(indent);
    match items {
        [] => "[ ]".to_owned(),
        [item] => format!("[ {} ]", string(item)),
        items => {
            let lines: String = items.iter().map(|item| format!("{pad}  {}\n", string(item))).collect();
            format!("[\n{lines}{pad}]")
        }
    }
}

/// A string as the language writes it.
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter => quoted.push(letter),
        }
    }
    quoted.replace("${", "\\${") + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_becomes_an_expression() {
        let text = "schema_version: \"1.0\"\nname: python-3.11-ml\nversion: 1.3.1\ndescription: \"Python with ${x} \\\"ML\\\"\"\n\
                    base:\n  language: python\n  version: \"3.11\"\npip:\n  - numpy>=1.24\n  - scikit-learn\npip_options: --no-cache-dir --pre\n\
                    libraries:\n  - libgomp*\nenvironment:\n  PYTHONUNBUFFERED: 1\n  PATH_PREPEND: /opt/bin\nrequirements:\n  min_memory: 512MB\n\
                    hooks:\n  timeout: 5m\n  pre_install: |\n    apt-get update\n    apt-get install -y libgomp1\n  post_install: |\n    mkdir -p /data\n    \
                    echo ${HOME} > '/data/x'\n";
        let (description, findings) = super::super::read(text).unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        let turned = expression(&description);
        insta::assert_snapshot!(turned.text, @r#"
        { forge }:
        forge.formation {
          name = "python-3.11-ml";
          version = "1.3.1";
          description = "Python with \${x} \"ML\"";
          layers = [
            (forge.debian {
              suite = "bookworm";
              packages = [
                "python3"
                "libgomp1"
              ];
            })
            (forge.python {
              requirements = [
                "numpy>=1.24"
                "scikit-learn"
              ];
            })
            (forge.run {
              name = "post-install";
              timeout = "5m";
              script = ''
                mkdir -p /data
                echo ''${HOME} > '/data/x'
              '';
            })
          ];
          environment = {
            PATH = "/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            PYTHONUNBUFFERED = "1";
          };
          labels = {
            "forge.memory.minimum" = "512MB";
          };
          command = [ "python3" ];
          test = [
            "python3"
            "-c"
            "import sys; print(sys.version)"
          ];
        }
        "#);
        let notes: Vec<String> = turned.notes.iter().map(|(_, why)| why.clone()).collect();
        insta::assert_snapshot!(notes.join("\n"), @"
        `pip_options`: `--pre` is not followed: the index is this machine's, and wheels are chosen for the root
        `libraries`: libgomp*: packages bring the libraries that they need; nothing of the host is copied
        ");
    }
}
