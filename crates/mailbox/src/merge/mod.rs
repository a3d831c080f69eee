//! The merge of two branches of one account (DESIGN 7): a pure function of base, anchor, guest and served marks.
//!
//! Each step makes a plan over both sides loaded in memory; one writer turns the plan into the wanted rows, and the
//! difference to the anchor's rows is an ordinary batch.

mod numbers;
mod placements;
mod registers;
mod side;
mod taken;
mod tree;
mod write;

use vocab::{AccountBatch, AccountId, BatchId, CommandId, Damaged, Rows, Version};

use crate::apply;
use crate::op::{Change, Stamp};
use crate::work::Work;
use placements::Union;
use side::Sides;
pub use taken::Taken;

/// One branch and whether a client saw its numbers since all branches were one.
#[derive(Clone, Copy)]
pub struct Branch<'a> {
    /// Its rows.
    pub rows: &'a dyn Rows,
    /// Whether it served the account since the fork (DESIGN 7, X15, X16).
    pub served: bool,
}

/// What a merge needs.
#[derive(Clone, Copy)]
pub struct MergeInput<'a> {
    /// Which account.
    pub account: AccountId,
    /// The greatest common version; `None` when it cannot be restored: then the mail of both sides is kept and
    /// UIDVALIDITY raised (M12).
    pub base: Option<&'a dyn Rows>,
    /// Its version: rows that were restored have the head of the side they were restored from.
    pub common: Version,
    /// The branch of the side that merges.
    pub anchor: Branch<'a>,
    /// The other branch.
    pub guest: Branch<'a>,
    /// Versions it went through since, at which a third node may stand: remembered as part of the result.
    pub between: &'a [Version],
    /// Stamp of the batch; its marks are not looked at. Its gap is there when the result is to be numbered in a window of its
    /// own, because a node is neither here nor the guest.
    pub stamp: Stamp,
}

/// What the merge did that somebody should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Messages under another UID than on one of the sides.
    pub renumbered: u64,
    /// Mailboxes that took a new UIDVALIDITY for what either side told for their name (I2).
    pub outdone: u64,
    /// Messages put into the recovery table.
    pub recovered: u64,
    /// Documents kept twice: the winner, and the loser under a conflict name.
    pub kept_twice: u64,
    /// What had to be decided, in words.
    pub conflicts: Vec<String>,
    /// Mailboxes whose UIDVALIDITY was raised, and why.
    pub raised: Vec<String>,
    /// Rules that had something to decide.
    pub taken: Taken,
}

/// The result.
#[derive(Clone, Debug)]
pub struct Merged {
    /// A batch over the anchor's rows.
    pub batch: AccountBatch,
    /// What observers hear after the commit.
    pub changes: Vec<Change>,
    /// For the log and the administrator.
    pub report: MergeReport,
    /// The counter of the next mailbox id under this stamp.
    pub mailbox_counter: u64,
}

/// How messages are numbered; all but the first are wrong, to see that a test would notice (research: replication, H1-H4).
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// Rule W.
    RuleW,
    /// H1: only messages that collide with a present one are renumbered.
    Colliding,
    /// H2: what the other side has not assigned stays.
    Unassigned,
    /// H3: what is at or above the other side's UIDNEXT stays.
    AboveUidNext,
    /// H4: the anchor's numbers stay, the guest's where they are free.
    AnchorFirst,
}

/// Rules that a test switches off to see that it would notice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How messages are numbered.
    pub numbering: Numbering,
    /// The vanish floor is raised to the stamp.
    pub floor: bool,
    /// What changed gets the stamp as modseq.
    pub restamp: bool,
    /// H6: messages are united by placement id; off: by what they contain.
    pub by_placement: bool,
    /// X18: what one side remembers as expunged is gone though the base does not have it.
    pub remembers: bool,
    /// X20: a placement in two mailboxes is kept in one.
    pub one_place: bool,
    /// X22: a mailbox that survives its deletion begins anew.
    pub survivor_anew: bool,
    /// I2: a mailbox under a name that either side told with a greater UIDVALIDITY takes a new one.
    pub names_grow: bool,
    /// H29: the marks of both sides count until every branch has adopted the result.
    pub marks_inherited: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            numbering: Numbering::RuleW,
            floor: true,
            restamp: true,
            by_placement: true,
            remembers: true,
            one_place: true,
            survivor_anew: true,
            names_grow: true,
            marks_inherited: true,
        }
    }
}

/// Merges the guest's branch into the anchor's. A guest that is in the anchor's lineage already changes no row.
///
/// # Errors
/// [`Damaged`] when rows of one of the branches cannot be read: repair that branch first.
pub fn merge(input: &MergeInput<'_>, batch: BatchId) -> Result<Merged, Damaged> {
    merge_by(input, batch, Rules::default())
}

/// As [`merge`], by these rules.
///
/// # Errors
/// As [`merge`].
#[doc(hidden)]
pub fn merge_by(input: &MergeInput<'_>, batch: BatchId, rules: Rules) -> Result<Merged, Damaged> {
    let (anchor, guest) = (input.anchor.rows.head(), input.guest.rows.head());
    if anchor.version == guest.version || anchor.lineage.contains(&guest.version) {
        let batch = crate::batch::seal(input.account, anchor, std::iter::empty(), Vec::new(), batch);
        let mailbox_counter = input.stamp.mailbox_counter;
        let report = MergeReport { taken: Taken::as_it_is(), ..MergeReport::default() };
        return Ok(Merged { batch, changes: Vec::new(), report, mailbox_counter });
    }
    if let Some(base) = input.base
        && let Some(merged) = attempt(input, batch, rules, Some(base))?
    {
        return Ok(merged);
    }
    let unsound = || Damaged("merge: not even both sides' mail together makes a sound account".to_owned());
    attempt(input, batch, rules, None)?.ok_or_else(unsound)
}

/// `None` when the plan does not hold its own checks.
fn attempt(
    input: &MergeInput<'_>,
    batch: BatchId,
    rules: Rules,
    base: Option<&dyn Rows>,
) -> Result<Option<Merged>, Damaged> {
    let sides = Sides::load(input, base)?;
    let mut work = Work::new(input.anchor.rows, input.stamp);
    work.begin(CommandId::default());
    let mut report = MergeReport::default();
    write::join_heads(&mut work, &sides, input.between, rules);
    if sides.purged() {
        report.conflicts.push("one side was purged: so is the other".to_owned());
        crate::hierarchy::purge(&mut work).map_err(|_| Damaged("merge: purge".to_owned()))?;
    } else {
        let union = Union::of(&sides, rules);
        let tree = tree::Tree::of(&sides, (&union, rules), &mut work, &mut report);
        let Some(numbered) = numbers::number(&sides, &union, &tree, rules) else { return Ok(None) };
        let plan = write::Plan { sides: &sides, union: &union, tree: &tree, numbered: &numbered, rules };
        write::write(&mut work, input, &plan, &mut report)?;
        report.taken = Taken::of(&sides, &numbered, input)?;
    }
    let mailbox_counter = work.stamp.mailbox_counter;
    let changes = work.commit();
    let batch = apply::finish(input.account, work, batch);
    Ok(batch.map(|batch| Merged { batch, changes, report, mailbox_counter }))
}
