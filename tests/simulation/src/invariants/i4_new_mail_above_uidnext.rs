//! I4: a message not yet told to a client has a UID at or above every UIDNEXT told to it, and below the present one.

use super::{Invariant, Reading, Verdict};

pub(crate) struct NewMail;

impl Invariant for NewMail {
    fn name(&self) -> &'static str {
        "I4"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let mailbox = &shown.mailbox;
            let before = reading.before.get(&mailbox.name).filter(|c| c.validity == mailbox.uid_validity.0);
            for placement in &shown.placements {
                let new = before.is_some_and(|c| !c.messages.contains_key(&placement.uid));
                let below = before.is_some_and(|c| placement.uid.0 < c.uid_next);
                if (new && below) || placement.uid >= mailbox.uid_next {
                    let (name, node) = (&mailbox.name, reading.view.node + 1);
                    return Err(format!(
                        "account {} {name}: new UID {} at node {node}, UIDNEXT was {:?} and is {}",
                        reading.account.0,
                        placement.uid.0,
                        before.map(|c| c.uid_next),
                        mailbox.uid_next.0
                    ));
                }
            }
        }
        Ok(())
    }
}
