//! Findings about TLSA records, with certificates made here.
//!
//! Lines `name TLSA STATE USAGE SELECTOR MATCHING CERTIFICATE`: the data is what the selector and the matching type make of one of
//! the certificates `own`, `authority`, `other`; `short` is data that is too short.

use std::sync::LazyLock;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sha2::{Digest as _, Sha256, Sha512};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use super::dns::SIGNED;
use super::{Zone, faults, good_survey, good_tls, request};
use crate::readiness::{Survey, SurveyResult, TlsAttempt, TlsSurvey, TlsaRecord};
use crate::time::Timestamp;

/// A date on which the certificates are valid: 2026.
const NOW: Timestamp = Timestamp::from_nanos(1_780_000_000_000_000_000);

struct Certificates {
    own: Vec<u8>,
    authority: Vec<u8>,
    /// Of another authority and key, for the same name.
    other: Vec<u8>,
    /// Of the same authority, for another name.
    misnamed: Vec<u8>,
    /// Of the same authority, for the right name, last year.
    expired: Vec<u8>,
}

static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str, last_year: i32| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec()
    };
    let mut other = CertificateParams::new(vec!["mx.a.example".to_owned()]).unwrap();
    other.not_after = rcgen::date_time_ymd(2040, 1, 1);
    Certificates {
        own: issue("mx.a.example", 2040),
        authority: authority.der().to_vec(),
        other: other.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec(),
        misnamed: issue("mx.b.example", 2040),
        expired: issue("mx.a.example", 2025),
    }
});

/// `USAGE SELECTOR MATCHING CERTIFICATE`
pub(super) fn tlsa_record(text: &str) -> TlsaRecord {
    let [usage, selector, matching, certificate] = text.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    let certificate = match certificate {
        "own" => &CERTIFICATES.own,
        "authority" => &CERTIFICATES.authority,
        "other" => &CERTIFICATES.other,
        "misnamed" => &CERTIFICATES.misnamed,
        "expired" => &CERTIFICATES.expired,
        _ => &vec![7; 20],
    };
    let selected = match (selector, Certificate::from_der(certificate)) {
        ("1", Ok(parsed)) => parsed.tbs_certificate().subject_public_key_info().to_der().unwrap(),
        _ => certificate.clone(),
    };
    let is_short = certificate.len() == 20;
    let data = match matching {
        "1" if !is_short => Sha256::digest(&selected).to_vec(),
        "2" if !is_short => Sha512::digest(&selected).to_vec(),
        _ => selected,
    };
    let [usage, selector, matching] = [usage, selector, matching].map(|n| n.parse().unwrap());
    TlsaRecord { usage, selector, matching, data }
}

/// A server that presents these certificates.
fn presenting(chain: &[&Vec<u8>]) -> Survey {
    let mut tls = good_tls();
    let TlsAttempt::Established(facts) = &mut tls.handshake else { unreachable!() };
    facts.chain = chain.iter().map(|der| (*der).clone()).collect();
    facts.at = NOW;
    facts.not_after = Timestamp::from_nanos(NOW.as_nanos() * 2);
    Survey { tls: Some(tls), ..good_survey() }
}

