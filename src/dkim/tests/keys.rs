//! Key records (RFC 6376 §3.6.1, §6.1.2).

use super::signer::{BODY, FIELDS, TAGS, key, signed};
use super::verify;
use crate::dkim::{DkimOutcome, DkimReason, DkimResult};

/// An RSA key of 512 bits.
const SHORT: &str = "p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALRiMLAhI3cMbqJQ0P6xAZYzHjNuW6VbTs8Fqb6WzQ1MvAnPmQzGaDp0Xr8TQq1Zp0o\
                     9Xm3Zl1cP9T0bQyLqZ4kCAwEAAQ==";

fn result(tags: &str, records: &[&str]) -> DkimResult {
    verify(&signed(tags, FIELDS, BODY), records)
}

#[test]
fn key_records_decide() {
    let below = format!("{TAGS}; i=@b.a.example");
    use DkimReason::*;
    for (tags, record, reason) in [
        (TAGS, key(""), None),
        (TAGS, key("v=DKIM1; "), None),
        (TAGS, key("v=DKIM1;; "), None),
        (TAGS, key("h=sha1:sha256; "), None),
        (TAGS, key("s=email; "), None),
        (TAGS, key("s=x:*; "), None),
        (TAGS, key("t=s; n=note; "), None),
        (
            TAGS,
            key("t=s:unknown; ").replace("p=", "p=\t ").replace('=', " = ").replace(" = ;", ";"),
            None,
        ),
        (TAGS, key("").trim_end_matches('=').to_owned(), None),
        (&below, key(""), None),
        (&below, key("t=y:s; "), Some(IdentityNotAllowed)),
        (TAGS, key("h=sha1; "), Some(HashNotAllowed)),
        (TAGS, key("h=; "), Some(HashNotAllowed)),
        (TAGS, key("s=tlsrpt; "), Some(NotForEmail)),
        (TAGS, key("v=DKIM2; "), Some(NoKey)),
        (TAGS, key("v=; "), Some(NoKey)),
        (TAGS, "v=spf1 -all".to_owned(), Some(NoKey)),
        (TAGS, "k=ed25519; p=".to_owned(), Some(KeyRevoked)),
        (TAGS, "p=;".to_owned(), Some(KeyRevoked)),
        (TAGS, "v=DKIM1; k=ed25519".to_owned(), Some(MalformedKey)),
        (TAGS, "some text".to_owned(), Some(MalformedKey)),
        (TAGS, key("k=ed25519; "), Some(MalformedKey)),
        (TAGS, "k=ed25519; p=YQ==".to_owned(), Some(MalformedKey)),
        (TAGS, "k=ed25519; p=*".to_owned(), Some(MalformedKey)),
        (TAGS, "p=YQ==".to_owned(), Some(MalformedKey)),
        (TAGS, String::new(), Some(MalformedKey)),
        (TAGS, key("").replace("ed25519", "x25519"), Some(UnsupportedKey)),
        (TAGS, SHORT.to_owned(), Some(KeyTypeMismatch)),
        (TAGS, key("").replace("p=", "p=A"), Some(MalformedKey)),
        (TAGS, format!("k=ed25519; p={}=", "A".repeat(43)), Some(SignatureMismatch)),
    ] {
        let result = result(tags, &[&record]);
        assert_eq!(result.reason, reason, "{record}");
        let outcome = reason.map_or(DkimOutcome::Pass, DkimReason::outcome);
        assert_eq!(result.outcome, outcome, "{record}");
    }
}

#[test]
fn without_a_record_there_is_no_key() {
    let result = result(TAGS, &[]);
    assert_eq!((result.outcome, result.reason), (DkimOutcome::Permerror, Some(DkimReason::NoKey)));
}

#[test]
fn short_rsa_keys_are_not_accepted() {
    let tags = TAGS.replace("ed25519", "rsa");
    assert_eq!(result(&tags, &[SHORT]).reason, Some(DkimReason::ShortKey));
    assert_eq!(result(&tags, &[SHORT]).outcome, DkimOutcome::Policy);
}

/// A failure under a key in test mode is as no signature; a signature that matches passes.
#[test]
fn test_mode_excuses_failures() {
    let message = signed(TAGS, FIELDS, BODY);
    let changed = [message.as_slice(), b"PS\r\n"].concat();
    let result = verify(&changed, &[&key("t=s:y; ")]);
    let expected = DkimResult {
        outcome: DkimOutcome::Neutral,
        reason: Some(DkimReason::BodyHashMismatch),
        is_testing: true,
    };
    assert_eq!(result, expected);
    let result = verify(&message, &[&key("t=y; ")]);
    assert_eq!((result.outcome, result.is_testing), (DkimOutcome::Pass, true));
}

/// RFC 6376 §3.6.2.2 leaves it undefined: a record that makes the signature valid is enough, among the first four.
#[test]
fn several_records_are_tried() {
    let good = key("");
    let wrong = format!("k=ed25519; p={}=", "A".repeat(43));
    let spf = "v=spf1 -all";
    for (records, reason) in [
        (&[spf, &good][..], None),
        (&[&wrong, &good], None),
        (&["junk", spf, &wrong, &good], None),
        (&["junk", spf, &wrong, spf, &good], Some(DkimReason::SignatureMismatch)),
        (&["junk", &wrong, spf], Some(DkimReason::SignatureMismatch)),
        (&[&wrong, "p="], Some(DkimReason::SignatureMismatch)),
        (&[spf, "junk"], Some(DkimReason::MalformedKey)),
        (&[spf, spf], Some(DkimReason::NoKey)),
    ] {
        assert_eq!(result(TAGS, records).reason, reason, "{records:?}");
    }
}
