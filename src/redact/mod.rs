//! What makes a recording fit to be handed to others.
//!
//! Layer 2: frames in, frames out. Lengths and times stay. Addresses of packets are replaced so that equal prefixes stay
//! equal (ipcrypt-pfx, draft-denis-ipcrypt; IPv4 among IPv4, IPv6 among IPv6). In the dialogue local parts become letters
//! of the same length (equal ones equal letters), address text, AUTH, XCLIENT and whatever nobody here knows is
//! overwritten, and content, TLS and all that cannot be followed is dropped: when in doubt nothing passes. Domains, host
//! names and the server's words stay.

#![warn(clippy::indexing_slicing)]

mod dialogue;
mod local_parts;
mod text;

use std::collections::HashMap;
use std::net::SocketAddr;

use ipcrypt_rs::IpcryptPfx;

use self::dialogue::Dialogue;
use self::local_parts::LocalParts;
use crate::recording::{Frame, FrameBody};

/// What replacements depend on: equal keys replace equally, and who has it can undo them.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; Self::OCTETS]);

impl Key {
    pub const OCTETS: usize = 32;

    /// `None` if both halves are equal: such a key hides nothing.
    pub fn new(octets: [u8; Self::OCTETS]) -> Option<Self> {
        let (first, second) = octets.split_at(Self::OCTETS / 2);
        (first != second).then_some(Self(octets))
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut octets = [0; Self::OCTETS];
        if text.len() != 2 * octets.len() || !text.is_ascii() {
            return None;
        }
        for (octet, digits) in octets.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
            *octet = u8::from_str_radix(digits, 16).ok()?;
        }
        Self::new(octets)
    }
}

/// Redacts the frames of any number of sessions, in the order in which they come.
pub struct Redactor {
    addresses: IpcryptPfx,
    local_parts: LocalParts,
    sessions: HashMap<u64, Dialogue>,
}

impl Redactor {
    pub fn new(key: &Key) -> Self {
        Self {
            addresses: IpcryptPfx::new(key.0),
            local_parts: LocalParts::new(&key.0),
            sessions: HashMap::new(),
        }
    }

    /// Takes a frame and gives those that may be shown by now.
    pub fn frame(&mut self, frame: Frame, emit: &mut dyn FnMut(Frame)) {
        let Frame { session, at, body } = frame;
        match body {
            FrameBody::Begin { client, server } => {
                let dialogue = Dialogue::new(self.local_parts.clone(), client, server);
                self.sessions.insert(session, dialogue);
                let (client, server) = (self.address(client), self.address(server));
                emit(Frame { session, at, body: FrameBody::Begin { client, server } });
            }
            FrameBody::Missed { .. } => emit(Frame { session, at, body }),
            FrameBody::End { reset, summary: mut ending } => {
                // They are about addresses and mailboxes, and a replay could not match them to what is shown.
                ending.answers = None;
                let body = FrameBody::End { reset, summary: ending };
                if let Some(mut dialogue) = self.sessions.remove(&session) {
                    dialogue.end(at, body, &mut |at, body| emit(Frame { session, at, body }));
                }
            }
            FrameBody::Data { .. } | FrameBody::Omitted { .. } | FrameBody::ClientClosed => {
                // A session whose beginning is not known is not shown at all.
                if let Some(dialogue) = self.sessions.get_mut(&session) {
                    dialogue.hear(at, body, &mut |at, body| emit(Frame { session, at, body }));
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
