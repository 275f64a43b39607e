//! Bounds on memory, processor and processes, by cgroups of version 2 or 1, whichever this user may change.
//!
//! A run has a cgroup of its own in each hierarchy that it needs, beside or below the caller's. It is removed at the end. What a
//! killed launcher left is removed by the next run: the name says whose it was.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bounds::{Bound, Presence};
use owner::Owner;
use rustix::fs::{Mode, OFlags};

use super::small;
use crate::Sandbox;

pub use bounds::weight;
pub use hierarchies::Hierarchies;

mod bounds;
mod hierarchies;
mod owner;

/// The cgroups of one run.
#[derive(Debug, Default)]
pub struct Cgroups {
    directories: Vec<PathBuf>,
    /// What process 1 joins.
    pub joins: Joins,
    /// Where each controller counts: its cgroup, and whether that is of version 2.
    counted: Vec<(&'static str, PathBuf, bool)>,
    /// What was asked for and could not be bounded: `memory`, `cpu`, `pids`, `cores` or `io`, and why.
    pub missing: Vec<(&'static str, String)>,
}

/// How process 1 joins the cgroups of a run.
#[derive(Debug, Default)]
pub struct Joins {
    /// Of version 1: written `0` by a process that joins.
    files: Vec<File>,
    /// Of version 2: a process is started in it, which costs nothing, while joining waits for a grace period of the whole machine.
    second: Option<(OwnedFd, File)>,
}

impl Joins {
    /// One more, of which this file is written to.
    fn add(&mut self, directory: &Path, file: &str) -> io::Result<()> {
        let written = OpenOptions::new().write(true).open(directory.join(file))?;
        if file == VERSION_2 {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.second = Some((rustix::fs::open(directory, flags, Mode::empty())?, written));
        } else {
            self.files.push(written);
        }
        Ok(())
    }

    /// The cgroup that process 1 is started in.
    pub fn entered(&self) -> Option<BorrowedFd<'_>> {
        self.second.as_ref().map(|(directory, _)| directory.as_fd())
    }

    /// Process 1 cannot be started in it: it joins. False if there is nothing that it could join in this way.
    pub fn enter_later(&mut self) -> bool {
        let second = self.second.take();
        let had = second.is_some();
        self.files.extend(second.map(|(_, file)| file));
        had
    }

    /// Joins all that this process was not started in.
    pub fn join(&mut self) -> io::Result<()> {
        for file in self.files.drain(..) {
            // `0` is the writer itself; writing a pid instead waits for a grace period of the whole machine.
            rustix::io::write(&file, b"0")?;
        }
        self.second = None;
        Ok(())
    }

    /// Whether there is none.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.second.is_none()
    }

    /// To be written `0` by a process that joins, for whoever is started by others.
    pub fn into_files(mut self) -> Vec<File> {
        self.enter_later();
        self.files
    }

    /// What must stay open until then.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }
}

/// What the kernel has counted for a run.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// How many of its processes were killed for want of memory.
    pub memory_kills: u64,
    /// How often a process was not started, as there were enough.
    pub refused_processes: u64,
    /// The most bytes of memory that were in use at a time, files that were read and written included.
    pub peak_memory: Option<u64>,
}

/// Process 1 is not the command's.
pub const OWN_PROCESSES: u64 = 1;

/// What a process that joins writes to.
const VERSION_1: &str = "tasks";
const VERSION_2: &str = "cgroup.procs";

impl Cgroups {
    /// Makes what the limits need. What cannot be had is in `missing`.
    pub fn new(sandbox: &Sandbox) -> Self {
        let mut cgroups = Self::default();
        let bounds = bounds::of(sandbox, &mut cgroups.missing);
        if bounds.is_empty() {
            return cgroups;
        }
        let hierarchies = Hierarchies::read().unwrap_or_default();
        let name = Owner::this().name(NEXT.fetch_add(1, Ordering::Relaxed));
        for bound in bounds {
            if let Err(why) = cgroups.hold(&bound, &hierarchies, &name) {
                cgroups.missing.push((bound.what, why));
            }
        }
        cgroups
    }

    /// Sets a bound, in a cgroup of this name.
    fn hold(&mut self, bound: &Bound, hierarchies: &Hierarchies, name: &str) -> Result<(), String> {
        let (parent, join, values) = match hierarchies.version_1(bound.controller_1) {
            Some(parent) => (parent, VERSION_1, &bound.version_1),
            None => (self.parent_2(bound.controller_2, hierarchies)?, VERSION_2, &bound.version_2),
        };
        let directory = parent.join(name);
        let result = self.make(&directory).and_then(|()| write(&directory, values)).and_then(|()| {
            // Only where something is bounded: a set of processors that is still empty lets nobody in.
            let is_joined = self.counted.iter().any(|(_, joined, _)| *joined == directory);
            if is_joined { Ok(()) } else { self.joins.add(&directory, join) }
        });
        result.map_err(|error| format!("no cgroup can be made in `{}` ({error})", parent.display()))?;
        self.counted.push((bound.what, directory, join == VERSION_2));
        Ok(())
    }

