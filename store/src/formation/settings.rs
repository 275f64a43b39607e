//! Launch settings that are more than a number or a list: a user, a port, a signal.
//!
//! Each has one canonical spelling, in which OCI configurations write it and formations are encoded; what others write
//! (`9`, `KILL`, `01000`) is read and spelled anew.

use std::fmt;
use std::str::FromStr;

/// Why a text is no such setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}")]
pub struct SettingError {
    /// What was given.
    pub text: String,
    /// What is expected.
    pub what: &'static str,
}

fn wrong(text: &str, what: &'static str) -> SettingError {
    SettingError { text: text.to_owned(), what }
}

/// A user or group: by number, or by a name that the formation's own `/etc/passwd` or `/etc/group` knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Never 4294967295, which system calls take for "leave it".
    Id(u32),
    /// Looked up when the formation is run.
    Name(String),
}

/// Who runs the command: `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`.
///
/// Without a group it is the user's own, with the further groups that list the user; with one there are no others
/// (OCI image configuration, `User`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// Who.
    pub user: Account,
    /// In which group; the user's own if absent.
    pub group: Option<Account>,
}

impl FromStr for Account {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        const WHAT: &str = "user or group: a number below 4294967295 or a name";
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let id = text.parse().ok().filter(|id| *id != u32::MAX);
            return id.map(Self::Id).ok_or_else(|| wrong(text, WHAT));
        }
        let odd = |character: char| character.is_control() || character.is_whitespace() || ":,/".contains(character);
        if text.is_empty() || text.len() > 256 || text.contains(odd) || text.starts_with(['-', '+']) {
            return Err(wrong(text, WHAT));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(formatter, "{id}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

impl User {
    /// By numbers alone.
    pub fn ids(uid: u32, gid: u32) -> Self {
        Self { user: Account::Id(uid), group: Some(Account::Id(gid)) }
    }
}

impl FromStr for User {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        const WHAT: &str = "user: USER, UID, USER:GROUP, UID:GID, UID:GROUP or USER:GID";
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let parsed = || Ok(Self { user: user.parse()?, group: group.map(str::parse).transpose()? });
        parsed().map_err(|_: SettingError| wrong(text, WHAT))
    }
}

impl fmt::Display for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(formatter, "{}:{group}", self.user),
            None => write!(formatter, "{}", self.user),
        }
    }
}

/// Over what a port is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

/// A port that the program listens on, written `PORT/tcp` or `PORT/udp`; `PORT` alone is TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl FromStr for Port {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        const WHAT: &str = "port: PORT, PORT/tcp or PORT/udp, PORT from 1 to 65535";
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(wrong(text, WHAT)),
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        match number.parse() {
            Ok(number) if digits && number != 0 => Ok(Self { number, protocol }),
            _ => Err(wrong(text, WHAT)),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(formatter, "{}/{protocol}", self.number)
    }
}

/// A signal by name, `SIGTERM` or `SIGRTMIN+3`; names and not numbers are what formations keep, as numbers differ by processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// In the order of their numbers on Linux (x86 and ARM; signal(7)), from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// The real-time signals that programs may use: the C library keeps 32 and 33.
const REALTIME_FIRST: u8 = 34;
const REALTIME_LAST: u8 = 64;
/// The last that is counted from the first rather than from the last, as Docker names them.
const REALTIME_MIDDLE: u8 = REALTIME_FIRST + 15;

impl Signal {
    /// Its number on x86 and ARM.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        const WHAT: &str = "signal: a name such as SIGTERM or SIGRTMIN+3";
        let fail = || wrong(text, WHAT);
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits(&upper) {
            upper.parse().map_err(|_| fail())?
        } else if let Some(offset) = name.strip_prefix("RTMIN") {
            match offset.strip_prefix('+') {
                Some(offset) if digits(offset) => REALTIME_FIRST.saturating_add(offset.parse().map_err(|_| fail())?),
                None if offset.is_empty() => REALTIME_FIRST,
                _ => return Err(fail()),
            }
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            match offset.strip_prefix('-') {
                Some(offset) if digits(offset) => REALTIME_LAST.saturating_sub(offset.parse().map_err(|_| fail())?),
                None if offset.is_empty() => REALTIME_LAST,
                _ => return Err(fail()),
            }
        } else {
            let name = match name {
                "IOT" => "ABRT",
                "POLL" => "IO",
                "CLD" => "CHLD",
                name => name,
            };
            NAMES.iter().position(|known| *known == name).ok_or_else(fail)? as u8 + 1
        };
        match number {
            1..=31 | REALTIME_FIRST..=REALTIME_LAST => Ok(Self(number)),
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            REALTIME_FIRST => formatter.write_str("SIGRTMIN"),
            REALTIME_LAST => formatter.write_str("SIGRTMAX"),
            number @ REALTIME_FIRST..=REALTIME_MIDDLE => write!(formatter, "SIGRTMIN+{}", number - REALTIME_FIRST),
            number @ REALTIME_FIRST.. => write!(formatter, "SIGRTMAX-{}", REALTIME_LAST - number),
            number => write!(formatter, "SIG{}", NAMES[usize::from(number) - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_six_forms() {
        for text in ["www-data", "33", "www-data:adm", "33:4", "33:adm", "www-data:4"] {
            assert_eq!(text.parse::<User>().unwrap().to_string(), text);
        }
        assert_eq!("0033:04".parse::<User>().unwrap(), User::ids(33, 4));
        for bad in ["", ":", "a:", ":a", "a:b:c", "4294967295", "99999999999", "a b", "a\n", "-1", "a/b"] {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_is_tcp_unless_it_says_udp() {
        for (text, canonical) in [("80", "80/tcp"), ("80/tcp", "80/tcp"), ("53/udp", "53/udp")] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), canonical);
        }
        for bad in ["", "0", "65536", "80/", "80/sctp", "/tcp", "+80", "80-90"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_signal_has_one_name() {
        for number in (1..=31).chain(34..=64) {
            let signal: Signal = number.to_string().parse().unwrap();
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
            assert_eq!(signal.number(), number);
        }
        let spelled = [
            ("KILL", "SIGKILL"),
            ("sigterm", "SIGTERM"),
            ("9", "SIGKILL"),
            ("SIGRTMIN+3", "SIGRTMIN+3"),
            ("RTMIN+20", "SIGRTMAX-10"),
            ("SIGRTMAX", "SIGRTMAX"),
            ("SIGPOLL", "SIGIO"),
        ];
        for (given, canonical) in spelled {
            assert_eq!(given.parse::<Signal>().unwrap().to_string(), canonical);
        }
        let bad_ones = ["", "SIG", "0", "32", "33", "65", "SIGRTMIN+31", "SIGRTMAX-31", "SIGRTMIN-1", "SIGWHAT", "999"];
        for bad in bad_ones {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
