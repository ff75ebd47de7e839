//! PROXY headers: parses those of trusted peers, and encodes ours for upstream.
//!
//! PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt). A header is mandatory from trusted peers and junk
//! from all others; it is never detected (rule 9 of ARCHITECTURE.md). XCLIENT is part of the SMTP dialogue and belongs to the engine.

use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};

use crate::addr::{ClientAddr, OriginalDst};

/// Longest header that is accepted, in bytes. Version 1 needs 107, version 2 the addresses and a few TLVs.
pub(super) const MAX_HEADER: usize = 4096;

/// proxy-protocol.txt §2.1: a version 1 line with its CRLF.
const MAX_V1: usize = 107;

/// The header at the start of a trusted peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    Incomplete,
    Invalid,
    /// `len` bytes. Without addresses (LOCAL, UNKNOWN) the peer itself is the client.
    Complete {
        len: usize,
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

impl ProxyHeader {
    pub(super) fn parse(input: &[u8]) -> Self {
        // The crate rejects some incomplete version 1 headers as invalid: parse only with a line end.
        let is_v1 = input.starts_with(b"P");
        if is_v1 && !input.iter().take(MAX_V1).any(|&b| b == b'\n') {
            let is_prefix =
                input.len() < MAX_V1 && b"PROXY ".iter().zip(input).all(|(a, b)| a == b);
            return if is_prefix { Self::Incomplete } else { Self::Invalid };
        }
        let result = HeaderResult::parse(input);
        if result.is_incomplete() && !is_v1 {
            return if input.len() < MAX_HEADER { Self::Incomplete } else { Self::Invalid };
        }
        match result {
            HeaderResult::V1(Ok(header)) => Self::Complete {
                len: header.header.len(),
                addresses: match header.addresses {
                    v1::Addresses::Tcp4(a) => Some((
                        (a.source_address, a.source_port).into(),
                        (a.destination_address, a.destination_port).into(),
                    )),
                    v1::Addresses::Tcp6(a) => Some((
                        (a.source_address, a.source_port).into(),
                        (a.destination_address, a.destination_port).into(),
                    )),
                    v1::Addresses::Unknown => None,
                },
            },
            HeaderResult::V2(Ok(header)) => Self::Complete {
                len: header.len(),
                addresses: match (header.command, header.addresses) {
                    (v2::Command::Local, _) => None,
                    (v2::Command::Proxy, v2::Addresses::IPv4(a)) => Some((
                        (a.source_address, a.source_port).into(),
                        (a.destination_address, a.destination_port).into(),
                    )),
                    (v2::Command::Proxy, v2::Addresses::IPv6(a)) => Some((
                        (a.source_address, a.source_port).into(),
                        (a.destination_address, a.destination_port).into(),
                    )),
                    (v2::Command::Proxy, _) => None,
                },
            },
            HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Self::Invalid,
        }
    }
}

/// Encodes our header, version 1 or 2. Mixed families cannot be expressed: a destination of the other family is replaced by
/// the unspecified address of the client's family.
pub(super) fn encode(version: u8, client: ClientAddr, destination: OriginalDst) -> Vec<u8> {
    let source = client.socket();
    let destination = match (source, destination.socket()) {
        (SocketAddr::V4(_), to @ SocketAddr::V4(_))
        | (SocketAddr::V6(_), to @ SocketAddr::V6(_)) => to,
        (SocketAddr::V4(_), to) => SocketAddr::from(([0, 0, 0, 0], to.port())),
        (SocketAddr::V6(_), to) => SocketAddr::from(([0u16; 8], to.port())),
    };
    if version == 1 {
        return v1::Addresses::from((source, destination)).to_string().into_bytes();
    }
    let command = v2::Version::Two | v2::Command::Proxy;
    let built =
        v2::Builder::with_addresses(command, v2::Protocol::Stream, (source, destination)).build();
    // Fails only with more than 64 KiB of TLVs; there are none.
    built.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(version: u8, client: &str, destination: &str) -> Vec<u8> {
        encode(
            version,
            ClientAddr::new(client.parse().unwrap()),
            OriginalDst::new(destination.parse().unwrap()),
        )
    }

    #[test]
    fn version_1_matches_the_specification() {
        assert_eq!(
            encoded(1, "192.0.2.1:4000", "192.0.2.25:25"),
            b"PROXY TCP4 192.0.2.1 192.0.2.25 4000 25\r\n"
        );
        assert_eq!(
            encoded(1, "[2001:db8::1]:4000", "[2001:db8::25]:25"),
            b"PROXY TCP6 2001:db8::1 2001:db8::25 4000 25\r\n"
        );
    }

    #[test]
    fn every_proper_prefix_of_a_header_is_incomplete() {
        for (client, destination) in
            [("192.0.2.1:4000", "192.0.2.25:25"), ("[2001:db8::1]:4000", "[2001:db8::25]:25")]
        {
            for version in [1, 2] {
                let header = encoded(version, client, destination);
                let addresses = Some((client.parse().unwrap(), destination.parse().unwrap()));
                let mut with_more = header.clone();
                with_more.extend_from_slice(b"EHLO a\r\n");
                assert_eq!(
                    ProxyHeader::parse(&with_more),
                    ProxyHeader::Complete { len: header.len(), addresses }
                );
                for cut in 0..header.len() {
                    assert_eq!(
                        ProxyHeader::parse(&header[..cut]),
                        ProxyHeader::Incomplete,
                        "{version} {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_destination_of_the_other_family_is_unspecified() {
        let header = encoded(1, "[2001:db8::1]:4000", "192.0.2.25:25");
        assert_eq!(header, b"PROXY TCP6 2001:db8::1 :: 4000 25\r\n");
    }

    #[test]
    fn local_and_unknown_have_no_addresses() {
        let complete = |input: &[u8]| match ProxyHeader::parse(input) {
            ProxyHeader::Complete { len, addresses: None } => len,
            other => panic!("{other:?}"),
        };
        assert_eq!(complete(b"PROXY UNKNOWN\r\nEHLO"), 15);
        assert_eq!(complete(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00EHLO"), 16);
    }

    #[test]
    fn smtp_and_overlong_headers_are_invalid() {
        for wrong in [
            &b"EHLO mx.example\r\n"[..],
            b"PROXY TCP9 x\r\n",
            &[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(),
        ] {
            assert_eq!(ProxyHeader::parse(wrong), ProxyHeader::Invalid, "{wrong:?}");
        }
    }
}
