//! Sizes in bytes, on the command line and in the configuration file.

use std::ops::RangeInclusive;

/// Bytes of the capture buffer of all interfaces together.
pub const WATCH_BUFFER: RangeInclusive<usize> = 64 << 10..=4 << 30;

/// A number of bytes, with K, M or G for powers of 1024.
pub fn parse_size(text: &str) -> Option<usize> {
    let (digits, power) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 20),
            None => text.strip_suffix(['G', 'g']).map_or((text, 0), |digits| (digits, 30)),
        },
    };
    let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse::<usize>().ok()?.checked_mul(1 << power)
}
