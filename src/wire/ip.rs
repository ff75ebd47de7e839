//! IPv4 and IPv6 headers, and the extension headers between them and the transport.
//!
//! RFC 791, RFC 8200, RFC 4302 (AH), RFC 2675 (jumbograms).

use std::net::IpAddr;

use etherparse::err::{LenError, ip_auth, ipv4, ipv6};
use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, ip_number,
};

use super::DecodeError;
use super::defragment::Fragment;
use super::slice::CapturedSlice;

/// An IP packet, read up to its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// What `body` begins with.
    pub(super) protocol: IpNumber,
    pub(super) body: CapturedSlice<'a>,
    /// Where `body` belongs, if it is not the whole payload.
    pub(super) fragment: Option<Fragment>,
}

/// What tells how long the payload is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// The header; where it says 0, as in captures of packets that the network card is yet to divide, the rest.
    Header,
    /// The rest. An ICMP error quotes less than the header says, and some routers alter that field.
    Rest,
}

impl<'a> Ip<'a> {
    pub(super) fn read(packet: CapturedSlice<'a>) -> Result<Self, DecodeError> {
        Self::by_version(packet, Length::Header)
    }

    /// The packet that an ICMP error is about.
    pub(super) fn quoted(packet: CapturedSlice<'a>) -> Result<Self, DecodeError> {
        Self::by_version(packet, Length::Rest)
    }

    fn by_version(packet: CapturedSlice<'a>, length: Length) -> Result<Self, DecodeError> {
        match packet.bytes().first().ok_or_else(|| packet.lacks(1))? >> 4 {
            4 => Self::v4(packet, length),
            6 => Self::v6(packet, length),
            _ => Err(DecodeError::InvalidHeader),
        }
    }

    fn v4(packet: CapturedSlice<'a>, length: Length) -> Result<Self, DecodeError> {
        let header = Ipv4HeaderSlice::from_slice(packet.bytes()).map_err(|error| match error {
            ipv4::HeaderSliceError::Len(error) => lacks(packet, &error),
            ipv4::HeaderSliceError::Content(_) => DecodeError::InvalidHeader,
        })?;
        let header_len = header.slice().len();
        let body = packet.after(header_len)?;
        let body = match usize::from(header.total_len()) {
            _ if length == Length::Rest => body,
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
        if ip.fragment.is_some() { Ok(ip) } else { ip.past_extensions() }
    }

    fn v6(packet: CapturedSlice<'a>, length: Length) -> Result<Self, DecodeError> {
        let header = Ipv6HeaderSlice::from_slice(packet.bytes()).map_err(|error| match error {
            ipv6::HeaderSliceError::Len(error) => lacks(packet, &error),
            ipv6::HeaderSliceError::Content(_) => DecodeError::InvalidHeader,
        })?;
        let mut body = packet.after(header.slice().len())?;
        let mut protocol = header.next_header();
        match usize::from(header.payload_length()) {
            _ if length == Length::Rest => {}
            0 => {}
            len => body = body.bounded(len),
        }
        // Only here may this header stand, so it is no part of the chain below.
        if protocol == ip_number::IPV6_HOP_BY_HOP {
            let options = raw_extension(body)?;
            if header.payload_length() == 0
                && length == Length::Header
                && let Some(len) = jumbo_length(options.payload())
            {
                body = body.bounded(len);
            }
            body = body.after(options.slice().len())?;
            protocol = options.next_header();
        }
        let (src, dst) = (header.source_addr().into(), header.destination_addr().into());
        Self { src, dst, protocol, body, fragment: None }.past_extensions()
    }

    /// The packet of which this was the last fragment to come; `protocol` as its first fragment has it.
    pub(super) fn reassembled(
        self,
        protocol: IpNumber,
        whole: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let body = CapturedSlice::new(whole, whole.len());
        let ip = Self { protocol, body, fragment: None, ..self }.past_extensions()?;
        if ip.fragment.is_some() { Err(DecodeError::InvalidHeader) } else { Ok(ip) }
    }

    /// Up to the transport header, or to the payload of a fragment, which only the whole datagram tells how to read.
    fn past_extensions(mut self) -> Result<Self, DecodeError> {
        loop {
            let (len, next) = match (self.protocol, self.src) {
                (ip_number::AUTH, _) => {
                    let header =
                        IpAuthHeaderSlice::from_slice(self.body.bytes()).map_err(|error| {
                            match error {
                                ip_auth::HeaderSliceError::Len(error) => lacks(self.body, &error),
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
                        .map_err(|error| lacks(self.body, &error))?;
                    // An atomic fragment (RFC 6946) is a whole packet.
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
    Ipv6RawExtHeaderSlice::from_slice(body.bytes()).map_err(|error| lacks(body, &error))
}

fn lacks(part: CapturedSlice<'_>, error: &LenError) -> DecodeError {
    part.lacks(error.required_len)
}

/// The jumbo payload option (RFC 2675 §2) among hop-by-hop options: bytes after the IPv6 header.
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
