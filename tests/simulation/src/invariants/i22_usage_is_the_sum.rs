//! I22: what a mailbox says it holds is the sum of its messages, after every heal, too.

use mailbox::rows::Counts;
use vocab::SystemFlag;

use super::{Invariant, Reading, Verdict};

pub(crate) struct Usage;

impl Invariant for Usage {
    fn name(&self) -> &'static str {
        "I22"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let mut sum = Counts::default();
            for placement in &shown.placements {
                sum.messages += 1;
                sum.unseen += u32::from(!placement.flags.has(SystemFlag::Seen));
                sum.deleted += u32::from(placement.flags.has(SystemFlag::Deleted));
                sum.bytes += placement.size();
            }
            let (account, name, says) = (reading.account.0, &shown.mailbox.name, shown.mailbox.counts);
            if says != sum {
                return Err(format!("account {account} {name}: says {says:?}, holds {sum:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::Scene;

    #[test]
    fn a_count_that_is_off_is_noticed() {
        let mut scene = Scene::new(&[1, 2]);
        assert_eq!(scene.read(&mut Usage), Ok(()));
        scene.shown[0].mailbox.counts.bytes += 1;
        assert!(scene.read(&mut Usage).is_err());
    }
}
