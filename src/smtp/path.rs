//! The argument of MAIL and RCPT: a path and its parameters.
//!
//! RFC 5321 §4.1.2 (Path, Mailbox, parameters) and §4.1.3 (address literals), RFC 6531 §3.3 (UTF-8 in mailboxes). The
//! syntax is strict, because servers read everything else in different ways: one strips a comment, another ends at the
//! first `>`. An argument that this parser accepts has one meaning, and [`EnvelopeArgument::canonical`] is its only
//! spelling. Two deviations that many clients have are accepted: missing brackets, and spaces after the colon.
//!
//! Lengths are not limited beyond what DNS does: RFC 5321 §4.5.3.1 asks for no limits, and local parts of more than 64
//! octets are common in bounce addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use idna::AsciiDenyList;

/// RFC 1035 §2.3.4, without the root's label.
const MAX_DOMAIN: usize = 253;
const MAX_LABEL: usize = 63;

/// The two paths of an envelope, which differ in syntax: only a reverse-path can be `<>`, only a forward-path `<postmaster>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Of MAIL.
    Reverse,
    /// Of RCPT.
    Forward,
}

impl PathKind {
    const fn command(self) -> &'static str {
        match self {
            Self::Reverse => "MAIL FROM:",
            Self::Forward => "RCPT TO:",
        }
    }

    /// The argument begins with it.
    const fn keyword(self) -> &'static str {
        match self {
            Self::Reverse => "FROM:",
            Self::Forward => "TO:",
        }
    }
}

/// The argument of MAIL or RCPT that follows the syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeArgument<'a> {
    kind: PathKind,
    mailbox: &'a str,
    /// Where the mailbox stands in the argument.
    start: usize,
    /// As sent, with the spaces between them.
    parameters: &'a str,
    rerouting: Option<Rerouting>,
}

/// How a server may deliver a path to another domain than the one that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rerouting {
    /// The domain itself has a second meaning: one label, which some servers complete; letters that case folding replaces
    /// by others; in RCPT an address literal, which may be an address of the server itself.
    Domain,
    /// By a source route, or by `%`, `!` or `@` in the local part.
    Route,
}

/// Why an argument of MAIL or RCPT is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("neither FROM: nor TO:")]
    Keyword,
    #[error("not a mailbox in angle brackets")]
    Path,
    #[error("a malformed parameter")]
    Parameter,
}

impl<'a> EnvelopeArgument<'a> {
    /// UTF-8 is accepted wherever RFC 6531 allows it.
    ///
    /// # Errors
    /// The first part that does not follow the syntax.
    pub fn parse(kind: PathKind, argument: &'a [u8]) -> Result<Self, PathError> {
        let text = std::str::from_utf8(argument).map_err(|_not_utf8| PathError::Path)?;
        let keyword = kind.keyword();
        let (head, rest) = text.split_at_checked(keyword.len()).ok_or(PathError::Keyword)?;
        if !head.eq_ignore_ascii_case(keyword) {
            return Err(PathError::Keyword);
        }
        let rest = rest.trim_start_matches(' ');
        let path = match rest.strip_prefix('<') {
            Some(inside) => bracketed(kind, inside),
            None => bare(kind, rest),
        };
        let ParsedPath { mailbox, rerouting, after } = path.ok_or(PathError::Path)?;
        if !after.is_empty() && !after.starts_with(' ') {
            return Err(PathError::Path);
        }
        let parameters = after.trim_matches(' ');
        if !parameters.split(' ').filter(|word| !word.is_empty()).all(is_parameter) {
            return Err(PathError::Parameter);
        }
        let start = text.len() - after.len() - mailbox.len() - usize::from(rest.starts_with('<'));
        Ok(Self { kind, mailbox, start, parameters, rerouting })
    }

