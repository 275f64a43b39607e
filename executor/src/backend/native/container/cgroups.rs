//! The cgroups of a container: config-linux.md, "Cgroups Path" and what follows it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

use super::super::cgroup::{self, Hierarchies};

/// Where a container's processes are put.
#[derive(Debug, Default)]
pub struct Placed {
    /// One of each hierarchy.
    pub directories: Vec<PathBuf>,
    joins: Vec<File>,
}

/// A controller's file and what is written to it.
type Value = (&'static str, &'static str, String);

impl Placed {
    /// Makes what the configuration names and sets its bounds. What it bounds and cannot be had is an error.
    pub fn new(spec: &Spec, id: &str) -> Result<Self, (String, io::Error)> {
        let mut placed = Self::default();
        let linux = spec.linux().as_ref();
        let wanted = linux.and_then(|linux| linux.cgroups_path().clone());
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let bounds = resources.map(bounds).unwrap_or_default();
        if wanted.is_none() && bounds.is_empty() {
            return Ok(placed);
        }
        let path = path(wanted.as_deref(), id);
        let hierarchies = Hierarchies::read().map_err(|error| ("read the cgroups".to_owned(), error))?;
        let first = hierarchies.directories_1();
        let result = match first.is_empty() {
            true => placed.place_2(&hierarchies, &path, resources),
            false => placed.place_1(&hierarchies, &path, &bounds),
        };
        match result {
            Ok(()) => Ok(placed),
            // A configuration may name a cgroup and bound nothing: then it can do without.
            Err(_) if bounds.is_empty() => {
                placed.remove();
                Ok(Self::default())
            }
            Err(error) => {
                placed.remove();
                Err(error)
            }
        }
    }

    fn place_1(&mut self, hierarchies: &Hierarchies, path: &Path, bounds: &[Value]) -> Result<(), (String, io::Error)> {
        for mount in hierarchies.mounts_1() {
            let directory = mount.join(path);
            let about = |error| (format!("make the cgroup `{}`", directory.display()), error);
            fs::create_dir_all(&directory).map_err(about)?;
            self.directories.push(directory.clone());
            // A set of processors that is empty lets nobody in.
            inherit(&directory, mount);
            self.joins.push(OpenOptions::new().write(true).open(directory.join("tasks")).map_err(about)?);
        }
        for (controller, file, value) in bounds {
            let Some(directory) = hierarchies.mount_of(controller).map(|mount| mount.join(path)) else {
                return Err((format!("bound `{file}`: no controller `{controller}`"), io::ErrorKind::NotFound.into()));
            };
            fs::write(directory.join(file), value).map_err(|error| (format!("set `{file}` to {value}"), error))?;
        }
        Ok(())
    }

