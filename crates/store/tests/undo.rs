//! Undo rows: the way back along the version chain.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ports::mail_store::MailStore;
use proptest::prelude::*;
use store::{Store, families};
use support::*;
use vocab::{AccountBatch, AccountId, ChainLink, EpochId, MemoryRows, RowWrite, StoreWrite, Table, Version};

const ROWS: Table = Table::PLACEMENTS;

fn gone(table: Table, key: &str) -> RowWrite {
    RowWrite { table, key: Bytes::copy_from_slice(key.as_bytes()), value: None }
}

/// A batch kept with undo rows, as the state in `now` demands; `now` moves on.
fn with_undo(account: AccountId, now: &mut MemoryRows, n: u8, rows: Vec<RowWrite>) -> StoreWrite {
    let before =
        |row: &RowWrite| RowWrite { value: now.rows.get(&(row.table, row.key.to_vec())).cloned(), ..row.clone() };
    let undo = rows.iter().map(before).collect();
    now.write(&rows);
    let (expected, refs) = (version(n.saturating_sub(1)), vec![]);
    StoreWrite::Account(AccountBatch { account, expected, head: head(n), rows, refs, undo })
}

/// The rows as they were at `version`, by the store's word.
fn restored(store: &Store, now: &MemoryRows, account: AccountId, version: Version) -> Option<MemoryRows> {
    let undo = store.undo_since(account, version).unwrap()?;
    let mut then = now.clone();
    then.write(&undo);
    Some(then)
}

fn undo_flags(store: &Store, account: AccountId) -> Vec<bool> {
    store.chain(account).unwrap().into_iter().map(|ChainLink { undo, .. }| undo).collect()
}

#[tokio::test]
async fn older_versions_come_back_also_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut now = MemoryRows::default();
    let first = vec![row(ROWS, "a", "1"), row(ROWS, "b", "1")];
    now.write(&first);
    write(&store, vec![account(ALICE, 1, first, vec![])]).await;
    let base = now.clone();
    // A key written twice in one batch: its first undo row counts.
    let twice = vec![row(ROWS, "a", "2"), row(ROWS, "a", "3"), row(Table::OUTCOMES, "o", "1"), gone(ROWS, "b")];
    let mut batch = with_undo(ALICE, &mut now, 2, twice);
    if let StoreWrite::Account(batch) = &mut batch {
        batch.undo[1].value = Some(Bytes::from_static(b"2"));
    }
    write(&store, vec![batch]).await;
    let second = now.clone();
    let third = with_undo(ALICE, &mut now, 3, vec![row(ROWS, "b", "4"), row(ROWS, "c", ""), row(ROWS, "a", "5")]);
    let mut bob = MemoryRows::default();
    write(&store, vec![third, with_undo(BOB, &mut bob, 9, vec![row(ROWS, "a", "bob")])]).await;
    let check = |store: &Store| {
        assert_eq!(undo_flags(store, ALICE), [false, true, true]);
        assert_eq!(restored(store, &now, ALICE, version(1)), Some(base.clone()));
        assert_eq!(restored(store, &now, ALICE, version(2)), Some(second.clone()));
        assert_eq!(store.undo_since(ALICE, version(3)).unwrap(), Some(vec![]));
        assert_eq!(store.undo_since(ALICE, version(7)).unwrap(), None, "not on the chain");
        assert_eq!(store.undo_since(AccountId(99), version(1)).unwrap(), None);
    };
    check(&store);
    drop(store);
    check(&open(folder.path()));
}

