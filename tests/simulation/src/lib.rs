//! The whole cluster in one process from one seed: the real mailbox, replica and topology code on fake disks, network
//! and clock, with clients that cache like real ones, and the promises of the design checked at every answer.

mod cast;
mod clients;
mod compute;
mod control;
mod coverage;
mod disk;
mod extras;
mod faults;
mod heal_steps;
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

pub use control::Control;
pub use coverage::{Counter, Coverage, Need};
use topology::EpochRecord;

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
