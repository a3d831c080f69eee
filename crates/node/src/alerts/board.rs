//! What has been raised and not cleared: each matter once, however often it is seen, and nothing that comes and goes. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::{Alert, Severity};

/// A matter must last so long before it is raised (ms): a planned restart is none.
const RAISE_AFTER_MS: u64 = 5_000;
/// It must be gone for so long before it is cleared (ms).
const CLEAR_AFTER_MS: u64 = 10_000;

/// A matter on the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Raised {
    /// As it is now; as it was, once it is gone.
    #[serde(flatten)]
    pub(crate) alert: Alert,
    /// Since when (Unix ms).
    pub(crate) since_ms: u64,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// New, or more urgent than before.
    Raised(Raised),
    /// Gone.
    Cleared(Raised),
}

#[derive(Clone, Debug)]
struct Entry {
    raised: Raised,
    /// Told to somebody.
    told: Option<Severity>,
    /// Last seen.
    seen_ms: u64,
}

/// The board.
#[derive(Debug, Default)]
pub(crate) struct Board {
    entries: BTreeMap<String, Entry>,
}

impl Board {
    /// Takes in what is the matter now.
    pub(crate) fn step(&mut self, now_ms: u64, alerts: Vec<Alert>) -> Vec<Change> {
        let mut changes = Vec::new();
        for alert in alerts {
            let first =
                || Entry { raised: Raised { alert: alert.clone(), since_ms: now_ms }, told: None, seen_ms: now_ms };
            let entry = self.entries.entry(alert.key.clone()).or_insert_with(first);
            entry.seen_ms = now_ms;
            entry.raised.alert = alert;
            let lasts = now_ms.saturating_sub(entry.raised.since_ms) >= RAISE_AFTER_MS;
            if lasts && entry.told < Some(entry.raised.alert.severity) {
                entry.told = Some(entry.raised.alert.severity);
                changes.push(Change::Raised(entry.raised.clone()));
            }
        }
        let over = |entry: &Entry| now_ms.saturating_sub(entry.seen_ms) >= CLEAR_AFTER_MS;
        // What was never raised is forgotten as soon as it is gone.
        let gone = |entry: &Entry| over(entry) || (entry.told.is_none() && entry.seen_ms < now_ms);
        let keys: Vec<String> =
            self.entries.iter().filter(|(_, entry)| gone(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(entry) = self.entries.remove(&key).filter(|entry| entry.told.is_some()) {
                changes.push(Change::Cleared(entry.raised));
            }
        }
        changes
    }

    /// What is raised now, the most urgent first.
    pub(crate) fn raised(&self) -> Vec<Raised> {
        let told = self.entries.values().filter(|entry| entry.told.is_some());
        let mut raised: Vec<Raised> = told.map(|entry| entry.raised.clone()).collect();
        raised.sort_by_key(|raised| (std::cmp::Reverse(raised.alert.severity), raised.since_ms));
        raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(key: &str, severity: Severity) -> Alert {
        Alert { key: key.into(), severity, text: String::new(), advice: String::new() }
    }

    fn names(changes: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Raised(raised) => format!("+{}", raised.alert.key),
            Change::Cleared(raised) => format!("-{}", raised.alert.key),
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn a_matter_is_told_once_while_it_lasts_and_once_when_it_is_over() {
        let (mut board, solo) = (Board::default(), || vec![alert("solo", Severity::Critical)]);
        let mut told = Vec::new();
        for now in (0..20_000).step_by(1_000) {
            told.extend(names(&board.step(now, solo())));
        }
        assert_eq!(told, ["+solo"]);
        // It flickers: nothing is told.
        assert_eq!(names(&board.step(22_000, Vec::new())), [""; 0]);
        assert_eq!(names(&board.step(24_000, solo())), [""; 0]);
        assert_eq!(board.raised().len(), 1);
        for now in (25_000..40_000).step_by(1_000) {
            told.extend(names(&board.step(now, Vec::new())));
        }
        assert_eq!((told, board.raised().len()), (vec!["+solo".to_owned(), "-solo".to_owned()], 0));
    }

    #[test]
    fn what_is_short_is_not_told_and_what_grows_worse_is_told_again() {
        let mut board = Board::default();
        assert_eq!(names(&board.step(0, vec![alert("restart", Severity::Critical)])), [""; 0]);
        assert_eq!(names(&board.step(2_000, Vec::new())), [""; 0]);
        assert_eq!(names(&board.step(4_000, vec![alert("restart", Severity::Critical)])), [""; 0]);
        let mut told = Vec::new();
        for now in (10_000..30_000).step_by(1_000) {
            let severity = if now < 20_000 { Severity::Warning } else { Severity::Critical };
            told.extend(names(&board.step(now, vec![alert("disk", severity)])));
        }
        assert_eq!(told, ["+disk", "+disk"]);
    }
}
