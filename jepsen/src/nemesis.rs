//! Does the faults to the cluster, one or two at a time, and mends everything afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::cluster::{Cluster, FAKETIME, LIMIT};
use crate::delay::{Delay, Which};
use crate::fault::Fault;
use crate::net::{Rule, node_name, port_name};

/// Bytes left free on a full disk: below the reserve a node keeps.
const FULL_LEAVES: u64 = 8 * 1024 * 1024;
/// Bytes left free on the disk of a log: less than a buffer of its database.
const LOG_FULL_LEAVES: u64 = 64 * 1024;
/// What a slow link does.
const SLOW_BY: Duration = Duration::from_millis(40);
const SLOW_LOSES_PER_MILLE: u32 = 20;
/// How long who was stopped is awake before it hears of the others again.
const AWAKE: Duration = Duration::from_secs(3);
/// How far a clock jumps (s), in either direction.
const CLOCK_JUMPS_S: [i64; 4] = [3_600, -3_600, 40, -7];

/// Choices that follow from a seed.
pub struct Chance(StdRng);

impl Chance {
    /// A new sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// One of these.
    pub fn choose<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        if among.is_empty() { None } else { among.get(self.0.random_range(0..among.len())).copied() }
    }

    /// For a sequence of its own.
    pub fn seed(&mut self) -> u64 {
        self.0.random()
    }

    /// A time between these.
    pub fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from_ms..=to_ms))
    }
}

/// Does faults.
pub struct Nemesis {
    /// To what.
    pub cluster: Arc<Cluster>,
    /// Its choices.
    pub chance: Chance,
}

