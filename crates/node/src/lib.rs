//! The program `twinpost`: assembles all rooms, and the operator's commands.

mod address;
pub mod admin;
mod alerts;
pub mod branches;
mod certificates;
pub mod checks;
pub mod cli;
mod clock;
mod cluster_address;
pub mod config;
pub mod demo;
pub mod discover;
pub mod events;
mod examine;
pub mod exit;
pub mod files;
pub mod guard;
pub mod import;
pub mod init;
pub mod join;
mod journal;
mod logging;
pub mod logs;
pub mod measures;
pub mod members;
mod notify;
mod owner;
pub mod recover;
pub mod seeding;
pub mod serve;
pub mod servers;
mod service;
pub mod settings;
pub mod upgrade;
mod witness;

/// Version of this program: the workspace's, or the package's that it was built for (`deploy/package.sh`).
pub const PROGRAM: &str = match option_env!("TWINPOST_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
