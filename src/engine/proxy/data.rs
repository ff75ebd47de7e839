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
        if wanted {
            self.read_chunk();
        }
        let withheld = if wanted { self.withhold_chunk_end(chunk) } else { None };
        let is_withheld = withheld.is_some();
        let last = chunk.last;
        let (chunk, expected) =
            withheld.unwrap_or_else(|| (chunk, self.session.begin_chunk(chunk, wanted, self.now)));
        let traced = if wanted { self.trace_chunk(chunk, last) } else { None };
        if !wanted {
            self.local_chunk_reply = expected;
        } else if is_withheld && chunk.size == 0 && traced.is_none() {
            // Upstream needs no chunk before `BDAT 0 LAST`.
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
            self.on_chunk_end(wanted, last, out);
        }
    }

    /// The next bytes of the current chunk.
    pub(super) fn on_chunk(&mut self, bytes: &[u8], from: usize, wanted: bool, out: &mut Output) {
        if wanted {
            if let Some(reader) = &mut self.message_reader {
                reader.on_chunk(bytes);
            }
            self.read_for_canary(bytes, out);
            self.look_ahead_of_end(out);
            out.forward(from..from + bytes.len());
        }
        self.on_chunk_bytes(bytes.len() as u64, out);
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
            self.canary_reader = None;
            self.record.on_content_end(Some(self.now), out);
        }
        if wanted {
            if self.session.end_is_withheld() {
                self.on_withheld_end(out);
            }
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
        self.read_for_canary(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default(), out);
        if let Some(reader) = &mut self.message_reader {
            reader.on_content(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
        }
        let has_bare_newlines = self.record.on_findings(findings, out);
        if has_bare_newlines && self.checks.rejects_bare_newlines() {
            // Nothing of this input may reach upstream: the end of data might be in it.
            out.actions.truncate(before);
            out.act(Action::AbandonUpstream);
            self.state = State::DiscardingData;
            self.message_reader = None;
            self.canary_reader = None;
        }
        self.look_ahead_of_end(out);
        if end.is_some() {
            self.canary_reader = None;
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
        } else if self.session.end_is_withheld() {
            self.on_withheld_end(out);
        }
    }

    /// The end of a message with bare newlines, in mode `reject`. A client reads the reply once it has sent all; one that saw
    /// its connection break before would send the same message again. Upstream's connection is gone, so the session ends
    /// as RFC 5321 §3.8 demands.
    fn reject_message(&mut self, out: &mut Output) {
        self.state = State::RejectedMessage;
        self.checks.on_refusal(Refusal::BareNewline, out);
        // Otherwise upstream rejected the message before its end.
        if self.session.current_expectation().is_some() {
            let text = "bare CR or LF in message; lines end in CRLF (RFC 5321 section 2.3.8)";
            let reply = OwnReply::new(550, EnhancedCode::new(5, 6, 0), text);
            self.send_now(ExpectedReply::Other, reply, out);
        }
        self.session.clear_pending();
    }
}
