//! What the client says, and what becomes of it.

use super::{Action, Anomaly, Direction, Engine, Outcome, Output, Refusal, Side, Stage};
use crate::smtp::{
    Command, EnhancedCode, ExpectedReply, Item, Junk, Line, OwnReply, Split, Verb, Wait,
};
use crate::time::Timestamp;

/// What one item made of the input.
enum Step {
    Consumed(usize),
    /// Nothing more can be done with what there is: too little, or a reply has to come first.
    Stop {
        waiting: bool,
    },
}

impl Engine {
    /// The client's bytes, those not consumed before in front. Returns how many were consumed.
    pub fn client(&mut self, input: &[u8], at: Timestamp, out: &mut Output) -> usize {
        self.now = at;
        let mut used = 0;
        self.held_back = false;
        while used < input.len() {
            if self.is_closing() || self.stage == Stage::Leaving {
                used = input.len(); // After the end nobody answers.
                break;
            }
            match self.client_step(input, used, out) {
                Step::Consumed(count) => used += count,
                Step::Stop { waiting } => {
                    self.held_back = waiting;
                    break;
                }
            }
        }
        if used > 0 {
            self.active = at;
            self.recorder.bytes(Side::Client, used as u64, out);
        }
        if self.client_closed {
            self.client_is_closed(out);
        }
        used
    }

    fn client_step(&mut self, input: &[u8], from: usize, out: &mut Output) -> Step {
        let rest = input.get(from..).unwrap_or_default();
        match self.stage {
            Stage::TurnedAway => return self.turned_away_step(rest, out),
            Stage::Dropping => return Step::Consumed(self.drop_content(rest, out)),
            Stage::Refused => return self.refused_step(rest, out),
            Stage::Running | Stage::Leaving | Stage::Closing(_) => {}
        }
        match self.session.client(rest) {
            Item::Incomplete => Step::Stop { waiting: false },
            Item::Waiting(wait) => {
                self.impatient(wait, out);
                if self.stage == Stage::TurnedAway {
                    return Step::Consumed(0); // Nothing is waited for any more.
                }
                if wait == Wait::Greeting
                    && let Some(junk) = Junk::before_greeting(rest)
                {
                    self.junk(junk, out);
                    return Step::Consumed(rest.len());
                }
                Step::Stop { waiting: true }
            }
            // Told at once, 554 would be read as the reply to what is still with upstream; a message, say.
            Item::Junk(_) if self.session.has_pending() => Step::Stop { waiting: true },
            Item::Junk(junk) => {
                self.junk(junk, out);
                Step::Consumed(rest.len())
            }
            Item::Command { line, command } => {
                if self.introduce(&command, out) {
                    return Step::Stop { waiting: true };
                }
                if self.must_wait(&command, out) {
                    return Step::Stop { waiting: true };
                }
                self.impatience_counted = false;
                self.command(line, &command, from, out);
                Step::Consumed(line.len())
            }
            Item::TooLong { len, done, auth } => {
                if done {
                    self.too_long(auth, out);
                }
                Step::Consumed(len)
            }
            Item::AuthLine(line) => {
                self.auth_line(line, from, out);
                Step::Consumed(line.len())
            }
            Item::Content => Step::Consumed(self.content(rest, from, out)),
            Item::Chunk { len, wanted } => {
                if wanted {
                    out.forward(from..from + len);
                }
                self.chunk_passed(len as u64, out);
                Step::Consumed(len)
            }
            Item::Plaintext { len } => {
                self.plaintext_after_starttls(out);
                Step::Consumed(len)
            }
            Item::Opaque => {
                self.hear_hello(Side::Client, rest);
                out.forward(from..from + rest.len());
                Step::Consumed(rest.len())
            }
        }
    }

