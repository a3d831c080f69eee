//! Which messages stay, and with which flags (M5, M6, X18, X20).

use std::collections::{BTreeMap, BTreeSet};

use vocab::{Flags, Keyword, MailboxId, PlacementId, SystemFlag};

use super::Rules;
use super::side::Sides;
use crate::rows::Placement;

/// A message that stays; its UID is given later.
pub(super) struct Kept {
    pub placement: Placement,
    /// The mailbox that has it; a pouring may move it on.
    pub mailbox: MailboxId,
}

/// A message that an expunge took although the other side changed it.
pub(super) struct Lost {
    pub placement: Placement,
    pub mailbox: MailboxId,
    /// Whether the anchor still had it.
    pub at_anchor: bool,
}

/// The union of both sides by placement id.
pub(super) struct Union {
    pub kept: BTreeMap<PlacementId, Kept>,
    pub lost: Vec<Lost>,
}

impl Union {
    pub(super) fn of(sides: &Sides, rules: Rules) -> Self {
        let mut union = Self { kept: BTreeMap::new(), lost: Vec::new() };
        let ids: BTreeSet<PlacementId> = sides.both().iter().flat_map(|side| side.placed.keys().copied()).collect();
        for id in ids {
            let base = sides.base.as_ref().and_then(|base| base.placed.get(&id));
            match (sides.anchor.placed.get(&id), sides.guest.placed.get(&id)) {
                (Some((here, a)), Some((there, g))) => {
                    let flags = merged_flags(base.map(|(_, p)| &p.flags), &a.flags, &g.flags);
                    let placement = Placement { flags, ..a.clone() };
                    union.kept.insert(id, Kept { placement, mailbox: *here.min(there) });
                }
                (Some(one), None) | (None, Some(one)) => union.one_sided(sides, base, one, rules),
                (None, None) => {}
            }
        }
        if !rules.by_placement {
            let mut contents = BTreeSet::new();
            union.kept.retain(|_, kept| contents.insert((kept.mailbox, kept.placement.blob)));
        }
        let live: BTreeSet<PlacementId> = union.kept.values().map(|kept| kept.placement.email).collect();
        // A message that lives on elsewhere (it was moved) needs no recovery.
        union.lost.retain(|lost| !live.contains(&lost.placement.email));
        union
    }

    fn one_sided(
        &mut self,
        sides: &Sides,
        base: Option<&(MailboxId, Placement)>,
        (mailbox, placement): &(MailboxId, Placement),
        rules: Rules,
    ) {
        let (mailbox, placement) = (*mailbox, placement.clone());
        let remembered = rules.remembers && sides.both().iter().any(|side| side.expunged.contains_key(&placement.id));
        if base.is_none() && !remembered {
            self.kept.insert(placement.id, Kept { placement, mailbox });
        } else if base.is_none_or(|(_, before)| before.flags != placement.flags) {
            let at_anchor = sides.anchor.placed.contains_key(&placement.id);
            self.lost.push(Lost { placement, mailbox, at_anchor });
        }
    }
}

/// Flags per bit: what one side changed counts. Without a base their union, `\Deleted` only if on both.
pub(super) fn merged_flags(base: Option<&Flags>, a: &Flags, g: &Flags) -> Flags {
    let Some(base) = base else {
        let mut flags = a.with(g);
        if !(a.has(SystemFlag::Deleted) && g.has(SystemFlag::Deleted)) {
            flags = flags.without(&Flags::of(&[SystemFlag::Deleted]));
        }
        return flags;
    };
    let changed = a.system ^ base.system;
    let system = (a.system & changed) | (g.system & !changed);
    let bit = |keyword: &&Keyword| {
        let (was, here, there) = (base, a, g);
        let [was, here, there] = [was, here, there].map(|flags| flags.keywords.contains(*keyword));
        if here == was { there } else { here }
    };
    let all: BTreeSet<&Keyword> = a.keywords.union(&g.keywords).collect();
    Flags { system, keywords: all.into_iter().filter(bit).cloned().collect() }
}
