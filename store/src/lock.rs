//! What the network decided, written down: `forge.lock`.
//!
//! An expression asks ([`LockRequest`]); the lock answers, or the builder finds the answer and it is written to the lock
//! ([`LockEntry`]). Answers are relative to mirrors and never name a host. The text is drawn in `docs/formats/lock.md`.

use std::collections::BTreeMap;

use serde_json::Value;

/// A question that only the network can answer, for instance which packages `python3` of Debian bookworm stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// Who answers: `debian`, `debian-index`, `python`, `url`.
    pub kind: String,
    /// What is asked; its keys are the answerer's own. Values are strings, numbers, booleans and lists of these.
    pub parameters: BTreeMap<String, Value>,
}

impl LockRequest {
    /// The one text of this request, by which it is found and sorted.
    pub fn key(&self) -> String {
        format!("{} {}", self.kind, serde_json::to_string(&self.parameters).expect("plain values have a text"))
    }
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockEntry {
    /// What was asked.
    pub request: LockRequest,
    /// The answer: flat records of strings, numbers and booleans, sorted by the line that each is in the text.
    pub records: Vec<BTreeMap<String, Value>>,
}

/// The content of a `forge.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// By [`LockRequest::key`].
    pub entries: BTreeMap<String, LockEntry>,
}

/// Why a text is not a lock.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// Not TOML, or not the shape of a lock.
    #[error("{message}")]
    Syntax {
        /// What the reader says.
        message: String,
        /// Where, in bytes from the start.
        offset: Option<usize>,
    },
    /// Written by a forge that knows more.
    #[error("the lock has version {found}, this forge reads version 1")]
    Version {
        /// What was found.
        found: i64,
    },
}

impl Lock {
    /// The answer to a request.
    pub fn answer(&self, request: &LockRequest) -> Option<&LockEntry> {
        self.entries.get(&request.key())
    }

    /// Adds or replaces an answer; its records are brought into order.
    pub fn insert(&mut self, mut entry: LockEntry) {
        entry.records.sort_by_cached_key(toml_record);
        self.entries.insert(entry.request.key(), entry);
    }

    /// Reads the text of a `forge.lock`.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            version: i64,
            #[serde(default)]
            lock: Vec<Entry>,
        }
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Entry {
            kind: String,
            request: BTreeMap<String, Value>,
            #[serde(default)]
            records: Vec<BTreeMap<String, Value>>,
        }
        let document: Document = toml::from_str(text).map_err(|error| LockError::Syntax {
            message: error.message().to_owned(),
            offset: error.span().map(|span| span.start),
        })?;
        if document.version != 1 {
            return Err(LockError::Version { found: document.version });
        }
        let mut lock = Self::default();
        for (at, Entry { kind, request, records }) in document.lock.into_iter().enumerate() {
            for (number, record) in records.iter().enumerate() {
                if let Some((field, message)) = mistake(&kind, record) {
                    return Err(LockError::Syntax { message, offset: offset(text, at, number, field) });
                }
            }
            lock.insert(LockEntry { request: LockRequest { kind, parameters: request }, records });
        }
        Ok(lock)
    }
}

/// What is wrong with a record that somebody has changed by hand, or that two changes were merged to: in which field, if it has that.
fn mistake<'a>(kind: &str, record: &'a BTreeMap<String, Value>) -> Option<(Option<&'a str>, String)> {
    for (field, value) in record {
        let (is_good, is) = match field.as_str() {
            "size" | "layer" | "revCount" => (value.is_u64(), "a number that is not negative"),
            // A commit may say that it was made before 1970.
            "lastModified" => (value.is_i64(), "a number"),
            "essential" => (value.is_boolean(), "true or false"),
            "sha256" => (value.as_str().is_some_and(is_sha256), "64 digits in base 16"),
            "name" | "version" | "architecture" | "suite" | "file" | "repository" | "narHash" | "rev" => {
                (value.is_string(), "a text")
            }
            // Others are of a kind of their own, or of a later forge.
            _ => (true, ""),
        };
        if !is_good {
            return Some((Some(field), format!("`{field}` of a record is {is}, not {}", toml_value(value))));
        }
    }
    let wanted: &[&str] = match kind {
        "debian" => &["name", "version", "suite", "file", "sha256", "size"],
        "debian-index" => &["suite", "file", "sha256", "size"],
        "python" | "python-lock" => &["name", "version", "file", "sha256"],
        "url" => &["sha256"],
        _ => &[],
    };
    let absent = wanted.iter().find(|field| !record.contains_key(**field))?;
    Some((None, format!("a record of `{kind}` has no `{absent}`")))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Where a record of a lock begins, or the value of one of its fields. None if the text is none.
fn offset(text: &str, entry: usize, record: usize, field: Option<&str>) -> Option<usize> {
    use toml::Spanned;
    #[derive(serde::Deserialize)]
    struct Document {
        lock: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        records: Vec<Spanned<BTreeMap<String, Spanned<Value>>>>,
    }
    let document: Document = toml::from_str(text).ok()?;
    let record = document.lock.get(entry)?.records.get(record)?;
    let value = field.and_then(|field| record.get_ref().get(field));
    Some(value.map_or(record.span().start, |value| value.span().start))
}

/// The text of a `forge.lock`: sorted, one line per record, so that two people's changes merge.
impl std::fmt::Display for Lock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "# Written by forge; commit it. `forge lock --update` renews it.\nversion = 1")?;
        for entry in self.entries.values() {
            writeln!(formatter, "\n[[lock]]\nkind = {}", toml_value(&Value::from(entry.request.kind.as_str())))?;
            writeln!(formatter, "request = {}", toml_table(&entry.request.parameters))?;
            writeln!(formatter, "records = [")?;
            for record in &entry.records {
                writeln!(formatter, "  {},", toml_record(record))?;
            }
            writeln!(formatter, "]")?;
        }
        Ok(())
    }
}

