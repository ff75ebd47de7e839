//! What a client receives from Postfix alone, it receives through the gateway: commands that are wrong, unknown or not
//! offered, and content that comes with DATA.

use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix};

tests![
    wrong_commands_are_answered_as_by_postfix_alone,
    content_with_data_is_rejected_as_by_postfix_alone,
];

/// Sends each line after the reply to the one before. Returns code and enhanced code of each reply, and `closed` or `open`.
fn replies(lab: &Lab, to: SocketAddr, lines: &[&str]) -> Vec<String> {
    let mut smtp = lab.client.smtp(to);
    smtp.dialogue("S: 220");
    let mut replies = Vec::new();
    for line in lines.iter().chain(&["NOOP"]) {
        // A server that closed may reset the connection.
        let sent = smtp.raw(format!("{line}\r\n").as_bytes());
        let reply = match sent.and_then(|()| smtp.reply()) {
            Ok(reply) => reply,
            Err(error) => {
                assert_ne!(
                    error.kind(),
                    ErrorKind::WouldBlock,
                    "no reply to {line:?}: {replies:?}"
                );
                replies.push("closed".to_owned());
                return replies;
            }
        };
        let text = reply.lines.last().cloned().unwrap_or_default();
        let word = text.split(' ').next().unwrap_or_default();
        let is_enhanced = word.split('.').filter(|n| n.parse::<u16>().is_ok()).count() == 3;
        replies.push(format!("{} {}", reply.code, if is_enhanced { word } else { "-" }));
    }
    replies.push("open".to_owned());
    replies
}

const EHLO: &str = "EHLO client.example.net";
const MAIL: &str = "MAIL FROM:<sender@example.net>";
const RCPT: &str = "RCPT TO:<recipient@example.org>";

fn wrong_commands_are_answered_as_by_postfix_alone() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let _gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Proxy));
    for family in Family::ALL {
        for lines in [
            // Unknown.
            &[EHLO, "FROB", "frob a b"][..],
            &[EHLO, "XEXCH50 1 2", "TURN", "SEND FROM:<a@b.example>", "HELP", "EXPN all"],
            &[EHLO, "EHLO2 a", "MAIL", "MAILFROM"],
            &[EHLO, "", " ", "\t"],
            &[EHLO, "STARTTLS", "AUTH PLAIN AGEAYg=="],
            &[EHLO, "XCLIENT ADDR=192.0.2.99"],
            &["PROXY TCP4 203.0.113.7 203.0.113.25 4000 25", EHLO, MAIL],
            &[EHLO, "PROXY TCP6 2001:db8:f::7 2001:db8:f::25 4000 25"],
            &[EHLO, "PROXY UNKNOWN"],
            // White space before the verb.
            &[" EHLO client.example.net", " MAIL FROM:<sender@example.net>", "  RSET"],
            &[EHLO, " NOOP", " QUIT"],
            // Header fields.
            &[EHLO, "Subject: hello"],
            &[EHLO, MAIL, RCPT, "Received: from a by b"],
            &[EHLO, "X-Header:value"],
            // Words that do not begin with a letter.
            &[EHLO, "."],
            &[EHLO, "8BIT"],
            &[EHLO, "<a@b.example>"],
            &[EHLO, ":x"],
            &[EHLO, "MAILFROM:<a@b.example>"],
            // BDAT without a size, or with a wrong one.
            &[EHLO, MAIL, RCPT, "BDAT"],
            &[EHLO, MAIL, RCPT, "BDAT x"],
            &[EHLO, MAIL, RCPT, "BDAT -1"],
            &[EHLO, MAIL, RCPT, "BDAT 1 LASTS"],
            &[EHLO, MAIL, RCPT, "BDAT 1 LAST x"],
            &[EHLO, MAIL, RCPT, "BDAT LAST"],
            &[EHLO, MAIL, RCPT, "BDAT 99999999999999999999"],
            // Parameters that were not offered.
            &[EHLO, "MAIL FROM:<sender@example.net> HOLDFOR=60"],
            &[EHLO, "MAIL FROM:<sender@example.net> HOLDUNTIL=2030-01-01T00:00:00Z"],
            &[EHLO, "MAIL FROM:<sender@example.net> BY=120;R"],
            &[EHLO, "MAIL FROM:<sender@example.net> MT-PRIORITY=3"],
            &[EHLO, "MAIL FROM:<sender@example.net> SOLICIT=x", "MAIL FROM:<> MTRK=x"],
            &[EHLO, "MAIL FROM:<sender@example.net> REQUIRETLS", "MAIL FROM:<> FROB=1"],
            &[EHLO, "MAIL FROM:<sender@example.net> BODY=BINARYMIME", "MAIL FROM:<> SIZE=x"],
            &[EHLO, "MAIL FROM:<> AUTH=<>", "MAIL FROM:<> XVERP"],
            &[EHLO, MAIL, "RCPT TO:<recipient@example.org> RRVS=2014-04-03T23:01:00Z"],
            &[EHLO, MAIL, "RCPT TO:<recipient@example.org> CONPERM"],
            // Out of sequence.
            &[MAIL, "DATA"],
            &[EHLO, RCPT, "DATA", MAIL, "DATA", MAIL],
            &[EHLO, "DATA x", "RSET x", "QUIT x"],
        ] {
            eprintln!("case: {family}, {lines:?}");
            let alone = replies(&lab, lab.direct(family), lines);
            let through = replies(&lab, lab.entrance(Mode::Proxy, family), lines);
            assert_eq!(through, alone, "{lines:?}");
        }
    }
    assert_eq!(postfix.recipients(), [""; 0]);
}

