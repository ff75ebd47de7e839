//! Delivery lines: `to=<…>, relay=…, delays=…, dsn=…, status=sent (text)`.

use std::time::Duration;

use super::event::DeliveryStatus;
use super::peer::PeerText;
use crate::outbound::Delays;
use crate::smtp::EnhancedCode;

/// Longer delays are no numbers of Postfix: a message stays in the queue for 100 days at the most.
const MAX_DELAY_SECONDS: f64 = 1e7;

/// The fields of one line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StatusLine<'a> {
    pub(super) local_part: &'a [u8],
    pub(super) domain: &'a [u8],
    /// `None` for `relay=none` and other words.
    pub(super) relay: Option<PeerText<'a>>,
    pub(super) is_reused: bool,
    pub(super) delays: Option<Delays>,
    pub(super) dsn: Option<EnhancedCode>,
    pub(super) status: DeliveryStatus,
    /// Within the parentheses; its end may be cut off.
    pub(super) text: &'a [u8],
}

impl<'a> StatusLine<'a> {
    /// Reads the line behind the queue ID. Fields that it does not know (`delay=`, `tls=` of Postfix 3.11) may stand at any
    /// place before `status=`.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let (recipient, mut rest) = LoggedAddress::parse(message.strip_prefix(b"to=<")?)?;
        let mut is_quoted = recipient.is_quoted;
        let (mut relay, mut is_reused, mut delays, mut dsn) = (None, false, None, None);
        loop {
            rest = rest.strip_prefix(b", ")?;
            if let Some(original) = rest.strip_prefix(b"orig_to=<") {
                let (original, behind) = LoggedAddress::parse(original)?;
                is_quoted &= original.is_quoted;
                rest = behind;
                continue;
            }
            if let Some(status) = rest.strip_prefix(b"status=") {
                let (status, text) = read_status(status)?;
                // With `info_log_address_format = internal` an address may contain what looks like the rest of the line.
                let is_ambiguous = !is_quoted && memchr::memmem::find(text, b">, relay=").is_some();
                return (!is_ambiguous && relay.is_some()).then_some(Self {
                    local_part: recipient.local_part,
                    domain: recipient.domain,
                    relay: relay.flatten(),
                    is_reused,
                    delays,
                    dsn,
                    status,
                    text,
                });
            }
            let end = memchr::memmem::find(rest, b", ")?;
            let field = rest.get(..end)?;
            rest = rest.get(end..)?;
            let equals = memchr::memchr(b'=', field)?;
            let (name, value) = (field.get(..equals)?, field.get(equals + 1..)?);
            match name {
                b"relay" => relay = Some(PeerText::parse(value).map(|(peer, _)| peer)),
                b"conn_use" => is_reused = true,
                b"delays" => delays = read_delays(value),
                b"dsn" => dsn = EnhancedCode::parse(value),
                _ => {}
            }
        }
    }
}

/// `sent (text)`; the text may be cut off, also entirely.
fn read_status(value: &[u8]) -> Option<(DeliveryStatus, &[u8])> {
    let end = memchr::memchr(b' ', value).unwrap_or(value.len());
    let (word, text) = value.split_at_checked(end)?;
    let status = match word {
        b"sent" => DeliveryStatus::Sent,
        b"deferred" | b"SOFTBOUNCE" => DeliveryStatus::Deferred,
        b"bounced" | b"expired" => DeliveryStatus::Bounced,
        b"deliverable" => DeliveryStatus::Deliverable,
        b"undeliverable" => DeliveryStatus::Undeliverable,
        _ => return None,
    };
    let text = text.strip_prefix(b" (").unwrap_or_default();
    Some((status, text.strip_suffix(b")").unwrap_or(text)))
}

/// `a/b/c/d` in seconds: before the queue manager, in it, connection, transmission.
fn read_delays(value: &[u8]) -> Option<Delays> {
    let mut parts = std::str::from_utf8(value).ok()?.split('/').map(|part| {
        let seconds = part.parse::<f64>().ok()?;
        (0.0..MAX_DELAY_SECONDS).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    });
    let (_, _) = (parts.next()??, parts.next()??);
    let delays = Delays { connection: parts.next()??, transmission: parts.next()?? };
    parts.next().is_none().then_some(delays)
}

