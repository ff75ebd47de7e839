//! A dialogue as it was said, piece by piece: what `--session` prints and what an actor says again.

use crate::addr::Side;
use crate::time::Timestamp;

/// One thing that one side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptEntry {
    pub at: Timestamp,
    pub from: Side,
    pub what: TranscriptItem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TranscriptItem {
    /// A command, a line of an AUTH exchange, or a whole reply with all its lines; with line endings.
    Line(Vec<u8>),
    /// A piece of a message or chunk, the `.` that ends it included.
    Content(Vec<u8>),
    /// Octets of a message or chunk that the source left out on purpose.
    Omitted(u64),
    /// Octets that the capture does not hold.
    Gap(u64),
    /// Octets after STARTTLS.
    Encrypted(u64),
    /// No more comes.
    Closed,
}

impl TranscriptItem {
    /// Octets of the stream that it stands for.
    pub const fn len(&self) -> u64 {
        match self {
            Self::Line(octets) | Self::Content(octets) => octets.len() as u64,
            Self::Omitted(count) | Self::Gap(count) | Self::Encrypted(count) => *count,
            Self::Closed => 0,
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
