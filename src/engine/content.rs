//! Messages: content after DATA, and the chunks of BDAT.

use super::{Action, Anomaly, BareNewlines, Current, Engine, Output, Refusal, Stage};
use crate::smtp::{Asked, Command, EnhancedCode, Findings, Line, OwnReply, Piece};
use crate::time::Timestamp;

impl Engine {
    pub(super) fn content(
        &mut self,
        rest: &[u8],
        from: usize,
        at: Timestamp,
        out: &mut Output,
    ) -> usize {
        // The 354 had to come first, so content is always the first thing in an input, and nothing precedes its actions.
        let before = out.actions.len();
        let (end, findings) = self.session.scan(rest, |piece| match piece {
            Piece::Input(range) => out.forward(from + range.start..from + range.end),
            Piece::Insert(bytes) => out.act(Action::Insert(bytes)),
        });
        let used = end.unwrap_or(rest.len());
        self.recorder.content(used as u64);
        let bare = self.findings(findings, out);
        if bare && self.profile.smtp.bare_newlines == BareNewlines::Reject {
            // Nothing of this chunk may reach upstream: with it might go the end of data.
            out.actions.truncate(before);
            out.act(Action::AbandonUpstream);
            self.stage = Stage::Dropping;
        }
        if end.is_some() {
            self.content_ends(at, out);
        }
        used
    }

    /// More of a message that is refused: counted, and not kept.
    pub(super) fn drop_content(&mut self, rest: &[u8], at: Timestamp, out: &mut Output) -> usize {
        let (end, findings) = self.session.scan(rest, |_| {});
        let used = end.unwrap_or(rest.len());
        self.recorder.content(used as u64);
        self.findings(findings, out);
        if end.is_some() {
            self.content_ends(at, out);
        }
        used
    }

    fn content_ends(&mut self, at: Timestamp, out: &mut Output) {
        self.recorder.content_ended(at, out);
        if self.stage == Stage::Dropping {
            self.refuse_message(at, out);
        }
        self.current = Current::default();
        if self.stage == Stage::Refused {
            self.end_if_drained(out);
        }
    }

    /// Counts what a message newly shows. Returns whether it has bare newlines.
    fn findings(&mut self, findings: Findings, out: &mut Output) -> bool {
        let found = [
            (findings.bare_lf, Anomaly::BareLf),
            (findings.bare_cr, Anomaly::BareCr),
            (findings.smuggling, Anomaly::Smuggling),
            (findings.long_line, Anomaly::TextLineTooLong),
        ];
        for (_, anomaly) in found.into_iter().filter(|(is, _)| *is) {
            self.recorder.anomaly_of_message(anomaly, out);
        }
        findings.bare_lf || findings.bare_cr
    }

    /// The end of a message with bare newlines, in mode `reject`: a client reads replies when it has sent all, and one that
    /// saw its connection break before would come back with the same message. Upstream is lost with it, so that the
    /// session ends as RFC 5321 §3.8 has it.
    fn refuse_message(&mut self, at: Timestamp, out: &mut Output) {
        self.stage = Stage::Refused;
        self.recorder.refusal(Refusal::BareNewline, out);
        // A refusal that upstream gave before the end was the reply already.
        if self.session.owes_message() {
            let text =
                "the message has a bare CR or LF; lines end in CRLF (RFC 5321 section 2.3.8)";
            self.send(OwnReply::new(550, EnhancedCode::new(5, 6, 0), text), out);
            self.recorder.message_code(self.current.number, 550, at, out);
        }
    }

    pub(super) fn bdat(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        from: usize,
        at: Timestamp,
        out: &mut Output,
    ) {
        let Ok(chunk) = command.chunk() else {
            self.recorder.anomaly(Anomaly::BadSyntax, out);
            self.recorder.refusal(Refusal::CommandSyntax, out);
            let text = "BDAT wants an octet count and optionally LAST";
            return self.answer(501, EnhancedCode::new(5, 5, 4), text, out);
        };
        // An upstream that did not offer CHUNKING would read the octets as commands, and we would not see them.
        let wanted = self.extensions.chunking && !self.all_refused();
        self.session.expect_chunk(chunk, wanted);
        if !wanted {
            if chunk.size == 0 {
                self.unwanted_chunk(out);
            }
            return;
        }
        let transaction = self.current.number;
        if !self.current.chunking {
            self.current.chunking = true;
            self.recorder.content_begins(transaction, true, at, out);
        }
        let asked =
            if chunk.last { Asked::Message { transaction } } else { Asked::Chunk { transaction } };
        if line.text.eq_ignore_ascii_case(chunk.as_command().as_bytes()) {
            self.forward(line, from, asked, out);
        } else {
            // The size must be read in one way only: no leading zeros, no odd white space.
            out.act(Action::ToUpstream(format!("{}\r\n", chunk.as_command()).into_bytes()));
            self.session.ask(asked);
        }
        if chunk.last {
            // What is said next belongs to no transaction, whenever the reply comes.
            self.current = Current::default();
            if chunk.size == 0 {
                self.recorder.content_ended(at, out);
            }
        }
    }

    /// A chunk that upstream did not get is over.
    pub(super) fn unwanted_chunk(&mut self, out: &mut Output) {
        if self.extensions.chunking {
            self.no_recipients(out);
        } else {
            self.not_offered(out);
        }
    }
}
