//! The clocks of this process: monotonic milliseconds since its first use, and wall-clock time.

use std::sync::OnceLock;
use std::time::Duration;

use vocab::{Instant, Timestamp};

static START: OnceLock<tokio::time::Instant> = OnceLock::new();

fn start() -> tokio::time::Instant {
    *START.get_or_init(tokio::time::Instant::now)
}

/// Monotonic time for sessions. Never 0, so that "a moment before now" exists.
#[must_use]
pub fn now() -> Instant {
    Instant(1 + u64::try_from(start().elapsed().as_millis()).unwrap_or(u64::MAX - 1))
}

/// The same moment for the runtime's timers; far-away ones are cut to a month.
#[must_use]
pub fn to_tokio(at: Instant) -> tokio::time::Instant {
    const FAR_MS: u64 = 30 * 24 * 3600 * 1000;
    let ahead = at.since(now()).min(FAR_MS);
    tokio::time::Instant::now() + Duration::from_millis(ahead)
}

/// Wall-clock time, for dates that people read.
#[must_use]
pub fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
