//! Which mailboxes there are, and under which names (M2-M4, X22): attributes three-way, survivors of a deletion, names
//! that both sides gave, one mailbox per role.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vocab::{MailboxId, ModSeq, Timestamp, Uid, UidValidity};

use super::placements::Union;
use super::side::{Side, Sides, three_way};
use super::{MergeReport, Rules};
use crate::names::{normal_name, superiors};
use crate::op::{Role, Stamp};
use crate::rows::{Counts, Mailbox};
use crate::work::Work;

/// A mailbox of the result; counts, uidnext and modseqs are filled in later.
pub(super) struct Planned {
    pub mailbox: Mailbox,
    /// Numbers begin at 1 again, under a new UIDVALIDITY.
    pub from_one: bool,
}

/// The mailboxes of the result.
#[derive(Default)]
pub(super) struct Tree {
    pub mailboxes: BTreeMap<MailboxId, Planned>,
    /// Mailboxes that are no more, and which takes their mail.
    pub poured: BTreeMap<MailboxId, MailboxId>,
}

/// The clocks a new mailbox needs.
struct Clock<'w> {
    stamp: &'w mut Stamp,
    uid_validity: &'w mut u32,
}

impl Clock<'_> {
    /// The next UIDVALIDITY; at the very end of the numbers the last one stays.
    fn next(&mut self) -> UidValidity {
        *self.uid_validity = self.uid_validity.saturating_add(1);
        UidValidity(*self.uid_validity)
    }
}

impl Tree {
    pub(super) fn of(
        sides: &Sides,
        (union, rules): (&Union, Rules),
        work: &mut Work<'_>,
        report: &mut MergeReport,
    ) -> Self {
        let mut clock = Clock { stamp: &mut work.stamp, uid_validity: &mut work.rows.head.uidvalidity };
        let mut tree = Self::default();
        let survivors = tree.attributes(sides, union, report);
        tree.same_names(sides, &mut clock, report);
        tree.survive(survivors, &mut clock, (rules, report));
        tree.parents(&mut clock);
        tree.roles(sides, report);
        if sides.base.is_none() {
            tree.raise_differing(sides, &mut clock, report);
        }
        if rules.names_grow {
            tree.grow(sides, &mut clock, report);
        }
        tree
    }

