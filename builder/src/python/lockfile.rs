//! Answers lock requests of kind `python-lock`: the files that stand for a lock its user already has.
//!
//! `uv.lock`, `pylock.toml` and a hashed `requirements.txt` say themselves what is installed; markers and extras are judged for the
//! target, and the wheel that fits best is taken. A `pyproject.toml` only says what is wanted, and is resolved like any requirements.

mod compatible;
mod requirements;
mod uv_lock;

use std::collections::BTreeMap;
use std::str::FromStr;

use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder};
use serde_json::Value;
use store::lock::{LockEntry, LockRequest};

use crate::fetch::local_path;
use crate::python::tags::Target;
use crate::python::{index, pylock, requirement, resolver, uv};
use crate::report::{Event, Span};
use crate::resolve::{Resolver, parameter, parameter_or};
use crate::{Builder, Error, Result};

/// `{url, sha256, python, platform, glibc, extras, groups}` → a record per wheel.
pub struct LockFile;

/// What is chosen of a lock file.
pub struct Choice<'a> {
    /// For which Python and system.
    pub target: &'a Target,
    /// The same for markers.
    pub environment: MarkerEnvironment,
    /// Of the project itself.
    pub extras: Vec<String>,
    /// Dependency groups (PEP 735).
    pub groups: Vec<String>,
}

/// One package that a lock file names, with the files that there are of it.
#[derive(Debug, Default)]
pub struct Pinned {
    /// As written.
    pub name: String,
    /// As written.
    pub version: String,
    /// File name, SHA-256, and size where it is known.
    pub files: Vec<(String, String, Option<u64>)>,
}

impl Resolver for LockFile {
    fn kind(&self) -> &'static str {
        "python-lock"
    }

    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
        let url: String = parameter(request, "url")?;
        let [python, platform, glibc] = ["python", "platform", "glibc"].map(|name| parameter::<String>(request, name));
        let target = Target::parse(&python?, &platform?, &glibc?)?;
        let choice = Choice {
            environment: environment(&target)?,
            target: &target,
            extras: parameter_or(request, "extras", Vec::new())?,
            groups: parameter_or(request, "groups", Vec::new())?,
        };
        let path = local_path(&url).ok_or_else(|| bad(&url, "a file of the project is expected"))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
        let actual = store::digest::to_hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        if actual != parameter::<String>(request, "sha256")? {
            return Err(bad(&name, "it changed while it was read"));
        }
        let text = String::from_utf8(bytes).map_err(|_| bad(&name, "it is not UTF-8"))?;
        let _span = Span::start(builder.reporter, "resolve", name.clone(), None);
        let records = if name.ends_with(".txt") {
            records(requirements::pinned(builder, &name, &text, &choice)?, &target)?
        } else {
            let table: toml::Table = toml::from_str(&text).map_err(|error| bad(&name, error.message()))?;
            for open in compatible::check(&name, &table, &choice)? {
                builder.reporter.report(Event::Note(&open));
            }
            if table.contains_key("lock-version") {
                pylock::records(&text, &choice)?
            } else if table.contains_key("project") || table.contains_key("dependency-groups") {
                let wanted = project_requirements(&name, &table, &choice)?;
                if wanted.is_empty() { Vec::new() } else { resolved(builder, &wanted, &choice)? }
            } else if table.contains_key("package") {
                records(uv_lock::pinned(&name, &table, &choice)?, &target)?
            } else {
                return Err(bad(&name, "it is no uv.lock, pylock.toml, pyproject.toml or requirements.txt"));
            }
        };
        let records = crate::python::source::with_build_requirements(builder, records, &choice)?;
        Ok(LockEntry { request: request.clone(), records })
    }
}

pub(super) fn bad(name: &str, reason: impl Into<String>) -> Error {
    Error::Invalid { what: "lock file", name: name.to_owned(), reason: reason.into() }
}

/// What markers see on the target.
pub fn environment(target: &Target) -> Result<MarkerEnvironment> {
    let python = target.python.to_string();
    // The patch level is not known, and hardly any marker asks for it.
    let full = format!("{python}.0");
    let built = MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: target.machine,
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &python,
        sys_platform: "linux",
    };
    MarkerEnvironment::try_from(built).map_err(|error| bad("markers", error.to_string()))
}

