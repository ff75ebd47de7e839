//! IPv4 and IPv6 headers, and the extension headers between them and the transport.
//!
//! RFC 791, RFC 8200, RFC 4302 (AH), RFC 2675 (jumbograms).

use std::net::IpAddr;

use etherparse::err::{LenError, ip_auth, ipv4, ipv6};
use etherparse::{
    IpAuthHeaderSlice, IpFragOffset, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, ip_number,
};

use super::DecodeError;
use super::slice::CapturedSlice;

/// An IP packet, parsed up to its transport header.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpPacket<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// Protocol at the start of `body`.
    pub(super) protocol: IpNumber,
    pub(super) body: CapturedSlice<'a>,
    /// Set if `body` is one fragment of the payload.
    pub(super) fragment: Option<Fragment>,
}

/// Position of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    pub(super) offset: IpFragOffset,
    pub(super) more: bool,
}

/// Source of the payload's length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LengthSource {
    /// The header field; if it is 0, as in captures before segmentation offload, all captured bytes.
    Header,
    /// All captured bytes. An ICMP error quotes less than the header claims, and some routers alter that field.
    Capture,
}

impl<'a> IpPacket<'a> {
    pub(super) fn parse(packet: CapturedSlice<'a>) -> Result<Self, DecodeError> {
        Self::by_version(packet, LengthSource::Header)
    }

    /// Parses the packet quoted by an ICMP error.
    pub(super) fn parse_quoted(packet: CapturedSlice<'a>) -> Result<Self, DecodeError> {
        Self::by_version(packet, LengthSource::Capture)
    }

    fn by_version(packet: CapturedSlice<'a>, length: LengthSource) -> Result<Self, DecodeError> {
        match packet.bytes().first().ok_or_else(|| packet.too_short_for(1))? >> 4 {
            4 => Self::v4(packet, length),
            6 => Self::v6(packet, length),
            _ => Err(DecodeError::InvalidHeader),
        }
    }

    fn v4(packet: CapturedSlice<'a>, length: LengthSource) -> Result<Self, DecodeError> {
        let header = Ipv4HeaderSlice::from_slice(packet.bytes()).map_err(|error| match error {
            ipv4::HeaderSliceError::Len(error) => too_short(packet, &error),
            ipv4::HeaderSliceError::Content(_) => DecodeError::InvalidHeader,
        })?;
        let header_len = header.slice().len();
        let body = packet.after(header_len)?;
        let body = match usize::from(header.total_len()) {
            _ if length == LengthSource::Capture => body,
            0 => body,
            total => body.bounded(total.checked_sub(header_len).ok_or(DecodeError::InvalidHeader)?),
        };
        let ip = Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            protocol: header.protocol(),
            body,
            fragment: header.is_fragmenting_payload().then(|| Fragment {
                id: header.identification().into(),
                offset: header.fragments_offset(),
                more: header.more_fragments(),
            }),
        };
        if ip.fragment.is_some() { Ok(ip) } else { ip.skip_extensions() }
    }

    fn v6(packet: CapturedSlice<'a>, length: LengthSource) -> Result<Self, DecodeError> {
        let header = Ipv6HeaderSlice::from_slice(packet.bytes()).map_err(|error| match error {
            ipv6::HeaderSliceError::Len(error) => too_short(packet, &error),
            ipv6::HeaderSliceError::Content(_) => DecodeError::InvalidHeader,
        })?;
        let mut body = packet.after(header.slice().len())?;
        let mut protocol = header.next_header();
        match usize::from(header.payload_length()) {
            _ if length == LengthSource::Capture => {}
            0 => {}
            len => body = body.bounded(len),
        }
        // Valid only directly after the IPv6 header (RFC 8200 §4.1), so it is not part of the chain below.
        if protocol == ip_number::IPV6_HOP_BY_HOP {
            let options = raw_extension(body)?;
            if header.payload_length() == 0
                && length == LengthSource::Header
                && let Some(len) = jumbo_length(options.payload())
            {
                body = body.bounded(len);
            }
            body = body.after(options.slice().len())?;
            protocol = options.next_header();
        }
        let (src, dst) = (header.source_addr().into(), header.destination_addr().into());
        Self { src, dst, protocol, body, fragment: None }.skip_extensions()
    }

    /// The reassembled packet, of which `self` was the last fragment to arrive; `protocol` is from the first one.
    pub(super) fn reassembled(
        self,
        protocol: IpNumber,
        payload: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let body = CapturedSlice::new(payload, payload.len());
        let ip = Self { protocol, body, fragment: None, ..self }.skip_extensions()?;
        if ip.fragment.is_some() { Err(DecodeError::InvalidHeader) } else { Ok(ip) }
    }

    /// Skips to the transport header, or to the payload of a fragment, which can be parsed only after reassembly.
    fn skip_extensions(mut self) -> Result<Self, DecodeError> {
        loop {
            let (len, next) = match (self.protocol, self.src) {
                (ip_number::AUTH, _) => {
                    let header =
                        IpAuthHeaderSlice::from_slice(self.body.bytes()).map_err(|error| {
                            match error {
                                ip_auth::HeaderSliceError::Len(error) => {
                                    too_short(self.body, &error)
                                }
                                ip_auth::HeaderSliceError::Content(_) => DecodeError::InvalidHeader,
                            }
                        })?;
                    (header.slice().len(), header.next_header())
                }
                (ip_number::IPV6_DEST_OPTIONS | ip_number::IPV6_ROUTE, IpAddr::V6(_)) => {
                    let header = raw_extension(self.body)?;
                    (header.slice().len(), header.next_header())
                }
                (ip_number::IPV6_FRAG, IpAddr::V6(_)) => {
                    let header = Ipv6FragmentHeaderSlice::from_slice(self.body.bytes())
                        .map_err(|error| too_short(self.body, &error))?;
                    // An atomic fragment (RFC 6946) is a complete packet.
                    self.fragment = header.is_fragmenting_payload().then(|| Fragment {
                        id: header.identification(),
                        offset: header.fragment_offset(),
                        more: header.more_fragments(),
                    });
                    (header.slice().len(), header.next_header())
                }
                (ip_number::IPV6_HOP_BY_HOP, IpAddr::V6(_)) => {
                    return Err(DecodeError::InvalidHeader);
                }
                _ => return Ok(self),
            };
            self.body = self.body.after(len)?;
            self.protocol = next;
            if self.fragment.is_some() {
                return Ok(self);
            }
        }
    }
}

fn raw_extension(body: CapturedSlice<'_>) -> Result<Ipv6RawExtHeaderSlice<'_>, DecodeError> {
    Ipv6RawExtHeaderSlice::from_slice(body.bytes()).map_err(|error| too_short(body, &error))
}

fn too_short(part: CapturedSlice<'_>, error: &LenError) -> DecodeError {
    part.too_short_for(error.required_len)
}

/// The jumbo payload option (RFC 2675 §2) among hop-by-hop options: payload length after the IPv6 header.
fn jumbo_length(mut options: &[u8]) -> Option<usize> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [0xc2, 4, a, b, c, d, ..] => {
                return usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok();
            }
            [_, len, rest @ ..] => options = rest.get(usize::from(*len)..)?,
            _ => return None,
        }
    }
}
