//! Two nodes in one process over fake peers that call each other directly.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control::Control;
use ports::config::{Config as _, ConfigError};
use ports::peers::{CallError, PeerService as _, Peers, Service};
use serde_json::json;
use testkit::calls::answered_by;
use topology::{ClusterState, ConfigOp, DocumentKind, Member};
use vocab::NodeId;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);
const TOKEN: &str = "aa11bb22cc33dd44ee55ff6600112233445566778899aabbccddeeff00112233";

/// Who can be called, and which nodes are cut off.
#[derive(Default)]
struct Net {
    nodes: Mutex<BTreeMap<NodeId, Arc<Control>>>,
    cut: Mutex<BTreeSet<NodeId>>,
}

/// A node's way to the others.
fn peers(from: NodeId, net: Arc<Net>) -> impl Peers {
    answered_by(move |to, service, body| {
        let net = Arc::clone(&net);
        Box::pin(async move {
            assert_eq!(service, Service::Control);
            let cut = net.cut.lock().expect("lock").iter().any(|node| *node == to || *node == from);
            let target = net.nodes.lock().expect("lock").get(&to).cloned();
            let target = target.filter(|_| !cut).ok_or_else(|| CallError::NotSent("cut off".to_owned()))?;
            target.serve(from, body).await.map_err(CallError::Refused)
        })
    })
}

async fn open(net: &Arc<Net>, node: NodeId, folder: &Path) -> Arc<Control> {
    let peers = Arc::new(peers(node, Arc::clone(net)));
    let opened = eventually("the store is free", async || {
        Control::open(folder, node, Arc::clone(&peers) as Arc<dyn Peers>).await.ok()
    });
    let control = opened.await;
    net.nodes.lock().expect("lock").insert(node, Arc::clone(&control));
    control
}

/// Takes a node down the way a process ends.
async fn close(net: &Net, node: NodeId) {
    let control = net.nodes.lock().expect("lock").remove(&node).expect("open");
    control.shutdown().await;
}

async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn await_quorum(control: &Control, want: bool) -> Duration {
    let begun = Instant::now();
    let mut quorum = control.quorum();
    let wait = quorum.wait_for(|status| status.quorum == want);
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time").expect("raft runs");
    begun.elapsed()
}

fn member(id: u32) -> Member {
    Member {
        id: NodeId(id),
        name: format!("node{id}"),
        peer_address: format!("192.0.2.{id}:6420"),
        address: format!("192.0.2.{id}"),
        data: true,
        paths: Vec::new(),
    }
}

fn found() -> ConfigOp {
    ConfigOp::Found { cluster_id: "c1".into(), name: "test".into(), member: member(1), cluster_address: None }
}

fn domain(name: &str) -> ConfigOp {
    ConfigOp::put(DocumentKind::Domain, name, json!({}), None)
}

fn has_domain(state: &ClusterState, name: &str) -> bool {
    state.domains().iter().any(|domain| domain.as_str() == name)
}

struct Pair {
    net: Arc<Net>,
    folders: [tempfile::TempDir; 2],
}

