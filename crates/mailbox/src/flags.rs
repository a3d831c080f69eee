//! STORE, with UNCHANGEDSINCE (RFC 7162 §3.1.3).

use bytes::Bytes;
use vocab::{Damaged, Flags, MailboxId, ModSeq, PlacementId, Table};

use crate::append::checked_flags;
use crate::modseq::raise_modseq;
use crate::op::{Change, FlagMode, Outcome, StoredFlags};
use crate::rows::{Mailbox, Placement, modseq_key, placement_key};
use crate::work::{Fail, Work};

pub(crate) fn store(
    work: &mut Work<'_>,
    mailbox: MailboxId,
    placements: &[PlacementId],
    (mode, flags): (FlagMode, &Flags),
    unchanged_since: Option<ModSeq>,
) -> Result<Outcome, Fail> {
    let mut mailbox = work.mailbox(mailbox)?;
    let (mut stored, mut modified) = (Vec::new(), Vec::new());
    for (_, mut placement) in work.locate(mailbox.id, placements)? {
        if unchanged_since.is_some_and(|since| placement.modseq > since) {
            modified.push(placement.uid);
            continue;
        }
        let wanted = match mode {
            FlagMode::Replace => flags.clone(),
            FlagMode::Add => placement.flags.with(flags),
            FlagMode::Remove => placement.flags.without(flags),
        };
        let wanted = checked_flags(&wanted)?;
        if wanted != placement.flags {
            set_flags(work, &mut mailbox, &mut placement, wanted)?;
        }
        stored.push(StoredFlags { uid: placement.uid, flags: placement.flags, modseq: placement.modseq });
    }
    work.save(&mailbox)?;
    Ok(Outcome::Stored { stored, modified })
}

fn set_flags(
    work: &mut Work<'_>,
    mailbox: &mut Mailbox,
    placement: &mut Placement,
    flags: Flags,
) -> Result<(), Damaged> {
    let modseq = raise_modseq(work);
    work.delete(Table::CHANGES, modseq_key(mailbox.id, placement.modseq, placement.uid))?;
    mailbox.counts.remove(&placement.flags, placement.size());
    mailbox.counts.add(&flags, placement.size());
    mailbox.modseq = modseq;
    placement.flags = flags;
    placement.modseq = modseq;
    work.write(Table::PLACEMENTS, placement_key(mailbox.id, placement.uid), placement.encode())?;
    work.write(Table::CHANGES, modseq_key(mailbox.id, modseq, placement.uid), Bytes::new())?;
    work.announce(Change::Mailbox(mailbox.id));
    Ok(())
}
