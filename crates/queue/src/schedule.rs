//! When the next attempt is made: growing intervals for five days (RFC 5321 §4.5.4.1).

use vocab::Timestamp;

const MINUTE_MS: u64 = 60 * 1000;

/// Waiting time after the first, second, ... failed attempt (ms); the last one repeats.
pub const INTERVALS_MS: [u64; 7] =
    [MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, 60 * MINUTE_MS, 120 * MINUTE_MS, 240 * MINUTE_MS];

/// An item that old is given up and bounced (ms).
pub const GIVE_UP_AFTER_MS: u64 = 5 * 24 * 60 * MINUTE_MS;

/// The start of an attempt is good for this long (ms). Who hears later than this that it is committed slept, or waited
/// for the other node; that one may have taken the attempt for lost.
pub const START_FRESH_MS: u64 = MINUTE_MS;

/// Whether an attempt may begin its dialogue `now` whose start was asked for at `asked`, both by the clock of the node
/// that makes it. If not, the same start is asked for again: it counts once, and is refused when the item has gone on
/// elsewhere.
#[must_use]
pub const fn is_fresh(asked: Timestamp, now: Timestamp) -> bool {
    now.0 < asked.plus_ms(START_FRESH_MS).0
}

/// A shorter first waiting time grows by this factor until it meets [`INTERVALS_MS`]; so does the usual one.
const GROWTH: u64 = 5;

/// When to try again after `attempts` failed attempts (1 or more), or `None` when the time is up. The last attempt is
/// made just when it is up. `first_ms` is the waiting time after the first failure; no wait is longer than that of
/// [`INTERVALS_MS`], and with its first value all are the same.
#[must_use]
pub fn next_attempt(accepted_at: Timestamp, attempts: u32, now: Timestamp, first_ms: u64) -> Option<Timestamp> {
    let end = accepted_at.plus_ms(GIVE_UP_AFTER_MS);
    if now >= end {
        return None;
    }
    let step = attempts.saturating_sub(1);
    let usual = usize::try_from(step).ok().and_then(|step| INTERVALS_MS.get(step)).or(INTERVALS_MS.last());
    let grown = first_ms.saturating_mul(GROWTH.saturating_pow(step));
    let wait = usual.copied().unwrap_or(MINUTE_MS).min(grown);
    Some(now.plus_ms(wait).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_good_for_a_minute_and_a_clock_set_back_does_not_end_it() {
        let at = Timestamp(1_000_000);
        assert!(is_fresh(at, at) && is_fresh(at, Timestamp(0)) && is_fresh(at, at.plus_ms(START_FRESH_MS - 1)));
        assert!(!is_fresh(at, at.plus_ms(START_FRESH_MS)));
        const { assert!(START_FRESH_MS < crate::apply::ATTEMPT_LOST_AFTER_MS) };
    }

    #[test]
    fn intervals_grow_and_end_after_five_days() {
        let accepted = Timestamp(1_000_000);
        let mut now = accepted;
        let mut attempts = 0;
        let mut last_wait = 0;
        while let Some(next) = next_attempt(accepted, attempts + 1, now, MINUTE_MS) {
            attempts += 1;
            let wait = next.0 - now.0;
            assert!(wait >= last_wait || next == accepted.plus_ms(GIVE_UP_AFTER_MS));
            assert!(wait <= 240 * MINUTE_MS);
            (last_wait, now) = (wait, next);
        }
        assert_eq!(now, accepted.plus_ms(GIVE_UP_AFTER_MS));
        assert!((30..60).contains(&attempts), "{attempts}");
    }

    #[test]
    fn the_first_wait_of_a_minute_is_the_table_and_a_shorter_one_grows_into_it() {
        let waits = |first| -> Vec<u64> {
            let wait = |attempts| next_attempt(Timestamp(0), attempts, Timestamp(0), first).expect("in time").0;
            (1..=7).map(wait).collect()
        };
        assert_eq!(waits(MINUTE_MS), INTERVALS_MS);
        assert_eq!(waits(1000)[..4], [1000, 5000, 25_000, 125_000]);
        assert_eq!(waits(1000)[6], INTERVALS_MS[6]);
    }
}
