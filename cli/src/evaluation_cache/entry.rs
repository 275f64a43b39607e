//! One evaluation as it is kept: what it asked and was answered, what it said, what it gave. `docs/formats/evaluation-cache.md`

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use expressions::Message;
use expressions::aterm;
use expressions::error::{Finding, Place, Severity, SourceText, Step};
use expressions::frontend::Stream;
use expressions::sources::facts::{Answer, Facts, Question, Stamp};
use store::derivation::{Fetched, Goal, GoalLayer, Source};
use store::lock::LockRequest;
use store::{BlobId, Formation, Plan, StorePath, TreeId};

use super::encoding::{Reader, Writer};

/// An evaluation.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it asked of the world.
    pub facts: Facts,
    /// What it said meanwhile.
    pub said: Vec<Message>,
    /// What it gave.
    pub kept: Kept,
}

/// What an evaluation gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// The text of a value.
    Text(Vec<u8>),
    /// A plan.
    Plan(Box<Plan>),
    /// What `nix-instantiate` printed, piece by piece.
    Printed(Vec<(Stream, Vec<u8>)>),
}

const MAGIC: &[u8] = b"forge evaluation 1\n";

/// Texts that findings point into: each is kept once.
#[derive(Default)]
struct Texts(Vec<Arc<SourceText>>);

impl Entry {
    /// The bytes of the file; none if it could not be read back.
    pub fn encode(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let mut writer = Writer(MAGIC.to_vec());
        writer.0.extend_from_slice(key);
        facts(&mut writer, &self.facts);
        let mut texts = Texts::default();
        let mut said = Writer::default();
        said.count(self.said.len());
        self.said.iter().for_each(|message| texts.message(&mut said, message));
        writer.count(texts.0.len());
        for text in &texts.0 {
            writer.bytes(text.name.as_os_str().as_bytes());
            writer.bytes(&text.bytes);
        }
        writer.0.append(&mut said.0);
        match &self.kept {
            Kept::Text(text) => {
                writer.byte(0);
                writer.bytes(text);
            }
            Kept::Plan(plan) => {
                writer.byte(1);
                write_plan(&mut writer, plan);
            }
            Kept::Printed(pieces) => {
                writer.byte(2);
                writer.count(pieces.len());
                for (stream, bytes) in pieces {
                    writer.byte(u8::from(*stream == Stream::Errors));
                    writer.bytes(bytes);
                }
            }
        }
        let digest = BlobId::of(&writer.0);
        writer.0.extend_from_slice(digest.as_bytes());
        Some(writer.0)
    }

