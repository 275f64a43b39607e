//! How one step becomes a delta.
