//! Registries on the command line: who we are there, what is shown on the way, and images that become formations.
//!
//! Login files are Docker's and Podman's own, in the order in which Podman asks them; their credential helpers are the only
//! programs that are run.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use builder::Reporter as _;
use store::format::{Bounds, Imported};
use store::http::{Client, Patience};
use store::registry::login::{Helper, LoginFile, Logins};
use store::registry::{self, Access, Listener, Pulled, Reference, Session, Settings};
use store::{FormationId, Store};

use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::importing;
use crate::progress::{Progress, Style};
use crate::words;
use crate::{interrupt, render};

/// What this machine and its user say of registries.
pub fn settings(context: &Context) -> Result<Settings> {
    let set = context.settings.insecure_registries.as_ref().map(|setting| setting.value.clone());
    Ok(Settings {
        logins: Logins { files: login_files(context)?, helper: Some(Arc::new(ask_helper) as Arc<Helper>) },
        insecure: set.unwrap_or_default().into_iter().collect(),
        interrupt: Arc::clone(&context.interrupt),
    })
}

/// With what registries are asked.
pub fn access(context: &Context) -> Result<Access> {
    interrupt::watch(&context.interrupt);
    let style = match (context.global.quiet, context.bars()) {
        (true, _) => Style::Quiet,
        (false, true) => Style::Bars,
        (false, false) => Style::Lines,
    };
    Ok(Access {
        client: Client::new(context.machine().environment, Patience::default()),
        settings: settings(context)?,
        listener: Some(Box::new(Shown { progress: Progress::new(style), running: Mutex::default() })),
    })
}

/// The login files that there are. `REGISTRY_AUTH_FILE` takes the place of all others, as it does for Podman.
fn login_files(context: &Context) -> Result<Vec<LoginFile>> {
    let variable = |name: &str| context.variable(name).map(PathBuf::from);
    let named = variable("REGISTRY_AUTH_FILE");
    let mut paths = Vec::new();
    match &named {
        Some(path) => paths.push(path.clone()),
        None => {
            let user = rustix::process::geteuid().as_raw();
            let runtime = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/containers/{user}").into());
            paths.push(runtime.join("containers/auth.json"));
            paths.push(runtime.join("auth.json"));
            let home = variable("HOME");
            let configuration = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
            paths.extend(configuration.map(|directory| directory.join("containers/auth.json")));
            let docker = variable("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
            paths.extend(docker.map(|directory| directory.join("config.json")));
        }
    }
    let mut files = Vec::new();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push(LoginFile { path, text }),
            Err(error) if named.is_some() => {
                let failure = Failure::new(code::USAGE, format!("cannot read `{}`", path.display()));
                return Err(failure.cause(error.to_string()).hint("REGISTRY_AUTH_FILE names it"));
            }
            // Another user's (after su), or none.
            Err(_) => {}
        }
    }
    Ok(files)
}

/// `docker-credential-NAME get`, with the registry on its standard input.
fn ask_helper(name: &str, host: &str) -> Result<Option<String>, String> {
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input answers all the same.
        let _ = stdin.write_all(host.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(Some(text)),
        // The words that every helper uses for it.
        false if text.contains("credentials not found") => Ok(None),
        false => Err(text.lines().next().unwrap_or("it failed").to_owned()),
    }
}

/// Shows parts on their way as steps of a build are shown.
struct Shown {
    progress: Progress,
    running: Mutex<HashMap<String, (u64, String, Instant)>>,
}

impl Listener for Shown {
    fn hear(&self, event: registry::Event<'_>) {
        // Not one of the builder's: its numbers begin at 1.
        static NEXT: AtomicU64 = AtomicU64::new(1 << 48);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            registry::Event::Started { phase, what, size } => {
                let id = NEXT.fetch_add(1, Ordering::Relaxed);
                let short: String = what.chars().take(19).collect();
                let words = format!("{short} {}", render::size(size));
                self.progress.report(builder::Event::Started { id, phase, what: &words, bytes: Some(size) });
                running.insert(what.to_owned(), (id, words, Instant::now()));
            }
            registry::Event::Advanced { what, bytes } => {
                if let Some((id, ..)) = running.get(what) {
                    self.progress.report(builder::Event::Advanced { id: *id, bytes });
                }
            }
            registry::Event::Finished { phase, what } => {
                if let Some((id, words, started)) = running.remove(what) {
                    let took = started.elapsed();
                    self.progress.report(builder::Event::Finished { id, phase, what: &words, took });
                }
            }
        }
    }
}

/// Whether a word of the command line names an image of a registry.
pub fn is_meant(given: &str) -> bool {
    Reference::is_meant(given)
}

/// The registry's address that a peer's name or an address stands for; none if it is of another kind.
pub fn address_of(given: &str, context: &Context) -> Option<String> {
    let configured = context.settings.remotes.get(given).map(|setting| setting.value.address.as_str());
    Some(configured.unwrap_or(given)).filter(|address| is_meant(address)).map(str::to_owned)
}

/// Reads a reference.
pub fn reference(given: &str) -> Result<Reference> {
    Ok(given.parse().map_err(store::Error::Registry)?)
}

/// Fetches an image into the store.
pub fn pull(
    store: &Store,
    reference: &Reference,
    platform: Option<&str>,
    most: Option<u64>,
    context: &Context,
) -> Result<Pulled> {
    let access = access(context)?;
    let session = Session::new(&access, reference);
    let bounds = most.map(|bytes| Bounds { bytes, ..Bounds::for_size(0) });
    let pulled = registry::pull(store, &session, reference, platform, bounds)?;
    if !context.global.quiet {
        words::show(&importing::dropped_text(&pulled.imported.dropped));
    }
    Ok(pulled)
}

/// The formation that an image is. One that was pulled before, and is still what the registry says, is not fetched again; one
/// that is named by its digest is not even asked for.
pub fn formation(store: &Store, given: &str, platform: Option<&str>, context: &Context) -> Result<FormationId> {
    let reference = reference(given)?;
    let called = reference.tag.as_deref().unwrap_or("latest");
    let key = |digest: &store::format::oci::descriptor::Digest| {
        format!("image {digest} {} {}:{called}", platform.unwrap_or("-"), reference.name())
    };
    let known = |digest| -> Result<Option<FormationId>> {
        let Some(id) = store.claim_of_image(&key(digest))? else { return Ok(None) };
        Ok(Some(id).filter(|_| store.formation(id).is_ok_and(|formation| store.has_tree(formation.root))))
    };
    if let Some(digest) = &reference.digest
        && let Some(id) = known(digest)?
    {
        return Ok(id);
    }
    let access = access(context)?;
    let session = Session::new(&access, &reference);
    if reference.digest.is_none()
        && let Some(digest) = session.digest_of(&reference.wanted())?
        && let Some(id) = known(&digest)?
    {
        return Ok(id);
    }
    let pulled = registry::pull(store, &session, &reference, platform, None)?;
    if !context.global.quiet {
        words::show(&importing::dropped_text(&pulled.imported.dropped));
    }
    let digest = pulled.digest;
    let id = keep(store, pulled.imported, &reference)?;
    store.put_claim_of_image(&key(&digest), id)?;
    Ok(id)
}

/// Keeps what was pulled as a formation; one that forge did not make is called as its repository is.
pub fn keep(store: &Store, imported: Imported, reference: &Reference) -> Result<FormationId> {
    importing::keep(store, imported, Path::new(reference.name()), &importing::Wishes::default())
}
