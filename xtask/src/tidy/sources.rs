//! Rules for files: headers, length, names, what sealed sources may name, and no paths of somebody's machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Lines of one source file.
const LINES_MAX: usize = 800;
/// Modules named for nothing.
const NAMELESS: [&str; 5] = ["util", "utils", "common", "helpers", "misc"];
/// Folders that are not ours or not text.
const SKIPPED: [&str; 5] = [".git", "target", "corpus", "node_modules", "__pycache__"];
/// What sealed sources may not name: clocks, sockets, files, threads, environment, async and maps in random order.
const ACTING: [&str; 11] = [
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "std::process",
    "SystemTime",
    "HashMap",
    "HashSet",
    "async fn",
];
/// Roots of paths that exist on one machine only; put together here so that this file does not name them.
const MACHINE_ROOTS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/t", "mp/")];

/// Checks all files under `root`.
///
/// # Errors
/// When a folder cannot be read.
pub fn check(root: &Path, sealed: &[PathBuf]) -> Result<Vec<String>> {
    let root = root.canonicalize().context("find the workspace")?;
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut faults = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let place = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        faults.extend(check_paths(&place, &text));
        if file.extension().is_some_and(|extension| extension == "rs") {
            faults.extend(check_source(&place, &text));
            if sealed.iter().any(|folder| file.starts_with(folder.join("src"))) {
                faults.extend(check_sealed(&place, &text));
            }
        }
    }
    Ok(faults)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(&entry.path(), files)?;
            }
        } else if entry.file_type()?.is_file() && name != "Cargo.lock" {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn check_paths(place: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // A root counts only where a path begins, not inside a longer one such as $HOME/...
        let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "}._-/*~)".contains(c));
        if MACHINE_ROOTS.iter().any(|root| line.match_indices(root).any(|(at, _)| begins(at))) {
            faults.push(format!("{place}:{}: names a path of one machine", number + 1));
        }
    }
    faults
}

fn check_source(place: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{place}: no module header (//!)"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{place}: {lines} lines; at most {LINES_MAX}"));
    }
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.trim().trim_end_matches([';', '{', ' ']).split_whitespace().collect();
        let module = words.iter().position(|word| *word == "mod").and_then(|at| words.get(at + 1));
        let short = words.len() <= 3 && !line.trim().starts_with("//");
        if short && module.is_some_and(|name| NAMELESS.contains(name)) {
            faults.push(format!("{place}:{}: a module is named for what it holds", number + 1));
        }
    }
    faults
}

fn check_sealed(place: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if place.ends_with("tests.rs") || place.contains("/tests/") {
        return faults;
    }
    for (number, line) in text.lines().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for name in ACTING.iter().filter(|name| code.contains(**name)) {
            faults.push(format!("{place}:{}: sealed, and names {name}", number + 1));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_one_machine_are_faults_and_parts_of_others_are_not() {
        let bad = format!("see {}x/y", MACHINE_ROOTS[0]);
        assert_eq!(check_paths("f", &bad).len(), 1);
        assert_eq!(check_paths("f", &format!("\"{}log\"", MACHINE_ROOTS[3])).len(), 1);
        assert!(check_paths("f", &format!("$PLACE{0} x{0} }}{0} .{0}", MACHINE_ROOTS[3])).is_empty());
        assert!(check_paths("f", "https://example.org/frame/work and /var/lib/twinpost").is_empty());
    }

    #[test]
    fn sources_have_headers_names_and_an_end() {
        assert!(check_source("f.rs", "//! What.\nmod util_of_mail;\n").is_empty());
        assert_eq!(check_source("f.rs", "mod a;\n").len(), 1);
        assert_eq!(check_source("f.rs", "//! What.\npub mod util;\n").len(), 1);
        assert_eq!(check_source("f.rs", &"//! What.\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn sealed_sources_do_not_act_outside_their_tests() {
        assert_eq!(check_sealed("f.rs", "use std::collections::HashMap;\n").len(), 1);
        assert!(check_sealed("f.rs", "// no HashMap\n#[cfg(test)]\nmod tests { use std::fs; }\n").is_empty());
    }
}
