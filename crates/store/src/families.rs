//! Column families and how RocksDB is tuned. All families exist from the first day, also those nothing writes yet: a
//! later release then needs no new format.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, LogLevel,
    Options,
};

/// (shard, account) -> generation u32, encoded `AccountHead`.
pub const HEAD: &str = "head";
/// Rows of tables below 64.
pub const ROWS: &str = "rows";
/// (shard, account, link sequence, table, key) -> present or absent, value: what a row was before the link's batch, kept
/// while a fork lasts.
pub const PRE_IMAGES: &str = "pre_images";
/// Nothing: touched marks are the chain's undo rows, served marks are in the heads.
pub const MARKS: &str = "marks";
/// Bodies: a record under the hash, chunks under (hash, number).
pub const BLOBS: &str = "blobs";
/// (hash, account, generation, placement) -> nothing.
pub const BLOB_REFS: &str = "blob_refs";
/// hash -> wall-clock ms at which the body was written without a reference or lost one.
pub const ORPHANS: &str = "orphans";
/// Rows of tables from 64 on: outcomes of commands, settled marks.
pub const OUTCOMES: &str = "outcomes";
/// number u64 -> length of the id u16, id, record: log records that the log has not taken yet. The name on disk is that of
/// an unused family from the first day: with a new one an older program would not open the folder any more.
pub const RECORDS: &str = "recovery";
/// (branch, 0, key) -> how many bodies the row needs, their hashes, the caller's value.
pub const ARCHIVE: &str = "archive";
/// Node-local records.
pub const META: &str = "meta";
/// (shard, account, sequence) -> version, whether it has undo rows.
pub const CHAIN: &str = "chain";

/// All families of this format; RocksDB's own `default` stays empty.
pub const ALL: [&str; 12] =
    [HEAD, ROWS, PRE_IMAGES, MARKS, BLOBS, BLOB_REFS, ORPHANS, OUTCOMES, RECORDS, ARCHIVE, META, CHAIN];

/// Bodies of at least this size lie in blob files, smaller ones among the keys (bytes).
pub const BLOB_FILE_VALUE_MIN: u64 = 4 * 1024;
/// Memory of one unflushed buffer of the busy families (bytes).
const BUSY_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Memory of one unflushed buffer of the quiet families (bytes).
const QUIET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Memory of all unflushed buffers together (bytes).
const BUFFERS_BYTES: usize = 64 * 1024 * 1024;
/// Log kept before the oldest buffers are flushed to let go of it; bounds the time of a restart (bytes).
const WAL_BYTES_MAX: u64 = 192 * 1024 * 1024;
/// A file with so many deletions in a row of [`DELETIONS_WINDOW`] keys is compacted.
const DELETIONS_TRIGGER: usize = 1024;
/// Keys looked at together for [`DELETIONS_TRIGGER`].
const DELETIONS_WINDOW: usize = 4096;
/// Files RocksDB keeps open.
const OPEN_FILES_MAX: i32 = 512;
/// Bits per key of the filters that spare a read of absent keys.
const FILTER_BITS: f64 = 10.0;

/// Settings of the whole database.
#[must_use]
pub fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_db_write_buffer_size(BUFFERS_BYTES);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1024 * 1024);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 * 1024 * 1024);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

/// Every family with its settings; they share one block cache.
#[must_use]
pub fn descriptors(block_cache_bytes: usize) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(block_cache_bytes);
    ALL.iter().map(|name| ColumnFamilyDescriptor::new(*name, family_options(name, &cache))).collect()
}

fn family_options(name: &str, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(8 * 1024);
    blocks.set_bloom_filter(FILTER_BITS, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    let busy = matches!(name, ROWS | BLOBS | OUTCOMES);
    options.set_write_buffer_size(if busy { BUSY_BUFFER_BYTES } else { QUIET_BUFFER_BYTES });
    options.set_max_write_buffer_number(3);
    // Queues, chains and outcomes are written once and deleted soon: what is left of them slows scans until compacted.
    options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_TRIGGER, 0.0);
    if name == BLOBS {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_FILE_VALUE_MIN);
        options.set_blob_compression_type(DBCompressionType::Lz4);
        options.set_enable_blob_gc(true);
        options.set_compression_type(DBCompressionType::None);
    }
    options
}

/// The family `name` of an open database.
///
/// # Panics
/// Never: [`crate::Store::open`] opens with all of [`ALL`].
#[must_use]
pub fn family<'a>(db: &'a DB, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("opened with every family")
}

/// The family that holds rows of this table.
#[must_use]
pub fn of_table(db: &DB, table: vocab::Table) -> &ColumnFamily {
    family(db, if table.is_core() { ROWS } else { OUTCOMES })
}
