//! APPEND (RFC 3501 §6.3.11, RFC 4315 §3).

use mailbox::op::Outcome;
use mailbox::read;
use vocab::{Damaged, MailboxId, Rows};

use super::{Answer, ImapSession, Pending, Query, refusal};
use crate::codec::append::AppendCommand;
use crate::codec::assemble::Assembler;

impl ImapSession {
    pub(super) fn append(&mut self, tag: String, append: AppendCommand, rows: &dyn Rows) -> Result<(), Damaged> {
        let Some(mailbox) = read::mailbox_by_name(rows, &append.mailbox)? else {
            self.finish(&tag, "NO [TRYCREATE] no such mailbox");
            return Ok(());
        };
        if append.message.is_empty() || append.message.contains(&0) {
            self.finish(&tag, "NO a message is not empty and has no NUL");
            return Ok(());
        }
        let Some(account) = self.account else { return Ok(()) };
        let AppendCommand { flags, internal_date, message, .. } = append;
        let query = Query::Append { account, mailbox: mailbox.id, flags, internal_date, message };
        self.ask(query, Pending::Appended { tag, mailbox: mailbox.id });
        Ok(())
    }

    /// Room for a large literal was found, or not.
    pub(super) fn on_room(&mut self, tag: &str, synchronizing: bool, answer: &Answer) {
        match (answer, synchronizing) {
            (Answer::Held, true) => self.say(super::CONSENT),
            (Answer::Held, false) => {}
            (_, true) => {
                self.assembler = Assembler::default();
                self.finish(tag, refusal::NO_ROOM);
            }
            // It comes anyway: there is nothing to do but to end here.
            (_, false) => {
                self.say(&format!("{tag} {}\r\n", refusal::NO_ROOM));
                self.goodbye("cannot take the message that follows");
            }
        }
    }

    pub(super) fn on_appended(&mut self, tag: String, mailbox: MailboxId, outcome: &Outcome) {
        match outcome {
            Outcome::Appended { uid_validity, uids, .. } => {
                let uids = crate::codec::sequence::write_set(uids.iter().map(|uid| uid.0));
                let text = format!("OK [APPENDUID {} {uids}] APPEND completed", uid_validity.0);
                if self.selected.as_ref().is_some_and(|s| s.mailbox == mailbox) {
                    self.finish_with_news(tag, text);
                } else {
                    self.finish(&tag, &text);
                }
            }
            Outcome::Refused(refused) => self.finish(&tag, &refusal::text_of(refused, "TRYCREATE")),
            _ => self.finish(&tag, refusal::UNAVAILABLE),
        }
    }
}