impl<'a> Choice<'a> {
    /// Nothing beside the target.
    pub fn of(target: &'a Target) -> Result<Self> {
        Ok(Self { target, environment: environment(target)?, extras: Vec::new(), groups: Vec::new() })
    }

    /// Whether a requirement is one for the target at all.
    pub fn holds_requirement(&self, text: &str) -> bool {
        requirement::parse(text).is_ok_and(|requirement| requirement.marker.evaluate(&self.environment, &[]))
    }

    /// Whether a marker holds, with these extras.
    pub fn holds(&self, name: &str, marker: &str, extras: &[String]) -> Result<bool> {
        let tree = requirement::marker(marker).map_err(|reason| bad(name, format!("marker `{marker}`: {reason}")))?;
        let extras: Vec<ExtraName> = extras.iter().filter_map(|extra| ExtraName::from_str(extra).ok()).collect();
        Ok(tree.evaluate(&self.environment, &extras))
    }
}

/// The requirements of a `pyproject.toml` with the extras and groups that were chosen.
fn project_requirements(name: &str, table: &toml::Table, choice: &Choice<'_>) -> Result<Vec<String>> {
    let project = table.get("project").and_then(toml::Value::as_table);
    let texts = |value: Option<&toml::Value>| -> Result<Vec<String>> {
        let items = match value {
            None => return Ok(Vec::new()),
            Some(value) => value.as_array().ok_or_else(|| bad(name, "dependencies are a list"))?,
        };
        let text =
            |item: &toml::Value| item.as_str().map(str::to_owned).ok_or_else(|| bad(name, "a dependency is a text"));
        items.iter().map(text).collect()
    };
    let mut wanted = texts(project.and_then(|project| project.get("dependencies")))?;
    for extra in &choice.extras {
        let extras = project.and_then(|project| project.get("optional-dependencies")).and_then(toml::Value::as_table);
        let found = extras.and_then(|extras| extras.get(extra));
        wanted.extend(texts(Some(found.ok_or_else(|| bad(name, format!("it has no extra `{extra}`")))?))?);
    }
    let groups = table.get("dependency-groups").and_then(toml::Value::as_table);
    let mut open: Vec<String> = choice.groups.clone();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(group) = open.pop() {
        if !seen.insert(group.clone()) {
            continue;
        }
        let found = groups.and_then(|groups| groups.get(&group)).and_then(toml::Value::as_array);
        for item in found.ok_or_else(|| bad(name, format!("it has no group `{group}`")))? {
            match (item.as_str(), item.get("include-group").and_then(toml::Value::as_str)) {
                (Some(text), _) => wanted.push(text.to_owned()),
                (None, Some(other)) => open.push(other.to_owned()),
                _ => return Err(bad(name, format!("group `{group}` has an entry that is no requirement"))),
            }
        }
    }
    wanted.iter().map(|text| resolver::checked(text)).collect()
}

/// A record for the best file of each package: a wheel that fits, else a source distribution.
pub fn records(packages: Vec<Pinned>, target: &Target) -> Result<Vec<BTreeMap<String, Value>>> {
    let tags = target.tags();
    let record = |package: &Pinned| {
        let name = crate::python::normalise(&package.name);
        let wheels = package.files.iter().filter_map(|file| Some((tags.rank(&file.0)?, file)));
        let best = wheels.min_by(|one, other| (&one.0, &one.1.0).cmp(&(&other.0, &other.1.0))).map(|(_, file)| file);
        let source = || package.files.iter().find(|file| file.0.ends_with(".tar.gz") || file.0.ends_with(".zip"));
        let Some((file, sha256, size)) = best.or_else(source) else {
            let explanation =
                format!("`{name}` has no file for {} with glibc 2.{}", target.machine, target.glibc_minor);
            return Err(Error::Unsolvable { ecosystem: format!("Python {}", target.python), explanation });
        };
        if store::digest::from_hex(sha256).is_none_or(|digest| digest.len() != 32) {
            return Err(bad(file, "it has no SHA-256"));
        }
        let mut record = BTreeMap::from([
            ("name".to_owned(), Value::from(name)),
            ("version".to_owned(), Value::from(package.version.as_str())),
            ("file".to_owned(), Value::from(file.as_str())),
            ("sha256".to_owned(), Value::from(sha256.as_str())),
        ]);
        record.extend(size.map(|size| ("size".to_owned(), Value::from(size))));
        Ok(record)
    };
    packages.iter().map(record).collect()
}

