//! Sessions as they are recorded: what a running gateway tells a recorder, frame by frame.
//!
//! Layer 1. The relay makes the frames, the control socket carries them, `redact` changes them, `app/record` writes them as
//! packets. They tell the client's connection only: what the client said to the gateway and what the gateway said to the
//! client, in the order in which the gateway read and wrote it.

#![warn(clippy::indexing_slicing)]

mod framing;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::{Family, Networks, Side};
use crate::time::Timestamp;

pub(crate) use self::framing::encode_data;
pub use self::framing::{FrameDecoder, FrameError, MAX_FRAME};

/// Which sessions are recorded, and how much of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingFilter {
    /// The client's; `None` is either.
    #[serde(default)]
    pub family: Option<Family>,
    /// The client's; `None` is every address.
    #[serde(default)]
    pub client: Option<IpNet>,
    /// Also the bytes that the gateway would pass on unseen (TLS, long BDAT chunks); without it only how many there were.
    #[serde(default)]
    pub content: bool,
}

impl RecordingFilter {
    pub fn takes(&self, client: SocketAddr) -> bool {
        let of_network = |network: IpNet| Networks::new([network]).contains(client.ip());
        self.family.is_none_or(|family| family == Family::of(client.ip()))
            && self.client.is_none_or(of_network)
    }
}

/// One thing that happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Numbers of the gateway's own, never used twice.
    pub session: u64,
    pub at: Timestamp,
    pub what: FrameBody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameBody {
    /// First of each session.
    Begin { client: SocketAddr, server: SocketAddr },
    /// As the dialogue has them. A gateway that ended TLS itself would say here what it decrypted; there is none today.
    Data { from: Side, bytes: Vec<u8> },
    /// Bytes that were said and are not here.
    Omitted { from: Side, count: u64, reason: Omission },
    /// The client says no more.
    ClientClosed,
    /// Last of each session: the gateway closed its side, or the client broke the connection.
    End { reset: bool, ending: EndSummary },
    /// Sessions that began while the recorder was too slow, and of which nothing is told; `session` means nothing here.
    Missed { sessions: u64 },
}

/// Why bytes are not in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    /// The gateway passed them on unseen.
    Uninspected,
    /// The recorder was too slow.
    Overflow,
    /// Dropped by `redact`.
    Redacted,
}

/// How a session ended and what the policy said of it, in the words of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSummary {
    pub verdict: String,
    pub rule: Option<String>,
    pub reason: Option<String>,
    pub outcome: String,
    /// The answers by which the policy decided, in JSON; of more than [`MAX_ANSWERS`] bytes only how many there were.
    pub answers: Option<String>,
}

/// Bytes of answers that a recording carries for one session: a comment of pcapng holds 64 KiB.
pub const MAX_ANSWERS: usize = 48 << 10;

impl EndSummary {
    /// What is carried of `answers`.
    pub(crate) fn carried(answers: &str) -> Cow<'_, str> {
        match answers.len() {
            ..=MAX_ANSWERS => Cow::Borrowed(answers),
            count => Cow::Owned(format!("omitted, {count} bytes")),
        }
    }
}

/// `gatepost: verdict=reject rule="no mail from there" reason=access_reject outcome=quit`
impl fmt::Display for EndSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gatepost: verdict={}", self.verdict)?;
        if let Some(rule) = &self.rule {
            write!(f, " rule={rule:?}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " reason={reason}")?;
        }
        write!(f, " outcome={}", self.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_knows_the_family_and_the_network() {
        let takes = |family, client: Option<&str>, addr: &str| {
            let client = client.map(|network| network.parse().unwrap());
            let selection = RecordingFilter { family, client, content: false };
            selection.takes(addr.parse().unwrap())
        };
        assert!(takes(None, None, "192.0.2.1:1"));
        assert!(takes(Some(Family::Ipv6), None, "[2001:db8::1]:1"));
        assert!(!takes(Some(Family::Ipv6), None, "192.0.2.1:1"));
        assert!(takes(None, Some("192.0.2.0/24"), "192.0.2.1:1"));
        assert!(takes(None, Some("::ffff:192.0.2.0/120"), "192.0.2.1:1"));
        assert!(!takes(None, Some("2001:db8::/32"), "192.0.2.1:1"));
    }

    #[test]
    fn answers_beyond_the_limit_are_only_counted() {
        let most = "x".repeat(MAX_ANSWERS);
        assert_eq!(EndSummary::carried(&most), most);
        assert_eq!(EndSummary::carried(&(most + "x")), "omitted, 49153 bytes");
    }

    #[test]
    fn an_ending_reads_as_a_comment() {
        let mut ending = EndSummary {
            verdict: "accept".to_owned(),
            rule: None,
            reason: None,
            outcome: "quit".to_owned(),
            answers: None,
        };
        assert_eq!(ending.to_string(), "gatepost: verdict=accept outcome=quit");
        ending.verdict = "reject".to_owned();
        ending.rule = Some("no \"mail\"".to_owned());
        ending.reason = Some("access_reject".to_owned());
        let expected =
            r#"gatepost: verdict=reject rule="no \"mail\"" reason=access_reject outcome=quit"#;
        assert_eq!(ending.to_string(), expected);
    }
}
