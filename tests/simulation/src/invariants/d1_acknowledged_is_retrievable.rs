//! D1: acknowledged content is retrievable from the account for ever, as often as it was acknowledged, unless an expunge
//! was asked for.

use std::collections::{BTreeMap, BTreeSet};

use vocab::{AccountId, BlobHash, RowWrite};

use super::{Invariant, Reading, Told, Verdict};
use crate::disk::Image;

#[derive(Default)]
pub(crate) struct Acknowledged {
    /// On whose side each message or copy of a body was acknowledged.
    accepted: BTreeMap<AccountId, BTreeMap<BlobHash, Vec<Option<usize>>>>,
    expunges: BTreeSet<(AccountId, BlobHash)>,
}

impl Acknowledged {
    fn owed(&self, account: AccountId) -> impl Iterator<Item = (BlobHash, &Vec<Option<usize>>)> {
        let all = self.accepted.get(&account).into_iter().flatten();
        all.map(|(blob, sides)| (*blob, sides)).filter(move |(blob, _)| !self.expunges.contains(&(account, *blob)))
    }
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "D1"
    }
    fn on_told(&mut self, told: &Told) -> Verdict {
        match told {
            Told::Accepted { account, blob, side } | Told::CopyKept { account, blob, side } => {
                self.accepted.entry(*account).or_default().entry(*blob).or_default().push(*side);
            }
            Told::ExpungeAsked { account, blobs } => self.expunges.extend(blobs.iter().map(|blob| (*account, *blob))),
            _ => {}
        }
        Ok(())
    }
    fn on_read(&mut self, reading: &Reading<'_>) -> Verdict {
        let mut shown: BTreeMap<BlobHash, usize> = BTreeMap::new();
        for placement in reading.mailboxes.iter().flat_map(|m| &m.placements) {
            *shown.entry(placement.blob).or_default() += 1;
        }
        let archived = |blob: &BlobHash| reading.archived.is_some_and(|all| all.contains(blob));
        for (blob, sides) in self.owed(reading.account) {
            let owed = sides.iter().filter(|side| reading.view.must_know(**side)).count();
            let shown = shown.get(&blob).copied().unwrap_or(0);
            if shown < owed && !archived(&blob) && !reading.promised.contains(&blob) {
                let (node, account) = (reading.view.node + 1, reading.account.0);
                return Err(format!(
                    "account {account}: {blob}, acknowledged {owed} times, is shown {shown} times at node {node}"
                ));
            }
        }
        Ok(())
    }
    fn on_joint(&mut self) {
        self.accepted.values_mut().flat_map(BTreeMap::values_mut).flatten().for_each(|side| *side = None);
    }
    fn at_end(&mut self, images: &[&Image]) -> Verdict {
        for account in self.accepted.keys() {
            for (node, image) in (1..).zip(images) {
                let placed = |row: RowWrite| mailbox::blob_ref_of(&row).map(|r| r.hash);
                let mut kept: BTreeSet<BlobHash> = image.export(*account).into_iter().filter_map(placed).collect();
                kept.extend(image.archived(*account).into_iter().flatten());
                for (blob, _) in self.owed(*account) {
                    if !kept.contains(&blob) {
                        return Err(format!("account {}: acknowledged {blob} is lost on node {node}", account.0));
                    }
                    if image.blobs.get(&blob).is_none_or(|bytes| BlobHash::of(bytes) != blob) {
                        return Err(format!("account {}: the body {blob} is lost on node {node}", account.0));
                    }
                }
            }
        }
        Ok(())
    }
}
