//! Messages that an expunge won over a change on the other branch: kept for a while after the merge, with their bodies.

use bytes::Bytes;
use prost::Message;
use vocab::{MailboxId, Timestamp};

use crate::rows::{Placement, damaged, placement_key, unversioned, versioned};
use vocab::Damaged;

/// One message that can be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryItem {
    /// As it was; its UID is no longer valid.
    pub placement: Placement,
    /// Name of the mailbox it was in.
    pub mailbox: String,
    /// When the merge put it here.
    pub merged: Timestamp,
    /// Encoded `mime::Facts`; empty when no branch had them any more.
    pub facts: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RecoveryV1 {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    row: Vec<u8>,
    #[prost(string, tag = "3")]
    mailbox: String,
    #[prost(uint64, tag = "4")]
    merged: u64,
    #[prost(bytes = "bytes", tag = "5")]
    facts: Bytes,
}

impl RecoveryItem {
    pub(crate) fn encode(&self) -> Bytes {
        versioned(&RecoveryV1 {
            key: placement_key(MailboxId::default(), self.placement.uid),
            row: self.placement.encode().to_vec(),
            mailbox: self.mailbox.clone(),
            merged: self.merged.0,
            facts: self.facts.clone(),
        })
    }

    /// From the value of its row.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn decode(value: &[u8]) -> Result<Self, Damaged> {
        let row: RecoveryV1 = unversioned("recovery row", value)?;
        if row.row.is_empty() {
            return Err(damaged("recovery row", "empty"));
        }
        Ok(Self {
            placement: Placement::decode(&row.key, &row.row)?,
            mailbox: row.mailbox,
            merged: Timestamp(row.merged),
            facts: row.facts,
        })
    }
}
