//! What a written image must be, judged by our own reader and by bytes; `store/tests/artifacts.rs` lets others read it.

mod limits;
mod repack;
