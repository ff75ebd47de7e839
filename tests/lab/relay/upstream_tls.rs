//! The gateway's own TLS with a real Postfix that requires it, while it ends the TLS of clients with another certificate.

use crate::harness::tests;
use crate::support::smtp_client::{TlsClient, TlsOptions};
use crate::support::{
    Authority, CertificateRequest, Config, Family, Gateway, IssuedCertificate, KeyType, Lab, Mode,
    Postfix, Validity, port,
};

tests![
    a_mail_server_that_requires_tls_gets_mail_and_offers_auth,
    every_identity_works_inside_tls,
    a_certificate_that_is_not_verified_gets_no_mail,
];

const HOSTNAME: &str = "mx.example.org";
const HANDSHAKES: &str = "gatepost_upstream_tls_handshakes_total";

/// AUTH inside TLS only, and no mail outside of it.
fn receiver<'lab>(lab: &'lab Lab, authority: &Authority) -> Postfix<'lab> {
    let main_cf = "smtpd_tls_security_level = encrypt\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes\n\
         smtpd_tls_received_header = yes\nsmtpd_tls_loglevel = 1";
    let postfix = Postfix::start(lab, &lab.server, "receiver", Some(authority), main_cf);
    // No password is known, so AUTH reaches Postfix and is rejected there.
    postfix.set_sasl(&format!(
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {}\n",
        lab.path("no-users").display()
    ));
    postfix
}

/// The certificate that clients receive from the gateway.
fn own_certificate(authority: &Authority) -> IssuedCertificate {
    authority.issue(&CertificateRequest {
        file: "gateway",
        names: &["gate.example.org"],
        key: KeyType::EcdsaP256,
        validity: Validity::Days(1),
    })
}

/// The gateway ends the clients' TLS with this certificate.
fn config(lab: &Lab, own: &IssuedCertificate) -> Config {
    Config::new(lab, Mode::Proxy)
        .set("tls", &format!("certificate = {:?}", own.fullchain))
        .set("tls", &format!("key = {:?}", own.key))
}

fn a_mail_server_that_requires_tls_gets_mail_and_offers_auth() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let postfix = receiver(&lab, &authority);
    let own = own_certificate(&authority);
    let trusted = authority.certificate();
    let options = TlsOptions { trusted: Some(&trusted), ..TlsOptions::default() };
    let tls = TlsClient::new(&options);
    // The default: opportunistic, as Postfix is on another host.
    let gateway = Gateway::start(&lab, &config(&lab, &own));
    for family in Family::ALL {
        eprintln!("case: {family}");
        let to = lab.entrance(Mode::Proxy, family);
        let mut smtp = lab.client.smtp(to);
        smtp.dialogue("S: 220\n C: EHLO client.example.net");
        let offer = smtp.reply().unwrap();
        assert!(offer.offers("STARTTLS") && !offer.offers("AUTH"), "{offer:?}");
        smtp.dialogue("C: AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=\n S: 538 5.7.11\n C: QUIT\n S: 221");

        let mut smtp = lab.client.smtp(to);
        smtp.start_tls(&tls, "gate.example.org");
        let offer = smtp.ask("EHLO client.example.net");
        assert!(offer.offers("AUTH") && !offer.offers("STARTTLS"), "{offer:?}");
        smtp.dialogue("C: AUTH PLAIN AHVzZXIAcGFzc3dvcmQ=\n S: 535");
        let recipient = format!("{family}@example.org");
        smtp.dialogue(&format!(
            "C: MAIL FROM:<sender@example.net>\n S: 250\n C: RCPT TO:<{recipient}>\n S: 250"
        ));
        let message = "Subject: to an MTA that requires TLS\r\n\r\n.a line\r\n".repeat(20_000);
        assert_eq!(smtp.data(message.as_bytes()).code, 250);
        let client = smtp.local_addr();
        smtp.dialogue("C: QUIT\n S: 221");
        let stored = postfix.take_message_to(&recipient);
        assert!(stored.content.ends_with(message.replace("\r\n", "\n").as_bytes()));
        assert!(stored.trace.contains("using TLSv1.3"), "{}", stored.trace);
        let line = gateway.wait_for_log(&format!(" client={client} "));
        assert!(line.contains(" upstream_tls=TLSv1.3 "), "{line}");
    }
    for result in ["full", "resumed"] {
        eprintln!("{result}: {}", gateway.metric(HANDSHAKES, &[&format!("result=\"{result}\"")]));
    }
    assert!(gateway.metric(HANDSHAKES, &["result=\"full\""]) >= 1.0);
    assert_eq!(gateway.metric(HANDSHAKES, &["result=\"not_offered\""]), 0.0);
}

fn every_identity_works_inside_tls() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let postfix = receiver(&lab, &authority);
    let own = own_certificate(&authority);
    for (identity, port) in [
        ("proxy-v1", port::PROXY_PROTOCOL),
        ("proxy-v2", port::PROXY_PROTOCOL),
        ("xclient", port::XCLIENT),
    ] {
        let config = config(&lab, &own)
            .upstream_port(&lab, port)
            .set("upstream", &format!("identity = {identity:?}"))
            .set("upstream", "tls = \"verify\"")
            .set("upstream", &format!("tls_ca = {:?}", authority.certificate()))
            .set("upstream", &format!("tls_name = {HOSTNAME:?}"));
        let gateway = Gateway::start(&lab, &config);
        for family in Family::ALL {
            eprintln!("case: {identity}, {family}");
            let recipient = format!("{identity}-{family}@example.org");
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            smtp.begin("sender@example.net", &recipient);
            assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
            smtp.dialogue("C: QUIT\n S: 221");
            let stored = postfix.take_message_to(&recipient);
            let client = lab.client_ip(family).to_string();
            assert!(stored.trace.contains(&client), "{}", stored.trace);
            assert!(stored.trace.contains("using TLS"), "{}", stored.trace);
        }
        drop(gateway);
    }
}

fn a_certificate_that_is_not_verified_gets_no_mail() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let stranger = Authority::new(lab.folder("another-ca"), HOSTNAME);
    let postfix = receiver(&lab, &authority);
    let own = own_certificate(&authority);
    for (what, ca, name) in [
        ("another authority", stranger.certificate(), HOSTNAME),
        ("another name", authority.certificate(), "mx.example.net"),
    ] {
        let config = config(&lab, &own)
            .set("upstream", "tls = \"verify\"")
            .set("upstream", &format!("tls_ca = {ca:?}"))
            .set("upstream", &format!("tls_name = {name:?}"));
        let gateway = Gateway::start(&lab, &config);
        for (number, family) in Family::ALL.into_iter().enumerate() {
            eprintln!("case: {what}, {family}");
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 421 4.7.5");
            let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
            assert!(line.contains("certificate"), "{line}");
            assert!(line.contains(" outcome=upstream_unavailable "), "{line}");
            let count = f64::from(u8::try_from(number).unwrap() + 1);
            gateway.wait_for_metric(HANDSHAKES, &["result=\"certificate\""], count);
        }
        drop(gateway);
    }
    assert_eq!(postfix.recipients(), Vec::<String>::new());
}
