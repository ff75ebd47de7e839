//! STARTTLS end to end through passthrough: clients verify Postfix's own certificate, and the gateway has no key.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use crate::harness::tests;
use crate::support::smtp_client::{
    Load, LoadClients, MessageTransfer, Security, TlsClient, TlsOptions, TlsVersions,
};
use crate::support::{
    Authority, CertificateRequest, Config, Family, Gateway, KeyType, Lab, Mode, Postfix, Validity,
    port,
};

tests![
    swaks_verifies_postfix_certificate_proxy,
    swaks_verifies_postfix_certificate_tproxy,
    postfix_sends_to_postfix_proxy,
    postfix_sends_to_postfix_tproxy,
    every_kind_of_handshake_proxy,
    every_kind_of_handshake_tproxy,
    a_client_refuses_what_it_cannot_verify,
    a_slow_acceptance_inside_tls_is_waited_for,
    a_refused_client_learns_the_reason_in_plaintext,
];

const HOSTNAME: &str = "mx.example.org";

fn swaks_verifies_postfix_certificate_proxy() {
    swaks_verifies_postfix_certificate(Mode::Proxy);
}

fn swaks_verifies_postfix_certificate_tproxy() {
    swaks_verifies_postfix_certificate(Mode::Tproxy);
}

fn postfix_sends_to_postfix_proxy() {
    postfix_sends_to_postfix(Mode::Proxy);
}

fn postfix_sends_to_postfix_tproxy() {
    postfix_sends_to_postfix(Mode::Tproxy);
}

fn swaks_verifies_postfix_certificate(mode: Mode) {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let stranger = Authority::new(lab.folder("another-ca"), HOSTNAME);
    let postfix = receiver(&lab, &authority);
    let _gateway = Gateway::start(&lab, &Config::new(&lab, mode));
    for family in Family::ALL {
        for (way, to) in [("direct", lab.direct(family)), ("gateway", lab.entrance(mode, family))] {
            eprintln!("case: {family}, {way}");
            let recipient = format!("{way}-{family}@example.org");
            let shown = lab.path("shown.pem");

            let sent = swaks(&lab, to, &recipient, &authority.certificate(), &shown);
            let transcript = String::from_utf8_lossy(&sent.stdout);
            assert!(sent.status.success(), "{transcript}");
            assert_eq!(
                certificate(&shown),
                certificate(&authority.server_certificate()),
                "{transcript}"
            );
            let stored = postfix.message_to(&recipient);
            assert!(stored.trace.contains("using TLS"), "{}", stored.trace);

            let refused = swaks(&lab, to, "nobody@example.org", &stranger.certificate(), &shown);
            assert!(!refused.status.success(), "an untrusted authority is accepted");
        }
    }
}

fn postfix_sends_to_postfix(mode: Mode) {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let postfix = receiver(&lab, &authority);
    let _gateway = Gateway::start(&lab, &Config::new(&lab, mode));

    for (security, logged) in [("verify", Some("Verified TLS connection")), ("none", None)] {
        let main_cf = sender(&lab, mode, security, &authority);
        let name = format!("sender-{security}");
        let sender = Postfix::start(&lab, &lab.client, &name, None, &main_cf);
        for family in Family::ALL {
            eprintln!("case: {family}, {security}");
            let recipient = format!("{family}@example.org");
            submit(&lab, &recipient);
            let line = sender.wait_for_log("a delivery", |line| {
                line.contains(&format!("to=<{recipient}>")) && line.contains("status=")
            });
            assert!(line.contains("status=sent"), "{line}");
            let stored = postfix.take_message_to(&recipient);
            assert!(stored.content.ends_with(&body()), "the message is another one");
            assert_eq!(stored.trace.contains("using TLS"), logged.is_some(), "{}", stored.trace);
            if let Some(words) = logged {
                let to = lab.entrance(mode, family).ip();
                sender.wait_for_log(words, |line| {
                    line.contains(words) && line.contains(&format!("[{to}]"))
                });
            }
        }
    }
}

fn every_kind_of_handshake_proxy() {
    every_kind_of_handshake(Mode::Proxy);
}

fn every_kind_of_handshake_tproxy() {
    every_kind_of_handshake(Mode::Tproxy);
}

