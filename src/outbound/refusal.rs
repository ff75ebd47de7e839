//! Refusals for the sending address or its authentication, which another family may escape.

use crate::smtp::EnhancedCode;

/// Whether a 4xx or 5xx reply (`550 5.7.1 text`, its lines joined by spaces) refuses the client's address or the lack of
/// authentication: X.7.25 to X.7.27 of RFC 7372 and RFC 7505, and X.7.1, which most servers use for it.
pub fn is_policy_refusal(reply: &str) -> bool {
    let Some((code, text)) = reply.split_at_checked(3) else { return false };
    let text = text.trim_start_matches(['-', ' ']);
    let is_refusal = code.starts_with(['4', '5']);
    let enhanced = EnhancedCode::parse(text.as_bytes());
    is_refusal
        && enhanced.is_some_and(|code| code.subject == 7 && matches!(code.detail, 1 | 25..=27))
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
}
