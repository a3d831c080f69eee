//! FETCH (RFC 3501 §6.4.5, §7.4.2, RFC 7162 §3.1.4), written piece by piece as the client reads.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mailbox::op::{AccountOp, FlagMode, Outcome};
use mailbox::read;
use mailbox::rows::Placement;
use mime::Facts;
use vocab::{Damaged, Flags, MailboxId, ModSeq, Rows, SystemFlag, Uid};

use super::section::{Cache, Have, Span, fields_of, span_of};
use super::view::{Positions, View};
use super::{ImapSession, OUTPUT_PIECE_BYTES, Pending, Query, Step, Work, refusal};
use crate::codec::date::write_date_time;
use crate::codec::fetch::{FetchCommand, Item, Piece, Section, write_section};
use crate::codec::response;

/// Placements read from the snapshot at once.
const BLOCK: usize = 256;

/// A FETCH under way.
pub(super) struct FetchRun {
    tag: String,
    rows: Arc<dyn Rows>,
    mailbox: MailboxId,
    items: Vec<Item>,
    positions: VecDeque<(usize, usize)>,
    block: VecDeque<(usize, Placement)>,
    current: Option<Message>,
    changed_since: Option<ModSeq>,
    missing: bool,
    by_uid: bool,
    /// Messages whose flags this FETCH changed.
    seen: BTreeSet<u32>,
    condstore: bool,
}

/// The message that is being written.
struct Message {
    placement: Placement,
    facts: Option<Facts>,
    ahead: Span,
    cache: Cache,
    item: usize,
    /// What is left of a literal.
    literal: Option<Span>,
    /// Header bytes gathered for HEADER.FIELDS.
    header: Vec<u8>,
    /// Where the message begins in the output, unless part of it is out.
    start: Option<usize>,
    failed: bool,
}

enum Progress {
    Done,
    More,
    Ask(u64, u64),
    Failed,
}

fn needs_facts(item: &Item) -> bool {
    matches!(item, Item::Envelope | Item::Body | Item::BodyStructure | Item::Section { .. })
}

impl ImapSession {
    pub(super) fn fetch(&mut self, tag: String, fetch: FetchCommand, rows: Arc<dyn Rows>) -> Result<(), Damaged> {
        if fetch.changed_since.is_some() || fetch.items.contains(&Item::ModSeq) {
            self.enable_condstore();
        }
        let sets_seen = fetch.items.iter().any(|item| matches!(item, Item::Section { peek: false, .. }));
        let Some(selected) = &self.selected else { return Ok(()) };
        if !sets_seen || selected.read_only {
            return self.fetch_now(tag, &fetch, BTreeSet::new(), rows);
        }
        let mut placements = Vec::new();
        for (from, to) in selected.view.resolve(&fetch.set, fetch.by_uid) {
            let uids = selected.view.uids(from, to);
            let (Some(first), Some(last)) = (uids.first(), uids.last()) else { continue };
            let unseen = read::uids_in(rows.as_ref(), selected.mailbox, Uid(*first)..=Uid(*last))?;
            placements.extend(unseen.into_iter().filter(|row| !row.flags.has(SystemFlag::Seen)).map(|row| row.id));
        }
        if placements.is_empty() {
            return self.fetch_now(tag, &fetch, BTreeSet::new(), rows);
        }
        let op = AccountOp::Store {
            mailbox: selected.mailbox,
            placements,
            mode: FlagMode::Add,
            flags: Flags::of(&[SystemFlag::Seen]),
            unchanged_since: None,
        };
        self.submit(op, Pending::Seen { tag, fetch: Box::new(fetch) });
        Ok(())
    }

