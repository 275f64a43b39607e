//! `uv`: the resolver, fetched as the wheel that is pinned here, and run in the tool root.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use executor::{Bind, Network};
use store::DeltaId;
use store::digest::StepKey;

use crate::draft::Draft;
use crate::fetch::{Wanted, redact};
use crate::python::archive::Archive;
use crate::python::index::Indexes;
use crate::python::near::near;
use crate::python::tags::Target;
use crate::python::tool;
use crate::report::Event;
use crate::step::{Command, run_tool_and_hear};
use crate::{Builder, Error, Result, remembered};

/// The version of uv that resolves. Another one may resolve the same requirements otherwise, so it is raised on purpose:
/// file names and SHA-256 digests are those that any Python index lists for the project `uv`.
const VERSION: &str = "0.13.8";
const WHEELS: &[(&str, &str, &str)] = &[
    (
        "x86_64",
        "uv-0.13.8-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
    ),
    (
        "aarch64",
        "uv-0.13.8-py3-none-manylinux_2_28_aarch64.whl",
        "5337c30bb893b4f9ce0ceb921ba2da0d13f649da644f40ad3bef84083bef0203",
    ),
];

/// Where the requirements are shown to uv.
const REQUIREMENTS: &str = "/run/forge/requirements.in";

/// Resolves requirements (checked already) to the text of a `pylock.toml`.
///
/// First with wheels alone; where something has none that fits, its source distribution may do. To know what that needs uv may
/// have to run its build, here in the tool root.
pub fn resolve(builder: &Builder<'_>, indexes: &Indexes, requirements: &[String], target: &Target) -> Result<String> {
    match resolve_with(builder, indexes, requirements, target, true) {
        Err(Error::Unsolvable { explanation, .. }) if explanation.contains(NO_WHEEL) => {
            resolve_with(builder, indexes, requirements, target, false)
        }
        answer => answer,
    }
}

/// In an explanation: that there would be a source distribution.
const NO_WHEEL: &str = "only as source distribution";

fn resolve_with(
    builder: &Builder<'_>,
    indexes: &Indexes,
    requirements: &[String],
    target: &Target,
    wheels_only: bool,
) -> Result<String> {
    let layers = [tool::root(builder)?, program(builder)?];
    let scratch = builder.store.scratch()?;
    let file = scratch.path().join("requirements.in");
    std::fs::write(&file, requirements.join("\n") + "\n").map_err(Error::file("write", &file))?;

    let (mut binds, mut environment) = tool::network_of_host(builder);
    binds.push(Bind { source: file, target: PathBuf::from(REQUIREMENTS), read_only: true });
    // Addresses may hold passwords, and everybody on the machine can read the arguments of a process.
    let mut set = |name: &str, value: &str| _ = environment.insert(name.into(), value.into());
    set("UV_DEFAULT_INDEX", indexes.default.as_deref().unwrap_or_default());
    if !indexes.extra.is_empty() {
        set("UV_INDEX", &indexes.extra.join(" "));
    }
    set("UV_NO_CONFIG", "1");
    set("UV_CACHE_DIR", "/tmp/uv");
    set("UV_PYTHON_DOWNLOADS", "never");
    // Each costs seconds, and whoever waits can ask again.
    set("UV_HTTP_RETRIES", "1");
    let python = target.python.to_string();
    let platform = target.uv_platform();
    let mut words = vec![
        "/usr/local/bin/uv",
        "pip",
        "compile",
        REQUIREMENTS,
        "--python-version",
        &python,
        "--python-platform",
        &platform,
        "--format",
        "pylock.toml",
        "--no-header",
        "--no-annotate",
        "--color",
        "never",
    ];
    if wheels_only {
        words.extend(["--only-binary", ":all:"]);
    }
    let command = Command { binds, environment, network: Network::Host, ..Command::new(&layers, words) };
    match run_tool_and_hear(builder, "uv", &command) {
        Ok((answer, said)) => {
            for doubt in doubts(&said) {
                builder.reporter.report(Event::Note(&tool::without_addresses(&doubt, scratch.path())));
            }
            Ok(String::from_utf8_lossy(&answer).into_owned())
        }
        Err(Error::Step { ending, log, .. }) if ending.starts_with("exit status") => {
            Err(failure(&log, indexes, target, scratch.path()))
        }
        Err(error) => Err(error),
    }
}

