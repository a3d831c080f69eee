//! What happened in one history or in many, counted; and which of it must happen when many are run.

use mailbox::merge::Taken;
use topology::{EpochKind, EpochRecord};

/// Whether a counter must be hit when thousands of histories are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Else the histories do not reach what they are there for.
    Must,
    /// It happens rarely.
    May,
    /// It must not happen.
    Never,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its name.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// Whether it must be hit.
    pub need: Need,
}

impl Counter {
    /// Not hit although it must be, or hit although it must not.
    #[must_use]
    pub fn is_amiss(&self) -> bool {
        match self.need {
            Need::Must => self.count == 0,
            Need::May => false,
            Need::Never => self.count > 0,
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident: $name:literal, $need:ident;)*) => {
        /// What happened in one history or in many.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Coverage {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Coverage {
            /// Adds another history.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// Every counter with its name.
            #[must_use]
            pub fn counters(&self) -> Vec<Counter> {
                vec![$(Counter { name: $name, count: self.$field, need: Need::$need },)*]
            }
        }
    };
}

counters! {
    /// Client operations.
    operations: "operations", Must;
    /// Messages sent.
    messages: "messages", Must;
    /// Messages acknowledged.
    accepted: "accepted", Must;
    /// Reads checked.
    reads: "reads", Must;
    /// Reads of a backup under lease.
    backup_reads: "backup reads", Must;
    /// Reads that were held back by H28.
    merge_waits: "reads that waited for the merge of a heal", Must;
    /// Reads of a client that was shown both sides of a split.
    wandering_reads: "reads on both sides of a split", Must;
    /// Changes forwarded to the other node.
    forwarded: "forwarded", Must;
    /// Batches computed.
    batches: "batches", Must;
    /// Faults injected.
    faults: "faults", Must;
    /// Processes killed alone.
    kills: "kills", Must;
    /// Both at once, with their guards.
    group_kills: "group kills", Must;
    /// Faults added right after a kill.
    operators_hoped: "faults after a kill", Must;
    /// Homes moved and members let go by agreement.
    handovers: "planned handovers", Must;
    /// Disks without room.
    full_disks: "full disks", Must;
    /// Syncs that failed.
    failed_syncs: "failed syncs", Must;
    /// Disks that came back as they had been.
    rolled_back_disks: "disks rolled back", Must;
    /// Disks that came back empty.
    replaced_disks: "disks replaced", Must;
    /// Probe targets that were silent without reason.
    lying_targets: "lying probe targets", Must;
    /// Processes stopped or machines asleep.
    pauses: "pauses", Must;
    /// Networks cut.
    partitions: "partitions", Must;
    /// Slow disks and networks.
    slow: "slow disks and networks", Must;
    /// Nodes started anew with a program that reads a newer row format.
    upgrades: "programs upgraded", Must;
    /// Batches written by a node that reads the newer row format while another member does not.
    mixed_formats: "batches in mixed row formats", Must;
    /// Rows written in the newer format.
    newer_rows: "rows of the newer format", Must;
    /// Processes that died with batches in flight.
    in_flight_at_crash: "crashes with batches in flight", Must;
    /// Solo epochs opened.
    solo: "solo epochs", Must;
    /// Both nodes committed alone at once.
    splits: "true splits", Must;
    /// Heal epochs begun (on either node).
    heals: "heal epochs", Must;
    /// Joint epochs entered (on either node).
    joint: "joint epochs", Must;
    /// Reduced epochs entered.
    reduced: "reduced epochs", Must;
    /// Accounts that took a gap.
    gaps: "gaps taken", Must;
    /// Branches archived.
    archived: "branches archived", Must;
    /// Accounts raised above an archived branch: no row is damaged here, so every account can be merged.
    raised: "accounts raised", Never;
    /// Branches merged.
    merges: "branches merged", Must;
    /// Of these, without a common state to compare with (M12).
    merged_without_base: "branches merged without a base", Must;
    /// Messages that got a new UID in a merge.
    renumbered: "messages renumbered", Must;
    /// Mailboxes that took a new UIDVALIDITY with their new name (I2).
    renamed_anew: "mailboxes numbered anew by a rename", Must;
    /// Mailboxes that took one in a merge, for what either side told for their name.
    merged_anew: "mailboxes numbered anew for a name in a merge", May;
    /// Accounts transferred.
    transfers: "accounts transferred", Must;
    /// Of these, by differences alone.
    differences: "of them by differences", Must;
    /// Bodies pulled from the peer.
    blobs_fetched: "bodies fetched", Must;
    /// POP3 sessions.
    pop3_sessions: "POP3 sessions", Must;
    /// Sessions that began to watch.
    watching: "sessions in IDLE", Must;
    /// Changes they were told.
    watched: "changes told in IDLE", Must;
    /// Messages accepted for remote recipients.
    submissions: "submissions", Must;
    /// Messages remote hosts took.
    sent: "sent", Must;
    /// Of these, with the connection lost after the dot.
    lost_after_dot: "connections lost after the dot", Must;
    /// Reports of failure.
    bounces: "bounces", Must;
    /// Reports that were not made because the other side may have sent the message.
    bounces_held: "bounces held back", May;
    /// JMAP states that were answered.
    states_answered: "states answered", Must;
    /// JMAP states that were refused: the client read everything.
    states_refused: "states refused", Must;
    /// Accept records committed: messages to accounts of several homes.
    accept_records: "accept records", Must;
    /// Looks at records another home had taken in.
    inherited_records: "accept records inherited", Must;
    /// Two sides of a split took them in under one id.
    taken_in_twice: "submissions taken in in two epochs", Must;
    /// Nodes that went on by quorum with a witness.
    witness_takeovers: "takeovers with a witness", Must;
    /// Nodes that went on by quorum among three.
    third_node_takeovers: "takeovers among three", Must;
    /// Crashes after this step of a heal.
    crash_committed: "crashes when the heal is committed", Must;
    /// Crashes after this step of a heal.
    crash_anchor_wrote: "crashes when the anchor wrote it", Must;
    /// Crashes after this step of a heal.
    crash_sealed: "crashes when the guest is sealed", Must;
    /// Crashes after this step of a heal.
    crash_branch_sent: "crashes when a branch is sent", Must;
    /// Crashes after this step of a heal.
    crash_merge_written: "crashes when a merge is written", Must;
    /// Crashes after this step of a heal.
    crash_pushed: "crashes when a merge is on the others in sync", Must;
    /// Crashes after this step of a heal.
    crash_switched: "crashes when the guest has switched", Must;
    /// Crashes after this step of a heal.
    crash_marked: "crashes when the join mark is written", Must;
    /// Crashes after this step of a heal.
    crash_joint_committed: "crashes when joint is committed", Must;
    /// Crashes after this step of a heal.
    crash_joint_written: "crashes when one node wrote joint", Must;
    /// Merges in which this rule had something to decide.
    m0: "M0: a side taken as it is", Must;
    /// Merges in which this rule had something to decide.
    m1: "M1: stamp above both", Must;
    /// Merges in which this rule had something to decide.
    m2: "M2: attributes of a mailbox", Must;
    /// Merges in which this rule had something to decide.
    m3: "M3: a mailbox that survives its deletion", Must;
    /// Merges in which this rule had something to decide.
    m4: "M4: one name for two mailboxes", Must;
    /// Merges in which this rule had something to decide.
    m5: "M5: messages of one side", Must;
    /// Merges in which this rule had something to decide.
    m6: "M6: flags", Must;
    /// Merges in which this rule had something to decide.
    m7: "M7: numbers", Must;
    /// Merges in which this rule had something to decide.
    m8: "M8: what changed is stamped", Must;
    /// Merges in which this rule had something to decide.
    m9: "M9: UIDNEXT", Must;
    /// Merges in which this rule had something to decide.
    m10: "M10: documents and subscriptions", Must;
    /// Merges in which this rule had something to decide.
    m11: "M11: lineage", Must;
    /// Merges in which this rule had something to decide.
    m12: "M12: no base", Must;
    /// A second split before the first was healed to the end.
    nested_splits: "nested splits", Must;
    /// Nodes started while no other was up.
    cold_boots: "cold boots", Must;
    /// Nodes that were made the only voter.
    sole_voters: "sole voters (rescue)", Must;
    /// Commits that took longer than clients are kept waiting.
    limits: "commit waits at their limit", Must;
    /// Nodes that fenced themselves.
    fenced: "nodes fenced", Must;
}

