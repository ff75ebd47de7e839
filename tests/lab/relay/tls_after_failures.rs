//! `tls.after_failures = "hide"`: clients that cannot do any of the gateway's versions and algorithms deliver in plaintext.

use std::net::SocketAddr;
use std::process::Output;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, OwnTls, Postfix, until};

tests![
    an_old_client_delivers_in_plaintext_after_failures,
    clients_that_reject_the_certificate_or_break_off_are_offered_starttls,
];

/// swaks uses TLS where it is offered, and gives up if the handshake fails. Its only cipher suite lacks forward secrecy.
fn an_old_client_delivers_in_plaintext_after_failures() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let config =
        tls.configure(Config::new(&lab, Mode::Proxy)).set("tls", "after_failures = \"hide\"");
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let to = lab.entrance(Mode::Proxy, family);
        let recipient = format!("{family}@example.org");
        for attempt in 1..=3 {
            let failed = old_swaks(&lab, to, &recipient);
            assert!(!failed.status.success(), "attempt {attempt}: {failed:?}");
            let labels = [format!("family=\"{family}\""), "result=\"no_common_algorithm\"".into()];
            let labels = labels.each_ref().map(String::as_str);
            gateway.wait_for_metric("gatepost_tls_handshakes_total", &labels, f64::from(attempt));
        }
        // A reload changes nothing about it.
        let reloaded = |gateway: &Gateway<'_>| {
            gateway.metric("gatepost_config_reloads_total", &["result=\"applied\""])
        };
        let before = reloaded(&gateway);
        gateway.hang_up();
        until("the reload", || (reloaded(&gateway) > before).then_some(()));
        let delivered = old_swaks(&lab, to, &recipient);
        assert!(delivered.status.success(), "{delivered:?}");
        postfix.take_message_to(&recipient);
        let line = gateway.wait_for_log(&format!("to=<{recipient}>"));
        assert!(line.contains(" tls=none starttls=hidden "), "{line}");
        let network = match family {
            Family::Ipv4 => "/32",
            Family::Ipv6 => "/64",
        };
        let notice = gateway.wait_for_log(&format!("{network} for an hour"));
        assert!(notice.contains("STARTTLS is hidden from"), "{notice}");
        let labels = [format!("family=\"{family}\"")];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(gateway.metric("gatepost_starttls_hidden_clients_total", &labels), 1.0);
        assert_eq!(gateway.metric("gatepost_starttls_hidden_sessions_total", &labels), 1.0);
        lab.client.smtp(to).dialogue(
            "S: 220
             C: STARTTLS
             S: 454 4.7.0
             C: QUIT
             S: 221",
        );
    }
}

/// Their TLS works, or is none: hiding it would only take it away.
fn clients_that_reject_the_certificate_or_break_off_are_offered_starttls() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let config =
        tls.configure(Config::new(&lab, Mode::Proxy)).set("tls", "after_failures = \"hide\"");
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let to = lab.entrance(Mode::Proxy, family);
        let family = format!("family=\"{family}\"");
        for attempt in 1..=4 {
            // Nobody trusts the authority of the test.
            let rejected = lab.client.output([
                "sh",
                "-c",
                &format!(
                    "printf 'QUIT\\r\\n' | timeout 20 openssl s_client -starttls smtp -connect {to} -verify_return_error"
                ),
            ]);
            assert!(!rejected.status.success(), "{rejected:?}");
            let mut smtp = lab.client.smtp(to);
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: STARTTLS\n S: 220");
            smtp.raw(&[0x16, 3, 1, 2, 0, 1, 0, 1]).unwrap();
            drop(smtp);
            let mut smtp = lab.client.smtp(to);
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: STARTTLS\n S: 220");
            smtp.raw(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            smtp.rest();
            let count = |result: &str| {
                let labels = [&family, result];
                gateway.wait_for_metric("gatepost_tls_handshakes_total", &labels, attempt.into());
            };
            count("result=\"client_alert\"");
            count("result=\"closed\"");
            count("result=\"not_tls\"");
        }
        let mut smtp = lab.client.smtp(to);
        smtp.dialogue("S: 220");
        assert!(smtp.ask("EHLO client.example.net").offers("STARTTLS"));
    }
}

fn old_swaks(lab: &Lab, to: SocketAddr, recipient: &str) -> Output {
    let options =
        ["--tls-optional-strict", "--tls-protocol", "tlsv1_2", "--tls-cipher", "AES128-SHA256"];
    lab.client.swaks(to, recipient, &options)
}
