//! Verified logins of the last minutes, as HMAC-SHA256 under a random key of this boot: neither the password nor
//! anything that helps to guess it after a restart. The stored hash is part of what is keyed, so a changed password
//! forgets the old one at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use vocab::AccountId;

/// How long a verified login is remembered.
pub const REMEMBER: Duration = Duration::from_secs(10 * 60);
/// Logins remembered at once.
const ENTRIES_MAX: usize = 50_000;

type Tag = [u8; 32];

/// The cache.
pub struct LoginCache {
    key: [u8; 32],
    seen: Mutex<HashMap<Tag, Instant>>,
}

impl LoginCache {
    /// Empty, under a fresh key.
    pub fn new() -> Self {
        Self { key: rand::random(), seen: Mutex::default() }
    }
    fn tag(&self, account: AccountId, stored: &[u8], password: &str) -> Option<Tag> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(&account.0.to_be_bytes());
        mac.update(&(stored.len() as u64).to_be_bytes());
        mac.update(stored);
        mac.update(password.as_bytes());
        Some(mac.finalize().into_bytes().into())
    }
    /// Whether exactly this was verified a short time ago.
    pub fn knows(&self, account: AccountId, stored: &[u8], password: &str) -> bool {
        let Some(tag) = self.tag(account, stored, password) else { return false };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&tag).is_some_and(|at| at.elapsed() < REMEMBER)
    }
    /// Remembers a login that was verified now.
    pub fn remember(&self, account: AccountId, stored: &[u8], password: &str) {
        let Some(tag) = self.tag(account, stored, password) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= ENTRIES_MAX {
            seen.retain(|_, at| at.elapsed() < REMEMBER);
            if seen.len() >= ENTRIES_MAX {
                seen.clear();
            }
        }
        seen.insert(tag, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_hash_password_or_account_is_not_known() {
        let cache = LoginCache::new();
        cache.remember(AccountId(20), b"hash", "word");
        assert!(cache.knows(AccountId(20), b"hash", "word"));
        assert!(!cache.knows(AccountId(20), b"other", "word"));
        assert!(!cache.knows(AccountId(20), b"hash", "wort"));
        assert!(!cache.knows(AccountId(21), b"hash", "word"));
        assert!(!cache.knows(AccountId(20), b"has", "hword"));
        assert!(!LoginCache::new().knows(AccountId(20), b"hash", "word"), "a key of its own");
    }
}