struct LoggedAddress<'a> {
    local_part: &'a [u8],
    domain: &'a [u8],
    /// The line can be read in one way only: the local part is a quoted string, or is one that needs no quotes.
    is_quoted: bool,
}

impl<'a> LoggedAddress<'a> {
    /// Reads an address up to its `>`; returns it and the text behind. By default Postfix quotes local parts as RFC 5321 has
    /// it (`info_log_address_format = external`), so that a `>` outside of quotes ends the address.
    fn parse(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut end_of_quotes = 0;
        if text.first() == Some(&b'"') {
            let mut is_escaped = false;
            let close = text.iter().skip(1).position(|&byte| {
                let closes = byte == b'"' && !is_escaped;
                is_escaped = byte == b'\\' && !is_escaped;
                closes
            })?;
            end_of_quotes = close + 2;
        }
        let end = end_of_quotes + memchr::memchr(b'>', text.get(end_of_quotes..)?)?;
        let (address, rest) = text.split_at_checked(end)?;
        let at = memchr::memrchr(b'@', address).filter(|&at| at >= end_of_quotes);
        let (local_part, domain) = match at {
            Some(at) => (address.get(..at)?, address.get(at + 1..)?),
            None => (address, &[][..]),
        };
        Some((Self { local_part, domain, is_quoted: end_of_quotes > 0 }, rest.get(1..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<(String, String, DeliveryStatus, String)> {
        let line = StatusLine::parse(text.as_bytes())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let relay = match line.relay {
            Some(PeerText::Server(peer)) => peer.address.to_string(),
            Some(PeerText::UnixSocket) => "unix".to_owned(),
            None => "none".to_owned(),
        };
        Some((text(line.domain), relay, line.status, text(line.text)))
    }

    #[test]
    fn fields_in_any_order() {
        let text = "to=<a@b.example>, orig_to=<root>, relay=mx.b.example[2001:db8::1]:25, conn_use=2, \
                    delay=1.2, delays=0.1/0.01/0.5/120, tls=may:none, dsn=4.7.1, \
                    status=deferred (host mx.b.example[2001:db8::1] said: 450 4.7.1 (x), y (in reply to RCPT TO \
                    command))";
        let found = StatusLine::parse(text.as_bytes()).unwrap();
        assert!(found.is_reused);
        assert_eq!(found.dsn, Some(EnhancedCode::new(4, 7, 1)));
        let delays = found.delays.unwrap();
        assert_eq!(delays.connection, Duration::from_millis(500));
        assert_eq!(delays.transmission, Duration::from_secs(120));
        let (domain, relay, status, text) = line(text).unwrap();
        assert_eq!((domain.as_str(), relay.as_str()), ("b.example", "[2001:db8::1]:25"));
        assert_eq!(status, DeliveryStatus::Deferred);
        assert!(text.ends_with("(x), y (in reply to RCPT TO command)"), "{text}");
    }

    #[test]
    fn recipients_that_imitate_the_line() {
        let forged = r#"relay=evil.example[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok"#;
        let rest = "relay=none, delay=1, delays=0/0/0/1, dsn=4.4.1, status=deferred (connect to x)";
        let quoted = format!(r#"to=<"a\">, {forged}"@b.example>, {rest}"#);
        let (domain, relay, status, _) = line(&quoted).unwrap();
        assert_eq!((domain.as_str(), relay.as_str()), ("b.example", "none"));
        assert_eq!(status, DeliveryStatus::Deferred);
        // Without quotes nobody can decide where the address ends.
        assert_eq!(line(&format!("to=<a>, {forged}@b.example>, {rest}")), None);
    }

    #[test]
    fn cut_lines() {
        let whole = "to=<a@b.example>, relay=none, delay=1, delays=0/0/0/1, dsn=4.4.1, status=deferred (connect";
        let (.., text) = line(whole).unwrap();
        assert_eq!(text, "connect");
        let status = whole.find("status=").unwrap();
        assert!(line(&whole[..status + 15]).is_some());
        for cut in 0..status + 15 {
            assert_eq!(line(&whole[..cut]), None, "{cut}");
        }
    }
}
