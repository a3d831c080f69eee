//! Planned changes: another primary by command, and a primary that is stopped properly. Under load; nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::Fixture;
use e2e::load::{Load, await_service};
use node::demo::pair::{JOINT_LIMIT, LOOK_INTERVAL, Pair};
use serde_json::Value;

/// How long some acknowledgements may take under load.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// How long the state may take to become what it must be.
const STATE_LIMIT: Duration = Duration::from_secs(30);

async fn status(pair: &Pair, index: usize) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&pair.command(index, &["cluster", "status"], &["--json"], None).await?)?)
}

async fn await_primary(pair: &Pair, index: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    while pair.primary().await.ok() != Some(index) {
        ensure!(start.elapsed() < STATE_LIMIT, "node {index} does not become the primary");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

async fn switch(pair: &mut Pair, load: &mut Load) -> anyhow::Result<()> {
    load.await_more(50, PROGRESS_LIMIT).await?;
    let first = pair.primary().await?;
    let other = 1 - first;
    let said = pair.command(first, &["cluster", "switchover"], &["--dry-run"], None).await?;
    ensure!(said.contains(&format!("node {} would become the primary", other + 1)), "dry run: {said}");
    ensure!(pair.primary().await? == first, "a dry run did something");
    // Asked at either node, by id.
    for (at, to) in [(first, other), (first, first), (first, other), (other, first)] {
        let id = (to + 1).to_string();
        let said = pair.command(at, &["cluster", "switchover", &id], &[], None).await?;
        ensure!(said.contains(&format!("node {id} is the primary now")), "switchover: {said}");
        await_primary(pair, to).await?;
        load.await_more(50, PROGRESS_LIMIT).await?;
        load.check_floors(pair).await?;
        let status = status(pair, at).await?;
        ensure!(status["epoch_kind"] == "joint", "a planned switchover leaves the pair joint: {status}");
    }
    let wrong = pair.command(first, &["cluster", "switchover", "nobody"], &[], None).await;
    ensure!(wrong.is_err(), "a node nobody knows was taken: {wrong:?}");
    load.judge(pair).await.map(drop)
}

async fn stop(pair: &mut Pair, load: &mut Load) -> anyhow::Result<()> {
    let first = pair.primary().await?;
    let other = 1 - first;
    load.await_more(20, PROGRESS_LIMIT).await?;
    let node = pair.nodes.get_mut(first).context("node")?;
    node.ask_to_end();
    ensure!(node.await_end().await.is_some_and(|status| status.success()), "the stop was not clean");
    await_service(pair, PROGRESS_LIMIT).await?;
    let alone = status(pair, other).await?;
    ensure!(alone["epoch_kind"] == "reduced", "the other node went on by agreement: {alone}");
    load.await_more(20, PROGRESS_LIMIT).await?;
    pair.start_node(first).await?;
    pair.await_joint(JOINT_LIMIT).await?;
    load.await_more(20, PROGRESS_LIMIT).await?;
    load.check_floors(pair).await?;
    load.judge(pair).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_20_the_primary_is_changed_by_command_and_by_a_stop_under_load() {
    let Fixture { mut pair, folder } = e2e::pair(3).await.expect("a pair");
    let mut load = Load::start(&pair).expect("load");
    let mut outcome = switch(&mut pair, &mut load).await;
    if outcome.is_ok() {
        outcome = stop(&mut pair, &mut load).await;
    }
    if let Err(fault) = outcome {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    load.end().await.expect("the clients end");
    pair.stop().await;
    drop(folder);
}
