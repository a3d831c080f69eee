//! The promises, each in a file of its own, checked against what clients were told (research: replication, section 4).
//!
//! While nodes commit apart by right (a true split), what one of them told is not held against the other; from the
//! next joint epoch on everything counts for everybody. An account with an archived branch is exempt from D2 and D3,
//! and mail in the branch counts as retrievable, until branches are merged.

mod d1_acknowledged_is_retrievable;
mod d2_no_resurrection;
mod d3_command_takes_effect_once;
mod d4_submission_delivered_or_bounced;
mod d5_bodies_are_where_they_were_acknowledged;
mod d6_equal_versions_equal_state;
mod i10_resync_equals_fetch;
mod i11_unchanged_since_means_unchanged;
mod i12_uids_told_for_new_messages;
mod i13_validity_names_one_mailbox;
mod i14_emailid_and_threadid_stay;
mod i15_reads_never_go_back;
mod i16_own_writes_are_read;
mod i17_watchers_hear_of_changes;
mod i18_uidl_is_stable;
mod i19_states_lead_to_the_truth;
mod i1_uid_names_one_content;
mod i20_ids_are_never_reused;
mod i21_lost_values_are_kept;
mod i22_usage_is_the_sum;
mod i2_uidvalidity_only_grows;
mod i3_uidnext_never_falls;
mod i4_new_mail_above_uidnext;
mod i5_uids_ascend;
mod i6_retired_uid_stays_away;
mod i7_highestmodseq_never_falls;
mod i8_changes_have_higher_modseq;
mod i9_vanished_names_what_is_gone;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mailbox::rows::{Mailbox, Placement};
use mime::ThreadId;
use vocab::{AccountBatch, AccountId, BlobHash, CommandId, Flags, MailboxId, ModSeq, PlacementId, StoreWrite, Uid};

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
    /// The guest of the heal it leads, once that is sealed and in touch: what it told must be known here too (H28).
    pub(crate) heard_out: Option<usize>,
    /// One that an operator has started alone although the others have the quorum.
    pub(crate) elsewhere: Option<usize>,
}

impl View {
    /// Whether a fact of this side must be known here.
    pub(crate) fn must_know(&self, side: Option<usize>) -> bool {
        let known = side.is_none() || side == self.side || side == self.heard_out;
        known || !(self.excused || side == self.elsewhere)
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
    /// Bodies an accept record of this node promises to the account.
    pub(crate) promised: &'a BTreeSet<BlobHash>,
    /// Modseq of the account.
    pub(crate) modseq: u64,
    /// What the client remembered by name; empty when it cannot be compared.
    pub(crate) before: &'a BTreeMap<String, Cached>,
    /// What its incremental resynchronisation made of it.
    pub(crate) after: &'a BTreeMap<String, Cached>,
    /// What QRESYNC said had vanished, by name, if the client asks so.
    pub(crate) vanished: &'a BTreeMap<String, Vec<Uid>>,
}

/// What one POP3 session is shown, by UIDL.
pub(crate) struct Maildrop<'a> {
    pub(crate) account: AccountId,
    pub(crate) view: View,
    pub(crate) inbox: MailboxId,
    pub(crate) uidls: &'a [(PlacementId, BlobHash)],
}

/// A session in IDLE that has not been told what its node may show.
pub(crate) struct Watching {
    pub(crate) account: AccountId,
    pub(crate) node: usize,
    /// For how long (ms).
    pub(crate) behind_ms: u64,
}

/// Messages by EMAILID, each with its placements: where they are, and with which flags.
pub(crate) type Emails = BTreeMap<PlacementId, BTreeMap<PlacementId, (MailboxId, Flags)>>;

/// What one JMAP client has made of the changes it was told, and what there is.
pub(crate) struct JmapReading<'a> {
    pub(crate) account: AccountId,
    pub(crate) view: View,
    pub(crate) followed: &'a Emails,
    pub(crate) truth: &'a Emails,
    /// Content and THREADID by EMAILID.
    pub(crate) identities: &'a BTreeMap<PlacementId, (BlobHash, ThreadId)>,
}

