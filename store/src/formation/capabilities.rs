//! Capabilities by name: capabilities(7). Those of a formation hold in namespaces of its own run.

use std::fmt;

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Capabilities(u64);

/// In the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capabilities {
    /// None.
    pub const NONE: Self = Self(0);
    /// All that are known here.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// Those that matter to a network namespace, which must then belong to the command's own user namespace.
    pub const NETWORK: Self = Self(0b1111 << 10);

    /// The set of one, by its name with or without `CAP_`, in any case; `ALL` is all.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        if name == "ALL" {
            return Some(Self::ALL);
        }
        NAMES.iter().position(|known| *known == name).map(|number| Self(1 << number))
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether any is in both.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Bit N is the capability of number N.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The names, as `CAP_CHOWN`, in the order of their numbers.
    pub fn names(self) -> Vec<String> {
        let held = NAMES.iter().enumerate().filter(|(number, _)| self.0 >> number & 1 == 1);
        held.map(|(_, name)| format!("CAP_{name}")).collect()
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { formatter.write_str("none") } else { formatter.write_str(&self.names().join(" ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(Capabilities::named("cap_net_bind_service").unwrap().bits(), 1 << 10);
        assert_eq!(Capabilities::named("CHECKPOINT_RESTORE").unwrap().bits(), 1 << 40);
        assert!(Capabilities::named("NET_RAW").unwrap().meets(Capabilities::NETWORK));
        assert!(!Capabilities::named("IPC_LOCK").unwrap().meets(Capabilities::NETWORK));
        assert_eq!(Capabilities::named("CAP_MOON"), None);
        let all = Capabilities::ALL.without(Capabilities::named("SYS_ADMIN").unwrap());
        assert_eq!(all.names().len(), 40);
        assert_eq!(Capabilities::NONE.to_string(), "none");
    }
}
