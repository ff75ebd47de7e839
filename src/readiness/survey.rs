//! The survey of a mail server: connection, greeting, EHLO, TLS, large segments, and whether it accepts mail to postmaster.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    pub reached: ConnectResult,
    /// The address of this host from which it was made.
    pub from: Option<IpAddr>,
    pub greeting: SurveyResult,
    /// Reply to EHLO, or to HELO if the server does not know EHLO.
    pub ehlo: SurveyResult,
    /// What became of STARTTLS, if the server offers it.
    pub tls: Option<TlsSurvey>,
    pub path: Option<NetworkPath>,
    /// Whether it accepts mail to the domain's postmaster, if the dialogue came that far.
    pub postmaster: Option<PostmasterSurvey>,
}

impl Survey {
    /// A survey that ended with the connection attempt.
    pub const fn only(reached: ConnectResult) -> Self {
        let (greeting, ehlo) = (SurveyResult::NotRequested, SurveyResult::NotRequested);
        Self { reached, from: None, greeting, ehlo, tls: None, path: None, postmaster: None }
    }
}

impl Survey {
    pub(super) fn established(&self) -> Option<&ServerTls> {
        match &self.tls.as_ref()?.handshake {
            TlsAttempt::Established(facts) => Some(facts),
            _ => None,
        }
    }
}

impl TlsSurvey {
    /// Senders get no TLS, whether or not it may come about later.
    pub(super) const fn has_failed(&self) -> bool {
        !matches!(self.handshake, TlsAttempt::Established(_) | TlsAttempt::OutOfTime)
    }
}

/// The result of the connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectResult {
    /// After this time.
    Connected(Duration),
    /// RST, or an ICMP error.
    Refused,
    /// No answer to the SYN within this time.
    NoResponse(Duration),
    /// This host has no route to the server, or no resources left.
    NoRoute,
    /// The time for the whole check ran out before the attempt.
    OutOfTime,
}

/// The result of waiting for a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SurveyResult {
    NotRequested,
    Received(SurveyReply),
    /// No reply within this time.
    TimedOut(Duration),
    /// No reply so far, when the time for the whole check ran out; too early to call it a fault.
    OutOfTime(Duration),
    /// The server closed the connection.
    Closed,
    /// Not an SMTP reply.
    NotSmtp,
}

impl SurveyResult {
    pub(super) const fn reply(&self) -> Option<&SurveyReply> {
        match self {
            Self::Received(reply) => Some(reply),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyReply {
    pub code: u16,
    /// Text of each line; invalid UTF-8 is replaced.
    pub lines: Vec<String>,
    pub took: Duration,
}

impl SurveyReply {
    pub(super) const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// The first word of the first line: the host name in a greeting and in a reply to EHLO (RFC 5321 §4.2).
    pub(super) fn host_name(&self) -> &str {
        self.lines.first().and_then(|line| line.split_whitespace().next()).unwrap_or_default()
    }

    /// The keywords of the extensions, in capitals (RFC 5321 §4.1.1.1).
    pub(super) fn keywords(&self) -> BTreeSet<String> {
        let words = self.lines.iter().skip(1).filter_map(|line| line.split_whitespace().next());
        words.map(str::to_ascii_uppercase).collect()
    }

    /// Whether the server offers an extension.
    pub fn offers(&self, keyword: &str) -> bool {
        let mut words = self.lines.iter().skip(1).filter_map(|line| line.split_whitespace().next());
        words.any(|word| word.eq_ignore_ascii_case(keyword))
    }
}

/// `MAIL FROM:<>` and `RCPT TO:<postmaster@DOMAIN>`, which no message follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostmasterSurvey {
    pub mail: SurveyResult,
    pub recipient: SurveyResult,
}

/// STARTTLS (RFC 3207), and EHLO again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSurvey {
    /// The reply to STARTTLS.
    pub reply: SurveyResult,
    pub handshake: TlsAttempt,
    /// The reply to EHLO inside TLS.
    pub ehlo: SurveyResult,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsAttempt {
    /// The server refused STARTTLS.
    NotReached,
    Established(ServerTls),
    /// No end within this time.
    TimedOut(Duration),
    /// No end when the time for the whole check ran out.
    OutOfTime,
    /// The server closed the connection.
    Closed,
    /// Why there is no TLS.
    Failed(String),
}

/// TLS that was established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// `TLSv1.3`
    pub version: String,
    pub took: Duration,
    /// The certificate's host names.
    pub names: Vec<String>,
    pub not_after: Timestamp,
    /// The certificates that the server sent, in DER, its own first.
    pub chain: Vec<Vec<u8>>,
    /// SHA-256 of the certificate.
    pub digest: [u8; 32],
    /// Why a sender that verifies certificates does not trust it; `None` if it does. `Unknown` without trusted authorities.
    pub trust: CertificateTrust,
    /// Octets of the ClientHello.
    pub client_hello: usize,
    /// Octets of all that the server sent in the handshake.
    pub server_octets: usize,
    /// When it was seen.
    pub at: Timestamp,
}

/// What a sender that verifies certificates thinks of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateTrust {
    Trusted,
    /// Why not.
    Distrusted(String),
    /// This host knows no authority.
    Unknown,
}

/// The known properties of the path to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPath {
    /// The kernel's path MTU in octets (IPV6_MTU, IP_MTU).
    pub mtu: Option<u32>,
    /// Octets of a full segment (TCP_MAXSEG).
    pub mss: Option<u32>,
    pub large: LargeProbe,
}

/// The result of sending and receiving full segments: in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeProbe {
    /// The server does not offer STARTTLS, or does not answer it.
    NotTried,
    /// So many octets at once were answered with so many.
    Answered { sent: usize, received: usize },
    /// No reply within this time, while a small ClientHello was answered.
    Stalled(Duration),
    /// No reply when the time for the whole check ran out.
    OutOfTime,
    /// The server closed the connection.
    Closed,
}
