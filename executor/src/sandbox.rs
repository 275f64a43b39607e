//! What a command may see. What came of running it is in `outcome.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;

pub use store::{Capabilities, Limits};

pub use crate::bounds::{Bounds, Resource, ResourceLimit};
pub use crate::doors::Doors;
pub use crate::published::Published;

/// The file system a command sees as `/`.
#[derive(Debug, Clone)]
pub struct RootFs {
    /// Checkouts, lowest first; at least one.
    pub layers: Vec<PathBuf>,
    /// Where its writes go.
    pub writable: Writable,
}

/// Where writes to the root go.
#[derive(Debug, Clone)]
pub enum Writable {
    /// Nowhere: they fail with EROFS.
    No,
    /// Into memory; gone at the end.
    Temporary,
    /// Into this empty directory, as overlayfs lays out an upper layer (whiteouts, opaque directories; in a user namespace these
    /// are marked by `user.overlay.opaque`). `DIR/upper` is made in it, and `DIR/work`, which is gone at the end. What was made only
    /// to mount onto and is still empty is taken out of it again. Nothing is synced.
    Kept(PathBuf),
}

/// A file or directory of the host shown inside.
#[derive(Debug, Clone)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Absolute path inside; made if missing (in the writable layer or on a tmpfs, never in a checkout).
    pub target: PathBuf,
    /// Writes fail.
    pub read_only: bool,
}

/// What of the network a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A loopback of its own.
    None,
    /// The host's.
    Host,
}

/// What stdin, stdout and stderr are.
#[derive(Debug, Clone)]
pub enum Streams {
    /// The caller's own descriptors 0, 1, 2. Signals sent to the calling process meanwhile (INT, TERM, HUP, QUIT, USR1, USR2, TSTP,
    /// CONT) go to the command instead of the caller's handlers, unless the caller ignores them; if one of the three is a terminal,
    /// the command shares the caller's session and process group, and gets what the terminal sends from the terminal itself.
    Inherit,
    /// stdin empty, stdout and stderr both appended to this file.
    File(PathBuf),
    /// stdin empty, stdout to the first file and stderr to the second.
    Files(PathBuf, PathBuf),
    /// A terminal of the sandbox's own, in a session of its own; what is typed at the caller's stdin goes there, and what it shows comes
    /// out of the caller's stdout. Signals as for `Inherit`.
    Terminal,
}

/// A file system in memory.
#[derive(Debug, Clone)]
pub struct MemoryMount {
    /// Absolute path inside; made if missing.
    pub target: PathBuf,
    /// Most bytes; the bound of all file systems in memory if absent.
    pub size: Option<u64>,
    /// Mode of its root.
    pub mode: u32,
}

/// A device of the host, or a directory of them, that can be used inside. Who may open it is what its own mode says.
#[derive(Debug, Clone)]
pub struct Device {
    /// On the host.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
}

/// A file that is there for this run only, whatever the layers have in its place.
#[derive(Debug, Clone)]
pub struct Content {
    /// Absolute path inside; made if missing.
    pub target: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What a command may see. Everything not named here is closed.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its `/`.
    pub root: RootFs,
    /// Files of the host that it sees.
    pub binds: Vec<Bind>,
    /// Program and arguments. A program without slash is looked for along the sandbox's own `PATH`, inside the root.
    pub command: Vec<OsString>,
    /// The whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory inside; absolute.
    pub directory: PathBuf,
    /// User and group id that it runs as.
    pub user: (u32, u32),
    /// Further groups of that user. Where an ordinary user runs it there are none, and the outcome says so.
    pub groups: Vec<u32>,
    /// Host name inside.
    pub hostname: String,
    /// What of the network it sees.
    pub network: Network,
    /// Bounds, in place before the command starts.
    pub limits: Limits,
    /// The number of the signal that asks it to end, when its time is over or it is interrupted; SIGTERM, or the interrupt's own, if
    /// absent.
    pub stop_signal: Option<u8>,
    /// Its standard streams.
    pub streams: Streams,
    /// A build step: one mapped uid, and a supervisor that answers chown, mknod, set*id, setgroups, ACLs and stat as if the
    /// command were root, and records what goes into the tree. Capabilities of the user namespace are kept, a time stands in
    /// for nothing. See `docs/why/supervisor.md`.
    pub pretend_root: bool,
    /// Only the user that it runs as exists inside, whoever starts it, as an ordinary user has no other way; and nothing shows of the
    /// machine's hardware. What a build step wants that does not pretend to be root.
    pub one_user: bool,
    /// Isolation that must be had (`user`, `network`, `memory`, `cores`, `io`, …); without it the run is refused rather than weakened.
    pub require: Vec<String>,
    /// Set to a signal number from outside (Ctrl-C), it is passed on to the command; what does not end in some seconds is killed. Set
    /// to a negative number, all is killed at once. Not looked at while signals go to the command directly (`Streams::Inherit`).
    pub interrupt: Option<Arc<AtomicI32>>,
    /// What it may do beyond what every user may, in namespaces of its own: nothing, if not named.
    pub capabilities: Capabilities,
    /// File systems in memory beside `/tmp` and `/dev/shm`.
    pub memory_mounts: Vec<MemoryMount>,
    /// Devices of the host that it may use.
    pub devices: Vec<Device>,
    /// Files that are made for it.
    pub contents: Vec<Content>,
    /// Ports of a closed network that the host's side reaches. Nothing else of the network becomes open by it.
    pub published: Vec<Published>,
    /// Sockets of a closed network that the caller answers. Nothing else of the network becomes open by it.
    pub doors: Option<Doors>,
    /// Bounds that are no part of a formation.
    pub bounds: Bounds,
}

