//! sequence-set (RFC 3501 §9): numbers and ranges, `*` being the largest there is.

use crate::codec::parser::{Malformed, Parsed, Parser};

/// Ranges one set may have; a client with more may fetch twice.
pub const RANGES_MAX: usize = 10_000;

/// A set of sequence numbers or UIDs as written; `None` is `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSet(pub Vec<(Option<u32>, Option<u32>)>);

impl SequenceSet {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none, or has too many ranges.
    pub fn parse(parser: &mut Parser<'_>) -> Parsed<Self> {
        let mut ranges = Vec::new();
        loop {
            let first = number_or_star(parser)?;
            let last = if parser.take(b':') { number_or_star(parser)? } else { first };
            ranges.push((first, last));
            if ranges.len() > RANGES_MAX {
                return Err(Malformed("too many ranges"));
            }
            if !parser.take(b',') {
                return Ok(Self(ranges));
            }
        }
    }

    /// Ascending, merged, inclusive ranges with `*` replaced by `largest`.
    #[must_use]
    pub fn resolve(&self, largest: u32) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = self
            .0
            .iter()
            .map(|(a, b)| (a.unwrap_or(largest), b.unwrap_or(largest)))
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    }
}

/// Whether ascending ranges contain the number.
#[must_use]
pub fn contains(ranges: &[(u32, u32)], number: u32) -> bool {
    let at = ranges.partition_point(|(_, to)| *to < number);
    ranges.get(at).is_some_and(|(from, _)| *from <= number)
}

/// Ascending numbers as a compact set, for MODIFIED and COPYUID.
#[must_use]
pub fn write_set(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut out = String::new();
    let mut run: Option<(u32, u32)> = None;
    let mut flush = |run: Option<(u32, u32)>| {
        let Some((from, to)) = run else { return };
        let comma = if out.is_empty() { "" } else { "," };
        out += &if from == to { format!("{comma}{from}") } else { format!("{comma}{from}:{to}") };
    };
    for number in numbers {
        run = match run {
            Some((from, to)) if to.checked_add(1) == Some(number) => Some((from, number)),
            other => {
                flush(other);
                Some((number, number))
            }
        };
    }
    flush(run);
    out
}

fn number_or_star(parser: &mut Parser<'_>) -> Parsed<Option<u32>> {
    if parser.take(b'*') {
        return Ok(None);
    }
    let number = u32::try_from(parser.number()?).map_err(|_| Malformed("number too large"))?;
    if number == 0 { Err(Malformed("0 is no message")) } else { Ok(Some(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn parse(text: &'static str) -> Parsed<SequenceSet> {
        let bytes = Bytes::from_static(text.as_bytes());
        let mut parser = Parser::new(&bytes);
        let set = SequenceSet::parse(&mut parser)?;
        parser.end().map(|()| set)
    }

    #[test]
    fn sets_resolve() {
        for (text, largest, ranges) in [
            ("1", 9, vec![(1, 1)]),
            ("3:1,2,5:*", 9, vec![(1, 3), (5, 9)]),
            ("*", 0, vec![(0, 0)]),
            ("12:*", 9, vec![(9, 12)]),
            ("4294967295,1:2,3", 9, vec![(1, 3), (u32::MAX, u32::MAX)]),
        ] {
            assert_eq!(parse(text).map(|s| s.resolve(largest)), Ok(ranges), "{text}");
        }
        for bad in ["", "0", "1:", "1,,2", "4294967296", "a", "-1", "1:2:3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn membership_and_writing() {
        let ranges = [(2, 3), (7, 9)];
        let hits: Vec<u32> = (0..12).filter(|n| contains(&ranges, *n)).collect();
        assert_eq!(hits, [2, 3, 7, 8, 9]);
        assert_eq!(write_set(hits), "2:3,7:9");
        assert_eq!(write_set([]), "");
    }
}
