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

/// Ids of a References field that are kept.
pub const REFERENCES_MAX: usize = 50;

/// What links a message to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    pub message_id: Option<Vec<u8>>,
    /// Oldest first.
    pub references: Vec<Vec<u8>>,
    pub in_reply_to: Option<Vec<u8>>,
}

/// Every `<...>` of a value.
fn ids(value: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    value.split(|b| *b == b'<').skip(1).filter_map(|rest| {
        let end = rest.iter().position(|b| *b == b'>')?;
        let id: Vec<u8> = rest.get(..end)?.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        (!id.is_empty()).then(|| [b"<", id.as_slice(), b">"].concat())
    })
}

pub(crate) fn links_of(header: &[u8]) -> Links {
    let value = |name| crate::header::first_value(header, name).unwrap_or_default();
    Links {
        message_id: crate::header::first_value(header, "Message-ID").filter(|v| !v.is_empty()),
        references: ids(&value("References")).take(REFERENCES_MAX).collect(),
        in_reply_to: ids(&value("In-Reply-To")).next(),
    }
}

/// The conversation: named by the first of References, else In-Reply-To, else the message's own id, else its envelope.
pub(crate) fn thread_id(links: &Links, envelope: &[u8]) -> ThreadId {
    let own = links.message_id.as_deref().and_then(|value| ids(value).next());
    match links.references.first().or(links.in_reply_to.as_ref()).or(own.as_ref()) {
        Some(root) => ThreadId::of_root(root),
        None => ThreadId::of_root(links.message_id.as_deref().unwrap_or(envelope)),
    }
}
