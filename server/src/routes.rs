//! What each path answers: the questions of `store/src/peer/http.rs`, put to the store.

use std::io::{self, Read, Write};

use store::formation::is_name;
use store::nix::cache;
use store::peer::arriving::Broken;
use store::peer::message::{Below, Lacks, decode_items, read_question};
use store::peer::outgoing::{SendError, send};
use store::peer::{self, ObjectId, Realisation, Subject, answer};
use store::{BlobId, Error, FileHash, FormationId, Store};

use crate::Shared;
use crate::connection::{Request, Response};
use crate::tokens::Access;

/// A list of claims is never longer.
const MOST_LIST: u64 = 16 << 20;
/// One question is about so many things at most.
const MOST_SUBJECTS: usize = 100_000;

const OBJECTS: &str = "application/x-forge-objects";
const BINARY: &str = "application/octet-stream";
const JSON: &str = "application/json";

/// What one connection is offered.
pub struct Offer<'a> {
    /// Opened for this connection.
    pub store: &'a Store,
    /// The server.
    pub shared: &'a Shared,
}

/// Why something is not answered.
struct Refused(u16, String);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match &error {
            Error::NotFound { kind, id } => Self(404, format!("{kind} {id}\n")),
            Error::Malformed { .. } | Error::Ambiguous { .. } => Self(400, format!("{error}\n")),
            Error::File { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self(507, "the disk is full\n".to_owned())
            }
            // Where things lie here is nobody's business.
            Error::File { source, .. } => Self(500, format!("the store failed: {source}\n")),
            _ => Self(500, "the store failed\n".to_owned()),
        }
    }
}

impl From<peer::Error> for Refused {
    fn from(error: peer::Error) -> Self {
        match error {
            peer::Error::Store(error) => error.into(),
            error => Self(400, format!("{error}\n")),
        }
    }
}

fn refused(status: u16, words: &str) -> Refused {
    Refused(status, format!("{words}\n"))
}

/// Answers a request.
pub fn respond<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Response<'a> {
    let Some(access) = offer.shared.options.tokens.access(request.authorization.as_deref()) else {
        return Response::Text(401, "this token is not known\n".to_owned());
    };
    let known = request.authorization.is_some();
    match route(offer, request, access) {
        Ok(response) => response,
        Err(Refused(403, words)) if !known => Response::Text(401, words),
        Err(Refused(status, words)) => {
            if status >= 500 {
                (offer.shared.tell)(&format!("{} {}: {}", request.method, request.path, words.trim_end()));
            }
            Response::Text(status, words)
        }
    }
}

fn route<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>, access: Access) -> Result<Response<'a>, Refused> {
    let path = request.path.clone();
    if cache::is_of_a_cache(&path) && matches!(request.method.as_str(), "GET" | "HEAD") {
        return match access.read {
            true => nix_cache(offer, &path),
            false => Err(refused(403, "a token that may read is needed")),
        };
    }
    let Some(path) = path.strip_prefix("/v1/") else { return Err(refused(404, "no such place")) };
    let read = || if access.read { Ok(()) } else { Err(refused(403, "a token that may read is needed")) };
    let write = || if access.write { Ok(()) } else { Err(refused(403, "a token that may write is needed")) };
    match (request.method.as_str(), path) {
        ("GET" | "HEAD", "about") => about(access),
        ("GET" | "HEAD", path) => {
            read()?;
            match path.strip_prefix("formations/") {
                Some(given) => find(offer, given),
                None => Err(refused(404, "no such place")),
            }
        }
        ("POST", "below") => {
            read()?;
            below(offer, request)
        }
        ("POST", "objects/get") => {
            read()?;
            give(offer, request)
        }
        ("POST", "objects/put") => {
            write()?;
            take(offer, request)
        }
        ("POST", "lacks") => {
            write()?;
            lacks(offer, request)
        }
        ("PUT", path) => {
            write()?;
            match path.strip_prefix("names/") {
                Some(name) => set_name(offer, request, name),
                None => Err(refused(404, "no such place")),
            }
        }
        ("POST", "realisations/get") => {
            read()?;
            realisations(offer, request)
        }
        ("POST", "realisations/put") => {
            write()?;
            put_realisations(offer, request)
        }
        ("POST", "fetched/get") => {
            read()?;
            fetched(offer, request)
        }
        ("POST", "fetched/put") => {
            write()?;
            put_fetched(offer, request)
        }
        ("POST", _) => Err(refused(404, "no such place")),
        _ => Err(refused(405, "no such method")),
    }
}

