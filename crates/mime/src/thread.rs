//! Which conversation a message belongs to (RFC 8474 THREADID), from its own header alone, so that every node and
//! every branch finds the same.

use std::fmt;

/// THREADID: 16 bytes of BLAKE3 over the root of the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub [u8; 16]);

impl ThreadId {
    /// From exactly 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
    /// The conversation whose root is named by these bytes.
    #[must_use]
    pub fn of_root(root: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(root).as_bytes()[..16]);
        Self(id)
    }
}

/// Lower-case hexadecimal after a "T", as it is shown to clients.
impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("T")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
