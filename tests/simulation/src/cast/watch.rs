//! A session in IDLE: it looks again when it hears of a change, and is told what is new. What it hears of is what the
//! engine tells its observers: commits at the home, confirmed versions at a backup, and that serving has changed.

use std::collections::BTreeMap;

use mailbox::{op::Role, read};
use replica::MayRead;
use vocab::{AccountId, Boot, Damaged, Flags, MemoryRows, Uid};

use super::Part;
use crate::clients::Kind;
use crate::invariants::Watching;
use crate::vocabulary::{Inner, Ms};
use crate::world::World;

/// Pause before a session looks again at a version that may not be shown yet (ms).
const RETRY_MS: Ms = 20;
/// After this time without an answer the session ends (ms).
const PATIENCE_MS: Ms = 4_500;

/// Its session, if it has one.
#[derive(Default)]
pub(crate) struct Watch {
    session: Option<Session>,
}

struct Session {
    node: usize,
    boot: Boot,
    shown: BTreeMap<Uid, Flags>,
    /// Since when it looks for a version that it may be shown.
    looking: Option<Ms>,
    /// Since when it has not been told what could be shown.
    behind: Option<Ms>,
}

fn inbox(rows: Option<&MemoryRows>) -> Result<BTreeMap<Uid, Flags>, Damaged> {
    let Some(rows) = rows else { return Ok(BTreeMap::new()) };
    let Some(inbox) = read::mailbox_by_role(rows, Role::Inbox)? else { return Ok(BTreeMap::new()) };
    Ok(read::uids(rows, inbox.id)?.into_iter().map(|row| (row.uid, row.flags)).collect())
}

impl World {
    pub(super) fn watcher_acts(&mut self, c: usize, n: usize, account: AccountId) {
        let Part::Watch(watch) = &self.clients[c].part else { return };
        if watch.session.is_some() && self.calming.is_none() {
            return self.client_later(c, 200, 900);
        }
        self.look(c, n, account);
    }

    /// SELECT, then IDLE.
    pub(super) fn begin_watch(&mut self, n: usize, c: usize, account: AccountId) {
        let Some(boot) = self.nodes[n].boot() else { return };
        match inbox(self.nodes[n].disk.image.accounts.get(&account)) {
            Ok(shown) => {
                let session = Session { node: n, boot, shown, looking: None, behind: None };
                self.clients[c].part = Part::Watch(Watch { session: Some(session) });
                self.coverage.watching += 1;
            }
            Err(damaged) => self.broken("rows", format!("node {}: account {}: {damaged}", n + 1, account.0)),
        }
    }

    /// Observers at this node hear of accounts; `None`: of everything.
    pub(crate) fn hint(&mut self, n: usize, accounts: Option<&[AccountId]>) {
        let Some(boot) = self.nodes[n].boot().filter(|_| self.cast) else { return };
        let now = self.now;
        let mut hear = Vec::new();
        for (c, client) in self.clients.iter_mut().enumerate() {
            let (Kind::Part { account, .. }, Part::Watch(watch)) = (client.kind, &mut client.part) else { continue };
            let Some(session) = watch.session.as_mut().filter(|s| s.node == n && s.boot == boot) else { continue };
            if accounts.is_none_or(|accounts| accounts.contains(&account)) {
                session.looking.get_or_insert(now);
                hear.push(c);
            }
        }
        for c in hear {
            let delay = self.rng.range(0, 10);
            self.to(n, delay, Inner::WatchLook(c));
        }
    }

    /// The session looks; it is told what is new, waits, or is told BYE.
    pub(crate) fn watch_look(&mut self, n: usize, c: usize) {
        let now = self.clock(n);
        let Kind::Part { account, .. } = self.clients[c].kind else { return };
        let head = self.nodes[n].disk.image.head(account);
        let Some(process) = self.nodes[n].process.as_ref() else { return };
        let (boot, stamp) = (process.boot, process.replica.stamp(account));
        let verdict = process.replica.may_read(account, head.version, now);
        let Part::Watch(watch) = &mut self.clients[c].part else { return };
        let Some(session) = watch.session.as_mut().filter(|s| s.node == n && s.boot == boot) else { return };
        let Some(since) = session.looking else { return };
        match verdict {
            // Numbers of a new epoch are for sessions that have entered it.
            MayRead::Yes if !stamp.entry_due(&head) => {
                session.looking = None;
                match inbox(self.nodes[n].disk.image.accounts.get(&account)) {
                    Ok(shown) => {
                        self.coverage.watched += u64::from(shown != session.shown);
                        session.shown = shown;
                    }
                    Err(damaged) => self.broken("rows", format!("node {}: {damaged}", n + 1)),
                }
            }
            MayRead::Wait | MayRead::Merging if self.now < since + PATIENCE_MS => {
                self.to(n, RETRY_MS, Inner::WatchLook(c))
            }
            _ => watch.session = None,
        }
    }

    /// Sessions of processes that are there and may show something else than they have told.
    pub(crate) fn look_at_watchers(&mut self) {
        for c in 0..self.clients.len() {
            let Kind::Part { account, .. } = self.clients[c].kind else { continue };
            let Part::Watch(Watch { session: Some(session) }) = &self.clients[c].part else { continue };
            let (n, boot) = (session.node, session.boot);
            let head = self.nodes[n].disk.image.head(account);
            let clock = self.clock(n);
            let Some(process) = self.nodes[n].process.as_ref().filter(|p| p.boot == boot) else {
                self.clients[c].part = Part::Watch(Watch::default());
                continue;
            };
            let may = process.replica.may_read(account, head.version, clock) == MayRead::Yes;
            let now_there = inbox(self.nodes[n].disk.image.accounts.get(&account)).unwrap_or_default();
            let awake = self.nodes[n].is_awake();
            let now = self.now;
            let Part::Watch(Watch { session: Some(session) }) = &mut self.clients[c].part else { continue };
            if !may || !awake || now_there == session.shown {
                session.behind = None;
                continue;
            }
            let behind_ms = now - *session.behind.get_or_insert(now);
            if let Err((rule, text)) = self.checks.on_watch(&Watching { account, node: n, behind_ms }) {
                self.broken(rule, format!("client {c}: {text}"));
            }
        }
    }
}
