//! The mail of a node that was removed comes back by explicit import: once, and nothing that was expunged since.

use std::net::SocketAddr;

use e2e::load::await_service;
use e2e::watch::{LIMIT, await_status, is_joint};
use e2e::{ANSWER_LIMIT, copy_folder, mail};
use node::demo::clients::imap::ImapClient;
use node::demo::pair::Pair;
use serde_json::Value;

async fn import(pair: &Pair, index: usize, folder: &str, rest: &[&str]) -> Value {
    let words = [&[folder, "--json"], rest].concat();
    let said = pair.command(index, &["import"], &words, None).await;
    let said = said.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// known, imported of the account that gets all the mail.
fn counts(report: &Value) -> (u64, u64) {
    let accounts = report["accounts"].as_array().expect("accounts");
    let one = accounts.iter().find(|account| account["address"] == "u1@demo.test").expect("an account");
    assert_eq!(one["unreadable"], 0, "{report}");
    (one["known"].as_u64().expect("known"), one["imported"].as_u64().expect("imported"))
}

struct Client(ImapClient);

impl Client {
    async fn open(pair: &Pair, index: usize) -> Self {
        let login = &pair.options.accounts[0];
        let peer = SocketAddr::new(pair.nodes[index].address, pair.ports.imaps);
        let trust = pair.trust().expect("CA");
        let mut client = ImapClient::connect_tls(peer, &trust, ANSWER_LIMIT).await.expect("a greeting");
        client.login(&login.address, &login.password).await.expect("login");
        Self(client)
    }
    async fn run(&mut self, commands: &[&str]) {
        for command in commands {
            let answer = self.0.command(command).await.and_then(|answer| answer.ok());
            answer.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        }
    }
    /// Every message of a mailbox with flags and date, as its client sees it.
    async fn list(&mut self, mailbox: &str) -> Vec<String> {
        if self.0.select(mailbox).await.expect("selected").exists == 0 {
            return Vec::new();
        }
        let all = self.0.command("UID FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[TEXT])").await;
        let all = all.and_then(|answer| answer.ok()).expect("fetched");
        let lines = all.untagged.iter().map(|line| String::from_utf8_lossy(line).into_owned());
        lines.filter(|line| line.contains(" FETCH ")).collect()
    }
}

fn having<'a>(list: &'a [String], text: &str) -> Vec<&'a String> {
    list.iter().filter(|line| line.contains(text)).collect()
}

async fn command(pair: &Pair, index: usize, words: &[&str], rest: &[&str]) -> String {
    let said = pair.command(index, words, rest, None).await;
    said.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)))
}

const CONFIRM: [&str; 2] = ["--confirm", "demo"];

/// A node whose peer is dead is started alone by an operator, and votes alone.
async fn vote_alone(pair: &mut Pair, index: usize) {
    pair.start_node(index).await.expect("started");
    await_status(pair, index, "waits", |status| status["mode"] == "waiting").await;
    command(pair, index, &["cluster", "start-alone"], &CONFIRM).await;
    await_status(pair, index, "alone", |status| status["epoch_kind"] == "solo").await;
    command(pair, index, &["cluster", "rescue"], &["--confirm", "demo", "--others-are-down"]).await;
    await_status(pair, index, "unlocked", |status| status["settings_locked"].is_null()).await;
}

