//! [`Senses`] over the engine: what happens at the cluster's edge becomes an event or a warning.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use ports::senses::Senses;
use replica::{Event, Serving};

use crate::engine::Engine;

/// [`Senses`] over the engine.
pub struct EngineSenses(pub(crate) Arc<Engine>);

impl Engine {
    /// For the hands and senses at the cluster's edge.
    #[must_use]
    pub fn senses(self: &Arc<Self>) -> Arc<EngineSenses> {
        Arc::new(EngineSenses(Arc::clone(self)))
    }
}

impl Senses for EngineSenses {
    fn address_fault(&self, fault: Option<String>) {
        *self.0.address_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
    fn target(&self, target: u32, answered: bool) {
        self.0.tell(Event::Target { target, answered });
    }
    fn idle_ms(&self) -> u64 {
        self.0.now().0.saturating_sub(self.0.turned.load(Ordering::Relaxed))
    }
    fn orders(&self) -> bool {
        let now = self.0.now();
        matches!(self.0.machine().serving(now), Serving::Home)
    }
}
