//! From YAML to a [`Description`]: everything that is wrong is found at once.

use std::collections::BTreeMap;

use super::yaml::{Kind, Node, parse};
use super::{Description, Finding, HARMLESS_PIP_OPTIONS, Script, languages};

/// Every key that may stand at the top, and those below some of them.
const KEYS: &[(&str, &[&str])] = &[
    ("schema_version", &[]),
    ("name", &[]),
    ("version", &[]),
    ("description", &[]),
    ("base", &["language", "version"]),
    ("language", &[]),
    ("language_version", &[]),
    ("packages", &[]),
    ("pip", &[]),
    ("pip_options", &[]),
    ("npm", &[]),
    ("libraries", &[]),
    ("environment", &[]),
    ("requirements", &["gpu", "cuda_version", "min_memory", "recommended_memory", "architectures"]),
    ("platforms", &[]),
    ("hooks", &["pre_install", "post_install", "timeout"]),
    ("mounts", &[]),
    ("build_info", &[]),
    ("original_yaml", &[]),
];
const PLATFORMS: &[&str] = &["ubuntu-amd64", "ubuntu-arm64", "rhel-amd64", "rhel-arm64", "amzn-amd64", "amzn-arm64"];
/// How long a hook may take where nothing is said.
const TIMEOUT: &str = "20m";

/// Reads a `runtime.yaml`. Beside the description come warnings; where there is none, everything that is wrong.
pub fn read(text: &str) -> Result<(Description, Vec<Finding>), Vec<Finding>> {
    let root = parse(text).map_err(|finding| vec![finding])?;
    let mut reader = Reader { findings: Vec::new(), root: root.clone() };
    let description = reader.description(&root);
    reader.findings.sort_by_key(|finding| finding.start);
    match reader.findings.iter().any(|finding| !finding.warning) {
        true => Err(reader.findings),
        false => Ok((description, reader.findings)),
    }
}

struct Reader {
    findings: Vec<Finding>,
    root: Node,
}

/// The entries of a mapping by key.
type Entries = BTreeMap<String, Node>;

impl Reader {
    fn wrong(&mut self, node: &Node, message: impl Into<String>) -> &mut Finding {
        let finding = Finding { message: message.into(), start: node.start, end: node.end, hint: None, warning: false };
        self.findings.push(finding);
        self.findings.last_mut().expect("one was added")
    }

