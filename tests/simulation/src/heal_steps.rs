//! The steps of a heal (DESIGN 7), where each node stands in them, and crashes aimed at them.

use topology::{EpochKind, EpochRecord};

use crate::coverage::Coverage;
use crate::extras::Extra;
use crate::vocabulary::{Happening, node_id};
use crate::world::World;

/// What has been done last. A crash counts for the step it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HealStep {
    /// The heal is committed.
    Committed,
    /// The anchor wrote it.
    AnchorWrote,
    /// The guest is sealed.
    Sealed,
    /// A branch is sent.
    BranchSent,
    /// A merge is written.
    MergeWritten,
    /// A merge is on the others in sync.
    Pushed,
    /// The guest has switched.
    Switched,
    /// The join mark is written.
    Marked,
    /// Joint is committed.
    JointCommitted,
    /// One node wrote joint.
    JointWritten,
}

impl HealStep {
    pub(crate) const ALL: [Self; 10] = [
        Self::Committed,
        Self::AnchorWrote,
        Self::Sealed,
        Self::BranchSent,
        Self::MergeWritten,
        Self::Pushed,
        Self::Switched,
        Self::Marked,
        Self::JointCommitted,
        Self::JointWritten,
    ];

    fn count(self, coverage: &mut Coverage) {
        match self {
            Self::Committed => coverage.crash_committed += 1,
            Self::AnchorWrote => coverage.crash_anchor_wrote += 1,
            Self::Sealed => coverage.crash_sealed += 1,
            Self::BranchSent => coverage.crash_branch_sent += 1,
            Self::MergeWritten => coverage.crash_merge_written += 1,
            Self::Pushed => coverage.crash_pushed += 1,
            Self::Switched => coverage.crash_switched += 1,
            Self::Marked => coverage.crash_marked += 1,
            Self::JointCommitted => coverage.crash_joint_committed += 1,
            Self::JointWritten => coverage.crash_joint_written += 1,
        }
    }
}

impl World {
    /// This node has done this step.
    pub(crate) fn reach(&mut self, n: usize, step: HealStep) {
        self.nodes[n].heal = Some(step);
        let calming = self.calming.is_some();
        let Some(extras) = self.extras.as_mut().filter(|e| e.aims_at == Some(step) && e.shots > 0) else { return };
        if !calming && extras.rng.percent(60) {
            extras.shots -= 1;
            let (delay, guard) = (extras.rng.range(0, 6), extras.rng.percent(50));
            self.at(delay, Happening::Extra(Extra::Crash(n, guard)));
        }
    }

    /// The register has decided.
    pub(crate) fn heal_decided(&mut self, record: &EpochRecord) {
        let healed = record.kind == EpochKind::Joint && self.nodes.iter().any(|node| node.heal.is_some());
        let step = match record.kind {
            EpochKind::Heal => HealStep::Committed,
            EpochKind::Joint if healed => HealStep::JointCommitted,
            _ => return,
        };
        for n in 0..self.nodes.len() {
            self.reach(n, step);
        }
    }

    /// A node has written an epoch.
    pub(crate) fn heal_entered(&mut self, n: usize, record: &EpochRecord) {
        match record.kind {
            EpochKind::Heal if record.guest == Some(node_id(n)) => self.reach(n, HealStep::Sealed),
            EpochKind::Heal => self.reach(n, HealStep::AnchorWrote),
            EpochKind::Joint if self.nodes[n].heal.is_some() => self.reach(n, HealStep::JointWritten),
            _ => self.nodes[n].heal = None,
        }
        if self.nodes.iter().all(|node| node.heal == Some(HealStep::JointWritten)) {
            self.nodes.iter_mut().for_each(|node| node.heal = None);
        }
    }

    /// A merge is durable at its anchor, and before that on the others in sync (X13).
    pub(crate) fn merge_written(&mut self, n: usize) {
        let others = self.nodes[n].record.as_ref().is_some_and(|record| record.in_sync.len() > 1);
        self.reach(n, if others { HealStep::Pushed } else { HealStep::MergeWritten });
    }

    /// What a crash of this node comes after.
    pub(crate) fn count_heal_crash(&mut self, n: usize) {
        if let Some(step) = self.nodes[n].heal {
            step.count(&mut self.coverage);
        }
    }
}
