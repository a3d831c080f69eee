//! What two nodes are for: one address, the same mail and settings whichever node is asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use e2e::load::await_service;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::{Sent, SmtpClient};
use node::demo::pair::{CLUSTER_ADDRESS, NODE_ADDRESSES, Pair};

/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);

async fn inbox(pair: &Pair, address: IpAddr, login: &str, password: &str) -> ImapClient {
    let peer = SocketAddr::new(address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust().expect("CA"), ANSWER_LIMIT).await.expect("a greeting");
    client.login(login, password).await.expect("login");
    client.select("INBOX").await.expect("INBOX");
    client
}

async fn mail(pair: &Pair, address: IpAddr, to: &str, subject: &str) {
    let peer = SocketAddr::new(address, pair.ports.smtp);
    let mut client = SmtpClient::connect(peer, ANSWER_LIMIT).await.expect("a greeting");
    let text = format!("Subject: {subject}\r\n\r\n{subject}\r\n");
    let sent = client.send("a@example.org", &[to], text.as_bytes()).await;
    assert!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
}

/// The next line about message 1 that an idling client is told.
async fn told(client: &mut ImapClient, words: &str) -> String {
    loop {
        let line = client.idle_line().await.expect("a line");
        let text = String::from_utf8_lossy(&line).into_owned();
        if text.contains(words) {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_03_pro_05_mail_flags_and_settings_are_the_same_on_both_nodes() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &fixture.pair;
    // An account made at the second node takes mail at the first and is read at the second.
    pair.api(1).expect("API").add_account("late@demo.test", "secret-of-late").await.expect("made");
    let [first, second] = NODE_ADDRESSES;
    let mut here = inbox(pair, first, "late@demo.test", "secret-of-late").await;
    let mut there = inbox(pair, second, "late", "secret-of-late").await;
    let tag = there.idle().await.expect("IDLE");
    mail(pair, first, "late@demo.test", "one").await;
    told(&mut there, "1 EXISTS").await;
    // A change at one node is told at the other.
    here.command("NOOP").await.expect("NOOP");
    here.command("STORE 1 +FLAGS (\\Flagged $mine)").await.expect("answer").ok().expect("stored");
    let line = told(&mut there, "FETCH").await;
    assert!(line.contains("\\Flagged") && line.contains("$mine"), "{line}");
    there.done(&tag).await.expect("DONE");
    let tag = here.idle().await.expect("IDLE");
    there.command("STORE 1 +FLAGS.SILENT (\\Deleted)").await.expect("answer").ok().expect("stored");
    there.command("EXPUNGE").await.expect("answer").ok().expect("expunged");
    told(&mut here, "1 EXPUNGE").await;
    here.done(&tag).await.expect("DONE");
    fixture.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_01_ha_13_the_cluster_address_moves_and_settings_wait_for_the_other_node() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    let login = pair.options.accounts.first().expect("account").clone();
    mail(pair, CLUSTER_ADDRESS, &login.address, "before").await;
    let primary = pair.primary().await.expect("a primary");
    let held = pair.cluster_api().expect("API").status().await.expect("status");
    assert_eq!(held.node as usize, primary + 1, "the primary answers at the cluster address");
    pair.kill(primary).await.expect("killed");
    await_service(pair, Duration::from_secs(5)).await.expect("service");
    mail(pair, CLUSTER_ADDRESS, &login.address, "after").await;
    let mut client = inbox(pair, CLUSTER_ADDRESS, &login.address, &login.password).await;
    let all = client.uid_fetch("1:*", "(UID BODY.PEEK[TEXT])").await.expect("fetched");
    let texts: Vec<_> = all.into_iter().filter_map(|fetched| fetched.body).collect();
    assert_eq!(texts, [b"before\r\n".to_vec(), b"after\r\n".to_vec()]);
    // Two voters, one gone: settings are refused with the reason, mail goes on.
    let refused = pair.cluster_api().expect("API").add_account("new@demo.test", "secret-of-new").await;
    let text = format!("{:#}", refused.expect_err("no quorum"));
    assert!(text.contains("503"), "{text}");
    let alone = pair.cluster_api().expect("API").status().await.expect("status");
    assert_eq!((alone.node as usize, alone.epoch_kind.as_str()), (2 - primary, "solo"));
    pair.start_node(primary).await.expect("started");
    pair.await_joint(Duration::from_secs(30)).await.expect("joint");
    pair.cluster_api().expect("API").add_account("new@demo.test", "secret-of-new").await.expect("made");
    fixture.pair.stop().await;
}
