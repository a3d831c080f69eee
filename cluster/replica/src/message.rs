//! Encoding of what is said to a peer. Strangers' bytes never panic: what cannot be understood is `None`.

use std::collections::BTreeMap;

use topology::{EpochKind, EpochRecord};
use vocab::{
    AccountBatch, AccountHead, AccountId, Batch, BatchId, BlobHash, BlobRef, EpochId, InlineBody, LogRecord, NodeId,
};
use vocab::{PlacementId, RowWrite, Table, Version};
use wire::link;

pub(crate) fn epoch_to(id: EpochId) -> link::EpochId {
    link::EpochId { number: id.number, author: id.author }
}

pub(crate) fn epoch_from(id: &link::EpochId) -> EpochId {
    EpochId { number: id.number, author: id.author }
}

const fn kind_to(kind: EpochKind) -> u32 {
    match kind {
        EpochKind::Joint => 1,
        EpochKind::Reduced => 2,
        EpochKind::Solo => 3,
        EpochKind::Heal => 4,
    }
}

const fn kind_from(kind: u32) -> Option<EpochKind> {
    match kind {
        1 => Some(EpochKind::Joint),
        2 => Some(EpochKind::Reduced),
        3 => Some(EpochKind::Solo),
        4 => Some(EpochKind::Heal),
        _ => None,
    }
}

/// Node 0 is no node.
fn node_from(id: u32) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

pub(crate) fn record_to(record: &EpochRecord) -> link::EpochRecord {
    link::EpochRecord {
        id: Some(epoch_to(record.id)),
        kind: kind_to(record.kind),
        members: record.members.iter().map(|n| n.0).collect(),
        in_sync: record.in_sync.iter().map(|n| n.0).collect(),
        home: record.home.0,
        homes: record.homes.iter().map(|(s, n)| link::ShardHome { shard: u32::from(*s), home: n.0 }).collect(),
        parents: record.parents.iter().map(|p| epoch_to(*p)).collect(),
        certain: record.certain,
        on_silence: record.on_silence,
        anchor: record.anchor.map_or(0, |n| n.0),
        guest: record.guest.map_or(0, |n| n.0),
        gap: record.gap,
    }
}

pub(crate) fn record_from(wire: &link::EpochRecord) -> Option<EpochRecord> {
    let homes = wire.homes.iter().map(|h| Some((u8::try_from(h.shard).ok()?, NodeId(h.home))));
    let record = EpochRecord {
        id: epoch_from(wire.id.as_ref()?),
        kind: kind_from(wire.kind)?,
        members: wire.members.iter().map(|n| NodeId(*n)).collect(),
        in_sync: wire.in_sync.iter().map(|n| NodeId(*n)).collect(),
        home: node_from(wire.home)?,
        homes: homes.collect::<Option<BTreeMap<_, _>>>()?,
        parents: wire.parents.iter().map(epoch_from).collect(),
        certain: wire.certain,
        on_silence: wire.on_silence,
        anchor: node_from(wire.anchor),
        guest: node_from(wire.guest),
        gap: wire.gap,
    };
    (!record.in_sync.is_empty()).then_some(record)
}

pub(crate) fn versions_to(list: &[(AccountId, Version)]) -> Vec<link::AccountVersion> {
    let one = |(account, version): &(AccountId, Version)| link::AccountVersion {
        account: account.0,
        version: bytes(version),
    };
    list.iter().map(one).collect()
}

pub(crate) fn versions_from(list: &[link::AccountVersion]) -> Option<Vec<(AccountId, Version)>> {
    list.iter().map(|a| Some((AccountId(a.account), Version::from_bytes(&a.version)?))).collect()
}

pub(crate) fn bytes(version: &Version) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&version.0)
}

/// Its undo rows go only where they are kept.
pub(crate) fn batch_to(batch: &Batch, undo: bool) -> link::Batch {
    let row = |r: &RowWrite| link::RowWrite { table: u32::from(r.table.0), key: r.key.clone(), value: r.value.clone() };
    let blob = |r: &BlobRef| link::BlobRef {
        hash: bytes::Bytes::copy_from_slice(&r.hash.0),
        placement: bytes::Bytes::copy_from_slice(&r.placement.to_bytes()),
        present: r.present,
    };
    let account = |a: &AccountBatch| link::AccountBatch {
        account: a.account.0,
        expected: bytes(&a.expected),
        head: a.head.encode().into(),
        rows: a.rows.iter().map(row).collect(),
        refs: a.refs.iter().map(blob).collect(),
        undo: a.undo.iter().filter(|_| undo).map(row).collect(),
    };
    let record = |r: &LogRecord| link::LogRecord { id: r.id.clone(), bytes: r.bytes.clone() };
    link::Batch {
        id: bytes::Bytes::copy_from_slice(&batch.id.to_bytes()),
        accounts: batch.accounts.iter().map(account).collect(),
        bodies: batch.bodies.iter().map(|b| b.bytes.clone()).collect(),
        records: batch.records.iter().map(record).collect(),
    }
}

pub(crate) fn batch_from(wire: link::Batch) -> Option<Batch> {
    let row =
        |r: link::RowWrite| Some(RowWrite { table: Table(u8::try_from(r.table).ok()?), key: r.key, value: r.value });
    let blob = |r: link::BlobRef| {
        let (hash, placement) = (BlobHash::from_bytes(&r.hash)?, PlacementId::from_bytes(&r.placement)?);
        Some(BlobRef { hash, placement, present: r.present })
    };
    let account = |a: link::AccountBatch| {
        Some(AccountBatch {
            account: AccountId(a.account),
            expected: Version::from_bytes(&a.expected)?,
            head: AccountHead::decode(&a.head).ok()?,
            rows: a.rows.into_iter().map(row).collect::<Option<_>>()?,
            refs: a.refs.into_iter().map(blob).collect::<Option<_>>()?,
            undo: a.undo.into_iter().map(row).collect::<Option<_>>()?,
        })
    };
    Some(Batch {
        id: BatchId::from_bytes(&wire.id)?,
        accounts: wire.accounts.into_iter().map(account).collect::<Option<_>>()?,
        bodies: wire.bodies.into_iter().map(|bytes| InlineBody { hash: BlobHash::of(&bytes), bytes }).collect(),
        records: wire.records.into_iter().map(|r| LogRecord { id: r.id, bytes: r.bytes }).collect(),
    })
}
