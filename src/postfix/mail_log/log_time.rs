//! Time stamps of log lines: `Dec  1 21:00:00` in local time without a year (RFC 3164), and RFC 3339.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::time::Timestamp;

/// How far a line may be ahead of the reference time before it counts as a line of the year before.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// Years to go back for a day that the year of the reference does not have: 29 February, also around 2100.
const YEARS_BACK: i16 = 8;
const SECOND: u64 = 1_000_000_000;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The time zone of stamps that name none.
#[derive(Clone, Debug)]
pub struct LogZone(TimeZone);

impl LogZone {
    /// The zone of this host (`/etc/localtime`, `TZ`).
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// A zone of the system's database, such as `Europe/Berlin`. `None` if it does not have it.
    pub fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Self)
    }
}

/// Reads time stamps.
#[derive(Debug)]
pub(super) struct LogTime {
    zone: LogZone,
    /// A line's year is the latest one in which the line is not after this time by more than [`AHEAD`].
    reference: Timestamp,
    /// The last `Dec  1 21:00`, and the start of this minute.
    minute: Option<([u8; 12], u64)>,
    /// The last `2026-12-01`, and the start of this day in UTC.
    day: Option<([u8; 10], u64)>,
}

impl LogTime {
    pub(super) const fn new(zone: LogZone, reference: Timestamp) -> Self {
        Self { zone, reference, minute: None, day: None }
    }

    pub(super) fn set_reference(&mut self, reference: Timestamp) {
        if reference.since(self.reference) >= AHEAD || self.reference > reference {
            self.minute = None;
            self.reference = reference;
        }
    }

    /// Reads a stamp at the beginning of a line; returns it and the line behind the stamp and its space.
    pub(super) fn parse<'a>(&mut self, line: &'a [u8]) -> Option<(Timestamp, &'a [u8])> {
        if line.first()?.is_ascii_digit() { self.rfc_3339(line) } else { self.traditional(line) }
    }

    fn traditional<'a>(&mut self, line: &'a [u8]) -> Option<(Timestamp, &'a [u8])> {
        let (minute, rest) = line.split_first_chunk::<12>()?;
        let [b':', a, b, b' ', rest @ ..] = rest else { return None };
        let seconds = two_digits(*a, *b)?;
        let start = match self.minute {
            Some((known, start)) if known == *minute => start,
            _ => {
                let start = self.minute_of(minute)?;
                self.minute = Some((*minute, start));
                start
            }
        };
        Some((Timestamp::from_nanos(start.checked_add(seconds * SECOND)?), rest))
    }

    /// The start of `Dec  1 21:00`.
    fn minute_of(&self, text: &[u8; 12]) -> Option<u64> {
        let [m, o, n, b' ', d1, d2, b' ', h1, h2, b':', m1, m2] = *text else { return None };
        let month = MONTHS.iter().position(|name| **name == [m, o, n])?;
        let month = i8::try_from(month + 1).ok()?;
        let day = two_digits(if d1 == b' ' { b'0' } else { d1 }, d2)?;
        let (day, hour) = (i8::try_from(day).ok()?, i8::try_from(two_digits(h1, h2)?).ok()?);
        let minute = i8::try_from(two_digits(m1, m2)?).ok()?;

        let latest = self.reference + AHEAD;
        let seconds = i64::try_from(latest.as_nanos() / SECOND).ok()?;
        let year = jiff::Timestamp::from_second(seconds).ok()?;
        let year = year.to_zoned(self.zone.0.clone()).year();
        (0..=YEARS_BACK).find_map(|back| {
            let time = DateTime::new(year - back, month, day, hour, minute, 0, 0).ok()?;
            let time = time.to_zoned(self.zone.0.clone()).ok()?.timestamp();
            let nanos = u64::try_from(time.as_second()).ok()?.checked_mul(SECOND)?;
            (nanos <= latest.as_nanos()).then_some(nanos)
        })
    }

    /// `2026-12-01T21:00:00.123456+01:00`, `2026-12-01T21:00:00Z`.
    fn rfc_3339<'a>(&mut self, line: &'a [u8]) -> Option<(Timestamp, &'a [u8])> {
        let (date, rest) = line.split_first_chunk::<10>()?;
        let [b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = rest else {
            return None;
        };
        let start = match self.day {
            Some((known, start)) if known == *date => start,
            _ => {
                let start = day_of(date)?;
                self.day = Some((*date, start));
                start
            }
        };
        let (hour, minute) = (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?);
        // A leap second.
        let second = two_digits(*s1, *s2).filter(|second| *second <= 60)?;
        if hour > 23 || minute > 59 {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let (digits, rest) = rest.split_at_checked(digits)?;
                let nanos = digits.iter().chain([&b'0'; 9]).take(9);
                (nanos.fold(0, |nanos, digit| nanos * 10 + u64::from(digit - b'0')), rest)
            }
            rest => (0, rest),
        };
        let utc = start + (hour * 3600 + minute * 60 + second) * SECOND + fraction;
        let (nanos, rest) = match rest {
            [b'Z' | b'z', rest @ ..] => (utc, rest),
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2, rest @ ..] => {
                let offset = (two_digits(*h1, *h2)? * 3600 + two_digits(*m1, *m2)? * 60) * SECOND;
                let east = *sign == b'+';
                (if east { utc.checked_sub(offset)? } else { utc.checked_add(offset)? }, rest)
            }
            _ => return None,
        };
        Some((Timestamp::from_nanos(nanos), rest.strip_prefix(b" ")?))
    }
}

