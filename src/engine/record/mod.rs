//! The record of one session: the source of the log line, the JSON of `replay` and the status page.
//!
//! The serde form *is* the public JSON form. Absent facts are null, never omitted, so that "not known" differs from "not
//! there". Memory is bounded whatever either side sends: 32 KiB of envelope a session (later recipients and transactions are
//! only counted), 64 KiB of policy questions, 64 extension keywords, one server name.

pub(super) mod builder;
mod encrypted;
mod joined;
mod question;
mod tls_exchange;
pub(super) mod tls_hello;
mod transcript_entry;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub use self::question::PolicyQuestion;
pub use self::transcript_entry::{TranscriptEntry, TranscriptItem};
use super::event::{Anomaly, Outcome, Phase, TlsHandshake, TlsVersion, UpstreamTlsResult};
use crate::addr::{Family, Side};
use crate::label::labels;
use crate::policy::ClientArrival;
use crate::policy::facts::ClientCertificate;
use crate::smtp::{EnhancedCode, TlsState, Verb};
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
    /// The original destination.
    pub server: Endpoint,
    /// The name of the gateway's listener; null in a capture, unless the configuration or the recording has it.
    #[serde(serialize_with = "optional_text")]
    pub listener: Option<Arc<str>>,
    /// The address of the MTA that accepted the connection; null if none did, or in a capture.
    pub upstream: Option<Endpoint>,
    /// The configured host name that has this address, such as `postfix:25`; or the Unix socket, `unix:/path`, and `upstream` is
    /// null. Absent if the address is configured.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_text")]
    pub upstream_name: Option<Arc<str>>,
    /// Why there was no upstream, no greeting from it, or no TLS with it: each address with its error. Null otherwise.
    pub upstream_error: Option<String>,
    /// Version of the gateway's own TLS with the MTA, such as `TLSv1.3`; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_tls: Option<&'static str>,
    pub outcome: Outcome,
    pub tcp: TcpFacts,
    pub smtp: SmtpFacts,
    /// Null without policy rules.
    pub facts: Option<crate::policy::facts::Facts>,
    pub verdict: VerdictRecord,
    /// The bytes after STARTTLS, if TLS passes through, or of TLS from the start in a capture. Not in the JSON form.
    #[serde(skip)]
    pub encrypted: Option<EncryptedBytes>,
    /// The questions put to the policy, in order; see [`super::evaluate_record`]. Not in the JSON form.
    #[serde(skip)]
    pub questions: Vec<PolicyQuestion>,
}

impl SessionRecord {
    /// The connection as the rules take it.
    pub fn arrival(&self) -> ClientArrival<'_> {
        let listener = self.listener.as_deref();
        ClientArrival { client: self.client.address, listener, destination: self.server.into() }
    }
}

/// Bytes that are passed through, and whose turn it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncryptedBytes {
    pub client: u64,
    pub server: u64,
    /// How often the server spoke after the client.
    pub server_turns: u32,
    /// Who sent last; `None` if nobody did since the reply to STARTTLS.
    pub last: Option<Side>,
    /// When, or the time of that reply.
    pub last_at: Timestamp,
}

impl EncryptedBytes {
    pub(in crate::engine) fn add(&mut self, side: Side, count: u64, at: Timestamp) {
        match side {
            Side::Client => self.client += count,
            Side::Server => {
                self.server += count;
                self.server_turns += u32::from(self.last == Some(Side::Client));
            }
        }
        (self.last, self.last_at) = (Some(side), at);
    }
}

/// What a handshake of the gateway's own TLS agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    pub version: TlsVersion,
    /// A session ticket replaced the certificate.
    pub resumed: bool,
    /// IANA's name of the cipher suite.
    pub cipher_suite: Option<&'static str>,
    /// Of the client, also in a resumed session; `None` where the gateway is the client.
    pub client_certificate: Option<ClientCertificate>,
    /// The first bytes of the client, which hold its hello; empty where the gateway is the client.
    pub client_hello: Vec<u8>,
}

