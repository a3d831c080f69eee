//! Where the files of a test lie.

use std::path::PathBuf;

/// The folder of the package under test. Asked at run time (cargo sets it), because a path compiled in names another
/// checkout when several share a target folder. By hand: run from the package's folder.
#[must_use]
pub fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}
