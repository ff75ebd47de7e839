//! EHLO keywords: which service extensions the gateway can carry, and the filter that passes on only those.

use std::borrow::Cow;
use std::fmt;

use super::Reply;

/// An extension keyword that the gateway knows how to carry. What is not here is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keyword {
    Pipelining,
    Size,
    EightBitMime,
    SmtpUtf8,
    Chunking,
    BinaryMime,
    Dsn,
    Auth,
    Starttls,
    EnhancedStatusCodes,
    Vrfy,
    Expn,
    Help,
    Etrn,
    DeliverBy,
    MtPriority,
    RequireTls,
    Limits,
    FutureRelease,
    NoSoliciting,
    MessageTracking,
    Submitter,
    ConversionPermission,
    ContentNegotiation,
    ValidSince,
}

const KEYWORDS: [(&str, Keyword); 25] = [
    ("PIPELINING", Keyword::Pipelining),
    ("SIZE", Keyword::Size),
    ("8BITMIME", Keyword::EightBitMime),
    ("SMTPUTF8", Keyword::SmtpUtf8),
    ("CHUNKING", Keyword::Chunking),
    ("BINARYMIME", Keyword::BinaryMime),
    ("DSN", Keyword::Dsn),
    ("AUTH", Keyword::Auth),
    ("STARTTLS", Keyword::Starttls),
    ("ENHANCEDSTATUSCODES", Keyword::EnhancedStatusCodes),
    ("VRFY", Keyword::Vrfy),
    ("EXPN", Keyword::Expn),
    ("HELP", Keyword::Help),
    ("ETRN", Keyword::Etrn),
    ("DELIVERBY", Keyword::DeliverBy),
    ("MT-PRIORITY", Keyword::MtPriority),
    ("REQUIRETLS", Keyword::RequireTls),
    ("LIMITS", Keyword::Limits),
    // RFC 4865, 3865, 3885, 4405, 4141 and 7293: each only a parameter of MAIL or RCPT, which upstream reads.
    ("FUTURERELEASE", Keyword::FutureRelease),
    ("NO-SOLICITING", Keyword::NoSoliciting),
    ("MTRK", Keyword::MessageTracking),
    ("SUBMITTER", Keyword::Submitter),
    ("CONPERM", Keyword::ConversionPermission),
    ("CONNEG", Keyword::ContentNegotiation),
    ("RRVS", Keyword::ValidSince),
];

impl Keyword {
    /// Case does not matter (RFC 5321 §2.4). `None`: the gateway cannot carry this extension.
    pub fn parse(word: &str) -> Option<Self> {
        KEYWORDS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|&(_, keyword)| keyword)
    }

    /// Every keyword's name, for messages that list what is possible.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KEYWORDS.iter().map(|&(name, _)| name)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            KEYWORDS.iter().find(|(_, keyword)| keyword == self).map_or("", |&(name, _)| name);
        f.write_str(name)
    }
}

/// The extensions of an EHLO reply that matter to the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    pub pipelining: bool,
    pub starttls: bool,
    pub chunking: bool,
    pub smtputf8: bool,
}

/// Keywords of one EHLO reply that are kept, and bytes of each; no server offers so many or so long ones.
const MAX_KEYWORDS: usize = 64;
const MAX_KEYWORD: usize = 32;

impl Extensions {
    /// What a 250 to EHLO offers, and all its keywords in upper case, also those that the gateway does not know.
    pub fn offered(reply: &Reply<'_>) -> (Self, Vec<String>) {
        let mut offered = Self::default();
        let mut keywords: Vec<String> = Vec::new();
        let words = reply.texts().skip(1).map(keyword_of).filter(|word| !word.is_empty());
        for word in words.filter(|word| word.len() <= MAX_KEYWORD).take(MAX_KEYWORDS) {
            let word = String::from_utf8_lossy(word).to_ascii_uppercase();
            if let Some(keyword) = Keyword::parse(&word) {
                offered.note(keyword);
            }
            // `AUTH LOGIN` and `AUTH=LOGIN` are one.
            if !keywords.contains(&word) {
                keywords.push(word);
            }
        }
        (offered, keywords)
    }

    fn note(&mut self, keyword: Keyword) {
        self.pipelining |= keyword == Keyword::Pipelining;
        self.starttls |= keyword == Keyword::Starttls;
        self.chunking |= keyword == Keyword::Chunking;
        self.smtputf8 |= keyword == Keyword::SmtpUtf8;
    }

