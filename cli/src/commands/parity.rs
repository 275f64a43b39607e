//! `forge parity`: one formation on every backend of this host, and every difference between them.
//!
//! Each backend runs it twice, as a process of its own, as a user would start it: once with forge's own program as a probe that
//! writes down what it sees from inside, once with the command itself. Before both, every byte of the formation is hashed where it
//! runs. A difference is anything that differs from the first backend.
//!
//! What was compared is noted for `forge run --require-parity` ([`Verdict`]). A command that did not start, or one backend alone, is no
//! comparison: it says nothing, and changes nothing of what was noted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use store::signing::SecretKey;
use store::{FormationId, Store};

use crate::args::parity::ParityArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;
use crate::{engines, keys, runner_image};

pub mod probe;

/// Where the probe is inside.
const PROBE: &str = "/.forge-probe";

/// One way to run it here.
struct Way {
    name: &'static str,
    /// Before forge's own words, for instance what gives root's power up.
    wrapper: &'static [&'static str],
    backend: &'static str,
    /// Another runtime.
    runtime: Option<&'static str>,
}

/// All that there are.
const WAYS: [Way; 7] = [
    Way { name: "native", wrapper: &[], backend: "native", runtime: None },
    // Root without root's power is an ordinary user to the kernel, and reads root's store.
    Way {
        name: "native:user",
        wrapper: &["unshare", "--user", "--map-root-user", "--"],
        backend: "native",
        runtime: None,
    },
    Way { name: "runner:podman", wrapper: &[], backend: "runner:podman", runtime: None },
    Way { name: "runner:docker", wrapper: &[], backend: "runner:docker", runtime: None },
    Way { name: "crun", wrapper: &[], backend: "native", runtime: Some("crun") },
    Way { name: "runc", wrapper: &[], backend: "native", runtime: Some("runc") },
    Way { name: "youki", wrapper: &[], backend: "native", runtime: Some("youki") },
];

/// What came of it on one backend.
struct Case {
    name: &'static str,
    /// What was seen, flat: `limits.Max open files` and so on.
    seen: BTreeMap<String, String>,
    /// Whether anything ran there at all. Of a backend that ran nothing only that is a difference.
    has_run: bool,
}

/// `forge parity`
pub fn run(arguments: &ParityArguments, context: &Context) -> Result<ExitCode> {
    for given in &arguments.on {
        if WAYS.iter().all(|way| way.name != given) {
            let names: Vec<&str> = WAYS.iter().map(|way| way.name).collect();
            return Err(Failure::new(code::USAGE, format!("--on `{given}`: one of {} is expected", names.join(", "))));
        }
    }
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    let formation = store.formation(id)?;
    let key = arguments.sign.as_ref().map(|key| keys::secret(key, &arguments.passphrase, context)).transpose()?;
    let (mut cases, mut skipped) = (Vec::new(), Vec::new());
    for way in &WAYS {
        let asked_for = arguments.on.iter().any(|name| name == way.name);
        if !arguments.on.is_empty() && !asked_for {
            continue;
        }
        // They have differences of their own: HOME is set, no process 1 of ours, other flags of mounts.
        if way.runtime.is_some() && !asked_for {
            skipped.push((way.name, format!("only if it is named: --on native,{}", way.name)));
            continue;
        }
        match reason_to_skip(way, &store, &formation.platform, context)? {
            Some(reason) if asked_for => {
                return Err(Failure::new(code::NOT_FOUND, format!("backend {} is not here: {reason}", way.name)));
            }
            Some(reason) => skipped.push((way.name, reason)),
            None => cases.push(case(way, &store, id, &arguments.command, context)?),
        }
    }
    let differences = differences(&cases);
    let is_same = differences.is_empty();
    let shortfall = shortfall(&cases);
    let has_passed = is_same && shortfall.is_none();
    let command: Vec<String> = arguments.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let report = json!({
        "schema": 1,
        "formation": id.to_string(),
        "root": formation.root.to_string(),
        "command": command,
        "forge": env!("CARGO_PKG_VERSION"),
        "same": is_same,
        "passed": has_passed,
        "shortfall": shortfall,
        "backends": cases.iter().map(|case| json!({ "name": case.name, "seen": case.seen })).collect::<Vec<_>>(),
        "skipped": skipped.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect::<Vec<_>>(),
        "differences": differences,
    });
    let text = format!("{}\n", serde_json::to_string_pretty(&report).expect("a JSON value has a text"));
    if let Some(path) = &arguments.output {
        write(path, text.as_bytes())?;
        if let Some(key) = &key {
            sign(path, &text, key)?;
        }
    }
    let compared = cases.iter().map(|case| case.name.to_owned()).collect();
    let verdict = match Verdict::read(id, context)?.after(compared, is_same, shortfall.is_some()) {
        Some(verdict) => {
            verdict.write(id, context)?;
            verdict
        }
        None => Verdict::read(id, context)?,
    };
    if context.global.json {
        super::print(&text)?;
    } else {
        let mut text = table(id, &cases, &skipped, &report);
        if has_passed && verdict.differed {
            let backends = verdict.backends.into_iter().collect::<Vec<_>>().join(",");
            text.push_str(&format!("not enough for --require-parity, as they differed before: --on {backends}\n"));
        }
        super::print(&text)?;
    }
    Ok(if has_passed { ExitCode::SUCCESS } else { ExitCode::from(code::NEGATIVE) })
}

