//! CREATE, DELETE, RENAME, SUBSCRIBE (RFC 3501 §6.3.3-7, RFC 6154 §3).

use mailbox::op::{AccountOp, Outcome, Role};
use mailbox::read;
use vocab::{Damaged, Rows};

use super::{ImapSession, Pending, Query, refusal};

const NO_SUCH_MAILBOX: &str = "NO [NONEXISTENT] no such mailbox";

impl ImapSession {
    pub(super) fn submit(&mut self, op: AccountOp, pending: Pending) {
        match self.account {
            Some(account) => self.ask(Query::Submit { account, op }, pending),
            None => self.goodbye("not logged in"),
        }
    }

    pub(super) fn create(&mut self, tag: String, name: String, role: Option<Role>) {
        self.submit(AccountOp::CreateMailbox { name, role }, Pending::Changed { tag, name: "CREATE" });
    }

    pub(super) fn subscribe(&mut self, tag: String, name: String, subscribed: bool) {
        let verb = if subscribed { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
        self.submit(AccountOp::Subscribe { name, subscribed }, Pending::Changed { tag, name: verb });
    }

    pub(super) fn delete(&mut self, tag: String, name: &str, rows: &dyn Rows) -> Result<(), Damaged> {
        match read::mailbox_by_name(rows, name)? {
            Some(mailbox) => {
                // Deleting what is selected ends the selection first: there is nothing left to show news of.
                if self.selected.as_ref().is_some_and(|s| s.mailbox == mailbox.id)
                    && mailbox.name != mailbox::names::INBOX
                {
                    self.selected = None;
                }
                let op = AccountOp::DeleteMailbox { mailbox: mailbox.id };
                self.submit(op, Pending::Changed { tag, name: "DELETE" });
            }
            None => self.finish(&tag, NO_SUCH_MAILBOX),
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, tag: String, from: &str, to: String, rows: &dyn Rows) -> Result<(), Damaged> {
        match read::mailbox_by_name(rows, from)? {
            Some(mailbox) => {
                let op = AccountOp::RenameMailbox { mailbox: mailbox.id, name: to };
                self.submit(op, Pending::Changed { tag, name: "RENAME" });
            }
            None => self.finish(&tag, NO_SUCH_MAILBOX),
        }
        Ok(())
    }

    pub(super) fn on_changed(&mut self, tag: String, name: &str, outcome: &Outcome) {
        let text = match outcome {
            Outcome::Refused(refusal) => refusal::text_of(refusal, "NONEXISTENT"),
            Outcome::Created { mailbox } => format!("OK [MAILBOXID ({mailbox})] {name} completed"),
            _ => format!("OK {name} completed"),
        };
        self.finish_with_news(tag, text);
    }
}