/// uv as a layer.
fn program(builder: &Builder<'_>) -> Result<DeltaId> {
    let found = WHEELS.iter().find(|(machine, _, _)| *machine == std::env::consts::ARCH);
    let (_, file, digest) = found.ok_or_else(|| Error::Invalid {
        what: "platform",
        name: std::env::consts::ARCH.to_owned(),
        reason: "locking Python packages works on x86_64 and aarch64".to_owned(),
    })?;
    let key = StepKey::of(format!("uv of {digest}").as_bytes());
    remembered::layer(builder, &key, || {
        let sha256 = store::digest::from_hex(digest).and_then(|bytes| bytes.try_into().ok());
        let url = format!("python:uv/{file}");
        let (blob, _) = builder.fetcher.fetch(builder, &Wanted { url: &url, sha256, size: None })?;
        let mut archive = Archive::open(BufReader::new(builder.store.open_blob(blob)?), file)?;
        let inside = format!("uv-{VERSION}.data/scripts/uv");
        let bytes = archive.bytes(&inside)?.ok_or_else(|| archive.bad(format!("it has no `{inside}`")))?;
        let mut draft = Draft::passing();
        draft.write(builder.store, "usr/local/bin/uv", 0o755, &bytes).map_err(|error| error.about("wheel", file))?;
        Ok(draft.delta(builder.store)?)
    })
}

/// Of what uv warns of, that which says that a wish is not met as it was meant: an extra that is not there, a release that was withdrawn.
fn doubts(said: &str) -> Vec<String> {
    let warnings = said.lines().filter_map(|line| line.trim().strip_prefix("warning: "));
    let is_of_a_wish = |line: &&str| line.contains(" does not have an extra named ") || line.contains(" is yanked");
    let lower = |line: &str| line.strip_prefix("The ").map_or_else(|| line.to_owned(), |rest| format!("the {rest}"));
    warnings.filter(is_of_a_wish).map(lower).collect()
}

/// What uv's words mean.
fn failure(log: &str, indexes: &Indexes, target: &Target, scratch: &Path) -> Error {
    let ecosystem = format!("Python {}", target.python);
    if let Some(name) = between(log, "Because ", " was not found in the package registry") {
        return Error::UnknownPackage {
            ecosystem: "the Python index".to_owned(),
            name: name.to_owned(),
            near: near(name),
        };
    }
    if log.contains("No solution found") {
        let mut explanation = words(log, scratch);
        if let Some(name) = between(log, "Because all versions of ", " have no usable wheels") {
            explanation = format!("`{name}` comes {NO_WHEEL} that could be built\n{explanation}");
        } else if let Some(name) = between(log, "Wheels are required for `", "`") {
            explanation = format!("versions of `{name}` come {NO_WHEEL} that could be built\n{explanation}");
        }
        return Error::Unsolvable { ecosystem, explanation };
    }
    let reason = words(log, scratch);
    if ["Failed to fetch", "error sending request", "dns error", "Request failed", "HTTP status"]
        .iter()
        .any(|sign| log.contains(sign))
    {
        let last = reason.lines().last().unwrap_or("no answer").to_owned();
        let asked = indexes.all().find(|index| log.contains(host(index))).or(indexes.default.as_deref());
        let asked = asked.map(redact).unwrap_or_default();
        return Error::Fetch { what: "Python index".to_owned(), tried: vec![(asked, last)], gone: false };
    }
    Error::Unsolvable { ecosystem, explanation: reason }
}

fn host(url: &str) -> &str {
    crate::fetch::split(url).map_or(url, |parts| parts.host)
}