/// Refuses a formation that has not passed on this host.
pub fn require(id: FormationId, context: &Context) -> Result<()> {
    let verdict = Verdict::read(id, context)?;
    if !verdict.differed && verdict.backends.len() > 1 {
        return Ok(());
    }
    let failure = Failure::new(code::REFUSED, format!("formation {id} has not passed `forge parity` here"));
    let backends = verdict.backends.into_iter().collect::<Vec<_>>().join(", ");
    let failure = if verdict.differed { failure.cause(format!("it differed on {backends}")) } else { failure };
    Err(failure.hint(format!("forge parity {id}")))
}

/// What is noted of a formation on this host.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Something differed.
    differed: bool,
    /// On which it differed, or was the same. Of none nothing is known.
    backends: BTreeSet<String>,
}

impl Verdict {
    fn read(id: FormationId, context: &Context) -> Result<Self> {
        let text = std::fs::read(Self::path(id, context)?).unwrap_or_default();
        let record: Value = serde_json::from_slice(&text).unwrap_or_default();
        if record["formation"] != id.to_string() {
            return Ok(Self::default());
        }
        let names = record["compared"].as_array().into_iter().flatten();
        let backends = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Ok(Self { differed: record["differed"] == true, backends })
    }

    fn write(&self, id: FormationId, context: &Context) -> Result<()> {
        let record =
            json!({ "schema": 1, "formation": id.to_string(), "differed": self.differed, "compared": self.backends });
        write(&Self::path(id, context)?, format!("{record}\n").as_bytes())
    }

    fn path(id: FormationId, context: &Context) -> Result<PathBuf> {
        Ok(context.state_path()?.join(format!("parity/{id}.json")))
    }

    /// What is noted after another comparison; nothing if that changes nothing. Where something differed, only what compares all of
    /// those again tells that it does no more: two of them may well have been the same all the time.
    fn after(&self, compared: BTreeSet<String>, is_same: bool, falls_short: bool) -> Option<Self> {
        match is_same {
            false if self.differed => Some(Self { differed: true, backends: &self.backends | &compared }),
            false => Some(Self { differed: true, backends: compared }),
            true if falls_short || (self.differed && !self.backends.is_subset(&compared)) => None,
            true => Some(Self { differed: false, backends: compared }),
        }
    }
}

/// Why the same everywhere means nothing here.
fn shortfall(cases: &[Case]) -> Option<String> {
    if let [only] = cases {
        return Some(format!("{} alone is no comparison", only.name));
    }
    let failed = [code::RUN_FAILED, code::CANNOT_EXECUTE, code::COMMAND_NOT_FOUND].map(|status| status.to_string());
    let status = cases.iter().filter_map(|case| case.seen.get("output.status")).find(|status| failed.contains(status));
    Some(format!("exit status {} says that the command did not start", status?))
}

fn write(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, bytes)).map_err(|error| {
        Failure::new(code::REFUSED, format!("cannot write `{}`", path.display())).cause(error.to_string())
    })
}

