//! A repository on another host, by `ssh`: git's own protocol with the program `git-upload-pack` there. The second version is
//! asked for (gitprotocol-v2(5)); where the host lets no variable through, the first is answered and spoken (gitprotocol-pack(5)).

use std::io::{self, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::thread::JoinHandle;

use super::object::ObjectId;
use super::pack::bad;
use super::remote::{Packet, packet, pkt};
use crate::fetch::percent_decode;
use crate::fetch::program::{self, Program};
use crate::{Builder, Result};

/// More references than this nobody has.
const MOST_REFERENCES: usize = 4 << 20;

/// Where to, as an `ssh:` address says it.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// `user@host`
    host: String,
    port: Option<String>,
    /// What is asked of the host.
    command: String,
}

impl Address {
    /// None where it is no address, or one that `ssh` would take for something else (CVE-2017-1000117).
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("ssh://")?;
        let (authority, path) = rest.split_at(rest.find('/')?);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?),
            None => host.split_once(':').unwrap_or((host, "")),
        };
        let is_odd = |text: &str| text.starts_with('-') || text.is_empty() || text.contains(char::is_whitespace);
        if is_odd(host) || user.is_some_and(is_odd) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // `/~user/…` is a home there.
        let path = String::from_utf8(percent_decode(path.split(['?', '#']).next()?)).ok()?;
        let path = path.strip_prefix('/').filter(|home| home.starts_with('~')).unwrap_or(&path);
        let path = path.replace('\'', "'\\''").replace('!', "'\\!'");
        Some(Self {
            host: user.map(|user| format!("{user}@")).unwrap_or_default() + host,
            port: Some(port.to_owned()).filter(|port| !port.is_empty()),
            command: format!("git-upload-pack '{path}'"),
        })
    }
}

/// What is spoken.
enum Version {
    First { references: Vec<(String, ObjectId)>, capabilities: String },
    Second,
}

/// A line that is open.
pub struct Line {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What the program says on its stderr.
    words: Option<JoinHandle<String>>,
    version: Version,
}

