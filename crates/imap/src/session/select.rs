//! SELECT, EXAMINE and STATUS (RFC 3501 §6.3.1, §6.3.2, §6.3.10, RFC 7162 §3.1.2).

use std::ops::ControlFlow;

use mailbox::read;
use mailbox::rows::Mailbox;
use vocab::{Damaged, Rows, SystemFlag, Uid};

use super::view::View;
use super::{ImapSession, Selected};
use crate::codec::list::StatusItem;
use crate::codec::response;

/// Messages looked at for the first unseen one; behind that SELECT does not name it (it need not).
const UNSEEN_SCAN_MAX: usize = 5_000;
const SYSTEM_FLAGS: &str = "\\Answered \\Flagged \\Deleted \\Seen \\Draft";

impl ImapSession {
    pub(super) fn select(
        &mut self,
        tag: &str,
        name: &str,
        (read_only, condstore): (bool, bool),
        rows: &dyn Rows,
    ) -> Result<(), Damaged> {
        // RFC 3501 §6.3.1: a SELECT that fails leaves nothing selected.
        self.selected = None;
        let Some(mailbox) = read::mailbox_by_name(rows, name)? else {
            self.finish(tag, "NO [NONEXISTENT] no such mailbox");
            return Ok(());
        };
        self.condstore |= condstore;
        let view = View::open(rows, &mailbox)?;
        let permanent = if read_only { String::new() } else { format!("{SYSTEM_FLAGS} \\*") };
        let unseen = first_unseen(rows, &mailbox)?
            .and_then(|uid| view.position(uid))
            .map_or_else(String::new, |at| format!("* OK [UNSEEN {}] first unseen\r\n", at + 1));
        self.say(&format!(
            "* FLAGS ({SYSTEM_FLAGS})\r\n* OK [PERMANENTFLAGS ({permanent})] flags kept\r\n* {} EXISTS\r\n* 0 RECENT\r\n\
             {unseen}* OK [UIDVALIDITY {}] UIDs valid\r\n* OK [UIDNEXT {}] next UID\r\n\
             * OK [HIGHESTMODSEQ {}] highest\r\n* OK [MAILBOXID ({})] id\r\n",
            view.len(),
            mailbox.uid_validity.0,
            mailbox.uid_next.0,
            mailbox.modseq.0.max(1),
            mailbox.id,
        ));
        self.selected =
            Some(Box::new(Selected { mailbox: mailbox.id, uid_validity: mailbox.uid_validity, read_only, view }));
        let text = if read_only { "OK [READ-ONLY] EXAMINE completed" } else { "OK [READ-WRITE] SELECT completed" };
        self.finish(tag, text);
        Ok(())
    }

    pub(super) fn status(
        &mut self,
        tag: &str,
        name: &str,
        items: &[StatusItem],
        rows: &dyn Rows,
    ) -> Result<(), Damaged> {
        let Some(mailbox) = read::mailbox_by_name(rows, name)? else {
            self.finish(tag, "NO [NONEXISTENT] no such mailbox");
            return Ok(());
        };
        if items.contains(&StatusItem::HighestModSeq) {
            self.enable_condstore();
        }
        self.say(&status_line(&mailbox, items));
        self.finish(tag, "OK STATUS completed");
        Ok(())
    }
}

/// `* STATUS "name" (...)` with CRLF.
pub(super) fn status_line(mailbox: &Mailbox, items: &[StatusItem]) -> String {
    let item = |item: &StatusItem| match item {
        StatusItem::Messages => format!("MESSAGES {}", mailbox.counts.messages),
        StatusItem::Recent => "RECENT 0".to_owned(),
        StatusItem::UidNext => format!("UIDNEXT {}", mailbox.uid_next.0),
        StatusItem::UidValidity => format!("UIDVALIDITY {}", mailbox.uid_validity.0),
        StatusItem::Unseen => format!("UNSEEN {}", mailbox.counts.unseen),
        StatusItem::Deleted => format!("DELETED {}", mailbox.counts.deleted),
        StatusItem::Size => format!("SIZE {}", mailbox.counts.bytes),
        StatusItem::HighestModSeq => format!("HIGHESTMODSEQ {}", mailbox.modseq.0.max(1)),
        StatusItem::MailboxId => format!("MAILBOXID ({})", mailbox.id),
    };
    let items: Vec<String> = items.iter().map(item).collect();
    format!("* STATUS {} ({})\r\n", response::mailbox(&mailbox.name), items.join(" "))
}

fn first_unseen(rows: &dyn Rows, mailbox: &Mailbox) -> Result<Option<Uid>, Damaged> {
    if mailbox.counts.unseen == 0 {
        return Ok(None);
    }
    let mut found = None;
    let mut left = UNSEEN_SCAN_MAX;
    read::visit_placements(rows, mailbox.id, read::all_uids(), &mut |placement| {
        if !placement.flags.has(SystemFlag::Seen) {
            found = Some(placement.uid);
            return ControlFlow::Break(());
        }
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}
