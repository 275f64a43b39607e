//! Places in texts as small numbers, so that code and values can carry them cheaply.

use std::cell::RefCell;
use std::path::PathBuf;
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

/// A text. They are looked into when something fails, and when somebody asks where an attribute is; until then they lie packed.
enum Kept {
    Whole(Arc<SourceText>),
    Packed { name: PathBuf, bytes: Box<[u8]> },
}

/// Shorter ones are not packed.
const SHORTEST_PACKED: usize = 512;

impl Kept {
    fn pack(&mut self) {
        if let Self::Whole(text) = self
            && text.bytes.len() >= SHORTEST_PACKED
        {
            let bytes = lz4_flex::compress_prepend_size(&text.bytes).into();
            *self = Self::Packed { name: text.name.clone(), bytes };
        }
    }

    fn unpack(&self) -> Arc<SourceText> {
        match self {
            Self::Whole(text) => Arc::clone(text),
            Self::Packed { name, bytes } => {
                let bytes = lz4_flex::decompress_size_prepended(bytes).expect("what was packed here can be unpacked");
                Arc::new(SourceText { name: name.clone(), bytes })
            }
        }
    }
}

/// All texts that were read, and places in them.
#[derive(Default)]
pub struct Places {
    /// Each with the number of its first place: the places of a text follow one another.
    texts: RefCell<Vec<(usize, Kept)>>,
    /// The packed text that was looked into last, by its number.
    unpacked: RefCell<Option<(usize, Arc<SourceText>)>>,
    list: RefCell<Vec<Span>>,
}

impl Places {
    /// Makes a text known; places that are added next are in it.
    pub fn text(&self, text: Arc<SourceText>) {
        let mut texts = self.texts.borrow_mut();
        if let Some((_, last)) = texts.last_mut() {
            last.pack();
        }
        texts.push((self.list.borrow().len(), Kept::Whole(text)));
    }

    /// The number of a place in the text that was made known last.
    pub fn add(&self, span: Span) -> PlaceId {
        let mut list = self.list.borrow_mut();
        list.push(span);
        PlaceId(list.len() as u32)
    }

    /// The place of a number.
    pub fn get(&self, place: PlaceId) -> Option<Place> {
        let number = (place.0 as usize).checked_sub(1)?;
        let span = *self.list.borrow().get(number)?;
        let texts = self.texts.borrow();
        let text = texts.partition_point(|(first, _)| *first <= number).checked_sub(1)?;
        let text = match &mut *self.unpacked.borrow_mut() {
            Some((number, unpacked)) if *number == text => Arc::clone(unpacked),
            unpacked => Arc::clone(&unpacked.insert((text, texts[text].1.unpack())).1),
        };
        Some(Place { text, start: span.start as usize, end: span.end as usize })
    }
}
