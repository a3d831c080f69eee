//! The promises, each in a file of its own, checked against what clients were told (research: replication, section 4).
//!
//! While nodes commit apart by right (a true split), what one of them told is not held against the other; from the
//! next joint epoch on everything counts for everybody. An account with an archived branch is exempt from D2 and D3,
//! and mail in the branch counts as retrievable, until branches are merged.

mod d1_acknowledged_is_retrievable;
mod d2_no_resurrection;
mod d3_command_takes_effect_once;
mod d6_equal_versions_equal_state;
mod i10_resync_equals_fetch;
mod i1_uid_names_one_content;
mod i2_uidvalidity_only_grows;
mod i3_uidnext_never_falls;
mod i4_new_mail_above_uidnext;
mod i5_uids_ascend;
mod i6_retired_uid_stays_away;
mod i7_highestmodseq_never_falls;
mod i8_changes_have_higher_modseq;

use std::collections::{BTreeMap, BTreeSet};

use mailbox::rows::{Mailbox, Placement};
use vocab::{AccountBatch, AccountId, BlobHash, CommandId, Flags, PlacementId, StoreWrite, Uid};

use crate::disk::Image;

/// Ok, or what is wrong.
pub(crate) type Verdict = Result<(), String>;

/// From where somebody looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) node: usize,
    /// The node when it commits alone.
    pub(crate) side: Option<usize>,
    /// It does so by right: what others told meanwhile is not held against it.
    pub(crate) excused: bool,
}

impl View {
    /// Whether a fact of this side must be known here.
    pub(crate) fn must_know(&self, side: Option<usize>) -> bool {
        side.is_none() || side == self.side || !self.excused
    }
}

/// One mailbox as shown.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) mailbox: Mailbox,
    pub(crate) placements: Vec<Placement>,
}

/// What a client remembers of one mailbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cached {
    pub(crate) validity: u32,
    pub(crate) uid_next: u32,
    pub(crate) modseq: u64,
    pub(crate) messages: BTreeMap<Uid, (PlacementId, Flags)>,
}

/// One read of a whole account by one client.
pub(crate) struct Reading<'a> {
    pub(crate) account: AccountId,
    pub(crate) view: View,
    pub(crate) mailboxes: &'a [Shown],
    /// Bodies in archived branches of the account, on any node; `None` = there is no branch.
    pub(crate) archived: Option<&'a BTreeSet<BlobHash>>,
    /// What the client remembered by name; empty when it cannot be compared.
    pub(crate) before: &'a BTreeMap<String, Cached>,
    /// What its incremental resynchronisation made of it.
    pub(crate) after: &'a BTreeMap<String, Cached>,
}

/// What a client was told or asked for.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// 250 for this body.
    Accepted { account: AccountId, blob: BlobHash, side: Option<usize> },
    /// An expunge was sent: whatever comes of it, these may be gone.
    ExpungeAsked { account: AccountId, blobs: Vec<BlobHash> },
    /// OK for an expunge.
    Expunged { account: AccountId, placements: Vec<PlacementId>, side: Option<usize> },
}

/// One promise.
pub(crate) trait Invariant {
    /// Its name in the research page.
    fn name(&self) -> &'static str;
    /// A client was told something.
    fn on_told(&mut self, _told: &Told) {}
    /// A client reads.
    fn on_read(&mut self, _reading: &Reading<'_>) -> Verdict {
        Ok(())
    }
    /// A batch becomes durable on a node.
    fn on_batch(&mut self, _node: usize, _before: &Image, _batch: &AccountBatch) -> Verdict {
        Ok(())
    }
    /// Now and then, and at the end.
    fn on_images(&mut self, _images: &[&Image]) -> Verdict {
        Ok(())
    }
    /// All nodes are in one joint epoch: everything counts for everybody.
    fn on_joint(&mut self) {}
    /// The pair is at rest.
    fn at_end(&mut self, _images: &[&Image]) -> Verdict {
        Ok(())
    }
}

