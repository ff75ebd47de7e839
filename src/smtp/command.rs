//! Commands: one line to a verb and its argument.

use std::fmt;

use serde::{Serialize, Serializer};

/// The verbs that the gateway tells apart; whatever else a client says is `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
    Etrn,
    Auth,
    Starttls,
    Xclient,
    Xforward,
    Unknown,
}

impl Verb {
    pub const ALL: [Self; 18] = [
        Self::Helo,
        Self::Ehlo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Bdat,
        Self::Rset,
        Self::Noop,
        Self::Quit,
        Self::Vrfy,
        Self::Expn,
        Self::Help,
        Self::Etrn,
        Self::Auth,
        Self::Starttls,
        Self::Xclient,
        Self::Xforward,
        Self::Unknown,
    ];

    /// As on the wire; `unknown` for the rest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Helo => "HELO",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Bdat => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Quit => "QUIT",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Help => "HELP",
            Self::Etrn => "ETRN",
            Self::Auth => "AUTH",
            Self::Starttls => "STARTTLS",
            Self::Xclient => "XCLIENT",
            Self::Xforward => "XFORWARD",
            Self::Unknown => "unknown",
        }
    }

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Verb {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
