//! The `twinpost` binary.
fn main() {}
