//! Header fields (RFC 6376 §3.4.1, §3.4.2).

use memchr::memchr;

use super::Canonicalization;
use crate::dkim::header_section::HeaderField;

/// Writes a field, without its last CRLF: that of a signature itself is not hashed.
pub(in crate::dkim) fn write_field(
    canonicalization: Canonicalization,
    field: HeaderField<'_>,
    emit: &mut impl FnMut(&[u8]),
) {
    match canonicalization {
        Canonicalization::Simple => {
            emit(field.name);
            emit(field.before_colon);
            emit(b":");
            lines(field.value, |line, is_last| {
                emit(line);
                if !is_last {
                    emit(b"\r\n");
                }
            });
        }
        Canonicalization::Relaxed => {
            emit(&field.name.to_ascii_lowercase());
            emit(b":");
            let mut has_text = false;
            let mut space = false;
            lines(field.value, |line, _is_last| {
                for word in line.split_inclusive(|byte| is_wsp(*byte)) {
                    let (text, is_ended) = match word.split_last() {
                        Some((last, text)) if is_wsp(*last) => (text, true),
                        _ => (word, false),
                    };
                    if !text.is_empty() {
                        if space && has_text {
                            emit(b" ");
                        }
                        emit(text);
                        (has_text, space) = (true, false);
                    }
                    space |= is_ended;
                }
            });
        }
    }
}

const fn is_wsp(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The lines of a folded value without their ends. A line end at the end of the value ends its last line.
fn lines(value: &[u8], mut each: impl FnMut(&[u8], bool)) {
    let mut rest = value;
    while let Some(at) = memchr(b'\n', rest) {
        let (line, after) = rest.split_at_checked(at + 1).unwrap_or((rest, b""));
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let is_last = after.is_empty();
        each(line.strip_suffix(b"\r").unwrap_or(line), is_last);
        rest = after;
        if is_last {
            return;
        }
    }
    each(rest, true);
}
