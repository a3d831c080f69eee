//! One run: clients at work, faults one after the other, everything mended, then the judgement.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::caches::{Cache, keep};
use crate::checker;
use crate::clients::{self, Phase, Work, named};
use crate::cluster::{Cluster, LIMIT};
use crate::delay::{Delay, Which};
use crate::fault::Fault;
use crate::log;
use crate::model::Model;
use crate::nemesis::{self, Nemesis};
use crate::net::node_name;
use crate::observer::Observer;
use crate::outage::Probes;
use crate::table::{Shot, render};

/// Calm between two faults (ms).
const CALM_MS: (u64, u64) = (1_000, 3_000);
/// One in so many faults comes with a second one.
const SECOND_EVERY: usize = 5;
/// What was acknowledged so long before a fault is looked for on the survivor.
const SURVIVOR_LOOKS_BACK: Duration = Duration::from_secs(2);

/// How late a control makes the links between the nodes.
const CONTROL_LATE: Duration = Duration::from_millis(40);
/// How long clients work on what a control takes away.
const CONTROL_WORK: Duration = Duration::from_secs(5);
/// How long it may take until it can be looked, and at how many of the newest messages.
const SURVIVOR_LIMIT: Duration = Duration::from_secs(4);
const SURVIVOR_MESSAGES: u32 = 600;

/// Violations, injections, what was not injected, and what the clients knew.
pub type Outcome = (Vec<String>, Vec<Shot>, Vec<(String, String)>, Arc<Work>);

/// A run under way.
pub struct Run {
    /// The nodes.
    pub cluster: Arc<Cluster>,
    /// What clients know.
    pub work: Arc<Work>,
    /// Outages.
    pub probes: Probes,
    /// What moved.
    pub observer: Arc<Observer>,
    /// Injections so far.
    pub shots: Vec<Shot>,
    /// Not injected, and why.
    pub missing: Vec<(String, String)>,
    /// Everything between the nodes is late when one of them crashes.
    pub crash_late: bool,
    phase: watch::Sender<Phase>,
    tasks: JoinSet<()>,
    caches: JoinSet<Cache>,
    writers: usize,
    far: Option<std::thread::JoinHandle<()>>,
}

impl Run {
    /// Starts what measures; the history is a file in `folder`.
    ///
    /// # Errors
    /// The CA, a file in the folder, or a node that does not answer.
    pub async fn start(cluster: Arc<Cluster>, folder: &Path) -> anyhow::Result<Self> {
        let (phase, phases) = watch::channel(Phase::Work);
        let work = Arc::new(Work {
            model: Model::new(&folder.join("history"), cluster.accounts.len())?,
            accounts: cluster.accounts.iter().chain(&cluster.probes).cloned().collect(),
            writable: cluster.accounts.len(),
            ports: cluster.ports.clone(),
            cluster: cluster.net.cluster(),
            trust: cluster.trust()?,
            phase: phases,
        });
        let observer = Observer::begin(&cluster, folder).await?;
        let mut run = Self {
            cluster,
            work,
            probes: Probes::default(),
            observer,
            shots: Vec::new(),
            missing: Vec::new(),
            crash_late: false,
            phase,
            tasks: JoinSet::new(),
            caches: JoinSet::new(),
            writers: 0,
            far: None,
        };
        run.start_measures();
        Ok(run)
    }

    fn start_measures(&mut self) {
        self.tasks.spawn(self.probes.clone().run(self.work.clone()));
        // Ends with the run.
        tokio::spawn(self.observer.clone().run(self.cluster.clone(), self.work.clone()));
    }

