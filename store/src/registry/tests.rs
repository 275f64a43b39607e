//! Registries that behave, and registries that do not, each a few lines on a loopback port.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::login::{LoginFile, Logins};
use super::*;
use crate::format::oci::descriptor::{Descriptor, Digest, Index, media, to_json};
use crate::format::{Bounds, Options};
use crate::http::{Client, Patience};
use crate::{File, Formation, FormationId, Launch, Metadata, Name, Node, Store, Tree};

mod hostile;
mod moving;
mod shown;

/// A request as it came.
#[derive(Debug, Clone, Default)]
struct Asked {
    method: String,
    /// With the query.
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A field of the query.
    fn query(&self, name: &str) -> Option<String> {
        let query = self.path.split_once('?')?.1;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Sends only so much of the body and hangs up.
    cut: Option<usize>,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A server that does what a function says; it ends with the test.
struct Server {
    host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
}

impl Server {
    fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, end) = (Arc::clone(&asked), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                std::thread::spawn(move || while serve(&stream, &*handler, &log).is_some() {});
            }
        });
        Self { host, asked, ended }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often something was asked for.
    fn count(&self, method: &str, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.method == method && asked.path.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
    }
}

/// One request and its answer; nothing once the connection is to be closed.
fn serve(stream: &TcpStream, handler: &Handler, log: &Mutex<Vec<Asked>>) -> Option<()> {
    // Head and body go out at once; else each answer waits for the client's acknowledgement.
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let mut asked = Asked { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Asked::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = asked.header("content-length").parse().unwrap_or(0);
    (&mut reader).take(length).read_to_end(&mut asked.body).ok()?;
    log.lock().unwrap().push(asked.clone());
    let reply = handler(&asked);
    let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
    // Nothing at all is answered.
    if reply.status == 0 {
        return None;
    }
    let named = |name: &str| reply.headers.iter().any(|(known, _)| known == name);
    if !named("transfer-encoding") && reply.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if asked.method != "HEAD" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())]).ok()?;
    }
    reply.cut.is_none().then_some(())
}

type Typed = (String, Vec<u8>);

/// What a registry that behaves holds: blobs and manifests by digest, manifests by tag too.
#[derive(Default)]
struct Shelf {
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    /// By repository and name: media type and bytes.
    manifests: Mutex<HashMap<(String, String), Typed>>,
    uploads: Mutex<HashMap<String, Vec<u8>>>,
    referrers: bool,
}

impl Shelf {
    fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.path.split('?').next().unwrap();
        let Some(rest) = path.strip_prefix("/v2/").filter(|rest| !rest.is_empty()) else {
            return Reply::new(200, "{}");
        };
        let parts: Vec<&str> = rest.split('/').collect();
        match (asked.method.as_str(), parts.as_slice()) {
            ("HEAD" | "GET", [.., "blobs", digest]) => match self.blobs.lock().unwrap().get(*digest) {
                Some(bytes) => ranged(asked, bytes),
                None => Reply::new(404, ""),
            },
            ("HEAD" | "GET", [repository @ .., "manifests", name]) => {
                let key = (repository.join("/"), (*name).to_owned());
                match self.manifests.lock().unwrap().get(&key) {
                    Some((kind, bytes)) => Reply::new(200, bytes.clone())
                        .with("content-type", kind.clone())
                        .with("docker-content-digest", Digest::of(bytes).to_string()),
                    None => Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such manifest"}]}"#),
                }
            }
            ("PUT", [repository @ .., "manifests", name]) => {
                let value = (asked.header("content-type").to_owned(), asked.body.clone());
                let mut manifests = self.manifests.lock().unwrap();
                let digest = Digest::of(&asked.body).to_string();
                manifests.insert((repository.join("/"), (*name).to_owned()), value.clone());
                manifests.insert((repository.join("/"), digest), value);
                let reply = Reply::new(201, "");
                match self.referrers && String::from_utf8_lossy(&asked.body).contains("\"subject\"") {
                    true => reply.with("oci-subject", "yes"),
                    false => reply,
                }
            }
            ("POST", [repository @ .., "blobs", "uploads", ""]) => {
                let mount = asked.query("mount").filter(|digest| self.blobs.lock().unwrap().contains_key(digest));
                if mount.is_some() && asked.query("from").is_some() {
                    return Reply::new(201, "");
                }
                let mut uploads = self.uploads.lock().unwrap();
                let name = format!("{}", uploads.len());
                uploads.insert(name.clone(), Vec::new());
                Reply::new(202, "")
                    .with("location", format!("/v2/{}/blobs/uploads/{name}?state=x", repository.join("/")))
            }
            ("PATCH", [.., "uploads", name]) => {
                let mut uploads = self.uploads.lock().unwrap();
                let upload = uploads.get_mut(*name).unwrap();
                upload.extend_from_slice(&asked.body);
                Reply::new(202, "")
                    .with("location", asked.path.clone())
                    .with("range", format!("0-{}", upload.len() - 1))
            }
            ("PUT", [.., "uploads", name]) => {
                let mut bytes = self.uploads.lock().unwrap().remove(*name).unwrap_or_default();
                bytes.extend_from_slice(&asked.body);
                let digest = asked.query("digest").unwrap();
                if Digest::of(&bytes).to_string() != digest {
                    return Reply::new(400, r#"{"errors":[{"code":"DIGEST_INVALID","message":"not that digest"}]}"#);
                }
                self.blobs.lock().unwrap().insert(digest, bytes);
                Reply::new(201, "")
            }
            ("GET", [.., "uploads", name]) => {
                let length = self.uploads.lock().unwrap().get(*name).map_or(0, Vec::len);
                Reply::new(204, "").with("range", format!("0-{}", length.saturating_sub(1)))
            }
            ("GET", [repository @ .., "referrers", digest]) if self.referrers => {
                let manifests = self.manifests.lock().unwrap();
                let mut list = Vec::new();
                for ((of, name), (kind, bytes)) in manifests.iter() {
                    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                    if *of == repository.join("/")
                        && name.starts_with("sha256:")
                        && document["subject"]["digest"] == *digest
                    {
                        let artifact_type = document["artifactType"].as_str().map(str::to_owned);
                        list.push(Descriptor { artifact_type, ..Descriptor::of(kind, bytes) });
                    }
                }
                Reply::new(200, to_json(&Index::new(list)))
            }
            _ => Reply::new(404, ""),
        }
    }

