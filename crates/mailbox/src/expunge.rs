//! Taking messages away; what went is remembered by UID for sync and by id for ghosts (X21).

use std::ops::ControlFlow;

use vocab::{Damaged, MailboxId, PlacementId, SystemFlag, Table};

use crate::modseq::raise_modseq;
use crate::op::{Change, Outcome};
use crate::read::{self, scan_prefix};
use crate::rows::{Expunged, Mailbox, Placement, encode_tombstone, facts_user_key, modseq_key, placement_key};
use crate::work::{Fail, Work};

/// Takes a placement out of its mailbox, under the command's modseq. The caller saves the mailbox.
pub(crate) fn remove_placement(
    work: &mut Work<'_>,
    mailbox: &mut Mailbox,
    placement: &Placement,
) -> Result<(), Damaged> {
    let modseq = raise_modseq(work);
    mailbox.modseq = modseq;
    mailbox.counts.remove(&placement.flags, placement.size());
    let tombstone = modseq_key(mailbox.id, modseq, placement.uid);
    work.write(Table::TOMBSTONES, tombstone, encode_tombstone(placement.id))?;
    forget_placement(work, mailbox.id, placement)
}

/// As [`remove_placement`] for a mailbox that goes as a whole: no tombstone by UID.
pub(crate) fn forget_placement(work: &mut Work<'_>, mailbox: MailboxId, placement: &Placement) -> Result<(), Damaged> {
    let modseq = raise_modseq(work);
    work.delete(Table::PLACEMENTS, placement_key(mailbox, placement.uid))?;
    work.delete(Table::PLACEMENT_INDEX, placement.id.to_bytes())?;
    work.delete(Table::CHANGES, modseq_key(mailbox, placement.modseq, placement.uid))?;
    let gone = Expunged::of(mailbox, placement, modseq);
    work.write(Table::EXPUNGED, placement.id.to_bytes(), gone.encode(placement.id))?;
    release_facts(work, placement)?;
    work.refer(placement.blob, placement.id, false);
    work.announce(Change::Mailbox(mailbox));
    Ok(())
}

/// Deletes the facts with the last placement that uses them.
fn release_facts(work: &mut Work<'_>, placement: &Placement) -> Result<(), Damaged> {
    let email = placement.email;
    if placement.id != email {
        work.delete(Table::FACTS, facts_user_key(email, placement.id))?;
        if read::place(&work.rows, email)?.is_some() {
            return Ok(());
        }
    }
    let mut users = 0;
    scan_prefix(&work.rows, Table::FACTS, &email.to_bytes(), &mut |key, _| {
        users += usize::from(!crate::rows::is_facts_key(key));
        Ok(if users > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if users == 0 {
        work.delete(Table::FACTS, email.to_bytes())?;
    }
    Ok(())
}

pub(crate) fn expunge(
    work: &mut Work<'_>,
    mailbox: MailboxId,
    placements: &[PlacementId],
    only_deleted: bool,
) -> Result<Outcome, Fail> {
    let mut mailbox = work.mailbox(mailbox)?;
    let mut uids = Vec::new();
    for (_, placement) in work.locate(mailbox.id, placements)? {
        if only_deleted && !placement.flags.has(SystemFlag::Deleted) {
            continue;
        }
        remove_placement(work, &mut mailbox, &placement)?;
        uids.push(placement.uid);
    }
    work.save(&mailbox)?;
    Ok(Outcome::Expunged { uids, modseq: mailbox.modseq })
}
