//! What heals merged lately, and the alert of it.

use ports::cluster::MergeStatus;

use super::judge::{Alert, Severity};

/// What a merge did is told of for so long after it (ms).
const MERGED_TOLD_MS: u64 = 24 * 60 * 60 * 1000;

/// What was merged since it was last quiet for a day.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    /// As it was told last, since the start of the process.
    told: MergeStatus,
    lately: MergeStatus,
    at_ms: u64,
}

impl Merges {
    /// Takes what was merged since the start; what was merged lately.
    pub(crate) fn look(&mut self, now_ms: u64, all: MergeStatus) -> MergeStatus {
        let more = |of: fn(&MergeStatus) -> u64| of(&all).saturating_sub(of(&self.told)) + of(&self.lately);
        if all != self.told {
            self.lately = MergeStatus {
                accounts: more(|m| m.accounts),
                renumbered: more(|m| m.renumbered),
                recovered: more(|m| m.recovered),
                kept_twice: more(|m| m.kept_twice),
                raised: more(|m| m.raised),
            };
            (self.told, self.at_ms) = (all, now_ms);
        } else if now_ms.saturating_sub(self.at_ms) > MERGED_TOLD_MS {
            self.lately = MergeStatus::default();
        }
        self.lately
    }
}

/// The alert of it.
pub(super) fn alert(node: u32, merged: MergeStatus) -> Option<Alert> {
    let MergeStatus { accounts, renumbered, recovered, kept_twice, raised } = merged;
    if accounts == 0 {
        return None;
    }
    let mut parts = Vec::new();
    for (count, what) in [
        (renumbered, "messages under a new UID"),
        (recovered, "expunged on one side and changed on the other, restorable"),
        (kept_twice, "documents kept twice"),
        (raised, "mailboxes with a new UIDVALIDITY"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let parts = if parts.is_empty() { "nothing was in doubt".to_owned() } else { parts.join(", ") };
    let text = format!("{accounts} accounts that had changed on both sides were merged on node {node}: {parts}");
    let advice = "nothing is lost; `twinpost cluster branches` has what one side was, `twinpost account recover` what was expunged";
    Some(Alert::new("merged", Severity::Warning, text, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_heal_merged_and_kept_twice_is_told_for_a_day() {
        let (mut merges, hour) = (Merges::default(), 60 * 60 * 1000);
        let merged = MergeStatus { accounts: 2, renumbered: 5, kept_twice: 1, ..MergeStatus::default() };
        assert_eq!(merges.look(0, MergeStatus::default()), MergeStatus::default());
        assert_eq!(merges.look(hour, merged), merged);
        let more = MergeStatus { accounts: 3, ..merged };
        assert_eq!(merges.look(2 * hour, more), more, "with what came before");
        let told = alert(1, more).expect("told");
        assert!(told.key == "merged" && told.text.contains("3 accounts"), "{told:?}");
        assert!(told.text.contains("5 messages under a new UID, 1 documents kept twice"), "{told:?}");
        assert_eq!(merges.look(20 * hour, more), more);
        assert_eq!(merges.look(27 * hour, more), MergeStatus::default(), "a day later");
        let later = MergeStatus { accounts: 4, ..more };
        assert_eq!(merges.look(28 * hour, later), MergeStatus { accounts: 1, ..MergeStatus::default() });
    }
}
