//! A sandbox as a configuration of the OCI runtime specification: what another runtime is to do, and what it leaves out.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::sandbox::Mount;
use crate::{Error, Network, Result, Sandbox, Streams, Writable};

/// The configuration, with this directory as root. `own_user`: for an ordinary user, who needs a user namespace and can map one id.
///
/// Limits that the specification does not have (wall time, output) are whoever's runs the other runtime.
pub fn describe(sandbox: &Sandbox, root: &Path, own_user: Option<(u32, u32)>) -> Result<Spec> {
    refuse_paths(sandbox, root)?;
    let words: Vec<&str> = sandbox.command.iter().map(|word| text("an argument", word)).collect::<Result<_>>()?;
    let mut environment = Vec::new();
    for (name, value) in &sandbox.environment {
        environment.push(format!("{}={}", text("a variable", name)?, text("a variable", value)?));
    }
    if !environment.iter().any(|variable| variable.starts_with("PATH=")) {
        // Where our own launcher looks for programs too.
        environment.push(format!("PATH={DEFAULT_PATH}"));
    }
    let capabilities = sandbox.capabilities.names();
    let mut namespaces = vec![
        json!({ "type": "pid" }),
        json!({ "type": "ipc" }),
        json!({ "type": "uts" }),
        json!({ "type": "mount" }),
        json!({ "type": "cgroup" }),
    ];
    if sandbox.network == Network::None {
        namespaces.push(json!({ "type": "network" }));
    }
    let (uid, gid) = sandbox.user;
    let rlimits: Vec<Value> = sandbox
        .bounds
        .resources
        .iter()
        .map(|limit| {
            let number = |value: Option<u64>| value.unwrap_or(u64::MAX);
            let name = format!("RLIMIT_{}", limit.resource.name().to_uppercase());
            json!({ "type": name, "soft": number(limit.soft), "hard": number(limit.hard) })
        })
        .collect();
    let mut linux = json!({
        "namespaces": [],
        "resources": resources(sandbox),
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "seccomp": seccomp(),
    });
    if let Some((user, group)) = own_user {
        namespaces.push(json!({ "type": "user" }));
        linux["uidMappings"] = json!([{ "containerID": uid, "hostID": user, "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": gid, "hostID": group, "size": 1 }]);
    }
    linux["namespaces"] = Value::Array(namespaces);
    let mut user = json!({ "uid": uid, "gid": gid });
    if own_user.is_none() {
        user["additionalGids"] = json!(sandbox.every_group());
    }
    let value = json!({
        "ociVersion": "1.0.2",
        "root": { "path": root, "readonly": matches!(sandbox.root.writable, Writable::No) },
        "hostname": sandbox.hostname,
        "process": {
            "terminal": matches!(sandbox.streams, Streams::Terminal),
            "user": user,
            "args": words,
            "env": environment,
            "cwd": sandbox.directory,
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": capabilities, "ambient": capabilities,
            },
            "rlimits": rlimits,
        },
        "mounts": mounts(sandbox, own_user.is_some()),
        "linux": linux,
    });
    serde_json::from_value(value).map_err(|error| Error::Setup {
        action: "describe the sandbox for another runtime".to_owned(),
        source: error.into(),
    })
}

/// Where programs are looked for if the environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// JSON would carry something else in the place of what is no text.
fn text<'a>(what: &'static str, value: &'a OsStr) -> Result<&'a str> {
    value.to_str().ok_or_else(|| Error::NotText { what, value: value.to_owned() })
}

