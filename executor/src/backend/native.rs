//! Linux namespaces, by our own launcher.
//!
//! This file and `run.rs` are the launcher's side: it makes everything ready, forks, maps ids, passes signals and time on, and says what
//! came of it. `child.rs` is the way from the fork to the command, `root.rs` the file system it sees.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};

use super::Backend;
use crate::owners::Owners;
use crate::{Error, Outcome, Result, Sandbox, Streams, Writable};

pub mod check;
pub mod image;
pub mod supervisor;

mod cgroup;
mod child;
pub mod container;
mod init;
mod limits;
mod message;
mod program;
mod publish;
mod relay;
mod root;
mod run;
mod seccomp;
mod small;
pub(super) mod sys;
pub(super) mod terminal;
mod userns;

pub use seccomp::allowed_calls;
pub use sys::begin_process;
pub use userns::has_every_user;

pub(super) use cgroup::{Cgroups, Counts};
pub(super) use limits::{check_required, judge};

use child::Prepared;
use message::{Channel, Report};
use program::Program;
use publish::Listeners;
use relay::Relay;
use run::{Processes, Run};
use sys::Child;
use terminal::{Forwarding, Sharing};
use userns::UserNamespace;

/// Runs on this kernel, without a daemon.
#[derive(Debug, Default)]
pub struct Native {}

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    /// The thread that calls this must live until it returns, as it does by itself: the kernel ends the sandbox with it.
    fn run(&self, sandbox: &Sandbox) -> Result<Outcome> {
        let start = Instant::now();
        check_required(sandbox)?;
        let namespace = UserNamespace::of(sandbox);
        let privileged = userns::is_privileged();
        let maps = namespace.maps(sandbox).map_err(setup("read the ids of this user namespace"))?;
        let program = Program::new(sandbox)?;
        let has_terminal = matches!(sandbox.streams, Streams::Terminal);
        let relay = Relay::new(sandbox.bounds.output, has_terminal).map_err(setup("make a pipe"))?;
        let (streams, counted) = open_streams(&sandbox.streams, relay.counts())?;
        make_writable(sandbox)?;
        let (owners, owners_file) = open_owners(sandbox)?;
        let listeners = Listeners::bind(&sandbox.published)?;
        let mut cgroups = Cgroups::new(sandbox);
        let judged = judge(sandbox, &cgroups)?;
        let mut missing = judged.missing;
        if namespace == UserNamespace::First
            && matches!(sandbox.root.writable, Writable::Temporary)
            && !check::has_attributes_on_tmpfs()
        {
            missing.push("root: a directory of a layer cannot be removed (before Linux 6.6)".to_owned());
        }
        let has_bound = |resource| sandbox.bounds.resources.iter().any(|limit| limit.resource == resource);
        if has_bound(crate::Resource::Nproc) && rustix::process::geteuid().is_root() && sandbox.user.0 == 0 {
            missing.push("nproc: no limit, as the kernel holds root to none".to_owned());
        }
        let is_inherited = matches!(sandbox.streams, Streams::Inherit);
        let sharing = if is_inherited { Sharing::here() } else { Sharing::Not };
        let (inside, channel) = Channel::pair().map_err(setup("make a socket pair"))?;
        let mut prepared = Prepared {
            sandbox,
            namespace,
            privileged,
            namespace_required: sandbox.require.iter().any(|name| name == "user"),
            program,
            streams,
            sharing,
            cgroups: std::mem::take(&mut cgroups.joins),
            process_limit: judged.processes,
            memory_limit: judged.memory,
            terminal: None,
            filter: seccomp::filter(),
            owners,
            owners_file,
            channel: inside,
            early: Vec::new(),
        };
        let forwarding = match sandbox.streams {
            Streams::Inherit | Streams::Terminal => Forwarding::begin(sharing).map_err(setup("watch for signals"))?,
            Streams::File(_) | Streams::Files(..) => None,
        };
        let processes = if sys::has_one_thread() {
            match prepared.start(Child::Own) {
                Ok(inner) => Processes { inner: Some(inner), outer: None },
                Err(failure) => {
                    prepared.channel.report(&Report::Failed(failure));
                    Processes::default()
                }
            }
        } else {
            let Some(outer) = sys::fork().map_err(setup("start a process"))? else { child::outer(prepared) };
            Processes { outer: Some(outer), inner: None }
        };
        // Our copies of the sandbox's descriptors: while they are open, its end would not be seen.
        drop(prepared);
        Run::new(sandbox, namespace, maps, channel, processes, start)
            .with(forwarding, relay, listeners, privileged)
            .end(counted, missing, &cgroups)
    }
}

pub(super) fn setup(action: &str) -> impl FnOnce(io::Error) -> Error {
    let action = action.to_owned();
    |source| Error::Setup { action, source }
}

/// The table of owners beside a kept layer: what it says of the layers below, and the file that will say it of the result.
fn open_owners(sandbox: &Sandbox) -> Result<(Owners, Option<File>)> {
    let Writable::Kept(directory) = &sandbox.root.writable else { return Ok((Owners::default(), None)) };
    if !sandbox.pretend_root {
        return Ok((Owners::default(), None));
    }
    let path = directory.join("owners");
    let read = || {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let owners = Owners::parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((owners, Some(file)))
    };
    read().map_err(|source| Error::File { action: "read", path: path.clone(), source })
}

/// Makes what a kept layer consists of.
fn make_writable(sandbox: &Sandbox) -> Result<()> {
    let Writable::Kept(directory) = &sandbox.root.writable else { return Ok(()) };
    for name in ["upper", "work"] {
        let path = directory.join(name);
        match fs::create_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::File { action: "create", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is passed on through us: from where, and to where.
type Forwarded = Vec<(OwnedFd, OwnedFd)>;

/// The command's streams, where they are not the caller's own; and what is passed on through us.
fn open_streams(streams: &Streams, counts: bool) -> Result<(Option<[OwnedFd; 3]>, Forwarded)> {
    let null = || -> Result<OwnedFd> {
        let path = PathBuf::from("/dev/null");
        let file = File::open(&path).map_err(|source| Error::File { action: "open", path, source })?;
        Ok(file.into())
    };
    let append = |path: &PathBuf| -> Result<OwnedFd> {
        let file = OpenOptions::new().append(true).create(true).mode(0o666).open(path);
        Ok(file.map_err(|source| Error::File { action: "open", path: path.clone(), source })?.into())
    };
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(setup("copy a stream"));
    let streams = match streams {
        Streams::Terminal => return Ok((None, Vec::new())),
        Streams::Inherit if !counts => return Ok((None, Vec::new())),
        Streams::Inherit => [own(io::stdin().as_fd())?, own(io::stdout().as_fd())?, own(io::stderr().as_fd())?],
        Streams::File(path) => [null()?, append(path)?, append(path)?],
        Streams::Files(stdout, stderr) => [null()?, append(stdout)?, append(stderr)?],
    };
    if !counts {
        return Ok((Some(streams), Vec::new()));
    }
    let [stdin, stdout, stderr] = streams;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| setup("make a pipe")(error.into()));
    let ((from_stdout, to_stdout), (from_stderr, to_stderr)) = (pipe()?, pipe()?);
    Ok((Some([stdin, to_stdout, to_stderr]), vec![(from_stdout, stdout), (from_stderr, stderr)]))
}
