//! The whole cluster in one process from one seed: the real mailbox, replica and topology code on fake disks, network
//! and clock, with clients that cache like real ones, and the promises of the design checked at every answer.

mod clients;
mod compute;
mod disk;
mod faults;
mod invariants;
mod jobs;
mod mishaps;
mod net;
mod node;
mod peers;
mod register;
mod rng;
mod shape;
mod vocabulary;
mod world;

use topology::{EpochKind, EpochRecord};

/// A rule of the design that is switched off, to see that the checks notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Nothing is.
    #[default]
    None,
    /// The home answers before the backup has the batch.
    AcknowledgesEarly,
    /// H22: a node that boots alone with old data goes on alone by itself.
    StartsAloneByItself,
    /// H1, H2: a merge keeps every number that is free instead of numbering by rule W.
    KeepsFreeNumbers,
    /// H6: what a merge changes keeps its modseq.
    MergesWithoutStamp,
    /// H5: a merge leaves the vanish floor where it was.
    MergesWithoutFloor,
    /// X8, X9: an epoch without a member skips no numbers.
    SkipsNoNumbers,
    /// X16: what clients are shown in an epoch without a member marks nothing.
    MarksNothingServed,
    /// With a third voter every node goes on alone as in a pair.
    GoesOnWithoutQuorum,
    /// X3, X4: a new home does not wait for the leases of the old epoch.
    WaitsForNoLease,
    /// X4: a home serves though the others do not acknowledge.
    ServesWithoutContact,
    /// H20: a backup shows what it has written, confirmed or not.
    ShowsUnconfirmed,
    /// X13: what was taken over from one node is served before the others have it.
    ServesBeforeOthersAreLevel,
}

impl Control {
    /// Every control that switches something off.
    pub const ALL: [Self; 12] = [
        Self::AcknowledgesEarly,
        Self::StartsAloneByItself,
        Self::KeepsFreeNumbers,
        Self::MergesWithoutStamp,
        Self::MergesWithoutFloor,
        Self::SkipsNoNumbers,
        Self::MarksNothingServed,
        Self::GoesOnWithoutQuorum,
        Self::WaitsForNoLease,
        Self::ServesWithoutContact,
        Self::ShowsUnconfirmed,
        Self::ServesBeforeOthersAreLevel,
    ];

    /// The rule of the machine it switches off, if it is one.
    fn rule(self) -> Option<replica::Rule> {
        match self {
            Self::GoesOnWithoutQuorum => Some(replica::Rule::QuorumDecides),
            Self::WaitsForNoLease => Some(replica::Rule::LeaseWaits),
            Self::ServesWithoutContact => Some(replica::Rule::HomeLease),
            Self::ShowsUnconfirmed => Some(replica::Rule::ConfirmedReads),
            Self::ServesBeforeOthersAreLevel => Some(replica::Rule::LevelOthers),
            _ => None,
        }
    }
}

/// What happened in one history or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Client operations.
    pub operations: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages acknowledged.
    pub accepted: u64,
    /// Reads checked.
    pub reads: u64,
    /// Reads of a backup under lease.
    pub backup_reads: u64,
    /// Changes forwarded to the other node.
    pub forwarded: u64,
    /// Batches computed.
    pub batches: u64,
    /// Faults injected.
    pub faults: u64,
    /// Processes killed alone.
    pub kills: u64,
    /// Both at once, with their guards.
    pub group_kills: u64,
    /// Faults added right after a kill.
    pub operators_hoped: u64,
    /// Homes moved and members let go by agreement.
    pub handovers: u64,
    /// Processes stopped or machines asleep.
    pub pauses: u64,
    /// Disks without room.
    pub full_disks: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Disks that came back as they had been.
    pub rolled_back_disks: u64,
    /// Disks that came back empty.
    pub replaced_disks: u64,
    /// Probe targets that were silent without reason.
    pub lying_targets: u64,
    /// Networks cut.
    pub partitions: u64,
    /// Slow disks and networks.
    pub slow: u64,
    /// Processes that died with batches in flight.
    pub in_flight_at_crash: u64,
    /// Solo epochs opened.
    pub solo: u64,
    /// Both nodes committed alone at once.
    pub splits: u64,
    /// Heal epochs begun (on either node).
    pub heals: u64,
    /// Joint epochs entered (on either node).
    pub joint: u64,
    /// Reduced epochs entered.
    pub reduced: u64,
    /// Accounts that took a gap.
    pub gaps: u64,
    /// Branches archived.
    pub archived: u64,
    /// Accounts raised above an archived branch.
    pub raised: u64,
    /// Branches merged.
    pub merges: u64,
    /// Of these, without a common state to compare with (M12).
    pub merged_without_base: u64,
    /// Messages that got a new UID in a merge.
    pub renumbered: u64,
    /// Accounts transferred.
    pub transfers: u64,
    /// Bodies pulled from the peer.
    pub blobs_fetched: u64,
    /// Nodes that went on by quorum with a witness.
    pub witness_takeovers: u64,
    /// Nodes that went on by quorum among three.
    pub third_node_takeovers: u64,
    /// Nodes that fenced themselves.
    pub fenced: u64,
}

impl Coverage {
    fn epoch(&mut self, record: &EpochRecord) {
        match record.kind {
            EpochKind::Solo => self.solo += 1,
            EpochKind::Heal => self.heals += 1,
            EpochKind::Joint => self.joint += 1,
            EpochKind::Reduced => self.reduced += 1,
        }
    }

