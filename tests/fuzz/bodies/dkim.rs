//! The DKIM verifier.

use gatepost::dkim::{DkimKey, DkimLimits, DkimOutcome, MessageVerifier, SignedMessage};

use super::unescaped;

/// Seconds of Unix time.
const NOW: u64 = 1_700_000_000;

/// A key record, a line end, and a message, with escapes.
pub(crate) fn dkim(input: &[u8]) {
    let newline = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (record, message) = input.split_at(newline);
    let message = unescaped(message.get(1..).unwrap_or_default());
    let _ = DkimKey::parse(record);
    let whole = read(&message, message.len().max(1));
    for size in [1, 2, 3, 7] {
        assert_eq!(read(&message, size), whole, "in chunks of {size}");
    }
    assert!(whole.authors.domains.len() <= whole.authors.mailboxes);
    for signature in &whole.signatures {
        let result = signature.verify(&[record.to_vec()], NOW);
        assert_eq!(result.reason.is_none(), result.outcome == DkimOutcome::Pass);
        assert!(result.reason.is_some() || signature.body_hash_matches());
        assert_eq!(signature.key_name().is_some(), signature.signature().is_ok());
    }
}

fn read(message: &[u8], size: usize) -> SignedMessage {
    let mut verifier = MessageVerifier::new(DkimLimits::default());
    message.chunks(size).for_each(|chunk| verifier.write(chunk));
    verifier.finish().expect("shorter than the limit")
}
