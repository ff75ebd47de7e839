//! `tls.trace_header = true`: one field of the gateway in front of a message that is otherwise unchanged.

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, HOSTNAME, Lab, Mode, OwnTls, Postfix};

tests![each_message_gets_one_received_field, the_size_limit_includes_it];

fn tracing(lab: &Lab, tls: &OwnTls) -> Config {
    tls.configure(Config::new(lab, Mode::Proxy))
        .set("tls", "trace_header = true")
        .set("smtp", &format!("hostname = {HOSTNAME:?}"))
}

fn each_message_gets_one_received_field() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let _gateway = Gateway::start(&lab, &tracing(&lab, &tls));
    let message = b"Subject: x\r\n\r\n.dots\r\n..\r\n\xff\xfe 8 bit\r\n";
    let stored = String::from_utf8_lossy(message).replace("\r\n", "\n");
    for family in Family::ALL {
        for own in [None, Some(&tls)] {
            for chunk in [None, Some(1), Some(1000)] {
                let recipient = format!("{family}-{}-{chunk:?}@example.org", own.is_some());
                let recipient = recipient.replace(['(', ')'], "").to_lowercase();
                let to = lab.entrance(Mode::Proxy, family);
                let mut smtp = match own {
                    Some(tls) => tls.connect(&lab, to),
                    None => lab.client.smtp(to),
                };
                let client = smtp.local_addr().ip();
                smtp.begin("sender@example.net", &recipient);
                let reply = match chunk {
                    None => smtp.data(message),
                    Some(size) => smtp.bdat(message, size),
                };
                assert_eq!(reply.code, 250, "{recipient}: {reply:?}");
                let content = postfix.take_message_to(&recipient).content;
                let content = String::from_utf8_lossy(&content).into_owned();
                // Behind the mail server's own.
                let ours =
                    content.strip_prefix("Received: from client.example.net ").expect("ours");
                let (ours, rest) = ours.split_once(" +0000\n").expect("a date");
                assert!(rest == stored, "{recipient}: {content}");
                let ours = ours.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
                let literal = match family {
                    Family::Ipv4 => format!("([{client}])"),
                    Family::Ipv6 => format!("([IPv6:{client}])"),
                };
                assert!(ours.starts_with(&format!("{literal} by {HOSTNAME} ")), "{ours}");
                let with = match own {
                    None => "with ESMTP;",
                    Some(_) => "with ESMTPS tls TLS_",
                };
                assert!(ours.contains(with), "{ours}");
            }
        }
    }
}

/// The mail server decides on what it receives, not on what the client sent.
fn the_size_limit_includes_it() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let main_cf = "message_size_limit = 10000";
    let _postfix = Postfix::start(&lab, &lab.server, "receiver", None, main_cf);
    let _gateway = Gateway::start(&lab, &tracing(&lab, &tls));
    for family in Family::ALL {
        let mut smtp = tls.connect(&lab, lab.entrance(Mode::Proxy, family));
        smtp.dialogue(
            "C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<a@example.net> SIZE=9990
             S: 552 5.3.4
             C: MAIL FROM:<a@example.net> SIZE=9000
             S: 250
             C: QUIT
             S: 221",
        );
    }
}
