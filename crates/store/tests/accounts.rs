//! Rows, heads, chains, stages, bodies: what was written is there, also after reopening.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use ports::mail_store::MailStore;
use store::Store;
use support::*;
use vocab::limits::{BLOB_CHUNK_BYTES, BLOB_ORPHAN_MS};
use vocab::{BlobHash, StoreWrite, Table};

const ROWS: Table = Table::PLACEMENTS;

#[tokio::test]
async fn written_state_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.head(ALICE).unwrap(), vocab::AccountHead::default());
    assert_eq!(value(&store, ALICE, ROWS, "a"), None);
    let rows = vec![row(ROWS, "a", "1"), row(ROWS, "b", "2"), row(Table::OUTCOMES, "o", "3")];
    write(&store, vec![account(ALICE, 1, rows, vec![])]).await;
    let gone = vocab::RowWrite { table: ROWS, key: Bytes::from_static(b"b"), value: None };
    let meta = StoreWrite::Meta { key: "epoch".into(), value: Some(Bytes::from_static(b"5")) };
    write(&store, vec![account(ALICE, 2, vec![gone], vec![]), meta]).await;
    write(&store, vec![account(BOB, 9, vec![row(ROWS, "a", "bob")], vec![])]).await;
    let check = |store: &Arc<Store>| {
        assert_eq!(value(store, ALICE, ROWS, "a").as_deref(), Some("1"));
        assert_eq!(value(store, ALICE, ROWS, "b"), None);
        assert_eq!(value(store, ALICE, Table::OUTCOMES, "o").as_deref(), Some("3"));
        assert_eq!(value(store, BOB, ROWS, "a").as_deref(), Some("bob"));
        assert_eq!(store.head(ALICE).unwrap(), head(2));
        assert_eq!(store.snapshot(ALICE).head(), head(2));
        assert_eq!(store.versions().unwrap(), [(ALICE, version(2)), (BOB, version(9))]);
        assert_eq!(versions(store, ALICE), [version(1), version(2)]);
        assert_eq!(store.meta("epoch").as_deref(), Some(&b"5"[..]));
        assert_eq!(store.meta("epo"), None);
    };
    check(&store);
    drop(store);
    check(&open(folder.path()));
}

#[tokio::test]
async fn a_snapshot_keeps_its_moment_and_outlives_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, vec![account(ALICE, 1, vec![row(ROWS, "a", "old")], vec![])]).await;
    let before = store.snapshot(ALICE);
    write(&store, vec![account(ALICE, 2, vec![row(ROWS, "a", "new")], vec![])]).await;
    let switch = StoreWrite::Switch { account: ALICE, head: head(3), past: Vec::new() };
    write(&store, vec![switch]).await;
    assert_eq!(value(&store, ALICE, ROWS, "a"), None);
    drop(store);
    assert_eq!((get(&before, ROWS, "a").as_deref(), before.head()), (Some("old"), head(1)));
}

#[tokio::test]
async fn scans_stay_within_bounds_table_and_account() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let rows = ["a", "b", "b1", "c"].map(|key| row(ROWS, key, "x")).to_vec();
    let beside = vec![row(Table(2), "z", "x"), row(Table(4), "a", "x"), row(Table::OUTCOMES, "a", "x")];
    write(&store, vec![account(ALICE, 1, [rows, beside].concat(), vec![])]).await;
    let rows = store.snapshot(ALICE);
    let all = (Bound::Unbounded, Bound::Unbounded);
    assert_eq!(scan(&rows, ROWS, all, false), ["a", "b", "b1", "c"]);
    assert_eq!(scan(&rows, ROWS, all, true), ["c", "b1", "b", "a"]);
    assert_eq!(scan(&rows, ROWS, (Bound::Excluded(b"b"), Bound::Included(b"c")), false), ["b1", "c"]);
    assert_eq!(scan(&rows, ROWS, (Bound::Included(b"b"), Bound::Excluded(b"c")), true), ["b1", "b"]);
    assert!(scan(&rows, ROWS, (Bound::Included(b"c"), Bound::Included(b"a")), false).is_empty());
    assert!(scan(&rows, ROWS, (Bound::Excluded(b"a"), Bound::Excluded(b"a")), false).is_empty());
    assert!(scan(&store.snapshot(BOB), ROWS, all, false).is_empty());
    let mut first = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        first.push(key.to_vec());
        std::ops::ControlFlow::Break(())
    };
    rows.scan(ROWS, all, false, visit).unwrap();
    assert_eq!(first, [b"a".to_vec()]);
}

