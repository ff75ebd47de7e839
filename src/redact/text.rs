//! Words of people and servers: what in them names a mailbox or an address is overwritten.

use std::net::IpAddr;
use std::ops::Range;

use super::local_parts::LocalParts;

/// What stands for bytes that are not shown.
const MASK: u8 = b'x';

/// Overwrites everything but white space.
pub(super) fn blank(text: &mut [u8]) {
    for byte in text.iter_mut().filter(|byte| !byte.is_ascii_whitespace()) {
        *byte = MASK;
    }
}

/// Local parts become their letters, address text is overwritten, all else stays. `own` are the session's addresses.
pub(super) fn mask(text: &mut [u8], locals: &LocalParts, own: &[IpAddr]) {
    let original = text.to_vec();
    let replace = |text: &mut [u8], range: Range<usize>| {
        if let (Some(place), Some(local)) = (text.get_mut(range.clone()), original.get(range)) {
            place.copy_from_slice(&locals.letters(local));
        }
    };
    for local in locals.named() {
        for range in occurrences(&original, local) {
            let outside = |at: Option<usize>| {
                at.and_then(|at| original.get(at)).is_none_or(|b| !b.is_ascii_alphanumeric())
            };
            if outside(range.start.checked_sub(1)) && outside(Some(range.end)) {
                replace(text, range);
            }
        }
    }
    for at in memchr::memchr_iter(b'@', &original) {
        replace(text, local_part_before(&original, at));
    }
    mask_addresses(text, &original, own);
}

/// Where the local part of the mailbox stands whose `@` is at `at`; rather too much than too little.
fn local_part_before(text: &[u8], at: usize) -> Range<usize> {
    let before = text.get(..at).unwrap_or_default();
    if let Some(quoted) = before.strip_suffix(b"\"")
        && let Some(open) = memchr::memrchr(b'"', quoted)
    {
        return open..at;
    }
    let is_delimiter = |b: &u8| b.is_ascii_whitespace() || b"<>(),".contains(b);
    before.iter().rposition(is_delimiter).map_or(0, |delimiter| delimiter + 1)..at
}

/// Overwrites what reads as an address, also in the manner of reverse names (`192-0-2-1.dsl.example`).
pub(super) fn mask_addresses(text: &mut [u8], original: &[u8], own: &[IpAddr]) {
    let digit = |b: &u8| b.is_ascii_digit();
    let hex = |b: &u8| b.is_ascii_hexdigit();
    for separator in [b'.', b'-', b'_'] {
        for run in runs(original, |b| digit(b) || *b == separator) {
            if groups(original, &run, separator).filter(|group| !group.is_empty()).count() >= 4 {
                overwrite(text, run, digit);
            }
        }
    }
    for run in runs(original, |b| hex(b) || *b == b':') {
        if groups(original, &run, b':').count() >= 3 {
            // RFC 5321 §4.1.3: the tag of a literal is no part of the address.
            let tag = original.get(..run.start + 2).is_some_and(|head| {
                let tag = head.len().checked_sub(5).and_then(|from| head.get(from..));
                tag.is_some_and(|tag| tag.eq_ignore_ascii_case(b"IPv6:"))
            });
            overwrite(text, run.start + usize::from(tag)..run.end, hex);
        }
    }
    for run in runs(original, |b| hex(b) || *b == b'-') {
        let has_digit = original.get(run.clone()).is_some_and(|run| run.iter().any(digit));
        if has_digit && groups(original, &run, b'-').count() >= 4 {
            overwrite(text, run, hex);
        }
    }
    // RFC 3596 §2.5: nibbles.
    for run in runs(original, |b| hex(b) || *b == b'.') {
        if groups(original, &run, b'.').filter(|group| group.len() == 1).count() >= 8 {
            overwrite(text, run, hex);
        }
    }
    for ip in own {
        let digits = match ip {
            IpAddr::V4(ip) => format!("{:08x}", u32::from(*ip)),
            IpAddr::V6(ip) => format!("{:032x}", u128::from(*ip)),
        };
        for range in occurrences(original, digits.as_bytes()) {
            overwrite(text, range, hex);
        }
    }
}

