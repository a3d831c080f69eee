//! Rows of an account as bytes: first byte the row version, then protobuf without maps (DESIGN 4). Keys are fixed-length
//! big-endian ids and numbers, so byte order is number order.

use bytes::Bytes;
use mime::ThreadId;
use prost::Message;
use vocab::ids::{MAILBOX_ID_BYTES, PLACEMENT_ID_BYTES};
use vocab::{
    BlobHash, Boot, Damaged, Flags, Keyword, MailboxId, ModSeq, NodeId, PlacementId, Timestamp, Uid, UidValidity,
};

use crate::op::Role;

/// First byte of every row but those whose layout grew since.
const FIRST_ROW_VERSION: u8 = 1;

/// A row format: the greatest first byte that rows written under it have. A writer uses the lower of what all members
/// of the cluster read (DESIGN 5), so during a rolling upgrade nobody is sent a row it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowFormat(u8);

impl RowFormat {
    /// The oldest one this release reads and writes.
    pub const LOWEST: Self = Self(FIRST_ROW_VERSION);
    /// Mailbox rows say when the mailbox got its name, so that the later of two renames wins a merge (M2).
    pub const RENAMES: Self = Self(2);
    /// There are rows of former names (I2).
    pub const FORMER_NAMES: Self = Self(3);
    /// The newest one this release reads and writes.
    pub const HIGHEST: Self = Self::FORMER_NAMES;

    /// The highest format this release can write for somebody who reads up to `number`; what is below
    /// [`RowFormat::LOWEST`], or not said, counts as that.
    #[must_use]
    pub fn up_to(number: u32) -> Self {
        let number = number.clamp(u32::from(Self::LOWEST.0), u32::from(Self::HIGHEST.0));
        Self(u8::try_from(number).unwrap_or(FIRST_ROW_VERSION))
    }

    /// Its number, as nodes tell each other.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// What a mailbox holds, kept with it so that STATUS and SELECT count nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub messages: u32,
    /// Messages without `\Seen`.
    pub unseen: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Bytes of all messages, prefixes included.
    pub bytes: u64,
}

/// One mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Kept on rename.
    pub id: MailboxId,
    /// UTF-8 NFC, separator "/"; INBOX in capitals.
    pub name: String,
    /// UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// The next UID.
    pub uid_next: Uid,
    /// What vanished at or before this modseq is not remembered as tombstones.
    pub vanish_floor: ModSeq,
    /// Special use.
    pub role: Option<Role>,
    /// Whether its name is subscribed.
    pub subscribed: bool,
    /// HIGHESTMODSEQ.
    pub modseq: ModSeq,
    /// What it holds.
    pub counts: Counts,
    /// When it got its name, by the clock of the home; never before an earlier rename. 0 = not known: it has had this name
    /// since its creation, or the row is older than [`RowFormat::RENAMES`].
    pub renamed: Timestamp,
}

/// One message in one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its UID (part of the key).
    pub uid: Uid,
    /// Its id: POP3 UIDL.
    pub id: PlacementId,
    /// Flags.
    pub flags: Flags,
    /// MODSEQ.
    pub modseq: ModSeq,
    /// Modseq at which it came into this mailbox.
    pub created: ModSeq,
    /// EMAILID: id of the first placement of this message; key of its facts.
    pub email: PlacementId,
    /// THREADID.
    pub thread: ThreadId,
    /// INTERNALDATE.
    pub internal_date: Timestamp,
    /// The body as accepted.
    pub blob: BlobHash,
    /// Bytes of the body.
    pub blob_size: u64,
    /// Fields added for this recipient, shown before the body.
    pub prefix: Bytes,
}

impl Placement {
    /// RFC822.SIZE: prefix and body.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blob_size + self.prefix.len() as u64
    }
}

/// What a session keeps of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UidRow {
    /// UID.
    pub uid: Uid,
    /// Placement id.
    pub id: PlacementId,
    /// Flags.
    pub flags: Flags,
    /// MODSEQ.
    pub modseq: ModSeq,
}

