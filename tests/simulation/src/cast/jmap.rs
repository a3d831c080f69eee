//! JMAP: a state, what changed since, and a cache by EMAILID that follows it (RFC 8620 §5.2). It may go on with its state
//! at any node, in a split too: a state of the other side is not answered.

use std::collections::BTreeMap;

use mailbox::op::{AccountOp, FlagMode};
use mailbox::read;
use mailbox::state::{self, State};
use mime::ThreadId;
use vocab::{AccountId, BlobHash, Damaged, Flags, MailboxId, MemoryRows, PlacementId, SystemFlag};

use super::Part;
use crate::invariants::{Emails, JmapReading};
use crate::world::World;

/// What the client remembers.
#[derive(Default)]
pub(crate) struct Jmap {
    state: Option<State>,
    emails: Emails,
}

/// An answer to the client.
struct Followed {
    jmap: Jmap,
    /// Its state could not be answered, so it read everything.
    refused: bool,
    truth: Emails,
    identities: BTreeMap<PlacementId, (BlobHash, ThreadId)>,
}

impl World {
    pub(super) fn jmap_acts(&mut self, c: usize, n: usize, account: AccountId) {
        let change = self.calming.is_none() && self.rng.percent(40);
        let op = if change { self.choose_of_jmap(c) } else { None };
        match op {
            Some(op) => self.change(c, n, account, op, None),
            None => self.look(c, n, account),
        }
    }

    /// Email/set on one message.
    fn choose_of_jmap(&mut self, c: usize) -> Option<AccountOp> {
        let Part::Jmap(jmap) = &self.clients[c].part else { return None };
        let all: Vec<(MailboxId, PlacementId)> =
            jmap.emails.values().flatten().map(|(id, (mailbox, _))| (*mailbox, *id)).collect();
        if all.is_empty() {
            return None;
        }
        let (mailbox, id) = all[self.rng.index(all.len())];
        let placements = vec![id];
        let mailboxes: Vec<MailboxId> = self.clients[c].ids.values().copied().collect();
        Some(match self.rng.range(0, 100) {
            0..60 => {
                let mode = [FlagMode::Add, FlagMode::Remove][self.rng.index(2)];
                let flags = Flags::of(&[SystemFlag::ALL[self.rng.index(5)]]);
                AccountOp::Store { mailbox, placements, mode, flags, unchanged_since: None }
            }
            60..80 => {
                let to = mailboxes[self.rng.index(mailboxes.len())];
                AccountOp::Move { from: mailbox, to, placements }
            }
            _ => AccountOp::Expunge { mailbox, placements, only_deleted: false },
        })
    }

    pub(super) fn show_emails(&mut self, n: usize, c: usize, account: AccountId) {
        let view = self.view(n);
        let max = if self.rng.percent(30) { 3 } else { 500 };
        let empty = MemoryRows::default();
        let rows = self.nodes[n].disk.image.accounts.get(&account).unwrap_or(&empty);
        let Part::Jmap(jmap) = &mut self.clients[c].part else { return };
        let before = std::mem::take(jmap);
        let had = before.state.is_some();
        let followed = match follow(rows, before, max) {
            Ok(followed) => followed,
            Err(damaged) => return self.broken("rows", format!("node {}: account {}: {damaged}", n + 1, account.0)),
        };
        self.coverage.states_answered += u64::from(had && !followed.refused);
        self.coverage.states_refused += u64::from(had && followed.refused);
        let reading = JmapReading {
            account,
            view,
            followed: &followed.jmap.emails,
            truth: &followed.truth,
            identities: &followed.identities,
        };
        let verdict = self.checks.on_emails(&reading);
        let ids = read::mailboxes(rows).unwrap_or_default().into_iter().map(|m| (m.name, m.id)).collect();
        let client = &mut self.clients[c];
        client.side = view.side;
        client.ids = ids;
        let blob = |places: &BTreeMap<PlacementId, (MailboxId, Flags)>, blob: BlobHash| -> Vec<_> {
            places.keys().map(|id| (*id, blob)).collect()
        };
        let blobs = followed.truth.iter().filter_map(|(email, places)| {
            let (hash, _) = followed.identities.get(email)?;
            Some(blob(places, *hash))
        });
        client.blobs = blobs.flatten().collect();
        client.part = Part::Jmap(followed.jmap);
        if let Err((rule, text)) = verdict {
            self.broken(rule, format!("client {c}: {text}"));
        }
    }
}

/// Goes on from the state as far as there is anything, in parts of at most `max`.
fn follow(rows: &MemoryRows, mut jmap: Jmap, max: usize) -> Result<Followed, Damaged> {
    let (truth, identities) = all(rows)?;
    let mut refused = jmap.state.is_none();
    while let Some(since) = jmap.state {
        let Some(changes) = state::email_changes(rows, &since, max)? else {
            refused = true;
            break;
        };
        changes.destroyed.iter().for_each(|email| drop(jmap.emails.remove(email)));
        for email in changes.created.into_iter().chain(changes.updated) {
            let places = state::places_of(rows, email)?;
            let places = places.into_iter().map(|(mailbox, p)| (p.id, (mailbox, p.flags))).collect();
            jmap.emails.insert(email, places);
        }
        jmap.emails.retain(|_, places| !places.is_empty());
        jmap.state = Some(changes.state);
        if !changes.more {
            break;
        }
    }
    if refused {
        jmap.emails.clone_from(&truth);
        jmap.state = Some(state::state(rows)?);
    }
    Ok(Followed { jmap, refused, truth, identities })
}

type All = (Emails, BTreeMap<PlacementId, (BlobHash, ThreadId)>);

fn all(rows: &MemoryRows) -> Result<All, Damaged> {
    let (mut emails, mut identities) = (Emails::new(), BTreeMap::new());
    for mailbox in read::mailboxes(rows)? {
        for placement in read::placements(rows, mailbox.id, read::all_uids())? {
            identities.insert(placement.email, (placement.blob, placement.thread));
            emails.entry(placement.email).or_default().insert(placement.id, (mailbox.id, placement.flags));
        }
    }
    Ok((emails, identities))
}
