//! Refusals for the sending address or its authentication, which another family may escape.
//!
//! One table: [`is_policy_refusal`] evaluates it on a reply, and `postfix::dsn_filter` writes it as a table of Postfix.

use crate::smtp::EnhancedCode;

/// The details of X.7.detail that mean such a refusal, whatever the text: 1, which most servers use for it; 23, 25 and 26 of
/// RFC 7372 (SPF, reverse DNS, several checks); 27, by which Google means SPF.
pub const POLICY_DETAILS: [u16; 5] = [1, 23, 25, 26, 27];

/// Parts of the texts of large receivers, in lower case, that mean it with another X.7.detail, or without a code.
pub const POLICY_TEXTS: [&str; 20] = [
    "ptr record",
    "ptr resource record",
    "reverse dns",
    "rdns",
    "reverse hostname",
    "cannot find your hostname",
    "no reverse name",
    "ip name lookup failed",
    "does not meet ipv6 sending guidelines",
    "sent over ipv6",
    "sending ipv6 address",
    "blocked using",
    "block listed",
    "black listed",
    "blacklisted",
    "blocklisted",
    "dnsbl",
    "spamhaus",
    "banned sending ip",
    "traffic not accepted from this ip",
];

/// Parts of texts, in lower case, that have another reason, whatever the code.
pub const OTHER_TEXTS: [&str; 10] = [
    "user unknown",
    "unknown user",
    "no such user",
    "relay access denied",
    "relaying denied",
    "relay not permitted",
    "relaying not allowed",
    "unable to relay",
    "not permitted to relay",
    "we do not relay",
];

/// Whether a 4xx or 5xx reply (`550 5.7.1 text`, its lines joined by spaces) refuses the client's address or the lack of
/// authentication.
pub fn is_policy_refusal(reply: &str) -> bool {
    let Some((code, text)) = reply.split_at_checked(3) else { return false };
    let text = text.trim_start_matches(['-', ' ']);
    let has = |parts: &[&str]| {
        let text = text.to_ascii_lowercase();
        parts.iter().any(|part| text.contains(part))
    };
    if !code.starts_with(['4', '5']) || has(&OTHER_TEXTS) {
        return false;
    }
    match EnhancedCode::parse(text.as_bytes()) {
        Some(EnhancedCode { subject: 7, detail, .. }) if POLICY_DETAILS.contains(&detail) => true,
        // Without a code Postfix writes X.0.0.
        None
        | Some(EnhancedCode { subject: 7, .. } | EnhancedCode { subject: 0, detail: 0, .. }) => {
            has(&POLICY_TEXTS)
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_sending_address_are_policy() {
        assert!(is_policy_refusal("550-5.7.1 [2001:db8::1] Our system 550 5.7.1 has detected"));
        assert!(is_policy_refusal("450 4.7.25 no PTR record"));
        assert!(is_policy_refusal("550 5.7.26 unauthenticated"));
        assert!(!is_policy_refusal("550 5.1.1 unknown"));
        assert!(!is_policy_refusal("550 5.7.0 authentication required"));
        assert!(!is_policy_refusal("250 2.7.1 fine"));
        assert!(!is_policy_refusal("55"));
    }

    #[test]
    fn the_text_decides_where_the_code_does_not() {
        assert!(is_policy_refusal("554 IMTA20: 2001:db8::1 All servers must have a PTR record"));
        assert!(is_policy_refusal("550 5.7.606 Access denied, banned sending IP [2001:db8::1]"));
        assert!(!is_policy_refusal("550 5.1.1 no mailbox for reverse DNS"));
        assert!(!is_policy_refusal("550 mailbox unavailable"));
        assert!(!is_policy_refusal("554 5.7.1 <a@b.example>: Relay access denied"));
        assert!(!is_policy_refusal("550 5.7.1 <a@b.example>... User Unknown"));
    }
}
