//! Both nodes are gone, and a copy of the data folder of one is put back (docs/operations/disaster.md): it serves what it has,
//! reuses no number that a client was told since, and becomes a cluster again.

use std::net::SocketAddr;

use e2e::watch::{await_status, is_joint};
use e2e::{ANSWER_LIMIT, copy_folder, mail};
use node::demo::clients::imap::{ImapClient, Selected};
use node::demo::pair::Pair;

async fn inbox(pair: &Pair, index: usize) -> Selected {
    let login = &pair.options.accounts[0];
    let peer = SocketAddr::new(pair.nodes[index].address, pair.ports.imaps);
    let mut client = ImapClient::connect_tls(peer, &pair.trust().expect("CA"), ANSWER_LIMIT).await.expect("greeting");
    client.login(&login.address, &login.password).await.expect("login");
    client.select("INBOX").await.expect("INBOX")
}

async fn command(pair: &Pair, index: usize, words: &[&str], rest: &[&str]) {
    let said = pair.command(index, words, rest, None).await;
    said.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_data_folder_serves_again_and_reuses_no_number() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let folder = tempfile::tempdir().expect("folder");
    let (pair, backup) = (&mut fixture.pair, folder.path().join("copy"));
    for subject in ["one", "two"] {
        mail(pair, 0, 0, subject).await.expect("delivered");
    }
    // The copy is made while no process runs on the folder; the other node goes on meanwhile.
    pair.kill_group(1).await.expect("killed");
    let data = pair.nodes[1].data_dir();
    copy_folder(&data, &backup);
    pair.start_node(1).await.expect("started");
    await_status(pair, 0, "joint", |status| is_joint(status, &[1, 2])).await;
    for subject in ["three", "four", "five"] {
        mail(pair, 0, 0, subject).await.expect("delivered");
    }
    let told = inbox(pair, 0).await;
    assert_eq!(told.exists, 5);

    pair.kill_group(0).await.expect("killed");
    pair.kill_group(1).await.expect("killed");
    std::fs::remove_dir_all(&data).expect("lost");
    std::fs::remove_dir_all(pair.nodes[0].data_dir().join("mail")).expect("lost");
    copy_folder(&backup, &data);
    pair.start_node(1).await.expect("started");
    await_status(pair, 1, "waits", |status| status["mode"] == "waiting").await;
    command(pair, 1, &["cluster", "start-alone"], &["--confirm", "demo"]).await;
    await_status(pair, 1, "alone", |status| status["epoch_kind"] == "solo").await;
    let restored = inbox(pair, 1).await;
    assert_eq!(restored.exists, 2, "what the copy has");
    mail(pair, 1, 0, "six").await.expect("delivered");
    let now = inbox(pair, 1).await;
    assert_eq!((now.exists, now.uid_validity), (3, told.uid_validity));
    assert!(now.uid_next > told.uid_next, "numbers told since the copy are not used again: {told:?} {now:?}");

    command(pair, 1, &["cluster", "rescue"], &["--confirm", "demo", "--others-are-down"]).await;
    await_status(pair, 1, "unlocked", |status| status["settings_locked"].is_null()).await;
    command(pair, 1, &["cluster", "remove", "1"], &["--confirm", "demo"]).await;
    await_status(pair, 1, "a cluster of one", |status| is_joint(status, &[2])).await;
}