/// Resolves requirements with uv: wheels where there are any.
pub(super) fn resolved(
    builder: &Builder<'_>,
    wanted: &[String],
    choice: &Choice<'_>,
) -> Result<Vec<BTreeMap<String, Value>>> {
    let indexes = index::indexes(builder)?;
    pylock::records(&uv::resolve(builder, &indexes, wanted, choice.target)?, choice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    pub(crate) fn choice(target: &Target, extras: &[&str], groups: &[&str]) -> Choice<'static> {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let target: &'static Target = Box::leak(Box::new(target.clone()));
        Choice { target, environment: environment(target).unwrap(), extras: own(extras), groups: own(groups) }
    }

    fn target() -> Target {
        Target::parse("3.11", "linux/amd64", "2.36").unwrap()
    }

    #[test]
    fn a_uv_lock_is_followed_from_its_project_on() {
        let digest = "ba0efaa9080b619ff2f3459d1d500c57bddea4a6b424b60a91141db6fd2f08bc";
        let text = format!(
            r#"
            version = 1
            requires-python = ">=3.11"
            [[package]]
            name = "app"
            version = "0.1.0"
            source = {{ virtual = "." }}
            dependencies = [{{ name = "flask", extra = ["async"] }}, {{ name = "colorama", marker = "sys_platform == 'win32'" }}]
            [package.optional-dependencies]
            extra = [{{ name = "more" }}]
            [package.dev-dependencies]
            dev = [{{ name = "pytest" }}]
            [[package]]
            name = "flask"
            version = "3.0.0"
            source = {{ registry = "https://host/simple" }}
            dependencies = [{{ name = "click" }}]
            wheels = [{{ url = "https://host/flask-3.0.0-py3-none-any.whl", hash = "sha256:{digest}", size = 5 }}]
            [package.optional-dependencies]
            async = [{{ name = "asgiref" }}]
            "#
        );
        let mut text = text;
        for name in ["click", "asgiref", "more", "pytest", "colorama"] {
            text += &format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0\"\nsource = {{ registry = \"https://host/simple\" }}\n\
                 sdist = {{ url = \"https://host/{name}-1.0.tar.gz\", hash = \"sha256:{digest}\" }}\n"
            );
        }
        let table: toml::Table = toml::from_str(&text).unwrap();
        let names = |extras: &[&str], groups: &[&str]| -> Vec<String> {
            let pinned = uv_lock::pinned("uv.lock", &table, &choice(&target(), extras, groups)).unwrap();
            let records = records(pinned, &target()).unwrap();
            records.iter().map(|record| record["file"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&[], &[]), ["asgiref-1.0.tar.gz", "click-1.0.tar.gz", "flask-3.0.0-py3-none-any.whl"]);
        assert_eq!(names(&["extra"], &["dev"]).len(), 5);
        let missing = uv_lock::pinned("uv.lock", &table, &choice(&target(), &["none"], &[]));
        assert!(matches!(missing, Err(Error::Invalid { .. })));
    }

    #[test]
    fn a_project_says_what_it_wants() {
        let text = "[project]\nname = \"x\"\ndependencies = [\"flask>=3\"]\n[project.optional-dependencies]\na = [\"more\"]\n\
                    [dependency-groups]\ndev = [\"pytest\", { include-group = \"lint\" }]\nlint = [\"ruff\", { include-group = \"dev\" }]\n";
        let table: toml::Table = toml::from_str(text).unwrap();
        let wanted =
            |extras: &[&str], groups: &[&str]| project_requirements("p", &table, &choice(&target(), extras, groups));
        assert_eq!(wanted(&[], &[]).unwrap(), ["flask>=3"]);
        assert_eq!(wanted(&["a"], &["dev"]).unwrap(), ["flask>=3", "more", "pytest", "ruff"]);
        assert!(wanted(&["b"], &[]).is_err() && wanted(&[], &["b"]).is_err());
        let table: toml::Table = toml::from_str("[project]\ndependencies = [\"a @ file:///x\"]").unwrap();
        assert!(project_requirements("p", &table, &choice(&target(), &[], &[])).is_err());
    }

    #[test]
    fn hashed_requirements_are_read() {
        let text = "# a comment\n-i https://host/simple\nflask[async]==3.0.0 ; python_version >= '3.8' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n\
                    colorama==1 ; sys_platform == 'win32' --hash=sha256:cc\nclick==8.1.7 --hash=sha256:dd # why\n";
        let read = requirements::read("r.txt", text, &choice(&target(), &[], &[])).unwrap();
        let short: Vec<_> =
            read.iter().map(|line| format!("{} {} {}", line.name, line.version, line.hashes.join(","))).collect();
        assert_eq!(short, ["flask 3.0.0 aa,bb", "click 8.1.7 dd"]);
        for bad in [
            "flask>=3 --hash=sha256:aa",
            "flask==3",
            "-r other.txt",
            "-e .",
            "./x.whl --hash=sha256:aa",
            "flask==3 --hash=md5:aa",
        ] {
            assert!(requirements::read("r.txt", bad, &choice(&target(), &[], &[])).is_err(), "{bad}");
        }
    }

    /// What the resolver answers for Python 3.11 where nobody can be asked, and what it notes.
    fn resolved_alone(file: &str, text: &str) -> (Result<LockEntry>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        std::fs::write(&path, text).unwrap();
        let sha256 = store::digest::to_hex(&<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()));
        let parameters = [
            ("url", format!("file:{}", path.display())),
            ("sha256", sha256),
            ("python", "3.11".to_owned()),
            ("platform", "linux/amd64".to_owned()),
            ("glibc", "2.36".to_owned()),
        ];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), Value::from(value)));
        let request = LockRequest { kind: "python-lock".to_owned(), parameters: BTreeMap::from(parameters) };
        let world = World::new();
        let answer = LockFile.resolve(&world.builder(), &request);
        (answer, world.notes())
    }

    #[test]
    fn a_file_for_another_python_or_system_is_refused_and_a_doubtful_one_is_said() {
        let files = [
            (
                "uv.lock",
                "version = 1\nrequires-python = \"WANTED\"\n[[package]]\nname = \"x\"\nsource = { virtual = \".\" }\n",
            ),
            ("pyproject.toml", "[project]\nname = \"x\"\nrequires-python = \"WANTED\"\n"),
            ("pylock.toml", "lock-version = \"1.0\"\nrequires-python = \"WANTED\"\n"),
        ];
        for (file, text) in files {
            let of = |wanted: &str| text.replace("WANTED", wanted);
            let (answer, _) = resolved_alone(file, &of(">=3.13"));
            assert!(matches!(answer, Err(Error::OtherPython { .. })), "{file}: {answer:?}");
            let (answer, notes) = resolved_alone(file, &of(">=3.11"));
            assert!(answer.unwrap().records.is_empty() && notes.is_empty(), "{file}: {notes:?}");
            let (answer, notes) = resolved_alone(file, &of(">=3.11.9"));
            assert!(answer.is_ok() && notes.len() == 1 && notes[0].contains(file), "{file}: {notes:?}");
        }
        let windows = "lock-version = \"1.0\"\nenvironments = [\"sys_platform == 'win32'\"]\n";
        assert!(matches!(resolved_alone("pylock.toml", windows).0, Err(Error::OtherEnvironment { .. })));
        let dynamic = "[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\n";
        assert!(matches!(resolved_alone("pyproject.toml", dynamic).0, Err(Error::Dynamic { .. })));
    }
}
