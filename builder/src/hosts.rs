//! What of the network a step reaches that must give a known result: the hosts that it names, and nothing else.
//!
//! A host is named by an address in the step's environment or arguments (`https://host.example:8443/file`), or by a word of
//! `allowedHosts`: `host.example` (ports 80 and 443), `host.example:8443`, `*.host.example`, or `*` for every name. The step's own network
//! stays closed. Inside, names are answered by us ([`names`]): each that is allowed has an address of its own in 127.128.0.0/9, and what
//! connects there is passed on to the host of that name ([`doorkeeper`]). So no program has to know of it, certificates are
//! checked by who made the connection, and what is not named has neither an address nor a route.
//!
//! `docs/why/hosts.md` says why so, and what does not work.

pub mod doorkeeper;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

/// The attribute that names hosts beside those in addresses.
pub const ATTRIBUTE: &str = "allowedHosts";
/// Ports of a host that is named without one.
const USUAL_PORTS: [u16; 2] = [80, 443];
/// More ports than that nobody means; each is a socket.
const MOST_PORTS: usize = 64;

/// Hosts, and which of their ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Lower case; `*.domain` stands for every name below it, `*` for every name.
    ports: BTreeMap<String, BTreeSet<u16>>,
}

impl Hosts {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Adds every host whose address stands somewhere in a text.
    pub fn add_addresses(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        for (at, _) in text.match_indices("://") {
            let before = &text[..at];
            let is_scheme = |character: char| character.is_ascii_alphanumeric() || "+.-".contains(character);
            let scheme = &before[before.trim_end_matches(is_scheme).len()..];
            let Some(port) = usual_port(scheme) else { continue };
            let rest = &text[at + 3..];
            let is_end = |character: char| {
                character.is_whitespace() || character.is_control() || "/?#\"'`<>\\|{}()[],;".contains(character)
            };
            let authority = rest.split(is_end).next().unwrap_or_default();
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let (name, port) = match host.rsplit_once(':') {
                Some((name, digits)) => (name, digits.parse().unwrap_or(port)),
                None => (host, port),
            };
            self.add(name, &[port]);
        }
    }

    /// Adds what a word of `allowedHosts` names; or says why it names nothing.
    pub fn add_word(&mut self, word: &str) -> Result<(), String> {
        let (name, ports) = match word.rsplit_once(':') {
            Some((name, port)) => {
                let port: u16 = port.parse().map_err(|_| format!("`{word}`: `{port}` is no port"))?;
                (name, vec![port])
            }
            None => (word, USUAL_PORTS.to_vec()),
        };
        if self.add(name, &ports) {
            Ok(())
        } else {
            Err(format!("`{word}` is no host: HOST, HOST:PORT, *.DOMAIN or *"))
        }
    }

    fn add(&mut self, name: &str, ports: &[u16]) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let plain = name.strip_prefix("*.").unwrap_or(&name);
        let is_good = name == "*"
            || !plain.is_empty()
                && plain.len() <= 253
                && plain.split('.').all(|label| {
                    (1..=63).contains(&label.len())
                        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
                });
        let ports: Vec<u16> = ports.iter().copied().filter(|port| *port != 0).collect();
        let all: BTreeSet<u16> = self.listened().into_iter().chain(ports.iter().copied()).collect();
        let is_good = is_good && !ports.is_empty() && all.len() <= MOST_PORTS;
        if is_good {
            self.ports.entry(name).or_default().extend(ports);
        }
        is_good
    }

    /// Whether a name is named, on whatever port.
    pub fn allows_name(&self, name: &str) -> bool {
        self.matching(name).next().is_some()
    }

    /// Whether a port of a host may be reached.
    pub fn allows(&self, name: &str, port: u16) -> bool {
        self.matching(name).any(|ports| ports.contains(&port))
    }

    /// What patterns that a name matches say.
    fn matching<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a BTreeSet<u16>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.ports.iter().filter_map(move |(pattern, ports)| {
            let matches = match pattern.strip_prefix('*') {
                Some(domain) => name.len() > domain.len() && name.ends_with(domain),
                None => *pattern == name,
            };
            matches.then_some(ports)
        })
    }

    /// Every port that some host is reached at.
    pub fn listened(&self) -> Vec<u16> {
        self.ports.values().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Names without a pattern.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.ports.keys().map(String::as_str).filter(|name| !name.starts_with('*'))
    }
}

/// The port of an address without one.
fn usual_port(scheme: &str) -> Option<u16> {
    // `git+https`: what comes last is spoken.
    match scheme.rsplit('+').next()?.to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        "ftp" => Some(21),
        "ssh" | "sftp" => Some(22),
        "git" => Some(9418),
        "rsync" => Some(873),
        "svn" => Some(3690),
        _ => None,
    }
}
