//! Every section and key of the configuration file, in one table.
//!
//! Unknown keys and their suggestions, examples in messages, the reference in docs/configuration.md and the commented file
//! tests/config/valid/full.toml come from it. Tests compare each type, range and default with the code that reads the key.

/// One section.
#[derive(Debug, PartialEq, Eq)]
pub struct SectionSpec {
    /// As written in the file: `[section]`, or `[[section]]` for a section that may be repeated.
    pub header: &'static str,
    pub help: &'static str,
    pub keys: &'static [KeySpec],
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub struct KeySpec {
    pub name: &'static str,
    /// Type and range.
    pub kind: &'static str,
    pub default: DefaultSpec,
    pub help: &'static str,
}

/// The value without the key.
#[derive(Debug, PartialEq, Eq)]
pub enum DefaultSpec {
    /// There is none; the string is an example, in TOML.
    Required(&'static str),
    /// A string; without its quotes here.
    Text(&'static str),
    /// Another value, in TOML.
    Value(&'static str),
    /// No fixed value: a description in Markdown, and an example in TOML.
    Unset(&'static str, &'static str),
}

use DefaultSpec::{Required, Text, Unset, Value};

impl SectionSpec {
    /// `section.subsection`
    pub fn path(&self) -> &'static str {
        self.header.trim_matches(['[', ']'])
    }
}

impl KeySpec {
    /// A value in TOML: the default or, without a fixed one, an example.
    pub fn example(&self) -> String {
        match self.default {
            Text(text) => format!("\"{text}\""),
            Required(toml) | Value(toml) | Unset(_, toml) => toml.to_owned(),
        }
    }
}

/// The section at `path`.
pub(super) fn section(path: &str) -> Option<&'static SectionSpec> {
    SECTIONS.iter().find(|section| section.path() == path)
}

/// The key `name` of the section at `path`.
pub(super) fn key(path: &str, name: &str) -> Option<&'static KeySpec> {
    section(path)?.keys.iter().find(|key| key.name == name)
}

/// The present name of a section or key that this version renamed. The path of a key has the new name of its section.
pub(super) fn renamed(path: &str) -> Option<&'static str> {
    let path = path.replacen("door.ipv4.", "door.ipv6.", 1);
    RENAMED.iter().find(|(old, _)| *old == path).map(|&(_, new)| new)
}

/// Old and new paths; `door.ipv6` stands for both families.
pub const RENAMED: &[(&str, &str)] = &[
    ("reach", "lookup"),
    ("lookup.keep", "lookup.ttl"),
    ("lookup.cache", "lookup.cache_file"),
    ("lookup.store", "lookup.redis"),
    ("lookup.traffic_fresh", "lookup.traffic_max_age"),
    ("lookup.entries", "lookup.cache_entries"),
    ("lookup.size", "lookup.cache_size"),
    ("lookup.port", "lookup.probe_port"),
    ("lookup.large_segments", "lookup.probe_large_segments"),
    ("lookup.probes_at_once", "lookup.max_concurrent_probes"),
    ("lookup.recipients_pending", "lookup.max_pending_recipients"),
    ("lookup.ttl.probe_yes", "lookup.ttl.probe_positive"),
    ("lookup.ttl.probe_no", "lookup.ttl.probe_negative"),
    ("lookup.ttl.callout_yes", "lookup.ttl.callout_positive"),
    ("lookup.ttl.callout_no", "lookup.ttl.callout_negative"),
    ("lookup.ttl.recipient_yes", "lookup.ttl.recipient_positive"),
    ("lookup.ttl.recipient_no", "lookup.ttl.recipient_negative"),
    ("vantage.key", "vantage.key_file"),
    ("timeouts.opaque", "timeouts.passthrough_idle"),
    ("timeouts.stress.opaque", "timeouts.stress.passthrough_idle"),
    ("door.probe_every", "door.probe_interval"),
    ("door.ipv6.fresh", "door.ipv6.proof_max_age"),
    ("door.ipv6.failures", "door.ipv6.failure_threshold"),
    ("door.ipv6.successes", "door.ipv6.success_threshold"),
    ("door.ipv6.stalls", "door.ipv6.stall_threshold"),
    ("door.ipv6.stalled_for", "door.ipv6.stall_duration"),
    ("door.ipv6.confirm", "door.ipv6.grace"),
    ("door.ipv6.dwell", "door.ipv6.min_hold"),
    ("door.ipv6.retry_longest", "door.ipv6.retry_max"),
];

const fn spec(
    name: &'static str,
    kind: &'static str,
    default: DefaultSpec,
    help: &'static str,
) -> KeySpec {
    KeySpec { name, kind, default, help }
}

const FAMILY: &str = r#""ipv4", "ipv6""#;
const DOMAINS: &str = "list of domains";
const HOUR: &str = "duration, 1s to 1h";
const YEAR: &str = "duration, 1s to 1year";
const MILLION: &str = "integer, 1 to 1000000";

