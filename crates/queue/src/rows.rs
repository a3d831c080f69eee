//! Bytes of queue rows: first byte = row version, then protobuf without maps. Golden tests freeze them.

use bytes::Bytes;
use prost::Message as _;
use vocab::{Address, BlobHash, CommandId, Damaged, NodeId, ReversePath, Timestamp};

use crate::op::{Failure, QueueItem};

/// Row version written as first byte of an encoded item.
pub(crate) const ITEM_ROW_VERSION: u8 = 1;

/// [`Failure`] in rows and messages.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FailureV1 {
    #[prost(string, tag = "1")]
    status: String,
    #[prost(string, tag = "2")]
    diagnostic: String,
    #[prost(string, optional, tag = "3")]
    remote: Option<String>,
}

/// [`QueueItem`] in rows and messages. A missing reverse-path is the null one.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ItemV1 {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    reverse_path: Option<String>,
    #[prost(string, tag = "3")]
    recipient: String,
    #[prost(string, optional, tag = "4")]
    original_recipient: Option<String>,
    #[prost(bytes = "vec", tag = "5")]
    blob: Vec<u8>,
    #[prost(uint64, tag = "6")]
    size: u64,
    #[prost(bool, tag = "7")]
    smtputf8: bool,
    #[prost(bool, tag = "8")]
    eight_bit: bool,
    #[prost(uint64, tag = "9")]
    accepted_at: u64,
    #[prost(uint32, tag = "10")]
    attempts: u32,
    #[prost(uint64, tag = "11")]
    due: u64,
    #[prost(uint32, optional, tag = "12")]
    attempt_node: Option<u32>,
    #[prost(uint64, tag = "13")]
    attempt_at: u64,
    #[prost(message, optional, tag = "14")]
    last_status: Option<FailureV1>,
    #[prost(uint32, optional, tag = "15")]
    owner: Option<u32>,
}

fn damaged(what: &str) -> Damaged {
    Damaged(format!("queue item: {what}"))
}

fn address(text: &str) -> Result<Address, Damaged> {
    Address::parse(text).map_err(|fault| damaged(&fault.to_string()))
}

impl From<&Failure> for FailureV1 {
    fn from(f: &Failure) -> Self {
        Self { status: f.status.clone(), diagnostic: f.diagnostic.clone(), remote: f.remote.clone() }
    }
}

impl From<FailureV1> for Failure {
    fn from(f: FailureV1) -> Self {
        Self { status: f.status, diagnostic: f.diagnostic, remote: f.remote }
    }
}

impl From<&QueueItem> for ItemV1 {
    fn from(item: &QueueItem) -> Self {
        Self {
            id: item.id.to_bytes().to_vec(),
            reverse_path: item.reverse_path.address().map(ToString::to_string),
            recipient: item.recipient.to_string(),
            original_recipient: item.original_recipient.as_ref().map(ToString::to_string),
            blob: item.blob.0.to_vec(),
            size: item.size,
            smtputf8: item.smtputf8,
            eight_bit: item.eight_bit,
            accepted_at: item.accepted_at.0,
            attempts: item.attempts,
            due: item.due.0,
            attempt_node: item.attempt.map(|(node, _)| node.0),
            attempt_at: item.attempt.map_or(0, |(_, at)| at.0),
            last_status: item.last_status.as_ref().map(FailureV1::from),
            owner: item.owner.map(|node| node.0),
        }
    }
}

impl TryFrom<ItemV1> for QueueItem {
    type Error = Damaged;

    fn try_from(row: ItemV1) -> Result<Self, Damaged> {
        Ok(Self {
            id: CommandId::from_bytes(&row.id).ok_or_else(|| damaged("id"))?,
            reverse_path: match row.reverse_path {
                None => ReversePath::Null,
                Some(text) => ReversePath::Address(address(&text)?),
            },
            recipient: address(&row.recipient)?,
            original_recipient: row.original_recipient.as_deref().map(address).transpose()?,
            blob: BlobHash::from_bytes(&row.blob).ok_or_else(|| damaged("blob"))?,
            size: row.size,
            smtputf8: row.smtputf8,
            eight_bit: row.eight_bit,
            accepted_at: Timestamp(row.accepted_at),
            attempts: row.attempts,
            due: Timestamp(row.due),
            attempt: row.attempt_node.map(|node| (NodeId(node), Timestamp(row.attempt_at))),
            last_status: row.last_status.map(Failure::from),
            owner: row.owner.map(NodeId),
        })
    }
}

