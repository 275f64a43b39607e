//! How much memory an evaluation may use.
//!
//! What wants a little more and more finds that there is no room to go deeper, and so fails like any expression does. What wants
//! more at once than there may be cannot be told so: memory is asked for where no failure can be given back. The work is then
//! given up as a whole, down to where it was begun with [`within`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{LIMIT, USED, keep};

/// What an evaluation is given up with.
struct Exhausted;

/// How many bytes this thread may use for values. Beyond, [`crate::stack::has_room`] denies that there is room, so that what
/// wants more and more fails like what goes deeper and deeper.
pub fn set_limit(limit: usize) {
    LIMIT.with(|cell| cell.set(limit));
}

/// Whether more memory was used than is allowed.
pub fn is_exhausted() -> bool {
    USED.with(Cell::get) > LIMIT.with(Cell::get)
}

/// Gives the evaluation up unless it may use so many bytes more; for what grows outside this memory, and so doubles now and then.
#[inline]
pub fn check_room(bytes: usize) {
    if bytes > 1 << 20 && USED.with(Cell::get).saturating_add(2 * bytes) > LIMIT.with(Cell::get) {
        give_up();
    }
}

/// Ends the work that was begun with [`within`].
#[cold]
pub(super) fn give_up() -> ! {
    resume_unwind(Box::new(Exhausted))
}

/// Carries out work; none if it wanted more memory than there may be.
pub fn within<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Some(result),
        Err(panic) if panic.is::<Exhausted>() => {
            // Regions that were begun were not ended.
            keep();
            None
        }
        Err(panic) => resume_unwind(panic),
    }
}
