//! The subject of a server's rejection: the host that asks, the sender, the recipient, or the domain.
//!
//! Enhanced status codes decide first (RFC 3463, RFC 7372, RFC 7505), as far as they are specific, then the words of the
//! widespread servers. X.7.1 alone says nothing: Postfix uses it for clients on a blocklist, for relaying and for access
//! lists of recipients.

use std::net::IpAddr;

use super::survey::SurveyReply;
use crate::smtp::EnhancedCode;

/// The command that was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectedAt {
    Greeting,
    Ehlo,
    Mail,
    Recipient,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectionSubject {
    /// 4xx: about this moment.
    Now,
    /// The address or name of the host that asks; nothing follows for other hosts.
    Caller,
    /// The null sender.
    Sender,
    /// Authentication or TLS is demanded.
    Stranger,
    /// The server does not take mail for the domain.
    Domain,
    /// The recipient, or nothing in particular.
    Recipient,
}

/// Names of the caller, of lists of callers, and of their DNS.
const OF_CALLER: &[&str] = &[
    "client host",
    "your ip",
    "your host",
    "your server",
    "your network",
    "your isp",
    "your mail server",
    "ip address",
    "ip addresses",
    "sending host",
    "sending server",
    "sending ip",
    "remote host",
    "connecting host",
    "connecting ip",
    "blocked using",
    "blocked by",
    "blocked",
    "blacklist",
    "blacklisted",
    "black list",
    "blocklist",
    "blocklisted",
    "block list",
    "denylist",
    "deny list",
    "listed at",
    "listed by",
    "listed in",
    "listed on",
    "dnsbl",
    "dnsbls",
    "rbl",
    "spamhaus",
    "spamcop",
    "barracudacentral",
    "reputation",
    "reverse dns",
    "reverse name",
    "reverse hostname",
    "reverse lookup",
    "reverse address",
    "rdns",
    "ptr",
    "fcrdns",
    "helo",
    "ehlo",
];
const OF_RELAY: &[&str] = &[
    "relay",
    "relaying",
    "relayed",
    "not a local domain",
    "domain not found here",
    "not hosted here",
    "non accepted domain",
    "not our customer",
    "unrouteable",
    "unroutable",
];
const OF_STRANGER: &[&str] =
    &["authentication required", "authentication is required", "not authenticated", "starttls"];
const OF_SENDER: &[&str] = &[
    "sender address",
    "null sender",
    "empty sender",
    "null reverse path",
    "bounces",
    "bounce messages",
    "mail from",
];
const OF_RECIPIENT: &[&str] = &[
    "recipient",
    "user",
    "mailbox",
    "account",
    "no such",
    "does not exist",
    "unknown user",
    "invalid address",
];

/// The subject of a reply that is not positive. `from` is this host's address.
pub(super) fn subject(
    reply: &SurveyReply,
    at: RejectedAt,
    from: Option<IpAddr>,
) -> RejectionSubject {
    if reply.code / 100 == 4 {
        return RejectionSubject::Now;
    }
    let words = Words::of(reply, from);
    let code = reply.lines.iter().find_map(|line| EnhancedCode::parse(line.as_bytes()));
    match (code.map(|code| (code.subject, code.detail)), reply.code) {
        (Some((1, 7 | 8)), _) => return RejectionSubject::Sender,
        (Some((1 | 2, _)), _) if at == RejectedAt::Recipient => return RejectionSubject::Recipient,
        // SPF, reverse names, null MX of the sender, floods (RFC 7372, RFC 7505).
        (Some((7, 20..=29)), _) => return RejectionSubject::Caller,
        (Some((7, 8..=11)), _) | (_, 530 | 535 | 538) => return RejectionSubject::Stranger,
        _ => {}
    }
    let is_about_security = code.is_some_and(|code| code.subject == 7);
    match at {
        _ if words.have(OF_CALLER) || words.have_address => RejectionSubject::Caller,
        RejectedAt::Greeting | RejectedAt::Ehlo if is_about_security => RejectionSubject::Caller,
        // RFC 5321 §3.1: a server that accepts no mail of this client. 521: of nobody (RFC 7504).
        RejectedAt::Greeting if reply.code == 554 && code.is_none() => RejectionSubject::Caller,
        RejectedAt::Greeting | RejectedAt::Ehlo => RejectionSubject::Recipient,
        _ if words.have(OF_STRANGER) => RejectionSubject::Stranger,
        RejectedAt::Mail => RejectionSubject::Sender,
        RejectedAt::Recipient if words.have(OF_RELAY) => RejectionSubject::Domain,
        RejectedAt::Recipient if words.have(OF_SENDER) => RejectionSubject::Sender,
        RejectedAt::Recipient if is_about_security && !words.have(OF_RECIPIENT) => {
            RejectionSubject::Caller
        }
        RejectedAt::Recipient => RejectionSubject::Recipient,
    }
}

/// The words of a reply in lower case, each between spaces, without what is in angle brackets: that repeats the command.
struct Words {
    text: String,
    /// This host's address is among them.
    have_address: bool,
}

