//! Messages: content after DATA, and the chunks of BDAT.

use super::{Proxy, State};
use crate::engine::event::Refusal;
use crate::engine::output::{Action, Output};
use crate::engine::policy::header;
use crate::smtp::{Chunk, ChunkProgress, EnhancedCode, ExpectedReply, Line, OwnReply};

impl Proxy {
    pub(super) fn on_bdat(&mut self, line: Line<'_>, chunk: Chunk, from: usize, out: &mut Output) {
        let in_transaction = self.session.next_transaction().is_some();
        self.record.on_chunk(in_transaction, self.now, out);
        // An upstream that did not offer CHUNKING would read the bytes as commands, unseen by the gateway.
        let state = self.session.state();
        let wanted = state.extensions().chunking && !state.all_recipients_rejected_locally();
        let expected = self.session.begin_chunk(chunk, wanted, self.now);
        let traced = if wanted { self.trace_chunk(chunk) } else { None };
        if !wanted {
            self.local_chunk_reply = expected;
        } else if let Some(command) = traced {
            out.act(Action::ToUpstream(command));
            self.session.expect(expected);
        } else if line.text.eq_ignore_ascii_case(chunk.as_command().as_bytes()) {
            self.forward(line, from, expected, out);
        } else {
            // The size must be unambiguous: no leading zeros, no odd white space.
            out.act(Action::ToUpstream(format!("{}\r\n", chunk.as_command()).into_bytes()));
            self.session.expect(expected);
        }
        if chunk.size == 0 {
            self.on_chunk_end(wanted, chunk.last, out);
        }
    }

    /// `count` bytes of the current chunk were forwarded or discarded.
    pub(super) fn on_chunk_bytes(&mut self, count: u64, out: &mut Output) {
        let progress = self.session.on_chunk_bytes(count, self.now);
        if let ChunkProgress::ChunkEnds { wanted, last } = progress {
            self.on_chunk_end(wanted, last, out);
        }
    }

    fn on_chunk_end(&mut self, wanted: bool, last: bool, out: &mut Output) {
        if last {
            self.record.on_content_end(Some(self.now), out);
        }
        if wanted {
            return;
        }
        let mut expected = std::mem::replace(&mut self.local_chunk_reply, ExpectedReply::Other);
        if let ExpectedReply::Message { ended, .. } = &mut expected {
            *ended = Some(self.now);
        }
        if self.session.state().extensions().chunking {
            self.answer_no_recipients(expected, out);
        } else {
            self.answer_not_offered(expected, out);
        }
    }

    pub(super) fn on_content(&mut self, rest: &[u8], from: usize, out: &mut Output) -> usize {
        // The 354 had to come first, so content is always the first thing in an input, and no action precedes its own.
        let before = out.actions.len();
        self.trace_content(out);
        let transaction = self.session.state().current().map(|current| current.number);
        let mut filter = self.tagger.as_mut().map(|tagger| tagger.take_filter(transaction, out));
        let (end, findings) = self
            .session
            .scan(rest, self.now, |piece| header::forward(&mut filter, piece, rest, from, out));
        if let Some(tagger) = &mut self.tagger {
            tagger.put_back(filter.filter(|_| end.is_none()));
        }
        let has_bare_newlines = self.record.on_findings(findings, out);
        if has_bare_newlines && self.checks.rejects_bare_newlines() {
            // Nothing of this input may reach upstream: the end of data might be in it.
            out.actions.truncate(before);
            out.act(Action::AbandonUpstream);
            self.state = State::DiscardingData;
        }
        if end.is_some() {
            self.on_content_end(out);
        }
        end.unwrap_or(rest.len())
    }

    /// More of a message that is rejected: counted, not forwarded.
    pub(super) fn discard_content(&mut self, rest: &[u8], out: &mut Output) -> usize {
        let (end, findings) = self.session.scan(rest, self.now, |_| {});
        self.record.on_findings(findings, out);
        if end.is_some() {
            self.on_content_end(out);
        }
        end.unwrap_or(rest.len())
    }

    fn on_content_end(&mut self, out: &mut Output) {
        self.record.on_content_end(Some(self.now), out);
        if self.state == State::DiscardingData {
            self.reject_message(out);
            self.end_if_drained(out);
        }
    }

    /// The end of a message with bare newlines, in mode `reject`. A client reads the reply once it has sent all; one that saw
    /// its connection break before would send the same message again. Upstream's connection is gone, so the session ends
    /// as RFC 5321 §3.8 demands.
    fn reject_message(&mut self, out: &mut Output) {
        self.state = State::RejectedMessage;
        self.checks.on_refusal(Refusal::BareNewline, out);
        // Without a pending reply: upstream rejected the message before its end.
        if self.session.has_pending() {
            let text = "bare CR or LF in message; lines end in CRLF (RFC 5321 section 2.3.8)";
            let reply = OwnReply::new(550, EnhancedCode::new(5, 6, 0), text);
            self.send_now(ExpectedReply::Other, reply, out);
        }
        self.session.clear_pending();
    }
}
