//! What a keeper does beyond flags and deleting: conditional STORE, COPY, MOVE, APPEND, and the tree of mailboxes with
//! its subscriptions and documents.

use bytes::Bytes;
use mailbox::op::{AccountOp, FlagMode, MailboxRef, NewMessage};
use vocab::{BlobHash, Flags, MailboxId, ModSeq, PlacementId, SystemFlag, Timestamp};

use crate::clients::Kind;
use crate::world::{WALL_START, World};

type Choice = Option<(AccountOp, Option<Bytes>)>;

impl World {
    pub(crate) fn choose_of_keeper(
        &mut self,
        c: usize,
        name: &str,
        mailbox: MailboxId,
        placements: Vec<PlacementId>,
    ) -> Choice {
        let mailboxes: Vec<MailboxId> = self.clients[c].ids.values().copied().collect();
        let to = mailboxes[self.rng.index(mailboxes.len())];
        Some(match self.rng.range(0, 100) {
            0..30 => {
                let since = self.clients[c].cache.get(name).map(|cached| ModSeq(cached.modseq));
                let mode = [FlagMode::Add, FlagMode::Remove][self.rng.index(2)];
                let flags = Flags::of(&[SystemFlag::ALL[self.rng.index(5)]]);
                (AccountOp::Store { mailbox, placements, mode, flags, unchanged_since: since }, None)
            }
            30..45 => (AccountOp::Copy { from: mailbox, to, placements }, None),
            45..60 => (AccountOp::Move { from: mailbox, to, placements }, None),
            60..75 => return self.append(c, to),
            75..80 => (AccountOp::Expunge { mailbox, placements, only_deleted: true }, None),
            80..92 => return self.choose_of_tree(c),
            _ => {
                let body = Bytes::from(format!("note {c} at {}", self.now));
                let name = format!("note{}", self.rng.range(1, 4));
                let body = Some(body).filter(|_| !self.rng.percent(5));
                (AccountOp::SetDocument { kind: super::NOTE.to_owned(), name, body }, None)
            }
        })
    }

    fn append(&mut self, c: usize, to: MailboxId) -> Choice {
        let text = format!("Subject: draft {c} at {}\r\n\r\nof account {:?}\r\n", self.now, self.clients[c].kind);
        let body = Bytes::from(text);
        let message = NewMessage {
            blob: BlobHash::of(&body),
            blob_size: body.len() as u64,
            prefix: Bytes::new(),
            facts: mime::facts_of(&body).encode(),
            flags: Flags::of(&[SystemFlag::Draft]),
            internal_date: Timestamp(WALL_START + self.now),
        };
        Some((AccountOp::Append { mailbox: MailboxRef::Id(to), messages: vec![message] }, Some(body)))
    }

    /// CREATE, DELETE, RENAME, SUBSCRIBE. Names that mailboxes are renamed to are others than those they are created with.
    fn choose_of_tree(&mut self, c: usize) -> Choice {
        let Kind::Reader { .. } = self.clients[c].kind else { return None };
        let own: Vec<MailboxId> = {
            let is_own = |name: &&String| name.starts_with('F') || name.starts_with('G');
            let ids = self.clients[c].ids.iter().filter(|(name, _)| is_own(name));
            ids.map(|(_, id)| *id).collect()
        };
        let inbox = self.clients[c].ids.get("INBOX").copied();
        let mailbox = if own.is_empty() { None } else { Some(own[self.rng.index(own.len())]) };
        let (number, below) = (self.rng.range(1, 4), self.rng.percent(30));
        let tail = if below { "/below" } else { "" };
        let op = match (self.rng.range(0, 100), mailbox) {
            (0..25, _) | (25..80, None) => AccountOp::CreateMailbox { name: format!("F{number}{tail}"), role: None },
            (25..50, Some(mailbox)) => AccountOp::DeleteMailbox { mailbox },
            (50..76, Some(mailbox)) => AccountOp::RenameMailbox { mailbox, name: format!("G{number}{tail}") },
            (76..80, Some(_)) => AccountOp::RenameMailbox { mailbox: inbox?, name: format!("G{number}{tail}") },
            _ => AccountOp::Subscribe { name: format!("F{number}"), subscribed: self.rng.percent(60) },
        };
        Some((op, None))
    }
}
