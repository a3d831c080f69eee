//! The password document: an argon2id hash in PHC form.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier as _, Version};

/// Memory of one hash (KiB): 19 MiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;

/// A hash could not be made, or a stored one cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("password hash: {0}")]
pub struct HashFault(String);

fn engine() -> Result<Argon2<'static>, HashFault> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| HashFault(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// A fresh document for this password. Takes tens of milliseconds: not for the runtime's own threads.
///
/// # Errors
/// No randomness or no memory.
pub fn hash(password: &str) -> Result<String, HashFault> {
    let made: PasswordHash = engine()?.hash_password(password.as_bytes()).map_err(|e| HashFault(e.to_string()))?;
    Ok(made.to_string())
}

/// Whether the password is the one of this document. As slow as [`hash`].
///
/// # Errors
/// The document is none of ours.
pub fn verify(document: &[u8], password: &str) -> Result<bool, HashFault> {
    let text = std::str::from_utf8(document).map_err(|e| HashFault(e.to_string()))?;
    let stored = PasswordHash::new(text).map_err(|e| HashFault(e.to_string()))?;
    match engine()?.verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(HashFault(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_and_wrong_and_damaged() {
        let document = hash("correct horse").expect("hash");
        assert!(document.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{document}");
        assert_eq!(verify(document.as_bytes(), "correct horse"), Ok(true));
        assert_eq!(verify(document.as_bytes(), "correct hors"), Ok(false));
        assert!(verify(b"plain", "plain").is_err());
        assert_ne!(document, hash("correct horse").expect("hash"), "salted");
    }
}
