//! Makes hostile text safe to print: it cannot break a line, end a field, hide characters or grow without bound.
//!
//! Input is client data with invalid UTF-8 replaced. Escapes are `\\` for a backslash, `\xNN` for ASCII and `\u{…}` for other
//! characters. A truncated value ends in `…`; an ellipsis in the input is escaped.

use std::fmt::Write as _;
use std::io;

use serde_json::ser::Formatter;

use super::columns;

/// Bytes of [`printable`]'s result.
const MAX_PRINTABLE: usize = 4096;

/// The context of escaped text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EscapeContext {
    /// A value without quotes, or within `<>`: also escapes white space, quotes, angle brackets and commas.
    Word,
    /// A value in double quotes.
    Quoted,
    /// The rest of a line.
    Sentence,
    /// The rest of a line, unambiguous: a backslash is escaped too.
    Verbatim,
}

/// Appends `value`, truncated to about `limit` bytes after escaping.
pub(super) fn push(out: &mut String, value: &str, context: EscapeContext, limit: usize) {
    let end = out.len() + limit;
    for c in value.chars() {
        let before = out.len();
        push_char(out, c, context);
        if out.len() > end {
            out.truncate(before);
            out.push('…');
            return;
        }
    }
}

/// `value` as one line, truncated to 4096 bytes.
pub fn printable(value: &str) -> String {
    let mut out = String::new();
    push(&mut out, value, EscapeContext::Sentence, MAX_PRINTABLE);
    out
}

/// `value` in at most `columns` terminal columns; never truncated within an escape.
pub(super) fn fitted(value: &str, context: EscapeContext, columns: usize) -> String {
    let mut out = String::new();
    let mut width = 0;
    // The longest prefix that leaves a column for `…`.
    let mut cut = 0;
    for c in value.chars() {
        let before = out.len();
        push_char(&mut out, c, context);
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

/// A file name in at most `columns` columns. Leading folders are dropped first: the files of a replay differ at the end.
pub(super) fn path_in_columns(path: &str, columns: usize) -> String {
    let context = EscapeContext::Sentence;
    let mut rest = path;
    let mut shown = fitted(path, context, usize::MAX);
    while columns::width(&shown) > columns {
        let Some((_, shorter)) = rest.split_once('/') else {
            return fitted(rest, context, columns);
        };
        rest = shorter;
        shown = format!("…/{}", fitted(rest, context, usize::MAX));
    }
    shown
}

/// `bytes` with invalid UTF-8 as `\xNN`, and the number of bytes read, about `limit` at most.
pub(super) fn verbatim(bytes: &[u8], limit: usize) -> (String, usize) {
    let mut end = bytes.len().min(limit);
    // Does not split a UTF-8 character, but stops after three continuation bytes.
    while end + 3 > limit && end < bytes.len() && bytes.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
        end -= 1;
    }
    let mut out = String::new();
    for chunk in bytes.get(..end).unwrap_or_default().utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_char(&mut out, c, EscapeContext::Verbatim));
        for b in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    (out, end)
}

fn push_char(out: &mut String, c: char, context: EscapeContext) {
    let structural = match context {
        EscapeContext::Word => matches!(c, '"' | '<' | '>' | ',') || c.is_whitespace(),
        EscapeContext::Quoted => c == '"',
        EscapeContext::Sentence | EscapeContext::Verbatim => false,
    };
    // Writing to a string cannot fail.
    let _ = match c {
        '\\' if context != EscapeContext::Sentence => out.write_str("\\\\"),
        _ if !structural && !misleading(c) && c != '…' => out.write_char(c),
        _ if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
        _ => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// Control characters, line separators, invisible characters and direction overrides: a terminal displays something other
/// than the text.
fn misleading(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// JSON with misleading characters escaped: serde_json escapes U+0000 to U+001F only.
pub(super) struct VisibleJson;

impl Formatter for VisibleJson {
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

    fn escaped(value: &str, context: EscapeContext, limit: usize) -> String {
        let mut out = String::new();
        push(&mut out, value, context, limit);
        out
    }

    #[test]
    fn escapes_by_context() {
        let hostile = "a b\"c\\d<e>,\r\n\u{7f}\u{85}\u{202e}\u{a0}é…=";
        assert_eq!(
            escaped(hostile, EscapeContext::Word, 1000),
            "a\\x20b\\x22c\\\\d\\x3ce\\x3e\\x2c\\x0d\\x0a\\x7f\\u{85}\\u{202e}\\u{a0}é\\u{2026}="
        );
        assert_eq!(
            escaped(hostile, EscapeContext::Quoted, 1000),
            "a b\\x22c\\\\d<e>,\\x0d\\x0a\\x7f\\u{85}\\u{202e}\u{a0}é\\u{2026}="
        );
        assert_eq!(
            escaped(hostile, EscapeContext::Sentence, 1000),
            "a b\"c\\d<e>,\\x0d\\x0a\\x7f\\u{85}\\u{202e}\u{a0}é\\u{2026}="
        );
    }

    #[test]
    fn truncation_is_between_escapes_and_visible() {
        assert_eq!(escaped("abcdef", EscapeContext::Word, 6), "abcdef");
        assert_eq!(escaped("abcdefg", EscapeContext::Word, 6), "abcdef…");
        assert_eq!(escaped("abcd\nx", EscapeContext::Word, 6), "abcd…");
        assert_eq!(escaped("aéééé", EscapeContext::Word, 6), "aéé…");
    }

    #[test]
    fn fitted_into_columns() {
        let word = |value, columns| fitted(value, EscapeContext::Word, columns);
        assert_eq!(word("abcdef", 6), "abcdef");
        assert_eq!(word("abcdefg", 6), "abcde…");
        assert_eq!(word("abcd\nx", 6), "abcd…");
        assert_eq!(word("ééééééé", 6), "ééééé…");
        assert_eq!(word("漢漢漢漢", 6), "漢漢…", "two columns each");
        assert_eq!(word("abc", 1), "…");
        assert_eq!(word("abc", 0), "");
    }

    #[test]
    fn paths_lose_leading_folders() {
        let path = |path: &str| path_in_columns(path, 60);
        let long = format!("/captures/{}/smtp-rset/input.pcap", "folder".repeat(8));
        assert_eq!(path(&long), "…/smtp-rset/input.pcap");
        assert_eq!(path("a/input.pcap"), "a/input.pcap");
        let one = path(&format!("a/{}.pcap", "x".repeat(80)));
        assert!(one.starts_with("xxx") && one.ends_with('…'), "{one}");
        assert!(columns::width(&one) <= 60, "{one}");
        let hostile = path(&"\u{202e}/\n".repeat(40));
        assert!(hostile.starts_with("…/") && columns::width(&hostile) <= 60, "{hostile}");
    }

    #[test]
    fn verbatim_bytes_differ_from_escapes() {
        assert_eq!(verbatim(b"250 \\xe9 \xe9 \xc3\xa9", 100).0, "250 \\\\xe9 \\xe9 é");
        assert_eq!(verbatim("aéé".as_bytes(), 4), ("aé".to_owned(), 3));
        assert_eq!(verbatim(&[0x80; 9], 4).0.len(), 4 * verbatim(&[0x80; 9], 4).1);
    }
}
