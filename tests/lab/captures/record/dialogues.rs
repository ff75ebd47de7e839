//! Dialogues over a good path.

use super::super::cases::case;
use super::super::recorder::{Recorder, SMTP};
use crate::harness::tests;
use crate::support::sites::{Sender, dns, lab, message, mx, receiver, receiver_with};
use crate::support::{Authority, Family, Smtp};

tests![
    OnRequest:
        starttls,
        bdat,
        pipelining,
        pregreet,
        smuggling
];

fn starttls() {
    let lab = lab();
    let _dns = dns(&lab);
    let authority = Authority::new(lab.folder("ca"), "mx.receiver.example");
    let _receiver = receiver_with(&lab, Some(&authority), "");
    let sender = Sender::by_mx(
        &lab,
        &format!(
            "smtp_tls_security_level = verify\nsmtp_tls_CAfile = {}\nsmtp_tls_servername = hostname\n",
            authority.certificate().display()
        ),
    );
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    sender.send(&["bob@receiver.example"], 400, "sent");
    case("starttls").write(&recorder.stop());
}

/// Postfix accepts BDAT but does not send it: the client is a script. The second chunk has a line with a single dot, and its
/// command is in one segment with the third.
fn bdat() {
    let lab = lab();
    let _receiver = receiver(&lab, "");
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    let mut smtp = lab.client.smtp(mx(&lab, Family::Ipv6));
    envelope(&mut smtp, "bob@receiver.example");
    smtp.raw(&chunk(&message(0), "")).unwrap();
    smtp.dialogue("S: 250");
    let rest = [chunk(b"one line\r\n.\r\n", ""), chunk(b"and the last line\r\n", " LAST")];
    smtp.raw(&rest.concat()).unwrap();
    smtp.dialogue("S: 250\n S: 250\n C: QUIT\n S: 221");
    drop(smtp);
    case("bdat").write(&recorder.stop());
}

fn pipelining() {
    let lab = lab();
    let _receiver = receiver(
        &lab,
        "virtual_mailbox_maps = inline:{ { bob@receiver.example = inbox/ }, { carol@receiver.example = inbox/ } }\n",
    );
    let sender = Sender::to(&lab, &[("receiver.example", mx(&lab, Family::Ipv6))]);
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    let recipients = ["bob@receiver.example", "nobody@receiver.example", "carol@receiver.example"];
    sender.send(&recipients, 400, "sent");
    case("pipelining").write(&recorder.stop());
}

/// The receiver delays its greeting by two seconds and rejects clients that do not wait, except the sender's IPv4 address.
fn pregreet() {
    let lab = lab();
    let _receiver = receiver(
        &lab,
        "smtpd_delay_reject = no
smtpd_client_restrictions = sleep 2, check_client_access inline:{ 192.0.2.10=OK }, reject_unauth_pipelining
",
    );
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    let early = |family| {
        let mut smtp = lab.client.smtp(mx(&lab, family));
        smtp.raw(b"EHLO early.sender.example\r\n").unwrap();
        smtp
    };
    early(Family::Ipv6).dialogue("S: 503 5.5.0\n S: 503 5.7.0\n C: QUIT\n S: 221");
    let mut smtp = early(Family::Ipv4);
    smtp.dialogue(
        "S: 220
         S: 250
         C: MAIL FROM:<alice@sender.example>
         S: 250
         C: RCPT TO:<bob@receiver.example>
         S: 250",
    );
    assert_eq!(smtp.data(&message(400)).code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    drop(smtp);
    case("pregreet").write(&recorder.stop());
}

/// Recorded at the receiver, which accepts LF.LF as the end of data: its protection is off in the lab.
fn smuggling() {
    let lab = lab();
    let receiver = receiver(&lab, "");
    let recorder = Recorder::start(&lab, &lab.server, SMTP);
    let mut smtp = lab.client.smtp(mx(&lab, Family::Ipv6));
    envelope(&mut smtp, "bob@receiver.example");
    smtp.dialogue("C: DATA\n S: 354");
    smtp.raw(
        b"Subject: honest\r\n\r\nan honest message\n.\n\
          MAIL FROM:<ceo@receiver.example>\r\n\
          RCPT TO:<carol@receiver.example>\r\n\
          DATA\r\n\
          Subject: smuggled\r\n\r\na message that alice never sent\r\n.\r\n",
    )
    .unwrap();
    // The replies to the outer message and to the smuggled one.
    smtp.dialogue("S: 250\n S: 250\n S: 250\n S: 354\n S: 250\n C: QUIT\n S: 221");
    drop(smtp);
    let forged = receiver.message_to("carol@receiver.example");
    assert!(forged.trace.contains("<ceo@receiver.example>"), "{}", forged.trace);
    case("smuggling").write(&recorder.stop());
}

fn envelope(smtp: &mut Smtp, recipient: &str) {
    smtp.dialogue(&format!(
        "S: 220
         C: EHLO mta.sender.example
         S: 250
         C: MAIL FROM:<alice@sender.example>
         S: 250
         C: RCPT TO:<{recipient}>
         S: 250"
    ));
}

fn chunk(octets: &[u8], last: &str) -> Vec<u8> {
    [format!("BDAT {}{last}\r\n", octets.len()).as_bytes(), octets].concat()
}
