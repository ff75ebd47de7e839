//! Whether the exchanges match the policy, and pass the verification that it demands (RFC 8461 §4.1, §4.2).

use std::net::IpAddr;

use super::policy::{MxPattern, PolicyMode, StsPolicy};
use crate::policy::facts::DomainName;
use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::known::KnownAnswers;
use crate::readiness::mx::MxHost;
use crate::readiness::survey::{
    CertificateTrust, ConnectResult, Survey, SurveyReply, SurveyResult, TlsAttempt,
};

/// `about` names the policy.
pub(super) fn check(
    about: &str,
    policy: &StsPolicy,
    hosts: &[MxHost],
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    if policy.mode == PolicyMode::None {
        return;
    }
    let check = CheckName::MtaStsMx;
    for host in hosts {
        if let Some(pattern) = policy.patterns.iter().find(|one| one.matches(&host.name)) {
            findings.pass(check, &host.name, format!("matches mx: {} of {about}", pattern.text));
            if policy.mode == PolicyMode::Enforce {
                check_servers(host, known, findings);
            }
            continue;
        }
        let seen = format!("matches no mx of the policy of {about}");
        let advice =
            format!("Add \"mx: {}\" to the policy, and change the id of the record.", host.name);
        if policy.mode == PolicyMode::Enforce {
            let seen =
                format!("{seen}: senders that enforce it refuse to deliver to this exchange");
            findings.fail(check, &host.name, seen, advice);
        } else {
            findings.warn(check, &host.name, format!("{seen}, which is in mode testing"), advice);
        }
    }
    let is_unused = |pattern: &&MxPattern| !hosts.iter().any(|host| pattern.matches(&host.name));
    for pattern in policy.patterns.iter().filter(is_unused) {
        let seen = format!("mx: {} matches no exchange", pattern.text);
        let advice = "Remove it, or correct it, unless such an exchange is about to come.";
        findings.warn(check, about, seen, advice);
    }
}

/// The servers of an exchange whose certificates senders must verify.
fn check_servers(host: &MxHost, known: &KnownAnswers, findings: &mut FindingList) {
    let check = CheckName::MtaStsServer;
    let mut verified = 0;
    for ip in &host.addresses {
        let Some(survey) = known.survey(*ip, &host.name) else { return };
        match refusal(survey) {
            None if is_verified(survey) => verified += 1,
            None => {}
            Some(why) => fail(&host.name, *ip, &why, findings),
        }
    }
    if verified > 0 && verified == host.addresses.len() {
        let seen = match verified {
            1 => "the certificate of its address is valid".to_owned(),
            _ => format!("the certificates of its {verified} addresses are valid"),
        };
        findings.pass(check, &host.name, seen);
    }
}

fn fail(exchange: &DomainName, ip: IpAddr, why: &str, findings: &mut FindingList) {
    let seen =
        format!("{why}: senders that enforce the policy refuse to deliver to {exchange} there");
    let advice = format!(
        "Let the server offer STARTTLS with a certificate of a public authority for {exchange}; until then write mode: testing \
         into the policy, and change the id of the record."
    );
    findings.fail(CheckName::MtaStsServer, format!("{exchange} {ip}"), seen, advice);
}

/// Why senders do not deliver; `None` if they do, or if the survey did not get so far.
fn refusal(survey: &Survey) -> Option<String> {
    let ehlo = survey.ehlo.reply().filter(|reply| reply.is_positive())?;
    if !ehlo.offers("STARTTLS") {
        return Some("no STARTTLS".to_owned());
    }
    let tls = survey.tls.as_ref()?;
    match &tls.handshake {
        TlsAttempt::Established(facts) => match &facts.trust {
            CertificateTrust::Distrusted(why) => Some(format!("the certificate is {why}")),
            CertificateTrust::Trusted | CertificateTrust::Unknown => None,
        },
        TlsAttempt::OutOfTime => None,
        // 454: perhaps TLS comes about later.
        TlsAttempt::NotReached => match &tls.reply {
            SurveyResult::Received(SurveyReply { code: 400..=499, .. })
            | SurveyResult::OutOfTime(_) => None,
            _ => Some("STARTTLS is offered, and does not begin".to_owned()),
        },
        TlsAttempt::TimedOut(_) | TlsAttempt::Closed | TlsAttempt::Failed(_) => {
            Some("the TLS handshake fails".to_owned())
        }
    }
}

fn is_verified(survey: &Survey) -> bool {
    matches!(survey.reached, ConnectResult::Connected(_))
        && survey.established().is_some_and(|facts| facts.trust == CertificateTrust::Trusted)
}
