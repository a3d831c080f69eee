//! Workspace chores: `cargo run -p xtask -- tidy` checks what the compiler does not, `simulate` runs histories.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod simulate;
mod tidy;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Floors, sealed crates, file headers and lengths, names, licences, machine paths, the corpus.
    Tidy,
    /// Runs simulated histories of a pair.
    Simulate(simulate::Simulate),
}

fn main() -> ExitCode {
    if let Chore::Simulate(options) = Arguments::parse().chore {
        return simulate::run(&options);
    }
    // Asked at run time: a path compiled in names another checkout when several share a target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("xtask"), PathBuf::from);
    let root = package.join("..");
    match tidy::run(&root) {
        Ok(faults) if faults.is_empty() => {
            println!("tidy: nothing to complain about");
            ExitCode::SUCCESS
        }
        Ok(faults) => {
            for fault in &faults {
                eprintln!("tidy: {fault}");
            }
            eprintln!("tidy: {} fault(s)", faults.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy: {error:#}");
            ExitCode::from(2)
        }
    }
}
