//! Rules the compiler does not know. Each module gives the faults of one kind as text with its place.

use std::path::Path;

use anyhow::Result;

mod corpus;
mod floors;
mod licences;
mod metadata;
mod sources;

/// All faults of the workspace at `root`, in a fixed order.
///
/// # Errors
/// When the workspace cannot be read at all.
pub fn run(root: &Path) -> Result<Vec<String>> {
    let metadata = metadata::read(root)?;
    let table = floors::read_table(root)?;
    let mut faults = floors::check(&table, &metadata);
    faults.extend(licences::check(&metadata));
    faults.extend(sources::check(root, &floors::sealed(&table, &metadata))?);
    faults.extend(corpus::check(root)?);
    Ok(faults)
}
