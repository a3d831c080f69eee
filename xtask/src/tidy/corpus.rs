//! The messages in `tests/corpus`: as their index says, with CRLF line ends only.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Where they are.
const FOLDER: &str = "tests/corpus";
/// Fewer would not be a corpus.
const MESSAGES_MIN: usize = 300;
/// All messages together (bytes).
const CORPUS_BYTES_MAX: u64 = 6 * 1024 * 1024;

/// Checks files against index.
///
/// # Errors
/// When the folder or its index cannot be read.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let folder = root.join(FOLDER);
    let index = fs::read_to_string(folder.join("index.toml")).with_context(|| format!("read {FOLDER}/index.toml"))?;
    let mut named = sizes(&index);
    let (mut faults, mut total, mut count) = (Vec::new(), 0, 0);
    for entry in fs::read_dir(&folder).with_context(|| format!("read {FOLDER}"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let message = fs::read(&path).with_context(|| format!("read {FOLDER}/{name}"))?;
        let length = message.len() as u64;
        if named.remove(&name) != Some(length) {
            faults.push(format!("{FOLDER}/{name}: not in index.toml with this size; run generate.py"));
        }
        if !has_crlf_only(&message) {
            faults.push(format!("{FOLDER}/{name}: a bare CR or LF, or no CRLF at the end"));
        }
        total += length;
        count += 1;
    }
    faults.extend(named.keys().map(|name| format!("{FOLDER}/{name}: in index.toml and missing")));
    if count < MESSAGES_MIN || total > CORPUS_BYTES_MAX {
        faults.push(format!("{FOLDER}: {count} messages, {total} bytes"));
    }
    faults.sort();
    Ok(faults)
}

/// File names with sizes. The index is written by generate.py, one key on a line, `file` before `bytes`.
fn sizes(index: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let mut file = String::new();
    for line in index.lines() {
        if let Some(name) = line.strip_prefix("file = ") {
            name.trim_matches('"').clone_into(&mut file);
        } else if let Some(bytes) = line.strip_prefix("bytes = ").and_then(|bytes| bytes.parse().ok()) {
            all.insert(std::mem::take(&mut file), bytes);
        }
    }
    all
}

fn has_crlf_only(message: &[u8]) -> bool {
    let ends = message.windows(2).filter(|pair| pair == b"\r\n").count();
    let count = |byte: u8| message.iter().filter(|b| **b == byte).count();
    message.ends_with(b"\r\n") && count(b'\r') == ends && count(b'\n') == ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_index_are_read_exactly() {
        assert!(has_crlf_only(b"a\r\n\r\n"));
        for bad in [&b"a\n"[..], b"a\rb\r\n", b"a\r\nb", b"a\r\r\n", b"\n\r\n", b""] {
            assert!(!has_crlf_only(bad), "{bad:?}");
        }
        let index = "[[message]]\nfile = \"1.eml\"\nbytes = 5\n\n[[message]]\nfile = \"2.eml\"\nbytes = 7\n";
        assert_eq!(sizes(index), BTreeMap::from([("1.eml".to_owned(), 5), ("2.eml".to_owned(), 7)]));
    }
}
