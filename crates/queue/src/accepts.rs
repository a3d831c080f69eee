//! Accept records: the commit behind 250 for a message whose recipients have several homes (DESIGN 5, H14), until its
//! fan-out is done.

use bytes::Bytes;
use prost::Message as _;
use vocab::{
    AccountId, Address, BlobHash, BlobRef, CommandId, Damaged, NodeId, PlacementId, ReversePath, RowWrite, Rows, Table,
    Timestamp,
};

use crate::apply::{Applied, enqueue, gone};
use crate::op::{AcceptRecord, Accepted, LocalRecipient, QueueOutcome, Standing};
use crate::outcomes;

/// Row version written as first byte of an encoded record.
pub(crate) const ACCEPT_ROW_VERSION: u8 = 1;
/// Index of a record's reference to its body: items of the message, and a report's first item, have 0.
const REF_INDEX: u32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct RecipientV1 {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(uint64, tag = "2")]
    account: u64,
    #[prost(bytes = "bytes", tag = "3")]
    prefix: Bytes,
}

/// [`AcceptRecord`] in rows and messages. A missing reverse-path is the null one.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AcceptV1 {
    #[prost(bytes = "vec", tag = "1")]
    accept: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    reverse_path: Option<String>,
    #[prost(message, repeated, tag = "3")]
    recipients: Vec<RecipientV1>,
    #[prost(bytes = "vec", tag = "4")]
    blob: Vec<u8>,
    #[prost(uint64, tag = "5")]
    size: u64,
    #[prost(bytes = "bytes", tag = "6")]
    facts: Bytes,
    #[prost(bool, tag = "7")]
    smtputf8: bool,
    #[prost(bool, tag = "8")]
    eight_bit: bool,
    #[prost(uint64, tag = "9")]
    accepted_at: u64,
    #[prost(uint32, optional, tag = "10")]
    owner: Option<u32>,
}

fn damaged(what: &str) -> Damaged {
    Damaged(format!("accept record: {what}"))
}

impl From<&AcceptRecord> for AcceptV1 {
    fn from(record: &AcceptRecord) -> Self {
        let recipient =
            |r: &LocalRecipient| RecipientV1 { number: r.number, account: r.account.0, prefix: r.prefix.clone() };
        Self {
            accept: record.accept.to_bytes().to_vec(),
            reverse_path: record.reverse_path.address().map(ToString::to_string),
            recipients: record.recipients.iter().map(recipient).collect(),
            blob: record.blob.0.to_vec(),
            size: record.size,
            facts: record.facts.clone(),
            smtputf8: record.smtputf8,
            eight_bit: record.eight_bit,
            accepted_at: record.accepted_at.0,
            owner: record.owner.map(|node| node.0),
        }
    }
}

impl TryFrom<AcceptV1> for AcceptRecord {
    type Error = Damaged;

    fn try_from(row: AcceptV1) -> Result<Self, Damaged> {
        let address = |text: String| Address::parse(&text).map_err(|fault| damaged(&fault.to_string()));
        let recipient =
            |r: RecipientV1| LocalRecipient { number: r.number, account: AccountId(r.account), prefix: r.prefix };
        Ok(Self {
            accept: CommandId::from_bytes(&row.accept).ok_or_else(|| damaged("id"))?,
            reverse_path: row.reverse_path.map(address).transpose()?.map_or(ReversePath::Null, ReversePath::Address),
            recipients: row.recipients.into_iter().map(recipient).collect(),
            blob: BlobHash::from_bytes(&row.blob).ok_or_else(|| damaged("blob"))?,
            size: row.size,
            facts: row.facts,
            smtputf8: row.smtputf8,
            eight_bit: row.eight_bit,
            accepted_at: Timestamp(row.accepted_at),
            owner: row.owner.map(NodeId),
        })
    }
}

fn encode(record: &AcceptRecord) -> Bytes {
    let mut out = vec![ACCEPT_ROW_VERSION];
    out.extend(AcceptV1::from(record).encode_to_vec());
    out.into()
}

/// The record of a row.
pub(crate) fn decode(bytes: &[u8]) -> Result<AcceptRecord, Damaged> {
    match bytes.split_first() {
        Some((&ACCEPT_ROW_VERSION, row)) => {
            AcceptV1::decode(row).map_err(|fault| damaged(&fault.to_string()))?.try_into()
        }
        Some((version, _)) => Err(damaged(&format!("unknown row version {version}"))),
        None => Err(damaged("empty row")),
    }
}

pub(crate) fn blob_ref(record: &AcceptRecord, present: bool) -> BlobRef {
    BlobRef { hash: record.blob, placement: PlacementId { command: record.accept, index: REF_INDEX }, present }
}

pub(crate) fn key(accept: CommandId) -> Bytes {
    accept.to_bytes().to_vec().into()
}

