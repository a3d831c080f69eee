//! The task that keeps the address where it belongs: the schedule's steps, done by the device.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use ports::cluster::Cluster;
use ports::config::Config;
use ports::senses::Senses;
use tokio::sync::{oneshot, watch};
use vocab::{Instant, NodeId};

use crate::device::{Device, Lease};
use crate::schedule::{Health, Schedule, Step};

/// Who is asked and told.
pub struct KeeperConfig {
    /// This node.
    pub node: NodeId,
    /// Says when to hold.
    pub cluster: Arc<dyn Cluster>,
    /// Says what address, and who the others are.
    pub config: Arc<dyn Config>,
    /// Hears of faults.
    pub senses: Arc<dyn Senses>,
}

/// The running task.
pub struct Keeper {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Keeper {
    /// Starts to keep the address.
    #[must_use]
    pub fn start(config: KeeperConfig, device: Device) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(Holding::new(config, device).run(stopped)) }
    }

    /// Removes the address, if it is here, and ends.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

struct Holding {
    config: KeeperConfig,
    device: Device,
    hold: watch::Receiver<bool>,
    started: Clock,
    address: Option<IpAddr>,
    schedule: Schedule,
    fault: Option<String>,
    reason: &'static str,
}

impl Holding {
    fn new(config: KeeperConfig, device: Device) -> Self {
        let hold = config.cluster.holds_address();
        let schedule = Schedule::new(device.is_leased(), Instant(0));
        Self { config, device, hold, started: Clock::now(), address: None, schedule, fault: None, reason: "takeover" }
    }

    fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut revision = self.config.config.watch();
        let mut told = false;
        loop {
            self.follow_address().await;
            let wanted = *self.hold.borrow_and_update() && self.address.is_some();
            self.schedule.want(wanted, self.now());
            if std::mem::take(&mut told) {
                self.schedule.claim(self.now());
            }
            self.steps().await;
            let wait = Duration::from_millis(self.schedule.wait_ms(self.now()));
            tokio::select! {
                _ = &mut stop => break,
                changed = self.hold.changed() => if changed.is_ok() { told = true } else { break },
                changed = revision.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.reason = "stop";
        self.schedule.stop(self.now());
        self.steps().await;
    }

    /// Another address, or none: the old one goes at once, the new one is checked first.
    async fn follow_address(&mut self) {
        let address = self.config.config.current().cluster_address.as_ref().and_then(|text| text.parse().ok());
        if address == self.address {
            return;
        }
        self.reason = "another address";
        self.schedule.stop(self.now());
        self.steps().await;
        self.schedule = Schedule::new(self.device.is_leased(), self.now());
        self.address = address;
    }

    async fn steps(&mut self) {
        while let Some(step) = self.schedule.due(self.health(), self.now()) {
            let Some(lease) = self.lease(step) else { return };
            let done = match step {
                Step::Check => self.check(&lease).await,
                Step::Acquire | Step::Renew => self.device.acquire(&lease).await,
                Step::Announce => self.device.announce(&lease).await,
                Step::Release => self.device.release(&lease).await,
            };
            self.schedule.done(step, done.is_ok(), self.now());
            self.report(step, done.err(), lease.address);
            if step == Step::Release && self.schedule.holds() {
                // It is tried again in its time; when the process ends, the guard and the kernel take it away.
                return;
            }
        }
    }

    /// While another node holds the address by right, an answer is no surprise.
    async fn check(&self, lease: &Lease) -> Result<(), String> {
        let found = self.device.check(lease).await;
        let holder = self.config.cluster.status().address_holder;
        let elsewhere = holder.is_some_and(|holder| holder != self.config.node.0);
        if elsewhere && self.device.is_leased() { Ok(()) } else { found }
    }

    fn health(&self) -> Health {
        Health { idle_ms: self.config.senses.idle_ms(), orders: self.config.senses.orders() }
    }

    fn lease(&self, step: Step) -> Option<Lease> {
        let state = self.config.config.current();
        let others = state.members.values().filter(|member| member.id != self.config.node);
        Some(Lease {
            address: self.address?,
            others: others.filter_map(|member| member.address.parse().ok()).collect(),
            reason: match step {
                Step::Check => "check",
                Step::Acquire | Step::Announce => "takeover",
                Step::Renew => "renewal",
                Step::Release if self.reason == "takeover" => "handover",
                Step::Release => self.reason,
            },
            // Five times a second nobody asks.
            epoch: if step == Step::Renew { String::new() } else { self.config.cluster.status().epoch },
        })
    }

    fn report(&mut self, step: Step, fault: Option<String>, address: IpAddr) {
        match (step, &fault) {
            (Step::Acquire, None) => {
                tracing::info!(%address, "the cluster address is here");
                metrics::gauge!("twinpost_cluster_address_added").set(1.0);
            }
            (Step::Release, None) => {
                tracing::info!(%address, "the cluster address is not here any more");
                metrics::gauge!("twinpost_cluster_address_added").set(0.0);
            }
            _ => {}
        }
        if fault == self.fault {
            return;
        }
        if let Some(fault) = &fault {
            metrics::counter!("twinpost_cluster_address_faults_total").increment(1);
            tracing::error!(%address, ?step, fault, "the cluster address");
        }
        self.config.senses.address_fault(fault.clone());
        self.fault = fault;
    }
}
