//! Command ids of this node and boot: which are settled, so that homes may drop their outcomes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A command that was not answered for certain is given up for settled after this time; longer than any commit wait.
const OUTSTANDING_MAX: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(crate) struct Tracker {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    outstanding: BTreeMap<u64, Instant>,
}

impl Tracker {
    /// The next counter; outstanding until settled.
    pub(crate) fn next(&self) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last += 1;
        let counter = inner.last;
        inner.outstanding.insert(counter, Instant::now());
        counter
    }
    /// The command was answered for certain.
    pub(crate) fn settle(&self, counter: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).outstanding.remove(&counter);
    }
    /// All commands up to this counter are settled.
    pub(crate) fn settled(&self) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.outstanding.first_entry().is_some_and(|first| first.get().elapsed() > OUTSTANDING_MAX) {
            inner.outstanding.pop_first();
        }
        inner.outstanding.first_key_value().map_or(inner.last, |(first, _)| first - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_stops_below_the_oldest_outstanding() {
        let tracker = Tracker::default();
        assert_eq!((tracker.next(), tracker.next(), tracker.next()), (1, 2, 3));
        assert_eq!(tracker.settled(), 0);
        tracker.settle(2);
        assert_eq!(tracker.settled(), 0);
        tracker.settle(1);
        assert_eq!(tracker.settled(), 2);
        tracker.settle(3);
        assert_eq!(tracker.settled(), 3);
    }
}
