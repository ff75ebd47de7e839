//! Macros in a domain-spec (RFC 7208 §7).

use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::SpfQuery;
use crate::policy::facts::DomainName;

/// RFC 7208 §7.3: a longer name is truncated on the left.
const MAX_NAME: usize = 253;
const DELIMITERS: &str = ".-+,/_=";

/// A `domain-spec`: a name with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainSpec(Vec<SpecPart>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum SpecPart {
    Text(String),
    /// `escape`: its letter was upper case, so its value is URL-escaped (RFC 7208 §7.3).
    Macro {
        letter: char,
        escape: bool,
        keep: Option<usize>,
        reverse: bool,
        delimiters: String,
    },
}

/// The values of macros.
#[derive(Clone, Copy, Debug)]
pub(super) struct MacroValues<'a> {
    pub(super) query: &'a SpfQuery<'a>,
    /// The domain of the record.
    pub(super) domain: &'a DomainName,
    /// A confirmed reverse name of the sender.
    pub(super) reverse_name: Option<&'a DomainName>,
}

impl DomainSpec {
    /// # Errors
    /// A description of the fault.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            if c != '%' {
                plain.push(c);
                continue;
            }
            let escaped = rest.chars().next();
            match escaped {
                Some('%') => plain.push('%'),
                Some('_') => plain.push(' '),
                Some('-') => plain.push_str("%20"),
                Some('{') => {
                    let inside = rest.get(1..).and_then(|rest| rest.split_once('}'));
                    let Some((inside, after)) = inside else {
                        return Err("macro without }".to_owned());
                    };
                    parts.push(SpecPart::Text(std::mem::take(&mut plain)));
                    parts.push(parse_macro(inside)?);
                    rest = after;
                    continue;
                }
                _ => return Err("% without a macro".to_owned()),
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        let ends_in_macro = plain.is_empty() && !parts.is_empty();
        let whole = if parts.is_empty() { plain.clone() } else { format!("x{plain}") };
        if !ends_in_macro && !is_domain_end(&whole) {
            return Err(format!("{text:?} is not a full domain name"));
        }
        parts.push(SpecPart::Text(plain));
        Ok(Self(parts))
    }

    /// Checks the macros of a text that need not be a name.
    pub(super) fn check_macros(text: &str) -> Result<(), String> {
        // With a valid end only the macros can be wrong.
        Self::parse(&format!("{text}.example")).map(drop)
    }

    /// `None` if the result is not a valid name.
    pub(super) fn expand(&self, values: &MacroValues<'_>) -> Option<DomainName> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                SpecPart::Text(plain) => text.push_str(plain),
                SpecPart::Macro { letter, escape, keep, reverse, delimiters } => {
                    let value = value(*letter, values, *keep, *reverse, delimiters);
                    text.push_str(&if *escape { url_escaped(&value) } else { value });
                }
            }
        }
        let mut name = text.trim_end_matches('.');
        while name.len() > MAX_NAME {
            name = name.split_once('.')?.1;
        }
        let labels = name.split('.').map(str::as_bytes);
        Name::from_labels(labels).ok().map(DomainName::from)
    }

    /// It does not depend on the sender.
    pub(super) fn is_fixed(&self) -> bool {
        let fixed = |part: &SpecPart| match part {
            SpecPart::Text(_) => true,
            SpecPart::Macro { letter, .. } => matches!(letter, 'd' | 'o'),
        };
        self.0.iter().all(fixed)
    }

    pub(super) fn uses_reverse_name(&self) -> bool {
        self.0.iter().any(|part| matches!(part, SpecPart::Macro { letter: 'p', .. }))
    }
}

/// RFC 7208 §7.1: it ends in a dot and a label that is not a number; before that nearly everything is allowed.
fn is_domain_end(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((before, label)) = text.rsplit_once('.') else { return false };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_label = !label.is_empty() && label.chars().all(is_plain) && !label.starts_with('-');
    let is_number = label.bytes().all(|b| b.is_ascii_digit());
    is_label
        && !label.ends_with('-')
        && !is_number
        && before.split('.').all(|label| !label.is_empty())
}

