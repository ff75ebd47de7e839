//! Making hostile text safe to print: it never breaks a line, ends a field, hides from the reader or grows without bound.
//!
//! What a client says arrives here as it came, apart from invalid UTF-8. Escapes are `\\` for a backslash, `\xNN` for
//! ASCII and `\u{…}` for the rest. A cut value ends in `…`; an ellipsis that was in the input is escaped.

use std::fmt::Write as _;
use std::io;

use serde_json::ser::Formatter;

use super::columns;

/// Octets of what [`printable`] shows.
const LONGEST: usize = 4096;

/// Where escaped text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A value without quotes, or within `<>`: also no white space, no quote, bracket or comma.
    Word,
    /// A value within double quotes.
    Quoted,
    /// The rest of a line.
    Sentence,
    /// The rest of a line, and each escape is one: a backslash is escaped too.
    Verbatim,
}

/// Appends `value`, at most about `limit` octets of it after escaping.
pub(super) fn push(out: &mut String, value: &str, place: Place, limit: usize) {
    let end = out.len() + limit;
    for c in value.chars() {
        let before = out.len();
        push_char(out, c, place);
        if out.len() > end {
            out.truncate(before);
            out.push('…');
            return;
        }
    }
}

/// `value` as it may stand in a line, cut where it is longer than any reply is.
pub fn printable(value: &str) -> String {
    let mut out = String::new();
    push(&mut out, value, Place::Sentence, LONGEST);
    out
}

/// `value` in at most `columns` columns of a terminal; a cut falls between two escapes.
pub(super) fn fitted(value: &str, place: Place, columns: usize) -> String {
    let mut out = String::new();
    let mut width = 0;
    // Where `…` still fits.
    let mut cut = 0;
    for c in value.chars() {
        let before = out.len();
        push_char(&mut out, c, place);
        width += columns::width(out.get(before..).unwrap_or_default());
        if width > columns {
            out.truncate(cut);
            if columns > 0 {
                out.push('…');
            }
            return out;
        }
        if width < columns {
            cut = out.len();
        }
    }
    out
}

/// `bytes` with what is no UTF-8 as `\xNN`. At most about `limit` octets of them are read; says how many.
pub(super) fn verbatim(bytes: &[u8], limit: usize) -> (String, usize) {
    let mut end = bytes.len().min(limit);
    // Not within a character, unless there is no character.
    while end + 3 > limit && end < bytes.len() && bytes.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
        end -= 1;
    }
    let mut out = String::new();
    for chunk in bytes.get(..end).unwrap_or_default().utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_char(&mut out, c, Place::Verbatim));
        for b in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    (out, end)
}

fn push_char(out: &mut String, c: char, place: Place) {
    let structural = match place {
        Place::Word => matches!(c, '"' | '<' | '>' | ',') || c.is_whitespace(),
        Place::Quoted => c == '"',
        Place::Sentence | Place::Verbatim => false,
    };
    // Writing to a string cannot fail.
    let _ = match c {
        '\\' if place != Place::Sentence => out.write_str("\\\\"),
        _ if !structural && !misleading(c) && c != '…' => out.write_char(c),
        _ if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
        _ => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// Control characters, line separators, and characters that are invisible or turn the direction of what follows: a
/// terminal shows something else than what is there.
fn misleading(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// JSON whose strings hold no misleading character as such: serde_json escapes U+0000 to U+001F only.
pub(super) struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| misleading(c)) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = from.get(c.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str, place: Place, limit: usize) -> String {
        let mut out = String::new();
        push(&mut out, value, place, limit);
        out
    }

    #[test]
    fn each_place_has_its_escapes() {
        let hostile = "a b\"c\\d<e>,\r\n\u{7f}\u{85}\u{202e}\u{a0}é…=";
        assert_eq!(
            escaped(hostile, Place::Word, 1000),
            "a\\x20b\\x22c\\\\d\\x3ce\\x3e\\x2c\\x0d\\x0a\\x7f\\u{85}\\u{202e}\\u{a0}é\\u{2026}="
        );
        assert_eq!(
            escaped(hostile, Place::Quoted, 1000),
            "a b\\x22c\\\\d<e>,\\x0d\\x0a\\x7f\\u{85}\\u{202e}\u{a0}é\\u{2026}="
        );
        assert_eq!(
            escaped(hostile, Place::Sentence, 1000),
            "a b\"c\\d<e>,\\x0d\\x0a\\x7f\\u{85}\\u{202e}\u{a0}é\\u{2026}="
        );
    }

    #[test]
    fn a_cut_falls_between_escapes_and_shows() {
        assert_eq!(escaped("abcdef", Place::Word, 6), "abcdef");
        assert_eq!(escaped("abcdefg", Place::Word, 6), "abcdef…");
        assert_eq!(escaped("abcd\nx", Place::Word, 6), "abcd…");
        assert_eq!(escaped("aéééé", Place::Word, 6), "aéé…");
    }

    #[test]
    fn fitted_into_columns() {
        let word = |value, columns| fitted(value, Place::Word, columns);
        assert_eq!(word("abcdef", 6), "abcdef");
        assert_eq!(word("abcdefg", 6), "abcde…");
        assert_eq!(word("abcd\nx", 6), "abcd…");
        assert_eq!(word("ééééééé", 6), "ééééé…");
        assert_eq!(word("漢漢漢漢", 6), "漢漢…", "two columns each");
        assert_eq!(word("abc", 1), "…");
        assert_eq!(word("abc", 0), "");
    }

    #[test]
    fn verbatim_octets_can_be_told_from_escapes() {
        assert_eq!(verbatim(b"250 \\xe9 \xe9 \xc3\xa9", 100).0, "250 \\\\xe9 \\xe9 é");
        assert_eq!(verbatim("aéé".as_bytes(), 4), ("aé".to_owned(), 3));
        assert_eq!(verbatim(&[0x80; 9], 4).0.len(), 4 * verbatim(&[0x80; 9], 4).1);
    }
}