    /// The whole workload beside the probes: sticky clients at each node, others over the cluster address, some behind
    /// the router.
    ///
    /// # Errors
    /// The CA cannot be read.
    pub fn start_workload(&mut self) -> anyhow::Result<()> {
        let (work, cluster) = (self.work.clone(), self.cluster.clone());
        let address = work.cluster;
        let nodes: Vec<IpAddr> =
            cluster.machines.iter().take(cluster.shape.data_nodes).map(|machine| machine.address).collect();
        for (number, (at, submit)) in
            [(address, false), (address, true)].into_iter().chain(nodes.iter().map(|at| (*at, false))).enumerate()
        {
            self.writers += 1;
            self.tasks.spawn(clients::write(number, at, submit, work.clone()));
        }
        // Account 0 is owned over the cluster address, the next ones each at a node, the last one from behind the router.
        for account in 0..work.writable.saturating_sub(1) {
            let at = if account == 0 {
                address
            } else {
                nodes.get((account - 1) % nodes.len().max(1)).copied().unwrap_or(address)
            };
            self.tasks.spawn(clients::own(format!("owner of {account} at {at}"), at, account, work.clone()));
        }
        for account in 0..work.writable {
            self.tasks.spawn(clients::pop3(address, account, work.clone()));
            self.tasks.spawn(clients::idle(address, account, work.clone()));
        }
        self.tasks.spawn(clients::boxes(address, 0, work.clone()));
        self.tasks.spawn(clients::settings(cluster.cluster_api()?, work.clone()));
        for account in 0..work.writable.min(2) {
            for (at, name) in [
                (vec![address], "following"),
                (nodes.clone(), "alternating"),
                (nodes.iter().copied().take(1).collect(), "sticky"),
            ] {
                for condstore in [true, false] {
                    let how = if condstore { "CONDSTORE" } else { "UIDNEXT" };
                    let cache = Cache::new(format!("{name} {how} cache of {account}"), account, condstore);
                    self.caches.spawn(keep(cache, at.clone(), work.clone()));
                }
            }
        }
        self.start_far();
        Ok(())
    }

