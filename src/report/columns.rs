//! Terminal columns: tables with fixed columns, and wrapped text.

/// Maximum columns of a line.
pub(crate) const WIDTH: usize = 100;

/// Columns of `text`; an upper bound where terminals differ: two for every character of a script with wide characters.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match c {
        '…' | '→' => 1,
        '\u{1100}'.. => 2,
        _ => 1,
    }
}

/// One line of fixed columns with a space between them; longer texts are truncated.
pub(crate) fn cells<const N: usize>(texts: &[String; N], widths: [usize; N]) -> String {
    let mut line = String::new();
    for (text, width) in texts.iter().zip(widths) {
        push_cell(&mut line, text, width);
        line.push(' ');
    }
    line.pop();
    line
}

fn push_cell(line: &mut String, text: &str, columns: usize) {
    let length = width(text);
    if length <= columns {
        line.push_str(text);
        line.extend(std::iter::repeat_n(' ', columns - length));
        return;
    }
    let mut left = columns.saturating_sub(1);
    for c in text.chars() {
        match left.checked_sub(char_width(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        line.push(c);
    }
    line.push('…');
    line.extend(std::iter::repeat_n(' ', left));
}

/// `text` in lines of at most `columns`, wrapped at spaces; longer words are split. Control characters are dropped.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut length) = (String::new(), 0);
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_control()).collect();
        let needed = width(&word);
        if length > 0 && length + 1 + needed.min(columns) > columns {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for c in word.chars() {
            if length + char_width(c) > columns && length > 0 {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            line.push(c);
            length += char_width(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_fixed_columns() {
        let row = |a: &str, b: &str| cells(&[a.to_owned(), b.to_owned()], [4, 3]);
        assert_eq!(row("ab", "c"), "ab   c  ");
        assert_eq!(row("abcd", "abc"), "abcd abc");
        assert_eq!(row("abcde", "abcd"), "abc… ab…");
        assert_eq!(row("漢漢漢", "x"), "漢…  x  ");
    }

    #[test]
    fn lines_wrap_at_spaces() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("a abcdefgh", 4), ["a", "abcd", "efgh"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(wrapped("漢漢漢", 4), ["漢漢", "漢"]);
    }
}
