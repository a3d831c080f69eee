//! What a client's wishes and the answers to them mean for the checks.

use bytes::Bytes;
use mailbox::op::{AccountOp, FlagMode, MailboxRef, Outcome};
use vocab::{AccountId, BlobHash, CommandId, Flags, PlacementId};

use super::Intent;
use crate::invariants::Told;
use crate::world::World;

impl World {
    /// From here on the change may happen, whatever comes of it.
    pub(super) fn intend(
        &mut self,
        c: usize,
        account: AccountId,
        id: CommandId,
        op: &AccountOp,
        body: Option<&Bytes>,
    ) -> Intent {
        let client = &self.clients[c];
        let named: &[PlacementId] = match op {
            AccountOp::Store { placements, .. }
            | AccountOp::Expunge { placements, .. }
            | AccountOp::Copy { placements, .. }
            | AccountOp::Move { placements, .. } => placements,
            _ => &[],
        };
        let all = client.cache.values().flat_map(|cached| &cached.messages);
        let known = all.filter(|(_, (id, _))| named.contains(id)).map(|(uid, known)| (*uid, known.clone())).collect();
        let blobs: Vec<BlobHash> = named.iter().filter_map(|id| client.blobs.get(id).copied()).collect();
        let blob = body.map(|body| BlobHash::of(body)).or_else(|| blobs.first().copied());
        let intent = Intent {
            account,
            id,
            op: op.clone(),
            known,
            side: client.side,
            wanders: client.wanders,
            blind_merges: client.blind_merges,
            blob,
        };
        let tell = |world: &mut Self, told: Told| world.checks.on_told(&told);
        let again = !matches!(op, AccountOp::Append { .. });
        let places = match op {
            AccountOp::Copy { .. } | AccountOp::Move { .. } => blobs.clone(),
            AccountOp::Append { .. } => blob.into_iter().collect(),
            _ => Vec::new(),
        };
        places.into_iter().for_each(|blob| tell(self, Told::Placing { account, blob, again }));
        match op {
            AccountOp::Expunge { placements, .. } => {
                tell(self, Told::ExpungeAsked { account, blobs });
                tell(self, Told::RemovalAsked { account, placements: placements.clone() });
            }
            AccountOp::Move { placements, .. } => {
                tell(self, Told::RemovalAsked { account, placements: placements.clone() });
            }
            AccountOp::DeleteMailbox { mailbox } => {
                tell(self, Told::EmptyAsked { account, mailbox: *mailbox });
            }
            AccountOp::RenameMailbox { mailbox, .. } => {
                // Of INBOX: what is in it moves away.
                if self.clients[c].ids.get("INBOX") == Some(mailbox) {
                    tell(self, Told::InboxMoved { account });
                    tell(self, Told::EmptyAsked { account, mailbox: *mailbox });
                } else {
                    tell(self, Told::RenameAsked { account, mailbox: *mailbox });
                }
            }
            AccountOp::SetDocument { kind, name, body } if kind == super::NOTE => {
                tell(self, Told::NoteAsked { account, id, name: name.clone(), body: body.clone() });
            }
            _ => {}
        }
        intent
    }

    /// The answer is no refusal of the node: the change was made, or refused for good.
    pub(crate) fn acknowledged(&mut self, c: usize, intent: &Intent, outcome: &Outcome, side: Option<usize>) {
        let account = intent.account;
        if let Outcome::Refused(_) = outcome {
            return;
        }
        self.note(|| format!("client {c}: {} of account {}, side {side:?}", short(&intent.op, outcome), account.0));
        let mut facts = Vec::new();
        match (&intent.op, outcome) {
            (AccountOp::Expunge { placements, only_deleted: false, .. }, Outcome::Expunged { .. })
            | (AccountOp::Move { placements, .. }, Outcome::Copied { .. }) => {
                facts.push(Told::Expunged { account, placements: placements.clone(), side });
            }
            (AccountOp::DeleteMailbox { mailbox }, Outcome::Done) => {
                let placements = self.covered.remove(&intent.id).unwrap_or_default();
                facts.push(Told::Expunged { account, placements, side });
                facts.push(Told::Deleted { account, mailbox: *mailbox, side });
            }
            (AccountOp::RenameMailbox { mailbox, name }, Outcome::Done) => {
                facts.push(Told::Renamed { account, mailbox: *mailbox, to: name.clone(), side });
            }
            (AccountOp::CreateMailbox { name, .. }, Outcome::Created { mailbox }) => {
                facts.push(Told::Created { account, mailbox: *mailbox, name: name.clone(), side });
            }
            (AccountOp::SetDocument { kind, .. }, Outcome::Done) if kind == super::NOTE => {
                facts.push(Told::NoteKept { account, id: intent.id, side });
            }
            (AccountOp::Store { .. }, _) => self.stored(intent, outcome, side, &mut facts),
            _ => {}
        }
        placed(intent, outcome, side, &mut facts);
        facts.iter().for_each(|told| self.checks.on_told(told));
        self.take_landed_faults();
    }

