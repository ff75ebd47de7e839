//! Masks client data on the status page: no addresses and local parts unless the operator enables them, no misleading
//! characters, bounded length.
//!
//! Host names contain addresses in many forms: `[192.0.2.7]`, `host-192-0-2-7.example`, `7.2.0.192.in-addr.arpa`,
//! `p4FC3A1B2.example`. Text that looks like one of them is replaced, with some false positives.

use std::net::IpAddr;
use std::ops::Range;

use crate::addr::Family;
use crate::report::escape::{EscapeContext, fitted, push};

/// Replaces an address.
const MASK: &str = "[address]";
/// Replaces a local part.
const LOCAL_PART: &str = "…";
/// Bytes of one escaped value.
const MAX_VALUE: usize = 160;
/// Columns of a sentence.
const MAX_SENTENCE: usize = 300;

/// Whether addresses and local parts are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressMasking {
    pub(super) show_addresses: bool,
}

impl AddressMasking {
    /// Text that may contain addresses, such as a HELO or the name of a rule.
    pub(super) fn text(self, text: &str) -> String {
        if self.show_addresses {
            return escaped(text);
        }
        match text.rsplit_once('@') {
            Some((_, domain)) => format!("{LOCAL_PART}@{}", escaped(&masked(domain))),
            None => escaped(&masked(text)),
        }
    }

    /// An envelope path, or only its domain.
    pub(super) fn path(self, path: &str) -> String {
        match path.rsplit_once('@') {
            _ if path.is_empty() => "<>".to_owned(),
            _ if self.show_addresses => escaped(path),
            Some((_, domain)) => escaped(&masked(domain)),
            None => "no domain".to_owned(),
        }
    }

    /// An address, or only its family.
    pub(super) fn address(self, ip: IpAddr) -> String {
        match Family::of(ip) {
            _ if self.show_addresses => ip.to_canonical().to_string(),
            Family::Ipv4 => "an IPv4 address".to_owned(),
            Family::Ipv6 => "an IPv6 address".to_owned(),
        }
    }
}

/// A sentence of ours that quotes remote text; longer than a value.
pub(super) fn sentence(text: &str) -> String {
    fitted(text, EscapeContext::Sentence, MAX_SENTENCE)
}

/// Escaped and truncated.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    push(&mut out, text, EscapeContext::Sentence, MAX_VALUE);
    out
}

/// `text` with everything that looks like an address replaced.
fn masked(text: &str) -> String {
    if text.starts_with('[') && text.ends_with(']') {
        return MASK.to_owned();
    }
    let runs = runs(text.as_bytes());
    let mut hidden: Vec<Range<usize>> = Vec::new();
    let mut hide = |some: &[Run<'_>]| {
        if let (Some(first), Some(last)) = (some.first(), some.last()) {
            hidden.push(first.at.start..last.at.end);
        }
    };
    runs.digits.windows(4).filter(|four| is_quad(four)).for_each(&mut hide);
    let alone = runs.hex.iter().filter(|run| is_long_hex(run));
    let alone = alone.chain(runs.colons.iter().filter(|run| is_colons(run)));
    alone.for_each(|run| hide(std::slice::from_ref(run)));
    let mut groups = runs.words.as_slice();
    while let Some(first) = groups.iter().position(Run::is_group) {
        groups = groups.get(first..).unwrap_or_default();
        let follows = |pair: &[Run<'_>]| pair.iter().all(Run::is_group) && gap(pair) <= 2;
        let count = 1 + groups.windows(2).take_while(|pair| follows(pair)).count();
        let (some, rest) = groups.split_at(count);
        if is_groups(some) {
            hide(some);
        }
        groups = rest;
    }
    replaced(text, hidden)
}

/// A run of characters of one class.
#[derive(Clone)]
struct Run<'a> {
    bytes: &'a [u8],
    at: Range<usize>,
}

/// Runs of digits, of hexadecimal digits, of hexadecimal digits and colons, and of letters and digits.
struct Runs<'a> {
    digits: Vec<Run<'a>>,
    hex: Vec<Run<'a>>,
    colons: Vec<Run<'a>>,
    words: Vec<Run<'a>>,
}

fn runs(text: &[u8]) -> Runs<'_> {
    let of = |kind: fn(&u8) -> bool| {
        let mut at = 0;
        let chunks = text.chunk_by(|a, b| kind(a) == kind(b));
        let runs = chunks.map(|bytes| {
            let start = at;
            at += bytes.len();
            Run { bytes, at: start..at }
        });
        runs.filter(|run| run.bytes.first().is_some_and(kind)).collect()
    };
    Runs {
        digits: of(u8::is_ascii_digit),
        hex: of(u8::is_ascii_hexdigit),
        colons: of(|byte| byte.is_ascii_hexdigit() || *byte == b':'),
        words: of(u8::is_ascii_alphanumeric),
    }
}

impl Run<'_> {
    /// Possibly a group of an IPv6 address, or a nibble.
    fn is_group(&self) -> bool {
        self.bytes.len() <= 4 && self.bytes.iter().all(u8::is_ascii_hexdigit)
    }

    fn has_digit(&self) -> bool {
        self.bytes.iter().any(u8::is_ascii_digit)
    }
}

