//! Events: everything that happens in a session, as closed sets, for metrics and reports. No variant carries an address, a
//! domain, a HELO name or reply text.

use std::time::Duration;

use crate::addr::Family;
use crate::label::labels;
use crate::policy::PolicyAction;
use crate::policy::facts::{FactState, Source};
use crate::policy::rules::{FactName, RuleMode};
use crate::smtp::{TlsState, Verb};

labels! {
    /// How a session ended.
    pub enum Outcome {
        /// QUIT and its reply.
        Quit = "quit",
        ClientClosed = "client_closed",
        UpstreamClosed = "upstream_closed",
        /// No upstream accepted the connection, or it closed before its greeting.
        UpstreamUnavailable = "upstream_unavailable",
        Timeout = "timeout",
        /// TLS with the client passed through, and its handshake was seen to complete, whoever closed the connection then.
        TlsCompleted = "tls_completed",
        /// TLS with the client: the handshake failed, or a later record.
        TlsFailed = "tls_failed",
        /// Rejected at connect or at STARTTLS, by an access or policy rule, or by the door.
        Refused = "refused",
        /// A limit of `[limits]`.
        Limit = "limit",
        /// Not SMTP, or an SMTP that cannot be followed.
        Protocol = "protocol",
        Shutdown = "shutdown",
        /// A fault of our own.
        Error = "error",
        /// A mail server has the session: it asked the gateway's policy about it.
        Delegated = "delegated",
        /// The capture ends before the session does.
        CaptureEnded = "capture_ended",
    }
}

impl Outcome {
    /// A reset of the connection shows nothing more. Clients often reset after QUIT and at the end of TLS.
    pub const fn explains_reset(self) -> bool {
        matches!(self, Self::Quit | Self::TlsCompleted | Self::TlsFailed)
    }
}

labels! {
    /// Deviations from a clean session.
    pub enum Anomaly {
        /// The client sent before the greeting (postscreen: pregreet).
        Pregreet = "pregreet",
        /// An HTTP request line or header.
        JunkHttp = "junk_http",
        /// A TLS hello where plaintext SMTP belongs.
        JunkTls = "junk_tls",
        /// A PROXY header from a peer that is not trusted.
        JunkProxy = "junk_proxy",
        UnknownCommand = "unknown_command",
        BadSyntax = "bad_syntax",
        BareLf = "bare_lf",
        BareCr = "bare_cr",
        /// A line of `.` that a lax server takes for the end of data, but RFC 5321 does not.
        Smuggling = "smuggling",
        CommandTooLong = "command_too_long",
        /// A message line over 1000 octets (RFC 5321 §4.5.3.1.6); relayed.
        TextLineTooLong = "text_line_too_long",
        /// Plaintext after STARTTLS, from either side; discarded.
        StarttlsPlaintext = "starttls_plaintext",
        Xclient = "xclient",
        Xforward = "xforward",
        /// Message bytes before the 354.
        EarlyData = "early_data",
        /// Commands pipelined where upstream did not offer PIPELINING.
        UnauthorizedPipelining = "unauthorized_pipelining",
        /// Bytes from upstream that are not an SMTP reply.
        BadReply = "bad_reply",
        /// A reply from upstream that answers no command.
        UnexpectedReply = "unexpected_reply",
        /// Bytes of the dialogue are missing from the capture.
        Gap = "gap",
    }
}

labels! {
    /// Why an observed dialogue could not be followed. Losses of the capture and of reassembly are counted apart
    /// (rule 18 of ARCHITECTURE.md).
    pub enum Desync {
        /// The capture begins within the session.
        Midstream = "midstream",
        /// A gap in the client's commands.
        ClientGap = "client_gap",
        /// A gap in the server's replies: the commands before it stay unanswered.
        ServerGap = "server_gap",
        /// A reply that cannot be paired: unexpected, of a wrong code, or malformed.
        Reply = "reply",
        /// The server took something else for the end of a message.
        EndOfData = "end_of_data",
        /// More client bytes waited for a reply than are held.
        Overflow = "overflow",
    }
}

