//! Alerts: raised with what to do, told by mail and webhook while the pair is one node short, cleared when it is over.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::ANSWER_LIMIT;
use e2e::watch::{await_status, is_joint};
use node::demo::clients::imap::ImapClient;
use node::demo::pair::Pair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// How long an alert may take to be told.
const TOLD_LIMIT: Duration = Duration::from_secs(60);

/// Takes posted documents, one connection each.
async fn take(listener: TcpListener, taken: Arc<Mutex<Vec<Value>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut bytes).await {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
                let Ok(document) = serde_json::from_str(body) else { continue };
                taken.lock().expect("lock").push(document);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
                return;
            }
        });
    }
}

async fn subjects(pair: &Pair, index: usize) -> Vec<String> {
    let login = &pair.options.accounts[0];
    let peer = SocketAddr::new(pair.nodes[index].address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust().expect("CA"), ANSWER_LIMIT).await.expect("greeting");
    client.login(&login.address, &login.password).await.expect("login");
    if client.select("INBOX").await.expect("INBOX").exists == 0 {
        return Vec::new();
    }
    let all = client.command("UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await;
    let all = all.and_then(|answer| answer.ok()).expect("fetched");
    all.untagged.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

async fn keys(pair: &Pair, index: usize) -> Vec<String> {
    let said = pair.command(index, &["alerts"], &["--json"], None).await.expect("alerts");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let all = said["alerts"].as_array().expect("alerts").iter();
    all.map(|alert| alert["key"].as_str().expect("a key").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_14_a_lost_node_is_told_by_mail_and_webhook_and_so_is_its_return() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (url, taken) = (format!("http://{}/hook", listener.local_addr().expect("bound")), Arc::default());
    tokio::spawn(take(listener, Arc::clone(&taken)));
    let value = json!({ "mail": [pair.options.accounts[0].address], "webhook": url });
    pair.api(0).expect("API").put("/api/v1/settings/alerts", &json!({ "value": value })).await.expect("set");
    let wrong = json!({ "value": { "mail": ["nobody"], "webhook": "ftp://x" } });
    let refused = pair.api(0).expect("API").put("/api/v1/settings/alerts", &wrong).await.expect_err("wrong");
    assert!(refused.to_string().contains("mail/0") && refused.to_string().contains("webhook"), "{refused:#}");
    pair.kill(1).await.expect("killed");
    let begun = Instant::now();
    let posted = |event: &str, key: &str| {
        let all = taken.lock().expect("lock");
        all.iter().any(|document: &Value| document["event"] == event && document["key"] == key)
    };
    loop {
        let mailed = subjects(pair, 0).await;
        let mailed = |text: &str| mailed.iter().any(|subject| subject.contains(text));
        if posted("raised", "quorum") && posted("raised", "peer-gone/2") && mailed("critical: node 2 (n2) is not heard")
        {
            break;
        }
        assert!(begun.elapsed() < TOLD_LIMIT, "{:?}\n{}", taken.lock().expect("lock"), e2e::logs(pair));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let raised = keys(pair, 0).await;
    assert!(["quorum", "peer-gone/2", "solo"].iter().all(|key| raised.contains(&(*key).to_owned())), "{raised:?}");
    let advice = taken.lock().expect("lock").iter().find(|d| d["key"] == "quorum").expect("told")["advice"].to_string();
    assert!(advice.contains("cluster rescue"), "{advice}");

    pair.start_node(1).await.expect("started");
    await_status(pair, 0, "joint", |status| is_joint(status, &[1, 2])).await;
    let begun = Instant::now();
    while !posted("cleared", "quorum") || !posted("cleared", "peer-gone/2") || !posted("cleared", "solo") {
        assert!(begun.elapsed() < TOLD_LIMIT, "{:?}\n{}", taken.lock().expect("lock"), e2e::logs(pair));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Each matter once, whatever flickered meanwhile.
    let all = taken.lock().expect("lock").clone();
    for key in ["quorum", "peer-gone/2", "solo"] {
        for event in ["raised", "cleared"] {
            let count = all.iter().filter(|d| d["event"] == event && d["key"] == key).count();
            assert_eq!(count, 1, "{event} {key}: {all:?}");
        }
    }
}
