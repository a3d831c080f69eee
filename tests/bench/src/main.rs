//! The benchmark: the rows of the design's table of numbers, for a pair on this machine and, with `--peers`, for Postfix
//! and Dovecot in the same run, measured in turn so that both see the same machine. Only ratios mean anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use node::demo::node_process::NodeProcess;
use node::demo::pair::{CLUSTER_ADDRESS, Login, Pair, PairOptions};

use tokio::signal::unix::{SignalKind, signal};

use loads::{ACCOUNTS, Delivery, median};
use peers::Peers;
use table::Table;
use target::Target;

mod collecting;
mod floor;
mod healing;
mod loads;
mod peers;
mod table;
mod target;

/// Measures a pair of nodes, and its peers.
#[derive(Parser)]
struct Args {
    /// Fewer messages and one round
    #[arg(long)]
    quick: bool,
    /// Measure Postfix and Dovecot too (needs both installed, and root)
    #[arg(long)]
    peers: bool,
    /// Measure Postfix and Dovecot alone
    #[arg(long)]
    only_peers: bool,
    /// The twinpost binary (default: beside this one)
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Only the rows whose name contains this: memory, inbound, announce, login, append, large; `commit` (a commit against a
    /// synced write), `healing` (join, heal of 10,000 accounts of which 1,000 changed on both sides, rejoin), `floor`, `log` (what its collection costs;
    /// `--bin` must name a build with the feature `lab`)
    #[arg(long, default_value = "")]
    only: String,
}

/// How much is done.
struct Amounts {
    rounds: usize,
    messages_one: usize,
    messages_many: usize,
    announcements: usize,
    login_time: Duration,
    appends: usize,
    large: usize,
    idle: usize,
    idle_time: Duration,
    floor: usize,
    healing: healing::Amounts,
}

/// Names for `--only` that need no pair of their own beside.
const OWN: [&str; 4] = ["floor", "commit", "healing", LOG];
/// Only when it is asked for: the product has no switch for it.
const LOG: &str = "log";
/// Writers of the storage floor, and connections of what it is compared with.
const FLOOR_WRITERS: usize = 10;

const QUICK: Amounts = Amounts {
    rounds: 1,
    messages_one: 300,
    messages_many: 2_000,
    announcements: 20,
    login_time: Duration::from_secs(4),
    appends: 2_000,
    large: 5_000,
    idle: 200,
    idle_time: Duration::from_secs(10),
    floor: 10_000,
    healing: healing::Amounts { accounts: 200, touched: 50, messages: 2_000 },
};
const FULL: Amounts = Amounts {
    rounds: 3,
    messages_one: 1_000,
    messages_many: 10_000,
    announcements: 50,
    login_time: Duration::from_secs(10),
    appends: 5_000,
    large: 50_000,
    idle: 1_000,
    idle_time: Duration::from_secs(60),
    floor: 50_000,
    healing: healing::Amounts { accounts: 10_000, touched: 1_000, messages: 20_000 },
};

fn main() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(Args::parse()))
}

async fn measure(args: Args) -> anyhow::Result<()> {
    let amounts = if args.quick { QUICK } else { FULL };
    let folder = tempfile::Builder::new().prefix("twinpost-bench-").tempdir()?;
    let binary = match args.bin {
        Some(bin) => bin.canonicalize()?,
        None => std::env::current_exe()?.with_file_name("twinpost"),
    };
    let mut options = PairOptions::new(folder.path(), &binary, ACCOUNTS + 1);
    options.allow_plaintext = true;
    let accounts = options.accounts.clone();
    let domain = options.domain.clone();
    let mut targets = Vec::new();
    let mut pair = None;
    let own_only = OWN.iter().any(|name| name == &args.only);
    if !args.only_peers && !own_only {
        let started = Pair::start(options).await?;
        targets.push(twinpost(&started, accounts.clone())?);
        pair = Some(started);
    }
    let peers = (args.peers || args.only_peers).then(|| Peers::start(accounts, &domain)).transpose()?;
    if let Some(peers) = &peers {
        targets.push(peers.target()?);
    }
    let mut table = Table::new(targets.iter().map(|target| target.name.clone()).collect());
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = rows(&targets, &amounts, &args.only, &mut table) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    table.print();
    if let Some(mut pair) = pair {
        pair.stop().await;
    }
    outcome?;
    if args.only_peers {
        return Ok(());
    }
    let mut own = Table::new(vec!["value".into()]);
    let outcome = own_rows(folder.path(), &binary, &amounts, &args.only, &mut own).await;
    own.print();
    outcome
}

