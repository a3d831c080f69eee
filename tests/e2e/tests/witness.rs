//! A pair with a third vote: one lost machine locks no settings, and the witness holds nothing of the mail.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::load::await_service;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::node_process::NodeProcess;
use node::demo::pair::{CLUSTER_ADDRESS, LOOK_INTERVAL, Pair};
use serde_json::Value;

/// Where the witness listens.
const WITNESS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));
/// Its index in the pair's processes.
const WITNESS: usize = 2;
/// How long anything may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);

/// What node `index` says of the cluster, once it says what is wanted.
async fn await_status(pair: &Pair, index: usize, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let said = pair.command(index, &["cluster", "status"], &["--json"], None).await;
        let status = said.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok()).unwrap_or_default();
        if wanted(&status) {
            return status;
        }
        assert!(start.elapsed() < LIMIT, "never: {what}: {status}\n{}", e2e::logs(pair));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn await_account(pair: &Pair, name: &str) {
    let start = Instant::now();
    let address = format!("{name}@demo.test");
    // Until the voters that are left have a leader, settings are refused.
    while let Err(error) = pair.cluster_api().expect("API").add_account(&address, "secret-of-late").await {
        assert!(start.elapsed() < LIMIT, "settings stay locked: {error:#}\n{}", e2e::logs(pair));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn votes(status: &Value) -> usize {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.filter(|node| node["votes"] == true).count()
}

async fn add_witness(pair: &mut Pair) {
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

async fn mail(pair: &Pair, to: &str) {
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp);
    let mut client = SmtpClient::connect(peer, ANSWER_LIMIT).await.expect("a greeting");
    let sent = client.send("a@example.org", &[to], b"Subject: x\r\n\r\nx\r\n").await;
    assert!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_13_with_a_witness_a_lost_node_locks_no_settings() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    add_witness(pair).await;
    // Nothing that opens mail, makes nodes or speaks for an administrator is on the witness, and no client is met.
    let folder = pair.node(WITNESS).expect("witness").data_dir();
    for name in ["ca.key", "service.key", "admin.token", "mail"] {
        assert!(!folder.join(name).exists(), "{name} is on the witness");
    }
    for port in pair.ports.services() {
        let refused = tokio::net::TcpStream::connect((WITNESS_ADDRESS, port)).await;
        assert!(refused.is_err(), "the witness answers on {port}");
    }
    let primary = pair.primary().await.expect("a primary");
    pair.kill(primary).await.expect("killed");
    await_service(pair, LIMIT).await.expect("service");
    await_account(pair, "late").await;
    mail(pair, "late@demo.test").await;
    let rest = 1 - primary;
    await_status(pair, rest, "gone on by quorum", |status| status["epoch_kind"] == "reduced").await;
    pair.start_node(primary).await.expect("started");
    let joint =
        |status: &Value| status["epoch_kind"] == "joint" && status["in_sync"].as_array().is_some_and(|s| s.len() == 2);
    await_status(pair, rest, "both in sync again", joint).await;
    // The witness may be lost as well, and comes back with what it knew.
    pair.kill(WITNESS).await.expect("killed");
    await_account(pair, "later").await;
    await_status(pair, rest, "its absence is shown", |status| status["nodes"][WITNESS]["role"] == "unreachable").await;
    pair.start_node(WITNESS).await.expect("started");
    await_status(pair, rest, "it is back", |status| status["nodes"][WITNESS]["role"] == "witness").await;
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.imaps);
    let trust = pair.trust().expect("CA");
    let mut client = ImapClient::connect_tls(peer, &trust, ANSWER_LIMIT).await.expect("a greeting");
    client.login("late@demo.test", "secret-of-late").await.expect("login");
    client.select("INBOX").await.expect("INBOX");
    let all = client.uid_fetch("1:*", "(UID BODY.PEEK[TEXT])").await.expect("fetched");
    assert_eq!(all.len(), 1, "what was accepted while the other node was gone");
    fixture.pair.stop().await;
}
