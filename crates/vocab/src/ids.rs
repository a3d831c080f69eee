//! Identifiers. Fixed-length big-endian bytes, so that byte order is number order in keys.

use std::fmt;

/// A node of the cluster; never reused. 0 is no node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct NodeId(pub u32);

/// Counts the starts of the process on one node; raised durably before anything is said to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Boot(pub u32);

/// An account: the Raft index that created it, never reused, independent of the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct AccountId(pub u64);

impl AccountId {
    /// System account that holds the outbound queue and the accept records. Raft indices below 16 are never accounts.
    pub const QUEUE: Self = Self(1);

    /// Six bits of BLAKE3(id): the fixed shard of this account.
    #[must_use]
    pub fn shard(self) -> ShardId {
        ShardId(blake3::hash(&self.0.to_be_bytes()).as_bytes()[0] & 0x3f)
    }
}

/// One of 64 fixed shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

/// A period with fixed members, in-sync set and homes. Ordered by number, then author.
/// Author 0 = granted through Raft, otherwise the node that opened it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct EpochId {
    /// Grows with every epoch.
    pub number: u64,
    /// 0 for Raft, else the node that opened the epoch alone.
    pub author: u32,
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.author)
    }
}

/// Names one command for ever: who took it from a client, in which boot, as which number; `recipient` is 0 for the
/// command itself and n for the n-th recipient of an accepted message (DESIGN 5, fan-out).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// Node whose front-end took the command.
    pub origin: NodeId,
    /// Boot of that node.
    pub boot: Boot,
    /// Counter within the boot, from 1.
    pub counter: u64,
    /// 0, or the number (from 1) of the recipient of an accepted message.
    pub recipient: u32,
}

/// Length of an encoded [`CommandId`].
pub const COMMAND_ID_BYTES: usize = 20;
/// Length of an encoded [`PlacementId`].
pub const PLACEMENT_ID_BYTES: usize = 24;
/// Length of an encoded [`MailboxId`].
pub const MAILBOX_ID_BYTES: usize = 24;
/// Length of an encoded [`BatchId`].
pub const BATCH_ID_BYTES: usize = 24;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl CommandId {
    /// Fixed-length bytes; order is (origin, boot, counter, recipient).
    #[must_use]
    pub fn to_bytes(self) -> [u8; COMMAND_ID_BYTES] {
        let mut out = [0; COMMAND_ID_BYTES];
        out[..4].copy_from_slice(&self.origin.0.to_be_bytes());
        out[4..8].copy_from_slice(&self.boot.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.counter.to_be_bytes());
        out[16..].copy_from_slice(&self.recipient.to_be_bytes());
        out
    }
    /// `None` unless exactly [`COMMAND_ID_BYTES`] bytes.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        (b.len() == COMMAND_ID_BYTES).then_some(())?;
        Some(Self {
            origin: NodeId(u32_at(b, 0)?),
            boot: Boot(u32_at(b, 4)?),
            counter: u64_at(b, 8)?,
            recipient: u32_at(b, 16)?,
        })
    }
    /// The command for the `number`-th recipient (from 1) of the message accepted under this id.
    #[must_use]
    pub fn for_recipient(self, number: u32) -> Self {
        Self { recipient: number, ..self }
    }
}

/// The accept id in replies, Received fields and logs: `origin-boot-counter` in hexadecimal.
impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.origin.0, self.boot.0, self.counter)?;
        if self.recipient == 0 { Ok(()) } else { write!(f, "-{:x}", self.recipient) }
    }
}

/// One message in one mailbox: the command that made it and an index, so that one command which ran on two branches
/// is one placement (X19). Never a content hash, never a UID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlacementId {
    /// The command that created it.
    pub command: CommandId,
    /// Index within the command.
    pub index: u32,
}

impl PlacementId {
    /// Fixed-length bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PLACEMENT_ID_BYTES] {
        let mut out = [0; PLACEMENT_ID_BYTES];
        out[..COMMAND_ID_BYTES].copy_from_slice(&self.command.to_bytes());
        out[COMMAND_ID_BYTES..].copy_from_slice(&self.index.to_be_bytes());
        out
    }
    /// `None` unless exactly [`PLACEMENT_ID_BYTES`] bytes.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        (b.len() == PLACEMENT_ID_BYTES).then_some(())?;
        Some(Self { command: CommandId::from_bytes(b.get(..COMMAND_ID_BYTES)?)?, index: u32_at(b, COMMAND_ID_BYTES)? })
    }
}

