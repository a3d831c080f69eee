//! The program `twinpost`: assembles all rooms, and the operator's commands.

mod address;
pub mod admin;
pub mod branches;
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
pub mod members;
pub mod recover;
pub mod seeding;
pub mod serve;
mod service;
mod witness;