/// A client's TLS with the gateway, for upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTlsFacts<'a> {
    /// Such as `TLSv1.3`.
    pub version: Option<&'static str>,
    /// IANA's name.
    pub cipher_suite: Option<&'static str>,
    pub certificate: Option<&'a ClientCertificate>,
}

/// Why the gateway's own TLS with a client ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// The class of the failure.
    pub result: TlsHandshake,
    /// In words, for the log.
    pub reason: String,
    /// It looks as if the client knows nothing newer: another attempt would fail as well.
    pub is_of_old_client: bool,
}

/// Why the gateway's own TLS with an upstream did not begin, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTlsFailure {
    /// The class of the failure.
    pub result: UpstreamTlsResult,
    /// In words, for the log.
    pub reason: String,
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

/// The TCP connection below SMTP. The live relay has only its own byte counts, and who closed a session without QUIT.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TcpFacts {
    pub outcome: Option<FlowOutcome>,
    #[serde(rename = "handshake_s", serialize_with = "optional_seconds")]
    pub handshake: Option<Duration>,
    /// Smoothed round-trip time, as the kernel of one end last reported it; null without the eBPF source.
    #[serde(rename = "rtt_s", serialize_with = "optional_seconds")]
    pub rtt: Option<Duration>,
    pub client_bytes: u64,
    pub server_bytes: u64,
    /// SYN segments of the client.
    pub syns: Option<u32>,
    pub retransmits: Option<u64>,
    pub gaps: Option<u64>,
    pub icmp_errors: Option<u64>,
    /// The smallest MTU in an ICMP "packet too big".
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

/// The SMTP dialogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SmtpFacts {
    /// Code of the server's greeting.
    pub greeting: Option<u16>,
    /// Argument of the last HELO or EHLO that the server accepted; while it accepted none, of the last that it rejected.
    pub helo: Option<String>,
    pub esmtp: bool,
    /// Keywords that the last EHLO reply offered the client, in upper case; null before there was one.
    pub extensions: Option<Vec<String>>,
    pub tls: TlsState,
    /// Version chosen in the ServerHello, such as `TLSv1.3`; null if none was seen.
    pub tls_version: Option<&'static str>,
    /// Of the gateway's own TLS with the client; null where it passes TLS through, and without STARTTLS.
    pub tls_handshake: Option<TlsHandshake>,
    /// Why it failed.
    pub tls_error: Option<String>,
    /// STARTTLS was not offered because the client's handshakes failed again and again; absent otherwise.
    #[serde(skip_serializing_if = "is_false")]
    pub starttls_hidden: bool,
    /// Presented to the gateway's own TLS; absent without one, and in a capture that does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// Server name in the ClientHello (SNI).
    pub sni: Option<String>,
    /// An AUTH that succeeded.
    pub auth: bool,
    pub transactions: Vec<TransactionRecord>,
    /// Also those that are not kept.
    pub transactions_total: u64,
    pub commands: BTreeMap<Verb, u64>,
    pub replies: BTreeMap<u16, u64>,
    pub phases: Phases,
    /// In order of first appearance, each once.
    pub anomalies: Vec<Anomaly>,
    /// How often the dialogue in a capture could not be followed, and how often it was found again. Always 0 live.
    pub desyncs: u64,
    pub resyncs: u64,
}

/// Duration of the phases, summed over all transactions; null where there was none. The whole session's is `duration_s`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phases {
    #[serde(rename = "connect_s", serialize_with = "optional_seconds")]
    pub connect: Option<Duration>,
    #[serde(rename = "greeting_s", serialize_with = "optional_seconds")]
    pub greeting: Option<Duration>,
    #[serde(rename = "tls_handshake_s", serialize_with = "optional_seconds")]
    pub tls_handshake: Option<Duration>,
    #[serde(rename = "envelope_s", serialize_with = "optional_seconds")]
    pub envelope: Option<Duration>,
    #[serde(rename = "data_s", serialize_with = "optional_seconds")]
    pub data: Option<Duration>,
    #[serde(rename = "acceptance_s", serialize_with = "optional_seconds")]
    pub acceptance: Option<Duration>,
}

