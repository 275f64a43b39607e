//! The tool root: Debian's `python3-pip` with what it needs, unpacked and not configured. pip is asked in it for its built-in
//! index, and `uv` resolves in it. It is made once and is part of no formation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use executor::Bind;
use serde_json::Value;
use store::digest::StepKey;
use store::lock::LockRequest;
use store::{DeltaId, Node};

use crate::debian::package::obtain;
use crate::draft::{Draft, names};
use crate::fetch::{Wanted, split};
use crate::python::index;
use crate::report::Span;
use crate::step::{Command, run_tool};
use crate::{Builder, Error, Result, remembered, resolve};

/// Raised when the same packages would be laid out in another way.
const VERSION: u32 = 1;
/// Where the machine's own release is not Debian's: any that has pip will do.
const SUITE: &str = "bookworm";

/// The tool root's layer.
pub fn root(builder: &Builder<'_>) -> Result<DeltaId> {
    // Many downloads may want it at once, and one of them makes it.
    static MAKING: Mutex<()> = Mutex::new(());
    let suite = suite(builder);
    let architecture = architecture()?;
    let key = StepKey::of(format!("python tool root {VERSION} of {suite} for {architecture}").as_bytes());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    remembered::layer(builder, &key, || {
        let request = LockRequest {
            kind: "debian".to_owned(),
            parameters: BTreeMap::from([
                ("suite".to_owned(), Value::from(suite)),
                ("architecture".to_owned(), Value::from(architecture)),
                ("packages".to_owned(), Value::from(vec!["python3-pip"])),
            ]),
        };
        let packages = resolve::resolve(builder, &request)?.records;
        let mut layers = vec![merged_usr(builder)?];
        layers.extend(all_layers(builder, &packages)?);
        Ok(builder.store.squash(&layers)?)
    })
}

/// All packages of the tool root, a few at a time. Threads of our own: rayon's would take up other work while they wait, which
/// may want the tool root too, and would then wait for itself.
fn all_layers(builder: &Builder<'_>, packages: &[BTreeMap<String, Value>]) -> Result<Vec<DeltaId>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        while let Some((at, package)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, packages.get(at)?)))
        {
            // After a failure nobody needs the others.
            made.push((at, layer(builder, package).inspect_err(|_| next.store(packages.len(), Ordering::Relaxed))?));
        }
        Ok(made)
    };
    let results: Vec<Result<Vec<(usize, DeltaId)>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..builder.jobs.clamp(1, 16)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panicked")).collect()
    });
    let made: BTreeMap<usize, DeltaId> =
        results.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Ok(made.into_values().collect())
}

/// Fetches and unpacks one package of the tool root.
fn layer(builder: &Builder<'_>, package: &BTreeMap<String, Value>) -> Result<DeltaId> {
    let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
    let text = |field: &'static str| {
        let value = package.get(field).and_then(Value::as_str);
        value.ok_or_else(|| Error::LockRecord { name: name.to_owned(), field })
    };
    let key = StepKey::of(format!("python tool package {VERSION} {}", text("sha256")?).as_bytes());
    remembered::layer(builder, &key, || {
        let url = format!("debian:{}/{}", text("suite")?, text("file")?);
        let sha256 = store::digest::from_hex(text("sha256")?).and_then(|bytes| bytes.try_into().ok());
        let sha256 = Some(sha256.ok_or_else(|| Error::LockRecord { name: name.to_owned(), field: "sha256" })?);
        let size = package.get("size").and_then(Value::as_u64);
        obtain(builder, name, &Wanted { url: &url, sha256, size })
    })
}

/// `/bin` and the like, which no package ships on a system with merged `/usr`, and directories that programs count on.
fn merged_usr(builder: &Builder<'_>) -> Result<DeltaId> {
    let mut draft = Draft::passing();
    for name in ["bin", "sbin", "lib", "lib64"] {
        let link = Node::Symlink { target: format!("usr/{name}").into_bytes(), uid: 0, gid: 0 };
        draft.insert(builder.store, &names(name), link).map_err(|error| error.about("tool root", name))?;
        draft
            .directory(builder.store, &names(&format!("usr/{name}")))
            .map_err(|error| error.about("tool root", name))?;
    }
    Ok(draft.delta(builder.store)?)
}

/// Debian's name for what forge runs on.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(Error::Invalid {
            what: "platform",
            name: other.to_owned(),
            reason: "locking Python packages works on x86_64 and aarch64".to_owned(),
        }),
    }
}

