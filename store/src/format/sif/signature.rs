//! Signatures of SIFs, in the two forms that Apptainer 1.4 makes and verifies.
//!
//! What is signed is a JSON text of digests: of the header, and of each object of a group with its descriptor. The text lies in the
//! file as an object of its own, as an OpenPGP cleartext message or in a DSSE envelope (`github.com/secure-systems-lab/dsse`) with
//! ed25519. Signing appends: nothing that was there changes but one free descriptor and two numbers of the header. The fields are drawn in
//! `docs/formats/sif.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pgp::composed::CleartextSignedMessage;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};

use super::layout::{ALIGNMENT, DESCRIPTOR_LENGTH, Description, Descriptor, FORMAT, GROUP_BASE, Image, Kind};
use crate::digest::to_hex;
use crate::format::Artifact;
use crate::nix::hash::{from_base64, to_base64};
use crate::signing::{SecretKey, Trust};
use crate::{Error, Result};

/// What DSSE calls the text.
const PAYLOAD_TYPE: &str = "application/vnd.sylabs.sif-metadata+json";
/// A signature that is larger is not looked at.
const MOST_SIGNATURE: u64 = 1 << 20;
/// An image with more signatures is refused.
pub const MOST_SIGNATURES: usize = 256;
/// SIF's number of SHA-256.
const SHA_256: i32 = 1;
/// What Singularity before 3.6 signed begins so. It covers the bytes of objects, and not what they are for.
const LEGACY: &str = "SIFHASH:";

/// The text that is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {
    version: u32,
    header: HeaderMetadata,
    objects: Vec<ObjectMetadata>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HeaderMetadata {
    digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetadata {
    /// Counted from the least of the group.
    relative_id: u32,
    descriptor_digest: String,
    object_digest: String,
}

/// A DSSE envelope.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct EnvelopeSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// What a DSSE signature is over.
fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let front = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [front.as_bytes(), payload].concat()
}

/// Signs every group of objects, at the time `now` (OpenPGP writes it down). The file is extended in place: whoever reads it
/// meanwhile, or after a crash, sees it unsigned or signed.
pub fn sign(path: &Path, key: &SecretKey, now: u32) -> Result<()> {
    let groups = groups(&Artifact::open(path)?)?;
    let file = File::options().read(true).write(true).open(path).map_err(Error::file("open", path))?;
    for group in groups {
        // Each signature is an object of its own, so that the image has changed.
        let artifact = Artifact::open(path)?;
        let image = Image::read(&artifact)?;
        let metadata = metadata(&artifact, &image, group)?;
        let text = serde_json::to_string(&metadata).expect("digests have a JSON form");
        let key_failed = |source| Error::Key { path: path.to_owned(), source };
        let (content, fingerprint) = match key {
            SecretKey::Pgp(key) => (key.sign_text(&text, now).map_err(key_failed)?, key.fingerprint()),
            SecretKey::Ed25519(key) => {
                let signature = key.sign(&pre_authentication_encoding(text.as_bytes()));
                let envelope = Envelope {
                    payload_type: PAYLOAD_TYPE.to_owned(),
                    payload: to_base64(text.as_bytes()),
                    signatures: vec![EnvelopeSignature { keyid: key.id(), sig: to_base64(&signature) }],
                };
                (serde_json::to_string(&envelope).expect("texts have a JSON form"), Vec::new())
            }
        };
        append(&file, &artifact, image, group, content.as_bytes(), &fingerprint)?;
    }
    Ok(())
}

/// The groups of an image; an object that is in none could not be verified.
fn groups(artifact: &Artifact) -> Result<BTreeSet<u32>> {
    let image = Image::read(artifact)?;
    let objects = image.used().filter(|descriptor| descriptor.kind() != Kind::SIGNATURE);
    let groups: BTreeSet<u32> = objects.map(|descriptor| descriptor.group() & !GROUP_BASE).collect();
    match groups.first() {
        None => Err(artifact.bad(FORMAT, "it has nothing in it that could be signed")),
        Some(0) => Err(artifact.bad(FORMAT, "it has an object that is in no group, which no signature covers")),
        Some(_) => Ok(groups),
    }
}

/// The objects of a group, by number.
fn members(image: &Image, group: u32) -> Vec<&Descriptor> {
    let mut members: Vec<_> = image
        .used()
        .filter(|descriptor| descriptor.group() & !GROUP_BASE == group && descriptor.group() != 0)
        .collect();
    members.sort_by_key(|descriptor| descriptor.id());
    members
}

