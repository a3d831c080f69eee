//! Commit, forwarding, takeover, heal and full disks: two engines over real stores.

#[allow(dead_code, reason = "shared with other tests")]
mod pair;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use mailbox::op::{AccountOp, MailboxRef, NewMessage, Outcome, Role};
use pair::{ALICE, Pair, message, until};
use ports::accounts::Accounts as _;
use ports::blobs::Blobs as _;
use ports::cluster::Cluster as _;
use ports::intake::{Delivery, Intake as _};
use ports::mail_store::MailStore as _;
use ports::records::Records as _;
use vocab::{BlobHash, Flags, LogRecord, NodeId, SubmitError, Timestamp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_commits() {
    let pair = Pair::single().await;
    pair.nodes[0].init().await;
    pair.nodes[0].send(&message("one")).await.expect("accepted");
    assert_eq!(pair.nodes[0].count().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_message_is_on_both_disks_and_read_on_both() {
    let pair = Pair::joint().await;
    for (n, from) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        pair.nodes[from].send(&message("m")).await.expect("accepted");
        // At once: the backup had it before the acknowledgement.
        assert_eq!((pair.nodes[0].on_disk(), pair.nodes[1].on_disk()), (n, n));
        assert_eq!((pair.nodes[0].count().await, pair.nodes[1].count().await), (n, n));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_under_the_same_id_takes_effect_once() {
    let pair = Pair::joint().await;
    let accept = pair.nodes[1].send(&message("once")).await.expect("accepted");
    assert_eq!(pair.nodes[1].send_as(accept, &message("once")).await, Ok(()));
    // The answer of the home is lost after the commit; the engine asks again under the same id.
    pair.net.lose.store(1, Ordering::SeqCst);
    pair.nodes[1].send(&message("lost answer")).await.expect("accepted");
    assert_eq!(pair.net.lose.load(Ordering::SeqCst), 0);
    assert_eq!((pair.nodes[0].count().await, pair.nodes[1].count().await), (2, 2));
    let accounts = pair.nodes[1].engine.accounts();
    let id = accounts.command_id();
    let create = AccountOp::CreateMailbox { name: "Work".into(), role: None };
    let first = accounts.submit(ALICE, id, create.clone()).await;
    assert!(matches!(first, Ok(Outcome::Created { .. })), "{first:?}");
    assert_eq!(accounts.submit(ALICE, id, create).await, first);
}

fn record(name: &'static str) -> LogRecord {
    LogRecord { id: Bytes::from_static(name.as_bytes()), bytes: Bytes::from_static(b"what the log is told") }
}

fn noted(node: &pair::Node) -> Vec<Bytes> {
    node.store.waiting(0, 100).expect("readable").into_iter().map(|(_, record)| record.id).collect()
}

/// The record lies beside the mail on both disks when the sender is told 250, so that no death of one node loses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ha_04_what_the_log_is_told_is_written_with_the_message_on_both_nodes() {
    let pair = Pair::joint().await;
    for (from, name) in [(0, "at the home"), (1, "forwarded")] {
        let engine = pair.nodes[from].engine.clone();
        let accept = engine.accounts().command_id();
        let delivery = pair::delivery(accept, vec![pair::local(1, ALICE)], message(name));
        let delivery = Delivery { records: vec![record(name)], ..delivery };
        engine.intake().accept(delivery.clone()).await.expect("accepted");
        assert!(pair.nodes.iter().all(|node| noted(node).contains(&record(name).id)), "{name}");
        // The same command again changes nothing, so there is nothing to tell.
        engine.intake().accept(delivery).await.expect("accepted");
        assert_eq!(noted(&pair.nodes[0]).iter().filter(|id| **id == record(name).id).count(), 1);
    }
    // What the log has is given no more; what it has not, is, also after a restart.
    let all = pair.nodes[0].store.waiting(0, 100).expect("readable");
    assert_eq!((all.len(), pair.nodes[0].store.count()), (2, 2));
    pair.nodes[0].store.forget(vec![all[0].0]);
    pair.nodes[0].send(&message("the next write")).await.expect("accepted");
    assert_eq!(noted(&pair.nodes[0]), [all[1].1.id.clone()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_on_both_disks_before_the_answer() {
    let pair = Pair::joint().await;
    let line = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n";
    let body = Bytes::from([b"Subject: large\r\n\r\n".to_vec(), line.repeat(5 * 1024 * 1024 / line.len())].concat());
    let hash = BlobHash::of(&body);
    for from in [0, 1] {
        pair.nodes[from].send(&body).await.expect("accepted");
        for node in &pair.nodes {
            assert_eq!(node.store.blob(hash, 0, u64::MAX).as_ref(), Some(&body));
            assert!(node.store.is_blob_sound(hash));
        }
    }
    assert_eq!((pair.nodes[0].on_disk(), pair.nodes[1].on_disk()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_nobody_stored_is_never_named() {
    let pair = Pair::joint().await;
    let body = message("appended");
    let append = |blob| AccountOp::Append {
        mailbox: MailboxRef::Role(Role::Inbox),
        messages: vec![NewMessage {
            blob,
            blob_size: body.len() as u64,
            prefix: Bytes::new(),
            facts: mime::facts_of(&body).encode(),
            flags: Flags::default(),
            internal_date: Timestamp(1),
        }],
    };
    let node = &pair.nodes[1].engine;
    let accounts = node.accounts();
    let refused = accounts.submit(ALICE, accounts.command_id(), append(BlobHash::of(b"nobody has it"))).await;
    assert!(matches!(refused, Err(SubmitError::Unavailable(_))), "{refused:?}");
    let hash = node.blobs().put(body.clone()).await.expect("put");
    let appended = accounts.submit(ALICE, accounts.command_id(), append(hash)).await;
    assert!(matches!(appended, Ok(Outcome::Appended { .. })), "{appended:?}");
    assert!(pair.nodes.iter().all(|n| n.store.has_blob(hash)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ha_13_the_backup_goes_on_when_the_home_is_killed_and_the_home_comes_back() {
    let mut pair = Pair::joint().await;
    pair.nodes[0].send(&message("before")).await.expect("accepted");
    pair.kill(0);
    pair.nodes[1].send(&message("during")).await.expect("accepted by the survivor");
    assert_eq!(pair.nodes[1].status().epoch_kind, "solo");
    assert_eq!(pair.nodes[1].count().await, 2);
    pair.restart(0).await;
    pair.until_joint().await;
    pair.nodes[0].send(&message("after")).await.expect("accepted");
    assert_eq!((pair.nodes[0].on_disk(), pair.nodes[1].on_disk()), (3, 3));
    assert_eq!((pair.nodes[0].count().await, pair.nodes[1].count().await), (3, 3));
    let version = |n: usize| pair.nodes[n].store.head(ALICE).expect("head").version;
    assert_eq!(version(0), version(1));
    assert!(pair.nodes.iter().all(|n| n.status().branches.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_at_the_home_refuses_for_space() {
    let pair = Pair::joint().await;
    pair.nodes[0].full.store(true, Ordering::SeqCst);
    let low = |n: usize| pair.nodes[n].status().warnings.iter().any(|w| w.contains("reserve"));
    until("the home noticed", || low(0)).await;
    for node in &pair.nodes {
        let refused = node.send(&message("full")).await;
        assert_eq!(refused, Err(SubmitError::Unavailable(vocab::error::NO_SPACE)));
    }
    pair.nodes[0].full.store(false, Ordering::SeqCst);
    until("there is room again", || !low(0)).await;
    pair.nodes[0].send(&message("room")).await.expect("accepted");
    assert_eq!(pair.nodes[1].on_disk(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_without_room_leaves_and_comes_back() {
    let pair = Pair::joint().await;
    pair.nodes[1].full.store(true, Ordering::SeqCst);
    until("the backup noticed", || pair.nodes[1].status().warnings.iter().any(|w| w.contains("reserve"))).await;
    pair.nodes[0].send(&message("goes on")).await.expect("accepted with one copy");
    let status = pair.nodes[0].status();
    assert_eq!((status.epoch_kind.as_str(), status.in_sync.as_slice()), ("reduced", [1].as_slice()));
    pair.nodes[0].send(&Bytes::from(vec![b'x'; 200_000])).await.expect("a large one too");
    pair.nodes[1].full.store(false, Ordering::SeqCst);
    pair.until_joint().await;
    assert_eq!((pair.nodes[0].on_disk(), pair.nodes[1].on_disk()), (2, 2));
    assert_eq!(pair.nodes[1].count().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ha_20_the_home_is_moved_while_mail_comes_in_and_no_delivery_fails() {
    let pair = Pair::joint().await;
    let sent = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    let send = async |from: usize| {
        while !done.load(Ordering::SeqCst) {
            pair.nodes[from].send(&message("m")).await.expect("accepted");
            sent.fetch_add(1, Ordering::SeqCst);
        }
    };
    let switch = async {
        for (at, to) in [(0, NodeId(2)), (0, NodeId(1)), (1, NodeId(2))] {
            let before = sent.load(Ordering::SeqCst);
            let plan = pair.nodes[at].engine.cluster().switch_over(Some(to), true).await.expect("possible");
            assert_eq!(plan.to, to.0);
            let moved = pair.nodes[at].engine.cluster().switch_over(Some(to), false).await.expect("moved");
            assert_eq!((moved.from, moved.to), (3 - to.0, to.0));
            assert_eq!(pair.nodes[at].engine.cluster().switch_over(Some(to), false).await.expect("is").from, to.0);
            until("deliveries go on", || sent.load(Ordering::SeqCst) > before + 5).await;
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(send(0), send(1), switch);
    let all = sent.load(Ordering::SeqCst);
    assert_eq!((pair.nodes[0].count().await, pair.nodes[1].count().await), (all, all));
    let unknown = pair.nodes[0].engine.cluster().switch_over(Some(NodeId(3)), false).await;
    assert!(matches!(unknown, Err(SubmitError::Unavailable(reason)) if reason.contains("not in sync")), "{unknown:?}");
}

/// What a node believed before it went away says nothing of who is the primary now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ha_20_a_returned_node_does_not_take_its_old_epoch_for_the_answer() {
    let mut pair = Pair::joint().await;
    pair.kill(0);
    pair.nodes[1].send(&message("alone")).await.expect("accepted");
    // Without a quorum nobody can heal: the old epoch stays what it knows.
    pair.restart_locked(0).await;
    until("the returned node has read its disk", || pair.nodes[0].status().home == 1).await;
    let switch = async |at: usize| pair.nodes[at].engine.cluster().switch_over(Some(NodeId(1)), false).await;
    let refused = switch(0).await;
    assert!(matches!(refused, Err(SubmitError::Unavailable(_))), "{refused:?}");
    assert_eq!(pair.nodes[1].status().home, 2, "the other one serves alone");
    let alone = pair.nodes[1].engine.cluster().switch_over(Some(NodeId(2)), false).await;
    assert_eq!(alone.map(|done| (done.from, done.to)), Ok((2, 2)), "who is the primary knows it alone, too");
    pair.register.set_quorum(true);
    pair.until_joint().await;
    assert_eq!(switch(0).await.map(|done| (done.from, done.to)), Ok((2, 1)));
}

/// What one order is answered says nothing of another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ha_20_of_two_orders_at_once_each_gets_its_own_answer() {
    let pair = Pair::joint().await;
    for round in 0..12 {
        let (home, other) = (pair.nodes[0].status().home, 3 - pair.nodes[0].status().home);
        let at = home as usize - 1;
        let order = async |to: u32| pair.nodes[at].engine.cluster().switch_over(Some(NodeId(to)), false).await;
        // The second one asks for what is there already, or for the same.
        let second = if round % 2 == 0 { home } else { other };
        let (moved, refused) = tokio::join!(order(other), order(second));
        assert_eq!(moved.map(|done| (done.from, done.to)), Ok((home, other)), "round {round}, beside {refused:?}");
        assert!(matches!(refused, Err(SubmitError::Unavailable(_))), "round {round}: {refused:?}");
        pair.until_joint().await;
        assert_eq!(pair.nodes[0].status().home, other, "round {round}");
    }
}

/// A disk that was rolled back (a snapshot of the machine, a restored folder) does not know of boots that were; ids of
/// commands must be new all the same, or a message would be taken for one that was delivered long ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_disk_repeats_no_command_id_and_loses_no_mail() {
    let mut pair = Pair::joint().await;
    let folder = tempfile::tempdir().expect("folder");
    let old = folder.path().join("mail");
    pair.nodes[1].store.checkpoint(&old).expect("a copy of the disk");
    pair.kill(1);
    pair.restart(1).await;
    pair.until_joint().await;
    for n in 0..3 {
        pair.nodes[1].send(&message(&format!("before {n}"))).await.expect("accepted");
    }
    pair.kill(1);
    // Boots are told apart by the second; whoever rolls a disk back takes longer than that.
    let boot = u64::from(pair.nodes[1].boot.0);
    let now = || std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    until("the clock is past the last boot", || now() > boot + 1).await;
    pair.nodes[1].store = store::Store::open(&old, pair::options(folder.path())).expect("the old disk");
    pair.restart(1).await;
    pair.until_joint().await;
    assert_eq!(pair.nodes[1].on_disk(), 3, "brought up to date");
    for n in 0..3 {
        pair.nodes[1].send(&message(&format!("after {n}"))).await.expect("accepted");
    }
    assert_eq!((pair.nodes[0].on_disk(), pair.nodes[1].on_disk()), (6, 6));
}