/// [`crate::QueueOp::Accept`].
pub(crate) fn accept(view: &dyn Rows, accepted: &Accepted, standing: Standing) -> Result<Applied, Damaged> {
    let id = accepted.accept;
    let pending = view.get(Table::ACCEPTS, &key(id))?.is_some();
    if pending || outcomes::ran(view, id)? {
        return Ok((Vec::new(), Vec::new(), QueueOutcome::Done));
    }
    if outcomes::is_settled(view, id)? {
        return Ok(gone());
    }
    let (mut rows, mut refs, outcome) = enqueue(view, &accepted.items, standing.home)?;
    if let Some(record) = &accepted.record {
        let record = AcceptRecord { owner: Some(standing.home), ..record.clone() };
        rows.push(RowWrite { table: Table::ACCEPTS, key: key(id), value: Some(encode(&record)) });
        refs.push(blob_ref(&record, true));
    }
    rows.extend(outcomes::record(view, id, accepted.settled, standing.joint)?);
    Ok((rows, refs, outcome))
}

/// [`crate::QueueOp::Settle`].
pub(crate) fn settle(view: &dyn Rows, accept: CommandId) -> Result<Applied, Damaged> {
    let Some(row) = view.get(Table::ACCEPTS, &key(accept))? else { return Ok(gone()) };
    let record = decode(&row)?;
    let rows = vec![RowWrite { table: Table::ACCEPTS, key: key(accept), value: None }];
    Ok((rows, vec![blob_ref(&record, false)], QueueOutcome::Done))
}

#[cfg(test)]
pub(crate) mod tests {
    use vocab::{Boot, MemoryRows};

    use super::*;
    use crate::bounce::report_id;
    use crate::op::{AttemptResult, Failure, QueueItem, QueueOp, Standing};
    use crate::rows::tests::item;

    const T0: Timestamp = Timestamp(1_700_000_000_000);
    const HERE: Standing = Standing { home: NodeId(2), hold: None, joint: true };

    fn id(boot: u32, counter: u64) -> CommandId {
        CommandId { origin: NodeId(1), boot: Boot(boot), counter, recipient: 0 }
    }

    pub(crate) fn record(counter: u64) -> AcceptRecord {
        let recipient = |number: u32| LocalRecipient {
            number,
            account: AccountId(76 + u64::from(number)),
            prefix: Bytes::from_static(b"Delivered-To: x\r\n"),
        };
        AcceptRecord {
            accept: id(2, counter),
            reverse_path: ReversePath::Address(Address::parse("anna@example.org").expect("valid")),
            recipients: vec![recipient(1), recipient(2)],
            blob: BlobHash([7; 32]),
            size: 1234,
            facts: Bytes::from_static(b"facts"),
            smtputf8: false,
            eight_bit: true,
            accepted_at: T0,
            owner: Some(NodeId(2)),
        }
    }

    fn accepted(accept: CommandId, settled: u64, with_record: bool) -> QueueOp {
        // Recipients of a report are numbered from its own id on.
        let items = vec![QueueItem { id: accept.for_recipient(accept.recipient + 3), ..item(3) }];
        let record = with_record.then(|| AcceptRecord { accept, owner: None, ..record(0) });
        QueueOp::Accept(Box::new(Accepted { accept, settled, items, record }))
    }

    fn run(rows: &mut MemoryRows, op: &QueueOp) -> (Vec<BlobRef>, QueueOutcome) {
        let (writes, refs, outcome) = crate::apply(rows, op, HERE, T0).expect("readable");
        rows.write(&writes);
        (refs, outcome)
    }

    fn waiting(rows: &MemoryRows) -> (usize, usize) {
        let accepts = crate::read::accepts(rows, 99).expect("readable").len();
        (accepts, crate::read::list(rows, 99).expect("readable").len())
    }

    fn delivered(id: CommandId) -> QueueOp {
        QueueOp::AttemptEnd { id, attempt: (NodeId(1), T0), result: AttemptResult::Delivered }
    }

    #[test]
    fn h14_a_record_is_kept_with_its_body_until_it_is_settled() {
        let mut rows = MemoryRows::default();
        let accept = id(2, 5);
        let (refs, outcome) = run(&mut rows, &accepted(accept, 0, true));
        assert_eq!((refs.len(), outcome), (2, QueueOutcome::Done));
        assert_eq!(waiting(&rows), (1, 1));
        let kept = crate::read::accepts(&rows, 1).expect("readable").remove(0);
        assert_eq!(kept, AcceptRecord { accept, ..record(0) }, "owned by the home that took it in");
        let rebuilt: Vec<BlobRef> = rows
            .rows
            .iter()
            .filter_map(|((table, key), value)| {
                let (key, value) = (key.clone().into(), Some(value.clone()));
                crate::blob_ref_of(&RowWrite { table: *table, key, value })
            })
            .collect();
        assert!(rebuilt.len() == 2 && rebuilt.iter().all(|r| refs.contains(r)), "{rebuilt:?} {refs:?}");

        let (refs, outcome) = run(&mut rows, &QueueOp::Settle { accept });
        assert_eq!((refs, outcome), (vec![blob_ref(&kept, false)], QueueOutcome::Done));
        assert_eq!(waiting(&rows), (0, 1));
        assert_eq!(run(&mut rows, &QueueOp::Settle { accept }), (vec![], QueueOutcome::Gone));
    }

