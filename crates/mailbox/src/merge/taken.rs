//! Which of the merge rules M1-M12 had something to decide: for reports, and to see that simulations reach all of them.

use std::collections::BTreeSet;

use vocab::{Damaged, Table};

use super::registers::values;
use super::side::Sides;
use super::{MergeInput, numbers::Numbered};

/// Rules that were taken, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken(u16);

impl Taken {
    /// How many rules there are, M0 among them: a side taken as it is, which is no merge.
    pub const RULES: u32 = 13;

    /// Whether rule M`number` had something to decide.
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        self.0 & (1 << number.min(15)) != 0
    }

    fn mark(&mut self, number: u32, taken: bool) {
        self.0 |= u16::from(taken) << number;
    }

    /// A side that is part of the other already.
    pub(super) const fn as_it_is() -> Self {
        Self(1)
    }

    pub(super) fn of(sides: &Sides, numbered: &Numbered, input: &MergeInput<'_>) -> Result<Self, Damaged> {
        let mut taken = Self::default();
        // Stamp, counters and lineage belong to every merge.
        [1, 8, 11].into_iter().for_each(|rule| taken.mark(rule, true));
        taken.mark(12, sides.base.is_none());
        let [a, g] = sides.both();
        for id in sides.mailbox_ids() {
            match sides.mailbox(id) {
                (Some(x), Some(y)) => {
                    taken.mark(2, x.name != y.name || x.role != y.role || x.subscribed != y.subscribed);
                    taken.mark(9, x.uid_next != y.uid_next);
                }
                (Some(one), None) | (None, Some(one)) => {
                    let added = |(mailbox, _): &(_, _)| *mailbox == id;
                    let used = numbered.uids.values().any(added) || sides.base_mailbox(id).is_none();
                    taken.mark(3, sides.base_mailbox(id).is_some() && used);
                    let other = if a.mailboxes.contains_key(&id) { g } else { a };
                    taken.mark(4, other.mailboxes.values().any(|m| m.name == one.name && m.id != id));
                }
                (None, None) => {}
            }
        }
        for id in a.placed.keys().chain(g.placed.keys()).collect::<BTreeSet<_>>() {
            let (here, there) = (a.placed.get(id), g.placed.get(id));
            taken.mark(5, here.is_some() != there.is_some());
            let flags = |place: Option<&(_, crate::rows::Placement)>| place.map(|(_, p)| p.flags.clone());
            taken.mark(6, here.is_some() && there.is_some() && flags(here) != flags(there));
            let moved = |side: &super::side::Side| side.place(*id).is_some_and(|p| numbered.uids.get(id) != Some(&p));
            taken.mark(7, numbered.uids.contains_key(id) && (moved(a) || moved(g)));
        }
        let documents = |rows| values(rows, Table::DOCUMENTS);
        taken.mark(10, documents(input.anchor.rows)? != documents(input.guest.rows)? || a.subscribed != g.subscribed);
        Ok(taken)
    }
}
