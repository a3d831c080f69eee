//! A new node's store begins from another's checkpoint: only what is whole comes along, nothing of it is a state, and it
//! goes when the account gets one.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ports::mail_store::MailStore;
use store::{Foreign, RowRules, SeedWriter, families, keys};
use support::*;
use vocab::limits::BLOB_ORPHAN_MS;
use vocab::{AccountBatch, AccountHead, AccountId, BlobHash, BlobRef, RowWrite, StoreWrite, Table, Version};

const ROWS: Table = Table::PLACEMENTS;
const CAROL: AccountId = AccountId(18);

/// A row counts by its length; the value of a placement is the hash of its body.
const RULES: RowRules = RowRules {
    digest: |row| row.value.as_ref().map_or(0, |value| 1 + value.len() as u128),
    blob_ref: |row| {
        let hash = BlobHash::from_bytes(row.value.as_ref()?)?;
        Some(BlobRef { hash, placement: placement(u64::from(*row.key.first()?)), present: true })
    },
};

fn mail(who: AccountId, bodies: &[&[u8]]) -> Vec<StoreWrite> {
    let hashes: Vec<BlobHash> = bodies.iter().map(|body| BlobHash::of(body)).collect();
    let row = |(n, hash): (usize, &BlobHash)| RowWrite {
        table: ROWS,
        key: Bytes::from(vec![n as u8]),
        value: Some(Bytes::copy_from_slice(&hash.0)),
    };
    let rows: Vec<RowWrite> = hashes.iter().enumerate().map(row).collect();
    let refs = rows.iter().filter_map(RULES.blob_ref).collect();
    let digest = rows.iter().map(RULES.digest).sum();
    let head = AccountHead { digest, ..head(1) };
    let batch = AccountBatch { account: who, expected: Version::default(), head, rows, refs, undo: Vec::new() };
    bodies.iter().map(|bytes| body(bytes).1).chain([StoreWrite::Account(batch)]).collect()
}

fn damage(folder: &Path, spoil: impl Fn(&rocksdb::DB)) {
    let names = families::descriptors(1 << 20);
    spoil(&rocksdb::DB::open_cf_descriptors(&families::database_options(), folder, names).unwrap());
}

/// What of a checkpoint came along: accounts, bodies taken, bodies left out.
fn seed(from: &Path, to: &Path) -> (Vec<AccountId>, usize, usize) {
    let (source, writer) = (Foreign::open(from).unwrap(), SeedWriter::create(to).unwrap());
    let (mut whole, mut taken, mut left) = (Vec::new(), 0, 0);
    for (account, _) in source.accounts().0 {
        let Ok(bodies) = writer.put_account(account, &*source.snapshot(account), RULES).unwrap() else { continue };
        whole.push(account);
        for hash in bodies {
            if writer.put_body(&source, hash).unwrap() { taken += 1 } else { left += 1 }
        }
    }
    writer.finish().unwrap();
    whole.sort_unstable();
    (whole, taken, left)
}