/// What a client was told or asked for.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// 250 for this body.
    Accepted { account: AccountId, blob: BlobHash, side: Option<usize> },
    /// An expunge was sent: whatever comes of it, these may be gone.
    ExpungeAsked { account: AccountId, blobs: Vec<BlobHash> },
    /// A transaction that may place this body once was sent; `again`: it places what is there already.
    Placing { account: AccountId, blob: BlobHash, again: bool },
    /// Two branches were merged: mailboxes the anchor had not, and those of either side that are in another one now or gone.
    /// `united`: of those gone, where what was in them is now: the mailbox of the same name.
    Reshaped { account: AccountId, back: Vec<MailboxId>, gone: Vec<MailboxId>, united: Vec<(MailboxId, MailboxId)> },
    /// INBOX is to be renamed: whatever is in it may be moved, on each side of a split.
    InboxMoved { account: AccountId },
    /// OK for a copy of one message.
    CopyKept { account: AccountId, blob: BlobHash, side: Option<usize> },
    /// OK for an expunge.
    Expunged { account: AccountId, placements: Vec<PlacementId>, side: Option<usize> },
    /// Whatever comes of it, these may be gone from where they were.
    RemovalAsked { account: AccountId, placements: Vec<PlacementId> },
    /// A mailbox is to be deleted, or INBOX renamed: whatever is in it may be gone from it, and the mailbox too.
    EmptyAsked { account: AccountId, mailbox: MailboxId },
    /// OK for DELETE.
    Deleted { account: AccountId, mailbox: MailboxId, side: Option<usize> },
    /// A mailbox may have another name from now on.
    RenameAsked { account: AccountId, mailbox: MailboxId },
    /// OK for RENAME.
    Renamed { account: AccountId, mailbox: MailboxId, to: String, side: Option<usize> },
    /// Two branches of the account were merged: a deleted mailbox may live on with new mail (M3). `blind`: without a common
    /// state, so that of two names the wrong one may stay (M12).
    Merged { account: AccountId, blind: bool },
    /// A node enters the epoch of a heal.
    HealBegins,
    /// A node of one side goes on alone from what that side has written: a side of its own.
    SideBegins { side: usize, from: usize },
    /// OK for CREATE.
    Created { account: AccountId, mailbox: MailboxId, name: String, side: Option<usize> },
    /// OK for a message that was appended, copied or moved.
    Wrote { account: AccountId, mailbox: MailboxId, id: PlacementId, side: Option<usize> },
    /// APPENDUID, COPYUID: this UID names this content.
    Named { account: AccountId, mailbox: MailboxId, validity: u32, uid: Uid, blob: BlobHash },
    /// The new placement is of the same message.
    Copied { account: AccountId, from: PlacementId, to: PlacementId },
    /// OK for STORE: flags that were there at this modseq.
    Flagged { account: AccountId, id: PlacementId, modseq: ModSeq, side: Option<usize> },
    /// A STORE under UNCHANGEDSINCE was done: the flags as they must be if nothing had changed, and as they are.
    Conditional { account: AccountId, id: PlacementId, wanted: Flags, now: Flags },
    /// A document is written or removed.
    NoteAsked { account: AccountId, id: CommandId, name: String, body: Option<Bytes> },
    /// 250 for a remote recipient.
    Submitted { item: CommandId },
    /// The start of an attempt is committed at a node.
    Started { item: CommandId, view: View },
    /// The remote host has it from a node; `held`: it was the other side's, and its grace is not over.
    Taken { item: CommandId, view: View, held: bool },
    /// The end of a delivery is committed.
    Sent { item: CommandId, side: Option<usize> },
    /// The report about it is accepted under this id.
    Bounced { item: CommandId, account: AccountId, id: CommandId },
    /// OK for it.
    NoteKept { account: AccountId, id: CommandId, side: Option<usize> },
}

