//! Texts in which smtp(8) reports that an attempt failed. Source: `smtp_proto.c`, `smtp_trouble.c` and `smtp_connect.c` of
//! Postfix 3.7 to 3.11.

use super::peer::PeerText;
use crate::outbound::{OutboundOutcome, is_policy_refusal};

/// A failure after the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure<'a> {
    /// `None` where the text has no server.
    pub(super) peer: Option<PeerText<'a>>,
    pub(super) outcome: OutboundOutcome,
    pub(super) reply: Option<&'a [u8]>,
    /// It concerns all remaining recipients of the message; a reply to RCPT only its own.
    pub(super) ends_session: bool,
}

/// A text behind a queue ID, or within the parentheses of `status=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureText<'a> {
    Failure(Failure<'a>),
    /// Known, and no statement about the server: a fault of ours, or a connection that was lost after the last reply.
    Local,
}

/// What smtp(8) was doing when a connection was lost whose message had been decided.
const DECIDED: [&[u8]; 3] = [b"sending QUIT", b"sending final RSET", b"sending RSET probe"];

/// Beginnings of texts about our own side, or about DNS.
const LOCAL: [&[u8]; 22] = [
    b"local data error while talking to ",
    b"TLS is required, but our TLS engine is unavailable",
    b"TLS is required, but unavailable",
    b"mail for ",
    b"mail forwarding loop",
    b"SASL ",
    b"connect to ",
    b"delivery temporarily suspended",
    b"Host or domain name not found",
    b"unable to look up host",
    b"unable to find primary relay",
    b"no MX host for ",
    b"Domain ",
    b"Address type ",
    b"TLSA lookup error for ",
    b"TLS policy lookup",
    b"client TLS configuration problem",
    b"bad address syntax",
    b"malformed ",
    b"mail system configuration error",
    b"server configuration error",
    b"unreadable mail queue entry",
];

impl<'a> FailureText<'a> {
    /// `None` for a text that is not known.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = text.strip_prefix(b"Protocol error: ").unwrap_or(text);
        if let Some(rest) = text.strip_prefix(b"host ") {
            return Self::host(rest);
        }
        if let Some(rest) = text.strip_prefix(b"lost connection with ") {
            let (peer, rest) = PeerText::parse(rest)?;
            let doing = rest.strip_prefix(b" while ").unwrap_or_default();
            let outcome = match doing {
                b"receiving the STARTTLS response" => OutboundOutcome::TlsFailed,
                _ => OutboundOutcome::Lost,
            };
            return Some(Self::broken(peer, outcome, doing));
        }
        if let Some(rest) = text.strip_prefix(b"conversation with ") {
            let (peer, rest) = PeerText::parse(rest)?;
            let doing = rest.strip_prefix(b" timed out while ").unwrap_or_default();
            return Some(Self::broken(peer, OutboundOutcome::Stalled, doing));
        }
        if text.starts_with(b"Cannot start TLS") || text.starts_with(b"Server certificate not ") {
            return Some(Self::failure(None, OutboundOutcome::TlsFailed, None));
        }
        if let Some(rest) = text.strip_prefix(b"TLS is required, but host ") {
            let (peer, rest) = PeerText::parse(rest)?;
            let reply = rest.strip_prefix(b" refused to start TLS: ")?;
            return Some(Self::failure(Some(peer), OutboundOutcome::TlsFailed, Some(reply)));
        }
        if let Some(rest) = behind(text, b"but was not offered by host ") {
            let (peer, _) = PeerText::parse(rest)?;
            let outcome = match text.starts_with(b"TLS ") {
                true => OutboundOutcome::TlsFailed,
                false => OutboundOutcome::Rejected,
            };
            return Some(Self::failure(Some(peer), outcome, None));
        }
        if text.starts_with(b"message size ") {
            let (peer, _) = PeerText::parse(behind(text, b" of server ")?)?;
            return Some(Self::failure(Some(peer), OutboundOutcome::Rejected, None));
        }
        if text.starts_with(b"SASL ")
            && let Some((peer, rest)) = behind(text, b" server ").and_then(PeerText::parse)
            && let Some(reply) = behind(rest, b"said: ")
        {
            return Some(Self::failure(Some(peer), outcome_of(reply)?, Some(reply)));
        }
        LOCAL.iter().any(|known| text.starts_with(known)).then_some(Self::Local)
    }

    /// The text behind `host `.
    fn host(text: &'a [u8]) -> Option<Self> {
        let (peer, rest) = PeerText::parse(text)?;
        if let Some(reply) = rest.strip_prefix(b" refused to talk to me: ") {
            let outcome = match outcome_of(reply)? {
                OutboundOutcome::PolicyRefused => OutboundOutcome::PolicyRefused,
                _ => OutboundOutcome::GreetingRefused,
            };
            return Some(Self::failure(Some(peer), outcome, Some(reply)));
        }
        if let Some(text) = rest.strip_prefix(b" said: ") {
            let (reply, command) = split_command(text);
            let outcome = outcome_of(reply)?;
            let is_last = command.is_some_and(|command| command != b"RCPT TO command");
            return Some(Self::Failure(Failure {
                peer: Some(peer),
                outcome,
                reply: Some(reply),
                ends_session: is_last,
            }));
        }
        let own_name = rest.ends_with(b" with my own hostname")
            || memchr::memmem::find(rest, b" with my own hostname ").is_some();
        own_name.then_some(Self::Local)
    }

    fn broken(peer: PeerText<'a>, outcome: OutboundOutcome, doing: &[u8]) -> Self {
        if DECIDED.contains(&doing) {
            return Self::Local;
        }
        Self::failure(Some(peer), outcome, None)
    }

    const fn failure(
        peer: Option<PeerText<'a>>,
        outcome: OutboundOutcome,
        reply: Option<&'a [u8]>,
    ) -> Self {
        Self::Failure(Failure { peer, outcome, reply, ends_session: true })
    }
}

