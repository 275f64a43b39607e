//! Why a file came out otherwise, as far as that can be seen from its bytes: a guess for people, not a proof.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::SystemTime;

use store::diff::Difference;
use store::{BlobId, Node, Store};

use super::{Elsewhere, FileDifference};
use crate::{Error, Result};

/// Why something came out otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The time of the build is in it.
    Time,
    /// A path of the build is in it.
    Path,
    /// The same things in another order: as a directory listed them, as a hash table gave them, or as threads finished.
    Order,
    /// The number of cores is in it.
    Cores,
    /// Something random: a salt, a UUID, a temporary name.
    Random,
    /// An address of memory.
    Address,
    /// A number that is another each time: a process id, a duration, a count.
    Number,
    /// The archive that it is has other bytes; what is in it may differ for any reason.
    Archive,
    /// Mode, owner or kind: two things that the step does at a time, or a umask.
    Metadata,
    /// It does not show.
    Unknown,
}

impl Cause {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Time => "the time of the build is in it: use SOURCE_DATE_EPOCH",
            Self::Path => "a path of the build is in it",
            Self::Order => "the same in another order: as a directory, a hash table or threads gave it; sort it",
            Self::Cores => "the number of cores is in it",
            Self::Random => "something random is in it: a salt, an id, a temporary name; give a fixed seed",
            Self::Address => "an address of memory is in it",
            Self::Number => "a number that is another each time: a process id, a duration, a count",
            Self::Archive => "it is compressed: the time or order of what is packed in it",
            Self::Metadata => "its mode, owner or kind: two things that the step does at a time",
            Self::Unknown => "the cause does not show in it",
        }
    }

    /// In one word, for `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Path => "path",
            Self::Order => "order",
            Self::Cores => "cores",
            Self::Random => "random",
            Self::Address => "address",
            Self::Number => "number",
            Self::Archive => "archive",
            Self::Metadata => "metadata",
            Self::Unknown => "unknown",
        }
    }
}

/// So much of a file is looked at.
const LONGEST: u64 = 8 << 20;
/// So much of a line is shown.
const SHOWN: usize = 120;

/// Judges differences between two results of one step.
pub struct Judge<'a> {
    store: &'a Store,
    cores: [usize; 2],
    /// Seconds since 1970: times near it are those of the build.
    now: i64,
}

impl<'a> Judge<'a> {
    /// `cores`: how many the step was told of the first time. `began`: when it was made again.
    pub fn new(store: &'a Store, cores: usize, began: SystemTime) -> Self {
        let now = began.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        Self { store, cores: [cores, Elsewhere::cores(cores)], now }
    }

