//! Homes of shards spread over both nodes and brought together again under load: no command fails while they move, a node
//! that dies takes nothing with it, and mail to accounts of both homes is one 250.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::Fixture;
use e2e::load::{Load, await_service};
use node::demo::pair::{JOINT_LIMIT, LOOK_INTERVAL, Pair};
use serde_json::Value;

/// How long some acknowledgements may take under load.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take until all shards are where they should be.
const MOVES_LIMIT: Duration = Duration::from_secs(60);
/// Accounts; enough that both nodes are home of some.
const ACCOUNTS: usize = 6;

async fn homes(pair: &Pair, index: usize) -> anyhow::Result<Vec<u64>> {
    let status: Value = serde_json::from_str(&pair.command(index, &["cluster", "status"], &["--json"], None).await?)?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    Ok(nodes.iter().map(|node| node["homes"].as_u64().unwrap_or(0)).collect())
}

async fn await_homes(pair: &Pair, index: usize, wanted: impl Fn(&[u64]) -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let now = homes(pair, index).await?;
        if wanted(&now) {
            return Ok(());
        }
        ensure!(start.elapsed() < MOVES_LIMIT, "homes of shards: {now:?}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn shared_out(homes: &[u64]) -> bool {
    homes.iter().all(|count| (28..=36).contains(count))
}

/// Transactions that were answered 4xx or not at all.
fn failed(load: &Load) -> (Vec<String>, usize) {
    (load.work.ledger.deferred(), load.work.ledger.unanswered())
}

async fn spread_and_kill(pair: &mut Pair, load: &mut Load) -> anyhow::Result<()> {
    let first = pair.primary().await?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    let before = failed(load);
    let said = pair.command(first, &["cluster", "homes", "spread"], &[], None).await?;
    ensure!(said.contains("being spread"), "{said}");
    await_homes(pair, first, shared_out).await?;
    load.await_more(100, PROGRESS_LIMIT).await?;
    ensure!(failed(load) == before, "a command failed while shards moved: {:?}", failed(load));
    load.check_floors(pair).await?;
    load.judge(pair).await.context("spread")?;
    for victim in [first, 1 - first] {
        load.await_more(30, PROGRESS_LIMIT).await?;
        pair.kill(victim).await?;
        await_service(pair, PROGRESS_LIMIT).await?;
        load.await_more(20, PROGRESS_LIMIT).await.context("after the kill")?;
        let alone = homes(pair, 1 - victim).await?;
        ensure!(alone.contains(&64), "one node is home of everything: {alone:?}");
        pair.start_node(victim).await?;
        pair.await_joint(JOINT_LIMIT).await?;
        await_homes(pair, first, shared_out).await.context("spread again after the heal")?;
        load.check_floors(pair).await?;
        load.judge(pair).await.context("after a kill")?;
    }
    let before = failed(load);
    pair.command(first, &["cluster", "homes", "together"], &[], None).await?;
    await_homes(pair, first, |homes| homes.contains(&64)).await?;
    load.await_more(30, PROGRESS_LIMIT).await?;
    ensure!(failed(load) == before, "a command failed while shards came back: {:?}", failed(load));
    load.judge(pair).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_03_homes_are_spread_under_load_and_nothing_fails_or_is_lost() {
    let Fixture { mut pair, folder } = e2e::pair(ACCOUNTS).await.expect("a pair");
    let mut load = Load::start(&pair).expect("load");
    if let Err(fault) = spread_and_kill(&mut pair, &mut load).await {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    load.end().await.expect("the clients end");
    pair.stop().await;
    drop(folder);
}
