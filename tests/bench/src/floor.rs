//! What the disk and the storage engine alone can do, in the commit order of the product and without a protocol: the
//! measure for what replication costs.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use rocksdb::{ColumnFamilyDescriptor, DB, Options, WriteBatch, WriteOptions};

use crate::loads::message;

/// Small rows that go with each body: placement, index, change, facts, head.
const ROWS: usize = 5;
/// Bytes of a small row.
const ROW_BYTES: usize = 120;
/// Messages written with one sync at most.
const GROUP_MAX: usize = 256;

/// Appends of 4 KB to a file, each synced by itself: p50 and p99 (ms).
///
/// # Errors
/// The disk refuses.
pub fn synced_write(folder: &Path, count: usize) -> anyhow::Result<(f64, f64)> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("synced"))?;
    let mut times = Histogram::<u64>::new(3)?;
    for number in 0..count {
        let bytes = message(number);
        let start = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.record(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))?;
    }
    Ok((milliseconds(&times, 0.5), milliseconds(&times, 0.99)))
}

/// A quantile of a histogram of microseconds (ms).
#[must_use]
pub fn milliseconds(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}

/// Messages per second that `writers` threads write to `databases` databases, each message synced on the last database
/// first. One thread writes all that waits with one sync per database.
///
/// # Errors
/// A database cannot be opened or written.
pub fn throughput(folder: &Path, databases: usize, writers: usize, count: usize) -> anyhow::Result<f64> {
    let folders = (0..databases).map(|number| folder.join(format!("floor-{databases}-{number}")));
    let opened = folders.map(|path| open(&path)).collect::<anyhow::Result<Vec<DB>>>()?;
    let (to_committer, waiting) = channel();
    let committer = std::thread::spawn(move || commit_all(&opened, &waiting));
    let start = Instant::now();
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let to_committer = to_committer.clone();
            std::thread::spawn(move || {
                for number in (writer..count).step_by(writers) {
                    let (done, answer) = channel();
                    if to_committer.send((number, done)).is_err() || answer.recv().is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
    }
    let spent: Duration = start.elapsed();
    drop(to_committer);
    committer.join().map_err(|_| anyhow::anyhow!("the committer panicked"))??;
    Ok(count as f64 / spent.as_secs_f64())
}

fn open(path: &Path) -> anyhow::Result<DB> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let mut bodies = Options::default();
    bodies.set_enable_blob_files(true);
    bodies.set_min_blob_size(1024);
    let families =
        [ColumnFamilyDescriptor::new("rows", Options::default()), ColumnFamilyDescriptor::new("bodies", bodies)];
    DB::open_cf_descriptors(&options, path, families).with_context(|| path.display().to_string())
}

fn commit_all(databases: &[DB], waiting: &Receiver<(usize, Sender<()>)>) -> anyhow::Result<()> {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        group.extend(waiting.try_iter().take(GROUP_MAX - 1));
        for database in databases.iter().rev() {
            let (Some(rows), Some(bodies)) = (database.cf_handle("rows"), database.cf_handle("bodies")) else {
                anyhow::bail!("a family is missing");
            };
            let mut batch = WriteBatch::default();
            for (number, _) in &group {
                let body = message(*number);
                batch.put_cf(&bodies, blake3::hash(&body).as_bytes(), &body);
                for row in 0..ROWS {
                    batch.put_cf(&rows, format!("{row}/{number:016}"), [b'r'; ROW_BYTES]);
                }
            }
            database.write_opt(batch, &synced)?;
        }
        for (_, done) in group {
            // A writer that has gone waits for nothing.
            let _ = done.send(());
        }
    }
    Ok(())
}