/// What is remembered of an expunged placement, by its id (X21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expunged {
    /// Where it was.
    pub mailbox: MailboxId,
    /// Under which UID.
    pub uid: Uid,
    /// Modseq of its expunge; the merge's where it was expunged on the other branch alone.
    pub modseq: ModSeq,
    /// EMAILID of the message. Rows of older builds do not have it and name the placement itself.
    pub email: PlacementId,
    /// Modseq at which it came into the mailbox; 0 in rows of older builds.
    pub created: ModSeq,
}

/// An account document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Opaque bytes.
    pub body: Bytes,
    /// When it was written, by the home's clock: the later one wins a merge.
    pub changed: Timestamp,
}

/// Commands of an origin at or below this are settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Settled {
    /// Boot of the origin.
    pub boot: Boot,
    /// Counter within the boot.
    pub counter: u64,
}

/// Version 1 of the row lacks the last field.
#[derive(Clone, PartialEq, Message)]
struct MailboxV2 {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    uid_validity: u32,
    #[prost(uint32, tag = "3")]
    uid_next: u32,
    #[prost(uint64, tag = "4")]
    vanish_floor: u64,
    #[prost(uint32, tag = "5")]
    role: u32,
    #[prost(bool, tag = "6")]
    subscribed: bool,
    #[prost(uint64, tag = "7")]
    modseq: u64,
    #[prost(uint32, tag = "8")]
    messages: u32,
    #[prost(uint32, tag = "9")]
    unseen: u32,
    #[prost(uint32, tag = "10")]
    deleted: u32,
    #[prost(uint64, tag = "11")]
    bytes: u64,
    #[prost(uint64, tag = "12")]
    renamed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PlacementV1 {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    system: u32,
    #[prost(string, repeated, tag = "3")]
    keywords: Vec<String>,
    #[prost(uint64, tag = "4")]
    modseq: u64,
    #[prost(uint64, tag = "5")]
    created: u64,
    /// Empty when it is `id`.
    #[prost(bytes = "vec", tag = "6")]
    email: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    thread: Vec<u8>,
    #[prost(uint64, tag = "8")]
    internal_date: u64,
    #[prost(bytes = "vec", tag = "9")]
    blob: Vec<u8>,
    #[prost(uint64, tag = "10")]
    blob_size: u64,
    #[prost(bytes = "bytes", tag = "11")]
    prefix: Bytes,
}

/// The first fields of [`PlacementV1`]; the decoder skips the others.
#[derive(Clone, PartialEq, Message)]
struct UidRowV1 {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    system: u32,
    #[prost(string, repeated, tag = "3")]
    keywords: Vec<String>,
    #[prost(uint64, tag = "4")]
    modseq: u64,
}

#[derive(Clone, PartialEq, Message)]
struct NameV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PlaceV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(uint32, tag = "2")]
    uid: u32,
    #[prost(uint64, tag = "3")]
    modseq: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ExpungedV1 {
    #[prost(bytes = "vec", tag = "1")]
    mailbox: Vec<u8>,
    #[prost(uint32, tag = "2")]
    uid: u32,
    #[prost(uint64, tag = "3")]
    modseq: u64,
    /// Empty when it is the placement's own id.
    #[prost(bytes = "vec", tag = "4")]
    email: Vec<u8>,
    #[prost(uint64, tag = "5")]
    created: u64,
}