    /// Sends one message to the first account.
    ///
    /// # Errors
    /// It was not accepted in time.
    pub async fn deliver_one(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !clients::deliver_once(&self.work).await {
            if begin.elapsed() > LIMIT {
                bail!("no message was accepted over the cluster address");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Clients behind the router, in a namespace of their own and so on threads of their own.
    fn start_far(&mut self) {
        let (work, net, number) = (self.work.clone(), self.cluster.net.clone(), self.writers);
        self.writers += 1;
        self.far = Some(std::thread::spawn(move || {
            let entered = net
                .enter("far")
                .and_then(|()| Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?));
            let runtime = match entered {
                Ok(runtime) => runtime,
                Err(error) => return work.model.fault(format!("lab: no far clients: {error:#}")),
            };
            let account = work.writable.saturating_sub(1);
            let owner = clients::own("far owner".into(), work.cluster, account, work.clone());
            runtime.block_on(async { tokio::join!(clients::write(number, work.cluster, false, work.clone()), owner) });
        }));
    }

    /// Injects one fault and waits until all are in sync again.
    ///
    /// # Errors
    /// They never are, or a node does not start.
    pub async fn shoot(
        &mut self,
        nemesis: &mut Nemesis,
        fault: Fault,
        target: usize,
        hold: Duration,
    ) -> anyhow::Result<()> {
        self.close_calm().await?;
        let primary = self.cluster.primary().await.unwrap_or(target);
        let place = if !fault.has_target() || target == primary { "" } else { " (secondary)" };
        let name = format!("{}{place}", fault.name());
        let late = if self.crash_late && fault == Fault::Crash { self.slow_links(Which::ToNodes)? } else { Vec::new() };
        if !late.is_empty() {
            tokio::time::sleep(CONTROL_LATE * 10).await;
        }
        let begin = Instant::now();
        self.work.model.note(&format!("FAULT BEGINS {name} at node {} for {hold:?}", target + 1));
        let kills = matches!(fault, Fault::Kill | Fault::KillAll | Fault::Crash) && target == primary;
        let performed = if kills {
            let (done, looked) = tokio::join!(nemesis.perform(fault, target, hold), self.look_at_survivor(begin));
            looked?;
            done
        } else {
            nemesis.perform(fault, target, hold).await
        };
        drop(late);
        if let Err(error) = performed {
            self.missing.push((name, format!("{error:#}")));
            nemesis.mend().await?;
            nemesis.recovered().await?;
            self.observer.news(&self.cluster).await?;
            return Ok(());
        }
        self.finish(nemesis, begin, Shot::new(name, fault.is_quiet(), fault.cuts_clients())).await
    }

    /// What moved since the last fault was over moved without one: a false failover.
    async fn close_calm(&mut self) -> anyhow::Result<()> {
        let moves = self.observer.news(&self.cluster).await?.moves;
        if moves > 0 {
            let shot = Shot { moves, ..Shot::new("between faults".into(), true, false) };
            eprintln!("{}", shot.line());
            self.shots.push(shot);
        }
        Ok(())
    }

    async fn finish(&mut self, nemesis: &Nemesis, begin: Instant, mut shot: Shot) -> anyhow::Result<()> {
        let name = &shot.name;
        let healed = Instant::now();
        self.work.model.note(&format!("FAULT ENDS {name}"));
        nemesis.recovered().await?;
        let joint = healed.elapsed();
        // One more attempt of each kind, so that what is not over does not look like it.
        let after = Instant::now();
        while self.probes.smtp.first_after(after).is_none() || self.probes.imap.first_after(after).is_none() {
            if after.elapsed() > LIMIT {
                bail!("after {name}: no service over the cluster address although all nodes are in sync");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let end = Instant::now();
        shot.smtp = self.probes.smtp.longest(begin, end);
        shot.imap = self.probes.imap.longest(begin, end);
        shot.joint = joint;
        let news = self.observer.news(&self.cluster).await?;
        shot.moves = news.moves;
        self.work.model.settle(news.split);
        eprintln!("{:>7.1} s  {}", self.work.model.at(begin).as_secs_f64(), shot.line());
        self.shots.push(shot);
        Ok(())
    }

    /// What was acknowledged just before must be on whoever goes on, while the other one is away.
    async fn look_at_survivor(&self, begin: Instant) -> anyhow::Result<()> {
        let from = begin.checked_sub(SURVIVOR_LOOKS_BACK).unwrap_or(begin);
        // Answers under way when the process was killed count, too.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let kept = self.work.model.kept(from, Instant::now());
        let accounts: std::collections::BTreeSet<usize> = kept.iter().map(|(_, account)| *account).collect();
        for account in accounts {
            // Broken sessions and the time until the takeover are no violation: it is looked again.
            let until = Instant::now() + SURVIVOR_LIMIT;
            let found = loop {
                match self.newest(account).await {
                    Ok(found) => break found,
                    Err(_) if Instant::now() > until => return Ok(()),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            for (id, _) in kept.iter().filter(|(_, of)| *of == account) {
                if !found.iter().any(|(there, _)| there == id) {
                    self.work
                        .model
                        .fault(format!("lost: message {id} of account {account} is not on the survivor after a kill"));
                }
            }
        }
        Ok(())
    }

    /// The newest messages of an account, over the cluster address.
    async fn newest(&self, account: usize) -> anyhow::Result<Vec<(u64, u32)>> {
        let mut client = self.work.imap(self.work.cluster, account).await?;
        let selected = client.select("INBOX").await?;
        let first = selected.exists.saturating_sub(SURVIVOR_MESSAGES).max(1);
        let uids = client.command(&format!("FETCH {first}:* (UID)")).await?.ok()?.fetched();
        let least = uids.iter().map(|one| one.uid).min().unwrap_or(1);
        named(&mut client, &format!("{least}:*"), &self.work.model).await
    }

    /// Faults for so long, chosen by the nemesis among these.
    ///
    /// # Errors
    /// As [`Self::shoot`].
    pub async fn storm(&mut self, nemesis: &mut Nemesis, faults: &[Fault], length: Duration) -> anyhow::Result<()> {
        let possible: Vec<Fault> =
            faults.iter().copied().filter(|fault| nemesis::missing(&self.cluster, *fault).is_none()).collect();
        for fault in faults {
            if let Some(why) = nemesis::missing(&self.cluster, *fault) {
                self.missing.push((fault.name().into(), why));
            }
        }
        let begin = Instant::now();
        self.shoot(nemesis, Fault::None, 0, Duration::from_secs(3)).await?;
        // Each once, in an order of the seed's; then as it comes.
        let mut bag = possible.clone();
        let mut count = 0usize;
        while begin.elapsed() < length {
            let Some(fault) = nemesis.chance.choose(if bag.is_empty() { &possible } else { &bag }) else { break };
            bag.retain(|other| *other != fault);
            count += 1;
            let (target, hold) = (nemesis.target().await, nemesis.duration(fault));
            if count.is_multiple_of(SECOND_EVERY)
                && let Some(second) = nemesis.chance.choose(&possible)
            {
                self.shoot_two(nemesis, fault, second, target, hold).await?;
            } else {
                self.shoot(nemesis, fault, target, hold).await?;
            }
            tokio::time::sleep(nemesis.chance.between(CALM_MS.0, CALM_MS.1)).await;
        }
        self.missing.extend(bag.iter().map(|fault| (fault.name().to_owned(), "the time was over".to_owned())));
        Ok(())
    }

    async fn shoot_two(
        &mut self,
        nemesis: &mut Nemesis,
        a: Fault,
        b: Fault,
        target: usize,
        hold: Duration,
    ) -> anyhow::Result<()> {
        self.close_calm().await?;
        let (name, begin) = (format!("{} + {}", a.name(), b.name()), Instant::now());
        let other = nemesis.target().await;
        let second = nemesis.duration(b);
        self.work.model.note(&format!("FAULT BEGINS {name} at {} and {}", target + 1, other + 1));
        let seed = nemesis.chance.seed();
        if let Err(error) = nemesis::both(&self.cluster, [(a, target, hold), (b, other, second)], seed).await {
            // Two faults can be in each other's way: a process to be stopped was killed.
            self.work.model.note(&format!("{error:#}"));
        }
        nemesis.mend().await?;
        self.finish(nemesis, begin, Shot::new(name, a.is_quiet() && b.is_quiet(), true)).await
    }

    /// A negative control: both nodes lose what they acknowledged in the last seconds, as if they had answered before
    /// anything was on a disk.
    ///
    /// # Errors
    /// The disks cannot be copied.
    pub async fn set_disks_back(&mut self, nemesis: &mut Nemesis) -> anyhow::Result<()> {
        self.kill_all().await;
        let mut copies = Vec::new();
        for machine in &self.cluster.machines {
            let data = machine.process.lock().await.data_dir();
            let copy = data.with_extension("copy");
            crate::net::run(&format!("cp -a {} {}", data.display(), copy.display()))?;
            copies.push((data, copy));
        }
        nemesis.mend().await?;
        nemesis.recovered().await?;
        tokio::time::sleep(CONTROL_WORK).await;
        self.kill_all().await;
        for (data, copy) in copies {
            crate::net::run(&format!("rm -rf {}", data.display()))?;
            std::fs::rename(copy, data)?;
        }
        nemesis.mend().await?;
        nemesis.recovered().await?;
        self.observer.news(&self.cluster).await.map(drop)
    }

    /// Makes everything between the nodes late, until the result is dropped.
    ///
    /// # Errors
    /// The kernel cannot.
    pub fn slow_links(&self, which: Which) -> anyhow::Result<Vec<Delay>> {
        let nodes = (0..self.cluster.shape.data_nodes).map(node_name);
        let slow = |name: String| Delay::begin(&self.cluster.net, &name, which, CONTROL_LATE);
        nodes.map(slow).collect()
    }

    async fn kill_all(&self) {
        for machine in &self.cluster.machines {
            // One that ran no more is as good as killed.
            let _ = machine.process.lock().await.kill_group().await;
        }
    }

    /// Ends a run that did not come to its end: why, and the violations so far.
    #[must_use]
    pub fn give_up(self, why: &anyhow::Error) -> Outcome {
        let _ = self.phase.send(Phase::End);
        let mut faults = self.work.model.faults();
        faults.push(format!("stuck: {why:#}"));
        (faults, self.shots, self.missing, self.work)
    }

    /// Lets the clients come to rest and judges; the violations.
    ///
    /// # Errors
    /// Nothing could be judged.
    pub async fn judge(mut self) -> anyhow::Result<Outcome> {
        self.close_calm().await?;
        let _ = self.phase.send(Phase::Settle);
        let mut caches = Vec::new();
        while let Some(cache) = self.caches.join_next().await {
            caches.push(cache?);
        }
        // Whoever still changes something would make the judgement wrong.
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LIMIT, all).await.is_err() {
            bail!("clients do not come to rest although all nodes are in sync");
        }
        if let Some(far) = self.far.take() {
            tokio::task::spawn_blocking(move || far.join())
                .await?
                .map_err(|_| anyhow::anyhow!("far clients panicked"))?;
        }
        self.cluster.await_joint(LIMIT).await?;
        self.work.model.settle(false);
        let mut faults = checker::check(&self.cluster, &self.work, &mut caches).await?;
        faults.extend(log::check(&self.cluster, &self.work.model).await?);
        let _ = self.phase.send(Phase::End);
        Ok((faults, self.shots, self.missing, self.work))
    }
}

/// Prints the verdict; whether the run is good.
#[must_use]
pub fn report(faults: &[String], shots: &[Shot], missing: &[(String, String)], work: &Work) -> bool {
    let (counts, shown) = checker::summary(faults);
    println!("\n{}\n", render(shots, missing));
    let operations: Vec<String> =
        work.model.counts().iter().map(|((what, how), n)| format!("{what} {how} {n}")).collect();
    println!("operations: {}", operations.join(", "));
    let false_failovers: usize = shots.iter().map(Shot::false_failovers).sum();
    for fault in &shown {
        println!("VIOLATION {fault}");
    }
    let kinds: Vec<String> = counts.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    let verdict = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    let not: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    println!(
        "violations: {verdict}; false failovers: {false_failovers}; not injected: {}",
        if not.is_empty() { "nothing".into() } else { not.join(", ") }
    );
    kinds.is_empty() && false_failovers == 0
}
