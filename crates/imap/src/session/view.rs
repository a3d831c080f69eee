//! What the client believes of its selected mailbox: sequence numbers, and the only place where news becomes visible.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use mailbox::read;
use mailbox::rows::{Mailbox, UidRow};
use vocab::{Damaged, ModSeq, Rows, Uid};

use crate::codec::response;

/// Which news may be told now (RFC 3501 §7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Everything.
    All,
    /// No EXPUNGE: the command counts by sequence numbers.
    NoExpunge,
}

/// Sequence number n is the n-th UID. Four bytes per message.
#[derive(Debug)]
pub struct View {
    uids: Vec<u32>,
    uid_next: u32,
    changes_seen: ModSeq,
    expunges_seen: ModSeq,
    /// Flags this session was told of beyond `changes_seen`: its own STOREs.
    told: BTreeMap<u32, ModSeq>,
}

/// Half-open ranges of positions (sequence number - 1).
pub type Positions = Vec<(usize, usize)>;

impl View {
    /// The mailbox as it is in the snapshot.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn open(rows: &dyn Rows, mailbox: &Mailbox) -> Result<Self, Damaged> {
        let uids: Vec<u32> = read::uids(rows, mailbox.id)?.into_iter().map(|row| row.uid.0).collect();
        let uid_next = mailbox.uid_next.0.max(uids.last().map_or(0, |last| last.saturating_add(1)));
        let seen = mailbox.modseq;
        Ok(Self { uids, uid_next, changes_seen: seen, expunges_seen: seen, told: BTreeMap::new() })
    }
    /// Messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.uids.len()
    }
    /// No messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }
    /// UIDs of these positions, ascending.
    #[must_use]
    pub fn uids(&self, from: usize, to: usize) -> &[u32] {
        self.uids.get(from.min(self.uids.len())..to.min(self.uids.len())).unwrap_or_default()
    }
    /// Position of a UID.
    #[must_use]
    pub fn position(&self, uid: Uid) -> Option<usize> {
        self.uids.binary_search(&uid.0).ok()
    }
    /// Positions of a set of sequence numbers or UIDs; numbers without message are left out.
    #[must_use]
    pub fn resolve(&self, set: &crate::codec::sequence::SequenceSet, by_uid: bool) -> Positions {
        let last = u32::try_from(self.uids.len()).unwrap_or(u32::MAX);
        let largest = if by_uid { self.uids.last().copied().unwrap_or(0) } else { last };
        let place = |(from, to): (u32, u32)| {
            if by_uid {
                (self.uids.partition_point(|uid| *uid < from), self.uids.partition_point(|uid| *uid <= to))
            } else {
                ((from.max(1) - 1) as usize, to.min(last) as usize)
            }
        };
        set.resolve(largest).into_iter().map(place).filter(|(from, to)| from < to).collect()
    }
    /// The client was told these flags in answer to its own command.
    pub fn note_told(&mut self, uid: Uid, modseq: ModSeq) {
        self.told.insert(uid.0, modseq);
    }
    /// HIGHESTMODSEQ the client may rely on.
    #[must_use]
    pub fn modseq(&self) -> ModSeq {
        self.changes_seen
    }

    /// Takes these UIDs out and announces it, highest first, so that no number moves before it is named.
    pub fn expunge(&mut self, gone: &BTreeSet<u32>, out: &mut Vec<u8>) {
        let positions: Vec<usize> = gone.iter().filter_map(|uid| self.position(Uid(*uid))).collect();
        let mut text = String::new();
        for position in positions.iter().rev() {
            let _ = write!(text, "* {} EXPUNGE\r\n", position + 1);
        }
        out.extend_from_slice(text.as_bytes());
        if !positions.is_empty() {
            self.uids.retain(|uid| !gone.contains(uid));
        }
    }

    fn vanished(&self, rows: &dyn Rows, mailbox: &Mailbox) -> Result<BTreeSet<u32>, Damaged> {
        if self.expunges_seen >= mailbox.vanish_floor {
            let known = [Uid(0)..=Uid(self.uid_next)];
            let gone = read::vanished_since(rows, mailbox, self.expunges_seen, &known)?;
            return Ok(gone.into_iter().map(|uid| uid.0).collect());
        }
        // Too long ago to be remembered one by one: compare.
        let present: BTreeSet<u32> = read::uids(rows, mailbox.id)?.into_iter().map(|row| row.uid.0).collect();
        Ok(self.uids.iter().copied().filter(|uid| !present.contains(uid)).collect())
    }
}

/// Tells the client what changed: EXPUNGE, EXISTS, FETCH FLAGS. The only place where that happens but for the answers to
/// the session's own commands.
///
/// # Errors
/// [`Damaged`]; the view is unchanged or behind, never ahead.
pub fn sync_view(
    view: &mut View,
    rows: &dyn Rows,
    mailbox: &Mailbox,
    (news, condstore): (News, bool),
    out: &mut Vec<u8>,
) -> Result<(), Damaged> {
    if news == News::All && mailbox.modseq > view.expunges_seen {
        let gone = view.vanished(rows, mailbox)?;
        view.expunge(&gone, out);
        view.expunges_seen = mailbox.modseq;
    }
    if mailbox.modseq <= view.changes_seen && mailbox.uid_next.0 <= view.uid_next {
        return Ok(());
    }
    let changed = read::changed_since(rows, mailbox.id, view.changes_seen)?;
    let known_to = view.uid_next;
    let before = view.uids.len();
    if mailbox.uid_next.0 > known_to {
        let fresh = read::uids_in(rows, mailbox.id, Uid(known_to)..=Uid(u32::MAX))?;
        view.uids.extend(fresh.iter().map(|row| row.uid.0));
        view.uid_next = mailbox.uid_next.0;
    }
    if view.uids.len() != before {
        out.extend_from_slice(format!("* {} EXISTS\r\n* 0 RECENT\r\n", view.uids.len()).as_bytes());
    }
    for row in changed.iter().filter(|row| row.uid.0 < known_to) {
        if view.told.get(&row.uid.0) == Some(&row.modseq) {
            continue;
        }
        if let Some(position) = view.position(row.uid) {
            out.extend_from_slice(flags_line(position, row, condstore).as_bytes());
        }
    }
    view.changes_seen = mailbox.modseq;
    view.told.retain(|_, modseq| *modseq > mailbox.modseq);
    Ok(())
}

fn flags_line(position: usize, row: &UidRow, condstore: bool) -> String {
    let modseq = if condstore { format!(" MODSEQ ({})", row.modseq.0) } else { String::new() };
    format!("* {} FETCH (UID {} FLAGS {}{modseq})\r\n", position + 1, row.uid.0, response::flags(&row.flags))
}
