//! The record of one session: what the log line, the JSON of `replay` and the status page are made from.
//!
//! The serde form *is* the public JSON form. Absent facts are null, never left out, so that a reader can tell "not
//! known" from "not there". Memory is bounded whatever either side does: 32 KiB of envelope a session (later recipients and
//! transactions are only counted), 64 extension keywords, one server name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Anomaly, Outcome, Phase};
use crate::addr::{Family, Side};
use crate::smtp::{EnhancedCode, Verb};
use crate::stream::{FlowFacts, FlowOutcome};
use crate::time::Timestamp;

/// One TCP connection's SMTP dialogue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionRecord {
    pub start: Timestamp,
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub duration: Duration,
    pub family: Family,
    pub client: Endpoint,
    /// Where the client meant to go.
    pub server: Endpoint,
    /// The MTA that took the session; null when none did, or when only watching.
    pub upstream: Option<Endpoint>,
    pub outcome: Outcome,
    pub tcp: TcpFacts,
    pub smtp: SmtpFacts,
    /// Null when nobody judged.
    pub facts: Option<crate::policy::facts::Facts>,
    pub verdict: VerdictRecord,
}

/// An address and a port, as two JSON fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { address: addr.ip(), port: addr.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.address, endpoint.port)
    }
}

/// What is known of the connection below SMTP. The live relay knows only its own counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TcpFacts {
    pub outcome: Option<FlowOutcome>,
    #[serde(rename = "handshake_s", serialize_with = "optional_seconds")]
    pub handshake: Option<Duration>,
    /// Smoothed round-trip time, as the kernel of one end last told it; null unless it was asked.
    #[serde(rename = "rtt_s", serialize_with = "optional_seconds")]
    pub rtt: Option<Duration>,
    pub client_bytes: u64,
    pub server_bytes: u64,
    /// SYN segments of the client.
    pub syns: Option<u32>,
    pub retransmits: Option<u64>,
    pub gaps: Option<u64>,
    pub icmp_errors: Option<u64>,
    /// The smallest MTU that a packet-too-big told.
    pub path_mtu: Option<u32>,
    /// A PMTU black hole is suspected.
    pub black_hole: Option<bool>,
    pub closed_by: Option<Side>,
}

impl From<&FlowFacts> for TcpFacts {
    fn from(flow: &FlowFacts) -> Self {
        let [client_bytes, server_bytes] = flow.bytes;
        Self {
            outcome: Some(flow.outcome),
            handshake: flow.handshake,
            rtt: flow.rtt,
            client_bytes,
            server_bytes,
            syns: Some(flow.syns),
            retransmits: Some(flow.retransmits.iter().sum()),
            gaps: Some(flow.gaps),
            icmp_errors: Some(flow.icmp_errors),
            path_mtu: flow.path_mtu,
            black_hole: Some(flow.black_hole),
            closed_by: flow.closed_by,
        }
    }
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SmtpFacts {
    /// Code of the server's greeting.
    pub greeting: Option<u16>,
    /// Argument of the last HELO or EHLO that the server took; while it took none, of the last that was said.
    pub helo: Option<String>,
    pub esmtp: bool,
    /// Keywords that the last EHLO reply offered the client, in upper case; null before there was one.
    pub extensions: Option<Vec<String>>,
    pub tls: Tls,
    /// What the server's hello chose, `TLSv1.3` and the like; null when no hello was seen.
    pub tls_version: Option<&'static str>,
    /// The server name that the client's hello asked for.
    pub sni: Option<String>,
    /// An AUTH that succeeded.
    pub auth: bool,
    pub transactions: Vec<TransactionRecord>,
    /// All of them, also those not kept.
    pub transactions_total: u64,
    pub commands: BTreeMap<Verb, u64>,
    pub replies: BTreeMap<u16, u64>,
    pub phases: Phases,
    /// In order of first appearance, each once.
    pub anomalies: Vec<Anomaly>,
    /// How often a capture lost the thread of the dialogue, and how often it was found again. Always 0 live.
    pub desyncs: u64,
    pub resyncs: u64,
}

/// How long the phases took, those of all transactions together; null where there was none. The whole session's time is
/// its `duration_s`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phases {
    #[serde(rename = "connect_s", serialize_with = "optional_seconds")]
    pub connect: Option<Duration>,
    #[serde(rename = "greeting_s", serialize_with = "optional_seconds")]
    pub greeting: Option<Duration>,
    #[serde(rename = "envelope_s", serialize_with = "optional_seconds")]
    pub envelope: Option<Duration>,
    #[serde(rename = "data_s", serialize_with = "optional_seconds")]
    pub data: Option<Duration>,
    #[serde(rename = "acceptance_s", serialize_with = "optional_seconds")]
    pub acceptance: Option<Duration>,
}

impl Phases {
    pub(super) fn add(&mut self, phase: Phase, duration: Duration) {
        let sum = match phase {
            Phase::Connect => &mut self.connect,
            Phase::Greeting => &mut self.greeting,
            Phase::Envelope => &mut self.envelope,
            Phase::Data => &mut self.data,
            Phase::Acceptance => &mut self.acceptance,
            Phase::Session => return,
        };
        *sum = Some(sum.unwrap_or_default().saturating_add(duration));
    }
}

/// How far STARTTLS came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    #[default]
    None,
    Offered,
    Started,
    Refused,
}

/// MAIL to the end of data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TransactionRecord {
    /// The reverse-path without brackets; empty for `<>`.
    pub mail_from: String,
    pub mail_code: Option<u16>,
    pub rcpt_to: Vec<RecipientRecord>,
    /// All of them, also those not kept.
    pub rcpt_total: u64,
    /// The reply to the end of data, or the one that came before it and refused the message.
    pub data_code: Option<u16>,
    /// Octets of content as the client sent it, without the final `.` line.
    pub bytes: u64,
    /// Sent by BDAT.
    pub chunking: bool,
}

impl TransactionRecord {
    /// The reply that decided its fate; `None` while none did.
    pub fn deciding_code(&self) -> Option<u16> {
        let refused = |code: &u16| *code >= 400;
        let recipients = || {
            let last = self.rcpt_to.last()?.code?;
            let accepted = |code: Option<u16>| code.is_none_or(|code| !refused(&code));
            let any = self.rcpt_to.iter().any(|recipient| accepted(recipient.code));
            (!any).then_some(last)
        };
        self.data_code.or_else(recipients).or_else(|| self.mail_code.filter(refused))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecipientRecord {
    pub address: String,
    pub code: Option<u16>,
    pub enhanced: Option<EnhancedCode>,
}

/// What the gateway did by its policy, or would have done. A refusal of upstream's is not its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictRecord {
    /// The strictest thing: tempfail for a 4xx, reject for a 5xx.
    pub action: crate::policy::PolicyAction,
    /// The access or policy rule that fired, also one that accepts.
    pub rule: Option<String>,
    /// Of a policy rule, the fact and its reason, `fcrdns.no_ptr`. Otherwise the [`super::Refusal`] behind the action; with
    /// accept, one that no policy wants, a time-out for example.
    pub reason: Option<String>,
    /// Policy rules in shadow that would have fired, each once.
    pub shadow: Vec<ShadowRecord>,
}

/// What a policy rule in shadow would have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowRecord {
    pub rule: String,
    pub action: crate::policy::PolicyAction,
    /// As in [`VerdictRecord`].
    pub reason: Option<String>,
}

fn optional_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => seconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