    /// Where the mail of this mailbox is in the result.
    pub(super) fn target(&self, id: MailboxId) -> MailboxId {
        let mut at = id;
        // A survivor may be poured into a mailbox that was itself merged away: never longer than the map.
        for _ in 0..=self.poured.len() {
            match self.poured.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        at
    }

    /// Three-way per attribute; gives back what was deleted on one side but has mail the other side added.
    fn attributes(&mut self, sides: &Sides, union: &Union, report: &mut MergeReport) -> Vec<Mailbox> {
        let used: BTreeSet<MailboxId> = union.kept.values().map(|kept| kept.mailbox).collect();
        let mut survivors = Vec::new();
        for id in sides.mailbox_ids() {
            let mailbox = match sides.mailbox(id) {
                (Some(a), Some(g)) => both_sided(sides.base_mailbox(id), a, g, report),
                (Some(one), None) | (None, Some(one)) => {
                    if sides.base_mailbox(id).is_some() {
                        if used.contains(&id) {
                            survivors.push(one.clone());
                        }
                        continue;
                    }
                    one.clone()
                }
                (None, None) => continue,
            };
            self.mailboxes.insert(id, Planned { mailbox, from_one: false });
        }
        survivors
    }

    fn same_names(&mut self, sides: &Sides, clock: &mut Clock<'_>, report: &mut MergeReport) {
        let mut by_name: BTreeMap<String, Vec<MailboxId>> = BTreeMap::new();
        for (id, planned) in &self.mailboxes {
            by_name.entry(planned.mailbox.name.clone()).or_default().push(*id);
        }
        by_name.retain(|_, ids| ids.len() > 1);
        for (name, ids) in by_name {
            let one_sided = |id: &MailboxId| !matches!(sides.mailbox(*id), (Some(_), Some(_)));
            let is_fresh = |id: &MailboxId| sides.base_mailbox(*id).is_none() && one_sided(id);
            let (fresh, mut rest): (Vec<_>, Vec<_>) = ids.into_iter().partition(is_fresh);
            rest.extend(self.merge_fresh(&fresh, clock, report));
            rest.sort_by_key(|id| {
                let mailbox = self.mailboxes.get(id).map(|planned| &planned.mailbox);
                let role = mailbox.and_then(|m| m.role) == Some(Role::Inbox);
                (!role, Reverse(mailbox.map(|m| m.uid_validity)), *id)
            });
            for id in rest.into_iter().skip(1) {
                let free = self.free_name(&name, id);
                report.conflicts.push(format!("two mailboxes were named {name}: one is {free} now"));
                if let Some(planned) = self.mailboxes.get_mut(&id) {
                    planned.mailbox.name = free;
                }
            }
        }
    }

    /// Both sides created it: the greater UIDVALIDITY keeps id and numbers and takes the mail of the others.
    fn merge_fresh(
        &mut self,
        fresh: &[MailboxId],
        clock: &mut Clock<'_>,
        report: &mut MergeReport,
    ) -> Option<MailboxId> {
        let value = |tree: &Self, id: &MailboxId| tree.mailboxes.get(id).map(|planned| planned.mailbox.uid_validity);
        let keeper = *fresh.iter().max_by_key(|id| (value(self, id), Reverse(**id)))?;
        for other in fresh.iter().filter(|id| **id != keeper) {
            let tie = value(self, other) == value(self, &keeper);
            let Some(gone) = self.mailboxes.remove(other) else { continue };
            self.poured.insert(*other, keeper);
            let Some(kept) = self.mailboxes.get_mut(&keeper) else { continue };
            kept.mailbox.subscribed |= gone.mailbox.subscribed;
            kept.mailbox.role = kept.mailbox.role.or(gone.mailbox.role);
            report.conflicts.push(format!("both sides created {}: one mailbox now", gone.mailbox.name));
            if tie {
                kept.mailbox.uid_validity = clock.next();
                report.raised.push(format!("{}: created on both sides under one UIDVALIDITY", gone.mailbox.name));
            }
        }
        Some(keeper)
    }

    fn holder(&self, name: &str) -> Option<MailboxId> {
        self.mailboxes.values().find(|planned| planned.mailbox.name == name).map(|planned| planned.mailbox.id)
    }

    /// A name that depends on nothing but the mailbox and what is taken.
    fn free_name(&self, name: &str, id: MailboxId) -> String {
        let digest = blake3::hash(&id.to_bytes()).to_hex();
        let short = digest.get(..8).unwrap_or_default();
        for round in 0..=self.mailboxes.len() {
            let more = if round == 0 { String::new() } else { format!(" {round}") };
            let suffix = format!(" (conflict {short}{more})");
            let wanted = normal_name(&format!("{name}{suffix}")).unwrap_or_else(|| format!("Mailbox{suffix}"));
            if self.holder(&wanted).is_none() {
                return wanted;
            }
        }
        format!("Mailbox {digest}")
    }

    /// Deleted on one side, new mail on the other: it lives on with that mail alone (X22), in another mailbox if its name
    /// is held.
    fn survive(&mut self, survivors: Vec<Mailbox>, clock: &mut Clock<'_>, (rules, report): (Rules, &mut MergeReport)) {
        for mut mailbox in survivors {
            let (id, name) = (mailbox.id, mailbox.name.clone());
            if let Some(holder) = self.holder(&name) {
                self.poured.insert(id, holder);
                report.conflicts.push(format!("{name} was deleted and made anew: its new mail is in the present one"));
                continue;
            }
            if !rules.survivor_anew {
                self.mailboxes.insert(id, Planned { mailbox, from_one: false });
                continue;
            }
            mailbox.uid_validity = clock.next();
            report.raised.push(format!("{name}: deleted on one side, new mail on the other"));
            self.mailboxes.insert(id, Planned { mailbox, from_one: true });
        }
    }

    fn parents(&mut self, clock: &mut Clock<'_>) {
        let names: BTreeSet<String> = self.mailboxes.values().map(|planned| planned.mailbox.name.clone()).collect();
        let missing: BTreeSet<String> =
            names.iter().flat_map(|name| superiors(name)).filter(|s| !names.contains(*s)).map(str::to_owned).collect();
        for name in missing {
            let id =
                MailboxId { epoch: clock.stamp.epoch, home: clock.stamp.home, counter: clock.stamp.mailbox_counter };
            clock.stamp.mailbox_counter += 1;
            let mailbox = Mailbox {
                id,
                name,
                uid_validity: clock.next(),
                uid_next: Uid(1),
                vanish_floor: ModSeq(0),
                role: None,
                subscribed: false,
                modseq: ModSeq(0),
                counts: Counts::default(),
                renamed: Timestamp::default(),
            };
            self.mailboxes.insert(id, Planned { mailbox, from_one: true });
        }
    }

    /// The older mailbox keeps a role that two have.
    fn roles(&mut self, sides: &Sides, report: &mut MergeReport) {
        let mut ids: Vec<MailboxId> = self.mailboxes.keys().copied().collect();
        ids.sort_by_key(|id| (sides.base_mailbox(*id).is_none(), *id));
        let mut taken = BTreeSet::new();
        for id in ids {
            let Some(planned) = self.mailboxes.get_mut(&id) else { continue };
            if let Some(role) = planned.mailbox.role
                && !taken.insert(role)
            {
                planned.mailbox.role = None;
                report.conflicts.push(format!("{} lost its special use: another has it", planned.mailbox.name));
            }
        }
    }

    /// M12: nothing is known of what clients saw, so what differs gets new numbers.
    fn raise_differing(&mut self, sides: &Sides, clock: &mut Clock<'_>, report: &mut MergeReport) {
        let mut differing = BTreeSet::new();
        let [a, g] = sides.both();
        for (one, other) in [(a, g), (g, a)] {
            for (id, (mailbox, placement)) in &one.placed {
                if other.placed.get(id) != Some(&(*mailbox, placement.clone())) {
                    differing.insert(*mailbox);
                }
            }
        }
        for (id, planned) in &mut self.mailboxes {
            let (a, g) = sides.mailbox(*id);
            // One side deleted it, or never had it: it had it only if its clock came that far.
            let had = |side: &Side| side.head.uidvalidity >= planned.mailbox.uid_validity.0;
            let differs = match (a, g) {
                (Some(_), Some(_)) => a != g || differing.contains(id),
                (None, Some(_)) => had(sides.both()[0]),
                (Some(_), None) => had(sides.both()[1]),
                (None, None) => false,
            };
            if differs {
                planned.from_one = true;
                planned.mailbox.uid_validity = clock.next();
                report.raised.push(format!("{}: no common version to merge from", planned.mailbox.name));
            }
        }
    }

    /// I2: what either side told for a name is not undercut by the mailbox that has it now. UIDs stay.
    fn grow(&mut self, sides: &Sides, clock: &mut Clock<'_>, report: &mut MergeReport) {
        for planned in self.mailboxes.values_mut() {
            let mailbox = &mut planned.mailbox;
            if mailbox.uid_validity < sides.told(&mailbox.name) {
                mailbox.uid_validity = clock.next();
                report.outdone += 1;
                report.raised.push(format!("{}: a greater one was told for this name", mailbox.name));
            }
        }
    }
}

fn both_sided(base: Option<&Mailbox>, a: &Mailbox, g: &Mailbox, report: &mut MergeReport) -> Mailbox {
    let name = three_way(base.map(|b| &b.name), &a.name, &g.name, |x, y| {
        report.conflicts.push(format!("one mailbox was renamed {x} and {y}"));
        // The later one wins. Rows of a format that does not say when: the side that changed it last by modseq.
        let rank = |m: &Mailbox| (m.renamed, m.modseq);
        if (rank(a), x) > (rank(g), y) { x.clone() } else { y.clone() }
    });
    let renamed = a.renamed.max(g.renamed);
    let role = three_way(base.map(|b| &b.role), &a.role, &g.role, |x, y| *x.max(y));
    let subscribed = three_way(base.map(|b| &b.subscribed), &a.subscribed, &g.subscribed, |x, y| *x || *y);
    Mailbox { name, role, subscribed, renamed, uid_validity: a.uid_validity.max(g.uid_validity), ..a.clone() }
}
