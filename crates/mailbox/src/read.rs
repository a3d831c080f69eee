//! Typed readers over one snapshot: what IMAP, POP3 and the API ask of an account. Every error is [`Damaged`]: answer
//! UNAVAILABLE, never "not found".

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow, RangeInclusive};

use bytes::Bytes;
use vocab::rows::prefix_end;
use vocab::{Damaged, MailboxId, ModSeq, PlacementId, Rows, Table, Uid};

use crate::op::Role;
use crate::recovery::RecoveryItem;
use crate::rows::{
    Document, Expunged, Mailbox, Placement, UidRow, decode_name, decode_place, document_key, is_facts_key, modseq_key,
    placement_key, uid_of_key,
};

/// Called with key and value; may break or fail.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Damaged> + 'a;

/// Visits every row whose key begins with `prefix`, ascending, until `visit` breaks or fails.
pub(crate) fn scan_prefix(rows: &dyn Rows, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Damaged> {
    let end = prefix_end(prefix);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    scan(rows, table, (Bound::Included(prefix), to), visit)
}

pub(crate) fn scan(
    rows: &dyn Rows,
    table: Table,
    range: (Bound<&[u8]>, Bound<&[u8]>),
    visit: &mut Visit<'_>,
) -> Result<(), Damaged> {
    let mut fault = None;
    rows.scan(table, range, false, &mut |key, value| {
        visit(key, value).unwrap_or_else(|damaged| {
            fault = Some(damaged);
            ControlFlow::Break(())
        })
    })?;
    fault.map_or(Ok(()), Err)
}

const GO_ON: Result<ControlFlow<()>, Damaged> = Ok(ControlFlow::Continue(()));

/// All mailboxes in order of their names.
///
/// # Errors
/// [`Damaged`].
pub fn mailboxes(rows: &dyn Rows) -> Result<Vec<Mailbox>, Damaged> {
    let mut found = Vec::new();
    scan_prefix(rows, Table::MAILBOXES, &[], &mut |key, value| {
        found.push(Mailbox::decode(key, value)?);
        GO_ON
    })?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The mailbox, unless deleted.
///
/// # Errors
/// [`Damaged`].
pub fn mailbox(rows: &dyn Rows, id: MailboxId) -> Result<Option<Mailbox>, Damaged> {
    let key = id.to_bytes();
    rows.get(Table::MAILBOXES, &key)?.map(|value| Mailbox::decode(&key, &value)).transpose()
}

/// The mailbox of this name: UTF-8, any case of INBOX as first component, normalised here.
///
/// # Errors
/// [`Damaged`].
pub fn mailbox_by_name(rows: &dyn Rows, name: &str) -> Result<Option<Mailbox>, Damaged> {
    let Some(name) = crate::names::normal_name(name) else { return Ok(None) };
    match rows.get(Table::NAMES, name.as_bytes())? {
        Some(value) => match decode_name(&value)? {
            Some(id) => mailbox(rows, id),
            None => Ok(None),
        },
        None => Ok(None),
    }
}

/// The mailbox with this special use.
///
/// # Errors
/// [`Damaged`].
pub fn mailbox_by_role(rows: &dyn Rows, role: Role) -> Result<Option<Mailbox>, Damaged> {
    if role == Role::Inbox {
        return mailbox_by_name(rows, crate::names::INBOX);
    }
    let mut found = None;
    scan_prefix(rows, Table::MAILBOXES, &[], &mut |key, value| {
        let mailbox = Mailbox::decode(key, value)?;
        if mailbox.role != Some(role) {
            return GO_ON;
        }
        found = Some(mailbox);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Every subscribed name in order, with or without a mailbox of that name.
///
/// # Errors
/// [`Damaged`].
pub fn subscriptions(rows: &dyn Rows) -> Result<Vec<String>, Damaged> {
    let mut names: BTreeSet<String> = mailboxes(rows)?.into_iter().filter(|m| m.subscribed).map(|m| m.name).collect();
    scan_prefix(rows, Table::NAMES, &[], &mut |key, value| {
        if decode_name(value)?.is_none() {
            names.insert(String::from_utf8_lossy(key).into_owned());
        }
        GO_ON
    })?;
    Ok(names.into_iter().collect())
}

/// Visits the placements with UIDs in `uids`, ascending, until `visit` breaks.
///
/// # Errors
/// [`Damaged`].
pub fn visit_placements(
    rows: &dyn Rows,
    mailbox: MailboxId,
    uids: RangeInclusive<Uid>,
    visit: &mut dyn FnMut(Placement) -> ControlFlow<()>,
) -> Result<(), Damaged> {
    let from = placement_key(mailbox, *uids.start());
    let to = placement_key(mailbox, *uids.end());
    scan(rows, Table::PLACEMENTS, (Bound::Included(&from), Bound::Included(&to)), &mut |key, value| {
        Ok(visit(Placement::decode(key, value)?))
    })
}

/// The placements with UIDs in `uids`, ascending.
///
/// # Errors
/// [`Damaged`].
pub fn placements(rows: &dyn Rows, mailbox: MailboxId, uids: RangeInclusive<Uid>) -> Result<Vec<Placement>, Damaged> {
    let mut found = Vec::new();
    visit_placements(rows, mailbox, uids, &mut |placement| {
        found.push(placement);
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Every UID; for [`placements`] of a whole mailbox.
#[must_use]
pub fn all_uids() -> RangeInclusive<Uid> {
    Uid(0)..=Uid(u32::MAX)
}

/// One placement by UID.
///
/// # Errors
/// [`Damaged`].
pub fn placement(rows: &dyn Rows, mailbox: MailboxId, uid: Uid) -> Result<Option<Placement>, Damaged> {
    let key = placement_key(mailbox, uid);
    rows.get(Table::PLACEMENTS, &key)?.map(|value| Placement::decode(&key, &value)).transpose()
}

/// Where the placement of this id is.
///
/// # Errors
/// [`Damaged`].
pub fn place(rows: &dyn Rows, id: PlacementId) -> Result<Option<(MailboxId, Uid)>, Damaged> {
    rows.get(Table::PLACEMENT_INDEX, &id.to_bytes())?.map(|value| decode_place(&value)).transpose()
}

/// One placement by id, with its mailbox.
///
/// # Errors
/// [`Damaged`], also when the index names a row that is not there.
pub fn placement_by_id(rows: &dyn Rows, id: PlacementId) -> Result<Option<(MailboxId, Placement)>, Damaged> {
    let Some((mailbox, uid)) = place(rows, id)? else { return Ok(None) };
    match placement(rows, mailbox, uid)? {
        Some(placement) => Ok(Some((mailbox, placement))),
        None => Err(Damaged(format!("placement index names a missing row: {id}"))),
    }
}

/// What is remembered of an expunged placement.
///
/// # Errors
/// [`Damaged`].
pub fn expunged(rows: &dyn Rows, id: PlacementId) -> Result<Option<Expunged>, Damaged> {
    rows.get(Table::EXPUNGED, &id.to_bytes())?.map(|value| Expunged::decode(id, &value)).transpose()
}

/// Where a placement is, or was when it was expunged: it was made in this account and is not made again.
///
/// # Errors
/// [`Damaged`].
pub fn known_place(rows: &dyn Rows, id: PlacementId) -> Result<Option<(MailboxId, Uid)>, Damaged> {
    match place(rows, id)? {
        Some(place) => Ok(Some(place)),
        None => Ok(expunged(rows, id)?.map(|gone| (gone.mailbox, gone.uid))),
    }
}

/// The whole mailbox by UID ascending, only what a session keeps: cheaper than [`placements`].
///
/// # Errors
/// [`Damaged`].
pub fn uids(rows: &dyn Rows, mailbox: MailboxId) -> Result<Vec<UidRow>, Damaged> {
    uids_in(rows, mailbox, all_uids())
}

/// As [`uids`], only these (for what came since a known UIDNEXT).
///
/// # Errors
/// [`Damaged`].
pub fn uids_in(rows: &dyn Rows, mailbox: MailboxId, uids: RangeInclusive<Uid>) -> Result<Vec<UidRow>, Damaged> {
    let from = placement_key(mailbox, *uids.start());
    let to = placement_key(mailbox, *uids.end());
    let mut found = Vec::new();
    scan(rows, Table::PLACEMENTS, (Bound::Included(&from), Bound::Included(&to)), &mut |key, value| {
        found.push(UidRow::decode(key, value)?);
        GO_ON
    })?;
    Ok(found)
}

fn uids_after(rows: &dyn Rows, table: Table, mailbox: MailboxId, since: ModSeq) -> Result<BTreeSet<Uid>, Damaged> {
    let from = modseq_key(mailbox, since, Uid(u32::MAX));
    let to = modseq_key(mailbox, ModSeq(u64::MAX), Uid(u32::MAX));
    let mut found = BTreeSet::new();
    scan(rows, table, (Bound::Excluded(&from), Bound::Included(&to)), &mut |key, _| {
        found.insert(uid_of_key(key)?);
        GO_ON
    })?;
    Ok(found)
}

/// Messages that are there and whose MODSEQ is greater than `since`, by UID ascending (CHANGEDSINCE, RFC 7162 §3.1.4).
///
/// # Errors
/// [`Damaged`].
pub fn changed_since(rows: &dyn Rows, mailbox: MailboxId, since: ModSeq) -> Result<Vec<UidRow>, Damaged> {
    let mut found = Vec::new();
    for uid in uids_after(rows, Table::CHANGES, mailbox, since)? {
        let key = placement_key(mailbox, uid);
        let value = rows.get(Table::PLACEMENTS, &key)?;
        let value = value.ok_or_else(|| Damaged(format!("change index names a missing row: {}", uid.0)))?;
        found.push(UidRow::decode(&key, &value)?);
    }
    Ok(found)
}

/// UIDs, ascending, that were expunged after `since`, or, when `since` lies below the vanish floor, those of `known`
/// that are not there (VANISHED, RFC 7162 §3.2.10). Never misses one; below the floor it may name UIDs the client
/// never had.
///
/// # Errors
/// [`Damaged`].
pub fn vanished_since(
    rows: &dyn Rows,
    mailbox: &Mailbox,
    since: ModSeq,
    known: &[RangeInclusive<Uid>],
) -> Result<Vec<Uid>, Damaged> {
    let within = |uid: &Uid| known.iter().any(|range| range.contains(uid));
    if since >= mailbox.vanish_floor {
        let gone = uids_after(rows, Table::TOMBSTONES, mailbox.id, since)?;
        return Ok(gone.into_iter().filter(within).collect());
    }
    let present: BTreeSet<Uid> = uids(rows, mailbox.id)?.into_iter().map(|row| row.uid).collect();
    let mut gone = BTreeSet::new();
    for range in known {
        let end = range.end().0.min(mailbox.uid_next.0.saturating_sub(1));
        gone.extend((range.start().0.max(1)..=end).map(Uid).filter(|uid| !present.contains(uid)));
    }
    Ok(gone.into_iter().collect())
}

/// Encoded `mime::Facts` of a message by its EMAILID.
///
/// # Errors
/// [`Damaged`].
pub fn facts(rows: &dyn Rows, email: PlacementId) -> Result<Option<Bytes>, Damaged> {
    rows.get(Table::FACTS, &email.to_bytes())
}

/// EMAILIDs of all stored facts.
///
/// # Errors
/// [`Damaged`].
pub fn emails(rows: &dyn Rows) -> Result<Vec<PlacementId>, Damaged> {
    let mut found = Vec::new();
    scan_prefix(rows, Table::FACTS, &[], &mut |key, _| {
        if is_facts_key(key) {
            found.push(crate::rows::placement_id("facts key", key)?);
        }
        GO_ON
    })?;
    Ok(found)
}

/// An account document.
///
/// # Errors
/// [`Damaged`].
pub fn document(rows: &dyn Rows, kind: &str, name: &str) -> Result<Option<Document>, Damaged> {
    rows.get(Table::DOCUMENTS, &document_key(kind, name))?.map(|value| Document::decode(&value)).transpose()
}

/// Names of the documents of one kind, ascending.
///
/// # Errors
/// [`Damaged`].
pub fn document_names(rows: &dyn Rows, kind: &str) -> Result<Vec<String>, Damaged> {
    let prefix = document_key(kind, "");
    let mut found = Vec::new();
    scan_prefix(rows, Table::DOCUMENTS, &prefix, &mut |key, _| {
        found.push(String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned());
        GO_ON
    })?;
    Ok(found)
}

/// One message that a merge keeps restorable, by the id it had.
///
/// # Errors
/// [`Damaged`].
pub fn recoverable(rows: &dyn Rows, id: PlacementId) -> Result<Option<RecoveryItem>, Damaged> {
    rows.get(Table::RECOVERY, &id.to_bytes())?.map(|value| RecoveryItem::decode(&value)).transpose()
}

/// Messages that a merge keeps restorable, expired ones too until the account changes.
///
/// # Errors
/// [`Damaged`].
pub fn recovery(rows: &dyn Rows) -> Result<Vec<RecoveryItem>, Damaged> {
    let mut found = Vec::new();
    scan_prefix(rows, Table::RECOVERY, &[], &mut |_, value| {
        found.push(RecoveryItem::decode(value)?);
        GO_ON
    })?;
    Ok(found)
}

/// Whether the account has been initialised (and not purged).
///
/// # Errors
/// [`Damaged`].
pub fn exists(rows: &dyn Rows) -> Result<bool, Damaged> {
    Ok(rows.get(Table::NAMES, crate::names::INBOX.as_bytes())?.is_some())
}
