//! The account's counters: modseq and UIDVALIDITY, and the gap that keeps two sides of a split apart (DESIGN 6, X8).

use vocab::{ModSeq, Uid, UidValidity};

use crate::op::{Change, Gap, Outcome, Refusal};
use crate::read;
use crate::work::{Fail, Work};

/// UIDs in one window of a gap.
const GAP_UIDS: u64 = 65_536;
/// Modseqs in one window.
const GAP_MODSEQS: u64 = 1 << 32;
/// UIDVALIDITY values in one window.
const GAP_UID_VALIDITIES: u64 = 100;

/// The modseq of the running command: the account's counter raised once, however much the command changes.
pub(crate) fn raise_modseq(work: &mut Work<'_>) -> ModSeq {
    *work.modseq.get_or_insert_with(|| {
        work.rows.head.modseq += 1;
        ModSeq(work.rows.head.modseq)
    })
}

/// The next UIDVALIDITY: only grows per account. Outside joint epochs wall clocks are not looked at (X23).
pub(crate) fn next_uid_validity(work: &mut Work<'_>) -> Result<UidValidity, Fail> {
    let last = work.rows.head.uidvalidity;
    let next = last.checked_add(1).ok_or_else(|| Refusal::Limit("UIDVALIDITY".to_owned()))?;
    let seconds = u32::try_from(work.stamp.at.seconds()).unwrap_or_default();
    work.rows.head.uidvalidity = if work.stamp.joint { next.max(seconds) } else { next };
    Ok(UidValidity(work.rows.head.uidvalidity))
}

/// What numbers go on from: with a gap in a window of its own. A merge that went on in the guest's window could meet a third node
/// that is not here and has gone on there, too.
pub(crate) struct Above(pub Option<Gap>);

impl Above {
    pub(crate) fn uid(&self, last: Uid) -> Uid {
        self.0.map_or(last, |gap| Uid(narrow(gap.above(u64::from(last.0), GAP_UIDS))))
    }

    pub(crate) fn modseq(&self, last: u64) -> u64 {
        self.0.map_or_else(|| last.saturating_add(1), |gap| gap.above(last, GAP_MODSEQS))
    }

    pub(crate) fn uid_validity(&self, last: u32) -> u32 {
        self.0.map_or(last, |gap| narrow(gap.above(u64::from(last), GAP_UID_VALIDITIES)))
    }
}

fn narrow(wide: u64) -> u32 {
    u32::try_from(wide).unwrap_or(u32::MAX)
}

/// Raises every counter to the next window of the stamp's gap, once per epoch of a gap.
pub(crate) fn take_gap(work: &mut Work<'_>) -> Result<(), vocab::Damaged> {
    let Some(gap) = work.stamp.gap.filter(|gap| work.rows.head.gap_taken != Some(gap.epoch)) else {
        return Ok(());
    };
    crate::former::before_gap(work)?;
    let above = Above(Some(gap));
    for mut mailbox in read::mailboxes(&work.rows)? {
        mailbox.uid_next = above.uid(mailbox.uid_next);
        work.save(&mailbox)?;
    }
    let head = &mut work.rows.head;
    let before = head.modseq;
    head.modseq = above.modseq(head.modseq);
    head.uidvalidity = above.uid_validity(head.uidvalidity);
    head.gap_taken = Some(gap.epoch);
    crate::state::begin_branch(work, gap.epoch, before)
}

/// Gives every mailbox a UIDVALIDITY above `floor` and the account's clock; so will every name be told that none has now.
/// UIDs stay; nobody's cache does.
pub(crate) fn raise_uid_validity(work: &mut Work<'_>, floor: UidValidity) -> Result<Outcome, Fail> {
    let modseq = raise_modseq(work);
    work.rows.head.uidvalidity = work.rows.head.uidvalidity.max(floor.0);
    crate::former::raise_floor(work, UidValidity(work.rows.head.uidvalidity))?;
    for mut mailbox in read::mailboxes(&work.rows)? {
        mailbox.uid_validity = next_uid_validity(work)?;
        mailbox.vanish_floor = modseq;
        mailbox.modseq = modseq;
        work.save(&mailbox)?;
        work.announce(Change::Mailbox(mailbox.id));
    }
    work.announce(Change::Hierarchy);
    Ok(Outcome::Done)
}