/// Node 1 is removed by node 2.
async fn forget_first(pair: &Pair, index: usize) {
    command(pair, index, &["cluster", "remove", "1"], &CONFIRM).await;
    await_status(pair, index, "joint alone", |status| is_joint(status, &[2])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_18_a_removed_nodes_mail_comes_back_once_and_what_was_expunged_stays_gone() {
    let mut fixture = e2e::pair(2).await.expect("a pair");
    let pair = &mut fixture.pair;
    for subject in ["old-1", "old-2", "old-3"] {
        mail(pair, 0, 0, subject).await.expect("delivered");
    }
    // A true split of states: one side dies, the other goes on and takes mail alone; then that side dies for good.
    let (lost, rest) = (0, 1);
    pair.kill(rest).await.expect("killed");
    await_status(pair, lost, "alone", |status| status["epoch_kind"] == "solo").await;
    await_service(pair, LIMIT).await.expect("service");
    for subject in ["alone-1", "alone-2"] {
        mail(pair, lost, 0, subject).await.expect("delivered");
    }
    let mut client = Client::open(pair, lost).await;
    client.run(&["CREATE Work/Mine"]).await;
    client.0.select("INBOX").await.expect("INBOX");
    client.run(&["UID STORE 4:* +FLAGS (\\Flagged $Mark)", "UID STORE 1 +FLAGS (\\Seen)"]).await;
    let before = client.list("INBOX").await;
    let flagged: Vec<String> = having(&before, "alone-2").into_iter().cloned().collect();
    assert!(flagged.len() == 1 && flagged[0].contains("$Mark"), "{before:?}");
    client.0.select("INBOX").await.expect("INBOX");
    client.run(&["UID MOVE 1 Work/Mine"]).await;
    let last = before.len();
    assert_eq!(last, 5, "{before:?}");
    client.0.append("Work/Mine", b"Subject: appended\r\n\r\nappended\r\n").await.expect("appended");
    pair.kill(lost).await.expect("killed");
    vote_alone(pair, rest).await;
    let folder = pair.nodes[lost].data_dir().display().to_string();
    let said = pair.command(rest, &["import"], &[&folder], None).await.expect_err("it is a member");
    assert!(format!("{said:#}").contains("is a member"), "{said:#}");
    forget_first(pair, rest).await;
    let mut client = Client::open(pair, rest).await;
    client.0.select("INBOX").await.expect("INBOX");
    client.run(&["UID STORE 2 +FLAGS (\\Deleted)", "EXPUNGE"]).await;
    assert_eq!(client.list("INBOX").await.len(), 2);
    // Three are new: two delivered, one appended. What was moved there is known, what was expunged here too.
    let report = import(pair, rest, &folder, &["--dry-run"]).await;
    assert_eq!(counts(&report), (3, 3), "{report}");
    assert_eq!(client.list("INBOX").await.len(), 2, "a dry run changes nothing");
    let address = pair.options.accounts[1].address.clone();
    let report = import(pair, rest, &folder, &["--account", &address]).await;
    assert_eq!(report["accounts"][0]["imported"], 0, "{report}");
    let report = import(pair, rest, &folder, &[]).await;
    assert_eq!(counts(&report), (3, 3), "{report}");
    let (inbox, work) = (client.list("INBOX").await, client.list("Work/Mine").await);
    assert_eq!((inbox.len(), work.len()), (4, 1), "{inbox:?} {work:?}");
    assert!(having(&inbox, "old-2").is_empty(), "what was expunged since is back: {inbox:?}");
    let date = |line: &str| line.split("INTERNALDATE ").nth(1).map(|rest| rest.chars().take(28).collect::<String>());
    let back = having(&inbox, "alone-2")[0];
    assert!(back.contains("$Mark") && back.contains("Flagged"), "{back}");
    assert!(date(back).is_some_and(|date| date.contains(':')), "{back}");
    assert_eq!(date(back), date(&flagged[0]));
    // Again: nothing. Expunged meanwhile: stays gone.
    client.0.select("INBOX").await.expect("INBOX");
    client.run(&["UID STORE 1:* +FLAGS (\\Deleted)", "EXPUNGE"]).await;
    let report = import(pair, rest, &folder, &[]).await;
    assert_eq!(counts(&report), (6, 0), "{report}");
    assert!(client.list("INBOX").await.is_empty());
    fixture.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_18_what_is_imported_into_a_pair_in_sync_is_on_both_nodes_once() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    let (lost, rest) = (0, 1);
    for subject in ["old-1", "old-2"] {
        mail(pair, lost, 0, subject).await.expect("delivered");
    }
    pair.kill(rest).await.expect("killed");
    await_status(pair, lost, "alone", |status| status["epoch_kind"] == "solo").await;
    await_service(pair, LIMIT).await.expect("service");
    for subject in ["alone-1", "alone-2", "alone-3"] {
        mail(pair, lost, 0, subject).await.expect("delivered");
    }
    pair.kill(lost).await.expect("killed");
    vote_alone(pair, rest).await;
    forget_first(pair, rest).await;
    // Its disk is kept, and a new machine takes its place: a pair again.
    let folders = ["removed", "copied"].map(|name| fixture.folder.path().join(name));
    std::fs::rename(pair.nodes[lost].data_dir(), &folders[0]).expect("kept");
    // One process alone opens a folder.
    copy_folder(&folders[0], &folders[1]);
    let token = command(pair, rest, &["cluster", "token"], &[]).await;
    pair.command(lost, &["cluster", "join"], &[], Some(token.trim())).await.expect("joined");
    pair.start_node(lost).await.expect("started");
    for index in [lost, rest] {
        await_status(pair, index, "a pair again", |status| is_joint(status, &[2, 3])).await;
    }
    // Through both nodes at the same time: whoever comes second finds it there.
    let [first, second] = folders.map(|folder| folder.display().to_string());
    let (a, b) = tokio::join!(import(pair, lost, &first, &[]), import(pair, rest, &second, &[]));
    for report in [&a, &b] {
        let (known, imported) = counts(report);
        assert!(known >= 2 && known + imported == 5, "{a} {b}");
    }
    assert!(counts(&a).1 + counts(&b).1 >= 3, "{a} {b}");
    let all = ["alone-1", "alone-2", "alone-3", "old-1", "old-2"];
    let mut lists = Vec::new();
    for index in [lost, rest] {
        let list = Client::open(pair, index).await.list("INBOX").await;
        assert!(list.len() == 5 && all.iter().all(|text| having(&list, text).len() == 1), "at {index}: {list:?}");
        lists.push(list);
    }
    assert_eq!(lists[0], lists[1], "UIDs, flags and dates too");
    // Each disk has it, whoever dies; and the one that is left still knows what came back.
    let home = pair.primary().await.expect("a primary");
    pair.kill(home).await.expect("killed");
    await_service(pair, LIMIT).await.expect("service");
    assert_eq!(Client::open(pair, 1 - home).await.list("INBOX").await, lists[0]);
    assert_eq!(counts(&import(pair, 1 - home, &first, &[]).await), (5, 0));
    assert_eq!(Client::open(pair, 1 - home).await.list("INBOX").await, lists[0]);
    fixture.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_18_an_import_reads_no_running_nodes_folder_and_none_of_another_cluster() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    let folder = pair.nodes[1].data_dir();
    let name = folder.display().to_string();
    let said = pair.command(0, &["import"], &[&name], None).await.expect_err("a member that runs");
    assert!(format!("{said:#}").contains("is a member"), "{said:#}");
    let note = std::fs::read_to_string(folder.join("node.json")).expect("node.json");
    let mut identity: Value = serde_json::from_str(&note).expect("JSON");
    let copy = fixture.folder.path().join("copy");
    std::fs::create_dir(&copy).expect("folder");
    let write = |identity: &Value| std::fs::write(copy.join("node.json"), identity.to_string()).expect("written");
    // As if it were a removed node whose process still runs.
    identity["node"] = 9.into();
    write(&identity);
    std::os::unix::fs::symlink(folder.join("mail"), copy.join("mail")).expect("linked");
    let copy_name = copy.display().to_string();
    let said = pair.command(0, &["import"], &[&copy_name], None).await.expect_err("it runs");
    assert!(format!("{said:#}").contains("in use by another process"), "{said:#}");
    identity["cluster_id"] = "another".into();
    write(&identity);
    let said = pair.command(0, &["import"], &[&copy_name], None).await.expect_err("another cluster");
    assert!(format!("{said:#}").contains("another cluster"), "{said:#}");
    fixture.pair.stop().await;
}
