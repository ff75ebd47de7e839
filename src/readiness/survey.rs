//! What a call of a mail server showed.

use std::net::IpAddr;
use std::time::Duration;

/// One call: connection, greeting, EHLO, something large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    pub reached: Reached,
    pub greeting: Spoken,
    /// Of EHLO, or of HELO where that is not known.
    pub ehlo: Spoken,
    pub path: Option<Path>,
}

impl Survey {
    /// One that came to nothing else.
    pub const fn only(reached: Reached) -> Self {
        Self { reached, greeting: Spoken::NotAsked, ehlo: Spoken::NotAsked, path: None }
    }
}

/// What became of the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// After that time.
    Yes(Duration),
    /// RST, or an ICMP error.
    Refused,
    /// Nothing came back for that long.
    Silent(Duration),
    /// This host has no way to there, or no means left.
    NoWay,
    /// The time for all of it was over before.
    Late,
}

/// What the server said, as far as it came to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    NotAsked,
    Said(Exchange),
    /// Nothing came for that long.
    Stalled(Duration),
    /// It hung up.
    Closed,
    /// No SMTP.
    Nonsense,
}

impl Spoken {
    pub(super) const fn said(&self) -> Option<&Exchange> {
        match self {
            Self::Said(said) => Some(said),
            _ => None,
        }
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub code: u16,
    /// Texts of the lines, as they came but for what is no UTF-8.
    pub lines: Vec<String>,
    pub took: Duration,
}

impl Exchange {
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
pub struct Path {
    /// Where it goes out.
    pub local: Option<IpAddr>,
    /// What the kernel takes for the largest packet that gets there (IPV6_MTU, IP_MTU).
    pub mtu: Option<u32>,
    /// Octets of a full segment (TCP_MAXSEG).
    pub mss: Option<u32>,
    pub large: Large,
}

/// What became of full segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large {
    /// Nobody may send several commands at once there: it offers no PIPELINING.
    NotTried,
    /// This many octets were answered.
    LookupResult(usize),
    /// They were not, for that long.
    Stalled(Duration),
    /// The server hung up over them.
    TurnedAway,
}
