//! A transcript as a play: turns of the client, and the replies that it waited for.

use std::collections::VecDeque;
use std::time::Duration;

use super::Answer;
use crate::addr::Side;
use crate::engine::{TranscriptEntry, TranscriptItem};
use crate::smtp::{Command, Reply, ReplyParse, Verb};
use crate::time::Timestamp;

/// Who says what next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A command line, or a line of an AUTH exchange; `pause` since the step before.
    Line {
        octets: Vec<u8>,
        pause: Duration,
    },
    Content {
        octets: Vec<u8>,
        pause: Duration,
    },
    /// A reply that the client read before it went on.
    Reply {
        octets: Vec<u8>,
        asked: Question,
    },
}

/// What a reply answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Connection,
    Line(Vec<u8>),
    /// A message's end.
    Message,
}

impl Question {
    /// As a reader of differences knows it.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Connection => "the connection".to_owned(),
            Self::Line(line) => String::from_utf8_lossy(line.trim_ascii_end()).into_owned(),
            Self::Message => "the end of data".to_owned(),
        }
    }

    pub(super) fn verb(&self) -> Option<Verb> {
        match self {
            Self::Line(line) => Some(Command::parse(line.trim_ascii_end()).verb),
            Self::Connection | Self::Message => None,
        }
    }
}

/// One session's play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub(super) steps: Vec<Step>,
    /// What the server closed on in place of an answer.
    pub(super) unanswered: Vec<Question>,
    /// Why it ends before the recorded client did, in words.
    pub(super) cut_short: Option<&'static str>,
    /// How long the server let a client wait that spoke before its greeting.
    pub(super) greets_after: Duration,
}

/// Why a session cannot be said again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplayable {
    #[error("the client said nothing and no server greeted it")]
    Empty,
    #[error("the capture has holes in it")]
    Holes,
    #[error("the capture does not hold its beginning")]
    Midstream,
    #[error("the capture holds only one direction")]
    OneSided,
}

impl Script {
    /// The play of a whole dialogue.
    ///
    /// # Errors
    /// [`Unplayable`], if octets are missing: what was not captured cannot be said.
    pub fn new(said: &[TranscriptEntry], midstream: bool) -> Result<Self, Unplayable> {
        if midstream {
            return Err(Unplayable::Midstream);
        }
        if said
            .iter()
            .any(|said| matches!(said.what, TranscriptItem::Gap(_) | TranscriptItem::Omitted(_)))
        {
            return Err(Unplayable::Holes);
        }
        let spoke = |side| {
            said.iter()
                .any(|said| said.from == side && !matches!(said.what, TranscriptItem::Closed))
        };
        match (spoke(Side::Client), spoke(Side::Server)) {
            (false, false) => return Err(Unplayable::Empty),
            (true, false) => return Err(Unplayable::OneSided),
            (_, true) => {}
        }
        Ok(Self::of(said))
    }

    fn of(said: &[TranscriptEntry]) -> Self {
        let mut steps = Vec::new();
        let mut pending = VecDeque::from([Question::Connection]);
        let mut in_data = false;
        let mut before: Option<Timestamp> = None;
        let mut greets_after = Duration::ZERO;
        for said in said {
            let pause = before.map_or(Duration::ZERO, |before| said.at - before);
            before = Some(said.at);
            match (&said.what, said.from) {
                (TranscriptItem::Line(octets), Side::Client) => {
                    pending.push_back(Question::Line(octets.clone()));
                    steps.push(Step::Line { octets: octets.clone(), pause });
                    in_data = false;
                }
                (TranscriptItem::Line(octets), Side::Server) => {
                    let Some(asked) = pending.pop_front() else {
                        continue; // A reply to nothing: nobody waited for it.
                    };
                    if asked == Question::Connection && !steps.is_empty() {
                        greets_after = pause;
                    }
                    in_data = code(octets) == Some(354) && asked.verb() == Some(Verb::Data);
                    steps.push(Step::Reply { octets: octets.clone(), asked });
                }
                (TranscriptItem::Content(octets), _) => {
                    if in_data {
                        pending.push_back(Question::Message);
                        in_data = false;
                    }
                    steps.push(Step::Content { octets: octets.clone(), pause });
                }
                (TranscriptItem::Encrypted(_), _) => {
                    let why = Some("what follows STARTTLS is encrypted");
                    return Self { steps, unanswered: Vec::new(), cut_short: why, greets_after };
                }
                (
                    TranscriptItem::Gap(_) | TranscriptItem::Omitted(_) | TranscriptItem::Closed,
                    _,
                ) => {}
            }
        }
        let closed = said.iter().find(|said| said.what == TranscriptItem::Closed);
        if pending.is_empty() || closed.is_some_and(|closed| closed.from == Side::Server) {
            return Self { steps, unanswered: pending.into(), cut_short: None, greets_after };
        }
        // What the server would have said cannot be compared with what one says now.
        let answered = steps.iter().rposition(|step| matches!(step, Step::Reply { .. }));
        steps.truncate(answered.map_or(0, |last| last + 1));
        let why = Some("the capture holds no answer to what follows");
        Self { steps, unanswered: Vec::new(), cut_short: why, greets_after }
    }
}

pub(super) fn code(reply: &[u8]) -> Option<u16> {
    match Reply::parse(reply) {
        ReplyParse::Complete(reply) => Some(reply.code),
        ReplyParse::Incomplete | ReplyParse::Malformed => None,
    }
}

/// A reply as an [`Answer`]: the text of its last line.
pub(super) fn answer(reply: &[u8]) -> Answer {
    let Some(code) = code(reply) else {
        return Answer::Silence;
    };
    let last = reply.trim_ascii_end().rsplit(|&b| b == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(last.get(4..).unwrap_or_default()).into_owned();
    Answer::Reply { code, text }
}