/// TLS 1.2 and 1.3, full and resumed, DATA and BDAT.
fn every_kind_of_handshake(mode: Mode) {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let trusted = authority.certificate();
    let postfix = receiver(&lab, &authority);
    let _gateway = Gateway::start(&lab, &Config::new(&lab, mode));
    for family in Family::ALL {
        for (versions, name) in [(TlsVersions::Only12, "TLSv1_2"), (TlsVersions::Only13, "TLSv1_3")]
        {
            let options = TlsOptions {
                trusted: Some(&trusted),
                versions,
                resume: true,
                ..TlsOptions::default()
            };
            let tls = TlsClient::new(&options);
            for resumed in [false, true] {
                eprintln!("case: {family}, {name}, resumed {resumed}");
                let recipient = format!("{name}-{resumed}-{family}@example.org");
                let mut smtp = lab.client.smtp(lab.entrance(mode, family));
                let handshake = smtp.start_tls(&tls, HOSTNAME);
                assert_eq!(format!("{:?}", handshake.version), name);
                assert_eq!(handshake.resumed, resumed);
                smtp.dialogue(&format!(
                    "C: EHLO client.example.net\n S: 250\n C: MAIL FROM:<sender@example.net>\n S: 250
                     C: RCPT TO:<{recipient}>\n S: 250"
                ));
                let message = crlf(&body());
                let reply = if resumed { smtp.bdat(&message, 65_536) } else { smtp.data(&message) };
                assert_eq!(reply.code, 250, "{reply:?}");
                smtp.dialogue("C: QUIT\n S: 221");
                let stored = postfix.take_message_to(&recipient);
                assert!(stored.content.ends_with(&body()), "the message is another one");
            }
        }
        // Under TLS 1.3 Postfix issues no ticket to a client that resumed, so that every second session would be a full one.
        let options = TlsOptions {
            trusted: Some(&trusted),
            versions: TlsVersions::Only12,
            resume: true,
            ..TlsOptions::default()
        };
        let clients = LoadClients::new(4, Security::StartTls, &options);
        let report = lab.client.in_thread(|| {
            clients.connect_once(lab.entrance(mode, family))?;
            clients.run(&Load {
                to: lab.entrance(mode, family),
                sessions: 12,
                messages_per_session: 2,
                recipient: "load@example.org",
                transfer: MessageTransfer::Chunks(10),
                ..Load::default()
            })
        });
        let report = report.unwrap();
        assert_eq!((report.full, report.resumed), (0, 12));
    }
}

/// The certificates of the lab are what their tests take them for, and its client verifies them.
fn a_client_refuses_what_it_cannot_verify() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let intermediate = authority.intermediate("intermediate");
    let trusted = authority.certificate();
    let options = TlsOptions { trusted: Some(&trusted), ..TlsOptions::default() };
    let tls = TlsClient::new(&options);
    let valid = Validity::Days(1);
    for (file, key, names, validity, refused) in [
        ("rsa", KeyType::Rsa2048, ["mx.example.org", "mx.example.net"], valid, None),
        ("p384", KeyType::EcdsaP384, ["mx.example.net", "mx.example.org"], valid, None),
        ("ed25519", KeyType::Ed25519, ["*.example.org", "example.org"], valid, None),
        ("expired", KeyType::EcdsaP256, [HOSTNAME; 2], Validity::Expired, Some("Expired")),
        ("future", KeyType::EcdsaP256, [HOSTNAME; 2], Validity::Future, Some("NotValidYet")),
        ("other", KeyType::EcdsaP256, ["mx.example.net"; 2], valid, Some("NotValidForName")),
    ] {
        eprintln!("case: {file}");
        let issued = intermediate.issue(&CertificateRequest { file, names: &names, key, validity });
        let at = SocketAddr::new(lab.server_ip(Family::Ipv6), 4650);
        let _server = lab.server.spawn([
            "openssl",
            "s_server",
            "-quiet",
            "-accept",
            &format!("{at}"),
            "-cert_chain",
            intermediate.certificate().to_str().unwrap(),
            "-cert",
            issued.certificate.to_str().unwrap(),
            "-key",
            issued.key.to_str().unwrap(),
        ]);
        lab.server.wait_for_listener(at);
        let handshake = lab.client.smtp(at).handshake(&tls, HOSTNAME);
        match refused {
            None => assert_eq!(handshake.unwrap().certificates.len(), 2),
            Some(reason) => {
                let error = format!("{:?}", handshake.unwrap_err());
                assert!(error.contains(reason), "{error}");
            }
        }
    }
}

/// Cut off while Postfix accepts the message, a client would send it again, and it would arrive twice.
fn a_slow_acceptance_inside_tls_is_waited_for() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let main_cf = "smtpd_end_of_data_restrictions = sleep 6";
    let postfix = Postfix::start(&lab, &lab.server, "receiver", Some(&authority), main_cf);
    let mode = Mode::Proxy;
    let config = Config::new(&lab, mode).set("timeouts", "passthrough_idle = \"3s\"");
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let recipient = format!("slow-{family}@example.org");
        let (to, shown) = (lab.entrance(mode, family), lab.path("shown.pem"));
        let sent = swaks(&lab, to, &recipient, &authority.certificate(), &shown);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
        postfix.take_message_to(&recipient);
    }
}

