//! Encoding of frames.
//!
//! ```text
//! length  u32   of the rest, at most MAX_FRAME
//! kind    u8    1 begin, 2 data, 3 omitted, 4 client closed, 5 end, 6 missed
//! session u64
//! at      u64   nanoseconds since 1970
//! begin         client and server, each: family u8 (4 or 6), address 4 or 16 bytes, port u16; the listener's name
//! data          side u8 (0 client, 1 server), bytes
//! omitted       side u8, reason u8 (0 uninspected, 1 overflow, 2 redacted), count u64
//! end           reset u8, the summary in JSON
//! missed        sessions u64
//! ```
//!
//! Numbers are in network byte order. Both ends are the same program, so an invalid frame ends the recording.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{EndSummary, Frame, FrameBody, Omission};
use crate::addr::Side;
use crate::time::Timestamp;

/// Maximum length of a frame in bytes, without the length field.
pub const MAX_FRAME: usize = 1 << 20;

const BEGIN: u8 = 1;
const DATA: u8 = 2;
const OMITTED: u8 = 3;
const CLIENT_CLOSED: u8 = 4;
const END: u8 = 5;
const MISSED: u8 = 6;

/// An invalid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error(
        "invalid frame of {0} bytes (maximum {MAX_FRAME}); use the gateway's version of gatepost"
    )]
    TooLong(usize),
    #[error("invalid frame of kind {0}; use the gateway's version of gatepost")]
    Invalid(u8),
}

impl Frame {
    /// Appends the encoded frame to `out`. Data that exceeds one frame is split into several.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { session, at, body } = self;
        let head = (*session, *at);
        match body {
            FrameBody::Begin { client, server, listener } => frame(out, BEGIN, head, |out| {
                address(out, *client);
                address(out, *server);
                out.extend(listener.as_bytes());
            }),
            FrameBody::Data { from, bytes } => encode_data(out, *session, *at, *from, bytes),
            FrameBody::Omitted { from, count, reason } => frame(out, OMITTED, head, |out| {
                out.extend([side(*from), *reason as u8]);
                out.extend(count.to_be_bytes());
            }),
            FrameBody::ClientClosed => frame(out, CLIENT_CLOSED, head, |_| {}),
            FrameBody::End { reset, summary } => frame(out, END, head, |out| {
                out.push(u8::from(*reset));
                let limited = |text| EndSummary::limit_answers(text).into();
                let answers = summary.answers.as_deref().map(limited);
                let summary = EndSummary { answers, ..summary.clone() };
                // Strings only: cannot fail.
                out.extend(serde_json::to_vec(&summary).unwrap_or_default());
            }),
            FrameBody::Missed { sessions } => {
                frame(out, MISSED, head, |out| out.extend(sessions.to_be_bytes()));
            }
        }
    }
}

/// Encodes a [`FrameBody::Data`] without an intermediate copy of the bytes.
pub(crate) fn encode_data(
    out: &mut Vec<u8>,
    session: u64,
    at: Timestamp,
    from: Side,
    bytes: &[u8],
) {
    for part in bytes.chunks(MAX_FRAME / 2) {
        frame(out, DATA, (session, at), |out| {
            out.push(side(from));
            out.extend_from_slice(part);
        });
    }
}

