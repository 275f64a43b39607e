//! Places in texts as small numbers, so that code and values can carry them cheaply.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use crate::ast::Span;
use crate::error::{Place, SourceText};

/// A place, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct PlaceId(u32);

impl PlaceId {
    /// Nowhere: what is said is not written in any text.
    pub const NONE: Self = Self(0);

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// Whether it is somewhere.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// This place, or that one if this is nowhere.
    pub fn or(self, other: Self) -> Self {
        if self.is_some() { self } else { other }
    }
}

/// A text with the places in it. They are looked into when something fails, and when somebody asks where an attribute is; until
/// then they lie packed, and what is a file stays on disk.
enum Kept {
    Whole(Opened),
    Packed { name: PathBuf, text: PackedText, spans: Box<[u8]> },
}

/// A text that is not looked into now.
enum PackedText {
    Here(Box<[u8]>),
    /// It is read again from where it is called after. If it has another digest by then, its places are nowhere.
    OnDisk(blake3::Hash),
}

/// A text and its places, to be looked into.
#[derive(Clone)]
struct Opened {
    text: Arc<SourceText>,
    spans: Rc<Vec<Span>>,
    /// Its name is the path of a file with these bytes.
    is_on_disk: bool,
}

/// Shorter ones are not packed.
const SHORTEST_PACKED: usize = 512;

impl Kept {
    fn pack(&mut self) {
        if let Self::Whole(Opened { text, spans, is_on_disk }) = self
            && text.bytes.len() >= SHORTEST_PACKED
        {
            let packed = match *is_on_disk {
                true => PackedText::OnDisk(blake3::hash(&text.bytes)),
                false => PackedText::Here(lz4_flex::compress_prepend_size(&text.bytes).into()),
            };
            *self = Self::Packed { name: text.name.clone(), text: packed, spans: pack_spans(spans) };
        }
    }

    fn unpack(&self) -> Option<Opened> {
        match self {
            Self::Whole(opened) => Some(opened.clone()),
            Self::Packed { name, text, spans } => {
                let bytes = match text {
                    PackedText::Here(packed) => {
                        lz4_flex::decompress_size_prepended(packed).expect("what was packed here can be unpacked")
                    }
                    PackedText::OnDisk(digest) => {
                        std::fs::read(name).ok().filter(|bytes| blake3::hash(bytes) == *digest)?
                    }
                };
                let text = Arc::new(SourceText { name: name.clone(), bytes });
                Some(Opened { text, spans: Rc::new(unpack_spans(spans)), is_on_disk: false })
            }
        }
    }
}

