//! MTA-STS and TLSRPT: the records and the responses of the policy host, and the findings that follow.

use super::*;

const V6: &str = "2001:db8::80";
const V4: &str = "192.0.2.80";
const POLICY: &str = "version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 604800\n";
/// Beside [`GOOD`].
const RECORDS: &str = "\
_mta-sts.a.example TXT v=STSv1; id=1
mta-sts.a.example A 192.0.2.80
mta-sts.a.example AAAA 2001:db8::80
";

fn received(status: u16, content_type: &str, body: &str) -> PolicyFetch {
    let facts = match good_tls().handshake {
        TlsAttempt::Established(facts) => facts,
        other => panic!("{other:?}"),
    };
    PolicyFetch {
        reached: ConnectResult::Connected(Duration::from_millis(3)),
        tls: TlsAttempt::Established(facts),
        response: PolicyResponse::Received(HttpResponse {
            status,
            content_type: Some(content_type.to_owned()).filter(|kind| !kind.is_empty()),
            location: None,
            body: body.as_bytes().to_vec(),
        }),
    }
}

fn policy(text: &str) -> PolicyFetch {
    received(200, "text/plain", text)
}

fn trusted(trust: CertificateTrust) -> PolicyFetch {
    let mut fetch = policy(POLICY);
    let TlsAttempt::Established(facts) = &mut fetch.tls else { unreachable!() };
    facts.trust = trust;
    fetch
}

fn response(response: PolicyResponse) -> PolicyFetch {
    PolicyFetch { response, ..policy(POLICY) }
}

fn handshake(tls: TlsAttempt) -> PolicyFetch {
    PolicyFetch { tls, response: PolicyResponse::NotRequested, ..policy(POLICY) }
}

fn zone(changes: &str, on_v6: PolicyFetch, on_v4: PolicyFetch) -> Zone {
    let mut zone = Zone::new(RECORDS);
    zone.change(changes);
    zone.policies = [(V6.parse().unwrap(), on_v6), (V4.parse().unwrap(), on_v4)].into();
    zone
}

fn found(changes: &str, on_v6: PolicyFetch, on_v4: PolicyFetch) -> String {
    faults(&zone(changes, on_v6, on_v4).evaluate(&request()))
}

#[test]
fn records() {
    let with_policy = |changes: &str| found(changes, policy(POLICY), policy(POLICY));
    for (changes, expected) in [
        ("", ""),
        ("_mta-sts.a.example TXT v=STSv1;id=a1;", ""),
        ("_mta-sts.a.example TXT v=STSv1; id=1; x=y\n_mta-sts.a.example TXT v=spf1 -all", ""),
        ("_mta-sts.a.example TXT -", "fail mta_sts_record"),
        ("_mta-sts.a.example TXT !timeout", "unknown mta_sts_record"),
        (
            "_mta-sts.a.example TXT v=STSv1; id=1\n_mta-sts.a.example TXT v=STSv1; id=2",
            "fail mta_sts_record",
        ),
        ("_mta-sts.a.example TXT v=stsv1; id=1", "fail mta_sts_record"),
        ("_mta-sts.a.example TXT v=STSv1;", "fail mta_sts_record"),
        ("_mta-sts.a.example TXT v=STSv1; id=2026-12-03", "fail mta_sts_record"),
        ("_mta-sts.a.example TXT v=STSv1; id=", "fail mta_sts_record"),
        ("_mta-sts.a.example TXT v=STSv1; id=1; id=2", "fail mta_sts_record"),
        ("_mta-sts.a.example TXT v=STSv1; id=1; y", "fail mta_sts_record"),
        ("mta-sts.a.example AAAA -", "warn mta_sts_host"),
        ("mta-sts.a.example A -", "warn mta_sts_host"),
        ("mta-sts.a.example A -\nmta-sts.a.example AAAA -", "fail mta_sts_host"),
        ("mta-sts.a.example A !servfail", "unknown mta_sts_host"),
        ("mta-sts.a.example AAAA fd00::80", "fail mta_sts_host"),
        ("mta-sts.a.example A 127.0.0.1\nmta-sts.a.example AAAA -", "fail mta_sts_host"),
        ("_smtp._tls.a.example TXT -", "warn tls_rpt_record"),
        ("_smtp._tls.a.example TXT -\n_mta-sts.a.example TXT -", "fail mta_sts_record"),
        ("_smtp._tls.a.example TXT !servfail", "unknown tls_rpt_record"),
        (
            "_smtp._tls.a.example TXT v=TLSRPTv1; rua=mailto:t@a.example\n\
             _smtp._tls.a.example TXT v=TLSRPTv1; rua=mailto:u@a.example",
            "fail tls_rpt_record",
        ),
        ("_smtp._tls.a.example TXT v=TLSRPT1; rua=mailto:t@a.example", "fail tls_rpt_record"),
        ("_smtp._tls.a.example TXT rua=mailto:t@a.example", "fail tls_rpt_record"),
        ("_smtp._tls.a.example TXT v=TLSRPTv1; mailto:t@a.example", "fail tls_rpt_record"),
        ("_smtp._tls.a.example TXT v=TLSRPTv1;", "fail tls_rpt_reports"),
        ("_smtp._tls.a.example TXT v=TLSRPTv1; rua=t@a.example", "fail tls_rpt_reports"),
        ("_smtp._tls.a.example TXT v=TLSRPTv1; rua=http://a.example/", "fail tls_rpt_reports"),
        ("_smtp._tls.a.example TXT v=TLSRPTv1; rua=https://a.example/v1", ""),
        ("_smtp._tls.a.example TXT v=TLSRPTv1;rua=mailto:t@a.example , https://a.example:8443", ""),
        (
            "_smtp._tls.a.example TXT v=TLSRPTv1; rua=mailto:t@a.example,ftp://a.example/",
            "warn tls_rpt_reports",
        ),
        ("_smtp._tls.a.example TXT v=TLSRPTv1; rua=mailto:t@a.example!10m", "fail tls_rpt_reports"),
    ] {
        assert_eq!(with_policy(changes), expected, "{changes}");
    }
}