async fn pair() -> (Pair, Arc<Control>, Arc<Control>) {
    let pair = Pair { net: Arc::default(), folders: [0, 1].map(|_| tempfile::tempdir().expect("folder")) };
    let one = open(&pair.net, ONE, pair.folders[0].path()).await;
    one.found(found()).await.expect("founded");
    one.propose(ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 }).await.expect("token");
    let admit = ConfigOp::Admit { token_hash: TOKEN.into(), now: 1, member: member(2) };
    assert_eq!(one.propose(admit).await.expect("admitted").node, Some(TWO));
    let two = open(&pair.net, TWO, pair.folders[1].path()).await;
    one.add_voter(TWO, "192.0.2.2:6420".into()).await.expect("voter");
    one.add_voter(TWO, "192.0.2.2:6420".into()).await.expect("again is harmless");
    assert_eq!(one.quorum().borrow().voters, [ONE, TWO]);
    await_quorum(&two, true).await;
    (pair, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_is_founded_once_and_remembers() {
    let net: Arc<Net> = Arc::default();
    let folder = tempfile::tempdir().expect("folder");
    let one = open(&net, ONE, folder.path()).await;
    let waiting = one.propose(domain("early.example")).await;
    assert!(matches!(waiting, Err(ConfigError::Locked(_))), "{waiting:?}");
    one.found(found()).await.expect("founded");
    assert!(matches!(one.found(found()).await, Err(ConfigError::Conflict(_))));
    let mut watch = one.watch();
    let before = *watch.borrow_and_update();
    let put = one.propose(domain("example.org")).await.expect("put");
    assert!(put.revision > before && *watch.borrow_and_update() == put.revision);
    let wrong = one.propose(domain("no domain")).await;
    assert!(matches!(wrong, Err(ConfigError::Refused(faults)) if faults.len() == 1));
    let state = one.current();
    drop(one);
    close(&net, ONE).await;
    let again = open(&net, ONE, folder.path()).await;
    assert_eq!(again.current(), state, "read before raft has a leader");
    assert!(await_quorum(&again, true).await < Duration::from_secs(2), "alone, it leads at once");
    again.propose(domain("example.net")).await.expect("goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_propose_and_see_the_same() {
    let (_pair, one, two) = pair().await;
    one.propose(domain("one.example")).await.expect("leader");
    let put = two.propose(domain("two.example")).await.expect("forwarded");
    assert!(has_domain(&two.current(), "two.example"), "visible where it was proposed");
    eventually("the same on both", async || (one.current() == two.current()).then_some(())).await;
    assert_eq!(one.current().revision, put.revision);
    let refused = two.propose(domain("..")).await;
    assert!(matches!(refused, Err(ConfigError::Refused(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_other_node_settings_are_locked_and_readable() {
    for lost in [ONE, TWO] {
        let (pair, one, two) = pair().await;
        let rest = if lost == ONE { two } else { one };
        pair.net.cut.lock().expect("lock").insert(lost);
        await_quorum(&rest, false).await;
        let begun = Instant::now();
        let refused = rest.propose(domain("late.example")).await;
        assert!(begun.elapsed() < Duration::from_millis(2_500), "fails fast");
        assert!(matches!(&refused, Err(ConfigError::Locked(why)) if why.contains("bring the other node back")));
        assert_eq!(rest.current().name, "test", "reads go on");
        pair.net.cut.lock().expect("lock").clear();
        await_quorum(&rest, true).await;
        rest.propose(domain("late.example")).await.expect("works again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_voter_of_two_has_a_leader_soon_and_everything_it_knew() {
    for restarted in [ONE, TWO] {
        let (pair, one, two) = pair().await;
        one.propose(domain("kept.example")).await.expect("put");
        let index = if restarted == ONE { 0 } else { 1 };
        let rest = if restarted == ONE { two } else { one };
        close(&pair.net, restarted).await;
        await_quorum(&rest, false).await;
        let back = open(&pair.net, restarted, pair.folders[index].path()).await;
        assert!(has_domain(&back.current(), "kept.example") || restarted == TWO, "the leader had applied it");
        let waited = await_quorum(&back, true).await;
        assert!(waited < Duration::from_millis(2_000), "{waited:?}");
        back.propose(domain("after.example")).await.expect("put");
        eventually("the same on both", async || (back.current() == rest.current()).then_some(())).await;
        assert!(has_domain(&rest.current(), "kept.example"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_format_is_refused_with_the_folder() {
    let folder = tempfile::tempdir().expect("folder");
    {
        let db = rocksdb::DB::open_default(folder.path()).expect("open");
        db.put("format", "99").expect("put");
    }
    let peers = Arc::new(peers(ONE, Arc::default()));
    let error = Control::open(folder.path(), ONE, peers).await.err().expect("refused").to_string();
    assert!(error.contains("99") && error.contains("empty the folder"), "{error}");
}

/// The log is compacted every thousand entries, so a node that joins later needs a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_gets_a_snapshot() {
    let net: Arc<Net> = Arc::default();
    let folders = [0, 1].map(|_| tempfile::tempdir().expect("folder"));
    let one = open(&net, ONE, folders[0].path()).await;
    one.found(found()).await.expect("founded");
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..60 {
        let one = Arc::clone(&one);
        tasks.spawn(async move {
            for number in 0..25 {
                one.propose(domain(&format!("d{number}.w{worker}.example"))).await.expect("put");
            }
        });
    }
    tasks.join_all().await;
    let two = open(&net, TWO, folders[1].path()).await;
    one.add_voter(TWO, String::new()).await.expect("voter");
    eventually("the same on both", async || (one.current() == two.current()).then_some(())).await;
    assert_eq!(two.current().domains().len(), 60 * 25);
    close(&net, TWO).await;
    drop(two);
    let two = open(&net, TWO, folders[1].path()).await;
    assert_eq!(one.current(), two.current(), "kept over a restart");
}

async fn with_witness() -> (Pair, Arc<Control>, Arc<Control>, Arc<Control>, tempfile::TempDir) {
    let (pair, one, two) = pair().await;
    let folder = tempfile::tempdir().expect("folder");
    one.propose(ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 }).await.expect("token");
    let admit = ConfigOp::Admit { token_hash: TOKEN.into(), now: 1, member: Member { data: false, ..member(3) } };
    assert_eq!(one.propose(admit).await.expect("admitted").node, Some(THREE));
    let witness = open(&pair.net, THREE, folder.path()).await;
    one.add_voter(THREE, "192.0.2.3:6420".into()).await.expect("voter");
    eventually("three voters everywhere", async || {
        [&one, &two, &witness].iter().all(|c| c.quorum().borrow().voters == [ONE, TWO, THREE]).then_some(())
    })
    .await;
    (pair, one, two, witness, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_witness_settings_can_be_changed_whichever_node_is_lost() {
    for lost in [ONE, TWO, THREE] {
        let (pair, one, two, witness, _folder) = with_witness().await;
        pair.net.cut.lock().expect("lock").insert(lost);
        let rest = if lost == ONE { two } else { one };
        // A write before the new leader is known is refused, not lost.
        eventually("a majority writes", async || rest.propose(domain("late.example")).await.ok()).await;
        pair.net.cut.lock().expect("lock").clear();
        eventually("the same everywhere", async || (rest.current() == witness.current()).then_some(())).await;
        assert!(has_domain(&witness.current(), "late.example"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_process_ended_is_succeeded_before_its_lease_runs_out() {
    for lost in [ONE, TWO] {
        let (pair, one, two, witness, _folder) = with_witness().await;
        // Whoever may lead: the word about another one means nothing.
        let led = one.quorum().borrow().leader.expect("a leader");
        [&one, &two, &witness].iter().for_each(|control| control.process_ended(NodeId(4)));
        let all = BTreeMap::from([(ONE, one), (TWO, two), (THREE, witness)]);
        let (gone, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(id, _)| *id == led);
        close(&pair.net, led).await;
        drop(gone);
        let begun = Instant::now();
        // The second one hears the word when the first has asked for its vote, or before.
        for (id, control) in if lost == ONE { rest.iter().collect::<Vec<_>>() } else { rest.iter().rev().collect() } {
            control.process_ended(led);
            println!("{} is told", id.0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (_, control) in &rest {
            let mut quorum = control.quorum();
            let wait = quorum.wait_for(|status| status.quorum && status.leader.is_some_and(|leader| leader != led));
            tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time").expect("raft runs");
        }
        // A lease is 800 ms, and without the word nobody stands before another 400 ms.
        assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_another_replaced_has_no_vote() {
    let (pair, one, _two, witness, _folder) = with_witness().await;
    close(&pair.net, THREE).await;
    drop(witness);
    assert!(!one.drop_stale_voters().await.expect("nothing to do"), "every voter is a member");
    one.propose(ConfigOp::AddToken { hash: TOKEN.into(), expires: 100 }).await.expect("token");
    let again = ConfigOp::Admit { token_hash: TOKEN.into(), now: 1, member: Member { data: false, ..member(3) } };
    assert_eq!(one.propose(again).await.expect("admitted").node, Some(NodeId(4)), "ids are never reused");
    assert!(one.drop_stale_voters().await.expect("dropped"));
    assert_eq!(one.quorum().borrow().voters, [ONE, TWO]);
    assert!(!one.drop_stale_voters().await.expect("nothing left to do"));
    one.propose(domain("after.example")).await.expect("the pair is the quorum");
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_16_a_survivor_becomes_the_only_voter_and_the_lost_node_takes_its_settings_over() {
    for lost in [ONE, TWO] {
        let (pair, one, two) = pair().await;
        one.propose(domain("kept.example")).await.expect("put");
        let (rest, gone, survivor) = if lost == ONE { (two, one, TWO) } else { (one, two, ONE) };
        let refused = rest.become_sole_voter().await;
        assert!(matches!(&refused, Err(ConfigError::Conflict(why)) if why.contains("not locked")), "{refused:?}");
        // What only the lost node has in its log was never decided.
        pair.net.cut.lock().expect("lock").insert(lost);
        await_quorum(&rest, false).await;
        let late = gone.propose(domain("void.example")).await;
        assert!(late.is_err(), "{late:?}");
        let before = rest.current().revision;
        rest.become_sole_voter().await.expect("sole voter");
        assert_eq!(rest.quorum().borrow().voters, [survivor]);
        let put = rest.propose(domain("after.example")).await.expect("settings can be changed");
        assert!(put.revision > before + (1 << 31), "no number is given twice");
        assert!(has_domain(&rest.current(), "kept.example"));
        pair.net.cut.lock().expect("lock").clear();
        // The lost one neither votes nor leads, however long it tries.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(rest.quorum().borrow().voters, [survivor]);
        assert!(gone.propose(domain("never.example")).await.is_err());
        rest.add_voter(lost, String::new()).await.expect("it votes again");
        eventually("the same on both", async || (rest.current() == gone.current()).then_some(())).await;
        assert!(has_domain(&gone.current(), "after.example") && !has_domain(&gone.current(), "void.example"));
        await_quorum(&gone, true).await;
        gone.propose(domain("both.example")).await.expect("through either");
        // And over a restart of both.
        close(&pair.net, lost).await;
        drop(gone);
        let again = open(&pair.net, lost, pair.folders[lost.0 as usize - 1].path()).await;
        await_quorum(&again, true).await;
        again.propose(domain("again.example")).await.expect("put");
        eventually("the same on both", async || (rest.current() == again.current()).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sole_voter_stays_one_over_a_restart() {
    let (pair, one, two) = pair().await;
    close(&pair.net, TWO).await;
    drop(two);
    await_quorum(&one, false).await;
    one.become_sole_voter().await.expect("sole voter");
    one.propose(domain("after.example")).await.expect("put");
    close(&pair.net, ONE).await;
    drop(one);
    let one = open(&pair.net, ONE, pair.folders[0].path()).await;
    await_quorum(&one, true).await;
    one.propose(domain("later.example")).await.expect("put");
    assert!(has_domain(&one.current(), "after.example"));
    let two = open(&pair.net, TWO, pair.folders[1].path()).await;
    assert!(!has_domain(&two.current(), "after.example"), "it has not heard of it yet");
    one.add_voter(TWO, String::new()).await.expect("it votes again");
    eventually("the same on both", async || (one.current() == two.current()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_went_two_ways_are_never_mixed_and_one_side_can_be_given_up() {
    let (pair, one, two) = pair().await;
    pair.net.cut.lock().expect("lock").insert(TWO);
    await_quorum(&one, false).await;
    await_quorum(&two, false).await;
    one.become_sole_voter().await.expect("sole voter");
    two.become_sole_voter().await.expect("an operator's mistake");
    let (first, second) = (one.propose(domain("one.example")).await, two.propose(domain("two.example")).await);
    let (first, second) = (first.expect("put").revision, second.expect("put").revision);
    assert!(first.abs_diff(second) > 1 << 31, "no number is given on both sides: {first} {second}");
    pair.net.cut.lock().expect("lock").clear();
    let refused = one.add_voter(TWO, String::new()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(!has_domain(&two.current(), "one.example") && has_domain(&two.current(), "two.example"));
    eventually("both say so", async || two.quorum().borrow().forked.contains(&ONE).then_some(())).await;
    close(&pair.net, TWO).await;
    drop(two);
    let fresh = tempfile::tempdir().expect("folder");
    let two = open(&pair.net, TWO, fresh.path()).await;
    one.add_voter(TWO, String::new()).await.expect("it votes again");
    eventually("the same on both", async || (one.current() == two.current()).then_some(())).await;
    assert!(has_domain(&two.current(), "one.example"));
}

/// Whoever leaves hears that it has no vote any more, and the other goes on alone.
#[tokio::test(flavor = "multi_thread")]
async fn ha_16_a_voter_that_is_no_member_loses_its_vote_also_when_it_leads() {
    for leaves in [ONE, TWO] {
        let (_pair, one, two) = pair().await;
        let epoch = one.current().epoch.clone().expect("an epoch").id;
        // The register of this test names node 1 alone in sync; a later epoch of the home's own stands for the rest.
        let epoch = vocab::EpochId { number: epoch.number + 1, author: 1 };
        one.propose(ConfigOp::RemoveMember { node: leaves, epoch }).await.expect("removed");
        let (rest, gone) = if leaves == ONE { (&two, &one) } else { (&one, &two) };
        let stays = if leaves == ONE { TWO } else { ONE };
        eventually("it knows that it does not vote", async || {
            // Whoever leads does it.
            let _ = one.drop_stale_voters().await;
            let _ = two.drop_stale_voters().await;
            (gone.quorum().borrow().voters == [stays] && rest.quorum().borrow().voters == [stays]).then_some(())
        })
        .await;
        await_quorum(rest, true).await;
        eventually("the rest goes on alone", async || rest.propose(domain("after.example")).await.ok()).await;
    }
}
