//! Mailboxes as a tree of names: CREATE, DELETE, RENAME, SUBSCRIBE, and the birth and end of an account.

use std::ops::ControlFlow;

use vocab::limits::MAILBOXES_MAX;
use vocab::{Damaged, MailboxId, ModSeq, Table, Timestamp, Uid};

use crate::copy::move_placements;
use crate::expunge::forget_placement;
use crate::former;
use crate::modseq::{next_uid_validity, raise_modseq};
use crate::names::{INBOX, SEPARATOR, normal_name, superiors};
use crate::op::{Change, Outcome, Refusal, Role};
use crate::read::{self, all_uids, scan_prefix};
use crate::rows::{Counts, Mailbox, decode_name, encode_name};
use crate::work::{Fail, Work};

/// Mailboxes of a new account.
const FIRST_MAILBOXES: [(&str, Role); 6] = [
    (INBOX, Role::Inbox),
    ("Drafts", Role::Drafts),
    ("Sent", Role::Sent),
    ("Junk", Role::Junk),
    ("Trash", Role::Trash),
    ("Archive", Role::Archive),
];

pub(crate) fn init(work: &mut Work<'_>) -> Result<Outcome, Fail> {
    if read::exists(&work.rows)? {
        return Ok(Outcome::Done);
    }
    former::begin(work)?;
    for (name, role) in FIRST_MAILBOXES {
        let mut mailbox = new_mailbox(work, name.to_owned(), Some(role))?;
        mailbox.subscribed = true;
        work.save(&mailbox)?;
    }
    Ok(Outcome::Done)
}

/// Some: the name is taken by this mailbox; Some(None): only subscribed; None: free.
fn name_row(work: &Work<'_>, name: &str) -> Result<Option<Option<MailboxId>>, Damaged> {
    use vocab::Rows as _;
    work.rows.get(Table::NAMES, name.as_bytes())?.map(|value| decode_name(&value)).transpose()
}