impl Coverage {
    pub(crate) fn merge(&mut self, taken: Taken) {
        let rules = [
            &mut self.m0,
            &mut self.m1,
            &mut self.m2,
            &mut self.m3,
            &mut self.m4,
            &mut self.m5,
            &mut self.m6,
            &mut self.m7,
            &mut self.m8,
            &mut self.m9,
            &mut self.m10,
            &mut self.m11,
            &mut self.m12,
        ];
        for (number, rule) in (0..).zip(rules) {
            *rule += u64::from(taken.has(number));
        }
    }

    pub(crate) fn epoch(&mut self, record: &EpochRecord) {
        match record.kind {
            EpochKind::Solo => self.solo += 1,
            EpochKind::Heal => self.heals += 1,
            EpochKind::Joint => self.joint += 1,
            EpochKind::Reduced => self.reduced += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_hit_and_what_must_not_is_told_apart() {
        let none = Coverage::default();
        assert!(none.counters().iter().any(|c| c.name == "true splits" && c.is_amiss()));
        assert!(none.counters().iter().all(|c| c.name != "accounts raised" || !c.is_amiss()));
        let mut sum = Coverage { raised: 1, splits: 2, ..Coverage::default() };
        sum.add(&Coverage { splits: 3, ..Coverage::default() });
        assert_eq!(sum.splits, 5);
        assert!(sum.counters().iter().any(|c| c.name == "accounts raised" && c.is_amiss()));
    }
}
