//! A table for `smtp_delivery_status_filter`, which turns refusals for reasons of IPv6 policy from bounces into retries.
//!
//! Postfix looks up one line for each recipient: the enhanced status code, a space, and a text that begins with its own words,
//! `host mx.example[2001:db8::1] said: 550 5.7.1 …` (smtp_trouble.c, postconf(5)). A rule matches from the start of the line,
//! so no server can write a text that looks like another's.

use std::fmt::Write as _;

use crate::outbound::{OTHER_TEXTS, POLICY_DETAILS, POLICY_TEXTS};

const HEAD: &str = "\
# Postfix regexp_table(5) for smtp_delivery_status_filter, written by `gatepost postfix dsn-filter`.
#
# A permanent refusal of this host's IPv6 address or of its authentication, received over IPv6, becomes a temporary one, so that
# Postfix tries again, also over IPv4, instead of returning the message. Everything received over IPv4 stays as it is, and over
# IPv6 everything else, such as an unknown recipient.
";

/// The table, as text.
pub fn dsn_filter() -> String {
    let mut out = HEAD.to_owned();
    let details: Vec<String> = POLICY_DETAILS.iter().map(u16::to_string).collect();
    // A host name, or an address that mail is routed to, and the IPv6 address that Postfix connected to.
    let lines = [
        r"if /^5[.][0-9]+[.][0-9]+ host [^][ ]+\[[0-9a-f]*:[0-9a-f:.]*\] (said|refused to talk to me): 5/".to_owned(),
        format!("if !/{}/", any_of(&OTHER_TEXTS)),
        format!("/^5([.]7[.]({}) .*)$/ 4$1", details.join("|")),
        "if /^5[.](0[.]0|7[.][0-9]+) /".to_owned(),
        format!("/^5([.][0-9]+[.][0-9]+ .*({}).*)$/ 4$1", any_of(&POLICY_TEXTS)),
        "endif".to_owned(),
        "endif".to_owned(),
        "endif".to_owned(),
    ];
    for line in lines {
        let _infallible = writeln!(out, "{line}");
    }
    out
}

/// An extended regular expression that matches any of these texts.
fn any_of(texts: &[&str]) -> String {
    texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join("|")
}

fn literal(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if !letter.is_ascii_alphanumeric() && letter != ' ' {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        insta::assert_snapshot!(dsn_filter());
    }

    #[test]
    fn special_characters_are_literal() {
        assert_eq!(literal("a.b (c) d/e"), r"a\.b \(c\) d\/e");
    }
}