fn count_rows(work: &Work<'_>, table: Table) -> Result<usize, Damaged> {
    let mut count = 0;
    scan_prefix(&work.rows, table, &[], &mut |_, _| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

/// Makes a mailbox whose name is free.
fn new_mailbox(work: &mut Work<'_>, name: String, role: Option<Role>) -> Result<Mailbox, Fail> {
    if count_rows(work, Table::MAILBOXES)? >= MAILBOXES_MAX {
        return Err(Refusal::Limit("mailboxes".to_owned()).into());
    }
    let modseq = raise_modseq(work);
    let stamp = &mut work.stamp;
    let id = MailboxId { epoch: stamp.epoch, home: stamp.home, counter: stamp.mailbox_counter };
    stamp.mailbox_counter += 1;
    let mut mailbox = Mailbox {
        id,
        uid_validity: next_uid_validity(work)?,
        uid_next: Uid(1),
        vanish_floor: ModSeq(0),
        role,
        // A name row without mailbox is a subscription that waited for it.
        subscribed: name_row(work, &name)?.is_some(),
        modseq,
        counts: Counts::default(),
        renamed: Timestamp::default(),
        name,
    };
    former::come(work, &mut mailbox)?;
    work.write(Table::NAMES, mailbox.name.as_bytes(), encode_name(Some(id)))?;
    work.save(&mailbox)?;
    work.announce(Change::Hierarchy);
    Ok(mailbox)
}

fn free_name(work: &Work<'_>, name: &str) -> Result<String, Fail> {
    let name = normal_name(name).ok_or(Refusal::BadName)?;
    match name_row(work, &name)? {
        Some(Some(_)) => Err(Refusal::MailboxExists.into()),
        _ => Ok(name),
    }
}

fn create_superiors(work: &mut Work<'_>, name: &str) -> Result<(), Fail> {
    for superior in superiors(name) {
        if !matches!(name_row(work, superior)?, Some(Some(_))) {
            new_mailbox(work, superior.to_owned(), None)?;
        }
    }
    Ok(())
}

pub(crate) fn create(work: &mut Work<'_>, name: &str, role: Option<Role>) -> Result<Outcome, Fail> {
    let name = free_name(work, name)?;
    if let Some(role) = role
        && read::mailbox_by_role(&work.rows, role)?.is_some()
    {
        return Err(Refusal::NotAllowed.into());
    }
    create_superiors(work, &name)?;
    let mailbox = new_mailbox(work, name, role)?;
    Ok(Outcome::Created { mailbox: mailbox.id })
}

/// Mailboxes below this one, by name.
fn children(work: &Work<'_>, name: &str) -> Result<Vec<Mailbox>, Damaged> {
    let mut ids = Vec::new();
    let prefix = format!("{name}{SEPARATOR}");
    scan_prefix(&work.rows, Table::NAMES, prefix.as_bytes(), &mut |_, value| {
        ids.extend(decode_name(value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    let missing = |id: MailboxId| Damaged(format!("name of a missing mailbox: {id}"));
    ids.into_iter().map(|id| read::mailbox(&work.rows, id)?.ok_or_else(|| missing(id))).collect()
}

/// The mailbox leaves its name, which stays as a row of its own when it is subscribed (RFC 9051 §6.3.7).
fn release_name(work: &mut Work<'_>, mailbox: &Mailbox, still_subscribed: bool) -> Result<(), Damaged> {
    former::leave(work, mailbox)?;
    let name = mailbox.name.as_bytes();
    if still_subscribed { work.write(Table::NAMES, name, encode_name(None)) } else { work.delete(Table::NAMES, name) }
}

pub(crate) fn delete(work: &mut Work<'_>, mailbox: MailboxId) -> Result<Outcome, Fail> {
    let mailbox = work.mailbox(mailbox)?;
    if mailbox.role == Some(Role::Inbox) {
        return Err(Refusal::NotAllowed.into());
    }
    if !children(work, &mailbox.name)?.is_empty() {
        return Err(Refusal::HasChildren.into());
    }
    for placement in read::placements(&work.rows, mailbox.id, all_uids())? {
        forget_placement(work, mailbox.id, &placement)?;
    }
    delete_prefix(work, Table::TOMBSTONES, &mailbox.id.to_bytes())?;
    work.delete(Table::MAILBOXES, mailbox.id.to_bytes())?;
    release_name(work, &mailbox, mailbox.subscribed)?;
    former::shorten(work)?;
    work.announce(Change::Mailbox(mailbox.id));
    work.announce(Change::Hierarchy);
    Ok(Outcome::Done)
}

fn delete_prefix(work: &mut Work<'_>, table: Table, prefix: &[u8]) -> Result<(), Damaged> {
    let mut keys = Vec::new();
    scan_prefix(&work.rows, table, prefix, &mut |key, _| {
        keys.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    keys.into_iter().try_for_each(|key| work.delete(table, key))
}

pub(crate) fn rename(work: &mut Work<'_>, mailbox: MailboxId, name: &str) -> Result<Outcome, Fail> {
    let mailbox = work.mailbox(mailbox)?;
    let name = free_name(work, name)?;
    if mailbox.role == Some(Role::Inbox) {
        return rename_inbox(work, &mailbox, name);
    }
    let below = format!("{}{SEPARATOR}", mailbox.name);
    if name.starts_with(&below) {
        return Err(Refusal::NotAllowed.into());
    }
    let mut moved = children(work, &mailbox.name)?;
    create_superiors(work, &name)?;
    let old_root = mailbox.name.clone();
    moved.insert(0, mailbox);
    for mut mailbox in moved {
        let tail = mailbox.name.get(old_root.len()..).unwrap_or_default();
        // Length and depth of every child's new name.
        let new_name = free_name(work, &format!("{name}{tail}"))?;
        release_name(work, &mailbox, false)?;
        mailbox.subscribed |= name_row(work, &new_name)?.is_some();
        mailbox.name = new_name;
        // Of two names that two sides gave, the later one stays (M2).
        mailbox.modseq = raise_modseq(work);
        // By the clock, but after every earlier rename whatever the clock says.
        mailbox.renamed = work.stamp.at.max(mailbox.renamed.plus_ms(1));
        former::come(work, &mut mailbox)?;
        work.write(Table::NAMES, mailbox.name.as_bytes(), encode_name(Some(mailbox.id)))?;
        work.save(&mailbox)?;
    }
    former::shorten(work)?;
    work.announce(Change::Hierarchy);
    Ok(Outcome::Done)
}

/// INBOX stays; its messages move to a new mailbox (RFC 9051 §6.3.6).
fn rename_inbox(work: &mut Work<'_>, inbox: &Mailbox, name: String) -> Result<Outcome, Fail> {
    create_superiors(work, &name)?;
    let target = new_mailbox(work, name, None)?;
    // The UID as index: on every branch it names the same message.
    let all = read::placements(&work.rows, inbox.id, all_uids())?;
    let all: Vec<_> = all.into_iter().map(|placement| (placement.uid.0, placement)).collect();
    move_placements(work, inbox.id, target.id, &all)?;
    Ok(Outcome::Done)
}

pub(crate) fn subscribe(work: &mut Work<'_>, name: &str, subscribed: bool) -> Result<Outcome, Fail> {
    let name = normal_name(name).ok_or(Refusal::BadName)?;
    match name_row(work, &name)? {
        Some(Some(id)) => {
            let mut mailbox = work.mailbox(id)?;
            mailbox.subscribed = subscribed;
            work.save(&mailbox)?;
        }
        Some(None) if !subscribed => work.delete(Table::NAMES, name)?,
        None if subscribed => {
            if count_rows(work, Table::NAMES)? >= MAILBOXES_MAX {
                return Err(Refusal::Limit("subscriptions".to_owned()).into());
            }
            work.write(Table::NAMES, name, encode_name(None))?;
        }
        _ => {}
    }
    work.announce(Change::Hierarchy);
    Ok(Outcome::Done)
}

/// Removes every core row and every outcome. Settled marks stay: they stop ghosts.
pub(crate) fn purge(work: &mut Work<'_>) -> Result<Outcome, Fail> {
    for mailbox in read::mailboxes(&work.rows)? {
        for placement in read::placements(&work.rows, mailbox.id, all_uids())? {
            work.refer(placement.blob, placement.id, false);
        }
        work.announce(Change::Mailbox(mailbox.id));
    }
    for table in (0..=Table::OUTCOMES.0).map(Table) {
        delete_prefix(work, table, &[])?;
    }
    work.announce(Change::Hierarchy);
    Ok(Outcome::Done)
}
