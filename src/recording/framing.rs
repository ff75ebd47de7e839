//! Frames as bytes.
//!
//! ```text
//! length  u32   of what follows, at most MAX_FRAME
//! kind    u8    1 begin, 2 said, 3 omitted, 4 client closed, 5 end, 6 missed
//! session u64
//! at      u64   nanoseconds since 1970
//! begin         client and server, each: family u8 (4 or 6), address 4 or 16 bytes, port u16
//! said          side u8 (0 client, 1 server), bytes
//! omitted       side u8, reason u8 (0 unseen, 1 overflow, 2 redacted), count u64
//! end           reset u8, the ending in JSON
//! missed        sessions u64
//! ```
//!
//! Numbers are in network byte order. Both ends are the same program; a frame that cannot be read ends the recording.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{EndSummary, Frame, FrameBody, Omission};
use crate::addr::Side;
use crate::time::Timestamp;

/// Bytes of the largest frame, its length not counted.
pub const MAX_FRAME: usize = 1 << 20;

const BEGIN: u8 = 1;
const DATA: u8 = 2;
const OMITTED: u8 = 3;
const CLIENT_CLOSED: u8 = 4;
const END: u8 = 5;
const MISSED: u8 = 6;

/// A frame that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("a frame of {0} bytes, more than {MAX_FRAME}: is the gateway of this version?")]
    TooLong(usize),
    #[error("a frame of kind {0} that cannot be read: is the gateway of this version?")]
    Unreadable(u8),
}

impl Frame {
    /// Appends the frame. Bytes that one frame cannot hold go into several.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { session, at, what } = self;
        let head = (*session, *at);
        match what {
            FrameBody::Begin { client, server } => frame(out, BEGIN, head, |out| {
                address(out, *client);
                address(out, *server);
            }),
            FrameBody::Data { from, bytes } => encode_data(out, *session, *at, *from, bytes),
            FrameBody::Omitted { from, count, reason } => frame(out, OMITTED, head, |out| {
                out.extend([side(*from), *reason as u8]);
                out.extend(count.to_be_bytes());
            }),
            FrameBody::ClientClosed => frame(out, CLIENT_CLOSED, head, |_| {}),
            FrameBody::End { reset, ending } => frame(out, END, head, |out| {
                out.push(u8::from(*reset));
                let answers =
                    ending.answers.as_deref().map(|text| EndSummary::carried(text).into());
                let ending = EndSummary { answers, ..ending.clone() };
                // Strings only: that does not fail.
                out.extend(serde_json::to_vec(&ending).unwrap_or_default());
            }),
            FrameBody::Missed { sessions } => {
                frame(out, MISSED, head, |out| out.extend(sessions.to_be_bytes()));
            }
        }
    }
}

/// As [`Frame::encode`] of a [`FrameBody::Data`], without a copy of the bytes in between.
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
    body: impl FnOnce(&mut Vec<u8>),
) {
    let begin = out.len();
    out.extend([0; 4]);
    out.push(kind);
    out.extend(session.to_be_bytes());
    out.extend(at.as_nanos().to_be_bytes());
    body(out);
    let length = u32::try_from(out.len() - begin - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(begin..begin + 4) {
        place.copy_from_slice(&length.to_be_bytes());
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

/// Bytes back to frames, however they were cut on their way.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    held: Vec<u8>,
    /// Bytes of `held` that were handed out already.
    used: usize,
}

impl FrameDecoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..self.used);
        self.used = 0;
        self.held.extend_from_slice(bytes);
    }

    /// The next frame; `None` if it is not whole yet.
    ///
    /// # Errors
    /// What came is no frame; there is no going on after it.
    pub fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = self.held.get(self.used..).unwrap_or_default();
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
        read(body).map(Some).ok_or(FrameError::Unreadable(kind))
    }
}