/// The release that this machine runs, if it is Debian, because its packages may be here already.
fn suite(builder: &Builder<'_>) -> String {
    let text = std::fs::read_to_string(builder.machine.file("etc/os-release")).unwrap_or_default();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    let is_debian = field("ID").as_deref() == Some("debian");
    field("VERSION_CODENAME").filter(|name| is_debian && !name.is_empty()).unwrap_or_else(|| SUITE.to_owned())
}

/// What pip falls back to where nothing is configured. Asked once, because every wheel's address needs it.
pub fn default_index(builder: &Builder<'_>) -> Result<String> {
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = root(builder).map_err(|error| match error {
        // Without a Debian mirror pip cannot be asked; what is missing is the index.
        Error::NotConfigured { .. } => index::not_configured(),
        error => error,
    })?;
    let key = StepKey::of(format!("default index of pip in {root}").as_bytes());
    remembered::text(builder, &key, || {
        let _span = Span::start(builder.reporter, "resolve", "the default index of pip", None);
        let question = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)";
        let layers = [root];
        let command = Command::new(&layers, ["/usr/bin/python3", "-I", "-B", "-c", question]);
        let answer = run_tool(builder, "pip", &command)?;
        let address = String::from_utf8_lossy(&answer).trim().to_owned();
        split(&address).is_some().then_some(address).ok_or_else(index::not_configured)
    })
}

/// What a tool needs of the host to use its network: names, certificates, proxies. Gives binds and variables.
pub fn network_of_host(builder: &Builder<'_>) -> (Vec<Bind>, BTreeMap<OsString, OsString>) {
    const CERTIFICATES: &str = "/run/forge/certificates.pem";
    let machine = builder.machine;
    let (mut binds, mut environment) = (Vec::new(), BTreeMap::new());
    let mut show = |source: PathBuf, target: &str| {
        // /etc/resolv.conf is often a symlink to somewhere that is not shown.
        let source = std::fs::canonicalize(source).ok().filter(|source| source.is_file())?;
        binds.push(Bind { source, target: PathBuf::from(target), read_only: true });
        Some(())
    };
    show(machine.file("etc/resolv.conf"), "/etc/resolv.conf");
    show(machine.file("etc/hosts"), "/etc/hosts");
    let bundles = machine.variable("SSL_CERT_FILE").map(PathBuf::from).into_iter().chain(
        // Debian, Fedora, openSUSE, Alpine.
        [
            "etc/ssl/certs/ca-certificates.crt",
            "etc/pki/tls/certs/ca-bundle.crt",
            "etc/ssl/ca-bundle.pem",
            "etc/ssl/cert.pem",
        ]
        .map(|file| machine.file(file)),
    );
    if bundles.into_iter().any(|bundle| show(bundle, CERTIFICATES).is_some()) {
        environment.insert("SSL_CERT_FILE".into(), CERTIFICATES.into());
    }
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        for name in [name.to_owned(), name.to_ascii_uppercase()] {
            if let Some(value) = machine.variable(&name) {
                environment.insert(name.into(), value.into());
            }
        }
    }
    (binds, environment)
}

/// What a tool said, without addresses and paths of this machine.
pub fn without_addresses(text: &str, scratch: &Path) -> String {
    let scratch = scratch.display().to_string();
    let mut clean = String::new();
    for word in text.split_inclusive(char::is_whitespace) {
        match word.find("://") {
            Some(_) => clean.push_str(&redact_word(word)),
            None => clean.push_str(&word.replace(&scratch, "")),
        }
    }
    clean
}

/// An address in a sentence: whatever stands around it (quotes, brackets, a full stop) stays.
fn redact_word(word: &str) -> String {
    let at = word.find("://").unwrap_or(0);
    let before = word[..at].rmatch_indices(|character: char| !character.is_ascii_alphanumeric()).next();
    let start = before.map_or(0, |(last, character)| last + character.len());
    let end =
        word[at..].find(|character: char| "`'\"()<>, \n\t".contains(character)).map_or(word.len(), |end| at + end);
    let shown = if split(&word[start..end]).is_some() { "the index" } else { "…" };
    format!("{}{shown}{}", &word[..start], &word[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_says_names_no_host() {
        let said = "Failed to fetch: `https://me:secret@host.example/simple/x/` (see file:///tmp/x) at /scratch/7/in.txt\n  twice";
        let clean = without_addresses(said, Path::new("/scratch/7"));
        assert_eq!(clean, "Failed to fetch: `the index` (see …) at /in.txt\n  twice");
        // In the quotes of a language that has its own.
        let clean = without_addresses("from “https://host.example/simple”, „file:///tmp/x“", Path::new("/scratch/7"));
        assert_eq!(clean, "from “the index, „…");
    }
}
