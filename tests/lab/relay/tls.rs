//! TLS that the gateway ends, with real peers: what clients verify, and what holds inside TLS.

use std::fs;
use std::net::SocketAddr;
use std::process::Output;

use crate::harness::tests;
use crate::record::record;
use crate::support::smtp_client::{TlsClient, TlsOptions, TlsVersions};
use crate::support::{
    CertificateRequest, Config, Family, Gateway, HOSTNAME, KeyType, Lab, Mode, OwnTls, Postfix,
    Validity, port,
};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

tests![
    real_clients_verify_the_gateways_certificate_proxy,
    real_clients_verify_the_gateways_certificate_tproxy,
    postfix_delivers_with_verified_tls,
    versions_and_resumption,
    certificates_are_chosen_by_name_and_algorithm,
    rules_apply_inside_tls,
    tls_can_be_required,
    commands_behind_starttls_are_never_obeyed,
    xclient_inside_tls_is_rejected,
    a_recorded_session_replays_to_the_same_decision,
];

fn real_clients_verify_the_gateways_certificate_proxy() {
    real_clients_verify_the_gateways_certificate(Mode::Proxy);
}

fn real_clients_verify_the_gateways_certificate_tproxy() {
    real_clients_verify_the_gateways_certificate(Mode::Tproxy);
}

fn real_clients_verify_the_gateways_certificate(mode: Mode) {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, mode)));
    let ca = tls.authority.certificate().display().to_string();
    let verify = ["--tls", "--tls-verify", "--tls-ca-path", &ca, "--tls-sni", HOSTNAME];
    for family in Family::ALL {
        let to = lab.entrance(mode, family);
        let recipient = format!("swaks-{family}@example.org");
        succeeds(lab.client.swaks(to, &recipient, &verify));
        postfix.take_message_to(&recipient);
        let line = gateway.wait_for_log(&format!("to=<{recipient}>"));
        assert!(line.contains(" tls=established ") && line.contains("outcome=quit"), "{line}");

        for (version, expected) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let session = lab.path("session.pem").display().to_string();
            for (option, handshake) in [("-sess_out", "New, "), ("-sess_in", "Reused, ")] {
                let shown = succeeds(lab.client.output([
                    "sh",
                    "-c",
                    &format!(
                        "printf 'QUIT\\r\\n' | timeout 20 openssl s_client -ign_eof -starttls smtp -connect {to} {version} \
                         -verify_return_error -verify_hostname {HOSTNAME} -CAfile {ca} {option} {session}",
                    ),
                ]));
                assert!(shown.contains("Verification: OK"), "{shown}");
                assert!(shown.contains(&format!("{handshake}{expected}")), "{shown}");
            }
        }
        let shown = succeeds(lab.client.output([
            "sh",
            "-c",
            &format!(
                "printf 'QUIT\\r\\n' | timeout 20 gnutls-cli --starttls-proto=smtp --x509cafile={ca} \
                 --verify-hostname={HOSTNAME} --port={} {}",
                to.port(),
                to.ip()
            ),
        ]));
        assert!(shown.contains("The certificate is trusted"), "{shown}");
        let shown = succeeds(lab.client.output([
            "posttls-finger",
            "-c",
            "-l",
            "verify",
            "-F",
            &ca,
            &format!("[{}]:{}", to.ip(), to.port()),
            HOSTNAME,
        ]));
        assert!(shown.contains("Verified TLS connection established"), "{shown}");
    }
    let full = gateway.metric("gatepost_tls_handshakes_total", &["result=\"full\""]);
    assert!(full >= 10.0, "{full} handshakes");
}

/// A Postfix that only delivers where it can verify the certificate, to one that has no TLS.
fn postfix_delivers_with_verified_tls() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let receiver = Postfix::receiver(&lab);
    let _gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    let routes = Family::ALL.map(|family| {
        let to = lab.entrance(Mode::Proxy, family);
        format!("{{ {family}@example.org = smtp:[{}]:{} }}", to.ip(), to.port())
    });
    let main_cf = format!(
        "myhostname = sender.example.net\nvirtual_mailbox_domains =\ntransport_maps = inline:{{ {} }}\n\
         smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = {HOSTNAME}\nsmtp_tls_CAfile = {}\n\
         smtp_tls_loglevel = 1",
        routes.join(", "),
        tls.authority.certificate().display()
    );
    let sender = Postfix::start(&lab, &lab.client, "sender", None, &main_cf);
    for family in Family::ALL {
        let recipient = format!("{family}@example.org");
        let mut smtp = lab.client.smtp(SocketAddr::new([127, 0, 0, 1].into(), port::DIRECT));
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: from Postfix\r\n\r\n.dots\r\n..\r\n").code, 250);
        let line = sender.wait_for_log("a delivery", |line| {
            line.contains(&format!("to=<{recipient}>")) && line.contains("status=")
        });
        assert!(line.contains("status=sent"), "{line}");
        sender.wait_for_log("a verified connection", |line| {
            line.contains("Verified TLS connection")
                && line.contains(&format!("[{}]", lab.gateway_ip(family)))
        });
        assert!(receiver.take_message_to(&recipient).content.ends_with(b".dots\n..\n"));
    }
}

