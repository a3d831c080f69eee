//! I1: (mailbox name, UIDVALIDITY, UID) names one content for ever, in a split too: that is what the gap is for.

use std::collections::BTreeMap;

use vocab::{BlobHash, Uid};

use super::{Invariant, Numbered, Reading, Verdict, numbered};

#[derive(Default)]
pub(crate) struct OneContent {
    contents: BTreeMap<Numbered, BTreeMap<Uid, BlobHash>>,
}

impl Invariant for OneContent {
    fn name(&self) -> &'static str {
        "I1"
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        for shown in reading.mailboxes {
            let key = numbered(reading.account, &shown.mailbox);
            let contents = self.contents.entry(key.clone()).or_default();
            for placement in &shown.placements {
                let blob = *contents.entry(placement.uid).or_insert(placement.blob);
                if blob != placement.blob {
                    let (uid, node) = (placement.uid.0, reading.view.node + 1);
                    return Err(format!("{key:?}: UID {uid} names {} at node {node}, before {blob}", placement.blob));
                }
            }
        }
        Ok(())
    }
}
