//! What the clients know: every message with what was said about it. The judge at the end compares this, and only
//! this, with what the nodes hold.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clients::smtp::Sent;

/// What is known about the copy of a message in one account.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// First time any reader saw it.
    pub seen: Option<Instant>,
    /// A reader began to expunge it.
    pub expunge_asked: bool,
    /// A reader compared it byte for byte, and the server said OK to the expunge.
    pub expunged: bool,
    /// Flags whose STORE was answered with OK.
    pub flags: Vec<String>,
}

/// One message.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Index of its source.
    pub source: usize,
    /// When its 250 came.
    pub accepted: Option<Instant>,
    /// Transactions whose final dot was never answered; each may have left one copy.
    pub unanswered: usize,
    /// Copies by account index.
    pub copies: BTreeMap<usize, Copy>,
}

/// All messages of a run.
#[derive(Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    messages: BTreeMap<u64, Message>,
    next: u64,
    accepted: usize,
    refused: Vec<String>,
    deferred: Vec<String>,
    numbers: BTreeMap<(usize, u32, u32), u64>,
    faults: Vec<String>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new message to the accounts `to`; its id.
    pub fn begin(&self, source: usize, to: &[usize]) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        let copies = to.iter().map(|&account| (account, Copy::default())).collect();
        inner.messages.insert(id, Message { source, copies, ..Message::default() });
        id
    }

    /// How a transaction of message `id` ended.
    pub fn sent(&self, id: u64, sent: &Sent) {
        let mut inner = self.lock();
        match sent {
            Sent::Accepted(_) => {
                inner.accepted += 1;
                if let Some(message) = inner.messages.get_mut(&id) {
                    message.accepted.get_or_insert_with(Instant::now);
                }
            }
            Sent::Unknown(_) => {
                if let Some(message) = inner.messages.get_mut(&id) {
                    message.unanswered += 1;
                }
            }
            Sent::Refused(text) if text.starts_with('5') => inner.refused.push(format!("{id}: {text}")),
            Sent::Refused(text) => inner.deferred.push(format!("{id}: {text}")),
        }
    }

    /// Messages with a 250.
    pub fn accepted(&self) -> usize {
        self.lock().accepted
    }

    /// Messages refused for good, with the reply.
    pub fn refused(&self) -> Vec<String> {
        self.lock().refused.clone()
    }

    /// Transactions that failed for now, each with the reply or what broke.
    pub fn deferred(&self) -> Vec<String> {
        self.lock().deferred.clone()
    }

    /// Messages whose fate nobody knows.
    pub fn unanswered(&self) -> usize {
        self.lock().messages.values().filter(|message| message.unanswered > 0).count()
    }

    /// A reader saw message `id` in an account under a number.
    pub fn seen(&self, id: u64, account: usize, uid_validity: u32, uid: u32) {
        let mut inner = self.lock();
        if let Some(copy) = inner.messages.get_mut(&id).and_then(|message| message.copies.get_mut(&account)) {
            copy.seen.get_or_insert_with(Instant::now);
        }
        let other = *inner.numbers.entry((account, uid_validity, uid)).or_insert(id);
        if other != id {
            inner.faults.push(format!("account {account}: UID {uid} (of {uid_validity}) named {other}, now {id}"));
        }
    }

    /// Changes what is known about one copy.
    pub fn note(&self, id: u64, account: usize, change: impl FnOnce(&mut Copy)) {
        if let Some(copy) = self.lock().messages.get_mut(&id).and_then(|message| message.copies.get_mut(&account)) {
            change(copy);
        }
    }

    /// Source of message `id`.
    pub fn source(&self, id: u64) -> Option<usize> {
        self.lock().messages.get(&id).map(|message| message.source)
    }

    /// Something that must not be; the run fails.
    pub fn fault(&self, text: String) {
        self.lock().faults.push(text);
    }

    /// Everything that must not be, so far.
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    /// All messages.
    pub fn messages(&self) -> BTreeMap<u64, Message> {
        self.lock().messages.clone()
    }

    /// Acknowledged copies that no reader saw yet.
    pub fn unseen(&self) -> usize {
        let inner = self.lock();
        let accepted = inner.messages.values().filter(|message| message.accepted.is_some());
        accepted.flat_map(|message| message.copies.values()).filter(|copy| copy.seen.is_none()).count()
    }

    /// The longest time from a 250 to the first sight; messages nobody saw count until now.
    pub fn slowest_sight(&self) -> (Duration, u64) {
        let inner = self.lock();
        let mut slowest = (Duration::ZERO, 0);
        for (&id, message) in &inner.messages {
            let Some(accepted) = message.accepted else { continue };
            for copy in message.copies.values() {
                let seen = copy.seen.unwrap_or_else(Instant::now);
                slowest = slowest.max((seen.saturating_duration_since(accepted), id));
            }
        }
        slowest
    }
}
