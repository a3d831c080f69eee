//! What moved: who is home in which epoch, by the nodes' own events, and who got the address, by their kernels. Both are
//! records of every change, so that nothing is missed between two looks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use node::demo::clients::api::Status;

use crate::clients::{Phase, Work};
use crate::cluster::{Cluster, LIMIT};
use crate::monitor::{self, Monitor};
use crate::net::node_name;

/// Between two looks at one node, for the history.
const EVERY: Duration = Duration::from_millis(150);
/// How long one answer may take, for the history.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// What has happened is written down by then.
const WRITTEN_BY: Duration = Duration::from_millis(100);
/// Events a node is asked for: all it has in memory.
const EVENTS: &str = "/api/v1/cluster/events?limit=2000";

/// Number and author.
type EpochKey = (u64, u32);

/// One epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Epoch {
    solo: bool,
    home: u32,
}

/// All epochs that any node was in, in their order.
#[derive(Debug, Default)]
struct Epochs {
    known: BTreeMap<EpochKey, (Epoch, bool)>,
}

/// What happened since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Times the service moved, or somebody went on alone.
    pub moves: usize,
    /// Whether more than one node went on alone, so that both sides may have served.
    pub split: bool,
}

impl Epochs {
    fn saw(&mut self, key: EpochKey, epoch: Epoch) {
        self.known.entry(key).or_insert((epoch, false));
    }

    /// Counts what has not been counted yet.
    fn news(&mut self) -> News {
        let (mut before, mut moves, mut alone) = (None, 0, std::collections::BTreeSet::new());
        for (epoch, counted) in self.known.values_mut() {
            if !std::mem::replace(counted, true) {
                moves += usize::from(epoch.solo || before.is_some_and(|home| home != epoch.home));
                if epoch.solo {
                    alone.insert(epoch.home);
                }
            }
            before = Some(epoch.home);
        }
        News { moves, split: alone.len() > 1 }
    }
}

/// `number.author`
fn key(text: &str) -> Option<EpochKey> {
    let (number, author) = text.split_once('.')?;
    Some((number.parse().ok()?, author.parse().ok()?))
}

/// `entering epoch 12.1 (Solo), in sync [NodeId(1)], home 1`, as a node's events have it.
fn entered(text: &str) -> Option<(EpochKey, Epoch)> {
    let (id, rest) = text.strip_prefix("entering epoch ")?.split_once(' ')?;
    let (_, home) = rest.rsplit_once(", home ")?;
    Some((key(id)?, Epoch { solo: rest.starts_with("(Solo)"), home: home.parse().ok()? }))
}

/// Looks at every node.
pub struct Observer {
    epochs: Mutex<Epochs>,
    monitors: Vec<Monitor>,
    /// Moves of the address that were counted.
    counted: Mutex<usize>,
}

impl Observer {
    /// Counts from now on; the nodes are up.
    ///
    /// # Errors
    /// A node does not answer, or its events do not name its epochs.
    pub async fn begin(cluster: &Cluster, dir: &Path) -> anyhow::Result<Arc<Self>> {
        let nodes = (0..cluster.shape.data_nodes).map(node_name);
        let monitors = nodes.map(|name| Monitor::begin(&cluster.net, &name, dir)).collect::<anyhow::Result<_>>()?;
        let observer = Self { epochs: Mutex::default(), monitors, counted: Mutex::default() };
        if observer.read_events(cluster).await? == 0 {
            bail!("the nodes' events name no epoch");
        }
        observer.news(cluster).await?;
        Ok(Arc::new(observer))
    }

    /// Looks until the work ends.
    pub async fn run(self: Arc<Self>, cluster: Arc<Cluster>, work: Arc<Work>) {
        let looks = (0..cluster.shape.data_nodes).map(|index| self.look(&cluster, index, &work));
        futures_util::future::join_all(looks).await;
    }

