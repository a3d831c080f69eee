//! What can be asked of an account, and what is answered.

use crate::rows::RowFormat;
use bytes::Bytes;
use vocab::{BlobHash, CommandId, EpochId, Flags, MailboxId, ModSeq, NodeId, PlacementId, Timestamp, Uid, UidValidity};

/// Special use of a mailbox (RFC 6154); at most one mailbox per role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// INBOX
    Inbox,
    /// `\Drafts`
    Drafts,
    /// `\Sent`
    Sent,
    /// `\Junk`
    Junk,
    /// `\Trash`
    Trash,
    /// `\Archive`
    Archive,
}

/// A mailbox named by what the caller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxRef {
    /// By id.
    Id(MailboxId),
    /// By role; a delivery names [`Role::Inbox`]. A role nobody has falls back to INBOX.
    Role(Role),
}

/// A message to be placed. The body is durable (or travels inline in the same batch) before the operation runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// BLAKE3 of the body as accepted.
    pub blob: BlobHash,
    /// Bytes of the body, without prefix.
    pub blob_size: u64,
    /// Fields added for this recipient (Return-Path, Delivered-To), CRLF-terminated; shown before the body.
    pub prefix: Bytes,
    /// Encoded `mime::Facts` (ENVELOPE, BODYSTRUCTURE, thread): opaque here.
    pub facts: Bytes,
    /// Flags at birth.
    pub flags: Flags,
    /// INTERNALDATE.
    pub internal_date: Timestamp,
}

/// How STORE changes flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagMode {
    /// `FLAGS`
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// One operation on one account. Messages are named by placement id, never by UID (a UID may be renumbered while the
/// command travels).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountOp {
    /// First operation of an account: INBOX, Drafts, Sent, Junk, Trash, Archive, subscribed. Repeating it changes nothing.
    Init,
    /// Places messages, in order (delivery, APPEND, MULTIAPPEND).
    Append {
        /// Where.
        mailbox: MailboxRef,
        /// At least one.
        messages: Vec<NewMessage>,
    },
    /// STORE.
    Store {
        /// The mailbox the client has selected.
        mailbox: MailboxId,
        /// Which messages.
        placements: Vec<PlacementId>,
        /// How.
        mode: FlagMode,
        /// With what.
        flags: Flags,
        /// UNCHANGEDSINCE (RFC 7162 §3.1.3).
        unchanged_since: Option<ModSeq>,
    },
    /// EXPUNGE, UID EXPUNGE, CLOSE, POP3 QUIT.
    Expunge {
        /// The mailbox.
        mailbox: MailboxId,
        /// Which messages.
        placements: Vec<PlacementId>,
        /// Only those that still carry `\Deleted` when it is applied (IMAP); POP3 says false.
        only_deleted: bool,
    },
    /// COPY; EMAILID and THREADID are kept, flags and INTERNALDATE too.
    Copy {
        /// From.
        from: MailboxId,
        /// To.
        to: MailboxId,
        /// Which messages.
        placements: Vec<PlacementId>,
    },
    /// MOVE (RFC 6851): one operation, so a crash leaves each message in exactly one place.
    Move {
        /// From.
        from: MailboxId,
        /// To.
        to: MailboxId,
        /// Which messages.
        placements: Vec<PlacementId>,
    },
    /// CREATE, with the superior names that are missing.
    CreateMailbox {
        /// UTF-8 NFC, separator "/".
        name: String,
        /// CREATE-SPECIAL-USE, or the API.
        role: Option<Role>,
    },
    /// DELETE: refuses INBOX, and mailboxes with children keep the name as a node without mail only if asked by IMAP
    /// rules (here: refused with [`Refusal::HasChildren`]).
    DeleteMailbox {
        /// Which.
        mailbox: MailboxId,
    },
    /// RENAME, children too; of INBOX: its messages move to a new mailbox (RFC 9051 §6.3.6).
    RenameMailbox {
        /// Which.
        mailbox: MailboxId,
        /// New name.
        name: String,
    },
    /// SUBSCRIBE, UNSUBSCRIBE; a name without mailbox may be subscribed.
    Subscribe {
        /// Name.
        name: String,
        /// On or off.
        subscribed: bool,
    },
    /// Writes or removes an account document (password hash, script, setting).
    SetDocument {
        /// Kind, for instance `password`.
        kind: String,
        /// Name within the kind; empty for the only one.
        name: String,
        /// `None` removes.
        body: Option<Bytes>,
    },
    /// Raises every UIDVALIDITY above `floor` (an account changed on both sides before the merge exists; restore).
    RaiseUidValidity {
        /// Every mailbox gets a new UIDVALIDITY greater than this and than the account's own clock.
        floor: UidValidity,
    },
    /// Puts messages that a merge kept restorable back: new placements in the mailbox they were in, or in INBOX when it is
    /// gone. EMAILID, THREADID, flags without `\Deleted` and INTERNALDATE are kept. Refused as a whole with
    /// [`Refusal::UnknownPlacement`] when one is not restorable (any more).
    Restore {
        /// Placement ids as [`crate::read::recovery`] gives them; each once is enough.
        ids: Vec<PlacementId>,
    },
    /// Drops what a merge kept restorable and put there before this time.
    ForgetRecovered {
        /// By the home's clock.
        older_than: Timestamp,
    },
    /// Places a message that a node which is no member any more had, under the ids it had there. Nothing happens when the
    /// placement, or the message it is a copy of, is here or was expunged here; then [`Outcome::Appended`] names no UID.
    Import {
        /// Where.
        mailbox: MailboxId,
        /// Its placement id there.
        id: PlacementId,
        /// Its EMAILID there; `id` unless it is a copy.
        email: PlacementId,
        /// The message.
        message: Box<NewMessage>,
    },
    /// Removes everything (the account document is gone from the configuration).
    Purge,
}