impl Words {
    fn of(reply: &SurveyReply, from: Option<IpAddr>) -> Self {
        let whole = reply.lines.join(" ");
        let mut text = String::from(" ");
        let mut is_in_brackets = false;
        for c in whole.chars() {
            match c {
                '<' => is_in_brackets = true,
                '>' => is_in_brackets = false,
                _ if is_in_brackets => {}
                c if c.is_alphanumeric() => text.extend(c.to_lowercase()),
                _ if text.ends_with(' ') => {}
                _ => text.push(' '),
            }
        }
        text.push(' ');
        let mut addresses =
            whole.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')));
        let have_address = from.is_some_and(|from| {
            addresses.any(|word| {
                let word = word.trim_end_matches(['.', ':']);
                word.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == from.to_canonical())
            })
        });
        Self { text, have_address }
    }

    fn have(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.text.contains(&format!(" {phrase} ")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Replies of Postfix, Exim, Exchange, Gmail, Sendmail and others.
    #[test]
    fn the_subject_follows_from_codes_and_words() {
        use RejectedAt::{Ehlo, Greeting, Mail, Recipient as Rcpt};
        use RejectionSubject::{Caller, Domain, Now, Recipient, Sender, Stranger};
        let mut wrong = Vec::new();
        for (at, text, expected) in [
            (Greeting, "554 No SMTP service here", Caller),
            (Greeting, "554 5.7.1 Service unavailable", Caller),
            (
                Greeting,
                "554-mx.a.example|554 Your access to this mail system has been rejected due to the sending MTA's poor reputation.",
                Caller,
            ),
            (Greeting, "521 mx.a.example does not accept mail", Recipient),
            (Greeting, "500 5.3.0 Error: command failed", Recipient),
            (Greeting, "554 5.3.2 System not accepting network messages", Recipient),
            (Greeting, "421 4.3.2 later", Now),
            (Ehlo, "550 5.7.1 <gate.example>: Helo command rejected: Access denied", Caller),
            (Ehlo, "501 5.5.4 Invalid domain name", Recipient),
            (Mail, "550 5.7.1 no bounces here", Sender),
            (Mail, "550 Null sender not allowed", Sender),
            (Mail, "553 5.1.8 sender unknown", Sender),
            (
                Mail,
                "550 5.7.1 Client host rejected: cannot find your hostname, [2001:db8::5]",
                Caller,
            ),
            (Mail, "550 5.7.1 [2001:db8:0::5] no", Caller),
            (Mail, "550 5.7.1 [2001:db8::55] no", Sender),
            (Mail, "530 5.7.0 Must issue a STARTTLS command first", Stranger),
            (Mail, "530 5.7.57 Client not authenticated to send mail.", Stranger),
            (Mail, "451 4.3.0 busy", Now),
            (
                Rcpt,
                "550 5.1.1 <postmaster@blocked.example>: Recipient address rejected: User unknown in virtual mailbox table",
                Recipient,
            ),
            (
                Rcpt,
                "550-5.1.1 The email account that you tried to reach does not exist.|550 5.1.1  https://support.google.com/mail/?p=NoSuchUser",
                Recipient,
            ),
            (Rcpt, "550 5.2.1 The email account that you tried to reach is disabled.", Recipient),
            (Rcpt, "550 No such user here", Recipient),
            (Rcpt, "550 Unknown user", Recipient),
            (Rcpt, "550 what", Recipient),
            (
                Rcpt,
                "554 5.7.1 <postmaster@ptr.example>: Recipient address rejected: Access denied",
                Recipient,
            ),
            (Rcpt, "554 5.7.1 <postmaster@a.example>: Relay access denied", Domain),
            (Rcpt, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", Domain),
            (Rcpt, "550 relay not permitted", Domain),
            (Rcpt, "550 5.7.1 <postmaster@a.example>... Relaying denied", Domain),
            (Rcpt, "554 5.7.1 <>: Sender address rejected: Access denied", Sender),
            (
                Rcpt,
                "554 5.7.1 Service unavailable; Client host [192.0.2.5] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.5",
                Caller,
            ),
            (
                Rcpt,
                "550 5.7.1 Client host rejected: cannot find your reverse hostname, [2001:db8::5]",
                Caller,
            ),
            (
                Rcpt,
                "550-5.7.25 [2001:db8::5] The IP address sending this message does not have a PTR|550-5.7.25 record setup",
                Caller,
            ),
            (Rcpt, "550 5.7.27 no PTR", Caller),
            (
                Rcpt,
                "550-5.7.26 This mail has been blocked because the sender is unauthenticated.",
                Caller,
            ),
            (Rcpt, "550 5.7.606 Access denied, banned sending IP [192.0.2.5]", Caller),
            (Rcpt, "550 5.7.1 Access denied", Caller),
            (
                Rcpt,
                "550-JunkMail rejected - out.a.example [192.0.2.5]:4321 is in an RBL on rbl.example",
                Caller,
            ),
            (
                Rcpt,
                "554 5.7.1 <out.a.example[192.0.2.5]>: Client host rejected: Access denied",
                Caller,
            ),
            (Rcpt, "530 Authentication required", Stranger),
            (Rcpt, "450 4.2.0 <postmaster@a.example>: Recipient address rejected: Greylisted", Now),
            (Rcpt, "450 4.7.25 Client host rejected: cannot find your hostname", Now),
        ] {
            let lines: Vec<String> = text
                .split('|')
                .map(|line| {
                    line.get(4..)
                        .filter(|_| line.as_bytes()[..3].iter().all(u8::is_ascii_digit))
                        .unwrap_or(line)
                        .to_owned()
                })
                .collect();
            let code = text[..3].parse().unwrap();
            let reply = SurveyReply { code, lines, took: Duration::ZERO };
            let from = "2001:db8::5".parse().ok();
            let found = subject(&reply, at, from);
            if found != expected {
                wrong.push(format!("{text}: {found:?}, expected {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