fn metadata(artifact: &Artifact, image: &Image, group: u32) -> Result<Metadata> {
    let members = members(image, group);
    let least = members.first().map_or(0, |descriptor| descriptor.id());
    let digest = |bytes: &[u8]| format!("sha256:{}", to_hex(&Sha256::digest(bytes)));
    let object = |descriptor: &&Descriptor| -> Result<ObjectMetadata> {
        Ok(ObjectMetadata {
            relative_id: descriptor.id() - least,
            descriptor_digest: digest(&descriptor.signed_bytes(least)),
            object_digest: format!("sha256:{}", to_hex(&hash::<Sha256>(artifact, descriptor)?)),
        })
    };
    Ok(Metadata {
        version: 1,
        header: HeaderMetadata { digest: digest(&image.header.signed_bytes()) },
        objects: members.iter().map(object).collect::<Result<_>>()?,
    })
}

/// The digest of an object's bytes.
fn hash<D: Digest>(artifact: &Artifact, descriptor: &Descriptor) -> Result<Vec<u8>> {
    const PIECE: u64 = 1 << 20;
    let mut hasher = D::new();
    let (mut at, mut left) = (descriptor.start(), descriptor.length());
    while left > 0 {
        let length = left.min(PIECE);
        hasher.update(artifact.bytes(FORMAT, at, length as usize)?);
        at += length;
        left -= length;
    }
    Ok(hasher.finalize().to_vec())
}

fn append(
    file: &File,
    artifact: &Artifact,
    image: Image,
    group: u32,
    content: &[u8],
    fingerprint: &[u8],
) -> Result<()> {
    let Some(slot) = image.descriptors.iter().position(|descriptor| !descriptor.is_used()) else {
        return Err(artifact.bad(FORMAT, "it has no free descriptor for a signature"));
    };
    let ends = image.used().map(|descriptor| descriptor.start() + descriptor.length());
    let end = ends.max().unwrap_or(0).max(image.header.data_start());
    let start = end.checked_next_multiple_of(ALIGNMENT).filter(|start| *start < i64::MAX as u64 - MOST_SIGNATURE);
    let Some(start) = start else { return Err(artifact.bad(FORMAT, "it ends where no file can")) };
    let length = content.len() as u64;
    let mut extra = SHA_256.to_le_bytes().to_vec();
    extra.extend(fingerprint);
    let id = slot as u32 + 1;
    let descriptor = Descriptor::new(&Description {
        kind: Kind::SIGNATURE,
        id,
        group: 0,
        link: GROUP_BASE | group,
        start,
        length,
        length_with_padding: start - end + length,
        name: "",
        extra: &extra,
    });
    let Image { mut header, .. } = image;
    header.set_free(header.free().saturating_sub(1));
    header.set_data_length((start + length).saturating_sub(header.data_start()));
    let write = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).map_err(Error::file("write", artifact.path()));
    let sync = || file.sync_all().map_err(Error::file("write", artifact.path()));
    // The content is there before anything points to it.
    write(content, start)?;
    sync()?;
    write(&descriptor.0, header.descriptors_start() + (slot * DESCRIPTOR_LENGTH) as u64)?;
    write(&header.0, 0)?;
    sync()
}

/// A signature that an image has, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The number of the object that it is.
    pub object: u32,
    /// What it says to be about.
    pub group: u32,
    /// `OpenPGP`, `ed25519`, `OpenPGP, legacy`, or what it looks like.
    pub form: &'static str,
    /// Whose it is: a fingerprint and a name, or a key's id. Of a signature that does not count, whose it says to be.
    pub signer: String,
    /// Why it does not count; none if it does.
    pub refused: Option<String>,
}

/// Verifies an image at the time `now`: every object is in a group, and every group is signed as it is by somebody who is trusted. What others
/// have signed is said, and does not count; what somebody trusted has signed and is so no longer is refused.
pub fn verify(artifact: &Artifact, trust: &Trust, now: i64) -> Result<Vec<Signature>> {
    let refused = |reason: String| Error::Signature { path: artifact.path().to_owned(), reason };
    let image = Image::read(artifact)?;
    let groups = groups(artifact)?;
    let count = image.used().filter(|descriptor| descriptor.kind() == Kind::SIGNATURE).count();
    if count > MOST_SIGNATURES {
        return Err(artifact.bad(FORMAT, format!("it has {count} signatures, and {MOST_SIGNATURES} are allowed")));
    }
    let mut signatures = Vec::new();
    let mut good = BTreeSet::new();
    let mut changed = None;
    for descriptor in image.used().filter(|descriptor| descriptor.kind() == Kind::SIGNATURE) {
        let (signature, is_trusted) = check(artifact, &image, descriptor, trust, now)?;
        match &signature.refused {
            None => _ = good.insert(signature.group),
            Some(reason) if is_trusted => {
                changed.get_or_insert_with(|| format!("signature {}: {reason}", signature.object));
            }
            Some(_) => {}
        }
        signatures.push(signature);
    }
    if let Some(reason) = changed {
        return Err(refused(reason));
    }
    for group in groups {
        if !good.contains(&group) {
            let reasons = signatures.iter().filter(|signature| signature.group == group);
            let reasons: Vec<String> = reasons
                .map(|signature| {
                    let reason = signature.refused.as_deref().unwrap_or_default();
                    format!("signature {} ({} by {}): {reason}", signature.object, signature.form, signature.signer)
                })
                .collect();
            let reasons = if reasons.is_empty() { "it has no signature".to_owned() } else { reasons.join("; ") };
            return Err(refused(reasons));
        }
    }
    Ok(signatures)
}

