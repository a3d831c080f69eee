//! POP3: a snapshot per session, new mail by UIDL, deletes by placement id at QUIT.

use std::collections::{BTreeMap, BTreeSet};

use mailbox::op::AccountOp;
use mailbox::{op::Role, read};
use vocab::{AccountId, BlobHash, Damaged, MailboxId, MemoryRows, PlacementId};

use super::Part;
use crate::invariants::Maildrop;
use crate::world::World;

/// What the client remembers, and its session.
#[derive(Default)]
pub(crate) struct Pop3 {
    /// By UIDL, with what it got.
    downloaded: BTreeMap<PlacementId, BlobHash>,
    session: Option<Session>,
}

struct Session {
    inbox: MailboxId,
    /// The snapshot of this session.
    drop: Vec<(PlacementId, BlobHash)>,
}

impl Pop3 {
    pub(super) fn hang_up(&mut self) {
        self.session = None;
    }
}

impl World {
    pub(super) fn pop3_acts(&mut self, c: usize, n: usize, account: AccountId) {
        let Part::Pop3(pop3) = &mut self.clients[c].part else { return };
        let Some(session) = pop3.session.take() else { return self.look(c, n, account) };
        // RETR of what it has not seen; some of what it has is deleted, at QUIT.
        let known: BTreeSet<PlacementId> = pop3.downloaded.keys().copied().collect();
        pop3.downloaded.extend(session.drop.iter().copied());
        let mut gone: Vec<PlacementId> =
            session.drop.iter().map(|(id, _)| *id).filter(|id| known.contains(id)).collect();
        gone.retain(|_| self.rng.percent(40));
        if gone.is_empty() || self.calming.is_some() {
            return self.look(c, n, account);
        }
        let op = AccountOp::Expunge { mailbox: session.inbox, placements: gone, only_deleted: false };
        self.change(c, n, account, op, None);
    }

    pub(super) fn show_maildrop(&mut self, n: usize, c: usize, account: AccountId) {
        let view = self.view(n);
        if !view.must_know(self.clients[c].side) {
            return;
        }
        let empty = MemoryRows::default();
        let rows = self.nodes[n].disk.image.accounts.get(&account).unwrap_or(&empty);
        let (inbox, drop) = match maildrop(rows) {
            Ok(Some(seen)) => seen,
            Ok(None) => return,
            Err(damaged) => return self.broken("rows", format!("node {}: account {}: {damaged}", n + 1, account.0)),
        };
        self.coverage.pop3_sessions += 1;
        let verdict = self.checks.on_maildrop(&Maildrop { account, view, inbox, uidls: &drop });
        let client = &mut self.clients[c];
        client.side = view.side;
        client.blobs = drop.iter().copied().collect();
        if let Part::Pop3(pop3) = &mut client.part {
            pop3.session = Some(Session { inbox, drop });
        }
        if let Err((rule, text)) = verdict {
            self.broken(rule, format!("client {c}: {text}"));
        }
    }
}

type Drop = (MailboxId, Vec<(PlacementId, BlobHash)>);

fn maildrop(rows: &MemoryRows) -> Result<Option<Drop>, Damaged> {
    let Some(inbox) = read::mailbox_by_role(rows, Role::Inbox)? else { return Ok(None) };
    let all = read::placements(rows, inbox.id, read::all_uids())?;
    Ok(Some((inbox.id, all.into_iter().map(|placement| (placement.id, placement.blob)).collect())))
}
