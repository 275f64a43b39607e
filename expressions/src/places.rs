//! Places in texts as small numbers, so that code and values can carry them cheaply.

use std::cell::RefCell;
use std::sync::Arc;

use crate::ast::Span;
use crate::error::{Place, SourceText};

/// A place, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct PlaceId(u32);

impl PlaceId {
    /// Nowhere: what is said is not written in any text.
    pub const NONE: Self = Self(0);

    /// Whether it is somewhere.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// This place, or that one if this is nowhere.
    pub fn or(self, other: Self) -> Self {
        if self.is_some() { self } else { other }
    }
}

/// All texts that were read, and places in them.
#[derive(Default)]
pub struct Places {
    texts: RefCell<Vec<Arc<SourceText>>>,
    list: RefCell<Vec<(u32, Span)>>,
}

impl Places {
    /// Makes a text known; its number goes to [`Places::add`].
    pub fn text(&self, text: Arc<SourceText>) -> u32 {
        let mut texts = self.texts.borrow_mut();
        texts.push(text);
        (texts.len() - 1) as u32
    }

    /// The number of a place.
    pub fn add(&self, text: u32, span: Span) -> PlaceId {
        let mut list = self.list.borrow_mut();
        list.push((text, span));
        PlaceId(list.len() as u32)
    }

    /// The place of a number.
    pub fn get(&self, place: PlaceId) -> Option<Place> {
        let (text, span) = *self.list.borrow().get((place.0 as usize).checked_sub(1)?)?;
        let text = Arc::clone(&self.texts.borrow()[text as usize]);
        Some(Place { text, start: span.start as usize, end: span.end as usize })
    }
}
