//! Puts the messages of `tests/corpus` into the binary, so that `twinpost demo` needs no files.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs, io};

/// Larger files stay out of the binary; the demo makes its own large messages.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let corpus = root.join("../../tests/corpus");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", corpus.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&corpus).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".eml") && entry.metadata()?.len() <= FILE_BYTES_MAX {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    let mut text =
        String::from("/// Name and bytes of every file, sorted by name.\npub static FILES: &[(&str, &[u8])] = &[\n");
    // Copied, so that the source made here names no checkout: several may share a target folder.
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::create_dir_all(out.join("corpus"))?;
    for (name, path) in files {
        fs::copy(path, out.join("corpus").join(&name))?;
        let _ = writeln!(text, "    ({name:?}, include_bytes!({:?})),", format!("corpus/{name}"));
    }
    text.push_str("];\n");
    fs::write(out.join("corpus.rs"), text)
}
