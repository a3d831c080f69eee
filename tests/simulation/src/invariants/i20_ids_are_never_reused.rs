//! I20: the ids of messages and mailboxes are never given to others, a message keeps its thread, and a role has one
//! mailbox at most.

use std::collections::{BTreeMap, BTreeSet};

use mime::ThreadId;
use vocab::{AccountId, BlobHash, MailboxId, PlacementId};

use super::{Invariant, JmapReading, Reading, Told, Verdict, name_of};

#[derive(Default)]
pub(crate) struct Ids {
    emails: BTreeMap<(AccountId, PlacementId), (BlobHash, ThreadId)>,
    /// Ids that CREATE gave.
    mailboxes: BTreeMap<MailboxId, AccountId>,
}

impl Invariant for Ids {
    fn name(&self) -> &'static str {
        "I20"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        let Told::Created { account, mailbox, .. } = told else { return Ok(()) };
        match self.mailboxes.insert(*mailbox, *account) {
            Some(_) => Err(format!("account {}: the mailbox id {mailbox} was given twice", account.0)),
            None => Ok(()),
        }
    }
    fn on_emails(&mut self, reading: &JmapReading<'_>) -> Verdict {
        for (email, is) in reading.identities {
            if *self.emails.entry((reading.account, *email)).or_insert(*is) != *is {
                let (account, id) = (reading.account.0, name_of(email.command));
                return Err(format!("account {account}: the id {id} names another content or thread"));
            }
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        let mut roles = BTreeSet::new();
        for mailbox in reading.mailboxes.iter().map(|shown| &shown.mailbox) {
            let (account, name) = (reading.account, &mailbox.name);
            if mailbox.role.is_some_and(|role| !roles.insert(role)) {
                return Err(format!("account {}: {name} has a role that another has, too", account.0));
            }
            if self.mailboxes.get(&mailbox.id).is_some_and(|of| *of != account) {
                return Err(format!("account {}: {name} has an id of another account", account.0));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::View;
    use crate::invariants::tests::{Scene, blob, id};

    #[test]
    fn an_id_given_twice_a_role_had_twice_and_another_thread_are_noticed() {
        let (mut check, mut scene) = (Ids::default(), Scene::new(&[]));
        let mailbox = scene.shown[0].mailbox.id;
        let told = Told::Created { account: scene.account, mailbox, name: String::new(), side: None };
        assert_eq!((check.on_told(&told), check.on_told(&told).is_err()), (Ok(()), true));
        assert_eq!(scene.read(&mut check), Ok(()));
        let twice = scene.shown[0].clone();
        scene.shown.push(twice);
        assert!(scene.read(&mut check).is_err());
        for (thread, fine) in [(1, true), (1, true), (2, false)] {
            let identities = BTreeMap::from([(id(1), (blob(1), ThreadId([thread; 16])))]);
            let reading = JmapReading {
                account: scene.account,
                view: View { node: 0, side: None, excused: false, heard_out: None, elsewhere: None },
                followed: &BTreeMap::new(),
                truth: &BTreeMap::new(),
                identities: &identities,
            };
            assert_eq!(check.on_emails(&reading).is_ok(), fine);
        }
    }
}
