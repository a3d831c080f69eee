//! SIGKILL at random moments under load. `E2E_SEED` repeats a run's choices, `E2E_ROUNDS` makes it shorter or longer.

use std::time::Duration;

use anyhow::Context as _;
use e2e::load::{Load, await_service};
use node::demo::pair::{JOINT_LIMIT, Pair};
use node::demo::readers::Place;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Rounds of the long test; two more are those inside a join.
const ROUNDS: usize = 18;
/// Every so many rounds everything is compared.
const JUDGE_EVERY: usize = 6;
/// Accounts under load.
const ACCOUNTS: usize = 4;
/// Longest outage after a kill.
const OUTAGE_MAX: Duration = Duration::from_secs(10);
/// How long some acknowledgements may take under load.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeded() -> StdRng {
    let seed = number("E2E_SEED").unwrap_or_else(rand::random);
    println!("E2E_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

async fn some_time(random: &mut StdRng, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(0..most_ms))).await;
}

/// What is killed beside the victim of the round.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The serving process; its guard reports it.
    Process,
    /// Guard and process at once.
    Group,
    /// The serving process, and again while it returns.
    AgainInHeal,
    /// The serving process, and the survivor while the heal runs.
    SurvivorInHeal,
}

const KINDS: [Kind; 4] = [Kind::Process, Kind::AgainInHeal, Kind::Group, Kind::SurvivorInHeal];

async fn round(pair: &mut Pair, load: &mut Load, number: usize, random: &mut StdRng) -> anyhow::Result<()> {
    let victim = number % 2;
    let kind = KINDS[number / 2 % KINDS.len()];
    some_time(random, 1_500).await;
    match kind {
        Kind::Group => pair.kill_group(victim).await?,
        _ => pair.kill(victim).await?,
    }
    let outage = await_service(pair, OUTAGE_MAX).await?;
    load.await_more(20, PROGRESS_LIMIT).await.context("after the kill")?;
    some_time(random, 1_000).await;
    pair.start_node(victim).await?;
    match kind {
        Kind::Process | Kind::Group => {}
        Kind::AgainInHeal => {
            some_time(random, 1_500).await;
            pair.kill(victim).await?;
            load.await_more(5, PROGRESS_LIMIT).await.context("after the kill inside the heal")?;
            pair.start_node(victim).await?;
        }
        Kind::SurvivorInHeal => {
            some_time(random, 1_500).await;
            pair.kill(1 - victim).await?;
            some_time(random, 500).await;
            pair.start_node(1 - victim).await?;
        }
    }
    let status = pair.await_joint(JOINT_LIMIT).await?;
    println!("round {number}: n{} {kind:?}, service after {outage:?}, epoch {}", victim + 1, status.epoch);
    load.await_more(10, PROGRESS_LIMIT).await.context("after the heal")?;
    load.check_floors(pair).await
}

async fn rounds(pair: &mut Pair) -> anyhow::Result<()> {
    let mut random = seeded();
    let mut load = Load::start(pair)?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    let count = number("E2E_ROUNDS").and_then(|count| usize::try_from(count).ok()).unwrap_or(ROUNDS);
    for number in 0..count {
        round(pair, &mut load, number, &mut random).await.with_context(|| format!("round {number}"))?;
        if (number + 1) % JUDGE_EVERY == 0 || number + 1 == count {
            let whole = load.judge(pair).await.with_context(|| format!("judging after round {number}"))?;
            println!("round {number}: {whole} acknowledged messages whole on both nodes");
        }
    }
    load.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_13_ha_15_ha_16_kills_at_random_moments_lose_nothing() {
    let mut fixture = e2e::pair(ACCOUNTS).await.expect("a pair");
    let outcome = rounds(&mut fixture.pair).await;
    if let Err(fault) = outcome {
        panic!("{fault:#}\n{}", e2e::logs(&fixture.pair));
    }
    fixture.pair.stop().await;
}

/// One node under load, a second joins, and `victim` is killed while it does.
async fn kill_inside_join(victim: usize) -> anyhow::Result<()> {
    let mut random = seeded();
    let mut fixture = e2e::single(ACCOUNTS).await?;
    let pair = &mut fixture.pair;
    let mut load = Load::start(pair)?;
    load.await_more(100, PROGRESS_LIMIT).await?;
    pair.join_begin().await?;
    some_time(&mut random, 1_000).await;
    pair.kill(victim).await?;
    some_time(&mut random, 500).await;
    pair.start_node(victim).await?;
    let told = async {
        pair.await_joint(JOINT_LIMIT).await?;
        load.await_more(20, PROGRESS_LIMIT).await.context("after the join")?;
        load.check_floors(pair).await?;
        load.judge(pair).await?;
        load.end().await
    };
    let outcome = told.await.with_context(|| e2e::logs(&fixture.pair));
    fixture.pair.stop().await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_16_the_joining_node_killed_inside_the_join() {
    kill_inside_join(1).await.expect("nothing lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_13_the_first_node_killed_inside_the_join() {
    kill_inside_join(0).await.expect("nothing lost");
}

/// Negative control: a message that goes behind the clients' backs is missed.
#[tokio::test(flavor = "multi_thread")]
async fn the_judge_notices_one_missing_message() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &fixture.pair;
    let mut load = Load::start(pair).expect("clients");
    load.await_more(30, PROGRESS_LIMIT).await.expect("mail");
    load.judge(pair).await.expect("nothing lost yet");
    let place = Place::all(pair).expect("places").remove(1);
    let mut thief = place.imap(&load.work, 0).await.expect("login");
    thief.select("INBOX").await.expect("INBOX");
    thief.command("STORE 1 +FLAGS.SILENT (\\Deleted)").await.expect("answer").ok().expect("stored");
    thief.command("EXPUNGE").await.expect("answer").ok().expect("expunged");
    let verdict = load.judge(pair).await.expect_err("one message is gone");
    assert!(format!("{verdict:#}").contains("is missing"), "{verdict:#}");
    load.end().await.expect("clients end");
    fixture.pair.stop().await;
}
