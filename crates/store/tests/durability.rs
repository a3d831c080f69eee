//! What survives a crash, what is refused, and who shares a sync.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ports::mail_store::MailStore;
use store::{OpenError, Store, families, keys};
use support::*;
use vocab::Table;

const ROWS: Table = Table::PLACEMENTS;

/// The log RocksDB writes to, found by its name's number.
fn newest_log(folder: &Path) -> PathBuf {
    let logs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    logs.filter(|path| path.extension().is_some_and(|e| e == "log")).max().expect("a log")
}

async fn write_rows(folder: &Path, count: u8) {
    let store = open(folder);
    for n in 1..=count {
        let filling = "x".repeat(1000);
        write(&store, vec![account(ALICE, n, vec![row(ROWS, &format!("k{n}"), &filling)], vec![])]).await;
    }
}

fn refused(folder: &Path) -> OpenError {
    match Store::open(folder, options(&Clock::default()).0) {
        Ok(_) => panic!("must be refused"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn concurrent_writers_share_syncs_and_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let before = store.synced_writes();
    let writes: Vec<_> = (0..200u8)
        .map(|n| store.write(vec![account(ALICE, n, vec![row(ROWS, &format!("k{n}"), "v")], vec![])]))
        .collect();
    for write in writes {
        tokio::time::timeout(Duration::from_secs(20), write).await.expect("answered");
    }
    let syncs = store.synced_writes() - before;
    assert!((1..200).contains(&syncs), "200 writes took {syncs} syncs");
    assert_eq!(store.head(ALICE).unwrap(), head(199), "in call order");
    drop(store);
    let store = open(folder.path());
    assert_eq!(versions(&store, ALICE).len(), 200);
    assert_eq!(value(&store, ALICE, ROWS, "k123").as_deref(), Some("v"));
}

#[tokio::test]
async fn a_torn_end_of_the_log_loses_only_the_torn_write() {
    let folder = tempfile::tempdir().unwrap();
    write_rows(folder.path(), 10).await;
    let log = newest_log(folder.path());
    let length = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length - 7).unwrap();
    let store = open(folder.path());
    assert_eq!(store.head(ALICE).unwrap(), head(9));
    assert!(value(&store, ALICE, ROWS, "k9").is_some());
    assert_eq!(value(&store, ALICE, ROWS, "k10"), None);
}

#[tokio::test]
async fn damage_in_the_middle_of_the_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_rows(folder.path(), 10).await;
    let log = newest_log(folder.path());
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&log, bytes).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
}

#[tokio::test]
async fn an_unknown_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    write_rows(folder.path(), 1).await;
    rewrite_format(folder.path(), b"twinpost-store-9");
    for _ in 0..2 {
        let error = refused(folder.path());
        assert!(matches!(&error, OpenError::Format { found, .. } if found == "twinpost-store-9"), "{error}");
        assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    }
    rewrite_format(folder.path(), store::FORMAT_VERSION);
    assert_eq!(open(folder.path()).head(ALICE).unwrap(), head(1));
}

fn rewrite_format(folder: &Path, format: &[u8]) {
    let names = families::descriptors(1 << 20);
    let db = rocksdb::DB::open_cf_descriptors(&families::database_options(), folder, names).unwrap();
    db.put_cf(families::family(&db, families::META), keys::FORMAT, format).unwrap();
}

#[tokio::test]
async fn rows_without_a_format_record_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_rows(folder.path(), 1).await;
    let names = families::descriptors(1 << 20);
    let db = rocksdb::DB::open_cf_descriptors(&families::database_options(), folder.path(), names).unwrap();
    db.delete_cf(families::family(&db, families::META), keys::FORMAT).unwrap();
    drop(db);
    assert!(matches!(refused(folder.path()), OpenError::Format { .. }));
}

#[tokio::test]
async fn a_family_of_a_later_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_rows(folder.path(), 1).await;
    let names = families::descriptors(1 << 20);
    let mut db = rocksdb::DB::open_cf_descriptors(&families::database_options(), folder.path(), names).unwrap();
    db.create_cf("search", &rocksdb::Options::default()).unwrap();
    drop(db);
    assert!(matches!(refused(folder.path()), OpenError::Format { found, .. } if found == "family search"));
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    drop(store);
    open(folder.path());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(refused(&file.join("data")), OpenError::System { .. }));
}

