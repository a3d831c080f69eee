//! The cluster address by provider `listen`: its ports are bound while this node should hold it, and at no other time.
//! No privileges: the address must be one the kernel lets us bind (127/8, or added by somebody else).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ports::cluster::Cluster;
use ports::config::Config;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::listener::{Endpoint, Open, accept_all, bind};

/// Pause before a port that could not be bound is tried again: the last holder may still be closing it.
const BIND_AGAIN: Duration = Duration::from_millis(10);

/// What the cluster address needs.
pub struct ClusterAddress {
    /// Services with their ports.
    pub endpoints: Vec<Endpoint>,
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
        loop {
            let wanted = if *hold.borrow_and_update() { self.address() } else { None };
            let tenure = wanted.map(|address| Tenure::begin(address, &self));
            loop {
                tokio::select! {
                    changed = hold.changed() => if changed.is_err() { return },
                    changed = revision.changed() => if changed.is_err() { return },
                    stop = running.wait_for(|running| !*running) => { drop(stop); return }
                }
                let now = if *hold.borrow_and_update() { self.address() } else { None };
                if now != wanted {
                    break;
                }
            }
            drop(tenure);
        }
    }

    fn address(&self) -> Option<IpAddr> {
        let address = self.config.current().cluster_address.as_ref()?.parse().ok()?;
        (address != self.own).then_some(address)
    }
}

/// Holding the address; dropping it closes listeners at once and says goodbye on the connections.
struct Tenure {
    address: IpAddr,
    _held: watch::Sender<bool>,
    _listeners: JoinSet<()>,
}

impl Tenure {
    fn begin(address: IpAddr, of: &ClusterAddress) -> Self {
        let (held, holding) = watch::channel(true);
        let mut listeners = JoinSet::new();
        for endpoint in of.endpoints.iter().cloned() {
            let serving = endpoint.service.gated().then(|| of.cluster.serving());
            let open = Open::while_all([serving, Some(of.running.clone()), Some(holding.clone())]);
            listeners.spawn(hold_port(address, endpoint, open));
        }
        tracing::info!(%address, "cluster address taken");
        metrics::gauge!("twinpost_cluster_address_held").set(1.0);
        Self { address, _held: held, _listeners: listeners }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        tracing::info!(address = %self.address, "cluster address let go");
        metrics::gauge!("twinpost_cluster_address_held").set(0.0);
    }
}

async fn hold_port(address: IpAddr, endpoint: Endpoint, open: Open) {
    let mut said = false;
    let listener = loop {
        match bind(address, endpoint.port) {
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
