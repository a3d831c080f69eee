//! From the plan to rows: what is wanted, less what the anchor has.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use vocab::{Damaged, MailboxId, ModSeq, Table, Uid, Version};

use super::numbers::Numbered;
use super::placements::{Kept, Union};
use super::registers::{self, Three, Wanted, values};
use super::side::{Side, Sides};
use super::tree::Tree;
use super::{MergeInput, MergeReport, Rules};
use crate::op::Change;
use crate::read::scan_prefix;
use crate::recovery::RecoveryItem;
use crate::rows::{
    Counts, Expunged, Mailbox, Placement, encode_place, facts_user_key, mailbox_id, modseq_key, placement_key,
};
use crate::work::Work;
use vocab::ids::MAILBOX_ID_BYTES;

/// Everything that was decided.
pub(super) struct Plan<'p> {
    pub sides: &'p Sides,
    pub union: &'p Union,
    pub tree: &'p Tree,
    pub numbered: &'p Numbered,
    pub rules: Rules,
}

/// Tables the merge makes as a whole; facts are handled by key.
const WHOLE: [Table; 12] = [
    Table::MAILBOXES,
    Table::NAMES,
    Table::PLACEMENTS,
    Table::PLACEMENT_INDEX,
    Table::CHANGES,
    Table::TOMBSTONES,
    Table::EXPUNGED,
    Table::DOCUMENTS,
    Table::RECOVERY,
    Table::BRANCHES,
    Table::FORMER_NAMES,
    Table::OUTCOMES,
];

/// Counters, lineage and marks of the result.
pub(super) fn join_heads(work: &mut Work<'_>, sides: &Sides, between: &[Version], rules: Rules) {
    let guest = &sides.guest.head;
    let above = &sides.above;
    let head = &mut work.rows.head;
    head.modseq = above.modseq(head.modseq.max(guest.modseq));
    head.uidvalidity = above.uid_validity(head.uidvalidity.max(guest.uidvalidity));
    head.served = head.served.max(guest.served).filter(|_| rules.marks_inherited);
    head.remember(guest, between, sides.is_silent(&sides.guest));
}

pub(super) fn write(
    work: &mut Work<'_>,
    input: &MergeInput<'_>,
    plan: &Plan<'_>,
    report: &mut MergeReport,
) -> Result<(), Damaged> {
    let stamp = ModSeq(work.rows.head.modseq);
    let base = plan.sides.base.as_ref().and(input.base);
    let three = Three { base, anchor: input.anchor.rows, guest: input.guest.rows };
    let mut wanted = Wanted::new();
    let mut touched = gone(work, &mut wanted, plan, stamp);
    registers::expunged(&mut wanted, plan.sides, stamp);
    registers::branches(&mut wanted, three, stamp)?;
    let counts = placements(work, &mut wanted, plan, (stamp, &mut touched), report);
    let subscribed = registers::names(&mut wanted, plan.sides, plan.tree);
    registers::former(&mut wanted, plan.sides, plan.tree, work.stamp.rows);
    for planned in plan.tree.mailboxes.values() {
        let mut mailbox = planned.mailbox.clone();
        mailbox.subscribed |= subscribed.contains(&mailbox.id);
        mailbox.counts = counts.get(&mailbox.id).copied().unwrap_or_default();
        mailbox.uid_next = plan.numbered.uid_next.get(&mailbox.id).copied().unwrap_or(Uid(1));
        if finish_mailbox(plan, &mut mailbox, &touched, stamp) {
            touched.insert(mailbox.id);
        }
        wanted.insert((Table::MAILBOXES, mailbox.id.to_bytes().to_vec()), mailbox.encode(work.stamp.rows));
    }
    tombstones(&mut wanted, three, plan, &touched)?;
    registers::outcomes(&mut wanted, three)?;
    registers::recovery(&mut wanted, three)?;
    recover(work, &mut wanted, (input, plan), report)?;
    let documents = registers::documents(&mut wanted, three, report)?;
    facts(work, three, plan.union)?;
    replace(work, three, wanted)?;
    announce(work, plan.sides, &touched, documents);
    Ok(())
}

