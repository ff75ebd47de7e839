//! The `Received:` field of the gateway (`tls.trace_header`), which the mail server's own cannot replace: TLS ends before it.
//!
//! RFC 5321 §4.4, with the protocol names of RFC 3848 and RFC 6531 §4.3 and the `tls` clause of RFC 8314 §4.3. It goes before the
//! message in DATA, and with the first chunk in BDAT. All else is unchanged.

use std::net::IpAddr;

use super::Proxy;
use crate::engine::options::PathSyntax;
use crate::engine::output::{Action, Output};
use crate::smtp::{Chunk, Command, EnvelopeArgument, TlsState, Verb};
use crate::time::Timestamp;

/// Octets of a name of a client; more than any domain has (RFC 5321 §4.5.3.1.2).
const LONGEST_NAME: usize = 255;
/// RFC 5322 §2.1.1: characters of a line, without CRLF.
const LINE: usize = 78;

/// What the field contains.
struct Trace<'a> {
    helo: Option<&'a str>,
    client: IpAddr,
    hostname: &'a str,
    protocol: String,
    cipher_suite: Option<&'a str>,
    at: Timestamp,
}

/// The state of one session.
#[derive(Debug, Default)]
pub(super) struct TraceHeader {
    /// IANA's name.
    pub(super) cipher_suite: Option<&'static str>,
    /// Of the message that follows; taken with its first bytes.
    field: Option<Vec<u8>>,
    /// A message has begun with BDAT and not ended: a nested MAIL, which the mail server rejects, changes nothing.
    in_chunks: bool,
}

impl Proxy {
    /// A command is forwarded. Returns the MAIL to send instead: its SIZE (RFC 1870 §6) includes the field.
    pub(super) fn trace_command(&mut self, command: &Command<'_>) -> Option<String> {
        match command.verb {
            _ if !self.profile.trace_header => None,
            Verb::Mail if self.trace.in_chunks => None,
            Verb::Mail => {
                let field = self.trace_field(command);
                let is_strict = self.profile.smtp.paths == PathSyntax::Strict;
                let mail = with_size(command, field.len()).filter(|_| is_strict);
                self.trace.field = Some(field);
                mail
            }
            Verb::Rset | Verb::Ehlo | Verb::Helo => {
                self.trace.field = None;
                self.trace.in_chunks = false;
                None
            }
            _ => None,
        }
    }

    fn trace_field(&self, command: &Command<'_>) -> Vec<u8> {
        let state = self.session.state();
        let helo = state.helo();
        let is_utf8 = command.envelope().is_ok_and(|mail| mail.asks_for_utf8());
        let protocol = match (is_utf8, helo.is_none_or(|helo| helo.esmtp)) {
            (true, _) => "UTF8SMTP",
            (false, true) => "ESMTP",
            (false, false) => "SMTP",
        };
        let has_tls = state.tls() == TlsState::Established;
        let mut protocol = protocol.to_owned();
        if helo.is_none_or(|helo| helo.esmtp) {
            protocol.push_str(if has_tls { "S" } else { "" });
            protocol.push_str(if state.is_authenticated() { "A" } else { "" });
        }
        Trace {
            helo: helo.map(|helo| &*helo.name),
            client: self.client_ip,
            hostname: &self.profile.smtp.hostname,
            protocol,
            cipher_suite: self.trace.cipher_suite.filter(|_| has_tls),
            at: self.now,
        }
        .field()
    }

    /// The message of DATA follows.
    pub(super) fn trace_content(&mut self, out: &mut Output) {
        if let Some(field) = self.trace.field.take() {
            out.act(Action::ToUpstream(field));
        }
    }

    /// A chunk that upstream receives; `last`: the client's last, whose end may be withheld. Returns the command to send
    /// instead, and the field behind it.
    pub(super) fn trace_chunk(&mut self, chunk: Chunk, last: bool) -> Option<Vec<u8>> {
        self.trace.in_chunks = !last;
        let field = self.trace.field.take()?;
        let size = chunk.size.checked_add(field.len() as u64)?;
        let command = Chunk { size, ..chunk }.as_command();
        Some([command.as_bytes(), b"\r\n", &field].concat())
    }
}

