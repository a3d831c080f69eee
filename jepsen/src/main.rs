//! The fault lab: see `jepsen/outcomes.md` and `docs/operations/evidence.md`.

mod caches;
mod checker;
mod clients;
mod cluster;
mod delay;
mod disk;
mod fault;
mod keepalived;
mod log;
mod model;
mod monitor;
mod nemesis;
mod net;
mod observer;
mod outage;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use crate::cluster::{Cluster, Shape};
use crate::delay::Which;
use crate::fault::Fault;
use crate::nemesis::Nemesis;
use crate::net::Net;
use crate::run::Run;

/// Accounts of the probes.
const PROBE_ACCOUNTS: usize = 8;
/// Pause between two measured faults.
const MEASURED_CALM: Duration = Duration::from_millis(1_500);

/// Real nodes, real faults, a checker. Needs root.
#[derive(Debug, Parser)]
struct Args {
    /// The `twinpost` binary.
    #[arg(long, default_value = "twinpost")]
    binary: PathBuf,
    /// Measures keepalived instead, with advertisements as Debian has them or every 100 ms.
    #[arg(long, value_parser = ["default", "fast"])]
    keepalived: Option<String>,
    /// How often each fault, with `--keepalived`.
    #[arg(long, default_value_t = 20)]
    times: u32,
    /// Answers connections to a port; what stands in for the service behind keepalived.
    #[arg(long, hide = true)]
    answer: Option<u16>,
    /// How long faults are injected.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Choices of the nemesis follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults, separated by commas; all of them when absent.
    #[arg(long, value_delimiter = ',')]
    nemesis: Vec<Fault>,
    /// Nodes with mail.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// One more machine that votes.
    #[arg(long)]
    witness: bool,
    /// The LAN in IPv6.
    #[arg(long)]
    ipv6: bool,
    /// After a heal of a split (ms).
    #[arg(long, default_value_t = 2_000)]
    hold_down_ms: u64,
    /// Instead of a storm: NAME=COUNT of faults to the primary, one after the other, for their outages.
    #[arg(long, value_delimiter = ',')]
    measure: Vec<String>,
    /// A negative control: the run must fail. `backup-first`, `home-lease` or `confirmed-reads` is switched off (a
    /// binary with the feature `lab` is needed), or the disks of both nodes are set back (`lost-disk`).
    #[arg(long)]
    control: Option<String>,
    /// Everything between the nodes comes 40 ms late, all the time.
    #[arg(long)]
    late: bool,
    /// Leaves folders and logs behind.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match lab(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn lab(args: &Args) -> anyhow::Result<bool> {
    if let Some(port) = args.answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(keepalived::answer(port)).map(|()| true);
    }
    let witness = args.witness;
    let machines = usize::from(args.nodes) + usize::from(witness);
    let net = Arc::new(Net::build(machines, args.ipv6)?);
    // All that is started from here on stands where the clients are.
    net.enter("cl")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::Builder::new().prefix("twinpost-lab-").tempdir()?;
    if let Some(speed) = &args.keepalived {
        let measured = keepalived::measure(net.clone(), folder.path(), speed, args.times, args.seed);
        let measured = runtime.block_on(measured);
        net.destroy();
        return measured.map(|()| true);
    }
    let good = runtime.block_on(play(args, net, folder.path()));
    if args.keep || !matches!(good, Ok(true)) {
        let kept = keep_logs(folder.path(), machines)?;
        eprintln!("logs and history are in {}", kept.display());
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    good
}

/// Copies what a person reads; the disks go.
fn keep_logs(folder: &std::path::Path, machines: usize) -> anyhow::Result<PathBuf> {
    let kept = std::env::temp_dir().join(format!("twinpost-lab-{}", std::process::id()));
    std::fs::create_dir_all(&kept)?;
    for name in (0..machines).map(net::node_name) {
        // A node that never started has none.
        for file in [format!("{name}.log"), format!("{name}.addresses")] {
            let _ = std::fs::copy(folder.join(&file), kept.join(&file));
        }
    }
    let _ = std::fs::copy(folder.join("history"), kept.join("history"));
    Ok(kept)
}