    /// Reads a file; none if it is damaged, of another version, or not of this key.
    pub fn decode(key: &[u8; 32], bytes: &[u8]) -> Option<Self> {
        let (bytes, digest) = bytes.split_last_chunk::<32>()?;
        if BlobId::of(bytes).as_bytes() != digest {
            return None;
        }
        let mut reader = Reader(bytes.strip_prefix(MAGIC)?);
        if reader.digest()? != *key {
            return None;
        }
        let facts = read_facts(&mut reader)?;
        let mut texts = Texts::default();
        for _ in 0..reader.count()? {
            let name = PathBuf::from(OsStr::from_bytes(reader.bytes()?));
            texts.0.push(Arc::new(SourceText { name, bytes: reader.bytes()?.to_vec() }));
        }
        let said = (0..reader.count()?).map(|_| texts.read_message(&mut reader)).collect::<Option<_>>()?;
        let kept = match reader.byte()? {
            0 => Kept::Text(reader.bytes()?.to_vec()),
            1 => Kept::Plan(Box::new(read_plan(&mut reader)?)),
            2 => {
                let piece = |reader: &mut Reader| {
                    let stream = if reader.byte()? == 0 { Stream::Output } else { Stream::Errors };
                    Some((stream, reader.bytes()?.to_vec()))
                };
                Kept::Printed((0..reader.count()?).map(|_| piece(&mut reader)).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        reader.0.is_empty().then_some(Self { facts, said, kept })
    }
}

/// Questions in order; each shares its beginning with the one before.
fn facts(writer: &mut Writer, facts: &Facts) {
    writer.count(facts.len());
    let mut before: &[u8] = b"";
    for (question, answer) in facts {
        let (sort, about) = question.parts();
        let shared = before.iter().zip(about).take_while(|(left, right)| left == right).count();
        writer.byte(sort);
        writer.count(shared);
        writer.bytes(&about[shared..]);
        before = about;
        match answer {
            Answer::Nothing => writer.byte(0),
            Answer::Truth(truth) => writer.byte(1 + u8::from(*truth)),
            Answer::Kind(kind) => {
                writer.byte(3);
                writer.byte(*kind);
            }
            Answer::Bytes(bytes) => {
                writer.byte(4);
                writer.bytes(bytes);
            }
            Answer::Digest(digest, None) => {
                writer.byte(5);
                writer.0.extend_from_slice(digest);
            }
            Answer::Digest(digest, Some(stamp)) => {
                writer.byte(6);
                writer.0.extend_from_slice(digest);
                let Stamp { device, inode, size, modified, changed } = stamp;
                for number in [u128::from(*device), u128::from(*inode), u128::from(*size)] {
                    writer.number(number);
                }
                writer.0.extend(modified.to_le_bytes());
                writer.0.extend(changed.to_le_bytes());
            }
        }
    }
}

fn read_facts(reader: &mut Reader) -> Option<Facts> {
    let count = reader.count()?;
    let mut facts = Vec::with_capacity(count);
    let mut before = Vec::new();
    for _ in 0..count {
        let sort = reader.byte()?;
        // The shared part is none of the bytes that follow.
        let shared = usize::try_from(reader.number()?).ok().filter(|shared| *shared <= before.len())?;
        before.truncate(shared);
        before.extend_from_slice(reader.bytes()?);
        let question = Question::of_parts(sort, &before)?;
        let number = |reader: &mut Reader| u64::try_from(reader.number()?).ok();
        let time = |reader: &mut Reader| Some(i128::from_le_bytes(reader.take(16)?.try_into().ok()?));
        let answer = match reader.byte()? {
            0 => Answer::Nothing,
            truth @ 1..=2 => Answer::Truth(truth == 2),
            3 => Answer::Kind(reader.byte()?),
            4 => Answer::Bytes(reader.bytes()?.to_vec()),
            5 => Answer::Digest(reader.digest()?, None),
            6 => {
                let digest = reader.digest()?;
                let (device, inode, size) = (number(reader)?, number(reader)?, number(reader)?);
                let (modified, changed) = (time(reader)?, time(reader)?);
                Answer::Digest(digest, Some(Stamp { device, inode, size, modified, changed }))
            }
            _ => return None,
        };
        facts.push((question, answer));
    }
    // They were written in order.
    Some(facts.into_iter().collect::<BTreeMap<_, _>>())
}

impl Texts {
    fn message(&mut self, writer: &mut Writer, message: &Message) {
        match message {
            Message::Trace(text) => {
                writer.byte(0);
                writer.bytes(text.as_bytes());
            }
            Message::EvaluationWarning(text) => {
                writer.byte(1);
                writer.bytes(text.as_bytes());
            }
            Message::Warning(finding) => {
                writer.byte(2);
                writer.byte(u8::from(finding.severity == Severity::Warning));
                writer.bytes(finding.message.as_bytes());
                self.place(writer, finding.place.as_ref());
                writer.count(finding.trace.len());
                for Step { what, place, own } in &finding.trace {
                    writer.bytes(what.as_bytes());
                    self.place(writer, place.as_ref());
                    writer.byte(u8::from(*own));
                }
                writer.optional(finding.hint.as_deref(), |writer, hint| writer.bytes(hint.as_bytes()));
            }
        }
    }

    fn read_message(&self, reader: &mut Reader) -> Option<Message> {
        Some(match reader.byte()? {
            0 => Message::Trace(reader.text()?),
            1 => Message::EvaluationWarning(reader.text()?),
            2 => {
                let severity = if reader.byte()? == 1 { Severity::Warning } else { Severity::Error };
                let message = reader.text()?;
                let place = self.read_place(reader)?;
                let frame = |reader: &mut Reader| {
                    Some(Step { what: reader.text()?, place: self.read_place(reader)?, own: reader.byte()? == 1 })
                };
                let trace = (0..reader.count()?).map(|_| frame(reader)).collect::<Option<_>>()?;
                let hint = reader.optional(Reader::text)?;
                Message::Warning(Finding { severity, message, place, trace, hint })
            }
            _ => return None,
        })
    }

    fn place(&mut self, writer: &mut Writer, place: Option<&Place>) {
        writer.optional(place, |writer, place| {
            let known = self.0.iter().position(|text| Arc::ptr_eq(text, &place.text));
            let number = known.unwrap_or_else(|| {
                self.0.push(Arc::clone(&place.text));
                self.0.len() - 1
            });
            for number in [number, place.start, place.end] {
                writer.number(number as u128);
            }
        });
    }

    fn read_place(&self, reader: &mut Reader) -> Option<Option<Place>> {
        reader.optional(|reader| {
            let mut number = || usize::try_from(reader.number()?).ok();
            let text = Arc::clone(self.0.get(number()?)?);
            Some(Place { text, start: number()?, end: number()? })
        })
    }
}

fn write_plan(writer: &mut Writer, plan: &Plan) {
    let Plan { derivations, sources, goal } = plan;
    writer.count(derivations.len());
    for (path, derivation) in derivations {
        writer.bytes(path.as_str().as_bytes());
        writer.bytes(derivation.name.as_bytes());
        writer.bytes(&aterm::write(derivation));
    }
    writer.count(sources.len());
    for (path, source) in sources {
        writer.bytes(path.as_str().as_bytes());
        match source {
            Source::Text(text) => {
                writer.byte(0);
                writer.bytes(text);
            }
            Source::Path { path, selected } => {
                writer.byte(1);
                writer.bytes(path.as_os_str().as_bytes());
                writer.optional(selected.as_ref(), |writer, selected| {
                    writer.count(selected.len());
                    selected.iter().for_each(|path| writer.bytes(path));
                });
            }
            Source::Fetched(Fetched { request, recursive, sha256 }) => {
                writer.byte(2);
                writer.bytes(request.kind.as_bytes());
                writer.bytes(serde_json::to_string(&request.parameters).unwrap_or_default().as_bytes());
                writer.byte(u8::from(*recursive));
                writer.0.extend_from_slice(sha256);
            }
        }
    }
    let Goal { name, version, variant, platform, layers, launch, plain } = goal;
    writer.count(layers.len());
    for GoalLayer { label, derivation, output } in layers {
        writer.bytes(label.as_bytes());
        writer.bytes(derivation.as_str().as_bytes());
        writer.bytes(output.as_bytes());
    }
    writer.byte(u8::from(*plain));
    if *plain {
        return writer.bytes(name.as_bytes());
    }
    // A formation that has no root yet.
    let (name, version, variant) = (name.clone(), version.clone(), variant.clone());
    let (platform, launch, root) = (platform.clone(), launch.clone(), TreeId::from_bytes([0; 32]));
    writer.bytes(&Formation { name, version, variant, platform, root, launch }.encode());
}

fn read_plan(reader: &mut Reader) -> Option<Plan> {
    let store_path = |reader: &mut Reader| StorePath::parse(std::str::from_utf8(reader.bytes()?).ok()?);
    let mut derivations = BTreeMap::new();
    for _ in 0..reader.count()? {
        let path = store_path(reader)?;
        let name = reader.text()?;
        derivations.insert(path, aterm::read(&name, reader.bytes()?).ok()?);
    }
    let mut sources = BTreeMap::new();
    for _ in 0..reader.count()? {
        let store_path = store_path(reader)?;
        let source = match reader.byte()? {
            0 => Source::Text(reader.bytes()?.to_vec()),
            1 => {
                let path = PathBuf::from(OsStr::from_bytes(reader.bytes()?));
                let selected = reader.optional(|reader| {
                    (0..reader.count()?).map(|_| reader.bytes().map(<[u8]>::to_vec)).collect::<Option<_>>()
                })?;
                Source::Path { path, selected }
            }
            2 => {
                let request =
                    LockRequest { kind: reader.text()?, parameters: serde_json::from_slice(reader.bytes()?).ok()? };
                let recursive = reader.byte()? != 0;
                Source::Fetched(Fetched { request, recursive, sha256: reader.digest()? })
            }
            _ => return None,
        };
        sources.insert(store_path, source);
    }
    let layer = |reader: &mut Reader| {
        Some(GoalLayer { label: reader.text()?, derivation: store_path(reader)?, output: reader.text()? })
    };
    let layers = (0..reader.count()?).map(|_| layer(reader)).collect::<Option<_>>()?;
    if reader.byte()? != 0 {
        let (name, [version, variant, platform]) = (reader.text()?, [const { String::new() }; 3]);
        let launch = store::Launch::default();
        let goal = Goal { name, version, variant, platform, layers, launch, plain: true };
        return Some(Plan { derivations, sources, goal });
    }
    let Formation { name, version, variant, platform, launch, .. } = Formation::decode(reader.bytes()?).ok()?;
    Some(Plan { derivations, sources, goal: Goal { name, version, variant, platform, layers, launch, plain: false } })
}
