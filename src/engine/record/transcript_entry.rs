//! A dialogue piece by piece: printed by `replay --session`, re-sent by a re-enactment.

use crate::addr::Side;
use crate::time::Timestamp;

/// A piece that one side sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptEntry {
    pub at: Timestamp,
    pub from: Side,
    pub item: TranscriptItem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TranscriptItem {
    /// A command, a line of an AUTH exchange, or a whole reply with all its lines; with line endings.
    Line(Vec<u8>),
    /// A piece of a message or chunk, the `.` that ends it included.
    Content(Vec<u8>),
    /// Bytes of a message or chunk that the source omitted on purpose.
    Omitted(u64),
    /// Bytes missing from the capture.
    Gap(u64),
    /// Bytes after STARTTLS.
    Encrypted(u64),
    /// The end of this side's stream.
    Closed,
}

impl TranscriptItem {
    /// Bytes of the stream that it stands for.
    pub const fn len(&self) -> u64 {
        match self {
            Self::Line(bytes) | Self::Content(bytes) => bytes.len() as u64,
            Self::Omitted(count) | Self::Gap(count) | Self::Encrypted(count) => *count,
            Self::Closed => 0,
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
