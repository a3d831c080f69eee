//! The cluster configuration: members, the epoch register, cluster address and generic typed documents, as a state
//! machine behind Raft. `apply(state, op, index)` is pure; every fault of a change is reported, not only the first.
//!
//! Programs of two versions apply the same changes, and their states must stay the same: bodies of documents are judged once,
//! by the leader ([`prepare`]), and whoever reads one passes over fields that it does not know (ADR 0016).

mod addresses;
mod alert_setting;
mod apply;
mod certificates;
mod documents;
pub mod epoch;
mod log_setting;
mod members;
mod query;
pub mod state;

pub use addresses::{ClusterAddress, listed, stored as stored_addresses};
pub use alert_setting::{ALERTS_SETTING, AlertsBody};
pub use apply::{apply, prepare};
pub use certificates::{
    CERTIFICATES_SETTING, CertificatesBody, Duty, Rotation, RotationRefused, RotationStep, is_own_setting,
};
pub use documents::{
    Failback, HOMES_SETTING, HomesBody, LOAD_SETTING, LOAD_WEIGHT, LoadBody, PRIMARY_SETTING, PrimaryBody, SETTLE_S,
    SETTLE_S_MAX, address_key, normalise_name,
};
pub use epoch::{EpochKind, EpochRecord, LIFE_SPAN};
pub use log_setting::{Keep, LOG_SETTING, LogBody, SyslogBody};
pub use members::room;
pub use query::Account;
pub use state::{
    AccountBody, AliasBody, ClusterState, ConfigOp, Document, DocumentKind, DomainBody, Fault, Member, Rejection,
    revision_at,
};
