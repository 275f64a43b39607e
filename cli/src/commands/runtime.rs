//! `forge runtime`: the operations by which orchestrators drive a runtime. They call a program of their choice as
//! `PROGRAM [--root DIR …] create|start|state|kill|delete …`: forge understands that without the word `runtime` too.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use executor::oci::{Containers, CreateOptions, features};

use crate::args::{CreateArguments, Operation, RuntimeArguments};
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;

/// The command line with the word `runtime` where an orchestrator leaves it away.
pub fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    const OPERATIONS: [&str; 6] = ["create", "start", "state", "kill", "delete", "features"];
    const WITH_VALUE: [&str; 6] = ["--root", "--log", "--log-format", "--rootless", "--cgroup-manager", "--store"];
    let mut words: Vec<OsString> = given.collect();
    let mut at = 1;
    while let Some(word) = words.get(at).map(|word| word.to_string_lossy().into_owned()) {
        match word.as_str() {
            word if OPERATIONS.contains(&word) => {
                words.insert(1, "runtime".into());
                break;
            }
            word if WITH_VALUE.contains(&word) => at += 2,
            word if word.starts_with("--") => at += 1,
            _ => break,
        }
    }
    words
}

/// `forge runtime`
pub fn run(arguments: &RuntimeArguments, context: &Context) -> Result<ExitCode> {
    let begins = matches!(arguments.operation, Operation::Create(_) | Operation::Run(_));
    let result = operate(arguments, context).map_err(|failure| match begins && !rustix::process::geteuid().is_root() {
        true => failure.hint(
            "an ordinary user makes bundle and container in a user namespace, as rootless engines do: unshare -rm sh",
        ),
        false => failure,
    });
    if let Err(failure) = &result {
        let words = failure.render(false, false);
        log("error", words.trim_end().trim_start_matches("error: "), arguments);
    }
    result
}

/// Where orchestrators read what was wrong.
fn log(level: &str, message: &str, arguments: &RuntimeArguments) {
    let Some(path) = &arguments.log else { return };
    let line = match arguments.log_format.as_str() {
        "json" => format!("{}\n", serde_json::json!({ "level": level, "msg": message })),
        _ => format!("level={level} msg={}\n", serde_json::Value::from(message)),
    };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    // Who cannot log has been told on stderr.
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// Says which hooks failed: by the specification that is no failure of the container.
fn warn(failed: &[executor::Error], arguments: &RuntimeArguments) {
    for error in failed {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}");
        say!("warning: {message}");
        log("warning", &message, arguments);
    }
}

fn operate(arguments: &RuntimeArguments, context: &Context) -> Result<ExitCode> {
    let containers = Containers::new(root(arguments, context)?);
    match &arguments.operation {
        Operation::Create(create) => containers.create(&create.id, &create.bundle, &options(create, arguments)?)?,
        Operation::Start(container) => warn(&containers.start(&container.id)?, arguments),
        Operation::Run(create) => return once(&containers, create, arguments),
        Operation::State(container) => super::print_json(&containers.state(&container.id)?)?,
        Operation::Kill(kill) => {
            let number = kill.signal.parse::<i32>().ok().filter(|number| (0..=64).contains(number));
            let named = || kill.signal.parse::<store::Signal>().ok().map(|signal| i32::from(signal.number()));
            let wrong =
                || Failure::new(code::USAGE, format!("`{}` is no signal", kill.signal)).hint("SIGTERM, TERM, 15");
            containers.kill(&kill.id, number.or_else(named).ok_or_else(wrong)?, kill.all)?;
        }
        Operation::Delete(delete) => warn(&containers.delete(&delete.id, delete.force)?, arguments),
        Operation::Features => super::print_json(&features())?,
        Operation::List => super::print_json(&serde_json::Value::from(containers.list()?))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the containers are.
fn root(arguments: &RuntimeArguments, context: &Context) -> Result<PathBuf> {
    if let Some(root) = &arguments.root {
        return absolute(root);
    }
    match context.variable("XDG_RUNTIME_DIR") {
        Some(directory) => Ok(PathBuf::from(directory).join("forge")),
        None if rustix::process::geteuid().is_root() => Ok("/run/forge".into()),
        None => Err(Failure::new(code::USAGE, "no place for the state of containers: XDG_RUNTIME_DIR is not set")
            .hint("--root DIR names one")),
    }
}

fn options(create: &CreateArguments, arguments: &RuntimeArguments) -> Result<CreateOptions> {
    if create.no_pivot {
        return Err(Failure::new(code::USAGE, "--no-pivot: without pivot_root a root is not closed")
            .hint("the root of the host must be a mount that can be left: not an initramfs, not a chroot"));
    }
    let socket = create.console_socket.as_ref().map(|path| absolute(path)).transpose()?;
    let pid_file = create.pid_file.as_ref().map(|path| absolute(path)).transpose()?;
    let no_cgroups = arguments.cgroup_manager.as_deref() == Some("disabled");
    Ok(CreateOptions { pid_file, console_socket: socket, preserve_fds: create.preserve_fds, no_cgroups })
}

/// From the first to the last, for whoever drives it by hand.
fn once(containers: &Containers, create: &CreateArguments, arguments: &RuntimeArguments) -> Result<ExitCode> {
    containers.create(&create.id, &create.bundle, &options(create, arguments)?)?;
    let started = containers.start(&create.id);
    let pid = containers.state(&create.id)?["pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    let mut status = None;
    if started.is_ok() {
        // Its first process is our child.
        status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).ok().flatten();
    }
    warn(&containers.delete(&create.id, true)?, arguments);
    warn(&started?, arguments);
    let code = status.map_or(0, |(_, status)| match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => status as u8,
        (None, Some(signal)) => (128 + signal) as u8,
        (None, None) => code::RUN_FAILED,
    });
    Ok(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orchestrators_leave_the_word_away() {
        let words = |text: &str| {
            let given = text.split(' ').map(OsString::from);
            arguments(given).into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words("forge --root /a create --bundle b c"), "forge runtime --root /a create --bundle b c");
        assert_eq!(
            words("forge --log /l --log-format json state x"),
            "forge runtime --log /l --log-format json state x"
        );
        let crun = "forge --log-format=json --cgroup-manager disabled create --bundle b c";
        assert_eq!(words(crun), crun.replacen("forge", "forge runtime", 1));
        for other in
            ["forge run start", "forge --json list", "forge", "forge runtime state x", "forge --store create list"]
        {
            assert_eq!(words(other), other);
        }
    }
}