#[test]
fn findings_about_tlsa_records() {
    let made = &*CERTIFICATES;
    let own = || presenting(&[&made.own, &made.authority]);
    let alone = || presenting(&[&made.own]);
    let without_starttls =
        || Survey { ehlo: super::reply("250 mx.a.example|PIPELINING"), tls: None, ..good_survey() };
    let failed = TlsAttempt::Failed("alert".to_owned());
    let no_tls = || Survey {
        tls: Some(TlsSurvey {
            handshake: failed.clone(),
            ehlo: SurveyResult::NotRequested,
            ..good_tls()
        }),
        ..good_survey()
    };
    const MISMATCH: &str = "fail dane_certificate, fail dane_certificate";
    let mut wrong = Vec::new();
    for (records, server, expected) in [
        ("", own(), ""),
        ("verified 3 1 1 own", own(), ""),
        ("verified 3 0 1 own", own(), ""),
        ("verified 3 1 2 own", own(), ""),
        ("verified 3 0 0 own", own(), ""),
        ("verified 3 1 0 own", own(), ""),
        ("verified 3 1 1 other|verified 3 1 1 own", own(), ""),
        ("verified 3 1 1 other", own(), MISMATCH),
        ("verified 3 1 2 other", own(), MISMATCH),
        // Usage 3: neither name nor dates nor authority count.
        ("verified 3 1 1 misnamed", presenting(&[&made.misnamed]), ""),
        ("verified 3 1 1 expired", presenting(&[&made.expired]), ""),
        ("verified 3 1 1 other", presenting(&[&made.other]), ""),
        // It is not about authorities.
        ("verified 3 1 1 authority", own(), MISMATCH),
        // Usage 2: all of these count, and the authority is sent.
        ("verified 2 1 1 authority", own(), ""),
        ("verified 2 0 2 authority", own(), ""),
        ("verified 2 0 0 authority", alone(), ""),
        ("verified 2 1 1 authority", alone(), MISMATCH),
        ("verified 2 1 1 own", own(), MISMATCH),
        ("verified 2 1 1 authority", presenting(&[&made.misnamed, &made.authority]), MISMATCH),
        ("verified 2 1 1 authority", presenting(&[&made.expired, &made.authority]), MISMATCH),
        ("verified 2 1 1 authority", presenting(&[&made.other, &made.authority]), MISMATCH),
        ("verified 2 1 1 other|verified 3 1 1 own", own(), ""),
        // Unusable.
        ("verified 1 1 1 own", own(), "warn dane_tlsa"),
        ("verified 0 1 1 authority", own(), "warn dane_tlsa"),
        ("verified 3 2 1 own", own(), "warn dane_tlsa"),
        ("verified 3 1 1 short", own(), "warn dane_tlsa"),
        ("verified 3 0 0 short", own(), "warn dane_tlsa"),
        ("verified 1 1 1 own|verified 3 1 1 own", own(), "warn dane_tlsa"),
        (
            "verified 1 1 1 own|verified 3 1 1 other",
            own(),
            "warn dane_tlsa, fail dane_certificate, fail dane_certificate",
        ),
        // Not authentic, or no answer.
        ("unsigned 3 1 1 other", own(), "warn dane_tlsa"),
        ("!servfail", own(), "fail dane_tlsa"),
        ("!timeout", own(), "unknown dane_tlsa"),
        ("bogus 7", own(), "fail dane_tlsa"),
        ("unchecked", own(), "fail dane_tlsa"),
        // TLS is demanded.
        (
            "verified 3 1 1 own",
            without_starttls(),
            "warn smtp_starttls, warn smtp_starttls, fail dane_certificate, fail dane_certificate",
        ),
        (
            "verified 1 1 1 own",
            without_starttls(),
            "warn smtp_starttls, warn smtp_starttls, warn dane_tlsa, fail dane_certificate, fail dane_certificate",
        ),
        ("verified 3 1 1 own", no_tls(), "fail smtp_tls, fail smtp_tls"),
    ] {
        let mut zone = Zone::new(SIGNED);
        let lines = records.split('|').filter(|record| !record.is_empty());
        let lines: String =
            lines.map(|record| format!("_25._tcp.mx.a.example TLSA {record}\n")).collect();
        zone.change(&lines);
        zone.surveys.values_mut().for_each(|survey| *survey = server.clone());
        let found = faults(&zone.evaluate(&request()));
        if found != expected {
            wrong.push(format!("{records}\n    expected: {expected}\n    found: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tlsa_records_count_only_where_they_are_signed() {
    let made = &*CERTIFICATES;
    let own = "_25._tcp.mx.a.example TLSA verified 3 1 1 own";
    let other = "_25._tcp.mx.a.example TLSA verified 3 1 1 other";
    for (changes, expected) in [
        // The host's addresses are not signed: senders do not ask for TLSA.
        ("mx.a.example SOA unsigned a.example\n_25._tcp.mx.a.example TLSA !servfail", ""),
        (
            "mx.a.example SOA unsigned a.example\n_25._tcp.mx.a.example TLSA unsigned 3 1 1 other",
            "warn dane_tlsa",
        ),
        // The domain is not.
        (
            &format!(
                "a.example SOA unsigned a.example\nmx.a.example SOA verified mx.a.example\n{own}"
            ),
            "warn dane_tlsa",
        ),
        ("a.example SOA unsigned a.example\nmx.a.example SOA verified mx.a.example", ""),
        // The resolver does not validate.
        (
            &format!(
                ". SOA unsigned .\na.example SOA unsigned a.example\nmx.a.example SOA unsigned a.example\n{other}"
            ),
            "",
        ),
        // The end of the aliases comes first, then the exchange itself.
        (
            &format!(
                "mx.a.example SOA verified a.example b.a.example\n_25._tcp.b.a.example TLSA verified 3 1 1 own\n{other}"
            ),
            "",
        ),
        (&format!("mx.a.example SOA verified a.example b.a.example\n{own}"), ""),
        (
            &format!(
                "mx.a.example SOA verified a.example b.a.example\n_25._tcp.b.a.example TLSA !servfail\n{own}"
            ),
            "fail dane_tlsa",
        ),
    ] {
        let mut zone = Zone::new(SIGNED);
        zone.change(changes);
        let server = presenting(&[&made.own, &made.authority]);
        zone.surveys.values_mut().for_each(|survey| *survey = server.clone());
        assert_eq!(faults(&zone.evaluate(&request())), expected, "{changes}");
    }
}

#[test]
fn the_record_to_publish_is_printed() {
    let made = &*CERTIFICATES;
    let mut zone = Zone::new(SIGNED);
    zone.change("_25._tcp.mx.a.example TLSA verified 3 1 1 other");
    let server = presenting(&[&made.own]);
    zone.surveys.values_mut().for_each(|survey| *survey = server.clone());
    let report = zone.evaluate(&request());
    let data = data_encoding::HEXLOWER.encode(&tlsa_record("3 1 1 own").data);
    let advice = report.worst().unwrap().advice.as_deref().unwrap();
    let record = format!("publish _25._tcp.mx.a.example. TLSA 3 1 1 {data}.");
    assert!(advice.contains(&record), "{advice}");
}
