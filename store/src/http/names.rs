//! Names of hosts, each looked up once: a hundred downloads from one mirror ask the name server once, not a hundred times.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Remembers what the system's resolver said, for the length of a command.
#[derive(Debug, Default)]
pub struct Names {
    system: DefaultResolver,
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
        let answer = self.system.resolve(uri, config, timeout)?;
        known.insert(host, answer.to_vec());
        Ok(answer)
    }
}
