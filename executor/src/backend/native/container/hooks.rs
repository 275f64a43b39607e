//! Programs that a configuration wants to be run at points of a container's life: config.md, "POSIX-platform Hooks".

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;

use crate::{Error, Result};

/// Runs hooks in order, each with the container's state on its stdin. The first that fails ends it.
pub fn run(hooks: &[Hook], state: &[u8]) -> Result<()> {
    hooks.iter().try_for_each(|hook| one(hook, state))
}

fn one(hook: &Hook, state: &[u8]) -> Result<()> {
    let failed = |source| Error::Setup { action: format!("run the hook `{}`", hook.path().display()), source };
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_ref().and_then(|words| words.split_first()) {
        use std::os::unix::process::CommandExt;
        command.arg0(name).args(arguments);
    }
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null());
    command.envs(hook.env().iter().flatten().filter_map(|variable| variable.split_once('=')));
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It need not read it.
        let _ = stdin.write_all(state);
    }
    // One that is too far off for a clock is none.
    let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(std::io::Error::other("its time was over")));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if status.success() { Ok(()) } else { Err(failed(std::io::Error::other(status.to_string()))) }
}
