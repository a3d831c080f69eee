//! The loop over due items: as many attempts at once as allowed, none while this node is not the worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ports::blobs::Blobs;
use ports::config::Config;
use ports::directory::Directory;
use ports::intake::Intake;
use ports::outbox::Outbox;
use ports::resolver::Resolver;
use tokio::task::JoinSet;
use vocab::{CommandId, NodeId, Timestamp};

use crate::attempt;
use crate::tls::Connectors;

/// Longest wait before looking again, be it that nobody said something changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Running attempts get this long when the node stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The seams the relay works through.
#[derive(Clone)]
pub struct RelayPorts {
    /// The queue.
    pub outbox: Arc<dyn Outbox>,
    /// Bodies.
    pub blobs: Arc<dyn Blobs>,
    /// DNS.
    pub resolver: Arc<dyn Resolver>,
    /// Settings: the document `relay` names a relay host.
    pub config: Arc<dyn Config>,
    /// Where bounces lead.
    pub directory: Arc<dyn Directory>,
    /// Takes bounces.
    pub intake: Arc<dyn Intake>,
    /// The log.
    pub log: Arc<dyn ports::log::Log>,
}

/// What the relay is told.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Our name in EHLO and in bounces.
    pub hostname: String,
    /// This node.
    pub node: NodeId,
    /// Port of mail hosts (25; tests take another).
    pub port: u16,
    /// Attempts at once.
    pub concurrent_max: usize,
    /// Wait after the first failed attempt (ms); see [`queue::schedule::next_attempt`].
    pub first_retry_ms: u64,
}

impl RelayConfig {
    /// The usual settings.
    #[must_use]
    pub const fn new(hostname: String, node: NodeId) -> Self {
        Self { hostname, node, port: 25, concurrent_max: 20, first_retry_ms: queue::schedule::INTERVALS_MS[0] }
    }
}

/// The outbound worker of this node.
pub struct Relay {
    pub(crate) ports: RelayPorts,
    pub(crate) config: RelayConfig,
    pub(crate) connectors: Connectors,
}

impl Relay {
    /// Ready to [`Relay::run`].
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn new(ports: RelayPorts, config: RelayConfig) -> Result<Arc<Self>, rustls::Error> {
        Ok(Arc::new(Self { ports, config, connectors: Connectors::new()? }))
    }

    /// Works until `stop` resolves, then lets running attempts end for a few seconds.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut attempts: JoinSet<CommandId> = JoinSet::new();
        let mut busy: BTreeSet<CommandId> = BTreeSet::new();
        loop {
            let wait = self.start_due(&mut attempts, &mut busy).await;
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = attempts.join_next() => match ended {
                    Ok(id) => drop(busy.remove(&id)),
                    Err(error) => {
                        // A panic in an attempt: its item is tried again when the attempt counts as lost.
                        tracing::error!(%error, "relay attempt ended badly");
                    }
                },
                () = self.ports.outbox.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        let all = async { while attempts.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_GRACE, all).await;
    }

    /// Starts what is due and returns how long nothing else will be.
    async fn start_due(
        self: &Arc<Self>,
        attempts: &mut JoinSet<CommandId>,
        busy: &mut BTreeSet<CommandId>,
    ) -> Duration {
        let free = self.config.concurrent_max.saturating_sub(attempts.len());
        if free == 0 || !self.ports.outbox.is_worker() {
            return LOOK_EVERY;
        }
        let now = wall();
        // Items whose start is not committed yet are still listed, so ask for that many more.
        let (items, next) = match self.ports.outbox.due(now, free + attempts.len()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "queue cannot be read now");
                return LOOK_EVERY;
            }
        };
        for item in items.into_iter().filter(|item| !busy.contains(&item.id)).take(free).collect::<Vec<_>>() {
            busy.insert(item.id);
            attempts.spawn(attempt::run(self.clone(), item));
        }
        next.map_or(LOOK_EVERY, |at| Duration::from_millis(at.0.saturating_sub(now.0).max(10))).min(LOOK_EVERY)
    }
}

/// Wall-clock time.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