fn overwrite(text: &mut [u8], range: Range<usize>, what: impl Fn(&u8) -> bool) {
    for byte in text.get_mut(range).into_iter().flatten().filter(|byte| what(byte)) {
        *byte = MASK;
    }
}

/// The longest runs of bytes of a kind.
fn runs(text: &[u8], of: impl Fn(&u8) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.iter().enumerate().filter(|(_, byte)| of(byte)) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

fn groups<'t>(text: &'t [u8], run: &Range<usize>, separator: u8) -> impl Iterator<Item = &'t [u8]> {
    let run = text.get(run.clone()).unwrap_or_default();
    run.split(move |&b| b == separator)
}

/// Where `wanted`, never empty, stands in `text`, in any case.
fn occurrences(text: &[u8], wanted: &[u8]) -> Vec<Range<usize>> {
    let windows = text.windows(wanted.len().max(1)).enumerate();
    let found = windows.filter(|(_, window)| window.eq_ignore_ascii_case(wanted));
    found.map(|(at, _)| at..at + wanted.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> String {
        let own = ["192.0.2.10", "2001:db8:1::10"].map(|ip| ip.parse().unwrap());
        let mut masked = text.as_bytes().to_vec();
        mask_addresses(&mut masked, text.as_bytes(), &own);
        String::from_utf8(masked).unwrap()
    }

    #[test]
    fn whatever_reads_as_an_address_is_overwritten() {
        for (text, expected) in [
            ("[192.0.2.10]", "[xxx.x.x.xx]"),
            ("host192-0-2-10.dsl.example", "hostxxx-x-x-xx.dsl.example"),
            ("192_0_2_10.example", "xxx_x_x_xx.example"),
            ("10.2.0.192.in-addr.arpa", "xx.x.x.xxx.in-addr.arpa"),
            ("[IPv6:2001:db8:1::10]", "[IPv6:xxxx:xxx:x::xx]"),
            ("from ::1 it", "from ::x it"),
            ("::ffff:192.0.2.10", "::xxxx:xxx.x.x.xx"),
            ("2001-db8-1--10.example", "xxxx-xxx-x--xx.example"),
            (
                "1.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
                "x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.ip6.arpa",
            ),
            ("dsl-C000020A.example", "dsl-xxxxxxxx.example"),
            ("20010db8000100000000000000000010", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            // What stays.
            ("2.1.5 Ok: queued as 4F1D2C", "2.1.5 Ok: queued as 4F1D2C"),
            ("mx-1.example.org ESMTP Postfix (3.10)", "mx-1.example.org ESMTP Postfix (3.10)"),
            ("SIZE 10240000", "SIZE 10240000"),
        ] {
            assert_eq!(addresses(text), expected);
        }
    }

    #[test]
    fn local_parts_become_letters_wherever_they_are_repeated() {
        let mut locals = LocalParts::new(&std::array::from_fn(|n| n as u8));
        locals.name(b"Mary");
        let letters = |local: &str| String::from_utf8(locals.letters(local.as_bytes())).unwrap();
        let masked = |text: &str| {
            let mut masked = text.as_bytes().to_vec();
            mask(&mut masked, &locals, &[]);
            String::from_utf8(masked).unwrap()
        };
        let (mary, bob) = (letters("mary"), letters("bob"));
        assert_eq!(mary.len(), 4);
        assert_eq!(masked("<mary@a.example>: unknown"), format!("<{mary}@a.example>: unknown"));
        assert_eq!(masked("no MARY, see bob@b.example"), format!("no {mary}, see {bob}@b.example"));
        assert_eq!(masked("summary"), "summary");
        let quoted = letters("\"a b\"");
        assert_eq!(masked("<\"a b\"@c>"), format!("<{quoted}@c>"));
    }
}
