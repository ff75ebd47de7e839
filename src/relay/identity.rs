//! Who the client is: read from a trusted peer's PROXY header, told to upstream in one of ours.
//!
//! PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt). A header is mandatory from trusted peers and junk
//! from all others, never guessed. XCLIENT is part of the dialogue and so the engine's.

use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};

use crate::addr::{ClientAddr, OriginalDst};

/// More than any sender's header needs: version 1 takes 107 octets, version 2 addresses and a few TLVs.
pub(super) const MAX_HEADER: usize = 4096;

/// proxy-protocol.txt §2.1: a version 1 line with its CRLF.
const MAX_V1: usize = 107;

/// What stands at the start of a trusted peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Incomplete,
    Invalid,
    /// `len` octets; no addresses means that the peer speaks for itself (LOCAL, UNKNOWN).
    Complete {
        len: usize,
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

impl Header {
    pub(super) fn parse(input: &[u8]) -> Self {
        // The crate takes some beginnings of a version 1 header for wrong ones; its line end tells when it is whole.
        let is_v1 = input.starts_with(b"P");
        if is_v1 && !input.iter().take(MAX_V1).any(|&b| b == b'\n') {
            let may_become =
                input.len() < MAX_V1 && b"PROXY ".iter().zip(input).all(|(a, b)| a == b);
            return if may_become { Self::Incomplete } else { Self::Invalid };
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

/// Our own header, version 1 or 2. Both addresses are of the client's family: where the destination's is another, the
/// unspecified address stands for it, since mixed families cannot be said.
pub(super) fn header(version: u8, client: ClientAddr, destination: OriginalDst) -> Vec<u8> {
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
    // Fails only for more than 64 KiB of TLVs, and there are none.
    built.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(version: u8, client: &str, destination: &str) -> Vec<u8> {
        header(
            version,
            ClientAddr::new(client.parse().unwrap()),
            OriginalDst::new(destination.parse().unwrap()),
        )
    }

    #[test]
    fn version_1_as_the_protocol_writes_it() {
        assert_eq!(
            ours(1, "192.0.2.1:4000", "192.0.2.25:25"),
            b"PROXY TCP4 192.0.2.1 192.0.2.25 4000 25\r\n"
        );
        assert_eq!(
            ours(1, "[2001:db8::1]:4000", "[2001:db8::25]:25"),
            b"PROXY TCP6 2001:db8::1 2001:db8::25 4000 25\r\n"
        );
    }

    #[test]
    fn what_we_write_we_read_and_every_part_of_it_is_incomplete() {
        for (client, destination) in
            [("192.0.2.1:4000", "192.0.2.25:25"), ("[2001:db8::1]:4000", "[2001:db8::25]:25")]
        {
            for version in [1, 2] {
                let header = ours(version, client, destination);
                let addresses = Some((client.parse().unwrap(), destination.parse().unwrap()));
                let mut with_more = header.clone();
                with_more.extend_from_slice(b"EHLO a\r\n");
                assert_eq!(
                    Header::parse(&with_more),
                    Header::Complete { len: header.len(), addresses }
                );
                for cut in 0..header.len() {
                    assert_eq!(
                        Header::parse(&header[..cut]),
                        Header::Incomplete,
                        "{version} {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn mixed_families_are_never_said() {
        let header = ours(1, "[2001:db8::1]:4000", "192.0.2.25:25");
        assert_eq!(header, b"PROXY TCP6 2001:db8::1 :: 4000 25\r\n");
    }

    #[test]
    fn local_and_unknown_speak_for_themselves() {
        let complete = |input: &[u8]| match Header::parse(input) {
            Header::Complete { len, addresses: None } => len,
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
            assert_eq!(Header::parse(wrong), Header::Invalid, "{wrong:?}");
        }
    }
}