#[test]
fn responses_of_the_policy_host() {
    let second = Duration::from_secs(1);
    let only = PolicyFetch::only;
    let no_response = || only(ConnectResult::NoResponse(second));
    let good = || policy(POLICY);
    let distrusted = || trusted(CertificateTrust::Distrusted("expired".to_owned()));
    let twice = |word: &str| format!("{word}, {word}");
    for (on_v6, on_v4, expected) in [
        (good(), policy(&POLICY.replace('\n', "\r\n")), String::new()),
        (no_response(), good(), "fail mta_sts_fetch".to_owned()),
        (only(ConnectResult::Refused), good(), "fail mta_sts_fetch".to_owned()),
        (no_response(), no_response(), twice("unknown mta_sts_fetch")),
        (only(ConnectResult::NoRoute), good(), "unknown mta_sts_fetch".to_owned()),
        (good(), only(ConnectResult::OutOfTime), "unknown mta_sts_fetch".to_owned()),
        (handshake(TlsAttempt::Closed), good(), "fail mta_sts_fetch".to_owned()),
        (handshake(TlsAttempt::TimedOut(second)), good(), "fail mta_sts_fetch".to_owned()),
        (handshake(TlsAttempt::OutOfTime), good(), "unknown mta_sts_fetch".to_owned()),
        (distrusted(), good(), "fail mta_sts_certificate".to_owned()),
        (distrusted(), distrusted(), twice("fail mta_sts_certificate")),
        (trusted(CertificateTrust::Unknown), good(), "unknown mta_sts_certificate".to_owned()),
        (received(404, "text/plain", ""), good(), "fail mta_sts_fetch".to_owned()),
        (received(301, "text/html", ""), good(), "fail mta_sts_fetch".to_owned()),
        (received(204, "", ""), good(), "fail mta_sts_fetch".to_owned()),
        (received(200, "", POLICY), good(), "warn mta_sts_fetch".to_owned()),
        (received(200, "text/html", POLICY), good(), "warn mta_sts_fetch".to_owned()),
        (received(200, "Text/Plain; charset=utf-8", POLICY), good(), String::new()),
        (response(PolicyResponse::TooLarge), good(), "fail mta_sts_fetch".to_owned()),
        (response(PolicyResponse::TimedOut(second)), good(), "fail mta_sts_fetch".to_owned()),
        (response(PolicyResponse::OutOfTime), good(), "unknown mta_sts_fetch".to_owned()),
        (response(PolicyResponse::Closed), good(), "fail mta_sts_fetch".to_owned()),
        (response(PolicyResponse::NotHttp), good(), "fail mta_sts_fetch".to_owned()),
        (policy(&POLICY.replace("604800", "604801")), good(), "warn mta_sts_families".to_owned()),
        (
            policy(&POLICY.replace("mx.a", "mx.b")),
            good(),
            "warn mta_sts_families, fail mta_sts_mx, warn mta_sts_mx".to_owned(),
        ),
    ] {
        assert_eq!(found("", on_v6.clone(), on_v4.clone()), expected, "{on_v6:?}\n{on_v4:?}");
    }
    // Nobody looks for a policy of mode none, and a page of another kind is no policy.
    for (text, expected) in [
        (POLICY.replace("enforce", "none"), ""),
        ("<html>".to_owned(), ""),
        (POLICY.replace("enforce", "testing"), "fail mta_sts_record"),
    ] {
        let changes = "_mta-sts.a.example TXT -";
        assert_eq!(found(changes, policy(&text), policy(&text)), expected, "{text}");
    }
}