#[derive(Clone, PartialEq, Message)]
struct TombstoneV1 {
    #[prost(bytes = "vec", tag = "1")]
    placement: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct DocumentV1 {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(uint64, tag = "2")]
    changed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SettledV1 {
    #[prost(uint32, tag = "1")]
    boot: u32,
    #[prost(uint64, tag = "2")]
    counter: u64,
}

/// Row version byte, then the message.
pub(crate) fn versioned(message: &impl Message) -> Bytes {
    versioned_as(RowFormat::LOWEST, message)
}

pub(crate) fn versioned_as(version: RowFormat, message: &impl Message) -> Bytes {
    let mut out = Vec::with_capacity(message.encoded_len() + 1);
    out.push(version.0);
    out.extend(message.encode_to_vec());
    Bytes::from(out)
}

/// The message behind the row version byte.
pub(crate) fn unversioned<M: Message + Default>(what: &str, bytes: &[u8]) -> Result<M, Damaged> {
    match bytes.split_first() {
        Some((&FIRST_ROW_VERSION, rest)) => M::decode(rest).map_err(|e| damaged(what, &e.to_string())),
        Some((other, _)) => Err(damaged(what, &format!("unknown row version {other}"))),
        None => Err(damaged(what, "empty")),
    }
}

pub(crate) fn damaged(what: &str, why: &str) -> Damaged {
    Damaged(format!("{what}: {why}"))
}

pub(crate) fn mailbox_id(what: &str, bytes: &[u8]) -> Result<MailboxId, Damaged> {
    MailboxId::from_bytes(bytes).ok_or_else(|| damaged(what, "mailbox id"))
}

pub(crate) fn placement_id(what: &str, bytes: &[u8]) -> Result<PlacementId, Damaged> {
    PlacementId::from_bytes(bytes).ok_or_else(|| damaged(what, "placement id"))
}

/// Number of a role in rows; 0 is none.
pub(crate) const fn role_number(role: Option<Role>) -> u32 {
    match role {
        None => 0,
        Some(Role::Inbox) => 1,
        Some(Role::Drafts) => 2,
        Some(Role::Sent) => 3,
        Some(Role::Junk) => 4,
        Some(Role::Trash) => 5,
        Some(Role::Archive) => 6,
    }
}

pub(crate) fn role_of(number: u32) -> Result<Option<Role>, Damaged> {
    Ok(match number {
        0 => None,
        1 => Some(Role::Inbox),
        2 => Some(Role::Drafts),
        3 => Some(Role::Sent),
        4 => Some(Role::Junk),
        5 => Some(Role::Trash),
        6 => Some(Role::Archive),
        other => return Err(damaged("role", &format!("unknown number {other}"))),
    })
}

pub(crate) fn flags_of(system: u32, keywords: &[String]) -> Result<Flags, Damaged> {
    let system = u8::try_from(system).map_err(|_| damaged("flags", "unknown system flag"))?;
    let keyword = |text: &String| Keyword::new(text).ok_or_else(|| damaged("flags", "bad keyword"));
    Ok(Flags { system, keywords: keywords.iter().map(keyword).collect::<Result<_, _>>()? })
}

pub(crate) fn keyword_texts(flags: &Flags) -> Vec<String> {
    flags.keywords.iter().map(|k| k.as_str().to_owned()).collect()
}

impl Mailbox {
    /// Value of its row, in a format all members of the cluster read; what that has no field for is left out.
    #[must_use]
    pub fn encode(&self, format: RowFormat) -> Bytes {
        let renamed = if format >= RowFormat::RENAMES { self.renamed.0 } else { 0 };
        // Nothing to say in the new field: whoever reads the old version reads this row.
        let version = if renamed > 0 { RowFormat::RENAMES } else { RowFormat::LOWEST };
        versioned_as(
            version,
            &MailboxV2 {
                name: self.name.clone(),
                uid_validity: self.uid_validity.0,
                uid_next: self.uid_next.0,
                vanish_floor: self.vanish_floor.0,
                role: role_number(self.role),
                subscribed: self.subscribed,
                modseq: self.modseq.0,
                messages: self.counts.messages,
                unseen: self.counts.unseen,
                deleted: self.counts.deleted,
                bytes: self.counts.bytes,
                renamed,
            },
        )
    }
    /// From key and value, of any version this release reads.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let what = "mailbox row";
        let row = match value.split_first() {
            Some((2, rest)) => MailboxV2::decode(rest).map_err(|e| damaged(what, &e.to_string()))?,
            // A field of a later version in an older row is no news.
            _ => MailboxV2 { renamed: 0, ..unversioned(what, value)? },
        };
        Ok(Self {
            id: mailbox_id(what, key)?,
            name: row.name,
            uid_validity: UidValidity(row.uid_validity),
            uid_next: Uid(row.uid_next),
            vanish_floor: ModSeq(row.vanish_floor),
            role: role_of(row.role)?,
            subscribed: row.subscribed,
            modseq: ModSeq(row.modseq),
            counts: Counts { messages: row.messages, unseen: row.unseen, deleted: row.deleted, bytes: row.bytes },
            renamed: Timestamp(row.renamed),
        })
    }
}

