//! What the hands and senses at the cluster's edge (the address, probe targets) ask and tell the engine.

/// The engine, as hands and senses see it.
pub trait Senses: Send + Sync {
    /// What is wrong with the cluster address on this node, for status; `None` when nothing is.
    fn address_fault(&self, fault: Option<String>);
    /// A probe target answered, or did not; one number per target.
    fn target(&self, target: u32, answered: bool);
    /// Milliseconds since the engine's loop turned last: large while it hangs.
    fn idle_ms(&self) -> u64;
    /// Whether this node orders changes right now: its lease holds, or it is alone by right. False for a moment after
    /// every pause of this process, however short, and while the other node is silent.
    fn orders(&self) -> bool;
}
