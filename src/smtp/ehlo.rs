//! EHLO keywords: which service extensions the gateway can carry, and the filter that passes on only those.

use std::fmt;

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
}

const KEYWORDS: [(&str, Keyword); 18] = [
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
        let name = KEYWORDS
            .iter()
            .find(|(_, keyword)| keyword == self)
            .map_or("", |&(name, _)| name);
        f.write_str(name)
    }
}
