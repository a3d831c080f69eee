//! The preferred node gets the primary's place back after it was lost, and no client sees a command fail for it.

use e2e::load::{Load, await_service};
use e2e::watch::{LIMIT, await_status, is_joint};
use node::demo::pair::Pair;

async fn say(pair: &Pair, words: &[&str], rest: &[&str]) -> String {
    let index = if pair.nodes[0].live_pid().is_some() { 0 } else { 1 };
    pair.command(index, words, rest, None).await.unwrap_or_else(|error| panic!("{error:#}\n{}", e2e::logs(pair)))
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_20_the_preferred_node_is_the_primary_again_after_a_loss_and_stays_so() {
    let mut fixture = e2e::pair(1).await.expect("a pair");
    let pair = &mut fixture.pair;
    let preferred = pair.primary().await.expect("a primary");
    let (other, id) = (1 - preferred, (preferred + 1).to_string());
    let words = ["cluster", "primary"];
    let said = say(pair, &words, &[&id, "--failback", "auto", "--settle", "2", "--dry-run"]).await;
    assert!(said.contains("nothing was changed") && said.contains("for 2 s, it becomes it again"), "{said}");
    let said = say(pair, &words, &[]).await;
    assert!(said.contains("preferred: none"), "a dry run changes nothing: {said}");
    say(pair, &words, &[&id, "--failback", "auto", "--settle", "2"]).await;
    let said = say(pair, &["cluster", "leave"], &["--dry-run"]).await;
    for part in
        ["demo.test: MX records", "PTR record", "forwarding  127.0.0.1", "127.0.0.10: the cluster address stays"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut load = Load::start(pair).expect("load");
    load.await_more(20, LIMIT).await.expect("progress");
    pair.kill(preferred).await.expect("killed");
    await_service(pair, LIMIT).await.expect("service");
    pair.start_node(preferred).await.expect("started");
    let home = u64::try_from(preferred + 1).expect("an id");
    await_status(pair, other, "the preferred node is the primary again", |status| {
        is_joint(status, &[1, 2]) && status["home"] == home
    })
    .await;
    load.await_more(20, LIMIT).await.expect("progress");
    let events = pair.command(other, &["cluster", "events"], &[], None).await.expect("events");
    assert!(events.contains(&format!("failback: node {id} is preferred and was in sync for")), "{events}");
    // An order to the other node is not undone.
    say(pair, &["cluster", "switchover"], &[&(other + 1).to_string()]).await;
    await_status(pair, other, "its reason is told", |_| {
        let events = std::fs::read_to_string(pair.nodes[other].data_dir().join("events.jsonl")).unwrap_or_default();
        events.contains("but an order made node")
    })
    .await;
    load.await_more(20, LIMIT).await.expect("progress");
    assert_eq!(pair.primary().await.ok(), Some(other));
    load.check_floors(pair).await.expect("floors");
    load.judge(pair).await.unwrap_or_else(|fault| panic!("{fault:#}\n{}", e2e::logs(pair)));
    load.end().await.expect("the load ends");
    fixture.pair.stop().await;
}
