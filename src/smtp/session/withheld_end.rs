//! The end of a message that the client sent and the server does not receive yet.

use super::{MessageEnd, Pending, Phase, Session};
use crate::smtp::ExpectedReply;
use crate::time::Timestamp;

impl Session {
    /// The end of the current message will not be emitted by [`Session::scan`]. Once it was read, the client waits until
    /// [`Session::release_end`].
    pub fn withhold_end(&mut self) {
        if let Phase::Content { scanner, .. } = &mut self.phase {
            scanner.withhold_end();
        }
    }

    /// The end of data was read.
    pub(super) const fn withhold_content_end(&mut self, at: Timestamp) {
        if let Some(end) = self.content_end(Some(at)) {
            self.phase = Phase::WithheldEnd(end);
        }
    }

    /// The end of a message was read and is withheld.
    pub const fn end_is_withheld(&self) -> bool {
        matches!(self.phase, Phase::WithheldEnd(_))
    }

    /// The server rejected the current message before its withheld end.
    pub const fn message_is_rejected(&self) -> bool {
        matches!(self.phase, Phase::WithheldEnd(MessageEnd { rejected: true, .. }))
    }

    /// The server has not answered the last chunk before a withheld end.
    pub fn withheld_chunk_is_pending(&self) -> bool {
        let is_chunk = |pending: &Pending| {
            matches!(pending, Pending::Server(ExpectedReply::WithheldChunk { .. }))
        };
        self.pending.iter().any(is_chunk)
    }

    /// The server is sent the withheld end of the message. Returns whether as `BDAT 0 LAST`; `None` if none is withheld.
    pub fn release_end(&mut self) -> Option<bool> {
        let Phase::WithheldEnd(end) = self.phase else { return None };
        self.end_message(end);
        Some(end.chunking)
    }

    /// `BDAT … LAST` was read, and its end is withheld: the server is sent its `size` bytes, if any, as a chunk that is not
    /// the last. Returns what the reply to that will confirm.
    pub const fn begin_withheld_chunk(&mut self, size: u64, at: Timestamp) -> ExpectedReply {
        self.phase = if size > 0 {
            Phase::Chunk { remaining: size, wanted: true, last: true, withheld: true }
        } else {
            Phase::WithheldEnd(MessageEnd::of_chunks(at))
        };
        ExpectedReply::WithheldChunk { bytes: size }
    }

    /// The message is rejected: there is no end to send any more.
    pub const fn forget_withheld_end(&mut self) {
        match &mut self.phase {
            Phase::Chunk { withheld, .. } => *withheld = false,
            Phase::WithheldEnd(_) => self.phase = Phase::Command,
            _ => {}
        }
    }
}
