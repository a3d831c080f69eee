//! What a cluster of test processes says of itself, and mail in and out of it, one message at a time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::node_process::NodeProcess;
use node::demo::pair::{CLUSTER_ADDRESS, LOOK_INTERVAL, Pair};
use serde_json::Value;

/// How long anything may take on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);

/// Where the witness listens.
pub const WITNESS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));
/// Its index in the pair's processes.
pub const WITNESS: usize = 2;

/// Makes a third process a witness, and waits until it votes.
///
/// # Panics
/// It does not join.
pub async fn add_witness(pair: &mut Pair) {
    let witness = NodeProcess::new(&pair.options, WITNESS + 1, WITNESS_ADDRESS, &pair.ports).expect("a node file");
    pair.nodes.push(witness);
    let token = pair.api(0).expect("API").join_token().await.expect("a token");
    let said = pair.command(WITNESS, &["cluster", "join"], &["--witness"], Some(&token)).await.expect("joined");
    assert!(said.contains("as witness, node 3"), "{said}");
    pair.start_node(WITNESS).await.expect("started");
    let status = await_status(pair, 0, "the witness votes and is linked", |status| {
        votes(status) == 3 && status["nodes"][WITNESS]["role"] == "witness"
    });
    let status = status.await;
    assert_eq!(status["in_sync"], serde_json::json!([1, 2]), "it is no copy");
    assert!(!status["warnings"].to_string().contains("without a witness"), "{status}");
}

/// What node `index` says of the cluster, once it says what is wanted.
///
/// # Panics
/// It never says so.
pub async fn await_status(pair: &Pair, index: usize, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    read(&await_said(pair, index, &["cluster", "status"], what, |text| wanted(&read(text))).await)
}

/// What a command says at node `index` (`--json`; nothing while it fails), once that is what is wanted.
///
/// # Panics
/// It never says so.
pub async fn await_said(
    pair: &Pair,
    index: usize,
    words: &[&str],
    what: &str,
    wanted: impl Fn(&str) -> bool,
) -> String {
    let start = Instant::now();
    loop {
        let said = pair.command(index, words, &["--json"], None).await.unwrap_or_default();
        if wanted(&said) {
            return said;
        }
        assert!(start.elapsed() < LIMIT, "never: {what}: {said}\n{}", crate::logs(pair));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether exactly these nodes are joint.
#[must_use]
pub fn is_joint(status: &Value, nodes: &[u64]) -> bool {
    status["epoch_kind"] == "joint" && status["in_sync"] == serde_json::json!(nodes)
}

/// Nodes that vote.
#[must_use]
pub fn votes(status: &Value) -> usize {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.filter(|node| node["votes"] == true).count()
}

/// Password of an account made by [`add_account`].
fn password(name: &str) -> String {
    format!("secret-of-{name}")
}

/// Makes an account, as soon as settings can be changed.
///
/// # Panics
/// They never can.
pub async fn add_account(pair: &Pair, name: &str) {
    let start = Instant::now();
    let address = format!("{name}@demo.test");
    // Until the voters that are left have a leader, settings are refused.
    while let Err(error) = pair.cluster_api().expect("API").add_account(&address, &password(name)).await {
        assert!(start.elapsed() < LIMIT, "settings stay locked: {error:#}\n{}", crate::logs(pair));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Sends one message over the cluster address; the first that is acknowledged.
///
/// # Panics
/// None ever is.
pub async fn send(pair: &Pair, to: &str, body: &str) {
    let start = Instant::now();
    let text = format!("Subject: {body}\r\n\r\n{body}\r\n");
    loop {
        let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp);
        let sent = match SmtpClient::connect(peer, ANSWER_LIMIT).await {
            Ok(mut client) => client.send("a@example.org", &[to], text.as_bytes()).await,
            Err(error) => Sent::Unknown(error.to_string()),
        };
        if matches!(sent, Sent::Accepted(_)) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "not accepted: {sent:?}\n{}", crate::logs(pair));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The texts in INBOX of an account made by [`add_account`], read over the cluster address.
///
/// # Panics
/// They cannot be read.
pub async fn bodies(pair: &Pair, name: &str) -> Vec<String> {
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.imaps);
    let trust = pair.trust().expect("CA");
    let mut client = ImapClient::connect_tls(peer, &trust, ANSWER_LIMIT).await.expect("a greeting");
    client.login(&format!("{name}@demo.test"), &password(name)).await.expect("login");
    client.select("INBOX").await.expect("INBOX");
    let all = client.uid_fetch("1:*", "(UID BODY.PEEK[TEXT])").await.expect("fetched");
    all.iter().map(|message| format!("{message:?}")).collect()
}