/// Bytes between two runs.
fn gap(pair: &[Run<'_>]) -> usize {
    match pair {
        [a, b] => b.at.start - a.at.end,
        _ => 0,
    }
}

/// Four numbers up to 255, close together, possibly with letters between them.
fn is_quad(four: &[Run<'_>]) -> bool {
    let number = |run: &Run<'_>| std::str::from_utf8(run.bytes).ok()?.parse::<u16>().ok();
    let small = |run| number(run).is_some_and(|number| number <= 255);
    four.iter().all(small) && four.windows(2).all(|pair| gap(pair) <= 2)
}

/// An address in hexadecimal or as one number.
fn is_long_hex(run: &Run<'_>) -> bool {
    run.bytes.len() >= 8 && run.has_digit()
}

/// The standard form of an IPv6 address.
fn is_colons(run: &Run<'_>) -> bool {
    run.bytes.iter().filter(|byte| **byte == b':').count() >= 2 && run.bytes.len() > 2
}

/// Groups of an IPv6 address: at least six, or fewer around a `::`.
fn is_groups(some: &[Run<'_>]) -> bool {
    let is_compressed = some.windows(2).any(|pair| gap(pair) == 2);
    some.iter().any(Run::has_digit) && (some.len() >= 6 || some.len() >= 2 && is_compressed)
}

fn replaced(text: &str, mut hidden: Vec<Range<usize>>) -> String {
    hidden.sort_by_key(|range| range.start);
    let (mut out, mut from) = (String::new(), 0);
    for range in hidden {
        if range.start > from || from == 0 {
            out.push_str(text.get(from..range.start).unwrap_or_default());
            out.push_str(MASK);
        }
        from = from.max(range.end);
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const MASKED: AddressMasking = AddressMasking { show_addresses: false };

    #[test]
    fn addresses_are_masked_and_names_are_not() {
        for (text, expected) in [
            ("mx1.mail24.example", "mx1.mail24.example"),
            ("xn--80ak6aa92e.example", "xn--80ak6aa92e.example"),
            ("a-b-c-d-e-f.example", "a-b-c-d-e-f.example"),
            ("[192.0.2.7]", "[address]"),
            ("[IPv6:2001:db8::7]", "[address]"),
            ("2001:db8::", "[address]"),
            ("at ::1, port", "at [address], port"),
            ("host-192-0-2-7.isp.example", "host-[address].isp.example"),
            ("dsl192x000x002x007.example", "dsl[address].example"),
            ("7.2.0.192.in-addr.arpa", "[address].in-addr.arpa"),
            ("p4FC3A1B2.dip.example", "p[address].dip.example"),
            ("2001-db8--7.example", "[address].example"),
            ("192.0.2.7.8", "[address]"),
            ("joe@192.0.2.7", "…@[address]"),
            ("a\u{202e}<b>\r\n", "a\\u{202e}<b>\\x0d\\x0a"),
        ] {
            assert_eq!(MASKED.text(text), expected, "{text}");
        }
        assert_eq!(
            AddressMasking { show_addresses: true }.text("joe@[192.0.2.7]"),
            "joe@[192.0.2.7]"
        );
    }

    #[test]
    fn paths_show_only_the_domain() {
        for (path, expected) in [
            ("", "<>"),
            ("joe@a.example", "a.example"),
            ("\"a@b\"@[192.0.2.7]", "[address]"),
            ("postmaster", "no domain"),
        ] {
            assert_eq!(MASKED.path(path), expected, "{path}");
        }
        assert_eq!(AddressMasking { show_addresses: true }.path("joe@a.example"), "joe@a.example");
        assert!(MASKED.text(&"x".repeat(5000)).len() < 200);
    }

    /// The forms of an address in host names.
    pub(super) fn spellings(ip: IpAddr) -> Vec<String> {
        let dashed = ip.to_string().replace(['.', ':'], "-");
        let mut all = vec![ip.to_string(), dashed];
        match ip {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                all.push(format!("{a:03}{b:03}{c:03}{d:03}"));
                all.push(format!("{a:03}.{b:03}.{c:03}.{d:03}"));
                all.push(format!("{d}.{c}.{b}.{a}"));
                all.push(format!("{a}_{b}_{c}_{d}"));
            }
            IpAddr::V6(v6) => {
                let groups = v6.segments().map(|group| format!("{group:x}"));
                let padded = v6.segments().map(|group| format!("{group:04x}"));
                all.push(groups.join("-"));
                all.push(groups.join(":"));
                all.push(padded.join("."));
                let nibbles = padded.concat();
                all.push(nibbles.chars().rev().map(|c| format!("{c}.")).collect());
                all.push(nibbles);
            }
        }
        all
    }

    proptest! {
        #[test]
        fn every_spelling_of_an_address_is_masked(
            v4: u32, v6: u128, before in "[a-z]{0,3}[g-z.]", after in "[.][a-z]{0,9}",
        ) {
            for ip in [IpAddr::V4(Ipv4Addr::from(v4)), IpAddr::V6(Ipv6Addr::from(v6))] {
                for spelling in spellings(ip) {
                    let text = format!("{before}{spelling}{after}");
                    let shown = MASKED.text(&text);
                    prop_assert!(!shown.contains(&spelling), "{text}: {shown}");
                }
            }
        }

        #[test]
        fn other_text_is_unchanged(text in "\\PC*") {
            let masked = masked(&text);
            prop_assert!(masked == text || masked.contains(MASK));
        }
    }
}
