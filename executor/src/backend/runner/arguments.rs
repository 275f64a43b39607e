//! What an engine is told of a container: which powers it has, and why it needs them.
//!
//! Never `--privileged`. Dropped is every capability that is not named here; devices, host's processes and network are not there.
//! See `docs/why/runner.md`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{Engine, Kind};
use crate::sandbox::Limits;

/// What forge inside may do, so that it can isolate what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Nothing: this user and group, without a capability. Forge makes a user namespace, as it does for an ordinary user anywhere.
    User(u32, u32),
    /// The engine's root is this user already (rootless Podman), with nothing but what mapping root into a user namespace takes.
    Rootless,
    /// Root with what mounting, owners and ids need: a store of root's has files of every owner.
    Root,
}

/// The capabilities of [`Power::Root`]: mounts and namespaces; the sandbox's loopback; files of every owner; becoming the
/// formation's user; giving capabilities up for good; mapping root into a user namespace, which Linux 5.12 and later
/// want `SETFCAP` for.
const CAPABILITIES: [&str; 8] =
    ["SETFCAP", "SYS_ADMIN", "NET_ADMIN", "DAC_OVERRIDE", "SETUID", "SETGID", "SETPCAP", "KILL"];

/// What a container reaches of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    None,
    /// What the engine's host does.
    Host,
    /// A network of the engine's, so that these ports are reached from outside: as `-p` takes them.
    Published(Vec<String>),
}

/// A file or directory of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On the host; absolute.
    pub source: PathBuf,
    /// In the container; absolute.
    pub target: PathBuf,
    /// Writes fail.
    pub read_only: bool,
}

/// A container that runs forge.
#[derive(Debug, Clone)]
pub struct Container {
    /// The image's name or digest.
    pub image: String,
    /// `linux/amd64`
    pub platform: String,
    /// What forge may do.
    pub power: Power,
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// Resource limits that the caller has, as `nofile=1024:4096`. Options of the engine that set some take their place.
    pub resources: Vec<String>,
    /// Devices of the host.
    pub devices: Vec<PathBuf>,
    /// Names of the caller's variables that go in; a value would stand in the list of processes. `NAME=` is an empty one.
    pub environment: Vec<OsString>,
    /// Network.
    pub reach: Reach,
    /// Bounds that the engine's control group keeps; the time is forge's.
    pub limits: Limits,
    /// Swap beside the memory, in bytes.
    pub swap: u64,
    /// Whether stdin and stdout are a terminal.
    pub terminal: bool,
    /// Arguments of forge inside.
    pub arguments: Vec<OsString>,
}

impl Container {
    /// Words after the engine's program.
    pub fn arguments(&self, engine: &Engine) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |word: &dyn AsRef<OsStr>| words.push(word.as_ref().to_owned());
        // `none`: output goes to the caller and nowhere else.
        for word in
            ["run", "--rm", "--interactive", "--pull=never", "--log-driver=none", "--read-only", "--cap-drop=ALL"]
        {
            add(&word);
        }
        if self.terminal {
            add(&"--tty");
        }
        if let Power::Root = self.power {
            for capability in CAPABILITIES {
                add(&format!("--cap-add={capability}"));
            }
        }
        if let Power::Rootless = self.power {
            add(&"--cap-add=SETFCAP");
        }
        if let Power::User(uid, gid) = self.power {
            add(&format!("--user={uid}:{gid}"));
        }
        // The engine's filter forbids what forge isolates with: new namespaces, mounts, pivot_root, and seccomp's own notifications.
        // Forge puts its own filter, which is narrower, over what it runs.
        add(&"--security-opt=seccomp=unconfined");
        // The kernel gives no new /proc where the one that is there is masked (mount_too_revealing).
        match engine.kind {
            Kind::Podman => add(&"--security-opt=unmask=ALL"),
            Kind::Docker => {
                add(&"--security-opt=systempaths=unconfined");
                // `docker-default` forbids every mount.
                add(&"--security-opt=apparmor=unconfined");
            }
        }
        // SELinux would not let the container read the store without giving its files other labels.
        add(&"--security-opt=label=disable");
        match &self.reach {
            Reach::None => add(&"--network=none"),
            Reach::Host => add(&"--network=host"),
            Reach::Published(ports) => ports.iter().for_each(|port| add(&format!("--publish={port}"))),
        }
        if let Some(bytes) = self.limits.memory {
            add(&format!("--memory={bytes}b"));
            // Both together: as much again may be swapped otherwise.
            add(&format!("--memory-swap={}b", bytes.saturating_add(self.swap)));
        }
        if let Some(millis) = self.limits.cpu_millis {
            add(&format!("--cpus={}.{:03}", millis / 1000, millis % 1000));
        }
        if let Some(pids) = self.limits.pids {
            add(&format!("--pids-limit={}", pids.saturating_add(OWN_PROCESSES)));
        }
        for mount in &self.mounts {
            add(&"--mount");
            add(&mount.words());
        }
        if !engine.options.iter().any(|option| option.to_string_lossy().starts_with("--ulimit")) {
            self.resources.iter().for_each(|limit| add(&format!("--ulimit={limit}")));
        }
        for device in &self.devices {
            add(&"--device");
            add(device);
        }
        for name in &self.environment {
            add(&"--env");
            add(name);
        }
        add(&format!("--platform={}", self.platform));
        words.extend(engine.options.iter().cloned());
        words.push(self.image.clone().into());
        words.extend(self.arguments.iter().cloned());
        words
    }
}

/// Threads of forge inside, which count too.
pub const OWN_PROCESSES: u64 = 8;

impl Mount {
    /// A record of comma-separated fields, as RFC 4180 quotes them: a path may have any letter.
    fn words(&self) -> OsString {
        let mut words = OsString::from("type=bind");
        for (name, path) in [("source", &self.source), ("target", &self.target)] {
            let mut field = OsString::from(format!("{name}="));
            field.push(path);
            words.push(",");
            let special = field.as_encoded_bytes().iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'));
            if special {
                let text = field.to_string_lossy().replace('"', "\"\"");
                words.push(format!("\"{text}\""));
            } else {
                words.push(field);
            }
        }
        if self.read_only {
            words.push(",readonly");
        }
        words
    }
}
