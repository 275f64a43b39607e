//! `libcontainer`, youki's library, as another runtime: with the cargo feature of that name.
//!
//! It forks, which a process with threads may not: so forge's own program stands in for a runtime's, with the words of one.

use std::ffi::OsString;
use std::path::Path;

/// What `--runtime` calls it.
pub const NAME: &str = "libcontainer";

/// The first word of forge's own command line where it stands in for the runtime.
pub const WORD: &str = "runtime-of-libcontainer";

/// Whether it is compiled in.
pub const IS_HERE: bool = cfg!(feature = "libcontainer");

/// Carries out `--root STATE run --bundle BUNDLE ID`, which gives the program's exit code, or `--root STATE delete --force ID`.
pub fn main(words: &[OsString]) -> Result<u8, String> {
    let [root, state, verb, rest @ ..] = words else { return Err("words are missing".to_owned()) };
    let state = Path::new(state);
    match (root.to_str(), verb.to_str(), rest) {
        (Some("--root"), Some("run"), [_, bundle, id]) => run(state, Path::new(bundle), &id.to_string_lossy()),
        (Some("--root"), Some("delete"), [_, id]) => delete(&state.join(id)),
        _ => Err("it runs and deletes containers".to_owned()),
    }
}

#[cfg(feature = "libcontainer")]
fn run(state: &Path, bundle: &Path, id: &str) -> Result<u8, String> {
    use libcontainer::container::builder::ContainerBuilder;
    use libcontainer::syscall::syscall::SyscallType;
    use rustix::process::{Pid, PidfdFlags};

    std::fs::create_dir_all(state).map_err(|error| format!("{}: {error}", state.display()))?;
    let signals = super::other::Signals::begin().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let make = || {
        let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default()).with_root_path(state)?;
        let mut container = builder.validate_id()?.as_init(bundle).with_systemd(false).with_detach(false).build()?;
        container.start()?;
        Ok(container)
    };
    let container = make().map_err(|error: libcontainer::error::LibcontainerError| told(&error))?;
    let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw())).ok_or("its container has no process")?;
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
    signals.pass_on_until(&ended, pid).map_err(|error| error.to_string())?;
    let status = super::native::sys::wait(Some(pid), true).map_err(|error| error.to_string())?;
    let status = status.map_or(libc::SIGKILL, |(_, status)| status);
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Ok(code as u8)
}

#[cfg(feature = "libcontainer")]
fn delete(state: &Path) -> Result<u8, String> {
    if state.exists() {
        let load = || libcontainer::container::Container::load(state.to_owned())?.delete(true);
        load().map_err(|error| told(&error))?;
    }
    Ok(0)
}

/// With its causes, which its own text leaves out.
#[cfg(feature = "libcontainer")]
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

#[cfg(not(feature = "libcontainer"))]
fn run(_: &Path, _: &Path, _: &str) -> Result<u8, String> {
    Err("this forge was compiled without it".to_owned())
}

#[cfg(not(feature = "libcontainer"))]
fn delete(_: &Path) -> Result<u8, String> {
    run(Path::new(""), Path::new(""), "")
}