impl Placement {
    /// Value of its row.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        versioned(&PlacementV1 {
            id: self.id.to_bytes().to_vec(),
            system: u32::from(self.flags.system),
            keywords: keyword_texts(&self.flags),
            modseq: self.modseq.0,
            created: self.created.0,
            email: if self.email == self.id { Vec::new() } else { self.email.to_bytes().to_vec() },
            thread: self.thread.0.to_vec(),
            internal_date: self.internal_date.0,
            blob: self.blob.0.to_vec(),
            blob_size: self.blob_size,
            prefix: self.prefix.clone(),
        })
    }
    /// From key and value.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let what = "placement row";
        let row: PlacementV1 = unversioned(what, value)?;
        let id = placement_id(what, &row.id)?;
        Ok(Self {
            uid: uid_of_key(key)?,
            id,
            flags: flags_of(row.system, &row.keywords)?,
            modseq: ModSeq(row.modseq),
            created: ModSeq(row.created),
            email: if row.email.is_empty() { id } else { placement_id(what, &row.email)? },
            thread: ThreadId::from_bytes(&row.thread).ok_or_else(|| damaged(what, "thread id"))?,
            internal_date: Timestamp(row.internal_date),
            blob: BlobHash::from_bytes(&row.blob).ok_or_else(|| damaged(what, "blob hash"))?,
            blob_size: row.blob_size,
            prefix: row.prefix,
        })
    }
}

impl UidRow {
    /// From key and value of a placement row, without its colder fields.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let row: UidRowV1 = unversioned("placement row", value)?;
        Ok(Self {
            uid: uid_of_key(key)?,
            id: placement_id("placement row", &row.id)?,
            flags: flags_of(row.system, &row.keywords)?,
            modseq: ModSeq(row.modseq),
        })
    }
}

impl Expunged {
    /// What is remembered of this placement of `mailbox`, expunged at `modseq`.
    pub(crate) fn of(mailbox: MailboxId, placement: &Placement, modseq: ModSeq) -> Self {
        Self { mailbox, uid: placement.uid, modseq, email: placement.email, created: placement.created }
    }
    /// Value of its row under `id`.
    pub(crate) fn encode(&self, id: PlacementId) -> Bytes {
        versioned(&ExpungedV1 {
            mailbox: self.mailbox.to_bytes().to_vec(),
            uid: self.uid.0,
            modseq: self.modseq.0,
            email: if self.email == id { Vec::new() } else { self.email.to_bytes().to_vec() },
            created: self.created.0,
        })
    }
    pub(crate) fn decode(id: PlacementId, value: &[u8]) -> Result<Self, Damaged> {
        let what = "expunged row";
        let row: ExpungedV1 = unversioned(what, value)?;
        Ok(Self {
            mailbox: mailbox_id(what, &row.mailbox)?,
            uid: Uid(row.uid),
            modseq: ModSeq(row.modseq),
            email: if row.email.is_empty() { id } else { placement_id(what, &row.email)? },
            created: ModSeq(row.created),
        })
    }
}

impl Document {
    pub(crate) fn encode(&self) -> Bytes {
        versioned(&DocumentV1 { body: self.body.clone(), changed: self.changed.0 })
    }
    pub(crate) fn decode(value: &[u8]) -> Result<Self, Damaged> {
        let row: DocumentV1 = unversioned("document row", value)?;
        Ok(Self { body: row.body, changed: Timestamp(row.changed) })
    }
}

