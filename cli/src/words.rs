//! Words on stderr. Whoever should read them may have gone, or the disk that they go to be full: that is no failure of what was done, and
//! the exit status of a program that has run is still to be given. So no write here fails, as those of the standard library's macros do.

use std::io::Write;

/// A line, as `eprintln!` has it.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::words::show(&format!("{}\n", format_args!($($words)*)))
    };
}
pub(crate) use say;

/// A text that has its line ends already; in one piece, so that nobody else's come between.
pub fn show(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