/// STARTTLS is refused for now, so a sender that prefers TLS goes on and learns the reason at RCPT; one that requires TLS keeps
/// its mail and logs the reason.
fn a_refused_client_learns_the_reason_in_plaintext() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let _postfix = receiver(&lab, &authority);
    let config = Config::new(&lab, Mode::Proxy).rule(
        "name = \"no mail from there\"\naction = \"reject\"\nnetworks = [\"192.0.2.0/24\", \"2001:db8:1::/64\"]",
    );
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        smtp.dialogue("S: 220\n C: EHLO client.example.net");
        assert!(smtp.reply().unwrap().offers("STARTTLS"));
        smtp.dialogue(
            "C: STARTTLS
             S: 454 4.7.0 TLS is not available to this client: no mail from there
             C: MAIL FROM:<sender@example.net>
             S: 250
             C: RCPT TO:<recipient@example.org>
             S: 550 5.7.1 no mail from there
             C: QUIT
             S: 221",
        );
        let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
        assert!(line.contains("to=<recipient@example.org>(550/5.7.1)"), "{line}");
    }
    for (security, status, reason) in [
        ("may", "status=bounced", "550 5.7.1 no mail from there (in reply to RCPT TO command)"),
        (
            "encrypt",
            "status=deferred",
            "454 4.7.0 TLS is not available to this client: no mail from there",
        ),
    ] {
        let main_cf = sender(&lab, Mode::Proxy, security, &authority);
        let sending =
            Postfix::start(&lab, &lab.client, &format!("sender-{security}"), None, &main_cf);
        for family in Family::ALL {
            eprintln!("case: {family}, {security}");
            let recipient = format!("{family}@example.org");
            submit(&lab, &recipient);
            let line = sending.wait_for_log("a delivery attempt", |line| {
                line.contains(&format!("to=<{recipient}>")) && line.contains("status=")
            });
            assert!(line.contains(status) && line.contains(reason), "{line}");
        }
    }
}

fn receiver<'lab>(lab: &'lab Lab, authority: &Authority) -> Postfix<'lab> {
    let main_cf = "smtpd_tls_received_header = yes\nsmtpd_tls_loglevel = 1";
    Postfix::start(lab, &lab.server, "receiver", Some(authority), main_cf)
}

/// A Postfix on the client that relays over the family in the recipient's name.
fn sender(lab: &Lab, mode: Mode, security: &str, authority: &Authority) -> String {
    let routes = Family::ALL.map(|family| {
        let gateway = lab.entrance(mode, family);
        format!("{{ {family}@example.org = smtp:[{}]:{} }}", gateway.ip(), gateway.port())
    });
    format!(
        "myhostname = sender.example.net
         virtual_mailbox_domains =
         transport_maps = inline:{{ {} }}
         smtp_tls_security_level = {security}
         smtp_tls_verify_cert_match = {HOSTNAME}
         smtp_tls_CAfile = {}
         smtp_tls_loglevel = 1",
        routes.join(", "),
        authority.certificate().display(),
    )
    .replace("\n         ", "\n")
}

/// Submits a message to the Postfix on the client.
fn submit(lab: &Lab, recipient: &str) {
    let mut smtp = lab.client.smtp(SocketAddr::new([127, 0, 0, 1].into(), port::DIRECT));
    smtp.begin("sender@example.net", recipient);
    let message = [b"Subject: from Postfix\r\n\r\n".to_vec(), crlf(&body())].concat();
    assert_eq!(smtp.data(&message).code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
}

/// The stored form, with Unix line ends.
fn body() -> Vec<u8> {
    ".a line with dots.\n..\n.\n".repeat(40_000).into_bytes()
}

fn crlf(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text).replace('\n', "\r\n").into_bytes()
}

/// swaks writes the certificate that it received to `shown`.
fn swaks(lab: &Lab, to: SocketAddr, recipient: &str, trusted: &Path, shown: &Path) -> Output {
    let _ = fs::remove_file(shown);
    let (trusted, shown) = (trusted.to_str().unwrap(), shown.to_str().unwrap());
    let options = ["--tls", "--tls-verify", "--tls-ca-path", trusted, "--tls-get-peer-cert", shown];
    lab.client.swaks(to, recipient, &options)
}

/// The first certificate of a file, in base64.
fn certificate(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().skip_while(|line| !line.starts_with("-----BEGIN CERT"));
    lines.skip(1).take_while(|line| !line.starts_with("-----END")).collect()
}
