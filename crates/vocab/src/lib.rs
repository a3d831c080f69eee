//! The words of Twinpost: values that cannot be wrong, and the shapes every floor shares.
//!
//! Sealed: no clock, socket, file, thread, randomness or async. Everything here is plain data.

pub mod address;
pub mod batch;
pub mod error;
pub mod flags;
pub mod head;
pub mod ids;
pub mod limits;
pub mod log;
mod network;
pub mod overlay;
pub mod rows;
pub mod session;
pub mod store_write;
pub mod time;
pub mod uid;

pub use address::{Address, Domain, ForwardPath, LocalPart, ReversePath};
pub use batch::{AccountBatch, Batch, BlobRef, ChainLink, InlineBody, LogRecord, PastLink};
pub use error::SubmitError;
pub use flags::{Flags, Keyword, SystemFlag};
pub use head::AccountHead;
pub use ids::{
    AccountId, BatchId, BlobHash, Boot, CommandId, EpochId, MailboxId, NodeId, PlacementId, ShardId, Version,
};
pub use network::common_bits;
pub use overlay::Overlay;
pub use rows::{Damaged, MemoryRows, RowWrite, Rows, Table};
pub use store_write::StoreWrite;
pub use time::{Instant, Timestamp};
pub use uid::{ModSeq, Uid, UidValidity};
