//! What a formation is: one merged root and the way to run it, named by the digest of its canonical encoding.
//!
//! A setting that is absent encodes as nothing, so settings can be added without changing any id. How the root came to be
//! layered, the package list and provenance are records attached to the formation, outside the identity.
//! The bytes are drawn in `docs/formats/formation.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{FORMATION_CONTEXT, FormationId, TreeId, short};
use crate::encoding::{DecodeError, Reader, Writer};

mod accounts;
mod capabilities;
mod settings;

pub use accounts::{Identity, UnknownAccount};
pub use capabilities::Capabilities;
pub use settings::{Account, Port, Protocol, SettingError, Signal, User};

/// Bounds that a run is put in before its program starts. None means no bound.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of memory, page cache included, swap excluded.
    pub memory: Option<u64>,
    /// Thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Milliseconds of wall time.
    pub timeout_millis: Option<u64>,
}

/// How a formation wants to be run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Launch {
    /// What always comes first: program and arguments; bytes, without NUL. What a run is given takes the command's place behind it.
    pub entrypoint: Vec<Vec<u8>>,
    /// Program and arguments, or arguments alone where there is an entrypoint; bytes, without NUL.
    pub command: Vec<Vec<u8>>,
    /// The whole environment: nothing of the host's is added but `TERM` on a terminal.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Working directory, absolute; `/` if absent.
    pub directory: Option<Vec<u8>>,
    /// Who runs it; root if absent. Names are looked up in the formation's own files when it is run.
    pub user: Option<User>,
    /// Bounds of a run.
    pub limits: Limits,
    /// Ports the program listens on.
    pub ports: BTreeSet<Port>,
    /// The program wants the host's network; none is given otherwise.
    pub network: bool,
    /// What asks the program to end; SIGTERM if absent.
    pub stop_signal: Option<Signal>,
    /// What the program may do beyond what every user may, in namespaces of its own; nothing if there are none.
    pub capabilities: Capabilities,
    /// For whoever looks, by the rules of OCI annotations: no empty key, and keys such as `org.example.team`.
    pub labels: BTreeMap<String, String>,
}

/// One merged root and the way to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    /// Lower-case letters, digits, `.`, `_` and `-`, as [`is_name`] checks.
    pub name: String,
    /// May be empty.
    pub version: String,
    /// Which of several of this name and version, for instance `cuda`, as [`is_variant`] checks; empty for the plain one.
    pub variant: String,
    /// As OCI writes platforms, for instance `linux/amd64`.
    pub platform: String,
    /// The file system.
    pub root: TreeId,
    /// How it wants to be run.
    pub launch: Launch,
}