impl Drop for Line {
    fn drop(&mut self) {
        // It waits for the next request; there is none.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Line {
    /// Opens a line.
    pub fn open(builder: &Builder<'_>, url: &str) -> Result<Self> {
        let refused = |reason: &str| super::refused(url, reason);
        let address = Address::parse(url).ok_or_else(|| refused("this is no address that `ssh` can be given"))?;
        let machine = builder.machine;
        let by_shell = machine.variable("GIT_SSH_COMMAND");
        let named = by_shell.or(machine.variable("GIT_SSH")).unwrap_or("ssh");
        let mut arguments = Vec::new();
        let first = named.split_whitespace().next().unwrap_or_default();
        if first.rsplit('/').next() == Some("ssh") {
            arguments.extend(["-o".to_owned(), "SendEnv=GIT_PROTOCOL".to_owned()]);
        }
        arguments.extend(address.port.into_iter().flat_map(|port| ["-p".to_owned(), port]));
        arguments.extend([address.host, address.command]);
        let program = match by_shell {
            Some(text) => Program::new("sh").arguments(["-c".to_owned(), format!("{text} \"$@\""), text.to_owned()]),
            None => Program::new(named),
        };
        let mut command = program.arguments(arguments).variable("GIT_PROTOCOL", "version=2").command(machine);
        let mut child = command.spawn().map_err(|error| program::not_started(named, "a repository by ssh", error))?;
        let (Some(input), Some(output), Some(words)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(refused("the program has no pipes"));
        };
        let words = Some(std::thread::spawn(move || program::last_words(words)));
        let output = BufReader::with_capacity(1 << 16, output);
        let mut line = Self { child, input, output, words, version: Version::Second };
        match line.greet() {
            Ok(version) => line.version = version,
            Err(error) => return Err(refused(&line.failure(&error))),
        }
        Ok(line)
    }

    /// Why it failed: what the program says, if it says anything.
    pub fn failure(&mut self, error: &io::Error) -> String {
        let _ = self.child.kill();
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        if words.is_empty() { error.to_string() } else { words }
    }

    fn greet(&mut self) -> io::Result<Version> {
        let mut references = Vec::new();
        let mut capabilities = String::new();
        let mut second = false;
        loop {
            let data = match packet(&mut self.output)? {
                Some(Packet::Data(data)) => data,
                Some(_) => break,
                None => return Err(bad("it ends before it said anything")),
            };
            let text = String::from_utf8_lossy(&data).trim_end().to_owned();
            if text == "version 2" {
                second = true;
            } else if second {
                if text.starts_with("object-format=") && text != "object-format=sha1" {
                    return Err(bad("its objects are not named by SHA-1"));
                }
            } else if let Some((id, name)) = text.split_once(' ').filter(|(word, _)| *word != "version") {
                let (name, more) = name.split_once('\0').unwrap_or((name, ""));
                if references.is_empty() && capabilities.is_empty() {
                    capabilities = format!(" {more} ");
                }
                let id = ObjectId::parse(id).ok_or_else(|| bad("the answer is not of git's protocol"))?;
                references.push((name.to_owned(), id));
                if references.len() > MOST_REFERENCES {
                    return Err(bad("it has too many references"));
                }
            }
        }
        Ok(if second { Version::Second } else { Version::First { references, capabilities } })
    }

    /// The references, if they were said already; tags by what they are of.
    pub fn references(&self) -> Option<Vec<(String, ObjectId)>> {
        let Version::First { references, .. } = &self.version else { return None };
        let mut peeled: Vec<(String, ObjectId)> = Vec::new();
        for (name, id) in references {
            match (name.strip_suffix("^{}"), peeled.last_mut()) {
                (Some(tag), Some(last)) if last.0 == tag => last.1 = *id,
                _ => peeled.push((name.clone(), *id)),
            }
        }
        Some(peeled)
    }

    /// Whether the first version is spoken.
    pub fn is_first(&self) -> bool {
        matches!(self.version, Version::First { .. })
    }

    /// How objects are asked for in the first version.
    pub fn first_request(&self, wanted: &[ObjectId], depth: Option<u32>) -> io::Result<Vec<u8>> {
        let Version::First { capabilities, .. } = &self.version else { return Ok(Vec::new()) };
        let has = |name: &str| capabilities.contains(&format!(" {name} "));
        if !has("side-band-64k") {
            return Err(bad("its git is older than version 1.5"));
        }
        let known = ["side-band-64k", "ofs-delta", "no-progress", "shallow"].into_iter().filter(|name| has(name));
        let known: Vec<&str> = known.collect();
        let mut request = Vec::new();
        for (number, id) in wanted.iter().enumerate() {
            let capabilities = if number == 0 { format!(" {}", known.join(" ")) } else { String::new() };
            request.extend(pkt(&format!("want {id}{capabilities}")));
        }
        let depth = depth.filter(|_| has("shallow"));
        request.extend(depth.map(|depth| pkt(&format!("deepen {depth}"))).unwrap_or_default());
        request.extend(b"0000");
        request.extend(pkt("done"));
        Ok(request)
    }

    /// Sends a request; its answer comes next.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.input.write_all(request)?;
        self.input.flush()
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_host_port_and_path() {
        let read = |url: &str| Address::parse(url).map(|address| (address.host, address.port, address.command));
        let some = |host: &str, port: Option<&str>, path: &str| {
            Some((host.to_owned(), port.map(str::to_owned), format!("git-upload-pack {path}")))
        };
        assert_eq!(read("ssh://git@host.example/a/b.git"), some("git@host.example", None, "'/a/b.git'"));
        assert_eq!(read("ssh://host.example:2222/~me/a%20b"), some("host.example", Some("2222"), "'~me/a b'"));
        assert_eq!(read("ssh://me@[::1]:22/x"), some("me@::1", Some("22"), "'/x'"));
        assert_eq!(read("ssh://h/it's!"), some("h", None, r"'/it'\''s'\!''"));
        for odd in [
            "ssh://-oProxyCommand=x/y",
            "ssh://-x@h/y",
            "ssh://h",
            "ssh://h:x/y",
            "ssh:///y",
            "ssh://a b/y",
            "https://h/y",
        ] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