#[tokio::test]
async fn a_link_without_undo_rows_bars_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut now = MemoryRows::default();
    write(&store, vec![with_undo(ALICE, &mut now, 1, vec![row(ROWS, "a", "1")])]).await;
    now.write(&[row(ROWS, "a", "2")]);
    write(&store, vec![account(ALICE, 2, vec![row(ROWS, "a", "2")], vec![])]).await;
    let joint = now.clone();
    write(&store, vec![with_undo(ALICE, &mut now, 3, vec![row(ROWS, "a", "3")])]).await;
    assert_eq!(undo_flags(&store, ALICE), [true, false, true]);
    assert_eq!(store.undo_since(ALICE, version(1)).unwrap(), None);
    assert_eq!(restored(&store, &now, ALICE, version(2)), Some(joint));
    // Undo rows that are not those of the batch's rows would restore something that never was.
    let mut wrong = with_undo(ALICE, &mut now, 4, vec![row(ROWS, "a", "4")]);
    if let StoreWrite::Account(batch) = &mut wrong {
        batch.undo[0].key = Bytes::from_static(b"b");
    }
    write(&store, vec![wrong]).await;
    assert_eq!(store.undo_since(ALICE, version(3)).unwrap(), None);
}

#[tokio::test]
async fn a_batch_of_a_mark_alone_is_undone_in_forks_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut now = MemoryRows::default();
    write(&store, vec![account(ALICE, 1, vec![row(ROWS, "a", "1")], vec![])]).await;
    write(&store, vec![account(ALICE, 2, vec![], vec![])]).await;
    assert_eq!(undo_flags(&store, ALICE), [false, false]);
    // Only an epoch that lacks a member sets the mark: also when it is the first batch of the fork.
    let served = Some(EpochId { number: 7, author: 1 });
    let marked = |n| match account(ALICE, n, vec![], vec![]) {
        StoreWrite::Account(mut batch) => {
            batch.head.served = served;
            StoreWrite::Account(batch)
        }
        other => other,
    };
    now.write(&[row(ROWS, "a", "1")]);
    let base = now.clone();
    write(&store, vec![marked(3), marked(4)]).await;
    write(&store, vec![with_undo(ALICE, &mut now, 5, vec![row(ROWS, "a", "2")])]).await;
    let store = {
        drop(store);
        open(folder.path())
    };
    write(&store, vec![account(ALICE, 6, vec![], vec![])]).await;
    assert_eq!(undo_flags(&store, ALICE), [false, false, true, true, true, true]);
    assert_eq!(restored(&store, &now, ALICE, version(2)), Some(base));
}

fn undo_rows_on_disk(folder: &std::path::Path) -> usize {
    let names = families::descriptors(1 << 20);
    let db = rocksdb::DB::open_cf_descriptors(&families::database_options(), folder, names).unwrap();
    let family = families::family(&db, families::PRE_IMAGES);
    db.iterator_cf(family, rocksdb::IteratorMode::Start).filter(|item| item.is_ok()).count()
}

#[tokio::test]
async fn trimming_takes_the_undo_rows_nobody_needs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut now = MemoryRows::default();
    let mut third = MemoryRows::default();
    for n in 1..=5 {
        let key = format!("k{n}");
        write(&store, vec![with_undo(ALICE, &mut now, n, vec![row(ROWS, "a", &key), row(ROWS, &key, "x")])]).await;
        if n == 3 {
            third = now.clone();
        }
    }
    write(&store, vec![StoreWrite::TrimChain { account: ALICE, agreed: version(3) }]).await;
    assert_eq!(undo_flags(&store, ALICE), [false, false, false, true, true], "older versions are known, not restored");
    assert_eq!(restored(&store, &now, ALICE, version(3)), Some(third));
    assert_eq!(store.undo_since(ALICE, version(2)).unwrap(), None);
    drop(store);
    assert_eq!(undo_rows_on_disk(folder.path()), 4, "two rows of two links");
    let store = open(folder.path());
    // A batch and the trim behind it in one write.
    let sixth = with_undo(ALICE, &mut now, 6, vec![row(ROWS, "a", "6")]);
    write(&store, vec![sixth, StoreWrite::TrimChain { account: ALICE, agreed: version(6) }]).await;
    assert_eq!(undo_flags(&store, ALICE), [false; 6]);
    write(&store, vec![account(ALICE, 7, vec![], vec![])]).await;
    assert_eq!(undo_flags(&store, ALICE), [false; 7]);
    drop(store);
    assert_eq!(undo_rows_on_disk(folder.path()), 0);
}

