//! SEARCH (RFC 3501 §6.4.4, RFC 7162 §3.1.5).
//!
//! What the rows and facts tell is decided from them; only messages that stay undecided are read.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mailbox::read;
use mailbox::rows::Placement;
use mime::Facts;
use vocab::{Damaged, MailboxId, ModSeq, Rows, Uid};

use super::section::{ASK_BYTES_MAX, Span};
use super::view::View;
use super::{ImapSession, Query, Step, Work, refusal};
use crate::codec::date::Day;
use crate::codec::search::{Compare, Key, SearchCommand};
use crate::codec::sequence::contains;

/// Placements read from the snapshot at once.
const BLOCK: usize = 256;

/// A SEARCH under way.
pub(super) struct SearchRun {
    tag: String,
    rows: Arc<dyn Rows>,
    mailbox: MailboxId,
    by_uid: bool,
    key: Key,
    /// Ranges of `Sequence` and `Uid` keys are resolved against these.
    largest_uid: u32,
    largest_number: u32,
    next: usize,
    block: VecDeque<(usize, Placement)>,
    candidate: Option<Candidate>,
    hits: Vec<u32>,
    highest: ModSeq,
}

/// A message that is being judged.
struct Candidate {
    number: u32,
    placement: Placement,
    facts: Option<Facts>,
    /// Bytes of the message as accepted, read so far; `Some` once they are needed.
    bytes: Option<Vec<u8>>,
    /// How many are needed.
    wanted: u64,
    failed: bool,
    stalled: bool,
}

impl ImapSession {
    pub(super) fn search(&mut self, tag: String, search: SearchCommand, rows: Arc<dyn Rows>) {
        if search.key.any(&|key| matches!(key, Key::ModSeq(_))) {
            self.enable_condstore();
        }
        let Some(selected) = &self.selected else { return };
        let view = &selected.view;
        self.start(Work::Search(SearchRun {
            tag,
            rows,
            mailbox: selected.mailbox,
            by_uid: search.by_uid,
            key: search.key,
            largest_uid: view.uids(0, usize::MAX).last().copied().unwrap_or(0),
            largest_number: u32::try_from(view.len()).unwrap_or(u32::MAX),
            next: 0,
            block: VecDeque::new(),
            candidate: None,
            hits: Vec::new(),
            highest: ModSeq(0),
        }));
    }
}

impl SearchRun {
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    pub(super) fn on_body(&mut self, bytes: Option<Bytes>) {
        let Some(candidate) = &mut self.candidate else { return };
        match bytes {
            Some(bytes) => {
                candidate.stalled = bytes.is_empty();
                candidate.bytes.get_or_insert_default().extend_from_slice(&bytes);
            }
            None => candidate.failed = true,
        }
    }

    pub(super) fn step(&mut self, view: &View, out: &mut Vec<u8>) -> Step {
        loop {
            match self.judge_candidate() {
                Ok(None) => {}
                Ok(Some(query)) => return Step::Ask(query),
                Err(_) => return Step::Done(refusal::UNAVAILABLE.to_owned()),
            }
            match self.next_candidate(view) {
                Ok(Some(candidate)) => self.candidate = Some(candidate),
                Ok(None) => return self.report(out),
                Err(_) => return Step::Done(refusal::UNAVAILABLE.to_owned()),
            }
        }
    }

    fn report(&self, out: &mut Vec<u8>) -> Step {
        let mut line = String::from("* SEARCH");
        for hit in &self.hits {
            line += &format!(" {hit}");
        }
        if self.highest.0 > 0 && self.key.any(&|key| matches!(key, Key::ModSeq(_))) {
            line += &format!(" (MODSEQ {})", self.highest.0);
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
        Step::Done("OK SEARCH completed".to_owned())
    }

    fn next_candidate(&mut self, view: &View) -> Result<Option<Candidate>, Damaged> {
        while self.block.is_empty() {
            let uids = view.uids(self.next, self.next + BLOCK);
            let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return Ok(None) };
            let placements = read::placements(self.rows.as_ref(), self.mailbox, Uid(*first)..=Uid(*last))?;
            for placement in placements {
                if let Ok(at) = uids.binary_search(&placement.uid.0) {
                    self.block.push_back((self.next + at, placement));
                }
            }
            self.next += uids.len();
        }
        Ok(self.block.pop_front().map(|(position, placement)| Candidate {
            number: u32::try_from(position + 1).unwrap_or(u32::MAX),
            placement,
            facts: None,
            bytes: None,
            wanted: 0,
            failed: false,
            stalled: false,
        }))
    }

    /// Decides the candidate, or says what to ask for.
    fn judge_candidate(&mut self) -> Result<Option<Query>, Damaged> {
        let Some(mut candidate) = self.candidate.take() else { return Ok(None) };
        if candidate.failed || candidate.stalled {
            return Err(Damaged(format!("body of {} is not available", candidate.placement.id)));
        }
        if let Some(query) = candidate.more() {
            self.candidate = Some(candidate);
            return Ok(Some(query));
        }
        let hit = loop {
            match self.judge(&self.key, &candidate) {
                Verdict::Yes => break true,
                Verdict::No => break false,
                Verdict::Needs(need) => {
                    candidate.need(need, self.rows.as_ref())?;
                    if let Some(query) = candidate.more() {
                        self.candidate = Some(candidate);
                        return Ok(Some(query));
                    }
                }
            }
        };
        if hit {
            self.hits.push(if self.by_uid { candidate.placement.uid.0 } else { candidate.number });
            self.highest = self.highest.max(candidate.placement.modseq);
        }
        Ok(None)
    }

