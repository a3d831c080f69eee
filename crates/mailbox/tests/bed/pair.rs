//! Two branches of one account from a common base, with their own gaps, and the merge of them.
#![allow(dead_code)]

use mailbox::former::FormerNames;
use mailbox::merge::{Branch, MergeInput, Merged, Rules, merge_by};
use mailbox::op::{Gap, Stamp};
use mailbox::rows::RowFormat;
use mailbox::{digest_of, read};
use std::collections::BTreeMap;
use vocab::{BatchId, EpochId, Flags, MemoryRows, NodeId, PlacementId, Timestamp};

use super::{ACCOUNT, Bed, Told};

pub struct Pair {
    pub base: MemoryRows,
    pub a: Bed,
    pub g: Bed,
    pub served: [bool; 2],
}

/// What two merges with swapped roles must have in common: mailboxes with their messages, documents, subscriptions, former
/// names.
pub type Picture =
    (BTreeMap<String, (String, u32, u32, Vec<(u32, PlacementId, Flags)>)>, Vec<String>, Vec<Vec<u8>>, FormerNames);

fn side(bed: &Bed, node: u32, k: u64) -> Bed {
    let epoch = EpochId { number: 2, author: node };
    let at = Timestamp(bed.stamp.at.0 + u64::from(node));
    let gap = (k > 0).then_some(Gap { k, of: 16, epoch });
    let stamp = Stamp {
        epoch,
        home: NodeId(node),
        at,
        joint: false,
        mailbox_counter: 1,
        gap,
        marks: None,
        rows: RowFormat::HIGHEST,
    };
    Bed {
        rows: bed.rows.clone(),
        stamp,
        counter: u64::from(node) * 1_000,
        settled: 0,
        batches: 0,
        changes: Vec::new(),
        last: None,
        told: bed.told.clone(),
    }
}

impl Pair {
    pub fn from(bed: &Bed) -> Self {
        Self { base: bed.rows.clone(), a: side(bed, 1, 2), g: side(bed, 2, 3), served: [true, true] }
    }
    /// Both sides begin with a command, so no side is silent.
    pub fn stamp(&self) -> Stamp {
        let epoch = EpochId { number: 9, author: 1 };
        Stamp {
            epoch,
            home: NodeId(1),
            at: Timestamp(9_000_000),
            joint: false,
            mailbox_counter: 1,
            gap: None,
            marks: None,
            rows: RowFormat::HIGHEST,
        }
    }
    /// What both sides told for names.
    pub fn told(&self) -> Told {
        let mut told = self.a.told.clone();
        for (name, value) in &self.g.told {
            let known = told.entry(name.clone()).or_default();
            *known = (*known).max(*value);
        }
        told
    }
    pub fn merged(&self) -> Bed {
        self.merged_by(Rules::default(), Some(&self.base)).0
    }
    pub fn merged_by(&self, rules: Rules, base: Option<&MemoryRows>) -> (Bed, Merged) {
        let (mut bed, made) = merge_rows(&self.a.rows, &self.g.rows, self.served, base, (rules, self.stamp()));
        bed.told = self.told();
        if rules.names_grow {
            assert_eq!(bed.holds_what_was_told(), Ok(()));
        }
        (bed, made)
    }
    pub fn swapped(&self) -> Bed {
        let served = [self.served[1], self.served[0]];
        let with = (Rules::default(), self.stamp());
        merge_rows(&self.g.rows, &self.a.rows, served, Some(&self.base), with).0
    }
}

pub fn merge_rows(
    anchor: &MemoryRows,
    guest: &MemoryRows,
    served: [bool; 2],
    base: Option<&MemoryRows>,
    (rules, stamp): (Rules, Stamp),
) -> (Bed, Merged) {
    let input = MergeInput {
        account: ACCOUNT,
        base: base.map(|rows| rows as _),
        common: base.map(|rows| rows.head.version).unwrap_or_default(),
        anchor: Branch { rows: anchor, served: served[0] },
        guest: Branch { rows: guest, served: served[1] },
        between: &[],
        stamp,
    };
    let id = BatchId { epoch: stamp.epoch, home: stamp.home, counter: 1 };
    let merged = merge_by(&input, id, rules).expect("sound rows");
    let mut bed = Bed { rows: anchor.clone(), stamp, ..Bed::empty() };
    bed.counter = 9_000;
    bed.stamp.mailbox_counter = merged.mailbox_counter;
    // Checks version chain and digest.
    bed.take(Some(merged.batch.clone()));
    sound(&bed.rows);
    (bed, merged)
}

/// Rows that must agree with each other do.
pub fn sound(rows: &MemoryRows) {
    assert_eq!(digest_of(rows).expect("sound"), rows.head.digest);
    let mut names = std::collections::BTreeSet::new();
    let mut roles = std::collections::BTreeSet::new();
    for mailbox in read::mailboxes(rows).expect("sound") {
        assert!(names.insert(mailbox.name.clone()), "one name twice");
        assert!(mailbox.role.is_none_or(|role| roles.insert(role)), "one role twice");
        let by_name = read::mailbox_by_name(rows, &mailbox.name).expect("sound");
        assert_eq!(by_name.map(|m| m.id), Some(mailbox.id));
        assert!(mailbox.modseq.0 <= rows.head.modseq && mailbox.uid_validity.0 <= rows.head.uidvalidity);
        let placements = read::placements(rows, mailbox.id, read::all_uids()).expect("sound");
        assert_eq!(mailbox.counts.messages as usize, placements.len());
        for p in placements {
            assert!(p.uid < mailbox.uid_next && p.modseq <= mailbox.modseq && p.created <= p.modseq);
            assert_eq!(read::placement_by_id(rows, p.id).expect("sound"), Some((mailbox.id, p.clone())));
            assert!(read::facts(rows, p.email).expect("sound").is_some());
            assert!(read::expunged(rows, p.id).expect("sound").is_none());
        }
    }
    for name in &names {
        if let Some((parent, _)) = name.rsplit_once('/') {
            assert!(names.contains(parent), "{name} without its parent");
        }
    }
}

pub fn picture(bed: &Bed) -> Picture {
    let mut boxes = BTreeMap::new();
    for mailbox in read::mailboxes(&bed.rows).expect("sound") {
        let uids = read::uids(&bed.rows, mailbox.id).expect("sound");
        let uids = uids.into_iter().map(|row| (row.uid.0, row.id, row.flags)).collect();
        let entry = (mailbox.id.to_string(), mailbox.uid_validity.0, mailbox.uid_next.0, uids);
        boxes.insert(mailbox.name.clone(), entry);
    }
    let documents = bed.rows.rows.iter().filter(|((table, _), _)| *table == vocab::Table::DOCUMENTS);
    let documents = documents.map(|((_, key), value)| [key, value.as_ref()].concat()).collect();
    let former = FormerNames::read(&bed.rows).expect("sound");
    (boxes, read::subscriptions(&bed.rows).expect("sound"), documents, former)
}
