//! SMTP smuggling: only CRLF.CRLF ends a message (RFC 5321 §4.1.1.4), not the variants that lax servers accept. The Postfix
//! behind the gateway has its own protection off.

use std::io::ErrorKind::{BrokenPipe, ConnectionReset};

use crate::harness::tests;
use crate::support::{
    Config, Entrance, Family, Gateway, Haproxy, Lab, Mode, Postfix, Smtp, Transport,
};

tests![
    smuggling_sequences_reach_postfix_as_one_message_normalize_proxy,
    smuggling_sequences_reach_postfix_as_one_message_normalize_tproxy,
    smuggling_sequences_are_refused_with_reject_proxy,
    smuggling_sequences_are_refused_with_reject_tproxy,
    smuggling_sequences_inside_tls_reach_postfix_as_one_message,
    smuggling_sequences_inside_tls_are_refused_with_reject,
    a_client_with_a_long_message_receives_the_rejection,
    smuggling_works_through_a_blind_relay,
];

/// Bytes before the dot of a false end of data ...
const BEFORE: [&str; 8] = ["\r\n", "\n", "\r", "\r\r\n", "\r\n\0", "\n\0", "\n\n", "\r\n\r"];
/// ... and bytes after it.
const AFTER: [&str; 8] = ["\r\n", "\n", "\r", "\r\r\n", "\0\r\n", "\0\n", "\r\0\n", "\n\r\n"];

/// A message with one of the variants, followed by a whole second transaction.
struct Attempt {
    variant: String,
    honest: String,
    smuggled: String,
    /// Codes of all replies after the 354.
    codes: Vec<u16>,
}

impl Attempt {
    fn accepted(&self) -> bool {
        self.codes.first() == Some(&250)
    }
}

fn smuggling_sequences_reach_postfix_as_one_message_normalize_proxy() {
    one_message(Mode::Proxy, Transport::Plaintext);
}

fn smuggling_sequences_reach_postfix_as_one_message_normalize_tproxy() {
    one_message(Mode::Tproxy, Transport::Plaintext);
}

fn smuggling_sequences_are_refused_with_reject_proxy() {
    refused(Mode::Proxy, Transport::Plaintext);
}

fn smuggling_sequences_are_refused_with_reject_tproxy() {
    refused(Mode::Tproxy, Transport::Plaintext);
}

fn smuggling_sequences_inside_tls_reach_postfix_as_one_message() {
    one_message(Mode::Proxy, Transport::OwnTls);
}

fn smuggling_sequences_inside_tls_are_refused_with_reject() {
    refused(Mode::Tproxy, Transport::OwnTls);
}

/// The gateway reads the rest of a rejected message, so that the client receives the 550: after a broken connection it would
/// retry.
fn a_client_with_a_long_message_receives_the_rejection() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy).set("smtp", "bare_newlines = \"reject\"");
    let _gateway = Gateway::start(&lab, &config);
    let mut message = b"Subject: a bare newline\nat once\r\n\r\n".to_vec();
    message.extend(b"and much text after it\r\n".repeat(400_000));
    for family in Family::ALL {
        eprintln!("case: {family}");
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        smtp.begin("sender@example.net", "recipient@example.org");
        assert_eq!(smtp.data(&message).code, 550);
    }
    assert_eq!(postfix.recipients(), [""; 0]);
}

/// Proof that the tests above can fail: through a relay without SMTP, several variants become two messages.
fn smuggling_works_through_a_blind_relay() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let _haproxy = Haproxy::start(&lab);
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    for family in Family::ALL {
        let attempts = attempt_all(&postfix, &entrance, family);
        let smuggled = smuggled(&postfix, &attempts);
        for published in ["\n.\n", "\n.\r\n", "\r\n.\n"] {
            assert!(smuggled.contains(&published), "{family}: only {smuggled:?}");
        }
    }
}

fn one_message(mode: Mode, transport: Transport) {
    through_the_gateway((mode, transport), "normalize", |attempt| {
        assert_eq!(attempt.codes, [250, 221], "{:?}", attempt.variant);
    });
}

fn refused(mode: Mode, transport: Transport) {
    through_the_gateway((mode, transport), "reject", |attempt| {
        let Attempt { variant, codes, .. } = attempt;
        if has_bare_newline(variant) {
            // One reply at the true end of data, then the reply to QUIT.
            assert_eq!(codes, &[550, 221], "{variant:?}");
        } else {
            assert_eq!(codes, &[250, 221], "{variant:?}");
        }
    });
}

fn through_the_gateway(
    (mode, transport): (Mode, Transport),
    bare_newlines: &str,
    check: impl Fn(&Attempt),
) {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, mode, transport);
    let config = entrance.config().set("smtp", &format!("bare_newlines = {bare_newlines:?}"));
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let attempts = attempt_all(&postfix, &entrance, family);
        attempts.iter().for_each(&check);
        assert_eq!(smuggled(&postfix, &attempts), [""; 0], "{family}");

        let recipients = postfix.recipients();
        for attempt in &attempts {
            let stored = recipients.iter().filter(|to| **to == attempt.honest).count();
            assert_eq!(stored, usize::from(attempt.accepted()), "{:?}", attempt.variant);
        }
    }
}

/// Every combination but the true end of data, with a single dot and with a stuffed one.
fn variants() -> Vec<String> {
    let mut variants = Vec::new();
    for before in BEFORE {
        for dot in [".", ".."] {
            variants.extend(AFTER.map(|after| format!("{before}{dot}{after}")));
        }
    }
    variants.retain(|variant| !variant.contains("\r\n.\r\n"));
    variants
}

fn has_bare_newline(variant: &str) -> bool {
    variant.replace("\r\n", "").contains(['\r', '\n'])
}

/// Sends every variant in a separate session; returns when Postfix has stored all accepted messages.
fn attempt_all(postfix: &Postfix<'_>, entrance: &Entrance<'_>, family: Family) -> Vec<Attempt> {
    let attempt = |(number, variant): (usize, String)| {
        let honest = format!("honest-{family}-{number}@example.org");
        let smuggled = format!("smuggled-{family}-{number}@example.org");
        let codes = attempt(entrance.connect(family), &variant, &honest, &smuggled);
        Attempt { variant, honest, smuggled, codes }
    };
    let attempts = variants().into_iter().enumerate().map(attempt).collect();
    postfix.wait_until_idle();
    attempts
}

fn attempt(mut smtp: Smtp, variant: &str, honest: &str, smuggled: &str) -> Vec<u16> {
    smtp.begin("sender@example.net", honest);
    smtp.dialogue("C: DATA\n S: 354");
    let message = format!(
        "Subject: honest\r\n\r\nthe honest message{variant}\
         MAIL FROM:<sender@example.net>\r\n\
         RCPT TO:<{smuggled}>\r\n\
         DATA\r\n\
         Subject: smuggled\r\n\r\nthe smuggled message\r\n.\r\nQUIT\r\n"
    );
    // A server that rejects may close before it has read everything.
    if let Err(error) = smtp.raw(message.as_bytes()) {
        assert!(matches!(error.kind(), BrokenPipe | ConnectionReset), "{error}");
    }
    smtp.replies_until_closed().iter().map(|reply| reply.code).collect()
}

/// The variants by which a second message was stored.
fn smuggled<'a>(postfix: &Postfix<'_>, attempts: &'a [Attempt]) -> Vec<&'a str> {
    let recipients = postfix.recipients();
    let arrived = |attempt: &&Attempt| recipients.contains(&attempt.smuggled);
    attempts.iter().filter(arrived).map(|attempt| attempt.variant.as_str()).collect()
}