/// Each place follows one that is near it and most are short, so that steps and lengths need three bytes rather than eight: seven
/// bits to a byte, the uppermost of which says that more follow.
fn pack_spans(spans: &[Span]) -> Box<[u8]> {
    let mut packed = Vec::with_capacity(spans.len() * 3);
    let mut put = |number: u64| {
        let mut rest = number;
        while rest >= 0x80 {
            packed.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        packed.push(rest as u8);
    };
    let mut before = 0;
    for span in spans {
        for (number, from) in [(span.start, before), (span.end, span.start)] {
            // Small numbers of either sign become small ones without.
            let step = i64::from(number) - i64::from(from);
            put((step << 1 ^ step >> 63).cast_unsigned());
        }
        before = span.start;
    }
    packed.into()
}

fn unpack_spans(packed: &[u8]) -> Vec<Span> {
    let mut rest = packed.iter();
    let mut step = || {
        let (mut number, mut shift) = (0u64, 0);
        for byte in rest.by_ref() {
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
            shift += 7;
        }
        None
    };
    let mut spans = Vec::new();
    let mut before = 0;
    while let (Some(start), Some(length)) = (step(), step()) {
        before += start;
        spans.push(Span { start: before as u32, end: (before + length) as u32 });
    }
    spans
}

/// All texts that were read, and places in them.
#[derive(Default)]
pub struct Places {
    /// Each with the number of its first place: the places of a text follow one another.
    texts: RefCell<Vec<(usize, Kept)>>,
    /// The packed text that was looked into last, by its number.
    unpacked: RefCell<Option<(usize, Opened)>>,
    /// The places of the last text.
    list: RefCell<Vec<Span>>,
    /// The number of the first of them.
    first: Cell<usize>,
}

impl Places {
    /// Makes a text known; places that are added next are in it.
    pub fn text(&self, text: Arc<SourceText>) {
        let mut texts = self.texts.borrow_mut();
        let spans = std::mem::take(&mut *self.list.borrow_mut());
        self.first.set(self.first.get() + spans.len());
        if let Some((_, last)) = texts.last_mut() {
            if let Kept::Whole(opened) = last {
                opened.spans = Rc::new(spans);
            }
            last.pack();
        }
        texts.push((self.first.get(), Kept::Whole(Opened { text, spans: Rc::default(), is_on_disk: false })));
    }

    /// Says that the text that was made known last is called after what it was read from; a pipe is not read a second time.
    pub fn last_is_on_disk(&self) {
        if let Some((_, Kept::Whole(opened))) = self.texts.borrow_mut().last_mut() {
            opened.is_on_disk = std::fs::metadata(&opened.text.name).is_ok_and(|metadata| metadata.is_file());
        }
    }

    /// The number of a place in the text that was made known last.
    pub fn add(&self, span: Span) -> PlaceId {
        let mut list = self.list.borrow_mut();
        list.push(span);
        PlaceId((self.first.get() + list.len()) as u32)
    }

    /// The place of a number.
    pub fn get(&self, place: PlaceId) -> Option<Place> {
        let number = (place.0 as usize).checked_sub(1)?;
        let texts = self.texts.borrow();
        let at = texts.partition_point(|(first, _)| *first <= number).checked_sub(1)?;
        let (first, kept) = &texts[at];
        let opened = match &mut *self.unpacked.borrow_mut() {
            Some((number, opened)) if *number == at => opened.clone(),
            // Places are still added to the last one.
            unpacked if at + 1 < texts.len() => unpacked.insert((at, kept.unpack()?)).1.clone(),
            _ => kept.unpack()?,
        };
        let of_last = |number: usize| self.list.borrow().get(number).copied().filter(|_| at + 1 == texts.len());
        let span = opened.spans.get(number - first).copied().or_else(|| of_last(number - first))?;
        Some(Place { text: opened.text, start: span.start as usize, end: span.end as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_a_file_is_read_again_unless_it_was_changed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = b"a line\n".repeat(SHORTEST_PACKED);
        std::fs::write(file.path(), &bytes).unwrap();
        let places = Places::default();
        places.text(Arc::new(SourceText { name: file.path().to_owned(), bytes: bytes.clone() }));
        let place = places.add(Span { start: 8, end: 9 });
        places.last_is_on_disk();
        for name in ["other", "another"] {
            places.text(Arc::new(SourceText { name: name.into(), bytes: Vec::new() }));
        }
        let found = places.get(place).unwrap();
        assert_eq!((found.line_and_column(), &found.text.bytes), ((2, 2), &bytes));
        std::fs::write(file.path(), "changed").unwrap();
        assert!(places.get(place).is_some(), "what was looked into last is still there");
        *places.unpacked.borrow_mut() = None;
        assert!(places.get(place).is_none());
    }

    #[test]
    fn places_are_what_they_were_after_they_were_packed() {
        let places = Places::default();
        let text = |name: &str, length: usize| Arc::new(SourceText { name: name.into(), bytes: vec![b'x'; length] });
        let spans = [(0, 0), (5, 6), (3, 1000), (u32::MAX - 1, u32::MAX), (0, u32::MAX), (127, 128), (7, 7)];
        let mut added = Vec::new();
        for (name, length) in [("long", 5000), ("none", 1000), ("short", 10), ("last", 5000)] {
            places.text(text(name, length));
            for (start, end) in spans.into_iter().filter(|_| name != "none") {
                added.push((name, start, end, places.add(Span { start, end })));
            }
            for (name, start, end, place) in &added {
                let found = places.get(*place).unwrap();
                assert_eq!(
                    (found.text.name.to_str(), found.start, found.end),
                    (Some(*name), *start as usize, *end as usize)
                );
            }
        }
        assert!(places.get(PlaceId::NONE).is_none() && places.get(PlaceId(added.len() as u32 + 1)).is_none());
    }
}