/// Splits off ` (in reply to RCPT TO command)`, which smtp(8) appends; a reply may contain the same words, so the last ones
/// count, and only at the end of the text. A line that was cut off has none.
fn split_command(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    const OPEN: &[u8] = b" (in reply to ";
    let found = text.strip_suffix(b")").and_then(|whole| {
        let at = memchr::memmem::rfind(whole, OPEN)?;
        let command = whole.get(at + OPEN.len()..)?;
        command.ends_with(b" command").then_some((whole.get(..at)?, command))
    });
    match found {
        Some((reply, command)) => (reply, Some(command)),
        None => (text, None),
    }
}

/// The outcome of a 4xx or 5xx reply to a command.
fn outcome_of(reply: &[u8]) -> Option<OutboundOutcome> {
    if is_policy_refusal(&String::from_utf8_lossy(reply)) {
        return Some(OutboundOutcome::PolicyRefused);
    }
    match reply {
        [b'5', a, b, ..] if a.is_ascii_digit() && b.is_ascii_digit() => {
            Some(OutboundOutcome::Rejected)
        }
        // Another class at this place is a fault of the server, and Postfix defers.
        [class, ..] if class.is_ascii_digit() => Some(OutboundOutcome::Deferred),
        _ => None,
    }
}

/// The reason behind `connect to HOST[ADDRESS]:25: `, a text of strerror(3).
pub(super) fn connect_outcome(reason: &[u8]) -> OutboundOutcome {
    match reason {
        b"Connection timed out" | b"Operation timed out" => OutboundOutcome::TimedOut,
        b"Connection refused" | b"Connection reset by peer" => OutboundOutcome::Refused,
        // No route to host, Network is unreachable, Permission denied (ICMPv6 code 1), Cannot assign requested address.
        _ => OutboundOutcome::Unreachable,
    }
}

fn behind<'a>(text: &'a [u8], words: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(text, words)?;
    text.get(at + words.len()..)
}

