//! Bytes from the client.

use super::{Proxy, State};
use crate::addr::Side;
use crate::engine::event::{Outcome, Refusal};
use crate::engine::options::Pregreet;
use crate::engine::output::{Action, Output};
use crate::smtp::{
    ClientEvent, Command, EnhancedCode, ExpectedReply, Junk, Line, OwnCommand, OwnReply, Split,
    Verb, Wait,
};
use crate::time::Timestamp;

/// The result of one event.
enum Progress {
    Consumed(usize),
    /// The rest cannot be consumed: it is incomplete, or `blocked` until a reply or a decision.
    Stop {
        blocked: bool,
    },
}

impl Proxy {
    /// The client's bytes, those not consumed before in front. Returns how many were consumed.
    pub fn on_client_data(&mut self, input: &[u8], at: Timestamp, out: &mut Output) -> usize {
        self.now = at;
        let mut used = 0;
        self.client_blocked = false;
        while used < input.len() {
            if self.is_closing() || self.state == State::Quitting {
                used = input.len(); // After the end nothing is answered.
                break;
            }
            match self.client_step(input, used, out) {
                Progress::Consumed(count) => used += count,
                Progress::Stop { blocked } => {
                    self.client_blocked = blocked;
                    break;
                }
            }
        }
        if used > 0 {
            if !self.session.is_skipping_line() {
                self.on_progress(Side::Client, used as u64);
            }
            self.record.count_bytes(Side::Client, used as u64, out);
        }
        if self.client_closed {
            self.on_client_closed(out);
        }
        used
    }

    fn client_step(&mut self, input: &[u8], from: usize, out: &mut Output) -> Progress {
        let rest = input.get(from..).unwrap_or_default();
        match self.state {
            State::RejectedGreeting => return self.rejected_greeting_step(rest, out),
            State::DiscardingData => return Progress::Consumed(self.discard_content(rest, out)),
            State::RejectedMessage => return self.rejected_message_step(rest, out),
            State::Running | State::Quitting | State::Closing(_) => {}
        }
        match self.session.client(rest) {
            ClientEvent::Incomplete => Progress::Stop { blocked: false },
            ClientEvent::Waiting(wait) => {
                self.on_early_data(wait, out);
                if self.state == State::RejectedGreeting {
                    return Progress::Consumed(0); // The wait is over.
                }
                if wait == Wait::Greeting {
                    if let Some(junk) = Junk::recognise(rest) {
                        self.on_junk(junk, out);
                        return Progress::Consumed(rest.len());
                    }
                    if self.forwards_early_data() {
                        self.session.admit_early_data();
                        return Progress::Consumed(0); // The wait is over.
                    }
                    let waits = self.greeting_is_held || self.upstream_tls.is_pending();
                    if waits && rest.contains(&b'\n') {
                        self.announce_early_data(out);
                    }
                }
                Progress::Stop { blocked: true }
            }
            // Sent at once, 554 would answer a pending command, perhaps a message. Before the greeting there is none.
            ClientEvent::Junk(_) if self.session.has_pending() && !self.awaits_greeting() => {
                Progress::Stop { blocked: true }
            }
            ClientEvent::Junk(junk) => {
                self.on_junk(junk, out);
                Progress::Consumed(rest.len())
            }
            ClientEvent::Command { line, command } => {
                if self.begin_exchanges(&command, out) || self.must_wait(line, &command, out) {
                    self.announce_early_data(out);
                    return Progress::Stop { blocked: true };
                }
                // The reply ends the session: those before it come first.
                if self.session.has_pending() && self.ends_session(line, &command) {
                    self.announce_early_data(out);
                    return Progress::Stop { blocked: true };
                }
                self.early_data_counted = false;
                let has_more = rest.len() > line.len();
                self.on_command(line, &command, from, has_more, out);
                self.announce_early_data(out);
                Progress::Consumed(line.len())
            }
            ClientEvent::TooLong { len, done, auth } => {
                if done {
                    self.on_long_line(auth, out);
                    self.announce_early_data(out);
                }
                Progress::Consumed(len)
            }
            ClientEvent::AuthLine(line) => {
                self.on_auth_line(line, from, out);
                Progress::Consumed(line.len())
            }
            ClientEvent::Content => Progress::Consumed(self.on_content(rest, from, out)),
            ClientEvent::Chunk { len, wanted } => {
                self.on_chunk(rest.get(..len).unwrap_or_default(), from, wanted, out);
                Progress::Consumed(len)
            }
            ClientEvent::Plaintext { len } => {
                self.on_plaintext_after_starttls(out);
                Progress::Consumed(len)
            }
            ClientEvent::Opaque => {
                self.on_tls_bytes(Side::Client, rest);
                out.forward(from..from + rest.len());
                Progress::Consumed(rest.len())
            }
        }
    }

