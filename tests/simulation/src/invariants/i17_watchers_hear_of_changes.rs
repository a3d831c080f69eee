//! I17: a committed change reaches a session that watches within a bound, or the session ends.

use super::{Invariant, Verdict, Watching};

/// Longest time (ms) in which a session may be behind what its node may show.
const BOUND_MS: u64 = 2_000;

pub(crate) struct Watchers;

impl Invariant for Watchers {
    fn name(&self) -> &'static str {
        "I17"
    }
    fn on_watch(&mut self, watching: &Watching) -> Verdict {
        let Watching { account, node, behind_ms } = watching;
        if *behind_ms <= BOUND_MS {
            return Ok(());
        }
        Err(format!(
            "account {}: a session at node {} hears nothing of a change for {behind_ms} ms",
            account.0,
            node + 1
        ))
    }
}

#[cfg(test)]
mod tests {
    use vocab::AccountId;

    use super::*;

    #[test]
    fn a_session_that_hears_nothing_is_noticed() {
        let watching = |behind_ms| Watching { account: AccountId(40), node: 0, behind_ms };
        assert_eq!(Watchers.on_watch(&watching(BOUND_MS)), Ok(()));
        assert!(Watchers.on_watch(&watching(BOUND_MS + 1)).is_err());
    }
}
