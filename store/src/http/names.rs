//! Names of hosts, each looked up once: a hundred downloads from one mirror ask the name server once, not a hundred times.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::dns;

/// As many as `ResolvedSocketAddrs` has room for.
const MOST_ADDRESSES: usize = 16;
/// Where ureq sets no time.
const LONGEST: Duration = Duration::from_secs(60);

/// Remembers what the name server said, for the length of a command.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<HashMap<String, Vec<SocketAddr>>>,
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = format!("{:?} {:?}", uri.scheme(), uri.authority());
        // Held while asking: who comes meanwhile waits for the answer instead of asking too.
        let mut known = self.known.lock().expect("no thread panicked");
        if let Some(addresses) = known.get(&host) {
            let mut answer = self.empty();
            addresses.iter().for_each(|address| answer.push(*address));
            return Ok(answer);
        }
        let wrong = || ureq::Error::BadUri(uri.to_string());
        let authority = uri.authority().ok_or_else(wrong)?;
        let default_port = match uri.scheme_str() {
            Some("http") => Some(80),
            Some("https") => Some(443),
            Some("socks4" | "socks4a" | "socks5" | "socks") => Some(1080),
            _ => None,
        };
        let port = authority.port_u16().or(default_port).ok_or_else(wrong)?;
        let most = if timeout.after.is_not_happening() { LONGEST } else { *timeout.after };
        let addresses = dns::addresses(Path::new("/"), authority.host(), most).map_err(|failure| match failure {
            dns::Failure::Unknown => ureq::Error::HostNotFound,
            dns::Failure::Silent(error)
                if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) =>
            {
                ureq::Error::Timeout(ureq::Timeout::Resolve)
            }
            dns::Failure::Silent(error) => ureq::Error::Io(error),
        })?;
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port));
        let mut answer = self.empty();
        config.ip_family().keep_wanted(addresses).take(MOST_ADDRESSES).for_each(|address| answer.push(address));
        if answer.is_empty() {
            return Err(ureq::Error::HostNotFound);
        }
        known.insert(host, answer.to_vec());
        Ok(answer)
    }
}