#[tokio::test]
async fn a_switch_takes_all_undo_rows_of_its_account() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (mut now, mut bob) = (MemoryRows::default(), MemoryRows::default());
    for n in 1..=3 {
        let alice = with_undo(ALICE, &mut now, n, vec![row(ROWS, "a", &n.to_string())]);
        write(&store, vec![alice, with_undo(BOB, &mut bob, n, vec![row(ROWS, "a", &n.to_string())])]).await;
    }
    let pending = with_undo(ALICE, &mut now, 4, vec![row(ROWS, "a", "4")]);
    write(&store, vec![pending, StoreWrite::Switch { account: ALICE, head: head(20), past: Vec::new() }]).await;
    assert_eq!(undo_flags(&store, ALICE), [false]);
    assert_eq!(store.undo_since(ALICE, version(2)).unwrap(), None);
    assert!(store.undo_since(BOB, version(1)).unwrap().is_some());
    // A fork in a fork: the new state is the base of what follows.
    let mut after = MemoryRows::default();
    let base = after.clone();
    write(&store, vec![with_undo(ALICE, &mut after, 21, vec![row(ROWS, "a", "21")])]).await;
    assert_eq!(restored(&store, &after, ALICE, version(20)), Some(base));
    drop(store);
    assert_eq!(undo_rows_on_disk(folder.path()), 4, "one of Alice, three of Bob");
}

/// What another store gives takes a store as far as its own batches would have.
#[tokio::test]
async fn what_one_store_gives_of_its_chain_another_can_say_and_restore() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (giver, taker) = (open(here.path()), open(there.path()));
    let mut now = MemoryRows::default();
    let mut states = vec![now.clone()];
    let mut batches = Vec::new();
    for n in 1..=6 {
        let rows = vec![
            row(ROWS, "a", &n.to_string()),
            if n == 4 { gone(ROWS, "k2") } else { row(ROWS, &format!("k{n}"), "x") },
        ];
        batches.push(with_undo(ALICE, &mut now, n, rows));
        states.push(now.clone());
    }
    write(&giver, batches.clone()).await;
    batches.truncate(2);
    write(&taker, batches).await;
    let given = giver.past(ALICE, Some(version(2)), 1 << 20).unwrap().expect("on the chain");
    let steps: Vec<usize> = given.iter().map(|link| link.undo.as_ref().map_or(0, Vec::len)).collect();
    assert_eq!(steps, [2; 4]);
    assert_eq!(giver.past(ALICE, Some(version(9)), 1 << 20).unwrap(), None, "not on the chain");
    assert_eq!(giver.past(ALICE, Some(version(2)), 100).unwrap(), None, "a part of a difference is none");
    let rows =
        vec![row(ROWS, "a", "6"), gone(ROWS, "k2"), row(ROWS, "k3", "x"), row(ROWS, "k5", "x"), row(ROWS, "k6", "x")];
    let (expected, refs, undo) = (version(2), vec![], vec![]);
    let batch = AccountBatch { account: ALICE, expected, head: head(6), rows, refs, undo };
    write(&taker, vec![StoreWrite::Advance { batch, past: given }]).await;
    let check = |taker: &Store| {
        assert_eq!((versions(taker, ALICE), undo_flags(taker, ALICE)), (versions(&giver, ALICE), vec![true; 6]));
        assert_eq!(taker.head(ALICE).unwrap(), head(6));
        assert_eq!(taker.undo_since(ALICE, version(1)).unwrap(), giver.undo_since(ALICE, version(1)).unwrap());
        for (n, state) in (1..).zip(&states[1..]) {
            assert_eq!(restored(taker, &now, ALICE, version(n)).as_ref(), Some(state), "version {n}");
        }
    };
    check(&taker);
    drop(taker);
    let taker = open(there.path());
    check(&taker);
    // The whole chain, beside a stage; then a shorter one, cut for its size.
    let whole = giver.past(ALICE, None, 1 << 20).unwrap().expect("a chain");
    let stage = |account| StoreWrite::Stage { account, rows: vec![row(ROWS, "a", "6")], refs: vec![] };
    write(&taker, vec![stage(BOB)]).await;
    write(&taker, vec![StoreWrite::Switch { account: BOB, head: head(6), past: whole.clone() }]).await;
    assert_eq!(taker.past(BOB, None, 1 << 20).unwrap(), Some(whole));
    let size = giver.past(ALICE, Some(version(4)), 1 << 20).unwrap().unwrap().iter().map(vocab::PastLink::size).sum();
    let cut = giver.past(ALICE, None, size).unwrap().expect("its end");
    let flags: Vec<_> = cut.iter().map(|link| (link.version, link.undo.is_some())).collect();
    assert_eq!(flags, [(version(4), false), (version(5), true), (version(6), true)]);
    write(&taker, vec![stage(BOB)]).await;
    write(&taker, vec![StoreWrite::Switch { account: BOB, head: head(6), past: cut }]).await;
    assert_eq!(undo_flags(&taker, BOB), [false, true, true]);
    assert!(taker.undo_since(BOB, version(4)).unwrap().is_some());
    assert_eq!(taker.undo_since(BOB, version(3)).unwrap(), None);
    // It goes on like any other.
    write(&taker, vec![account(BOB, 7, vec![row(ROWS, "a", "7")], vec![])]).await;
    write(&taker, vec![StoreWrite::TrimChain { account: BOB, agreed: version(6) }]).await;
    assert_eq!(undo_flags(&taker, BOB), [false; 4]);
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<(u8, Option<u8>)>),
    Trim(prop::sample::Index),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec((0..6u8, prop::option::of(any::<u8>())), 1..5).prop_map(Step::Batch),
        1 => any::<prop::sample::Index>().prop_map(Step::Trim),
        1 => Just(Step::Reopen),
    ]
}

