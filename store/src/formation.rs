//! What a formation is: one merged root and the way to run it, named by the digest of its canonical encoding.
//!
//! A setting that is absent encodes as nothing, so settings can be added without changing any id. How the root came to be
//! layered, the package list and provenance are records attached to the formation, outside the identity.
//! The bytes are drawn in `docs/formats/formation.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{FORMATION_CONTEXT, FormationId, TreeId};
use crate::encoding::{DecodeError, Reader, Writer};

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
    /// Program and arguments; bytes, without NUL.
    pub command: Vec<Vec<u8>>,
    /// The whole environment: nothing of the host's is added but `TERM` on a terminal.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Working directory, absolute; `/` if absent.
    pub directory: Option<Vec<u8>>,
    /// User and group id; root if absent.
    pub user: Option<(u32, u32)>,
    /// Bounds of a run.
    pub limits: Limits,
    /// TCP ports the program listens on.
    pub ports: BTreeSet<u16>,
    /// The program wants the host's network; none is given otherwise.
    pub network: bool,
}

/// One merged root and the way to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    /// Lower-case letters, digits, `.`, `_` and `-`, as [`is_name`] checks.
    pub name: String,
    /// May be empty.
    pub version: String,
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

const VERSION: u8 = 1;
const NAME: u8 = 1;
const VERSION_TEXT: u8 = 2;
const PLATFORM: u8 = 3;
const ROOT: u8 = 4;
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

impl Formation {
    /// The digest of the canonical encoding.
    pub fn id(&self) -> FormationId {
        Self::id_of(&self.encode())
    }

    /// The id of the formation with this encoding.
    pub fn id_of(encoded: &[u8]) -> FormationId {
        FormationId::from_bytes(blake3::derive_key(FORMATION_CONTEXT, encoded))
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
        field(COMMAND, !launch.command.is_empty(), &|writer| {
            launch.command.iter().for_each(|word| _ = writer.bytes(word));
        });
        field(ENVIRONMENT, !launch.environment.is_empty(), &|writer| {
            launch.environment.iter().for_each(|(name, value)| _ = writer.bytes(name).bytes(value));
        });
        field(DIRECTORY, launch.directory.is_some(), &|writer| {
            _ = writer.bytes(launch.directory.as_deref().unwrap_or_default());
        });
        field(USER, launch.user.is_some(), &|writer| {
            let (uid, gid) = launch.user.unwrap_or_default();
            writer.u32(uid).u32(gid);
        });
        field(MEMORY, launch.limits.memory.is_some(), &number(launch.limits.memory));
        field(CPU, launch.limits.cpu_millis.is_some(), &number(launch.limits.cpu_millis));
        field(PIDS, launch.limits.pids.is_some(), &number(launch.limits.pids));
        field(TIMEOUT, launch.limits.timeout_millis.is_some(), &number(launch.limits.timeout_millis));
        field(PORTS, !launch.ports.is_empty(), &|writer| launch.ports.iter().for_each(|port| _ = writer.u16(*port)));
        field(NETWORK, launch.network, &|_| {});
        writer.finish()
    }

    /// Reads an encoding; whatever is not the one canonical form, or has a field that this forge does not know, is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("formation version")? != VERSION {
            return Err(DecodeError { what: "formation version", offset: 0 });
        }
        let (mut name, mut version, mut platform, mut root) = (None, String::new(), None, None);
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
                USER => launch.user = Some((value.u32("user")?, value.u32("group")?)),
                MEMORY => launch.limits.memory = Some(value.u64("memory limit")?),
                CPU => launch.limits.cpu_millis = Some(value.u64("cpu limit")?),
                PIDS => launch.limits.pids = Some(value.u64("pids limit")?),
                TIMEOUT => launch.limits.timeout_millis = Some(value.u64("timeout")?),
                PORTS => {
                    while !value.at_end() {
                        launch.ports.insert(value.u16("port")?);
                    }
                }
                NETWORK => launch.network = true,
                _ => return Err(at),
            }
            value.end()?;
        }
        let missing = |what| DecodeError { what, offset: bytes.len() };
        let formation = Self {
            name: name.ok_or(missing("name"))?,
            version,
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
        Formation { name, version: String::new(), platform, root: Tree::empty().id(), launch }
    }

    /// Every setting.
    fn everything() -> Launch {
        Launch {
            command: vec![b"python3".to_vec(), vec![0xff]],
            environment: BTreeMap::from([(b"A".to_vec(), b"".to_vec())]),
            directory: Some(b"/app".to_vec()),
            user: Some((1000, 1000)),
            limits: Limits { memory: Some(1 << 29), cpu_millis: Some(1500), pids: Some(64), timeout_millis: Some(1) },
            ports: BTreeSet::from([80, 8080]),
            network: true,
        }
    }

    /// These digests are what people write down. A change here is a change of format.
    #[test]
    fn digests_are_pinned() {
        let digests = [Launch::default(), everything()].map(|launch| formation(launch).id().to_string());
        assert_eq!(
            digests,
            [
                "c739b4fbe89ceaedfe5a2b9738d8245e50744dc0bbc9ec39940c699f70541f18",
                "0f5216d437280da4e69d1da5b778ba54017c1ac270fc4f1c13aafa0bbb25c4f8"
            ]
        );
    }

    #[test]
    fn a_formation_reads_back() {
        for formation in [formation(Launch::default()), formation(everything())] {
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
    fn a_name_is_never_taken_for_a_digest() {
        assert!(is_name("analysis") && is_name("a") && is_name("py3.11-ml") && is_name("facade-x") && is_name("face"));
        assert!(!is_name("facade") && !is_name("") && !is_name("-a") && !is_name("a/b") && !is_name(&"a".repeat(129)));
    }
}