    #[test]
    fn h13_a_message_accepted_twice_is_sent_once_even_when_it_has_left_meanwhile() {
        let mut rows = MemoryRows::default();
        let accept = id(2, 5);
        run(&mut rows, &accepted(accept, 0, true));
        run(&mut rows, &delivered(accept.for_recipient(3)));
        run(&mut rows, &QueueOp::Settle { accept });
        // The answer was lost; the front-end asks again.
        assert_eq!(run(&mut rows, &accepted(accept, 0, true)), (vec![], QueueOutcome::Done));
        assert_eq!(waiting(&rows), (0, 0));
    }

    #[test]
    fn h13_ids_are_forgotten_when_their_origin_settles_them_and_refused_from_then_on() {
        let mut rows = MemoryRows::default();
        let outcomes = |rows: &MemoryRows| rows.rows.keys().filter(|(table, _)| *table == Table::OUTCOMES).count();
        for counter in 1..=3 {
            run(&mut rows, &accepted(id(2, counter), 0, false));
            run(&mut rows, &delivered(id(2, counter).for_recipient(3)));
        }
        assert_eq!(outcomes(&rows), 3);
        run(&mut rows, &accepted(id(2, 4), 2, false));
        assert_eq!(outcomes(&rows), 2, "3 is outstanding, 4 is new");
        assert_eq!(run(&mut rows, &accepted(id(2, 1), 0, false)).1, QueueOutcome::Gone);
        assert_eq!(waiting(&rows), (0, 1));
        run(&mut rows, &accepted(id(3, 1), 0, false));
        assert_eq!(outcomes(&rows), 1, "a newer boot");
        assert_eq!(run(&mut rows, &accepted(id(2, 9), 0, false)).1, QueueOutcome::Gone);
        // Who else accepts has nothing to do with it.
        let other = CommandId { origin: NodeId(9), ..id(1, 1) };
        assert_eq!(run(&mut rows, &accepted(other, 0, false)).1, QueueOutcome::Done);
    }

    #[test]
    fn h13_a_report_is_sent_once_as_long_as_its_item_may_be_tried_again() {
        let mut rows = MemoryRows::default();
        let failed = id(2, 5).for_recipient(3);
        run(&mut rows, &accepted(id(2, 5), 0, false));
        let report = report_id(failed, 0);
        run(&mut rows, &accepted(report, 0, true));
        run(&mut rows, &delivered(report_id(failed, 3)));
        run(&mut rows, &QueueOp::Settle { accept: report });
        run(&mut rows, &accepted(id(7, 1), 0, false));
        assert_eq!(run(&mut rows, &accepted(report, 0, true)), (vec![], QueueOutcome::Done), "after a newer boot too");
        assert_eq!(waiting(&rows), (0, 2));
        let why = Failure { status: "5.1.1".into(), diagnostic: "no".into(), remote: None };
        let result = AttemptResult::Failed(why);
        run(&mut rows, &QueueOp::AttemptEnd { id: failed, attempt: (NodeId(1), T0), result });
        assert!(!rows.rows.contains_key(&(Table::OUTCOMES, report.to_bytes().to_vec())), "forgotten with the item");
    }

    #[test]
    fn a_record_and_the_first_item_of_a_report_have_references_of_their_own() {
        let report = report_id(id(2, 5).for_recipient(1), 0);
        let record = AcceptRecord { accept: report, ..record(0) };
        let item = QueueItem { id: report, ..item(1) };
        assert_ne!(blob_ref(&record, true).placement, crate::apply::blob_ref(&item, true).placement);
    }

    #[test]
    fn records_survive_their_bytes() {
        let bare = AcceptRecord { reverse_path: ReversePath::Null, recipients: vec![], owner: None, ..record(1) };
        for record in [record(3), bare] {
            assert_eq!(decode(&encode(&record)), Ok(record));
        }
        for bad in [&[][..], &[9], &[ACCEPT_ROW_VERSION], &[ACCEPT_ROW_VERSION, 0xff, 0xff]] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn golden_accept_row() {
        let hex: String = encode(&record(3)).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }
    const GOLDEN: &str = "010a1400000001000000020000000000000003000000001210616e6e61406578616d706c652e6f72671a170801104d1a1144\
        656c6976657265642d546f3a20780d0a1a170802104e1a1144656c6976657265642d546f3a20780d0a222007070707070707\
        0707070707070707070707070707070707070707070707070728d2093205666163747340014880d095ffbc315002";
}