/// Row bytes of an item.
pub(crate) fn encode_item(item: &QueueItem) -> Bytes {
    let mut out = vec![ITEM_ROW_VERSION];
    out.extend(ItemV1::from(item).encode_to_vec());
    out.into()
}

/// The item of a row.
pub(crate) fn decode_item(bytes: &[u8]) -> Result<QueueItem, Damaged> {
    match bytes.split_first() {
        Some((&ITEM_ROW_VERSION, row)) => ItemV1::decode(row).map_err(|fault| damaged(&fault.to_string()))?.try_into(),
        Some((version, _)) => Err(damaged(&format!("unknown row version {version}"))),
        None => Err(damaged("empty row")),
    }
}

/// Key of the due index: time, then item id.
pub(crate) fn due_key(due: Timestamp, id: CommandId) -> Bytes {
    let mut key = due.0.to_be_bytes().to_vec();
    key.extend(id.to_bytes());
    key.into()
}

/// Time and item of a key of the due index.
pub(crate) fn read_due_key(key: &[u8]) -> Result<(Timestamp, CommandId), Damaged> {
    let (due, id) = key.split_at_checked(8).ok_or_else(|| damaged("due key"))?;
    let due = due.try_into().map(u64::from_be_bytes).map_err(|_| damaged("due key"))?;
    Ok((Timestamp(due), CommandId::from_bytes(id).ok_or_else(|| damaged("due key"))?))
}

#[cfg(test)]
pub(crate) mod tests {
    use vocab::Boot;

    use super::*;

    pub(crate) fn item(number: u32) -> QueueItem {
        QueueItem {
            id: CommandId { origin: NodeId(1), boot: Boot(2), counter: 3, recipient: number },
            reverse_path: ReversePath::Address(Address::parse("anna@example.org").expect("valid")),
            recipient: Address::parse("bob@elsewhere.example").expect("valid"),
            original_recipient: None,
            blob: BlobHash([7; 32]),
            size: 1234,
            smtputf8: false,
            eight_bit: false,
            accepted_at: Timestamp(1_700_000_000_000),
            attempts: 0,
            due: Timestamp(1_700_000_000_000),
            attempt: None,
            last_status: None,
            owner: None,
        }
    }

    fn full() -> QueueItem {
        QueueItem {
            reverse_path: ReversePath::Null,
            original_recipient: Some(Address::parse("\"a b\"@[IPv6:::1]").expect("valid")),
            smtputf8: true,
            eight_bit: true,
            attempts: 2,
            attempt: Some((NodeId(2), Timestamp(9))),
            last_status: Some(Failure {
                status: "4.4.1".into(),
                diagnostic: "no answer".into(),
                remote: Some("mx.example".into()),
            }),
            ..item(5)
        }
    }

    #[test]
    fn items_survive_their_bytes() {
        for item in [item(1), full(), QueueItem { owner: Some(NodeId(2)), ..item(3) }] {
            assert_eq!(decode_item(&encode_item(&item)), Ok(item));
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn golden_item_row() {
        assert_eq!(hex(&encode_item(&item(1))), GOLDEN_ITEM);
        assert_eq!(hex(&encode_item(&full())), GOLDEN_FULL);
    }
    const GOLDEN_ITEM: &str = "010a1400000001000000020000000000000003000000011210616e6e61406578616d706c652e6f72671a15626f6240656c73\
        6577686572652e6578616d706c652a20070707070707070707070707070707070707070707070707070707070707070730d2\
        094880d095ffbc315880d095ffbc31";
    const GOLDEN_FULL: &str = "010a1400000001000000020000000000000003000000051a15626f6240656c736577686572652e6578616d706c65220b2261\
        206222405b3a3a315d2a20070707070707070707070707070707070707070707070707070707070707070730d20938014001\
        4880d095ffbc3150025880d095ffbc3160026809721e0a05342e342e3112096e6f20616e737765721a0a6d782e6578616d70\
        6c65";

    #[test]
    fn unknown_versions_and_rubbish_are_damaged() {
        for bad in [&[][..], &[9], &[ITEM_ROW_VERSION], &[ITEM_ROW_VERSION, 0xff, 0xff]] {
            assert!(decode_item(bad).is_err(), "{bad:?}");
        }
        assert!(read_due_key(&[0; 7]).is_err());
        assert!(read_due_key(&[0; 9]).is_err());
        let key = due_key(Timestamp(5), item(1).id);
        assert_eq!(read_due_key(&key), Ok((Timestamp(5), item(1).id)));
    }
}