/// All of them.
pub(crate) struct Checks {
    all: Vec<Box<dyn Invariant>>,
    /// A rule broken by a write.
    pub(crate) landed_fault: Option<(&'static str, String)>,
}

impl Default for Checks {
    fn default() -> Self {
        let all: Vec<Box<dyn Invariant>> = vec![
            Box::<d1_acknowledged_is_retrievable::Acknowledged>::default(),
            Box::<d2_no_resurrection::Resurrection>::default(),
            Box::new(d3_command_takes_effect_once::Once),
            Box::<d6_equal_versions_equal_state::Equal>::default(),
            Box::<i1_uid_names_one_content::OneContent>::default(),
            Box::<i2_uidvalidity_only_grows::Validity>::default(),
            Box::<i3_uidnext_never_falls::UidNext>::default(),
            Box::new(i4_new_mail_above_uidnext::NewMail),
            Box::new(i5_uids_ascend::Ascend),
            Box::<i6_retired_uid_stays_away::Retired>::default(),
            Box::<i7_highestmodseq_never_falls::HighestModSeq>::default(),
            Box::new(i8_changes_have_higher_modseq::Changes),
            Box::new(i10_resync_equals_fetch::Resync),
        ];
        Self { all, landed_fault: None }
    }
}

type Broken = Result<(), (&'static str, String)>;

impl Checks {
    fn each(&mut self, mut check: impl FnMut(&mut dyn Invariant) -> Verdict) -> Broken {
        for one in &mut self.all {
            let name = one.name();
            check(&mut **one).map_err(|text| (name, text))?;
        }
        Ok(())
    }
    pub(crate) fn on_told(&mut self, told: &Told) {
        self.all.iter_mut().for_each(|one| one.on_told(told));
    }
    pub(crate) fn on_read(&mut self, reading: &Reading<'_>) -> Broken {
        self.each(|one| one.on_read(reading))
    }
    pub(crate) fn on_joint(&mut self) {
        self.all.iter_mut().for_each(|one| one.on_joint());
    }
    pub(crate) fn on_sample(&mut self, images: &[&Image]) -> Broken {
        self.each(|one| one.on_images(images))
    }
    pub(crate) fn at_end(&mut self, images: &[&Image]) -> Broken {
        self.each(|one| one.on_images(images))?;
        self.each(|one| one.at_end(images))
    }
    /// A part is about to land on the medium of a node.
    pub(crate) fn on_landed(&mut self, node: usize, before: &Image, part: &StoreWrite) {
        let StoreWrite::Account(batch) = part else { return };
        let mut broken = self.each(|one| one.on_batch(node, before, batch));
        let have = before.head(batch.account).version;
        if have != batch.expected && broken.is_ok() {
            let text = format!(
                "node {}: a batch of account {} for {} landed on {have}",
                node + 1,
                batch.account.0,
                batch.expected
            );
            broken = Err(("expected", text));
        }
        if let Err(broken) = broken {
            self.landed_fault.get_or_insert(broken);
        }
    }
}

/// Name of a mailbox for clients: account, name, UIDVALIDITY.
pub(crate) type Numbered = (AccountId, String, u32);

pub(crate) fn numbered(account: AccountId, mailbox: &Mailbox) -> Numbered {
    (account, mailbox.name.clone(), mailbox.uid_validity.0)
}

/// The greatest value told per key and side.
#[derive(Debug)]
pub(crate) struct Highest<K> {
    told: BTreeMap<K, BTreeMap<Option<usize>, u64>>,
}

impl<K> Default for Highest<K> {
    fn default() -> Self {
        Self { told: BTreeMap::new() }
    }
}

impl<K: Ord + Clone + std::fmt::Debug> Highest<K> {
    /// Refuses a value below what this view must know.
    pub(crate) fn tell(&mut self, view: &View, key: K, value: u64) -> Verdict {
        let sides = self.told.entry(key.clone()).or_default();
        for (side, highest) in sides.iter() {
            if view.must_know(*side) && value < *highest {
                let side = side.map_or_else(|| "all".to_owned(), |s| format!("node {}", s + 1));
                return Err(format!("{key:?}: {value} at node {} after {highest} ({side})", view.node + 1));
            }
        }
        let mine = sides.entry(view.side).or_default();
        *mine = (*mine).max(value);
        Ok(())
    }

    pub(crate) fn join(&mut self) {
        for sides in self.told.values_mut() {
            let highest = sides.values().copied().max().unwrap_or(0);
            *sides = BTreeMap::from([(None, highest)]);
        }
    }
}

/// Names a command in a message.
pub(crate) fn name_of(id: CommandId) -> String {
    id.to_string()
}
