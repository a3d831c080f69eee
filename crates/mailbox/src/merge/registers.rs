//! Everything that is neither mailbox nor message: subscriptions, documents, outcomes, what was expunged, recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use vocab::limits::FORMER_NAMES_MAX;
use vocab::{CommandId, Damaged, MailboxId, ModSeq, PlacementId, Rows, Table, Version};

use super::MergeReport;
use super::side::{Sides, three_way};
use super::tree::Tree;
use crate::former::FormerNames;
use crate::op::Change;
use crate::read::scan_prefix;
use crate::rows::{Document, Expunged, RowFormat, Settled, damaged, encode_name, settled_key};

/// Rows as they are to be, by table and key.
pub(super) type Wanted = BTreeMap<(Table, Vec<u8>), Bytes>;
type Values = BTreeMap<Vec<u8>, Bytes>;

pub(super) fn values(rows: &dyn Rows, table: Table) -> Result<Values, Damaged> {
    let mut found = Values::new();
    scan_prefix(rows, table, &[], &mut |key, value| {
        found.insert(key.to_vec(), Bytes::copy_from_slice(value));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Base, anchor and guest.
#[derive(Clone, Copy)]
pub(super) struct Three<'a> {
    pub base: Option<&'a dyn Rows>,
    pub anchor: &'a dyn Rows,
    pub guest: &'a dyn Rows,
}

/// Names of mailboxes, and subscriptions per name three-way.
pub(super) fn names(wanted: &mut Wanted, sides: &Sides, tree: &Tree) -> BTreeSet<MailboxId> {
    let mut held = BTreeMap::new();
    for planned in tree.mailboxes.values() {
        let name = &planned.mailbox.name;
        held.insert(name.clone(), planned.mailbox.id);
        wanted.insert((Table::NAMES, name.as_bytes().to_vec()), encode_name(Some(planned.mailbox.id)));
    }
    let mut subscribed = BTreeSet::new();
    let [a, g] = sides.both();
    for name in a.subscribed.union(&g.subscribed) {
        let base = sides.base.as_ref().map(|base| base.subscribed.contains(name));
        let on = three_way(base.as_ref(), &a.subscribed.contains(name), &g.subscribed.contains(name), |x, y| *x || *y);
        match held.get(name) {
            Some(id) if on && !matches!(sides.mailbox(*id), (Some(_), Some(_))) => {
                subscribed.insert(*id);
            }
            None if on => {
                wanted.insert((Table::NAMES, name.as_bytes().to_vec()), encode_name(None));
            }
            _ => {}
        }
    }
    subscribed
}

/// What either side told for names that no mailbox has now, the greater for each (I2). Unknown on both sides it stays so.
pub(super) fn former(wanted: &mut Wanted, sides: &Sides, tree: &Tree, format: RowFormat) {
    let [a, g] = sides.both();
    if format < RowFormat::FORMER_NAMES || (a.former.floor.is_none() && g.former.floor.is_none()) {
        return;
    }
    let floor = a.former.bound(&a.head).max(g.former.bound(&g.head));
    let held: BTreeSet<&String> = tree.mailboxes.values().map(|planned| &planned.mailbox.name).collect();
    let left = [a, g].into_iter().flat_map(|side| side.names.keys().chain(side.former.names.keys()));
    let told = left.filter(|name| !held.contains(name)).map(|name| (name.clone(), sides.told(name)));
    let mut joined = FormerNames { floor: Some(floor), names: told.filter(|(_, value)| *value > floor).collect() };
    joined.shorten(FORMER_NAMES_MAX);
    wanted.extend(joined.rows().map(|(key, value)| ((Table::FORMER_NAMES, key), value)));
}

/// Three-way; both changed it: the later one wins and the other is kept under a conflict name.
pub(super) fn documents(
    wanted: &mut Wanted,
    three: Three<'_>,
    report: &mut MergeReport,
) -> Result<Vec<Change>, Damaged> {
    let none = Values::new();
    let base = three.base.map(|rows| values(rows, Table::DOCUMENTS)).transpose()?;
    let (a, g) = (values(three.anchor, Table::DOCUMENTS)?, values(three.guest, Table::DOCUMENTS)?);
    let known = base.is_some();
    let base = base.as_ref().unwrap_or(&none);
    let mut changes = Vec::new();
    for key in a.keys().chain(g.keys()).collect::<BTreeSet<_>>() {
        let (was, here, there) = (base.get(key), a.get(key), g.get(key));
        let mut loser = None;
        let value = three_way(known.then_some(&was), &here, &there, |x, y| match (x, y) {
            (Some(x), Some(y)) => {
                let here_wins = wins(x, y);
                loser = Some(if here_wins { (*y, three.guest) } else { (*x, three.anchor) });
                Some(if here_wins { x } else { y })
            }
            // A removal has no clock, so what was written stays.
            (one, None) | (None, one) => *one,
        });
        if let Some(value) = value {
            wanted.insert((Table::DOCUMENTS, key.clone()), value.clone());
        }
        if let Some((loser, rows)) = loser {
            keep_twice(wanted, key, loser, rows.head().version, report);
        }
        if value != here {
            changes.push(Change::Document(kind_of(key)));
        }
    }
    Ok(changes)
}

fn kind_of(key: &[u8]) -> String {
    let kind = key.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(kind).into_owned()
}

/// Whether the first is later; equal clocks: the greater bytes.
fn wins(x: &Bytes, y: &Bytes) -> bool {
    let changed = |value: &Bytes| Document::decode(value).map(|document| document.changed).unwrap_or_default();
    (changed(x), x) > (changed(y), y)
}

fn keep_twice(wanted: &mut Wanted, key: &[u8], loser: &Bytes, version: Version, report: &mut MergeReport) {
    let version = version.to_string();
    let suffix = format!(" (conflict {})", version.get(..8).unwrap_or_default());
    let mut conflict = key.to_vec();
    conflict.extend(suffix.as_bytes());
    wanted.insert((Table::DOCUMENTS, conflict), loser.clone());
    report.kept_twice += 1;
    report.conflicts.push(format!("document {} was changed on both sides: both are kept", kind_of(key)));
}

/// Union of the outcomes, less what either side knows as settled; settled marks: the greater.
pub(super) fn outcomes(wanted: &mut Wanted, three: Three<'_>) -> Result<(), Damaged> {
    let mut settled = values(three.anchor, Table::SETTLED)?;
    for (key, value) in values(three.guest, Table::SETTLED)? {
        let here = settled.get(&key).map(|value| Settled::decode(value)).transpose()?.unwrap_or_default();
        if Settled::decode(&value)? > here {
            settled.insert(key, value);
        }
    }
    let mut all = values(three.guest, Table::OUTCOMES)?;
    all.extend(values(three.anchor, Table::OUTCOMES)?);
    for (key, value) in all {
        let id = CommandId::from_bytes(&key).ok_or_else(|| damaged("outcome", "key"))?;
        let mark = settled.get(&settled_key(id.origin)[..]).map(|value| Settled::decode(value)).transpose()?;
        let is_settled = mark.is_some_and(|mark| Settled { boot: id.boot, counter: id.counter } <= mark);
        if id.recipient != 0 || !is_settled {
            wanted.insert((Table::OUTCOMES, key), value);
        }
    }
    wanted.extend(settled.into_iter().map(|(key, value)| ((Table::SETTLED, key), value)));
    Ok(())
}

/// Union of what was expunged, for ever; a placement both expunged has one row whoever merges. What only one side knew as
/// expunged is news to the other's clients, so it carries the stamp.
pub(super) fn expunged(wanted: &mut Wanted, sides: &Sides, stamp: ModSeq) {
    let rank = |gone: &Expunged| (gone.modseq, gone.mailbox, gone.uid);
    let (a, g) = (&sides.anchor.expunged, &sides.guest.expunged);
    let ids: BTreeSet<&PlacementId> = a.keys().chain(g.keys()).collect();
    for id in ids {
        let gone = match (a.get(id), g.get(id)) {
            (Some(here), Some(there)) => *if rank(there) > rank(here) { there } else { here },
            (Some(one), None) | (None, Some(one)) => Expunged { modseq: stamp, ..*one },
            (None, None) => continue,
        };
        wanted.insert((Table::EXPUNGED, id.to_bytes().to_vec()), gone.encode(*id));
    }
}

/// Branches of either side, and a new one: clients of both can go on from the states they have (M11).
pub(super) fn branches(wanted: &mut Wanted, three: Three<'_>, stamp: ModSeq) -> Result<(), Damaged> {
    let all = crate::state::merged_branches(three.anchor, three.guest, stamp)?;
    wanted.extend(all.into_iter().map(|(key, value)| ((Table::BRANCHES, key), value)));
    Ok(())
}

/// Recovery rows per key three-way: restored or forgotten on one side is so on both.
pub(super) fn recovery(wanted: &mut Wanted, three: Three<'_>) -> Result<(), Damaged> {
    let base = three.base.map(|rows| values(rows, Table::RECOVERY)).transpose()?;
    let (a, g) = (values(three.anchor, Table::RECOVERY)?, values(three.guest, Table::RECOVERY)?);
    for key in a.keys().chain(g.keys()).collect::<BTreeSet<_>>() {
        let was = base.as_ref().map(|base| base.get(key));
        if let Some(value) = three_way(was.as_ref(), &a.get(key), &g.get(key), |x, y| x.or(*y)) {
            wanted.insert((Table::RECOVERY, key.clone()), value.clone());
        }
    }
    Ok(())
}