    /// What to say of each difference.
    pub fn explain(&self, differences: &[Difference]) -> Result<Vec<FileDifference>> {
        // A name that came and a name that went in one directory may be one thing under two names.
        let mut renamed: BTreeMap<&[u8], (Vec<&Difference>, Vec<&Difference>)> = BTreeMap::new();
        for difference in differences {
            let parent = difference.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash);
            let (went, came) = renamed.entry(&difference.path[..parent]).or_default();
            match (&difference.before, &difference.after) {
                (Some(_), None) => went.push(difference),
                (None, Some(_)) => came.push(difference),
                _ => {}
            }
        }
        let pair = |difference: &Difference| {
            let parent = difference.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash);
            let (went, came) = renamed.get(&difference.path[..parent])?;
            (went.len() == 1 && came.len() == 1).then(|| (went[0].path.clone(), came[0].path.clone()))
        };
        differences.iter().map(|difference| self.one(difference, pair(difference))).collect()
    }

    fn one(&self, difference: &Difference, names: Option<(Vec<u8>, Vec<u8>)>) -> Result<FileDifference> {
        let path = difference.path.clone();
        let mut aspects: Vec<String> = difference.aspects.iter().map(|aspect| (*aspect).to_owned()).collect();
        let (mut cause, mut shown) = (Cause::Unknown, None);
        match (&difference.before, &difference.after) {
            (Some(Node::File(before)), Some(Node::File(after))) if before.blob != after.blob => {
                let (before, after) = (self.bytes(before.blob)?, self.bytes(after.blob)?);
                (cause, shown) = self.of_bytes(&before, &after);
            }
            (Some(Node::Symlink { target: before, .. }), Some(Node::Symlink { target: after, .. }))
                if before != after =>
            {
                cause = self.of_pieces(before, after);
                shown = Some((show(before), show(after)));
            }
            (Some(_), Some(_)) => cause = Cause::Metadata,
            (before, _) => {
                aspects.push(if before.is_some() { "removed" } else { "added" }.to_owned());
                if let Some((went, came)) = names {
                    cause = self.of_pieces(&went, &came);
                }
            }
        }
        Ok(FileDifference { path, aspects, cause, shown })
    }

    fn bytes(&self, blob: BlobId) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.store.open_blob(blob)?;
        file.take(LONGEST).read_to_end(&mut bytes).map_err(Error::file("read", self.store.path()))?;
        Ok(bytes)
    }

    fn of_bytes(&self, before: &[u8], after: &[u8]) -> (Cause, Option<(String, String)>) {
        let first = before.iter().zip(after).position(|(left, right)| left != right);
        let first = first.unwrap_or(before.len().min(after.len()));
        let is_text = !before.contains(&0) && !after.contains(&0) && std::str::from_utf8(before).is_ok();
        if is_text {
            let lines = |bytes: &'_ [u8]| bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
            let (left, right) = (lines(before), lines(after));
            let differing = left.iter().zip(&right).find(|(left, right)| left != right);
            let shown = differing.map(|(left, right)| (show(left), show(right)));
            if same_when_sorted(&left, &right) || same_words(before, after) {
                return (Cause::Order, shown);
            }
            let pairs = left.iter().zip(&right).filter(|(left, right)| left != right);
            let cause = pairs.map(|(left, right)| self.of_pieces(left, right)).min().unwrap_or(Cause::Unknown);
            return (cause, shown);
        }
        // The time of a gzip file is in its bytes 4 to 7: RFC 1952.
        let gzip = before.starts_with(b"\x1f\x8b") && after.starts_with(b"\x1f\x8b");
        if gzip && (4..8).contains(&first) || self.is_binary_time(before, after, first) {
            return (Cause::Time, None);
        }
        let window = |bytes: &'_ [u8]| bytes[first.saturating_sub(64)..(first + 64).min(bytes.len())].to_vec();
        let printable = |bytes: &[u8]| {
            let text: Vec<u8> = bytes.iter().copied().filter(|byte| (0x20..0x7f).contains(byte)).collect();
            text.len() * 4 >= bytes.len() * 3
        };
        let (left, right) = (window(before), window(after));
        if printable(&left) && printable(&right) {
            return (self.of_pieces(&left, &right), Some((show(&left), show(&right))));
        }
        let packed = [&b"\x1f\x8b"[..], b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"!<arch>"];
        if packed.iter().any(|magic| before.starts_with(magic)) {
            return (Cause::Archive, None);
        }
        let mut counts = [0_i64; 256];
        before.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        after.iter().for_each(|byte| counts[usize::from(*byte)] -= 1);
        if counts.iter().all(|count| *count == 0) {
            return (Cause::Order, None);
        }
        (Cause::Unknown, None)
    }

    /// Whether the bytes that differ first are a time near now in both: 32 bits in either order, anywhere around.
    fn is_binary_time(&self, before: &[u8], after: &[u8], first: usize) -> bool {
        (first.saturating_sub(3)..=first).any(|start| {
            let number = |bytes: &[u8]| -> Option<[u8; 4]> { bytes.get(start..start + 4)?.try_into().ok() };
            let (Some(left), Some(right)) = (number(before), number(after)) else { return false };
            let both = |read: fn([u8; 4]) -> u32| self.is_now(read(left).into()) && self.is_now(read(right).into());
            left != right && (both(u32::from_le_bytes) || both(u32::from_be_bytes))
        })
    }

    /// Within a week before and a day after.
    fn is_now(&self, seconds: i64) -> bool {
        (self.now - 7 * 86_400..self.now + 86_400).contains(&seconds)
    }

    /// Two short pieces of text that differ: what it is that differs.
    fn of_pieces(&self, before: &[u8], after: &[u8]) -> Cause {
        let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
        if same_words(before.as_bytes(), after.as_bytes()) {
            return Cause::Order;
        }
        let is_separator = |character: char| !character.is_ascii_alphanumeric() && !"_+".contains(character);
        let words = |text: &'_ str| -> Vec<String> {
            text.split(is_separator).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let (left, right) = (words(&before), words(&after));
        if before.contains("in-another-place") || after.contains("in-another-place") || after.contains("/scratch/") {
            return Cause::Path;
        }
        if left.len() != right.len() {
            return if is_clock(&before) && is_clock(&after) { Cause::Time } else { Cause::Unknown };
        }
        let differing: Vec<(&String, &String)> =
            left.iter().zip(&right).filter(|(left, right)| left != right).collect();
        if are_bytes(&differing) {
            return Cause::Random;
        }
        let cause =
            differing.into_iter().map(|(left, right)| self.of_words(left, right)).min().unwrap_or(Cause::Unknown);
        match cause {
            // 12:34:56, or a month's name with a day.
            Cause::Number | Cause::Unknown if is_clock(&before) && is_clock(&after) => Cause::Time,
            cause => cause,
        }
    }

    fn of_words(&self, before: &str, after: &str) -> Cause {
        let number = |word: &str| word.parse::<i64>().ok();
        let hexadecimal = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (number(before), number(after)) {
            (Some(left), Some(right)) => {
                let seconds = |number: i64| [1, 1000, 1_000_000, 1_000_000_000].map(|unit| number / unit);
                let is_time = |number: i64| seconds(number).into_iter().any(|seconds| self.is_now(seconds));
                if is_time(left) && is_time(right) {
                    return Cause::Time;
                }
                let told = [left, right] == self.cores.map(|cores| cores as i64);
                let real = std::thread::available_parallelism().map_or(0, usize::from) as i64;
                if told || (left, right) == (real, 1) && real != 1 {
                    return Cause::Cores;
                }
                return Cause::Number;
            }
            _ if before.starts_with("0x") && after.starts_with("0x") => return Cause::Address,
            _ if before.len() >= 8 && before.len() == after.len() && hexadecimal(before) && hexadecimal(after) => {
                return if before.starts_with("7f") || before.starts_with("55") && before.len() == 12 {
                    Cause::Address
                } else {
                    Cause::Random
                };
            }
            _ => {}
        }
        let mixed = |word: &str| {
            word.len() >= 6
                && (word.bytes().any(|byte| byte.is_ascii_digit())
                    || word.bytes().skip(1).any(|byte| byte.is_ascii_uppercase()))
        };
        if mixed(before) && mixed(after) && before.len().abs_diff(after.len()) <= 2 {
            return Cause::Random;
        }
        Cause::Unknown
    }
}

