//! Bad input: one headline, the place, the cause, a hint, the right exit code, and nothing lost.
