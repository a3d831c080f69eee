//! What the clients know: every operation with its outcome (see `outcomes.md`). The checker compares this, and only
//! this, with what the nodes hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use node::demo::clients::imap::Selected;

/// The header that names a message.
pub const NAME_HEADER: &str = "X-Lab";
/// Every so many messages are large.
const LARGE_EVERY: u64 = 64;
const LARGE_LINES: u64 = 1_500;
const SMALL_LINES: u64 = 40;

/// What is done to a message follows from its number, modulo this.
pub const ROLES: u64 = 16;

/// Whether clients expunge, delete or move this message.
#[must_use]
pub const fn is_taken_away(id: u64) -> bool {
    id % ROLES <= 3
}

/// The id in the text of a 250.
fn accept_id(text: &str) -> Option<&str> {
    text.split_once("accepted as ").and_then(|(_, rest)| rest.split_whitespace().next())
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Ok,
    /// It did not.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// Where a copy of a message was when something was done to it.
pub type Key = (String, u32, u32);

/// One message to one account.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Index of the account.
    pub account: usize,
    /// 250s.
    pub ok: usize,
    /// Accept ids the 250s named.
    pub accepts: BTreeSet<String>,
    /// When the first came.
    pub first_ok: Option<Instant>,
    /// Final dots without an answer.
    pub unknown: usize,
    /// Copies expunged or POP3-deleted with OK.
    pub expunged: BTreeSet<Key>,
    /// Those whose expunge was sent, with whatever answer but NO.
    pub expunge_sent: BTreeSet<Key>,
    /// Flags whose STORE was answered with OK.
    pub flags: BTreeSet<String>,
    /// Where the last MOVE that was OK put it; `None` after one without an answer.
    pub moved: Option<String>,
    /// Moves that were OK or had no answer. More than one: it was moved on both sides of a split, and each left a copy.
    pub moves: usize,
}

impl Message {
    /// Fewest and most copies that may lie there.
    #[must_use]
    pub fn copies(&self) -> (usize, usize) {
        let least = usize::from(self.ok > 0).saturating_sub(self.expunge_sent.len());
        let most = self.ok + self.unknown + self.moves.saturating_sub(1);
        (least, most.saturating_sub(self.expunged.len()))
    }
}

/// A thing with a name: a mailbox, an account of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// It must be there.
    There,
    /// It must not.
    Gone,
    /// Either.
    Perhaps,
}

/// Everything of a run.
pub struct Model {
    started: Instant,
    /// Names this run in every message.
    pub run: String,
    /// Accounts above it are the probes'; they get no large messages.
    writable: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    messages: BTreeMap<u64, Message>,
    next: u64,
    counts: BTreeMap<(&'static str, &'static str), u64>,
    shown: BTreeMap<(usize, Key), u64>,
    uidls: BTreeMap<(usize, String), u64>,
    newest: BTreeMap<(usize, String), Selected>,
    mailboxes: BTreeMap<(usize, String), Named>,
    settings: BTreeMap<String, Named>,
    faults: Vec<String>,
    suspects: Vec<String>,
    log: Option<std::fs::File>,
}