/// Something that is mounted onto the root, with its number in the sandbox's list of its kind.
#[derive(Debug, Clone, Copy)]
pub enum Mount<'a> {
    /// One of `memory_mounts`.
    Memory(&'a MemoryMount),
    /// One of `contents`.
    Content(usize, &'a Content),
    /// One of `devices`.
    Device(usize, &'a Device),
    /// One of `binds`.
    Bind(usize, &'a Bind),
}

impl Mount<'_> {
    /// Its absolute path inside.
    pub fn target(&self) -> &Path {
        match self {
            Self::Memory(memory) => &memory.target,
            Self::Content(_, content) => &content.target,
            Self::Device(_, device) => &device.target,
            Self::Bind(_, bind) => &bind.target,
        }
    }
}

/// How many names lead to a place inside. `..` is taken by its letters, as Docker does: whether a link is on the way is seen when
/// something is mounted there.
pub fn depth(target: &Path) -> usize {
    target.components().fold(0, |depth, part| match part {
        Component::Normal(_) => depth + 1,
        Component::ParentDir => depth.saturating_sub(1),
        _ => depth,
    })
}

impl Sandbox {
    /// All that is mounted onto the root, in the order in which it must be: as Docker does, what lies deeper later, so that nothing is
    /// hidden by what is mounted above it, in whichever order they were named. Of two things in one place a bind wins, then a device, then a file; of
    /// one kind the last.
    pub fn mounts(&self) -> Vec<Mount<'_>> {
        let memory = self.memory_mounts.iter().map(Mount::Memory);
        let contents = self.contents.iter().enumerate().map(|(index, content)| Mount::Content(index, content));
        let devices = self.devices.iter().enumerate().map(|(index, device)| Mount::Device(index, device));
        let binds = self.binds.iter().enumerate().map(|(index, bind)| Mount::Bind(index, bind));
        let mut mounts: Vec<_> = memory.chain(contents).chain(devices).chain(binds).collect();
        mounts.sort_by_key(|mount| depth(mount.target()));
        mounts
    }

    /// The groups that the kernel is told: the user's own is among them, for a program that changes its group (by a set-gid file) would
    /// else be rid of it, and open what a file's mode denies to that group: CVE-2022-2989 of podman.
    pub fn every_group(&self) -> Vec<u32> {
        let mut groups: Vec<u32> = self.groups.iter().copied().chain([self.user.1]).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// Nothing is seen, nothing is run: what a description begins with.
impl Default for Sandbox {
    fn default() -> Self {
        Self {
            root: RootFs { layers: Vec::new(), writable: Writable::Temporary },
            binds: Vec::new(),
            command: Vec::new(),
            environment: BTreeMap::new(),
            directory: PathBuf::from("/"),
            user: (0, 0),
            groups: Vec::new(),
            hostname: "forge".to_owned(),
            network: Network::None,
            limits: Limits::default(),
            stop_signal: None,
            streams: Streams::Inherit,
            pretend_root: false,
            one_user: false,
            require: Vec::new(),
            interrupt: None,
            capabilities: Capabilities::NONE,
            memory_mounts: Vec::new(),
            devices: Vec::new(),
            contents: Vec::new(),
            published: Vec::new(),
            doors: None,
            bounds: Bounds::default(),
        }
    }
}