labels! {
    /// Why the gateway itself rejected a command or a session.
    pub enum Refusal {
        AccessReject = "access_reject",
        AccessTempfail = "access_tempfail",
        PolicyReject = "policy_reject",
        PolicyTempfail = "policy_tempfail",
        /// The family's door is closed.
        Door = "door",
        Pregreet = "pregreet",
        Junk = "junk",
        BareNewline = "bare_newline",
        /// Content came with DATA.
        EarlyData = "early_data",
        CommandSyntax = "command_syntax",
        /// The argument of MAIL or RCPT is not a mailbox in angle brackets with parameters.
        PathSyntax = "path_syntax",
        /// The server may read the path as one of another domain, and policy rules depend on it.
        PathRouting = "path_routing",
        Xclient = "xclient",
        /// A command before STARTTLS, with `tls.require`.
        TlsRequired = "tls_required",
        LimitSessions = "limit_sessions",
        LimitClientSessions = "limit_client_sessions",
        LimitClientRate = "limit_client_rate",
        LimitNetworkSessions = "limit_network_sessions",
        LimitNetworkRate = "limit_network_rate",
        LimitCommands = "limit_commands",
        LimitErrors = "limit_errors",
        LimitLine = "limit_line",
        UpstreamUnavailable = "upstream_unavailable",
        /// The gateway lacks the file descriptors, memory or local ports for a connection.
        Resources = "resources",
        UpstreamLost = "upstream_lost",
        /// No TLS with upstream, and plaintext is not accepted.
        UpstreamTls = "upstream_tls",
        /// Upstream did not accept the gateway's XCLIENT.
        Identity = "identity",
        Timeout = "timeout",
        /// A trusted peer without a valid PROXY header.
        ProxyHeader = "proxy_header",
        Shutdown = "shutdown",
    }
}

labels! {
    /// Who wrote a reply.
    pub enum ReplySource {
        Upstream = "upstream",
        Gateway = "gateway",
    }
}

labels! {
    /// Result of a handshake of the gateway's own TLS with a client.
    pub enum TlsHandshake {
        /// With a certificate.
        Full = "full",
        /// By a session ticket.
        Resumed = "resumed",
        /// The client sent an alert, such as `bad certificate`.
        ClientAlert = "client_alert",
        /// No version in common: the client's are older than TLS 1.2, or than `tls.min_version`.
        NoCommonVersion = "no_common_version",
        /// No cipher suite, group or signature scheme in common.
        NoCommonAlgorithm = "no_common_algorithm",
        /// What the client sent is not TLS.
        NotTls = "not_tls",
        /// It is TLS that breaks the protocol.
        Protocol = "protocol",
        /// The client closed before the handshake was complete.
        Closed = "closed",
        Timeout = "timeout",
        /// A fault of the gateway, such as no usable certificate.
        Internal = "internal",
    }
}

impl TlsHandshake {
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Full | Self::Resumed)
    }
}

labels! {
    /// Result of the gateway's attempt to use TLS with an upstream.
    pub enum UpstreamTlsResult {
        /// With a certificate.
        Full = "full",
        /// By a session ticket.
        Resumed = "resumed",
        /// Upstream does not offer STARTTLS.
        NotOffered = "not_offered",
        /// Upstream offers STARTTLS, and did not answer it with 220.
        Refused = "refused",
        /// Upstream's certificate is not one of `upstream.tls_ca` for `upstream.tls_name`.
        Certificate = "certificate",
        /// Upstream sent an alert.
        Alert = "alert",
        NoCommonVersion = "no_common_version",
        /// No cipher suite, group or signature scheme in common.
        NoCommonAlgorithm = "no_common_algorithm",
        /// What upstream sent is not TLS.
        NotTls = "not_tls",
        /// It is TLS that breaks the protocol.
        Protocol = "protocol",
        /// Upstream closed before the handshake was complete.
        Closed = "closed",
        Timeout = "timeout",
        /// A fault of the gateway.
        Internal = "internal",
    }
}