#[tokio::test]
async fn export_gives_every_row_once_in_pieces_of_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let rows: Vec<_> =
        [1, 3, 16, 64, 65].iter().flat_map(|t| (0..7).map(|n| row(Table(*t), &format!("k{n}"), "value"))).collect();
    write(&store, vec![account(ALICE, 1, rows.clone(), vec![])]).await;
    let snapshot = store.snapshot(ALICE);
    for limit in [1, 100, 1 << 20] {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let piece = store.export(&snapshot, after.clone(), limit).unwrap();
            let Some(last) = piece.last() else { break };
            after = Some((last.table.0, last.key.clone()));
            all.extend(piece);
        }
        assert_eq!(all, rows, "limit {limit}");
    }
}

#[tokio::test]
async fn a_trimmed_chain_remembers_so_many_versions_before_the_agreed_one() {
    const OLD: u32 = 256;
    assert_eq!(u64::from(OLD), vocab::limits::OLD_VERSIONS_MAX);
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let number = |n: u32| vocab::Version(std::array::from_fn(|at| n.to_be_bytes()[at % 4]));
    let batch = |n: u32| match account(ALICE, 1, vec![], vec![]) {
        StoreWrite::Account(mut batch) => {
            batch.head.version = number(n);
            StoreWrite::Account(batch)
        }
        other => other,
    };
    let trim = |n: u32| StoreWrite::TrimChain { account: ALICE, agreed: number(n) };
    let kept = |from: u32, to: u32| (from..=to).map(number).collect::<Vec<_>>();
    for n in 1..=20 {
        write(&store, vec![batch(n)]).await;
    }
    write(&store, vec![trim(9_999)]).await;
    assert_eq!(versions(&store, ALICE), kept(1, 20), "an unknown version trims nothing");
    // As in joint operation: a batch and its trim in one write; sometimes several, or one without; a restart between.
    let mut last = 20;
    while last < 3 * OLD {
        let (first, second) = (last + 1, last + 2);
        write(&store, vec![batch(first), trim(last), batch(second), trim(first)]).await;
        last += 2;
        if last.is_multiple_of(101) {
            last += 1;
            write(&store, vec![batch(last)]).await;
            drop(store);
            store = open(folder.path());
        }
        let wanted = kept(first.saturating_sub(OLD).max(1), last);
        assert!(versions(&store, ALICE) == wanted, "at {last}");
    }
    // Behind a switch everything before it is gone.
    let switch = StoreWrite::Switch { account: ALICE, head: head(20), past: Vec::new() };
    write(&store, vec![batch(last + 1), switch, trim(last), account(ALICE, 21, vec![], vec![])]).await;
    assert_eq!(versions(&store, ALICE), [version(20), version(21)]);
    write(&store, vec![StoreWrite::TrimChain { account: ALICE, agreed: version(21) }]).await;
    assert_eq!(versions(&store, ALICE), [version(20), version(21)]);
}

