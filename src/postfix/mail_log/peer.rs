//! Servers in log lines: `mx.example.com[192.0.2.1]:25`, `mx.example.com[2001:db8::1]`.

use std::net::{IpAddr, SocketAddr};

use crate::policy::facts::DomainName;

/// The port where the line has none: `host HOST[ADDRESS] said: …`.
const SMTP: u16 = 25;
/// RFC 1035 §2.3.4, with a final dot.
const MAX_NAME: usize = 255;

/// A server as Postfix names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoggedPeer<'a> {
    name: &'a str,
    pub(super) address: SocketAddr,
}

/// What stands in a line in place of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerText<'a> {
    Server(LoggedPeer<'a>),
    /// `host[/path]` or `host[private/service]`: a Unix socket.
    UnixSocket,
}

impl<'a> PeerText<'a> {
    /// Reads a server at the beginning of `text`; returns it and the text behind it. `None` if none is there.
    ///
    /// The name has neither a bracket nor white space, since Postfix accepts only host names from DNS (`valid_hostname()`),
    /// and the name of an address literal is the address.
    pub(super) fn parse(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let open = text.iter().take(MAX_NAME + 1).position(|&byte| byte == b'[')?;
        let (name, rest) = text.split_at_checked(open)?;
        let rest = rest.get(1..)?;
        if name.iter().any(|byte| byte.is_ascii_whitespace() || !byte.is_ascii_graphic()) {
            return None;
        }
        let close = memchr::memchr(b']', rest)?;
        let (address, rest) = rest.split_at_checked(close)?;
        let mut rest = rest.get(1..)?;
        let address = std::str::from_utf8(address).ok()?;
        // A link-local address has its interface behind `%`.
        let plain = address.split('%').next()?;
        let Ok(ip) = plain.parse::<IpAddr>() else {
            return address.contains('/').then_some((Self::UnixSocket, rest));
        };
        let mut port = SMTP;
        if let Some(after) = rest.strip_prefix(b":") {
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if let Some(number) = after.get(..digits).filter(|digits| !digits.is_empty()) {
                port = std::str::from_utf8(number).ok()?.parse().ok()?;
                rest = after.get(digits..)?;
            }
        }
        let address = SocketAddr::new(ip.to_canonical(), port);
        let name = std::str::from_utf8(name).ok()?;
        Some((Self::Server(LoggedPeer { name, address }), rest))
    }
}

impl LoggedPeer<'_> {
    /// `None` for `unknown` and for an address literal.
    pub(super) fn host(&self) -> Option<DomainName> {
        if self.name == "unknown" {
            return None;
        }
        DomainName::parse(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_ports() {
        for (text, name, address, rest) in [
            ("mx.example[192.0.2.1]:25: x", "mx.example", "192.0.2.1:25", ": x"),
            ("mx.example[2001:db8::1]:2525, y", "mx.example", "[2001:db8::1]:2525", ", y"),
            ("mx.example[2001:db8::1] said: z", "mx.example", "[2001:db8::1]:25", " said: z"),
            ("2001:db8::1[2001:db8::1]:25", "2001:db8::1", "[2001:db8::1]:25", ""),
            ("unknown[fe80::1%eth0]:25", "unknown", "[fe80::1]:25", ""),
            ("mx_1-a.example[::ffff:192.0.2.1]:25", "mx_1-a.example", "192.0.2.1:25", ""),
            ("mx.example[192.0.2.1]: a", "mx.example", "192.0.2.1:25", ": a"),
        ] {
            let (found, behind) = PeerText::parse(text.as_bytes()).unwrap();
            let address = address.parse().unwrap();
            assert_eq!(found, PeerText::Server(LoggedPeer { name, address }), "{text}");
            assert_eq!(behind, rest.as_bytes(), "{text}");
        }
        let socket = PeerText::parse(b"mail.example[private/lmtp] said: x");
        assert_eq!(socket, Some((PeerText::UnixSocket, &b" said: x"[..])));
        for none in
            ["none", "a b[192.0.2.1]", "a[", "a[]", "a[192.0.2.1", "a[x]", "a[192.0.2.1]:99999"]
        {
            assert_eq!(PeerText::parse(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_literal_is_no_host_name() {
        let host = |text: &'static str| match PeerText::parse(text.as_bytes()).unwrap().0 {
            PeerText::Server(peer) => peer.host(),
            PeerText::UnixSocket => None,
        };
        assert_eq!(host("MX.example[192.0.2.1]:25"), DomainName::parse("mx.example"));
        assert_eq!(host("unknown[192.0.2.1]:25"), None);
        assert_eq!(host("192.0.2.1[192.0.2.1]:25"), None);
        assert_eq!(host("2001:db8::1[2001:db8::1]:25"), None);
    }
}