#[test]
fn policies_against_exchanges() {
    let second = "a.example MX 10 mx.a.example\na.example MX 20 b.mx.a.example\n\
                  b.mx.a.example A 192.0.2.25\nb.mx.a.example AAAA 2001:db8::25";
    for (changes, from, to, expected) in [
        ("", "", "", ""),
        ("", "enforce", "testing", ""),
        ("", "enforce", "none", ""),
        ("_smtp._tls.a.example TXT -", "enforce", "none", ""),
        ("", "mx: mx.a.example\n", "", "fail mta_sts_policy"),
        ("", "604800", "86399", "warn mta_sts_max_age"),
        ("", "max_age", "mode: none\nmax_age", "warn mta_sts_policy"),
        ("", "mx.a.example", "mx.b.example", "fail mta_sts_mx, warn mta_sts_mx"),
        ("", "mx.a.example", "*.a.example", ""),
        ("", "mx.a.example", "*.example", "fail mta_sts_mx, warn mta_sts_mx"),
        ("", "max_age", "mx: *.b.example\nmax_age", "warn mta_sts_mx"),
        (second, "", "", "fail mta_sts_mx"),
        (second, "mx.a.example", "*.a.example", "fail mta_sts_mx"),
        (second, "max_age", "mx: *.mx.a.example\nmax_age", ""),
    ] {
        let text = POLICY.replace(if from.is_empty() { "\0" } else { from }, to);
        assert_eq!(found(changes, policy(&text), policy(&text)), expected, "{changes}\n{text}");
    }
    let testing = POLICY.replace("enforce\nmx: mx.a", "testing\nmx: mx.b");
    let report = zone("", policy(&testing), policy(&testing)).evaluate(&request());
    assert_eq!(faults(&report), "warn mta_sts_mx, warn mta_sts_mx");
    // The policy host is no exchange.
    let about_host = report.findings.iter().filter(|one| one.about.starts_with("mta-sts."));
    assert!(about_host.clone().any(|one| one.subject.family == Some(Family::Ipv6)));
    assert!(about_host.clone().all(|one| one.subject.exchange.is_none()));
}

#[test]
fn servers_under_an_enforced_policy() {
    let distrusted = {
        let mut tls = good_tls();
        let TlsAttempt::Established(facts) = &mut tls.handshake else { unreachable!() };
        facts.trust = CertificateTrust::Distrusted("expired".to_owned());
        Survey { tls: Some(tls), ..good_survey() }
    };
    let with = |handshake, reply| {
        let tls = TlsSurvey { reply, handshake, ehlo: SurveyResult::NotRequested };
        Survey { tls: Some(tls), ..good_survey() }
    };
    let plain = Survey { ehlo: reply("250 mx.a.example|PIPELINING"), tls: None, ..good_survey() };
    for (survey, enforced) in [
        (good_survey(), 0),
        (distrusted, 2),
        (plain, 2),
        (with(TlsAttempt::Closed, reply("220 go")), 2),
        (with(TlsAttempt::NotReached, reply("502 no")), 2),
        // Perhaps later.
        (with(TlsAttempt::NotReached, reply("454 no key")), 0),
        (with(TlsAttempt::OutOfTime, reply("220 go")), 0),
        (Survey::only(ConnectResult::Refused), 0),
    ] {
        for (mode, expected) in [("enforce", enforced), ("testing", 0)] {
            let text = POLICY.replace("enforce", mode);
            let mut zone = zone("", policy(&text), policy(&text));
            for ip in ["192.0.2.25", "2001:db8::25"] {
                zone.surveys.insert(ip.parse().unwrap(), survey.clone());
            }
            let report = zone.evaluate(&request());
            let of_servers =
                report.findings.iter().filter(|one| one.check == CheckName::MtaStsServer);
            let failed = of_servers.filter(|one| one.outcome == CheckStatus::Fail).count();
            assert_eq!(failed, expected, "{mode} {survey:?}");
        }
    }
}