/// Lower-case hexadecimal of the bytes: the POP3 UIDL (48 characters, RFC 1939 allows 70) and the EMAILID.
impl fmt::Display for PlacementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A mailbox: epoch, home and counter of its creation; kept on rename, never from a command id (X19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId {
    /// Epoch in which it was created.
    pub epoch: EpochId,
    /// Home that created it.
    pub home: NodeId,
    /// Counter of that home in that epoch.
    pub counter: u64,
}

fn epoch_triple(epoch: EpochId, home: NodeId, counter: u64) -> [u8; 24] {
    let mut out = [0; 24];
    out[..8].copy_from_slice(&epoch.number.to_be_bytes());
    out[8..12].copy_from_slice(&epoch.author.to_be_bytes());
    out[12..16].copy_from_slice(&home.0.to_be_bytes());
    out[16..].copy_from_slice(&counter.to_be_bytes());
    out
}

fn read_epoch_triple(b: &[u8]) -> Option<(EpochId, NodeId, u64)> {
    (b.len() == 24).then_some(())?;
    Some((EpochId { number: u64_at(b, 0)?, author: u32_at(b, 8)? }, NodeId(u32_at(b, 12)?), u64_at(b, 16)?))
}

impl MailboxId {
    /// Fixed-length bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; MAILBOX_ID_BYTES] {
        epoch_triple(self.epoch, self.home, self.counter)
    }
    /// `None` unless exactly [`MAILBOX_ID_BYTES`] bytes.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        let (epoch, home, counter) = read_epoch_triple(b)?;
        Some(Self { epoch, home, counter })
    }
}

/// Lower-case hexadecimal of the bytes: the MAILBOXID (RFC 8474).
impl fmt::Display for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What one commit writes is a batch; its id is (epoch, home, counter). The counter starts with the boot number in its
/// upper 32 bits, so a restarted home in the same epoch never reuses one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// Epoch in which the home sent it.
    pub epoch: EpochId,
    /// The home.
    pub home: NodeId,
    /// Counter of that home.
    pub counter: u64,
}

impl BatchId {
    /// Fixed-length bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; BATCH_ID_BYTES] {
        epoch_triple(self.epoch, self.home, self.counter)
    }
    /// `None` unless exactly [`BATCH_ID_BYTES`] bytes.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        let (epoch, home, counter) = read_epoch_triple(b)?;
        Some(Self { epoch, home, counter })
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:x}", self.epoch, self.home.0, self.counter)
    }
}

/// The chain hash of an account's state: equal versions mean equal state (DESIGN 4). All zero = the account has no
/// rows yet.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub [u8; 16]);

impl Version {
    /// 16 bytes of BLAKE3(previous version, batch id, hash of the batch's bytes for that account).
    #[must_use]
    pub fn next(self, batch: BatchId, bytes_hash: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&batch.to_bytes());
        hasher.update(bytes_hash);
        let mut out = [0; 16];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(out)
    }
    /// From exactly 16 bytes.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        Some(Self(b.try_into().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// BLAKE3 of a body.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
    /// From exactly 32 bytes.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        Some(Self(b.try_into().ok()?))
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_bytes() {
        let command = CommandId { origin: NodeId(2), boot: Boot(7), counter: 9, recipient: 3 };
        assert_eq!(CommandId::from_bytes(&command.to_bytes()), Some(command));
        let placement = PlacementId { command, index: 4 };
        assert_eq!(PlacementId::from_bytes(&placement.to_bytes()), Some(placement));
        assert_eq!(placement.to_string().len(), 48);
        let mailbox = MailboxId { epoch: EpochId { number: 5, author: 1 }, home: NodeId(1), counter: 8 };
        assert_eq!(MailboxId::from_bytes(&mailbox.to_bytes()), Some(mailbox));
        assert_eq!(MailboxId::from_bytes(&[0; 23]), None);
    }

    #[test]
    fn shard_is_six_bits_and_frozen() {
        assert!((0..1000).all(|id| AccountId(id).shard().0 < crate::limits::SHARDS));
        // Golden: moving an account to another shard would lose it on disk.
        assert_eq!([16, 17, 18].map(|id| AccountId(id).shard().0), [16, 17, 18].map(golden_shard));
    }

    fn golden_shard(id: u64) -> u8 {
        blake3::hash(&id.to_be_bytes()).as_bytes()[0] & 63
    }
}