    /// Rewrites a 250 to EHLO without keywords that the gateway cannot relay or is configured to hide (RFC 5321 §4.1.1.1),
    /// and with those of `own`, which the gateway itself offers. `keeps_external`: AUTH EXTERNAL is not hidden.
    pub fn filter(
        reply: &Reply<'_>,
        is_hidden: impl Fn(Keyword) -> bool,
        keeps_external: bool,
        own: &[Keyword],
    ) -> (Self, Vec<u8>) {
        let mut offered = Self::default();
        let mut lines: Vec<Cow<'_, [u8]>> = Vec::new();
        for (number, text) in reply.texts().enumerate() {
            if number == 0 {
                lines.push(text.into());
                continue;
            }
            let keyword = std::str::from_utf8(keyword_of(text)).ok().and_then(Keyword::parse);
            let Some(keyword) = keyword.filter(|&keyword| !is_hidden(keyword)) else {
                continue;
            };
            let text = match keyword {
                Keyword::Auth if !keeps_external => match without_external(text) {
                    Some(text) => text,
                    None => continue,
                },
                _ => text.into(),
            };
            offered.note(keyword);
            lines.push(text);
        }
        for &keyword in own {
            if let Some((name, _)) = KEYWORDS.iter().find(|(_, known)| *known == keyword) {
                offered.note(keyword);
                lines.push(name.as_bytes().into());
            }
        }
        let mut out = Vec::with_capacity(reply.raw.len());
        for (number, text) in lines.iter().enumerate() {
            let separator: &[u8] = if number + 1 == lines.len() { b"250 " } else { b"250-" };
            out.extend_from_slice(separator);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        (offered, out)
    }
}

/// A line with AUTH without the mechanism EXTERNAL; `None` if no other is left.
fn without_external(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (keyword, mechanisms) = text.split_at_checked(keyword_of(text).len())?;
    let Some((separator, mechanisms)) = mechanisms.split_first() else { return Some(text.into()) };
    let all = || mechanisms.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let is_external = |word: &&[u8]| word.eq_ignore_ascii_case(b"EXTERNAL");
    if !all().any(|word| is_external(&word)) {
        return Some(text.into());
    }
    let others: Vec<_> = all().filter(|word| !is_external(word)).collect();
    let line = || [keyword, &[*separator], &others.join(&b' ')].concat().into();
    (!others.is_empty()).then(line)
}

/// The first word of a line. `AUTH=PLAIN` is how servers before RFC 2554 wrote it; some clients still look for it.
fn keyword_of(text: &[u8]) -> &[u8] {
    text.split(|b| matches!(b, b' ' | b'=')).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::ReplyParse;

    fn filtered(reply: &str, hide: &[Keyword]) -> (Extensions, String) {
        let ReplyParse::Complete(reply) = Reply::parse(reply.as_bytes()) else { panic!("{reply}") };
        let (offered, out) =
            Extensions::filter(&reply, |keyword| hide.contains(&keyword), true, &[]);
        (offered, String::from_utf8(out).unwrap())
    }

    #[test]
    fn passes_only_what_both_can_do() {
        let (offered, out) = filtered(
            "250-mx.example\r\n250-PIPELINING\r\n250-XCLIENT NAME ADDR\r\n250-SIZE 1000\r\n250-auth PLAIN\r\n\
             250-STARTTLS\r\n250-X-NEW thing\r\n250 XFORWARD NAME\r\n",
            &[Keyword::Starttls],
        );
        assert_eq!(out, "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 auth PLAIN\r\n");
        assert_eq!(offered, Extensions { pipelining: true, ..Extensions::default() });
    }

    #[test]
    fn reads_all_that_is_offered() {
        let ReplyParse::Complete(reply) = Reply::parse(
            b"250-mx\r\n250-pipelining\r\n250-X-NEW thing\r\n250-AUTH LOGIN\r\n250 AUTH=LOGIN\r\n",
        ) else {
            panic!("a reply")
        };
        let (offered, keywords) = Extensions::offered(&reply);
        assert_eq!(keywords, ["PIPELINING", "X-NEW", "AUTH"]);
        assert!(offered.pipelining && !offered.starttls);
    }

    #[test]
    fn nothing_left_is_still_a_reply() {
        assert_eq!(filtered("250-mx.example\r\n250 BURL imap\r\n", &[]).1, "250 mx.example\r\n");
        assert_eq!(filtered("250 mx.example\r\n", &[]).1, "250 mx.example\r\n");
    }

    #[test]
    fn external_is_one_mechanism_of_auth() {
        let offered = |auth: &str| {
            let reply = format!("250-mx.example\r\n250 {auth}\r\n");
            let ReplyParse::Complete(reply) = Reply::parse(reply.as_bytes()) else {
                panic!("{auth}")
            };
            let (_, out) = Extensions::filter(&reply, |_| false, false, &[]);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            offered("AUTH PLAIN external LOGIN"),
            "250-mx.example\r\n250 AUTH PLAIN LOGIN\r\n"
        );
        assert_eq!(offered("AUTH=EXTERNAL PLAIN"), "250-mx.example\r\n250 AUTH=PLAIN\r\n");
        assert_eq!(offered("AUTH  PLAIN"), "250-mx.example\r\n250 AUTH  PLAIN\r\n");
        assert_eq!(offered("AUTH EXTERNAL"), "250 mx.example\r\n");
        assert_eq!(offered("AUTH"), "250-mx.example\r\n250 AUTH\r\n");
    }
}
