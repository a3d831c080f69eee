//! RocksDB: rows, blobs, heads; the only user of RocksDB for mail.
