//! A node that was away is given what differs, and its disk is then as if it had been there; what cannot be given so is
//! given whole.

#[allow(dead_code, reason = "shared with other tests")]
mod pair;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mailbox::op::{AccountOp, FlagMode, Outcome, Role};
use pair::{ALICE, Node, Pair, message, until};
use ports::accounts::Accounts as _;
use ports::cluster::Cluster as _;
use ports::mail_store::MailStore as _;
use vocab::limits::PAST_BYTES_MAX;
use vocab::{AccountId, BlobHash, Flags, MailboxId, PlacementId, StoreWrite, SubmitError, SystemFlag, Table};

/// Less than fits into a frame.
const DOCUMENT_BYTES: usize = 512 * 1024;

fn inbox(node: &Node) -> MailboxId {
    let rows = node.store.snapshot(ALICE);
    mailbox::read::mailbox_by_role(&*rows, Role::Inbox).expect("rows").expect("INBOX").id
}

fn ids(node: &Node) -> Vec<PlacementId> {
    let rows = node.store.snapshot(ALICE);
    let all = mailbox::read::placements(&*rows, inbox(node), mailbox::read::all_uids()).expect("rows");
    all.into_iter().map(|placement| placement.id).collect()
}

async fn change(node: &Node, op: AccountOp) {
    let accounts = node.engine.accounts();
    let done = accounts.submit(ALICE, accounts.command_id(), op).await.expect("done");
    assert!(!matches!(done, Outcome::Refused(_)), "{done:?}");
}

fn named(node: &Node) -> BTreeSet<BlobHash> {
    node.store.named_blobs(None, 10_000).expect("names").into_iter().collect()
}

fn large(n: u8) -> Bytes {
    Bytes::from([&b"Subject: large\r\n\r\n"[..], &[b'a' + n; 100_000]].concat())
}

/// The pair has mail; the second node is away while the first goes on.
async fn parted() -> Pair {
    let mut pair = Pair::joint().await;
    for n in 0..6 {
        pair.nodes[0].send(&message(&format!("before {n}"))).await.expect("accepted");
    }
    pair.kill(1);
    until("alone", || pair.nodes[0].status().epoch_kind == "solo").await;
    let (node, at) = (&pair.nodes[0], inbox(&pair.nodes[0]));
    node.send(&message("meanwhile")).await.expect("accepted");
    node.send(&large(0)).await.expect("accepted");
    let all = ids(node);
    let flags = Flags::of(&[SystemFlag::Seen]);
    let (mode, unchanged_since) = (FlagMode::Add, None);
    change(node, AccountOp::Store { mailbox: at, placements: all[..2].to_vec(), mode, flags, unchanged_since }).await;
    let placements = all[2..4].to_vec();
    change(node, AccountOp::Expunge { mailbox: at, placements, only_deleted: false }).await;
    let rows = node.store.snapshot(ALICE);
    let trash = mailbox::read::mailbox_by_role(&*rows, Role::Trash).expect("rows").expect("Trash").id;
    change(node, AccountOp::Move { from: at, to: trash, placements: all[4..5].to_vec() }).await;
    pair
}

