//! D5: the bodies that committed state or an unmerged branch names are on every node that acknowledged it.

use std::collections::BTreeSet;

use vocab::{BlobHash, RowWrite, StoreWrite};

use super::{Invariant, Verdict};
use crate::disk::Image;

/// Bodies named by what was written since the last look.
#[derive(Default)]
pub(crate) struct Bodies {
    named: BTreeSet<(usize, BlobHash)>,
}

/// Bodies that these rows need.
fn needed<'r>(rows: impl IntoIterator<Item = &'r RowWrite>) -> impl Iterator<Item = BlobHash> {
    rows.into_iter().filter_map(|row| {
        let item = mailbox::blob_ref_of(row).or_else(|| queue::blob_ref_of(row));
        item.map(|item| item.hash)
    })
}

fn is_whole(image: &Image, hash: BlobHash) -> bool {
    image.blobs.get(&hash).is_some_and(|bytes| BlobHash::of(bytes) == hash)
}

/// Everything the state of a node needs.
fn all_needed(image: &Image) -> BTreeSet<BlobHash> {
    let mut all = BTreeSet::new();
    for account in image.accounts.keys() {
        all.extend(needed(&image.export(*account)));
        all.extend(image.archived(*account).into_iter().flatten());
    }
    all
}

impl Invariant for Bodies {
    fn name(&self) -> &'static str {
        "D5"
    }
    fn on_write(&mut self, node: usize, before: &Image, part: &StoreWrite) {
        match part {
            StoreWrite::Account(batch) => self.named.extend(needed(&batch.rows).map(|hash| (node, hash))),
            StoreWrite::Switch { account, .. } => {
                let rows = before.stages.get(account).into_iter().flatten();
                self.named.extend(needed(rows).map(|hash| (node, hash)));
            }
            _ => {}
        }
    }
    fn on_images(&mut self, images: &[&Image]) -> Verdict {
        for (node, hash) in std::mem::take(&mut self.named) {
            // A disk that was rolled back meanwhile may neither have nor need it.
            if !is_whole(images[node], hash) && all_needed(images[node]).contains(&hash) {
                return Err(format!("node {}: the state names {hash}, and the body is not there", node + 1));
            }
        }
        Ok(())
    }
    fn at_end(&mut self, images: &[&Image]) -> Verdict {
        for (node, image) in (1..).zip(images) {
            if let Some(hash) = all_needed(image).into_iter().find(|hash| !is_whole(image, *hash)) {
                return Err(format!("node {node}: the state names {hash}, and the body is not there"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vocab::{AccountId, MemoryRows};

    use super::*;
    use crate::invariants::tests::placed;

    #[test]
    fn a_body_that_is_missing_or_torn_is_noticed() {
        let body = Bytes::from_static(b"body");
        let mut image = Image::default();
        let mut rows = MemoryRows::default();
        rows.write(&[placed(1, BlobHash::of(&body))]);
        image.accounts.insert(AccountId(40), rows);
        let verdict = |image: &Image| Bodies::default().at_end(&[image]);
        assert!(verdict(&image).is_err());
        image.blobs.insert(BlobHash::of(&body), body.slice(1..));
        assert!(verdict(&image).is_err());
        image.blobs.insert(BlobHash::of(&body), body);
        assert_eq!(verdict(&image), Ok(()));
    }
}