/// An OpenPGP key signs in the cleartext form (`gpg --verify FILE.asc`), an ed25519 key beside it (`openssl pkeyutl -verify -rawin`).
fn sign(path: &std::path::Path, text: &str, key: &SecretKey) -> Result<()> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    match key {
        SecretKey::Ed25519(key) => write(&beside(".sig"), &key.sign(text.as_bytes())),
        SecretKey::Pgp(key) => {
            let signed = key.sign_text(text, keys::now()).map_err(|error| {
                Failure::new(code::USAGE, "the key does not sign the report").cause(error.to_string())
            })?;
            write(&beside(".asc"), signed.as_bytes())
        }
    }
}

/// Why a way is none here.
fn reason_to_skip(way: &Way, store: &Store, platform: &str, context: &Context) -> Result<Option<String>> {
    let is_root = executor::backend::native::has_every_user();
    if let Some(runtime) = way.runtime {
        let is_here = context.program(runtime).is_some();
        return Ok((!is_here).then(|| format!("`{runtime}` is not installed here")));
    }
    if let Some(program) = way.wrapper.first() {
        if !is_root {
            return Ok(Some("`native` is an ordinary user's already".to_owned()));
        }
        let is_here = context.program(program).is_some();
        return Ok((!is_here).then(|| format!("`{program}` is not installed here")));
    }
    let Ok(choice) = way.backend.parse() else { return Ok(Some("it is not known".to_owned())) };
    if choice == crate::args::runner::BackendChoice::Native {
        return Ok(None);
    }
    let engine = engines::engine(choice, context)?;
    // The image is made or fetched before anything is compared.
    let ready = engine.version().map_err(Failure::from);
    Ok(match ready.and_then(|_| runner_image::ensure(store, &engine, platform, context)) {
        Ok(_) => None,
        Err(failure) => Some(failure.headline().to_owned()),
    })
}

fn case(way: &Way, store: &Store, id: FormationId, command: &[OsString], context: &Context) -> Result<Case> {
    if !context.global.quiet {
        say!("  measure {} …", way.name);
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(code::NOT_FOUND, "cannot find this program's own file").caused_by(&error))?;
    let start = |more: &[OsString]| -> Result<Ran> {
        let mut words: Vec<OsString> = way.wrapper.iter().map(OsString::from).collect();
        words.push(program.clone().into());
        words.extend(["run", "--quiet", "--measure", "--backend", way.backend, "--store"].map(OsString::from));
        words.push(store.path().into());
        words.extend(way.runtime.into_iter().flat_map(|runtime| ["--runtime", runtime]).map(OsString::from));
        words.extend(more.iter().cloned());
        ran(&words)
    };
    let mut bind = OsString::from("--bind=");
    bind.push(&program);
    bind.push(format!(":{PROBE}:ro"));
    let entrypoint = OsString::from(format!("--entrypoint={PROBE}"));
    let id_word = OsString::from(id.to_string());
    let probed = start(&[bind, entrypoint, id_word.clone(), "--".into(), probe::WORD.into()])?;
    let mut seen = BTreeMap::new();
    seen.insert("digest.asked".to_owned(), id.to_string());
    match serde_json::from_slice::<BTreeMap<String, String>>(&probed.stdout) {
        Ok(facts) => {
            // The probe ran, so everything was hashed before: a difference would have been refused.
            seen.insert("digest.measured".to_owned(), id.to_string());
            seen.extend(facts);
        }
        Err(_) => {
            let why = match probed.status {
                status if status == i32::from(code::RUN_FAILED) => format!("refused: {}", probed.last_error()),
                status => format!("nothing ran: status {status}: {}", probed.last_error()),
            };
            seen.insert("digest.measured".to_owned(), why);
            return Ok(Case { name: way.name, seen, has_run: false });
        }
    }
    let mut words = vec![id_word];
    if !command.is_empty() {
        words.push("--".into());
        words.extend(command.iter().cloned());
    }
    let output = start(&words)?;
    seen.insert("output.status".to_owned(), output.status.to_string());
    seen.insert("output.stdout".to_owned(), output.digest());
    seen.insert("output.bytes".to_owned(), output.length.to_string());
    Ok(Case { name: way.name, seen, has_run: true })
}

/// What a process gave.
struct Ran {
    status: i32,
    /// As much as is looked at.
    stdout: Vec<u8>,
    length: u64,
    hash: blake3::Hash,
    stderr: String,
}

/// A probe writes less.
const MOST_KEPT: usize = 4 << 20;

impl Ran {
    fn digest(&self) -> String {
        self.hash.to_string()
    }