async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let mut store: Arc<Store> = open(folder.path());
    let mut now = MemoryRows::default();
    let mut known: BTreeMap<u8, MemoryRows> = BTreeMap::new();
    let mut last = 0;
    for step in steps {
        match step {
            Step::Batch(changes) => {
                last += 1;
                // The second table sorts into the other family.
                let change = |(key, value): (u8, Option<u8>)| RowWrite {
                    table: if key % 2 == 0 { ROWS } else { Table::OUTCOMES },
                    key: vec![0xff; usize::from(key)].into(),
                    value: value.map(|byte| vec![byte; usize::from(byte % 3)].into()),
                };
                let rows: BTreeMap<u8, Option<u8>> = changes.into_iter().collect();
                let rows = rows.into_iter().map(change).collect();
                write(&store, vec![with_undo(ALICE, &mut now, last, rows)]).await;
                known.insert(last, now.clone());
            }
            Step::Trim(index) if last > 0 => {
                let agreed = u8::try_from(index.index(usize::from(last))).unwrap() + 1;
                write(&store, vec![StoreWrite::TrimChain { account: ALICE, agreed: version(agreed) }]).await;
                if known.contains_key(&agreed) {
                    known.retain(|n, _| *n >= agreed);
                }
            }
            Step::Trim(_) => {}
            Step::Reopen => {
                drop(store);
                store = open(folder.path());
            }
        }
        for n in 0..=last {
            prop_assert_eq!(restored(&store, &now, ALICE, version(n)), known.get(&n).cloned(), "version {}", n);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_version_on_the_chain_is_restored_exactly(steps in prop::collection::vec(step(), 1..24)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(steps))?;
    }
}
