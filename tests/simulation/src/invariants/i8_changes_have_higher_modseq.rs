//! I8: a message whose flags differ from what a client was told at modseq x has MODSEQ above x.

use super::{Invariant, Reading, Verdict};

pub(crate) struct Changes;

impl Invariant for Changes {
    fn name(&self) -> &'static str {
        "I8"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let mailbox = &shown.mailbox;
            let same = |c: &&super::Cached| c.validity == mailbox.uid_validity.0;
            let Some(before) = reading.before.get(&mailbox.name).filter(same) else { continue };
            for placement in &shown.placements {
                let Some((_, flags)) = before.messages.get(&placement.uid) else { continue };
                if *flags != placement.flags && placement.modseq.0 <= before.modseq {
                    return Err(format!(
                        "account {} {}: UID {} changed its flags at MODSEQ {}, the client knew {}",
                        reading.account.0, mailbox.name, placement.uid.0, placement.modseq.0, before.modseq
                    ));
                }
            }
        }
        Ok(())
    }
}
