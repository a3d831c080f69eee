//! HA-02: the primary shares out connections on the cluster address; real client addresses everywhere.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::Fixture;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::pair::{CLUSTER_ADDRESS, JOINT_LIMIT, LOOK_INTERVAL, Pair, START_LIMIT};
use serde_json::{Value, json};

/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);
/// Sessions at a time.
const SESSIONS: usize = 10;

async fn session(pair: &Pair) -> anyhow::Result<ImapClient> {
    let login = pair.options.accounts.first().context("account")?;
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust()?, ANSWER_LIMIT).await?;
    client.login(&login.address, &login.password).await?;
    client.select("INBOX").await?;
    Ok(client)
}

async fn sessions(pair: &Pair) -> anyhow::Result<Vec<ImapClient>> {
    let mut all = Vec::new();
    for _ in 0..SESSIONS {
        all.push(session(pair).await?);
    }
    Ok(all)
}

/// Connections that the node accepted and the other one serves now.
async fn given(pair: &Pair, node: usize) -> anyhow::Result<u64> {
    let status: Value = serde_json::from_str(&pair.api(node)?.get("/api/v1/cluster").await?)?;
    status["proxied"]["open"].as_u64().context("a number")
}

async fn await_given(pair: &Pair, node: usize, wanted: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let now = given(pair, node).await?;
        if now == wanted {
            return Ok(());
        }
        ensure!(start.elapsed() < START_LIMIT, "{now} connections are served by the other node, not {wanted}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn story(pair: &mut Pair) -> anyhow::Result<()> {
    let primary = pair.primary().await?;
    let other = 1 - primary;
    let alone = sessions(pair).await?;
    ensure!(given(pair, primary).await? == 0, "the primary serves all itself unless told otherwise");
    drop(alone);
    pair.command(other, &["cluster", "load", "spread"], &[], None).await?;
    let mut both = sessions(pair).await?;
    await_given(pair, primary, SESSIONS as u64 / 2).await?;
    // Mail comes in by either node, and every session hears of it.
    let to = &pair.options.accounts.first().context("account")?.address;
    let mut senders = Vec::new();
    for _ in 0..4 {
        // Open at the same time: of one after the other the first node would have each.
        senders.push(SmtpClient::connect(SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp), ANSWER_LIMIT).await?);
    }
    for (number, smtp) in senders.iter_mut().enumerate() {
        let text = format!("From: a@example.org\r\nSubject: {number}\r\n\r\nx\r\n");
        let sent = smtp.send("a@example.org", &[to], text.as_bytes()).await;
        ensure!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
    }
    drop(senders);
    for client in &mut both {
        let seen = client.select("INBOX").await?;
        ensure!(seen.exists == 4, "{} messages", seen.exists);
    }
    let log = std::fs::read_to_string(pair.node(other)?.log_file())?;
    ensure!(
        log.lines().any(|line| line.contains("accepted accept=") && line.contains("peer=127.0.0.1")),
        "real addresses"
    );
    drop(both);
    await_given(pair, primary, 0).await?;
    // Three to one; then nothing new for the other.
    let weights = |one: u32, two: u32| json!({ "value": { "spread": true, "weights": { "1": one, "2": two } } });
    let heavy = if primary == 0 { weights(30, 120) } else { weights(120, 30) };
    pair.api(primary)?.put("/api/v1/settings/load", &heavy).await?;
    let more = sessions(pair).await?;
    await_given(pair, primary, SESSIONS as u64 * 4 / 5).await?;
    drop(more);
    await_given(pair, primary, 0).await?;
    let id = other + 1;
    pair.command(primary, &["cluster", "load", "spread", "--weight", &format!("{id}=0")], &[], None).await?;
    let drained = sessions(pair).await?;
    ensure!(given(pair, primary).await? == 0, "a drained node gets no new connections");
    drop(drained);
    let wrong = pair.command(primary, &["cluster", "load", "spread", "--weight", "9=1"], &[], None).await;
    ensure!(wrong.is_err(), "a node nobody knows: {wrong:?}");
    // Without the other node the primary serves everybody, and shares out again when it is back.
    pair.command(primary, &["cluster", "load", "spread"], &[], None).await?;
    pair.kill(other).await?;
    e2e::load::await_service(pair, START_LIMIT).await?;
    let alone = sessions(pair).await?;
    ensure!(given(pair, primary).await? == 0);
    pair.start_node(other).await?;
    pair.await_joint(JOINT_LIMIT).await?;
    let start = Instant::now();
    while given(pair, primary).await? == 0 {
        ensure!(start.elapsed() < START_LIMIT, "nothing is shared out after the heal");
        drop(session(pair).await?);
        let kept = session(pair).await?;
        tokio::time::sleep(LOOK_INTERVAL).await;
        if given(pair, primary).await? > 0 {
            break;
        }
        drop(kept);
    }
    drop(alone);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_02_ha_11_connections_on_the_cluster_address_are_shared_out_by_weight() {
    let Fixture { mut pair, folder } = e2e::pair(1).await.expect("a pair");
    if let Err(fault) = story(&mut pair).await {
        panic!("{fault:#}\n{}", e2e::logs(&pair));
    }
    pair.stop().await;
    drop(folder);
}
