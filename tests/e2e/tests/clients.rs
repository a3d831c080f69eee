//! One node, read and written by clients other people made: Python's smtplib, imaplib and poplib; and by our own.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use node::demo::clients::smtp::SmtpClient;
use node::demo::pair::{CLUSTER_ADDRESS, Pair};

/// How long a client waits for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);

fn python(pair: &Pair) {
    let login = pair.options.accounts.first().expect("account");
    // Relative to the package, where cargo runs its tests: a compiled-in path may name another checkout.
    let script = "tests/clients.py";
    let output = Command::new("python3")
        .arg(script)
        .arg(CLUSTER_ADDRESS.to_string())
        .args([pair.ports.submission, pair.ports.imaps, pair.ports.imap, pair.ports.pop3s].map(|port| port.to_string()))
        .arg(pair.ca_file())
        .arg(&login.address)
        .arg(&login.password)
        .output()
        .expect("python3");
    assert!(
        output.status.success(),
        "{}{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        e2e::logs(pair)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pro_05_pro_07_pythons_clients_send_read_change_and_delete() {
    let mut fixture = e2e::single(2).await.expect("a node");
    let pair = &fixture.pair;
    tokio::task::block_in_place(|| python(pair));
    fixture.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn svc_01_only_authenticated_clients_relay() {
    let mut fixture = e2e::single(1).await.expect("a node");
    let pair = &fixture.pair;
    let login = pair.options.accounts.first().expect("account");
    let peer = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.smtp);
    let mut stranger = SmtpClient::connect(peer, ANSWER_LIMIT).await.expect("greeting");
    stranger.command("MAIL FROM:<a@example.org>").await.expect("MAIL");
    for (path, code, start) in [
        ("<b@example.net>", 550, "5.7.1"),
        ("<nobody@demo.test>", 550, "5.1.1"),
        ("<postmaster@demo.test>", 250, "2.1.5"),
        ("<u1@demo.test>", 250, "2.1.5"),
    ] {
        let answer = stranger.command(&format!("RCPT TO:{path}")).await.expect("RCPT");
        assert_eq!(answer.code, code, "{path}: {answer:?}");
        assert!(answer.text.starts_with(start), "{path}: {answer:?}");
    }
    let submissions = SocketAddr::new(CLUSTER_ADDRESS, pair.ports.submissions);
    let trust = pair.trust().expect("CA");
    let mut client = SmtpClient::connect_tls(submissions, &trust, ANSWER_LIMIT).await.expect("greeting");
    let answer = client.command(&format!("MAIL FROM:<{}>", login.address)).await.expect("MAIL");
    assert_eq!(answer.code, 530, "{answer:?}");
    assert!(client.login(&login.address, "wrong").await.is_err());
    let mut client = SmtpClient::connect_tls(submissions, &trust, ANSWER_LIMIT).await.expect("greeting");
    client.login(&login.address, &login.password).await.expect("login");
    let other = client.command("MAIL FROM:<someone.else@demo.test>").await.expect("MAIL");
    assert_eq!(other.code / 100, 5, "{other:?}");
    let own = client.command(&format!("MAIL FROM:<{}>", login.address)).await.expect("MAIL");
    assert_eq!(own.code, 250, "{own:?}");
    let relayed = client.command("RCPT TO:<b@example.net>").await.expect("RCPT");
    assert_eq!(relayed.code, 250, "{relayed:?}");
    fixture.pair.stop().await;
}