fn refuse_paths(sandbox: &Sandbox, root: &Path) -> Result<()> {
    let binds = sandbox.binds.iter().flat_map(|bind| [&bind.source, &bind.target]);
    let devices = sandbox.devices.iter().flat_map(|device| [&device.source, &device.target]);
    let memory = sandbox.memory_mounts.iter().map(|mount| &mount.target);
    let paths = binds.chain(devices).chain(memory).chain([&sandbox.directory]).map(PathBuf::as_path);
    paths.chain([root]).try_for_each(|path| text("a path", path.as_os_str()).map(drop))
}

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mounts(sandbox: &Sandbox, is_ordinary: bool) -> Value {
    let size = sandbox.bounds.memory_files.or(sandbox.limits.memory);
    let memory = |target: &Path, mode: u32, size: Option<u64>| {
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), format!("mode={mode:o}")];
        options.extend(size.map(|size| format!("size={size}")));
        json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
    };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !is_ordinary {
        pts.push("gid=5");
    }
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts }),
        memory(Path::new("/dev/shm"), 0o1777, size),
        memory(Path::new("/tmp"), 0o1777, size),
    ];
    if sandbox.network == Network::None {
        let options = ["nosuid", "noexec", "nodev", "ro"];
        mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": options }));
    }
    for mount in sandbox.mounts() {
        let (target, source, options) = match mount {
            Mount::Memory(of) => {
                mounts.push(memory(&of.target, of.mode, of.size.or(size)));
                continue;
            }
            // A bundle's configuration can hold none: who runs one makes files of them, and binds.
            Mount::Content(..) => continue,
            Mount::Bind(_, bind) => {
                let all = ["rbind", "nosuid", "nodev", "ro"];
                (&bind.target, &bind.source, if bind.read_only { &all[..] } else { &all[..3] }.to_vec())
            }
            Mount::Device(_, device) => (&device.target, &device.source, vec!["rbind", "nosuid", "noexec"]),
        };
        mounts.push(json!({ "destination": target, "type": "bind", "source": source, "options": options }));
    }
    Value::Array(mounts)
}

fn resources(sandbox: &Sandbox) -> Value {
    let (limits, bounds) = (&sandbox.limits, &sandbox.bounds);
    let mut resources = json!({});
    if let Some(memory) = limits.memory {
        resources["memory"] = json!({ "limit": memory, "swap": memory.saturating_add(bounds.swap.unwrap_or(0)) });
    }
    let mut cpu = json!({});
    if let Some(millis) = limits.cpu_millis {
        cpu["quota"] = (millis.saturating_mul(100)).max(1000).into();
        cpu["period"] = 100_000.into();
    }
    if let Some(shares) = bounds.cpu_shares {
        cpu["shares"] = shares.into();
    }
    if let Some(cores) = &bounds.cores {
        cpu["cpus"] = cores.iter().map(u32::to_string).collect::<Vec<_>>().join(",").into();
    }
    if cpu != json!({}) {
        resources["cpu"] = cpu;
    }
    if let Some(pids) = limits.pids {
        resources["pids"] = json!({ "limit": pids });
    }
    resources
}

/// The calls that our own filter allows, by name; the conditions on arguments as it has them.
fn seccomp() -> Value {
    let (allowed, limited) = crate::backend::native::allowed_calls();
    let mut calls = vec![json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" })];
    // Namespaces and terminals: what a command may not ask for with calls that it may make.
    calls.push(json!({ "names": ["clone", "unshare"], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": 0x7e02_0000u32, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] }));
    calls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
    for request in [0x5412u32, 0x541c] {
        calls.push(json!({ "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM,
            "args": [{ "index": 1, "value": 0xffff_ffffu32, "valueTwo": request, "op": "SCMP_CMP_MASKED_EQ" }] }));
    }
    for family in [38, 40] {
        calls.push(json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EAFNOSUPPORT,
            "args": [{ "index": 0, "value": family, "op": "SCMP_CMP_EQ" }] }));
    }
    for persona in [0u32, 8, 0x20000, 0x20008, u32::MAX] {
        calls.push(json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": persona, "op": "SCMP_CMP_EQ" }] }));
    }
    let plain: Vec<_> = limited.into_iter().filter(|name| ["ioctl", "socket"].contains(name)).collect();
    calls.push(json!({ "names": plain, "action": "SCMP_ACT_ALLOW" }));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "architectures": architectures(), "syscalls": calls })
}

fn architectures() -> Value {
    if cfg!(target_arch = "x86_64") { json!(["SCMP_ARCH_X86_64"]) } else { json!(["SCMP_ARCH_AARCH64"]) }
}
