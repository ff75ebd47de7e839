//! PROXY headers: parses those of trusted peers, and encodes ours for upstream.
//!
//! PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt). A header is mandatory from trusted peers and junk
//! from all others; it is never detected (rule 9 of ARCHITECTURE.md). XCLIENT is part of the SMTP dialogue and belongs to the engine.

use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};

use crate::addr::{ClientAddr, OriginalDst};
use crate::engine::ClientTlsFacts;

/// Longest header that is accepted, in bytes. Version 1 needs 107, version 2 the addresses and a few TLVs.
pub(super) const MAX_HEADER: usize = 4096;

/// proxy-protocol.txt §2.1: a version 1 line with its CRLF.
const MAX_V1: usize = 107;

/// The header at the start of a trusted peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    Incomplete,
    Invalid,
    /// `len` bytes.
    Complete {
        len: usize,
        sender: ProxySender,
    },
}

/// On whose behalf a trusted peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxySender {
    Client {
        source: SocketAddr,
        destination: SocketAddr,
    },
    /// LOCAL: its own, such as a health check.
    Peer,
    /// UNKNOWN, and PROXY for anything but TCP over IPv4 or IPv6: some client's, whose address it does not give. As Postfix does,
    /// the gateway rejects it: taken for the peer, or for the gateway, that client would pass every check of addresses.
    Unknown,
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
        if let Some(local) = Self::parse_local(input) {
            return local;
        }
        let result = HeaderResult::parse(input);
        if result.is_incomplete() && !is_v1 {
            return if input.len() < MAX_HEADER { Self::Incomplete } else { Self::Invalid };
        }
        match result {
            HeaderResult::V1(Ok(header)) => Self::Complete {
                len: header.header.len(),
                sender: match header.addresses {
                    v1::Addresses::Tcp4(a) => ProxySender::Client {
                        source: (a.source_address, a.source_port).into(),
                        destination: (a.destination_address, a.destination_port).into(),
                    },
                    v1::Addresses::Tcp6(a) => ProxySender::Client {
                        source: (a.source_address, a.source_port).into(),
                        destination: (a.destination_address, a.destination_port).into(),
                    },
                    v1::Addresses::Unknown => ProxySender::Unknown,
                },
            },
            HeaderResult::V2(Ok(header)) => Self::Complete {
                len: header.len(),
                sender: match (header.command, header.protocol, header.addresses) {
                    (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv4(a)) => {
                        ProxySender::Client {
                            source: (a.source_address, a.source_port).into(),
                            destination: (a.destination_address, a.destination_port).into(),
                        }
                    }
                    (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv6(a)) => {
                        ProxySender::Client {
                            source: (a.source_address, a.source_port).into(),
                            destination: (a.destination_address, a.destination_port).into(),
                        }
                    }
                    (v2::Command::Local, ..) => ProxySender::Peer,
                    (v2::Command::Proxy, ..) => ProxySender::Unknown,
                },
            },
            HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Self::Invalid,
        }
    }

    /// A header of version 2 with LOCAL, whose family and addresses are to be ignored (§2.2), also if they do not match.
    fn parse_local(input: &[u8]) -> Option<Self> {
        let rest = input.strip_prefix(v2::PROTOCOL_PREFIX)?;
        let (&[0x20, _family, high, low], rest) = rest.split_first_chunk::<4>()? else {
            return None;
        };
        let addresses = usize::from(u16::from_be_bytes([high, low]));
        let len = input.len() - rest.len() + addresses;
        Some(if len > MAX_HEADER {
            Self::Invalid
        } else if addresses > rest.len() {
            Self::Incomplete
        } else {
            Self::Complete { len, sender: ProxySender::Peer }
        })
    }
}

/// Our header for a connection of our own, from `own` to `upstream`. Version 1 cannot say so (Postfix rejects `UNKNOWN`): it has the
/// addresses of the connection, as the specification advises for health checks (§2.1).
pub(super) fn encode_own(version: u8, own: SocketAddr, upstream: SocketAddr) -> Vec<u8> {
    if version == 1 {
        return encode(1, ClientAddr::new(own), OriginalDst::new(upstream), None);
    }
    let command = v2::Version::Two | v2::Command::Local;
    let family = v2::AddressFamily::Unspecified | v2::Protocol::Unspecified;
    v2::Builder::new(command, family).build().unwrap_or_default()
}

/// Encodes our header, version 1 or 2. Mixed families cannot be expressed: a destination of the other family is replaced by
/// the unspecified address of the client's family. Version 2 also says with which TLS the client came (§2.2.6).
pub(super) fn encode(
    version: u8,
    client: ClientAddr,
    destination: OriginalDst,
    tls: Option<ClientTlsFacts<'_>>,
) -> Vec<u8> {
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
    let header = v2::Builder::with_addresses(command, v2::Protocol::Stream, (source, destination));
    let header = match tls {
        None => Ok(header),
        Some(tls) => header.write_tlv(v2::Type::SSL, &ssl_value(&tls)),
    };
    // Fails only with more than 64 KiB of TLVs; a common name has 64 characters at most.
    header.and_then(v2::Builder::build).unwrap_or_default()
}

