//! Text to time, exactly: RFC 3339 and its relatives, and plain dates.
//!
//! `YYYY-MM-DD`, then `T` or a space, `HH:MM:SS`, up to nine digits of a fraction, and `Z`, `+HH:MM`, `+HHMM`, `+HH` or
//! nothing. What is not exactly that is refused; a leap second too, since no column can hold it.

/// A moment, and whether the text named a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970 in UTC, rounded down.
    pub(super) seconds: i64,
    /// Nanoseconds after that.
    pub(super) nanos: u32,
    /// Whether the text named a zone.
    pub(super) has_zone: bool,
}

/// The moment that a text names.
pub(super) fn parse_timestamp(text: &str) -> Option<Moment> {
    let bytes = text.as_bytes();
    let days = i64::from(parse_date(text.get(..10)?)?);
    if !matches!(bytes.get(10)?, b'T' | b't' | b' ') || *bytes.get(13)? != b':' || *bytes.get(16)? != b':' {
        return None;
    }
    let (hour, minute, second) = (two(bytes, 11)?, two(bytes, 14)?, two(bytes, 17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = fraction(bytes.get(19..)?)?;
    let (offset_s, has_zone) = zone(rest)?;
    let seconds = days * 86_400 + i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second) - offset_s;
    Some(Moment { seconds, nanos, has_zone })
}

/// Days since 1970 of `YYYY-MM-DD`.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || *bytes.get(4)? != b'-' || *bytes.get(7)? != b'-' {
        return None;
    }
    let year = i32::from(two(bytes, 0)?) * 100 + i32::from(two(bytes, 2)?);
    let (month, day) = (two(bytes, 5)?, two(bytes, 8)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    Some(days_since_1970(year, month, day))
}

/// Nanoseconds since midnight of `HH:MM:SS` with up to nine digits of a fraction.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if *bytes.get(2)? != b':' || *bytes.get(5)? != b':' {
        return None;
    }
    let (hour, minute, second) = (two(bytes, 0)?, two(bytes, 3)?, two(bytes, 6)?);
    let (nanos, rest) = fraction(bytes.get(8..)?)?;
    let seconds = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    (hour <= 23 && minute <= 59 && second <= 59 && rest.is_empty()).then(|| seconds * 1_000_000_000 + i64::from(nanos))
}

/// Two digits.
fn two(bytes: &[u8], at: usize) -> Option<u8> {
    let (tens, ones) = (bytes.get(at)?.wrapping_sub(b'0'), bytes.get(at + 1)?.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| tens * 10 + ones)
}

/// Nanoseconds of a fraction where there is one, and what follows.
fn fraction(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let Some((b'.', digits)) = bytes.split_first() else { return Some((0, bytes)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > 9 {
        return None;
    }
    let (digits, rest) = digits.split_at_checked(count)?;
    let value = digits.iter().fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some((value * 10u32.pow(9 - u32::try_from(count).ok()?), rest))
}

/// Seconds east of UTC, and whether a zone was named.
fn zone(bytes: &[u8]) -> Option<(i64, bool)> {
    let (sign, digits) = match bytes.split_first() {
        None => return Some((0, false)),
        Some((b'Z' | b'z', [])) => return Some((0, true)),
        Some((b'+', digits)) => (1, digits),
        Some((b'-', digits)) => (-1, digits),
        Some(_) => return None,
    };
    let minutes_at = match digits.len() {
        2 => None,
        4 => Some(2),
        5 if *digits.get(2)? == b':' => Some(3),
        _ => return None,
    };
    let (hours, minutes) = (two(digits, 0)?, minutes_at.map_or(Some(0), |at| two(digits, at))?);
    (hours <= 23 && minutes <= 59).then(|| (sign * (i64::from(hours) * 3_600 + i64::from(minutes) * 60), true))
}

/// Length of a month.
fn days_of_month(year: i32, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The usual count of days in the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`).
fn days_since_1970(year: i32, month: u8, day: u8) -> i32 {
    let (month, day) = (i32::from(month), i32::from(day));
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_that_are_understood() {
        let at = |text: &str| parse_timestamp(text).map(|moment| (moment.seconds, moment.nanos, moment.has_zone));
        assert_eq!(at("1970-01-01T00:00:01Z"), Some((1, 0, true)));
        assert_eq!(at("1970-01-01 00:00:01.5"), Some((1, 500_000_000, false)));
        assert_eq!(at("1970-01-01T01:00:00.000000001+01:00"), Some((0, 1, true)));
        assert_eq!(at("1969-12-31T23:30:00-0030"), Some((0, 0, true)));
        assert_eq!(at("2024-02-29T00:00:00+05"), Some((1_709_146_800, 0, true)));
        assert_eq!(parse_time("23:59:59.000000001"), Some(86_399_000_000_001));
        for wrong in ["24:00:00", "12:00", "12:00:00Z", "1:00:00", "12:00:60", "12-00-00", "12:00:00."] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
        for wrong in [
            "",
            "1970-01-01",
            "1970-02-30T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T00:00:00Zx",
            "1970-01-01T00:00:00+1",
            "é970-01-01T00:00:00Z",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(seconds in -62_167_219_200i64..253_402_300_799, nanos in 0u32..1_000_000_000) {
            let time = DateTime::<Utc>::from_timestamp(seconds, nanos).unwrap();
            let text = time.to_rfc3339_opts(SecondsFormat::Nanos, true);
            prop_assert_eq!(parse_timestamp(&text), Some(Moment { seconds, nanos, has_zone: true }));
        }

        #[test]
        fn dates_agree_with_chrono(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]") {
            let expected = NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok().map(|date| date.to_epoch_days());
            prop_assert_eq!(parse_date(&text), expected);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            parse_timestamp(&text);
            parse_date(&text);
        }
    }
}
