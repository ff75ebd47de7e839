//! Netstrings: `<length>:<octets>,` (D. J. Bernstein, 1997).

/// The most digits of a length.
const MAX_DIGITS: usize = 6;

/// The start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netstring<'a> {
    /// More bytes are needed.
    Incomplete,
    /// No netstring begins like this, or its content exceeds the limit. The stream cannot be read any further.
    Malformed,
    /// A netstring of `length` bytes, the frame included.
    Complete { content: &'a [u8], length: usize },
}

impl<'a> Netstring<'a> {
    /// `limit` is that of the content, in bytes, and at most 999,999.
    pub fn parse(bytes: &'a [u8], limit: usize) -> Self {
        let digits = bytes.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        let (number, rest) = bytes.split_at(digits);
        let starts_with_zero = number.starts_with(b"0") && digits > 1;
        if digits > MAX_DIGITS || starts_with_zero {
            return Self::Malformed;
        }
        let Some((separator, rest)) = rest.split_first() else { return Self::Incomplete };
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        let Some(size) = number.filter(|size| *separator == b':' && *size <= limit) else {
            return Self::Malformed;
        };
        match rest.split_at_checked(size).map(|(content, end)| (content, end.first())) {
            None | Some((_, None)) => Self::Incomplete,
            Some((content, Some(b','))) => {
                Self::Complete { content, length: digits + 1 + size + 1 }
            }
            Some((_, Some(_))) => Self::Malformed,
        }
    }

    /// Appends `content` as a netstring.
    pub fn append(out: &mut Vec<u8>, content: &[u8]) {
        out.extend_from_slice(content.len().to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(content);
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100_000;

    #[test]
    fn every_prefix_is_incomplete() {
        let whole = b"12:hello world!,";
        for cut in 0..whole.len() {
            assert_eq!(Netstring::parse(&whole[..cut], LIMIT), Netstring::Incomplete, "{cut}");
        }
        let expected = Netstring::Complete { content: b"hello world!", length: whole.len() };
        assert_eq!(Netstring::parse(whole, LIMIT), expected);
        assert_eq!(
            Netstring::parse(b"0:,7:", LIMIT),
            Netstring::Complete { content: b"", length: 3 }
        );
    }

    #[test]
    fn what_cannot_become_a_netstring_is_malformed() {
        for bytes in [
            &b"x"[..],
            b":,",
            b"-1:",
            b"01:a,",
            b"3:abcd",
            b"3;abc,",
            b"1000000",
            b"100001:",
            b" 1:a,",
        ] {
            assert_eq!(Netstring::parse(bytes, LIMIT), Netstring::Malformed, "{bytes:?}");
        }
        assert_eq!(Netstring::parse(b"100000:", LIMIT), Netstring::Incomplete);
    }

    #[test]
    fn content_survives_the_frame() {
        for content in [&b""[..], b"a,b:c", &[b'x'; LIMIT]] {
            let mut out = Vec::new();
            Netstring::append(&mut out, content);
            assert_eq!(
                Netstring::parse(&out, LIMIT),
                Netstring::Complete { content, length: out.len() }
            );
        }
    }
}
