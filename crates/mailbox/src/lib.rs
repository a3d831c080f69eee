//! The account state machine: `apply(view, op, stamp)` gives rows, outcome and changes; readers give typed answers.
//!
//! Pure: no clock, no randomness, no I/O. What depends on configuration, time or randomness is in the operation or the
//! stamp, so what is shipped is rows, not decisions. Bytes of rows are made only in here (DESIGN 4).

pub mod codec;
pub mod names;
pub mod op;
pub mod read;
pub mod rows;
