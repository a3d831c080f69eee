//! The list of members: a node leaves, a lost node is removed and replaced, a survivor votes alone, a third node joins.

use std::net::{IpAddr, Ipv4Addr};

use e2e::load::{Load, await_service};
use e2e::watch::{LIMIT, add_account, await_status, bodies, is_joint, send, votes};
use node::demo::node_process::NodeProcess;
use node::demo::pair::Pair;

/// Where a third machine listens.
const THIRD_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));
/// Its index among the processes.
const THIRD: usize = 2;

async fn say(pair: &Pair, index: usize, words: &[&str], rest: &[&str]) -> String {
    pair.command(index, words, rest, None).await.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)))
}

async fn refused(pair: &Pair, index: usize, words: &[&str], rest: &[&str]) -> String {
    let said = pair.command(index, words, rest, None).await;
    format!("{:#}", said.expect_err("it was not refused"))
}

async fn join(pair: &mut Pair, asked: usize, index: usize) -> String {
    let token = say(pair, asked, &["cluster", "token"], &[]).await;
    let said = pair.command(index, &["cluster", "join"], &[], Some(token.trim())).await.expect("joined");
    pair.start_node(index).await.expect("started");
    said
}

fn add_third(pair: &mut Pair) {
    let third = NodeProcess::new(&pair.options, THIRD + 1, THIRD_ADDRESS, &pair.ports).expect("a node file");
    pair.nodes.push(third);
}

const CONFIRM: [&str; 2] = ["--confirm", "demo"];

