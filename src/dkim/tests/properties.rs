//! No input panics, and chunks make no difference.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::signer::{FIELDS, TAGS, key, signed};
use super::{NOW, read};
use crate::dkim::{DkimLimits, DkimOutcome, MessageVerifier};

/// Pieces that have a meaning, and others.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "\r\n\r\n",
        "\r\n ",
        ":",
        ";",
        "=",
        "a",
        "b",
        "From:",
        "DKIM-Signature:",
        "v=1;",
        "a=rsa-sha256;",
        "a=ed25519-sha256;",
        "b=YQ==;",
        "h=from:to;",
        "d=a.example;",
        "s=sel;",
        "l=5;",
        "c=relaxed/relaxed;",
        "bh=uaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=;",
        "<",
        ">",
        "@",
        ",",
        "\"",
        "(",
        ")",
        "\\",
        "=?",
        "?=",
        "[",
        "]",
        ".",
    ]);
    let piece = prop_oneof![4 => words.prop_map(|word| word.as_bytes().to_vec()), 1 => vec(any::<u8>(), 0..4)];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn chunks_make_no_difference(message in pieces(), sizes in vec(1..9_usize, 1..20)) {
        let whole = read(&message);
        let mut verifier = MessageVerifier::new(DkimLimits::default());
        let mut rest = message.as_slice();
        for size in sizes.iter().cycle() {
            let (chunk, after) = rest.split_at(rest.len().min(*size));
            verifier.write(chunk);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(verifier.finish().unwrap(), whole);
    }

    #[test]
    fn any_records_are_accepted(record in vec(any::<u8>(), 0..100)) {
        let message = read(&signed(TAGS, FIELDS, "x"));
        let outcome = message.signatures[0].verify(&[record], NOW).outcome;
        prop_assert_ne!(outcome, DkimOutcome::Pass);
    }

    /// A body passes as it was signed, with other trailing lines and white space, and not with other text.
    #[test]
    fn only_the_signed_text_passes(lines in vec("[a-c]{1,3}( [a-c]{1,3}){0,2}", 1..5), blanks in 0..3_usize) {
        let body = lines.join("\r\n");
        let message = signed(TAGS, FIELDS, &body);
        let head = message.len() - body.len();
        let key = [key("").into_bytes()];
        let with = |body: &str| {
            let message = [&message[..head], body.as_bytes()].concat();
            read(&message).signatures[0].verify(&key, NOW).outcome
        };
        prop_assert_eq!(with(&body), DkimOutcome::Pass);
        let spaced = body.replace(' ', "\t ").replace("\r\n", " \r\n") + &" \r\n".repeat(blanks);
        prop_assert_eq!(with(&spaced), DkimOutcome::Pass);
        prop_assert_eq!(with(&body.replacen(['a', 'b', 'c'], "d", 1)), DkimOutcome::Fail);
        prop_assert_eq!(with(&format!("{body}\r\n\r\n.")), DkimOutcome::Fail);
    }
}
