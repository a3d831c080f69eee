//! The log: every acknowledged message has its accept record exactly once on the primary, through takeovers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::load::await_service;
use e2e::watch::{LIMIT, await_said, await_status, is_joint};
use e2e::{ANSWER_LIMIT, mail};
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::pair::{CLUSTER_ADDRESS, Pair};
use serde_json::Value;

/// Takeovers of the test; `E2E_TAKEOVERS` makes them more.
const TAKEOVERS: usize = 4;
/// Clients that send all the time.
const SENDERS: usize = 4;
/// How long the log may take to be on the primary.
const COLLECT_LIMIT: Duration = Duration::from_secs(60);

/// Every record that matches, as JSON lines of the command.
async fn logs(pair: &Pair, index: usize, words: &[&str]) -> Vec<Value> {
    let words = [&["--all", "--json"], words].concat();
    let said = pair.command(index, &["logs"], &words, None).await;
    let said = said.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)));
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Sends numbered messages until it is told to stop; subjects of those that were acknowledged.
async fn send(peer: SocketAddr, to: String, number: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut client) = SmtpClient::connect(peer, ANSWER_LIMIT).await else { continue };
        while !stop.load(Ordering::SeqCst) {
            count += 1;
            let subject = format!("s{number}-{count}");
            let text = format!("From: a@example.org\r\nSubject: {subject}\r\n\r\n{subject}\r\n");
            match client.send("a@example.net", &[&to], text.as_bytes()).await {
                Sent::Accepted(_) => acknowledged.push(subject),
                _ => break,
            }
        }
    }
    acknowledged
}

fn by_subject(records: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(record["subject"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_04_every_acknowledged_message_is_in_the_primarys_log_once_through_takeovers() {
    let mut fixture = e2e::pair(2).await.expect("a pair");
    let pair = &mut fixture.pair;
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp);
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| {
            let to = pair.options.accounts[n % 2].address.clone();
            tokio::spawn(send(peer, to, n, Arc::clone(&stop)))
        })
        .collect();
    let takeovers = std::env::var("E2E_TAKEOVERS").ok().and_then(|n| n.parse().ok()).unwrap_or(TAKEOVERS);
    for _ in 0..takeovers {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let primary = pair.primary().await.expect("a primary");
        pair.kill(primary).await.expect("killed");
        let service = await_service(pair, LIMIT).await;
        service.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)));
        tokio::time::sleep(Duration::from_millis(700)).await;
        pair.start_node(primary).await.expect("started");
        // The one that returns remembers the epoch before it was killed.
        await_status(pair, 1 - primary, "joint", |status| is_joint(status, &[1, 2])).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.expect("a sender"));
    }
    assert!(acknowledged.len() > 20 * takeovers, "{} acknowledged", acknowledged.len());
    let begun = Instant::now();
    // Asked at either node: the primary answers.
    for index in [0, 1] {
        loop {
            let records = logs(pair, index, &["--kind", "mail", "--outcome", "accept"]).await;
            let counts = by_subject(&records);
            let lacking: Vec<_> = acknowledged.iter().filter(|s| !counts.contains_key(*s)).collect();
            if lacking.is_empty() {
                let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
                assert!(twice.is_empty(), "more than once: {twice:?}");
                break;
            }
            assert!(begun.elapsed() < COLLECT_LIMIT, "{} lacking: {lacking:?}\n{}", lacking.len(), e2e::logs(pair));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    println!("{} acknowledged, {takeovers} takeovers, all in the log once", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_04_a_log_that_cannot_be_opened_holds_up_no_mail_and_what_waited_is_in_it_later() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    let place = pair.nodes[0].data_dir().join("logs");
    let aside = place.with_extension("aside");
    pair.kill(0).await.expect("killed");
    std::fs::rename(&place, &aside).expect("moved");
    std::fs::write(&place, "no folder").expect("written");
    pair.start_node(0).await.expect("started");
    await_status(pair, 1, "joint", |status| is_joint(status, &[1, 2])).await;
    let not_written = |said: &str| said.contains("the log of node 1 is not written");
    await_said(pair, 0, &["alerts"], "the alert", not_written).await;
    await_said(pair, 0, &["servers"], "the function", |said| said.contains("could not be opened")).await;
    for node in [0, 1] {
        mail(pair, node, 0, &format!("without a log at node 1, by {node}")).await.expect("delivered");
    }
    // The node runs on, and finds it again by itself.
    std::fs::remove_file(&place).expect("removed");
    std::fs::rename(&aside, &place).expect("moved back");
    let begun = Instant::now();
    for node in [0, 1] {
        let subject = format!("without a log at node 1, by {node}");
        while by_subject(&logs(pair, 0, &["--kind", "mail", "--outcome", "accept"]).await).get(&subject) != Some(&1) {
            assert!(begun.elapsed() < COLLECT_LIMIT, "{:?}", logs(pair, 0, &["--kind", "mail"]).await);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    let cleared = |said: &str| said.contains("\"alerts\"") && !said.contains("is not written");
    await_said(pair, 0, &["alerts"], "the alert cleared", cleared).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_01_log_06_what_is_done_at_any_node_is_found_at_any_node() {
    let fixture = e2e::pair(1).await.expect("a pair");
    let pair = &fixture.pair;
    mail(pair, 1, 0, "to be found").await.expect("delivered");
    let login = &pair.options.accounts[0];
    let peer = SocketAddr::new(pair.nodes[1].address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust().expect("CA"), ANSWER_LIMIT).await.expect("greeting");
    assert!(client.login(&login.address, "wrong").await.is_err());
    let team = format!("team@{}", login.address.split_once('@').expect("a domain").1);
    pair.command(1, &["alias", "add"], &[&team, &login.address], None).await.expect("an alias");
    let begun = Instant::now();
    let found = loop {
        let all = logs(pair, 0, &[]).await;
        let of = |kind: &str| -> Vec<Value> { all.iter().filter(|record| record["kind"] == kind).cloned().collect() };
        let failed = of("access").into_iter().find(|record| record["success"] == false);
        let alias = of("admin").into_iter().find(|record| record["type"] == "aliases");
        let mail = of("mail").into_iter().find(|record| record["subject"] == "to be found");
        if let (Some(failed), Some(alias), Some(mail), false) = (failed, alias, mail, of("cluster").is_empty()) {
            break (failed, alias, mail);
        }
        assert!(begun.elapsed() < COLLECT_LIMIT, "{all:#?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let (failed, alias, mail) = found;
    assert_eq!((failed["protocol"].as_str(), failed["user"].as_str()), (Some("imap"), Some(login.address.as_str())));
    assert!(alias["event"].as_str().expect("event").contains("done"), "{alias}");
    assert_eq!((mail["status"].as_str(), mail["direction"].as_str()), (Some("received"), Some("in")));
    let accept = mail["accept"].as_str().expect("an accept id");
    assert_eq!(logs(pair, 1, &["--id", accept]).await.len(), 1);
    assert_eq!(logs(pair, 1, &["--sender", "nobody@example.org"]).await.len(), 0);
    let wrong = pair.command(0, &["logs"], &["--kind", "post"], None).await;
    assert!(wrong.expect_err("no such kind").to_string().contains("there are mail"));
}
