//! Placing messages; the only place where UIDs are given.

use bytes::Bytes;
use vocab::limits::{BATCH_BYTES_MAX, KEYWORDS_MAX};
use vocab::{Damaged, Flags, MailboxId, PlacementId, SystemFlag, Table, Uid};

use crate::modseq::raise_modseq;
use crate::op::{Change, MailboxRef, NewMessage, Outcome, Refusal, Role};
use crate::read;
use crate::rows::{Counts, Mailbox, Placement, encode_place, facts_user_key, modseq_key, placement_key};
use crate::work::{Fail, Work};

/// Bits of all system flags.
const SYSTEM_FLAGS: u8 = 0x1f;

/// Gives the next UID of a mailbox. UIDs only ascend and are never given twice under one UIDVALIDITY.
fn assign_uid(mailbox: &mut Mailbox) -> Result<Uid, Fail> {
    let uid = mailbox.uid_next;
    mailbox.uid_next.0 = uid.0.checked_add(1).ok_or_else(|| Refusal::Limit("UID".to_owned()))?;
    Ok(uid)
}

impl Counts {
    pub(crate) fn add(&mut self, flags: &Flags, size: u64) {
        self.messages += 1;
        self.unseen += u32::from(!flags.has(SystemFlag::Seen));
        self.deleted += u32::from(flags.has(SystemFlag::Deleted));
        self.bytes += size;
    }
    pub(crate) fn remove(&mut self, flags: &Flags, size: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.unseen = self.unseen.saturating_sub(u32::from(!flags.has(SystemFlag::Seen)));
        self.deleted = self.deleted.saturating_sub(u32::from(flags.has(SystemFlag::Deleted)));
        self.bytes = self.bytes.saturating_sub(size);
    }
}

/// Flags as they may be stored.
pub(crate) fn checked_flags(flags: &Flags) -> Result<Flags, Fail> {
    if flags.keywords.len() > KEYWORDS_MAX {
        return Err(Refusal::Limit("keywords".to_owned()).into());
    }
    Ok(Flags { system: flags.system & SYSTEM_FLAGS, keywords: flags.keywords.clone() })
}

/// Where the placement of this id is or was: a command that ran on another branch before is not run again (X19).
pub(crate) fn known_place(work: &Work<'_>, id: PlacementId) -> Result<Option<(MailboxId, Uid)>, Damaged> {
    read::known_place(&work.rows, id)
}

/// Puts a placement into a mailbox under a new UID and the command's modseq. The caller saves the mailbox.
pub(crate) fn place_message(work: &mut Work<'_>, mailbox: &mut Mailbox, mut placement: Placement) -> Result<Uid, Fail> {
    let modseq = raise_modseq(work);
    let uid = assign_uid(mailbox)?;
    placement.uid = uid;
    placement.modseq = modseq;
    placement.created = modseq;
    mailbox.modseq = modseq;
    mailbox.counts.add(&placement.flags, placement.size());
    work.write(Table::PLACEMENTS, placement_key(mailbox.id, uid), placement.encode())?;
    work.write(Table::PLACEMENT_INDEX, placement.id.to_bytes(), encode_place(mailbox.id, uid))?;
    work.write(Table::CHANGES, modseq_key(mailbox.id, modseq, uid), Bytes::new())?;
    if placement.email != placement.id {
        work.write(Table::FACTS, facts_user_key(placement.email, placement.id), Bytes::new())?;
    }
    work.refer(placement.blob, placement.id, true);
    work.announce(Change::Mailbox(mailbox.id));
    if work.rows.bytes - work.bytes_at_begin > BATCH_BYTES_MAX {
        return Err(Refusal::Limit("batch bytes".to_owned()).into());
    }
    Ok(uid)
}

fn target(work: &Work<'_>, mailbox: &MailboxRef) -> Result<Mailbox, Fail> {
    let found = match mailbox {
        MailboxRef::Id(id) => return work.mailbox(*id),
        MailboxRef::Role(role) => read::mailbox_by_role(&work.rows, *role)?,
    };
    match found {
        Some(mailbox) => Ok(mailbox),
        None => read::mailbox_by_role(&work.rows, Role::Inbox)?.ok_or(Fail::Refused(Refusal::NoSuchMailbox)),
    }
}

/// A message as it is to be placed; its numbers are given when it is.
fn placement_of(message: &NewMessage, id: PlacementId, email: PlacementId) -> Result<Placement, Fail> {
    // Facts are opaque here, but bytes nobody can read are not stored.
    let thread = mime::thread_of(&message.facts)?;
    Ok(Placement {
        uid: Uid(0),
        id,
        flags: checked_flags(&message.flags)?,
        modseq: vocab::ModSeq(0),
        created: vocab::ModSeq(0),
        email,
        thread,
        internal_date: message.internal_date,
        blob: message.blob,
        blob_size: message.blob_size,
        prefix: message.prefix.clone(),
    })
}

/// Places a message under the ids another node gave it, unless it is known. See [`crate::op::AccountOp::Import`].
pub(crate) fn import(
    work: &mut Work<'_>,
    mailbox: MailboxId,
    (id, email): (PlacementId, PlacementId),
    message: &NewMessage,
) -> Result<Outcome, Fail> {
    let mut mailbox = work.mailbox(mailbox)?;
    let mut uids = Vec::new();
    if known_place(work, id)?.is_none() && (id == email || known_place(work, email)?.is_none()) {
        uids.push(place_message(work, &mut mailbox, placement_of(message, id, email)?)?);
        if read::facts(&work.rows, email)?.is_none() {
            work.write(Table::FACTS, email.to_bytes(), message.facts.clone())?;
        }
        work.save(&mailbox)?;
    }
    Ok(Outcome::Appended { mailbox: mailbox.id, uid_validity: mailbox.uid_validity, uids })
}

pub(crate) fn append(work: &mut Work<'_>, mailbox: &MailboxRef, messages: &[NewMessage]) -> Result<Outcome, Fail> {
    let first = PlacementId { command: work.command, index: 0 };
    let mut mailbox = match known_place(work, first)? {
        Some((there, _)) => work.mailbox(there)?,
        None => target(work, mailbox)?,
    };
    let mut uids = Vec::with_capacity(messages.len());
    for (index, message) in (0_u32..).zip(messages) {
        let id = PlacementId { command: work.command, index };
        if let Some((_, uid)) = known_place(work, id)? {
            uids.push(uid);
            continue;
        }
        uids.push(place_message(work, &mut mailbox, placement_of(message, id, id)?)?);
        work.write(Table::FACTS, id.to_bytes(), message.facts.clone())?;
    }
    work.save(&mailbox)?;
    Ok(Outcome::Appended { mailbox: mailbox.id, uid_validity: mailbox.uid_validity, uids })
}
