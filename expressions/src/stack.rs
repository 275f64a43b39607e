//! Deep expressions want a deep stack: everything runs on a thread with a large one, and asks before going deeper.
//!
//! The stack is address space only; pages come into being when they are touched.
//!
//! Another thread can take the room away: that is how an evaluation is interrupted, which so costs nothing where it is not.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// The lowest address that may still be used. Threads that were not started here have no bound, and so no depth.
    static LOWEST: Cell<&'static AtomicUsize> = const { Cell::new(&NOWHERE) };
    /// The same, when nobody has interrupted.
    static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
}

static NOWHERE: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Interrupts what is evaluated on one thread.
#[derive(Debug, Clone, Copy)]
pub struct Interrupter(&'static AtomicUsize);

impl Interrupter {
    /// What is being evaluated fails.
    pub fn interrupt(self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }
}

/// For the thread that calls.
pub fn interrupter() -> Interrupter {
    Interrupter(LOWEST.get())
}

/// Whether somebody has interrupted this thread.
pub fn interrupted() -> bool {
    LOWEST.get().load(Ordering::Relaxed) == usize::MAX && OWN.get() != usize::MAX
}

/// Goes on after an interruption.
pub fn resume() {
    LOWEST.get().store(OWN.get(), Ordering::Relaxed);
}

/// Kept free below the bound, for what does not ask: dropping values, formatting, the standard library.
const RESERVE: usize = 1 << 20;

/// Tried in turn: a machine that limits address space gives less depth, not a failure.
const SIZES: &[usize] = &[4 << 30, 1 << 30, 256 << 20, 64 << 20, 8 << 20];

#[inline(always)]
fn here() -> usize {
    let marker = 0u8;
    std::ptr::addr_of!(marker) as usize
}

/// Whether there is room to go deeper.
#[inline]
pub fn has_room() -> bool {
    LOWEST.with(|lowest| here() > lowest.get().load(Ordering::Relaxed))
}

/// Denies that there is room from now on: what goes deeper asks, and so hears soon that memory has come to an end.
pub fn close() {
    LOWEST.get().store(usize::MAX, Ordering::Relaxed);
}

/// Runs something on a thread with a deep stack, and gives back what it gives; a panic goes on here.
pub fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if has_room() {
        return work();
    }
    let mut work = Some(work);
    std::thread::scope(|scope| {
        for size in SIZES {
            // A builder that fails to start gives the closure up, so it is only lent to it.
            let cell = std::sync::Mutex::new(work.take());
            let cell = std::sync::Arc::new(cell);
            let inner = std::sync::Arc::clone(&cell);
            let started = std::thread::Builder::new().stack_size(*size).spawn_scoped(scope, move || {
                // Values that hang together in long chains are dropped recursively, which takes less room than making them did.
                OWN.set(here() - size + RESERVE.max(size / 16));
                // Eight bytes that live for ever: whoever interrupts too late does no harm.
                LOWEST.set(Box::leak(Box::new(AtomicUsize::new(OWN.get()))));
                let work = inner.lock().map(|mut work| work.take()).unwrap_or_default();
                work.map(|work| work())
            });
            match started {
                Ok(handle) => match handle.join() {
                    Ok(Some(result)) => return result,
                    Ok(None) => unreachable!("the work is given to one thread only"),
                    Err(panic) => std::panic::resume_unwind(panic),
                },
                Err(_) => work = cell.lock().map(|mut work| work.take()).unwrap_or_default(),
            }
        }
        // Not even a small thread: the caller's own stack has to do.
        let work = work.take().expect("no thread took the work");
        work()
    })
}
