//! Faults of a command for which the gateway answers in place of the server: because the server could read the command in
//! another way than the policy does.

use std::net::IpAddr;

use crate::engine::event::Refusal;
use crate::engine::options::{PathSyntax, Profile};
use crate::smtp::{
    Command, EnhancedCode, EnvelopeArgument, Line, PathError, PathKind, Session, Verb,
};

/// What is wrong with a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum CommandFault {
    /// A control character; servers skip it, stop at it, or read it as a space.
    Control,
    /// UTF-8, or other bytes beyond ASCII, without SMTPUTF8.
    NotAscii,
    Argument(PathKind, PathError),
    /// The server may deliver the path to another domain, and rules depend on it.
    Rerouting(PathKind),
}

impl CommandFault {
    /// The first fault of a command. `session` stands before it.
    pub(in crate::engine) fn find(
        profile: &Profile,
        client: IpAddr,
        line: Line<'_>,
        command: &Command<'_>,
        session: &Session,
    ) -> Option<Self> {
        // A chunk's bytes follow whatever the reply to BDAT is.
        if profile.smtp.paths == PathSyntax::Lenient || command.verb == Verb::Bdat {
            return None;
        }
        if line.text.iter().any(u8::is_ascii_control) {
            return Some(Self::Control);
        }
        let kind = match command.verb {
            Verb::Mail => PathKind::Reverse,
            Verb::Rcpt => PathKind::Forward,
            // Hosts whose name is not ASCII send mail as well, and no server goes by that name.
            Verb::Helo | Verb::Ehlo => return None,
            _ => return (!line.text.is_ascii()).then_some(Self::NotAscii),
        };
        if !line.text.is_ascii() && !session.allows_utf8(command) {
            return Some(Self::NotAscii);
        }
        match command.envelope() {
            Err(error) => Some(Self::Argument(kind, error)),
            Ok(envelope) => envelope
                .rerouting()
                .filter(|rerouting| profile.rules.depend_on(kind, *rerouting, client))
                .map(|_| Self::Rerouting(kind)),
        }
    }

    /// The fault of a path that a mail server received, without brackets. Whether UTF-8 is allowed there was its decision.
    pub(in crate::engine) fn of_path(
        profile: &Profile,
        client: IpAddr,
        kind: PathKind,
        path: &str,
    ) -> Option<Self> {
        let keyword = match kind {
            PathKind::Reverse => "FROM",
            PathKind::Forward => "TO",
        };
        match EnvelopeArgument::parse(kind, format!("{keyword}:<{path}>").as_bytes()) {
            Err(error) => Some(Self::Argument(kind, error)),
            Ok(envelope) => envelope
                .rerouting()
                .filter(|rerouting| profile.rules.depend_on(kind, *rerouting, client))
                .map(|_| Self::Rerouting(kind)),
        }
    }

    pub(in crate::engine) const fn refusal(self) -> Refusal {
        match self {
            Self::Control | Self::NotAscii => Refusal::CommandSyntax,
            Self::Argument(..) => Refusal::PathSyntax,
            Self::Rerouting(_) => Refusal::PathRouting,
        }
    }

    /// The reply: code, enhanced code and text.
    pub(in crate::engine) const fn reply(self) -> (u16, EnhancedCode, &'static str) {
        const SYNTAX: EnhancedCode = EnhancedCode::new(5, 5, 4);
        match self {
            Self::Control => {
                (500, EnhancedCode::new(5, 5, 2), "command contains a control character")
            }
            Self::NotAscii => {
                let text = "command contains non-ASCII characters without SMTPUTF8";
                (500, EnhancedCode::new(5, 5, 2), text)
            }
            Self::Argument(PathKind::Reverse, PathError::Keyword) => {
                (501, SYNTAX, "syntax: MAIL FROM:<address>")
            }
            Self::Argument(PathKind::Forward, PathError::Keyword) => {
                (501, SYNTAX, "syntax: RCPT TO:<address>")
            }
            Self::Argument(_, PathError::Parameter) => {
                (501, SYNTAX, "malformed parameter after the address")
            }
            Self::Argument(PathKind::Reverse, PathError::Path) => {
                let text = "sender is not a mailbox in angle brackets (RFC 5321 section 4.1.2)";
                (501, EnhancedCode::new(5, 1, 7), text)
            }
            Self::Argument(PathKind::Forward, PathError::Path) => {
                let text = "recipient is not a mailbox in angle brackets (RFC 5321 section 4.1.2)";
                (501, EnhancedCode::new(5, 1, 3), text)
            }
            Self::Rerouting(PathKind::Reverse) => {
                let text = "sender may be rerouted to another domain; write <user@domain>";
                (550, EnhancedCode::new(5, 7, 1), text)
            }
            Self::Rerouting(PathKind::Forward) => {
                let text = "recipient may be rerouted to another domain; write <user@domain>";
                (550, EnhancedCode::new(5, 7, 1), text)
            }
        }
    }
}
