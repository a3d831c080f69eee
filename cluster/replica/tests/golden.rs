//! Golden bytes of what is kept on disk and said to a peer: a change here is a change of the format.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use replica::{META_KEY, Saved};
use topology::{EpochKind, EpochRecord};
use vocab::{EpochId, NodeId, StoreWrite};
use wire::link::{self, item::Kind};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn record() -> EpochRecord {
    EpochRecord {
        id: EpochId { number: 5, author: 2 },
        kind: EpochKind::Heal,
        members: vec![NodeId(1), NodeId(2)],
        in_sync: vec![NodeId(2)],
        home: NodeId(2),
        homes: BTreeMap::from([(7, NodeId(1))]),
        parents: vec![EpochId { number: 4, author: 0 }],
        certain: true,
        on_silence: false,
        anchor: Some(NodeId(2)),
        guest: Some(NodeId(1)),
        gap: true,
    }
}

#[test]
fn golden_bytes_of_the_local_record() {
    let saved = Saved {
        record: Some(record()),
        newest: None,
        join_mark: Some(EpochId { number: 5, author: 2 }),
        was_in_sync: true,
        joint: 4,
        never_alone: true,
        never_solo: true,
        never_short: false,
        marks_anew: None,
        rows: 0,
    };
    let StoreWrite::Meta { key, value: Some(value) } = saved.to_write() else { panic!("a record") };
    assert_eq!(key, META_KEY);
    assert_eq!(
        hex(&value),
        "010a230a040805100210041a02010222010228023204080710013a02080440014802500158011a04080510022001280430013801"
    );
    assert_eq!(Saved::from_meta(Some(&value)).unwrap(), saved);
    // Since there is a second row format; a record without it is one of before.
    let newer = Saved { rows: 2, ..saved };
    let StoreWrite::Meta { value: Some(with_rows), .. } = newer.to_write() else { panic!("a record") };
    assert_eq!(hex(&with_rows), format!("{}4002", hex(&value)));
    assert_eq!(Saved::from_meta(Some(&with_rows)).unwrap(), newer);
    let full = Saved { never_short: true, ..newer };
    let StoreWrite::Meta { value: Some(with_short), .. } = full.to_write() else { panic!("a record") };
    assert_eq!(hex(&with_short), format!("{}4801", hex(&with_rows)));
    assert_eq!(Saved::from_meta(Some(&with_short)).unwrap(), full);
    let anew = Saved { marks_anew: Some(EpochId { number: 7, author: 1 }), ..full };
    let StoreWrite::Meta { value: Some(with_anew), .. } = anew.to_write() else { panic!("a record") };
    assert_eq!(hex(&with_anew), format!("{}520408071001", hex(&with_short)));
    assert_eq!(Saved::from_meta(Some(&with_anew)).unwrap(), anew);
    assert!(Saved::from_meta(Some(&[9, 1])).is_err(), "an unknown version is refused");
    assert!(Saved::from_meta(Some(&[])).is_err());
    assert_eq!(Saved::from_meta(None).unwrap(), Saved::default());
}

#[test]
fn golden_bytes_of_a_frame() {
    let part = link::BatchPart {
        epoch: Some(link::EpochId { number: 5, author: 2 }),
        id: Bytes::from_static(b"id"),
        bytes: Bytes::from_static(b"batch"),
        last: true,
    };
    let beat = link::Heartbeat { sent: 300, echo: 200, record: None, grant: true, disk_ok: true, ..Default::default() };
    let ack = link::Ack { id: Bytes::from_static(b"id") };
    let items = [Kind::Batch(part), Kind::Heartbeat(beat), Kind::Ack(ack)];
    let frame = link::Frame { items: items.map(|kind| link::Item { kind: Some(kind) }).to_vec() };
    assert_eq!(
        hex(&frame.encode_to_vec()),
        "0a151a130a0408051002120269641a05626174636820010a0c120a08ac0210c801200128010a0622040a026964"
    );
}