impl Model {
    /// An empty one; every operation is written to `log`.
    ///
    /// # Errors
    /// The log cannot be made.
    pub fn new(log: &std::path::Path, writable: usize) -> anyhow::Result<Self> {
        let inner = Inner { log: Some(std::fs::File::create(log)?), ..Inner::default() };
        let run = format!("{:08x}", rand::random::<u32>());
        Ok(Self { started: Instant::now(), run, writable, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the beginning.
    #[must_use]
    pub fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// One line for whoever looks for the cause of a violation.
    pub fn note(&self, text: &str) {
        let at = self.started.elapsed().as_millis();
        if let Some(log) = &mut self.lock().log {
            // The history is for people; the model is what counts.
            let _ = writeln!(log, "{at:>8} {text}");
        }
    }

    fn count(&self, what: &'static str, outcome: Outcome) {
        let word = match outcome {
            Outcome::Ok => "ok",
            Outcome::Fail => "fail",
            Outcome::Unknown => "unknown",
        };
        *self.lock().counts.entry((what, word)).or_default() += 1;
    }

    /// Operations by kind and outcome.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.lock().counts.clone()
    }

    /// A new message to an account; its number.
    pub fn begin(&self, account: usize) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        inner.messages.insert(id, Message { account, ..Message::default() });
        id
    }

    /// What is sent as message `id`.
    #[must_use]
    pub fn bytes(&self, id: u64) -> Vec<u8> {
        let large =
            id.is_multiple_of(LARGE_EVERY) && self.message(id).is_some_and(|message| message.account < self.writable);
        let lines = if large { LARGE_LINES } else { 1 + id % SMALL_LINES };
        let mut text =
            format!("{NAME_HEADER}: {}-{id}\r\nFrom: lab@example.org\r\nSubject: number {id}\r\n\r\n", self.run);
        for line in 0..lines {
            let _ =
                write!(text, "line {line} of {id}: {:016x}\r\n", (id << 20 | line).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        text.into_bytes()
    }

    /// The number in a stored message, and where what was sent begins.
    #[must_use]
    pub fn recognise(&self, stored: &[u8]) -> Option<(u64, usize)> {
        let mark = format!("{NAME_HEADER}: {}-", self.run).into_bytes();
        let at = stored.windows(mark.len()).position(|window| window == mark)?;
        let digits = stored.get(at + mark.len()..)?.iter().take_while(|byte| byte.is_ascii_digit());
        let digits: String = digits.map(|&byte| char::from(byte)).collect();
        Some((digits.parse().ok()?, at))
    }

    /// How a delivery ended.
    pub fn delivered(&self, id: u64, outcome: Outcome, text: &str) {
        self.count("delivery", outcome);
        if outcome != Outcome::Ok {
            self.note(&format!("delivery {id}: {outcome:?} {text}"));
        }
        self.change(id, |message| match outcome {
            Outcome::Ok => {
                message.ok += 1;
                message.accepts.extend(accept_id(text).map(ToOwned::to_owned));
                message.first_ok.get_or_insert_with(Instant::now);
            }
            Outcome::Unknown => message.unknown += 1,
            Outcome::Fail => {}
        });
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Message)) {
        if let Some(message) = self.lock().messages.get_mut(&id) {
            change(message);
        }
    }

    /// How a change of one copy ended. `apply` is told the outcome.
    pub fn changed(&self, what: &'static str, id: u64, outcome: Outcome, apply: impl FnOnce(&mut Message, Outcome)) {
        self.count(what, outcome);
        self.note(&format!("{what} {id}: {outcome:?}"));
        self.change(id, |message| apply(message, outcome));
    }

    /// A client was shown message `id` under a number.
    pub fn shown(&self, by: &str, id: u64, account: usize, key: Key) {
        let mut inner = self.lock();
        let other = *inner.shown.entry((account, key.clone())).or_insert(id);
        if other != id {
            inner
                .faults
                .push(format!("renumbered: account {account}, {key:?} named {other}, now {id} (shown to {by})"));
        }
    }

    /// A client was shown message `id` under a UIDL.
    pub fn shown_uidl(&self, id: u64, account: usize, uidl: &str) {
        let mut inner = self.lock();
        let other = *inner.uidls.entry((account, uidl.to_owned())).or_insert(id);
        if other != id {
            inner.faults.push(format!("renumbered: account {account}, UIDL {uidl} named {other}, now {id}"));
        }
    }

    /// The newest that any client was told of a mailbox, at whichever node. Whoever asks after this must be told as much.
    #[must_use]
    pub fn newest(&self, account: usize, mailbox: &str) -> Selected {
        self.lock().newest.get(&(account, mailbox.to_owned())).copied().unwrap_or_default()
    }

    /// What a SELECT said to a client; `before`: [`Self::newest`] when it asked.
    pub fn selected(&self, by: &str, account: usize, mailbox: &str, (before, now): (Selected, Selected)) {
        if now.uid_validity < before.uid_validity
            || (now.uid_validity == before.uid_validity
                && (now.uid_next < before.uid_next || now.highest_modseq < before.highest_modseq))
        {
            self.suspect(format!("number fell: {mailbox} of account {account} for {by}: {before:?} became {now:?}"));
        }
        let mut inner = self.lock();
        let newest = inner.newest.entry((account, mailbox.to_owned())).or_insert(now);
        if now.uid_validity > newest.uid_validity {
            *newest = now;
        } else if now.uid_validity == newest.uid_validity {
            newest.uid_next = newest.uid_next.max(now.uid_next);
            newest.highest_modseq = newest.highest_modseq.max(now.highest_modseq);
        }
    }

    /// Sets what must be true of a mailbox of an account, after an operation that ended like this.
    pub fn mailbox(&self, what: &'static str, outcome: Outcome, account: usize, becomes: &[(String, Named)]) {
        self.count(what, outcome);
        self.note(&format!("{what} {becomes:?}: {outcome:?}"));
        let mut inner = self.lock();
        for (name, state) in becomes {
            let state = match outcome {
                Outcome::Ok => *state,
                Outcome::Unknown => Named::Perhaps,
                Outcome::Fail => continue,
            };
            inner.mailboxes.insert((account, name.clone()), state);
        }
    }

    /// How adding an account to the settings ended.
    pub fn setting(&self, address: &str, outcome: Outcome) {
        self.count("setting", outcome);
        self.note(&format!("setting {address}: {outcome:?}"));
        let state = if outcome == Outcome::Ok { Named::There } else { Named::Perhaps };
        self.lock().settings.insert(address.to_owned(), state);
    }

    /// Something that must not be but between the two sides of a true split until it is healed.
    pub fn suspect(&self, text: String) {
        self.note(&format!("SUSPECT {text}"));
        self.lock().suspects.push(text);
    }

    /// Ends a time in which there was a true split, or was none: what is suspected of it until now is dropped, or counts.
    pub fn settle(&self, was_split: bool) {
        let mut inner = self.lock();
        let suspects = std::mem::take(&mut inner.suspects);
        if !was_split {
            inner.faults.extend(suspects);
        }
    }

    /// Something that must not be; the run fails.
    pub fn fault(&self, text: String) {
        self.note(&format!("FAULT {text}"));
        self.lock().faults.push(text);
    }

    /// Everything that must not be, so far.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    /// One message.
    #[must_use]
    pub fn message(&self, id: u64) -> Option<Message> {
        self.lock().messages.get(&id).cloned()
    }

    /// Messages that became ok between two moments and that nobody takes away.
    #[must_use]
    pub fn kept(&self, from: Instant, to: Instant) -> Vec<(u64, usize)> {
        let inner = self.lock();
        let within = |message: &Message| message.first_ok.is_some_and(|at| from <= at && at <= to);
        let kept = inner.messages.iter().filter(|(id, message)| within(message) && !is_taken_away(**id));
        kept.map(|(id, message)| (*id, message.account)).collect()
    }

    /// All messages.
    #[must_use]
    pub fn messages(&self) -> BTreeMap<u64, Message> {
        self.lock().messages.clone()
    }

    /// Mailboxes by account and name.
    #[must_use]
    pub fn mailboxes(&self) -> BTreeMap<(usize, String), Named> {
        self.lock().mailboxes.clone()
    }

    /// Accounts of the settings.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<String, Named> {
        self.lock().settings.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> (Model, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("folder");
        (Model::new(&folder.path().join("log"), 1).expect("model"), folder)
    }

    fn key(uid: u32) -> Key {
        ("INBOX".into(), 7, uid)
    }

    #[test]
    fn copies_follow_from_outcomes() {
        let mut message = Message { ok: 1, unknown: 2, ..Message::default() };
        assert_eq!(message.copies(), (1, 3));
        message.expunge_sent.insert(key(1));
        assert_eq!(message.copies(), (0, 3), "an expunge without an answer may have happened");
        message.expunged.insert(key(1));
        assert_eq!(message.copies(), (0, 2));
        assert_eq!(Message { ok: 1, moves: 2, ..Message::default() }.copies(), (1, 2));
        assert_eq!(Message { unknown: 1, ..Message::default() }.copies(), (0, 1));
        assert_eq!(Message::default().copies(), (0, 0));
    }

    #[test]
    fn a_number_names_one_message_and_never_falls() {
        let (model, _folder) = model();
        model.shown("a", 1, 0, key(5));
        model.shown("b", 1, 0, key(5));
        assert!(model.faults().is_empty());
        model.shown("b", 2, 0, key(5));
        assert_eq!(model.faults().len(), 1);
    }

    #[test]
    fn whoever_asks_later_is_told_no_less() {
        let (model, _folder) = model();
        let said = |uid_next, highest_modseq| Selected { exists: 0, uid_validity: 7, uid_next, highest_modseq };
        let asked = || model.newest(0, "INBOX");
        let early = asked();
        model.selected("a", 0, "INBOX", (asked(), said(10, 20)));
        model.selected("b", 0, "INBOX", (early, said(9, 20)));
        model.settle(false);
        assert!(model.faults().is_empty(), "asked before the other was answered");
        model.selected("b", 0, "INBOX", (asked(), said(10, 19)));
        model.settle(true);
        assert!(model.faults().is_empty(), "in a true split it may be the other side's");
        model.selected("b", 0, "INBOX", (asked(), said(10, 19)));
        model.settle(false);
        assert_eq!(model.faults().len(), 1, "not when it is healed");
        model.selected("a", 0, "INBOX", (asked(), Selected { uid_validity: 8, ..Selected::default() }));
        model.settle(false);
        assert_eq!(model.faults().len(), 1, "a new UIDVALIDITY begins anew");
        model.selected("a", 0, "INBOX", (asked(), said(10, 20)));
        model.settle(false);
        assert_eq!(model.faults().len(), 2, "and never goes back");
    }

    #[test]
    fn a_250_names_its_accept() {
        let (model, _folder) = model();
        let id = model.begin(0);
        model.delivered(id, Outcome::Ok, "2.0.0 accepted as 1-6b0b3237-133");
        model.delivered(id, Outcome::Unknown, "");
        let accepts = model.message(id).expect("begun").accepts;
        assert_eq!(accepts.into_iter().collect::<Vec<_>>(), ["1-6b0b3237-133"]);
    }

    #[test]
    fn a_message_is_recognised() {
        let (model, _folder) = model();
        let id = model.begin(0);
        let mut stored = b"Received: x\r\n".to_vec();
        stored.extend(model.bytes(id));
        assert_eq!(model.recognise(&stored), Some((id, 13)));
        assert_eq!(model.recognise(b"no"), None);
    }
}
