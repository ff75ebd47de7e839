//! Following a dialogue of which parts are missing: for an observer, which can neither ask nor wait.
//!
//! Nothing here decides what is true: the caller has its proof, or reports that it assumes.

use super::{DataScanner, ExpectedReply, Pending, Phase, Session, Wait};
use crate::time::Timestamp;

impl Session {
    /// The reply that the client waits for.
    pub const fn wait(&self) -> Option<Wait> {
        self.wait
    }

    /// The newest command without a reply.
    pub fn newest_pending(&self) -> Option<&ExpectedReply> {
        match self.pending.back() {
            Some(Pending::Server(expected)) => Some(expected),
            _ => None,
        }
    }

    /// Commands without a reply.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The client's next bytes are a command. As the other assumptions, only once nothing is pending.
    pub fn assume_command(&mut self) {
        self.assume(Phase::Command);
    }

    /// The client's next bytes are message content.
    pub fn assume_content(&mut self) {
        let scanner = DataScanner::new(self.bare_newlines);
        self.assume(Phase::Content { scanner, bytes: 0, rejected: false });
    }

    /// The client's next bytes are a line of an AUTH exchange.
    pub fn assume_auth_line(&mut self) {
        self.assume(Phase::AuthLine);
    }

    /// Both sides speak TLS from here on; it has begun if bytes of it were seen.
    pub fn assume_tls(&mut self, begun: bool) {
        self.assume(Phase::Opaque { begun });
    }

    /// The reply to STARTTLS was missed, and TLS follows.
    pub fn assume_starttls(&mut self) {
        self.state.assume_tls();
        self.assume_tls(false);
    }

    fn assume(&mut self, phase: Phase) {
        self.clear_pending();
        self.wait = None;
        self.phase = phase;
    }

    /// Commands are missing: nobody knows which transaction the next ones belong to.
    pub fn abandon_transaction(&mut self) {
        if let Phase::Content { bytes, .. } = self.phase {
            self.state.set_bytes(bytes);
        }
        self.state.end_transaction();
    }

    /// TLS records of both sides were seen.
    pub fn on_tls_records(&mut self) {
        self.state.assume_tls();
        self.assume_tls(true);
    }

    /// After the 354 to DATA, before the end of data.
    pub const fn in_data(&self) -> bool {
        matches!(self.phase, Phase::Content { .. })
    }

    /// `count` bytes of message content are missing; the end of data may be among them.
    pub fn skip_content(&mut self, count: u64) {
        if let Phase::Content { scanner, bytes, .. } = &mut self.phase {
            scanner.skip();
            *bytes += count;
        }
    }

    /// The source omitted `count` bytes of message content.
    pub fn omit_content(&mut self, count: u64) {
        if let Phase::Content { scanner, bytes, .. } = &mut self.phase {
            scanner.skip_unseen();
            *bytes += count;
        }
    }

    /// The end of data that [`Session::scan`] found last is one only if the bytes omitted before it make it one.
    pub const fn end_is_ambiguous(&self) -> bool {
        matches!(&self.phase, Phase::Content { scanner, .. } if scanner.end_is_ambiguous())
    }

    /// Whether the end of data is in `input`, which comes next.
    pub fn would_end(&self, input: &[u8]) -> bool {
        match &self.phase {
            Phase::Content { scanner, .. } => scanner.clone().scan(input, |_| {}).is_some(),
            _ => false,
        }
    }

    /// The message ends with the bytes read so far. `at`: `None` if its end was not seen.
    pub fn assume_end_of_data(&mut self, at: Option<Timestamp>) {
        self.end_content(at);
    }

    /// Bytes of the current chunk that are to come.
    pub const fn chunk_left(&self) -> u64 {
        match self.phase {
            Phase::Chunk { remaining, .. } => remaining,
            _ => 0,
        }
    }
}