#[tokio::test]
async fn a_stage_shows_only_after_its_switch_and_leaves_no_old_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, vec![account(ALICE, 1, vec![row(ROWS, "old", "1"), row(Table::OUTCOMES, "o", "1")], vec![])]).await;
    let stage = |account, key: &str| StoreWrite::Stage { account, rows: vec![row(ROWS, key, "2")], refs: vec![] };
    write(&store, vec![stage(ALICE, "new")]).await;
    write(&store, vec![stage(BOB, "first")]).await;
    assert_eq!(value(&store, ALICE, ROWS, "new"), None);
    write(&store, vec![account(ALICE, 2, vec![row(ROWS, "meanwhile", "1")], vec![])]).await;
    write(&store, vec![StoreWrite::Switch { account: ALICE, head: head(5), past: Vec::new() }]).await;
    write(&store, vec![StoreWrite::Switch { account: BOB, head: head(6), past: Vec::new() }]).await;
    let check = |store: &Arc<Store>| {
        let keys = scan(&store.snapshot(ALICE), ROWS, (Bound::Unbounded, Bound::Unbounded), false);
        assert_eq!(keys, ["new"]);
        assert_eq!(value(store, ALICE, Table::OUTCOMES, "o"), None);
        assert_eq!((store.head(ALICE).unwrap(), versions(store, ALICE)), (head(5), vec![version(5)]));
        assert_eq!(value(store, BOB, ROWS, "first").as_deref(), Some("2"));
    };
    check(&store);
    drop(store);
    check(&open(folder.path()));
}

#[tokio::test]
async fn a_stage_cut_off_by_a_crash_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, vec![account(ALICE, 1, vec![row(ROWS, "old", "1")], vec![])]).await;
    let stage = |key: &str| StoreWrite::Stage { account: ALICE, rows: vec![row(ROWS, key, "2")], refs: vec![] };
    write(&store, vec![stage("half")]).await;
    let store = {
        drop(store);
        open(folder.path())
    };
    assert_eq!(value(&store, ALICE, ROWS, "old").as_deref(), Some("1"));
    write(&store, vec![stage("abandoned"), StoreWrite::Unstage { account: ALICE }]).await;
    write(&store, vec![stage("whole")]).await;
    write(&store, vec![StoreWrite::Switch { account: ALICE, head: head(4), past: Vec::new() }]).await;
    assert_eq!(scan(&store.snapshot(ALICE), ROWS, (Bound::Unbounded, Bound::Unbounded), false), ["whole"]);
}

/// A body of a size that ends within a chunk, with bytes that do not repeat chunk by chunk.
fn large_body() -> Bytes {
    let bytes = |n: u32| BlobHash::of(&n.to_be_bytes()).0;
    let mut body: Vec<u8> = (0..u32::try_from(2 * BLOB_CHUNK_BYTES / 32).unwrap()).flat_map(bytes).collect();
    body.extend(b"the end");
    Bytes::from(body)
}

fn chunk(body: &Bytes, index: u32) -> StoreWrite {
    let start = usize::try_from(index).unwrap() * BLOB_CHUNK_BYTES;
    let bytes = body.slice(start..(start + BLOB_CHUNK_BYTES).min(body.len()));
    StoreWrite::BlobChunk { hash: BlobHash::of(body), index, total: body.len() as u64, bytes }
}

#[tokio::test]
async fn a_large_body_is_here_only_when_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let body = large_body();
    let hash = BlobHash::of(&body);
    write(&store, vec![chunk(&body, 2)]).await;
    write(&store, vec![chunk(&body, 0)]).await;
    assert!(!store.has_blob(hash));
    assert_eq!(store.blob(hash, 0, 10), None);
    let store = {
        drop(store);
        open(folder.path())
    };
    assert!(!store.has_blob(hash));
    write(&store, vec![chunk(&body, 1)]).await;
    assert!(store.has_blob(hash) && store.is_blob_sound(hash));
    assert_eq!(store.blob_size(hash), Some(body.len() as u64));
    assert_eq!(store.blob(hash, 0, u64::MAX).as_ref(), Some(&body));
    let (from, to) = (BLOB_CHUNK_BYTES - 3, 2 * BLOB_CHUNK_BYTES + 3);
    assert_eq!(store.blob(hash, from as u64, to as u64), Some(body.slice(from..to)));
    assert_eq!(store.blob(hash, u64::MAX, 3), Some(Bytes::new()));
}

