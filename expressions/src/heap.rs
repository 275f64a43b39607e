//! Where values live: memory that is handed out from front to back and given back all at once.
//!
//! All unsafe code of the crate is in this module and the files below it. What makes it sound:
//!
//! * **Memory lives as long as its thread.** Chunks belong to the thread that asked for them and are freed when it ends
//!   ([`crate::stack::deep`] gives every evaluation a thread). Handles ([`Ref`], [`Slice`], [`Value`], …) hold raw pointers and
//!   are therefore not [`Send`]: none outlives its memory, though all are `Copy` and carry no lifetime. What a handle
//!   dereferences to is borrowed from the handle, so no reference leaves the thread either.
//! * **Nothing is freed before that**, with one exception: what a call or a thunk allocated is taken back at its end where nobody
//!   can know it any more. [`region`] says how that is found out.
//! * **Nothing has to be dropped**: [`place`] refuses types that would.
//! * A pointer is packed into a word with its kind in the three lowest bits; every allocation is aligned to 8 bytes. Words keep
//!   the provenance of their pointers, so that Miri can check all of this: `cargo +nightly miri test -p expressions --lib heap`.
//!
//! There is no collector; `docs/why/evaluator.md` says why. A limit on memory is kept by `limit.rs`.

mod limit;
mod permanent;
mod region;
mod scope;
mod set;
mod thunk;
mod value;

#[cfg(test)]
mod tests;

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::fast_hash::FastMap;
use crate::value::{Reference, References};

pub use limit::{check_room, is_exhausted, set_limit, within};
pub use permanent::permanently;
pub use region::{keep, region};
pub use scope::Scope;
pub use set::{Guess, Keys, Place, Set};
pub use thunk::{More, State, Thunk};
pub use value::{Closure, List, Text, Value, View};

/// Chunks grow with what was allocated already, from this size (a small one for Miri, which is slow) …
const SMALLEST_CHUNK: usize = if cfg!(miri) { 1 << 14 } else { 1 << 20 };
/// … to this one. What of a chunk is not touched costs address space only.
const LARGEST_CHUNK: usize = 32 << 20;

/// Longer ones nobody can have memory for.
pub const LONGEST_LIST: usize = 1 << 40;

/// The part of the newest chunk that is free.
struct Free {
    position: Cell<*mut u8>,
    end: Cell<*mut u8>,
    /// Where the chunk begins.
    start: Cell<*mut u8>,
    /// What lies before it, and in other chunks, may be known to more than the innermost [`region`].
    base: Cell<*mut u8>,
    /// The lowest address of what was before `base` and was told of something behind it since the innermost region began.
    told: Cell<usize>,
    /// How many chunks there were.
    generation: Cell<u32>,
}

/// The end of a string that may grow, and of the room after it.
struct Growing {
    position: Cell<*mut u8>,
    end: Cell<*mut u8>,
}

#[derive(Default)]
struct Chunks {
    list: RefCell<Vec<(NonNull<u8>, Layout)>>,
    contexts: RefCell<Contexts>,
}

/// Contexts of strings; each is kept once.
#[derive(Default)]
struct Contexts {
    list: Vec<Rc<References>>,
    numbers: FastMap<Rc<References>, ContextId>,
}

thread_local! {
    static FREE: Free = const {
        Free {
            position: Cell::new(std::ptr::null_mut()),
            end: Cell::new(std::ptr::null_mut()),
            start: Cell::new(std::ptr::null_mut()),
            base: Cell::new(std::ptr::null_mut()),
            told: Cell::new(usize::MAX),
            generation: Cell::new(0),
        }
    };
    /// The string that was last put together.
    static GROWING: Growing =
        const { Growing { position: Cell::new(std::ptr::null_mut()), end: Cell::new(std::ptr::null_mut()) } };
    static USED: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
    static CHUNKS: Chunks = Chunks::default();
}

impl Drop for Chunks {
    fn drop(&mut self) {
        FREE.with(|free| free.end.set(free.position.get()));
        GROWING.with(|free| free.end.set(free.position.get()));
        for (pointer, layout) in self.list.get_mut().drain(..) {
            // SAFETY: it was allocated with this layout. The thread ends, and handles do not leave it.
            unsafe { std::alloc::dealloc(pointer.as_ptr(), layout) };
        }
    }
}