/// A command: an operation under an id that takes effect at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its id; a retry carries the same.
    pub id: CommandId,
    /// Commands of the same origin and boot with a counter at or below this are settled: their outcomes may be dropped
    /// and they are refused from now on.
    pub settled: u64,
    /// What to do.
    pub op: AccountOp,
}

/// What the home adds when it applies: everything `apply` may not find out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Epoch of the batch.
    pub epoch: EpochId,
    /// Home that applies.
    pub home: NodeId,
    /// Wall clock of the home.
    pub at: Timestamp,
    /// Whether the epoch is joint: UIDVALIDITY is max(last + 1, seconds) there and last + 1 outside (X23).
    pub joint: bool,
    /// Counter for the mailbox ids created under this stamp, unique per (epoch, home); each creation takes the next.
    pub mailbox_counter: u64,
    /// Gap due in this epoch (DESIGN 6, X8): raise uidnext, modseq and clock before anything else, unless
    /// `head.gap_taken` is the gap's epoch already.
    pub gap: Option<Gap>,
    /// Served marks are due: the in-sync set lacks a member, and undo rows are kept (DESIGN 7).
    pub marks: Option<Marks>,
    /// Format of the rows that are written: what every member of the cluster reads.
    pub rows: RowFormat,
}

/// What a served mark needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The first epoch whose mark is enough: one that every node counts, also a node that entered a joint epoch of which
    /// this one did not hear.
    pub from: EpochId,
}

/// Where numbers go on after a gap: UIDs, modseqs and UIDVALIDITYs are cut into windows of 65,536, 2^32 and 100, and each
/// counter goes on in the next window whose number is `k` in rounds of `of`. Strides would add up: a side that takes two
/// gaps could meet one that took a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which window of a round: another one for every node and epoch (modulo 8).
    pub k: u64,
    /// Windows in a round.
    pub of: u64,
    /// Epoch whose gap this is; a heal carries on the one of the epoch it ends.
    pub epoch: EpochId,
}

impl Gap {
    /// Start of the next window of this gap above `number`, in windows of `size`.
    pub(crate) fn above(&self, number: u64, size: u64) -> u64 {
        let (of, first) = (self.of.max(1), number / size + 1);
        let rest = (self.k % of + of - first % of) % of;
        first.saturating_add(rest).saturating_mul(size)
    }
}

/// Why an operation changed nothing. Asking again now gives the same, except where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such mailbox (IMAP NONEXISTENT or TRYCREATE by context).
    NoSuchMailbox,
    /// Name taken (ALREADYEXISTS).
    MailboxExists,
    /// Not a name we can keep (CANNOT).
    BadName,
    /// INBOX cannot be deleted, roles cannot be doubled (CANNOT).
    NotAllowed,
    /// A mailbox with children cannot be deleted (HASCHILDREN).
    HasChildren,
    /// A named limit (LIMIT).
    Limit(String),
    /// A placement this home neither has nor remembers as expunged (X21): UNAVAILABLE, never OK.
    UnknownPlacement,
    /// The command id is at or below the settled mark of its origin: a ghost of a retry; nothing was done now.
    Settled,
    /// The account has no state (not created, or purged).
    NoSuchAccount,
}

/// One message that STORE changed, or would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFlags {
    /// Its UID.
    pub uid: Uid,
    /// Flags now.
    pub flags: Flags,
    /// Modseq now.
    pub modseq: ModSeq,
}

/// What an operation did; stored by command id, so that a retry gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing more to say.
    Done,
    /// APPENDUID: one UID per message in order.
    Appended {
        /// The mailbox it landed in.
        mailbox: MailboxId,
        /// Its UIDVALIDITY.
        uid_validity: UidValidity,
        /// UIDs in order.
        uids: Vec<Uid>,
    },
    /// STORE.
    Stored {
        /// Changed or already so, by UID ascending.
        stored: Vec<StoredFlags>,
        /// Failed UNCHANGEDSINCE (MODIFIED).
        modified: Vec<Uid>,
    },
    /// EXPUNGE: the UIDs that went, ascending.
    Expunged {
        /// UIDs ascending.
        uids: Vec<Uid>,
        /// HIGHESTMODSEQ after it.
        modseq: ModSeq,
    },
    /// COPY and MOVE: COPYUID. Messages that were gone already are left out (answer OK all the same).
    Copied {
        /// UIDVALIDITY of the target.
        uid_validity: UidValidity,
        /// (source UID, target UID), source ascending.
        uids: Vec<(Uid, Uid)>,
    },
    /// CREATE.
    Created {
        /// The new mailbox.
        mailbox: MailboxId,
    },
    /// Nothing changed.
    Refused(Refusal),
}

/// What observers of the account hear after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something in this mailbox changed (new, flags, expunged): sessions compare by modseq.
    Mailbox(MailboxId),
    /// The list of mailboxes or subscriptions changed.
    Hierarchy,
    /// A document changed.
    Document(String),
}
