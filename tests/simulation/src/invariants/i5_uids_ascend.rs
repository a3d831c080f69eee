//! I5: UIDs ascend with sequence numbers in every view, and MODSEQs stay at or below HIGHESTMODSEQ.

use super::{Invariant, Reading, Verdict};

pub(crate) struct Ascend;

impl Invariant for Ascend {
    fn name(&self) -> &'static str {
        "I5"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let name = &shown.mailbox.name;
            if !shown.placements.windows(2).all(|pair| pair[0].uid < pair[1].uid) {
                return Err(format!("account {} {name}: UIDs do not ascend", reading.account.0));
            }
            if shown.placements.iter().any(|placement| placement.modseq > shown.mailbox.modseq) {
                return Err(format!("account {} {name}: a MODSEQ above HIGHESTMODSEQ", reading.account.0));
            }
        }
        Ok(())
    }
}
