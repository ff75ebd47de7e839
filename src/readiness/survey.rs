//! What a call of a mail server showed.

use std::net::IpAddr;
use std::time::Duration;

/// One call: connection, greeting, EHLO, something large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    pub reached: ConnectResult,
    pub greeting: ReplyResult,
    /// Of EHLO, or of HELO where that is not known.
    pub ehlo: ReplyResult,
    pub path: Option<NetworkPath>,
}

impl Survey {
    /// One that came to nothing else.
    pub const fn only(reached: ConnectResult) -> Self {
        Self {
            reached,
            greeting: ReplyResult::NotRequested,
            ehlo: ReplyResult::NotRequested,
            path: None,
        }
    }
}

/// What became of the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectResult {
    /// After that time.
    Connected(Duration),
    /// RST, or an ICMP error.
    Refused,
    /// Nothing came back for that long.
    NoResponse(Duration),
    /// This host has no way to there, or no means left.
    NoRoute,
    /// The time for all of it was over before.
    OutOfTime,
}

/// What the server said, as far as it came to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyResult {
    NotRequested,
    Received(SurveyReply),
    /// Nothing came for that long.
    TimedOut(Duration),
    /// It hung up.
    Closed,
    /// No SMTP.
    NotSmtp,
}

impl ReplyResult {
    pub(super) const fn said(&self) -> Option<&SurveyReply> {
        match self {
            Self::Received(said) => Some(said),
            _ => None,
        }
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyReply {
    pub code: u16,
    /// Texts of the lines, as they came but for what is no UTF-8.
    pub lines: Vec<String>,
    pub took: Duration,
}

impl SurveyReply {
    /// The first word of the first line: a host's name in a greeting and in an answer to EHLO (RFC 5321 §4.2).
    pub(super) fn name(&self) -> &str {
        self.lines.first().and_then(|line| line.split_whitespace().next()).unwrap_or_default()
    }

    pub(super) fn offers(&self, keyword: &str) -> bool {
        let words = self.lines.iter().skip(1).filter_map(|line| line.split_whitespace().next());
        words.into_iter().any(|word| word.eq_ignore_ascii_case(keyword))
    }
}

/// What this host knows of the way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPath {
    /// Where it goes out.
    pub local: Option<IpAddr>,
    /// What the kernel takes for the largest packet that gets there (IPV6_MTU, IP_MTU).
    pub mtu: Option<u32>,
    /// Octets of a full segment (TCP_MAXSEG).
    pub mss: Option<u32>,
    pub large: LargeProbe,
}

/// What became of full segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeProbe {
    /// Nobody may send several commands at once there: it offers no PIPELINING.
    NotTried,
    /// This many octets were answered.
    Answered(usize),
    /// They were not, for that long.
    Stalled(Duration),
    /// The server hung up over them.
    Closed,
}