fn content_with_data_is_rejected_as_by_postfix_alone() {
    let lab = Lab::new();
    let restrictions = "smtpd_data_restrictions = reject_unauth_pipelining";
    let postfix = Postfix::start(&lab, &lab.server, "postfix", None, restrictions);
    // Postfix remembers it: a second DATA is rejected too.
    let data = "DATA\r\nhello";
    let with_helo = ["HELO client.example.net", MAIL, RCPT, data, "DATA"];
    let with_ehlo = [EHLO, MAIL, RCPT, data, "DATA"];
    for option in ["", "early_data = \"reject\"", "early_data = \"allow\""] {
        let _gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Proxy).set("smtp", option));
        for family in Family::ALL {
            let (direct, entrance) = (lab.direct(family), lab.entrance(Mode::Proxy, family));
            for lines in [&with_helo, &with_ehlo] {
                eprintln!("case: {family}, {option:?}, {lines:?}");
                let alone = replies(&lab, direct, lines);
                assert_eq!(alone[3], "503 5.5.0", "{alone:?}");
                // By default only where PIPELINING was not offered.
                if option.contains("allow") || option.is_empty() && lines[0] == EHLO {
                    assert_eq!(first_reply_to_data(&lab, entrance, lines), 354);
                } else {
                    assert_eq!(replies(&lab, entrance, lines), alone);
                    let header = [lines[0], MAIL, RCPT, "DATA\r\nSubject: x\r\n\r\nRSET\r\n."];
                    let codes = codes_until_closed(&lab, entrance, &header);
                    assert_eq!(codes, [503, 221], "the content is not taken for commands");
                    assert_eq!(codes, codes_until_closed(&lab, direct, &header));
                }
            }
        }
    }
    assert_eq!(postfix.recipients(), [""; 0]);
}

/// Sends all but the last two lines with their replies, then the last but one.
fn first_reply_to_data(lab: &Lab, to: SocketAddr, lines: &[&str]) -> u16 {
    let mut smtp = lab.client.smtp(to);
    smtp.dialogue("S: 220");
    let (data, envelope) = lines.split_last().unwrap().1.split_last().unwrap();
    for line in envelope {
        assert_eq!(smtp.ask(line).code, 250);
    }
    smtp.ask(data).code
}

/// The codes of the replies to the last line, which ends the session.
fn codes_until_closed(lab: &Lab, to: SocketAddr, lines: &[&str]) -> Vec<u16> {
    let mut smtp = lab.client.smtp(to);
    smtp.dialogue("S: 220");
    let (last, envelope) = lines.split_last().unwrap();
    for line in envelope {
        assert_eq!(smtp.ask(line).code, 250);
    }
    smtp.raw(format!("{last}\r\n").as_bytes()).unwrap();
    smtp.replies_until_closed().iter().map(|reply| reply.code).collect()
}
