//! A shared key, and HMAC-SHA256 with it (RFC 2104, RFC 4231).
//!
//! Layer 0. Whoever signs names the purpose first, so that a signature for one purpose is none for another.

use std::fmt::{self, Write as _};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// 256 bits that only two hosts have.
#[derive(Clone)]
pub struct HmacKey(Hmac<Sha256>);

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey")
    }
}

impl HmacKey {
    const BYTES: usize = 32;

    /// Parses 64 hexadecimal digits; surrounding white space is ignored.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes = from_hex(text.trim_ascii()).filter(|bytes| bytes.len() == Self::BYTES)?;
        Hmac::new_from_slice(&bytes).ok().map(Self)
    }

    /// The signature of `bytes` for `purpose`, in hexadecimal digits.
    pub fn sign(&self, purpose: &[u8], bytes: &[u8]) -> String {
        hex(&self.mac(purpose, bytes).finalize().into_bytes())
    }

    /// Whether `signature`, in hexadecimal digits, is valid; compares in constant time.
    pub fn verify(&self, purpose: &[u8], bytes: &[u8], signature: &str) -> bool {
        from_hex(signature.as_bytes())
            .is_some_and(|signature| self.mac(purpose, bytes).verify_slice(&signature).is_ok())
    }

    /// As [`Self::verify`], with the first half of the signature: 128 bits (RFC 2104 §5).
    pub fn verify_half(&self, purpose: &[u8], bytes: &[u8], signature: &str) -> bool {
        from_hex(signature.as_bytes()).is_some_and(|signature| {
            signature.len() == Self::BYTES / 2
                && self.mac(purpose, bytes).verify_truncated_left(&signature).is_ok()
        })
    }

    fn mac(&self, purpose: &[u8], bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(purpose);
        mac.update(bytes);
        mac
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// Accepts upper and lower case.
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231 §4.2 has a key of 20 bytes; this one has ours, by `openssl dgst -sha256 -mac HMAC`.
    const SIGNATURE: &str = "b2a5f14ddb4c0f81ae8c5b47d689a4d282347581d559a1e9569e17b5bacd9558";
    const PURPOSE: &[u8] = b"gatepost vantage 1 question\n";

    #[test]
    fn the_signature_covers_purpose_and_bytes() {
        let key = HmacKey::parse("0b".repeat(32).as_bytes()).unwrap();
        assert_eq!(key.sign(PURPOSE, b"Hi There"), SIGNATURE);
        assert!(key.verify(PURPOSE, b"Hi There", SIGNATURE));
        assert!(!key.verify(b"gatepost vantage 1 report\n", b"Hi There", SIGNATURE));
        assert!(!key.verify(PURPOSE, b"Hi there", SIGNATURE));
        let (half, _) = SIGNATURE.split_at(32);
        assert!(key.verify_half(PURPOSE, b"Hi There", half));
        for wrong in [SIGNATURE, "", "b2", &half[2..], "b2a5f14ddb4c0f81ae8c5b47d689a4d3"] {
            assert!(!key.verify_half(PURPOSE, b"Hi There", wrong), "{wrong}");
        }
    }

    #[test]
    fn a_key_has_64_digits() {
        assert!(HmacKey::parse(format!(" {}\n", "Ab".repeat(32)).as_bytes()).is_some());
        for wrong in ["", "0b", &"0b".repeat(31), &"0b".repeat(33), &"xy".repeat(32)] {
            assert!(HmacKey::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