/// The start of `2026-12-01` in UTC.
fn day_of(text: &[u8; 10]) -> Option<u64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else { return None };
    let year = i16::try_from(two_digits(y1, y2)? * 100 + two_digits(y3, y4)?).ok()?;
    let (month, day) = (two_digits(m1, m2)?, two_digits(d1, d2)?);
    let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    let time = DateTime::new(year, month, day, 0, 0, 0, 0).ok()?;
    let seconds = time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    // Room for a day's nanoseconds.
    u64::try_from(seconds).ok()?.checked_mul(SECOND).filter(|nanos| *nanos < u64::MAX / 2)
}

fn two_digits(tens: u8, ones: u8) -> Option<u64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| u64::from(tens - b'0') * 10 + u64::from(ones - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        serde_json::from_value(text.into()).unwrap()
    }

    fn read(zone: &str, reference: &str, line: &str) -> Option<String> {
        let mut time = LogTime::new(LogZone::named(zone).unwrap(), at(reference));
        let (at, rest) = time.parse(line.as_bytes())?;
        assert_eq!(rest, b"host", "{line}");
        Some(at.to_string().replace(".000000Z", "Z"))
    }

    #[test]
    fn the_year_is_the_latest_that_is_not_in_the_future() {
        for (zone, reference, line, expected) in [
            ("UTC", "2026-12-01T21:00:05Z", "Dec  1 21:00:00 host", "2026-12-01T21:00:00Z"),
            // Clocks differ a little.
            ("UTC", "2026-12-01T21:00:05Z", "Dec  1 21:00:09 host", "2026-12-01T21:00:09Z"),
            ("UTC", "2026-12-31T23:59:59Z", "Jan  1 00:00:01 host", "2027-01-01T00:00:01Z"),
            ("UTC", "2027-01-01T00:00:01Z", "Dec 31 23:59:59 host", "2026-12-31T23:59:59Z"),
            ("UTC", "2026-12-01T21:00:05Z", "Dec 24 21:00:00 host", "2025-12-24T21:00:00Z"),
            ("UTC", "2026-03-01T00:00:00Z", "Feb 29 12:00:00 host", "2024-02-29T12:00:00Z"),
            ("UTC", "2028-03-01T00:00:00Z", "Feb 29 12:00:00 host", "2028-02-29T12:00:00Z"),
            ("UTC", "2104-01-01T00:00:00Z", "Feb 29 12:00:00 host", "2096-02-29T12:00:00Z"),
            (
                "Europe/Berlin",
                "2026-12-31T23:30:00Z",
                "Jan  1 00:30:00 host",
                "2026-12-31T23:30:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-07-01T00:00:00Z",
                "Jun 30 12:00:00 host",
                "2026-06-30T10:00:00Z",
            ),
            (
                "America/New_York",
                "2027-01-01T01:00:00Z",
                "Dec 31 20:00:00 host",
                "2027-01-01T01:00:00Z",
            ),
            (
                "Asia/Kathmandu",
                "2026-07-01T00:00:00Z",
                "Jun 30 12:00:00 host",
                "2026-06-30T06:15:00Z",
            ),
        ] {
            assert_eq!(read(zone, reference, line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn a_year_begins_while_the_log_is_read() {
        let mut time = LogTime::new(LogZone::utc(), at("2026-12-31T23:59:58Z"));
        let mut read = |line: &str| time.parse(line.as_bytes()).unwrap().0.to_string();
        assert_eq!(read("Dec 31 23:59:59 "), "2026-12-31T23:59:59.000000Z");
        assert_eq!(read("Jan  1 00:00:00 "), "2027-01-01T00:00:00.000000Z");
        time.set_reference(at("2027-12-31T23:59:58Z"));
        let (at, _) = time.parse(b"Dec 31 23:59:59 ").unwrap();
        assert_eq!(at.to_string(), "2027-12-31T23:59:59.000000Z");
    }

    #[test]
    fn rfc_3339() {
        for (line, expected) in [
            ("2026-12-01T21:00:00.123456+01:00 host", "2026-12-01T20:00:00.123456Z"),
            ("2026-12-01T21:00:00-05:30 host", "2026-12-02T02:30:00Z"),
            ("2026-12-01T21:00:00Z host", "2026-12-01T21:00:00Z"),
            ("2024-02-29T23:59:60.1234567891Z host", "2024-03-01T00:00:00.123456Z"),
        ] {
            assert_eq!(
                read("UTC", "2020-01-01T00:00:00Z", line).as_deref(),
                Some(expected),
                "{line}"
            );
        }
        for wrong in [
            "2026-02-29T21:00:00Z host",
            "2026-12-01T24:00:00Z host",
            "2026-12-01T21:00:00 host",
            "2026-12-01 21:00:00Z host",
            "2026-12-01T21:00:00+0100 host",
            "1969-12-01T21:00:00Z host",
            "Dec 32 21:00:00 host",
            "Dec  1 25:00:00 host",
            "dec  1 21:00:00 host",
            "Dec 1 21:00:00 host",
            "Dec  1 21:00:00",
        ] {
            assert_eq!(read("UTC", "2026-12-01T21:00:05Z", wrong), None, "{wrong}");
        }
    }
}
