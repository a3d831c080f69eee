//! I14: an EMAILID names one content and one THREADID for ever, a message keeps it, and so do its copies.

use std::collections::BTreeMap;

use mime::ThreadId;
use vocab::{AccountId, BlobHash, PlacementId};

use super::{Invariant, Reading, Told, Verdict, name_of};

#[derive(Default)]
pub(crate) struct Identity {
    emails: BTreeMap<(AccountId, PlacementId), (BlobHash, ThreadId)>,
    placements: BTreeMap<(AccountId, PlacementId), PlacementId>,
    /// Placements by the one they were copied from.
    copies: BTreeMap<(AccountId, PlacementId), PlacementId>,
}

impl Invariant for Identity {
    fn name(&self) -> &'static str {
        "I14"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        if let Told::Copied { account, from, to } = told {
            self.copies.insert((*account, *to), *from);
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        let account = reading.account;
        for placement in reading.mailboxes.iter().flat_map(|shown| &shown.placements) {
            let is = (placement.blob, placement.thread);
            let known = *self.emails.entry((account, placement.email)).or_insert(is);
            let wrong = |what: &str| {
                let (account, id) = (account.0, name_of(placement.id.command));
                Err(format!("account {account}: the message of {id} has another {what} than before"))
            };
            if known != is {
                return wrong("content or THREADID");
            }
            if *self.placements.entry((account, placement.id)).or_insert(placement.email) != placement.email {
                return wrong("EMAILID");
            }
            let from = self.copies.get(&(account, placement.id));
            let source = from.and_then(|from| self.placements.get(&(account, *from)));
            if source.is_some_and(|email| *email != placement.email) {
                return wrong("EMAILID than what it was copied from, or");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::{Scene, blob};

    #[test]
    fn another_content_thread_or_emailid_is_noticed() {
        let changes: [fn(&mut Scene); 3] = [
            |scene| scene.shown[0].placements[0].blob = blob(9),
            |scene| scene.shown[0].placements[0].thread = ThreadId([9; 16]),
            |scene| scene.shown[0].placements[0].email.index += 1,
        ];
        for change in changes {
            let (mut check, mut scene) = (Identity::default(), Scene::new(&[1]));
            assert_eq!(scene.read(&mut check), Ok(()));
            change(&mut scene);
            assert!(scene.read(&mut check).is_err());
        }
    }

    #[test]
    fn a_copy_with_an_emailid_of_its_own_is_noticed() {
        let (mut check, scene) = (Identity::default(), Scene::new(&[1, 2]));
        let [from, to] = [0, 1].map(|at| scene.shown[0].placements[at].id);
        assert_eq!(check.on_told(&Told::Copied { account: scene.account, from, to }), Ok(()));
        assert!(scene.read(&mut check).is_err());
    }
}