/// Rows without a peer to compare with: the disk's and the engine's floor, one node against two, joins and heals.
async fn own_rows(
    folder: &Path,
    binary: &Path,
    amounts: &Amounts,
    only: &str,
    table: &mut Table,
) -> anyhow::Result<()> {
    if "floor".contains(only) {
        for round in 0..amounts.rounds {
            let folder = folder.join(format!("floor{round}"));
            std::fs::create_dir_all(&folder)?;
            let count = amounts.floor;
            tokio::task::block_in_place(|| floor_rows(&folder, count, table))?;
        }
        one_and_two(folder, binary, amounts, table).await?;
    }
    if "commit".contains(only) {
        commit(folder, binary, amounts, table).await?;
    }
    if "healing".contains(only) {
        healing::measure(folder, binary, amounts.healing, table).await?;
    }
    if only == LOG {
        collecting::measure(folder, binary, amounts.rounds, amounts.messages_many, table).await?;
    }
    Ok(())
}

fn floor_rows(folder: &Path, count: usize, table: &mut Table) -> anyhow::Result<()> {
    let (p50, p99) = floor::synced_write(folder, count / 10)?;
    table.add("floor: one synced write of 4 KB, p50", "ms", 0, p50);
    table.add("floor: one synced write of 4 KB, p99", "ms", 0, p99);
    for databases in [1, 2] {
        let rate = floor::throughput(folder, databases, FLOOR_WRITERS, count)?;
        table.add(&format!("floor: {databases} database(s), {FLOOR_WRITERS} writers"), "/s", 0, rate);
    }
    Ok(())
}

/// How long a commit takes, on one node and on two, against a single synced write on the same disk, in turn.
async fn commit(folder: &Path, binary: &Path, amounts: &Amounts, table: &mut Table) -> anyhow::Result<()> {
    for _ in 0..amounts.rounds {
        let folder = folder.join("commit");
        std::fs::create_dir_all(&folder)?;
        let count = amounts.messages_one;
        let (p50, p99) = tokio::task::block_in_place(|| floor::synced_write(&folder, count))?;
        table.add("commit: one synced write of 4 KB, p50", "ms", 0, p50);
        table.add("commit: one synced write of 4 KB, p99", "ms", 0, p99);
        for (name, nodes) in [("one node", 1), ("two nodes", 2)] {
            let mut options = PairOptions::new(&folder.join(name), binary, ACCOUNTS + 1);
            options.allow_plaintext = true;
            let accounts = options.accounts.clone();
            let mut pair = if nodes == 2 { Pair::start(options).await? } else { Pair::start_single(options).await? };
            if nodes == 1 {
                pair.create_accounts().await?;
            }
            let run = loads::deliver(&twinpost(&pair, accounts)?, 1, count).await;
            pair.stop().await;
            std::fs::remove_dir_all(folder.join(name))?;
            let run = run?;
            table.add(&format!("commit on {name}: 250 after the dot, p50"), "ms", 0, run.ack_ms);
            table.add(&format!("commit on {name}: 250 after the dot, p99"), "ms", 0, run.ack_p99_ms);
            table.add(&format!("commit on {name}: synced writes, p50 over p50"), "x", 0, run.ack_ms / p50);
        }
    }
    Ok(())
}

/// The same load on a node that is alone and on a pair.
async fn one_and_two(folder: &Path, binary: &Path, amounts: &Amounts, table: &mut Table) -> anyhow::Result<()> {
    for _ in 0..amounts.rounds {
        for (name, nodes) in [("one", 1), ("two", 2)] {
            let mut options = PairOptions::new(&folder.join(name), binary, ACCOUNTS + 1);
            options.allow_plaintext = true;
            let accounts = options.accounts.clone();
            let mut pair = if nodes == 2 { Pair::start(options).await? } else { Pair::start_single(options).await? };
            if nodes == 1 {
                pair.create_accounts().await?;
            }
            let target = twinpost(&pair, accounts)?;
            let run = loads::deliver(&target, FLOOR_WRITERS, amounts.messages_many).await;
            pair.stop().await;
            std::fs::remove_dir_all(folder.join(name))?;
            let run = run?;
            table.add(&format!("floor: Twinpost, {name} node(s), {FLOOR_WRITERS} connections"), "/s", 0, run.visible);
        }
    }
    Ok(())
}

fn twinpost(started: &Pair, accounts: Vec<Login>) -> anyhow::Result<Target> {
    let at = |port| (CLUSTER_ADDRESS, port).into();
    let roots = started.nodes.iter().filter_map(NodeProcess::guard_pid).collect();
    Ok(Target {
        name: "Twinpost, two nodes".into(),
        smtp: at(started.ports.smtp),
        imap: at(started.ports.imap),
        imaps: at(started.ports.imaps),
        trust: started.trust()?,
        accounts,
        roots,
        apis: started
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.live_pid().is_some())
            .map(|(index, _)| index)
            .map(|index| started.api(index))
            .collect::<anyhow::Result<_>>()?,
    })
}

