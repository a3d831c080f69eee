//! What is printed at the end: one row per fault.

use std::collections::BTreeMap;
use std::time::Duration;

/// One injection.
#[derive(Clone, Debug)]
pub struct Shot {
    /// `kill`, `kill (secondary)`, `kill + slow`.
    pub name: String,
    /// Longest outage seen by SMTP and by IMAP clients.
    pub smtp: Duration,
    /// See there.
    pub imap: Duration,
    /// Until all were in sync again.
    pub joint: Duration,
    /// Times the service moved.
    pub moves: usize,
    /// Whether it must not.
    pub is_quiet: bool,
    /// Whether the clients are cut off by the fault itself.
    pub cuts_clients: bool,
}

impl Shot {
    /// Nothing measured yet.
    #[must_use]
    #[expect(clippy::fn_params_excessive_bools, reason = "what a fault is, in the order of its questions")]
    pub fn new(name: String, is_quiet: bool, cuts_clients: bool) -> Self {
        let none = Duration::ZERO;
        Self { name, smtp: none, imap: none, joint: none, moves: 0, is_quiet, cuts_clients }
    }

    /// What is said of it at once.
    #[must_use]
    pub fn line(&self) -> String {
        let (smtp, imap) = (self.smtp.as_millis(), self.imap.as_millis());
        let (joint, moves) = (self.joint.as_secs_f64(), self.moves);
        format!("{:<26} SMTP {smtp:>6} ms  IMAP {imap:>6} ms  joint after {joint:.1} s  moves {moves}", self.name)
    }

    /// Moves that must not be.
    #[must_use]
    pub const fn false_failovers(&self) -> usize {
        if self.is_quiet { self.moves } else { 0 }
    }
}

/// The p-th of a hundred parts of these, which are sorted.
#[must_use]
pub fn percentile(sorted: &[Duration], p: usize) -> Duration {
    let rank = (sorted.len() * p).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// The table; `missing` are faults that were not injected, with the reason.
#[must_use]
pub fn render(shots: &[Shot], missing: &[(String, String)]) -> String {
    let mut by_name: BTreeMap<&str, Vec<&Shot>> = BTreeMap::new();
    for shot in shots {
        by_name.entry(&shot.name).or_default().push(shot);
    }
    let mut lines = vec![format!(
        "{:<26} {:>5}  {:>20}  {:>20}  {:>7}  {:>5}  {:>5}",
        "fault", "times", "SMTP p50/p99/max ms", "IMAP p50/p99/max ms", "joint s", "moves", "false"
    )];
    for (name, shots) in by_name {
        let times = |of: fn(&Shot) -> Duration| {
            let mut all: Vec<Duration> = shots.iter().map(|shot| of(shot)).collect();
            all.sort_unstable();
            all
        };
        let spread = |all: &[Duration]| [50, 99, 100].map(|p| percentile(all, p).as_millis().to_string()).join("/");
        let joint = times(|shot| shot.joint).last().copied().unwrap_or_default();
        let sum = |of: fn(&Shot) -> usize| shots.iter().map(|shot| of(shot)).sum::<usize>();
        let mark = if shots.iter().any(|shot| shot.cuts_clients) { "*" } else { "" };
        lines.push(format!(
            "{:<26} {:>5}  {:>20}  {:>20}  {:>7.1}  {:>5}  {:>5}",
            format!("{name}{mark}"),
            shots.len(),
            spread(&times(|shot| shot.smtp)),
            spread(&times(|shot| shot.imap)),
            joint.as_secs_f64(),
            sum(|shot| shot.moves),
            sum(Shot::false_failovers)
        ));
    }
    lines.extend(missing.iter().map(|(name, why)| format!("{name:<26} not injected ({why})")));
    lines.push("* clients are cut off by the fault itself".into());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let all: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&all, 50).as_millis(), 50);
        assert_eq!(percentile(&all, 99).as_millis(), 99);
        assert_eq!(percentile(&all, 100).as_millis(), 100);
        assert_eq!(percentile(&all[..1], 99).as_millis(), 1);
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn only_quiet_faults_have_false_failovers() {
        let shot = |is_quiet| Shot { moves: 2, ..Shot::new("x".into(), is_quiet, false) };
        assert_eq!((shot(true).false_failovers(), shot(false).false_failovers()), (2, 0));
        let text = render(&[shot(true)], &[("clock".into(), "no libfaketime".into())]);
        assert!(text.contains("not injected (no libfaketime)"), "{text}");
    }
}
