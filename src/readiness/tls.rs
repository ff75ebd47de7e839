//! TLS after STARTTLS (RFC 3207), and the certificate, as senders that verify it see it (RFC 7817, RFC 8461).

use std::time::Duration;

use super::finding::{CheckName, FindingList};
use super::survey::{
    CertificateTrust, ServerTls, SurveyReply, SurveyResult, TlsAttempt, TlsSurvey,
};
use crate::humanize::duration;
use crate::policy::facts::DomainName;

/// Certificates are renewed earlier than this before their end.
const SOON: Duration = Duration::from_secs(14 * 86_400);

pub(super) fn check(
    about: &str,
    exchange: &DomainName,
    survey: &TlsSurvey,
    findings: &mut FindingList,
) {
    let check = CheckName::SmtpTls;
    let advice = "Find the reason in the server's log: a certificate or key that cannot be read, or a filter that breaks TLS. \
                  Senders then send in plaintext, or keep the mail.";
    let facts = match &survey.handshake {
        TlsAttempt::Established(facts) => facts,
        TlsAttempt::NotReached => {
            let (seen, is_temporary) = match &survey.reply {
                SurveyResult::Received(reply) => {
                    let line = reply.lines.first().map(String::as_str).unwrap_or_default();
                    (
                        format!("STARTTLS is offered, and answered with {} {line}", reply.code),
                        reply.code / 100 == 4,
                    )
                }
                SurveyResult::TimedOut(after) => (
                    format!("STARTTLS is offered, and not answered in {}", duration(*after)),
                    false,
                ),
                SurveyResult::OutOfTime(_) => ("not tested: out of time".to_owned(), true),
                SurveyResult::Closed | SurveyResult::NotSmtp | SurveyResult::NotRequested => {
                    ("STARTTLS is offered, and the connection closed".to_owned(), false)
                }
            };
            // 454: TLS not available due to temporary reason (RFC 3207 §4). Postfix sends it when its key cannot be read.
            let again = "Run this again later; if it stays, find the reason in the server's log.";
            match is_temporary {
                true => findings.unknown(check, about, seen, again),
                false => drop(findings.fail(check, about, seen, advice)),
            }
            return;
        }
        TlsAttempt::OutOfTime => {
            let again = "Run this again with a longer --timeout, or find out what is slow here.";
            findings.unknown(check, about, "not tested: out of time", again);
            return;
        }
        TlsAttempt::TimedOut(after) => {
            let seen = format!("no answer to the TLS handshake in {}", duration(*after));
            findings.fail(check, about, seen, advice);
            return;
        }
        TlsAttempt::Closed => {
            findings.fail(
                check,
                about,
                "the server closes the connection in the TLS handshake",
                advice,
            );
            return;
        }
        TlsAttempt::Failed(why) => {
            findings.fail(check, about, format!("no TLS: {why}"), advice);
            return;
        }
    };
    if survey.ehlo.reply().is_some_and(SurveyReply::is_positive) {
        findings.pass(check, about, format!("{} after {}", facts.version, duration(facts.took)));
    } else {
        let seen = format!("{}, and then no positive reply to EHLO", facts.version);
        findings.fail(check, about, seen, advice);
    }
    check_certificate(about, exchange, facts, findings);
}

fn check_certificate(
    about: &str,
    exchange: &DomainName,
    facts: &ServerTls,
    findings: &mut FindingList,
) {
    let check = CheckName::SmtpCertificate;
    let until = facts.not_after.to_string();
    let day = until.get(..10).unwrap_or(&until);
    let names = facts.names.join(", ");
    match &facts.trust {
        CertificateTrust::Distrusted(why) => {
            let advice = format!(
                "Install a certificate of a public authority for {exchange}, with its chain: senders that verify it, by \
                 MTA-STS or by their own rule, keep the mail."
            );
            findings.warn(check, about, format!("certificate for {names}: {why}"), advice);
        }
        CertificateTrust::Unknown => {
            let advice = "Install the system's certificates here (Debian: ca-certificates), then run this again.";
            let seen =
                format!("certificate for {names} until {day}; this host trusts no authority");
            findings.unknown(check, about, seen, advice);
        }
        CertificateTrust::Trusted if facts.not_after.since(facts.at) < SOON => {
            let advice = "Renew it, and let the server read the new one: see whether the automatic renewal works.";
            findings.warn(
                check,
                about,
                format!("certificate for {names} ends soon, on {day}"),
                advice,
            );
        }
        CertificateTrust::Trusted => {
            findings.pass(check, about, format!("certificate for {names} until {day}"));
        }
    }
}
