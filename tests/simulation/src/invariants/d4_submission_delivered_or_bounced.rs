//! D4: every accepted submission reaches the remote host at least once or its sender is told; it reaches it again only when
//! the end of the attempt before was never known as committed, or on the other side of a split after the grace.

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountId, CommandId, PlacementId};

use super::{Invariant, Told, Verdict, View, keep};
use crate::disk::Image;

#[derive(Default)]
pub(crate) struct Submissions {
    accepted: BTreeSet<CommandId>,
    /// How often the remote host took it.
    taken: BTreeMap<CommandId, u32>,
    /// Whose delivery is committed, and on whose side.
    sent: BTreeMap<CommandId, Option<usize>>,
    bounced: BTreeMap<CommandId, (AccountId, CommandId)>,
}

impl Submissions {
    fn is_known_as_sent(&self, item: CommandId, view: View) -> bool {
        self.sent.get(&item).is_some_and(|side| view.must_know(*side))
    }
}

fn is_queued(image: &Image, item: CommandId) -> bool {
    let rows = image.accounts.get(&AccountId::QUEUE);
    rows.is_some_and(|rows| rows.rows.contains_key(&(vocab::Table::QUEUE, item.to_bytes().to_vec())))
}

impl Invariant for Submissions {
    fn name(&self) -> &'static str {
        "D4"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        match told {
            Told::Submitted { item } => drop(self.accepted.insert(*item)),
            Told::Taken { item, view, held } => {
                *self.taken.entry(*item).or_default() += 1;
                if *held {
                    return Err(format!("node {} sends {item:?} of the other side within the grace", view.node + 1));
                }
            }
            Told::Started { item, view } if self.is_known_as_sent(*item, *view) => {
                let node = view.node + 1;
                return Err(format!("node {node} begins to send {item:?} again, whose delivery is committed"));
            }
            Told::Sent { item, side } => keep(&mut self.sent, *item, *side),
            Told::Bounced { item, account, id } => drop(self.bounced.insert(*item, (*account, *id))),
            // Without a common state nothing counts as done, so that nothing is lost.
            Told::Merged { account, blind: true } if *account == AccountId::QUEUE => self.sent.clear(),
            _ => {}
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.sent.values_mut().for_each(|side| *side = None);
    }
    fn at_end(&mut self, images: &[&Image]) -> Verdict {
        for item in &self.accepted {
            let done = self.taken.contains_key(item) || self.bounced.contains_key(item);
            if let Some(node) = images.iter().position(|image| !done && !is_queued(image, *item)) {
                return Err(format!("{item:?} was neither sent nor bounced, and is not queued on node {}", node + 1));
            }
        }
        for (item, (account, id)) in &self.bounced {
            let placement = PlacementId { command: *id, index: 0 };
            for (node, image) in (1..).zip(images) {
                let Some(rows) = image.accounts.get(account) else { continue };
                let there = mailbox::read::place(rows, placement).map_err(|damaged| damaged.to_string())?.is_some()
                    || mailbox::read::expunged(rows, placement).map_err(|damaged| damaged.to_string())?.is_some();
                if !there {
                    return Err(format!("the report {id:?} about {item:?} is not on node {node}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::tests::id;

    const VIEW: View = View { node: 1, side: Some(1), excused: true, heard_out: None, elsewhere: None };

    #[test]
    fn a_submission_that_is_lost_is_noticed() {
        let item = id(1).command;
        let image = Image::default();
        let mut check = Submissions::default();
        assert_eq!(check.on_told(&Told::Submitted { item }), Ok(()));
        assert!(check.at_end(&[&image]).is_err());
        assert_eq!(check.on_told(&Told::Taken { item, view: VIEW, held: false }), Ok(()));
        assert_eq!(check.at_end(&[&image]), Ok(()));
    }

    #[test]
    fn sending_again_is_allowed_only_on_the_other_side_and_never_within_the_grace() {
        let item = id(1).command;
        for (side, fine) in [(Some(0), true), (Some(1), false), (None, false)] {
            let mut check = Submissions::default();
            assert_eq!(check.on_told(&Told::Sent { item, side }), Ok(()));
            assert_eq!(check.on_told(&Told::Started { item, view: VIEW }).is_ok(), fine, "{side:?}");
        }
        let mut check = Submissions::default();
        assert!(check.on_told(&Told::Taken { item, view: VIEW, held: true }).is_err());
    }

    #[test]
    fn a_report_that_is_nowhere_is_noticed() {
        let (item, account) = (id(1).command, AccountId(40));
        let mut image = Image::default();
        image.accounts.insert(account, crate::invariants::tests::noted("x"));
        let mut check = Submissions::default();
        assert_eq!(check.on_told(&Told::Bounced { item, account, id: id(7).command }), Ok(()));
        assert!(check.at_end(&[&image]).is_err());
    }
}
