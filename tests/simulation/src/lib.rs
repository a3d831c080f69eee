//! The whole cluster in one process from one seed: the real mailbox, replica and topology code on fake disks, network
//! and clock, with clients that cache like real ones, and the promises of the design checked at every answer.

mod cast;
mod clients;
mod compute;
mod coverage;
mod disk;
mod extras;
mod faults;
mod invariants;
mod jobs;
mod mishaps;
mod net;
mod node;
mod outbound;
mod peers;
mod register;
mod rng;
mod shape;
mod spread;
mod vocabulary;
mod world;

pub use coverage::{Counter, Coverage, Need};
use topology::EpochRecord;

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
    /// A node writes the newest row format it knows, whoever reads it.
    WritesNewestRows,
    /// H14: 250 for accounts of several homes after the first home's commit, without an accept record.
    AcknowledgesFirstHome,
}

impl Control {
    /// Every control that switches something off.
    pub const ALL: [Self; 14] = [
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
        Self::WritesNewestRows,
        Self::AcknowledgesFirstHome,
    ];

    /// The rule of the machine it switches off, if it is one.
    fn rule(self) -> Option<replica::Rule> {
        match self {
            Self::GoesOnWithoutQuorum => Some(replica::Rule::QuorumDecides),
            Self::WaitsForNoLease => Some(replica::Rule::LeaseWaits),
            Self::ServesWithoutContact => Some(replica::Rule::HomeLease),
            Self::ShowsUnconfirmed => Some(replica::Rule::ConfirmedReads),
            Self::ServesBeforeOthersAreLevel => Some(replica::Rule::LevelOthers),
            Self::WritesNewestRows => Some(replica::Rule::LowerRows),
            _ => None,
        }
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
    run_as(seed, Age::Present, control, traced)
}

/// What a kept seed meant when it was kept: histories have grown since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// Before there were mishaps of disks.
    First,
    /// With them, before there were extras.
    Mishaps,
    /// With these too, before there were clients other than senders and readers.
    Extras,
    /// With all these, before homes were spread.
    Cast,
    /// As they are now.
    Present,
}

/// As [`run`], as the history was at this age.
#[must_use]
pub fn run_as(seed: u64, age: Age, control: Control, traced: bool) -> History {
    let mishaps = mishaps::Mishaps::of(seed).filter(|_| age >= Age::Mishaps);
    let extras = extras::Extras::of(seed).filter(|_| age >= Age::Extras);
    let cast = age >= Age::Cast && cast::is_in(seed);
    let spread = age >= Age::Present && spread::is_in(seed);
    play(seed, world::World::new(seed, control, traced, world::More { mishaps, extras, cast, spread }))
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
