//! Messages that an expunge won over a change on the other branch: kept for a while after the merge, with their bodies,
//! put back when somebody asks, dropped when their time is over.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use vocab::{Damaged, Flags, MailboxId, PlacementId, SystemFlag, Table, Timestamp, Uid};

use crate::append::{known_place, place_message};
use crate::names::INBOX;
use crate::op::{Outcome, Refusal};
use crate::read;
use crate::rows::{Mailbox, Placement, damaged, placement_key, unversioned, versioned};
use crate::work::{Fail, Work};

/// How long a message stays restorable after the merge (DESIGN 7: 14 days).
pub const RECOVERY_KEEP_MS: u64 = 14 * 24 * 60 * 60 * 1000;

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
    /// When it may be dropped.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.merged.plus_ms(RECOVERY_KEEP_MS)
    }

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

/// Puts messages back, in the order asked for, under ids of this command.
pub(crate) fn restore(work: &mut Work<'_>, ids: &[PlacementId]) -> Result<Outcome, Fail> {
    let mut targets: BTreeMap<MailboxId, Mailbox> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    // The index names the message on every branch, so one that is named twice still counts.
    for (index, id) in (0_u32..).zip(ids) {
        if !seen.insert(*id) {
            continue;
        }
        let new = PlacementId { command: work.command, index };
        let known = known_place(work, new)?.is_some();
        let Some(item) = read::recoverable(&work.rows, *id)? else {
            // The command ran on another branch before the merge.
            if known {
                continue;
            }
            return Err(Refusal::UnknownPlacement.into());
        };
        if !known {
            let home = target(work, &item.mailbox)?;
            let mailbox = targets.entry(home.id).or_insert(home);
            put_back(work, mailbox, new, &item)?;
        }
        drop_item(work, &item)?;
    }
    for mailbox in targets.values() {
        work.save(mailbox)?;
    }
    Ok(Outcome::Done)
}

/// The mailbox it was in, by its name, or INBOX.
fn target(work: &Work<'_>, name: &str) -> Result<Mailbox, Fail> {
    if let Some(mailbox) = read::mailbox_by_name(&work.rows, name)? {
        return Ok(mailbox);
    }
    read::mailbox_by_name(&work.rows, INBOX)?.ok_or(Fail::Refused(Refusal::NoSuchMailbox))
}

fn put_back(work: &mut Work<'_>, mailbox: &mut Mailbox, id: PlacementId, item: &RecoveryItem) -> Result<(), Fail> {
    let old = &item.placement;
    if read::facts(&work.rows, old.email)?.is_none() {
        // Bytes nobody can read are not stored: a placement without facts could not be shown.
        mime::thread_of(&item.facts)?;
        work.write(Table::FACTS, old.email.to_bytes(), item.facts.clone())?;
    }
    let flags = old.flags.without(&Flags::of(&[SystemFlag::Deleted]));
    place_message(work, mailbox, Placement { id, uid: Uid(0), flags, ..old.clone() })?;
    Ok(())
}

fn drop_item(work: &mut Work<'_>, item: &RecoveryItem) -> Result<(), Damaged> {
    work.delete(Table::RECOVERY, item.placement.id.to_bytes())?;
    work.refer(item.placement.blob, item.placement.id, false);
    Ok(())
}

/// Drops what was put there before `older_than`.
pub(crate) fn forget(work: &mut Work<'_>, older_than: Timestamp) -> Result<Outcome, Damaged> {
    for item in read::recovery(&work.rows)? {
        if item.merged < older_than {
            drop_item(work, &item)?;
        }
    }
    Ok(Outcome::Done)
}

/// Drops what is over its time by the home's clock.
pub(crate) fn forget_expired(work: &mut Work<'_>) -> Result<(), Damaged> {
    forget(work, Timestamp(work.stamp.at.0.saturating_sub(RECOVERY_KEEP_MS))).map(|_| ())
}