    /// Below which cgroup of version 2 a controller can bound. That version has one tree for all: there is one cgroup in it, made for
    /// the first of the controllers.
    fn parent_2(&self, controller: &str, hierarchies: &Hierarchies) -> Result<PathBuf, String> {
        let made = self.counted.iter().find(|(.., second)| *second).and_then(|(_, directory, _)| directory.parent());
        match made {
            None => hierarchies.version_2(controller),
            Some(parent) if hierarchies::is_usable(parent, controller) => Ok(parent.to_owned()),
            Some(parent) => Err(format!("`{}` does not give this user the controller", parent.display())),
        }
    }

    /// Makes a cgroup, unless it was made for another bound: version 1 may have several controllers in one hierarchy, `cpu,cpuacct`.
    fn make(&mut self, directory: &Path) -> io::Result<()> {
        if !self.directories.iter().any(|made| made == directory) {
            owner::remove_stale(directory.parent().unwrap_or(directory));
            fs::create_dir(directory)?;
            self.directories.push(directory.to_owned());
        }
        Ok(())
    }

    /// What bounds each thing: `cgroup v1` or `cgroup v2`.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.counted.iter().map(|(what, _, second)| (*what, if *second { "cgroup v2" } else { "cgroup v1" }))
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        Counts {
            memory_kills: self.memory_kills(),
            refused_processes: self.refused_processes(),
            peak_memory: self.peak_memory(),
        }
    }

    /// How many processes of the run the kernel killed for want of memory.
    fn memory_kills(&self) -> u64 {
        self.number("memory", "memory.oom_control", "memory.events", "oom_kill").unwrap_or(0)
    }

    /// How often a process was not started, as there were enough.
    fn refused_processes(&self) -> u64 {
        self.number("pids", "pids.events", "pids.events", "max").unwrap_or(0)
    }

    /// The most bytes of memory that were in use at a time, files that were read and written included.
    fn peak_memory(&self) -> Option<u64> {
        self.number("memory", "memory.max_usage_in_bytes", "memory.peak", "")
    }

    /// A number in a file of the cgroup: behind its key, or alone.
    fn number(&self, what: &str, version_1: &str, version_2: &str, key: &str) -> Option<u64> {
        let (_, directory, second) = self.counted.iter().find(|(counted, ..)| *counted == what)?;
        let text = small::read_text(directory.join(if *second { version_2 } else { version_1 })).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        remove(&self.directories);
    }
}

/// Removes cgroups that nobody is in any more. A process that has been waited for may still be leaving.
pub fn remove(directories: &[PathBuf]) {
    let deadline = Instant::now() + Duration::from_secs(2);
    for directory in directories {
        while fs::remove_dir(directory).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

fn write(directory: &Path, values: &[bounds::Value]) -> io::Result<()> {
    for (file, value, presence) in values {
        let write = || {
            match value.as_str() {
                // A set that must not be empty, and is so in a new cgroup.
                bounds::AS_PARENT => {
                    small::write(directory.join(file), &small::read_text(directory.join("..").join(file))?)
                }
                value => small::write(directory.join(file), value),
            }
        };
        match write() {
            Err(_) if *presence == Presence::Optional => {}
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bounds::Presence::Needed;

    use super::*;

    #[test]
    fn what_is_said_to_be_bounded_is_joined_whatever_else_cannot_be_had() {
        let bound = |what, file: &'static str, value: &str| {
            let values = vec![(file, value.to_owned(), Needed)];
            Bound { what, controller_1: "pids", controller_2: "pids", version_1: values.clone(), version_2: values }
        };
        let hierarchies = Hierarchies::read().unwrap();
        let name = Owner::this().name(NEXT.fetch_add(1, Ordering::Relaxed));
        let mut cgroups = Cgroups::default();
        let refused = cgroups.hold(&bound("cores", "pids.no-such-file", "1"), &hierarchies, &name);
        assert!(refused.is_err() && cgroups.given().count() == 0 && cgroups.joins.is_empty(), "{refused:?}");
        if let Err(why) = cgroups.hold(&bound("pids", "pids.max", "9"), &hierarchies, &name) {
            println!("skipped: {why}");
            return;
        }
        assert_eq!(cgroups.given().map(|(what, _)| what).collect::<Vec<_>>(), ["pids"]);
        assert!(!cgroups.joins.is_empty());
        // Joined once, however many bounds it has.
        cgroups.hold(&bound("more", "pids.max", "8"), &hierarchies, &name).unwrap();
        let (files, second) = (cgroups.joins.files.len(), usize::from(cgroups.joins.second.is_some()));
        assert_eq!((files + second, cgroups.directories.len()), (1, 1));
    }
}
