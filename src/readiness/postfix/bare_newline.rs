//! SMTP smuggling into Postfix: the end of a message that only Postfix takes for one (CVE-2023-51764).

use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::postconf::{MasterService, Postfix};

const PARAMETER: &str = "smtpd_forbid_bare_newline";
/// The first releases with the value `normalize` before 3.9, as minor number and patch level (postconf(5)). The parameter came
/// one patch level earlier.
const NORMALIZE_SINCE: [(u32, u32); 4] = [(5, 24), (6, 14), (7, 10), (8, 5)];

pub(super) fn check(postfix: &Postfix, findings: &mut FindingList) {
    let check = CheckName::PostfixBareNewline;
    let version = postfix.main("mail_version");
    if !postfix.services().any(is_server) {
        findings.pass(check, "master.cf", "no smtpd(8) receives mail");
        return;
    }
    // Distributions add the parameter to older versions, so postconf(1) decides.
    if !postfix.knows(PARAMETER) {
        let seen = format!(
            "Postfix {version} has no {PARAMETER}: SMTP smuggling is possible (CVE-2023-51764)"
        );
        let advice = "Update Postfix to 3.5.23, 3.6.13, 3.7.9, 3.8.4, 3.9 or later. Until then \
                      reject_unauth_pipelining in smtpd_data_restrictions stops the published attack.";
        findings.warn(check, "main.cf", seen, advice);
        return;
    }
    let proposed = if knows_normalize(version) { "normalize" } else { "yes" };
    for (place, value) in postfix.everywhere(PARAMETER) {
        let mut servers = postfix.services().filter(|one| is_server(one));
        let applies = servers.any(|one| {
            let key = one.key();
            let own = postfix.of(&key, PARAMETER).1;
            if own { key == place } else { place == "main.cf" }
        });
        if !applies {
            continue;
        }
        let seen = format!("{PARAMETER} = {value}");
        if value.eq_ignore_ascii_case("no") || value.is_empty() {
            let seen = format!("{seen}: SMTP smuggling is possible (CVE-2023-51764)");
            let advice = "Require the standard end of a message. Clients that need an exception go into \
                          smtpd_forbid_bare_newline_exclusions.";
            findings.warn(check, place, seen, advice).commands =
                vec![postfix.set(place, PARAMETER, proposed)];
        } else {
            findings.pass(check, place, seen);
        }
    }
}

fn is_server(service: &MasterService) -> bool {
    service.command == "smtpd"
}

/// `3.7.11`, `3.10-20240612`
fn knows_normalize(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    // A snapshot has a date in place of the patch level: 3.9 had the value from some day on.
    let is_snapshot = version.contains('-');
    let patch = numbers.next().flatten().filter(|_| !is_snapshot);
    match (major, patch) {
        (3, Some(patch)) if minor < 9 => {
            NORMALIZE_SINCE.iter().any(|(of, since)| *of == minor && patch >= *since)
        }
        (3, None) if minor <= 9 => false,
        _ => major > 3 || major == 3 && minor >= 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::postfix::tests::problems;

    #[test]
    fn the_value_that_prevents_smuggling_depends_on_the_version() {
        let normalize = "postconf -e 'smtpd_forbid_bare_newline = normalize'";
        let yes = "postconf -e 'smtpd_forbid_bare_newline = yes'";
        for (version, value, seen, command) in [
            ("3.9.0", "normalize", "", ""),
            ("3.9.0", "reject", "", ""),
            ("3.8.4", "yes", "", ""),
            ("3.9.0", "no", "= no: SMTP smuggling is possible (CVE-2023-51764)", normalize),
            ("3.10.2", "No", "smuggling", normalize),
            ("3.10-20240612", "no", "smuggling", normalize),
            ("3.9-20231210", "no", "smuggling", yes),
            ("4.0.0", "no", "smuggling", normalize),
            ("3.8.5", "no", "smuggling", normalize),
            ("3.8.4", "no", "smuggling", yes),
            ("3.7.11", "no", "smuggling", normalize),
            ("3.7.10", "no", "smuggling", normalize),
            ("3.7.9", "no", "smuggling", yes),
            ("3.6.14", "no", "smuggling", normalize),
            ("3.6.13", "no", "smuggling", yes),
            ("3.5.24", "no", "smuggling", normalize),
            ("3.5.23", "no", "smuggling", yes),
            // With the parameter from a distribution.
            ("3.4.13", "no", "smuggling", yes),
            ("", "no", "smuggling", yes),
        ] {
            let main = format!("mail_version = {version}\nsmtpd_forbid_bare_newline = {value}");
            problems(&main, "", check, seen, command);
        }
        problems("mail_version = 3.7.6", "", check, "Postfix 3.7.6 has no smtpd_forbid_bare", "");
    }

    #[test]
    fn each_server_has_its_own_value() {
        let key = "smtp/inet/smtpd_forbid_bare_newline";
        let main = |value| format!("mail_version = 3.9.0\nsmtpd_forbid_bare_newline = {value}");
        let command = format!("postconf -P '{key}=normalize'");
        problems(&main("yes"), &format!("{key} = no"), check, "= no: SMTP", &command);
        problems(&main("no"), &format!("{key} = reject"), check, "", "");
    }
}
