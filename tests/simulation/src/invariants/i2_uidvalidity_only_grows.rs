//! I2: the UIDVALIDITY told for a name never decreases, whichever mailboxes have the name one after the other.

use vocab::AccountId;

use super::{Highest, Invariant, Reading, Verdict};

#[derive(Default)]
pub(crate) struct Validity(Highest<(AccountId, String)>);

impl Invariant for Validity {
    fn name(&self) -> &'static str {
        "I2"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for mailbox in reading.mailboxes.iter().map(|shown| &shown.mailbox) {
            let key = (reading.account, mailbox.name.clone());
            self.0.tell(&reading.view, key, u64::from(mailbox.uid_validity.0))?;
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.0.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::Scene;

    #[test]
    fn a_lower_value_is_noticed_whichever_mailbox_has_it() {
        let (mut check, mut scene) = (Validity::default(), Scene::new(&[]));
        assert_eq!(scene.read(&mut check), Ok(()));
        scene.shown[0].mailbox.id.counter += 1;
        scene.shown[0].mailbox.uid_validity.0 += 1;
        assert_eq!(scene.read(&mut check), Ok(()));
        scene.shown[0].mailbox.uid_validity.0 -= 1;
        assert!(scene.read(&mut check).is_err());
        // Another name was told nothing.
        scene.shown[0].mailbox.name.push('x');
        assert_eq!(scene.read(&mut check), Ok(()));
    }
}