    /// Without brackets and source route; empty for `<>`.
    pub const fn mailbox(&self) -> &'a str {
        self.mailbox
    }

    /// Where [`EnvelopeArgument::mailbox`] stands in the argument.
    pub const fn mailbox_range(&self) -> Range<usize> {
        self.start..self.start + self.mailbox.len()
    }

    /// How a server may deliver it to another domain than that of the mailbox.
    pub const fn rerouting(&self) -> Option<Rerouting> {
        self.rerouting
    }

    /// The parameters in their order, `KEYWORD` or `KEYWORD=value`.
    pub fn parameters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.parameters.split(' ').filter(|word| !word.is_empty())
    }

    /// The message may have UTF-8 in its envelope (RFC 6531 §3.4).
    pub fn asks_for_utf8(&self) -> bool {
        self.parameters().any(|parameter| parameter.eq_ignore_ascii_case("SMTPUTF8"))
    }

    /// The command in its only spelling, without CRLF: brackets, no source route, one space before each parameter.
    pub fn canonical(&self) -> String {
        let mut command = format!("{}<{}>", self.kind.command(), self.mailbox);
        for parameter in self.parameters() {
            command.push(' ');
            command.push_str(parameter);
        }
        command
    }
}

struct ParsedPath<'a> {
    mailbox: &'a str,
    rerouting: Option<Rerouting>,
    after: &'a str,
}

/// A path behind its opening bracket.
fn bracketed(kind: PathKind, inside: &str) -> Option<ParsedPath<'_>> {
    if kind == PathKind::Reverse
        && let Some(after) = inside.strip_prefix('>')
    {
        return Some(ParsedPath { mailbox: "", rerouting: None, after });
    }
    let (has_route, rest) = match inside.strip_prefix('@') {
        Some(route) => (true, after_route(route)?),
        None => (false, inside),
    };
    let (mailbox, rest, rerouting) = mailbox(kind, rest, !has_route)?;
    let after = rest.strip_prefix('>')?;
    Some(ParsedPath {
        mailbox,
        rerouting: rerouting.max(has_route.then_some(Rerouting::Route)),
        after,
    })
}

/// A mailbox without brackets.
fn bare(kind: PathKind, text: &str) -> Option<ParsedPath<'_>> {
    let (mailbox, after, rerouting) = mailbox(kind, text, true)?;
    Some(ParsedPath { mailbox, rerouting, after })
}

/// What follows a source route, `@a,@b:`, of which the first `@` is taken.
fn after_route(mut route: &str) -> Option<&str> {
    loop {
        let (name, rest) = domain_name(route)?;
        name_of(name)?;
        route = match rest.strip_prefix(',') {
            Some(more) => more.strip_prefix('@')?,
            None => return rest.strip_prefix(':'),
        };
    }
}

/// The mailbox at the start of `text`, the rest, and how it may be rerouted. RFC 5321 §4.1.1.3: `postmaster` of RCPT needs no domain.
fn mailbox(kind: PathKind, text: &str, alone: bool) -> Option<(&str, &str, Option<Rerouting>)> {
    let (local, rest) = local_part(text)?;
    let Some(after) = rest.strip_prefix('@') else {
        let is_postmaster = local.eq_ignore_ascii_case("postmaster");
        let is_complete = kind == PathKind::Forward && alone && is_postmaster;
        return is_complete.then_some((local, rest, None));
    };
    let (is_ambiguous, rest) = match after.strip_prefix('[') {
        Some(literal) => {
            let (_, rest) = literal.split_once(']').filter(|(text, _)| is_address(text))?;
            (kind == PathKind::Forward, rest)
        }
        None => {
            let (name, rest) = domain_name(after)?;
            (name_of(name)?, rest)
        }
    };
    let by_route = local.contains(['%', '!', '@']).then_some(Rerouting::Route);
    let by_domain = is_ambiguous.then_some(Rerouting::Domain);
    Some((text.get(..text.len() - rest.len())?, rest, by_route.max(by_domain)))
}

/// The local part at the start of `text`, and the rest. An empty one in quotes follows the grammar, but servers replace it.
fn local_part(text: &str) -> Option<(&str, &str)> {
    let end = match text.strip_prefix('"') {
        Some(quoted) => 1 + end_of_quoted(quoted)?,
        None => text.find(|c| !is_atext(c) && c != '.').unwrap_or(text.len()),
    };
    let (local, rest) = text.split_at_checked(end)?;
    let is_dot_string = || local.split('.').all(|atom| !atom.is_empty());
    (local != "\"\"" && (local.starts_with('"') || is_dot_string())).then_some((local, rest))
}

