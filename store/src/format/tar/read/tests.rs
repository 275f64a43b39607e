//! Archives by hand, and by GNU tar.
