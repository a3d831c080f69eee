//! Damage on one disk is found and brought back from the other node.

#[allow(dead_code, reason = "shared with other tests")]
mod pair;

use bytes::Bytes;
use pair::{ALICE, Pair, message, until};
use ports::blobs::Blobs as _;
use ports::mail_store::MailStore as _;
use vocab::{BlobHash, InlineBody, Rows, StoreWrite};

/// The account loses all rows but the first few, at the same version.
async fn lose_rows(store: &store::Store) {
    let rows = store.snapshot(ALICE);
    let some = store.export(&rows, None, 1).expect("rows");
    assert!(!some.is_empty());
    store.write(vec![StoreWrite::Stage { account: ALICE, rows: some, refs: Vec::new() }]).await;
    store.write(vec![StoreWrite::Switch { account: ALICE, head: rows.head(), past: Vec::new() }]).await;
}

fn digest_fits(rows: &dyn Rows) -> bool {
    mailbox::digest_of(rows).expect("rows") == rows.head().digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_rows_are_brought_back_on_either_node_while_mail_comes() {
    let pair = Pair::joint().await;
    for n in 0..5 {
        pair.nodes[0].send(&message(&format!("m{n}"))).await.expect("accepted");
    }
    for damaged in [1, 0] {
        let node = &pair.nodes[damaged];
        let before = node.on_disk();
        lose_rows(&node.store).await;
        assert!(!digest_fits(&*node.store.snapshot(ALICE)), "there is damage");
        let status = node.engine.check_now().await;
        assert_eq!((status.damaged, status.repaired, status.broken.len()), (1, 1, 0), "{status:?}");
        assert!(digest_fits(&*node.store.snapshot(ALICE)));
        assert_eq!(node.on_disk(), before);
        pair.nodes[0].send(&message("after")).await.expect("goes on");
        assert_eq!((pair.nodes[0].on_disk(), pair.nodes[1].on_disk()), (before + 1, before + 1));
    }
    let again = pair.nodes[0].engine.check_now().await;
    assert_eq!((again.damaged, again.repaired), (1, 1), "nothing is found twice");
    assert!(again.last_pass_ms.is_some() && again.accounts > 0 && again.bodies > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_body_is_brought_back_and_never_from_a_damaged_copy() {
    let mut pair = Pair::joint().await;
    let small = message("small");
    let large = Bytes::from([&b"Subject: large\r\n\r\n"[..], &b"0123456789\r\n".repeat(200_000)].concat());
    for body in [&small, &large] {
        pair.nodes[0].send(body).await.expect("accepted");
    }
    let damage = |hash, bytes: &'static [u8]| {
        vec![StoreWrite::RepairBody(InlineBody { hash, bytes: Bytes::from_static(bytes) })]
    };
    for (damaged, body) in [(0, &small), (1, &small), (0, &large), (1, &large)] {
        let (node, hash) = (&pair.nodes[damaged], BlobHash::of(body));
        node.store.write(damage(hash, b"wrong")).await;
        let before = node.engine.check_now().await;
        assert!(before.broken.is_empty() && before.repaired > 0, "{before:?}");
        assert_eq!(node.engine.blobs().get(hash, 0, u64::MAX).await.as_ref(), Ok(body));
    }
    // Both copies are damaged: it is said, and nothing is copied.
    let hash = BlobHash::of(&small);
    for node in &pair.nodes {
        node.store.write(damage(hash, b"bad")).await;
    }
    let status = pair.nodes[0].engine.check_now().await;
    assert_eq!(status.broken, [format!("body {hash}")]);
    let warnings = pair.nodes[0].status().warnings;
    assert!(warnings.iter().any(|text| text.contains("damaged on this node")), "{warnings:?}");
    // A sound copy turns up again.
    pair.nodes[1].store.write(vec![StoreWrite::RepairBody(InlineBody { hash, bytes: small.clone() })]).await;
    let status = pair.nodes[0].engine.check_now().await;
    assert!(status.broken.is_empty(), "{status:?}");
    // Alone, damage is kept listed until the other is back.
    pair.kill(1);
    until("alone", || pair.nodes[0].status().epoch_kind == "solo").await;
    lose_rows(&pair.nodes[0].store).await;
    let status = pair.nodes[0].engine.check_now().await;
    assert_eq!(status.broken, [format!("rows of account {}", ALICE.0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_stays_different_from_the_home_is_compared_anew() {
    let pair = Pair::joint().await;
    pair.nodes[0].send(&message("one")).await.expect("accepted");
    let resets = || pair.net.resets.load(std::sync::atomic::Ordering::SeqCst);
    for node in &pair.nodes {
        node.engine.check_now().await;
    }
    assert_eq!(resets(), 0, "equal nodes have nothing to compare anew");
    let home = usize::from(pair.nodes[0].status().home == 2);
    let backup = &pair.nodes[1 - home];
    // As if a batch had never been written there.
    let old = backup.store.snapshot(ALICE);
    let rows = backup.store.export(&old, None, usize::MAX).expect("rows");
    pair.nodes[0].send(&message("two")).await.expect("accepted");
    backup.store.write(vec![StoreWrite::Stage { account: ALICE, rows, refs: Vec::new() }]).await;
    backup.store.write(vec![StoreWrite::Switch { account: ALICE, head: old.head(), past: Vec::new() }]).await;
    pair.nodes[home].engine.check_now().await;
    assert_eq!(resets(), 0, "the home compares with nobody");
    backup.engine.check_now().await;
    assert_eq!(resets(), 1);
}
