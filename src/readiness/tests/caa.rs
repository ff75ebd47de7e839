//! Findings about CAA records. Lines `name CAA FLAGS TAG VALUE`.

use super::{Zone, faults, good_survey, request};
use crate::readiness::{CaaRecord, CertificateTrust, CheckName, Survey, TlsAttempt};

/// `FLAGS TAG VALUE`
pub(super) fn caa_record(text: &str) -> CaaRecord {
    let [flags, tag, value] = text.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let value = value.as_bytes().to_vec();
    CaaRecord { is_critical: flags == "128", tag: tag.to_owned(), value }
}

#[test]
fn findings_about_caa() {
    for (changes, expected, seen) in [
        ("", "", "no CAA record"),
        (
            "mx.a.example CAA 0 issue ca.example",
            "",
            "CAA of mx.a.example: certificates by ca.example",
        ),
        ("a.example CAA 0 issue ca.example", "", "CAA of a.example: certificates by ca.example"),
        (
            "example CAA 0 issue ca.example; account=7",
            "",
            "CAA of example: certificates by ca.example",
        ),
        (
            "mx.a.example CAA 0 ISSUE one.example\nmx.a.example CAA 0 issue two.example ; a=b ; c=d",
            "",
            "certificates by one.example, two.example",
        ),
        // The closest parent counts.
        ("mx.a.example CAA 0 issue ca.example\na.example CAA 0 issue ;", "", "by ca.example"),
        ("mx.a.example CAA 0 issue ca.example\na.example CAA !servfail", "", "by ca.example"),
        ("a.example CAA 0 iodef mailto:d@a.example", "", "each authority may issue"),
        ("a.example CAA 0 unheard-of x", "", "each authority may issue"),
        ("a.example CAA 0 issue ;", "warn caa", "no authority may issue certificates, but"),
        ("a.example CAA 0 issue ;\na.example CAA 0 issue ca.example", "", "by ca.example"),
        ("a.example CAA 0 issue Let's Encrypt", "warn caa", "which is malformed"),
        ("a.example CAA 0 issue ca.example; account", "warn caa", "which is malformed"),
        ("a.example CAA 128 isue ca.example", "warn caa", "critical and not registered"),
        ("a.example CAA 128 issue ca.example", "", "by ca.example"),
        ("a.example CAA !servfail", "warn caa", "of a.example (SERVFAIL)"),
        ("a.example CAA !timeout", "unknown caa", "CAA unknown"),
    ] {
        let report = Zone::new(changes).evaluate(&request());
        assert_eq!(faults(&report), expected, "{changes}");
        let mut of_caa = report.findings.iter().filter(|one| one.check == CheckName::Caa);
        let found = of_caa.next().map(|one| one.seen.as_str()).unwrap_or_default();
        assert!(found.contains(seen), "{changes}: {found}");
    }
}

#[test]
fn a_server_without_a_trusted_certificate_needs_no_authority() {
    let mut survey = good_survey();
    if let Survey { tls: Some(tls), .. } = &mut survey
        && let TlsAttempt::Established(facts) = &mut tls.handshake
    {
        facts.trust = CertificateTrust::Distrusted("self-signed".to_owned());
    }
    let mut zone = Zone::new("a.example CAA 0 issue ;");
    zone.surveys.values_mut().for_each(|known| *known = survey.clone());
    assert_eq!(faults(&zone.evaluate(&request())), "warn smtp_certificate, warn smtp_certificate");
}
