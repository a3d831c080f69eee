//! I9: VANISHED (EARLIER) names every known UID that is gone, and none that is there.

use std::collections::BTreeSet;

use vocab::Uid;

use super::{Invariant, Reading, Verdict};

pub(crate) struct Vanished;

impl Invariant for Vanished {
    fn name(&self) -> &'static str {
        "I9"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let name = &shown.mailbox.name;
            let (Some(gone), Some(before)) = (reading.vanished.get(name), reading.before.get(name)) else { continue };
            let present: BTreeSet<Uid> = shown.placements.iter().map(|placement| placement.uid).collect();
            if let Some(uid) = gone.iter().find(|uid| present.contains(uid)) {
                return Err(format!("account {} {name}: UID {} vanished and is there", reading.account.0, uid.0));
            }
            let left_out = |uid: &&Uid| !present.contains(*uid) && !gone.contains(*uid);
            if let Some(uid) = before.messages.keys().find(left_out) {
                return Err(format!("account {} {name}: UID {} is gone and was not named", reading.account.0, uid.0));
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
    fn a_uid_too_few_or_too_many_is_noticed() {
        for (gone, fine) in [(vec![], false), (vec![2], true), (vec![1, 2], false)] {
            let mut scene = Scene::new(&[1, 3]);
            scene.knew(&[1, 2]);
            scene.vanished.insert("INBOX".to_owned(), gone.iter().map(|uid| Uid(*uid)).collect());
            assert_eq!(scene.read(&mut Vanished).is_ok(), fine, "{gone:?}");
        }
    }
}
