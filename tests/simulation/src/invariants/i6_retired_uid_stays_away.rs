//! I6: a UID that was there and went never comes back.

use std::collections::{BTreeMap, BTreeSet};

use vocab::Uid;

use super::{Invariant, Numbered, Reading, Verdict, numbered};

#[derive(Default)]
struct Uids {
    seen: BTreeMap<Uid, Option<usize>>,
    retired: BTreeMap<Uid, Option<usize>>,
}

#[derive(Default)]
pub(crate) struct Retired(BTreeMap<Numbered, Uids>);

impl Invariant for Retired {
    fn name(&self) -> &'static str {
        "I6"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let key = numbered(reading.account, &shown.mailbox);
            let uids = self.0.entry(key.clone()).or_default();
            let present: BTreeSet<Uid> = shown.placements.iter().map(|placement| placement.uid).collect();
            for uid in &present {
                if uids.retired.get(uid).is_some_and(|side| reading.view.must_know(*side)) {
                    return Err(format!("{key:?}: retired UID {} is back at node {}", uid.0, reading.view.node + 1));
                }
            }
            for (uid, side) in &uids.seen {
                if reading.view.must_know(*side) && !present.contains(uid) {
                    uids.retired.entry(*uid).or_insert(reading.view.side);
                }
            }
            for uid in present {
                uids.seen.entry(uid).or_insert(reading.view.side);
            }
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        for uids in self.0.values_mut() {
            uids.seen.values_mut().chain(uids.retired.values_mut()).for_each(|side| *side = None);
        }
    }
}
