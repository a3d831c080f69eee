//! The Date field (RFC 5322 §3.3, obsolete forms too), as a calendar day: what SENTBEFORE, SENTON and SENTSINCE compare,
//! time and zone disregarded (RFC 9051 §6.4.4).

/// A calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// Four digits.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Number of a month by its first three letters.
#[must_use]
pub fn month(name: &str) -> Option<u8> {
    let first = name.get(..3)?;
    MONTHS.iter().position(|m| m.eq_ignore_ascii_case(first)).and_then(|at| u8::try_from(at + 1).ok())
}

/// The day of a Date value; `None` when there is none in it.
#[must_use]
pub fn parse_day(value: &[u8]) -> Option<Day> {
    let text = String::from_utf8_lossy(value);
    let text = text.split_once(',').map_or(&*text, |(_, rest)| rest);
    let mut words = text.split(|c: char| c.is_ascii_whitespace() || c == '-').filter(|w| !w.is_empty());
    let day: u8 = words.next()?.parse().ok()?;
    let month = month(words.next()?)?;
    let digits = words.next()?;
    let year: u16 = digits.parse().ok()?;
    // RFC 5322 §4.3: two and three digits.
    let year = match digits.len() {
        2 if year < 50 => year + 2000,
        2 | 3 => year + 1900,
        _ => year,
    };
    ((1..=31).contains(&day) && year >= 1900).then_some(Day { year, month, day })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_dates() {
        let day = |year, month, day| Some(Day { year, month, day });
        assert_eq!(parse_day(b"Fri, 21 Nov 1997 09:55:06 -0600"), day(1997, 11, 21));
        assert_eq!(parse_day(b"1 Jan 05 00:00 GMT"), day(2005, 1, 1));
        assert_eq!(parse_day(b"1-Feb-2020"), day(2020, 2, 1));
        assert_eq!(parse_day(b"yesterday"), None);
        assert_eq!(parse_day(b"99 Jan 2020"), None);
    }
}