labels! {
    /// Version of the gateway's own TLS with a client.
    pub enum TlsVersion {
        Tls12 = "1.2",
        Tls13 = "1.3",
        /// No handshake came that far.
        Unknown = "unknown",
    }
}

impl TlsVersion {
    /// As records write it; `None` if there is none.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Tls12 => Some("TLSv1.2"),
            Self::Tls13 => Some("TLSv1.3"),
            Self::Unknown => None,
        }
    }
}

labels! {
    /// Result of a STARTTLS command.
    pub enum Starttls {
        Started = "started",
        Refused = "refused",
    }
}

labels! {
    /// Result of one connection attempt to an upstream.
    pub enum AttemptOutcome {
        Connected = "connected",
        Refused = "refused",
        Timeout = "timeout",
        Unreachable = "unreachable",
        /// Another address answered first.
        Lost = "lost",
        /// The gateway lacks file descriptors, memory or local ports; nothing is known about the upstream.
        Resources = "resources",
        /// An active check got no greeting, or one that refuses.
        Greeting = "greeting",
        Error = "error",
    }
}

labels! {
    /// A portion of a session's time.
    pub enum Phase {
        /// From accept to the upstream connection.
        Connect = "connect",
        /// From the upstream connection to its greeting.
        Greeting = "greeting",
        /// From the gateway's 220 to STARTTLS to the end of its handshake with the client.
        TlsHandshake = "tls_handshake",
        /// From MAIL to the reply to DATA, or to the first BDAT.
        Envelope = "envelope",
        /// From the reply to DATA (or the first BDAT) to the end of data.
        Data = "data",
        /// From the end of data to its reply.
        Acceptance = "acceptance",
        /// The whole session.
        Session = "session",
    }
}

labels! {
    /// Which way bytes go.
    pub enum Direction {
        ClientToUpstream = "client_to_upstream",
        UpstreamToClient = "upstream_to_client",
    }
}

/// Why a session has no upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// Every attempt with its error, for the log: `192.0.2.1:25: connection refused`.
    pub detail: String,
    /// All attempts failed with [`AttemptOutcome::Resources`].
    pub is_local: bool,
}

/// One event of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    SessionOpened,
    /// Exactly one for each `SessionOpened`.
    SessionClosed(Outcome),
    Command(Verb),
    /// A complete reply to the client.
    Reply {
        code: u16,
        source: ReplySource,
    },
    /// The reply to the end of data.
    Message {
        code: u16,
        bytes: u64,
    },
    Anomaly(Anomaly),
    Refusal(Refusal),
    Starttls(Starttls),
    /// A handshake of the gateway's own TLS with the client.
    TlsHandshake {
        version: TlsVersion,
        result: TlsHandshake,
    },
    /// The session is offered no STARTTLS, as handshakes of its client failed again and again.
    StarttlsHidden,
    /// Whether the gateway used TLS with upstream, if it was to try.
    UpstreamTls(UpstreamTlsResult),
    /// Once, at the end of a session.
    SessionTls(TlsState),
    /// `family` is the upstream's, which need not be the client's.
    Attempt {
        family: Family,
        outcome: AttemptOutcome,
    },
    Phase {
        phase: Phase,
        duration: Duration,
    },
    Bytes {
        direction: Direction,
        count: u64,
    },
    Desync(Desync),
    /// A policy rule matched, enforced or in shadow mode; each rule and action once a session.
    Policy {
        /// Its position in the rules of the session's [`super::Profile`].
        rule: u16,
        action: PolicyAction,
        mode: RuleMode,
    },
    /// A fact that a verdict rests on; the same state from the same source once a session.
    Fact {
        name: FactName,
        state: FactState,
        source: Source,
    },
    /// How long the client waited for verdicts in total; once a session, at its end, if it did.
    Waited(Duration),
}