fn frame(
    out: &mut Vec<u8>,
    kind: u8,
    (session, at): (u64, Timestamp),
    write_body: impl FnOnce(&mut Vec<u8>),
) {
    let begin = out.len();
    out.extend([0; 4]);
    out.push(kind);
    out.extend(session.to_be_bytes());
    out.extend(at.as_nanos().to_be_bytes());
    write_body(out);
    let length = u32::try_from(out.len() - begin - 4).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(begin..begin + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

const fn side(side: Side) -> u8 {
    side.index() as u8
}

fn address(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(addr.port().to_be_bytes());
}

/// Decodes frames from a byte stream.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are already decoded.
    used: usize,
}

impl FrameDecoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` if it is incomplete.
    ///
    /// # Errors
    /// The bytes are not a frame; decoding cannot resume after it.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = self.buffer.get(self.used..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        self.used += 4 + length;
        let kind = body.first().copied().unwrap_or_default();
        decode(body).map(Some).ok_or(FrameError::Invalid(kind))
    }
}

fn decode(frame: &[u8]) -> Option<Frame> {
    let mut fields = FrameFields(frame);
    let kind = fields.byte()?;
    let session = fields.number()?;
    let at = Timestamp::from_nanos(fields.number()?);
    let body = match kind {
        BEGIN => FrameBody::Begin {
            client: fields.address()?,
            server: fields.address()?,
            listener: str::from_utf8(fields.rest()).ok()?.into(),
        },
        DATA => FrameBody::Data { from: fields.side()?, bytes: fields.rest().to_vec() },
        OMITTED => FrameBody::Omitted {
            from: fields.side()?,
            reason: match fields.byte()? {
                0 => Omission::Uninspected,
                1 => Omission::Overflow,
                2 => Omission::Redacted,
                _ => return None,
            },
            count: fields.number()?,
        },
        CLIENT_CLOSED => FrameBody::ClientClosed,
        END => FrameBody::End {
            reset: fields.byte()? != 0,
            summary: serde_json::from_slice(fields.rest()).ok()?,
        },
        MISSED => FrameBody::Missed { sessions: fields.number()? },
        _ => return None,
    };
    fields.0.is_empty().then_some(Frame { session, at, body })
}

/// The undecoded rest of a frame.
struct FrameFields<'a>(&'a [u8]);

impl<'a> FrameFields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn side(&mut self) -> Option<Side> {
        Side::ALL.get(usize::from(self.byte()?)).copied()
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.take::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.take::<16>()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, self.take().map(u16::from_be_bytes)?))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side() -> impl Strategy<Value = Side> {
        prop_oneof![Just(Side::Client), Just(Side::Server)]
    }

    fn body() -> impl Strategy<Value = FrameBody> {
        let text = proptest::option::of(".{0,20}");
        prop_oneof![
            any::<(SocketAddr, SocketAddr, String)>().prop_map(|(client, server, listener)| {
                FrameBody::Begin {
                    listener: listener.into(),
                    // The encoding has neither scope nor flow label.
                    client: SocketAddr::new(client.ip(), client.port()),
                    server: SocketAddr::new(server.ip(), server.port()),
                }
            }),
            (side(), proptest::collection::vec(any::<u8>(), 1..50))
                .prop_map(|(from, bytes)| FrameBody::Data { from, bytes }),
            (side(), any::<u64>()).prop_map(|(from, count)| FrameBody::Omitted {
                from,
                count,
                reason: Omission::Overflow
            }),
            Just(FrameBody::ClientClosed),
            (any::<bool>(), ".{0,9}", text.clone(), text.clone(), text.clone(), text).prop_map(
                |(reset, verdict, rule, reason, decrypted, answers)| FrameBody::End {
                    reset,
                    summary: EndSummary {
                        verdict,
                        rule,
                        reason,
                        outcome: "quit".to_owned(),
                        decrypted,
                        answers
                    },
                }
            ),
            any::<u64>().prop_map(|sessions| FrameBody::Missed { sessions }),
        ]
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let frame = (any::<u64>(), any::<u64>(), body()).prop_map(|(session, at, body)| Frame {
            session,
            at: Timestamp::from_nanos(at),
            body,
        });
        proptest::collection::vec(frame, 0..8)
    }

    fn drain(decoder: &mut FrameDecoder, frames: &mut Vec<Frame>) {
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame);
        }
    }

    proptest! {
        #[test]
        fn encoded_frames_decode_under_every_segmentation(frames in frames(), size in 1..40usize) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let (mut decoder, mut decoded) = (FrameDecoder::default(), Vec::new());
            for part in bytes.chunks(size) {
                decoder.push(part);
                drain(&mut decoder, &mut decoded);
            }
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = FrameDecoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn long_data_is_split_into_several_frames() {
        let bytes = vec![7; MAX_FRAME + 1];
        let mut encoded = Vec::new();
        encode_data(&mut encoded, 1, Timestamp::default(), Side::Server, &bytes);
        let mut decoder = FrameDecoder::default();
        decoder.push(&encoded);
        let mut frames = Vec::new();
        drain(&mut decoder, &mut frames);
        let total: usize = frames
            .iter()
            .map(|frame| match &frame.body {
                FrameBody::Data { from: Side::Server, bytes } => bytes.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(total, bytes.len());
    }

    #[test]
    fn too_long_and_unknown_frames_are_errors() {
        let mut decoder = FrameDecoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(u32::MAX as usize)));
        let mut decoder = FrameDecoder::default();
        decoder.push(&[0, 0, 0, 1, 9]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Invalid(9)));
    }
}