    /// `\Seen` is set; the changed flags go out with the message they belong to.
    pub(super) fn on_seen(&mut self, tag: String, fetch: Box<FetchCommand>, outcome: Outcome) {
        let mut seen = BTreeSet::new();
        if let (Outcome::Stored { stored, .. }, Some(selected)) = (outcome, self.selected.as_deref_mut()) {
            for row in stored {
                selected.view.note_told(row.uid, row.modseq);
                seen.insert(row.uid.0);
            }
        }
        self.ask_rows(Pending::FetchAfterSeen { tag, fetch, seen });
    }

    /// Begins to write.
    pub(super) fn fetch_now(
        &mut self,
        tag: String,
        fetch: &FetchCommand,
        seen: BTreeSet<u32>,
        rows: Arc<dyn Rows>,
    ) -> Result<(), Damaged> {
        if !self.show_news(rows.as_ref(), super::view::News::NoExpunge)? {
            return Ok(());
        }
        let Some(selected) = &self.selected else { return Ok(()) };
        let positions: Positions = selected.view.resolve(&fetch.set, fetch.by_uid);
        self.start(Work::Fetch(FetchRun {
            tag,
            rows,
            mailbox: selected.mailbox,
            items: fetch.items.clone(),
            positions: positions.into(),
            block: VecDeque::new(),
            current: None,
            changed_since: fetch.changed_since,
            missing: false,
            by_uid: fetch.by_uid,
            seen,
            condstore: self.condstore,
        }));
        Ok(())
    }
}

impl FetchRun {
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    pub(super) fn on_body(&mut self, bytes: Option<Bytes>) {
        if let Some(message) = &mut self.current {
            match bytes {
                Some(bytes) => message.cache.put(bytes),
                None => message.failed = true,
            }
        }
    }

    /// Writes until a piece is full, a body is needed, or all is said.
    pub(super) fn step(&mut self, view: &View, out: &mut Vec<u8>) -> Step {
        loop {
            if let Some(mut message) = self.current.take() {
                match self.write(&mut message, out) {
                    Progress::Done => {}
                    Progress::More => {
                        // Part of the message leaves now: it cannot be taken back any more.
                        message.start = None;
                        self.current = Some(message);
                        return Step::Piece;
                    }
                    Progress::Ask(from, to) => {
                        let blob = message.placement.blob;
                        self.current = Some(message);
                        return Step::Ask(Query::Body { blob, from, to });
                    }
                    Progress::Failed => return fail(&message, out),
                }
            }
            if out.len() >= OUTPUT_PIECE_BYTES {
                return Step::Piece;
            }
            match self.next_message(view, out.len()) {
                Ok(Some(message)) => self.current = Some(message),
                Ok(None) if self.missing && !self.by_uid => {
                    return Step::Done("OK [EXPUNGEISSUED] FETCH completed for what is still there".to_owned());
                }
                Ok(None) => return Step::Done("OK FETCH completed".to_owned()),
                Err(_) => return Step::Done(refusal::UNAVAILABLE.to_owned()),
            }
        }
    }

    fn next_message(&mut self, view: &View, start: usize) -> Result<Option<Message>, Damaged> {
        let placement = loop {
            match self.block.pop_front() {
                Some((_, placement)) if self.changed_since.is_some_and(|since| placement.modseq <= since) => {}
                Some(next) => break next,
                None if !self.read_block(view)? => return Ok(None),
                None => {}
            }
        };
        let (position, placement) = placement;
        let mut facts = None;
        if self.items.iter().any(needs_facts) {
            let encoded = read::facts(self.rows.as_ref(), placement.email)?;
            let encoded = encoded.ok_or_else(|| Damaged(format!("no facts of {}", placement.email)))?;
            facts = Some(Facts::decode(&encoded)?);
        }
        let mut message = Message {
            ahead: Span { from: u64::MAX, to: 0 },
            placement,
            facts,
            cache: Cache::default(),
            item: 0,
            literal: None,
            header: format!("* {} FETCH (", position + 1).into_bytes(),
            start: Some(start),
            failed: false,
        };
        message.ahead = message.span_of_all(&self.items);
        Ok(Some(message))
    }

