//! Certificates of this node, kept good while it runs: renewed long before they end, and exchanged with the cluster's CA.
//! What must be is said by [`topology::Rotation::duty`] and [`due::is_due`]; here it is done, step by step and so that a
//! crash between any two leaves something that works.

pub(crate) mod command;
pub(crate) mod disk;
mod due;
mod keeper;
pub(crate) mod office;
mod peer;

pub(crate) use keeper::Keeper;
pub(crate) use peer::Answers;

/// How long certificates of nodes and for clients last unless the node file says otherwise (s): a node that was off for
/// months still comes back.
pub(crate) const LIFE_S: u64 = 365 * 24 * 60 * 60;
/// What the node file may say (s); short ones are for tests.
pub(crate) const LIFE_RANGE_S: std::ops::RangeInclusive<u64> = 20..=10 * LIFE_S;
/// How long a CA lasts (s).
pub(crate) const CA_LIFE_S: u64 = 10 * LIFE_S;
