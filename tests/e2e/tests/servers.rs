//! The list of servers and the support bundle, asked of any node, with a node down too.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::mail;
use e2e::watch::await_status;
use node::demo::pair::Pair;
use serde_json::{Value, json};

async fn servers(pair: &Pair, index: usize) -> Vec<Value> {
    let said = pair.command(index, &["servers"], &["--json"], None).await.expect("servers");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    said["servers"].as_array().expect("servers").clone()
}

fn state(server: &Value, name: &str) -> String {
    let all = server["functions"].as_array().expect("functions");
    let found = all.iter().find(|function| function["name"] == name).expect(name);
    found["state"].as_str().expect("a state").to_owned()
}

/// Makes a bundle on a node and unpacks it.
async fn bundle(pair: &Pair, index: usize, folder: &Path) -> PathBuf {
    let file = folder.join(format!("bundle-{index}.tar.gz"));
    let path = file.to_str().expect("UTF-8");
    let said = pair.command(index, &["support", "bundle"], &["--output", path], None).await.expect("a bundle");
    assert!(said.contains(path), "{said}");
    let again = pair.command(index, &["support", "bundle"], &["--output", path], None).await;
    assert!(again.is_err(), "a file that is there is not written over");
    let target = folder.join(format!("bundle-{index}"));
    std::fs::create_dir(&target).expect("folder");
    let done = Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(&target).status().expect("tar");
    assert!(done.success());
    target.join("twinpost-support")
}

fn everything(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()) {
        text.push_str(&match entry.is_dir() {
            true => everything(&entry),
            false => std::fs::read_to_string(&entry).expect("text"),
        });
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn mon_07_every_node_is_listed_and_a_bundle_holds_no_mail_and_no_secret() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let folder = tempfile::tempdir().expect("folder");
    let pair = &mut fixture.pair;
    mail(pair, 0, 0, "a private subject").await.expect("delivered");

    let all = servers(pair, 1).await;
    assert_eq!(all.iter().map(|server| &server["node"]).collect::<Vec<_>>(), [&json!(1), &json!(2)]);
    for server in &all {
        assert_eq!(server["reachable"], true, "{server}");
        for name in ["smtp", "imap", "https", "relay", "replication", "settings", "log"] {
            assert_eq!(state(server, name), "running", "{name}: {server}");
        }
        let memory = &server["load"]["memory"];
        assert!(memory["process_bytes"].as_u64() > Some(1_000_000), "{server}");
        assert!(server["load"]["disk"]["free_bytes"].as_u64() > Some(0), "{server}");
    }
    let said = pair.command(0, &["status"], &[], None).await.expect("status");
    assert!(said.contains("node 2: version ") && said.contains("GiB free"), "{said}");

    let files = bundle(pair, 1, folder.path()).await;
    for node in ["node-1", "node-2"] {
        for name in ["status.json", "server.json", "events.json", "metrics.txt", "cluster-state.json", "node-file.txt"]
        {
            assert!(files.join(node).join(name).is_file(), "{node}/{name}");
        }
    }
    let text = everything(&files);
    assert!(text.contains("twinpost_") && text.contains("epoch"));
    let login = &pair.options.accounts[0];
    let token = std::fs::read_to_string(pair.nodes[0].data_dir().join("admin.token")).expect("token");
    let secrets: [&str; 4] = [token.trim(), &login.password, &login.address, "a private subject"];
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} is in the bundle");
    }
    assert!(!text.contains("PRIVATE KEY"));

    pair.kill(1).await.expect("killed");
    await_status(pair, 0, "alone", |status| status["in_sync"] == json!([1])).await;
    let all = servers(pair, 0).await;
    assert_eq!((&all[1]["reachable"], &all[1]["role"]), (&json!(false), &json!("unreachable")));
    assert!(all[1]["fault"].as_str().is_some_and(|fault| !fault.is_empty()), "{}", all[1]);
    assert_eq!((state(&all[0], "imap"), state(&all[0], "replication")), ("running".into(), "abnormal".into()));
    let said = pair.command(0, &["status"], &[], None).await.expect("status");
    assert!(
        said.contains("node 2: does not answer: ") && said.contains("replication abnormal: without node 2"),
        "{said}"
    );
    let files = bundle(pair, 0, folder.path()).await;
    assert!(files.join("node-2/unreachable.txt").is_file() && files.join("node-1/status.json").is_file());
}