    /// A mapping's entries; keys that nobody knows are warned of, and twice the same is wrong.
    fn entries(&mut self, node: &Node, what: &str, known: Option<&[&str]>) -> Entries {
        let Kind::Map(entries) = &node.kind else {
            if !node.is_null() {
                self.wrong(node, format!("{what} is a mapping of names to values, not {}", node.word()));
            }
            return Entries::new();
        };
        let mut found = Entries::new();
        for (key, value) in entries {
            let Kind::Scalar { text, .. } = &key.kind else {
                self.wrong(key, format!("a key of {what} is a text"));
                continue;
            };
            if let Some(known) = known.filter(|known| !known.contains(&text.as_str())) {
                let near = known.iter().find(|known| close(known, text));
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                let finding = self.wrong(key, format!("{what} has no `{text}`; it is passed over"));
                (finding.warning, finding.hint) = (true, hint);
            }
            if found.insert(text.clone(), value.clone()).is_some() {
                self.wrong(key, format!("`{text}` is there twice"));
            }
        }
        found
    }

    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.kind {
            _ if node.is_null() => None,
            Kind::Scalar { text, .. } => Some(text.clone()),
            _ => {
                self.wrong(node, format!("`{what}` is a text, not {}", node.word()));
                None
            }
        }
    }

    fn texts(&mut self, entries: &Entries, what: &str) -> Vec<String> {
        let Some(node) = entries.get(what).filter(|node| !node.is_null()) else { return Vec::new() };
        let Kind::List(items) = node.kind.clone() else {
            self.wrong(node, format!("`{what}` is a list, not {}", node.word()));
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| {
                if item.is_null() {
                    self.wrong(item, format!("`{what}` has an empty entry"));
                }
                self.text(item, what)
            })
            .collect()
    }

    fn needed(&mut self, entries: &Entries, what: &str, example: &str) -> Option<(Node, String)> {
        match entries.get(what).filter(|node| !node.is_null()) {
            Some(node) => Some((node.clone(), self.text(node, what)?)),
            None => {
                let root = Node { end: self.root.start, ..self.root.clone() };
                self.wrong(&root, format!("`{what}` is missing")).hint =
                    Some(format!("for instance `{what}: {example}`"));
                None
            }
        }
    }

    fn description(&mut self, root: &Node) -> Description {
        let known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        let top = self.entries(root, "the description", Some(&known));
        let mut description = Description { hook_timeout: TIMEOUT.to_owned(), ..Description::default() };
        if !matches!(root.kind, Kind::Map(_)) {
            return description;
        }
        if let Some(node) = top.get("schema_version")
            && let Some(text) = self.text(node, "schema_version")
            && text != "1.0"
        {
            self.wrong(node, format!("`schema_version` is `{text}`; \"1.0\" is understood"));
        }
        if let Some((node, name)) = self.needed(&top, "name", "python-3.11-ml") {
            if !is_name(&name) {
                let message = "`name` is lower-case letters, digits, `.` and `-`, begins with a letter or digit, and has 64 at most";
                self.wrong(&node, message);
            }
            description.name = name;
        }
        if let Some((node, version)) = self.needed(&top, "version", "1.0.0") {
            if !is_version(&version) {
                self.wrong(&node, "`version` is three numbers, for instance 1.3.1");
            }
            description.version = version;
        }
        if let Some(node) = top.get("description") {
            description.description = self.text(node, "description").unwrap_or_default();
            let length = description.description.chars().count();
            if length > 256 {
                self.wrong(node, format!("`description` has {length} characters, and 256 are the most"));
            }
        }
        self.language(&top, &mut description);
        self.packages(&top, &mut description);
        self.surroundings(&top, &mut description);
        self.hooks(&top, &mut description);
        description
    }

    fn language(&mut self, top: &Entries, description: &mut Description) {
        // An installed runtime's own file has these at the top.
        let (base, names) = match (top.get("base"), top.get("language")) {
            (None, Some(_)) => (top.clone(), ["language", "language_version"]),
            (Some(base), _) => (self.entries(base, "`base`", Some(&["language", "version"])), ["language", "version"]),
            (None, None) => {
                let root = Node { end: self.root.start, ..self.root.clone() };
                let finding = self.wrong(&root, "`base` is missing");
                finding.hint = Some("for instance `base: { language: python, version: \"3.11\" }`".to_owned());
                return;
            }
        };
        let language = self.needed(&base, names[0], "python");
        let version = self.needed(&base, names[1], "\"3.11\"");
        let Some((place, language)) = language else { return };
        if !languages::names().contains(&language.as_str()) {
            self.wrong(&place, format!("`{language}` is none of the languages {}", languages::names().join(", ")));
            return;
        }
        let Some((version_place, version)) = version else { return };
        match languages::find(&language, &version) {
            Some(known) => {
                description.language_version = known.version.to_owned();
                description.suite = known.suite;
                description.packages = known.packages.iter().map(|name| (*name).to_owned()).collect();
            }
            None => {
                let versions = languages::versions(&language).join(", ");
                self.wrong(&version_place, format!("no Debian suite has {language} {version}")).hint =
                    Some(format!("there are {versions}"));
            }
        }
        description.language = language;
    }

    fn packages(&mut self, top: &Entries, description: &mut Description) {
        description.pip = self.texts(top, "pip");
        if description.language == "python" {
            description.pip.extend(self.texts(top, "packages"));
        }
        if let Some(node) = top.get("pip")
            && let Kind::List(items) = &node.kind
        {
            for item in items {
                if let Kind::Scalar { text, .. } = &item.kind
                    && let Err(crate::Error::Invalid { reason, .. }) = crate::python::resolver::checked(text)
                {
                    self.wrong(item, format!("`{text}` is no requirement: {reason}"));
                }
            }
        }
        for (list, wanted) in [(&description.pip, "python"), (&self_npm(top), "node")] {
            if !list.is_empty() && !description.language.is_empty() && description.language != wanted {
                let what = if wanted == "python" { "pip" } else { "npm" };
                if let Some(node) = top.get(what).cloned() {
                    self.wrong(&node, format!("`{what}` needs `language: {wanted}`"));
                }
            }
        }
        description.npm = self.texts(top, "npm");
        description.libraries = self.texts(top, "libraries");
        let options = match top.get("pip_options") {
            Some(Node { kind: Kind::List(_), .. }) => self.texts(top, "pip_options"),
            Some(node) => {
                self.text(node, "pip_options").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
            }
            None => Vec::new(),
        };
        description.pip_options =
            options.into_iter().filter(|option| !HARMLESS_PIP_OPTIONS.contains(&option.as_str())).collect();
    }

    fn surroundings(&mut self, top: &Entries, description: &mut Description) {
        if let Some(node) = top.get("environment") {
            for (name, value) in self.entries(node, "`environment`", None) {
                if name.is_empty() || name.contains(['=', '\0']) {
                    self.wrong(&value, format!("`{name}` is no name of a variable"));
                    continue;
                }
                let value = if value.is_null() { Some(String::new()) } else { self.text(&value, &name) };
                description.environment.extend(value.map(|value| (name, value)));
            }
        }
        if let Some(node) = top.get("requirements") {
            let known = KEYS.iter().find(|(key, _)| *key == "requirements").map(|(_, below)| *below);
            for (name, value) in self.entries(node, "`requirements`", known) {
                self.requirement(&name, &value, description);
            }
        }
        let platforms = top.get("platforms").cloned();
        let named = self.texts(top, "platforms");
        if let Some(Node { kind: Kind::List(items), .. }) = &platforms {
            for item in items {
                if let Kind::Scalar { text, .. } = &item.kind
                    && !PLATFORMS.contains(&text.as_str())
                {
                    self.wrong(item, format!("`{text}` is none of the platforms {}", PLATFORMS.join(", ")));
                }
            }
        }
        if !named.is_empty() {
            description.labels.insert("joblet.platforms".to_owned(), named.join(" "));
        }
    }

    fn requirement(&mut self, name: &str, value: &Node, description: &mut Description) {
        match name {
            "gpu" => match self.text(value, name).as_deref() {
                Some("true" | "True" | "yes") => {
                    _ = description.labels.insert("forge.gpu".to_owned(), "true".to_owned())
                }
                Some("false" | "False" | "no") | None => {}
                Some(other) => {
                    let message = format!("`gpu` is true or false, not `{other}`");
                    self.wrong(value, message);
                }
            },
            "cuda_version" => {
                let version = self.text(value, name);
                description.labels.extend(version.map(|version| ("forge.cuda".to_owned(), version)));
            }
            "min_memory" | "recommended_memory" => {
                let Some(text) = self.text(value, name) else { return };
                if !is_size(&text) {
                    self.wrong(value, format!("`{name}` is a size such as 512MB or 2GB"));
                }
                let label = if name == "min_memory" { "forge.memory.minimum" } else { "forge.memory.recommended" };
                description.labels.insert(label.to_owned(), text);
            }
            "architectures" => {
                let entries = BTreeMap::from([(name.to_owned(), value.clone())]);
                let words = self.texts(&entries, name);
                if !words.is_empty() {
                    description.labels.insert("forge.architectures".to_owned(), words.join(" "));
                }
            }
            _ => {}
        }
    }

    fn hooks(&mut self, top: &Entries, description: &mut Description) {
        let Some(node) = top.get("hooks") else { return };
        let hooks = self.entries(node, "`hooks`", Some(&["pre_install", "post_install", "timeout"]));
        let mut script = |name: &str| {
            let node = hooks.get(name).filter(|node| !node.is_null())?;
            // The text of a block begins on the line after its sign.
            let text = self.text(node, name)?;
            Some(Script { text, line: node.line })
        };
        description.pre_install = script("pre_install");
        description.post_install = script("post_install");
        if let Some(node) = hooks.get("timeout")
            && let Some(text) = self.text(node, "timeout")
        {
            let digits = text.trim_end_matches(['s', 'm', 'h']);
            let good = !digits.is_empty()
                && digits.len() + 1 == text.len()
                && digits.len() < 10
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && !digits.trim_start_matches('0').is_empty();
            if good {
                description.hook_timeout = text;
            } else {
                self.wrong(node, "`timeout` is a time such as 90s, 20m or 1h");
            }
        }
    }
}

