//! A new node begins from a copied checkpoint: the first sync brings only what differs, and what is damaged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use e2e::watch::{LIMIT, await_status, is_joint};
use e2e::{ANSWER_LIMIT, copy_folder};
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::pair::{JOINT_LIMIT, Pair};
use store::Foreign;
use vocab::{AccountHead, AccountId, RowWrite};

/// Bytes of a large body: larger than what lies among the keys.
const LARGE: usize = 30_000;

fn text(number: usize, bytes: usize) -> String {
    let mut text = format!("From: a@example.org\r\nSubject: message {number}\r\n\r\n");
    let mut state = number as u64 + 1;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let _ = write!(text, "{state:016x}\r\n");
    }
    text
}

/// Messages with these numbers to the first account, every third a large one.
async fn deliver(pair: &Pair, numbers: std::ops::Range<usize>) {
    let to = &pair.options.accounts[0].address;
    let peer = SocketAddr::new(pair.nodes[0].address, pair.ports.smtp);
    let mut client = SmtpClient::connect(peer, ANSWER_LIMIT).await.expect("a greeting");
    for number in numbers {
        let text = text(number, if number.is_multiple_of(3) { LARGE } else { 300 });
        let sent = client.send("a@example.org", &[to], text.as_bytes()).await;
        assert!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
    }
}

async fn change(pair: &Pair, commands: &[&str]) {
    let login = &pair.options.accounts[0];
    let peer = SocketAddr::new(pair.nodes[0].address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust().expect("CA"), ANSWER_LIMIT).await.expect("a greeting");
    client.login(&login.address, &login.password).await.expect("login");
    client.select("INBOX").await.expect("INBOX");
    for command in commands {
        client.command(command).await.and_then(|answer| answer.ok()).unwrap_or_else(|e| panic!("{command}: {e:#}"));
    }
}

/// Every row the digests cover, and every body's state, of a node that does not run.
fn rows(data: &Path) -> BTreeMap<AccountId, (AccountHead, Vec<RowWrite>)> {
    let store = Foreign::open(&data.join("mail")).expect("a store");
    let mut all = BTreeMap::new();
    for (account, head) in store.accounts().0 {
        let snapshot = store.snapshot(account);
        let mut rows = Foreign::export(&*snapshot, None, usize::MAX).expect("rows");
        rows.retain(|row| row.table.is_core());
        for reference in rows.iter().filter_map(mailbox::blob_ref_of) {
            assert!(store.body(reference.hash).is_some(), "a body is not here: {}", reference.hash);
        }
        all.insert(account, (head.expect("a head"), rows));
    }
    all
}

