//! The key layout on disk. Everything is big-endian, so byte order is number order. The golden file
//! `tests/golden/keys.txt` freezes it.

use vocab::{AccountId, BlobHash, PlacementId, Table};

/// Length of (shard, account).
pub const ACCOUNT_BYTES: usize = 9;
/// Length of (shard, account, generation).
pub const GENERATION_BYTES: usize = ACCOUNT_BYTES + 4;
/// Length of (shard, account, generation, table).
pub const TABLE_BYTES: usize = GENERATION_BYTES + 1;
/// Length of a hash.
pub const HASH_BYTES: usize = 32;
/// Length of a key in the family of blob references.
pub const REF_BYTES: usize = HASH_BYTES + 8 + 4 + 24;
/// Owner of references that archived branches hold; no account has this id.
pub const ARCHIVE_OWNER: AccountId = AccountId(u64::MAX);

/// (shard, account): key of a head, prefix of everything else of the account.
#[must_use]
pub fn account(account: AccountId) -> [u8; ACCOUNT_BYTES] {
    let mut key = [0; ACCOUNT_BYTES];
    key[0] = account.shard().0;
    key[1..].copy_from_slice(&account.0.to_be_bytes());
    key
}

/// The account in the key of a head.
#[must_use]
pub fn account_of(key: &[u8]) -> Option<AccountId> {
    let id = key.get(1..ACCOUNT_BYTES)?.try_into().ok()?;
    (key.len() == ACCOUNT_BYTES).then_some(AccountId(u64::from_be_bytes(id)))
}

/// (shard, account, generation): prefix of all rows of one generation.
#[must_use]
pub fn generation(owner: AccountId, generation: u32) -> [u8; GENERATION_BYTES] {
    let mut key = [0; GENERATION_BYTES];
    key[..ACCOUNT_BYTES].copy_from_slice(&account(owner));
    key[ACCOUNT_BYTES..].copy_from_slice(&generation.to_be_bytes());
    key
}

/// (shard, account, generation, table): prefix of one table.
#[must_use]
pub fn table(owner: AccountId, number: u32, table: Table) -> [u8; TABLE_BYTES] {
    let mut key = [0; TABLE_BYTES];
    key[..GENERATION_BYTES].copy_from_slice(&generation(owner, number));
    key[GENERATION_BYTES] = table.0;
    key
}

/// (shard, account, generation, table, key): key of a row.
#[must_use]
pub fn row(owner: AccountId, generation: u32, name: Table, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(TABLE_BYTES + key.len());
    out.extend(table(owner, generation, name));
    out.extend(key);
    out
}

/// (shard, account, sequence): one link of the version chain.
#[must_use]
pub fn link(owner: AccountId, sequence: u64) -> [u8; ACCOUNT_BYTES + 8] {
    let mut key = [0; ACCOUNT_BYTES + 8];
    key[..ACCOUNT_BYTES].copy_from_slice(&account(owner));
    key[ACCOUNT_BYTES..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// The sequence number in the key of a link.
#[must_use]
pub fn sequence_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(ACCOUNT_BYTES..ACCOUNT_BYTES + 8)?.try_into().ok()?))
}

/// (shard, account, sequence, table, key): what the row was before the link with this sequence number.
#[must_use]
pub fn undo_row(owner: AccountId, sequence: u64, name: Table, key: &[u8]) -> Vec<u8> {
    [&link(owner, sequence)[..], &[name.0], key].concat()
}

/// Table and key of the row in the key of an undo row.
#[must_use]
pub fn undone(key: &[u8]) -> Option<(Table, &[u8])> {
    let (table, key) = key.get(ACCOUNT_BYTES + 8..)?.split_first()?;
    Some((Table(*table), key))
}

/// (hash, chunk): one chunk of a body. The record of the body itself lies under the bare hash.
#[must_use]
pub fn chunk(hash: BlobHash, index: u32) -> [u8; HASH_BYTES + 4] {
    let mut key = [0; HASH_BYTES + 4];
    key[..HASH_BYTES].copy_from_slice(&hash.0);
    key[HASH_BYTES..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The chunk number in the key of a chunk.
#[must_use]
pub fn chunk_of(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(HASH_BYTES..)?.try_into().ok()?))
}

/// (hash, account, generation, placement): one reference to a body.
#[must_use]
pub fn blob_ref(hash: BlobHash, owner: AccountId, generation: u32, placement: PlacementId) -> [u8; REF_BYTES] {
    let mut key = [0; REF_BYTES];
    key[..32].copy_from_slice(&hash.0);
    key[32..40].copy_from_slice(&owner.0.to_be_bytes());
    key[40..44].copy_from_slice(&generation.to_be_bytes());
    key[44..].copy_from_slice(&placement.to_bytes());
    key
}

/// The parts of a reference that say whether it still counts.
#[must_use]
pub fn ref_owner(key: &[u8]) -> Option<(BlobHash, AccountId, u32)> {
    (key.len() == REF_BYTES).then_some(())?;
    let hash = BlobHash::from_bytes(key.get(..32)?)?;
    let owner = u64::from_be_bytes(key.get(32..40)?.try_into().ok()?);
    let generation = u32::from_be_bytes(key.get(40..44)?.try_into().ok()?);
    Some((hash, AccountId(owner), generation))
}

/// (branch, 0, key): one row of an archived branch.
#[must_use]
pub fn archive(branch: &str, key: &[u8]) -> Vec<u8> {
    [branch.as_bytes(), &[0], key].concat()
}

/// Node-local records: `n` and the caller's name.
#[must_use]
pub fn record(name: &str) -> Vec<u8> {
    [b"n", name.as_bytes()].concat()
}

/// Prefix of the records that say which accounts have a stage; (shard, account) follows, the generation is the value.
pub const STAGE: &[u8] = b"s";
/// Prefix of the records of archived branches: the name follows, the value is the wall-clock ms of the newest row.
pub const BRANCH: &[u8] = b"b";
/// Prefix of the records of seeds, accounts copied from another node's folder: (shard, account) follows, the value is that
/// of a head.
pub const SEED: &[u8] = b"z";
/// The format of the folder.
pub const FORMAT: &[u8] = b"format";
/// Written when nothing else is, to see whether the disk still answers.
pub const TICK: &[u8] = b"tick";
/// Present while references of dropped generations may be left.
pub const DROPPED: &[u8] = b"dropped";

/// The record that says the account has a stage.
#[must_use]
pub fn stage(owner: AccountId) -> Vec<u8> {
    [STAGE, &account(owner)].concat()
}

/// The record that says which rows of the account are a seed.
#[must_use]
pub fn seed(owner: AccountId) -> Vec<u8> {
    [SEED, &account(owner)].concat()
}

/// The record that says when the branch was written.
#[must_use]
pub fn branch(name: &str) -> Vec<u8> {
    [BRANCH, name.as_bytes()].concat()
}