/// The npm packages, without judging them.
fn self_npm(top: &Entries) -> Vec<String> {
    match top.get("npm").map(|node| &node.kind) {
        Some(Kind::List(items)) => items.iter().map(|_| String::new()).collect(),
        _ => Vec::new(),
    }
}

fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 64
        && text.bytes().next().is_some_and(good)
        && text.bytes().all(|byte| good(byte) || byte == b'.' || byte == b'-')
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_size(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = text[digits..].trim();
    digits > 0
        && matches!(unit, "" | "B" | "K" | "M" | "G" | "T" | "KB" | "MB" | "GB" | "TB" | "KiB" | "MiB" | "GiB" | "TiB")
}

/// Whether one word may be a slip for another: they differ in one letter, or begin alike.
fn close(known: &str, written: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (known.chars().collect(), written.chars().collect());
    let same = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let back = one[same..].iter().rev().zip(other[same..].iter().rev()).take_while(|(one, other)| one == other).count();
    one.len().abs_diff(other.len()) <= 1 && one.len().max(other.len()) - same - back <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let findings = match read(text) {
            Ok((_, findings)) => findings,
            Err(findings) => findings,
        };
        let line = |finding: &Finding| {
            let line = text[..finding.start.min(text.len())].matches('\n').count() + 1;
            let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{line}{}: {}{hint}\n", if finding.warning { " warning" } else { "" }, finding.message)
        };
        findings.iter().map(line).collect()
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let text = "schema_version: \"2.0\"\nname: -Bad_Name\nversion: 1.3\nbase:\n  language: cobol\n  version: 3\npip: numpy\n\
                    enviroment:\n  A: 1\nplatforms: [ubuntu-amd64, beos]\nrequirements:\n  gpu: maybe\n  min_memory: lots\n\
                    hooks:\n  timeout: 20 minutes\n  pre_instal: echo\n";
        insta::assert_snapshot!(said(text), @r#"
        1: `schema_version` is `2.0`; "1.0" is understood
        2: `name` is lower-case letters, digits, `.` and `-`, begins with a letter or digit, and has 64 at most
        3: `version` is three numbers, for instance 1.3.1
        5: `cobol` is none of the languages python, java, node, go, rust
        7: `pip` is a list, not a text
        8 warning: the description has no `enviroment`; it is passed over (did you mean `environment`?)
        10: `beos` is none of the platforms ubuntu-amd64, ubuntu-arm64, rhel-amd64, rhel-arm64, amzn-amd64, amzn-arm64
        12: `gpu` is true or false, not `maybe`
        13: `min_memory` is a size such as 512MB or 2GB
        15: `timeout` is a time such as 90s, 20m or 1h
        16 warning: `hooks` has no `pre_instal`; it is passed over (did you mean `pre_install`?)
        "#);
        let text = "name: a\nversion: 1.0.0\nbase: { language: cobol, version: [1] }\n";
        insta::assert_snapshot!(said(text), @"
        3: `cobol` is none of the languages python, java, node, go, rust
        3: `version` is a text, not a list
        ");
        insta::assert_snapshot!(said("description: x\nbase:\n  language: python\n  version: 3.12\nname: a\nname: b\n"), @"
        1: `version` is missing (for instance `version: 1.0.0`)
        4: no Debian suite has python 3.12 (there are 3.9, 3.11, 3.13)
        6: `name` is there twice
        ");
    }

    #[test]
    fn hostile_texts_are_errors() {
        let billion = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                       d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e]\n";
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "\t",
            "a: [",
            "- a\n- b",
            "a: b\n---\nc: d",
            "*x",
            "\u{0}",
            billion,
            &deep,
            "? [a]\n: b",
            "name: ä\u{ffff}",
        ] {
            assert!(read(text).is_err(), "{:.20}", text);
        }
    }

    #[test]
    fn an_installed_runtimes_own_file_is_read_too() {
        let text = "name: java\nversion: 1.0.0\nlanguage: java\nlanguage_version: \"17\"\nmounts: []\n";
        let (description, findings) = read(text).unwrap();
        assert_eq!((description.suite, description.packages.len()), ("bookworm", 1));
        assert!(findings.is_empty(), "{findings:?}");
    }
}