/// Whether a line of smtp(8) about no message, or about one, is known to say nothing about an attempt.
pub(super) fn is_informational(text: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 24] = [
        b"warning: ",
        b"error: ",
        b"fatal: ",
        b"panic: ",
        b"statistics: ",
        b"certificate verification failed for ",
        b"setting up TLS connection to ",
        b"Host offered STARTTLS: [",
        b"initializing the client-side TLS engine",
        b"using backwards-compatible default setting ",
        b"table ",
        b"enabling PIX workarounds: ",
        b"disabling PIX workaround",
        b"breaking line ",
        b"replace: ",
        b"prepend: ",
        b"strip: ",
        b"info: ",
        b"pass: ",
        b"filter: ",
        b"SSL_connect:",
        b"SSL3 alert ",
        b"looking for session ",
        b"TLS SNI ",
    ];
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        || memchr::memmem::find(text, b" TLS connection ").is_some()
        || memchr::memmem::find(text, b"certificate verification failed for ").is_some()
        || memchr::memmem::find(text, b"subject_CN=").is_some()
        || text.starts_with(b"server ") && memchr::memmem::find(text, b" violates ").is_some()
        || text.starts_with(b"host ") && memchr::memmem::find(text, b" offers SMTPUTF8 ").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Option<(OutboundOutcome, Option<String>, bool)> {
        match FailureText::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}")) {
            FailureText::Local => None,
            FailureText::Failure(failure) => {
                let reply = failure.reply.map(|reply| String::from_utf8_lossy(reply).into_owned());
                Some((failure.outcome, reply, failure.ends_session))
            }
        }
    }

    #[test]
    fn failures() {
        use OutboundOutcome::{
            Deferred, GreetingRefused, Lost, PolicyRefused, Rejected, Stalled, TlsFailed,
        };
        const P: &str = "mx.example[2001:db8::1]";
        let reply = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            (
                format!("host {P} said: 550 5.1.1 no (in reply to RCPT TO command)"),
                Some((Rejected, reply("550 5.1.1 no"), false)),
            ),
            (
                format!(
                    "host {P} said: 550-5.7.26 a 550 5.7.26 b (in reply to end of DATA command)"
                ),
                Some((PolicyRefused, reply("550-5.7.26 a 550 5.7.26 b"), true)),
            ),
            // The reply imitates the end of the text.
            (
                format!(
                    "host {P} said: 450 a (in reply to DATA command) (in reply to RCPT TO command)"
                ),
                Some((Deferred, reply("450 a (in reply to DATA command)"), false)),
            ),
            (
                format!("host {P} said: 450 cut (in re"),
                Some((Deferred, reply("450 cut (in re"), false)),
            ),
            (
                format!("host {P} refused to talk to me: 421 busy"),
                Some((GreetingRefused, reply("421 busy"), true)),
            ),
            (
                format!("host {P} refused to talk to me: 554 5.7.25 no PTR"),
                Some((PolicyRefused, reply("554 5.7.25 no PTR"), true)),
            ),
            (format!("lost connection with {P} while sending RCPT TO"), Some((Lost, None, true))),
            (
                format!("lost connection with {P} while receiving the STARTTLS response"),
                Some((TlsFailed, None, true)),
            ),
            (format!("lost connection with {P} while sending QUIT"), None),
            (
                format!("conversation with {P} timed out while sending message body"),
                Some((Stalled, None, true)),
            ),
            ("Cannot start TLS: handshake failure".to_owned(), Some((TlsFailed, None, true))),
            ("Server certificate not trusted".to_owned(), Some((TlsFailed, None, true))),
            (
                format!("TLS is required, but was not offered by host {P}"),
                Some((TlsFailed, None, true)),
            ),
            (
                format!("TLS is required, but host {P} refused to start TLS: 454 later"),
                Some((TlsFailed, reply("454 later"), true)),
            ),
            ("TLS is required, but our TLS engine is unavailable".to_owned(), None),
            (
                format!("SMTPUTF8 is required, but was not offered by host {P}"),
                Some((Rejected, None, true)),
            ),
            (
                format!("message size 9 exceeds size limit 8 of server {P}"),
                Some((Rejected, None, true)),
            ),
            (
                format!("SASL authentication failed; server {P} said: 535 5.7.8 no"),
                Some((Rejected, reply("535 5.7.8 no"), true)),
            ),
            ("mail for a.example loops back to myself".to_owned(), None),
        ] {
            assert_eq!(outcome(&text), expected, "{text}");
        }
        for unknown in
            ["", "x", "host a said: 550", "host a[192.0.2.1] frowned", "lost connection with x"]
        {
            assert_eq!(FailureText::parse(unknown.as_bytes()), None, "{unknown}");
        }
    }
}
