//! The ports of the cluster addresses. By provider `listen` they are bound while this node should hold the address, and at
//! no other time; no privileges: the address must be one the kernel lets us bind (127/8, or added by somebody else). When
//! somebody else moves the address they are bound always, and connections are taken while this node should hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ports::cluster::Cluster;
use ports::config::Config;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::ClusterPorts;
use crate::listener::{Endpoint, Open, accept_all, bind, bind_ahead};

/// Pause before a port that could not be bound is tried again: the last holder may still be closing it.
const BIND_AGAIN: Duration = Duration::from_millis(10);

/// What the cluster address needs.
pub struct ClusterAddress {
    /// Services with their ports.
    pub endpoints: Vec<Endpoint>,
    /// When the ports are bound.
    pub when: ClusterPorts,
    /// The node's own address, which is bound already.
    pub own: IpAddr,
    /// False when the front-end stops.
    pub running: watch::Receiver<bool>,
    /// Says when to hold.
    pub cluster: Arc<dyn Cluster>,
    /// Says what address.
    pub config: Arc<dyn Config>,
}

impl ClusterAddress {
    /// Holds and lets go for ever, until the front-end stops.
    pub async fn keep(self) {
        let mut hold = self.cluster.holds_address();
        let mut revision = self.config.watch();
        let mut running = self.running.clone();
        let mut kept = match &self.when {
            ClusterPorts::Always(kept) => Some(kept.clone()),
            ClusterPorts::WhileHeld => None,
        };
        let mut tenures: BTreeMap<IpAddr, Tenure> = BTreeMap::new();
        loop {
            let held = *hold.borrow_and_update();
            let wanted = self.to_bind(held, kept.as_mut());
            tenures.retain(|address, _| wanted.contains(address));
            for address in wanted {
                tenures.entry(address).or_insert_with(|| Tenure::begin(address, &self)).hold(held);
            }
            metrics::gauge!("twinpost_cluster_address_held").set(if held && !tenures.is_empty() { 1.0 } else { 0.0 });
            tokio::select! {
                changed = hold.changed() => if changed.is_err() { return },
                changed = revision.changed() => if changed.is_err() { return },
                () = another(&mut kept) => {}
                stop = running.wait_for(|running| !*running) => { drop(stop); return }
            }
        }
    }

    fn to_bind(&self, held: bool, kept: Option<&mut watch::Receiver<BTreeSet<IpAddr>>>) -> BTreeSet<IpAddr> {
        let mut all: BTreeSet<IpAddr> = match kept {
            Some(kept) => kept.borrow_and_update().clone(),
            None if held => BTreeSet::new(),
            None => return BTreeSet::new(),
        };
        all.extend(self.config.current().cluster_addresses.iter().map(|one| one.address));
        all.remove(&self.own);
        all
    }
}

/// Returns when other addresses are kept.
async fn another(kept: &mut Option<watch::Receiver<BTreeSet<IpAddr>>>) {
    if let Some(kept) = kept
        && kept.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The bound ports; dropping it closes listeners at once and says goodbye on the connections.
struct Tenure {
    address: IpAddr,
    held: watch::Sender<bool>,
    _listeners: JoinSet<()>,
}

impl Tenure {
    fn begin(address: IpAddr, of: &ClusterAddress) -> Self {
        let (holds, holding) = watch::channel(false);
        let mut listeners = JoinSet::new();
        for endpoint in of.endpoints.iter().cloned() {
            let serving = endpoint.service.gated().then(|| of.cluster.serving());
            let open = Open::while_all([serving, Some(of.running.clone()), Some(holding.clone())]);
            listeners.spawn(hold_port(address, of.when.clone(), endpoint, open));
        }
        Self { address, held: holds, _listeners: listeners }
    }

    /// Connections are taken from now on, or told goodbye.
    fn hold(&self, held: bool) {
        if self.held.send_replace(held) == held {
            return;
        }
        let what = if held { "cluster address taken" } else { "cluster address let go" };
        tracing::info!(address = %self.address, "{what}");
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.hold(false);
    }
}

async fn hold_port(address: IpAddr, when: ClusterPorts, endpoint: Endpoint, open: Open) {
    let mut said = false;
    let listener = loop {
        let bound = match when {
            ClusterPorts::WhileHeld => bind(address, endpoint.port),
            ClusterPorts::Always(_) => bind_ahead(address, endpoint.port),
        };
        match bound {
            Ok(listener) => break listener,
            Err(error) if said => drop(error),
            Err(error) => {
                said = true;
                let (service, port) = (endpoint.service.name(), endpoint.port);
                tracing::warn!(%address, port, service, %error, "cluster address not bound yet, trying again");
            }
        }
        tokio::time::sleep(BIND_AGAIN).await;
    };
    accept_all(listener, endpoint, open).await;
}