/// What a signature is, by whom it says to be; nothing of it is verified.
pub fn describe(artifact: &Artifact, image: &Image, descriptor: &Descriptor) -> Result<(&'static str, String)> {
    let content = image.content(artifact, descriptor, MOST_SIGNATURE)?.unwrap_or_default();
    Ok(match Form::of(&content) {
        Form::Pgp(message) => {
            let form = if message.text().starts_with(LEGACY) { "OpenPGP, legacy" } else { "OpenPGP" };
            (form, to_hex(&descriptor.extra()[4..24]).to_uppercase())
        }
        Form::Dsse(envelope) => {
            let id = envelope.signatures.first().map(|signature| signature.keyid.clone()).unwrap_or_default();
            ("DSSE", super::one_line(&id))
        }
        Form::Unknown => ("unknown form", String::new()),
    })
}

/// What a signature object holds.
enum Form {
    Pgp(Box<CleartextSignedMessage>),
    Dsse(Envelope),
    Unknown,
}

impl Form {
    fn of(content: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(content) else { return Self::Unknown };
        if text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
            let message = CleartextSignedMessage::from_string(text);
            return message.map_or(Self::Unknown, |(message, _)| Self::Pgp(Box::new(message)));
        }
        match serde_json::from_str::<Envelope>(text) {
            Ok(envelope) if envelope.payload_type == PAYLOAD_TYPE => Self::Dsse(envelope),
            _ => Self::Unknown,
        }
    }
}

/// Verifies one signature; also whether it is by somebody who is trusted.
fn check(
    artifact: &Artifact,
    image: &Image,
    descriptor: &Descriptor,
    trust: &Trust,
    now: i64,
) -> Result<(Signature, bool)> {
    let (form, signer) = describe(artifact, image, descriptor)?;
    let group = descriptor.link() & !GROUP_BASE;
    let mut signature = Signature { object: descriptor.id(), group, form, signer, refused: None };
    let content = image.content(artifact, descriptor, MOST_SIGNATURE)?.unwrap_or_default();
    let (text, is_trusted) = match Form::of(&content) {
        Form::Unknown => (Err("forge does not know this form of signature".to_owned()), false),
        Form::Pgp(message) => {
            let text = message.signed_text();
            let is_trusted = trust.pgp.knows(&descriptor.extra()[4..24]);
            let mut outcome = Err("it has no signature in it".to_owned());
            for one in message.signatures() {
                outcome = trust.pgp.check(one, text.as_bytes(), now, &|_, _| true);
                if outcome.is_ok() {
                    break;
                }
            }
            let is_trusted = is_trusted || outcome.is_ok();
            let text = outcome.and_then(|by| {
                let fingerprint = to_hex(&by.fingerprint).to_uppercase();
                if by.fingerprint != descriptor.extra()[4..24] {
                    return Err(format!("it says to be by {}, and is by {fingerprint}", signature.signer));
                }
                signature.signer = match &by.user {
                    Some(user) => format!("{fingerprint} {}", super::one_line(user)),
                    None => fingerprint,
                };
                Ok(text)
            });
            (text, is_trusted)
        }
        Form::Dsse(envelope) => match envelope_text(&envelope, trust) {
            Some((text, id)) => {
                signature.form = "ed25519";
                signature.signer = id;
                (text, true)
            }
            None => (Err("it is by nobody who is trusted here".to_owned()), false),
        },
    };
    let outcome = match text {
        Ok(text) if text.starts_with(LEGACY) => {
            Err("it is a legacy one, of Singularity before 3.6: it does not say which object is what".to_owned())
        }
        Ok(text) => matches(artifact, image, descriptor, &text)?,
        Err(reason) => Err(reason),
    };
    signature.refused = outcome.err();
    Ok((signature, is_trusted))
}