fn versions_and_resumption() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    let trusted = tls.authority.certificate();
    for versions in [TlsVersions::Only12, TlsVersions::Only13] {
        let options =
            TlsOptions { trusted: Some(&trusted), versions, resume: true, ..TlsOptions::default() };
        let client = TlsClient::new(&options);
        for (number, family) in [Family::Ipv6, Family::Ipv4, Family::Ipv6].into_iter().enumerate() {
            let recipient = format!("{versions:?}-{number}@example.org");
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            let handshake = smtp.start_tls(&client, HOSTNAME);
            assert_eq!(handshake.resumed, number > 0, "{versions:?}, session {number}");
            smtp.begin("sender@example.net", &recipient);
            assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
            smtp.dialogue("C: QUIT\n S: 221");
            // The gateway's close_notify: nothing was cut off.
            assert_eq!(smtp.rest_until_close_notify(), b"");
            postfix.take_message_to(&recipient);
        }
    }
    for version in ["1.2", "1.3"] {
        let labels = [format!("tls_version=\"{version}\""), "result=\"resumed\"".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        gateway.wait_for_metric("gatepost_tls_handshakes_total", &labels, 2.0);
    }
}

fn certificates_are_chosen_by_name_and_algorithm() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let issue = |file, names: &[&str], key| {
        let request = CertificateRequest { file, names, key, validity: Validity::Days(30) };
        tls.authority.issue(&request)
    };
    let issued = [
        issue("ecdsa", &[HOSTNAME], KeyType::EcdsaP256),
        issue("rsa", &[HOSTNAME], KeyType::Rsa2048),
        issue("other", &["mail.example.com"], KeyType::EcdsaP384),
    ];
    let sections = issued.each_ref().map(|one| {
        format!("[[tls.certificate]]\nfile = {:?}\nkey = {:?}\n", one.fullchain, one.key)
    });
    let config = Config::new(&lab, Mode::Proxy).policies(&sections.concat());
    let _gateway = Gateway::start(&lab, &config);
    for (number, arguments) in [
        (0, "-servername mx.example.org"),
        (0, "-noservername"),
        (0, "-servername unknown.example"),
        (2, "-servername mail.example.com"),
        (1, "-servername mx.example.org -sigalgs RSA-PSS+SHA256:RSA+SHA256"),
    ] {
        for family in Family::ALL {
            let to = lab.entrance(Mode::Proxy, family);
            let shown = succeeds(lab.client.output([
                "sh",
                "-c",
                &format!(
                    "printf 'QUIT\\r\\n' | timeout 20 openssl s_client -starttls smtp -connect {to} {arguments}",
                ),
            ]));
            let own = fs::read_to_string(&issued[number].certificate).unwrap();
            let own = own.split_once("-----BEGIN").unwrap().1.trim_end();
            assert!(shown.contains(own), "{arguments}: {shown}");
        }
    }
}

/// What no rule could judge while TLS passed through: MAIL, RCPT, and the exemption of postmaster.
fn rules_apply_inside_tls() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy).policies(
        "[[policy]]\nname = \"not from there\"\notherwise = \"reject\"\nwhen = { sender = [\"blocked.example\"] }\n",
    );
    let gateway = Gateway::start(&lab, &tls.configure(config));
    for family in Family::ALL {
        let mut smtp = tls.connect(&lab, lab.entrance(Mode::Proxy, family));
        smtp.dialogue(
            "C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<a@blocked.example>
             S: 250
             C: RCPT TO:<b@example.org>
             S: 550 5.7.1",
        );
        let recipient = format!("accepted-{family}@example.org");
        smtp.dialogue(&format!(
            "C: RSET\n S: 250\n C: MAIL FROM:<a@allowed.example>\n S: 250\n C: RCPT TO:<{recipient}>\n S: 250"
        ));
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        postfix.take_message_to(&recipient);
        let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
        assert!(
            line.contains("rule=\"not from there\"") && line.contains("tls=established"),
            "{line}"
        );
    }
}