    /// Reads the next run of neighbouring positions; `false` when there are none.
    fn read_block(&mut self, view: &View) -> Result<bool, Damaged> {
        let Some((from, to)) = self.positions.pop_front() else { return Ok(false) };
        let end = to.min(from + BLOCK);
        if end < to {
            self.positions.push_front((end, to));
        }
        let uids = view.uids(from, end);
        let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return Ok(true) };
        let placements = read::placements(self.rows.as_ref(), self.mailbox, Uid(*first)..=Uid(*last))?;
        let mut found = 0;
        for placement in placements {
            if let Ok(at) = uids.binary_search(&placement.uid.0) {
                found += 1;
                self.block.push_back((from + at, placement));
            }
        }
        self.missing |= found < uids.len();
        Ok(true)
    }

    fn write(&self, message: &mut Message, out: &mut Vec<u8>) -> Progress {
        if message.failed {
            return Progress::Failed;
        }
        if message.item == 0 && message.literal.is_none() && !message.header.is_empty() {
            out.append(&mut message.header);
        }
        while let Some(item) = self.items.get(message.item) {
            if message.literal.is_none() && message.header.is_empty() && message.item > 0 {
                out.push(b' ');
            }
            let progress = match item {
                Item::Section { section, name, .. } => message.write_section(section, *name, out),
                plain => {
                    write_plain(message, plain, out);
                    Progress::Done
                }
            };
            match progress {
                Progress::Done => message.item += 1,
                Progress::Ask(from, to) => return Progress::Ask(from, to),
                other => return other,
            }
        }
        if self.seen.contains(&message.placement.uid.0) {
            self.write_changed_flags(&message.placement, out);
        }
        out.extend_from_slice(b")\r\n");
        Progress::Done
    }

    fn write_changed_flags(&self, placement: &Placement, out: &mut Vec<u8>) {
        if !self.items.contains(&Item::Flags) {
            out.extend_from_slice(format!(" FLAGS {}", response::flags(&placement.flags)).as_bytes());
        }
        if self.condstore && !self.items.contains(&Item::ModSeq) {
            out.extend_from_slice(format!(" MODSEQ ({})", placement.modseq.0).as_bytes());
        }
    }
}

/// Takes back what is not out yet; when part of the message is out, only closing helps.
fn fail(message: &Message, out: &mut Vec<u8>) -> Step {
    match message.start {
        Some(start) => {
            out.truncate(start);
            Step::Done(refusal::UNAVAILABLE.to_owned())
        }
        None => Step::Broken,
    }
}

fn write_plain(message: &Message, item: &Item, out: &mut Vec<u8>) {
    let placement = &message.placement;
    let rendered = |name: &str, pick: fn(&Facts) -> &Bytes| {
        let text = message.facts.as_ref().map_or(&b"NIL"[..], |facts| pick(facts));
        [name.as_bytes(), b" ", text].concat()
    };
    let text = match item {
        Item::Uid => format!("UID {}", placement.uid.0).into_bytes(),
        Item::Flags => format!("FLAGS {}", response::flags(&placement.flags)).into_bytes(),
        Item::InternalDate => format!("INTERNALDATE {}", write_date_time(placement.internal_date)).into_bytes(),
        Item::Size => format!("RFC822.SIZE {}", placement.size()).into_bytes(),
        Item::ModSeq => format!("MODSEQ ({})", placement.modseq.0).into_bytes(),
        Item::EmailId => format!("EMAILID ({})", placement.email).into_bytes(),
        Item::ThreadId => format!("THREADID ({})", placement.thread).into_bytes(),
        Item::Envelope => rendered("ENVELOPE", |facts| &facts.envelope),
        Item::Body => rendered("BODY", |facts| &facts.body),
        Item::BodyStructure => rendered("BODYSTRUCTURE", |facts| &facts.body_structure),
        Item::Section { .. } => Vec::new(),
    };
    out.extend_from_slice(&text);
}

