//! Further real peers under TLS that the gateway ends: Exim as the client and as the mail server, and Nodemailer.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::harness::tests;
use crate::support::{
    Authority, Entrance, Exim, Family, Gateway, Lab, Mode, Postfix, Transport, cannot_run,
    deliver_by_exim, require_program,
};

tests![
    exim_delivers_with_verified_tls,
    exim_behind_the_gateway_accepts_mail_under_tls,
    nodemailer_delivers_with_verified_tls,
];

const NODEMAILER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/nodemailer/node_modules");
const SEND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/nodemailer/send.js");
const VERSIONS: [&str; 2] = ["1.2", "1.3"];

fn exim_delivers_with_verified_tls() {
    for mode in Mode::ALL {
        let lab = Lab::new();
        let postfix = Postfix::receiver(&lab);
        let entrance = Entrance::new(&lab, mode, Transport::OwnTls);
        let _gateway = Gateway::start(&lab, &entrance.config());
        for family in Family::ALL {
            for version in VERSIONS {
                let recipient = format!("{family}-{version}@example.org");
                let delivered = deliver_by_exim(
                    &lab,
                    entrance.address(family),
                    (&entrance.tls().authority, version),
                    &recipient,
                    "Subject: from Exim\n\n.dots\n..\n",
                );
                assert!(delivered.contains(&format!(" X=TLS{version}:")), "{mode}: {delivered}");
                assert!(delivered.contains(" CV=yes "), "{mode}: {delivered}");
                let stored = postfix.take_message_to(&recipient);
                assert!(stored.content.ends_with(b"\n.dots\n..\n"), "{mode}, {recipient}");
            }
        }
    }
}

/// TLS on both sides of the gateway, each of its own.
fn exim_behind_the_gateway_accepts_mail_under_tls() {
    for (mode, version) in Mode::ALL.into_iter().zip(VERSIONS) {
        let lab = Lab::new();
        let entrance = Entrance::new(&lab, mode, Transport::OwnTls);
        let exim = Exim::start(&lab, Some((&entrance.tls().authority, version)));
        let _gateway = Gateway::start(&lab, &entrance.config());
        for family in Family::ALL {
            eprintln!("case: {mode}, {family}, TLS {version}");
            let mut smtp = entrance.connect(family);
            smtp.begin(&format!("{family}@example.net"), "recipient@example.org");
            let message = "Subject: to Exim\r\n\r\n.a line\r\n".repeat(20_000);
            assert_eq!(smtp.bdat(message.as_bytes(), 100_000).code, 250);
            smtp.dialogue("C: QUIT\n S: 221");
            let line = exim.wait_for_log(&format!(" <= {family}@example.net "));
            let expected = format!(" P=esmtps X=TLS{version}:");
            assert!(line.contains(&expected), "no {expected:?} in {line}");
        }
    }
}

/// Two messages in one session.
fn nodemailer_delivers_with_verified_tls() {
    require_program("node", "nodejs");
    if !Path::new(NODEMAILER).exists() {
        cannot_run(format!("needs {NODEMAILER}: make test installs it"));
    }
    for mode in Mode::ALL {
        let lab = Lab::new();
        let postfix = Postfix::receiver(&lab);
        let entrance = Entrance::new(&lab, mode, Transport::OwnTls);
        let gateway = Gateway::start(&lab, &entrance.config());
        for family in Family::ALL {
            for version in VERSIONS {
                eprintln!("case: {mode}, {family}, TLS {version}");
                let recipients =
                    ["one", "two"].map(|name| format!("{name}-{family}-{version}@example.org"));
                let authority = &entrance.tls().authority;
                nodemailer(&lab, entrance.address(family), (authority, version), &recipients);
                for recipient in &recipients {
                    let stored = postfix.take_message_to(recipient);
                    assert_eq!(stored.content, BODY.replace("\r\n", "\n").as_bytes());
                }
                let line = gateway.wait_for_log(&format!("to=<{}>", recipients[1]));
                assert!(line.contains(&format!("to=<{}>", recipients[0])), "{line}");
                assert!(line.contains(" tls=established "), "{line}");
            }
        }
    }
}

const BODY: &str = "Subject: from Nodemailer\r\n\r\n.dots\r\n..\r\nthe end\r\n";

fn nodemailer(
    lab: &Lab,
    to: SocketAddr,
    (authority, version): (&Authority, &str),
    recipients: &[String; 2],
) {
    let message = lab.path("message");
    fs::write(&message, BODY).unwrap();
    let [one, two] = recipients;
    let script = format!(
        "NODE_PATH={NODEMAILER} node {SEND} {} {} {} TLSv{version} {one} {two} <{}",
        to.ip(),
        to.port(),
        authority.certificate().display(),
        message.display()
    );
    let replies = lab.client.run(["sh", "-c", &script]);
    assert_eq!(replies.matches("250 2.0.0 Ok: queued as ").count(), 2, "{replies}");
}
