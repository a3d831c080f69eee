//! EXPUNGE, UID EXPUNGE, CLOSE (RFC 3501 §6.4.2, §6.4.3, RFC 4315 §2.1).

use std::collections::BTreeSet;

use mailbox::op::{AccountOp, Outcome};
use mailbox::read;
use vocab::{Damaged, Rows, SystemFlag};

use super::{ImapSession, Pending, refusal};
use crate::codec::sequence::{SequenceSet, contains};

const fn verb(closing: bool) -> &'static str {
    if closing { "CLOSE" } else { "EXPUNGE" }
}

impl ImapSession {
    pub(super) fn expunge(
        &mut self,
        tag: String,
        set: Option<&SequenceSet>,
        closing: bool,
        rows: &dyn Rows,
    ) -> Result<(), Damaged> {
        let Some(selected) = &self.selected else { return Ok(()) };
        let mailbox = selected.mailbox;
        let largest = selected.view.uids(0, usize::MAX).last().copied().unwrap_or(0);
        let ranges = set.map(|set| set.resolve(largest));
        let wanted = |uid: u32| ranges.as_ref().is_none_or(|ranges| contains(ranges, uid));
        let deleted = read::mailbox(rows, mailbox)?.map_or(0, |m| m.counts.deleted);
        let mut placements = Vec::new();
        if deleted > 0 {
            // Only what this client has seen: a message it does not know is not its to expunge.
            for row in read::uids(rows, mailbox)? {
                let known = selected.view.position(row.uid).is_some();
                if known && row.flags.has(SystemFlag::Deleted) && wanted(row.uid.0) {
                    placements.push(row.id);
                }
            }
        }
        if placements.is_empty() {
            self.on_expunged(&tag, closing, &Outcome::Done);
            return Ok(());
        }
        self.submit(AccountOp::Expunge { mailbox, placements, only_deleted: true }, Pending::Expunged { tag, closing });
        Ok(())
    }

    pub(super) fn on_expunged(&mut self, tag: &str, closing: bool, outcome: &Outcome) {
        if let Outcome::Refused(refused) = outcome {
            return self.finish(tag, &refusal::text_of(refused, "NONEXISTENT"));
        }
        if closing {
            self.selected = None;
            return self.finish(tag, "OK CLOSE completed");
        }
        let mut code = String::new();
        if let (Outcome::Expunged { uids, modseq }, Some(selected)) = (outcome, self.selected.as_deref_mut()) {
            let gone: BTreeSet<u32> = uids.iter().map(|uid| uid.0).collect();
            selected.view.expunge(&gone, &mut self.said);
            if self.condstore {
                code = format!("[HIGHESTMODSEQ {}] ", modseq.0);
            }
        }
        self.finish(tag, &format!("OK {code}{} completed", verb(closing)));
    }
}
