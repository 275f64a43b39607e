//! Options of a run as values: limits, capabilities, and the habits of other tools.

use std::collections::BTreeSet;

use executor::{Bounds, Capabilities, Resource, ResourceLimit};
use store::{Launch, Limits};

use super::bad;
use crate::args::{BoundOptions, HabitOptions, RunOptions};
use crate::error::{Failure, Result, code};
use crate::units;

/// Says no to what no run has. What every run has anyway is taken silently.
pub fn refuse_habits(habits: &HabitOptions) -> Result<()> {
    let refuse = |what: &str, hint: &str| Err(Failure::new(code::USAGE, what.to_owned()).hint(hint));
    if habits.privileged {
        return refuse(
            "--privileged: no run has power over the host",
            "--cap-add, --device and --bind give what is needed, by name",
        );
    }
    if habits.detach {
        return refuse(
            "--detach: a run ends with the forge that started it",
            "let the shell or a service manager keep it: systemd-run --user forge run …",
        );
    }
    if let Some(time) = &habits.schedule {
        return refuse(
            &format!("--schedule {time}: forge has no daemon that would begin a run later"),
            "the host's own begins it: systemd-run --user --on-active=1h forge run …; --on-calendar, `at` and cron too",
        );
    }
    if habits.gpu_memory.is_some() {
        return refuse(
            "--gpu-memory: a graphics processor is not shared out, the run has all of its memory",
            "--gpu COUNT says how many it has",
        );
    }
    if habits.name.is_some() {
        return refuse("--name: a run has no name, a formation has", "--hostname names the machine that it sees");
    }
    Ok(())
}

/// The formation's limits with those of the command line in their place.
pub fn limits(own: &Limits, options: &BoundOptions) -> Result<Limits> {
    let mut limits = own.clone();
    if let Some(text) = &options.memory {
        limits.memory = Some(bytes("--memory", text)?);
    }
    if let Some(text) = &options.cpus {
        limits.cpu_millis = Some(units::thousandths(text).ok_or_else(|| bad("--cpus", text, "a number such as 1.5"))?);
    }
    if let Some(text) = &options.timeout {
        limits.timeout_millis = Some(units::millis(text).ok_or_else(|| bad("--timeout", text, "a time such as 90s"))?);
    }
    limits.pids = options.pids.or(limits.pids);
    if options.pids == Some(0) {
        return Err(bad("--pids", "0", "more than 0"));
    }
    if options.swap.is_some() && limits.memory.is_none() {
        let failure = Failure::new(code::USAGE, "--swap: swap is counted beside a limit of memory, and there is none");
        return Err(failure.hint("--memory sets one"));
    }
    Ok(limits)
}

/// Limits that no formation has.
pub fn bounds(options: &BoundOptions) -> Result<Bounds> {
    let size = |option: &str, text: &Option<String>| text.as_ref().map(|text| bytes(option, text)).transpose();
    let swap = options.swap.as_ref().map(|text| {
        // None is a good answer here.
        units::bytes(text).ok_or_else(|| bad("--swap", text, "a size such as 512M"))
    });
    if let Some(shares) = options.cpu_shares.filter(|shares| !(2..=262_144).contains(shares)) {
        return Err(bad("--cpu-shares", &shares.to_string(), "a number from 2 to 262144"));
    }
    Ok(Bounds {
        host_memory: None,
        refused_for: None,
        swap: swap.transpose()?,
        cpu_shares: options.cpu_shares,
        cores: options.cpuset.as_ref().map(|text| cores(text)).transpose()?,
        io: size("--io", &options.io)?,
        output: size("--max-output", &options.max_output)?,
        memory_files: size("--tmpfs-size", &options.tmpfs_size)?,
        resources: options.ulimit.iter().map(|text| resource(text)).collect::<Result<_>>()?,
    })
}

/// More than none.
pub fn bytes(option: &str, text: &str) -> Result<u64> {
    match units::bytes(text) {
        Some(0) => Err(bad(option, text, "more than 0")),
        Some(bytes) => Ok(bytes),
        None => Err(bad(option, text, "a size such as 512M")),
    }
}

/// `0-2,5`
fn cores(text: &str) -> Result<BTreeSet<u32>> {
    let wrong = || bad("--cpuset-cpus", text, "a list of processors such as 0-2,5");
    let mut cores = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < 4096).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        cores.extend(first..=last);
    }
    let here = online();
    if cores.is_disjoint(&here) {
        let has = here.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        return Err(Failure::new(code::USAGE, format!("--cpuset-cpus `{text}`: this machine has none of them"))
            .hint(format!("it has {has}")));
    }
    Ok(cores.intersection(&here).copied().collect())
}

/// The processors that there are. Where the kernel does not say, all numbers.
fn online() -> BTreeSet<u32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    };
    let found: BTreeSet<u32> = text.trim().split(',').filter_map(range).flatten().collect();
    if found.is_empty() { (0..4096).collect() } else { found }
}

/// `nofile=1024:2048`
fn resource(text: &str) -> Result<ResourceLimit> {
    let wrong = || {
        let names = Resource::ALL.map(|(_, name)| name).join(", ");
        bad("--ulimit", text, "NAME=SOFT[:HARD]").hint(format!("names are {names}; values are numbers or `unlimited`"))
    };
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let resource = Resource::named(name).ok_or_else(wrong)?;
    let value = |text: &str| match text {
        "unlimited" | "-1" => Ok(None),
        text => text.parse::<u64>().map(Some).map_err(|_| wrong()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(wrong().hint("the first number is not more than the second"));
    }
    Ok(ResourceLimit { resource, soft, hard })
}

/// The formation's, with what is added and without what is dropped, as Docker has it: `--cap-drop ALL --cap-add KILL` is one.
pub fn capabilities(launch: &Launch, options: &RunOptions) -> Result<Capabilities> {
    let named = |option: &str, names: &[String]| {
        names.iter().try_fold(Capabilities::NONE, |all, name| {
            let one = Capabilities::named(name);
            let one = one.ok_or_else(|| bad(option, name, "the name of a capability such as NET_RAW"))?;
            Ok::<_, Failure>(all.with(one))
        })
    };
    let own = launch.capabilities;
    let (added, dropped) = (named("--cap-add", &options.cap_add)?, named("--cap-drop", &options.cap_drop)?);
    Ok(match dropped == Capabilities::ALL {
        true => added,
        false => own.with(added).without(dropped),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(cores("0").unwrap(), BTreeSet::from([0]));
        assert!(cores("0-4000").unwrap().contains(&0));
        for bad in ["", "a", "1-0", "0,", "99999", "-1"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resource_limits_are_read() {
        let limit = resource("NOFILE=16:32").unwrap();
        assert_eq!((limit.resource, limit.soft, limit.hard), (Resource::Nofile, Some(16), Some(32)));
        assert_eq!(resource("core=unlimited").unwrap().hard, None);
        for bad in ["nofile", "nofile=", "moon=1", "nofile=2:1", "nofile=-2"] {
            assert!(resource(bad).is_err(), "{bad}");
        }
    }
}