/// A record as a line: what people look for comes first.
fn toml_record(record: &BTreeMap<String, Value>) -> String {
    let first = ["name", "version"].into_iter().filter_map(|key| record.get_key_value(key));
    let rest = record.iter().filter(|(key, _)| !matches!(key.as_str(), "name" | "version"));
    toml_fields(first.chain(rest))
}

fn toml_table(table: &BTreeMap<String, Value>) -> String {
    toml_fields(table.iter())
}

fn toml_fields<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let fields = fields.map(|(key, value)| format!("{} = {}", toml_key(key), toml_value(value)));
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { key.to_owned() } else { toml_value(&Value::from(key)) }
}

fn toml_value(value: &Value) -> String {
    match value {
        // JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
        Value::String(_) => value.to_string().replace('\u{7f}', "\\u007f"),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => toml_table(&fields.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(value: Value) -> BTreeMap<String, Value> {
        value.as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    #[test]
    fn a_lock_reads_back_and_is_sorted() {
        let mut lock = Lock::default();
        for suite in ["trixie", "bookworm"] {
            let parameters = table(json!({ "suite": suite, "packages": ["python3", "a\"b\u{7f}\n"] }));
            let records = ["b", "a"].map(|name| table(json!({ "name": name, "size": 3, "good": true }))).to_vec();
            lock.insert(LockEntry { request: LockRequest { kind: "kind".into(), parameters }, records });
        }
        let text = lock.to_string();
        assert_eq!(Lock::parse(&text).unwrap(), lock);
        assert!(text.find("bookworm").unwrap() < text.find("trixie").unwrap());
        assert!(text.find("name = \"a\"").unwrap() < text.find("name = \"b\"").unwrap());
    }

    #[test]
    fn a_record_that_was_changed_by_hand_is_refused_where_it_is_wrong() {
        const GOOD: &str = "sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\", ";
        let text = |record: &str| {
            let head = "version = 1\n[[lock]]\nkind = \"url\"\nrequest = { url = \"a\" }\nrecords = [\n";
            format!("{head}  {{ {record} }},\n]\n")
        };
        assert!(Lock::parse(&text(&format!("{GOOD}size = 3, lastModified = -1, of_a_later_forge = [1]"))).is_ok());
        for (record, words, at) in [
            (
                &*format!("{GOOD}size = \"3\""),
                "`size` of a record is a number that is not negative, not \"3\"",
                "\"3\"",
            ),
            (&*format!("{GOOD}size = -3"), "`size` of a record is a number that is not negative, not -3", "-3"),
            ("sha256 = \"00\"", "`sha256` of a record is 64 digits in base 16, not \"00\"", "\"00\""),
            ("name = 5", "`name` of a record is a text, not 5", "5"),
            ("size = 3", "a record of `url` has no `sha256`", "{ size = 3"),
        ] {
            let text = text(record);
            let Err(LockError::Syntax { message, offset }) = Lock::parse(&text) else { panic!("{record}") };
            assert_eq!(message, words);
            assert!(text[offset.unwrap()..].starts_with(at), "{record}: {offset:?}");
        }
    }

    #[test]
    fn a_newer_lock_is_refused() {
        assert!(matches!(Lock::parse("version = 2"), Err(LockError::Version { found: 2 })));
        assert!(matches!(Lock::parse("version = "), Err(LockError::Syntax { .. })));
    }
}
