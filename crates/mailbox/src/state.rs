//! States that clients come back with, and what changed since: the questions behind JMAP's `/changes` (RFC 8620 §5.2).
//!
//! A modseq alone does not say which state of an account a client has: two sides of a split count on their own. So a
//! state names the branch of numbers it is from, too. A branch begins with every gap (taken before a side of a split
//! shows anything, X9) and with every merge; the account remembers those it comes from, and how far. A state of another
//! branch is not answered, never wrongly. After a merge the states of both sides are: everything in which the result differs from
//! either has the merge's modseq.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::str::FromStr;

use bytes::Bytes;
use prost::Message;
use vocab::{Damaged, EpochId, MailboxId, ModSeq, PlacementId, Rows, Table, Uid};

use crate::read::{self, scan, scan_prefix};
use crate::rows::{
    Expunged, Mailbox, Placement, damaged, modseq_key, placement_id, placement_key, role_number, uid_of_key,
    unversioned, versioned,
};
use crate::work::Work;
use vocab::ids::PLACEMENT_ID_BYTES;

/// Branches an account remembers; states of older ones are answered no more.
pub const BRANCHES_MAX: usize = 64;

/// State of an account: what a client keeps, as the text it makes, and asks with later. Equal states of one account mean
/// that nothing a client can see has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// 0 before the first gap or merge.
    branch: u64,
    modseq: ModSeq,
    /// Hash of the mailboxes' ids, names and roles.
    mailboxes: u64,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:x}", self.branch, self.modseq.0, self.mailboxes)
    }
}

/// The text is no state of ours: answer as to one that cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAState;

impl FromStr for State {
    type Err = NotAState;

    fn from_str(text: &str) -> Result<Self, NotAState> {
        let mut parts = text.split('.').map(|part| u64::from_str_radix(part, 16).map_err(|_| NotAState));
        let mut next = || parts.next().unwrap_or(Err(NotAState));
        let state = Self { branch: next()?, modseq: ModSeq(next()?), mailboxes: next()? };
        // One text per state: no signs, no leading zeros, nothing behind it.
        if state.to_string() == text { Ok(state) } else { Err(NotAState) }
    }
}

/// What became of messages since a state, by EMAILID. Each is in one list. A message whose state a client already has
/// may be named again (after a merge), and one that came and went between two questions that were answered in parts may
/// be said to be destroyed; none that differs is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailChanges {
    /// Came since.
    pub created: Vec<PlacementId>,
    /// Flags or mailboxes changed.
    pub updated: Vec<PlacementId>,
    /// In no mailbox any more.
    pub destroyed: Vec<PlacementId>,
    /// The state these lists lead to: the present one, or one on the way there.
    pub state: State,
    /// Ask again from `state`.
    pub more: bool,
}

/// What became of mailboxes since a state. Mailboxes that came, went or were renamed are not listed but make the question
/// unanswerable: they are few, and all of them are cheap to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxChanges {
    /// Counts changed.
    pub updated: Vec<MailboxId>,
    /// The present state.
    pub state: State,
}

#[derive(Clone, PartialEq, Message)]
struct BranchV1 {
    #[prost(uint64, tag = "1")]
    since: u64,
    /// Not for the newest one.
    #[prost(uint64, optional, tag = "2")]
    until: Option<u64>,
}

/// Branches that an account comes from, by name: where their numbers begin, and up to where they lead here. Another side
/// may have gone on with the same branch (an agreed epoch skips no numbers), which this one then does not know.
type Branches = BTreeMap<u64, BranchV1>;

fn hash_of(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    // 0 is the branch of accounts that never had a gap.
    u64::from_be_bytes(*first).max(1)
}