/// The text of an envelope that somebody trusted has signed, and who.
fn envelope_text(envelope: &Envelope, trust: &Trust) -> Option<(Result<String, String>, String)> {
    let payload = from_base64(envelope.payload.as_bytes())?;
    let message = pre_authentication_encoding(&payload);
    for signature in &envelope.signatures {
        let bytes = from_base64(signature.sig.as_bytes()).unwrap_or_default();
        for key in &trust.ed25519 {
            if key.verifies(&message, &bytes) {
                let text = String::from_utf8(payload).map_err(|_| "its payload is not a text".to_owned());
                return Some((text, key.id()));
            }
            if signature.keyid == key.id() {
                return Some((Err("it does not fit what it is over: it was changed".to_owned()), key.id()));
            }
        }
    }
    None
}

/// Whether an image is as a signed text says. The outer result is about reading it.
fn matches(artifact: &Artifact, image: &Image, signature: &Descriptor, text: &str) -> Result<Result<(), String>> {
    let link = signature.link();
    if link & GROUP_BASE != GROUP_BASE {
        return Ok(Err(format!("it is of object {link} alone, and not of its group")));
    }
    let metadata: Metadata = match serde_json::from_str(text) {
        Ok(metadata) => metadata,
        Err(error) => return Ok(Err(format!("what it signs is not understood: {error}"))),
    };
    if metadata.version != 1 {
        return Ok(Err(format!("what it signs has version {}, and 1 is known", metadata.version)));
    }
    match is_digest_of(&metadata.header.digest, &image.header.signed_bytes()) {
        Some(true) => {}
        Some(false) => return Ok(Err("the header was changed".to_owned())),
        None => return Ok(Err(format!("the digest `{}` is not understood", metadata.header.digest.escape_debug()))),
    }
    let members = members(image, link & !GROUP_BASE);
    let least = members.first().map_or(0, |descriptor| descriptor.id());
    let mut signed = BTreeMap::new();
    for object in &metadata.objects {
        let id = least.checked_add(object.relative_id);
        if id.and_then(|id| signed.insert(id, object)).is_some() {
            return Ok(Err("it names an object twice".to_owned()));
        }
    }
    let ids: BTreeSet<u32> = members.iter().map(|descriptor| descriptor.id()).collect();
    if ids.len() != members.len() {
        return Ok(Err("two objects have the same number".to_owned()));
    }
    if let Some(id) = signed.keys().find(|id| !ids.contains(id)) {
        return Ok(Err(format!("object {id} was removed")));
    }
    for descriptor in members {
        let id = descriptor.id();
        let Some(object) = signed.get(&id) else { return Ok(Err(format!("object {id} is not signed"))) };
        match is_digest_of(&object.descriptor_digest, &descriptor.signed_bytes(least)) {
            Some(true) => {}
            Some(false) => return Ok(Err(format!("the descriptor of object {id} was changed"))),
            None => return Ok(Err(format!("the digest of object {id} is not understood"))),
        }
        let expected = object.object_digest.split_once(':');
        let actual = match expected.map(|(algorithm, _)| algorithm) {
            Some("sha256") => hash::<Sha256>(artifact, descriptor)?,
            Some("sha384") => hash::<Sha384>(artifact, descriptor)?,
            Some("sha512") => hash::<Sha512>(artifact, descriptor)?,
            Some("sha224") => hash::<Sha224>(artifact, descriptor)?,
            Some("sha512_224") => hash::<Sha512_224>(artifact, descriptor)?,
            Some("sha512_256") => hash::<Sha512_256>(artifact, descriptor)?,
            _ => return Ok(Err(format!("the digest of object {id} is not understood"))),
        };
        if expected.map(|(_, value)| value) != Some(&to_hex(&actual)) {
            return Ok(Err(format!("object {id} was changed")));
        }
    }
    Ok(Ok(()))
}

/// Whether some bytes have a digest, written `sha256:…`; none if it is not understood.
fn is_digest_of(digest: &str, bytes: &[u8]) -> Option<bool> {
    let (algorithm, value) = digest.split_once(':')?;
    let actual = match algorithm {
        "sha256" => Sha256::digest(bytes).to_vec(),
        "sha384" => Sha384::digest(bytes).to_vec(),
        "sha512" => Sha512::digest(bytes).to_vec(),
        "sha224" => Sha224::digest(bytes).to_vec(),
        "sha512_224" => Sha512_224::digest(bytes).to_vec(),
        "sha512_256" => Sha512_256::digest(bytes).to_vec(),
        _ => return None,
    };
    Some(value == to_hex(&actual))
}
