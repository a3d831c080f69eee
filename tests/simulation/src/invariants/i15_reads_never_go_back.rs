//! I15: whoever looks, wherever, is shown at least what anybody was shown before: the account's modseq never falls, and a
//! mailbox stays until somebody asks for its end.

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountId, MailboxId};

use super::{Highest, Invariant, NamesOf, Reading, Told, Verdict, keep};

#[derive(Default)]
pub(crate) struct Monotonic {
    modseq: Highest<AccountId>,
    /// With the name it was shown under.
    mailboxes: BTreeMap<AccountId, BTreeMap<(MailboxId, String), Option<usize>>>,
    /// May be deleted.
    ending: BTreeSet<(AccountId, MailboxId)>,
    names: NamesOf,
    /// Names that may come to an end: the mailbox lives under one of another that took its mail (M4).
    ending_names: BTreeSet<(AccountId, String)>,
}

impl Invariant for Monotonic {
    fn name(&self) -> &'static str {
        "I15"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        self.names.told(told);
        // One of two of a name is left (M4).
        if let Told::Reshaped { account, gone, .. } = told {
            self.ending.extend(gone.iter().map(|id| (*account, *id)));
        }
        if let Told::EmptyAsked { account, mailbox } = told {
            self.ending.insert((*account, *mailbox));
        }
        if let Told::EmptyAsked { account, mailbox } | Told::RenameAsked { account, mailbox } = told {
            self.ending_names.extend(self.names.of(*account, *mailbox));
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        self.names.read(reading);
        self.modseq.tell(&reading.view, reading.account, reading.modseq)?;
        let all = self.mailboxes.entry(reading.account).or_default();
        let ids: BTreeSet<MailboxId> = reading.mailboxes.iter().map(|shown| shown.mailbox.id).collect();
        let names: BTreeSet<&str> = reading.mailboxes.iter().map(|shown| &shown.mailbox.name[..]).collect();
        for ((id, name), side) in all.iter() {
            // One that both sides created lives on under its name.
            let ended = self.ending.contains(&(reading.account, *id));
            let there = ids.contains(id) || names.contains(&name[..]) || ended;
            let there = there || self.ending_names.contains(&(reading.account, name.clone()));
            if !there && reading.view.must_know(*side) {
                let (account, node) = (reading.account.0, reading.view.node + 1);
                return Err(format!("account {account}: {name} ({id}) was shown, and is not at node {node}"));
            }
        }
        for mailbox in reading.mailboxes.iter().map(|shown| &shown.mailbox) {
            if mailbox.role.is_none() {
                keep(all, (mailbox.id, mailbox.name.clone()), reading.view.side);
            }
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.modseq.join();
        self.mailboxes.values_mut().flat_map(BTreeMap::values_mut).for_each(|side| *side = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::Scene;

    #[test]
    fn an_older_state_and_a_mailbox_that_is_missing_are_noticed() {
        let (mut check, mut scene) = (Monotonic::default(), Scene::new(&[1]));
        scene.modseq = 7;
        scene.shown[0].mailbox.role = None;
        assert_eq!(scene.read(&mut check), Ok(()));
        scene.modseq = 6;
        assert!(scene.read(&mut check).is_err());
        scene.modseq = 8;
        let mailbox = scene.shown.remove(0).mailbox.id;
        assert!(scene.read(&mut check).is_err());
        assert_eq!(check.on_told(&Told::EmptyAsked { account: scene.account, mailbox }), Ok(()));
        assert_eq!(scene.read(&mut check), Ok(()));
    }
}