impl Phases {
    pub(in crate::engine) fn add(&mut self, phase: Phase, duration: Duration) {
        let sum = match phase {
            Phase::Connect => &mut self.connect,
            Phase::Greeting => &mut self.greeting,
            Phase::TlsHandshake => &mut self.tls_handshake,
            Phase::Envelope => &mut self.envelope,
            Phase::Data => &mut self.data,
            Phase::Acceptance => &mut self.acceptance,
            Phase::Session => return,
        };
        *sum = Some(sum.unwrap_or_default().saturating_add(duration));
    }
}

/// MAIL to the end of data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TransactionRecord {
    /// The reverse-path without brackets; empty for `<>`.
    pub mail_from: String,
    pub mail_code: Option<u16>,
    pub rcpt_to: Vec<RecipientRecord>,
    /// Also those that are not kept.
    pub rcpt_total: u64,
    /// The reply to the end of data, or the one that came before it and refused the message.
    pub data_code: Option<u16>,
    /// Octets of content as the client sent it, without the final `.` line.
    pub bytes: u64,
    /// Sent by BDAT.
    pub chunking: bool,
    /// Postfix's name for the message, where Postfix asked the policy about it; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<String>,
    /// How far the message came, where only Postfix's questions show it; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<MessageProgress>,
}

labels! {
    /// How far a message came that the gateway does not see, by the last question of the mail server about it.
    pub enum MessageProgress {
        /// Recipients were accepted, and the client sent DATA or BDAT. Content was due and may never have arrived.
        ContentDue = "content_due",
        /// All of it arrived, also on the path of large segments. The reply to it is not known.
        Received = "received",
    }
}

impl TransactionRecord {
    /// The first reply that decided the transaction: the one that rejected MAIL, the last recipient's if all were rejected,
    /// or the message's; `None` while none did.
    pub fn deciding_code(&self) -> Option<u16> {
        let rejected = |code: &u16| *code >= 400;
        let recipients = || {
            let last = self.rcpt_to.last()?.code?;
            let all = self.rcpt_to.iter().all(|to| to.code.is_some_and(|code| rejected(&code)));
            all.then_some(last)
        };
        self.mail_code.filter(rejected).or_else(recipients).or(self.data_code)
    }

    /// The progress of a message that the policy did not refuse.
    pub fn progress_if_accepted(&self) -> Option<MessageProgress> {
        self.progress.filter(|_| self.deciding_code().is_none_or(|code| code / 100 == 2))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecipientRecord {
    pub address: String,
    pub code: Option<u16>,
    pub enhanced: Option<EnhancedCode>,
}

/// What the gateway did by its policy, or would have done. A rejection by upstream is no verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictRecord {
    /// The strictest action: tempfail for a 4xx, reject for a 5xx.
    pub action: crate::policy::PolicyAction,
    /// The access or policy rule that matched, also one that accepts.
    pub rule: Option<String>,
    /// Of a policy rule, the fact and its reason, such as `fcrdns.no_ptr`. Otherwise the [`super::Refusal`] behind the action;
    /// with accept, one outside the policy, such as a timeout.
    pub reason: Option<String>,
    /// Policy rules in shadow mode that would have matched, each once.
    pub shadow: Vec<ShadowRecord>,
}

/// The match of a policy rule in shadow mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowRecord {
    pub rule: String,
    pub action: crate::policy::PolicyAction,
    /// As in [`VerdictRecord`].
    pub reason: Option<String>,
}

/// serde passes a reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

fn optional_text<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(to)
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
