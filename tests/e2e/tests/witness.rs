//! A pair with a third vote: one lost machine locks no settings, and the witness holds nothing of the mail.

use e2e::load::await_service;
use e2e::watch::{LIMIT, WITNESS, WITNESS_ADDRESS, add_account, add_witness, await_status, bodies, is_joint, send};

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