    fn last_error(&self) -> String {
        self.stderr
            .lines()
            .find(|line| line.starts_with("error:"))
            .or(self.stderr.lines().last())
            .unwrap_or_default()
            .to_owned()
    }
}

fn ran(words: &[OsString]) -> Result<Ran> {
    use std::io::Read;
    let failed = |error: std::io::Error| Failure::new(code::RUN_FAILED, "cannot run forge").cause(error.to_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (mut stdout, stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    // Read to its end whatever it writes, so that it does not wait for us; kept is what could be an error of forge's.
    let errors = std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut stderr = stderr;
        let _ = Read::by_ref(&mut stderr).take(MOST_KEPT as u64).read_to_end(&mut kept);
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    });
    let (mut hasher, mut kept, mut length, mut buffer) = (blake3::Hasher::new(), Vec::new(), 0, vec![0; 64 * 1024]);
    loop {
        let count = stdout.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        length += count as u64;
        let room = MOST_KEPT - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    let status = child.wait().map_err(failed)?;
    let stderr = errors.join().unwrap_or_default();
    use std::os::unix::process::ExitStatusExt;
    let status = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or_default();
    Ok(Ran { status, stdout: kept, length, hash: hasher.finalize(), stderr })
}

/// What is not the same everywhere, with what each backend has.
fn differences(cases: &[Case]) -> Vec<Value> {
    let mut names: Vec<&String> = cases.iter().flat_map(|case| case.seen.keys()).collect();
    names.sort();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let is_measured = name == "digest.measured";
        let compared = || cases.iter().filter(|case| case.has_run || is_measured);
        let values: Vec<Option<&String>> = compared().map(|case| case.seen.get(name)).collect();
        let measured_wrong = is_measured && cases.iter().any(|case| case.seen[name] != case.seen["digest.asked"]);
        if measured_wrong || values.windows(2).any(|pair| pair[0] != pair[1]) {
            let values: BTreeMap<&str, Option<&String>> = compared().map(|case| case.name).zip(values).collect();
            found.push(json!({ "what": name, "values": values }));
        }
    }
    found
}

fn table(id: FormationId, cases: &[Case], skipped: &[(&str, String)], report: &Value) -> String {
    let mut text = format!("formation {id}\n");
    for case in cases {
        let value = |name: &str| case.seen.get(name).map_or("?", String::as_str);
        let measured = if value("digest.measured") == value("digest.asked") {
            "measured, the same"
        } else {
            value("digest.measured")
        };
        if !case.has_run {
            text.push_str(&format!("{:<14} {measured}\n", case.name));
            continue;
        }
        let output = value("output.stdout");
        text.push_str(&format!(
            "{:<14} {measured}; exit status {}, output {}\n",
            case.name,
            value("output.status"),
            &output[..output.len().min(16)]
        ));
    }
    for (name, reason) in skipped {
        text.push_str(&format!("{name:<14} skipped: {reason}\n"));
    }
    for difference in report["differences"].as_array().into_iter().flatten() {
        text.push_str(&format!("differs: {}\n", difference["what"].as_str().unwrap_or_default()));
        for (backend, value) in difference["values"].as_object().into_iter().flatten() {
            text.push_str(&format!("  {backend:<14} {}\n", value.as_str().unwrap_or("(nothing)")));
        }
    }
    match report["shortfall"].as_str() {
        _ if report["same"] != true => {}
        Some(shortfall) => text.push_str(&format!("nothing compared: {shortfall}\n")),
        None => text.push_str("no difference\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differed_is_settled_only_by_comparing_all_of_it_again() {
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let nothing = Verdict::default();
        let all = some(&["native", "native:user", "runner:podman"]);
        let differed = nothing.after(all.clone(), false, false).unwrap();
        assert_eq!(differed, Verdict { differed: true, backends: all.clone() });
        assert_eq!(differed.after(some(&["native", "native:user"]), true, false), None);
        // What differs again with fewer is no reason to forget the others.
        assert_eq!(differed.after(some(&["native", "crun"]), false, false).unwrap().backends.len(), 4);
        assert_eq!(differed.after(all.clone(), true, true), None);
        let passed = differed.after(all.clone(), true, false).unwrap();
        assert_eq!(passed, Verdict { differed: false, backends: all });
        assert!(passed.after(some(&["native"]), false, true).unwrap().differed);
    }
}
