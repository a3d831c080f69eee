//! What is checked before a machine becomes a node: dry runs change nothing, refusals change nothing, then it joins.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Output, Stdio};

use e2e::watch::{LIMIT, await_status, is_joint, votes};
use node::demo::node_process::NodeProcess;
use node::demo::pair::Pair;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// An address for documentation: no machine has it.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
const THIRD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));

/// Runs `twinpost` with a node's file; `wrapped`: by a shell command that ends in `exec "$@"`.
async fn run(pair: &Pair, index: usize, words: &[&str], text: &str, wrapped: Option<&str>) -> Output {
    let node = &pair.nodes[index];
    let mut command = match wrapped {
        None => Command::new(&pair.options.binary),
        Some(shell) => {
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", shell, "sh"]).arg(&pair.options.binary);
            command
        }
    };
    command.args(words).arg("--config").arg(node.config());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("runs");
    child.stdin.take().expect("input").write_all(text.as_bytes()).await.expect("written");
    child.wait_with_output().await.expect("ends")
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn check<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let checks = answer["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {answer}"))
}

/// A first start can end between the founding and the note that it was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_founded_twice_is_founded_once() {
    let mut fixture = e2e::single(1).await.expect("a node");
    let pair = &mut fixture.pair;
    pair.nodes[0].ask_to_end();
    pair.nodes[0].await_end().await;
    let file = pair.nodes[0].data_dir().join("node.json");
    let mut identity: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("read")).expect("JSON");
    assert!(identity["found"].is_null(), "noted: {identity}");
    identity["found"] = serde_json::json!({ "cluster_address": "127.0.0.10" });
    std::fs::write(&file, identity.to_string()).expect("written");
    pair.start_node(0).await.expect("started");
    pair.await_ready(0, LIMIT).await.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)));
    let status = await_status(pair, 0, "joint", |status| is_joint(status, &[1])).await;
    assert_eq!(status["cluster_address"], "127.0.0.10", "{status}");
    assert!(!std::fs::read_to_string(&file).expect("read").contains("found"), "noted again");
    // What the configuration would not take is refused before anything is made.
    for (addresses, reason) in
        [(["127.0.0.20", "127.0.0.21"], "one IPv4 and one IPv6"), (["127.0.0.12", "fd00::1"], "own address of node 1")]
    {
        let words = ["cluster", "init", "--cluster-address", addresses[0], "--cluster-address", addresses[1]];
        for more in [&[][..], &["--dry-run"]] {
            let refused = run(pair, 1, &[&words, more].concat(), "", None).await;
            let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
            assert!(!refused.status.success() && said.contains(reason), "{said}");
        }
        assert!(!pair.nodes[1].data_dir().exists(), "nothing was made");
    }
    fixture.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_05_to_ha_10_a_join_is_checked_first_and_refused_without_a_trace() {
    let mut fixture = e2e::single(1).await.expect("a node");
    let pair = &mut fixture.pair;
    let folder = pair.nodes[1].data_dir();
    // The address of a cluster that runs is not free for another one.
    let init = ["cluster", "init", "--dry-run", "--json", "--cluster-address"];
    let taken = run(pair, 1, &[&init[..], &["127.0.0.10"]].concat(), "", None).await;
    let said = answer(&taken);
    assert_eq!(
        (taken.status.code(), &check(&said, "cluster-address")["verdict"]),
        (Some(1), &"refuse".into()),
        "{said}"
    );
    let free = run(pair, 1, &[&init[..], &["127.0.0.99"]].concat(), "", None).await;
    let said = answer(&free);
    assert_eq!((free.status.code(), &check(&said, "cluster-address")["verdict"]), (Some(0), &"ok".into()), "{said}");
    assert!(said["will"].to_string().contains("127.0.0.99") && !folder.exists(), "{said}");
    // What a token would allow.
    let said = pair.command(0, &["cluster", "token"], &["--dry-run"], None).await.expect("told");
    assert!(said.contains("as node 2") && said.contains("tokens that are unused now: 0"), "{said}");
    let token = pair.command(0, &["cluster", "token"], &[], None).await.expect("a token");
    let join = ["cluster", "join", "--dry-run", "--json"];
    for _ in 0..2 {
        let told = run(pair, 1, &join, &token, None).await;
        let said = answer(&told);
        assert_eq!((told.status.code(), &said["refused"]), (Some(0), &false.into()), "{said}");
        for name in ["admission", "program", "protocol", "row-format", "clock", "static-address", "same-lan"] {
            assert_eq!(check(&said, name)["verdict"], "ok", "{said}");
        }
        for name in ["disk", "ports", "cluster-network"] {
            assert_ne!(check(&said, name)["verdict"], "refuse", "{said}");
        }
        // It is held by the node that may hold it, which shows the cluster's certificate there.
        let address = check(&said, "cluster-address");
        assert!(address["verdict"] == "ok" && address["found"].to_string().contains("held by node 1"), "{said}");
        assert!(said["will"].to_string().contains("would be node 2"), "{said}");
        assert!(!folder.exists(), "a dry run makes nothing");
    }
    refused_joins(pair, &token).await;
    // The same token still admits the machine that is in order.
    let said = pair.command(1, &["cluster", "join"], &[], Some(token.trim())).await.expect("joined");
    assert!(said.contains("node 2"), "{said}");
    pair.start_node(1).await.expect("started");
    await_status(pair, 0, "a pair", |status| is_joint(status, &[1, 2]) && votes(status) == 2).await;
    let again = run(pair, 3, &join, &token, None).await;
    assert!(again.status.code() == Some(1) && answer(&again)["error"].to_string().contains("used"), "{again:?}");
    fixture.pair.stop().await;
}

