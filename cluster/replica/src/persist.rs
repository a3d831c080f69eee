//! What a node keeps on its own disk about epochs: one record, written synced before it takes effect.

use bytes::Bytes;
use prost::Message as _;
use topology::EpochRecord;
use vocab::{Damaged, EpochId, StoreWrite};

use crate::message;

/// Name of the record among the node-local ones.
pub const META_KEY: &str = "replica";
/// First byte of the record.
const RECORD_VERSION: u8 = 1;

/// The decoded record; the default is a node that never was in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Epoch in effect.
    pub record: Option<EpochRecord>,
    /// Newest epoch known, voted for or heard of (X7), when it is not `record`.
    pub newest: Option<EpochRecord>,
    /// Heal epoch in which this anchor wrote its join mark (X11).
    pub join_mark: Option<EpochId>,
    /// Whether this node ever was in an in-sync set: a node that was not has nothing to start alone with.
    pub was_in_sync: bool,
    /// Number of the last epoch entered that had every data member in sync; 0 = none. Served marks of later ones count.
    pub joint: u64,
    /// Since that epoch this node was alone in no epoch: what it has and the in-sync set lacks was never acknowledged (X14).
    pub never_alone: bool,
    /// Since that epoch this node was in none that was opened without a quorum: it lacks nothing that was acknowledged.
    pub never_solo: bool,
    /// Since that epoch this node was in sync in none that lacked a data member: no served mark of its accounts counts.
    pub never_short: bool,
    /// The last epoch that this node entered without having been in the one before it, since the last full one it was in. Others
    /// may have been in a full one meanwhile, and count no mark from before it: what is shown from here on is marked again.
    pub marks_anew: Option<EpochId>,
    /// Row format every data member was heard to read, and rows may have been written in; 0 = the first.
    pub rows: u32,
}

impl Saved {
    /// From the value under [`META_KEY`]; `None` = a fresh disk.
    ///
    /// # Errors
    /// [`Damaged`] for an unknown version or broken bytes: the process must not start on a guess.
    pub fn from_meta(value: Option<&[u8]>) -> Result<Self, Damaged> {
        let Some(bytes) = value else { return Ok(Self::default()) };
        let bad = |what: String| Damaged(format!("replica record: {what}"));
        let (version, rest) = bytes.split_first().ok_or_else(|| bad("empty".to_owned()))?;
        if *version != RECORD_VERSION {
            return Err(bad(format!("unknown version {version}")));
        }
        let wire = wire::link::LocalRecord::decode(rest).map_err(|e| bad(e.to_string()))?;
        let record = |r: Option<wire::link::EpochRecord>| match r {
            None => Ok(None),
            Some(r) => message::record_from(&r).map(Some).ok_or_else(|| bad("epoch".to_owned())),
        };
        Ok(Self {
            record: record(wire.record)?,
            newest: record(wire.newest)?,
            join_mark: wire.join_mark.map(|id| message::epoch_from(&id)),
            was_in_sync: wire.was_in_sync,
            joint: wire.joint,
            never_alone: wire.never_alone,
            never_solo: wire.never_solo,
            never_short: wire.never_short,
            marks_anew: wire.marks_anew.map(|id| message::epoch_from(&id)),
            rows: wire.rows,
        })
    }

    /// The first epoch after the last joint one, also of those that a node opened alone without having heard of that one.
    pub(crate) fn marks_from(&self) -> EpochId {
        EpochId { number: self.joint, author: 1 }
    }

    /// The write that stores it.
    #[must_use]
    pub fn to_write(&self) -> StoreWrite {
        let wire = wire::link::LocalRecord {
            record: self.record.as_ref().map(message::record_to),
            newest: self.newest.as_ref().map(message::record_to),
            join_mark: self.join_mark.map(message::epoch_to),
            was_in_sync: self.was_in_sync,
            joint: self.joint,
            never_alone: self.never_alone,
            never_solo: self.never_solo,
            never_short: self.never_short,
            marks_anew: self.marks_anew.map(message::epoch_to),
            rows: self.rows,
        };
        let mut value = vec![RECORD_VERSION];
        value.extend(wire.encode_to_vec());
        StoreWrite::Meta { key: META_KEY.to_owned(), value: Some(Bytes::from(value)) }
    }
}