    fn junk(&mut self, junk: Junk, out: &mut Output) {
        self.recorder.anomaly(junk.into(), out);
        self.judgement.refused(Refusal::Junk, out);
        let text = "this is an SMTP server; that was not SMTP";
        self.send(ExpectedReply::Other, OwnReply::new(554, EnhancedCode::new(5, 5, 1), text), out);
        out.act(Action::AbandonUpstream);
        self.close(Outcome::Protocol, out);
    }

    /// After a 554 greeting: 503 to everything, until QUIT.
    fn turned_away_step(&mut self, rest: &[u8], out: &mut Output) -> Step {
        let line = match Line::split(rest, self.profile.limits.line_length) {
            Split::Line(line) => line,
            Split::Incomplete => return Step::Stop { waiting: false },
            Split::TooLong => {
                self.close(Outcome::Refused, out);
                return Step::Consumed(rest.len());
            }
        };
        let command = Command::parse(line.text);
        let asked = self.recorder.command(line, &command, self.now, out);
        if command.verb == Verb::Quit {
            self.send(asked, OwnReply::new(221, EnhancedCode::new(2, 0, 0), "goodbye"), out);
            self.close(Outcome::Refused, out);
        } else if self.judgement.too_many_errors() {
            let code = EnhancedCode::new(4, 7, 0);
            let text = "too many errors";
            self.fail_instead(asked, code, text, Refusal::LimitErrors, Outcome::Limit, out);
        } else {
            let text = "access was refused; only QUIT is left";
            self.send(asked, OwnReply::new(503, EnhancedCode::new(5, 5, 1), text), out);
        }
        Step::Consumed(line.len())
    }

    /// After a refused message: upstream is gone.
    fn refused_step(&mut self, rest: &[u8], out: &mut Output) -> Step {
        let (command, asked) = match Line::split(rest, self.profile.limits.line_length) {
            Split::Incomplete => return Step::Stop { waiting: false },
            Split::TooLong => (None, ExpectedReply::Other),
            Split::Line(line) => {
                let command = Command::parse(line.text);
                (Some(command.verb), self.recorder.command(line, &command, self.now, out))
            }
        };
        if command == Some(Verb::Quit) {
            self.send(asked, OwnReply::new(221, EnhancedCode::new(2, 0, 0), "goodbye"), out);
            self.close(Outcome::Quit, out);
        } else {
            let text = format!("{} only QUIT was left; closing", self.profile.smtp.hostname);
            self.send(asked, OwnReply::new(421, EnhancedCode::new(4, 3, 2), &text), out);
            self.close(Outcome::Protocol, out);
        }
        Step::Consumed(rest.len())
    }

    /// The client will send no more. What it sent may still wait for a reply to be understood.
    pub(super) fn client_is_closed(&mut self, out: &mut Output) {
        if self.held_back || self.is_closing() || self.stage == Stage::Leaving {
            return;
        }
        if self.stage == Stage::TurnedAway {
            self.close(Outcome::Refused, out);
        } else if matches!(self.stage, Stage::Dropping | Stage::Refused) {
            self.close(Outcome::ClientClosed, out);
        } else if self.session.is_opaque() {
            if !self.upstream_told {
                self.upstream_told = true;
                out.act(Action::ShutdownUpstream);
            }
            if self.upstream_closed {
                self.close(Outcome::UpstreamClosed, out);
            }
        } else if self.session.in_content() {
            out.act(Action::AbandonUpstream);
            self.close(Outcome::ClientClosed, out);
        } else if !self.session.has_pending() || self.awaits_greeting() {
            self.close(Outcome::ClientClosed, out);
        }
        // Else the replies that the client may still read come first; `upstream` looks again after each.
    }
}

impl From<Junk> for Anomaly {
    fn from(junk: Junk) -> Self {
        match junk {
            Junk::Http => Self::JunkHttp,
            Junk::Tls => Self::JunkTls,
            Junk::Proxy => Self::JunkProxy,
        }
    }
}

impl Side {
    pub(super) const fn direction(self) -> Direction {
        match self {
            Self::Client => Direction::ClientToUpstream,
            Self::Server => Direction::UpstreamToClient,
        }
    }
}
