//! Every limit has a name; the protocol answers that a limit causes are given where it is used.

/// Bodies up to this size travel inside the batch, so one synced write covers rows and body (bytes).
pub const SMALL_BODY_MAX: usize = 64 * 1024;
/// A message accepted by SMTP, APPEND or the API (bytes). SMTP 552 5.3.4, IMAP `NO [TOOBIG]`.
pub const MESSAGE_SIZE_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one batch; MOVE may split, COPY above it is refused with LIMIT.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Versions of an account that are remembered before the last agreed one: a disk that comes back as it was not long ago is
/// known to be behind, and not taken for a branch.
pub const OLD_VERSIONS_MAX: u64 = 256;
/// Merged branches, and versions on their chains, that an account remembers; the oldest are forgotten first. What is behind at
/// a forgotten one is merged again, from an older base.
pub const LINEAGE_MAX: usize = 1024;
/// Undo rows of a version chain given with a transfer (bytes); older ones are left out. Also the most that is transferred as
/// a difference, so that both together are no larger than a batch.
pub const PAST_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;
/// Log records that wait beside the mail because the log does not take them; beyond it new ones are counted and dropped.
pub const LOG_RECORDS_WAITING_MAX: u64 = 1_000_000;
/// One frame between nodes (bytes).
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// A stored body is cut into chunks of this size, so ranges can be read and streamed (bytes).
pub const BLOB_CHUNK_BYTES: usize = 1024 * 1024;
/// How long a change may wait for its commit before the client is told "unknown" (ms).
pub const COMMIT_WAIT_MAX_MS: u64 = 20_000;
/// How long who reads an account waits until the branch of a returned node is merged into it; then the state without that
/// branch is shown (ms).
pub const HEAL_READ_WAIT_MAX_MS: u64 = 20_000;
/// Recipients of one SMTP transaction; 452 4.5.3 above it (never below 100, RFC 5321 §4.5.3.1.8).
pub const RECIPIENTS_MAX: usize = 1000;
/// Received fields before a message counts as looping; 554 5.4.6 (RFC 5321 §6.3).
pub const HOPS_MAX: usize = 50;
/// Header section of a message (bytes); 552 5.3.4 above it.
pub const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// Length of a mailbox name in bytes (UTF-8).
pub const MAILBOX_NAME_BYTES_MAX: usize = 1000;
/// Depth of the mailbox tree.
pub const MAILBOX_DEPTH_MAX: usize = 32;
/// Mailboxes of one account.
pub const MAILBOXES_MAX: usize = 10_000;
/// Names of one account that no mailbox has any more and whose UIDVALIDITY is remembered; of further ones only the greatest.
pub const FORMER_NAMES_MAX: usize = 10_000;
/// Keywords on one message.
pub const KEYWORDS_MAX: usize = 100;
/// Length of one keyword in bytes.
pub const KEYWORD_BYTES_MAX: usize = 200;
/// MIME nesting depth that is described; deeper parts are opaque.
pub const MIME_DEPTH_MAX: usize = 50;
/// MIME parts that are described; further ones are opaque.
pub const MIME_PARTS_MAX: usize = 10_000;
/// Read lease given by a home to a backup, and home lease since the last acknowledged contact (ms). Shorter than T1.
pub const LEASE_MS: u64 = 500;
/// Heartbeat interval between nodes (ms).
pub const HEARTBEAT_MS: u64 = 100;
/// Silence after which the holder of the cluster address goes on alone (ms).
pub const T1_MS: u64 = 1_200;
/// Silence after which the other node goes on alone (ms).
pub const T2_MS: u64 = 1_500;
/// A silent home is looked for over the client network so often (ms): several times between T1 and T2.
pub const LOOK_EVERY_MS: u64 = 100;
/// What it answered there counts for so long (ms).
pub const ANSWER_COUNTS_MS: u64 = 600;
/// A gap between two of our own ticks above which silence is measured afresh (ms).
pub const PAUSE_MS: u64 = 300;
/// Heartbeats stop when the last small synced write is older (ms).
pub const DISK_SILENT_MS: u64 = 5_000;
/// The process ends itself when the last small synced write is older (ms).
pub const DISK_DEAD_MS: u64 = 10_000;
/// A backup slower than this again and again leaves the in-sync set (ms).
pub const BACKUP_SLOW_MS: u64 = 2_000;
/// After a heal whose solo epoch was opened on silence, the next one on silence waits this long (ms).
pub const HOLD_DOWN_MS: u64 = 60_000;
/// Free bytes the home keeps; below it changes that need space are refused (SMTP 452 4.3.1, IMAP `NO [LIMIT]`).
pub const DISK_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Shards; fixed in the key format.
pub const SHARDS: u8 = 64;
/// An archived branch goes by itself after this time (ms).
pub const BRANCH_KEEP_MS: u64 = 30 * 24 * 3600 * 1000;
/// A blob without a reference is deleted after this time (ms).
pub const BLOB_ORPHAN_MS: u64 = 24 * 3600 * 1000;
