//! Replies of servers as they are kept: without local parts, control characters and excess.

/// Bytes of a reply that are kept.
const MAX_REPLY: usize = 600;
/// In place of a local part.
const MASK: u8 = b'*';
/// A shorter local part is not searched for without its `@`: it would be found in codes and addresses.
const MIN_LOCAL_PART: usize = 3;

/// The reply for an [`OutboundAttempt`](crate::outbound::OutboundAttempt). Local parts become `*`: those in front of an `@`, and `recipient`,
/// the local part of this delivery, wherever it is a word of its own behind the reply's codes.
pub(super) fn kept_reply(reply: &[u8], recipient: &[u8]) -> String {
    // A multiple, since masks are shorter than what they replace.
    let reply = reply.get(..4 * MAX_REPLY).unwrap_or(reply);
    let masked = mask_word(&mask_mailboxes(reply), recipient);
    let mut text = String::from_utf8_lossy(&masked).into_owned();
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, "?");
    }
    if text.len() > MAX_REPLY {
        let end = (0..=MAX_REPLY).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// A reply of [`kept_reply`] whose recipient became known only later.
pub(super) fn without_recipient(reply: &str, recipient: &[u8]) -> String {
    String::from_utf8_lossy(&mask_word(reply.as_bytes(), recipient)).into_owned()
}

/// Replaces each local part in front of an `@`.
fn mask_mailboxes(text: &[u8]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(text.len());
    let mut done = 0;
    for at in memchr::memchr_iter(b'@', text) {
        let local = text.get(done..at).unwrap_or_default();
        let start = done + local_part_start(local);
        if start < at {
            masked.extend_from_slice(text.get(done..start).unwrap_or_default());
            masked.push(MASK);
            done = at;
        }
    }
    masked.extend_from_slice(text.get(done..).unwrap_or_default());
    masked
}

/// Where the local part begins that `text` ends with.
fn local_part_start(text: &[u8]) -> usize {
    if let Some(quoted) = text.strip_suffix(b"\"")
        && let Some(open) = memchr::memrchr(b'"', quoted)
    {
        return open;
    }
    let is_delimiter = |byte: &u8| byte.is_ascii_whitespace() || b"<>()[],;:'\"".contains(byte);
    text.iter().rposition(is_delimiter).map_or(0, |delimiter| delimiter + 1)
}

/// Replaces `word`, in any case, where no letter or digit is beside it.
fn mask_word(text: &[u8], word: &[u8]) -> Vec<u8> {
    if word.len() < MIN_LOCAL_PART {
        return text.to_vec();
    }
    // The codes stay: `550 5.7.1 `.
    let is_code = |byte: &u8| byte.is_ascii_digit() || b".- ".contains(byte);
    let codes = text.iter().position(|byte| !is_code(byte)).unwrap_or(text.len());
    let (head, mut rest) = text.split_at_checked(codes).unwrap_or((text, &[]));
    let mut masked = head.to_vec();
    let is_edge = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    while let Some(first) = rest.first() {
        let is_word = rest.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word));
        if is_word && is_edge(masked.last()) && is_edge(rest.get(word.len())) {
            masked.push(MASK);
            rest = rest.get(word.len()..).unwrap_or_default();
        } else {
            masked.push(*first);
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_parts_are_not_kept() {
        for (reply, recipient, kept) in [
            (
                "550 5.1.1 <bob@b.example>: Recipient address rejected: User unknown",
                "bob",
                "550 5.1.1 <*@b.example>: Recipient address rejected: User unknown",
            ),
            (
                "550 5.1.1 no mailbox Bob here, bobby is",
                "bob",
                "550 5.1.1 no mailbox * here, bobby is",
            ),
            ("550-5.7.1 550 \"a b\"@c.example d", "550", "550-5.7.1 550 *@c.example d"),
            ("550 5.7.1 @ a@ @b", "", "550 5.7.1 @ *@ @b"),
            ("550 a\u{0}b\u{1b}[31m", "", "550 a?b?[31m"),
        ] {
            assert_eq!(kept_reply(reply.as_bytes(), recipient.as_bytes()), kept);
        }
        assert_eq!(kept_reply(b"550 \xff", b""), "550 \u{fffd}");
        assert!(kept_reply("ä".repeat(9000).as_bytes(), b"").len() <= MAX_REPLY);
    }
}
