//! Values that names stand for; which name is which was settled when the code was made.

use std::cell::Cell;
use std::ptr::NonNull;

use super::{Value, allocate};

/// One level of names: a word for the level around it, then a word for each name.
///
/// The number of names is in the upper 16 bits of the first word, which no address uses; where there are more than fit, that is
/// all ones and the number is in a word before the first.
#[derive(Clone, Copy, PartialEq)]
pub struct Scope(pub(super) NonNull<Cell<*const u8>>);

const COUNT_SHIFT: u32 = 48;
const MANY: usize = 0xffff;

impl Scope {
    /// A scope whose values are to be set.
    #[inline]
    pub fn new(count: usize, outer: Option<Self>) -> Self {
        let is_large = count >= MANY;
        let memory = allocate(8 * (1 + count + usize::from(is_large))).cast::<Cell<*const u8>>();
        let outer = outer.map_or(std::ptr::null(), |outer| outer.0.as_ptr().cast::<u8>().cast_const());
        assert!(outer.addr() >> COUNT_SHIFT == 0, "addresses have 48 bits");
        let outer = outer.map_addr(|address| address | count.min(MANY) << COUNT_SHIFT);
        // SAFETY: so many words were allocated; all of them are initialised.
        unsafe {
            let mut head = memory;
            if is_large {
                head.write(Cell::new(std::ptr::without_provenance(count)));
                head = head.add(1);
            }
            head.write(Cell::new(outer));
            for slot in 1..=count {
                head.add(slot).write(Cell::new(std::ptr::null()));
            }
            Self(head)
        }
    }

    /// A scope with more slots than another one, whose first values it shares.
    #[inline]
    pub fn longer(self, before: u32, count: usize) -> Self {
        let scope = Self::new(count, self.outer());
        for slot in 0..before {
            scope.slot(slot).set(self.slot(slot).get());
        }
        scope
    }

    /// A scope with one value.
    #[inline]
    pub fn one(value: Value, outer: Option<Self>) -> Self {
        let scope = Self::new(1, outer);
        scope.set(0, value);
        scope
    }

    #[inline(always)]
    fn head(self) -> *const u8 {
        // SAFETY: the first word is always there.
        unsafe { self.0.as_ref() }.get()
    }

    #[inline(always)]
    fn count(self) -> usize {
        let count = self.head().addr() >> COUNT_SHIFT;
        if count < MANY { count } else { self.large_count() }
    }

    #[cold]
    fn large_count(self) -> usize {
        // SAFETY: a large scope has a word before its first.
        unsafe { self.0.sub(1).as_ref() }.get().addr()
    }

    /// The scope around this one.
    #[inline(always)]
    pub fn outer(self) -> Option<Self> {
        let outer = self.head().map_addr(|address| address & ((1 << COUNT_SHIFT) - 1));
        NonNull::new(outer.cast_mut().cast()).map(Self)
    }

    /// The scope so many levels out.
    #[inline(always)]
    pub fn up(self, levels: u32) -> Self {
        let mut scope = self;
        for _ in 0..levels {
            scope = scope.outer().unwrap_or(scope);
        }
        scope
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> &Cell<*const u8> {
        assert!((slot as usize) < self.count());
        // SAFETY: there are so many slots.
        unsafe { self.0.add(1 + slot as usize).as_ref() }
    }

    /// The value in a slot; none while the scope is being made.
    #[inline(always)]
    pub fn get(self, slot: u32) -> Option<Value> {
        Value::from_word(self.slot(slot).get())
    }

    /// Sets a slot.
    #[inline(always)]
    pub fn set(self, slot: u32, value: Value) {
        self.slot(slot).set(value.word());
    }
}
