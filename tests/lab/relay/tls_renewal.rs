//! Certificates that change while mail flows.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::harness::tests;
use crate::support::smtp_client::{TlsClient, TlsOptions};
use crate::support::{
    CertificateRequest, Config, Family, Gateway, HOSTNAME, IssuedCertificate, KeyType, Lab, Mode,
    OwnTls, Postfix, Validity, until,
};

tests![
    a_hundred_renewals_under_load_lose_no_session,
    what_does_not_fit_leaves_the_certificate_before_in_use,
    an_expired_certificate_is_reported_and_not_ready,
    a_reload_reports_only_what_changed,
];

const RENEWALS: u32 = 100;

const EXPIRY: &str = "gatepost_tls_certificate_not_after_timestamp_seconds";

fn issue(tls: &OwnTls, file: &str, key: KeyType, validity: Validity) -> IssuedCertificate {
    tls.authority.issue(&CertificateRequest { file, names: &[HOSTNAME], key, validity })
}

/// As renewal tools do it: a new file takes the place of the old one.
fn replace(with: &Path, file: &Path) {
    let beside = file.with_extension("new");
    fs::copy(with, &beside).unwrap();
    fs::rename(&beside, file).unwrap();
}

fn a_hundred_renewals_under_load_lose_no_session() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let config = tls.configure(Config::new(&lab, Mode::Proxy)).for_crowds();
    let gateway = Gateway::start(&lab, &config);
    let good = [KeyType::EcdsaP256, KeyType::Rsa2048]
        .map(|key| issue(&tls, &format!("{key:?}"), key, Validity::Days(60)));
    let expired = issue(&tls, "expired", KeyType::EcdsaP256, Validity::Expired);
    let (stop, sessions) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for family in Family::ALL {
            let (lab, tls, stop, sessions) = (&lab, &tls, &stop, &sessions);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut smtp = tls.connect(lab, lab.entrance(Mode::Proxy, family));
                    smtp.begin("sender@example.net", "recipient@example.org");
                    assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
                    smtp.dialogue("C: QUIT\n S: 221");
                    sessions.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (certificate, key) = (tls.authority.server_certificate(), tls.authority.server_key());
        for number in 0..RENEWALS {
            let new = &good[number as usize % 2];
            match number % 5 {
                // Only one of both, damage, and one that is out of date.
                1 => replace(&new.certificate, &certificate),
                2 => fs::write(&key, "no key").unwrap(),
                3 => {
                    replace(&expired.certificate, &certificate);
                    replace(&expired.key, &key);
                }
                _ => {
                    replace(&new.certificate, &certificate);
                    replace(&new.key, &key);
                }
            }
            // SIGHUP in every second round; in the others the gateway notices by itself, or not before the next.
            if number % 2 == 0 {
                gateway.hang_up();
            }
            let before = sessions.load(Ordering::Relaxed);
            until("another session", || (sessions.load(Ordering::Relaxed) > before).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let count = sessions.load(Ordering::Relaxed) as f64;
    gateway.wait_for_metric("gatepost_sessions_total", &["outcome=\"quit\""], count);
    assert!(count >= f64::from(RENEWALS));
    let log = gateway.log();
    assert!(log.contains("not reloaded") && log.contains("new certificates are in use"), "{log}");
}

fn what_does_not_fit_leaves_the_certificate_before_in_use() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    let to = lab.entrance(Mode::Proxy, Family::Ipv6);
    let served = || {
        let trusted = tls.authority.certificate();
        let options = TlsOptions { trusted: Some(&trusted), ..TlsOptions::default() };
        lab.client.smtp(to).start_tls(&TlsClient::new(&options), HOSTNAME).certificates
    };
    let first = served();
    let (certificate, key) = (tls.authority.server_certificate(), tls.authority.server_key());
    let new = issue(&tls, "new", KeyType::EcdsaP256, Validity::Days(60));

    replace(&new.certificate, &certificate);
    gateway.wait_for_log("certificates not reloaded, those before stay in use: the key in ");
    gateway.wait_for_metric("gatepost_tls_reload_refused", &[], 1.0);
    assert_eq!(served(), first);

    replace(&new.key, &key);
    gateway.wait_for_log("new certificates are in use");
    gateway.wait_for_metric("gatepost_tls_reload_refused", &[], 0.0);
    assert_ne!(served(), first);
    let log = gateway.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

fn an_expired_certificate_is_reported_and_not_ready() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let expired = issue(&tls, "server", KeyType::EcdsaP256, Validity::Expired);
    assert_eq!(expired.certificate, tls.authority.server_certificate());
    let gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    gateway.wait_for_log("expired ");
    gateway.wait_for_readiness(503);
    // Most senders do not verify it: their mail is accepted as without the gateway.
    let client = TlsClient::new(&TlsOptions::default());
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv4));
    smtp.start_tls(&client, HOSTNAME);
    smtp.begin("sender@example.net", "recipient@example.org");
    assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);

    issue(&tls, "server", KeyType::EcdsaP256, Validity::Days(60));
    gateway.wait_for_log("new certificates are in use");
    gateway.wait_for_readiness(200);
}

/// A SIGHUP with the same files puts nothing new in use, and without `[tls]` no certificate is left to warn of.
fn a_reload_reports_only_what_changed() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let plain = Config::new(&lab, Mode::Proxy);
    let without_tls = plain.toml();
    let gateway = Gateway::start(&lab, &tls.configure(plain));
    gateway.hang_up();
    gateway.wait_for_log("configuration reloaded");
    assert!(!gateway.log().contains("new certificates are in use"), "{}", gateway.log());

    assert!(gateway.has_metric(EXPIRY));
    fs::write(tls.authority.server_key(), "no key").unwrap();
    gateway.wait_for_metric("gatepost_tls_reload_refused", &[], 1.0);
    gateway.reload(&without_tls);
    gateway.wait_for_metric("gatepost_tls_reload_refused", &[], 0.0);
    assert!(!gateway.has_metric(EXPIRY), "a certificate is reported");
}