/// Parses the part within `%{}`.
fn parse_macro(inside: &str) -> Result<SpecPart, String> {
    let invalid = || format!("%{{{inside}}} is not a macro");
    let mut chars = inside.chars();
    let letter = chars.next().ok_or_else(invalid)?;
    let escape = letter.is_ascii_uppercase();
    let letter = letter.to_ascii_lowercase();
    if !matches!(letter, 's' | 'l' | 'o' | 'd' | 'i' | 'p' | 'h' | 'v') {
        return Err(invalid());
    }
    let rest = chars.as_str();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = rest.split_at(digits);
    let keep = match number {
        "" => None,
        number => Some(number.parse().ok().filter(|keep| *keep > 0).ok_or_else(invalid)?),
    };
    let after = rest.strip_prefix(['r', 'R']);
    let delimiters = after.unwrap_or(rest);
    if !delimiters.chars().all(|c| DELIMITERS.contains(c)) {
        return Err(invalid());
    }
    let delimiters = if delimiters.is_empty() { "." } else { delimiters }.to_owned();
    Ok(SpecPart::Macro { letter, escape, keep, reverse: after.is_some(), delimiters })
}

fn value(
    letter: char,
    values: &MacroValues<'_>,
    keep: Option<usize>,
    reverse: bool,
    delimiters: &str,
) -> String {
    let query = values.query;
    let whole = match letter {
        's' => format!("{}@{}", query.local_part, query.domain),
        'l' => query.local_part.to_owned(),
        'o' => query.domain.to_string(),
        'd' => values.domain.to_string(),
        'i' => dotted(query.ip),
        'h' => query.helo.to_owned(),
        'v' => if query.ip.is_ipv6() { "ip6" } else { "in-addr" }.to_owned(),
        _ => values.reverse_name.map_or_else(|| "unknown".to_owned(), ToString::to_string),
    };
    let mut parts: Vec<&str> = whole.split(|c| delimiters.contains(c)).collect();
    if reverse {
        parts.reverse();
    }
    let from = keep.map_or(0, |keep| parts.len().saturating_sub(keep));
    parts.get(from..).unwrap_or_default().join(".")
}

/// All but the unreserved characters of RFC 3986 §2.3 as `%` and two digits.
fn url_escaped(value: &str) -> String {
    let mut escaped = String::new();
    for octet in value.bytes() {
        match octet {
            b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(octet)),
            _ if octet.is_ascii_alphanumeric() => escaped.push(char::from(octet)),
            _ => escaped += &format!("%{octet:02X}"),
        }
    }
    escaped
}

/// RFC 7208 §7.3: IPv6 as nibbles.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let digits = format!("{:032x}", u128::from(v6));
            let nibbles: Vec<String> = digits.chars().map(String::from).collect();
            nibbles.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7208 §7.4.
    #[test]
    fn macros_expand_as_in_the_rfc() {
        let v4 = "192.0.2.3";
        let v6 = "2001:db8::cb01";
        for (spec, ip, expected) in [
            ("%{s}", v4, r"strong-bad\@email.example.com"),
            ("%{o}", v4, "email.example.com"),
            ("%{d}", v4, "email.example.com"),
            ("%{d4}", v4, "email.example.com"),
            ("%{d3}", v4, "email.example.com"),
            ("%{d2}", v4, "example.com"),
            ("%{d1}", v4, "com"),
            ("%{dr}", v4, "com.example.email"),
            ("%{d2r}", v4, "example.email"),
            ("%{l}", v4, "strong-bad"),
            ("%{l-}", v4, "strong.bad"),
            ("%{lr}", v4, "strong-bad"),
            ("%{lr-}", v4, "bad.strong"),
            ("%{l1r-}", v4, "strong"),
            ("%{ir}.%{v}._spf.%{d2}", v4, "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", v4, "bad.strong.lp._spf.example.com"),
            (
                "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
                v4,
                "bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
            ),
            ("%{d2}.trusted-domains.example.net", v4, "example.com.trusted-domains.example.net"),
            (
                "%{ir}.%{v}._spf.%{d2}",
                v6,
                "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com",
            ),
            ("%{h}", v4, "mx.example.net"),
            ("a.%{p}.example", v4, "a.unknown.example"),
            ("%{S}.example", v4, r"strong-bad\%40email.example.com.example"),
        ] {
            let query = SpfQuery::of_session(
                ip.parse().unwrap(),
                "mx.example.net",
                "strong-bad@email.example.com",
            );
            let query = query.unwrap();
            let values = MacroValues { query: &query, domain: &query.domain, reverse_name: None };
            let found = DomainSpec::parse(spec).unwrap().expand(&values);
            assert_eq!(found.map(|name| name.to_string()).as_deref(), Some(expected), "{spec}");
        }
    }

    #[test]
    fn invalid_specs_are_refused() {
        for wrong in
            ["", "localhost", "%{x}", "%{d0}", "%{d", "%a.example", "a..example", "a.1", "%{d!}"]
        {
            assert!(DomainSpec::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
