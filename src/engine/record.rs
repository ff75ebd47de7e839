//! The record of one session: what the log line, the JSON of `replay` and the status page are made from.
//!
//! The serde form *is* the public JSON form. Absent facts are null, never left out, so that a reader can tell "not
//! known" from "not there". Memory is bounded whatever a client does: 32 KiB of
//! envelope a session, later recipients and transactions are only counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Anomaly, Outcome};
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

/// What is known of the connection below SMTP. The live relay knows only its own counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TcpFacts {
    pub outcome: Option<FlowOutcome>,
    #[serde(rename = "handshake_s", serialize_with = "optional_seconds")]
    pub handshake: Option<Duration>,
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
        let [client_bytes, server_bytes] = flow.octets;
        Self {
            outcome: Some(flow.outcome),
            handshake: flow.handshake,
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
    /// Argument of the last HELO or EHLO.
    pub helo: Option<String>,
    pub esmtp: bool,
    pub tls: Tls,
    /// An AUTH that succeeded.
    pub auth: bool,
    pub transactions: Vec<TransactionRecord>,
    /// All of them, also those not kept.
    pub transactions_total: u64,
    pub commands: BTreeMap<Verb, u64>,
    pub replies: BTreeMap<u16, u64>,
    /// In order of first appearance, each once.
    pub anomalies: Vec<Anomaly>,
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
    /// The reply to the end of data.
    pub data_code: Option<u16>,
    /// Octets of content as the client sent it, without the final `.` line.
    pub bytes: u64,
    /// Sent by BDAT.
    pub chunking: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecipientRecord {
    pub address: String,
    pub code: Option<u16>,
    pub enhanced: Option<EnhancedCode>,
}

/// What the policy said, by which rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictRecord {
    pub action: crate::policy::Action,
    pub rule: Option<String>,
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