    fn place_2(
        &mut self,
        hierarchies: &Hierarchies,
        path: &Path,
        resources: Option<&LinuxResources>,
    ) -> Result<(), (String, io::Error)> {
        let mount = hierarchies
            .mount_2()
            .ok_or_else(|| ("find a cgroup file system".to_owned(), io::ErrorKind::NotFound.into()))?;
        let directory = mount.join(path);
        let about = |error| (format!("make the cgroup `{}`", directory.display()), error);
        fs::create_dir_all(&directory).map_err(about)?;
        self.directories.push(directory.clone());
        // Controllers are handed down from the root of the mount to the parent of the new cgroup.
        for ancestor in
            directory.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev().filter(|path| path.starts_with(mount))
        {
            for controller in ["cpu", "memory", "pids", "cpuset", "io"] {
                let _ = fs::write(ancestor.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        for (file, value) in resources.map(bounds_2).unwrap_or_default() {
            fs::write(directory.join(&file), &value).map_err(|error| (format!("set `{file}` to {value}"), error))?;
        }
        self.joins.push(OpenOptions::new().write(true).open(directory.join("cgroup.procs")).map_err(about)?);
        Ok(())
    }

    /// Files to write `0` to, which moves the writer.
    pub fn joins(&mut self) -> Vec<File> {
        std::mem::take(&mut self.joins)
    }

    /// Removes them, once nobody is in them.
    pub fn remove(&self) {
        cgroup::remove(&self.directories);
    }
}

/// Below the mount of a hierarchy. The form of systemd, `SLICE:PREFIX:NAME`, is taken for a path: nobody is asked to make a unit.
fn path(wanted: Option<&Path>, id: &str) -> PathBuf {
    let Some(wanted) = wanted else { return Path::new("forge").join(id) };
    let text = wanted.to_string_lossy();
    let path = match text.split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] => Path::new(slice).join(format!("{prefix}-{name}.scope")),
        _ => wanted.to_owned(),
    };
    // It stays below the mount, whatever is in it.
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// Copies the sets of processors and memory nodes down to a new cgroup of version 1.
fn inherit(directory: &Path, mount: &Path) {
    let Ok(relative) = directory.strip_prefix(mount) else { return };
    let mut at = mount.to_owned();
    for part in relative.components() {
        let below = at.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let is_empty = fs::read_to_string(below.join(file)).is_ok_and(|text| text.trim().is_empty());
            if is_empty && let Ok(above) = fs::read_to_string(at.join(file)) {
                let _ = fs::write(below.join(file), above);
            }
        }
        at = below;
    }
}

/// In files of version 1.
fn bounds(resources: &LinuxResources) -> Vec<Value> {
    let mut bounds: Vec<Value> = Vec::new();
    let mut add = |controller, file, value: Option<String>| bounds.extend(value.map(|value| (controller, file, value)));
    if let Some(memory) = resources.memory() {
        add("memory", "memory.limit_in_bytes", memory.limit().map(|value| value.to_string()));
        add("memory", "memory.soft_limit_in_bytes", memory.reservation().map(|value| value.to_string()));
        add("memory", "memory.memsw.limit_in_bytes", memory.swap().map(|value| value.to_string()));
        add("memory", "memory.swappiness", memory.swappiness().map(|value| value.to_string()));
    }
    if let Some(cpu) = resources.cpu() {
        add("cpu", "cpu.shares", cpu.shares().filter(|shares| *shares != 0).map(|value| value.to_string()));
        add("cpu", "cpu.cfs_period_us", cpu.period().filter(|period| *period != 0).map(|value| value.to_string()));
        add("cpu", "cpu.cfs_quota_us", cpu.quota().filter(|quota| *quota != 0).map(|value| value.to_string()));
        add("cpuset", "cpuset.cpus", cpu.cpus().clone().filter(|cpus| !cpus.is_empty()));
        add("cpuset", "cpuset.mems", cpu.mems().clone().filter(|mems| !mems.is_empty()));
    }
    if let Some(pids) = resources.pids() {
        add("pids", "pids.max", (pids.limit() > 0).then(|| pids.limit().to_string()));
    }
    if let Some(io) = resources.block_io() {
        let files = [
            ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
        ];
        for (file, devices) in files {
            for device in devices.iter().flatten() {
                add("blkio", file, Some(format!("{}:{} {}", device.major(), device.minor(), device.rate())));
            }
        }
    }
    bounds
}

/// In files of version 2.
fn bounds_2(resources: &LinuxResources) -> Vec<(String, String)> {
    let mut bounds = Vec::new();
    let mut add = |file: &str, value: Option<String>| bounds.extend(value.map(|value| (file.to_owned(), value)));
    let most = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if let Some(memory) = resources.memory() {
        add("memory.max", memory.limit().map(most));
        add("memory.low", memory.reservation().map(most));
        // The specification counts memory and swap together.
        let swap =
            memory.swap().map(|both| if both < 0 { both } else { both - memory.limit().unwrap_or(0).clamp(0, both) });
        add("memory.swap.max", swap.map(most));
    }
    if let Some(cpu) = resources.cpu() {
        let weight = cpu.shares().filter(|shares| *shares != 0).map(cgroup::weight);
        add("cpu.weight", weight.map(|weight| weight.to_string()));
        let quota = cpu.quota().filter(|quota| *quota != 0).map(most);
        add("cpu.max", quota.map(|quota| format!("{quota} {}", cpu.period().unwrap_or(100_000))));
        add("cpuset.cpus", cpu.cpus().clone().filter(|cpus| !cpus.is_empty()));
        add("cpuset.mems", cpu.mems().clone().filter(|mems| !mems.is_empty()));
    }
    if let Some(pids) = resources.pids() {
        add("pids.max", (pids.limit() > 0).then(|| pids.limit().to_string()));
    }
    for (file, value) in resources.unified().iter().flatten() {
        // A name, not a path.
        if !file.contains('/') {
            add(file, Some(value.clone()));
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_mount() {
        for (wanted, below) in [
            ("/a/b", "a/b"),
            ("../../a", "a"),
            ("user.slice:forge:x", "user.slice/forge-x.scope"),
            ("/etc:forge:x", "etc/forge-x.scope"),
            ("../..:../x:y", "x-y.scope"),
        ] {
            assert_eq!(path(Some(Path::new(wanted)), "id"), Path::new(below), "{wanted}");
        }
        assert_eq!(path(None, "id"), Path::new("forge/id"));
    }
}
