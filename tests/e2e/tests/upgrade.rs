//! A rolling upgrade: the program of the commit before and this one in one pair, under load, in either order; and a program
//! that this one does not understand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use e2e::load::{Load, await_service};
use e2e::previous::previous;
use e2e::watch::{await_status, is_joint};
use e2e::{ANSWER_LIMIT, Fixture};
use node::demo::clients::stream::{LineStream, Trust};
use node::demo::pair::{CLUSTER_ADDRESS, JOINT_LIMIT, LOOK_INTERVAL, Pair, PairOptions};
use ports::peers::{LinkUp, PeerEvents, Peers as _};
use serde_json::Value;
use tokio::sync::watch;
use transport::{
    ExamineReply, ExamineRequest, Handlers, JoinHandler, JoinReply, JoinRequest, TransportConfig, Versions,
};
use vocab::{Boot, NodeId};

/// How long some acknowledgements may take under load.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// How long the state may take to become what it must be.
const STATE_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two commands of a client that counts.
const COMMAND_PACE: Duration = Duration::from_millis(20);

/// How commands and connections of clients ended.
#[derive(Debug, Default)]
struct Count {
    done: usize,
    /// Sessions that the server ended with a farewell (421, BYE).
    farewells: usize,
    /// Connections that were not taken.
    no_connection: usize,
    /// Everything else: refused, or no answer and no farewell.
    failed: Vec<String>,
}

/// An IMAP client on the cluster address that counts every command, and connects again after a farewell.
async fn count(peer: SocketAddr, trust: Trust, login: (String, String), mut stop: watch::Receiver<bool>) -> Count {
    let mut counted = Count::default();
    while !*stop.borrow() {
        match session(peer, &trust, &login, &mut counted, &stop).await {
            Ok(true) => counted.farewells += 1,
            Ok(false) => {}
            Err(fault) => counted.failed.push(format!("{fault:#}")),
        }
        let _ = tokio::time::timeout(COMMAND_PACE, stop.changed()).await;
    }
    counted
}

/// One session; true: the server said farewell.
async fn session(
    peer: SocketAddr,
    trust: &Trust,
    (user, password): &(String, String),
    counted: &mut Count,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<bool> {
    let Ok(mut stream) = LineStream::connect_tls(peer, trust, ANSWER_LIMIT).await else {
        counted.no_connection += 1;
        return Ok(false);
    };
    if stream.read_line().await.context("greeting")?.starts_with(b"* BYE") {
        return Ok(true);
    }
    let opening = [format!("LOGIN {user} {password}"), "SELECT INBOX".to_owned()];
    let commands = ["NOOP", "UID FETCH * (FLAGS)", "UID STORE * +FLAGS ($upgraded)"].map(str::to_owned);
    for command in opening.into_iter().chain(commands.into_iter().cycle()) {
        if *stop.borrow() {
            return Ok(false);
        }
        let (name, _) = command.split_at(command.len().min(9));
        stream.write(format!("a {command}\r\n").as_bytes()).await.with_context(|| name.to_owned())?;
        loop {
            let line = stream.read_line().await.with_context(|| name.to_owned())?;
            if line.starts_with(b"* BYE") {
                return Ok(true);
            }
            if line.starts_with(b"a OK") {
                break;
            }
            ensure!(!line.starts_with(b"a "), "{name}: {}", String::from_utf8_lossy(&line));
        }
        counted.done += 1;
        tokio::time::sleep(COMMAND_PACE).await;
    }
    Ok(false)
}

async fn status(pair: &Pair, index: usize) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&pair.api(index)?.get("/api/v1/cluster").await?)?)
}

/// Restarts a node with this binary, once that has nothing against it; how long until both are in sync again.
async fn upgrade(pair: &mut Pair, index: usize, binary: &Path) -> anyhow::Result<Duration> {
    pair.options.binary = binary.to_owned();
    pair.command(index, &["cluster", "upgrade-check"], &[], None).await?;
    let begun = Instant::now();
    let node = pair.nodes.get_mut(index).context("node")?;
    node.ask_to_end();
    ensure!(node.await_end().await.is_some_and(|status| status.success()), "the stop was not clean");
    pair.start_node(index).await?;
    pair.await_joint(JOINT_LIMIT).await?;
    Ok(begun.elapsed())
}

