//! A transcript as a scenario: the client's sends, and the replies that it waited for.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::addr::Side;
use crate::engine::{TranscriptEntry, TranscriptItem};
use crate::smtp::{Command, Reply, ReplyParse, Verb};
use crate::smtp_connection::ReplyResult;
use crate::time::Timestamp;

const ENCRYPTED: &str = "what follows STARTTLS is encrypted";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScenarioStep {
    /// A command line, or a line of an AUTH exchange; `pause` is the time since the step before.
    Line {
        bytes: Vec<u8>,
        pause: Duration,
    },
    Content {
        bytes: Vec<u8>,
        pause: Duration,
    },
    /// A reply that the client read before it continued.
    Reply {
        bytes: Vec<u8>,
        to: ReplyTo,
    },
}

/// The event that a reply answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReplyTo {
    Connection,
    Line(Vec<u8>),
    /// End of data.
    Message,
}

impl ReplyTo {
    pub(super) fn verb(&self) -> Option<Verb> {
        match self {
            Self::Line(line) => Some(Command::parse(line.trim_ascii_end()).verb),
            Self::Connection | Self::Message => None,
        }
    }
}

/// For the report of differences.
impl fmt::Display for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => f.write_str("the connection"),
            Self::Line(line) => f.write_str(&String::from_utf8_lossy(line.trim_ascii_end())),
            Self::Message => f.write_str("the end of data"),
        }
    }
}

/// One session to re-enact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub(super) steps: Vec<ScenarioStep>,
    /// Still without a reply when the server closed the connection.
    pub(super) unanswered: Vec<ReplyTo>,
    /// Why it ends before the recorded client did.
    pub(super) cut_short: Option<&'static str>,
    /// Delay of the greeting after a client that sent first.
    pub(super) greeting_delay: Duration,
}

/// Why a session cannot be re-enacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    #[error("the session has no greeting and no command")]
    Empty,
    #[error("the capture has gaps in it")]
    Gaps,
    #[error("the capture does not hold its beginning")]
    Midstream,
    #[error("the capture holds only one direction")]
    OneSided,
}

impl Scenario {
    /// Builds the scenario of a whole dialogue.
    ///
    /// # Errors
    /// Bytes are missing from the capture, so they cannot be sent.
    pub fn new(transcript: &[TranscriptEntry], midstream: bool) -> Result<Self, NotReplayable> {
        if midstream {
            return Err(NotReplayable::Midstream);
        }
        let is_gap = |entry: &TranscriptEntry| {
            matches!(entry.item, TranscriptItem::Gap(_) | TranscriptItem::Omitted(_))
        };
        if transcript.iter().any(is_gap) {
            return Err(NotReplayable::Gaps);
        }
        let has_data_from = |side| {
            let mut entries = transcript.iter();
            entries.any(|entry| entry.from == side && entry.item != TranscriptItem::Closed)
        };
        match (has_data_from(Side::Client), has_data_from(Side::Server)) {
            (false, false) => Err(NotReplayable::Empty),
            (true, false) => Err(NotReplayable::OneSided),
            (_, true) => Ok(Self::from_complete(transcript)),
        }
    }

    /// The first reply; empty if there is none.
    pub(super) fn greeting(&self) -> &[u8] {
        let greeting = self.steps.iter().find_map(|step| match step {
            ScenarioStep::Reply { bytes, to: ReplyTo::Connection } => Some(bytes.as_slice()),
            _ => None,
        });
        greeting.unwrap_or_default()
    }

    fn from_complete(transcript: &[TranscriptEntry]) -> Self {
        let mut steps = Vec::new();
        let mut pending = VecDeque::from([ReplyTo::Connection]);
        let mut in_data = false;
        let mut before: Option<Timestamp> = None;
        let mut greeting_delay = Duration::ZERO;
        for entry in transcript {
            let pause = before.map_or(Duration::ZERO, |before| entry.at - before);
            before = Some(entry.at);
            match (&entry.item, entry.from) {
                (TranscriptItem::Line(bytes), Side::Client) => {
                    pending.push_back(ReplyTo::Line(bytes.clone()));
                    steps.push(ScenarioStep::Line { bytes: bytes.clone(), pause });
                    in_data = false;
                }
                (TranscriptItem::Line(bytes), Side::Server) => {
                    let Some(to) = pending.pop_front() else {
                        continue; // An unsolicited reply: no client waits for it.
                    };
                    if to == ReplyTo::Connection && !steps.is_empty() {
                        greeting_delay = pause;
                    }
                    in_data =
                        parse_response(bytes).code() == Some(354) && to.verb() == Some(Verb::Data);
                    steps.push(ScenarioStep::Reply { bytes: bytes.clone(), to });
                }
                (TranscriptItem::Content(bytes), _) => {
                    if in_data {
                        pending.push_back(ReplyTo::Message);
                        in_data = false;
                    }
                    steps.push(ScenarioStep::Content { bytes: bytes.clone(), pause });
                }
                (TranscriptItem::Encrypted(_), _) => {
                    let cut_short = Some(ENCRYPTED);
                    return Self { steps, unanswered: Vec::new(), cut_short, greeting_delay };
                }
                (
                    TranscriptItem::Gap(_) | TranscriptItem::Omitted(_) | TranscriptItem::Closed,
                    _,
                ) => {}
            }
        }
        let closed = transcript.iter().find(|entry| entry.item == TranscriptItem::Closed);
        if pending.is_empty() || closed.is_some_and(|closed| closed.from == Side::Server) {
            return Self { steps, unanswered: pending.into(), cut_short: None, greeting_delay };
        }
        // Without a recorded reply there is nothing to compare a live one with.
        let last_reply = steps.iter().rposition(|step| matches!(step, ScenarioStep::Reply { .. }));
        steps.truncate(last_reply.map_or(0, |last| last + 1));
        let cut_short = Some("the capture holds no answer to what follows");
        Self { steps, unanswered: Vec::new(), cut_short, greeting_delay }
    }
}

/// A recorded reply as the response that it was.
pub(super) fn parse_response(reply: &[u8]) -> ReplyResult {
    match Reply::parse(reply) {
        ReplyParse::Complete(reply) => ReplyResult::from(&reply),
        ReplyParse::Incomplete | ReplyParse::Malformed => ReplyResult::Timeout,
    }
}
