//! Findings about MAIL FROM:<> and RCPT TO:<postmaster>.

use std::net::IpAddr;
use std::time::Duration;

use super::{Zone, faults, good_survey, reply, request};
use crate::readiness::{CheckReport, CheckStatus, PostmasterSurvey, Survey, SurveyResult};

const V6: &str = "2001:db8::25";
const V4: &str = "192.0.2.25";
const OK: &str = "250 2.1.0 Ok";

/// MAIL and RCPT with these replies.
fn asked(mail: SurveyResult, recipient: SurveyResult) -> Survey {
    let from: Option<IpAddr> = "2001:db8::5".parse().ok();
    Survey { from, postmaster: Some(PostmasterSurvey { mail, recipient }), ..good_survey() }
}

fn recipient(text: &str) -> Survey {
    asked(reply(OK), reply(text))
}

fn mail(text: &str) -> Survey {
    asked(reply(text), SurveyResult::NotRequested)
}

fn report(on_v6: &Survey, on_v4: &Survey) -> CheckReport {
    let mut zone = Zone::new("");
    for (ip, survey) in [(V6, on_v6), (V4, on_v4)] {
        zone.surveys.insert(ip.parse().unwrap(), survey.clone());
    }
    zone.evaluate(&request())
}

#[test]
fn findings_about_the_postmaster() {
    let after = Duration::from_secs(4);
    let good = || recipient("250 2.1.5 Ok");
    let unknown_user = || recipient("550 5.1.1 <postmaster@a.example>: User unknown");
    let blocked = || recipient("554 5.7.1 Client host [2001:db8::5] blocked using zen.example");
    let not_asked = || Survey { postmaster: None, ..good_survey() };
    for (on_v6, on_v4, expected) in [
        (good(), good(), ""),
        (recipient("251 2.1.5 will forward"), recipient("252 2.0.0 maybe"), ""),
        (not_asked(), not_asked(), ""),
        (not_asked(), unknown_user(), "fail smtp_postmaster"),
        (unknown_user(), unknown_user(), "fail smtp_postmaster, fail smtp_postmaster"),
        (unknown_user(), good(), "fail smtp_families, fail smtp_postmaster"),
        (good(), unknown_user(), "fail smtp_families, fail smtp_postmaster"),
        (recipient("450 4.2.0 Greylisted"), good(), "unknown smtp_postmaster"),
        (recipient("421 4.3.2 Shutting down"), good(), "unknown smtp_postmaster"),
        (
            recipient("554 5.7.1 Relay access denied"),
            good(),
            "fail smtp_families, fail smtp_postmaster",
        ),
        (
            recipient("530 Authentication required"),
            good(),
            "fail smtp_families, fail smtp_postmaster",
        ),
        (blocked(), good(), "unknown smtp_postmaster"),
        (blocked(), blocked(), "unknown smtp_postmaster, unknown smtp_postmaster"),
        (blocked(), unknown_user(), "unknown smtp_postmaster, fail smtp_postmaster"),
        (recipient("550 5.7.25 no PTR"), good(), "unknown smtp_postmaster"),
        (mail("550 5.7.1 no bounces"), good(), "fail smtp_families, fail smtp_null_sender"),
        (
            mail("550 5.7.1 no bounces"),
            mail("550 5.7.1 no bounces"),
            "fail smtp_null_sender, fail smtp_null_sender",
        ),
        // As the default of Postfix, smtpd_delay_reject = yes.
        (
            recipient("554 5.7.1 <>: Sender address rejected: Access denied"),
            good(),
            "fail smtp_families, fail smtp_null_sender",
        ),
        (mail("451 4.3.0 later"), good(), "unknown smtp_null_sender"),
        (mail("550 5.7.1 Client host rejected: no"), good(), "unknown smtp_null_sender"),
        (asked(reply(OK), SurveyResult::TimedOut(after)), good(), "unknown smtp_postmaster"),
        (asked(reply(OK), SurveyResult::OutOfTime(after)), good(), "unknown smtp_postmaster"),
        (asked(reply(OK), SurveyResult::Closed), good(), "unknown smtp_postmaster"),
        (asked(reply(OK), SurveyResult::NotSmtp), good(), "fail smtp_postmaster"),
        (
            asked(SurveyResult::Closed, SurveyResult::NotRequested),
            good(),
            "unknown smtp_null_sender",
        ),
    ] {
        let found = faults(&report(&on_v6, &on_v4));
        assert_eq!(found, expected, "{:?}\n{:?}", on_v6.postmaster, on_v4.postmaster);
    }
}

/// The rejection of this host names its address, the reply, and the family that accepts it.
#[test]
fn a_rejected_caller_is_shown() {
    let said = "554 5.7.1 Client host [2001:db8::5] blocked using zen.example";
    let report = report(&recipient(said), &recipient("250 2.1.5 Ok"));
    let finding = report.findings.iter().find(|one| one.outcome == CheckStatus::Unknown).unwrap();
    let expected = format!(
        "rejects this host, called from 2001:db8::5: {said}, while it accepts mail of this host over IPv4"
    );
    assert_eq!(finding.seen, expected);
}

/// A domain that receives no mail has no server to ask.
#[test]
fn a_null_mx_is_not_asked() {
    let report = Zone::new("a.example MX 0 .").evaluate(&request());
    assert!(!report.findings.iter().any(|one| one.check.as_str().starts_with("smtp_")));
}
