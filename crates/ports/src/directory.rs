//! Who exists and who may.

use vocab::{AccountId, Address, ForwardPath, SubmitError};

use crate::Answer;

/// One place a forward-path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A local account.
    Local(AccountId),
    /// An address elsewhere (an alias may point out).
    Remote(Address),
}

/// What the directory knows of a forward-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressClass {
    /// Own: an account, or an alias expanded; postmaster always is.
    Own(Vec<Target>),
    /// Own domain, nobody of that name: 550 5.1.1.
    NoSuchUser,
    /// Own, but switched off: 550 5.2.1.
    Disabled,
    /// A domain of others: relayed for authenticated clients only, else 550 5.7.1.
    NotOurs,
}

/// A verified login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: AccountId,
    /// Its address (login name in full).
    pub address: Address,
}

/// Result of checking a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Right.
    Accepted(Identity),
    /// Wrong, unknown or switched off: one answer for all (535 5.7.8, NO [AUTHENTICATIONFAILED]); the caller delays it.
    Refused,
}

/// Domains, accounts and aliases; one call sees one revision.
pub trait Directory: Send + Sync {
    /// Where a forward-path leads.
    ///
    /// # Errors
    /// Unavailable: 451 4.3.0.
    fn classify<'a>(&'a self, path: &'a ForwardPath) -> Answer<'a, Result<AddressClass, SubmitError>>;
    /// Checks a login name (address, or local part in the default domain) and password, in constant work for unknown names.
    ///
    /// # Errors
    /// Unavailable: 454 4.7.0 / NO [UNAVAILABLE]; never "refused" when the check could not be made.
    fn authenticate<'a>(&'a self, login: &'a str, password: &'a str) -> Answer<'a, Result<Login, SubmitError>>;
    /// Whether the identity may use this reverse-path or author: its own address or an alias that leads to it.
    fn may_send_as(&self, identity: &Identity, address: &Address) -> bool;
    /// Makes the account document that stores this password (argon2id, m = 19 MiB, t = 2, p = 1).
    fn hash_password<'a>(&'a self, password: &'a str) -> Answer<'a, bytes::Bytes>;
}

/// Kind of the account document with the password hash.
pub const PASSWORD_DOCUMENT: &str = "password";
