//! Redaction of recordings for others to see.
//!
//! Layer 2: frames in, frames out. Lengths and times stay. Packet addresses are replaced so that equal prefixes stay equal (ipcrypt-pfx, draft-denis-ipcrypt; IPv4 among IPv4, IPv6 among IPv6). In the dialogue local parts become letters
//! of the same length (equal ones equal letters), address text, AUTH, XCLIENT and unknown commands are
//! overwritten; content, TLS and everything that cannot be followed is dropped. Domains, host names and reply texts stay.

#![warn(clippy::indexing_slicing)]

mod dialogue;
mod local_parts;
mod text;

use std::collections::HashMap;
use std::net::SocketAddr;

use ipcrypt_rs::IpcryptPfx;

use self::dialogue::SessionRedactor;
use self::local_parts::LocalParts;
use crate::recording::{Frame, FrameBody};

/// The key of the replacements: equal keys replace equally. Its holder can undo them.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactionKey([u8; Self::LEN]);

impl RedactionKey {
    pub const LEN: usize = 32;

    /// `None` if both halves are equal: such a key hides nothing.
    pub fn new(bytes: [u8; Self::LEN]) -> Option<Self> {
        let (first, second) = bytes.split_at(Self::LEN / 2);
        (first != second).then_some(Self(bytes))
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::LEN];
        if text.len() != 2 * bytes.len() || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Self::new(bytes)
    }
}

/// Redacts the frames of any number of sessions, in their order.
pub struct Redactor {
    addresses: IpcryptPfx,
    local_parts: LocalParts,
    sessions: HashMap<u64, SessionRedactor>,
}

impl Redactor {
    pub fn new(key: &RedactionKey) -> Self {
        Self {
            addresses: IpcryptPfx::new(key.0),
            local_parts: LocalParts::new(&key.0),
            sessions: HashMap::new(),
        }
    }

    /// Takes a frame and emits those that may be shown by now.
    pub fn on_frame(&mut self, frame: Frame, emit: &mut dyn FnMut(Frame)) {
        let Frame { session, at, body } = frame;
        match body {
            FrameBody::Begin { client, server, listener } => {
                let redactor = SessionRedactor::new(self.local_parts.clone(), client, server);
                self.sessions.insert(session, redactor);
                let (client, server) = (self.address(client), self.address(server));
                emit(Frame { session, at, body: FrameBody::Begin { client, server, listener } });
            }
            FrameBody::Missed { .. } => emit(Frame { session, at, body }),
            FrameBody::End { reset, summary: mut ending } => {
                // Answers name addresses and mailboxes, and a replay could not match them to the replaced ones.
                ending.answers = None;
                let body = FrameBody::End { reset, summary: ending };
                if let Some(mut redactor) = self.sessions.remove(&session) {
                    redactor.on_end(at, body, &mut |at, body| emit(Frame { session, at, body }));
                }
            }
            FrameBody::Data { .. } | FrameBody::Omitted { .. } | FrameBody::ClientClosed => {
                // A session without its beginning is dropped.
                if let Some(redactor) = self.sessions.get_mut(&session) {
                    redactor.on_frame(at, body, &mut |at, body| emit(Frame { session, at, body }));
                }
            }
        }
    }

    /// `addr` with its address replaced.
    pub fn address(&self, addr: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.addresses.encrypt_ipaddr(addr.ip().to_canonical()), addr.port())
    }
}

#[cfg(test)]
mod tests;
