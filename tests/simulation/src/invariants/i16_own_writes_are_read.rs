//! I16: what was acknowledged is in every later read, on every node: new messages, flags at their modseq, mailboxes that
//! were created, deleted and renamed.

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountId, MailboxId, PlacementId};

use super::{Highest, Invariant, NamesOf, Reading, Told, Verdict, keep, name_of};

type Facts<K> = BTreeMap<AccountId, BTreeMap<K, Option<usize>>>;

/// Merges one mailbox goes through that are followed.
const UNITED_MAX: usize = 16;

#[derive(Default)]
pub(crate) struct OwnWrites {
    wrote: Facts<(PlacementId, MailboxId)>,
    flagged: Highest<(AccountId, PlacementId)>,
    created: Facts<(MailboxId, String)>,
    deleted: Facts<MailboxId>,
    renamed: Facts<(MailboxId, String)>,
    removing: BTreeSet<(AccountId, PlacementId)>,
    emptying: BTreeSet<(AccountId, MailboxId)>,
    /// Mailboxes that are part of another one since a merge.
    united: BTreeMap<(AccountId, MailboxId), MailboxId>,
    names: NamesOf,
    ending_names: BTreeSet<(AccountId, String)>,
    /// How often a mailbox was to be renamed.
    renames: BTreeMap<(AccountId, MailboxId), u32>,
    merges: BTreeMap<AccountId, u32>,
    /// Merges of the account before the mailbox was first to be deleted or renamed: the answer may be that of a repetition,
    /// and what the command did was merged meanwhile.
    asked: BTreeMap<(AccountId, MailboxId), u32>,
}

impl OwnWrites {
    fn is_older_than_a_merge(&self, account: AccountId, mailbox: MailboxId) -> bool {
        let merges = self.merges.get(&account).copied().unwrap_or(0);
        self.asked.get(&(account, mailbox)).is_some_and(|before| *before < merges)
    }

    /// Whether all that was in this mailbox may be gone: it, or the one it has become part of, was to be deleted.
    fn may_be_emptied(&self, account: AccountId, mailbox: MailboxId) -> bool {
        let next = |at: &MailboxId| self.united.get(&(account, *at)).copied();
        // Later merges may unite them the other way round.
        std::iter::successors(Some(mailbox), next).take(UNITED_MAX).any(|at| self.emptying.contains(&(account, at)))
    }

    fn missing(&self, reading: &Reading<'_>) -> Option<String> {
        let account = reading.account;
        let ids: BTreeSet<PlacementId> =
            reading.mailboxes.iter().flat_map(|shown| &shown.placements).map(|placement| placement.id).collect();
        let must = |side: &Option<usize>| reading.view.must_know(*side);
        for ((id, mailbox), side) in self.wrote.get(&account).into_iter().flatten() {
            let may_be_gone = self.removing.contains(&(account, *id)) || self.may_be_emptied(account, *mailbox);
            if must(side) && !may_be_gone && !ids.contains(id) {
                return Some(format!("the message of {} is missing", name_of(id.command)));
            }
        }
        let names: BTreeMap<MailboxId, &str> =
            reading.mailboxes.iter().map(|shown| (shown.mailbox.id, &shown.mailbox.name[..])).collect();
        for ((id, name), side) in self.created.get(&account).into_iter().flatten() {
            // One that both sides created lives on under its name.
            let there = names.contains_key(id) || names.values().any(|other| other == name);
            let ended = self.emptying.contains(&(account, *id)) || self.ending_names.contains(&(account, name.clone()));
            if must(side) && !there && !ended {
                return Some(format!("the new mailbox {name} is missing"));
            }
        }
        for (id, side) in self.deleted.get(&account).into_iter().flatten() {
            // Mail that the other side of a split added keeps it (M3), and then it is there again for good.
            if must(side) && names.contains_key(id) && side.is_some() {
                return Some(format!("the deleted mailbox {id} is there"));
            }
        }
        for ((id, to), side) in self.renamed.get(&account).into_iter().flatten() {
            // Below another one it is renamed with that, too.
            let ending = self.emptying.contains(&(account, *id));
            let once = self.renames.get(&(account, *id)) == Some(&1) && !to.contains('/') && !ending;
            let conflict = |name: &str| name == to || name.starts_with(&format!("{to} (conflict"));
            if must(side) && once && names.get(id).is_some_and(|name| !conflict(name)) {
                return Some(format!("the mailbox renamed to {to} is {:?}", names.get(id)));
            }
        }
        None
    }
}

