//! What of the network a run sees, and who sees it: ports, names, addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use executor::{Content, Network, Published};
use store::{Formation, Launch, Port, Store};

use super::bad;
use crate::args::{NetworkChoice, RunOptions};
use crate::error::{Failure, Result, code};

/// The command line's choice, else the formation's.
pub fn choose(launch: &Launch, options: &RunOptions) -> Network {
    match options.network {
        Some(NetworkChoice::None) => Network::None,
        Some(NetworkChoice::Host) => Network::Host,
        None if launch.network => Network::Host,
        None => Network::None,
    }
}

/// The formation's ports and those given beside them.
pub fn ports(formation: &Formation, options: &RunOptions) -> Result<BTreeSet<Port>> {
    let mut ports = formation.launch.ports.clone();
    for text in &options.ports {
        ports.insert(publish(text)?.inside);
    }
    Ok(ports)
}

/// The ports of a closed network that the host's side reaches.
pub fn published(formation: &Formation, options: &RunOptions, network: Network) -> Result<Vec<Published>> {
    let mut published = options.ports.iter().map(|text| publish(text)).collect::<Result<Vec<_>>>()?;
    if options.publish_all {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let all = formation.launch.ports.iter();
        published.extend(all.map(|port| Published { address: here, outside: port.number, inside: *port }));
        published.dedup();
    }
    if network == Network::Host {
        // The program listens on the host itself: a port cannot be another one there.
        if let Some(port) = published.iter().find(|port| port.outside != port.inside.number) {
            let failure = Failure::new(code::USAGE, format!("--port {port}: the program is on the host's own network"));
            return Err(failure.hint("--network none gives it one of its own, whose ports can be others outside"));
        }
        return Ok(Vec::new());
    }
    for (index, port) in published.iter().enumerate() {
        if published[..index].iter().any(|other| is_same_outside(port, other)) {
            let failure = Failure::new(code::USAGE, format!("--port {port}: that port of the host is given twice"));
            return Err(failure.hint("each needs a port of its own outside, as 8081:80 beside 8080:80"));
        }
    }
    Ok(published)
}

/// Whether they cannot both be listened on: an address that stands for all of the machine's is in the way of each.
fn is_same_outside(one: &Published, other: &Published) -> bool {
    let (first, second) = (one.address, other.address);
    let is_all = first.is_unspecified() || second.is_unspecified();
    one.outside == other.outside
        && one.inside.protocol == other.inside.protocol
        && (first == second || (is_all && first.is_ipv4() == second.is_ipv4()))
}

/// `[[ADDRESS:]HOST:]PORT[/udp]`
fn publish(text: &str) -> Result<Published> {
    let wrong = || bad("--port", text, "[[ADDRESS:]HOST:]PORT[/udp], ports from 1 to 65535,");
    let (address, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once("]:").ok_or_else(wrong)?;
            (Some(address), rest)
        }
        None => match text.splitn(3, ':').collect::<Vec<_>>().as_slice() {
            [address, ..] if text.matches(':').count() == 2 => (Some(*address), &text[address.len() + 1..]),
            _ => (None, text),
        },
    };
    let (outside, inside) = match rest.split_once(':') {
        Some((outside, inside)) => (Some(outside), inside),
        None => (None, rest),
    };
    let inside: Port = inside.parse().map_err(|_| wrong())?;
    let outside = match outside {
        Some(outside) => outside.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        None if address.is_some() => return Err(wrong()),
        None => inside.number,
    };
    let address = match address {
        Some(address) => address.parse().map_err(|_| wrong())?,
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    Ok(Published { address, outside, inside })
}

/// The host name inside.
pub fn hostname(formation: &Formation, options: &RunOptions) -> Result<String> {
    let Some(name) = &options.hostname else { return Ok(formation.name.chars().take(63).collect()) };
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_good) {
        return Err(bad("--hostname", name, "1 to 64 letters, digits, `.` and `-`"));
    }
    Ok(name.clone())
}

/// /etc/hosts with the names that are added, if there are any.
pub fn hosts(store: &Store, formation: &Formation, options: &RunOptions, network: Network) -> Result<Vec<Content>> {
    if options.add_host.is_empty() {
        return Ok(Vec::new());
    }
    const LOOPBACK: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n";
    let before = match network {
        Network::Host => std::fs::read("/etc/hosts").ok(),
        // A larger one is none of names.
        Network::None => store.content_at(formation.root, b"/etc/hosts", 1 << 20)?,
    };
    let mut bytes = before.filter(|bytes| !bytes.is_empty()).unwrap_or_else(|| LOOPBACK.to_vec());
    if !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    for text in &options.add_host {
        let (name, address) = text.split_once(['=', ':']).ok_or_else(|| bad("--add-host", text, "NAME:ADDRESS"))?;
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let address: IpAddr = address.parse().map_err(|_| bad("--add-host", text, "NAME:ADDRESS"))?;
        if name.is_empty() || !name.bytes().all(is_good) {
            return Err(bad("--add-host", text, "NAME:ADDRESS"));
        }
        bytes.extend_from_slice(format!("{address}\t{name}\n").as_bytes());
    }
    Ok(vec![Content { target: "/etc/hosts".into(), bytes }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let read = |text: &str| publish(text).unwrap().to_string();
        assert_eq!(read("8080"), "127.0.0.1:8080->8080/tcp");
        assert_eq!(read("80:8080"), "127.0.0.1:80->8080/tcp");
        assert_eq!(read("0.0.0.0:53:5353/udp"), "0.0.0.0:53->5353/udp");
        assert_eq!(read("[::1]:80:81"), "[::1]:80->81/tcp");
        for bad in
            ["", "0", "80:", ":80", "0:80", "a:80", "1.2.3.4:80", "80/moon", "65536", "1:2:3:4", "[::1]:80", "x:1:2"]
        {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }
}
