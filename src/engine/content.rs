//! Messages: content after DATA, and the chunks of BDAT.

use super::{Action, Current, Engine, Output, Refusal, Stage, tagging};
use crate::smtp::{Chunk, EnhancedCode, Line, OwnReply, Progress};

impl Engine {
    pub(super) fn bdat(&mut self, line: Line<'_>, chunk: Chunk, from: usize, out: &mut Output) {
        let asked = self.recorder.chunk(chunk, self.now, out);
        // An upstream that did not offer CHUNKING would read the octets as commands, and we would not see them.
        let wanted = self.extensions.chunking && !self.all_refused();
        self.session.expect_chunk(chunk, wanted);
        if !wanted {
            self.unwanted = asked;
            if chunk.size == 0 {
                self.unwanted_chunk(out);
            }
            return;
        }
        if line.text.eq_ignore_ascii_case(chunk.as_command().as_bytes()) {
            self.forward(line, from, asked, out);
        } else {
            // The size must be read in one way only: no leading zeros, no odd white space.
            out.act(Action::ToUpstream(format!("{}\r\n", chunk.as_command()).into_bytes()));
            self.session.ask(asked);
        }
        if chunk.last {
            self.current = Current::default();
        }
    }

    /// `count` octets of the chunk at hand are dealt with.
    pub(super) fn chunk_passed(&mut self, count: u64, out: &mut Output) {
        self.recorder.content(count);
        if let Progress::ChunkEnds { wanted, last } = self.session.chunk_passed(count) {
            if last {
                self.recorder.content_ended(Some(self.now), out);
            }
            if !wanted {
                self.unwanted_chunk(out);
            }
        }
    }

    /// A chunk that upstream did not get is over.
    fn unwanted_chunk(&mut self, out: &mut Output) {
        let asked = self.unwanted;
        if self.extensions.chunking {
            self.no_recipients(asked, out);
        } else {
            self.not_offered(asked, out);
        }
    }

    pub(super) fn content(&mut self, rest: &[u8], from: usize, out: &mut Output) -> usize {
        // The 354 had to come first, so content is always the first thing in an input, and nothing precedes its actions.
        let before = out.actions.len();
        let mut filter = self.inquiry.as_mut().and_then(|inquiry| inquiry.take_filter(out));
        let (end, findings) =
            self.session.scan(rest, |piece| tagging::forward(&mut filter, piece, rest, from, out));
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.put_back(filter.filter(|_| end.is_none()));
        }
        let used = end.unwrap_or(rest.len());
        self.recorder.content(used as u64);
        let bare = self.recorder.findings(findings, out);
        if bare && self.judgement.rejects_bare_newlines() {
            // Nothing of this chunk may reach upstream: with it might go the end of data.
            out.actions.truncate(before);
            out.act(Action::AbandonUpstream);
            self.stage = Stage::Dropping;
        }
        if end.is_some() {
            self.content_ends(out);
        }
        used
    }

    /// More of a message that is refused: counted, and not kept.
    pub(super) fn drop_content(&mut self, rest: &[u8], out: &mut Output) -> usize {
        let (end, findings) = self.session.scan(rest, |_| {});
        let used = end.unwrap_or(rest.len());
        self.recorder.content(used as u64);
        self.recorder.findings(findings, out);
        if end.is_some() {
            self.content_ends(out);
        }
        used
    }

    fn content_ends(&mut self, out: &mut Output) {
        self.recorder.content_ended(Some(self.now), out);
        self.current = Current::default();
        if self.stage == Stage::Dropping {
            self.refuse_message(out);
            self.end_if_drained(out);
        }
    }

    /// The end of a message with bare newlines, in mode `reject`: a client reads replies when it has sent all, and one that
    /// saw its connection break before would come back with the same message. Upstream is lost with it, so that the
    /// session ends as RFC 5321 §3.8 has it.
    fn refuse_message(&mut self, out: &mut Output) {
        self.stage = Stage::Refused;
        self.judgement.refused(Refusal::BareNewline, out);
        let asked = self.session.unanswered();
        self.session.settle();
        // Without: upstream refused it before its end, and that was the reply.
        if let Some(asked) = asked {
            let text =
                "the message has a bare CR or LF; lines end in CRLF (RFC 5321 section 2.3.8)";
            self.send(asked, OwnReply::new(550, EnhancedCode::new(5, 6, 0), text), out);
        }
    }
}