/// One promise.
pub(crate) trait Invariant {
    /// Its name in the research page.
    fn name(&self) -> &'static str;
    /// A client was told something.
    fn on_told(&mut self, _told: &Told) -> Verdict {
        Ok(())
    }
    /// A POP3 session begins.
    fn on_maildrop(&mut self, _drop: &Maildrop<'_>) -> Verdict {
        Ok(())
    }
    /// A JMAP client has followed the changes.
    fn on_emails(&mut self, _reading: &JmapReading<'_>) -> Verdict {
        Ok(())
    }
    /// A session in IDLE is behind.
    fn on_watch(&mut self, _watching: &Watching) -> Verdict {
        Ok(())
    }
    /// A part becomes durable on a node.
    fn on_write(&mut self, _node: usize, _before: &Image, _part: &StoreWrite) {}
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
            Box::<d3_command_takes_effect_once::Once>::default(),
            Box::<d4_submission_delivered_or_bounced::Submissions>::default(),
            Box::<d5_bodies_are_where_they_were_acknowledged::Bodies>::default(),
            Box::<d6_equal_versions_equal_state::Equal>::default(),
            Box::<i1_uid_names_one_content::OneContent>::default(),
            Box::<i2_uidvalidity_only_grows::Validity>::default(),
            Box::<i3_uidnext_never_falls::UidNext>::default(),
            Box::new(i4_new_mail_above_uidnext::NewMail),
            Box::new(i5_uids_ascend::Ascend),
            Box::<i6_retired_uid_stays_away::Retired>::default(),
            Box::<i7_highestmodseq_never_falls::HighestModSeq>::default(),
            Box::new(i8_changes_have_higher_modseq::Changes),
            Box::new(i9_vanished_names_what_is_gone::Vanished),
            Box::new(i10_resync_equals_fetch::Resync),
            Box::new(i11_unchanged_since_means_unchanged::UnchangedSince),
            Box::<i12_uids_told_for_new_messages::ToldUids>::default(),
            Box::<i13_validity_names_one_mailbox::OneMailbox>::default(),
            Box::<i14_emailid_and_threadid_stay::Identity>::default(),
            Box::<i15_reads_never_go_back::Monotonic>::default(),
            Box::<i16_own_writes_are_read::OwnWrites>::default(),
            Box::new(i17_watchers_hear_of_changes::Watchers),
            Box::<i18_uidl_is_stable::Uidl>::default(),
            Box::new(i19_states_lead_to_the_truth::States),
            Box::<i20_ids_are_never_reused::Ids>::default(),
            Box::<i21_lost_values_are_kept::Conflicts>::default(),
            Box::new(i22_usage_is_the_sum::Usage),
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
        if let Err(broken) = self.each(|one| one.on_told(told)) {
            self.landed_fault.get_or_insert(broken);
        }
    }
    pub(crate) fn on_watch(&mut self, watching: &Watching) -> Broken {
        self.each(|one| one.on_watch(watching))
    }
    pub(crate) fn on_maildrop(&mut self, drop: &Maildrop<'_>) -> Broken {
        self.each(|one| one.on_maildrop(drop))
    }
    pub(crate) fn on_emails(&mut self, reading: &JmapReading<'_>) -> Broken {
        self.each(|one| one.on_emails(reading))
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
        self.all.iter_mut().for_each(|one| one.on_write(node, before, part));
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

    /// As [`Self::tell`], without asking: somebody was told this.
    pub(crate) fn note(&mut self, side: Option<usize>, key: K, value: u64) {
        let highest = self.told.entry(key).or_default().entry(side).or_default();
        *highest = (*highest).max(value);
    }

    pub(crate) fn has(&self, key: &K) -> bool {
        self.told.contains_key(key)
    }

    pub(crate) fn join(&mut self) {
        for sides in self.told.values_mut() {
            let highest = sides.values().copied().max().unwrap_or(0);
            *sides = BTreeMap::from([(None, highest)]);
        }
    }
}

/// Names that mailboxes were shown or created under.
#[derive(Debug, Default)]
pub(crate) struct NamesOf(BTreeMap<(AccountId, MailboxId), BTreeSet<String>>);

impl NamesOf {
    pub(crate) fn told(&mut self, told: &Told) {
        match told {
            Told::Created { account, mailbox, name, .. } => self.add(*account, *mailbox, name),
            Told::Renamed { account, mailbox, to, .. } => self.add(*account, *mailbox, to),
            _ => {}
        }
    }
    pub(crate) fn read(&mut self, reading: &Reading<'_>) {
        for mailbox in reading.mailboxes.iter().map(|shown| &shown.mailbox) {
            self.add(reading.account, mailbox.id, &mailbox.name);
        }
    }
    fn add(&mut self, account: AccountId, mailbox: MailboxId, name: &str) {
        let names = self.0.entry((account, mailbox)).or_default();
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
    }
    pub(crate) fn of(&self, account: AccountId, mailbox: MailboxId) -> impl Iterator<Item = (AccountId, String)> {
        let names = self.0.get(&(account, mailbox)).into_iter().flatten();
        names.map(move |name| (account, name.clone()))
    }
}

/// Keeps a fact under its key with the side that told it; told by all, it counts for all.
pub(crate) fn keep<K: Ord>(facts: &mut BTreeMap<K, Option<usize>>, key: K, side: Option<usize>) {
    let known = facts.entry(key).or_insert(side);
    if side.is_none() {
        *known = None;
    }
}

/// Names a command in a message.
pub(crate) fn name_of(id: CommandId) -> String {
    id.to_string()
}

#[cfg(test)]
mod tests;
