//! Which UID each message has (rule W, DESIGN 7).

use std::collections::{BTreeMap, BTreeSet};

use vocab::{MailboxId, PlacementId, Uid};

use super::placements::{Kept, Union};
use super::side::{Side, Sides};
use super::tree::{Planned, Tree};
use super::{Numbering, Rules};

/// The numbers of the result.
#[derive(Default)]
pub(super) struct Numbered {
    pub uids: BTreeMap<PlacementId, (MailboxId, Uid)>,
    pub uid_next: BTreeMap<MailboxId, Uid>,
}

/// `None` when a number would be given twice, or numbers run out: then UIDVALIDITY must be raised.
pub(super) fn number(sides: &Sides, union: &Union, tree: &Tree, rules: Rules) -> Option<Numbered> {
    let mut by_mailbox: BTreeMap<MailboxId, Vec<&Kept>> = tree.mailboxes.keys().map(|id| (*id, Vec::new())).collect();
    for kept in union.kept.values() {
        by_mailbox.get_mut(&tree.target(kept.mailbox))?.push(kept);
    }
    let mut numbered = Numbered::default();
    for (id, kept) in by_mailbox {
        let planned = tree.mailboxes.get(&id)?;
        number_mailbox(sides, planned, kept, rules, &mut numbered)?;
    }
    Some(numbered)
}

fn number_mailbox(
    sides: &Sides,
    planned: &Planned,
    kept: Vec<&Kept>,
    rules: Rules,
    numbered: &mut Numbered,
) -> Option<()> {
    let id = planned.mailbox.id;
    let counting = counting_sides(sides, id);
    let voters = voters(sides, &counting);
    let first = |side: &&Side| side.mailboxes.get(&id).map(|mailbox| mailbox.uid_next);
    let mut next = sides.above.uid(counting.iter().filter_map(first).max().unwrap_or(Uid(1)));
    if planned.from_one {
        next = Uid(1);
    }
    let (mut taken, mut new) = (BTreeSet::new(), Vec::new());
    for kept in kept {
        let placement = kept.placement.id;
        let keeps = match (planned.from_one, rules.numbering) {
            (true, _) => None,
            (false, Numbering::RuleW) => agreed(&voters, id, placement),
            (false, wrong) => kept_wrongly(sides, wrong, &taken, (id, placement)),
        };
        match keeps {
            Some(uid) if uid < next && taken.insert(uid) => {
                numbered.uids.insert(placement, (id, uid));
            }
            Some(_) => return None,
            None => new.push((kept.placement.internal_date, placement)),
        }
    }
    new.sort();
    for (_, placement) in new {
        numbered.uids.insert(placement, (id, next));
        next = Uid(next.0.checked_add(1)?);
    }
    numbered.uid_next.insert(id, next);
    Some(())
}

/// The sides on which the mailbox has the UIDVALIDITY whose numbers stay.
fn counting_sides(sides: &Sides, id: MailboxId) -> Vec<&Side> {
    let greatest = sides.uid_validity(id);
    let counts = |side: &&Side| side.mailboxes.get(&id).is_some_and(|mailbox| mailbox.uid_validity == greatest);
    sides.both().into_iter().filter(counts).collect()
}

/// Those whose clients saw numbers. If nobody did, one side's numbers stay: the only one that has any (X24), the one that
/// changed, or the anchor's.
fn voters<'s>(sides: &'s Sides, counting: &[&'s Side]) -> Vec<&'s Side> {
    let served: Vec<_> = counting.iter().copied().filter(|side| side.served).collect();
    if !served.is_empty() {
        return served;
    }
    let changed = counting.iter().copied().find(|side| !sides.is_silent(side));
    changed.or_else(|| counting.first().copied()).into_iter().collect()
}

/// The UID that every voter gives to the message in this mailbox.
fn agreed(voters: &[&Side], mailbox: MailboxId, id: PlacementId) -> Option<Uid> {
    let place = voters.first()?.place(id).filter(|(there, _)| *there == mailbox)?;
    voters.iter().all(|side| side.place(id) == Some(place)).then_some(place.1)
}

/// Numbering as it must not be done.
fn kept_wrongly(
    sides: &Sides,
    numbering: Numbering,
    taken: &BTreeSet<Uid>,
    (mailbox, id): (MailboxId, PlacementId),
) -> Option<Uid> {
    let places = sides.both().map(|side| side.place(id).filter(|(there, _)| *there == mailbox).map(|(_, uid)| uid));
    if let [Some(a), Some(g)] = places
        && a == g
    {
        return Some(a);
    }
    if numbering == Numbering::AnchorFirst {
        return places.into_iter().flatten().find(|uid| !taken.contains(uid));
    }
    let [a, g] = sides.both();
    let (uid, other) = match places {
        [Some(uid), None] => (uid, g),
        [None, Some(uid)] => (uid, a),
        _ => return None,
    };
    let has = other.placed.values().any(|(there, placement)| *there == mailbox && placement.uid == uid);
    let had = other.expunged.values().any(|gone| gone.mailbox == mailbox && gone.uid == uid);
    let below = other.mailboxes.get(&mailbox).is_some_and(|m| uid < m.uid_next);
    let stays = match numbering {
        Numbering::Colliding => !has,
        Numbering::Unassigned => !has && !had,
        _ => !below,
    };
    (stays && !taken.contains(&uid)).then_some(uid)
}
