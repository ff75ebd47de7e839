//! Recorded sessions, as a running gateway sends them to a recorder: one frame for each event.
//!
//! Layer 1. `relay` makes the frames, the control socket carries them, `redact` changes them, `app/record` writes them as
//! packets. They describe the client's connection only, in the order in which the gateway read and wrote it.

#![warn(clippy::indexing_slicing)]

mod framing;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::addr::{Family, Networks, Side};
use crate::time::Timestamp;

pub(crate) use self::framing::encode_data;
pub use self::framing::{FrameDecoder, FrameError, MAX_FRAME};

/// Selects the sessions to record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingFilter {
    /// Client family; `None` matches both.
    #[serde(default)]
    pub family: Option<Family>,
    /// Client network; `None` matches every address.
    #[serde(default)]
    pub client: Option<IpNet>,
    /// Record also the bytes that the gateway passes on without inspection (TLS, long BDAT chunks). Otherwise only their
    /// number is recorded.
    #[serde(default)]
    pub content: bool,
}

impl RecordingFilter {
    pub fn matches(&self, client: SocketAddr) -> bool {
        let in_network = |network: IpNet| Networks::new([network]).contains(client.ip());
        self.family.is_none_or(|family| family == Family::of(client.ip()))
            && self.client.is_none_or(in_network)
    }
}

/// One event of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Session number, unique during the gateway's lifetime.
    pub session: u64,
    pub at: Timestamp,
    pub body: FrameBody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameBody {
    /// First frame of each session. `listener` is the name of the one that accepted it.
    Begin { client: SocketAddr, server: SocketAddr, listener: Arc<str> },
    /// Bytes as sent on the client's connection.
    Data { from: Side, bytes: Vec<u8> },
    /// `count` bytes that were sent and are not recorded.
    Omitted { from: Side, count: u64, reason: Omission },
    /// The client closed its sending side.
    ClientClosed,
    /// Last frame of each session: the gateway closed its side, or the client reset the connection.
    End { reset: bool, summary: EndSummary },
    /// Sessions that are missing because the recorder was too slow when they began; the frame's `session` is 0.
    Missed { sessions: u64 },
}

/// Why bytes are missing from a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    /// The gateway passed them on without inspection.
    Uninspected,
    /// The recorder was too slow.
    Overflow,
    /// Removed by `redact`.
    Redacted,
}

/// Outcome of a session and the policy's verdict, with the values of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSummary {
    pub verdict: String,
    pub rule: Option<String>,
    pub reason: Option<String>,
    pub outcome: String,
    /// The version of the TLS that the gateway ended: what was inside it is recorded.
    pub decrypted: Option<String>,
    /// The answers on which the policy decided, in JSON; only their length if they exceed [`MAX_ANSWERS`] bytes.
    pub answers: Option<String>,
}

/// Maximum bytes of answers recorded for one session: a pcapng comment holds 64 KiB.
pub const MAX_ANSWERS: usize = 48 << 10;

impl EndSummary {
    /// `answers`, or their length if they exceed [`MAX_ANSWERS`].
    pub(crate) fn limit_answers(answers: &str) -> Cow<'_, str> {
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
        write!(f, " outcome={}", self.outcome)?;
        self.decrypted.as_ref().map_or(Ok(()), |version| write!(f, " decrypted={version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_matches_family_and_network() {
        let matches = |family, client: Option<&str>, addr: &str| {
            let client = client.map(|network| network.parse().unwrap());
            let filter = RecordingFilter { family, client, content: false };
            filter.matches(addr.parse().unwrap())
        };
        assert!(matches(None, None, "192.0.2.1:1"));
        assert!(matches(Some(Family::Ipv6), None, "[2001:db8::1]:1"));
        assert!(!matches(Some(Family::Ipv6), None, "192.0.2.1:1"));
        assert!(matches(None, Some("192.0.2.0/24"), "192.0.2.1:1"));
        assert!(matches(None, Some("::ffff:192.0.2.0/120"), "192.0.2.1:1"));
        assert!(!matches(None, Some("2001:db8::/32"), "192.0.2.1:1"));
    }

    #[test]
    fn answers_over_the_limit_are_replaced_by_their_length() {
        let most = "x".repeat(MAX_ANSWERS);
        assert_eq!(EndSummary::limit_answers(&most), most);
        assert_eq!(EndSummary::limit_answers(&(most + "x")), "omitted, 49153 bytes");
    }

    #[test]
    fn the_summary_is_displayed_as_a_comment() {
        let mut summary = EndSummary {
            verdict: "accept".to_owned(),
            rule: None,
            reason: None,
            outcome: "quit".to_owned(),
            decrypted: Some("TLSv1.3".to_owned()),
            answers: None,
        };
        let expected = "gatepost: verdict=accept outcome=quit decrypted=TLSv1.3";
        assert_eq!(summary.to_string(), expected);
        summary.decrypted = None;
        assert_eq!(summary.to_string(), "gatepost: verdict=accept outcome=quit");
        summary.verdict = "reject".to_owned();
        summary.rule = Some("no \"mail\"".to_owned());
        summary.reason = Some("access_reject".to_owned());
        let expected =
            r#"gatepost: verdict=reject rule="no \"mail\"" reason=access_reject outcome=quit"#;
        assert_eq!(summary.to_string(), expected);
    }
}