/// The store as a binary cache of Nix's.
fn nix_cache<'a>(offer: &'a Offer<'a>, path: &str) -> Result<Response<'a>, Refused> {
    let served = cache::serve(offer.store, offer.shared.options.key.as_ref(), path)?;
    let served = served.ok_or_else(|| refused(404, "no such store path"))?;
    Ok(match &served.body {
        cache::Body::Text(text) => Response::Bytes(200, served.media_type, text.clone().into_bytes()),
        cache::Body::Archive(_) => Response::Stream(
            served.media_type,
            Box::new(move |output| served.write(offer.store, output).map_err(io::Error::other)),
        ),
    })
}

fn json<'a>(value: &serde_json::Value) -> Response<'a> {
    Response::Bytes(200, JSON, value.to_string().into_bytes())
}

fn about<'a>(access: Access) -> Result<Response<'a>, Refused> {
    Ok(json(&serde_json::json!({
        "protocol": 1,
        "forge": env!("CARGO_PKG_VERSION"),
        "read": access.read,
        "write": access.write,
    })))
}

fn find<'a>(offer: &'a Offer<'a>, given: &str) -> Result<Response<'a>, Refused> {
    let id = match given.parse::<FormationId>() {
        Ok(id) => {
            offer.store.formation(id)?;
            id
        }
        Err(_) => offer.store.find(given)?,
    };
    Ok(Response::Text(200, format!("{id}\n")))
}

/// The whole of a question, if it is not too long.
fn question(request: &mut Request<'_>) -> Result<Vec<u8>, Refused> {
    let bytes = read_question(&mut request.body).map_err(|error| Refused(400, format!("{error}\n")))?;
    bytes.ok_or_else(|| refused(413, "the question is too long"))
}

fn list<T: for<'de> serde::Deserialize<'de>>(request: &mut Request<'_>) -> Result<Vec<T>, Refused> {
    let mut bytes = Vec::new();
    let read = (&mut request.body).take(MOST_LIST + 1).read_to_end(&mut bytes);
    read.map_err(|error| Refused(400, format!("{error}\n")))?;
    if bytes.len() as u64 > MOST_LIST {
        return Err(refused(413, "the list is too long"));
    }
    let list: Vec<T> = serde_json::from_slice(&bytes).map_err(|_| refused(400, "this is no list"))?;
    if list.len() > MOST_SUBJECTS { Err(refused(413, "the list is too long")) } else { Ok(list) }
}

fn sent(result: Result<peer::outgoing::Sent, SendError>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(SendError::Line(error)) => Err(error),
        Err(SendError::Store(error)) => Err(io::Error::other(error.to_string())),
    }
}

fn below<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    let question = Below::decode(&question(request)?).map_err(|error| Refused(400, format!("{error}\n")))?;
    // Before anything is said: what is not here is an answer, not a cut line.
    for goal in &question.goals {
        match goal {
            ObjectId::Formation(id) => drop(offer.store.formation(*id)?),
            ObjectId::Delta(id) => drop(offer.store.delta(*id)?),
            ObjectId::Tree(id) => drop(offer.store.tree(*id)?),
            ObjectId::Blob(_) => {}
        }
    }
    let write = move |out: &mut (dyn Write + Send)| sent(answer::below(offer.store, &question, out));
    Ok(Response::Stream(OBJECTS, Box::new(write)))
}

