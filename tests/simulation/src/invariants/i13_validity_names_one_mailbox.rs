//! I13: a UIDVALIDITY of an account belongs to one MAILBOXID for ever, RENAME or not, and no two mailboxes share an id or
//! a name.

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountId, MailboxId};

use super::{Invariant, Reading, Verdict};

#[derive(Default)]
pub(crate) struct OneMailbox(BTreeMap<(AccountId, u32), MailboxId>);

impl Invariant for OneMailbox {
    fn name(&self) -> &'static str {
        "I13"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for mailbox in reading.mailboxes.iter().map(|shown| &shown.mailbox) {
            let (account, name, validity) = (reading.account, &mailbox.name, mailbox.uid_validity.0);
            if !ids.insert(mailbox.id) || !names.insert(name) {
                return Err(format!("account {}: two mailboxes are {name} or {}", account.0, mailbox.id));
            }
            let known = *self.0.entry((account, validity)).or_insert(mailbox.id);
            if known != mailbox.id {
                let (account, id) = (account.0, mailbox.id);
                return Err(format!("account {account} {name}: UIDVALIDITY {validity} is of {id}, before of {known}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::Scene;

    #[test]
    fn another_mailbox_under_the_same_validity_is_noticed() {
        let mut check = OneMailbox::default();
        let mut scene = Scene::new(&[]);
        assert_eq!(scene.read(&mut check), Ok(()));
        scene.shown[0].mailbox.id.counter += 1;
        assert!(scene.read(&mut check).is_err());
        scene.shown[0].mailbox.uid_validity.0 += 1;
        assert_eq!(scene.read(&mut check), Ok(()));
        let twice = scene.shown[0].clone();
        scene.shown.push(twice);
        assert!(scene.read(&mut check).is_err());
    }
}