/// Messages of a side that are gone, or elsewhere: their mailboxes are touched, and the anchor's references go.
fn gone(work: &mut Work<'_>, wanted: &mut Wanted, plan: &Plan<'_>, stamp: ModSeq) -> BTreeSet<MailboxId> {
    let mut touched = BTreeSet::new();
    let [a, g] = plan.sides.both();
    for side in [a, g] {
        for (id, (mailbox, placement)) in &side.placed {
            if plan.numbered.uids.get(id) != Some(&(*mailbox, placement.uid)) {
                touched.insert(*mailbox);
            }
            if !plan.union.kept.contains_key(id) {
                let row = Expunged::of(*mailbox, placement, stamp);
                // Rows that a side has come over this one.
                wanted.insert((Table::EXPUNGED, id.to_bytes().to_vec()), row.encode(*id));
                if std::ptr::eq(side, a) {
                    work.refer(placement.blob, placement.id, false);
                }
            }
        }
    }
    let only = |one: &Side, other: &Side| -> Vec<MailboxId> {
        one.expunged.iter().filter(|(id, _)| !other.expunged.contains_key(id)).map(|(_, row)| row.mailbox).collect()
    };
    touched.extend(only(a, g));
    touched.extend(only(g, a));
    touched
}

type CountsOf = std::collections::BTreeMap<MailboxId, Counts>;

fn placements(
    work: &mut Work<'_>,
    wanted: &mut Wanted,
    plan: &Plan<'_>,
    (stamp, touched): (ModSeq, &mut BTreeSet<MailboxId>),
    report: &mut MergeReport,
) -> CountsOf {
    let mut counts = CountsOf::new();
    for (id, kept) in &plan.union.kept {
        let Some((mailbox, uid)) = plan.numbered.uids.get(id).copied() else { continue };
        let (placement, changed) = stamped(plan, kept, (mailbox, uid), stamp);
        if changed {
            touched.insert(mailbox);
        }
        let elsewhere = |side: &&Side| side.place(*id).is_some_and(|place| place != (mailbox, uid));
        report.renumbered += u64::from(plan.sides.both().iter().any(elsewhere));
        counts.entry(mailbox).or_default().add(&placement.flags, placement.size());
        let key = placement_key(mailbox, uid);
        wanted.insert((Table::PLACEMENTS, key), placement.encode());
        wanted.insert((Table::PLACEMENT_INDEX, id.to_bytes().to_vec()), encode_place(mailbox, uid));
        wanted.insert((Table::CHANGES, modseq_key(mailbox, placement.modseq, uid)), Bytes::new());
        if !plan.sides.anchor.placed.contains_key(id) {
            work.refer(placement.blob, *id, true);
        }
        let other = plan.sides.both().iter().find_map(|side| side.place(*id).filter(|(there, _)| *there != mailbox));
        if let Some((there, uid)) = other.filter(|_| !plan.rules.one_place) {
            wanted.insert((Table::PLACEMENTS, placement_key(there, uid)), Placement { uid, ..placement }.encode());
        }
    }
    counts
}

/// The row of a message in its place, and whether it is not what both sides have.
fn stamped(plan: &Plan<'_>, kept: &Kept, place: (MailboxId, Uid), stamp: ModSeq) -> (Placement, bool) {
    let mut placement = Placement { uid: place.1, ..kept.placement.clone() };
    let from_one = plan.tree.mailboxes.get(&place.0).is_some_and(|planned| planned.from_one);
    let id = placement.id;
    let rows = plan.sides.both().map(|side| side.placed.get(&id));
    let stamp = if plan.rules.restamp { stamp } else { placement.modseq };
    let [Some((at, a)), Some((_, g))] = rows else {
        placement.created = stamp;
        placement.modseq = stamp;
        return (placement, true);
    };
    let stays = !from_one && plan.sides.both().iter().all(|side| side.place(id) == Some(place));
    if !stays || a.created != g.created {
        placement.created = stamp;
    }
    if stays && a == g && *at == place.0 {
        return (placement, false);
    }
    placement.modseq = stamp;
    (placement, true)
}

/// Modseq and floor of a mailbox; whether it is touched.
fn finish_mailbox(plan: &Plan<'_>, mailbox: &mut Mailbox, touched: &BTreeSet<MailboxId>, stamp: ModSeq) -> bool {
    let same = match plan.sides.mailbox(mailbox.id) {
        (Some(a), Some(g)) => a == g && *mailbox == *a,
        _ => false,
    };
    if same && !touched.contains(&mailbox.id) {
        return false;
    }
    mailbox.modseq = stamp;
    let floors = plan.sides.both().map(|side| side.mailboxes.get(&mailbox.id).map(|m| m.vanish_floor));
    let floor = floors.into_iter().flatten().max().unwrap_or(stamp);
    mailbox.vanish_floor = if plan.rules.floor { stamp } else { floor };
    true
}

