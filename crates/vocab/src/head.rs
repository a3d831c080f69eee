//! The head of an account: what is compared, counted and chained. The generation is the store's own and not in here.

use prost::Message as _;

use crate::ids::{EpochId, Version};
use crate::rows::Damaged;

/// Row version written as first byte of an encoded head.
pub const HEAD_ROW_VERSION: u8 = 1;

/// Replicated head of one account. Equal versions mean equal heads but for `agreed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountHead {
    /// Version of the state; zero = no state.
    pub version: Version,
    /// Highest modseq given.
    pub modseq: u64,
    /// Highest UIDVALIDITY given; the clock of the account.
    pub uidvalidity: u32,
    /// Sum (mod 2^128) of the hashes of the core rows.
    pub digest: u128,
    /// Branches merged or archived into this state, newest last; where a node was away then, also the versions on their way
    /// at which it may stand.
    pub lineage: Vec<Version>,
    /// Epoch whose gap was taken last (DESIGN 6); a gap is due when the present epoch asks for one and is not this.
    pub gap_taken: Option<EpochId>,
    /// Epoch in which a client was last shown numbers of this account while the in-sync set lacked a member: the served
    /// mark (DESIGN 7). It counts while its epoch is newer than the last joint one, so nobody has to clear it. An epoch that
    /// a node opened alone, without having heard of a joint one of the same number, is newer: clients saw its numbers since.
    pub served: Option<EpochId>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeadV1 {
    #[prost(bytes = "vec", tag = "1")]
    version: Vec<u8>,
    #[prost(uint64, tag = "2")]
    modseq: u64,
    #[prost(uint32, tag = "3")]
    uidvalidity: u32,
    #[prost(bytes = "vec", tag = "4")]
    digest: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    lineage: Vec<Vec<u8>>,
    #[prost(uint64, optional, tag = "6")]
    gap_number: Option<u64>,
    #[prost(uint32, tag = "7")]
    gap_author: u32,
    #[prost(uint64, optional, tag = "8")]
    served_number: Option<u64>,
    #[prost(uint32, tag = "9")]
    served_author: u32,
}

impl AccountHead {
    /// Remembers the branch of `theirs` as part of this state: what it had merged itself, the versions on its chain that it
    /// went through since both parted (`between`), and, unless it changed nothing (`silent`), its own. A silent one's version
    /// is one of this side's own: remembered for longer than the chain is, it would be taken for the newest that a third node
    /// has in common with this one. At most [`LINEAGE_MAX`](crate::limits::LINEAGE_MAX) are kept.
    pub fn remember(&mut self, theirs: &Self, between: &[Version], silent: bool) {
        for version in theirs.lineage.iter().chain(between).chain(Some(&theirs.version).filter(|_| !silent)) {
            if !self.lineage.contains(version) {
                self.lineage.push(*version);
            }
        }
        let over = self.lineage.len().saturating_sub(crate::limits::LINEAGE_MAX);
        self.lineage.drain(..over);
    }

    /// Whether a client was shown numbers in an epoch from this one on.
    #[must_use]
    pub fn is_served_from(&self, first: EpochId) -> bool {
        self.served.is_some_and(|epoch| epoch >= first)
    }

    /// Row version byte, then protobuf.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let row = HeadV1 {
            version: self.version.0.to_vec(),
            modseq: self.modseq,
            uidvalidity: self.uidvalidity,
            digest: self.digest.to_be_bytes().to_vec(),
            lineage: self.lineage.iter().map(|v| v.0.to_vec()).collect(),
            gap_number: self.gap_taken.map(|e| e.number),
            gap_author: self.gap_taken.map_or(0, |e| e.author),
            served_number: self.served.map(|e| e.number),
            served_author: self.served.map_or(0, |e| e.author),
        };
        let mut out = vec![HEAD_ROW_VERSION];
        out.extend(row.encode_to_vec());
        out
    }

    /// The head in these bytes.
    ///
    /// # Errors
    /// [`Damaged`] for an unknown row version or broken bytes; nothing is guessed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let bad = |what: &str| Damaged(format!("account head: {what}"));
        let (first, rest) = bytes.split_first().ok_or_else(|| bad("empty"))?;
        if *first != HEAD_ROW_VERSION {
            return Err(bad(&format!("unknown row version {first}")));
        }
        let row = HeadV1::decode(rest).map_err(|e| bad(&e.to_string()))?;
        let version = |b: &[u8]| Version::from_bytes(b).ok_or_else(|| bad("version length"));
        Ok(Self {
            version: version(&row.version)?,
            modseq: row.modseq,
            uidvalidity: row.uidvalidity,
            digest: u128::from_be_bytes(row.digest.as_slice().try_into().map_err(|_| bad("digest length"))?),
            lineage: row.lineage.iter().map(|b| version(b)).collect::<Result<_, _>>()?,
            gap_taken: row.gap_number.map(|number| EpochId { number, author: row.gap_author }),
            served: row.served_number.map(|number| EpochId { number, author: row.served_author }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_remembered_once_with_what_it_went_through_and_the_oldest_are_forgotten() {
        let version = |n: u16| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            Version(bytes)
        };
        let theirs = AccountHead { version: version(9), lineage: vec![version(1)], ..AccountHead::default() };
        let mut head = AccountHead { lineage: vec![version(1), version(2)], ..AccountHead::default() };
        head.remember(&theirs, &[version(7), version(8)], false);
        assert_eq!(head.lineage, [1, 2, 7, 8, 9].map(version));
        let mut head = AccountHead::default();
        head.remember(&theirs, &[], true);
        assert_eq!(head.lineage, [version(1)]);
        let many: Vec<Version> = (10..3000).map(version).collect();
        head.remember(&theirs, &many, false);
        assert_eq!(head.lineage.len(), crate::limits::LINEAGE_MAX);
        assert_eq!(head.lineage.last(), Some(&version(9)));
    }

    #[test]
    fn golden_bytes_of_the_head() {
        let head = AccountHead {
            version: Version([7; 16]),
            modseq: 300,
            uidvalidity: 1_700_000_000,
            digest: 5,
            lineage: vec![Version([1; 16])],
            gap_taken: Some(EpochId { number: 4, author: 2 }),
            served: Some(EpochId { number: 5, author: 1 }),
        };
        let hex: String = head.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "010a100707070707070707070707070707070710ac021880e2cfaa062210000000000000000000000000000000052a10010101010101\
             010101010101010101013004380240054801"
        );
        assert_eq!(AccountHead::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn a_mark_of_a_node_alone_counts_after_a_joint_epoch_of_the_same_number() {
        let marked =
            |number, author| AccountHead { served: Some(EpochId { number, author }), ..AccountHead::default() };
        let after_joint_11 = EpochId { number: 11, author: 1 };
        let counts = [(10, 2), (11, 0), (11, 1), (12, 0)].map(|(n, a)| marked(n, a).is_served_from(after_joint_11));
        assert_eq!(counts, [false, false, true, true]);
        assert!(!AccountHead::default().is_served_from(EpochId::default()));
    }

    #[test]
    fn unknown_row_version_is_refused() {
        assert!(AccountHead::decode(&[9, 1, 2]).is_err());
        assert!(AccountHead::decode(&[]).is_err());
    }
}
