//! Queue operations and outcomes as bytes, for forwarding to the home and for outcome rows: version byte, protobuf.

use bytes::Bytes;
use prost::Message as _;
use vocab::{CommandId, Damaged, NodeId, Timestamp};

use crate::accepts::AcceptV1;
use crate::op::{AcceptRecord, Accepted, AttemptResult, QueueItem, QueueOp, QueueOutcome};
use crate::rows::{FailureV1, ItemV1};

/// First byte of every message made here.
const VERSION: u8 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct OpV1 {
    #[prost(oneof = "OpKindV1", tags = "1, 2, 3, 4, 5")]
    kind: Option<OpKindV1>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OpKindV1 {
    #[prost(message, tag = "1")]
    Enqueue(EnqueueV1),
    #[prost(message, tag = "2")]
    Start(StartV1),
    #[prost(message, tag = "3")]
    End(EndV1),
    #[prost(message, tag = "4")]
    Accept(AcceptedV1),
    #[prost(bytes, tag = "5")]
    Settle(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnqueueV1 {
    #[prost(message, repeated, tag = "1")]
    items: Vec<ItemV1>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AcceptedV1 {
    #[prost(bytes = "vec", tag = "1")]
    accept: Vec<u8>,
    #[prost(uint64, tag = "2")]
    settled: u64,
    #[prost(message, repeated, tag = "3")]
    items: Vec<ItemV1>,
    #[prost(message, optional, tag = "4")]
    record: Option<AcceptV1>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StartV1 {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    node: u32,
    #[prost(uint64, tag = "3")]
    at: u64,
    #[prost(uint32, tag = "4")]
    attempts: u32,
}

/// Result: 1 delivered, 2 deferred until `due`, 3 failed.
#[derive(Clone, PartialEq, prost::Message)]
struct EndV1 {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    result: u32,
    #[prost(message, optional, tag = "3")]
    failure: Option<FailureV1>,
    #[prost(uint64, tag = "4")]
    due: u64,
    #[prost(uint32, tag = "5")]
    node: u32,
    #[prost(uint64, tag = "6")]
    at: u64,
}

/// Bytes of an operation.
#[must_use]
pub fn encode_op(op: &QueueOp) -> Bytes {
    let kind = match op {
        QueueOp::Enqueue(items) => OpKindV1::Enqueue(EnqueueV1 { items: items.iter().map(ItemV1::from).collect() }),
        QueueOp::Accept(accepted) => OpKindV1::Accept(AcceptedV1 {
            accept: accepted.accept.to_bytes().to_vec(),
            settled: accepted.settled,
            items: accepted.items.iter().map(ItemV1::from).collect(),
            record: accepted.record.as_ref().map(AcceptV1::from),
        }),
        QueueOp::Settle { accept } => OpKindV1::Settle(accept.to_bytes().to_vec()),
        QueueOp::AttemptStart { id, node, at, attempts } => {
            OpKindV1::Start(StartV1 { id: id.to_bytes().to_vec(), node: node.0, at: at.0, attempts: *attempts })
        }
        QueueOp::AttemptEnd { id, attempt: (node, at), result } => {
            let (result, failure, due) = match result {
                AttemptResult::Delivered => (1, None, 0),
                AttemptResult::Deferred(failure, due) => (2, Some(failure), due.0),
                AttemptResult::Failed(failure) => (3, Some(failure), 0),
            };
            let failure = failure.map(FailureV1::from);
            OpKindV1::End(EndV1 { id: id.to_bytes().to_vec(), result, failure, due, node: node.0, at: at.0 })
        }
    };
    let mut out = vec![VERSION];
    out.extend(OpV1 { kind: Some(kind) }.encode_to_vec());
    out.into()
}

fn damaged(what: impl std::fmt::Display) -> Damaged {
    Damaged(format!("queue operation: {what}"))
}

fn command_id(bytes: &[u8]) -> Result<CommandId, Damaged> {
    CommandId::from_bytes(bytes).ok_or_else(|| damaged("id"))
}

fn items(items: Vec<ItemV1>) -> Result<Vec<QueueItem>, Damaged> {
    items.into_iter().map(QueueItem::try_from).collect()
}

/// The operation of these bytes.
///
/// # Errors
/// [`Damaged`] for another version or rubbish: refuse the call.
pub fn decode_op(bytes: &[u8]) -> Result<QueueOp, Damaged> {
    let Some((&VERSION, message)) = bytes.split_first() else { return Err(damaged("unknown version")) };
    let message = OpV1::decode(message).map_err(damaged)?;
    match message.kind.ok_or_else(|| damaged("empty"))? {
        OpKindV1::Enqueue(enqueue) => items(enqueue.items).map(QueueOp::Enqueue),
        OpKindV1::Accept(accepted) => Ok(QueueOp::Accept(Box::new(Accepted {
            accept: command_id(&accepted.accept)?,
            settled: accepted.settled,
            items: items(accepted.items)?,
            record: accepted.record.map(AcceptRecord::try_from).transpose()?,
        }))),
        OpKindV1::Settle(accept) => Ok(QueueOp::Settle { accept: command_id(&accept)? }),
        OpKindV1::Start(start) => Ok(QueueOp::AttemptStart {
            id: command_id(&start.id)?,
            node: NodeId(start.node),
            at: Timestamp(start.at),
            attempts: start.attempts,
        }),
        OpKindV1::End(end) => {
            let result = match (end.result, end.failure) {
                (1, None) => AttemptResult::Delivered,
                (2, Some(failure)) => AttemptResult::Deferred(failure.into(), Timestamp(end.due)),
                (3, Some(failure)) => AttemptResult::Failed(failure.into()),
                _ => return Err(damaged("result")),
            };
            let attempt = (NodeId(end.node), Timestamp(end.at));
            Ok(QueueOp::AttemptEnd { id: command_id(&end.id)?, attempt, result })
        }
    }
}

/// Bytes of an outcome.
#[must_use]
pub fn encode_outcome(outcome: &QueueOutcome) -> Bytes {
    let code = match outcome {
        QueueOutcome::Done => 1,
        QueueOutcome::Gone => 2,
    };
    Bytes::copy_from_slice(&[VERSION, code])
}

/// The outcome of these bytes.
///
/// # Errors
/// [`Damaged`] for another version or rubbish.
pub fn decode_outcome(bytes: &[u8]) -> Result<QueueOutcome, Damaged> {
    match bytes {
        [VERSION, 1] => Ok(QueueOutcome::Done),
        [VERSION, 2] => Ok(QueueOutcome::Gone),
        _ => Err(damaged("outcome")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Failure;
    use crate::rows::tests::item;

    #[test]
    fn operations_survive_their_bytes() {
        let id = item(1).id;
        let failure = Failure { status: "5.1.1".into(), diagnostic: "no".into(), remote: Some("mx".into()) };
        let end = |result| QueueOp::AttemptEnd { id, attempt: (NodeId(3), Timestamp(4)), result };
        let accept = |items, record| {
            QueueOp::Accept(Box::new(Accepted { accept: id.for_recipient(0), settled: 2, items, record }))
        };
        for op in [
            QueueOp::Enqueue(vec![]),
            QueueOp::Enqueue(vec![item(1), item(2)]),
            QueueOp::AttemptStart { id, node: NodeId(3), at: Timestamp(4), attempts: 5 },
            accept(vec![item(1)], None),
            accept(vec![], Some(crate::accepts::tests::record(9))),
            QueueOp::Settle { accept: id },
            end(AttemptResult::Delivered),
            end(AttemptResult::Deferred(failure.clone(), Timestamp(5))),
            end(AttemptResult::Failed(failure)),
        ] {
            assert_eq!(decode_op(&encode_op(&op)), Ok(op));
        }
        for outcome in [QueueOutcome::Done, QueueOutcome::Gone] {
            assert_eq!(decode_outcome(&encode_outcome(&outcome)), Ok(outcome));
        }
    }

    proptest::proptest! {
        #[test]
        fn rubbish_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = decode_op(&bytes);
            let _ = decode_outcome(&bytes);
            let _ = crate::rows::decode_item(&bytes);
            let _ = crate::accepts::decode(&bytes);
        }
    }
}
