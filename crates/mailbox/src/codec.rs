//! Operations, commands and outcomes as bytes: what is forwarded to the home, and outcomes as they are stored.
//! First byte the version, then protobuf without maps, like rows.

use bytes::Bytes;
use prost::{Message, Oneof};
use vocab::{BlobHash, CommandId, Damaged, Flags, MailboxId, ModSeq, PlacementId, Timestamp, Uid, UidValidity};

use crate::op::{AccountOp, Command, FlagMode, MailboxRef, NewMessage, Outcome, Refusal, StoredFlags};
use crate::rows::{
    damaged, flags_of, keyword_texts, mailbox_id, placement_id, role_number, role_of, unversioned, versioned,
};

const OP: &str = "operation";
const OUTCOME: &str = "outcome";

#[derive(Clone, PartialEq, Message)]
struct CommandV1 {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    settled: u64,
    #[prost(message, optional, tag = "3")]
    op: Option<OpV1>,
}

#[derive(Clone, PartialEq, Message)]
struct OpV1 {
    #[prost(oneof = "OpKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16")]
    kind: Option<OpKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum OpKind {
    #[prost(message, tag = "1")]
    Init(NothingV1),
    #[prost(message, tag = "2")]
    Append(AppendV1),
    #[prost(message, tag = "3")]
    Store(StoreV1),
    #[prost(message, tag = "4")]
    Expunge(ExpungeV1),
    #[prost(message, tag = "5")]
    Copy(CopyV1),
    #[prost(message, tag = "6")]
    Move(CopyV1),
    #[prost(message, tag = "7")]
    Create(NamedV1),
    #[prost(message, tag = "8")]
    Delete(NamedV1),
    #[prost(message, tag = "9")]
    Rename(NamedV1),
    #[prost(message, tag = "10")]
    Subscribe(SubscribeV1),
    #[prost(message, tag = "11")]
    SetDocument(SetDocumentV1),
    #[prost(uint32, tag = "12")]
    RaiseUidValidity(u32),
    #[prost(message, tag = "13")]
    Purge(NothingV1),
    #[prost(message, tag = "14")]
    Restore(RestoreV1),
    #[prost(uint64, tag = "15")]
    ForgetRecovered(u64),
    #[prost(message, tag = "16")]
    Import(ImportV1),
}

#[derive(Clone, PartialEq, Message)]
struct RestoreV1 {
    #[prost(bytes = "vec", repeated, tag = "1")]
    placements: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct NothingV1 {}

#[derive(Clone, PartialEq, Message)]
struct FlagsV1 {
    #[prost(uint32, tag = "1")]
    system: u32,
    #[prost(string, repeated, tag = "2")]
    keywords: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ImportV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    email: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    message: Option<NewMessageV1>,
}

#[derive(Clone, PartialEq, Message)]
struct AppendV1 {
    /// Empty when named by role.
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(uint32, tag = "2")]
    role: u32,
    #[prost(message, repeated, tag = "3")]
    messages: Vec<NewMessageV1>,
}

#[derive(Clone, PartialEq, Message)]
struct NewMessageV1 {
    #[prost(bytes = "vec", tag = "1")]
    blob: Vec<u8>,
    #[prost(uint64, tag = "2")]
    blob_size: u64,
    #[prost(bytes = "bytes", tag = "3")]
    prefix: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    facts: Bytes,
    #[prost(message, optional, tag = "5")]
    flags: Option<FlagsV1>,
    #[prost(uint64, tag = "6")]
    internal_date: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoreV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    placements: Vec<Vec<u8>>,
    #[prost(uint32, tag = "3")]
    mode: u32,
    #[prost(message, optional, tag = "4")]
    flags: Option<FlagsV1>,
    #[prost(uint64, optional, tag = "5")]
    unchanged_since: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct ExpungeV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    placements: Vec<Vec<u8>>,
    #[prost(bool, tag = "3")]
    only_deleted: bool,
}

#[derive(Clone, PartialEq, Message)]
struct CopyV1 {
    #[prost(bytes = "vec", tag = "1")]
    from: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    to: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    placements: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, tag = "3")]
    role: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SubscribeV1 {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    subscribed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct SetDocumentV1 {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "bytes", optional, tag = "3")]
    body: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct OutcomeV1 {
    #[prost(oneof = "OutcomeKind", tags = "1, 2, 3, 4, 5, 6, 7")]
    kind: Option<OutcomeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum OutcomeKind {
    #[prost(message, tag = "1")]
    Done(NothingV1),
    #[prost(message, tag = "2")]
    Appended(AppendedV1),
    #[prost(message, tag = "3")]
    Stored(StoredV1),
    #[prost(message, tag = "4")]
    Expunged(ExpungedV1),
    #[prost(message, tag = "5")]
    Copied(CopiedV1),
    #[prost(bytes, tag = "6")]
    Created(Vec<u8>),
    #[prost(message, tag = "7")]
    Refused(RefusedV1),
}

#[derive(Clone, PartialEq, Message)]
struct AppendedV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(uint32, tag = "2")]
    uid_validity: u32,
    #[prost(uint32, repeated, tag = "3")]
    uids: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredFlagsV1 {
    #[prost(uint32, tag = "1")]
    uid: u32,
    #[prost(message, optional, tag = "2")]
    flags: Option<FlagsV1>,
    #[prost(uint64, tag = "3")]
    modseq: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredV1 {
    #[prost(message, repeated, tag = "1")]
    stored: Vec<StoredFlagsV1>,
    #[prost(uint32, repeated, tag = "2")]
    modified: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct ExpungedV1 {
    #[prost(uint32, repeated, tag = "1")]
    uids: Vec<u32>,
    #[prost(uint64, tag = "2")]
    modseq: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CopiedV1 {
    #[prost(uint32, tag = "1")]
    uid_validity: u32,
    #[prost(uint32, repeated, tag = "2")]
    from: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    to: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct RefusedV1 {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    limit: String,
}

/// Bytes of a command, for the way to the home.
#[must_use]
pub fn encode_command(command: &Command) -> Bytes {
    versioned(&CommandV1 {
        id: command.id.to_bytes().to_vec(),
        settled: command.settled,
        op: Some(op_to_proto(&command.op)),
    })
}

/// The command in these bytes.
///
/// # Errors
/// [`Damaged`] for bytes of another version or broken ones.
pub fn decode_command(bytes: &[u8]) -> Result<Command, Damaged> {
    let row: CommandV1 = unversioned("command", bytes)?;
    let id = CommandId::from_bytes(&row.id).ok_or_else(|| damaged("command", "id"))?;
    let op = op_from_proto(row.op.ok_or_else(|| damaged("command", "no operation"))?)?;
    Ok(Command { id, settled: row.settled, op })
}

/// Bytes of an operation.
#[must_use]
pub fn encode_op(op: &AccountOp) -> Bytes {
    versioned(&op_to_proto(op))
}

/// The operation in these bytes.
///
/// # Errors
/// As [`decode_command`].
pub fn decode_op(bytes: &[u8]) -> Result<AccountOp, Damaged> {
    op_from_proto(unversioned(OP, bytes)?)
}

/// Bytes of an outcome: the value of its row, and the answer on the way back from the home.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    versioned(&OutcomeV1 { kind: Some(outcome_to_proto(outcome)) })
}

/// The outcome in these bytes.
///
/// # Errors
/// As [`decode_command`].
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, Damaged> {
    let row: OutcomeV1 = unversioned(OUTCOME, bytes)?;
    outcome_from_proto(row.kind.ok_or_else(|| damaged(OUTCOME, "empty"))?)
}

fn id_bytes(id: MailboxId) -> Vec<u8> {
    id.to_bytes().to_vec()
}

fn placement_bytes(ids: &[PlacementId]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.to_bytes().to_vec()).collect()
}

fn placement_ids(ids: &[Vec<u8>]) -> Result<Vec<PlacementId>, Damaged> {
    ids.iter().map(|id| placement_id(OP, id)).collect()
}

fn flags_to_proto(flags: &Flags) -> Option<FlagsV1> {
    Some(FlagsV1 { system: u32::from(flags.system), keywords: keyword_texts(flags) })
}

fn flags_from_proto(flags: Option<FlagsV1>) -> Result<Flags, Damaged> {
    flags.map_or_else(|| Ok(Flags::default()), |f| flags_of(f.system, &f.keywords))
}

fn message_to_proto(message: &NewMessage) -> NewMessageV1 {
    NewMessageV1 {
        blob: message.blob.0.to_vec(),
        blob_size: message.blob_size,
        prefix: message.prefix.clone(),
        facts: message.facts.clone(),
        flags: flags_to_proto(&message.flags),
        internal_date: message.internal_date.0,
    }
}

fn message_from_proto(message: NewMessageV1) -> Result<NewMessage, Damaged> {
    Ok(NewMessage {
        blob: BlobHash::from_bytes(&message.blob).ok_or_else(|| damaged(OP, "blob hash"))?,
        blob_size: message.blob_size,
        prefix: message.prefix,
        facts: message.facts,
        flags: flags_from_proto(message.flags)?,
        internal_date: Timestamp(message.internal_date),
    })
}

fn op_to_proto(op: &AccountOp) -> OpV1 {
    let kind = match op {
        AccountOp::Init => OpKind::Init(NothingV1 {}),
        AccountOp::Append { mailbox, messages } => {
            let (mailbox, role) = match mailbox {
                MailboxRef::Id(id) => (id_bytes(*id), 0),
                MailboxRef::Role(role) => (Vec::new(), role_number(Some(*role))),
            };
            OpKind::Append(AppendV1 { mailbox, role, messages: messages.iter().map(message_to_proto).collect() })
        }
        AccountOp::Store { mailbox, placements, mode, flags, unchanged_since } => OpKind::Store(StoreV1 {
            mailbox: id_bytes(*mailbox),
            placements: placement_bytes(placements),
            mode: match mode {
                FlagMode::Replace => 0,
                FlagMode::Add => 1,
                FlagMode::Remove => 2,
            },
            flags: flags_to_proto(flags),
            unchanged_since: unchanged_since.map(|m| m.0),
        }),
        AccountOp::Expunge { mailbox, placements, only_deleted } => OpKind::Expunge(ExpungeV1 {
            mailbox: id_bytes(*mailbox),
            placements: placement_bytes(placements),
            only_deleted: *only_deleted,
        }),
        AccountOp::Copy { from, to, placements } => OpKind::Copy(copy_to_proto(*from, *to, placements)),
        AccountOp::Move { from, to, placements } => OpKind::Move(copy_to_proto(*from, *to, placements)),
        AccountOp::CreateMailbox { name, role } => {
            OpKind::Create(NamedV1 { mailbox: Vec::new(), name: name.clone(), role: role_number(*role) })
        }
        AccountOp::DeleteMailbox { mailbox } => {
            OpKind::Delete(NamedV1 { mailbox: id_bytes(*mailbox), name: String::new(), role: 0 })
        }
        AccountOp::RenameMailbox { mailbox, name } => {
            OpKind::Rename(NamedV1 { mailbox: id_bytes(*mailbox), name: name.clone(), role: 0 })
        }
        AccountOp::Subscribe { name, subscribed } => {
            OpKind::Subscribe(SubscribeV1 { name: name.clone(), subscribed: *subscribed })
        }
        AccountOp::SetDocument { kind, name, body } => {
            OpKind::SetDocument(SetDocumentV1 { kind: kind.clone(), name: name.clone(), body: body.clone() })
        }
        AccountOp::RaiseUidValidity { floor } => OpKind::RaiseUidValidity(floor.0),
        AccountOp::Restore { ids } => OpKind::Restore(RestoreV1 { placements: placement_bytes(ids) }),
        AccountOp::ForgetRecovered { older_than } => OpKind::ForgetRecovered(older_than.0),
        AccountOp::Import { mailbox, id, email, message } => OpKind::Import(ImportV1 {
            mailbox: id_bytes(*mailbox),
            id: id.to_bytes().to_vec(),
            email: email.to_bytes().to_vec(),
            message: Some(message_to_proto(message)),
        }),
        AccountOp::Purge => OpKind::Purge(NothingV1 {}),
    };
    OpV1 { kind: Some(kind) }
}

fn copy_to_proto(from: MailboxId, to: MailboxId, placements: &[PlacementId]) -> CopyV1 {
    CopyV1 { from: id_bytes(from), to: id_bytes(to), placements: placement_bytes(placements) }
}

fn op_from_proto(op: OpV1) -> Result<AccountOp, Damaged> {
    Ok(match op.kind.ok_or_else(|| damaged(OP, "empty"))? {
        OpKind::Init(_) => AccountOp::Init,
        OpKind::Append(op) => AccountOp::Append {
            mailbox: match role_of(op.role)? {
                Some(role) => MailboxRef::Role(role),
                None => MailboxRef::Id(mailbox_id(OP, &op.mailbox)?),
            },
            messages: op.messages.into_iter().map(message_from_proto).collect::<Result<_, _>>()?,
        },
        OpKind::Store(op) => AccountOp::Store {
            mailbox: mailbox_id(OP, &op.mailbox)?,
            placements: placement_ids(&op.placements)?,
            mode: match op.mode {
                0 => FlagMode::Replace,
                1 => FlagMode::Add,
                2 => FlagMode::Remove,
                other => return Err(damaged(OP, &format!("flag mode {other}"))),
            },
            flags: flags_from_proto(op.flags)?,
            unchanged_since: op.unchanged_since.map(ModSeq),
        },
        OpKind::Expunge(op) => AccountOp::Expunge {
            mailbox: mailbox_id(OP, &op.mailbox)?,
            placements: placement_ids(&op.placements)?,
            only_deleted: op.only_deleted,
        },
        OpKind::Copy(op) => AccountOp::Copy {
            from: mailbox_id(OP, &op.from)?,
            to: mailbox_id(OP, &op.to)?,
            placements: placement_ids(&op.placements)?,
        },
        OpKind::Move(op) => AccountOp::Move {
            from: mailbox_id(OP, &op.from)?,
            to: mailbox_id(OP, &op.to)?,
            placements: placement_ids(&op.placements)?,
        },
        OpKind::Create(op) => AccountOp::CreateMailbox { name: op.name, role: role_of(op.role)? },
        OpKind::Delete(op) => AccountOp::DeleteMailbox { mailbox: mailbox_id(OP, &op.mailbox)? },
        OpKind::Rename(op) => AccountOp::RenameMailbox { mailbox: mailbox_id(OP, &op.mailbox)?, name: op.name },
        OpKind::Subscribe(op) => AccountOp::Subscribe { name: op.name, subscribed: op.subscribed },
        OpKind::SetDocument(op) => AccountOp::SetDocument { kind: op.kind, name: op.name, body: op.body },
        OpKind::RaiseUidValidity(floor) => AccountOp::RaiseUidValidity { floor: UidValidity(floor) },
        OpKind::Restore(op) => AccountOp::Restore { ids: placement_ids(&op.placements)? },
        OpKind::Import(op) => AccountOp::Import {
            mailbox: mailbox_id(OP, &op.mailbox)?,
            id: placement_id(OP, &op.id)?,
            email: placement_id(OP, &op.email)?,
            message: Box::new(message_from_proto(op.message.ok_or_else(|| damaged(OP, "no message"))?)?),
        },
        OpKind::ForgetRecovered(older_than) => AccountOp::ForgetRecovered { older_than: Timestamp(older_than) },
        OpKind::Purge(_) => AccountOp::Purge,
    })
}

fn numbers(uids: &[Uid]) -> Vec<u32> {
    uids.iter().map(|uid| uid.0).collect()
}

fn uids(numbers: Vec<u32>) -> Vec<Uid> {
    numbers.into_iter().map(Uid).collect()
}

fn outcome_to_proto(outcome: &Outcome) -> OutcomeKind {
    match outcome {
        Outcome::Done => OutcomeKind::Done(NothingV1 {}),
        Outcome::Appended { mailbox, uid_validity, uids } => OutcomeKind::Appended(AppendedV1 {
            mailbox: id_bytes(*mailbox),
            uid_validity: uid_validity.0,
            uids: numbers(uids),
        }),
        Outcome::Stored { stored, modified } => OutcomeKind::Stored(StoredV1 {
            stored: stored
                .iter()
                .map(|s| StoredFlagsV1 { uid: s.uid.0, flags: flags_to_proto(&s.flags), modseq: s.modseq.0 })
                .collect(),
            modified: numbers(modified),
        }),
        Outcome::Expunged { uids, modseq } => {
            OutcomeKind::Expunged(ExpungedV1 { uids: numbers(uids), modseq: modseq.0 })
        }
        Outcome::Copied { uid_validity, uids } => OutcomeKind::Copied(CopiedV1 {
            uid_validity: uid_validity.0,
            from: uids.iter().map(|(from, _)| from.0).collect(),
            to: uids.iter().map(|(_, to)| to.0).collect(),
        }),
        Outcome::Created { mailbox } => OutcomeKind::Created(id_bytes(*mailbox)),
        Outcome::Refused(refusal) => OutcomeKind::Refused(refusal_to_proto(refusal)),
    }
}

fn refusal_to_proto(refusal: &Refusal) -> RefusedV1 {
    let code = match refusal {
        Refusal::NoSuchMailbox => 1,
        Refusal::MailboxExists => 2,
        Refusal::BadName => 3,
        Refusal::NotAllowed => 4,
        Refusal::HasChildren => 5,
        Refusal::Limit(limit) => return RefusedV1 { code: 6, limit: limit.clone() },
        Refusal::UnknownPlacement => 7,
        Refusal::Settled => 8,
        Refusal::NoSuchAccount => 9,
    };
    RefusedV1 { code, limit: String::new() }
}

fn refusal_from_proto(refusal: RefusedV1) -> Result<Refusal, Damaged> {
    Ok(match refusal.code {
        1 => Refusal::NoSuchMailbox,
        2 => Refusal::MailboxExists,
        3 => Refusal::BadName,
        4 => Refusal::NotAllowed,
        5 => Refusal::HasChildren,
        6 => Refusal::Limit(refusal.limit),
        7 => Refusal::UnknownPlacement,
        8 => Refusal::Settled,
        9 => Refusal::NoSuchAccount,
        other => return Err(damaged(OUTCOME, &format!("refusal {other}"))),
    })
}

fn outcome_from_proto(kind: OutcomeKind) -> Result<Outcome, Damaged> {
    Ok(match kind {
        OutcomeKind::Done(_) => Outcome::Done,
        OutcomeKind::Appended(o) => Outcome::Appended {
            mailbox: mailbox_id(OUTCOME, &o.mailbox)?,
            uid_validity: UidValidity(o.uid_validity),
            uids: uids(o.uids),
        },
        OutcomeKind::Stored(o) => {
            let stored = |s: StoredFlagsV1| {
                let flags = flags_from_proto(s.flags)?;
                Ok(StoredFlags { uid: Uid(s.uid), flags, modseq: ModSeq(s.modseq) })
            };
            Outcome::Stored {
                stored: o.stored.into_iter().map(stored).collect::<Result<_, Damaged>>()?,
                modified: uids(o.modified),
            }
        }
        OutcomeKind::Expunged(o) => Outcome::Expunged { uids: uids(o.uids), modseq: ModSeq(o.modseq) },
        OutcomeKind::Copied(o) => {
            if o.from.len() != o.to.len() {
                return Err(damaged(OUTCOME, "unequal UID lists"));
            }
            Outcome::Copied {
                uid_validity: UidValidity(o.uid_validity),
                uids: uids(o.from).into_iter().zip(uids(o.to)).collect(),
            }
        }
        OutcomeKind::Created(mailbox) => Outcome::Created { mailbox: mailbox_id(OUTCOME, &mailbox)? },
        OutcomeKind::Refused(refusal) => Outcome::Refused(refusal_from_proto(refusal)?),
    })
}
