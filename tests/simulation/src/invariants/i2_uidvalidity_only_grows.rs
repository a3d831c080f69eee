//! I2: the UIDVALIDITY told for a name never decreases.

use vocab::AccountId;

use super::{Highest, Invariant, Reading, Verdict};

#[derive(Default)]
pub(crate) struct Validity(Highest<(AccountId, String)>);

impl Invariant for Validity {
    fn name(&self) -> &'static str {
        "I2"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        reading.mailboxes.iter().map(|shown| &shown.mailbox).try_for_each(|mailbox| {
            let key = (reading.account, mailbox.name.clone());
            self.0.tell(&reading.view, key, u64::from(mailbox.uid_validity.0))
        })
    }
    fn on_joint(&mut self) {
        self.0.join();
    }
}
