//! Options, limits and timeouts of a session: plain data with the usual defaults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::canary::MarkRules;
use crate::label::labels;
use crate::policy::AccessRules;
use crate::policy::rules::PolicyRules;
use crate::smtp::{BareNewlines, Keyword};

/// When a session that an access rule rejects receives the rejection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefuseAt {
    /// In place of the greeting.
    Connect,
    /// At each RCPT, so that the log holds the envelope.
    #[default]
    Rcpt,
}

/// What to do with a client that sends before the greeting (RFC 5321 §3.1 requires it to wait).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pregreet {
    /// Counted and accepted.
    #[default]
    Accept,
    /// Counted and rejected, at the point given by [`RefuseAt`].
    Reject,
}

/// What a path in MAIL or RCPT may look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathSyntax {
    /// As RFC 5321 §4.1.2 has it; anything else is rejected, as servers read it in different ways.
    #[default]
    Strict,
    /// Anything; the server judges it.
    Lenient,
}

/// What to do with message content that comes together with DATA, before the reply to it (RFC 2920 §3.1 forbids it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyData {
    /// Rejected where PIPELINING was not offered, else counted and accepted.
    #[default]
    RejectUnlessPipelining,
    /// Counted and rejected: 503 to DATA.
    Reject,
    /// Counted and accepted: it waits for the reply.
    Allow,
}

/// `[smtp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpOptions {
    /// The name in the gateway's own EHLO and replies; the host name by default.
    pub hostname: String,
    pub bare_newlines: BareNewlines,
    pub paths: PathSyntax,
    pub refuse_at: RefuseAt,
    pub pregreet: Pregreet,
    pub early_data: EarlyData,
    /// EHLO keywords that are not passed on although both sides support them.
    pub hide: Vec<Keyword>,
}

impl Default for SmtpOptions {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            bare_newlines: BareNewlines::default(),
            paths: PathSyntax::default(),
            refuse_at: RefuseAt::default(),
            pregreet: Pregreet::default(),
            early_data: EarlyData::default(),
            hide: Vec::new(),
        }
    }
}

/// The limits of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one command line with its CRLF (RFC 5321 §4.5.3.1.4: at least 512, more with extensions).
    pub line_length: usize,
    /// Commands since the last message that upstream accepted, without RCPT: upstream limits the recipients.
    pub commands: u32,
    /// Errors of the client that the gateway answered itself, since the last message that upstream accepted. Upstream never
    /// sees those, and limits the others (Postfix: smtpd_hard_error_limit).
    pub errors: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_length: 2048, commands: 2000, errors: 20 }
    }
}

/// RFC 5321 §4.5.3.2, and those that it leaves to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Upstream's greeting, after the connection.
    pub greeting: Duration,
    /// The client's next command.
    pub command: Duration,
    /// The next piece of a message from the client.
    pub data: Duration,
    /// Upstream's reply to a command.
    pub reply: Duration,
    /// Upstream's reply to the end of data.
    pub acceptance: Duration,
    /// Silence after STARTTLS, while the client's next bytes are due. While upstream's are, it may be delivering a message, and
    /// `acceptance` applies: the gateway cannot see the end of data.
    pub opaque: Duration,
    /// Octets of a message that the client has to send in a second, on average over `data`; 0 for no limit. As Postfix's
    /// `smtpd_min_data_rate`.
    pub min_data_rate: u32,
}

impl Timeouts {
    /// The minutes of RFC 5321 §4.5.3.2; for data those of Postfix, which waits longer than a client has to.
    pub const RFC_5321: Self = Self {
        greeting: Duration::from_secs(300),
        command: Duration::from_secs(300),
        data: Duration::from_secs(300),
        reply: Duration::from_secs(300),
        acceptance: Duration::from_secs(600),
        opaque: Duration::from_secs(300),
        min_data_rate: 100,
    };

    /// Under load, as Postfix's `smtpd_timeout`: short for idle clients, unchanged for upstream.
    pub const STRESS: Self = Self {
        command: Duration::from_secs(10),
        data: Duration::from_secs(30),
        opaque: Duration::from_secs(30),
        min_data_rate: 500,
        ..Self::RFC_5321
    };
}

/// The profiles of a configuration's listeners, for sessions in captures.
#[derive(Clone, Debug, Default)]
pub struct ListenerProfiles {
    /// With the addresses of each.
    listeners: Vec<(Arc<Profile>, Vec<SocketAddr>)>,
    /// Of sessions whose listener is not known.
    other: Arc<Profile>,
}

impl ListenerProfiles {
    /// `other` is that of sessions whose listener is not known.
    pub fn new(listeners: Vec<(Arc<Profile>, Vec<SocketAddr>)>, other: Arc<Profile>) -> Self {
        Self { listeners, other }
    }

    /// The profile of a session with `destination`: that of the listener `recorded` by the gateway, or of the one that has the
    /// address.
    pub fn of(&self, recorded: Option<&str>, destination: SocketAddr) -> &Arc<Profile> {
        let by_name = recorded.and_then(|name| {
            self.find(|profile, _| profile.listener.as_deref().is_some_and(|own| own == name))
        });
        let wildcard: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // As the kernel does: the exact address before the wildcard.
        let by_address = || {
            [destination.ip(), wildcard].into_iter().find_map(|ip| {
                let address = SocketAddr::new(ip, destination.port());
                self.find(|_, addresses| addresses.contains(&address))
            })
        };
        by_name.or_else(by_address).unwrap_or(&self.other)
    }

    fn find(&self, matches: impl Fn(&Profile, &[SocketAddr]) -> bool) -> Option<&Arc<Profile>> {
        let mut listeners = self.listeners.iter();
        listeners.find(|(profile, addresses)| matches(profile, addresses)).map(|(found, _)| found)
    }
}

/// Everything about the handling of a session that is the same for all sessions of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub smtp: SmtpOptions,
    pub limits: Limits,
    pub access: AccessRules,
    pub rules: Arc<PolicyRules>,
    /// The client's address goes to upstream by XCLIENT.
    pub xclient: bool,
    /// The name of the listener; `None` if it is not known, as in a capture.
    pub listener: Option<Arc<str>>,
    /// What STARTTLS does.
    pub tls: TlsMode,
    /// A `Received:` field of the gateway goes before each message.
    pub trace_header: bool,
    /// Header sections of messages are read for canaries, with these marks; `None`: they are not read.
    pub canary_marks: Option<MarkRules>,
}

/// Who ends a client's TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// The MTA: its offer and its TLS pass through.
    #[default]
    Passthrough,
    /// The gateway, so that the session is inspected as in plaintext. The MTA is reached without STARTTLS of the client's.
    Terminate {
        /// Without TLS only EHLO, HELO, NOOP, RSET, QUIT and STARTTLS are accepted (RFC 3207 §4: not on a public MX).
        required: bool,
    },
    /// The gateway, from the client's first byte on (RFC 8314 §3); STARTTLS is not offered.
    Implicit,
}

impl TlsMode {
    pub const fn terminates(self) -> bool {
        matches!(self, Self::Terminate { .. } | Self::Implicit)
    }
}

labels! {
    /// TLS between the gateway and an upstream.
    #[derive(Default)]
    pub enum UpstreamTls {
        #[default]
        Off = "off",
        /// If upstream offers it, without regard to its certificate.
        Opportunistic = "opportunistic",
        /// Always, without regard to the certificate.
        Require = "require",
        /// Always, with a certificate that is verified.
        Verify = "verify",
    }
}