#[tokio::test]
async fn a_chunk_of_the_wrong_size_or_hash_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let hash = BlobHash::of(b"right");
    let wrong = |bytes: &'static [u8], total| StoreWrite::BlobChunk { hash, index: 0, total, bytes: bytes.into() };
    write(&store, vec![wrong(b"short", 9)]).await;
    assert!(!store.has_blob(hash));
    write(&store, vec![wrong(b"wrong", 5)]).await;
    assert!(store.has_blob(hash) && !store.is_blob_sound(hash));
}

#[tokio::test]
async fn bodies_are_deleted_a_day_after_their_last_reference() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let store = Store::open(folder.path(), options(&clock).0).unwrap();
    let (kept, kept_body) = body(b"kept");
    let (unnamed, unnamed_body) = body(&vec![b'x'; 60_000]);
    let (archived, archived_body) = body(b"archived");
    let large = large_body();
    let refs = vec![reference(kept, 1, true), reference(kept, 2, true)];
    write(&store, vec![kept_body, account(ALICE, 1, vec![], refs)]).await;
    let (branch, key, value) = ("b1".to_owned(), Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    write(&store, vec![archived_body, StoreWrite::Archive { branch, key, value, refs: vec![archived] }]).await;
    write(&store, vec![unnamed_body, chunk(&large, 0), chunk(&large, 1), chunk(&large, 2)]).await;
    clock.advance(BLOB_ORPHAN_MS - 1);
    assert_eq!(store.sweep().await, 0);
    clock.advance(1);
    assert_eq!(store.sweep().await, 2);
    assert!(!store.has_blob(unnamed) && !store.has_blob(BlobHash::of(&large)));
    write(&store, vec![account(ALICE, 2, vec![], vec![reference(kept, 1, false)])]).await;
    clock.advance(BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 0, "one reference is left");
    write(&store, vec![account(ALICE, 3, vec![], vec![reference(kept, 2, false)])]).await;
    assert_eq!(store.sweep().await, 0, "too young");
    clock.advance(BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 1);
    assert!(!store.has_blob(kept) && store.has_blob(archived));
    assert_eq!(store.branches(), ["b1"]);
}

#[tokio::test]
async fn a_body_somebody_asked_for_is_not_swept_away_under_him() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let store = Store::open(folder.path(), options(&clock).0).unwrap();
    let (hash, part) = body(b"body");
    write(&store, vec![part]).await;
    clock.advance(2 * BLOB_ORPHAN_MS);
    assert!(store.has_blob(hash));
    assert_eq!(store.sweep().await, 0);
    clock.advance(BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 1);
}

#[tokio::test]
async fn references_of_a_dropped_generation_hold_no_body() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let store = Store::open(folder.path(), options(&clock).0).unwrap();
    let ((old, old_body), (new, new_body)) = (body(b"old"), body(b"new"));
    write(&store, vec![old_body, account(ALICE, 1, vec![], vec![reference(old, 1, true)])]).await;
    let stage = StoreWrite::Stage { account: ALICE, rows: vec![], refs: vec![reference(new, 2, true)] };
    write(&store, vec![new_body, stage]).await;
    clock.advance(BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 0, "the stage needs it");
    write(&store, vec![StoreWrite::Switch { account: ALICE, head: head(2), past: Vec::new() }]).await;
    assert_eq!(store.sweep().await, 0, "the old body lost its last reference only now");
    clock.advance(BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 1);
    assert!(store.has_blob(new) && !store.has_blob(old));
}

#[tokio::test]
async fn branches_are_listed_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(store.branches().is_empty());
    for (branch, key) in [("b-2", "1"), ("b-1", "1"), ("b-1", "2"), ("b-10", "1")] {
        let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::new());
        write(&store, vec![StoreWrite::Archive { branch: branch.into(), key, value, refs: vec![] }]).await;
    }
    assert_eq!(store.branches(), ["b-1", "b-10", "b-2"]);
}

