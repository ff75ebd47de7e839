//! Results of the two file readers: a packet in the window's buffer, or the reason why there is none.

use std::ops::Range;

use super::error::{FileDamage, FilePart};
use super::window::ShortRead;
use crate::time::Timestamp;
use crate::wire::LinkType;

/// A packet whose bytes are a range of the window's buffer.
pub(super) struct BufferedPacket {
    pub(super) at: Timestamp,
    pub(super) link: LinkType,
    pub(super) bytes: Range<usize>,
    pub(super) wire_len: u32,
    /// [`Packet::omitted`](crate::wire::Packet::omitted).
    pub(super) omitted: u32,
    /// Interface number within the section.
    pub(super) interface: u32,
    /// The comment of a [`PacketNote`](crate::wire::PacketNote), as a range of the window's buffer.
    pub(super) note: Option<Range<usize>>,
}

/// Why no further packet can be read.
pub(super) enum ReadError {
    Short { within: FilePart, short: ShortRead },
    Damage { offset: u64, damage: FileDamage },
}

impl ReadError {
    pub(super) fn short_within(within: FilePart) -> impl Fn(ShortRead) -> Self {
        move |short| Self::Short { within, short }
    }
}
