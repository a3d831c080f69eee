//! Queue operations and outcomes as bytes, for forwarding to the home and for outcome rows: version byte, protobuf.

use bytes::Bytes;
use prost::Message as _;
use vocab::{CommandId, Damaged, NodeId, Timestamp};

use crate::op::{AttemptResult, QueueItem, QueueOp, QueueOutcome};
use crate::rows::{FailureV1, ItemV1};

/// First byte of every message made here.
const VERSION: u8 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct OpV1 {
    #[prost(oneof = "OpKindV1", tags = "1, 2, 3")]
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
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnqueueV1 {
    #[prost(message, repeated, tag = "1")]
    items: Vec<ItemV1>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StartV1 {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    node: u32,
    #[prost(uint64, tag = "3")]
    at: u64,
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
}

/// Bytes of an operation.
#[must_use]
pub fn encode_op(op: &QueueOp) -> Bytes {
    let kind = match op {
        QueueOp::Enqueue(items) => OpKindV1::Enqueue(EnqueueV1 { items: items.iter().map(ItemV1::from).collect() }),
        QueueOp::AttemptStart { id, node, at } => {
            OpKindV1::Start(StartV1 { id: id.to_bytes().to_vec(), node: node.0, at: at.0 })
        }
        QueueOp::AttemptEnd { id, result } => {
            let (result, failure, due) = match result {
                AttemptResult::Delivered => (1, None, 0),
                AttemptResult::Deferred(failure, due) => (2, Some(failure), due.0),
                AttemptResult::Failed(failure) => (3, Some(failure), 0),
            };
            OpKindV1::End(EndV1 { id: id.to_bytes().to_vec(), result, failure: failure.map(FailureV1::from), due })
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

/// The operation of these bytes.
///
/// # Errors
/// [`Damaged`] for another version or rubbish: refuse the call.
pub fn decode_op(bytes: &[u8]) -> Result<QueueOp, Damaged> {
    let Some((&VERSION, message)) = bytes.split_first() else { return Err(damaged("unknown version")) };
    let message = OpV1::decode(message).map_err(damaged)?;
    match message.kind.ok_or_else(|| damaged("empty"))? {
        OpKindV1::Enqueue(enqueue) => {
            let items: Result<Vec<QueueItem>, Damaged> = enqueue.items.into_iter().map(QueueItem::try_from).collect();
            items.map(QueueOp::Enqueue)
        }
        OpKindV1::Start(start) => {
            Ok(QueueOp::AttemptStart { id: command_id(&start.id)?, node: NodeId(start.node), at: Timestamp(start.at) })
        }
        OpKindV1::End(end) => {
            let result = match (end.result, end.failure) {
                (1, None) => AttemptResult::Delivered,
                (2, Some(failure)) => AttemptResult::Deferred(failure.into(), Timestamp(end.due)),
                (3, Some(failure)) => AttemptResult::Failed(failure.into()),
                _ => return Err(damaged("result")),
            };
            Ok(QueueOp::AttemptEnd { id: command_id(&end.id)?, result })
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
        let end = |result| QueueOp::AttemptEnd { id, result };
        for op in [
            QueueOp::Enqueue(vec![]),
            QueueOp::Enqueue(vec![item(1), item(2)]),
            QueueOp::AttemptStart { id, node: NodeId(3), at: Timestamp(4) },
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
        }
    }
}
