//! A pair with a third vote: one lost machine locks no settings, and the witness holds nothing of the mail.

use std::net::{IpAddr, Ipv4Addr};

use e2e::load::await_service;
use e2e::watch::{LIMIT, add_account, await_status, bodies, is_joint, send, votes};
use node::demo::node_process::NodeProcess;
use node::demo::pair::Pair;

/// Where the witness listens.
const WITNESS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));
/// Its index in the pair's processes.
const WITNESS: usize = 2;

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
    for (_, port) in pair.ports.of_clients() {
        let refused = tokio::net::TcpStream::connect((WITNESS_ADDRESS, port)).await;
        assert!(refused.is_err(), "the witness answers on {port}");
    }
    let primary = pair.primary().await.expect("a primary");
    pair.kill(primary).await.expect("killed");
    await_service(pair, LIMIT).await.expect("service");
    add_account(pair, "late").await;
    send(pair, "late@demo.test", "x").await;
    let rest = 1 - primary;
    await_status(pair, rest, "gone on by quorum", |status| status["epoch_kind"] == "reduced").await;
    pair.start_node(primary).await.expect("started");
    await_status(pair, rest, "both in sync again", |status| is_joint(status, &[1, 2])).await;
    // The witness may be lost as well, and comes back with what it knew.
    pair.kill(WITNESS).await.expect("killed");
    add_account(pair, "later").await;
    await_status(pair, rest, "its absence is shown", |status| status["nodes"][WITNESS]["role"] == "unreachable").await;
    pair.start_node(WITNESS).await.expect("started");
    await_status(pair, rest, "it is back", |status| status["nodes"][WITNESS]["role"] == "witness").await;
    let kept = bodies(pair, "late").await;
    assert_eq!(kept.len(), 1, "what was accepted while the other node was gone");
    fixture.pair.stop().await;
}