impl Settled {
    pub(crate) fn encode(self) -> Bytes {
        versioned(&SettledV1 { boot: self.boot.0, counter: self.counter })
    }
    pub(crate) fn decode(value: &[u8]) -> Result<Self, Damaged> {
        let row: SettledV1 = unversioned("settled row", value)?;
        Ok(Self { boot: Boot(row.boot), counter: row.counter })
    }
}

/// Value of a name row; `None` is a subscribed name without mailbox.
pub(crate) fn encode_name(mailbox: Option<MailboxId>) -> Bytes {
    versioned(&NameV1 { mailbox: mailbox.map(|id| id.to_bytes().to_vec()).unwrap_or_default() })
}

pub(crate) fn decode_name(value: &[u8]) -> Result<Option<MailboxId>, Damaged> {
    let row: NameV1 = unversioned("name row", value)?;
    if row.mailbox.is_empty() { Ok(None) } else { mailbox_id("name row", &row.mailbox).map(Some) }
}

/// Value of a placement index row.
pub(crate) fn encode_place(mailbox: MailboxId, uid: Uid) -> Bytes {
    versioned(&PlaceV1 { mailbox: mailbox.to_bytes().to_vec(), uid: uid.0, modseq: 0 })
}

pub(crate) fn decode_place(value: &[u8]) -> Result<(MailboxId, Uid), Damaged> {
    let row: PlaceV1 = unversioned("index row", value)?;
    Ok((mailbox_id("index row", &row.mailbox)?, Uid(row.uid)))
}

/// Value of a tombstone row.
pub(crate) fn encode_tombstone(placement: PlacementId) -> Bytes {
    versioned(&TombstoneV1 { placement: placement.to_bytes().to_vec() })
}

pub(crate) fn decode_tombstone(value: &[u8]) -> Result<PlacementId, Damaged> {
    let row: TombstoneV1 = unversioned("tombstone row", value)?;
    placement_id("tombstone row", &row.placement)
}

/// Key of a placement.
pub(crate) fn placement_key(mailbox: MailboxId, uid: Uid) -> Vec<u8> {
    let mut key = mailbox.to_bytes().to_vec();
    key.extend(uid.0.to_be_bytes());
    key
}

/// Key of a change or a tombstone.
pub(crate) fn modseq_key(mailbox: MailboxId, modseq: ModSeq, uid: Uid) -> Vec<u8> {
    let mut key = mailbox.to_bytes().to_vec();
    key.extend(modseq.0.to_be_bytes());
    key.extend(uid.0.to_be_bytes());
    key
}

/// Key of a further placement that uses the facts of `email`.
pub(crate) fn facts_user_key(email: PlacementId, placement: PlacementId) -> Vec<u8> {
    let mut key = email.to_bytes().to_vec();
    key.extend(placement.to_bytes());
    key
}

/// Key of a document.
pub(crate) fn document_key(kind: &str, name: &str) -> Vec<u8> {
    let mut key = kind.as_bytes().to_vec();
    key.push(0);
    key.extend(name.as_bytes());
    key
}

/// Key of a settled mark.
pub(crate) fn settled_key(origin: NodeId) -> [u8; 4] {
    origin.0.to_be_bytes()
}

/// UID in the key of a placement, change or tombstone: its last four bytes.
pub(crate) fn uid_of_key(key: &[u8]) -> Result<Uid, Damaged> {
    let long = key.len() == MAILBOX_ID_BYTES + 4 || key.len() == MAILBOX_ID_BYTES + 12;
    match key.last_chunk::<4>() {
        Some(tail) if long => Ok(Uid(u32::from_be_bytes(*tail))),
        _ => Err(damaged("key", "length")),
    }
}

/// Whether a key of the facts table names facts (and not a further user of them).
pub(crate) fn is_facts_key(key: &[u8]) -> bool {
    key.len() == PLACEMENT_ID_BYTES
}