/// The value of PP2_TYPE_SSL (§2.2.6). Certificates are only requested: one that does not verify says so.
fn ssl_value(tls: &ClientTlsFacts<'_>) -> Vec<u8> {
    const CLIENT_SSL: u8 = 1;
    /// On this connection, and in this session of TLS.
    const CLIENT_CERT: u8 = 2 | 4;

    let has_certificate = tls.certificate.is_some();
    let is_verified = tls.certificate.is_some_and(|certificate| certificate.verified);
    let mut value = vec![CLIENT_SSL | if has_certificate { CLIENT_CERT } else { 0 }];
    value.extend(u32::from(!is_verified).to_be_bytes());
    let name = tls.certificate.and_then(|certificate| certificate.common_name.as_deref());
    for (kind, text) in [
        (v2::Type::SSLVersion, tls.version),
        (v2::Type::SSLCommonName, name),
        (v2::Type::SSLCipher, tls.cipher_suite),
    ] {
        if let Some(text) = text
            && let Ok(length) = u16::try_from(text.len())
        {
            value.push(kind.into());
            value.extend(length.to_be_bytes());
            value.extend(text.as_bytes());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::ClientCertificate;

    fn encoded(version: u8, client: &str, destination: &str) -> Vec<u8> {
        encode(
            version,
            ClientAddr::new(client.parse().unwrap()),
            OriginalDst::new(destination.parse().unwrap()),
            None,
        )
    }

    /// The example of §2.2.6, with our values.
    #[test]
    fn version_2_says_how_the_client_came_by_tls() {
        let certificate = ClientCertificate {
            sha256: String::new(),
            public_key_sha256: String::new(),
            common_name: Some("mx.example".to_owned()),
            names: Vec::new(),
            verified: true,
        };
        let tls = ClientTlsFacts {
            version: Some("TLSv1.3"),
            cipher_suite: Some("TLS_AES_128_GCM_SHA256"),
            certificate: None,
        };
        let value = |tls: ClientTlsFacts<'_>| {
            let client = ClientAddr::new("192.0.2.1:4000".parse().unwrap());
            let destination = OriginalDst::new("192.0.2.25:465".parse().unwrap());
            let header = encode(2, client, destination, Some(tls));
            let parsed = v2::Header::try_from(header.as_slice()).unwrap();
            let tlvs: Vec<_> = parsed.tlvs().map(Result::unwrap).collect();
            assert_eq!(tlvs.len(), 1);
            assert_eq!(tlvs[0].kind, u8::from(v2::Type::SSL));
            tlvs[0].value.to_vec()
        };
        let version = b"\x21\x00\x07TLSv1.3";
        let cipher = b"\x23\x00\x16TLS_AES_128_GCM_SHA256";
        assert_eq!(value(tls), [&b"\x01\x00\x00\x00\x01"[..], version, cipher].concat());
        let tls = ClientTlsFacts { certificate: Some(&certificate), ..tls };
        let name = b"\x22\x00\x0amx.example";
        assert_eq!(value(tls), [&b"\x07\x00\x00\x00\x00"[..], version, name, cipher].concat());
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
                let (source, destination) = (client.parse().unwrap(), destination.parse().unwrap());
                let sender = ProxySender::Client { source, destination };
                let mut with_more = header.clone();
                with_more.extend_from_slice(b"EHLO a\r\n");
                assert_eq!(
                    ProxyHeader::parse(&with_more),
                    ProxyHeader::Complete { len: header.len(), sender }
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
    fn a_header_without_addresses_is_the_peers_own_or_of_an_unknown_client() {
        let complete = |input: &[u8]| match ProxyHeader::parse(input) {
            ProxyHeader::Complete { len, sender } => (len, sender),
            other => panic!("{other:?}"),
        };
        let v2 = |command_and_family: [u8; 2], addresses: &[u8]| {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            header.extend(command_and_family);
            header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
            header.extend(addresses);
            header
        };
        let unknown: [&[u8]; 8] = [
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n",
            &v2([0x21, 0x00], &[]),
            // UNSPEC with bytes to be ignored; UNIX, as a stream and as datagrams; UDP.
            &v2([0x21, 0x00], &[7; 12]),
            &v2([0x21, 0x31], &[b'/'; 216]),
            &v2([0x21, 0x32], &[b'/'; 216]),
            &v2([0x21, 0x12], &[192; 12]),
            &v2([0x21, 0x22], &[32; 36]),
        ];
        for header in unknown {
            let with_more = [header, b"EHLO a\r\n"].concat();
            let shown = header.escape_ascii();
            assert_eq!(complete(&with_more), (header.len(), ProxySender::Unknown), "{shown}");
        }
        for family in [0x00, 0x11, 0x21, 0x31] {
            for addresses in [&[][..], &[1; 3], &[1; 216]] {
                let header = v2([0x20, family], addresses);
                assert_eq!(complete(&header), (header.len(), ProxySender::Peer), "{family:x}");
            }
        }
    }

    #[test]
    fn the_header_of_an_own_connection_is_local() {
        let (own, upstream) = ("[::1]:4000".parse().unwrap(), "[::1]:10025".parse().unwrap());
        assert_eq!(encode_own(2, own, upstream), b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
        assert_eq!(encode_own(1, own, upstream), b"PROXY TCP6 ::1 ::1 4000 10025\r\n");
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