impl Nemesis {
    /// Its choices follow from the seed.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, seed: u64) -> Self {
        Self { cluster, chance: Chance::new(seed) }
    }

    /// A data node; twice out of three times the primary.
    pub async fn target(&mut self) -> usize {
        let primary = self.cluster.primary().await.unwrap_or(0);
        if self.chance.choose(&[true, true, false]) == Some(true) {
            return primary;
        }
        (primary + 1) % self.cluster.shape.data_nodes
    }

    /// How long this fault lasts, this time.
    pub fn duration(&mut self, fault: Fault) -> Duration {
        match fault {
            Fault::PauseShort => self.chance.between(100, 800),
            Fault::PauseLong => self.chance.between(2_500, 12_000),
            Fault::Crash => self.chance.between(3_000, 6_000),
            Fault::Kill | Fault::KillAll | Fault::Power => self.chance.between(300, 4_000),
            Fault::Switchover | Fault::Rolling => Duration::ZERO,
            Fault::None => Duration::from_secs(3),
            _ => self.chance.between(2_500, 7_000),
        }
    }

    /// Begins a fault, holds it, mends it. On return what was stopped runs; nobody waited for it to be in sync.
    ///
    /// # Errors
    /// It could not be done; the reason is for the table.
    pub async fn perform(&mut self, fault: Fault, target: usize, hold: Duration) -> anyhow::Result<()> {
        let jump = self.chance.choose(&CLOCK_JUMPS_S).unwrap_or(0);
        let cluster = &self.cluster;
        match fault {
            Fault::None => tokio::time::sleep(hold).await,
            Fault::Kill => {
                cluster.machine_at(target)?.process.lock().await.kill().await?;
                tokio::time::sleep(hold).await;
            }
            Fault::KillAll => {
                cluster.machine_at(target)?.process.lock().await.kill_group().await?;
                tokio::time::sleep(hold).await;
            }
            Fault::Crash => {
                let rules = self.rules(Fault::Cut, target);
                cluster.net.add(&rules)?;
                let killed = cluster.machine_at(target)?.process.lock().await.kill_group().await;
                tokio::time::sleep(hold).await;
                cluster.net.remove(&rules)?;
                killed?;
            }
            Fault::Power => {
                let all =
                    cluster.machines.iter().map(|machine| async { machine.process.lock().await.kill_group().await });
                futures_util::future::join_all(all).await;
                tokio::time::sleep(hold).await;
            }
            Fault::PauseShort | Fault::PauseLong => pause(cluster, target, hold).await?,
            Fault::PauseCut => {
                let rules = self.rules(Fault::Peers, target);
                cluster.net.add(&rules)?;
                pause(cluster, target, hold).await?;
                tokio::time::sleep(AWAKE).await;
                cluster.net.remove(&rules)?;
            }
            Fault::Switchover => switch_over(cluster).await?,
            Fault::Rolling => rolling(cluster).await?,
            Fault::Flap => self.flap(target, hold).await?,
            Fault::DiskFull | Fault::DiskSlow | Fault::LogFull | Fault::LogSlow => {
                disk(cluster, fault, target, hold).await?
            }
            Fault::Clock => clock(cluster, target, jump, hold).await?,
            Fault::Slow => slow(cluster, target, hold).await?,
            _ => {
                let rules = self.rules(fault, target);
                cluster.net.add(&rules)?;
                tokio::time::sleep(hold).await;
                cluster.net.remove(&rules)?;
            }
        }
        self.mend().await
    }

    /// What a cut does to frames.
    fn rules(&self, fault: Fault, target: usize) -> Vec<Rule> {
        let port = |index: usize, interface: &str| port_name(&node_name(index), interface);
        let both = |interface: &str| vec![Rule::From(port(target, interface)), Rule::To(port(target, interface))];
        match fault {
            Fault::Cut | Fault::Flap => [both("eth0"), both("eth1")].concat(),
            Fault::OneWayOut => vec![Rule::From(port(target, "eth0")), Rule::From(port(target, "eth1"))],
            Fault::OneWayIn => vec![Rule::To(port(target, "eth0")), Rule::To(port(target, "eth1"))],
            Fault::Private => both("eth1"),
            Fault::ClientNet => both("eth0"),
            Fault::Router => vec![Rule::From(port_name("r", "eth0")), Rule::To(port_name("r", "eth0"))],
            Fault::Peers => {
                let nodes = 0..self.cluster.shape.data_nodes;
                let others = nodes.filter(|index| *index != target);
                let pairs = others.flat_map(|other| ["eth0", "eth1"].map(|i| (port(target, i), port(other, i))));
                pairs.flat_map(|(a, b)| [Rule::Between(a.clone(), b.clone()), Rule::Between(b, a)]).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn flap(&mut self, target: usize, hold: Duration) -> anyhow::Result<()> {
        let (rules, begin) = (self.rules(Fault::Flap, target), Instant::now());
        while begin.elapsed() < hold {
            self.cluster.net.add(&rules)?;
            tokio::time::sleep(self.chance.between(100, 2_500)).await;
            self.cluster.net.remove(&rules)?;
            tokio::time::sleep(self.chance.between(100, 1_500)).await;
        }
        Ok(())
    }

    /// Starts whatever does not run.
    ///
    /// # Errors
    /// A node does not start.
    pub async fn mend(&self) -> anyhow::Result<()> {
        for (index, machine) in self.cluster.machines.iter().enumerate() {
            let runs = machine.process.lock().await.live_pid().is_some();
            if !runs {
                self.cluster.start_node(index).await?;
            }
        }
        Ok(())
    }

    /// Waits until all are in sync; how long it took.
    ///
    /// # Errors
    /// Never.
    pub async fn recovered(&self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        self.cluster.await_joint(LIMIT).await?;
        Ok(begin.elapsed())
    }
}

/// Why a fault cannot be done on this machine; `None` when it can.
#[must_use]
pub fn missing(cluster: &Cluster, fault: Fault) -> Option<String> {
    match fault {
        Fault::DiskFull | Fault::DiskSlow | Fault::LogFull | Fault::LogSlow if cluster.no_disks.is_some() => {
            cluster.no_disks.as_ref().map(|why| format!("no disk of its own: {why}"))
        }
        Fault::DiskSlow | Fault::LogSlow if !std::path::Path::new("/sys/fs/cgroup/blkio").is_dir() => {
            Some("no control groups of version 1 with blkio".into())
        }
        Fault::Slow if crate::net::run("iptables-legacy -V").is_err() => Some("no iptables-legacy for NFQUEUE".into()),
        Fault::Clock if !std::path::Path::new(FAKETIME).is_file() => Some("no libfaketime".into()),
        Fault::Clock if !cluster.shape.clocks => Some("the nodes run on the machine's clock".into()),
        _ => None,
    }
}

async fn pause(cluster: &Cluster, target: usize, hold: Duration) -> anyhow::Result<()> {
    let process = cluster.machine_at(target)?.process.lock().await;
    process.pause(true);
    tokio::time::sleep(hold).await;
    process.pause(false);
    Ok(())
}

async fn switch_over(cluster: &Cluster) -> anyhow::Result<()> {
    let primary = cluster.primary().await?;
    cluster.command(primary, &["cluster", "switchover"], &[], None).await.map(drop)
}

async fn rolling(cluster: &Cluster) -> anyhow::Result<()> {
    for index in 0..cluster.machines.len() {
        {
            let mut process = cluster.machine_at(index)?.process.lock().await;
            process.ask_to_end();
            process.await_end().await;
        }
        cluster.start_node(index).await?;
        cluster.await_joint(LIMIT).await?;
    }
    Ok(())
}

async fn disk(cluster: &Cluster, fault: Fault, target: usize, hold: Duration) -> anyhow::Result<()> {
    let machine = cluster.machine_at(target)?;
    let disks = machine.disks.as_ref().context("no disks of its own")?;
    // Where a node has one disk, the log is on it.
    let full = match fault {
        Fault::DiskFull => vec![(&disks.mail, FULL_LEAVES), (&disks.log, LOG_FULL_LEAVES)],
        Fault::LogFull => vec![(&disks.log, LOG_FULL_LEAVES)],
        _ => Vec::new(),
    };
    if !full.is_empty() {
        let filled = {
            let process = machine.process.lock().await;
            process.pause(true);
            let filled = process.await_paused().await;
            let filled = filled.and_then(|()| disks.log.trim());
            let filled = filled.and_then(|()| full.iter().try_for_each(|(disk, leave)| disk.fill(*leave)));
            process.pause(false);
            filled
        };
        tokio::time::sleep(hold).await;
        full.iter().try_for_each(|(disk, _)| disk.free())?;
        return filled;
    }
    let disk = if fault == Fault::LogSlow { &disks.log } else { &disks.mail };
    let pid = machine.process.lock().await.live_pid().context("does not run")?;
    disk.slow(pid)?;
    tokio::time::sleep(hold).await;
    disk.unslow()
}

async fn clock(cluster: &Cluster, target: usize, jump: i64, hold: Duration) -> anyhow::Result<()> {
    let file = &cluster.machine_at(target)?.clock;
    std::fs::write(file, format!("{jump:+}\n"))?;
    tokio::time::sleep(hold).await;
    std::fs::write(file, "+0\n")?;
    Ok(())
}

async fn slow(cluster: &Cluster, target: usize, hold: Duration) -> anyhow::Result<()> {
    let name = node_name(target);
    let rules = [
        Rule::Lossy(port_name(&name, "eth0"), SLOW_LOSES_PER_MILLE),
        Rule::Lossy(port_name(&name, "eth1"), SLOW_LOSES_PER_MILLE),
    ];
    let net = Arc::clone(&cluster.net);
    let delay = tokio::task::spawn_blocking(move || Delay::begin(&net, &name, Which::Coming, SLOW_BY)).await??;
    cluster.net.add(&rules)?;
    tokio::time::sleep(hold).await;
    cluster.net.remove(&rules)?;
    tokio::task::spawn_blocking(move || drop(delay)).await?;
    Ok(())
}

/// Two faults at once, to different nodes where it matters.
///
/// # Errors
/// As [`Nemesis::perform`].
pub async fn both(cluster: &Arc<Cluster>, faults: [(Fault, usize, Duration); 2], seed: u64) -> anyhow::Result<()> {
    let [a, b] = faults;
    let (mut one, mut two) = (Nemesis::new(cluster.clone(), seed), Nemesis::new(cluster.clone(), seed ^ 1));
    let first = one.perform(a.0, a.1, a.2).boxed();
    let second = two.perform(b.0, b.1, b.2).boxed();
    match futures_util::future::join(first, second).await {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), _) | (_, Err(error)) => bail!("{} and {}: {error:#}", a.0.name(), b.0.name()),
    }
}
