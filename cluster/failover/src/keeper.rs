//! The task that keeps the addresses where they belong: the schedule's steps, done by the device.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use ports::cluster::Cluster;
use ports::config::Config;
use ports::journal::{EventKind, Journal};
use ports::senses::Senses;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use topology::ClusterAddress;
use vocab::limits::PAUSE_MS;
use vocab::{Instant, NodeId};

use crate::device::{Device, Found, Lease};
use crate::lane::{Lane, TAKEOVER, Tenure};
use crate::schedule::{Health, Step};

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
    /// Keeps what was done for the operator.
    pub journal: Option<Arc<dyn Journal>>,
    /// Told which addresses are held or to be held here: an address that was changed stays among them until the new one
    /// is here.
    pub kept: watch::Sender<BTreeSet<IpAddr>>,
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
    device: Arc<Device>,
    hold: watch::Receiver<bool>,
    started: Clock,
    /// IPv4 and IPv6.
    lanes: [Lane; 2],
    /// Checks under way.
    checks: JoinSet<(ClusterAddress, Lease, Result<Found, String>)>,
    fault: Option<String>,
}

impl Holding {
    fn new(config: KeeperConfig, device: Device) -> Self {
        let (hold, device) = (config.cluster.holds_address(), Arc::new(device));
        let (lanes, checks) = (<[Lane; 2]>::default(), JoinSet::new());
        Self { config, device, hold, started: Clock::now(), lanes, checks, fault: None }
    }

    fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn tenures(&mut self) -> impl Iterator<Item = &mut Tenure> {
        self.lanes.iter_mut().flat_map(|lane| &mut lane.tenures)
    }

    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut revision = self.config.config.watch();
        let mut told = false;
        loop {
            self.follow_addresses();
            let hold = *self.hold.borrow_and_update();
            self.want(hold);
            let now = self.now();
            if std::mem::take(&mut told) {
                self.tenures().for_each(|tenure| tenure.schedule.claim(now));
            }
            self.steps().await;
            // A new address that is here now lets the old one go.
            self.want(hold);
            let now = self.now();
            let wait = self.tenures().map(|tenure| tenure.schedule.wait_ms(now)).min().unwrap_or(PAUSE_MS);
            tokio::select! {
                _ = &mut stop => break,
                changed = self.hold.changed() => if changed.is_ok() { told = true } else { break },
                changed = revision.changed() => if changed.is_err() { break },
                Some(Ok((address, lease, found))) = self.checks.join_next() => self.checked(address, &lease, found),
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            }
        }
        let now = self.now();
        for tenure in self.tenures() {
            tenure.reason = "stop";
            tenure.schedule.stop(now);
        }
        self.steps().await;
    }

    /// Other addresses: each is checked and added before the one it replaces goes.
    fn follow_addresses(&mut self) {
        let (now, leased) = (self.now(), self.device.is_leased());
        let all = &self.config.config.current().cluster_addresses;
        for (lane, v4) in self.lanes.iter_mut().zip([true, false]) {
            lane.follow(all.iter().find(|one| one.address.is_ipv4() == v4).copied(), leased, now);
        }
    }

    fn want(&mut self, hold: bool) {
        let now = self.now();
        self.lanes.iter_mut().for_each(|lane| lane.want(hold, now));
        let kept: BTreeSet<IpAddr> = self.lanes.iter().flat_map(Lane::kept).collect();
        self.config.kept.send_if_modified(|old| {
            let changed = *old != kept;
            old.clone_from(&kept);
            changed
        });
        // Of an address that was given up nothing is wrong any more.
        self.tell_fault();
    }

    async fn steps(&mut self) {
        let all: Vec<ClusterAddress> = self.tenures().map(|tenure| tenure.address).collect();
        for address in all {
            self.steps_of(address).await;
        }
    }

    async fn steps_of(&mut self, address: ClusterAddress) {
        loop {
            let (health, now) = (self.health(), self.now());
            let Some(tenure) = self.tenures().find(|tenure| tenure.address == address) else { return };
            let (reason, Some(step)) = (tenure.reason, tenure.schedule.due(health, now)) else { return };
            let lease = self.lease(address, step, reason);
            let done = match step {
                Step::Check => {
                    self.check(address, lease);
                    continue;
                }
                Step::Acquire | Step::Renew => self.device.acquire(&lease).await,
                Step::Announce => self.device.announce(&lease).await,
                Step::Release => self.device.release(&lease).await,
            };
            self.done(address, (step, lease.reason), done);
            let stays = self.tenures().any(|tenure| tenure.address == address && tenure.schedule.holds());
            if step == Step::Release && stays {
                // It is tried again in its time; when the process ends, the guard and the kernel take it away.
                return;
            }
        }
    }

    /// Asks whether somebody has the address; meanwhile the others are renewed.
    fn check(&mut self, address: ClusterAddress, lease: Lease) {
        let device = Arc::clone(&self.device);
        self.checks.spawn(async move {
            let found = device.check(&lease).await;
            (address, lease, found)
        });
        self.tenures().filter(|tenure| tenure.address == address).for_each(|tenure| tenure.schedule.asked());
    }

    /// While another node holds the address by right, its answer is no surprise, and a stranger's keeps nobody from taking the
    /// service over: the operator is told, and it is asked again.
    fn checked(&mut self, address: ClusterAddress, lease: &Lease, found: Result<Found, String>) {
        let holder = self.config.cluster.status().address_holder.map(NodeId);
        let holder = holder.filter(|id| *id != self.config.node);
        let state = self.config.config.current();
        let own = holder.and_then(|id| state.members.get(&id)).and_then(|member| member.address.parse().ok());
        let found = found.and_then(|found| match found.strangers(own) {
            none if none.is_empty() => Ok(()),
            some => Err(format!(
                "{} is in use by a machine that is no node of this cluster ({})",
                lease.address,
                some.join(", ")
            )),
        });
        let excused = holder.is_some() && self.device.is_leased();
        self.tenures().filter(|tenure| tenure.address == address).for_each(|tenure| tenure.schedule.excuse(excused));
        self.done(address, (Step::Check, lease.reason), found);
    }

    fn health(&self) -> Health {
        Health { idle_ms: self.config.senses.idle_ms(), orders: self.config.senses.orders() }
    }

    fn lease(&self, address: ClusterAddress, step: Step, reason: &'static str) -> Lease {
        let state = self.config.config.current();
        let others = state.members.values().filter(|member| member.id != self.config.node);
        let reason = match step {
            Step::Check => "check",
            Step::Acquire | Step::Announce => TAKEOVER,
            Step::Renew => "renewal",
            Step::Release if reason == TAKEOVER => "handover",
            Step::Release => reason,
        };
        Lease {
            others: others.filter_map(|member| member.address.parse().ok()).collect(),
            // Five times a second nobody asks.
            epoch: if step == Step::Renew { String::new() } else { self.config.cluster.status().epoch },
            ..Lease::of(address, reason)
        }
    }

    fn done(&mut self, address: ClusterAddress, (step, reason): (Step, &str), done: Result<(), String>) {
        let now = self.now();
        let Some(tenure) = self.tenures().find(|tenure| tenure.address == address) else { return };
        tenure.schedule.done(step, done.is_ok(), now);
        tenure.fault = done.err();
        match (step, &tenure.fault) {
            (Step::Acquire, None) => self.note(&format!("the cluster address {address} is here")),
            (Step::Release, None) => {
                self.note(&format!("the cluster address {address} is not here any more: {reason}"))
            }
            _ => {}
        }
        let holds = self.tenures().any(|tenure| tenure.schedule.holds());
        metrics::gauge!("twinpost_cluster_address_added").set(if holds { 1.0 } else { 0.0 });
        self.tell_fault();
    }

    fn tell_fault(&mut self) {
        let fault = self.tenures().find_map(|tenure| tenure.fault.clone());
        if fault == self.fault {
            return;
        }
        if let Some(fault) = &fault {
            metrics::counter!("twinpost_cluster_address_faults_total").increment(1);
            tracing::error!(fault, "the cluster address");
        }
        self.config.senses.address_fault(fault.clone());
        self.fault = fault;
    }

    fn note(&self, text: &str) {
        tracing::info!("{text}");
        if let Some(journal) = &self.config.journal {
            journal.note(EventKind::Address, text);
        }
    }
}
