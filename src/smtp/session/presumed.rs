//! Following a dialogue of which parts are missing: what only a listener does, which can neither ask nor wait.
//!
//! Nothing here decides what is the case; the caller has its proof, or says that it presumes.

use super::{DataScanner, ExpectedReply, Phase, Session, Slot, Wait};

impl Session {
    /// What the client's bytes are waiting for, as far as replies are concerned.
    pub const fn wait(&self) -> Option<Wait> {
        self.wait
    }

    /// What was asked last and is not answered.
    pub fn asked_last(&self) -> Option<ExpectedReply> {
        match self.pending.back() {
            Some(Slot::Upstream(asked)) => Some(*asked),
            _ => None,
        }
    }

    /// How much was asked and is not answered.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The next reply answers what was asked last: the replies before it were missed.
    pub fn only_last(&mut self) {
        let last = self.pending.pop_back();
        self.pending.clear();
        self.pending.extend(last);
    }

    /// Replies were missed. What the client has to wait for may still come; nothing else will.
    pub fn replies_missed(&mut self) {
        if self.wait.is_some() {
            self.only_last();
        } else {
            self.pending.clear();
        }
    }

    /// Whatever was asked is answered, and the client's next bytes are a command.
    pub fn presume_command(&mut self) {
        self.presume(Phase::Command);
    }

    /// Whatever was asked is answered, and the client's next bytes are message content.
    pub fn presume_content(&mut self, transaction: usize) {
        let scanner = DataScanner::new(self.bare_newlines);
        self.presume(Phase::Content { scanner, transaction, answered: false });
    }

    /// Whatever was asked is answered, and the client's next bytes are a line of an AUTH exchange.
    pub fn presume_auth_line(&mut self) {
        self.presume(Phase::AuthLine);
    }

    /// Whatever was asked is answered, and both sides speak TLS from here on; it has begun if octets of it were seen.
    pub fn presume_tls(&mut self, begun: bool) {
        self.presume(Phase::Opaque { begun });
    }

    fn presume(&mut self, phase: Phase) {
        self.pending.clear();
        self.wait = None;
        self.phase = phase;
    }

    /// Inside of what DATA announced: the transaction.
    pub const fn in_data(&self) -> Option<usize> {
        match self.phase {
            Phase::Content { transaction, .. } => Some(transaction),
            _ => None,
        }
    }

    /// Octets of message content are missing; the end of data may be among them.
    pub fn skip_content(&mut self) {
        if let Phase::Content { scanner, .. } = &mut self.phase {
            scanner.skip();
        }
    }

    /// Octets of message content were left out by the source.
    pub fn pass_over_content(&mut self) {
        if let Phase::Content { scanner, .. } = &mut self.phase {
            scanner.pass_over();
        }
    }

    /// The end of data that [`Session::scan`] found last is one only if what was left out before it makes it one.
    pub const fn end_in_doubt(&self) -> bool {
        matches!(&self.phase, Phase::Content { scanner, .. } if scanner.is_doubtful())
    }

    /// Whether the end of data is in `input`, which comes next.
    pub fn would_end(&self, input: &[u8]) -> bool {
        match &self.phase {
            Phase::Content { scanner, .. } => scanner.clone().scan(input, |_| {}).is_some(),
            _ => false,
        }
    }

    /// What was read of the message in progress is all of it.
    pub fn presume_end_of_data(&mut self) {
        if let Phase::Content { transaction, answered, .. } = self.phase {
            if !answered {
                self.pending.push_back(Slot::Upstream(ExpectedReply::Message { transaction }));
            }
            self.phase = Phase::Command;
        }
    }

    /// Octets of the chunk at hand that are to come.
    pub const fn chunk_left(&self) -> u64 {
        match self.phase {
            Phase::Chunk { remaining, .. } => remaining,
            _ => 0,
        }
    }
}
