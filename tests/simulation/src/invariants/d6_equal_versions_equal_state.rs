//! D6: replicas at the same version of an account have the same rows, and the digest their head says.

use std::collections::BTreeMap;

use vocab::{AccountId, MemoryRows, Table, Version};

use super::{Invariant, Verdict};
use crate::disk::Image;

#[derive(Default)]
pub(crate) struct Equal {
    seen: BTreeMap<(AccountId, Version), [u8; 32]>,
}

fn hash_of(rows: &MemoryRows) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    part(&rows.head.encode());
    for ((Table(table), key), value) in &rows.rows {
        part(&[*table]);
        part(key);
        part(value);
    }
    *hasher.finalize().as_bytes()
}

impl Invariant for Equal {
    fn name(&self) -> &'static str {
        "D6"
    }
    fn on_images(&mut self, images: &[&Image]) -> Verdict {
        for (node, image) in (1..).zip(images) {
            for (account, rows) in &image.accounts {
                let hash = hash_of(rows);
                let key = (*account, rows.head.version);
                match self.seen.get(&key) {
                    Some(seen) if *seen != hash => {
                        return Err(format!("node {node}: account {} at {} differs", account.0, rows.head.version));
                    }
                    Some(_) => continue,
                    None => self.seen.insert(key, hash),
                };
                let digest = mailbox::digest_of(rows).map_err(|damaged| damaged.to_string())?;
                if digest != rows.head.digest {
                    return Err(format!("node {node}: account {} has another digest than its head", account.0));
                }
            }
        }
        Ok(())
    }
    fn at_end(&mut self, images: &[&Image]) -> Verdict {
        for pair in images.windows(2) {
            if pair[0].accounts != pair[1].accounts {
                return Err("the nodes are at rest and differ".to_owned());
            }
        }
        Ok(())
    }
}