/// Bytes up to and with the closing quote. RFC 5321 §4.1.2: qtextSMTP, quoted-pairSMTP.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some(at + 1),
            '\\' => {
                let (_, escaped) = chars.next()?;
                if !matches!(escaped, ' '..='~') {
                    return None;
                }
            }
            ' '..='~' => {}
            c if is_utf8_text(c) => {}
            _ => return None,
        }
    }
    None
}

/// RFC 5322 §3.2.3, RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            '!' | '#'..='\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^'..='`' | '{'..='~'
        )
        || is_utf8_text(c)
}

fn is_utf8_text(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}

/// The run of bytes at the start of `text` that a domain may have, and the rest.
fn domain_name(text: &str) -> Option<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.') || is_utf8_text(c);
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(name, _)| !name.is_empty())
}

/// Whether a domain is ambiguous; `None` if it is none. RFC 5321 §2.3.5: fully qualified, so that no server completes it.
fn name_of(name: &str) -> Option<bool> {
    if name.is_ascii() {
        return is_host_name(name).then(|| !name.contains('.'));
    }
    // RFC 5890 §2.3.2.1: a U-label is equal to its A-label decoded. Anything else maps to another name, as `ｂ` to `b`.
    let ascii = idna::domain_to_ascii_cow(name.as_bytes(), AsciiDenyList::EMPTY).ok()?;
    let (unicode, valid) = idna::domain_to_unicode(&ascii);
    let lower = name.to_lowercase();
    let is_u_label = |(given, decoded): (&str, &str)| given.is_ascii() || given == decoded;
    let same_count = lower.split('.').count() == unicode.split('.').count();
    let is_valid = valid.is_ok()
        && is_host_name(&ascii)
        && same_count
        && lower.split('.').zip(unicode.split('.')).all(is_u_label);
    // Servers that fold case read `ß` as `ss`.
    let folds = || lower.to_uppercase().to_lowercase() != lower;
    is_valid.then(|| folds() || !ascii.contains('.'))
}

/// RFC 5321 §4.1.2 (sub-domain) with the limits of DNS. A last label of digits is that of an address (RFC 3696 §2).
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &[u8]| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
            && label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let is_number = |label: &[u8]| label.iter().all(u8::is_ascii_digit);
    let mut labels = name.as_bytes().split(|b| *b == b'.');
    name.len() <= MAX_DOMAIN
        && labels.clone().all(is_label)
        && !labels.next_back().is_none_or(is_number)
}

/// What stands between the brackets of an address literal. No tag but `IPv6` is registered.
fn is_address(literal: &str) -> bool {
    let v6 = literal.split_at_checked(5).filter(|(tag, _)| tag.eq_ignore_ascii_case("IPv6:"));
    match v6 {
        Some((_, address)) => address.parse::<Ipv6Addr>().is_ok(),
        None => literal.parse::<Ipv4Addr>().is_ok(),
    }
}

/// RFC 5321 §4.1.2 (esmtp-param). The server judges keyword and value; `=` within a value is left to it as well.
fn is_parameter(word: &str) -> bool {
    let (keyword, value) = word.split_once('=').unwrap_or((word, ""));
    let is_keyword = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_keyword && value.chars().all(|c| matches!(c, '!'..='~') || is_utf8_text(c))
}

/// Where a server that reads whatever it can would find the path: for reports on sessions whose path does not follow the
/// syntax.
pub(super) fn lenient_range(argument: &[u8]) -> Option<Range<usize>> {
    let colon = argument.iter().position(|&b| b == b':')?;
    let rest = argument.get(colon + 1..)?.trim_ascii_start();
    let start = argument.len() - rest.len();
    let (start, path) = match rest.strip_prefix(b"<") {
        Some(inside) => (start + 1, inside.get(..closing_bracket(inside)?)?),
        None => (start, rest.split(|&b| b == b' ').next().filter(|word| !word.is_empty())?),
    };
    let route = path.strip_prefix(b"@").and_then(|_| path.iter().position(|&b| b == b':'));
    Some(start + route.map_or(0, |colon| colon + 1)..start + path.len())
}

/// Position of the `>` that ends a path: not one inside quotes.
fn closing_bracket(path: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    path.iter().position(|&b| {
        if escaped {
            escaped = false;
        } else {
            match b {
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'>' => return !quoted,
                _ => {}
            }
        }
        false
    })
}

#[cfg(test)]
mod tests;
