//! The account state machine: `apply(view, op, stamp)` gives rows, outcome and changes; readers give typed answers.
//!
//! Pure: no clock, no randomness, no I/O. What depends on configuration, time or randomness is in the operation or the
//! stamp, so what is shipped is rows, not decisions. Bytes of rows are made only in here (DESIGN 4).

mod append;
pub mod apply;
pub mod batch;
pub mod codec;
mod copy;
mod documents;
mod expunge;
mod flags;
pub mod former;
mod hierarchy;
pub mod merge;
mod modseq;
pub mod names;
pub mod op;
pub mod outcomes;
mod overlay;
pub mod read;
pub mod recovery;
pub mod rows;
#[cfg(test)]
mod rows_golden;
pub mod state;
mod work;

pub use apply::{Applier, gap_batch};
pub use batch::{blob_ref_of, digest_of, finish_rows, row_digest};
pub use merge::{Branch, MergeInput, MergeReport, Merged, merge};