    /// Adds another history.
    pub fn add(&mut self, other: &Self) {
        let more = other.counters();
        for (mine, (_, more)) in self.counters_mut().into_iter().zip(more) {
            *mine += more;
        }
    }

    /// In the order of [`Self::counters`].
    fn counters_mut(&mut self) -> [&mut u64; 37] {
        [
            &mut self.operations,
            &mut self.messages,
            &mut self.accepted,
            &mut self.reads,
            &mut self.backup_reads,
            &mut self.forwarded,
            &mut self.batches,
            &mut self.faults,
            &mut self.kills,
            &mut self.group_kills,
            &mut self.operators_hoped,
            &mut self.handovers,
            &mut self.full_disks,
            &mut self.failed_syncs,
            &mut self.rolled_back_disks,
            &mut self.replaced_disks,
            &mut self.lying_targets,
            &mut self.pauses,
            &mut self.partitions,
            &mut self.slow,
            &mut self.in_flight_at_crash,
            &mut self.solo,
            &mut self.splits,
            &mut self.heals,
            &mut self.joint,
            &mut self.reduced,
            &mut self.gaps,
            &mut self.archived,
            &mut self.raised,
            &mut self.merges,
            &mut self.merged_without_base,
            &mut self.renumbered,
            &mut self.transfers,
            &mut self.blobs_fetched,
            &mut self.witness_takeovers,
            &mut self.third_node_takeovers,
            &mut self.fenced,
        ]
    }

    /// Every counter with its name.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 37] {
        [
            ("operations", self.operations),
            ("messages", self.messages),
            ("accepted", self.accepted),
            ("reads", self.reads),
            ("backup reads", self.backup_reads),
            ("forwarded", self.forwarded),
            ("batches", self.batches),
            ("faults", self.faults),
            ("kills", self.kills),
            ("group kills", self.group_kills),
            ("faults after a kill", self.operators_hoped),
            ("planned handovers", self.handovers),
            ("full disks", self.full_disks),
            ("failed syncs", self.failed_syncs),
            ("disks rolled back", self.rolled_back_disks),
            ("disks replaced", self.replaced_disks),
            ("lying probe targets", self.lying_targets),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("slow disks and networks", self.slow),
            ("crashes with batches in flight", self.in_flight_at_crash),
            ("solo epochs", self.solo),
            ("true splits", self.splits),
            ("heal epochs", self.heals),
            ("joint epochs", self.joint),
            ("reduced epochs", self.reduced),
            ("gaps taken", self.gaps),
            ("branches archived", self.archived),
            ("accounts raised", self.raised),
            ("branches merged", self.merges),
            ("branches merged without a base", self.merged_without_base),
            ("messages renumbered", self.renumbered),
            ("accounts transferred", self.transfers),
            ("bodies fetched", self.blobs_fetched),
            ("takeovers with a witness", self.witness_takeovers),
            ("takeovers among three", self.third_node_takeovers),
            ("nodes fenced", self.fenced),
        ]
    }
}

/// One history.
#[derive(Clone, Debug)]
pub struct History {
    /// Its seed.
    pub seed: u64,
    /// The rule that was broken and how; `None` when all held.
    pub broken: Option<String>,
    /// What happened.
    pub coverage: Coverage,
    /// Virtual time (ms).
    pub lasted: u64,
    /// The story in lines, if asked for.
    pub trace: Vec<String>,
}

/// Accounts of every history.
pub const ACCOUNTS: u64 = clients::ACCOUNTS;
/// Clients of every history.
pub const CLIENTS: u64 = clients::ACCOUNTS + 7;

/// Runs the history of a seed. The same seed gives the same history.
#[must_use]
pub fn run(seed: u64, control: Control, traced: bool) -> History {
    play(seed, world::World::new(seed, control, traced, mishaps::Mishaps::of(seed)))
}

/// As [`run`], without mishaps of disks: what the seeds meant that were kept before there were any.
#[must_use]
pub fn run_without_mishaps(seed: u64, control: Control, traced: bool) -> History {
    play(seed, world::World::new(seed, control, traced, None))
}

fn play(seed: u64, mut world: world::World) -> History {
    world.run();
    History {
        seed,
        broken: world.violation.map(|violation| format!("{}: {}", violation.rule, violation.text)),
        coverage: world.coverage,
        lasted: world.now,
        trace: world.trace.unwrap_or_default(),
    }
}

/// An epoch in a few words.
fn describe_record(record: &EpochRecord) -> String {
    let nodes = |set: &[vocab::NodeId]| set.iter().map(|n| n.0.to_string()).collect::<Vec<_>>().join(",");
    let guest = record.guest.map(|g| format!(" guest {}", g.0)).unwrap_or_default();
    let gap = if record.gap { " gap" } else { "" };
    format!("{:?} {} in sync [{}] home {}{guest}{gap}", record.kind, record.id, nodes(&record.in_sync), record.home.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_added_to_itself() {
        let mut one = Coverage::default();
        for (number, counter) in (1..).zip(one.counters_mut()) {
            *counter = number;
        }
        let mut sum = one;
        sum.add(&one);
        for (number, (name, count)) in (1..).zip(sum.counters()) {
            assert_eq!(count, 2 * number, "{name}");
        }
    }
}
