//! I3: the UIDNEXT told for a name and UIDVALIDITY never decreases.

use super::{Highest, Invariant, Numbered, Reading, Verdict, numbered};

#[derive(Default)]
pub(crate) struct UidNext(Highest<Numbered>);

impl Invariant for UidNext {
    fn name(&self) -> &'static str {
        "I3"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        reading.mailboxes.iter().map(|shown| &shown.mailbox).try_for_each(|mailbox| {
            self.0.tell(&reading.view, numbered(reading.account, mailbox), u64::from(mailbox.uid_next.0))
        })
    }
    fn on_joint(&mut self) {
        self.0.join();
    }
}
