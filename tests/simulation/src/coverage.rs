//! What happened in one history or in many, counted; and which of it must happen when many are run.

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
    /// Nodes that went on by quorum with a witness.
    witness_takeovers: "takeovers with a witness", Must;
    /// Nodes that went on by quorum among three.
    third_node_takeovers: "takeovers among three", Must;
    /// Nodes that fenced themselves.
    fenced: "nodes fenced", Must;
}

impl Coverage {
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