fn read(body: &[u8]) -> Option<Frame> {
    let mut body = Body(body);
    let kind = body.byte()?;
    let session = body.number()?;
    let at = Timestamp::from_nanos(body.number()?);
    let what = match kind {
        BEGIN => FrameBody::Begin { client: body.address()?, server: body.address()? },
        DATA => FrameBody::Data { from: body.side()?, bytes: body.rest().to_vec() },
        OMITTED => FrameBody::Omitted {
            from: body.side()?,
            reason: match body.byte()? {
                0 => Omission::Uninspected,
                1 => Omission::Overflow,
                2 => Omission::Redacted,
                _ => return None,
            },
            count: body.number()?,
        },
        CLIENT_CLOSED => FrameBody::ClientClosed,
        END => FrameBody::End {
            reset: body.byte()? != 0,
            ending: serde_json::from_slice(body.rest()).ok()?,
        },
        MISSED => FrameBody::Missed { sessions: body.number()? },
        _ => return None,
    };
    body.0.is_empty().then_some(Frame { session, at, what })
}

/// What is left of a frame.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
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

    fn what() -> impl Strategy<Value = FrameBody> {
        let text = proptest::option::of(".{0,20}");
        prop_oneof![
            any::<(SocketAddr, SocketAddr)>().prop_map(|(client, server)| FrameBody::Begin {
                // The wire holds neither scope nor flow label.
                client: SocketAddr::new(client.ip(), client.port()),
                server: SocketAddr::new(server.ip(), server.port()),
            }),
            (side(), proptest::collection::vec(any::<u8>(), 1..50))
                .prop_map(|(from, bytes)| FrameBody::Data { from, bytes }),
            (side(), any::<u64>()).prop_map(|(from, count)| FrameBody::Omitted {
                from,
                count,
                reason: Omission::Overflow
            }),
            Just(FrameBody::ClientClosed),
            (any::<bool>(), ".{0,9}", text.clone(), text.clone(), text).prop_map(
                |(reset, verdict, rule, reason, answers)| FrameBody::End {
                    reset,
                    ending: EndSummary {
                        verdict,
                        rule,
                        reason,
                        outcome: "quit".to_owned(),
                        answers
                    },
                }
            ),
            any::<u64>().prop_map(|sessions| FrameBody::Missed { sessions }),
        ]
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let frame = (any::<u64>(), any::<u64>(), what()).prop_map(|(session, at, what)| Frame {
            session,
            at: Timestamp::from_nanos(at),
            what,
        });
        proptest::collection::vec(frame, 0..8)
    }

    fn all(framing: &mut FrameDecoder, into: &mut Vec<Frame>) {
        while let Some(frame) = framing.frame().unwrap() {
            into.push(frame);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(frames in frames(), size in 1..40usize) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let (mut framing, mut read) = (FrameDecoder::default(), Vec::new());
            for part in bytes.chunks(size) {
                framing.push(part);
                all(&mut framing, &mut read);
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framing = FrameDecoder::default();
            framing.push(&bytes);
            while let Ok(Some(_)) = framing.frame() {}
        }
    }

    #[test]
    fn what_one_frame_cannot_hold_goes_into_several() {
        let bytes = vec![7; MAX_FRAME + 1];
        let mut encoded = Vec::new();
        encode_data(&mut encoded, 1, Timestamp::default(), Side::Server, &bytes);
        let mut framing = FrameDecoder::default();
        framing.push(&encoded);
        let mut frames = Vec::new();
        all(&mut framing, &mut frames);
        let total: usize = frames
            .iter()
            .map(|frame| match &frame.what {
                FrameBody::Data { from: Side::Server, bytes } => bytes.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(total, bytes.len());
    }

    #[test]
    fn too_long_and_unknown_are_said() {
        let mut framing = FrameDecoder::default();
        framing.push(&u32::MAX.to_be_bytes());
        assert_eq!(framing.frame(), Err(FrameError::TooLong(u32::MAX as usize)));
        let mut framing = FrameDecoder::default();
        framing.push(&[0, 0, 0, 1, 9]);
        assert_eq!(framing.frame(), Err(FrameError::Unreadable(9)));
    }
}
