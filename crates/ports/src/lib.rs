//! The seams: one trait per file, no implementations. Doors, engines and devices meet here and nowhere else.

use std::future::Future;
use std::pin::Pin;

pub mod accounts;
pub mod blobs;
pub mod cluster;
pub mod config;
pub mod directory;
pub mod intake;
pub mod journal;
pub mod log;
pub mod mail_store;
pub mod outbox;
pub mod peers;
pub mod records;
pub mod resolver;
pub mod senses;
pub mod streams;

/// A boxed answer: ports are `dyn`, so doors have no type parameters; one box per mailbox operation is nothing beside
/// a disk.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