async fn refused_joins(pair: &mut Pair, token: &str) {
    for (id, address) in [(3, ELSEWHERE), (4, THIRD)] {
        let node = NodeProcess::new(&pair.options, id, address, &pair.ports).expect("a node file");
        pair.nodes.push(node);
    }
    // An address that this machine has not.
    let folder = pair.nodes[2].data_dir();
    let refused = run(pair, 2, &["cluster", "join", "--json"], token, None).await;
    let said = answer(&refused);
    assert_eq!((refused.status.code(), &said["refused"]), (Some(1), &true.into()), "{said}");
    assert!(check(&said, "static-address")["found"].to_string().contains("192.0.2.77 is on no interface"), "{said}");
    assert!(!folder.exists(), "nothing was made");
    // A name that a node has.
    let named = pair.nodes[3].config();
    let text = std::fs::read_to_string(&named).expect("a node file");
    std::fs::write(&named, text.replace("name = \"n4\"", "name = \"n1\"")).expect("written");
    let refused = run(pair, 3, &["cluster", "join", "--json"], token, None).await;
    let said = answer(&refused);
    assert!(check(&said, "admission")["found"].to_string().contains("node 1 has this name"), "{said}");
    std::fs::write(&named, text).expect("written");
    // A disk that is too small.
    let folder = pair.nodes[3].data_dir();
    std::fs::create_dir_all(&folder).expect("a folder");
    let small = format!("mount -t tmpfs -o size=16m none '{}' || exit 77; exec \"$@\"", folder.display());
    let refused = run(pair, 3, &["cluster", "join", "--json"], token, Some(&small)).await;
    if refused.stdout.is_empty() {
        println!("skipped: a small disk needs root ({})", String::from_utf8_lossy(&refused.stderr).trim());
    } else {
        let said = answer(&refused);
        assert_eq!((refused.status.code(), &check(&said, "disk")["verdict"]), (Some(1), &"refuse".into()), "{said}");
    }
    assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 0, "nothing was made");
    // Nobody was admitted meanwhile.
    await_status(pair, 0, "one node", |status| status["nodes"].as_array().map(Vec::len) == Some(1)).await;
}
