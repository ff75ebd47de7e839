//! Hostile handshakes: they end their own session, with a reason in the log, and harm no other.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, OwnTls, PATIENCE, Postfix};

tests![
    hostile_handshakes_harm_nobody,
    old_versions_are_refused_with_a_reason,
    a_client_that_closes_without_close_notify_after_quit_has_quit,
    a_message_cut_off_inside_tls_is_not_delivered,
];

/// What a client sends after the 220, as it would be on the wire.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let record = |kind: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, 3, 1], &length[..], body].concat()
    };
    let huge_hello = [&[1, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    vec![
        ("plaintext", b"EHLO client.example.net\r\nMAIL FROM:<a@example.net>\r\n".to_vec()),
        (
            "random bytes",
            (0..4000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        ),
        ("a record that is too long", [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat()),
        ("a hello that is too long", record(0x16, &huge_hello).repeat(20)),
        ("an empty record", record(0x16, b"")),
        ("empty records", record(0x16, b"").repeat(2000)),
        ("warning alerts", record(0x15, &[1, 90]).repeat(2000)),
        ("a fatal alert", record(0x15, &[2, 40])),
        ("application data first", record(0x17, &[0; 100])),
        ("change cipher spec, often", record(0x14, &[1]).repeat(2000)),
        (
            "an SSLv2 hello",
            vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80, 2, 0, 0x80],
        ),
        ("half a record", vec![0x16, 3, 1, 2, 0, 1, 0, 1]),
        ("nothing", Vec::new()),
    ]
}

fn hostile_handshakes_harm_nobody() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let config = tls.configure(Config::new(&lab, Mode::Proxy)).for_crowds();
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let to = lab.entrance(Mode::Proxy, family);
        // A session in progress, which all of this must not disturb.
        let mut witness = tls.connect(&lab, to);
        witness.begin("sender@example.net", &format!("witness-{family}@example.org"));
        for (case, bytes) in hostile() {
            for piece in [1_000_000, 1] {
                eprintln!("case: {case}, {family}, pieces of {piece}");
                let outcome = attack(&lab, to, &gateway, &bytes, piece);
                assert!(
                    outcome.contains(" tls=failed ") && outcome.contains("outcome=tls_failed"),
                    "{case}: {outcome}"
                );
            }
        }
        assert_eq!(witness.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        postfix.take_message_to(&format!("witness-{family}@example.org"));
    }
    let failed = gateway.metric("gatepost_session_tls_total", &["tls=\"failed\""]);
    assert_eq!(failed, (hostile().len() * 4) as f64);
    assert_eq!(postfix.recipients(), [""; 0]);
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

/// Sends `bytes` after the 220 and closes. Returns the session's line.
fn attack(lab: &Lab, to: SocketAddr, gateway: &Gateway<'_>, bytes: &[u8], piece: usize) -> String {
    let mut smtp = lab.client.smtp(to);
    smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: STARTTLS\n S: 220");
    let client = smtp.local_addr();
    let mut socket = smtp.connection().socket();
    // Long inputs in pieces of a kilobyte at least: as hostile, and sent in a moment.
    for part in bytes.chunks(piece.max(bytes.len() / 2000).max(1)) {
        if socket.write_all(part).is_err() {
            break; // The gateway has closed already.
        }
    }
    let _already_closed = socket.shutdown(Shutdown::Write);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // An alert may come, and then the end.
    let mut rest = [0; 4096];
    while let Ok(1..) = socket.read(&mut rest) {}
    gateway.wait_for_log(&format!(" client={client} "))
}

fn old_versions_are_refused_with_a_reason() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let config = tls.configure(Config::new(&lab, Mode::Proxy)).set("tls", "min_version = \"1.3\"");
    let gateway = Gateway::start(&lab, &config);
    for (version, result) in [("-tls1_1", "no_common_version"), ("-tls1_2", "no_common_version")] {
        for family in Family::ALL {
            let to = lab.entrance(Mode::Proxy, family);
            let label = family.label();
            let labels = [&*label, "result=\"no_common_version\""];
            let before = gateway.metric("gatepost_tls_handshakes_total", &labels);
            let output = lab.client.output([
                "timeout",
                "20",
                "openssl",
                "s_client",
                "-starttls",
                "smtp",
                "-connect",
                &to.to_string(),
                version,
                "-cipher",
                "ALL:@SECLEVEL=0",
            ]);
            assert!(!output.status.success(), "{version}, {result}");
            gateway.wait_for_metric("gatepost_tls_handshakes_total", &labels, before + 1.0);
        }
    }
}

/// Many clients close the connection after QUIT without close_notify.
fn a_client_that_closes_without_close_notify_after_quit_has_quit() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    for family in Family::ALL {
        let recipient = format!("{family}@example.org");
        let mut smtp = tls.connect(&lab, lab.entrance(Mode::Proxy, family));
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        let client = smtp.local_addr();
        drop(smtp);
        postfix.take_message_to(&recipient);
        let line = gateway.wait_for_log(&format!(" client={client} "));
        assert!(line.contains("outcome=quit"), "{line}");
    }
}

/// A truncation: without the dot inside TLS nothing was sent.
fn a_message_cut_off_inside_tls_is_not_delivered() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &tls.configure(Config::new(&lab, Mode::Proxy)));
    for family in Family::ALL {
        for damaged in [false, true] {
            let mut smtp = tls.connect(&lab, lab.entrance(Mode::Proxy, family));
            smtp.begin("sender@example.net", "cut-off@example.org");
            smtp.dialogue("C: DATA\n S: 354");
            smtp.raw(b"Subject: cut off\r\n\r\nthe end is\r\n").unwrap();
            let client = smtp.local_addr();
            if damaged {
                // A record that nobody with the key has written.
                let forged = [&[0x17, 3, 3, 0, 64][..], &[7; 64]].concat();
                smtp.connection().socket().write_all(&forged).unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
            drop(smtp);
            let line = gateway.wait_for_log(&format!(" client={client} "));
            let outcome = if damaged { "outcome=tls_failed" } else { "outcome=client_closed" };
            assert!(line.contains(outcome), "{line}");
        }
    }
    postfix.wait_until_idle();
    assert_eq!(postfix.recipients(), [""; 0]);
}