#[tokio::test]
async fn a_damaged_head_puts_only_its_account_out_of_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    write(&store, vec![account(ALICE, 1, vec![row(ROWS, "a", "1")], vec![]), account(BOB, 2, vec![], vec![])]).await;
    drop(store);
    let names = families::descriptors(1 << 20);
    let db = rocksdb::DB::open_cf_descriptors(&families::database_options(), folder.path(), names).unwrap();
    db.put_cf(families::family(&db, families::HEAD), keys::account(ALICE), [0, 0, 0, 1, 99]).unwrap();
    drop(db);
    let store = open(folder.path());
    assert!(store.head(ALICE).is_err() && store.versions().is_err());
    assert!(store.snapshot(ALICE).get(ROWS, b"a").is_err(), "damaged is never \"not found\"");
    assert_eq!(store.head(BOB).unwrap(), head(2));
    // Repair: a transfer from the other node.
    let rows = vec![row(ROWS, "a", "repaired")];
    write(&store, vec![vocab::StoreWrite::Stage { account: ALICE, rows, refs: vec![] }]).await;
    write(&store, vec![vocab::StoreWrite::Switch { account: ALICE, head: head(3), past: Vec::new() }]).await;
    assert_eq!(value(&store, ALICE, ROWS, "a").as_deref(), Some("repaired"));
    assert_eq!(store.head(ALICE).unwrap(), head(3));
}

#[tokio::test]
async fn a_failed_write_is_fatal_and_never_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (choices, fatal) = options(&Clock::default());
    let store = Store::open(folder.path(), choices).unwrap();
    write(&store, vec![account(ALICE, 1, vec![], vec![])]).await;
    // A link of the chain that nobody can read: trimming must read it first.
    drop(store);
    let names = families::descriptors(1 << 20);
    let db = rocksdb::DB::open_cf_descriptors(&families::database_options(), folder.path(), names).unwrap();
    db.put_cf(families::family(&db, families::CHAIN), keys::link(ALICE, 0), b"short").unwrap();
    drop(db);
    let (choices, fatal_again) = options(&Clock::default());
    let store = Store::open(folder.path(), choices).unwrap();
    let answer = store.write(vec![account(ALICE, 2, vec![row(ROWS, "a", "1")], vec![])]);
    assert!(tokio::time::timeout(Duration::from_millis(300), answer).await.is_err(), "never acknowledged");
    assert!(fatal.lock().unwrap().is_empty());
    let messages = fatal_again.lock().unwrap().clone();
    assert_eq!(messages.len(), 1);
    assert!(messages[0].contains(&folder.path().display().to_string()), "{}", messages[0]);
    assert_eq!(value(&store, ALICE, ROWS, "a"), None);
    // Later writes are not answered either, and closing does not hang.
    let answer = store.write(vec![account(BOB, 1, vec![], vec![])]);
    assert!(tokio::time::timeout(Duration::from_millis(100), answer).await.is_err());
}

#[tokio::test]
async fn an_idle_store_writes_now_and_then() {
    let folder = tempfile::tempdir().unwrap();
    let mut choices = options(&Clock::default()).0;
    choices.idle_write = Duration::from_millis(20);
    let store = Store::open(folder.path(), choices).unwrap();
    let begun = Instant::now();
    while store.synced_writes() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(20), "no idle write");
        tokio::task::yield_now().await;
    }
    assert!(store.disk_silent_ms() < 20_000);
    let store = {
        drop(store);
        open(folder.path())
    };
    let begun = Instant::now();
    while store.disk_silent_ms() < 30 {
        assert!(begun.elapsed() < Duration::from_secs(20), "silence must be seen while nothing is written");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_checkpoint_opens_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("data"));
    let (hash, part) = body(&vec![b'x'; 50_000]);
    write(&store, vec![part, account(ALICE, 1, vec![row(ROWS, "a", "1")], vec![reference(hash, 1, true)])]).await;
    let copy = folder.path().join("copy");
    store.checkpoint(&copy).unwrap();
    write(&store, vec![account(ALICE, 2, vec![row(ROWS, "a", "2")], vec![])]).await;
    let copy = open(&copy);
    assert_eq!((value(&copy, ALICE, ROWS, "a").as_deref(), copy.head(ALICE).unwrap()), (Some("1"), head(1)));
    assert!(copy.is_blob_sound(hash));
    assert!(store.checkpoint(&folder.path().join("copy")).is_err(), "never over an existing folder");
    assert!(store.free_bytes() > 0);
    drop(Arc::clone(&store));
}
