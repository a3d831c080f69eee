//! Dates of RFC 3501 §9: date-time of APPEND and INTERNALDATE, date of SEARCH.

use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};
use vocab::Timestamp;

use crate::codec::parser::{Malformed, Parsed, Parser, text_of};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days since 1970-01-01, for SEARCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i64);

impl Day {
    /// The day of a point in time in UTC, the zone INTERNALDATE is shown in.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self(i64::try_from(at.seconds() / 86_400).unwrap_or(i64::MAX))
    }
    /// Reads `1-Feb-2003`, bare or quoted.
    ///
    /// # Errors
    /// When it is no date.
    pub fn parse(parser: &mut Parser<'_>) -> Parsed<Self> {
        let text = text_of(&parser.astring()?);
        parse_date(text.trim()).map(Self::from_date).ok_or(Malformed("date expected"))
    }
    /// A day of the calendar; `None` when there is no such day.
    #[must_use]
    pub fn of_date(year: i32, month: u8, day: u8) -> Option<Self> {
        Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok().map(Self::from_date)
    }
    fn from_date(date: Date) -> Self {
        let epoch = Date::from_ordinal_date(1970, 1).map_or(0, Date::to_julian_day);
        Self(i64::from(date.to_julian_day() - epoch))
    }
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || day.len() > 2 || year.len() != 4 {
        return None;
    }
    let index = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))?;
    let month = Month::try_from(u8::try_from(index + 1).ok()?).ok()?;
    Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()
}

/// Reads `" 1-Feb-2003 04:05:06 +0700"`.
///
/// # Errors
/// When it is no date-time, or before 1970.
pub fn parse_date_time(parser: &mut Parser<'_>) -> Parsed<Timestamp> {
    let text = text_of(&parser.string()?);
    let at = date_time(text.trim()).ok_or(Malformed("date-time expected"))?;
    Ok(Timestamp(u64::try_from(at.unix_timestamp()).unwrap_or(0).saturating_mul(1000)))
}

fn date_time(text: &str) -> Option<OffsetDateTime> {
    let mut parts = text.split(' ').filter(|part| !part.is_empty());
    let (date, clock, zone) = (parts.next()?, parts.next()?, parts.next()?);
    let date = parse_date(date)?;
    let mut fields = clock.split(':').map(|f| f.parse::<u8>().ok());
    let (hour, minute, second) = (fields.next()??, fields.next()??, fields.next()??);
    let time = Time::from_hms(hour, minute, second.min(59)).ok()?;
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: i8 = zone.get(1..3)?.parse().ok()?;
    let minutes: i8 = zone.get(3..5)?.parse().ok()?;
    let offset = UtcOffset::from_hms(sign * digits, sign * minutes, 0).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_offset(offset))
}

/// INTERNALDATE with quotes, in UTC.
#[must_use]
pub fn write_date_time(at: Timestamp) -> String {
    let seconds = i64::try_from(at.seconds()).unwrap_or(0);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let format =
        format_description!("\"[day padding:space]-[month repr:short]-[year] [hour]:[minute]:[second] +0000\"");
    at.format(format).unwrap_or_else(|_| "\" 1-Jan-1970 00:00:00 +0000\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn date_times_both_ways() {
        let at = |text: &str| parse_date_time(&mut Parser::new(&Bytes::from(format!("\"{text}\""))));
        assert_eq!(
            at(" 1-Feb-2003 04:05:06 +0000").map(write_date_time).as_deref(),
            Ok("\" 1-Feb-2003 04:05:06 +0000\"")
        );
        assert_eq!(at("17-Jul-1996 02:44:25 -0700"), Ok(Timestamp(837_596_665_000)));
        for bad in
            ["", "1-Foo-2003 04:05:06 +0000", "1-Feb-2003", "31-Feb-2003 1:1:1 +0000", "1-Feb-2003 04:05:06 0000"]
        {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn days() {
        let day = |text: &'static str| Day::parse(&mut Parser::new(&Bytes::from_static(text.as_bytes())));
        assert_eq!(day("1-Jan-1970"), Ok(Day(0)));
        assert_eq!(day("\"02-jan-1970\""), Ok(Day(1)));
        assert_eq!(Day::of(Timestamp(86_400_000)), Day(1));
    }
}