    /// Data that the client sends before the greeting goes to upstream when it comes, so that a test of upstream's own detects
    /// it (rule 1 of ARCHITECTURE.md): not if the gateway's test replaces that one, not while the policy may yet reject in place
    /// of the greeting, not before XCLIENT, which names the client, and not where TLS with upstream comes first.
    fn forwards_early_data(&self) -> bool {
        self.has_upstream
            && !self.greeting_is_held
            && !self.profile.xclient
            && !self.upstream_tls.is_pending()
            && self.profile.smtp.pregreet == Pregreet::Accept
    }

    /// A line came before the greeting, and nothing of it went to upstream: NOOP represents it.
    fn announce_early_data(&mut self, out: &mut Output) {
        let is_running = self.state == State::Running;
        let is_early = is_running && self.session.only_greeting_is_expected();
        let detects = !self.profile.xclient && self.profile.smtp.pregreet == Pregreet::Accept;
        if is_early && detects && self.has_upstream {
            out.act(Action::ToUpstream(b"NOOP\r\n".to_vec()));
            self.session.expect(ExpectedReply::Own(OwnCommand::Noop));
        }
    }

    fn on_junk(&mut self, junk: Junk, out: &mut Output) {
        self.record.anomaly(junk.into(), out);
        self.checks.on_refusal(Refusal::Junk, out);
        let text = "not SMTP; this is an SMTP server";
        let reply = OwnReply::new(554, EnhancedCode::new(5, 5, 1), text);
        self.send(&ExpectedReply::Other, reply, out);
        out.act(Action::AbandonUpstream);
        self.close(Outcome::Protocol, out);
    }

    /// After a 554 greeting: 503 to everything, until QUIT.
    fn rejected_greeting_step(&mut self, rest: &[u8], out: &mut Output) -> Progress {
        let line = match Line::split(rest, self.profile.limits.line_length) {
            Split::Line(line) => line,
            Split::Incomplete => return Progress::Stop { blocked: false },
            Split::TooLong => {
                self.close(Outcome::Refused, out);
                return Progress::Consumed(rest.len());
            }
        };
        let command = Command::parse(line.text);
        self.record.on_command(line, &command, self.now, out);
        let expected = ExpectedReply::to(&command);
        if command.verb == Verb::Quit {
            self.send_now(expected, OwnReply::new(221, EnhancedCode::new(2, 0, 0), "Bye"), out);
            self.close(Outcome::Refused, out);
        } else if self.checks.too_many_errors() {
            let code = EnhancedCode::new(4, 7, 0);
            let text = "too many errors";
            self.fail_reply_to(expected, code, text, Refusal::LimitErrors, Outcome::Limit, out);
        } else {
            self.checks.count_error();
            let text = "access denied; only QUIT is accepted";
            self.send_now(expected, OwnReply::new(503, EnhancedCode::new(5, 5, 1), text), out);
        }
        Progress::Consumed(line.len())
    }

    /// After a rejected message: upstream is gone.
    fn rejected_message_step(&mut self, rest: &[u8], out: &mut Output) -> Progress {
        let expected = match Line::split(rest, self.profile.limits.line_length) {
            Split::Incomplete => return Progress::Stop { blocked: false },
            Split::TooLong => ExpectedReply::Other,
            Split::Line(line) => {
                let command = Command::parse(line.text);
                self.record.on_command(line, &command, self.now, out);
                ExpectedReply::to(&command)
            }
        };
        if expected == ExpectedReply::Quit {
            self.send_now(expected, OwnReply::new(221, EnhancedCode::new(2, 0, 0), "Bye"), out);
            self.close(Outcome::Quit, out);
        } else {
            let text = format!("{} only QUIT was expected; closing", self.profile.smtp.hostname);
            self.send_now(expected, OwnReply::new(421, EnhancedCode::new(4, 3, 2), &text), out);
            self.close(Outcome::Protocol, out);
        }
        Progress::Consumed(rest.len())
    }

    /// The client sends no more. Bytes that it sent may still be blocked.
    pub(super) fn on_client_closed(&mut self, out: &mut Output) {
        if self.client_blocked || self.is_closing() || self.state == State::Quitting {
            return;
        }
        if self.state == State::Running && self.session.end_is_withheld() {
            return; // The client may still read the reply to its message.
        }
        if self.state == State::RejectedGreeting {
            self.close(Outcome::Refused, out);
        } else if self.session.in_handshake() {
            self.on_closed_in_handshake(out);
        } else if matches!(self.state, State::DiscardingData | State::RejectedMessage) {
            self.close(Outcome::ClientClosed, out);
        } else if self.session.is_opaque() {
            if !self.upstream_shutdown_sent {
                self.upstream_shutdown_sent = true;
                out.act(Action::ShutdownUpstream);
            }
            if self.upstream_closed {
                self.close(Outcome::UpstreamClosed, out);
            }
        } else if self.session.in_content() {
            out.act(Action::AbandonUpstream);
            self.close(Outcome::ClientClosed, out);
        } else if !self.session.has_pending() || self.session.only_greeting_is_expected() {
            self.close(Outcome::ClientClosed, out);
        }
        // Otherwise the client may still read pending replies; `on_server_data` checks again after each.
    }
}
