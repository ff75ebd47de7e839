//! Whether the SMTP client of Postfix encrypts, and whether it still delivers to servers that cannot.

use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::postconf::{CLIENT, Postfix};

const LEVEL: &str = "smtp_tls_security_level";
const DNS: &str = "smtp_dns_support_level";

pub(super) fn check(postfix: &Postfix, findings: &mut FindingList) {
    let check = CheckName::PostfixTls;
    let (level, is_override) = postfix.of(CLIENT, LEVEL);
    let place = if is_override { CLIENT } else { "main.cf" };
    let may = || vec![postfix.set(CLIENT, LEVEL, "may")];
    let is_set = |parameter: &str| postfix.of(CLIENT, parameter).0 == "yes";
    let mut seen = format!("{LEVEL} = {level}");
    // An empty level leaves the decision to parameters of Postfix 2.2.
    let level = match level.to_ascii_lowercase().as_str() {
        "" if is_set("smtp_enforce_tls") => {
            seen = "smtp_enforce_tls = yes".to_owned();
            "encrypt".to_owned()
        }
        "" if is_set("smtp_use_tls") => {
            seen = "smtp_use_tls = yes".to_owned();
            "may".to_owned()
        }
        "" => {
            seen = format!("{LEVEL} is empty");
            "none".to_owned()
        }
        level => level.to_owned(),
    };
    match level.as_str() {
        "none" => {
            let has_policies = !postfix.of(CLIENT, "smtp_tls_policy_maps").0.is_empty();
            let except = if has_policies { ", except by smtp_tls_policy_maps" } else { "" };
            let seen = format!("{seen}: outgoing mail is not encrypted{except}");
            let advice = "Encrypt where the server offers STARTTLS; large receivers mark other mail, or reject it.";
            findings.warn(check, place, seen, advice).commands = may();
        }
        "encrypt" | "dane-only" | "fingerprint" | "verify" | "secure"
            if postfix.main("relayhost").is_empty() =>
        {
            let seen = format!(
                "{seen}, for every destination: mail to servers without {} stays in the queue",
                needed(&level)
            );
            let advice = "Use may, or dane, as the default, and name destinations that must be encrypted in smtp_tls_policy_maps.";
            findings.warn(check, place, seen, advice).commands = may();
        }
        "dane" | "dane-only" if postfix.of(CLIENT, DNS).0 != "dnssec" => {
            let effect = match level.as_str() {
                "dane" => "TLSA records are not used, as with may",
                _ => "no mail is delivered",
            };
            let dns = postfix.of(CLIENT, DNS).0;
            let dns = if dns.is_empty() { "empty" } else { dns };
            let seen = format!("{seen}, but {DNS} is {dns}: {effect}");
            let advice = "Enable DNSSEC in the SMTP client. The first server in /etc/resolv.conf must be a validating \
                          resolver that this host can trust, such as one on loopback.";
            findings.warn(check, place, seen, advice).commands =
                vec![postfix.set(CLIENT, DNS, "dnssec")];
        }
        _ => findings.pass(check, place, seen),
    }
}

/// The condition under which a mandatory level delivers.
fn needed(level: &str) -> &'static str {
    match level {
        "encrypt" => "TLS",
        "dane-only" => "TLSA records",
        "fingerprint" => "a certificate that is listed here",
        _ => "a valid certificate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::postfix::tests::problems;

    #[test]
    fn mail_is_encrypted_where_the_server_can_and_delivered_where_it_cannot() {
        let may = "postconf -e 'smtp_tls_security_level = may'";
        let dnssec = "postconf -e 'smtp_dns_support_level = dnssec'";
        for (main, overrides, seen, command) in [
            ("smtp_tls_security_level =", "", "is empty: outgoing mail is not encrypted", may),
            ("", "", "is empty: outgoing mail is not encrypted", may),
            ("smtp_tls_security_level = none", "", "outgoing mail is not encrypted", may),
            (
                "smtp_tls_security_level =\nsmtp_tls_policy_maps = hash:/etc/postfix/tls",
                "",
                "except by smtp_tls_policy_maps",
                may,
            ),
            ("smtp_tls_security_level = may", "", "", ""),
            ("smtp_tls_security_level =\nsmtp_use_tls = yes", "", "", ""),
            (
                "smtp_tls_security_level =\nsmtp_enforce_tls = yes",
                "",
                "smtp_enforce_tls = yes, for every destination: mail to servers without TLS",
                may,
            ),
            ("smtp_tls_security_level = encrypt", "", "servers without TLS stays", may),
            ("smtp_tls_security_level = Secure", "", "without a valid certificate stays", may),
            ("smtp_tls_security_level = encrypt\nrelayhost = [relay.example]", "", "", ""),
            (
                "smtp_tls_security_level = dane\nsmtp_dns_support_level =",
                "",
                "smtp_dns_support_level is empty: TLSA records are not used",
                dnssec,
            ),
            (
                "smtp_tls_security_level = dane\nsmtp_dns_support_level = enabled",
                "",
                "is enabled:",
                dnssec,
            ),
            ("smtp_tls_security_level = dane\nsmtp_dns_support_level = dnssec", "", "", ""),
            (
                "smtp_tls_security_level = dane-only\nrelayhost = [relay.example]",
                "",
                "no mail is delivered",
                dnssec,
            ),
            (
                "smtp_tls_security_level = may",
                "smtp/unix/smtp_tls_security_level = none",
                "not encrypted",
                "postconf -P 'smtp/unix/smtp_tls_security_level=may'",
            ),
        ] {
            problems(main, overrides, check, seen, command);
        }
    }
}
