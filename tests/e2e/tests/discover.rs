//! Nodes find each other on the LAN, here on loopback, when they are told to announce themselves.

use std::time::Instant;

use e2e::watch::{LIMIT, await_status, is_joint};
use node::demo::pair::{Pair, PairOptions};
use serde_json::Value;

async fn discovered(pair: &Pair, seconds: &str) -> Vec<Value> {
    let said = pair.command(1, &["cluster", "discover"], &["--json", "--seconds", seconds], None).await;
    let said: Value = serde_json::from_str(&said.expect("discover")).expect("JSON");
    let own = std::fs::read_to_string(pair.nodes[0].data_dir().join("node.json")).expect("node.json");
    let own: Value = serde_json::from_str(&own).expect("JSON");
    let nodes = said["nodes"].as_array().cloned().unwrap_or_default();
    // Others may test on this machine, too.
    nodes.into_iter().filter(|node| node["cluster_id"] == own["cluster_id"]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_10_a_machine_finds_a_node_on_the_lan_and_joins_it_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let mut options = PairOptions::new(folder.path(), &e2e::binary(), 1);
    options.keys[0] = "discovery = true\n".to_owned();
    let mut pair = Pair::start_single(options).await.expect("a node");
    let start = Instant::now();
    let node = loop {
        if let Some(node) = discovered(&pair, "2").await.pop() {
            break node;
        }
        assert!(start.elapsed() < LIMIT, "not found\n{}", e2e::logs(&pair));
    };
    let peer = format!("{}:{}", pair.nodes[0].address, pair.ports.peer);
    assert_eq!(node["address"], peer.as_str(), "{node}");
    assert_eq!((&node["node"], &node["joinable"], &node["cluster"]), (&1.into(), &true.into(), &"demo".into()));
    let (token, admin) = (pair.api(0).expect("API").join_token().await.expect("token"), pair.admin_token());
    assert!(!node.to_string().contains(admin), "no secrets");
    let name = node["name"].as_str().expect("a name").to_owned();
    let said = pair.command(1, &["cluster", "join"], &["--from", "nobody"], Some(&token)).await.expect_err("nobody");
    assert!(format!("{said:#}").contains("no node named nobody"), "{said:#}");
    pair.command(1, &["cluster", "join"], &["--from", &name], Some(&token)).await.expect("joined");
    pair.start_node(1).await.expect("started");
    await_status(&pair, 0, "joint", |status| is_joint(status, &[1, 2])).await;
    // The second was not told to, so only the first is seen.
    assert!(discovered(&pair, "2").await.iter().all(|node| node["node"] == 1));
    pair.stop().await;
}
