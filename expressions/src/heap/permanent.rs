//! What is kept as long as the thread, whichever region it is made in: names, code, what is known about sets.

use std::cell::Cell;

use super::FREE;

struct Other {
    position: Cell<*mut u8>,
    end: Cell<*mut u8>,
    start: Cell<*mut u8>,
    base: Cell<*mut u8>,
    /// How many chunks there were when it was changed to: a permanent one matters to no region.
    generation: Cell<u32>,
}

thread_local! {
    /// The chunk that is not allocated from at the moment: mostly the permanent one.
    static OTHER: Other = const {
        Other {
            position: Cell::new(std::ptr::null_mut()),
            end: Cell::new(std::ptr::null_mut()),
            start: Cell::new(std::ptr::null_mut()),
            base: Cell::new(std::ptr::null_mut()),
            generation: Cell::new(0),
        }
    };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

fn exchange() {
    FREE.with(|free| {
        OTHER.with(|other| {
            free.position.swap(&other.position);
            free.end.swap(&other.end);
            free.start.swap(&other.start);
            free.base.swap(&other.base);
            free.generation.swap(&other.generation);
        });
    });
}

/// Goes back to the other chunk, also where something panics.
struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            exchange();
        }
    }
}

/// What `work` allocates is no part of the region around it. It must not evaluate anything.
#[inline]
pub fn permanently<T>(work: impl FnOnce() -> T) -> T {
    if DEPTH.get() == 0 {
        exchange();
    }
    DEPTH.set(DEPTH.get() + 1);
    let _back = Back;
    work()
}