    fn put_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.blobs.lock().unwrap().insert(digest.to_string(), bytes.to_vec());
        digest
    }

    fn put_manifest(&self, repository: &str, name: &str, kind: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        for name in [name.to_owned(), digest.to_string()] {
            self.manifests.lock().unwrap().insert((repository.to_owned(), name), (kind.to_owned(), bytes.to_vec()));
        }
        digest
    }
}

/// `Range: bytes=N-` as servers of files answer it.
fn ranged(asked: &Asked, bytes: &[u8]) -> Reply {
    let from = asked.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok());
    match from {
        Some(from) => Reply::new(206, bytes[from..].to_vec())
            .with("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        None => Reply::new(200, bytes.to_vec()),
    }
}

/// A store, and with what registries are asked.
struct World {
    store: Store,
    access: Access,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(Logins::default())
    }

    fn with(logins: Logins) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let access = Access {
            client: Client::new(
                Default::default(),
                Patience { connect: Duration::from_secs(1), silence: Duration::from_secs(20) },
            ),
            settings: Settings { logins, ..Settings::default() },
            listener: None,
        };
        Self { store: Store::open(directory.path().join("store")).unwrap(), access, directory }
    }

    /// The same access with another, empty store.
    fn emptied(self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open(directory.path().join("store")).unwrap(), access: self.access, directory }
    }

    /// A formation with one file of this content; called `app`, version 1.
    fn formation(&self, content: &[u8], platform: &str) -> FormationId {
        let blob = self.store.put_blob(content, false).unwrap();
        let file = Node::File(File { blob, size: content.len() as u64, metadata: Metadata::root(0o644) });
        let mut tree = Tree::empty();
        tree.entries.insert(Name::new("file").unwrap(), file);
        let root = self.store.put_tree(&tree).unwrap();
        let formation = Formation {
            name: "app".to_owned(),
            version: "1".to_owned(),
            variant: String::new(),
            platform: platform.to_owned(),
            root,
            launch: Launch { command: vec![b"cat".to_vec(), b"/file".to_vec()], ..Launch::default() },
        };
        self.store.put_formation(&formation, &Default::default()).unwrap()
    }

    fn push(&self, reference: &str, ids: &[FormationId]) -> crate::Result<Pushed> {
        let reference: Reference = reference.parse()?;
        let session = Session::new(&self.access, &reference);
        let options = Options { remembered: true, ..Options::default() };
        push(&self.store, &session, ids, &options, reference.tag.as_deref())
    }

    fn pull(&self, reference: &str) -> crate::Result<Pulled> {
        self.pull_platform(reference, None)
    }

    fn pull_platform(&self, reference: &str, platform: Option<&str>) -> crate::Result<Pulled> {
        let reference: Reference = reference.parse()?;
        pull(&self.store, &Session::new(&self.access, &reference), &reference, platform, None)
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// `user` and `password` for a host.
fn logins(host: &str) -> Logins {
    let auth = crate::nix::hash::to_base64(b"user:password");
    let text = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    Logins { files: vec![LoginFile { path: "auth.json".into(), text }], helper: None }
}