/// A row of bytes, written out: what looks like numbers among them is none.
fn are_bytes(differing: &[(&String, &String)]) -> bool {
    let words = || differing.iter().flat_map(|(left, right)| [left, right]);
    let is_byte = |word: &&String| word.len() == 2 && word.bytes().all(|digit| digit.is_ascii_hexdigit());
    differing.len() >= 4 && words().all(is_byte) && words().any(|word| word.parse::<u8>().is_err())
}

fn same_when_sorted(left: &[Vec<u8>], right: &[Vec<u8>]) -> bool {
    let sorted = |lines: &[Vec<u8>]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines
    };
    left.len() == right.len() && sorted(left) == sorted(right)
}

/// The same words in another order, more than one of them.
fn same_words(left: &[u8], right: &[u8]) -> bool {
    let words = |bytes: &'_ [u8]| {
        let is_separator = |byte: &u8| byte.is_ascii_whitespace() || b",;:{}[]()\"'".contains(byte);
        let mut words: Vec<Vec<u8>> =
            bytes.split(is_separator).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect();
        words.sort_unstable();
        words
    };
    left.len() == right.len() && {
        let (left, right) = (words(left), words(right));
        left.len() > 1 && left == right
    }
}

/// Whether a text has a time of day in it.
fn is_clock(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(8).any(|window| {
        let digit = |at: usize| window[at].is_ascii_digit();
        window[2] == b':' && window[5] == b':' && [0, 1, 3, 4, 6, 7].into_iter().all(digit)
    })
}

fn show(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|character| if character.is_control() { '·' } else { character })
        .take(SHOWN)
        .collect();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_seen_in_what_differs() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_000_000);
        let judge = Judge::new(&store, 16, now);
        let cases: &[(&[u8], &[u8], Cause)] = &[
            (b"built 1795000000\n", b"built 1795000002\n", Cause::Time),
            (b"built 1795000000123\n", b"built 1795000002456\n", Cause::Time),
            (b"Sat Nov 21 14:54:49 UTC 2026\n", b"Sat Nov 21 14:54:51 UTC 2026\n", Cause::Time),
            (b"b\na\nc\n", b"a\nb\nc\n", Cause::Order),
            (b"{\"b\": 1, \"a\": 2}", b"{\"a\": 2, \"b\": 1}", Cause::Order),
            (b"jobs=16\n", b"jobs=1\n", Cause::Cores),
            (b"pid 17\n", b"pid 19\n", Cause::Number),
            (b"at 0x7ffd00aa\n", b"at 0x7ffe11bb\n", Cause::Address),
            (b"3c9f8e0011\n", b"77aa12bc9d\n", Cause::Random),
            (b"salt$1$aB3xY9q\n", b"salt$1$Zz81Kqp\n", Cause::Random),
            (b" f9 88 16 0a 87 19\n", b" 6e 33 01 ba 58 64\n", Cause::Random),
            (b"dir /s/scratch/1-a/changes\n", b"dir /s/scratch/2-b/made/again/in-another-place-x\n", Cause::Path),
            (b"one\n", b"two\n", Cause::Unknown),
            (b"\x1f\x8b\x08\x00\x01\x02\x03\x04\x00", b"\x1f\x8b\x08\x00\x09\x02\x03\x04\x00", Cause::Time),
            (b"\x00\x01\xff\xfe\x02", b"\x00\xff\x01\xfe\x02", Cause::Order),
        ];
        for (before, after, cause) in cases {
            let found = judge.of_bytes(before, after).0;
            assert_eq!(found, *cause, "{:?}", String::from_utf8_lossy(before));
        }
        let stamp = |seconds: u32| [&[0_u8; 9][..], &seconds.to_le_bytes(), &[0; 5]].concat();
        assert_eq!(judge.of_bytes(&stamp(1_795_000_000), &stamp(1_795_000_001)).0, Cause::Time);
    }
}