async fn transferred(pair: &Pair, index: usize) -> BTreeMap<String, u64> {
    let metrics = pair.api(index).expect("API").get("/metrics").await.expect("metrics");
    let lines = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

fn bytes(metrics: &BTreeMap<String, u64>, kind: &str) -> u64 {
    metrics.get(&format!("twinpost_transferred_bytes_total{{kind=\"{kind}\"}}")).copied().unwrap_or(0)
}

async fn join(pair: &mut Pair, seed: &Path) -> anyhow::Result<String> {
    let token = pair.api(0)?.join_token().await?;
    pair.command(1, &["cluster", "join"], &["--seed", &seed.display().to_string()], Some(&token)).await
}

/// What the first sync is said to bring (MB).
async fn forecast(pair: &Pair, seed: Option<&Path>) -> f64 {
    let token = pair.api(0).expect("API").join_token().await.expect("a token");
    let seed = seed.map(|folder| folder.display().to_string());
    let rest: Vec<&str> = seed.iter().flat_map(|folder| ["--seed", folder]).chain(["--dry-run"]).collect();
    let said = pair.command(1, &["cluster", "join"], &rest, Some(&token)).await.expect("looked at");
    assert!(said.contains("seed") == seed.is_some() && said.contains("nothing was changed"), "{said}");
    let before = said.split_once(" MB would be copied").expect("a forecast").0;
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

async fn checkpoint(pair: &Pair, folder: &Path) -> String {
    let said = pair.command(0, &["store", "checkpoint"], &[&folder.display().to_string()], None).await;
    said.expect("a checkpoint")
}

/// Both nodes hold the same, to the last row and body.
async fn stop_and_compare(pair: &mut Pair) {
    let folders: Vec<PathBuf> = pair.nodes.iter().map(|node| node.data_dir()).collect();
    await_status(pair, 0, "joint", |status| is_joint(status, &[1, 2])).await;
    pair.stop().await;
    let (first, second) = (rows(&folders[0]), rows(&folders[1]));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (account, (head, rows)) in &first {
        assert_eq!((head, rows), (&second[account].0, &second[account].1), "account {}", account.0);
    }
    assert!(first.values().map(|(_, rows)| rows.len()).sum::<usize>() > 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_12_a_node_begins_from_a_checkpoint_and_the_first_sync_brings_what_differs() {
    let mut fixture = e2e::single(2).await.expect("a node");
    let pair = &mut fixture.pair;
    deliver(pair, 0..300).await;
    let made = fixture.folder.path().join("checkpoint");
    checkpoint(pair, &made).await;
    let said = pair.command(0, &["store", "checkpoint"], &[&made.display().to_string()], None).await;
    assert!(format!("{:#}", said.expect_err("twice")).contains("exists already"));
    // More than the version chain remembers, so nothing but the rows themselves says what is new.
    deliver(pair, 300..330).await;
    change(
        pair,
        &["UID STORE 5:14 +FLAGS (\\Flagged)", "UID STORE 20:29 +FLAGS (\\Deleted)", "EXPUNGE", "CREATE Kept"],
    )
    .await;
    change(pair, &["UID COPY 40:49 Kept"]).await;
    let seen = ["UID STORE 50 +FLAGS (\\Seen)", "UID STORE 50 -FLAGS (\\Seen)"];
    change(pair, &seen.repeat(140)).await;
    let copied = fixture.folder.path().join("copied");
    copy_folder(&made, &copied);
    // 100 of the 110 large ones are in the seed.
    let (whole, lacks) = (forecast(pair, None).await, forecast(pair, Some(&copied)).await);
    assert!(whole - lacks > 2.9 && lacks >= 0.3, "{lacks} of {whole} MB");
    let said = join(pair, &copied).await.expect("joined");
    assert!(said.contains("bodies") && !said.contains("damaged") && said.contains("node 2"), "{said}");
    pair.start_node(1).await.expect("started");
    pair.await_joint(JOINT_LIMIT).await.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)));
    let metrics = transferred(pair, 1).await;
    let (seeded, full) = (bytes(&metrics, "seeded"), bytes(&metrics, "full"));
    println!("transferred with the seed: {seeded} bytes, whole: {full} bytes");
    // 10 of the 30 new messages are large, of 110 in all: less than a fifth of 3.3 MB.
    assert!(seeded > 10 * LARGE as u64, "what is new was transferred: {seeded}");
    assert!(seeded + full < 700_000, "{seeded} and {full} of 3.3 MB");
    assert!(metrics.get("twinpost_seeded_rows_total").is_some_and(|rows| *rows > 300), "{metrics:?}");
    assert!(!pair.nodes[1].data_dir().join("seed").exists());
    stop_and_compare(pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_12_a_damaged_checkpoint_is_repaired_and_another_clusters_is_refused() {
    let mut fixture = e2e::single(1).await.expect("a node");
    let pair = &mut fixture.pair;
    deliver(pair, 0..330).await;
    let made = fixture.folder.path().join("checkpoint");
    // Offline.
    pair.nodes[0].ask_to_end();
    pair.nodes[0].await_end().await;
    let said = checkpoint(pair, &made).await;
    assert!(said.contains("does not run"), "{said}");
    pair.start_node(0).await.expect("started");
    pair.await_ready(0, LIMIT).await.expect("service");
    // Of another cluster.
    let other = fixture.folder.path().join("other");
    copy_folder(&made, &other);
    let note = std::fs::read_to_string(other.join("seed.json")).expect("note");
    let mut note: serde_json::Value = serde_json::from_str(&note).expect("JSON");
    note["cluster_id"] = "another".into();
    std::fs::write(other.join("seed.json"), note.to_string()).expect("written");
    let refused = join(pair, &other).await.expect_err("another cluster");
    assert!(format!("{refused:#}").contains("another cluster"), "{refused:#}");
    // Not copied to its end.
    let half = fixture.folder.path().join("half");
    copy_folder(&made, &half);
    std::fs::remove_file(half.join("seed.json")).expect("removed");
    let refused = join(pair, &half).await.expect_err("half a copy");
    assert!(format!("{refused:#}").contains("no checkpoint"), "{refused:#}");
    // One byte of one body.
    let files = std::fs::read_dir(made.join("mail")).expect("folder").map(|entry| entry.expect("entry").path());
    let of_bodies = files.filter(|path| path.extension().is_some_and(|ext| ext == "blob"));
    let largest = of_bodies.max_by_key(|path| path.metadata().map(|m| m.len()).unwrap_or(0)).expect("a file of bodies");
    let mut content = std::fs::read(&largest).expect("read");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    // It may be the file of the running node, too.
    std::fs::remove_file(&largest).expect("removed");
    std::fs::write(&largest, content).expect("written");
    let said = join(pair, &made).await.expect("joined");
    assert!(said.contains("0 accounts, 1 bodies"), "one body is damaged: {said}");
    // A folder that holds mail is refused as ever.
    pair.start_node(1).await.expect("started");
    pair.await_joint(JOINT_LIMIT).await.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)));
    stop_and_compare(pair).await;
}
