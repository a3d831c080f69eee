//! The table of floors in docs/ARCHITECTURE.md against what the crates import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::metadata::{Metadata, Package};

/// Where the table is.
pub const DOCUMENT: &str = "docs/ARCHITECTURE.md";
/// Machines and everything below them are sealed.
const SEALED_FLOOR_MAX: u8 = 3;
/// What `xtask simulate` runs.
const SIMULATION: &str = "simulation";
/// Fakes for tests: nobody's normal dependency outside `tests/`.
const TESTKIT: &str = "testkit";
/// Rooms whose crates have floors.
const FLOOR_ROOMS: [&str; 2] = ["crates", "cluster"];
/// Crates that act (async, disk, network, randomness, clocks): not for sealed crates. A name with `-*` is a prefix.
const ACTING: [&str; 30] = [
    "tokio",
    "tokio-*",
    "async-*",
    "futures",
    "futures-*",
    "smol",
    "mio",
    "rocksdb",
    "openraft",
    "hyper",
    "hyper-*",
    "axum",
    "tower",
    "tonic",
    "tonic-*",
    "reqwest",
    "socket2",
    "rustls",
    "rcgen",
    "hickory-*",
    "rand",
    "rand_*",
    "getrandom",
    "fastrand",
    "rustix",
    "libc",
    "nix",
    "tempfile",
    "tracing-subscriber",
    "metrics-*",
];

/// One row of the table.
pub struct Row {
    floor: u8,
    may_import: BTreeSet<String>,
}

/// Rows by crate name.
pub type Table = BTreeMap<String, Row>;

/// Reads the table.
///
/// # Errors
/// When the document or its marks are missing or a row cannot be read.
pub fn read_table(root: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(root.join(DOCUMENT)).with_context(|| format!("read {DOCUMENT}"))?;
    parse_table(&text).with_context(|| format!("table of floors in {DOCUMENT}"))
}

fn parse_table(text: &str) -> Result<Table> {
    let (_, rest) = text.split_once("<!-- floors:begin -->").context("no begin mark")?;
    let (table, _) = rest.split_once("<!-- floors:end -->").context("no end mark")?;
    let mut rows = Table::new();
    for line in table.lines().map(str::trim).filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, floor, imports] = cells[..] else { anyhow::bail!("not three cells: {line}") };
        let floor = floor.parse().with_context(|| format!("floor of {name}"))?;
        let may_import = imports.split_whitespace().map(str::to_owned).collect();
        anyhow::ensure!(rows.insert(name.to_owned(), Row { floor, may_import }).is_none(), "{name} twice");
    }
    Ok(rows)
}

/// Every edge that is not in the table, every row that points up, every crate without a row.
pub fn check(table: &Table, metadata: &Metadata) -> Vec<String> {
    let mut faults = check_table(table);
    let ours: BTreeSet<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    for name in table.keys().filter(|name| !ours.contains(name.as_str())) {
        faults.push(format!("{DOCUMENT}: {name} has a floor and does not exist"));
    }
    for package in metadata.members() {
        faults.extend(check_package(table, package, &ours));
    }
    faults
}

fn check_table(table: &Table) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, row) in table {
        for import in &row.may_import {
            match table.get(import) {
                None => faults.push(format!("{DOCUMENT}: {name} may import {import}, which has no row")),
                Some(lower) if lower.floor >= row.floor => {
                    faults.push(format!("{DOCUMENT}: {name} may not import {import}: it is not on a lower floor"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

fn check_package(table: &Table, package: &Package, ours: &BTreeSet<&str>) -> Vec<String> {
    let name = package.name.as_str();
    let imports: Vec<&str> = package.imports().filter(|import| ours.contains(import)).collect();
    let mut faults = Vec::new();
    if imports.contains(&TESTKIT) && package.room() != "tests" {
        faults.push(format!("{name} imports {TESTKIT} outside dev-dependencies"));
    }
    if name == "xtask" && imports.iter().any(|import| *import != SIMULATION) {
        faults.push(format!("xtask imports {}: of ours it imports the simulator alone", imports.join(", ")));
    }
    if !FLOOR_ROOMS.contains(&package.room()) || name == TESTKIT {
        return faults;
    }
    let Some(row) = table.get(name) else {
        faults.push(format!("{name} has no row in the table of floors in {DOCUMENT}"));
        return faults;
    };
    for import in imports.iter().filter(|import| **import != TESTKIT && !row.may_import.contains(**import)) {
        faults.push(format!("{name} imports {import}, which {DOCUMENT} does not allow"));
    }
    if row.floor <= SEALED_FLOOR_MAX {
        for import in package.imports().filter(|import| acts(import)) {
            faults.push(format!("{name} is sealed and imports {import}"));
        }
    }
    faults
}

fn acts(import: &str) -> bool {
    ACTING.iter().any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => import.starts_with(prefix),
        None => *entry == import,
    })
}

/// Folders of the sealed crates.
pub fn sealed(table: &Table, metadata: &Metadata) -> Vec<PathBuf> {
    let is_sealed = |package: &&Package| table.get(&package.name).is_some_and(|row| row.floor <= SEALED_FLOOR_MAX);
    metadata.members().filter(is_sealed).map(|package| package.folder().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &str) -> Table {
        let head = "| crate | floor | may import |\n| --- | --- | --- |\n";
        parse_table(&format!("<!-- floors:begin -->\n{head}{rows}\n<!-- floors:end -->")).expect("readable")
    }

    fn metadata(imports: &[(&str, Option<&str>)]) -> Metadata {
        let dependencies: Vec<_> =
            imports.iter().map(|(name, kind)| serde_json::json!({ "name": name, "kind": kind })).collect();
        let package = |name: &str, dependencies: serde_json::Value| {
            serde_json::json!({ "id": name, "name": name, "version": "0", "license": "MIT", "license_file": null,
                "manifest_path": format!("/x/crates/{name}/Cargo.toml"), "dependencies": dependencies })
        };
        let packages = [
            package("vocab", serde_json::json!([])),
            package("smtp", dependencies.into()),
            package("testkit", serde_json::json!([])),
        ];
        serde_json::from_value(serde_json::json!({ "packages": packages,
            "workspace_members": ["vocab", "smtp", "testkit"] }))
        .expect("well-formed")
    }

    const GOOD: &str = "| vocab | 0 | |\n| smtp | 3 | vocab |";

    #[test]
    fn allowed_edges_pass() {
        assert!(check(&table(GOOD), &metadata(&[("vocab", None), ("testkit", Some("dev"))])).is_empty());
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_a_fault() {
        let faults = check(&table("| vocab | 0 | |\n| smtp | 3 | |"), &metadata(&[("vocab", None)]));
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn rows_that_point_up_or_nowhere_are_faults() {
        let faults = check(&table("| vocab | 3 | |\n| smtp | 3 | vocab gone |\n| old | 1 | |"), &metadata(&[]));
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert_eq!(check(&table("| vocab | 0 | |"), &metadata(&[])).len(), 1, "a crate without a row");
    }

    #[test]
    fn sealed_crates_do_not_act_and_fakes_stay_in_tests() {
        for import in ["tokio", "tokio-util", "rand", "futures-util", "rocksdb", "testkit"] {
            assert_eq!(check(&table(GOOD), &metadata(&[(import, None)])).len(), 1, "{import}");
            assert!(check(&table(GOOD), &metadata(&[(import, Some("dev"))])).is_empty(), "{import}");
        }
    }
}
