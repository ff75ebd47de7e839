//! Requests and answers, the contents of netstrings (socketmap_table(5), "PROTOCOL").

use super::netstring::Netstring;

/// `<map> <key>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRequest<'a> {
    /// The last part of Postfix's `socketmap:unix:path:map`.
    pub map: &'a str,
    pub key: &'a str,
}

impl<'a> MapRequest<'a> {
    /// `None` without a map and a key, or for other text than UTF-8.
    pub fn parse(content: &'a [u8]) -> Option<Self> {
        let (map, key) = std::str::from_utf8(content).ok()?.split_once(' ')?;
        (!map.is_empty() && !key.is_empty()).then_some(Self { map, key })
    }
}

/// The answer to a request. Those with a reason defer the mail that it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapAnswer {
    /// The value of the key.
    Ok(String),
    /// The map has no such key.
    NotFound,
    Temp(String),
    Timeout(String),
    Perm(String),
}

impl MapAnswer {
    /// The value for which Postfix omits a resource record (`smtp_dns_reply_filter`).
    pub const IGNORE: &'static str = "IGNORE";

    /// As a netstring.
    pub fn encode(&self) -> Vec<u8> {
        let content = match self {
            Self::Ok(value) => format!("OK {value}"),
            Self::NotFound => "NOTFOUND ".to_owned(),
            Self::Temp(reason) => format!("TEMP {reason}"),
            Self::Timeout(reason) => format!("TIMEOUT {reason}"),
            Self::Perm(reason) => format!("PERM {reason}"),
        };
        let mut out = Vec::with_capacity(content.len() + 8);
        Netstring::append(&mut out, content.as_bytes());
        out
    }

    /// `None` for anything else than an answer.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let (status, rest) = std::str::from_utf8(content).ok()?.split_once(' ')?;
        let rest = rest.to_owned();
        match status {
            "OK" => Some(Self::Ok(rest)),
            "NOTFOUND" => Some(Self::NotFound),
            "TEMP" => Some(Self::Temp(rest)),
            "TIMEOUT" => Some(Self::Timeout(rest)),
            "PERM" => Some(Self::Perm(rest)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_have_spaces() {
        let request = MapRequest::parse(b"dns a. 60 IN A 192.0.2.1").unwrap();
        assert_eq!((request.map, request.key), ("dns", "a. 60 IN A 192.0.2.1"));
        for content in [&b""[..], b"dns", b"dns ", b" key", b"dns \xff"] {
            assert_eq!(MapRequest::parse(content), None, "{content:?}");
        }
    }

    #[test]
    fn answers_are_those_of_postfix() {
        for (answer, bytes) in [
            (MapAnswer::Ok("IGNORE".to_owned()), &b"9:OK IGNORE,"[..]),
            (MapAnswer::NotFound, b"9:NOTFOUND ,"),
            (MapAnswer::Temp("down".to_owned()), b"9:TEMP down,"),
            (MapAnswer::Timeout("slow".to_owned()), b"12:TIMEOUT slow,"),
            (MapAnswer::Perm("no map".to_owned()), b"11:PERM no map,"),
        ] {
            assert_eq!(answer.encode(), bytes);
            let Netstring::Complete { content, .. } = Netstring::parse(bytes, 100) else {
                panic!()
            };
            assert_eq!(MapAnswer::parse(content), Some(answer));
        }
        for content in [&b""[..], b"OK", b"NOTFOUND", b"ok IGNORE", b"MAYBE x", b"OK \xff"] {
            assert_eq!(MapAnswer::parse(content), None, "{content:?}");
        }
    }
}
