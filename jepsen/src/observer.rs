//! Looks at every node all the time and remembers what changed: who is home in which epoch, who holds the address.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::demo::clients::api::Status;

use crate::clients::{Phase, Work};
use crate::cluster::Cluster;

/// Between two looks at one node.
const EVERY: Duration = Duration::from_millis(150);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(1);

/// One epoch, as first seen.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// When.
    pub at: Instant,
    /// `number.author`.
    pub id: String,
    /// joint, reduced, solo, heal.
    pub kind: String,
    /// Home.
    pub home: u32,
}

/// All epochs in the order they were seen.
#[derive(Clone, Default)]
pub struct Observer(Arc<Mutex<Vec<Epoch>>>);

impl Observer {
    /// Looks until the work ends.
    pub async fn run(self, cluster: Arc<Cluster>, work: Arc<Work>) {
        let looks = (0..cluster.shape.data_nodes).map(|index| self.look(&cluster, index, &work));
        futures_util::future::join_all(looks).await;
    }

    async fn look(&self, cluster: &Cluster, index: usize, work: &Work) {
        let Ok(api) = cluster.api(index) else { return };
        let mut before = Status::default();
        while *work.phase.borrow() != Phase::End {
            if let Ok(Ok(now)) = tokio::time::timeout(LIMIT, api.status()).await {
                let changed =
                    now.epoch != before.epoch || now.mode != before.mode || now.address_holder != before.address_holder;
                if changed {
                    let (mode, holder) = (&now.mode, now.address_holder);
                    let text = format!(
                        "node {}: {mode}, epoch {} {}, holder {holder:?}",
                        index + 1,
                        now.epoch,
                        now.epoch_kind
                    );
                    work.model.note(&text);
                    self.saw(&now);
                }
                before = now;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn saw(&self, now: &Status) {
        let mut epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !now.epoch.is_empty() && !epochs.iter().any(|epoch| epoch.id == now.epoch) {
            epochs.push(Epoch {
                at: Instant::now(),
                id: now.epoch.clone(),
                kind: now.epoch_kind.clone(),
                home: now.home,
            });
        }
    }

    /// Times the service moved, or somebody went on alone, between two moments.
    #[must_use]
    pub fn moves(&self, from: Instant, to: Instant) -> usize {
        let epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut home = epochs.iter().rev().find(|epoch| epoch.at < from).map(|epoch| epoch.home);
        let mut moves = 0;
        for epoch in epochs.iter().filter(|epoch| from <= epoch.at && epoch.at <= to) {
            if epoch.kind == "solo" || home.is_some_and(|home| home != epoch.home) {
                moves += 1;
            }
            home = Some(epoch.home);
        }
        moves
    }

    /// Whether two nodes were alone at the same time, or one went on alone while the other was still about to learn of it,
    /// between two moments: both sides may have served.
    #[must_use]
    pub fn was_split(&self, from: Instant, to: Instant) -> bool {
        let epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within = epochs.iter().filter(|epoch| from <= epoch.at && epoch.at <= to && epoch.kind == "solo");
        let homes: std::collections::BTreeSet<u32> = within.map(|epoch| epoch.home).collect();
        homes.len() > 1
    }
}
