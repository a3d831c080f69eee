//! When the next attempt is made: growing intervals for five days (RFC 5321 §4.5.4.1).

use vocab::Timestamp;

const MINUTE_MS: u64 = 60 * 1000;

/// Waiting time after the first, second, ... failed attempt (ms); the last one repeats.
pub const INTERVALS_MS: [u64; 7] =
    [MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, 60 * MINUTE_MS, 120 * MINUTE_MS, 240 * MINUTE_MS];

/// An item that old is given up and bounced (ms).
pub const GIVE_UP_AFTER_MS: u64 = 5 * 24 * 60 * MINUTE_MS;

/// When to try again after `attempts` failed attempts (1 or more), or `None` when the time is up. The last attempt is
/// made just when it is up.
#[must_use]
pub fn next_attempt(accepted_at: Timestamp, attempts: u32, now: Timestamp) -> Option<Timestamp> {
    let end = accepted_at.plus_ms(GIVE_UP_AFTER_MS);
    if now >= end {
        return None;
    }
    let step = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let wait = INTERVALS_MS.get(step).or(INTERVALS_MS.last()).copied().unwrap_or(MINUTE_MS);
    Some(now.plus_ms(wait).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_and_end_after_five_days() {
        let accepted = Timestamp(1_000_000);
        let mut now = accepted;
        let mut attempts = 0;
        let mut last_wait = 0;
        while let Some(next) = next_attempt(accepted, attempts + 1, now) {
            attempts += 1;
            let wait = next.0 - now.0;
            assert!(wait >= last_wait || next == accepted.plus_ms(GIVE_UP_AFTER_MS));
            assert!(wait <= 240 * MINUTE_MS);
            (last_wait, now) = (wait, next);
        }
        assert_eq!(now, accepted.plus_ms(GIVE_UP_AFTER_MS));
        assert!((30..60).contains(&attempts), "{attempts}");
    }
}
