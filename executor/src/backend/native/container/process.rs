//! The program of a container: who it is, what it may do, and how it is executed: config.md, "Process".

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{LinuxCapabilities, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;

use super::super::message::{Doing, Failure, Kind};
use super::super::program::Program;
use super::super::{seccomp, sys};
use super::word;
use crate::{Capabilities, Resource};

/// Everything about the program, read before the host's files are out of reach.
pub struct Process {
    program: Program,
    user: (u32, u32),
    groups: Vec<u32>,
    umask: Mode,
    limits: Vec<(Resource, Option<u64>, Option<u64>)>,
    /// As they are, if the configuration says nothing of them.
    capabilities: Option<Powers>,
    no_new_privileges: bool,
    filter: Option<Vec<libc::sock_filter>>,
    directory: std::path::PathBuf,
    has_terminal: bool,
}

/// Sets of capabilities, in bits.
struct Powers {
    bounding: u64,
    sets: sys::Sets,
    ambient: u64,
}

impl Powers {
    /// As far as this kernel knows them.
    fn of(capabilities: &LinuxCapabilities) -> Self {
        let known = u64::MAX >> (63 - sys::last_capability());
        let of = |set: &Option<oci_spec::runtime::Capabilities>| {
            let bits = set.iter().flatten().map(|name| Capabilities::named(&name.to_string()));
            bits.fold(0, |all, one| all | one.map_or(0, Capabilities::bits)) & known
        };
        let sets = sys::Sets {
            effective: of(capabilities.effective()),
            permitted: of(capabilities.permitted()),
            inheritable: of(capabilities.inheritable()),
        };
        Self { bounding: of(capabilities.bounding()), sets, ambient: of(capabilities.ambient()) }
    }
}

fn refuse(why: impl Into<String>) -> Failure {
    Failure::refused("do as the configuration says", why)
}

impl Process {
    /// Reads the configuration, and sets what takes power that is given up later.
    pub fn prepare(spec: &Spec, proc: &OwnedFd) -> Result<Self, Failure> {
        let process = spec.process().as_ref().ok_or_else(|| refuse("it has no `process`"))?;
        let words: Vec<OsString> = process.args().iter().flatten().map(|text| word(text)).collect();
        let environment: Vec<OsString> = process.env().iter().flatten().map(|text| word(text)).collect();
        let program = Program::of(&words, &environment).map_err(Failure::of)?;
        for (name, wanted) in [
            ("scheduler", process.scheduler().is_some()),
            ("ioPriority", process.io_priority().is_some()),
            ("execCPUAffinity", process.exec_cpu_affinity().is_some()),
        ] {
            if wanted {
                return Err(refuse(format!("`process.{name}`, which forge does not know")));
            }
        }
        if let Some(score) = process.oom_score_adj() {
            write(proc, "self/oom_score_adj", score.to_string().as_bytes()).doing("set oomScoreAdj")?;
        }
        for (name, label, file) in [
            ("apparmorProfile", process.apparmor_profile(), "self/attr/apparmor/exec"),
            ("selinuxLabel", process.selinux_label(), "self/attr/exec"),
        ] {
            // Where the module is not there, nobody is confined by it.
            if let Some(label) = label.as_ref().filter(|label| !label.is_empty()) {
                let text = if name == "apparmorProfile" { format!("exec {label}") } else { label.clone() };
                match write(proc, file, text.as_bytes()) {
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {}
                    result => result.doing(format!("set `{name}`"))?,
                }
            }
        }
        let mut limits = Vec::new();
        for limit in process.rlimits().iter().flatten() {
            let name = format!("{}", limit.typ());
            let resource = Resource::named(&name);
            let resource =
                resource.ok_or_else(|| refuse(format!("the resource limit `{name}`, which forge does not know")))?;
            let value = |value: u64| (value != u64::MAX).then_some(value);
            let (soft, hard) = (value(limit.soft()), value(limit.hard()));
            let _ = sys::raise_resource(resource, hard);
            limits.push((resource, soft, hard));
        }
        let user = process.user();
        let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let filter = filter
            .map(seccomp::profile::compile)
            .transpose()
            .map_err(|why| Failure::refused("compile the seccomp profile", why))?;
        Ok(Self {
            program,
            user: (user.uid(), user.gid()),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: Mode::from_raw_mode(user.umask().unwrap_or(0o022)),
            limits,
            capabilities: process.capabilities().as_ref().map(Powers::of),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
            directory: process.cwd().clone(),
            has_terminal: process.terminal().unwrap_or(false),
        })
    }

    /// Gives up all that the program is not to have. From here on nothing can be done but wait and execute.
    pub fn confine(self, terminal: Option<OwnedFd>, preserved: u32) -> Result<Self, Failure> {
        rustix::process::setsid().doing("make a session")?;
        if let Some(terminal) = terminal {
            sys::take_terminal(terminal.as_fd()).doing("take the terminal")?;
            for number in 0..3 {
                sys::set_stream(terminal.as_fd(), number).doing("set the streams")?;
            }
        } else if self.has_terminal {
            return Err(Failure::refused("send a terminal", "no console socket was given"));
        }
        let enter = || format!("enter the working directory `{}`", self.directory.display());
        rustix::process::chdir(&self.directory).doing(enter())?;
        // CVE-2024-21626.
        let entered = rustix::process::getcwd(Vec::new()).doing(enter())?;
        if !entered.as_bytes().starts_with(b"/") {
            return Err(io::Error::from_raw_os_error(libc::EXDEV)).doing(enter());
        }
        for (resource, soft, hard) in &self.limits {
            sys::limit_resource(*resource, *soft, *hard)
                .doing(format!("set the resource limit `{}`", resource.name()))?;
        }
        if let Some(powers) = &self.capabilities {
            sys::limit_bounding_set(powers.bounding).doing("limit the bounding set of capabilities")?;
        }
        if let (Some(filter), false) = (&self.filter, self.no_new_privileges) {
            sys::install_filter(filter).doing("install the seccomp filter")?;
        }
        if self.capabilities.is_some() {
            sys::keep_capabilities(true).doing("keep capabilities over the change of user")?;
        }
        let (uid, gid) = self.user;
        let groups: Option<&[u32]> = (!super::super::userns::keeps_groups()).then_some(self.groups.as_slice());
        sys::set_user(uid, gid, groups).doing(format!("become user {uid}:{gid}"))?;
        rustix::process::umask(self.umask);
        if let Some(powers) = &self.capabilities {
            sys::hold_capabilities(powers.sets, powers.ambient).doing("set the capabilities")?;
            sys::keep_capabilities(false).doing("keep no capabilities")?;
        }
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).doing("set no_new_privs")?;
        }
        // Others in its namespaces must not reach our executable through /proc/PID/exe (CVE-2019-5736).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).doing("hide the waiting process")?;
        sys::close_on_exec().doing("close what the program must not see")?;
        for fd in 3..preserved.saturating_add(3) {
            sys::keep_at_exec(fd as i32).doing("keep the descriptors that are handed on")?;
        }
        Ok(self)
    }

    /// Becomes the program. Only returns if that failed.
    pub fn execute(&self) -> Failure {
        let confined = || -> Result<(), Failure> {
            let can_confine = self.no_new_privileges;
            if can_confine {
                let root =
                    rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing("open the root")?;
                if sys::execute_only_below(root.as_fd()).doing("confine execution to the root")? {
                    return Ok(());
                }
            }
            self.program.refuse_ourselves()
        };
        if let Err(failure) = confined() {
            return failure;
        }
        sys::reset_signals(false);
        if let (Some(filter), true) = (&self.filter, self.no_new_privileges)
            && let Err(failure) = sys::install_filter(filter).doing("install the seccomp filter")
        {
            return failure;
        }
        let failure = self.program.execute();
        match failure.kind {
            Kind::NotFound => Failure { kind: Kind::Setup, what: "find the program in the root".to_owned(), ..failure },
            _ => Failure { kind: Kind::Setup, what: "execute the program".to_owned(), ..failure },
        }
    }
}

/// Writes to a file of our own mount of /proc.
pub fn write(proc: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = rustix::fs::openat(proc, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(file).write_all(bytes)
}