    async fn look(&self, cluster: &Cluster, index: usize, work: &Work) {
        let Ok(api) = cluster.api(index) else { return };
        let mut before = Status::default();
        while *work.phase.borrow() != Phase::End {
            if let Ok(Ok(now)) = tokio::time::timeout(ANSWER_WAIT, api.status()).await {
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
                    // Events of a process that is killed while its disk is full are lost.
                    if let Some(key) = key(&now.epoch) {
                        self.saw(key, Epoch { solo: now.epoch_kind == "solo", home: now.home });
                    }
                }
                before = now;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn saw(&self, key: EpochKey, epoch: Epoch) {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).saw(key, epoch);
    }

    /// How many epochs the events of all nodes name.
    async fn read_events(&self, cluster: &Cluster) -> anyhow::Result<usize> {
        let mut count = 0;
        for index in 0..cluster.shape.data_nodes {
            let (api, begin) = (cluster.api(index)?, Instant::now());
            let said = loop {
                match api.get(EVENTS).await {
                    // It is up; the machine may be busy.
                    Err(_) if begin.elapsed() < LIMIT => tokio::time::sleep(EVERY).await,
                    said => break said.with_context(|| format!("events of node {}", index + 1))?,
                }
            };
            let said: serde_json::Value = serde_json::from_str(&said)?;
            let texts = said["events"].as_array().into_iter().flatten().filter_map(|event| event["text"].as_str());
            for (key, epoch) in texts.filter_map(entered) {
                self.saw(key, epoch);
                count += 1;
            }
        }
        Ok(count)
    }

    /// What happened since this was asked before. All nodes are up.
    ///
    /// # Errors
    /// A node does not answer.
    pub async fn news(&self, cluster: &Cluster) -> anyhow::Result<News> {
        tokio::time::sleep(WRITTEN_BY).await;
        self.read_events(cluster).await?;
        let gains = self.monitors.iter().map(|monitor| Ok(monitor.gains()?.0)).collect::<anyhow::Result<Vec<_>>>()?;
        let all = monitor::moves(&gains);
        let before = std::mem::replace(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner), all);
        let news = self.epochs.lock().unwrap_or_else(PoisonError::into_inner).news();
        Ok(News { moves: news.moves.max(all.saturating_sub(before)), ..news })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_counts_once_whenever_it_is_heard_of() {
        let mut epochs = Epochs::default();
        let saw = |epochs: &mut Epochs, text: &str| {
            let (key, epoch) = entered(text).expect(text);
            epochs.saw(key, epoch);
        };
        saw(&mut epochs, "entering epoch 3.0 (Joint), in sync [NodeId(1), NodeId(2)], home 1");
        assert_eq!(epochs.news(), News::default(), "what was before is no move");
        saw(&mut epochs, "entering epoch 4.0 (Joint), in sync [NodeId(1), NodeId(2)], home 2");
        assert_eq!(epochs.news(), News { moves: 1, split: false }, "a switchover");
        saw(&mut epochs, "entering epoch 4.0 (Joint), in sync [NodeId(1), NodeId(2)], home 2");
        assert_eq!(epochs.news(), News::default(), "by the other node");
        // There and back again before anybody looked.
        saw(&mut epochs, "entering epoch 6.0 (Joint), in sync [NodeId(1), NodeId(2)], home 2");
        saw(&mut epochs, "entering epoch 5.0 (Joint), in sync [NodeId(1), NodeId(2)], home 1");
        assert_eq!(epochs.news(), News { moves: 2, split: false });
        saw(&mut epochs, "entering epoch 7.0 (Reduced), in sync [NodeId(2)], home 2");
        assert_eq!(epochs.news(), News::default(), "agreed by both, and the service stays");
        saw(&mut epochs, "entering epoch 8.1 (Solo), in sync [NodeId(1)], home 1");
        saw(&mut epochs, "entering epoch 8.2 (Solo), in sync [NodeId(2)], home 2");
        assert_eq!(epochs.news(), News { moves: 2, split: true });
    }
}