impl Invariant for OwnWrites {
    fn name(&self) -> &'static str {
        "I16"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        self.names.told(told);
        if let Told::EmptyAsked { account, mailbox } | Told::RenameAsked { account, mailbox } = told {
            self.ending_names.extend(self.names.of(*account, *mailbox));
            let merges = self.merges.get(account).copied().unwrap_or(0);
            self.asked.entry((*account, *mailbox)).or_insert(merges);
        }
        match told {
            Told::Wrote { account, mailbox, id, side } => {
                keep(self.wrote.entry(*account).or_default(), (*id, *mailbox), *side);
            }
            Told::Flagged { account, id, modseq, side } => self.flagged.note(*side, (*account, *id), modseq.0),
            Told::Created { account, mailbox, name, side } => {
                keep(self.created.entry(*account).or_default(), (*mailbox, name.clone()), *side);
            }
            Told::Deleted { account, mailbox, .. } | Told::Renamed { account, mailbox, .. }
                if self.is_older_than_a_merge(*account, *mailbox) => {}
            Told::Deleted { account, mailbox, side } => {
                keep(self.deleted.entry(*account).or_default(), *mailbox, *side);
            }
            Told::Renamed { account, mailbox, to, side } => {
                keep(self.renamed.entry(*account).or_default(), (*mailbox, to.clone()), *side);
            }
            Told::RenameAsked { account, mailbox } => {
                *self.renames.entry((*account, *mailbox)).or_default() += 1;
            }
            Told::Merged { account, blind } => {
                *self.merges.entry(*account).or_default() += 1;
                self.deleted.remove(account);
                if *blind {
                    self.renamed.remove(account);
                }
            }
            Told::Reshaped { account, back, gone, united } => {
                self.united.extend(united.iter().map(|(from, to)| ((*account, *from), *to)));
                // M3, M12: what the other side has, or added to, is back. M4: one of two of a name is left.
                if let Some(deleted) = self.deleted.get_mut(account) {
                    deleted.retain(|id, _| !back.contains(id));
                }
                if let Some(renamed) = self.renamed.get_mut(account) {
                    renamed.retain(|(id, _), _| !back.contains(id));
                }
                if let Some(created) = self.created.get_mut(account) {
                    created.retain(|(id, _), _| !gone.contains(id));
                }
            }
            Told::RemovalAsked { account, placements } => {
                self.removing.extend(placements.iter().map(|id| (*account, *id)));
            }
            Told::EmptyAsked { account, mailbox } => drop(self.emptying.insert((*account, *mailbox))),
            _ => {}
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        let (account, node) = (reading.account, reading.view.node + 1);
        self.names.read(reading);
        if let Some(what) = self.missing(reading) {
            return Err(format!("account {}: {what} at node {node}", account.0));
        }
        for placement in reading.mailboxes.iter().flat_map(|shown| &shown.placements) {
            let key = (account, placement.id);
            if self.flagged.has(&key) {
                self.flagged.tell(&reading.view, key, placement.modseq.0)?;
            }
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        fn join<K>(facts: &mut Facts<K>) {
            facts.values_mut().flat_map(BTreeMap::values_mut).for_each(|side| *side = None);
        }
        join(&mut self.wrote);
        join(&mut self.created);
        join(&mut self.deleted);
        join(&mut self.renamed);
        self.flagged.join();
    }
}

#[cfg(test)]
mod tests {
    use vocab::ModSeq;

    use super::*;
    use crate::invariants::tests::Scene;

    #[test]
    fn a_message_flags_and_a_name_that_are_not_read_back_are_noticed() {
        let scene = Scene::new(&[1]);
        let (account, mailbox) = (scene.account, scene.shown[0].mailbox.id);
        let id = scene.shown[0].placements[0].id;
        let other = PlacementId { index: 99, ..id };
        let modseq = |by| ModSeq(scene.shown[0].placements[0].modseq.0 + by);
        let facts = [
            (Told::Wrote { account, mailbox, id, side: None }, true),
            (Told::Wrote { account, mailbox, id: other, side: None }, false),
            (Told::Flagged { account, id, modseq: modseq(0), side: None }, true),
            (Told::Flagged { account, id, modseq: modseq(1), side: None }, false),
            (Told::Deleted { account, mailbox, side: Some(0) }, false),
        ];
        for (told, fine) in facts {
            let mut check = OwnWrites::default();
            assert_eq!(check.on_told(&told), Ok(()));
            assert_eq!(scene.read(&mut check).is_ok(), fine, "{told:?}");
        }
        for (to, fine) in [("INBOX", true), ("Other", false)] {
            let mut check = OwnWrites::default();
            let to = to.to_owned();
            assert_eq!(check.on_told(&Told::RenameAsked { account, mailbox }), Ok(()));
            assert_eq!(check.on_told(&Told::Renamed { account, mailbox, to, side: None }), Ok(()));
            assert_eq!(scene.read(&mut check).is_ok(), fine);
        }
    }
}