async fn become_primary(pair: &Pair, index: usize) -> anyhow::Result<()> {
    if pair.primary().await? != index {
        pair.command(index, &["cluster", "switchover", &(index + 1).to_string()], &[], None).await?;
    }
    let start = Instant::now();
    while pair.primary().await.ok() != Some(index) {
        ensure!(start.elapsed() < STATE_LIMIT, "node {index} does not become the primary");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Both programs take turns as the primary, and each makes an account.
async fn mixed(pair: &Pair, load: &mut Load, (old, new): (usize, usize)) -> anyhow::Result<()> {
    for (turn, index) in [old, new, old, new].into_iter().enumerate() {
        become_primary(pair, index).await?;
        pair.api(index)?.add_account(&format!("mixed{turn}-of-{index}@demo.test"), "secret-of-mixed").await?;
        load.await_more(50, PROGRESS_LIMIT).await?;
        load.check_floors(pair).await?;
    }
    // The new program leads: it tells that they differ.
    let start = Instant::now();
    loop {
        let said: Value = serde_json::from_str(&pair.command(new, &["alerts"], &["--json"], None).await?)?;
        let all = said["alerts"].as_array().context("alerts")?;
        if all.iter().any(|alert| alert["key"] == "version-mix" && alert["severity"] == "info") {
            break;
        }
        ensure!(start.elapsed() < STATE_LIMIT, "nobody tells of the mix: {said}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    load.judge(pair).await.map(drop)
}

/// `first`: index of the node that is upgraded first; 0 is the primary.
async fn roll(pair: &mut Pair, first: usize, (load, binary): (&mut Load, &Path)) -> anyhow::Result<()> {
    become_primary(pair, 0).await?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    let one = upgrade(pair, first, binary).await?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    mixed(pair, load, (1 - first, first)).await?;
    let other = upgrade(pair, 1 - first, binary).await?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    load.check_floors(pair).await?;
    load.judge(pair).await?;
    let whole = status(pair, 0).await?;
    let programs: Vec<&Value> =
        whole["nodes"].as_array().context("nodes")?.iter().map(|node| &node["program"]).collect();
    ensure!(programs.len() == 2 && programs[0] == programs[1] && programs[0].is_string(), "{whole}");
    println!("node {} first: {one:.1?}, then {other:.1?} from the order to stop until both are in sync", first + 1);
    Ok(())
}

async fn roll_and_count(pair: &mut Pair, first: usize, binary: &Path) -> anyhow::Result<()> {
    let mut load = Load::start(pair)?;
    let (stop, stopped) = watch::channel(false);
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.imaps);
    let login = pair.options.accounts.first().map(|login| (login.address.clone(), login.password.clone()));
    let counting = tokio::spawn(count(peer, pair.trust()?, login.context("account")?, stopped));
    let outcome = roll(pair, first, (&mut load, binary)).await;
    let _ = stop.send(true);
    let counted = counting.await?;
    let ledger = Arc::clone(&load.work.ledger);
    if outcome.is_ok() {
        load.end().await?;
    }
    outcome?;
    let farewell = |text: &String| text.contains(": 421 ");
    let (farewells, broken): (Vec<String>, Vec<String>) = ledger.deferred().into_iter().partition(farewell);
    println!(
        "{} messages and {} commands, {} + {} farewells, {} connections not taken; broken: {broken:?}, unanswered {}",
        ledger.accepted(),
        counted.done,
        farewells.len(),
        counted.farewells,
        counted.no_connection,
        ledger.unanswered()
    );
    ensure!(counted.done > 0, "nothing was counted");
    let mut failed = counted.failed;
    // Some messages of the corpus have too many Received fields, whoever is asked.
    failed.extend(ledger.refused().into_iter().filter(|text| !text.contains(": 554 5.4.6 ")));
    failed.extend(broken);
    if !failed.is_empty() || ledger.unanswered() > 0 {
        bail!("{} unanswered, failed:\n{}", ledger.unanswered(), failed.join("\n"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_upgraded_node_by_node_in_either_order_under_load() {
    let Some(old) = tokio::task::spawn_blocking(previous).await.expect("joined").expect("the program of before") else {
        println!("skipped: no commit before this one is known here");
        return;
    };
    for first in [1, 0] {
        let folder = tempfile::tempdir().expect("folder");
        let mut pair = Pair::start(PairOptions::new(folder.path(), &old, 3)).await.expect("a pair of before");
        if let Err(fault) = roll_and_count(&mut pair, first, &e2e::binary()).await {
            panic!("{fault:#}\n{}", e2e::logs(&pair));
        }
        pair.stop().await;
    }
}

/// Stands for a program that speaks another protocol: it takes nobody in and nobody takes it.
struct Stranger;

impl PeerEvents for Stranger {
    fn link_up(&self, up: LinkUp) {
        panic!("a link to {up:?}");
    }
    fn link_down(&self, _: NodeId, _: u64, _: bool) {}
    fn frame(&self, _: NodeId, _: u64, _: bytes::Bytes) {}
}

impl JoinHandler for Stranger {
    fn join(&self, _: JoinRequest) -> ports::Answer<'_, Result<JoinReply, String>> {
        Box::pin(async { Err("not here".to_owned()) })
    }
    fn examine(&self, _: ExamineRequest) -> ports::Answer<'_, Result<ExamineReply, String>> {
        Box::pin(async { Err("not here".to_owned()) })
    }
}

/// In the place of node 2: its certificate and address, and a protocol that only a later program speaks.
async fn stranger(pair: &Pair) -> Arc<transport::Transport> {
    let data = node::files::DataDir(pair.nodes[1].data_dir());
    let config = TransportConfig {
        node: NodeId(2),
        boot: Boot(1),
        cluster_id: node::files::Identity::load(&data).expect("identity").cluster_id,
        listen: vec![SocketAddr::new(pair.nodes[1].address, pair.ports.peer)],
        tls: node::serve::node_tls(&data).expect("certificates"),
        versions: Versions { protocol: (7, 8), ..Versions::CURRENT },
        program: "7.0.0".to_owned(),
    };
    let first = SocketAddr::new(pair.nodes[0].address, pair.ports.peer).to_string();
    let members = BTreeMap::from([(NodeId(1), vec![first])]);
    let transport = transport::Transport::new(config, watch::channel(members).1).expect("transport");
    let handlers = Handlers {
        events: Arc::new(Stranger),
        services: Vec::new(),
        join: Arc::new(Stranger),
        on_guard_word: Arc::new(|_, _| {}),
    };
    transport.start(handlers).await.expect("listens");
    transport
}

async fn alerts(pair: &Pair, index: usize) -> Vec<Value> {
    let said = pair.command(index, &["alerts"], &["--json"], None).await.expect("alerts");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    said["alerts"].as_array().expect("alerts").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_do_not_understand_each_other_are_refused_with_the_reason() {
    let Fixture { mut pair, folder } = e2e::pair(1).await.expect("a pair");
    pair.command(0, &["cluster", "upgrade-check"], &[], None).await.expect("a whole pair");
    let node = &mut pair.nodes[1];
    node.ask_to_end();
    assert!(node.await_end().await.is_some_and(|status| status.success()), "a clean stop");
    let other = stranger(&pair).await;
    let why = "no common protocol: versions 7-8 here, 1-1 there";
    let told = |status: &Value| status["nodes"][1]["refused"].as_str().is_some_and(|reason| reason.contains(why));
    let seen = await_status(&pair, 0, "refused with the reason", told).await;
    assert_eq!(seen["nodes"][1]["role"], "unreachable", "{seen}");
    let begun = Instant::now();
    let raised = loop {
        let all = alerts(&pair, 0).await;
        if let Some(raised) = all.iter().find(|alert| alert["key"] == "refused/2") {
            assert!(all.iter().all(|alert| alert["key"] != "peer-gone/2"), "it is not gone: {all:?}");
            break raised.clone();
        }
        assert!(begun.elapsed() < STATE_LIMIT, "{all:?}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    assert!(raised["severity"] == "critical" && raised["text"].as_str().is_some_and(|text| text.contains(why)));
    assert!(other.refused(NodeId(1)).is_some_and(|reason| reason.contains("no common protocol")), "both know");
    let asked = pair.command(0, &["cluster", "upgrade-check"], &[], None).await.expect_err("nobody could serve");
    let asked = asked.to_string();
    assert!(asked.contains("REFUSE   in-sync") && asked.contains(why), "{asked}");
    // Mail goes on, and a program that fits is taken in.
    await_service(&pair, STATE_LIMIT).await.expect("service");
    e2e::mail(&pair, 0, 0, "alone").await.expect("taken");
    other.stop();
    drop(other);
    pair.start_node(1).await.expect("started");
    let whole = await_status(&pair, 0, "joint", |status| is_joint(status, &[1, 2])).await;
    assert!(whole["nodes"][1]["refused"].is_null() && whole["nodes"][1]["program"].is_string(), "{whole}");
    pair.stop().await;
    drop(folder);
}
