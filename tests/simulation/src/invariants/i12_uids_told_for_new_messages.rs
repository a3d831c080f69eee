//! I12: a UID told by APPENDUID or COPYUID names that content, or nothing any more.

use std::collections::BTreeMap;

use vocab::{AccountId, BlobHash, MailboxId, Uid};

use super::{Invariant, Reading, Told, Verdict};

#[derive(Default)]
pub(crate) struct ToldUids(BTreeMap<(AccountId, MailboxId, u32), BTreeMap<Uid, BlobHash>>);

impl Invariant for ToldUids {
    fn name(&self) -> &'static str {
        "I12"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        let Told::Named { account, mailbox, validity, uid, blob } = told else { return Ok(()) };
        let uids = self.0.entry((*account, *mailbox, *validity)).or_default();
        let known = *uids.entry(*uid).or_insert(*blob);
        if known != *blob {
            return Err(format!("account {}: UID {} was told for {known} and for {blob}", account.0, uid.0));
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let mailbox = &shown.mailbox;
            let Some(told) = self.0.get(&(reading.account, mailbox.id, mailbox.uid_validity.0)) else { continue };
            for placement in &shown.placements {
                if told.get(&placement.uid).is_some_and(|blob| *blob != placement.blob) {
                    let (account, uid) = (reading.account.0, placement.uid.0);
                    let name = &mailbox.name;
                    return Err(format!("account {account} {name}: UID {uid} was told for another content"));
                }
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
    fn a_told_uid_with_another_content_is_noticed() {
        for (content, fine) in [(1, true), (2, false)] {
            let scene = Scene::new(&[1]);
            let mut check = ToldUids::default();
            let told = Told::Named {
                account: scene.account,
                mailbox: scene.shown[0].mailbox.id,
                validity: scene.shown[0].mailbox.uid_validity.0,
                uid: Uid(1),
                blob: blob(content),
            };
            assert_eq!(check.on_told(&told), Ok(()));
            assert_eq!(scene.read(&mut check).is_ok(), fine);
        }
    }
}
