//! COPY and MOVE (RFC 3501 §6.4.7, RFC 6851, RFC 4315 §3).

use std::collections::BTreeSet;

use mailbox::op::{AccountOp, Outcome};
use mailbox::read;
use vocab::{Damaged, Rows};

use super::{ImapSession, Pending, refusal};
use crate::codec::command::CopyCommand;
use crate::codec::sequence::write_set;

/// A COPY or MOVE on its way.
pub(super) struct CopyRun {
    pub(super) tag: String,
    moving: bool,
}

impl ImapSession {
    pub(super) fn copy(
        &mut self,
        tag: String,
        copy: &CopyCommand,
        moving: bool,
        rows: &dyn Rows,
    ) -> Result<(), Damaged> {
        let Some(selected) = &self.selected else { return Ok(()) };
        let from = selected.mailbox;
        let Some(target) = read::mailbox_by_name(rows, &copy.mailbox)? else {
            self.finish(&tag, "NO [TRYCREATE] no such mailbox");
            return Ok(());
        };
        let positions = selected.view.resolve(&copy.set, copy.by_uid);
        let (placements, _) = self.placements_at(&positions, rows)?;
        let run = CopyRun { tag, moving };
        if placements.is_empty() {
            // Quirk: gone already is done already.
            let verb = run.verb();
            self.finish_with_news(run.tag, format!("OK {verb} completed"));
            return Ok(());
        }
        let to = target.id;
        let op =
            if moving { AccountOp::Move { from, to, placements } } else { AccountOp::Copy { from, to, placements } };
        self.submit(op, Pending::Copied(Box::new(run)));
        Ok(())
    }

    pub(super) fn on_copied(&mut self, run: CopyRun, outcome: Outcome) {
        let verb = run.verb();
        let (uid_validity, uids) = match outcome {
            Outcome::Copied { uid_validity, uids } => (uid_validity, uids),
            Outcome::Refused(refused) => return self.finish(&run.tag, &refusal::text_of(&refused, "TRYCREATE")),
            _ => return self.finish(&run.tag, refusal::UNAVAILABLE),
        };
        let mut code = String::new();
        if !uids.is_empty() {
            let sources = write_set(uids.iter().map(|(source, _)| source.0));
            let targets = write_set(uids.iter().map(|(_, target)| target.0));
            code = format!("[COPYUID {} {sources} {targets}] ", uid_validity.0);
        }
        if run.moving {
            if !code.is_empty() {
                self.say(&format!("* OK {code}moved\r\n"));
                code.clear();
            }
            let gone: BTreeSet<u32> = uids.iter().map(|(source, _)| source.0).collect();
            if let Some(selected) = self.selected.as_deref_mut() {
                selected.view.expunge(&gone, &mut self.said);
            }
        }
        self.finish_with_news(run.tag, format!("OK {code}{verb} completed"));
    }
}

impl CopyRun {
    const fn verb(&self) -> &'static str {
        if self.moving { "MOVE" } else { "COPY" }
    }
}