/// Below the floor nobody asks for tombstones.
fn tombstones(
    wanted: &mut Wanted,
    three: Three<'_>,
    plan: &Plan<'_>,
    touched: &BTreeSet<MailboxId>,
) -> Result<(), Damaged> {
    for (key, value) in values(three.anchor, Table::TOMBSTONES)? {
        let mailbox = mailbox_id("tombstone", key.get(..MAILBOX_ID_BYTES).unwrap_or_default())?;
        if plan.tree.mailboxes.contains_key(&mailbox) && !(plan.rules.floor && touched.contains(&mailbox)) {
            wanted.insert((Table::TOMBSTONES, key), value);
        }
    }
    Ok(())
}

/// Messages that an expunge took although the other side changed them.
fn recover(
    work: &mut Work<'_>,
    wanted: &mut Wanted,
    (input, plan): (&MergeInput<'_>, &Plan<'_>),
    report: &mut MergeReport,
) -> Result<(), Damaged> {
    for lost in &plan.union.lost {
        let rows = if lost.at_anchor { input.anchor.rows } else { input.guest.rows };
        let side = if lost.at_anchor { &plan.sides.anchor } else { &plan.sides.guest };
        let item = RecoveryItem {
            placement: lost.placement.clone(),
            mailbox: side.mailboxes.get(&lost.mailbox).map(|mailbox| mailbox.name.clone()).unwrap_or_default(),
            merged: work.stamp.at,
            facts: crate::read::facts(rows, lost.placement.email)?.unwrap_or_default(),
        };
        wanted.insert((Table::RECOVERY, lost.placement.id.to_bytes().to_vec()), item.encode());
        report.recovered += 1;
    }
    // The bodies of all of them, the guest's older ones too.
    for ((_, _), value) in wanted.iter().filter(|((table, _), _)| *table == Table::RECOVERY) {
        let item = RecoveryItem::decode(value)?;
        work.refer(item.placement.blob, item.placement.id, true);
    }
    Ok(())
}

/// The facts of every message that stays, from the side that has them.
fn facts(work: &mut Work<'_>, three: Three<'_>, union: &Union) -> Result<(), Damaged> {
    let mut needed: BTreeSet<Vec<u8>> = BTreeSet::new();
    for kept in union.kept.values() {
        let placement = &kept.placement;
        needed.insert(placement.email.to_bytes().to_vec());
        if placement.email != placement.id {
            needed.insert(facts_user_key(placement.email, placement.id));
        }
    }
    let mut stale = Vec::new();
    scan_prefix(three.anchor, Table::FACTS, &[], &mut |key, _| {
        if !needed.remove(key) {
            stale.push(key.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for key in stale {
        work.delete(Table::FACTS, key)?;
    }
    for key in needed {
        let value = match three.guest.get(Table::FACTS, &key)? {
            Some(value) => value,
            // Whose user row this is has its facts under the shorter key.
            None if !crate::rows::is_facts_key(&key) => Bytes::new(),
            None => return Err(Damaged("merge: no branch has the facts of a message".to_owned())),
        };
        work.write(Table::FACTS, key, value)?;
    }
    Ok(())
}

fn replace(work: &mut Work<'_>, three: Three<'_>, wanted: Wanted) -> Result<(), Damaged> {
    for table in WHOLE {
        for key in values(three.anchor, table)?.into_keys() {
            let row = (table, key);
            if !wanted.contains_key(&row) {
                work.delete(table, row.1)?;
            }
        }
    }
    for ((table, key), value) in wanted {
        work.write(table, key, value)?;
    }
    Ok(())
}

fn announce(work: &mut Work<'_>, sides: &Sides, touched: &BTreeSet<MailboxId>, documents: Vec<Change>) {
    let dropped = sides.anchor.mailboxes.keys().filter(|id| touched.contains(id));
    let all: BTreeSet<MailboxId> = touched.iter().chain(dropped).copied().collect();
    all.into_iter().for_each(|id| work.announce(Change::Mailbox(id)));
    work.announce(Change::Hierarchy);
    documents.into_iter().for_each(|change| work.announce(change));
}
