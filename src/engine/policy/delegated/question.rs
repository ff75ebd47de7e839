//! What a mail server asks about, in the terms of the rules.

use std::sync::Arc;

use crate::engine::record::PolicyQuestion;
use crate::label::labels;
use crate::policy::facts::PresentedCertificate;

labels! {
    /// The command at which a mail server asks (Postfix: `protocol_state`).
    pub enum AskedAt {
        Connect = "connect",
        Helo = "helo",
        Mail = "mail",
        Rcpt = "rcpt",
        /// Also BDAT.
        Data = "data",
        EndOfMessage = "end_of_message",
        Vrfy = "vrfy",
        Etrn = "etrn",
        Other = "other",
    }
}

/// One question about a session, a sender or a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegatedQuestion {
    /// What the rules decide on.
    pub question: PolicyQuestion,
    pub at: AskedAt,
    /// The client sent EHLO.
    pub esmtp: bool,
    /// Version of the client's TLS with the mail server, such as `TLSv1.3`.
    pub tls_version: Option<&'static str>,
    pub certificate: PresentedCertificate,
    /// The same in all questions about one message, and in no others; empty if the mail server has none.
    pub instance: Arc<str>,
    /// The mail server's name for the message, once it has one.
    pub queue_id: Option<String>,
    /// Octets of the message: before its end, those that the client announced.
    pub size: u64,
    /// The question is about the end of a message that a relay in front of the mail server decided on: the relay has its content,
    /// and the question has none.
    pub decided_by_relay: bool,
}

/// The path of a command for a mailbox as a mail server has it inside, without quotes: the local part is quoted where
/// RFC 5321 §4.1.2 demands it.
pub fn external_path(mailbox: &str) -> String {
    let (local, domain) = match mailbox.rsplit_once('@') {
        Some((local, domain)) => (local, Some(domain)),
        None => (mailbox, None),
    };
    let mut path = String::with_capacity(mailbox.len() + 2);
    if is_dot_string(local) || mailbox.is_empty() {
        path.push_str(local);
    } else {
        path.push('"');
        for character in local.chars() {
            if matches!(character, '"' | '\\') {
                path.push('\\');
            }
            path.push(character);
        }
        path.push('"');
    }
    if let Some(domain) = domain {
        path.push('@');
        path.push_str(domain);
    }
    path
}

/// RFC 5321 §4.1.2 and RFC 6531 §3.3.
fn is_dot_string(local: &str) -> bool {
    let is_atext =
        |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_part_is_quoted_where_it_has_to_be() {
        for (inside, path) in [
            ("", ""),
            ("alice@sender.example", "alice@sender.example"),
            ("postmaster", "postmaster"),
            ("user%other@example.org", "user%other@example.org"),
            ("al ice@sender.example", "\"al ice\"@sender.example"),
            ("a@b@sender.example", "\"a@b\"@sender.example"),
            ("a..b@sender.example", "\"a..b\"@sender.example"),
            ("say \"hi\\\"@sender.example", "\"say \\\"hi\\\\\\\"\"@sender.example"),
            ("@sender.example", "\"\"@sender.example"),
            ("jörg@sender.example", "jörg@sender.example"),
        ] {
            assert_eq!(external_path(inside), path, "{inside}");
        }
    }
}