async fn rows(targets: &[Target], amounts: &Amounts, only: &str, table: &mut Table) -> anyhow::Result<()> {
    let wanted = |name: &str| name.contains(only);
    if wanted("memory") {
        for (at, target) in targets.iter().enumerate() {
            table.add("memory of the idle server, all nodes", "MiB", at, target.memory() as f64 / 1_048_576.0);
        }
        // Before the loads: memory they leave to the allocator would be used again and hide what a session needs.
        for (at, target) in targets.iter().enumerate() {
            let value = loads::idle_memory(target, amounts.idle).await.with_context(|| target.name.clone())?;
            table.add("memory per idle IMAP session with TLS", "KiB", at, value);
        }
        for (at, target) in targets.iter().enumerate() {
            let value = loads::idle_cpu(target, amounts.idle_time).await;
            table.add("CPU of the idle server, all nodes", "% of a core", at, value);
        }
    }
    for connections in [1, 10, 32] {
        if wanted("inbound") {
            deliveries(targets, amounts, connections, table).await?;
        }
    }
    for round in 0..amounts.rounds {
        eprintln!("round {} of {}", round + 1, amounts.rounds);
        for (at, target) in targets.iter().enumerate() {
            let context = || target.name.clone();
            if wanted("announce") {
                let value = loads::announce(target, amounts.announcements).await.with_context(context)?;
                table.add("announce: 250 to EXISTS in another client's IDLE, p50", "ms", at, value);
            }
            if wanted("login") {
                let value = loads::login(target, amounts.login_time).await.with_context(context)?;
                table.add("login + logout, 10 clients", "/s", at, value);
            }
            if wanted("append") {
                let value = loads::append(target, amounts.appends).await.with_context(context)?;
                table.add("append 4 KB, 10 sessions", "/s", at, value);
            }
        }
    }
    if wanted("large") {
        large(targets, amounts, table).await?;
    }
    Ok(())
}

async fn deliveries(
    targets: &[Target],
    amounts: &Amounts,
    connections: usize,
    table: &mut Table,
) -> anyhow::Result<()> {
    let count = if connections == 1 { amounts.messages_one } else { amounts.messages_many };
    let mut runs: Vec<Vec<Delivery>> = vec![Vec::new(); targets.len()];
    for _ in 0..amounts.rounds {
        for (target, runs) in targets.iter().zip(&mut runs) {
            let run = loads::deliver(target, connections, count).await.with_context(|| target.name.clone())?;
            eprintln!("{}: {connections} connections: {run:?}", target.name);
            runs.push(run);
        }
    }
    for (at, runs) in runs.iter().enumerate() {
        let middle = |value: fn(&Delivery) -> f64| median(runs.iter().map(value).collect());
        let name = |what: &str| format!("inbound 4 KB, {connections} connections: {what}");
        table.add(&name("accepted"), "/s", at, middle(|run| run.accepted));
        table.add(&name("visible"), "/s", at, middle(|run| run.visible));
        table.add(&name("CPU per message, all nodes"), "ms", at, middle(|run| run.cpu_ms));
        table.add(&name("250 after the dot, p50"), "ms", at, middle(|run| run.ack_ms));
        table.add(&name("250 after the dot, p99"), "ms", at, middle(|run| run.ack_p99_ms));
        if runs.iter().all(|run| run.syncs.is_some()) {
            let syncs = middle(|run| run.syncs.unwrap_or_default());
            table.add(&name("synced writes per message, all nodes"), "", at, syncs);
        }
    }
    Ok(())
}

async fn large(targets: &[Target], amounts: &Amounts, table: &mut Table) -> anyhow::Result<()> {
    for target in targets {
        eprintln!("{}: filling a mailbox with {} messages", target.name, amounts.large);
        loads::fill(target, amounts.large).await.with_context(|| target.name.clone())?;
    }
    for (what, items) in [
        ("flags", "(FLAGS)"),
        ("envelope", "(ENVELOPE)"),
        ("headers", "(BODY.PEEK[HEADER])"),
        ("bodies", "(BODY.PEEK[])"),
    ] {
        for (at, target) in targets.iter().enumerate() {
            let value = loads::fetch(target, items).await.with_context(|| format!("{} {what}", target.name))?;
            table.add(&format!("large: FETCH of {}: {what}", amounts.large), "thousand/s", at, value);
        }
    }
    for (at, target) in targets.iter().enumerate() {
        let value = loads::select(target, amounts.announcements).await.with_context(|| target.name.clone())?;
        table.add(&format!("large: SELECT of {}", amounts.large), "ms", at, value);
    }
    Ok(())
}
