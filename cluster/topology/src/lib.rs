//! The cluster configuration: members, the epoch register, cluster address and generic typed documents, as a state
//! machine behind Raft. `apply(state, op, index)` is pure; every fault of a change is reported, not only the first.

pub mod epoch;
pub mod state;

pub use epoch::{EpochKind, EpochRecord};
pub use state::{ClusterState, ConfigOp, Document, DocumentKind, Fault, Member};