async fn check_equal(pair: &Pair) {
    let [here, there] = [&pair.nodes[0], &pair.nodes[1]];
    let (mine, theirs) = (here.store.snapshot(ALICE), there.store.snapshot(ALICE));
    assert_eq!(mine.head(), theirs.head());
    let all = |node: &Node, rows| node.store.export(rows, None, usize::MAX).expect("rows");
    assert_eq!(all(here, &mine), all(there, &theirs));
    assert_eq!(mailbox::digest_of(&*theirs).expect("rows"), theirs.head().digest);
    // References of rows that were replaced whole are left to the sweep.
    there.store.sweep().await;
    assert_eq!(named(here), named(there), "the same bodies are held by something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_is_given_what_differs_and_the_chain() {
    let mut pair = parted().await;
    pair.restart(1).await;
    pair.until_joint().await;
    let seen = &pair.nodes[1].seen;
    assert_eq!((seen.advances.load(Ordering::SeqCst), seen.switches.load(Ordering::SeqCst)), (1, 0));
    check_equal(&pair).await;
    let past = |node: &Node| node.store.past(ALICE, None, PAST_BYTES_MAX).expect("chain");
    let (mine, theirs) = (past(&pair.nodes[0]), past(&pair.nodes[1]));
    assert!(mine.as_ref().is_some_and(|links| links.len() > 5 && links.iter().any(|link| link.undo.is_some())));
    assert_eq!(mine, theirs);
    // Both go on from it.
    pair.nodes[1].send(&message("after")).await.expect("accepted");
    check_equal(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_that_does_not_fit_what_is_here_is_not_taken() {
    let mut pair = parted().await;
    // A row the difference touches is not what it was: the placement whose flags change.
    let store = &pair.nodes[1].store;
    let rows = store.snapshot(ALICE);
    let past = store.past(ALICE, None, PAST_BYTES_MAX).expect("chain").expect("chain");
    let mut all = store.export(&rows, None, usize::MAX).expect("rows");
    let first = all.iter_mut().find(|row| row.table == Table::PLACEMENTS).expect("a message");
    first.value = Some(Bytes::from_static(b"damaged"));
    store.write(vec![StoreWrite::Stage { account: ALICE, rows: all, refs: Vec::new() }]).await;
    store.write(vec![StoreWrite::Switch { account: ALICE, head: rows.head(), past }]).await;
    pair.restart(1).await;
    pair.until_joint().await;
    let seen = &pair.nodes[1].seen;
    assert_eq!((seen.advances.load(Ordering::SeqCst), seen.switches.load(Ordering::SeqCst)), (0, 1));
    check_equal(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_batch_may_hold_is_given_whole() {
    let mut pair = Pair::joint().await;
    pair.nodes[0].send(&message("before")).await.expect("accepted");
    pair.kill(1);
    until("alone", || pair.nodes[0].status().epoch_kind == "solo").await;
    // The undo rows of all of them are more than is given.
    let document = |n: usize| AccountOp::SetDocument {
        kind: "sieve".into(),
        name: "a".into(),
        body: Some(Bytes::from(vec![b'0' + u8::try_from(n % 10).expect("a digit"); DOCUMENT_BYTES])),
    };
    for n in 0..PAST_BYTES_MAX / DOCUMENT_BYTES + 4 {
        change(&pair.nodes[0], document(n)).await;
    }
    pair.nodes[0].send(&message("last")).await.expect("accepted");
    pair.restart(1).await;
    pair.until_joint().await;
    let seen = &pair.nodes[1].seen;
    assert_eq!((seen.advances.load(Ordering::SeqCst), seen.switches.load(Ordering::SeqCst)), (0, 1));
    check_equal(&pair).await;
    let past = pair.nodes[1].store.past(ALICE, None, usize::MAX).expect("chain").expect("chain");
    assert!(past.len() > 10 && past[0].undo.is_none() && past[1..].iter().all(|link| link.undo.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_a_client_asks_for_is_merged_before_others() {
    const ACCOUNTS: u64 = 100;
    let mut pair = Pair::joint().await;
    let all: Vec<AccountId> = (1_000..1_000 + ACCOUNTS).map(AccountId).collect();
    // Ids are looked at in order, so without a client this one would be the last.
    let last = *all.last().expect("an account");
    let touch = async |node: &Node, op: &dyn Fn() -> AccountOp| {
        for account in &all {
            let accounts = node.engine.accounts();
            accounts.submit(*account, accounts.command_id(), op()).await.expect("done");
        }
    };
    let create = |name: &'static str| move || AccountOp::CreateMailbox { name: name.into(), role: None };
    touch(&pair.nodes[0], &|| AccountOp::Init).await;
    pair.kill(1);
    until("alone", || pair.nodes[0].status().epoch_kind == "solo").await;
    touch(&pair.nodes[0], &create("first side")).await;
    pair.kill(0);
    pair.restart_locked(1).await;
    // Asked too early it says so.
    while let Err(said) = pair.nodes[1].engine.cluster().start_alone().await {
        assert!(matches!(said, SubmitError::Unavailable(_)), "{said}");
        tokio::task::yield_now().await;
    }
    until("alone too", || pair.nodes[1].status().epoch_kind == "solo").await;
    touch(&pair.nodes[1], &create("second side")).await;
    pair.net.held.store(true, Ordering::SeqCst);
    pair.restart(0).await;
    let anchor = || pair.nodes.iter().position(|n| n.status().sync.is_some_and(|sync| sync.accounts_left >= ACCOUNTS));
    until("they have compared", || anchor().is_some()).await;
    let anchor = anchor().expect("an anchor");
    pair.nodes[anchor].engine.accounts().snapshot(last).await.expect("the anchor serves");
    pair.net.held.store(false, Ordering::SeqCst);
    pair.until_joint().await;
    let order = pair.nodes[1 - anchor].seen.order.lock().expect("order").clone();
    let order: Vec<AccountId> = order.into_iter().filter(|account| all.contains(account)).collect();
    assert_eq!(order.len(), all.len(), "each once");
    let at = order.iter().position(|account| *account == last).expect("merged");
    assert!(at < 40, "the account a client waits for came as number {at}");
    for node in &pair.nodes {
        let rows = node.engine.accounts().snapshot(last).await.expect("readable");
        for name in ["first side", "second side"] {
            assert!(mailbox::read::mailbox_by_name(&*rows, name).expect("rows").is_some(), "{name}");
        }
    }
    // What the other side had is archived there, and can be deleted.
    let cluster = pair.nodes[1 - anchor].engine.cluster();
    let branches = cluster.branches().await.expect("readable");
    let mine = branches.iter().find(|branch| branch.account == last.0).expect("a branch");
    assert!(branches.len() as u64 >= ACCOUNTS && mine.bytes > 0 && mine.expires_ms > mine.archived_ms);
    assert_eq!(cluster.delete_branch(mine.id.clone()).await, Ok(true));
    assert_eq!(cluster.delete_branch(mine.id.clone()).await, Ok(false));
    assert!(!cluster.branches().await.expect("readable").contains(mine));
}