#[tokio::test(flavor = "multi_thread")]
async fn ha_16_the_primary_leaves_for_good_under_load_and_a_new_machine_takes_its_place() {
    let mut fixture = e2e::pair(2).await.expect("a pair");
    let pair = &mut fixture.pair;
    let mut load = Load::start(pair).expect("load");
    load.await_more(30, LIMIT).await.expect("progress");
    let first = pair.primary().await.expect("a primary");
    let rest = 1 - first;
    let said = say(pair, first, &["cluster", "leave"], &["--dry-run"]).await;
    assert!(said.contains(&format!("node {} would be the primary", rest + 1)), "{said}");
    let said = refused(pair, first, &["cluster", "leave"], &["--confirm", "another"]).await;
    assert!(said.contains("nothing was done"), "{said}");
    let said = refused(pair, rest, &["cluster", "remove", &(first + 1).to_string()], &CONFIRM).await;
    assert!(said.contains("cluster leave"), "a node in sync is not removed: {said}");
    load.await_more(30, LIMIT).await.expect("progress");
    let said = say(pair, first, &["cluster", "leave"], &CONFIRM).await;
    assert!(said.contains("may be switched off"), "{said}");
    let ended = pair.nodes[first].await_end().await;
    assert!(ended.is_some_and(|status| status.success()), "it ends by itself: {ended:?}\n{}", e2e::logs(pair));
    await_service(pair, LIMIT).await.expect("service");
    let only = [rest as u64 + 1];
    let status = await_status(pair, rest, "joint alone", |status| is_joint(status, &only)).await;
    assert_eq!((votes(&status), status["nodes"].as_array().map(Vec::len)), (1, Some(1)), "{status}");
    add_account(pair, "late").await;
    send(pair, "late@demo.test", "alone").await;
    load.await_more(30, LIMIT).await.expect("progress");
    // It does not come back by mistake.
    let again = tokio::process::Command::new(&pair.options.binary)
        .args(["serve", "--config"])
        .arg(pair.nodes[first].config())
        .output()
        .await
        .expect("run");
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(78) && text.contains("has left the cluster"), "{}: {text}", again.status);
    // A new machine under its name.
    std::fs::remove_dir_all(pair.nodes[first].data_dir()).expect("emptied");
    let said = join(pair, rest, first).await;
    assert!(said.contains("node 3"), "ids are never reused: {said}");
    let both = [rest as u64 + 1, 3];
    await_status(pair, rest, "a pair again", |status| is_joint(status, &both) && votes(status) == 2).await;
    load.await_more(30, LIMIT).await.expect("progress");
    load.check_floors(pair).await.expect("floors");
    load.judge(pair).await.unwrap_or_else(|fault| panic!("{fault:#}\n{}", e2e::logs(pair)));
    load.end().await.expect("the load ends");
    assert_eq!(bodies(pair, "late").await.len(), 1);
    fixture.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_14_ha_16_a_survivor_votes_alone_and_the_lost_node_returns_or_is_replaced() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    let said = refused(pair, 0, &["cluster", "rescue"], &CONFIRM).await;
    assert!(said.contains("not locked"), "{said}");
    let lost = pair.primary().await.expect("a primary");
    let (rest, id) = (1 - lost, (lost + 1).to_string());
    pair.kill(lost).await.expect("killed");
    await_service(pair, LIMIT).await.expect("service");
    await_status(pair, rest, "settings are locked", |status| !status["settings_locked"].is_null()).await;
    let said = refused(pair, rest, &["cluster", "remove", &id], &CONFIRM).await;
    assert!(said.contains("cluster rescue"), "locked, with the way out: {said}");
    let said = say(pair, rest, &["cluster", "rescue"], &["--dry-run"]).await;
    assert!(said.contains("would vote alone"), "{said}");
    // The guard's word made the solo epoch certain: nothing more is asked.
    let said = say(pair, rest, &["cluster", "rescue"], &CONFIRM).await;
    assert!(said.contains("votes alone now"), "{said}");
    let status = await_status(pair, rest, "unlocked", |status| status["settings_locked"].is_null()).await;
    assert_eq!(votes(&status), 1, "{status}");
    add_account(pair, "late").await;
    send(pair, "late@demo.test", "alone").await;
    // The lost node returns: its settings are void, it votes again, its mail is brought together.
    pair.start_node(lost).await.expect("started");
    await_status(pair, rest, "a pair again", |status| is_joint(status, &[1, 2]) && votes(status) == 2).await;
    await_status(pair, lost, "the lost node says so too", |status| {
        is_joint(status, &[1, 2]) && votes(status) == 2 && status["settings_locked"].is_null()
    })
    .await;
    add_account(pair, "later").await;
    send(pair, "late@demo.test", "both").await;
    // Lost again, and for good: removed, and replaced by another machine.
    pair.kill(lost).await.expect("killed");
    await_service(pair, LIMIT).await.expect("service");
    await_status(pair, rest, "settings are locked", |status| !status["settings_locked"].is_null()).await;
    say(pair, rest, &["cluster", "rescue"], &CONFIRM).await;
    let name = pair.nodes[lost].name.clone();
    let said = say(pair, rest, &["cluster", "remove", &name], &CONFIRM).await;
    assert!(said.contains("no member"), "{said}");
    let only = [rest as u64 + 1];
    await_status(pair, rest, "joint alone", |status| is_joint(status, &only)).await;
    pair.start_node(lost).await.expect("started");
    add_third(pair);
    let said = join(pair, rest, THIRD).await;
    assert!(said.contains("node 3"), "{said}");
    let both = [rest as u64 + 1, 3];
    await_status(pair, rest, "a pair with another", |status| is_joint(status, &both) && votes(status) == 2).await;
    await_status(pair, lost, "the removed node serves nobody", |status| status["mode"] == "waiting").await;
    pair.kill(rest).await.expect("killed");
    await_status(pair, THIRD, "it goes on alone", |status| status["epoch_kind"] == "solo").await;
    assert_eq!(bodies(pair, "late").await.len(), 2);
    fixture.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_node_with_mail_joins_and_any_one_may_be_lost() {
    let mut fixture = e2e::pair(2).await.expect("a pair");
    let pair = &mut fixture.pair;
    let mut load = Load::start(pair).expect("load");
    load.await_more(20, LIMIT).await.expect("progress");
    add_third(pair);
    join(pair, 0, THIRD).await;
    let all = [1, 2, 3];
    await_status(pair, 0, "three in sync", |status| is_joint(status, &all) && votes(status) == 3).await;
    load.await_more(20, LIMIT).await.expect("progress");
    let primary = pair.primary().await.expect("a primary");
    pair.kill(primary).await.expect("killed");
    await_service(pair, LIMIT).await.expect("service");
    let rest = (primary + 1) % 3;
    await_status(pair, rest, "two go on by quorum", |status| {
        status["epoch_kind"] == "reduced" && status["in_sync"].as_array().is_some_and(|set| set.len() == 2)
    })
    .await;
    add_account(pair, "late").await;
    load.await_more(20, LIMIT).await.expect("progress");
    pair.start_node(primary).await.expect("started");
    await_status(pair, rest, "three again", |status| is_joint(status, &all) && votes(status) == 3).await;
    load.await_more(20, LIMIT).await.expect("progress");
    load.check_floors(pair).await.expect("floors");
    // The third goes again; the pair stays.
    let said = say(pair, THIRD, &["cluster", "leave"], &CONFIRM).await;
    assert!(said.contains("may be switched off"), "{said}");
    await_status(pair, 0, "the pair", |status| is_joint(status, &[1, 2]) && votes(status) == 2).await;
    load.await_more(20, LIMIT).await.expect("progress");
    load.judge(pair).await.unwrap_or_else(|fault| panic!("{fault:#}\n{}", e2e::logs(pair)));
    load.end().await.expect("the load ends");
    fixture.pair.stop().await;
}