impl Message {
    /// From the first to the last byte any section needs, so that small messages need one question.
    fn span_of_all(&self, items: &[Item]) -> Span {
        let Some(facts) = &self.facts else { return Span { from: 0, to: 0 } };
        let mut all = Span { from: u64::MAX, to: 0 };
        for item in items {
            if let Item::Section { section, .. } = item
                && let Some(span) = span_of(&self.placement, facts, section)
            {
                let span =
                    if matches!(section.piece, Piece::Fields { .. }) { span } else { span.partial(section.partial) };
                all = Span { from: all.from.min(span.from), to: all.to.max(span.to) };
            }
        }
        if all.from > all.to { Span { from: 0, to: 0 } } else { all }
    }

    fn write_section(&mut self, section: &Section, name: Option<&'static str>, out: &mut Vec<u8>) -> Progress {
        let label = || name.map_or_else(|| write_section(section), str::to_owned);
        let Some(span) = self.facts.as_ref().and_then(|facts| span_of(&self.placement, facts, section)) else {
            out.extend_from_slice(format!("{} NIL", label()).as_bytes());
            return Progress::Done;
        };
        if matches!(section.piece, Piece::Fields { .. }) {
            return self.write_fields(section, span, &label(), out);
        }
        let span = span.partial(section.partial);
        if self.literal.is_none() {
            // Ask before the literal is announced: a body that is missing can still be answered cleanly.
            if let Have::Ask(from, to) = self.cache.read(&self.placement, span, self.ahead) {
                self.literal = Some(span);
                self.header = format!("{} {{{}}}\r\n", label(), span.len()).into_bytes();
                return Progress::Ask(from, to);
            }
            self.literal = Some(span);
            self.header = format!("{} {{{}}}\r\n", label(), span.len()).into_bytes();
        }
        let mut left = self.literal.unwrap_or(span);
        if left == span {
            out.append(&mut self.header);
        }
        while left.len() > 0 {
            match self.cache.read(&self.placement, left, Span { from: left.from, to: self.ahead.to }) {
                Have::Bytes(bytes) if !bytes.is_empty() => {
                    out.extend_from_slice(&bytes);
                    left.from += bytes.len() as u64;
                }
                Have::Ask(from, to) => {
                    self.literal = Some(left);
                    return Progress::Ask(from, to);
                }
                Have::Bytes(_) | Have::Missing => return Progress::Failed,
            }
            self.literal = Some(left);
            if out.len() >= OUTPUT_PIECE_BYTES && left.len() > 0 {
                return Progress::More;
            }
        }
        self.literal = None;
        Progress::Done
    }

    /// Gathers the header, then cuts the fields out of it.
    fn write_fields(&mut self, section: &Section, span: Span, label: &str, out: &mut Vec<u8>) -> Progress {
        let mut left = self.literal.unwrap_or(span);
        while left.len() > 0 {
            match self.cache.read(&self.placement, left, self.ahead) {
                Have::Bytes(bytes) if !bytes.is_empty() => {
                    self.header.extend_from_slice(&bytes);
                    left.from += bytes.len() as u64;
                }
                Have::Ask(from, to) => {
                    self.literal = Some(left);
                    return Progress::Ask(from, to);
                }
                Have::Bytes(_) | Have::Missing => return Progress::Failed,
            }
        }
        let fields = fields_of(&std::mem::take(&mut self.header), &section.piece);
        self.literal = None;
        let whole = Span { from: 0, to: fields.len() as u64 }.partial(section.partial);
        let from = usize::try_from(whole.from).unwrap_or(usize::MAX);
        let to = usize::try_from(whole.to).unwrap_or(usize::MAX);
        let fields = fields.get(from..to).unwrap_or_default();
        out.extend_from_slice(format!("{label} {{{}}}\r\n", fields.len()).as_bytes());
        out.extend_from_slice(fields);
        Progress::Done
    }
}