fn give<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    let items = decode_items(&question(request)?).map_err(|error| Refused(400, format!("{error}\n")))?;
    let write = move |out: &mut (dyn Write + Send)| sent(send(offer.store, &items, out, &mut |_| Ok(())));
    Ok(Response::Stream(OBJECTS, Box::new(write)))
}

fn take<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    let kept = match answer::take(offer.store, &mut request.body, &|_| Ok(())) {
        Ok(kept) => kept,
        Err(Broken::Lie(object)) => return Err(Refused(422, format!("wrong bytes for {object}\n"))),
        Err(Broken::Line(error)) => return Err(Refused(400, format!("{error}\n"))),
        Err(Broken::Own(error)) => return Err(error.into()),
    };
    let missing: Vec<String> = kept.missing.iter().map(ObjectId::to_string).collect();
    Ok(json(&serde_json::json!({ "kept": kept.kept, "missing": missing })))
}

fn lacks<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    let question = Lacks::decode(&question(request)?).map_err(|error| Refused(400, format!("{error}\n")))?;
    Ok(Response::Bytes(200, BINARY, answer::lacking(offer.store, &question)?.encode()))
}

fn set_name<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>, name: &str) -> Result<Response<'a>, Refused> {
    let mut text = String::new();
    let read = (&mut request.body).take(128).read_to_string(&mut text);
    read.map_err(|error| Refused(400, format!("{error}\n")))?;
    let id: FormationId = text.trim().parse().map_err(|_| refused(400, "this is no id"))?;
    if !is_name(name) {
        return Err(refused(400, "this is no name"));
    }
    offer.store.set_root(name, id)?;
    Ok(Response::Text(200, String::new()))
}

fn realisations<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    let mut found = Vec::new();
    for text in list::<String>(request)? {
        let subject = Subject::parse(&text).ok_or_else(|| refused(400, "this is no subject of a claim"))?;
        let mut known = offer.store.realisations(&subject)?;
        // What this store knows by itself counts as much as the key of whoever runs it.
        if let (Some(key), Some(mut own)) = (&offer.shared.options.key, offer.store.own_realisation(&subject)?) {
            own.sign(key);
            known.push(own);
        }
        found.extend(known.iter().map(Realisation::to_text));
    }
    Ok(json(&found.into()))
}

fn put_realisations<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    for text in list::<String>(request)? {
        let realisation = Realisation::parse(&text).filter(|it| !it.signatures.is_empty());
        offer.store.put_realisation(&realisation.ok_or_else(|| refused(400, "this is no signed claim"))?)?;
    }
    Ok(Response::Text(200, String::new()))
}

fn file_hash(text: &str) -> Result<FileHash, Refused> {
    FileHash::parse(text).ok_or_else(|| refused(400, "this is no SHA-1, SHA-256 or SHA-512"))
}

fn fetched<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    let mut found = Vec::new();
    for text in list::<String>(request)? {
        found.push(offer.store.blob_with_hash(&file_hash(&text)?)?.map(|blob| blob.to_string()));
    }
    Ok(json(&found.into()))
}

fn put_fetched<'a>(offer: &'a Offer<'a>, request: &mut Request<'_>) -> Result<Response<'a>, Refused> {
    for (text, blob) in list::<(String, String)>(request)? {
        let (hash, blob): (_, BlobId) = (file_hash(&text)?, blob.parse().map_err(|_| refused(400, "this is no blob"))?);
        // It proves itself: the store hashes it.
        if offer.store.blob_with_hash(&hash)? != Some(blob) {
            if !offer.store.has_hash(blob, &hash)? {
                return Err(refused(422, "the blob has another hash"));
            }
            offer.store.put_blob_with_hash(&hash, blob)?;
        }
    }
    Ok(Response::Text(200, String::new()))
}
