//! Enhanced status codes (RFC 2034, RFC 3463): `5.7.1` and its like at the head of a reply's text.

use std::fmt;

use serde::{Serialize, Serializer};

/// `class.subject.detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedCode {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

impl EnhancedCode {
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Reads a code at the start of a reply's text, if there is one: `2.1.5 Ok`. RFC 3463 §2: class 2, 4 or 5, and one to
    /// three digits for the others.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let word = text.split(|&b| b == b' ').next()?;
        let mut parts = word.split(|&b| b == b'.');
        let class = number(parts.next()?)?;
        let subject = number(parts.next()?)?;
        let detail = number(parts.next()?)?;
        let class = u8::try_from(class).ok()?;
        (parts.next().is_none() && matches!(class, 2 | 4 | 5)).then_some(Self {
            class,
            subject,
            detail,
        })
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    digits.iter().try_fold(0u16, |n, &b| b.is_ascii_digit().then(|| n * 10 + u16::from(b - b'0')))
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl Serialize for EnhancedCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_codes_and_nothing_else() {
        assert_eq!(EnhancedCode::parse(b"2.1.5 Ok"), Some(EnhancedCode::new(2, 1, 5)));
        assert_eq!(EnhancedCode::parse(b"5.7.25"), Some(EnhancedCode::new(5, 7, 25)));
        for not in ["", "Ok", "3.1.5 x", "2.1 x", "2.1.5.6 x", "2.1.1234 x", "2..5 x", "2.1.5: x"] {
            assert_eq!(EnhancedCode::parse(not.as_bytes()), None, "{not}");
        }
    }
}