fn branches(rows: &dyn Rows) -> Result<Branches, Damaged> {
    let mut found = Branches::new();
    scan_prefix(rows, Table::BRANCHES, &[], &mut |key, value| {
        let name = key.try_into().map_err(|_| damaged("branch row", "key"))?;
        found.insert(u64::from_be_bytes(name), unversioned("branch row", value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    if found.is_empty() {
        found.insert(0, BranchV1 { since: 0, until: None });
    }
    Ok(found)
}

/// Everything ends here, and a new branch begins.
fn begin(all: &mut Branches, (name, since): (u64, u64), until: u64) {
    all.values_mut().for_each(|branch| branch.until = branch.until.or(Some(until)));
    all.insert(name, BranchV1 { since, until: None });
    while all.len() > BRANCHES_MAX {
        let oldest = all.iter().min_by_key(|(name, branch)| (branch.since, **name)).map(|(name, _)| *name);
        oldest.map(|name| all.remove(&name));
    }
}

/// Numbers begin anew above a gap, which begins at `before`: the account's modseq is raised already.
pub(crate) fn begin_branch(work: &mut Work<'_>, epoch: EpochId, before: u64) -> Result<(), Damaged> {
    let mut name = epoch.number.to_be_bytes().to_vec();
    name.extend(epoch.author.to_be_bytes());
    let mut all = branches(&work.rows)?;
    let known: Vec<u64> = all.keys().copied().collect();
    begin(&mut all, (hash_of(&name), work.rows.head.modseq), before);
    for name in known.into_iter().filter(|name| !all.contains_key(name)) {
        work.delete(Table::BRANCHES, name.to_be_bytes())?;
    }
    for (name, branch) in all {
        work.write(Table::BRANCHES, name.to_be_bytes(), versioned(&branch))?;
    }
    Ok(())
}

/// The branches of both sides, each as far as either side has it, and the one that a merge begins at `stamp`.
pub(crate) fn merged_branches(
    anchor: &dyn Rows,
    guest: &dyn Rows,
    stamp: ModSeq,
) -> Result<Vec<(Vec<u8>, Bytes)>, Damaged> {
    let mut all = Branches::new();
    for side in [anchor, guest] {
        for (name, branch) in branches(side)? {
            let until = branch.until.unwrap_or(side.head().modseq);
            let joined = all.entry(name).or_insert(branch);
            joined.until = joined.until.max(Some(until));
        }
    }
    let name: Vec<u8> = [anchor, guest].iter().flat_map(|side| side.head().version.0).collect();
    begin(&mut all, (hash_of(&name), stamp.0), stamp.0);
    Ok(all.into_iter().map(|(name, branch)| (name.to_be_bytes().to_vec(), versioned(&branch))).collect())
}

/// The present state.
///
/// # Errors
/// [`Damaged`].
pub fn state(rows: &dyn Rows) -> Result<State, Damaged> {
    let newest = branches(rows)?.into_iter().max_by_key(|(name, branch)| (branch.since, *name));
    let mut tree = Vec::new();
    for mailbox in read::mailboxes(rows)? {
        tree.extend(mailbox.id.to_bytes());
        tree.extend((mailbox.name.len() as u64).to_be_bytes());
        tree.extend(mailbox.name.as_bytes());
        tree.extend(role_number(mailbox.role).to_be_bytes());
        tree.push(u8::from(mailbox.subscribed));
    }
    let branch = newest.map_or(0, |(name, _)| name);
    Ok(State { branch, modseq: ModSeq(rows.head().modseq), mailboxes: hash_of(&tree) })
}

/// Whether this account comes from the state: it is of a branch the account remembers, and of the part of it that led
/// here.
fn is_known(rows: &dyn Rows, since: &State) -> Result<bool, Damaged> {
    let branch = branches(rows)?.remove(&since.branch);
    let modseq = rows.head().modseq;
    Ok(branch.is_some_and(|branch| since.modseq.0 <= branch.until.unwrap_or(modseq)))
}

/// What happened to one message since a state.
struct Touched {
    /// When last.
    last: ModSeq,
    /// A placement of it, gone since or still there, is older than the state.
    older: bool,
    /// When the first of its placements came.
    came: ModSeq,
    /// It has placements.
    present: bool,
}

impl Touched {
    fn new() -> Self {
        Self { last: ModSeq(0), older: false, came: ModSeq(u64::MAX), present: false }
    }

    fn placed(&mut self, created: ModSeq, since: &State) {
        self.older |= created <= since.modseq;
        self.came = self.came.min(created);
    }
}

/// Messages that changed since `since`, oldest change first, at most `max`; `None`: the state cannot be answered
/// (cannotCalculateChanges), also when one command changed more than `max`. The client then reads everything.
///
/// # Errors
/// [`Damaged`].
pub fn email_changes(rows: &dyn Rows, since: &State, max: usize) -> Result<Option<EmailChanges>, Damaged> {
    if !is_known(rows, since)? {
        return Ok(None);
    }
    let now = state(rows)?;
    let mut all = touched(rows, since, &now)?;
    for (email, touched) in &mut all {
        for placement in placements_of(rows, *email)? {
            touched.placed(placement.created, since);
            touched.present = true;
        }
    }
    // A new message counts from when it came, so that a state on the way is not followed by changes to what it lacks.
    let mut events: Vec<(ModSeq, PlacementId, Touched)> = Vec::new();
    for (email, touched) in all {
        match (touched.present, touched.older) {
            // Since a merge it may have come only as the merge counts: then the client may know it all the same.
            (false, false) if since.branch == now.branch => {}
            (false, false) => events.push((touched.last, email, touched)),
            (true, false) => events.push((touched.came, email, touched)),
            (_, true) => events.push((touched.last, email, touched)),
        }
    }
    events.sort_by_key(|(at, email, _)| (*at, *email));
    let mut changes =
        EmailChanges { created: Vec::new(), updated: Vec::new(), destroyed: Vec::new(), state: now, more: false };
    if let Some((beyond, ..)) = events.get(max) {
        let beyond = *beyond;
        events.retain(|(at, ..)| *at < beyond);
        let Some((last, ..)) = events.last() else { return Ok(None) };
        changes.more = true;
        changes.state = State { modseq: *last, ..*since };
    }
    for (_, email, touched) in events {
        match touched {
            Touched { present: false, .. } => changes.destroyed.push(email),
            Touched { older: true, .. } => changes.updated.push(email),
            Touched { .. } => changes.created.push(email),
        }
    }
    Ok(Some(changes))
}

/// Mailboxes that changed since `since`; `None`: the state cannot be answered, or mailboxes came, went or changed their
/// names, roles or subscriptions. The client then reads all of them.
///
/// # Errors
/// [`Damaged`].
pub fn mailbox_changes(rows: &dyn Rows, since: &State) -> Result<Option<MailboxChanges>, Damaged> {
    let now = state(rows)?;
    if now.mailboxes != since.mailboxes || !is_known(rows, since)? {
        return Ok(None);
    }
    let changed = read::mailboxes(rows)?.into_iter().filter(|mailbox| mailbox.modseq > since.modseq);
    Ok(Some(MailboxChanges { updated: changed.map(|mailbox| mailbox.id).collect(), state: now }))
}

/// The present placements of a message, with their mailboxes' rows left out; none when it is gone.
///
/// # Errors
/// [`Damaged`].
pub fn placements_of(rows: &dyn Rows, email: PlacementId) -> Result<Vec<Placement>, Damaged> {
    Ok(places_of(rows, email)?.into_iter().map(|(_, placement)| placement).collect())
}

/// The mailboxes that have a message, each with its placement there; none when it is gone.
///
/// # Errors
/// [`Damaged`].
pub fn places_of(rows: &dyn Rows, email: PlacementId) -> Result<Vec<(MailboxId, Placement)>, Damaged> {
    let mut ids = vec![email];
    scan_prefix(rows, Table::FACTS, &email.to_bytes(), &mut |key, _| {
        if let Some(user) = key.get(PLACEMENT_ID_BYTES..).filter(|user| !user.is_empty()) {
            ids.push(placement_id("facts key", user)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut found = Vec::new();
    for id in ids {
        found.extend(read::placement_by_id(rows, id)?);
    }
    Ok(found)
}

fn touched(rows: &dyn Rows, since: &State, now: &State) -> Result<BTreeMap<PlacementId, Touched>, Damaged> {
    let mut all: BTreeMap<PlacementId, Touched> = BTreeMap::new();
    let mailboxes = read::mailboxes(rows)?;
    for mailbox in &mailboxes {
        for uid in changed_uids(rows, mailbox, since.modseq)? {
            let key = placement_key(mailbox.id, uid);
            let value = rows.get(Table::PLACEMENTS, &key)?;
            let value = value.ok_or_else(|| damaged("change index", &format!("names a missing row: {}", uid.0)))?;
            let placement = Placement::decode(&key, &value)?;
            let touched = all.entry(placement.email).or_insert_with(Touched::new);
            touched.last = touched.last.max(placement.modseq);
        }
    }
    for gone in expunged_since(rows, &mailboxes, since, now)? {
        let touched = all.entry(gone.email).or_insert_with(Touched::new);
        touched.last = touched.last.max(gone.modseq);
        touched.placed(gone.created, since);
    }
    Ok(all)
}

fn changed_uids(rows: &dyn Rows, mailbox: &Mailbox, since: ModSeq) -> Result<BTreeSet<Uid>, Damaged> {
    let mut found = BTreeSet::new();
    after(rows, Table::CHANGES, mailbox, since, &mut |key, _| {
        found.insert(uid_of_key(key)?);
        Ok(())
    })?;
    Ok(found)
}

fn after(
    rows: &dyn Rows,
    table: Table,
    mailbox: &Mailbox,
    since: ModSeq,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    let from = modseq_key(mailbox.id, since, Uid(u32::MAX));
    let to = modseq_key(mailbox.id, ModSeq(u64::MAX), Uid(u32::MAX));
    scan(rows, table, (Bound::Excluded(&from), Bound::Included(&to)), &mut |key, value| {
        visit(key, value)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// Placements expunged after the state: by the tombstones of each mailbox while these tell all, else from everything that
/// was ever expunged.
fn expunged_since(
    rows: &dyn Rows,
    mailboxes: &[Mailbox],
    since: &State,
    now: &State,
) -> Result<Vec<Expunged>, Damaged> {
    let mut found = Vec::new();
    let told = now.mailboxes == since.mailboxes && mailboxes.iter().all(|m| since.modseq >= m.vanish_floor);
    if !told {
        scan_prefix(rows, Table::EXPUNGED, &[], &mut |key, value| {
            let gone = Expunged::decode(placement_id("expunged key", key)?, value)?;
            found.extend((gone.modseq > since.modseq).then_some(gone));
            Ok(ControlFlow::Continue(()))
        })?;
        return Ok(found);
    }
    for mailbox in mailboxes {
        let mut ids = Vec::new();
        after(rows, Table::TOMBSTONES, mailbox, since.modseq, &mut |_, value| {
            ids.push(crate::rows::decode_tombstone(value)?);
            Ok(())
        })?;
        for id in ids {
            let gone = read::expunged(rows, id)?;
            found.push(gone.ok_or_else(|| damaged("tombstone", &format!("of a placement nobody remembers: {id}")))?);
        }
    }
    Ok(found)
}