impl Trace<'_> {
    /// Ends in CRLF. A client's name cannot change its structure.
    fn field(&self) -> Vec<u8> {
        let helo = self.helo.map_or_else(|| "unknown".to_owned(), printable);
        let literal = match self.client {
            IpAddr::V4(ip) => format!("([{ip}])"),
            IpAddr::V6(ip) => format!("([IPv6:{ip}])"),
        };
        let protocol = format!("with {}", self.protocol);
        let cipher_suite = self.cipher_suite.map(|name| format!("tls {name}"));
        let by = format!("by {}", self.hostname);
        let words = [Some(literal), Some(by), Some(protocol), cipher_suite];
        let mut field = format!("Received: from {helo}");
        let mut length = field.len();
        let mut add = |word: String| {
            // Room for the semicolon.
            let fits = length + 1 + word.len() < LINE;
            field.push_str(if fits { " " } else { "\r\n\t" });
            length = if fits { length + 1 } else { 8 } + word.len();
            field.push_str(&word);
        };
        words.into_iter().flatten().for_each(&mut add);
        format!("{field};\r\n\t{}\r\n", self.at.rfc5322()).into_bytes()
    }
}

/// A name without characters that have a meaning in the field.
fn printable(name: &str) -> String {
    let name = name.chars().take(LONGEST_NAME);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let name: String = name.map(|c| if is_plain(c) { c } else { '?' }).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// `None` without SIZE, and for a path that is forwarded as it came.
fn with_size(command: &Command<'_>, more: usize) -> Option<String> {
    let mail = command.envelope().ok()?;
    let mut has_size = false;
    let words = mail.parameters().map(|parameter| {
        let size = parameter.split_once('=').filter(|(key, _)| key.eq_ignore_ascii_case("SIZE"));
        let size = size.and_then(|(_, value)| value.parse::<u64>().ok());
        match size.and_then(|size| size.checked_add(more as u64)) {
            Some(size) => {
                has_size = true;
                format!(" SIZE={size}")
            }
            None => format!(" {parameter}"),
        }
    });
    let parameters: String = words.collect();
    let canonical = mail.canonical();
    let path = canonical.get(..canonical.len() - plain_length(&mail))?;
    has_size.then(|| format!("{path}{parameters}"))
}

/// Octets of the parameters in the canonical form.
fn plain_length(mail: &EnvelopeArgument<'_>) -> usize {
    mail.parameters().map(|parameter| parameter.len() + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(helo: &str, client: &str, cipher_suite: Option<&str>) -> String {
        let trace = Trace {
            helo: Some(helo),
            client: client.parse().unwrap(),
            hostname: "mx.example.org",
            protocol: "ESMTPS".to_owned(),
            cipher_suite,
            at: Timestamp::from_nanos(1_800_000_000_000_000_000),
        };
        String::from_utf8(trace.field()).unwrap()
    }

    #[test]
    fn a_field_is_folded() {
        assert_eq!(
            field("mta.example.net", "192.0.2.1", Some("TLS_AES_256_GCM_SHA384")),
            "Received: from mta.example.net ([192.0.2.1]) by mx.example.org with ESMTPS\r\n\
             \ttls TLS_AES_256_GCM_SHA384;\r\n\tFri, 15 Jan 2027 08:00:00 +0000\r\n"
        );
        assert_eq!(
            field("[IPv6:2001:db8::1]", "2001:db8::1", None),
            "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1]) by mx.example.org\r\n\
             \twith ESMTPS;\r\n\tFri, 15 Jan 2027 08:00:00 +0000\r\n"
        );
    }

    #[test]
    fn no_name_of_a_client_breaks_the_field() {
        let odd = field("a (b); c\r\nX: y\u{e9}", "192.0.2.1", None);
        assert!(odd.starts_with("Received: from a??b???c??X:?y? ([192.0.2.1])"), "{odd}");
        let long = field(&"x".repeat(5000), "192.0.2.1", None);
        assert!(long.lines().all(|line| line.len() <= 998), "{long}");
        assert!(field("", "192.0.2.1", None).starts_with("Received: from unknown ("));
    }
}
