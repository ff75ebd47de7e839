//! Base64 and DKIM-Quoted-Printable of tag values (RFC 6376 §2.10, §2.11).

use std::sync::LazyLock;

use data_encoding::{BASE64_NOPAD, Encoding};

/// Without padding, which is removed before, and with any last bits: some signers leave them set.
static BASE64: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut specification = BASE64_NOPAD.specification();
    specification.check_trailing_bits = false;
    specification.encoding().ok()
});

const fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The octets of a base64 value. White space anywhere and missing padding are accepted.
pub(super) fn base64(value: &[u8]) -> Option<Vec<u8>> {
    let mut text: Vec<u8> = value.iter().copied().filter(|byte| !is_white_space(*byte)).collect();
    while text.last() == Some(&b'=') {
        text.pop();
    }
    BASE64.as_ref()?.decode(&text).ok()
}

/// The octets of a DKIM-Quoted-Printable value, white space removed.
pub(super) fn quoted_printable(value: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied().filter(|byte| !is_white_space(*byte));
    while let Some(byte) = bytes.next() {
        if byte == b'=' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            decoded.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}