/// Of `[upstream]` and `[listener.upstream]`.
#[rustfmt::skip]
const UPSTREAM: &[KeySpec] = &[
    spec("addresses", "list of addresses",
        Unset("required with `mode = \"proxy\"`; with `\"tproxy\"` the original destination",
            r#"["[::1]:25", "127.0.0.1:25"]"#),
        "Addresses of the MTA, or host names, each with its port: `\"postfix:25\"`. A name stands for all its addresses, of both \
         families; see [host names](containers.md#host-names). Or one [Unix socket](listeners.md#unix-sockets): `\"unix:/var/spool/postfix/public/smtpd\"`."),
    spec("resolve_interval", HOUR, Text("10s"),
        "Time after which host names are looked up again. A shorter TTL of the DNS applies, at least 1s."),
    spec("identity", r#""none", "transparent", "proxy-v1", "proxy-v2", "xclient""#,
        Unset("`\"none\"`; with `mode = \"tproxy\"` `\"transparent\"`", r#""none""#),
        "How the MTA learns the client's address: not at all, from the source address of the connection, from a PROXY \
         header, or from XCLIENT. `\"none\"` is an error where strangers would look like a host that the MTA trusts; \
         `\"xclient\"` is not accepted where TLS passes through; prefer `\"proxy-v2\"`."),
    spec("trusted_by_address", "boolean", Value("true"),
        "Whether the MTA may trust clients by their address (Postfix: `mynetworks`). `false`, together with \
         `identity = \"none\"`, states that it trusts none, also not this host: otherwise strangers can relay mail."),
    spec("trusted_networks", "list of networks", Value("[]"),
        "Networks that the MTA trusts, besides its own host (Postfix: `mynetworks`). With `identity = \"none\"` neither \
         the MTA nor this host may be in one."),
    spec("attempt_delay", "duration, 10ms to 2s", Text("250ms"),
        "Delay before the next address is tried in parallel (RFC 8305)."),
    spec("connect_timeout", "duration, 100ms to 1h", Text("30s"), "Time limit for all connection attempts together."),
    spec("retry_after", "duration, 0s to 1h", Text("10s"),
        "Time for which an address is tried last after a failed connection."),
    spec("check", r#""smtp", "none""#, Text("smtp"),
        "How the MTA is checked while there is no mail: `\"smtp\"` connects to each address, waits for the greeting and \
         sends QUIT. `/readyz`, the status page and the metrics report the result."),
    spec("check_interval", "duration, 1s to 1h", Text("30s"), "Time between two checks."),
    spec("tls", r#""off", "opportunistic", "require", "verify""#,
        Unset("`\"off\"` for loopback addresses and Unix sockets, else `\"opportunistic\"`", r#""verify""#),
        "Whether the gateway itself uses TLS with the MTA, by STARTTLS. `\"opportunistic\"`: if the MTA offers it, with \
         any certificate. `\"require\"`: always, with any certificate. `\"verify\"`: always, with a certificate of \
         `tls_ca` for `tls_name`. Only where the gateway ends the clients' TLS (`[tls]`), else an error."),
    spec("tls_ca", "path", Unset("the authorities that the system trusts", r#""/etc/gatepost/ca.pem""#),
        "Certificates in PEM of the authorities that `tls = \"verify\"` trusts."),
    spec("tls_name", "host name", Unset("required with `tls = \"verify\"`", r#""mx.example.org""#),
        "Name in the MTA's certificate; the gateway sends it as server name (SNI)."),
];

/// In the order of the reference.
#[rustfmt::skip]
pub const SECTIONS: &[SectionSpec] = &[
    SectionSpec { header: "[listen]",
        help: "The only listener for SMTP clients, with the name `default`. A file with `[[listener]]` has only `threads` here.",
        keys: &[
        spec("addresses", "list of addresses", Required(r#"["[::1]:2525", "127.0.0.1:2525"]"#),
            "Addresses and ports to listen on. Port 0 lets the kernel choose; the log line `ready` shows the port. \
             With `mode = \"tproxy\"`: `\"[::]:PORT\"`, `\"0.0.0.0:PORT\"` or both."),
        spec("mode", r#""proxy", "tproxy""#, Text("proxy"),
            "`\"tproxy\"` intercepts SMTP that is routed through this host."),
        spec("tls", r#""starttls", "implicit", "passthrough", "off""#,
            Unset("`\"starttls\"` with `[tls]` in `mode = \"terminate\"`, otherwise `\"passthrough\"`", r#""starttls""#),
            "TLS with clients: STARTTLS that the gateway answers, TLS from the first byte on (RFC 8314, port 465), the MTA's own \
             STARTTLS, or none: then STARTTLS is hidden. The first two need `[tls]`."),
        spec("threads", "integer, 1 to 1024", Unset("number of CPUs", "2"),
            "Worker threads, each with its own listening sockets."),
    ] },
    SectionSpec { header: "[[listener]]",
        help: "One of several listeners, in place of `[listen]`: addresses, and what becomes of their sessions. At most 16.",
        keys: &[
        spec("name", "string", Required(r#""submission""#),
            "Name in logs, records, metrics and rules: 1 to 32 lower-case letters, digits, `-` and `_`, a letter first; unique."),
        spec("addresses", "list of addresses", Required(r#"["[2001:db8::25]:587", "192.0.2.25:587"]"#),
            "As in `[listen]`. No two listeners have a common address."),
        spec("mode", r#""proxy", "tproxy""#, Text("proxy"),
            "As in `[listen]`. Of all listeners, one of each family may intercept."),
        spec("tls", r#""starttls", "implicit", "passthrough", "off""#,
            Unset("`\"starttls\"` with `[tls]` in `mode = \"terminate\"`, otherwise `\"passthrough\"`", r#""starttls""#),
            "As in `[listen]`."),
        spec("proxy_trusted", "list of networks", Unset("those of `proxy_protocol.trusted`", r#"["192.0.2.80"]"#),
            "As `trusted` in `[proxy_protocol]`, for this listener."),
    ] },
    SectionSpec { header: "[intercept]", help: "Interception. Allowed only with a listener in `mode = \"tproxy\"`.", keys: &[
        spec("ports", "list of ports", Value("[25]"), "Destination ports to intercept."),
        spec("destinations", "list of networks",
            Unset("required with `mode = \"tproxy\"`", r#"["192.0.2.25", "2001:db8::25"]"#),
            "The mail servers behind this host: only connections to them are intercepted. The rules of the FORWARD chain \
             do not apply to intercepted connections, those of INPUT do."),
        spec("interfaces", "list of interfaces", Unset("those of the default routes", r#"["wan0"]"#),
            "Interfaces on which clients arrive. `gatepost intercept show` shows those in use."),
        spec("mark", "integer, 1 to 4294967294", Value("0x40"),
            "Firewall mark of intercepted packets: some bits of `mask`."),
        spec("mask", "integer, 3 to 4294967295", Value("0xc0"),
            "The bits of the firewall mark that gatepost uses. Those that `mark` leaves mark the gateway's own connections."),
        spec("table", "integer, 1 to 4294967295", Value("26480"), "Routing table, reserved for gatepost."),
    ] },
    SectionSpec { header: "[upstream]",
        help: "The MTA behind the gateway: of `[listen]`, or of each `[[listener]]` without a `[listener.upstream]`.",
        keys: UPSTREAM },
    SectionSpec { header: "[listener.upstream]",
        help: "The same for the `[[listener]]` before it. Nothing of `[upstream]` applies to that listener.", keys: UPSTREAM },
    SectionSpec { header: "[tls]",
        help: "TLS with clients. With this section the gateway offers STARTTLS and ends TLS itself, so that sessions under TLS \
               are inspected like others; without it TLS passes through to the MTA.",
        keys: &[
        spec("certificate", "path", Unset("required with `mode = \"terminate\"`", r#""/etc/gatepost/fullchain.pem""#),
            "Certificate chain in PEM, the server's own certificate first. For several certificates write \
             `[[tls.certificate]]` instead. The file is read again by itself when it changes."),
        spec("key", "path", Unset("required with `certificate`", r#""/etc/gatepost/privkey.pem""#),
            "Its private key in PEM, without a passphrase: ECDSA, RSA or Ed25519."),
        spec("mode", r#""terminate", "passthrough""#, Text("terminate"),
            "`\"passthrough\"` relays the MTA's own STARTTLS and TLS, which nobody on the way can inspect."),
        spec("min_version", r#""1.2", "1.3""#, Text("1.2"), "The oldest version of TLS that clients may use."),
        spec("require", "boolean", Value("false"),
            "Whether mail is rejected (530 5.7.0) before STARTTLS. Not for a public MX (RFC 3207 section 4): senders without \
             TLS cannot deliver."),
        spec("after_failures", r#""offer", "hide""#, Text("offer"),
            "Whether a client (IPv4 address or IPv6 /64) is still offered STARTTLS after 3 handshakes in a row, each within \
             4 hours of the one before, that failed as those of old software do. `\"hide\"`: not for an hour, so that it falls \
             back to plaintext; not together with `require`."),
        spec("trace_header", "boolean", Value("false"),
            "Whether a `Received:` field of the gateway goes before each message, with the client's TLS: the MTA's own cannot \
             know of it."),
        spec("client_certificate", r#""off", "request""#, Unset("`\"off\"`", r#""request""#),
            "`\"request\"` asks clients for a certificate. They need none, and any is accepted: it appears in the log, and \
             rules can use it (`when.client_certificate`). Some old software cannot complete a handshake in which it is asked."),
        spec("client_ca", "path", Unset("none", r#""/etc/gatepost/clients-ca.pem""#),
            "Certificates in PEM of the authorities that vouch for the names in clients' certificates. Without it no name is \
             verified, and rules can use fingerprints only."),
    ] },
    SectionSpec { header: "[[tls.certificate]]",
        help: "One of several certificates, chosen by the server name (SNI) that a client sends and by the algorithms that it \
               knows. The first is the default, for clients that send no name or an unknown one.",
        keys: &[
        spec("file", "path", Required(r#""/etc/gatepost/fullchain.pem""#), "Certificate chain in PEM."),
        spec("key", "path", Required(r#""/etc/gatepost/privkey.pem""#), "Its private key in PEM."),
    ] },
    SectionSpec { header: "[proxy_protocol]", help: "PROXY protocol on connections from clients.", keys: &[
        spec("trusted", "list of networks", Value("[]"),
            "Networks that must send a PROXY header. From all others the header is rejected."),
    ] },
    SectionSpec { header: "[[access]]",
        help: "Rules on client addresses. The first rule that matches decides; without a match the client is accepted. \
               A rule needs `family`, `networks` or `listeners`.",
        keys: &[
        spec("name", "string", Required(r#""no mail from there""#),
            "Name in replies and logs: 1 to 64 printable ASCII characters, unique among all rules."),
        spec("family", FAMILY, Unset("both", r#""ipv6""#), "Client address family to match."),
        spec("networks", "list of networks", Unset("all", r#"["2001:db8::/32"]"#), "Client networks to match."),
        spec("listeners", "list of listeners", Unset("all", r#"["default", "[::1]:2525"]"#),
            "Names of listeners, or addresses and ports that the client connected to."),
        spec("action", r#""accept", "tempfail", "reject""#, Required(r#""reject""#), "Verdict."),
    ] },
    SectionSpec { header: "[[policy]]",
        help: "Rules on sessions, evaluated after `[[access]]`. The first rule that matches decides. A rule needs `when` or \
               `require`; at most 64 rules.",
        keys: &[
        spec("name", "string", Required(r#""ipv6 needs a forward-confirmed name""#),
            "Name in replies, logs and metrics: 1 to 64 printable ASCII characters, unique among all rules."),
        spec("require", "list of facts",
            Unset("none", r#"["fcrdns", { fact = "return_path", level = "smtp", over = "any" }]"#),
            "Facts that must hold, or the rule matches: `reverse_name`, `fcrdns`, `helo_resolves`, `return_path`, \
             `recipient`, `receive_path`, `spf`, `dkim`, `dmarc`, `authenticated`. Option `level` of `spf`: \
             `\"pass\"` (default) or `\"not_fail\"`. Option `policy` of `dmarc`: `\"none\"`, `\"quarantine\"` (default) or \
             `\"reject\"`. Options of `return_path`: `level` is `\"dns\"` (default), `\"tcp\"` (connect), \
             `\"smtp\"` (greeting and EHLO) or `\"rcpt\"` (verify the mailbox by RCPT; some sites list callers for that); \
             `over` is `\"any\"` (default), `\"same-family\"`, `\"ipv6\"` or `\"ipv4\"`."),
        spec("otherwise", r#""accept", "tag", "tempfail", "reject""#, Text("tempfail"),
            "Verdict if a required fact does not hold."),
        spec("on_unknown", r#""accept", "tag", "tempfail""#, Text("tempfail"),
            "Verdict if a fact cannot be determined. `\"accept\"` continues with the next rule."),
        spec("mode", r#""enforce", "shadow""#, Text("enforce"),
            "`\"shadow\"` evaluates and records the verdict without enforcing it."),
        spec("exempt", "list of exemptions", Value(r#"["postmaster", "abuse", "authenticated"]"#),
            "Exceptions to the rule: `postmaster` and `abuse` at a domain of `site.domains`, `<postmaster>` alone, and authenticated clients."),
        spec("url", "string", Unset("none", r#""https://mx.example.org/policy""#),
            "URL of an explanation, quoted in replies."),
    ] },
    SectionSpec { header: "[policy.when]",
        help: "Match conditions of the `[[policy]]` rule before it, also written as `when = { … }`. All must match.", keys: &[
        spec("at", r#""connect", "helo", "mail", "rcpt", "data""#,
            Unset("the first stage at which all facts and conditions of the rule are known", r#""rcpt""#),
            "Stage at which the rule is evaluated."),
        spec("family", FAMILY, Unset("both", r#""ipv6""#), "Client address family."),
        spec("networks", "list of networks", Unset("all", r#"["2001:db8::/32"]"#), "Client networks."),
        spec("listeners", "list of listeners", Unset("all", r#"["default", "[::1]:2525"]"#),
            "Names of listeners, or addresses and ports that the client connected to."),
        spec("helo", DOMAINS, Unset("all", r#"["client.example"]"#),
            "Domains of the HELO name: `\"a.example\"`, or `\".a.example\"` for all subdomains."),
        spec("sender", DOMAINS, Unset("all", r#"["sender.example", ".sender.example"]"#), "Domains of MAIL FROM."),
        spec("recipient", DOMAINS, Unset("all", r#"["example.org"]"#), "Domains of RCPT TO."),
        spec("tls", "boolean", Unset("both", "false"), "Whether the session uses TLS."),
        spec("auth", "boolean", Unset("both", "false"), "Whether the client is authenticated."),
        spec("client_certificate", r#"list of "sha256:HEX", domains"#, Unset("all", r#"["sha256:6a09e667f3bcc908bb67ae8584caa73b3c6ef372fe94f82ba54ff53a5f1d36f1"]"#),
            "TLS certificates of clients: by SHA-256 of the certificate or of its public key, or by a DNS name in a certificate \
             of `tls.client_ca`, which names need. With `client_certificate = \"request\"` in `[tls]`."),
    ] },
    SectionSpec { header: "[site]", help: "Own networks and domains.", keys: &[
        spec("addresses", "list of networks", Unset("none", r#"["2001:db8:25::/48", "192.0.2.0/24"]"#),
            "Own networks. A sender whose mail would return to them counts as unreachable."),
        spec("domains", DOMAINS, Unset("none", r#"["example.org"]"#), "Domains that this site accepts mail for."),
    ] },
    SectionSpec { header: "[smtp]", help: "SMTP options.", keys: &[
        spec("hostname", "host name", Unset("the host's name", r#""mx.example.org""#),
            "Name in the gateway's own EHLO and replies."),
        spec("refuse_at", r#""connect", "rcpt""#, Text("rcpt"),
            "Stage of a rejection by `[[access]]`: instead of the greeting, or at RCPT, so that the log has the envelope."),
        spec("bare_newlines", r#""normalize", "reject", "pass""#, Text("normalize"),
            "Bare CR or LF in message content: rewritten, rejected or passed on. In commands it is never passed on."),
        spec("paths", r#""strict", "lenient""#, Text("strict"),
            "Addresses in MAIL and RCPT that are not `<user@domain>` (RFC 5321): rejected, or left to the mail server, which may read another address than the policy rules."),
        spec("pregreet", r#""accept", "reject""#, Text("accept"),
            "Clients that send before the greeting: passed on to the mail server as they send, or rejected."),
        spec("early_data", r#""reject", "allow""#,
            Unset("`\"reject\"` where PIPELINING was not offered, else `\"allow\"`", r#""reject""#),
            "Message content in one write with DATA: 503 as by Postfix's `reject_unauth_pipelining`, or held until the reply."),
        spec("hide", "list of EHLO keywords", Value("[]"),
            "EHLO keywords to withhold from clients, such as `\"CHUNKING\"`; not `\"STARTTLS\"`, or senders that require TLS cannot deliver."),
    ] },
    SectionSpec { header: "[limits]", help: "Limits. A client is an IPv4 address or an IPv6 /64.", keys: &[
        spec("sessions", MILLION, Value("10000"), "Concurrent sessions."),
        spec("sessions_per_client", MILLION, Value("50"), "Concurrent sessions of one client."),
        spec("new_sessions_per_client_per_minute", "integer, 0 to 1000000", Value("0"),
            "New sessions of one client per minute; 0 for no limit."),
        spec("sessions_per_network", MILLION, Unset("four times `sessions_per_client`", "200"),
            "Concurrent sessions of one IPv6 /48."),
        spec("new_sessions_per_network_per_minute", "integer, 0 to 1000000", Value("0"),
            "New sessions of one IPv6 /48 per minute; 0 for no limit."),
        spec("commands", MILLION, Value("2000"), "Commands other than RCPT since the last accepted message."),
        spec("errors", MILLION, Value("20"),
            "Errors since the last accepted message, of those that the gateway answers itself (4xx and 5xx). Those that the \
             MTA answers count towards its own limit."),
        spec("line_length", "integer, 512 to 65536", Value("2048"), "Bytes of a command line, including CRLF."),
    ] },
    SectionSpec { header: "[timeouts]", help: "Time limits of a session (RFC 5321 §4.5.3.2).", keys: &[
        spec("greeting", HOUR, Text("5m"), "Upstream's greeting."),
        spec("command", HOUR, Text("5m"), "The client's next command."),
        spec("data", HOUR, Text("5m"), "The next block of a message."),
        spec("reply", HOUR, Text("5m"), "Upstream's reply to a command."),
        spec("acceptance", HOUR, Text("10m"), "Upstream's reply to the end of data."),
        spec("passthrough_idle", HOUR, Text("5m"),
            "Idle time after STARTTLS while the client's next bytes are due. While the MTA's are, it may be delivering a \
             message, and `acceptance` applies."),
        spec("min_data_rate", "integer, 0 to 1000000", Value("100"),
            "Bytes per second that a client has to send of a message, on average over `data`; 0 for no limit. Time for which \
             the MTA does not accept them does not count."),
        spec("drain", "duration, 0s to 1h", Text("30s"), "Time for open transactions to finish after SIGTERM."),
        spec("stress_above", "integer, 1 to 100", Value("80"),
            "Percentage of `limits.sessions` above which `[timeouts.stress]` applies."),
    ] },
    SectionSpec { header: "[timeouts.stress]", help: "Time limits under load, never longer than those of `[timeouts]`.", keys: &[
        spec("greeting", HOUR, Unset("as in `[timeouts]`", r#""5m""#), "Upstream's greeting."),
        spec("command", HOUR, Text("10s"), "The client's next command."),
        spec("data", HOUR, Text("30s"), "The next block of a message."),
        spec("reply", HOUR, Unset("as in `[timeouts]`", r#""5m""#), "Upstream's reply to a command."),
        spec("acceptance", HOUR, Unset("as in `[timeouts]`", r#""10m""#), "Upstream's reply to the end of data."),
        spec("passthrough_idle", HOUR, Text("30s"), "Idle time after STARTTLS while the client's next bytes are due."),
        spec("min_data_rate", "integer, 0 to 1000000", Value("500"),
            "Bytes per second that a client has to send of a message; not lower than in `[timeouts]`."),
    ] },
    SectionSpec { header: "[log]", help: "Session log.", keys: &[
        spec("format", r#""text", "json""#, Text("text"), "Format of log lines."),
        spec("file", "path", Unset("standard output", r#""/var/log/gatepost.log""#), "Log file. SIGHUP reopens it."),
    ] },
    SectionSpec { header: "[control]", help: "Control socket of `gatepost record`, `door` and `cache`.", keys: &[
        spec("socket", "path",
            Unset("`\"/run/gatepost/control.sock\"`, if it can be created", r#""/run/gatepost/control.sock""#),
            "Path of the socket (mode 0600). With this key a socket that cannot be created is an error."),
    ] },
    SectionSpec { header: "[process]", help: "The gateway's process.", keys: &[
        spec("user", "account name", Unset("none", r#""gatepost""#),
            "Account, with its groups, that a gateway started by root switches to."),
    ] },
    SectionSpec { header: "[metrics]", help: "Metrics and status page over HTTP. Off without this section.", keys: &[
        spec("address", "address", Required(r#""[::1]:9625""#),
            "Address and port of `/metrics`, `/probe`, `/healthz`, `/readyz` and the status page at `/`."),
        spec("probe_domains", DOMAINS, Value("[]"),
            "Domains that `/probe?target=DOMAIN` checks as `gatepost check` does; see [monitoring](check.md#monitoring). No \
             others: whoever reaches the address can have the gateway connect to their mail servers."),
        spec("probe_controls", "list of host names or addresses", Value("[]"),
            "Hosts that are known to answer on port 25, of both families: by them `/probe` tells a filter of this network \
             from one at the domain, as `gatepost check --control` does. They see a connection that leaves after their greeting."),
        spec("probe_cache_time", HOUR, Text("1m"),
            "Time for which the result of `/probe` is kept and served again."),
    ] },
    SectionSpec { header: "[status]", help: "Status page.", keys: &[
        spec("show_addresses", "boolean", Value("false"),
            "Show client addresses and complete envelope addresses, not only domains."),
        spec("hosts", "list of host names", Value("[]"),
            "Names by which browsers may request the page, besides `smtp.hostname` and the address in `[metrics]`; for a \
             reverse proxy that keeps the client's `Host`."),
    ] },
    SectionSpec { header: "[watch]", help: "Passive capture beside the relay. Off without this section.", keys: &[
        spec("source", r#""auto", "ebpf", "pcap""#, Text("auto"),
            "Capture method. `\"auto\"` takes eBPF if kernel and privileges allow it, otherwise libpcap."),
        spec("interfaces", "list of interfaces", Value("[]"),
            "Interfaces to capture on; empty for all that are up and have a global address."),
        spec("ports", "list of ports", Value("[]"), "Ports of SMTP servers besides 25, 587 and 2525."),
        spec("buffer", r#"size, "64K" to "4G""#, Text("64M"),
            "Size of the capture buffer of all interfaces together. libpcap takes at least 1.125 MiB for each."),
    ] },
    SectionSpec { header: "[postfix]",
        help: "[Postfix asks](policy.md#let-postfix-ask) the rules about its sessions, also without `[listen]`. Off without this \
               section.",
        keys: &[
        spec("policy", "Unix socket, or address",
            Unset("Postfix does not ask", r#""unix:/var/spool/postfix/private/gatepost""#),
            "Where `check_policy_service` connects to: `\"unix:/path\"`, or `\"inet:127.0.0.1:10040\"`. The socket of a gateway \
             that was killed is replaced. A change takes effect after a restart."),
        spec("policy_connections", "integer, 1 to 100000", Value("2000"),
            "Connections of Postfix; each smtpd process has one for each line with `check_policy_service`."),
        spec("policy_deadline", "duration, 100ms to 1m", Text("1500ms"),
            "Time for an answer, shorter than the `timeout` in main.cf. Lookups without an answer then are *unknown*, which the \
             rule's `on_unknown` decides; they continue for the next question."),
    ] },
    SectionSpec { header: "[lookup]", help: "Lookups for policy rules: DNS, probes of other servers, recipients at upstream.", keys: &[
        spec("dns", "list of addresses", Value("[]"),
            "DNS servers, with or without a port; empty for those of /etc/resolv.conf."),
        spec("deadline", "duration, 100ms to 1m", Text("5s"), "Time limit of a lookup; after it the fact is unknown."),
        spec("traffic_max_age", HOUR, Text("10m"),
            "Age up to which captured traffic to a server replaces a probe of it."),
        spec("cache_entries", "integer, 100 to 100000000", Value("100000"), "Answers cached in memory."),
        spec("cache_size", r#"size, "1M" to "64G""#, Text("64M"), "Memory for cached answers."),
        spec("cache_file", "path", Unset("none", r#""/var/lib/gatepost/facts.redb""#),
            "File that keeps cached answers and the results of [canaries](canary.md) across restarts. A crash loses at most the last \
             second."),
        spec("redis", "URL", Unset("none", r#""redis://192.0.2.6:6379/0""#),
            "Redis server through which gateways share the results of probes."),
        spec("probe_port", "integer, 1 to 65535", Value("25"), "Port of probed servers."),
        spec("probe_timeout", "duration, 100ms to 5m", Text("15s"),
            "Time limit of a probe. Beyond `deadline` its result serves later sessions."),
        spec("callouts", "boolean", Value("false"),
            "Verify sender mailboxes by RCPT at their servers. Some sites list callers for that."),
        spec("probe_large_segments", "boolean", Value("false"),
            "Send large segments in probes, by a TLS handshake or one long NOOP, to detect path MTU black holes."),
        spec("max_concurrent_probes", "integer, 1 to 100000", Value("256"), "Probes in progress."),
        spec("probes_per_second", MILLION, Value("100"), "Probes per second."),
        spec("probes_per_server_per_minute", MILLION, Value("30"), "Probes of one server per minute."),
        spec("probes_per_client_per_minute", MILLION, Value("120"),
            "Probes that the clients of one network (IPv4 /24, IPv6 /48) cause per minute. Once they are used up, only its own \
             lookups are unknown. It also gets at most an eighth of the concurrent probes, queries and recipient checks."),
        spec("probe_special_networks", "list of networks", Value("[]"),
            "Special-purpose networks (IANA registries: private, documentation, 6to4, NAT64 and so on) whose servers may be \
             probed nevertheless, such as those of a test set-up. All others are never probed."),
        spec("max_pending_recipients", "integer, 1 to 100000", Value("100"),
            "Recipient checks at upstream in progress; further recipients are unknown."),
    ] },
    SectionSpec { header: "[lookup.ttl]", help: "Lifetime of cached answers.", keys: &[
        spec("dns_min", YEAR, Text("30s"), "Lower bound for the TTL of DNS records."),
        spec("dns_max", YEAR, Text("1d"), "Upper bound for the TTL of DNS records."),
        spec("dns_negative_max", YEAR, Text("1h"), "Upper bound for the TTL of NXDOMAIN and NODATA, which the SOA gives."),
        spec("unknown", YEAR, Text("30s"), "Failed lookups."),
        spec("probe_positive", YEAR, Text("6h"), "Servers that can be reached."),
        spec("probe_negative", YEAR, Text("10m"), "Servers that cannot be reached."),
        spec("callout_positive", YEAR, Text("31d"), "Sender mailboxes that exist."),
        spec("callout_negative", YEAR, Text("3d"), "Sender mailboxes that do not exist."),
        spec("recipient_positive", YEAR, Text("1h"), "Recipients that upstream accepts."),
        spec("recipient_negative", YEAR, Text("5m"), "Recipients that upstream rejects."),
    ] },
    SectionSpec { header: "[vantage]",
        help: "A `gatepost vantage` on another network, which probes this site. Off without this section.", keys: &[
        spec("address", "address", Required(r#""[2001:db8:2::9]:9626""#), "Address and port of `gatepost vantage`."),
        spec("key_file", "path", Required(r#""/etc/gatepost/vantage.key""#),
            "File with the shared key: 64 hexadecimal digits (`openssl rand -hex 32`), the same on both hosts."),
        spec("domains", DOMAINS, Required(r#"["example.org"]"#), "Own domains whose MX hosts are probed."),
        spec("timeout", "duration, 1s to 5m", Text("20s"), "Time limit of a request."),
    ] },
    SectionSpec { header: "[canary]",
        help: "Reports of [canaries](canary.md): is IPv6 mail treated as IPv4 mail is? Off without this section.", keys: &[
        spec("key_file", "path", Required(r#""/etc/gatepost/canary.key""#),
            "File with the key of the canaries: 64 hexadecimal digits (`openssl rand -hex 32`); with `interval` that of the \
             vantage, which signs with its own."),
        spec("inbound_to", "address", Required(r#""canary@example.org""#),
            "Own mailbox that the canaries are sent to, and that runs `gatepost canary receive`."),
        spec("outbound_to", "address", Unset("nothing is sent", r#""canary@vantage.example.net""#),
            "Mailbox on the vantage's side that the gateway sends canaries to, and whose reports the vantage hands out \
             (`--canary-reports`)."),
        spec("outbound_from", "address", Unset("none; required with `outbound_to`", r#""postmaster@example.org""#),
            "Sender of these."),
        spec("prefer_ipv4", "boolean", Value("false"),
            "While canaries to `outbound_to` are filtered away over IPv6 only, mail to the exchange hosts of its domain goes over \
             IPv4 where they have it, as with `outbound.ipv4_only`."),
        spec("timeout", "duration, 1s to 1day", Text("30m"),
            "Time for the reports about a pair; then a message that was accepted is lost."),
        spec("max_age", "duration, 1s to 30days", Text("25h"), "Age from which a result no longer counts."),
        spec("interval", "duration, 1s to 1day", Unset("no schedule", r#""1h""#),
            "Interval, give or take a tenth, at which the vantage of `[vantage]` is asked to send a pair, and at which one is sent to \
             `outbound_to`. Others may send too."),
        spec("per_day", "integer, 1 to 10000", Value("48"),
            "Pairs in 24 hours, in each direction; with `lookup.cache_file` also if the gateway is restarted meanwhile."),
        spec("marks", "list of header fields", Unset("none", r#"["X-Filter-Verdict: *junk*"]"#),
            "Header fields that mark spam beyond [the table](canary.md#what-counts-as-a-mark), as `HEADER: VALUE`, where `*` in VALUE \
             stands for any text. Case does not matter."),
    ] },
    SectionSpec { header: "[outbound]",
        help: "Mail that an MTA on this host sends, or one behind it. A file with this section needs no listener.",
        keys: &[
        spec("map", "path of a Unix socket", Text("unix:/run/gatepost/outbound.sock"),
            "Unix socket for `gatepost postfix map`, which Postfix starts and asks."),
        spec("mail_log", r#"path, "journal", "-""#, Unset("none", r#""/var/log/mail.log""#),
            "Postfix's log, from which gatepost learns what became of mail: a file (rotation is followed), the journal, or standard \
             input. Without it, `[watch]` shows what it can."),
        spec("retry", "duration, 1s to 1day", Text("10m"),
            "Time for which an IPv6 address is avoided after it failed. Then one message tries it; the time doubles with each \
             trial that fails."),
        spec("retry_max", "duration, 1s to 7days", Text("2h"), "Upper bound of `retry`."),
        spec("config_directory", "path", Unset("Postfix's own", r#""/etc/postfix-out""#),
            "Configuration directory of the Postfix that sends, for `postqueue`."),
        spec("reset_users", "list of user names or numbers", Value("[]"),
            "Users of an MTA on this host that cannot ask as Postfix does, such as `Debian-exim`: the kernel answers its \
             connections to port 25 of avoided IPv6 addresses with a reset, and the MTA takes the next address. Never root."),
        spec("reset_sources", "list of networks", Value("[]"),
            "The same on a router, for the IPv6 addresses of MTAs behind it."),
        spec("ipv4_only", DOMAINS, Value("[]"),
            "Exchange hosts to which mail goes over IPv4 where they have it: `\"mx.a.example\"`, or `\".a.example\"` for all \
             hosts below that domain. It is the name of the host, the target of the MX record, never the domain of recipients."),
        spec("keep_ipv6", DOMAINS, Value("[]"),
            "Exchange hosts whose IPv6 addresses are always kept. A host's own name in either list decides before a domain; \
             otherwise this list decides."),
    ] },
    SectionSpec { header: "[door]",
        help: "Refusal of an address family whose mail does not work. Without this section no family is ever refused; with it, \
               IPv6 can be.",
        keys: &[
        spec("refuse", r#""syn", "smtp""#, Text("syn"),
            "How a closed door refuses: a TCP reset at the SYN, or the reply 421 4.3.2."),
        spec("exempt", "list of networks", Value("[]"),
            "Networks that are always admitted, besides `vantage.address`: monitoring, the vantage's address of the other family."),
        spec("probe_interval", HOUR, Text("1m"), "Interval of the vantage's probes."),
    ] },
    SectionSpec { header: "[door.ipv6]", help: "Conditions for closing and opening the door of IPv6.", keys: FAMILY_DOOR },
    SectionSpec { header: "[door.ipv4]", help: "The same for IPv4. Without this section the door of IPv4 is always open.",
        keys: FAMILY_DOOR },
];

#[rustfmt::skip]
const FAMILY_DOOR: &[KeySpec] = &[
    spec("when_unproven", r#""open", "close""#,
        Unset("`\"close\"` with `[vantage]`, otherwise `\"open\"`", r#""open""#),
        "State of the door without a current proof that mail arrives."),
    spec("proof_max_age", "duration, 1m to 30days", Text("24h"), "Age at which a proof expires."),
    spec("failure_threshold", "integer, 1 to 100", Value("3"), "Consecutive failed probes that close the door."),
    spec("success_threshold", "integer, 1 to 100", Value("2"), "Consecutive successful probes that open it again."),
    spec("agreeing_networks", "integer, 2 to 1000", Value("3"),
        "Different client networks (IPv4 /24, IPv6 /48) whose sessions must agree before they close the door. One network \
         never closes it."),
    spec("stall_threshold", "integer, 1 to 1000", Value("3"),
        "Sessions stalled in DATA or after STARTTLS that close the door, while the other family delivers mail and no large \
         message and no large probe of the vantage arrives."),
    spec("stall_duration", "duration, 1s to 1day", Text("10m"), "Minimum time from the first to the last of these sessions."),
    spec("grace", "duration, 0s to 1day", Text("1m"), "Time for which a condition must persist before the door closes."),
    spec("min_hold", "duration, 1s to 1day", Text("5m"), "Minimum time in a state."),
    spec("retry", "duration, 1s to 1day", Text("10m"),
        "Time after which a closed door opens on trial. It doubles after each failed trial."),
    spec("retry_max", "duration, 1s to 7days", Text("2h"), "Upper bound of `retry`."),
    spec("spam_parity", r#""warn", "close""#, Text("warn"),
        "Effect of canaries that are accepted over this family and then marked as spam or lost, while those over the other \
         family are not: a sign, or the door closes."),
];
