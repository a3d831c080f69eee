//! Certificates are renewed and the CA is exchanged under load: no command fails and no message is lost; what the old CA
//! signed is refused afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::load::Load;
use e2e::watch::{LIMIT, WITNESS, add_witness, await_status, is_joint};
use e2e::{Fixture, logs};
use node::demo::node_process::NodeProcess;
use node::demo::pair::{LOOK_INTERVAL, NODE_ADDRESSES, Pair, PairOptions};
use ports::peers::{Peers as _, Service};
use serde_json::{Value, json};
use transport::{TlsPems, Transport, TransportConfig, Versions};
use vocab::{Boot, NodeId};

/// How long certificates last here (s): they are renewed after two thirds.
const LIFE_S: u64 = 45;
/// How long some acknowledgements may take under load.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

async fn certificates(pair: &Pair, index: usize) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&pair.command(index, &["cluster", "certificates"], &["--json"], None).await?)?)
}

async fn rotate(pair: &Pair, rest: &[&str]) -> anyhow::Result<String> {
    pair.command(0, &["cluster", "certificates", "rotate-ca"], rest, None).await
}

async fn until(pair: &Pair, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let start = Instant::now();
    loop {
        let now = certificates(pair, 0).await.unwrap_or_default();
        if wanted(&now) {
            return Ok(now);
        }
        ensure!(start.elapsed() < 2 * LIMIT, "never: {what}: {now}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn serials(now: &Value) -> Vec<Value> {
    now["nodes"].as_array().into_iter().flatten().map(|node| node["certificate"]["serial"].clone()).collect()
}

fn waits_for(now: &Value) -> Vec<u64> {
    let waits = now["rotation"]["waits_for"].as_array().into_iter().flatten();
    waits.filter_map(|wait| wait["node"].as_u64()).collect()
}

/// How often the nodes have said that a link went down.
fn links_down(pair: &Pair) -> usize {
    let texts = pair.nodes.iter().filter_map(|node| std::fs::read_to_string(node.log_file()).ok());
    texts.map(|text| text.matches("link to peer is down").count()).sum()
}

/// Transactions that broke or were put off so far; and what is refused for good, but for the messages that nobody takes.
fn failed(load: &Load) -> (usize, usize, Vec<String>) {
    let ledger = &load.work.ledger;
    let refused = ledger.refused().into_iter().filter(|text| !text.contains("5.4.6")).collect();
    (ledger.deferred().len(), ledger.unanswered(), refused)
}

/// Nothing that a client asked for since `before` was refused or broke.
fn none_failed(load: &Load, before: &(usize, usize, Vec<String>)) -> anyhow::Result<()> {
    ensure!(failed(load) == *before, "{before:?}: {:?} {:?}", failed(load), load.work.ledger.deferred());
    Ok(())
}

/// Certificates as they lie on a node, and the key of the CA.
fn stolen(pair: &Pair, index: usize) -> anyhow::Result<(TlsPems, String)> {
    let data = pair.node(index)?.data_dir();
    let read = |name: &str| std::fs::read_to_string(data.join(name)).with_context(|| name.to_owned());
    let pems = TlsPems { ca: read("ca.pem")?, certificate: read("node.pem")?, key: read("node.key")? };
    Ok((pems, read("ca.key").unwrap_or_default()))
}

/// Whether node 1 answers a call of somebody who shows these certificates.
async fn accepted(pair: &Pair, tls: &TlsPems) -> anyhow::Result<()> {
    let node = NodeId(1);
    let address = format!("{}:{}", NODE_ADDRESSES[0], pair.ports.peer);
    let (_members, seen) = tokio::sync::watch::channel([(node, vec![address])].into());
    let config = TransportConfig {
        node: NodeId(2),
        boot: Boot(0),
        cluster_id: String::new(),
        listen: Vec::new(),
        tls: tls.clone(),
        versions: Versions::CURRENT,
        program: String::new(),
    };
    let caller = Transport::new(config, seen)?;
    caller.call(node, Service::Certificates, b"\"Describe\"".as_slice().into()).await?;
    Ok(())
}

async fn renewal(pair: &Pair, load: &Load) -> anyhow::Result<()> {
    let (before, down, failed_before) = (certificates(pair, 0).await?, links_down(pair), failed(load));
    let pids: Vec<_> = pair.nodes.iter().map(NodeProcess::live_pid).collect();
    ensure!(serials(&before).len() == 3, "{before}");
    until(pair, "every node has renewed its certificate by itself", |now| {
        let all = serials(now);
        all.len() == 3 && all.iter().zip(serials(&before)).all(|(now, old)| now.is_string() && *now != old)
    })
    .await?;
    let clients_end = |now: &Value| now["nodes"][0]["clients"]["ends"].as_u64();
    until(pair, "the certificate for clients, too", |now| clients_end(now) > clients_end(&before)).await?;
    let now = certificates(pair, 1).await?;
    let said = pair.command(1, &["cluster", "certificates", "renew", "3"], &["--json"], None).await?;
    let said: Value = serde_json::from_str(&said)?;
    ensure!(said["nodes"][0]["certificate"]["serial"] != serials(&now)[2], "by order, asked at another node: {said}");
    load.await_more(100, PROGRESS_LIMIT).await?;
    ensure!(pids == pair.nodes.iter().map(NodeProcess::live_pid).collect::<Vec<_>>(), "no process was started anew");
    ensure!(links_down(pair) == down, "no link was broken");
    none_failed(load, &failed_before)
}

async fn exchange(pair: &Pair, load: &mut Load) -> anyhow::Result<()> {
    let plan = rotate(pair, &["--dry-run"]).await?;
    ensure!(plan.contains("nothing was changed") && certificates(pair, 0).await?["rotation"].is_null(), "{plan}");
    let token = pair.api(0)?.join_token().await?;
    let (old, old_key) = stolen(pair, 1)?;
    let was = accepted(pair, &old).await;
    ensure!(was.is_ok(), "before: {was:?}");
    rotate(pair, &["--hold"]).await?;
    until(pair, "both are trusted", |now| now["rotation"]["held"] == true && waits_for(now).is_empty()).await?;
    ensure!(pair.api(0)?.join_token().await.is_err(), "nobody joins meanwhile");
    ensure!(rotate(pair, &[]).await.is_err(), "one at a time");
    // Clients that begin now trust both, as an operator has seen to.
    load.learn_trust(pair).await?;
    load.await_more(100, PROGRESS_LIMIT).await?;
    let (begun, failed_before) = (Instant::now(), failed(load));
    rotate(pair, &["--go-on"]).await?;
    let done = until(pair, "the exchange is finished", |now| now["rotations_finished"] == 1).await?;
    println!("a CA was exchanged under load in {:?} after the word", begun.elapsed());
    let trusts = &done["nodes"][0]["trusts"];
    ensure!(trusts.as_array().is_some_and(|all| all.len() == 1), "{done}");
    ensure!((1..3).all(|at| done["nodes"][at]["trusts"] == *trusts), "{done}");
    load.await_more(200, PROGRESS_LIMIT).await?;
    none_failed(load, &failed_before)?;
    let refused = accepted(pair, &old).await;
    ensure!(refused.is_err(), "a certificate of before: {refused:?}");
    // Whoever has the old CA's key makes what it likes, and trusts the new CA to get so far.
    let forged = transport::ca::Authority::load(&old.ca, &old_key)?.issue_node(NodeId(2), &[])?;
    let (new, _) = stolen(pair, 0)?;
    let forged = TlsPems { ca: new.ca, certificate: forged.certificate, key: forged.key };
    let refused = accepted(pair, &forged).await;
    ensure!(refused.is_err(), "one forged with the old key: {refused:?}");
    let (good, _) = stolen(pair, 1)?;
    let taken = accepted(pair, &good).await;
    ensure!(taken.is_ok(), "the one of now: {taken:?}");
    let stranger = NodeProcess::new(&pair.options, 4, "127.0.0.14".parse()?, &pair.ports)?;
    let joining = std::process::Command::new(&pair.options.binary)
        .args(["cluster", "join", "--config"])
        .arg(stranger.config())
        .arg("--token-file")
        .arg({
            let file = pair.options.dir.join("token");
            std::fs::write(&file, token)?;
            file
        })
        .output()?;
    let said = String::from_utf8_lossy(&joining.stderr).into_owned();
    ensure!(!joining.status.success() && said.contains("has changed its CA"), "a token of before: {said}");
    load.judge(pair).await.map(drop)
}

/// A node dies in the first step, another for good in the second.
async fn exchange_with_kills(pair: &mut Pair, load: &mut Load) -> anyhow::Result<()> {
    let old = stolen(pair, WITNESS)?.0;
    rotate(pair, &["--hold"]).await?;
    until(pair, "both are trusted", |now| now["rotation"]["held"] == true && waits_for(now).is_empty()).await?;
    load.learn_trust(pair).await?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    pair.kill(1).await?;
    rotate(pair, &["--go-on"]).await?;
    let waits = |now: &Value| now["rotation"]["step"] == "issue" && waits_for(now) == [2];
    until(pair, "node 2 holds the second step", waits).await?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    pair.kill(WITNESS).await?;
    pair.start_node(1).await?;
    await_status(pair, 0, "both in sync again", |status| is_joint(status, &[1, 2])).await;
    let waits = |now: &Value| now["rotation"]["step"] == "drop" && waits_for(now) == [3];
    until(pair, "the witness holds the third step", waits).await?;
    let said = pair.command(0, &["cluster", "certificates"], &[], None).await?;
    ensure!(said.contains("waits for node 3: it does not answer") && said.contains("cluster remove"), "{said}");
    pair.command(0, &["cluster", "remove", "3"], &["--confirm", "demo"], None).await?;
    until(pair, "it is finished without the witness", |now| now["rotations_finished"] == 2).await?;
    ensure!(accepted(pair, &old).await.is_err(), "the one that was away must join anew");
    load.await_more(50, PROGRESS_LIMIT).await?;
    load.check_floors(pair).await?;
    load.judge(pair).await.map(drop)
}

async fn all(pair: &mut Pair) -> anyhow::Result<()> {
    add_witness(pair).await;
    let mut load = Load::start(pair)?;
    load.await_more(50, PROGRESS_LIMIT).await?;
    renewal(pair, &load).await.context("renewal")?;
    load.judge(pair).await.context("after the renewal")?;
    exchange(pair, &mut load).await.context("exchange")?;
    exchange_with_kills(pair, &mut load).await.context("exchange with kills")?;
    load.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_and_the_ca_is_exchanged_under_load() {
    let folder = tempfile::tempdir().expect("folder");
    let mut options = PairOptions::new(folder.path(), &e2e::binary(), 3);
    options.more.push_str(&format!("[certificates]\nlife_s = {LIFE_S}\n"));
    let pair = Pair::start(options).await.expect("a pair");
    let Fixture { mut pair, folder } = Fixture { pair, folder };
    if let Err(fault) = all(&mut pair).await {
        panic!("{fault:#}\n{}", logs(&pair));
    }
    let shown: Value = json!(certificates(&pair, 0).await.expect("shown"));
    assert!(shown["rotation"].is_null(), "{shown}");
    pair.stop().await;
    drop(folder);
}
