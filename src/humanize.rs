//! Numbers, durations and times as text for people.
//!
//! Layer 0. A number and its unit have a space between them: `250 ms`, `3 h 20 min`. Times are UTC.

use std::time::Duration;

use crate::addr::Family;
use crate::time::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A Julian year, as humantime parses `1y`.
const YEAR: u64 = 31_557_600;

/// `12,345`
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 session`, `2,000 sessions`
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `IPv4`, `IPv6`; the label is [`Family::as_str`].
pub const fn family(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

/// For a sentence: `250 ms`, `1.5 s`, `40 s`, `1 min 30 s`, `12 min`, `3 h 20 min`, `17 h`, `2 d 4 h`. The second unit, or
/// a tenth of a second, follows only a single digit; smaller parts are cut.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, name, next, next_name) = match seconds {
        0 => return below_a_second(duration),
        1..10 if duration.subsec_millis() >= 100 => return with_tenth(duration),
        1..MINUTE => return format!("{seconds} s"),
        MINUTE..HOUR => (MINUTE, "min", 1, "s"),
        HOUR..DAY => (HOUR, "h", MINUTE, "min"),
        _ => (DAY, "d", HOUR, "h"),
    };
    match (seconds / unit, seconds % unit / next) {
        (whole @ 0..10, rest @ 1..) => format!("{whole} {name} {rest} {next_name}"),
        (whole, _) => format!("{whole} {name}"),
    }
}

/// For a column of a table: one unit, at most six characters; smaller parts are cut.
pub fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => below_a_second(duration),
        1..MINUTE => with_tenth(duration),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..360_000 => format!("{}.{} h", seconds / HOUR, seconds % HOUR / 360),
        360_000..864_000_000 => format!("{} d", seconds / DAY),
        _ => format!("{} y", seconds / YEAR),
    }
}

/// `12 min ago`; fractions of a second are left out, so that a page drawn every second does not flicker.
pub fn ago(since: Duration) -> String {
    match since.as_secs() {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", duration(Duration::from_secs(seconds))),
    }
}

fn below_a_second(duration: Duration) -> String {
    let (millis, micros) = (duration.subsec_millis(), duration.subsec_micros());
    match micros {
        0 => "0 s".to_owned(),
        1..1000 => format!("{micros} µs"),
        1000..10_000 => format!("{millis}.{} ms", micros % 1000 / 100),
        _ => format!("{millis} ms"),
    }
}

fn with_tenth(duration: Duration) -> String {
    format!("{}.{} s", duration.as_secs(), duration.subsec_millis() / 100)
}

/// `2026-01-02`
pub fn date(at: Timestamp) -> String {
    part(at, 0, 10)
}

/// `03:04:05`
pub fn clock(at: Timestamp) -> String {
    part(at, 11, 8)
}

/// `03:04:05.678`
pub fn clock_millis(at: Timestamp) -> String {
    part(at, 11, 12)
}

/// `2026-01-02 03:04:05`
pub fn date_time(at: Timestamp) -> String {
    format!("{} {}", date(at), clock(at))
}

/// Of `2026-01-02T03:04:05.678901Z`.
fn part(at: Timestamp, start: usize, length: usize) -> String {
    at.to_string().chars().skip(start).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
        assert_eq!(counted(1, "gap"), "1 gap");
        assert_eq!(counted(2000, "gap"), "2,000 gaps");
    }

    #[test]
    fn durations_in_a_sentence() {
        for (millis, expected) in [
            (0, "0 s"),
            (250, "250 ms"),
            (1_500, "1.5 s"),
            (9_050, "9 s"),
            (31_900, "31 s"),
            (60_000, "1 min"),
            (90_000, "1 min 30 s"),
            (754_000, "12 min"),
            (3_600_000, "1 h"),
            (12_000_000, "3 h 20 min"),
            (63_000_000, "17 h"),
            (86_400_000, "1 d"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
        assert_eq!(ago(Duration::from_millis(999)), "just now");
        assert_eq!(ago(Duration::from_millis(1_500)), "1 s ago");
    }

    #[test]
    fn short_durations_fit_six_columns() {
        for (nanos, expected) in [
            (0, "0 s"),
            (999, "0 s"),
            (999_999, "999 µs"),
            (1_100_000, "1.1 ms"),
            (999_999_999, "999 ms"),
            (59_999_999_999, "59.9 s"),
            (3_599_000_000_000, "59 min"),
            (86_400_000_000_000, "24.0 h"),
            (u64::MAX, "584 y"),
        ] {
            assert_eq!(short_duration(Duration::from_nanos(nanos)), expected);
        }
        for digits in 0..20 {
            let text = short_duration(Duration::from_nanos(u64::MAX / 10u64.pow(digits)));
            assert!(text.chars().count() <= 6, "{text}");
        }
    }

    #[test]
    fn times() {
        let at = Timestamp::from_nanos(1_767_323_045_678_901_234);
        assert_eq!(date_time(at), "2026-01-02 03:04:05");
        assert_eq!(clock_millis(at), "03:04:05.678");
    }
}
