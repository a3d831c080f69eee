//! UID, UIDVALIDITY and MODSEQ (RFC 9051 §2.3.1, RFC 7162 §3.1). Only `mailbox` mints them.

/// Unique identifier of a message in a mailbox; never 0 on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub u32);

/// UIDVALIDITY of a mailbox; only grows per account, never 0 on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UidValidity(pub u32);

/// Modification sequence; one counter per account, raised once per operation that changes anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModSeq(pub u64);