async fn play(args: &Args, net: Arc<Net>, folder: &std::path::Path) -> anyhow::Result<bool> {
    let faults = if args.nemesis.is_empty() { Fault::ALL.to_vec() } else { args.nemesis.clone() };
    let rule = args.control.as_ref().filter(|name| *name != LOST_DISK);
    let shape = Shape {
        data_nodes: args.nodes.into(),
        witness: args.witness,
        accounts: 4,
        hold_down_ms: args.hold_down_ms,
        clocks: faults.contains(&Fault::Clock),
        environment: rule.map(|name| ("TWINPOST_LAB_WITHOUT".to_owned(), name.clone())).into_iter().collect(),
    };
    eprintln!("lab: seed {}, {} nodes{}", args.seed, args.nodes, if args.witness { " and a witness" } else { "" });
    let mut cluster = Cluster::build(net, shape, &args.binary, folder, PROBE_ACCOUNTS).await?;
    let started = cluster.start().await;
    let cluster = Arc::new(cluster);
    let outcome = match started {
        Ok(()) => tokio::select! {
            outcome = faults_and_verdict(args, &cluster, folder, &faults) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        },
        Err(error) => Err(error.context("start the cluster")),
    };
    cluster.destroy().await;
    outcome
}

/// Name of the control that answers before the backup has the change; needs fault `crash`.
const BACKUP_FIRST: &str = "backup-first";
/// Name of the control that sets disks back.
const LOST_DISK: &str = "lost-disk";

async fn faults_and_verdict(
    args: &Args,
    cluster: &Arc<Cluster>,
    folder: &std::path::Path,
    faults: &[Fault],
) -> anyhow::Result<bool> {
    let mut run = Run::start(cluster.clone(), folder).await?;
    let mut nemesis = Nemesis::new(cluster.clone(), args.seed);
    // What is answered before the backup has it is lost with the machine only while it is still on its way.
    run.crash_late = args.control.as_deref() == Some(BACKUP_FIRST);
    let _late = if args.late { run.slow_links(Which::FromNodes)? } else { Vec::new() };
    let done = inject(args, &mut run, &mut nemesis, faults).await;
    let (violations, shots, missing, work) = match done {
        Ok(()) => run.judge().await?,
        // Mended and not well again is a violation like any other; what is on the nodes cannot be judged then.
        Err(error) => run.give_up(&error),
    };
    Ok(run::report(&violations, &shots, &missing, &work))
}

async fn inject(args: &Args, run: &mut Run, nemesis: &mut Nemesis, faults: &[Fault]) -> anyhow::Result<()> {
    if args.measure.is_empty() {
        run.start_workload()?;
        let length = Duration::from_secs_f64(args.minutes * 60.0);
        run.storm(nemesis, faults, length).await?;
    } else {
        measure(args, run, nemesis).await?;
    }
    if args.control.as_deref() == Some(LOST_DISK) {
        run.set_disks_back(nemesis).await?;
    }
    Ok(())
}

async fn measure(args: &Args, run: &mut Run, nemesis: &mut Nemesis) -> anyhow::Result<()> {
    // The IMAP probe fetches a message.
    run.deliver_one().await?;
    run.shoot(nemesis, Fault::None, 0, Duration::from_secs(10)).await?;
    for text in &args.measure {
        let (name, count) = text.split_once('=').context("--measure NAME=COUNT")?;
        let fault: Fault = name.parse().map_err(anyhow::Error::msg)?;
        for _ in 0..count.parse::<u32>().context("--measure NAME=COUNT")? {
            let (primary, hold) = (run.cluster.primary().await?, nemesis.duration(fault));
            run.shoot(nemesis, fault, primary, hold).await?;
            tokio::time::sleep(MEASURED_CALM).await;
        }
    }
    Ok(())
}
