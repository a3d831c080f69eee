//! Shared pieces of the store's tests.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ports::mail_store::MailStore;
use store::{Store, StoreOptions};
use vocab::{
    AccountBatch, AccountHead, AccountId, BlobHash, BlobRef, Boot, CommandId, InlineBody, NodeId, PlacementId,
    RowWrite, Rows, StoreWrite, Table, Version,
};

pub const ALICE: AccountId = AccountId(16);
pub const BOB: AccountId = AccountId(17);

/// A clock that moves only when told.
#[derive(Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

/// Options with a hand-moved clock; fatal messages are collected, not obeyed.
pub fn options(clock: &Clock) -> (StoreOptions, Arc<Mutex<Vec<String>>>) {
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let (time, list) = (clock.clone(), Arc::clone(&fatal));
    let options = StoreOptions {
        // Long enough that only writes of the test are counted.
        idle_write: Duration::from_secs(3600),
        now_ms: Arc::new(move || time.0.load(Ordering::SeqCst)),
        on_fatal: Arc::new(move |message| list.lock().unwrap().push(message.to_owned())),
        ..StoreOptions::default()
    };
    (options, fatal)
}

pub fn open(path: &Path) -> Arc<Store> {
    Store::open(path, options(&Clock::default()).0).unwrap()
}

pub fn version(n: u8) -> Version {
    Version([n; 16])
}

pub fn head(n: u8) -> AccountHead {
    AccountHead { version: version(n), modseq: u64::from(n), uidvalidity: 7, ..AccountHead::default() }
}

pub fn row(table: Table, key: &str, value: &str) -> RowWrite {
    RowWrite {
        table,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

pub fn placement(n: u64) -> PlacementId {
    PlacementId { command: CommandId { origin: NodeId(1), boot: Boot(1), counter: n, recipient: 0 }, index: 0 }
}

pub fn reference(hash: BlobHash, n: u64, present: bool) -> BlobRef {
    BlobRef { hash, placement: placement(n), present }
}

pub fn account(account: AccountId, n: u8, rows: Vec<RowWrite>, refs: Vec<BlobRef>) -> StoreWrite {
    StoreWrite::Account(AccountBatch {
        account,
        expected: version(n.saturating_sub(1)),
        head: head(n),
        rows,
        refs,
        undo: Vec::new(),
    })
}

pub fn body(bytes: &[u8]) -> (BlobHash, StoreWrite) {
    let hash = BlobHash::of(bytes);
    (hash, StoreWrite::Bodies(vec![InlineBody { hash, bytes: Bytes::copy_from_slice(bytes) }]))
}

pub fn get(rows: &Arc<dyn Rows>, table: Table, key: &str) -> Option<String> {
    rows.get(table, key.as_bytes()).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

pub fn value(store: &Arc<Store>, who: AccountId, table: Table, key: &str) -> Option<String> {
    get(&store.snapshot(who), table, key)
}

pub fn scan(rows: &Arc<dyn Rows>, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool) -> Vec<String> {
    let mut keys = Vec::new();
    rows.scan(table, range, reverse, &mut |key, _| {
        keys.push(String::from_utf8(key.to_vec()).unwrap());
        ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

/// Awaits one write with a limit, so that a lost answer fails instead of hanging.
pub async fn write(store: &Arc<Store>, parts: Vec<StoreWrite>) {
    tokio::time::timeout(Duration::from_secs(20), store.write(parts)).await.expect("the write is answered");
}

/// Versions on the chain of an account.
pub fn versions(store: &Store, account: AccountId) -> Vec<Version> {
    store.chain(account).unwrap().into_iter().map(|link| link.version).collect()
}
