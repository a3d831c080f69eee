//! What an anchor commits during a heal follows to the guest batch by batch (DESIGN 7).

use prost::Message as _;
use vocab::{AccountId, Batch, BatchId, NodeId, Version};

use crate::compare::{Step, TAIL_BATCHES_MAX};
use crate::{Replica, message};

impl Replica {
    /// A committed batch follows to a guest that has the account already, or after its fetch.
    pub(crate) fn stream(&mut self, batch: &Batch) {
        let peers: Vec<NodeId> = self.compares.iter().filter(|(_, c)| c.heal && c.known).map(|(id, _)| *id).collect();
        for peer in peers {
            let Some(compare) = self.compares.get_mut(&peer) else { continue };
            let mut level = Vec::new();
            for part in &batch.accounts {
                match compare.todo.get_mut(&part.account) {
                    Some(Step::Pulling { tail }) => {
                        if let Some(kept) = tail {
                            let one = Batch { accounts: vec![part.clone()], ..batch.clone() };
                            kept.push((batch.id, one));
                        }
                        *tail = tail.take().filter(|t| t.len() <= TAIL_BATCHES_MAX);
                    }
                    Some(_) => {}
                    None if compare.theirs.get(&part.account).copied().unwrap_or_default() == part.expected => {
                        level.push(part.clone());
                    }
                    None => {
                        compare.todo.insert(part.account, Step::Start(self.now));
                    }
                }
            }
            if !level.is_empty() {
                self.stream_to(peer, batch.id, &Batch { accounts: level, ..batch.clone() });
            }
        }
    }

    pub(crate) fn stream_to(&mut self, peer: NodeId, id: BatchId, batch: &Batch) {
        let now = self.now;
        let Some(compare) = self.compares.get_mut(&peer) else { return };
        // Parts of one batch have one name: an answer would be taken for that to the part which is under way. What would go
        // out now is brought by a fetch, later, and so is everything behind it.
        let under_way = compare.streaming.iter().any(|(other, _)| *other == id);
        if under_way || batch.accounts.iter().any(|part| compare.todo.contains_key(&part.account)) {
            for part in &batch.accounts {
                compare.todo.entry(part.account).or_insert(Step::Start(now));
            }
            return;
        }
        compare.theirs.extend(batch.accounts.iter().map(|a| (a.account, a.head.version)));
        compare.streaming.push((id, batch.accounts.iter().map(|a| a.account).collect()));
        let (epoch, encoded) = (compare.epoch, message::batch_to(batch, !self.trims()).encode_to_vec().into());
        self.say_batch(peer, epoch, id, &encoded);
    }

    pub(crate) fn on_stream_ack(&mut self, peer: NodeId, id: BatchId) {
        if let Some(compare) = self.compares.get_mut(&peer) {
            compare.take_streamed(id);
        }
    }

    /// True when it was a streamed one: its accounts are looked at again.
    pub(crate) fn on_stream_refused(&mut self, peer: NodeId, id: BatchId, have: &[(AccountId, Version)]) -> bool {
        let now = self.now;
        let Some(compare) = self.compares.get_mut(&peer) else { return false };
        let Some(accounts) = compare.take_streamed(id) else { return false };
        compare.theirs.extend(have.iter().copied());
        for account in accounts {
            compare.todo.entry(account).or_insert(Step::Start(now));
        }
        true
    }
}