fn new_chunk(size: usize) -> NonNull<u8> {
    FREE.with(|free| free.generation.set(free.generation.get().wrapping_add(1)));
    let used = USED.with(|used| {
        used.set(used.get().saturating_add(size));
        used.get()
    });
    if used > LIMIT.with(Cell::get) {
        if size > LARGEST_CHUNK {
            USED.with(|used| used.set(used.get().saturating_sub(size)));
            limit::give_up();
        }
        crate::stack::close();
    }
    let layout = Layout::from_size_align(size, 16).unwrap_or_else(|_| limit::give_up());
    // SAFETY: the size is not zero.
    let pointer = unsafe { std::alloc::alloc(layout) };
    let Some(pointer) = NonNull::new(pointer) else { std::alloc::handle_alloc_error(layout) };
    // Where the thread ends already, the chunk is leaked rather than freed too early.
    let _ = CHUNKS.try_with(|chunks| chunks.list.borrow_mut().push((pointer, layout)));
    pointer
}

/// Memory that is aligned to 8 bytes and belongs to the thread.
#[inline(always)]
fn allocate(size: usize) -> NonNull<u8> {
    FREE.with(|free| {
        let position = free.position.get();
        let size = (size + 7) & !7;
        if size <= free.end.get().addr() - position.addr() {
            // SAFETY: the chunk has as many bytes left. Nothing of size 0 is asked for before there is a chunk, see below.
            let next = unsafe { position.add(size) };
            free.position.set(next);
            if let Some(position) = NonNull::new(position) {
                return position;
            }
        }
        allocate_elsewhere(size)
    })
}

#[cold]
#[inline(never)]
fn allocate_elsewhere(size: usize) -> NonNull<u8> {
    let chunk = (USED.with(Cell::get) / 4).clamp(SMALLEST_CHUNK, LARGEST_CHUNK);
    if size > chunk / 4 {
        return new_chunk(size);
    }
    let start = new_chunk(chunk);
    FREE.with(|free| {
        // SAFETY: both are within the chunk or at its end.
        unsafe {
            free.position.set(start.as_ptr().add(size));
            free.end.set(start.as_ptr().add(chunk));
            free.start.set(start.as_ptr());
            free.base.set(start.as_ptr());
        }
    });
    start
}

/// Something that lives as long as its thread.
pub struct Ref<T>(NonNull<T>);

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> Deref for Ref<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: it was initialised by `place`, is never written to but through cells, and lives as long as the thread.
        unsafe { self.0.as_ref() }
    }
}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Ref<T> {
    /// A number that no other object has.
    pub fn address(self) -> usize {
        self.0.addr().get()
    }

    /// A part of it.
    #[inline(always)]
    pub fn map<U>(self, part: impl for<'a> FnOnce(&'a T) -> &'a U) -> Ref<U> {
        Ref(NonNull::from(part(&*self)))
    }
}

/// Puts something where it stays.
#[inline]
pub fn place<T>(value: T) -> Ref<T> {
    const {
        assert!(!std::mem::needs_drop::<T>() && align_of::<T>() <= 8);
    }
    let pointer = allocate(size_of::<T>().max(1)).cast::<T>();
    // SAFETY: the memory is new, large enough and aligned.
    unsafe { pointer.write(value) };
    Ref(pointer)
}

/// Several things that live as long as their thread.
pub struct Slice<T> {
    pointer: NonNull<T>,
    length: usize,
}

impl<T> Clone for Slice<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slice<T> {}

impl<T> Deref for Slice<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: as for `Ref`; that many were initialised.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl<T> Default for Slice<T> {
    fn default() -> Self {
        Self { pointer: NonNull::dangling(), length: 0 }
    }
}

impl<T> Slice<T> {
    /// Puts things where they stay.
    pub fn new(items: impl IntoIterator<Item = T>) -> Self {
        const {
            assert!(!std::mem::needs_drop::<T>() && align_of::<T>() <= 8);
        }
        // The items may be placed things themselves; they come first.
        let items: Vec<T> = items.into_iter().collect();
        if items.is_empty() {
            return Self::default();
        }
        let length = items.len();
        let pointer = allocate(size_of_val(items.as_slice()).max(1)).cast::<T>();
        // SAFETY: the memory is new, large enough and aligned; what is copied is not dropped.
        unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), pointer.as_ptr(), length) };
        let mut items = items;
        // SAFETY: the items have moved.
        unsafe { items.set_len(0) };
        Self { pointer, length }
    }

    /// So many things; if there are fewer, so many.
    #[inline]
    pub fn of(length: usize, items: impl Iterator<Item = T>) -> Self {
        const {
            assert!(!std::mem::needs_drop::<T>() && align_of::<T>() <= 8);
        }
        let pointer = allocate((length * size_of::<T>()).max(1)).cast::<T>();
        let mut count = 0;
        for item in items.take(length) {
            // SAFETY: the memory is new and has room for so many; it is read only as far as it was written.
            unsafe { pointer.add(count).write(item) };
            count += 1;
        }
        Self { pointer, length: count }
    }

    /// One of them.
    #[inline(always)]
    pub fn at(&self, index: usize) -> Ref<T> {
        Ref(NonNull::from(&self[index]))
    }

    /// All of them.
    #[inline]
    pub fn refs(self) -> impl ExactSizeIterator<Item = Ref<T>> {
        (0..self.length).map(move |index| self.at(index))
    }

    /// A number that no other object has.
    pub fn address(&self) -> usize {
        self.pointer.addr().get()
    }
}

