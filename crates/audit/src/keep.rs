//! What has grown old goes: by age, by number, by bytes.

use topology::{Keep, LogBody};

use crate::book::Book;
use crate::keys::Class;

/// Records taken out in one write.
const AT_ONCE: usize = 2_000;
/// Writes of one round; the next round goes on.
const WRITES_MAX: usize = 500;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MEGABYTE: u64 = 1024 * 1024;

impl Book {
    /// Takes out what the setting does not keep; how many records that were.
    ///
    /// # Errors
    /// The disk.
    pub fn drop_old(&self, setting: &LogBody, now_ms: u64) -> Result<u64, String> {
        let mut dropped = 0;
        for (class, keep) in [(Class::Main, setting.keep), (Class::Protocol, setting.keep_protocol)] {
            for _ in 0..WRITES_MAX {
                let count = self.drop_some(class, &keep, now_ms)?;
                dropped += count;
                if count < AT_ONCE as u64 {
                    break;
                }
            }
        }
        Ok(dropped)
    }

    fn drop_some(&self, class: Class, keep: &Keep, now_ms: u64) -> Result<u64, String> {
        let count = self.by_class().into_iter().find(|(known, _)| *known == class).map_or(0, |(_, count)| count);
        let mut over = if keep.records == 0 { 0 } else { count.saturating_sub(keep.records) };
        if keep.megabytes > 0 {
            // Of the bytes of all classes as many as of the records.
            let all: u64 = self.counts().iter().sum();
            let bytes = self.bytes().checked_div(all).unwrap_or_default().saturating_mul(count);
            let limit = keep.megabytes.saturating_mul(MEGABYTE);
            let each = bytes.checked_div(count).unwrap_or_default().max(1);
            over = over.max(bytes.saturating_sub(limit) / each);
        }
        let oldest = self.oldest(class, AT_ONCE)?;
        let age = u64::from(keep.days).saturating_mul(DAY_MS);
        let is_old = |at: u64| keep.days > 0 && at < now_ms.saturating_sub(age);
        let gone: Vec<_> = (0..).zip(oldest).filter(|(n, r)| *n < over || is_old(r.at())).map(|(_, r)| r).collect();
        self.drop_records(&gone)?;
        Ok(gone.len() as u64)
    }
}