    fn stored(&mut self, intent: &Intent, outcome: &Outcome, side: Option<usize>, facts: &mut Vec<Told>) {
        let account = intent.account;
        let (AccountOp::Store { mode, flags, unchanged_since, .. }, Outcome::Stored { stored, .. }) =
            (&intent.op, outcome)
        else {
            return;
        };
        if intent.blind_merges != self.blind_merges.get(&account).copied().unwrap_or(0) {
            return;
        }
        for now in stored {
            let Some((id, before)) = intent.known.get(&now.uid) else { continue };
            facts.push(Told::Flagged { account, id: *id, modseq: now.modseq, side });
            // What another side did meanwhile has numbers of its own.
            let comparable = !intent.wanders && (intent.side.is_none() || side.is_none() || intent.side == side);
            if unchanged_since.is_some() && comparable {
                let wanted = flagged(before, *mode, flags);
                facts.push(Told::Conditional { account, id: *id, wanted, now: now.flags.clone() });
            }
        }
    }
}

fn flagged(before: &Flags, mode: FlagMode, flags: &Flags) -> Flags {
    match mode {
        FlagMode::Replace => flags.clone(),
        FlagMode::Add => before.with(flags),
        FlagMode::Remove => before.without(flags),
    }
}

/// APPENDUID and COPYUID, and what else the client may expect of new placements.
fn placed(intent: &Intent, outcome: &Outcome, side: Option<usize>, facts: &mut Vec<Told>) {
    let account = intent.account;
    let new = |index: usize| PlacementId { command: intent.id, index: u32::try_from(index).unwrap_or(u32::MAX) };
    match (&intent.op, outcome) {
        (AccountOp::Append { mailbox: MailboxRef::Id(_), .. }, Outcome::Appended { mailbox, uid_validity, uids }) => {
            let Some(blob) = intent.blob else { return };
            facts.push(Told::Accepted { account, blob, side });
            facts.push(Told::Wrote { account, mailbox: *mailbox, id: new(0), side });
            let named = uids.iter().map(|uid| Told::Named {
                account,
                mailbox: *mailbox,
                validity: uid_validity.0,
                uid: *uid,
                blob,
            });
            facts.extend(named);
        }
        (
            AccountOp::Copy { to, placements, .. } | AccountOp::Move { to, placements, .. },
            Outcome::Copied { uid_validity, uids },
        ) => {
            if let (AccountOp::Copy { .. }, [_], Some(blob)) = (&intent.op, &uids[..], intent.blob)
                && placements.len() == 1
            {
                facts.push(Told::CopyKept { account, blob, side });
            }
            for (index, from) in placements.iter().enumerate() {
                facts.push(Told::Copied { account, from: *from, to: new(index) });
            }
            // Which content a UID names is sure when only one was asked for.
            if let ([_], [(_, uid)], Some(blob)) = (&placements[..], &uids[..], intent.blob) {
                facts.push(Told::Wrote { account, mailbox: *to, id: new(0), side });
                let validity = uid_validity.0;
                facts.push(Told::Named { account, mailbox: *to, validity, uid: *uid, blob });
            }
        }
        _ => {}
    }
}

fn short(op: &AccountOp, outcome: &Outcome) -> String {
    match op {
        AccountOp::Append { .. } => format!("{outcome:?}"),
        AccountOp::Expunge { placements, .. } => format!("expunged {placements:?}"),
        other => format!("{other:?}"),
    }
}
