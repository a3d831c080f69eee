//! Events of this node as JSON lines in the data folder: `events.jsonl`, and `events.old.jsonl` before it.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

use ports::journal::{ClusterEvent, EventKind, Journal};

use crate::clock::wall_ms;

/// Events kept in memory for questions.
const RECENT_MAX: usize = 2_000;
/// A file above this size becomes the old one (bytes).
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The journal of one node. Written by a thread of its own: a slow disk holds nobody up.
pub struct FileJournal {
    node: u32,
    recent: Mutex<VecDeque<ClusterEvent>>,
    lines: mpsc::Sender<String>,
}

impl FileJournal {
    /// Opens the journal in this folder and reads what is there. Files that cannot be read or written are reported in the
    /// log; events are then kept in memory alone.
    #[must_use]
    pub fn open(folder: &Path, node: u32) -> Self {
        let (now, old) = (folder.join("events.jsonl"), folder.join("events.old.jsonl"));
        let mut recent = VecDeque::new();
        for path in [&old, &now] {
            read_into(path, &mut recent);
        }
        let (lines, waiting) = mpsc::channel();
        std::thread::spawn(move || write(&now, &old, &waiting));
        Self { node, recent: Mutex::new(recent), lines }
    }
}

/// Lines that are not understood (cut by a crash, or of a newer build) are passed over.
fn read_into(path: &Path, recent: &mut VecDeque<ClusterEvent>) {
    let Ok(file) = std::fs::File::open(path) else { return };
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        if let Ok(event) = serde_json::from_str(&line) {
            keep(recent, event);
        }
    }
}

fn keep(recent: &mut VecDeque<ClusterEvent>, event: ClusterEvent) {
    if recent.len() >= RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(event);
}

fn write(now: &PathBuf, old: &PathBuf, lines: &mpsc::Receiver<String>) {
    let mut said = false;
    while let Ok(line) = lines.recv() {
        let result = append(now, old, &line);
        if let Err(error) = &result
            && !said
        {
            tracing::warn!(path = %now.display(), %error, "events cannot be written; they are kept in memory alone");
        }
        said = result.is_err();
    }
}

fn append(now: &PathBuf, old: &PathBuf, line: &str) -> std::io::Result<()> {
    if std::fs::metadata(now).is_ok_and(|meta| meta.len() > FILE_BYTES_MAX) {
        std::fs::rename(now, old)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(now)?;
    file.write_all(format!("{line}\n").as_bytes())
}

impl Journal for FileJournal {
    fn note(&self, kind: EventKind, text: &str) {
        let event = ClusterEvent { at_ms: wall_ms(), node: self.node, kind, text: text.to_owned() };
        if let Ok(line) = serde_json::to_string(&event) {
            // The thread ends only with the process.
            let _ = self.lines.send(line);
        }
        keep(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner), event);
    }

    fn recent(&self, limit: usize) -> Vec<ClusterEvent> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().skip(recent.len().saturating_sub(limit)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn await_lines(path: &Path, count: usize) {
        let start = std::time::Instant::now();
        while std::fs::read_to_string(path).unwrap_or_default().lines().count() < count {
            assert!(start.elapsed().as_secs() < 20, "the journal is not written");
            std::thread::yield_now();
        }
    }

    #[test]
    fn events_outlive_the_process_in_order_and_a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("events.jsonl");
        let journal = FileJournal::open(folder.path(), 2);
        journal.note(EventKind::Decision, "one");
        journal.note(EventKind::Alert, "two");
        await_lines(&path, 2);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("file");
        file.write_all(b"{\"at_ms\":1,\"no\n").expect("written");
        let again = FileJournal::open(folder.path(), 2);
        again.note(EventKind::Process, "three");
        let texts = |limit: usize| again.recent(limit).into_iter().map(|e| e.text).collect::<Vec<_>>();
        assert_eq!(texts(10), ["one", "two", "three"]);
        assert_eq!(texts(2), ["two", "three"]);
        assert!(again.recent(10).iter().all(|e| e.node == 2 && e.at_ms > 0));
    }

    #[test]
    fn a_full_file_becomes_the_old_one() {
        let folder = tempfile::tempdir().expect("folder");
        let (now, old) = (folder.path().join("events.jsonl"), folder.path().join("events.old.jsonl"));
        std::fs::write(&now, vec![b'x'; usize::try_from(FILE_BYTES_MAX).expect("size") + 1]).expect("written");
        let journal = FileJournal::open(folder.path(), 1);
        journal.note(EventKind::Decision, "first of the new file");
        await_lines(&now, 1);
        let start = std::time::Instant::now();
        while !old.exists() {
            assert!(start.elapsed().as_secs() < 20, "not turned over");
        }
        assert_eq!(std::fs::metadata(&old).expect("old").len(), FILE_BYTES_MAX + 1);
    }
}
