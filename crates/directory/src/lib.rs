//! Who exists and who may: domains, accounts and aliases of the configuration, passwords from the accounts' own rows.

mod expand;
mod login_cache;
mod password;
mod service;

pub use password::HashFault;
pub use service::AccountDirectory;
