//! Canonical bodies (RFC 6376 §3.4.3, §3.4.4) and their hashes.

use sha2::{Digest as _, Sha256};

use crate::dkim::Canonicalization;
use crate::dkim::Canonicalization::{Relaxed, Simple};
use crate::dkim::body_digest::BodyDigest;
use crate::dkim::canonical::BodyCanonicalizer;

fn canonical(name: Canonicalization, chunks: &[&[u8]]) -> String {
    let mut out = Vec::new();
    let mut canonicalizer = BodyCanonicalizer::new(name);
    for chunk in chunks {
        canonicalizer.write(chunk, &mut |bytes| out.extend_from_slice(bytes));
    }
    canonicalizer.finish(&mut |bytes| out.extend_from_slice(bytes));
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn bodies_are_canonical() {
    for (body, simple, relaxed) in [
        // RFC 6376 §3.4.5.
        (" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"),
        ("", "\r\n", ""),
        ("\r\n", "\r\n", ""),
        ("\r\n\r\n\r\n", "\r\n", ""),
        (" \t\r\n", " \t\r\n", ""),
        (" ", " \r\n", ""),
        ("a", "a\r\n", "a\r\n"),
        ("a ", "a \r\n", "a\r\n"),
        ("a\r\n", "a\r\n", "a\r\n"),
        ("a\r\n\r\nb", "a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n"),
        ("a\r\n \r\n\t\r\nb\r\n \r\n", "a\r\n \r\n\t\r\nb\r\n \r\n", "a\r\n\r\n\r\nb\r\n"),
        ("\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"),
        ("a  b\t\tc \t d\r\n", "a  b\t\tc \t d\r\n", "a b c d\r\n"),
        // A bare LF ends a line.
        ("a\nb\n\n\nc\n\n", "a\r\nb\r\n\r\n\r\nc\r\n", "a\r\nb\r\n\r\n\r\nc\r\n"),
        ("a \n", "a \r\n", "a\r\n"),
        ("\n\n", "\r\n", ""),
        // A bare CR is text.
        ("a\rb\r\n", "a\rb\r\n", "a\rb\r\n"),
        ("a\r", "a\r\r\n", "a\r\r\n"),
        ("a\r\r\n", "a\r\r\n", "a\r\r\n"),
        ("a \r\r\n\r\r\n", "a \r\r\n\r\r\n", "a \r\r\n\r\r\n"),
        ("\r", "\r\r\n", "\r\r\n"),
        ("a\r\n\r", "a\r\n\r\r\n", "a\r\n\r\r\n"),
        ("a \r b\r\n", "a \r b\r\n", "a \r b\r\n"),
        ("\0 \0\r\n", "\0 \0\r\n", "\0 \0\r\n"),
        ("\u{e4}\u{a0} \x0b \x0c\r\n", "\u{e4}\u{a0} \x0b \x0c\r\n", "\u{e4}\u{a0} \x0b \x0c\r\n"),
    ] {
        assert_eq!(canonical(Simple, &[body.as_bytes()]), simple, "simple {body:?}");
        assert_eq!(canonical(Relaxed, &[body.as_bytes()]), relaxed, "relaxed {body:?}");
        let octets: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(canonical(Simple, &octets), simple, "simple {body:?}, octet by octet");
        assert_eq!(canonical(Relaxed, &octets), relaxed, "relaxed {body:?}, octet by octet");
    }
}

/// Octets are compared in blocks: what ends an unchanged part may stand anywhere in them.
#[test]
fn every_place_in_a_block_is_alike() {
    let words = "ab c defg h ".repeat(12);
    for part in [
        " ",
        "  ",
        "\t",
        " \t",
        "\r\n",
        " \r\n",
        "\r\n ",
        "\r\n\r\n",
        "\n",
        "\r",
        "\r ",
        " \r",
        "\x01",
        " \x01",
        "\x01 ",
        "\x01  ",
        "\r\n\x01",
        "\r\n\t\r\n",
        "\u{e4}",
        " \u{e4} ",
    ] {
        for (at, _) in words.char_indices() {
            let (before, after) = words.split_at(at);
            for body in [format!("{before}{part}{after}"), format!("{before}{part}")] {
                let octets: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
                for name in [Simple, Relaxed] {
                    let whole = canonical(name, &[body.as_bytes()]);
                    assert_eq!(whole, canonical(name, &octets), "{name:?} {body:?}");
                }
            }
        }
    }
}

#[test]
fn many_empty_lines_are_counted_only() {
    let body = format!("a{}b\r\n{}", "\r\n".repeat(1_000), "\r\n".repeat(1_000));
    let expected = format!("a{}b\r\n", "\r\n".repeat(1_000));
    for name in [Simple, Relaxed] {
        assert_eq!(canonical(name, &[body.as_bytes()]), expected);
    }
}

#[test]
fn each_limit_has_its_hash() {
    let limits = [None, Some(0), Some(3), Some(7), Some(8), Some(100), Some(3)];
    let mut digest = BodyDigest::new(Relaxed, limits.to_vec());
    for chunk in ["ab", "  c\r", "\nde", "\r\n\r\n"] {
        digest.write(chunk.as_bytes());
    }
    let (name, hashes) = digest.finish();
    assert_eq!(name, Relaxed);
    let canonical = b"ab c\r\nde\r\n";
    for limit in limits {
        let length = limit.map_or(canonical.len(), |limit| limit as usize).min(canonical.len());
        let hash = hashes.get(limit).unwrap();
        let expected: [u8; 32] = Sha256::digest(&canonical[..length]).into();
        assert_eq!(hash.sha256, expected, "{limit:?}");
        assert_eq!(hash.unsigned_octets as usize, canonical.len() - length, "{limit:?}");
    }
    assert_eq!(hashes.get(Some(5)), None);
}
