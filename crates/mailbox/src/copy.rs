//! COPY and MOVE: new placements of the same messages.

use vocab::{MailboxId, PlacementId};

use crate::append::{known_place, place_message};
use crate::expunge::remove_placement;
use crate::op::Outcome;
use crate::rows::Placement;
use crate::work::{Fail, Work};

/// Copies placements into `to`, by UID ascending; `index` makes the new id, so it must mean the same message on every
/// branch. EMAILID, THREADID, flags and INTERNALDATE are kept.
fn copy_placements(work: &mut Work<'_>, to: MailboxId, placements: &[(u32, Placement)]) -> Result<Outcome, Fail> {
    let mut target = work.mailbox(to)?;
    let mut uids = Vec::with_capacity(placements.len());
    for (index, placement) in placements {
        let id = PlacementId { command: work.command, index: *index };
        let uid = match known_place(work, id)? {
            Some((_, uid)) => uid,
            None => place_message(work, &mut target, Placement { id, ..placement.clone() })?,
        };
        uids.push((placement.uid, uid));
    }
    work.save(&target)?;
    Ok(Outcome::Copied { uid_validity: target.uid_validity, uids })
}

pub(crate) fn copy(
    work: &mut Work<'_>,
    from: MailboxId,
    to: MailboxId,
    placements: &[PlacementId],
) -> Result<Outcome, Fail> {
    work.mailbox(from)?;
    let found = work.locate(from, placements)?;
    copy_placements(work, to, &found)
}

pub(crate) fn move_messages(
    work: &mut Work<'_>,
    from: MailboxId,
    to: MailboxId,
    placements: &[PlacementId],
) -> Result<Outcome, Fail> {
    work.mailbox(from)?;
    let found = work.locate(from, placements)?;
    move_placements(work, from, to, &found)
}

/// One operation: the message is in exactly one of the two mailboxes whatever happens.
pub(crate) fn move_placements(
    work: &mut Work<'_>,
    from: MailboxId,
    to: MailboxId,
    found: &[(u32, Placement)],
) -> Result<Outcome, Fail> {
    let outcome = copy_placements(work, to, found)?;
    // Read after the copy: MOVE within one mailbox is allowed (RFC 6851 §3.3 gives new UIDs).
    let mut source = work.mailbox(from)?;
    for (_, placement) in found {
        remove_placement(work, &mut source, placement)?;
    }
    work.save(&source)?;
    Ok(outcome)
}