impl Slice<u8> {
    /// A part.
    pub fn part(&self, start: usize, end: usize) -> Self {
        let part = &self[start..end];
        Self { pointer: NonNull::from(part).cast(), length: part.len() }
    }
}

/// Bytes that live as long as their thread.
pub type Bytes = Slice<u8>;

impl std::fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(self).fmt(formatter)
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialEq<[u8]> for Bytes {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Bytes {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == **other
    }
}

impl PartialEq<Vec<u8>> for Bytes {
    fn eq(&self, other: &Vec<u8>) -> bool {
        **self == **other
    }
}

impl std::hash::Hash for Bytes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::borrow::Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Copies bytes to where they stay.
pub fn bytes(bytes: &[u8]) -> Bytes {
    if bytes.is_empty() {
        return Bytes::default();
    }
    let pointer = allocate(bytes.len());
    // SAFETY: the memory is new and large enough.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer.as_ptr(), bytes.len()) };
    Bytes { pointer, length: bytes.len() }
}

/// Two strings in one. Where the first was itself put together just before, it grows where it is, so that a string that is
/// put together piece by piece costs no more than its length.
pub fn append(left: Bytes, right: &[u8]) -> Bytes {
    if right.is_empty() {
        return left;
    }
    let length = left.length + right.len();
    GROWING.with(|growing| {
        let end = growing.position.get();
        // SAFETY: the end of a slice is within or one past its memory.
        let is_last = left.length > 0 && unsafe { left.pointer.as_ptr().add(left.length) } == end;
        if is_last && right.len() <= growing.end.get().addr() - end.addr() {
            // SAFETY: from `end` on so many bytes are reserved for this, and no slice covers them yet.
            unsafe {
                std::ptr::copy_nonoverlapping(right.as_ptr(), end, right.len());
                growing.position.set(end.add(right.len()));
                // The pointer that goes on past the old end is the one of the room.
                return Bytes { pointer: NonNull::new_unchecked(end.sub(left.length)), length };
            }
        }
        // Only what grows a second time is given room.
        let room = if is_last || left.length >= 4096 && right.len() < left.length / 16 { length / 2 } else { 0 };
        let pointer = allocate(length + room);
        // SAFETY: the memory is new and large enough.
        unsafe {
            std::ptr::copy_nonoverlapping(left.pointer.as_ptr(), pointer.as_ptr(), left.length);
            std::ptr::copy_nonoverlapping(right.as_ptr(), pointer.as_ptr().add(left.length), right.len());
            if length >= 64 {
                growing.position.set(pointer.as_ptr().add(length));
                growing.end.set(pointer.as_ptr().add(length + room));
            }
        }
        Bytes { pointer, length }
    })
}

/// What a string refers to, by number; 0 for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextId(u32);

impl ContextId {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// A context, which is sorted; kept with the values.
    pub fn new(references: &[Rc<Reference>]) -> Self {
        if references.is_empty() {
            return Self::NONE;
        }
        CHUNKS.with(|chunks| {
            let Contexts { list, numbers } = &mut *chunks.contexts.borrow_mut();
            if let Some(known) = numbers.get(references) {
                return *known;
            }
            let references: Rc<References> = references.into();
            list.push(Rc::clone(&references));
            let id = Self(u32::try_from(list.len()).expect("fewer contexts than memory has room for"));
            numbers.insert(references, id);
            id
        })
    }

    /// Whether it is nothing.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether it is something.
    #[inline]
    pub fn is_some(self) -> bool {
        self.0 != 0
    }

    /// What it is.
    pub fn references(self) -> Rc<References> {
        let index = (self.0 as usize).checked_sub(1);
        let known = CHUNKS.with(|chunks| chunks.contexts.borrow().list.get(index?).cloned());
        known.unwrap_or_else(|| Rc::from([]))
    }
}
