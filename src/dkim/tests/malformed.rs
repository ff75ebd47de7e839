//! Signatures that no key makes valid (RFC 6376 §6.1.1).

use super::signer::{BODY, FIELDS, TAGS, key, signed, signed_with_body_hash};
use super::{read, verify};
use crate::dkim::{DkimOutcome, DkimReason};

#[test]
fn malformed_signatures_have_their_reason() {
    let hash = "bh=uaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=";
    let rest = format!("d=a.example; s=sel; h=from; {hash}");
    let with = |tags: &str| format!("v=1; a=rsa-sha256; b=YQ==; {tags}");
    use DkimReason::*;
    for (tags, reason) in [
        (String::new(), MissingTag),
        ("v=1".to_owned(), MissingTag),
        (format!("a=rsa-sha256; b=YQ==; {rest}"), MissingTag),
        (format!("v=1; b=YQ==; {rest}"), MissingTag),
        (format!("v=1; a=rsa-sha256; {rest}"), MissingTag),
        (with(&format!("s=sel; h=from; {hash}")), MissingTag),
        (with(&format!("d=a.example; h=from; {hash}")), MissingTag),
        (with(&format!("d=a.example; s=sel; {hash}")), MissingTag),
        (with("d=a.example; s=sel; h=from"), MissingTag),
        (format!("v=2; a=rsa-sha256; b=YQ==; {rest}"), UnsupportedVersion),
        (format!("v=; a=rsa-sha256; b=YQ==; {rest}"), UnsupportedVersion),
        (format!("v=1.0; a=rsa-sha256; b=YQ==; {rest}"), UnsupportedVersion),
        (format!("v=1; a=rsa-sha1; b=YQ==; {rest}"), RsaSha1),
        (format!("v=1; a=rsa-sha512; b=YQ==; {rest}"), UnsupportedAlgorithm),
        (format!("v=1; a=; b=YQ==; {rest}"), UnsupportedAlgorithm),
        (with(&format!("c=nofws; {rest}")), UnsupportedCanonicalization),
        (with(&format!("c=; {rest}")), UnsupportedCanonicalization),
        (with(&format!("c=relaxed/; {rest}")), UnsupportedCanonicalization),
        (with(&format!("c=relaxed/simple/simple; {rest}")), UnsupportedCanonicalization),
        (with(&format!("q=http; {rest}")), UnsupportedQuery),
        (with(&format!("{rest}; v=1")), DuplicateTag),
        (with(&format!("{rest}; x-y=1")), MalformedSignature),
        (with(&format!("{rest}; =1")), MalformedSignature),
        (with(&format!("{rest}; 1a=1")), MalformedSignature),
        (with(&format!("{rest}; word")), MalformedSignature),
        (with(&format!("{rest}; t=-1")), MalformedSignature),
        (with(&format!("{rest}; t=")), MalformedSignature),
        (with(&format!("{rest}; x=soon")), MalformedSignature),
        (with(&format!("{rest}; l=1 0")), MalformedSignature),
        (with(&format!("{rest}; l={}", "1".repeat(77))), MalformedSignature),
        (format!("v=1; a=rsa-sha256; b=; {rest}"), MalformedSignature),
        (format!("v=1; a=rsa-sha256; b=Y*==; {rest}"), MalformedSignature),
        (format!("v=1; a=rsa-sha256; b=Y; {rest}"), MalformedSignature),
        (format!("v=1; a=rsa-sha256; b={}; {rest}", "AAAA".repeat(400)), MalformedSignature),
        (with("d=a.example; s=sel; h=from; bh=YQ=="), MalformedSignature),
        (with(&format!("d=a..example; s=sel; h=from; {hash}")), MalformedSignature),
        (with(&format!("d=; s=sel; h=from; {hash}")), MalformedSignature),
        (with(&format!("d=a b; s=sel; h=from; {hash}")), MalformedSignature),
        (with(&format!("d=a.example; s=*; h=from; {hash}")), MalformedSignature),
        (with(&format!("d={}; s=sel; h=from; {hash}", "a.".repeat(127))), MalformedSignature),
        (with(&format!("d=a.example; s=sel; h=; {hash}")), MalformedSignature),
        (with(&format!("d=a.example; s=sel; h=to:subject; {hash}")), FromNotSigned),
        (with(&format!("i=a.example; {rest}")), MalformedSignature),
        (with(&format!("i=@; {rest}")), MalformedSignature),
        (with(&format!("i=a=4@a.example; {rest}")), MalformedSignature),
        (with(&format!("i=@example; {rest}")), IdentityOutsideDomain),
        (with(&format!("i=@b.example; {rest}")), IdentityOutsideDomain),
        (with(&format!("i=@xa.example; {rest}")), IdentityOutsideDomain),
        (with(&format!("i=@a.example@b.example; {rest}")), IdentityOutsideDomain),
    ] {
        let message = format!("DKIM-Signature: {tags}\r\n{FIELDS}\r\n{BODY}");
        let result = verify(message.as_bytes(), &[&key("")]);
        assert_eq!(result.reason, Some(reason), "{tags}");
        assert_eq!(result.outcome, reason.outcome(), "{tags}");
        assert_eq!(read(message.as_bytes()).signatures[0].key_name(), None, "{tags}");
    }
}