    fn judge(&self, key: &Key, candidate: &Candidate) -> Verdict {
        let placement = &candidate.placement;
        match key {
            Key::All => Verdict::Yes,
            Key::Nothing => Verdict::No,
            Key::And(keys) => Verdict::all(keys.iter().map(|key| self.judge(key, candidate))),
            Key::Or(pair) => {
                let both = [&pair.0, &pair.1].map(|key| self.judge(key, candidate).not());
                Verdict::all(both.into_iter()).not()
            }
            Key::Not(key) => self.judge(key, candidate).not(),
            Key::Flag(flag) => placement.flags.has(*flag).into(),
            Key::Keyword(keyword) => placement.flags.keywords.contains(keyword).into(),
            Key::Sequence(set) => contains(&set.resolve(self.largest_number), candidate.number).into(),
            Key::Uid(set) => contains(&set.resolve(self.largest_uid), placement.uid.0).into(),
            Key::Internal(compare, day) => holds(*compare, Day::of(placement.internal_date), *day).into(),
            Key::Size(compare, size) => holds(*compare, placement.size(), *size).into(),
            Key::ModSeq(modseq) => (placement.modseq >= *modseq).into(),
            Key::EmailId(id) => (placement.email.to_string() == *id).into(),
            Key::ThreadId(id) => (placement.thread.to_string() == *id).into(),
            Key::Sent(..) | Key::Header(..) | Key::Body(_) | Key::Text(_) => candidate.judge_content(key),
        }
    }
}

fn holds<T: PartialOrd>(compare: Compare, value: T, bound: T) -> bool {
    match compare {
        Compare::Below => value < bound,
        Compare::Equal => value == bound,
        Compare::From => value >= bound,
        Compare::Above => value > bound,
    }
}

/// What must be read before a key can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Facts,
    Header,
    Body,
}

enum Verdict {
    Yes,
    No,
    Needs(Need),
}

impl From<bool> for Verdict {
    fn from(hit: bool) -> Self {
        if hit { Self::Yes } else { Self::No }
    }
}

impl Verdict {
    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            needs @ Self::Needs(_) => needs,
        }
    }
    /// No as soon as one says no, else the cheapest need.
    fn all(verdicts: impl Iterator<Item = Self>) -> Self {
        let mut need: Option<Need> = None;
        for verdict in verdicts {
            match verdict {
                Self::No => return Self::No,
                Self::Yes => {}
                Self::Needs(other) => need = Some(need.map_or(other, |need| need.min(other))),
            }
        }
        need.map_or(Self::Yes, Self::Needs)
    }
}

impl Candidate {
    fn need(&mut self, need: Need, rows: &dyn Rows) -> Result<(), Damaged> {
        if self.facts.is_none() {
            let encoded = read::facts(rows, self.placement.email)?;
            let encoded = encoded.ok_or_else(|| Damaged(format!("no facts of {}", self.placement.email)))?;
            self.facts = Some(Facts::decode(&encoded)?);
        }
        match need {
            Need::Facts => {}
            Need::Header => {
                let header = self.facts.as_ref().map_or(0, |facts| facts.header_length);
                self.wanted = header.min(self.placement.blob_size);
                self.bytes.get_or_insert_default();
            }
            Need::Body => {
                self.wanted = self.placement.blob_size;
                self.bytes.get_or_insert_default();
            }
        }
        Ok(())
    }

    /// The question for bytes that are wanted and not there.
    fn more(&self) -> Option<Query> {
        let have = self.bytes.as_ref()?.len() as u64;
        let span = Span { from: have, to: self.wanted.min(have + ASK_BYTES_MAX) };
        (span.len() > 0).then_some(Query::Body { blob: self.placement.blob, from: span.from, to: span.to })
    }

    fn has(&self, wanted: u64) -> Option<&[u8]> {
        let bytes = self.bytes.as_deref()?;
        bytes.get(..usize::try_from(wanted).ok()?)
    }

    fn judge_content(&self, key: &Key) -> Verdict {
        let Some(facts) = &self.facts else { return Verdict::Needs(Need::Facts) };
        match key {
            Key::Sent(compare, day) => {
                facts.sent.and_then(day_of).is_some_and(|sent| holds(*compare, sent, *day)).into()
            }
            Key::Header(field, text) => self.judge_header(facts, field, text),
            Key::Body(text) => match self.has(self.placement.blob_size) {
                Some(bytes) => mime::body_contains(bytes, facts, text).into(),
                None => Verdict::Needs(Need::Body),
            },
            Key::Text(text) => match self.has(self.placement.blob_size) {
                Some(bytes) => mime::text_contains(bytes, facts, text).into(),
                None => Verdict::Needs(Need::Body),
            },
            _ => Verdict::No,
        }
    }

    fn judge_header(&self, facts: &Facts, field: &str, text: &str) -> Verdict {
        let known = match field {
            "subject" => Some(&facts.subject),
            "from" => Some(&facts.from),
            "to" => Some(&facts.to),
            "cc" => Some(&facts.cc),
            _ => None,
        };
        if let Some(value) = known.filter(|_| !text.is_empty()) {
            return mime::text::contains_folded(value, &mime::text::fold(text)).into();
        }
        match self.has(facts.header_length.min(self.placement.blob_size)) {
            Some(header) => {
                let prefix = &self.placement.prefix;
                (mime::header_contains(header, field, text) || mime::header_contains(prefix, field, text)).into()
            }
            None => Verdict::Needs(Need::Header),
        }
    }
}

fn day_of(day: mime::Day) -> Option<Day> {
    Day::of_date(i32::from(day.year), day.month, day.day)
}
