//! I7: HIGHESTMODSEQ never decreases for a name and UIDVALIDITY.

use super::{Highest, Invariant, Numbered, Reading, Verdict, numbered};

#[derive(Default)]
pub(crate) struct HighestModSeq(Highest<Numbered>);

impl Invariant for HighestModSeq {
    fn name(&self) -> &'static str {
        "I7"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        reading
            .mailboxes
            .iter()
            .map(|shown| &shown.mailbox)
            .try_for_each(|mailbox| self.0.tell(&reading.view, numbered(reading.account, mailbox), mailbox.modseq.0))
    }
    fn on_joint(&mut self) {
        self.0.join();
    }
}
