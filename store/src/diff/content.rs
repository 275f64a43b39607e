//! What differs inside a file: lines of a text, sections of a program, or the place of the first other byte.

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _};

/// Larger files are not looked into.
pub(super) const MOST: u64 = 256 << 20;
/// Larger texts are not compared line by line: it can take time that grows with the product of their lengths.
const MOST_TEXT: usize = 4 << 20;
/// How long to look for the shortest diff; then a longer one will do.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// What of a file's content differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentChange {
    /// Both are texts: the lines that differ, in the unified form (diff(1)), without file names.
    Text {
        /// Ends with a newline.
        diff: String,
    },
    /// Both are ELF files: sections that differ. None of them does, if headers or padding do.
    Elf {
        /// Sorted by name.
        sections: Vec<SectionChange>,
    },
    /// Anything else.
    Bytes {
        /// Where the first other byte is; none if that was not looked for, because the file is very large.
        first: Option<u64>,
    },
}

/// A section of an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionChange {
    /// Its name, for instance `.text`.
    pub name: String,
    /// Bytes in the one file; none if it has no such section.
    pub before: Option<u64>,
    /// Bytes in the other.
    pub after: Option<u64>,
}

/// Compares contents that are known to differ.
pub(super) fn compare(before: &[u8], after: &[u8]) -> ContentChange {
    if let (Some(before), Some(after)) = (text(before), text(after)) {
        let diff = similar::TextDiff::configure().timeout(PATIENCE).diff_lines(before, after);
        return ContentChange::Text { diff: diff.unified_diff().context_radius(2).to_string() };
    }
    if let (Some(before), Some(after)) = (sections(before), sections(after)) {
        let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let differing = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
        let size = |section: Option<&(u64, blake3::Hash)>| section.map(|(size, _)| *size);
        let change = |name: &String| SectionChange {
            before: size(before.get(name)),
            after: size(after.get(name)),
            name: name.clone(),
        };
        return ContentChange::Elf { sections: differing.map(change).collect() };
    }
    let first = before.iter().zip(after).position(|(before, after)| before != after);
    let first = first.unwrap_or(before.len().min(after.len()));
    ContentChange::Bytes { first: Some(first as u64) }
}

/// A text that a person would read.
fn text(bytes: &[u8]) -> Option<&str> {
    let is_text = bytes.len() <= MOST_TEXT && !bytes.iter().any(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31));
    if is_text { std::str::from_utf8(bytes).ok() } else { None }
}

/// Sections by name: their length, and the digest of their bytes. Several of one name are told apart by a number.
fn sections(bytes: &[u8]) -> Option<BTreeMap<String, (u64, blake3::Hash)>> {
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let file = object::File::parse(bytes).ok()?;
    let mut sections = BTreeMap::new();
    for section in file.sections() {
        let name = String::from_utf8_lossy(section.name_bytes().unwrap_or_default()).into_owned();
        let content = section.data().unwrap_or_default();
        let mut key = name.clone();
        for number in 2.. {
            if !sections.contains_key(&key) {
                break;
            }
            key = format!("{name} ({number})");
        }
        sections.insert(key, (section.size(), blake3::hash(content)));
    }
    Some(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_line_by_line_and_other_bytes_by_place() {
        let change = compare(b"a\nb\nc\n", b"a\nB\nc\n");
        assert_eq!(change, ContentChange::Text { diff: "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n".to_owned() });
        assert_eq!(compare(b"\0ab", b"\0ac"), ContentChange::Bytes { first: Some(2) });
        assert_eq!(compare(b"\0", b"\0more"), ContentChange::Bytes { first: Some(1) });
    }

    #[test]
    fn a_program_is_shown_by_section() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut changed = program.clone();
        let file = object::File::parse(program.as_slice()).unwrap();
        let (offset, _) = file.section_by_name(".rodata").unwrap().file_range().unwrap();
        changed[offset as usize] ^= 1;
        let ContentChange::Elf { sections } = compare(&program, &changed) else { panic!("a program") };
        assert_eq!(sections.iter().map(|section| section.name.as_str()).collect::<Vec<_>>(), [".rodata"]);
    }

    #[test]
    fn nonsense_that_looks_like_a_program_does_not_panic() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for cut in [4, 20, 63, 64, 65, 200, 4096] {
            compare(&program[..cut], &program[..cut - 1]);
        }
    }
}