#[tokio::test]
async fn an_archived_branch_goes_with_its_bodies_after_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let store = Store::open(folder.path(), options(&clock).0).unwrap();
    let ((old, old_body), (shared, shared_body)) = (body(b"only in the old branch"), body(b"in both branches"));
    let archive = |branch: &str, n: u32, refs: Vec<BlobHash>| StoreWrite::Archive {
        branch: branch.into(),
        key: Bytes::copy_from_slice(&n.to_be_bytes()),
        value: Bytes::from_static(b"row"),
        refs,
    };
    // More rows than one step of the sweep takes; the second branch's name begins with the first one's.
    let mut parts: Vec<_> = (1..2500).map(|n| archive("b-1", n, vec![])).collect();
    parts.extend([old_body, shared_body, archive("b-1", 0, vec![old, shared])]);
    write(&store, parts).await;
    clock.advance(1);
    write(&store, vec![archive("b-10", 0, vec![shared])]).await;
    clock.advance(store::BRANCH_KEEP_MS - 2);
    assert_eq!((store.sweep().await, store.branches()), (0, vec!["b-1".to_owned(), "b-10".to_owned()]));
    let store = {
        drop(store);
        Store::open(folder.path(), options(&clock).0).unwrap()
    };
    clock.advance(1);
    assert_eq!((store.sweep().await, store.branches()), (0, vec!["b-10".to_owned()]), "bodies have a day more");
    clock.advance(1);
    write(&store, vec![archive("b-10", 1, vec![])]).await;
    clock.advance(BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 1);
    assert!(!store.has_blob(old) && store.has_blob(shared));
    assert_eq!(store.branches(), ["b-10"], "its last row is young");
    clock.advance(store::BRANCH_KEEP_MS);
    store.sweep().await;
    assert!(store.branches().is_empty());
    clock.advance(BLOB_ORPHAN_MS);
    store.sweep().await;
    assert!(!store.has_blob(shared));
}

#[tokio::test]
async fn an_archived_branch_is_measured_and_dropped_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let store = Store::open(folder.path(), options(&clock).0).unwrap();
    clock.advance(5);
    let ((one, one_body), (two, two_body)) = (body(b"one"), body(b"second"));
    let archive = |branch: &str, key: &'static [u8], refs: Vec<BlobHash>| StoreWrite::Archive {
        branch: branch.into(),
        key: Bytes::from_static(key),
        value: Bytes::from_static(b"row"),
        refs,
    };
    write(&store, vec![one_body, two_body, archive("b-1", b"a", vec![one]), archive("b-1", b"b", vec![one, two])])
        .await;
    write(&store, vec![archive("b-10", b"a", vec![two])]).await;
    let measured = store.branch("b-1").unwrap().expect("a branch");
    assert_eq!((measured.name.as_str(), measured.written_ms, measured.bodies), ("b-1", 5, 2));
    let other = store.branch("b-10").unwrap().expect("a branch");
    assert!(measured.bytes > other.bytes + 3 && other.bytes > 6, "{measured:?} {other:?}");
    assert_eq!(store.branch("b-2").unwrap(), None);
    write(&store, vec![StoreWrite::DropBranch { branch: "b-1".into() }]).await;
    assert_eq!((store.branch("b-1").unwrap(), store.branches()), (None, vec!["b-10".to_owned()]), "at once");
    store.sweep().await;
    clock.advance(BLOB_ORPHAN_MS);
    store.sweep().await;
    assert!(!store.has_blob(one) && store.has_blob(two), "what the other needs stays");
    // The same state may be put aside once more.
    let (again, again_body) = body(b"one");
    write(&store, vec![again_body, archive("b-1", b"a", vec![again])]).await;
    assert_eq!(store.branches(), ["b-1", "b-10"]);
    assert_eq!(store.branch("b-1").unwrap().map(|branch| branch.bodies), Some(1));
}