/// Whether a text may name a formation: it starts with a letter or digit; then letters, digits, `.`, `_`, `+`, `-`; 128 at most.
///
/// A text of 6 to 64 hexadecimal digits only would be taken for a digest, and is refused.
pub fn is_name(text: &str) -> bool {
    let like_digest =
        (6..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    starts_well
        && !like_digest
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

/// Whether a text may be a variant: empty, or 64 letters, digits, `.`, `_` and `+` at most, as it stands between dashes in file names.
pub fn is_variant(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+".contains(&byte))
}

const VERSION: u8 = 1;
const NAME: u8 = 1;
const VERSION_TEXT: u8 = 2;
const PLATFORM: u8 = 3;
const ROOT: u8 = 4;
const VARIANT: u8 = 5;
const COMMAND: u8 = 16;
const ENVIRONMENT: u8 = 17;
const DIRECTORY: u8 = 18;
const USER: u8 = 19;
const MEMORY: u8 = 20;
const CPU: u8 = 21;
const PIDS: u8 = 22;
const TIMEOUT: u8 = 23;
const PORTS: u8 = 24;
const NETWORK: u8 = 25;
const ENTRYPOINT: u8 = 26;
const USER_BY_NAME: u8 = 27;
const UDP_PORTS: u8 = 28;
const STOP_SIGNAL: u8 = 29;
const LABELS: u8 = 30;
const CAPABILITIES: u8 = 31;

impl Formation {
    /// The digest of the canonical encoding.
    pub fn id(&self) -> FormationId {
        Self::id_of(&self.encode())
    }

    /// The id of the formation with this encoding.
    pub fn id_of(encoded: &[u8]) -> FormationId {
        FormationId::from_bytes(short::derive_key(FORMATION_CONTEXT, encoded))
    }

    /// The canonical encoding: a version byte, then tagged fields in ascending order of their tags.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        let mut field = |tag: u8, present: bool, write: &dyn Fn(&mut Writer)| {
            if present {
                let mut value = Writer::default();
                write(&mut value);
                writer.u8(tag).bytes(&value.finish());
            }
        };
        let launch = &self.launch;
        let number = |value: Option<u64>| move |writer: &mut Writer| _ = writer.u64(value.unwrap_or_default());
        field(NAME, true, &|writer| _ = writer.bytes(self.name.as_bytes()));
        field(VERSION_TEXT, !self.version.is_empty(), &|writer| _ = writer.bytes(self.version.as_bytes()));
        field(PLATFORM, true, &|writer| _ = writer.bytes(self.platform.as_bytes()));
        field(ROOT, true, &|writer| _ = writer.digest(self.root.as_bytes()));
        field(VARIANT, !self.variant.is_empty(), &|writer| _ = writer.bytes(self.variant.as_bytes()));
        field(COMMAND, !launch.command.is_empty(), &|writer| {
            launch.command.iter().for_each(|word| _ = writer.bytes(word));
        });
        field(ENVIRONMENT, !launch.environment.is_empty(), &|writer| {
            launch.environment.iter().for_each(|(name, value)| _ = writer.bytes(name).bytes(value));
        });
        field(DIRECTORY, launch.directory.is_some(), &|writer| {
            _ = writer.bytes(launch.directory.as_deref().unwrap_or_default());
        });
        // Two numbers are what users were at first.
        let ids = match &launch.user {
            Some(User { user: Account::Id(uid), group: Some(Account::Id(gid)) }) => Some((*uid, *gid)),
            _ => None,
        };
        field(USER, ids.is_some(), &|writer| {
            let (uid, gid) = ids.unwrap_or_default();
            writer.u32(uid).u32(gid);
        });
        field(MEMORY, launch.limits.memory.is_some(), &number(launch.limits.memory));
        field(CPU, launch.limits.cpu_millis.is_some(), &number(launch.limits.cpu_millis));
        field(PIDS, launch.limits.pids.is_some(), &number(launch.limits.pids));
        field(TIMEOUT, launch.limits.timeout_millis.is_some(), &number(launch.limits.timeout_millis));
        let ports = |protocol| {
            launch
                .ports
                .iter()
                .filter(move |port| port.protocol == protocol)
                .map(|port| port.number)
                .collect::<Vec<u16>>()
        };
        let (tcp, udp) = (ports(Protocol::Tcp), ports(Protocol::Udp));
        field(PORTS, !tcp.is_empty(), &|writer| tcp.iter().for_each(|port| _ = writer.u16(*port)));
        field(NETWORK, launch.network, &|_| {});
        field(ENTRYPOINT, !launch.entrypoint.is_empty(), &|writer| {
            launch.entrypoint.iter().for_each(|word| _ = writer.bytes(word));
        });
        let text = |value: Option<String>| {
            move |writer: &mut Writer| _ = writer.bytes(value.as_deref().unwrap_or_default().as_bytes())
        };
        let by_name = launch.user.as_ref().filter(|_| ids.is_none()).map(User::to_string);
        field(USER_BY_NAME, by_name.is_some(), &text(by_name.clone()));
        field(UDP_PORTS, !udp.is_empty(), &|writer| udp.iter().for_each(|port| _ = writer.u16(*port)));
        let stop_signal = launch.stop_signal.as_ref().map(Signal::to_string);
        field(STOP_SIGNAL, stop_signal.is_some(), &text(stop_signal.clone()));
        field(LABELS, !launch.labels.is_empty(), &|writer| {
            launch.labels.iter().for_each(|(key, value)| _ = writer.bytes(key.as_bytes()).bytes(value.as_bytes()));
        });
        field(CAPABILITIES, !launch.capabilities.is_empty(), &|writer| {
            launch.capabilities.names().iter().for_each(|name| _ = writer.bytes(name.as_bytes()));
        });
        writer.finish()
    }

    /// Reads an encoding; whatever is not the one canonical form, or has a field that this forge does not know, is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("formation version")? != VERSION {
            return Err(DecodeError { what: "formation version", offset: 0 });
        }
        let (mut name, mut version, mut platform, mut root) = (None, String::new(), None, None);
        let mut variant = String::new();
        let mut launch = Launch::default();
        while !reader.at_end() {
            let at = reader.bad("formation field");
            let tag = reader.u8("formation field")?;
            let mut value = Reader::new(reader.bytes("formation field")?);
            match tag {
                NAME => name = Some(value.text("name")?),
                VERSION_TEXT => version = value.text("version")?,
                PLATFORM => platform = Some(value.text("platform")?),
                ROOT => root = Some(TreeId::from_bytes(value.digest("root")?)),
                VARIANT => variant = Some(value.text("variant")?).filter(|text| is_variant(text)).ok_or(at)?,
                COMMAND => {
                    while !value.at_end() {
                        launch.command.push(value.bytes("command")?.to_vec());
                    }
                }
                ENVIRONMENT => {
                    while !value.at_end() {
                        let name = value.bytes("environment")?.to_vec();
                        launch.environment.insert(name, value.bytes("environment")?.to_vec());
                    }
                }
                DIRECTORY => launch.directory = Some(value.bytes("directory")?.to_vec()),
                USER => launch.user = Some(User::ids(value.u32("user")?, value.u32("group")?)),
                MEMORY => launch.limits.memory = Some(value.u64("memory limit")?),
                CPU => launch.limits.cpu_millis = Some(value.u64("cpu limit")?),
                PIDS => launch.limits.pids = Some(value.u64("pids limit")?),
                TIMEOUT => launch.limits.timeout_millis = Some(value.u64("timeout")?),
                PORTS => {
                    while !value.at_end() {
                        launch.ports.insert(Port { number: value.u16("port")?, protocol: Protocol::Tcp });
                    }
                }
                NETWORK => launch.network = true,
                ENTRYPOINT => {
                    while !value.at_end() {
                        launch.entrypoint.push(value.bytes("entrypoint")?.to_vec());
                    }
                }
                USER_BY_NAME => launch.user = Some(value.text("user")?.parse().map_err(|_| at)?),
                UDP_PORTS => {
                    while !value.at_end() {
                        launch.ports.insert(Port { number: value.u16("port")?, protocol: Protocol::Udp });
                    }
                }
                STOP_SIGNAL => launch.stop_signal = Some(value.text("stop signal")?.parse().map_err(|_| at)?),
                CAPABILITIES => {
                    while !value.at_end() {
                        let one = Capabilities::named(&value.text("capability")?).ok_or_else(|| at.clone())?;
                        launch.capabilities = launch.capabilities.with(one);
                    }
                }
                LABELS => {
                    while !value.at_end() {
                        let key = Some(value.text("label")?).filter(|key| !key.is_empty()).ok_or_else(|| at.clone())?;
                        launch.labels.insert(key, value.text("label")?);
                    }
                }
                _ => return Err(at),
            }
            value.end()?;
        }
        let missing = |what| DecodeError { what, offset: bytes.len() };
        let formation = Self {
            name: name.ok_or(missing("name"))?,
            version,
            variant,
            platform: platform.ok_or(missing("platform"))?,
            root: root.ok_or(missing("root"))?,
            launch,
        };
        // Order, duplicates and absent-but-written settings show as a different encoding.
        if formation.encode() == bytes { Ok(formation) } else { Err(missing("formation encoding")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::Tree;

    fn formation(launch: Launch) -> Formation {
        let (name, platform) = ("hello".to_owned(), "linux/amd64".to_owned());
        let (version, variant) = (String::new(), String::new());
        Formation { name, version, variant, platform, root: Tree::empty().id(), launch }
    }

    /// Every setting that there was in the beginning.
    fn everything_at_first() -> Launch {
        Launch {
            command: vec![b"python3".to_vec(), vec![0xff]],
            environment: BTreeMap::from([(b"A".to_vec(), b"".to_vec())]),
            directory: Some(b"/app".to_vec()),
            user: Some(User::ids(1000, 1000)),
            limits: Limits { memory: Some(1 << 29), cpu_millis: Some(1500), pids: Some(64), timeout_millis: Some(1) },
            ports: BTreeSet::from(["80", "8080"].map(|port| port.parse().unwrap())),
            network: true,
            ..Launch::default()
        }
    }

    /// Every setting.
    fn everything() -> Launch {
        let mut launch = everything_at_first();
        launch.entrypoint = vec![b"/entry".to_vec(), b"".to_vec()];
        launch.user = Some("web:4".parse().unwrap());
        launch.ports.insert("53/udp".parse().unwrap());
        launch.stop_signal = Some("SIGRTMIN+3".parse().unwrap());
        launch.labels =
            BTreeMap::from([("org.example.team".to_owned(), "söme".to_owned()), ("a".to_owned(), String::new())]);
        launch
    }

    /// These digests are what people write down. A change here is a change of format.
    #[test]
    fn digests_are_pinned() {
        let mut variant = formation(everything());
        variant.variant = "cuda".to_owned();
        let at_first = [Launch::default(), everything_at_first()].map(formation);
        let capable = formation(Launch { capabilities: Capabilities::named("NET_RAW").unwrap(), ..Launch::default() });
        let digests = [at_first.as_slice(), &[formation(everything()), variant, capable]].concat();
        let digests: Vec<String> = digests.iter().map(|formation| formation.id().to_string()).collect();
        assert_eq!(
            digests,
            [
                "c739b4fbe89ceaedfe5a2b9738d8245e50744dc0bbc9ec39940c699f70541f18",
                "0f5216d437280da4e69d1da5b778ba54017c1ac270fc4f1c13aafa0bbb25c4f8",
                "fabfc42b2613d75637a5dc6608f0df7406d984ed7fdbf315c876004862f2a33c",
                "eb5c8eebc284e8e4b997fda00f93b1041dc4eb1fb407c526e0fe1461b5d7373c",
                "65cae905562042e4b438773e2f7027f9936523921b6aa313b60319294ab17efb",
            ]
        );
    }

    #[test]
    fn a_formation_reads_back() {
        let capable = Launch { capabilities: Capabilities::ALL, ..Launch::default() };
        for formation in [formation(Launch::default()), formation(everything()), formation(capable)] {
            let encoded = formation.encode();
            assert_eq!(Formation::decode(&encoded).unwrap(), formation);
            for length in 0..encoded.len() {
                let _ = Formation::decode(&encoded[..length]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            noise in prop::collection::vec(any::<u8>(), 0..100),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut near = formation(everything()).encode();
            for (index, byte) in changes {
                let index = index.index(near.len());
                near[index] = byte;
            }
            for bytes in [noise, near] {
                if let Ok(formation) = Formation::decode(&bytes) {
                    prop_assert_eq!(formation.encode(), bytes);
                }
            }
        }
    }

    #[test]
    fn fields_out_of_order_are_refused() {
        let mut encoded = formation(Launch { network: true, ..Launch::default() }).encode();
        let network = encoded.split_off(encoded.len() - 5);
        encoded.splice(1..1, network);
        assert!(Formation::decode(&encoded).is_err());
    }

    #[test]
    fn a_setting_has_one_spelling() {
        let refused = [
            (USER_BY_NAME, "1000:1000"),
            (USER_BY_NAME, "01000"),
            (STOP_SIGNAL, "TERM"),
            (VARIANT, "a-b"),
            (VARIANT, ""),
        ];
        for (tag, text) in refused {
            let mut encoded = formation(Launch::default()).encode();
            let mut value = Writer::default();
            value.bytes(text.as_bytes());
            let mut field = Writer::default();
            field.u8(tag).bytes(&value.finish());
            encoded.extend(field.finish());
            assert!(Formation::decode(&encoded).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_never_taken_for_a_digest() {
        assert!(is_name("analysis") && is_name("a") && is_name("py3.11-ml") && is_name("facade-x") && is_name("face"));
        assert!(!is_name("facade") && !is_name("") && !is_name("-a") && !is_name("a/b") && !is_name(&"a".repeat(129)));
    }
}
