//! Answering questions: by the index when an address or an id is named exactly, else through the records of the time.

use ports::log::{Filter, Page, SEARCH_LIMIT_MAX, SearchError};
use rocksdb::{Direction, IteratorMode, ReadOptions};

use crate::book::{Book, Kept};
use crate::keys::{self, Class, Key};
use crate::view::{Question, line};

/// Records of one page, unless another number is asked for.
const LIMIT: usize = 200;
/// Records looked at for one page; then the page ends, and the next goes on.
const LOOKED_AT_MAX: usize = 200_000;

fn unavailable(what: impl ToString) -> SearchError {
    SearchError::Unavailable(format!("the log cannot be read: {}", what.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(page: &str) -> Result<Key, SearchError> {
    let bad = || SearchError::Bad("`page` is none that was given".to_owned());
    let digits: Vec<u8> = page.bytes().collect();
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.and_then(|bytes| Key::from_bytes(&bytes)).ok_or_else(bad)
}

impl Book {
    /// One page of what is asked for.
    ///
    /// # Errors
    /// [`SearchError`] says what to do.
    pub fn search(&self, filter: Filter) -> Result<Page, SearchError> {
        let limit = filter.limit.unwrap_or(LIMIT).clamp(1, SEARCH_LIMIT_MAX);
        let (page, since) = (filter.page.clone(), filter.since);
        let question = Question::new(filter)?;
        if let Some(since) = since {
            return self.search_since(&question, since, limit);
        }
        let before = page.as_deref().map(key_of).transpose()?;
        let arrival = self.arrival();
        let mut found = Page { arrival, ..Page::default() };
        let mut looked_at = 0;
        for class in question.classes.iter().rev() {
            // Pages go through the classes from the last to the first.
            let before = match before {
                Some(before) if before.class < *class => continue,
                Some(before) if before.class == *class => Some(before),
                _ => None,
            };
            let scan = Scan { class: *class, before, limit };
            if self.scan(&question, &scan, &mut looked_at, &mut found)? {
                return Ok(found);
            }
        }
        Ok(found)
    }

    fn search_since(&self, question: &Question, since: u64, limit: usize) -> Result<Page, SearchError> {
        let records = self.from_arrival(since, LOOKED_AT_MAX.min(limit)).map_err(unavailable)?;
        let arrival = records.last().map_or(since.max(1), |last| last.arrival + 1);
        let lines = records.iter().map(line).filter(|line| question.wants(line)).collect();
        Ok(Page { records: lines, arrival, ..Page::default() })
    }

    /// True when the page is full.
    fn scan(
        &self,
        question: &Question,
        scan: &Scan,
        looked_at: &mut usize,
        found: &mut Page,
    ) -> Result<bool, SearchError> {
        let (from, to) = question.times();
        let (first, end) = (Key::first(scan.class, from), Key::first(scan.class, to));
        let end = scan.before.map_or(end, |before| before.min(end));
        let term = question.term().map(keys::term);
        let prefix = term.as_ref().map_or(&[][..], |term| &term[..]);
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_lower_bound([prefix, &first.to_bytes()].concat());
        bounds.set_iterate_upper_bound([prefix, &end.to_bytes()].concat());
        let family = self.family(if term.is_some() { keys::TERMS } else { keys::LOG });
        for item in self.db().iterator_cf_opt(family, bounds, IteratorMode::End) {
            let (key, value) = item.map_err(unavailable)?;
            let record = match term {
                Some(_) => key.get(prefix.len()..).map(|key| self.at(key)).transpose().map_err(unavailable)?.flatten(),
                None => Book::kept(&key, &value),
            };
            let Some(record) = record else { continue };
            *looked_at += 1;
            let line = line(&record);
            if question.wants(&line) {
                found.records.push(line);
            }
            if found.records.len() >= scan.limit || *looked_at >= LOOKED_AT_MAX {
                found.next = Some(next(&record));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether any record came at or after this arrival.
    #[must_use]
    pub fn has_from(&self, arrival: u64) -> bool {
        let from = arrival.to_be_bytes();
        let mode = IteratorMode::From(&from, Direction::Forward);
        self.db().iterator_cf(self.family(keys::ARRIVALS), mode).next().is_some()
    }
}

struct Scan {
    class: Class,
    before: Option<Key>,
    limit: usize,
}

fn next(record: &Kept) -> String {
    hex(&record.key.to_bytes())
}