#[tokio::test]
async fn ha_12_a_seed_is_no_state_and_carries_only_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (first, copy, second) = (folder.path().join("1"), folder.path().join("copy"), folder.path().join("2"));
    let store = open(&first);
    let large = vec![7u8; 3 << 20];
    write(&store, mail(ALICE, &[b"one", &large])).await;
    write(&store, mail(BOB, &[b"two", b"three"])).await;
    write(&store, mail(CAROL, &[b"four"])).await;
    let own = StoreWrite::Meta { key: "replica".into(), value: Some(Bytes::from_static(b"epoch")) };
    let branch = StoreWrite::Archive {
        branch: "b".into(),
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        refs: vec![BlobHash::of(b"one")],
    };
    write(&store, vec![own, branch]).await;
    store.checkpoint(&copy).unwrap();
    drop(store);
    let two = BlobHash::of(b"two");
    damage(&copy, |db| {
        db.put_cf(families::family(db, families::BLOBS), two.0, b"\x01tw0").unwrap();
        let key = keys::row(CAROL, 1, ROWS, &[9]);
        db.put_cf(families::family(db, families::ROWS), key, b"more").unwrap();
    });
    assert_eq!(seed(&copy, &second), (vec![ALICE, BOB], 3, 1));
    let clock = Clock::default();
    let open_second = || store::Store::open(&second, options(&clock).0).unwrap();
    let store = open_second();
    assert_eq!(store.versions().unwrap(), []);
    assert_eq!((store.meta("replica"), store.meta("boot"), store.branches()), (None, None, Vec::new()));
    assert!(store.chain(ALICE).unwrap().is_empty());
    for account in [ALICE, BOB, CAROL] {
        assert_eq!(store.head(account).unwrap(), AccountHead::default());
        assert_eq!(value(&store, account, ROWS, "\0"), None);
    }
    assert!(store.seed(CAROL).is_none(), "its rows are not what its head says");
    assert!(!store.has_blob(two) && store.is_blob_sound(BlobHash::of(&large)));
    // References of seeds keep bodies.
    clock.advance(2 * BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 0);
    let rows = store.seed(ALICE).unwrap();
    assert_eq!((rows.head().version, store.export(&rows, None, 1 << 20).unwrap().len()), (version(1), 2));
    // A transfer, begun twice.
    let hash = BlobHash::of(b"one");
    let staged = RowWrite { table: ROWS, key: Bytes::from_static(b"x"), value: Some(Bytes::copy_from_slice(&hash.0)) };
    let refs = vec![reference(hash, 1, true)];
    write(&store, vec![StoreWrite::Stage { account: ALICE, rows: vec![staged.clone()], refs: refs.clone() }]).await;
    drop((rows, store));
    let store = open_second();
    assert_eq!(store.seed(ALICE).unwrap().head().version, version(1), "a restart leaves the seed");
    write(&store, vec![StoreWrite::Stage { account: ALICE, rows: vec![staged], refs }]).await;
    assert_eq!(store.export(&store.staged(ALICE, head(5)), None, 1 << 20).unwrap().len(), 1);
    write(&store, vec![StoreWrite::Switch { account: ALICE, head: head(5), past: Vec::new() }]).await;
    assert!(store.seed(ALICE).is_none());
    assert_eq!(store.export(&store.snapshot(ALICE), None, 1 << 20).unwrap().len(), 1);
    // An account that was made anew by a batch has nothing of its seed.
    write(&store, vec![account(BOB, 6, vec![row(ROWS, "y", "1")], vec![])]).await;
    assert_eq!(store.export(&store.snapshot(BOB), None, 1 << 20).unwrap().len(), 1);
    assert!(store.seed(BOB).is_none());
    store.sweep().await;
    clock.advance(2 * BLOB_ORPHAN_MS);
    assert_eq!(
        store.sweep().await,
        3,
        "what nobody names any more: the large body, both of Bob's, one of which never came"
    );
    assert!(store.has_blob(hash));
}

#[tokio::test]
async fn seeds_nobody_took_are_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    let store = open(&first);
    write(&store, mail(ALICE, &[b"one"])).await;
    drop(store);
    assert_eq!(seed(&first, &second), (vec![ALICE], 1, 0), "a store that is not in use is read as it is");
    let clock = Clock::default();
    let store: Arc<store::Store> = store::Store::open(&second, options(&clock).0).unwrap();
    assert!(SeedWriter::create(&second).is_err());
    store.drop_seeds();
    write(&store, Vec::new()).await;
    assert!(store.seed(ALICE).is_none());
    store.sweep().await;
    clock.advance(2 * BLOB_ORPHAN_MS);
    assert_eq!(store.sweep().await, 1);
    drop(store);
    assert!(open(&second).seed(ALICE).is_none());
}