#[test]
fn the_domain_of_a_malformed_signature_is_known() {
    let message = read(b"DKIM-Signature: d=A.example; s=1\r\nDKIM-Signature: d=\r\n\r\n");
    let domains: Vec<_> = message.signatures.iter().map(|one| one.domain()).collect();
    assert_eq!(domains, [Some("a.example"), None]);
    assert_eq!(message.signatures[0].selector(), Some("1"));
}

/// Each of these tags is part of a signature that passes.
#[test]
fn unusual_signatures_pass() {
    let with = |from: &str, to: &str| TAGS.replace(from, to);
    for tags in [
        TAGS.to_owned(),
        format!("{TAGS};"),
        format!("{TAGS};;\r\n\t; q = dns/txt"),
        format!("{TAGS}; q=x : dns/txt; unknown=\u{e4}; n_1="),
        format!("{TAGS}; t=1600000000; x=1700000000"),
        format!("{TAGS}; x={}", "9".repeat(76)),
        format!("{TAGS}; l={}", 8),
        format!("{TAGS}; i=@a.example"),
        format!("{TAGS}; i=x@deep.er.A.example"),
        format!("{TAGS}; i==40 x@\r\n a.example"),
        with("v=1", "\r\n v\r\n =\r\n 1\r\n "),
        with("d=a.example", "d=A.EXAMPLE"),
        with("d=a.example; s=sel", "d=b\u{fc}ro.example; s=_x.1"),
        with("a=ed25519-sha256", "a=Ed25519-SHA256"),
        with("h=from:to", "h=to\r\n : FROM : x::"),
    ] {
        let message = signed(&tags, FIELDS, BODY);
        assert_eq!(verify(&message, &[&key("")]).reason, None, "{tags}");
    }
    let message = read(&signed(&with("d=a.example", "d=b\u{fc}ro.Example"), FIELDS, BODY));
    assert_eq!(message.signatures[0].domain(), Some("xn--bro-hoa.example"));
}

#[test]
fn a_signature_expires() {
    for (tags, outcome) in [
        ("x=1700000000", DkimOutcome::Pass),
        ("x=1699999999", DkimOutcome::Fail),
        ("t=1800000000; x=1800000001", DkimOutcome::Pass),
        ("t=1800000000; x=1800000000", DkimOutcome::Fail),
    ] {
        let message = signed(&format!("{TAGS}; {tags}"), FIELDS, BODY);
        let result = verify(&message, &[&key("")]);
        let reason = (outcome == DkimOutcome::Fail).then_some(DkimReason::Expired);
        assert_eq!((result.outcome, result.reason), (outcome, reason), "{tags}");
    }
}

#[test]
fn another_body_hash_does_not_pass() {
    let other = super::signer::base64_hash(b"other");
    let message = signed_with_body_hash(&format!("{TAGS}; bh={other}"), FIELDS, BODY);
    assert_eq!(verify(&message, &[&key("")]).reason, Some(DkimReason::BodyHashMismatch));
}