fn tls_can_be_required() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let config = tls.configure(Config::new(&lab, Mode::Proxy)).set("tls", "require = true");
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let to = lab.entrance(Mode::Proxy, family);
        lab.client.smtp(to).dialogue(
            "S: 220
             C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<a@example.net>
             S: 530 5.7.0 STARTTLS is required first
             C: QUIT
             S: 221",
        );
        let recipient = format!("{family}@example.org");
        let mut smtp = tls.connect(&lab, to);
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        postfix.take_message_to(&recipient);
    }
}

/// Command injection (CVE-2011-0411 and its kind), in one segment with STARTTLS and behind it.
fn commands_behind_starttls_are_never_obeyed() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    for family in Family::ALL {
        for injected in [
            "NOOP\r\n",
            "RSET\r\nEHLO evil.example\r\n",
            "MAIL FROM:<evil@example.net>\r\nRCPT TO:<injected@example.org>\r\nDATA\r\nx\r\n.\r\n",
            "EHLO with no end",
        ] {
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250");
            smtp.raw(format!("STARTTLS\r\n{injected}").as_bytes()).unwrap();
            smtp.dialogue("S: 220");
            smtp.handshake(tls.client(), HOSTNAME).unwrap();
            // The next reply is the one to this.
            let reply = smtp.ask("EHLO client.example.net");
            assert!(reply.code == 250 && reply.lines.len() > 1, "{reply:?}");
            smtp.dialogue("C: RCPT TO:<b@example.org>\n S: 503\n C: QUIT\n S: 221");
            let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
            assert!(line.contains("starttls_plaintext"), "{line}");
        }
    }
    assert_eq!(postfix.recipients(), [""; 0]);
}

fn xclient_inside_tls_is_rejected() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let main_cf = "smtpd_authorized_xclient_hosts = 198.51.100.0/24, [2001:db8:2::]/64";
    let _postfix = Postfix::start(&lab, &lab.server, "receiver", None, main_cf);
    let _gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    for family in Family::ALL {
        let mut smtp = tls.connect(&lab, lab.entrance(Mode::Proxy, family));
        let reply = smtp.ask("EHLO client.example.net");
        assert!(!reply.offers("XCLIENT") && !reply.offers("STARTTLS"), "{reply:?}");
        smtp.dialogue("C: XCLIENT ADDR=192.0.2.99\n S: 550 5.7.0");
    }
}

/// The recorder writes what was decrypted; the capture replays to the same verdict under the same configuration.
fn a_recorded_session_replays_to_the_same_decision() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let config = tls.configure(Config::new(&lab, Mode::Proxy)).policies(
        "[[policy]]\nname = \"not from there\"\notherwise = \"reject\"\nwhen = { sender = [\"blocked.example\"] }\n",
    );
    let gateway = Gateway::start(&lab, &config);
    let capture = lab.path("tls.pcapng");
    let mut recorder = record(&lab, &config, &capture, &["--count", "2"]);
    for family in Family::ALL {
        let mut smtp = tls.connect(&lab, lab.entrance(Mode::Proxy, family));
        smtp.dialogue(
            "C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<a@blocked.example>
             S: 250
             C: RCPT TO:<b@example.org>
             S: 550 5.7.1
             C: QUIT
             S: 221",
        );
        gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
    }
    assert!(recorder.wait().success(), "{}", recorder.log());
    assert!(recorder.log().contains("; mail and passwords are in it"), "{}", recorder.log());
    let comment = b"outcome=quit decrypted=TLSv1.3";
    let written = fs::read(&capture).unwrap();
    assert_eq!(written.windows(comment.len()).filter(|part| part == comment).count(), 2);
    let (config, capture) = (gateway.file().to_str().unwrap(), capture.to_str().unwrap());
    let words = [GATEPOST, "replay", "--config", config, "--format", "json", capture];
    let replayed = lab.gateway.run(words);
    assert_eq!(replayed.matches("a@blocked.example").count(), 2, "{replayed}");
    assert_eq!(replayed.matches("\"rule\":\"not from there\"").count(), 2, "{replayed}");
    assert_eq!(replayed.matches("\"tls\":\"established\"").count(), 2, "{replayed}");
}

/// Both outputs of a command that has to succeed.
#[track_caller]
fn succeeds(output: Output) -> String {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    text
}