#[tokio::test]
async fn sound_rows_take_the_place_of_damaged_ones_only_at_the_same_version() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let rows = vec![row(Table::MAILBOXES, "a", "old"), row(Table::MAILBOXES, "b", "old")];
    write(&store, vec![account(ALICE, 1, rows, vec![])]).await;
    write(&store, vec![account(ALICE, 2, vec![row(Table::MAILBOXES, "a", "new")], vec![])]).await;
    let stage =
        |value: &str| StoreWrite::Stage { account: ALICE, rows: vec![row(Table::MAILBOXES, "a", value)], refs: vec![] };
    let swap = |n: u8| StoreWrite::SwapStage { account: ALICE, version: version(n), digest: 9 };
    // The account moved on meanwhile: nothing changes and nothing is left.
    write(&store, vec![stage("stale")]).await;
    write(&store, vec![account(ALICE, 3, vec![row(Table::MAILBOXES, "c", "x")], vec![]), swap(2)]).await;
    assert_eq!(value(&store, ALICE, Table::MAILBOXES, "a").as_deref(), Some("new"));
    write(&store, vec![swap(3)]).await;
    assert_eq!(value(&store, ALICE, Table::MAILBOXES, "a").as_deref(), Some("new"), "there is no stage");
    write(&store, vec![stage("sound")]).await;
    write(&store, vec![swap(3), account(ALICE, 4, vec![row(Table::MAILBOXES, "d", "y")], vec![])]).await;
    let get = |key: &str| value(&store, ALICE, Table::MAILBOXES, key);
    assert_eq!((get("a").as_deref(), get("b"), get("d").as_deref()), (Some("sound"), None, Some("y")));
    assert_eq!(versions(&store, ALICE), [1, 2, 3, 4].map(version), "the chain stays");
    drop(store);
    let store = open(folder.path());
    assert_eq!(value(&store, ALICE, Table::MAILBOXES, "a").as_deref(), Some("sound"));
    assert_eq!(store.head(ALICE).unwrap().version, version(4));
}

#[tokio::test]
async fn bodies_that_something_names_are_found_and_a_damaged_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let large = vec![b'x'; 3 * 1024 * 1024];
    let mut hashes = Vec::new();
    for (n, bytes) in [&b"one"[..], b"two", b"three", &large].into_iter().enumerate() {
        let hash = BlobHash::of(bytes);
        let body = vocab::InlineBody { hash, bytes: Bytes::copy_from_slice(bytes) };
        let n = u8::try_from(n).unwrap() + 1;
        let refs = vec![reference(hash, u64::from(n), true), reference(hash, u64::from(n) + 100, true)];
        write(&store, vec![StoreWrite::RepairBody(body), account(ALICE, n, vec![], refs)]).await;
        hashes.push(hash);
    }
    let (nobodys, part) = body(b"nobody's");
    write(&store, vec![part]).await;
    let mut found = Vec::new();
    loop {
        let page = store.named_blobs(found.last().copied(), 3).unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert!(found.is_sorted() && !found.contains(&nobodys));
    assert_eq!(found.iter().collect::<std::collections::BTreeSet<_>>(), hashes.iter().collect());
    for (hash, bytes) in hashes.iter().zip([&b"one"[..], b"two", b"three", &large]) {
        let wrong = vocab::InlineBody { hash: *hash, bytes: Bytes::from_static(b"wrong") };
        assert!(store.is_blob_sound(*hash));
        write(&store, vec![StoreWrite::RepairBody(wrong)]).await;
        assert!(!store.is_blob_sound(*hash));
        let right = vocab::InlineBody { hash: *hash, bytes: Bytes::copy_from_slice(bytes) };
        write(&store, vec![StoreWrite::RepairBody(right)]).await;
        assert!(store.is_blob_sound(*hash));
    }
    assert!(!store.is_blob_sound(BlobHash::of(b"absent")));
}