/// uv's explanation, without its hints (they name options that forge has not got), its labels, and anything of this machine.
fn words(log: &str, scratch: &Path) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in log.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("hint:") {
            break;
        }
        let is_aside = trimmed.starts_with("warning: ") || trimmed.starts_with("Resolved ");
        if trimmed.is_empty() || is_aside || trimmed.starts_with("error: No solution found") {
            continue;
        }
        lines.push(line.trim_start_matches("error: ").trim_end());
    }
    let cut = |line: &str| {
        let rest = line.strip_prefix("  cause: ").unwrap_or(line);
        // A list of versions stands four deeper than the sentence it belongs to.
        let deeper = rest.len() - rest.trim_start().len() >= 13;
        format!("{}{}", if deeper { "    " } else { "" }, rest.trim_start())
    };
    tool::without_addresses(&lines.into_iter().map(cut).collect::<Vec<_>>().join("\n"), scratch)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    let found = &text[start..start + length];
    (!found.contains(char::is_whitespace)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(log: &str) -> Error {
        let target = Target::parse("3.11", "linux/amd64", "2.36").unwrap();
        let default = Some("https://me:secret@host.example/simple".to_owned());
        failure(log, &Indexes { default, extra: Vec::new() }, &target, Path::new("/scratch"))
    }

    #[test]
    fn an_unknown_project_comes_with_what_may_be_meant() {
        let log = "error: No solution found when resolving dependencies\n  cause: Because nunpy was not found in the package \
                   registry and you require nunpy, we can conclude that your requirements are unsatisfiable.\n";
        let Error::UnknownPackage { name, near, .. } = failed(log) else { panic!() };
        assert_eq!((name.as_str(), near), ("nunpy", vec!["numpy".to_owned()]));
    }

    #[test]
    fn an_impossible_version_is_explained_in_uv_s_words() {
        let log = "error: No solution found when resolving dependencies\n  cause: Because only the following versions of numpy are available:\n             \
                   numpy<=1.19.5\n             numpy>=1.20\n         and you require numpy>=99, we can conclude that your requirements are unsatisfiable.\n\n\
                   hint: something about options\n";
        let Error::Unsolvable { ecosystem, explanation } = failed(log) else { panic!() };
        assert_eq!(ecosystem, "Python 3.11");
        insta::assert_snapshot!(explanation, @r"
        Because only the following versions of numpy are available:
            numpy<=1.19.5
            numpy>=1.20
        and you require numpy>=99, we can conclude that your requirements are unsatisfiable.
        ");
    }

    #[test]
    fn a_project_without_wheels_is_named() {
        let log = "error: No solution found when resolving dependencies\n  cause: Because all versions of docopt have no usable wheels and you \
                   require docopt, we can conclude that your requirements are unsatisfiable.\n\nhint: Wheels are required for `docopt` \
                   because building from source is disabled for all packages (i.e., with `--no-build`)\n";
        let Error::Unsolvable { explanation, .. } = failed(log) else { panic!() };
        assert!(explanation.starts_with("`docopt` comes only as source distribution"), "{explanation}");
        assert!(!explanation.contains("--no-build"));
    }

    #[test]
    fn an_index_that_does_not_answer_is_named_without_password() {
        let log = "error: Request failed after 3 retries in 5.6s\n  cause: Failed to fetch: https://host.example/simple/requests/\n  \
                   cause: error sending request for url (https://host.example/simple/requests/)\n  cause: client error (Connect)\n  \
                   cause: dns error\n  cause: failed to lookup address information: Name or service not known\n";
        let Error::Fetch { tried, .. } = failed(log) else { panic!() };
        assert_eq!(tried[0].0, "https://me:***@host.example/simple");
        assert_eq!(tried[0].1, "failed to lookup address information: Name or service not known");
    }

    #[test]
    fn a_wish_that_uv_cannot_meet_as_it_was_meant_is_noted() {
        let said = "warning: The requested Python version 3.9 is not available; 3.11.2 will be used to build dependencies instead.\n\
                    Resolved 5 packages in 241ms\nwarning: The package `requests==2.31.0` does not have an extra named `nosuch`\n\
                    warning: `urllib3==2.0.0` is yanked (reason: \"broken\")\n";
        insta::assert_snapshot!(doubts(said).join("\n"), @r#"
        the package `requests==2.31.0` does not have an extra named `nosuch`
        `urllib3==2.0.0` is yanked (reason: "broken")
        "#);
        let log = "warning: The requested Python version 3.9 is not available\nerror: No solution found when resolving dependencies\n  \
                   cause: Because a is not b, we can conclude that your requirements are unsatisfiable.\n";
        assert!(words(log, Path::new("/scratch")).starts_with("Because a"));
    }
}
