//! Keys of the log's database.

use vocab::NodeId;

/// Records: class, time, node, number -> arrival, length of the id, id, record.
pub(crate) const LOG: &str = "log";
/// Id of a record that a commit wrote -> its key in [`LOG`].
pub(crate) const IDS: &str = "ids";
/// arrival -> key in [`LOG`]: the order in which records came here.
pub(crate) const ARRIVALS: &str = "arrivals";
/// Hash of an address or id, key in [`LOG`] -> nothing.
pub(crate) const TERMS: &str = "terms";
/// What this log remembers of itself.
pub(crate) const META: &str = "meta";
/// All of them.
pub(crate) const ALL: [&str; 5] = [LOG, IDS, ARRIVALS, TERMS, META];

/// Name of this log, made when it is founded.
pub(crate) const NAME: &[u8] = b"name";
/// Next number of this node.
pub(crate) const NUMBER: &[u8] = b"number";
/// Next arrival.
pub(crate) const ARRIVAL: &[u8] = b"arrival";
/// How many records of each class there are.
pub(crate) const COUNTS: &[u8] = b"counts";
/// How far the records here are known at the primary.
pub(crate) const SHIPPED: &[u8] = b"shipped";
/// Prefix of the name of a destination: the arrival up to which it has everything.
pub(crate) const CURSOR: &[u8] = b"cursor/";

/// Length of a key in [`LOG`].
pub(crate) const KEY_BYTES: usize = 21;

/// Kinds of records with a retention of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Mail, security, access, admin, cluster.
    Main = 0,
    /// Lines of the protocol.
    Protocol = 1,
}

/// Both of them.
pub const CLASSES: [Class; 2] = [Class::Main, Class::Protocol];

/// Key of a record in [`LOG`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) class: Class,
    pub(crate) at: u64,
    pub(crate) node: NodeId,
    pub(crate) number: u64,
}

impl Key {
    /// The first one at or after a time.
    pub(crate) const fn first(class: Class, at: u64) -> Self {
        Self { class, at, node: NodeId(0), number: 0 }
    }

    pub(crate) fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        let parts: [&[u8]; 4] =
            [&[self.class as u8], &self.at.to_be_bytes(), &self.node.0.to_be_bytes(), &self.number.to_be_bytes()];
        for (to, from) in bytes.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (class, rest) = bytes.split_first()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (node, number) = rest.split_first_chunk::<4>()?;
        let class = CLASSES.into_iter().find(|known| *known as u8 == *class)?;
        Some(Self {
            class,
            at: u64::from_be_bytes(*at),
            node: NodeId(u32::from_be_bytes(*node)),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }
}

/// The hash under which a term is indexed; terms are compared without regard to case.
pub(crate) fn term(text: &str) -> [u8; 8] {
    let hash = blake3::hash(text.trim().to_lowercase().as_bytes());
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_class_and_time_and_are_read_back() {
        let key = |class, at, node, number| Key { class, at, node: NodeId(node), number };
        let keys = [
            key(Class::Main, 1, 2, 9),
            key(Class::Main, 2, 1, 3),
            key(Class::Main, 2, 1, 4),
            key(Class::Main, 2, 2, 1),
            key(Class::Protocol, 1, 1, 1),
        ];
        let bytes: Vec<_> = keys.iter().map(|key| key.to_bytes()).collect();
        assert!(bytes.is_sorted());
        assert!(keys.iter().zip(&bytes).all(|(key, bytes)| Key::from_bytes(bytes) == Some(*key)));
        assert_eq!(Key::from_bytes(&bytes[0][1..]), None);
        assert_eq!(term(" Ann@Example.org"), term("ann@example.ORG "));
    }
}
