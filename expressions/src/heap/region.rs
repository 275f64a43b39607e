//! Regions: what a call or a thunk allocated is taken back at its end, where nobody can know it any more.
//!
//! A region begins at the free position and ends when its work has returned. What was allocated between can then be known
//!
//! * to the *result*: if that points behind the beginning, nothing is taken back (a string is moved to the beginning first);
//! * to *what is older*, if it was told of something newer. Only few things are written to once they are made: thunks when their
//!   value is known, sets whose layers become one, a slot that forgets a thunk for its value. The first two call [`told`]; what a
//!   slot forgets was told to the thunk before. Whoever keeps a value elsewhere for longer than a region calls [`keep`] or
//!   allocates it with [`super::permanently`]: code, names of attributes, the keys of sets, results of imports;
//! * to nobody else: the code that ran in the region has returned, and its failures hold no values.
//!
//! So as long as nothing older is told, everything behind the beginning is taken back. When something older is told of something
//! newer, all that there is at that moment is kept (`base` moves there), and with it what it may be told of later; what comes
//! after can still be taken back. For the region around it this matters only if what was told is older than *its* base.
//!
//! Addresses grow within a chunk only. A region that needs a new chunk therefore takes nothing back: a few in a million do.

use super::value::{PackedText, Tag};
use super::{FREE, Free, GROWING, Value};

/// What [`Free`] was when a region began.
#[derive(Clone, Copy)]
pub(super) struct Beginning {
    base: *mut u8,
    told: usize,
    generation: u32,
}

/// A longer string stays where it is, and so keeps its region.
const LONGEST_MOVED: usize = 4096;

#[inline(always)]
pub(super) fn begin(free: &Free) -> Beginning {
    let beginning = Beginning { base: free.base.get(), told: free.told.get(), generation: free.generation.get() };
    free.base.set(free.position.get());
    free.told.set(usize::MAX);
    beginning
}

/// Ends a region; gives the result, which may have moved.
#[inline(always)]
pub(super) fn end(free: &Free, beginning: Beginning, result: Value) -> Value {
    let mut result = result;
    if free.generation.get() != beginning.generation {
        return crossed(free, beginning, result);
    }
    let (base, position) = (free.base.get(), free.position.get());
    if is_between(result, base, position) {
        if result.tag() == Tag::String {
            result = moved(free, result);
        }
    } else {
        take_back(free, base);
    }
    let told = free.told.get();
    let is_told = told < beginning.base.addr();
    free.base.set(if is_told { free.position.get() } else { beginning.base });
    free.told.set(told.min(beginning.told));
    result
}

#[cold]
fn crossed(free: &Free, beginning: Beginning, result: Value) -> Value {
    free.base.set(free.position.get());
    free.told.set(free.told.get().min(beginning.told));
    result
}

/// Whether a value lies between two addresses.
#[inline(always)]
fn is_between(value: Value, start: *mut u8, end: *mut u8) -> bool {
    let address = value.word().addr();
    address >= start.addr() && address < end.addr() && value.tag() != Tag::Integer
}

#[inline(always)]
fn take_back(free: &Free, start: *mut u8) {
    #[cfg(any(test, debug_assertions))]
    {
        let length = free.position.get().addr() - start.addr();
        // SAFETY: the bytes are within the chunk, and nobody knows them any more: whoever does after all finds nonsense.
        unsafe { std::ptr::write_bytes(start, 0xd5, length) };
    }
    GROWING.with(|growing| {
        if growing.end.get().addr() > start.addr() && growing.end.get().addr() <= free.position.get().addr() {
            growing.end.set(growing.position.get());
        }
    });
    free.position.set(start);
}

/// Moves a string to where its region begins, and takes the rest back.
#[cold]
#[inline(never)]
fn moved(free: &Free, result: Value) -> Value {
    let (base, position) = (free.base.get(), free.position.get());
    // SAFETY: a value with this tag points to a packed text.
    let mut packed = unsafe { result.pointer::<PackedText>().read() };
    let length = packed.length as usize;
    let start = packed.start.as_ptr();
    let is_old = start.addr() < base.addr() || start.addr() >= position.addr();
    if !is_old && length > LONGEST_MOVED {
        return result;
    }
    let head = base.cast::<PackedText>();
    let size = size_of::<PackedText>();
    let kept = size + if is_old { 0 } else { (length + 7) & !7 };
    // What is moved again and again must be worth it.
    if position.addr() - base.addr() < kept + kept / 2 {
        return result;
    }
    if !is_old {
        // SAFETY: text and bytes lie between base and position without overlapping, so there is room for one after the other. The
        // bytes move first, because the head may come to lie where they were.
        unsafe {
            let target = base.add(size);
            std::ptr::copy(start, target, length);
            packed.start = std::ptr::NonNull::new_unchecked(target);
        }
    }
    // SAFETY: as above; the end is at most the old position, because both parts were rounded up to 8 bytes there, too.
    let free_again = unsafe {
        head.write(packed);
        base.add(kept)
    };
    take_back(free, free_again);
    Value::tagged(std::ptr::NonNull::new(head).unwrap_or(std::ptr::NonNull::dangling()), Tag::String)
}

/// Says that something at `address` was told of a value.
#[inline(always)]
pub(super) fn told(address: usize, value: Value) {
    FREE.with(|free| {
        let (base, position) = (free.base.get(), free.position.get());
        // What lies in other chunks is older than all that can be taken back.
        if is_between(value, free.start.get(), position) {
            let is_inside = address >= base.addr() && address < position.addr();
            if !is_inside {
                if value.word().addr() >= base.addr() {
                    free.base.set(position);
                }
                let address = if address < position.addr() { address } else { 0 };
                free.told.set(free.told.get().min(address));
            }
        }
    });
}

/// Says that values are kept where no region sees them: all there are now stay.
pub fn keep() {
    FREE.with(|free| {
        free.base.set(free.position.get());
        free.told.set(0);
    });
}

/// Carries out work in a region. What it gives is all that anyone knows of what was allocated meanwhile.
#[inline(always)]
pub fn region<E>(work: impl FnOnce() -> Result<Value, E>) -> Result<Value, E> {
    let beginning = FREE.with(begin);
    let result = work();
    FREE.with(|free| match result {
        Ok(value) => Ok(end(free, beginning, value)),
        Err(failure) => {
            end(free, beginning, Value::NULL);
            Err(failure)
        }
    })
}
