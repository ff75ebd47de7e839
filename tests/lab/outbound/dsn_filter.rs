//! The table for `smtp_delivery_status_filter` in Postfix: refusals for reasons of IPv6 policy are retried, all others bounce.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::destinations::{Sender, warnings};
use crate::harness::tests;
use crate::support::Lab;
use gatepost::outbound::is_policy_refusal;

tests![refusals_over_ipv6_are_retried, the_table_and_the_program_agree];

/// How Postfix introduces a reply.
const SAID: &str = "said";
const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Written by the command, in this folder.
pub(super) fn table(folder: PathBuf) -> PathBuf {
    let written = Command::new(GATEPOST).args(["postfix", "dsn-filter"]).output().unwrap();
    assert!(written.status.success());
    let file = folder.join("dsn-filter");
    fs::write(&file, written.stdout).unwrap();
    file
}

fn refusals_over_ipv6_are_retried() {
    let lab = Lab::new();
    let sender = Sender::new(&lab, "");
    let before = sender.send("before", "no-ptr");
    assert!(before.contains("dsn=5.7.25, status=bounced"), "{before}");

    let filter =
        format!("smtp_delivery_status_filter = regexp:{}", table(lab.folder("filter")).display());
    sender.postconf(&["-e", &filter]);
    sender.reload();
    for destination in ["no-ptr", "no-ptr-at-end", "no-code"] {
        let line = sender.send("a", destination);
        assert!(line.contains("status=deferred (host mx."), "{line}");
        assert!(line.contains("dsn=4."), "{line}");
    }
    for (destination, code) in [("unknown", "5.1.1"), ("no-ptr-over-ipv4", "5.7.25")] {
        let line = sender.send("a", destination);
        assert!(line.contains(&format!("dsn={code}, status=bounced (host mx.")), "{line}");
    }
    // The other family, as after an IPv6 address is left out.
    sender.postconf(&["-e", "smtp_address_preference = ipv4"]);
    sender.reload();
    let line = sender.send("b", "no-ptr");
    assert!(line.contains("status=sent"), "{line}");
    let log = sender.postfix.log();
    assert!(warnings(&log).is_empty(), "{log}");
}

/// The result of Postfix's own lookup; `None` if the text stays as it is.
fn lookup(table: &Path, text: &str) -> Option<String> {
    let map = format!("regexp:{}", table.display());
    let output = Command::new("postmap").args(["-q", text, &map]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let result = String::from_utf8(output.stdout).unwrap();
    (!result.is_empty()).then(|| result.trim_end().to_owned())
}

/// As Postfix writes it: the server's enhanced code, or X.0.0.
fn status(address: &str, verb: &str, reply: &str) -> String {
    let code = reply[4..].split(' ').next().unwrap();
    let is_code =
        code.split('.').count() == 3 && code.split('.').all(|part| part.parse::<u16>().is_ok());
    let code = if is_code { code.to_owned() } else { format!("{}.0.0", &reply[..1]) };
    format!("{code} host mx.dest.example[{address}] {verb}: {reply} (in reply to RCPT TO command)")
}

fn the_table_and_the_program_agree() {
    let lab = Lab::new();
    let table = table(lab.folder("filter"));
    let list = include_str!("../../refusals.txt");
    let replies: Vec<&str> = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    for reply in &replies {
        for verb in [SAID, "refused to talk to me"] {
            let text = status("2001:db8::25", verb, reply);
            // Temporary ones stay.
            let expected = is_policy_refusal(reply) && reply.starts_with('5');
            let expected = expected.then(|| format!("4{}", &text[1..]));
            assert_eq!(lookup(&table, &text), expected, "{text}");
            let over_ipv4 = status("192.0.2.25", verb, reply);
            assert_eq!(lookup(&table, &over_ipv4), None, "{over_ipv4}");
        }
    }
    // The words of a server are not those of Postfix.
    let forged = format!("550 5.7.1 host mx.dest.example[2001:db8::25] {SAID}: 550 5.7.1 no");
    for text in [
        status("192.0.2.25", SAID, &forged),
        format!("5.7.1 {forged}"),
        format!("5.7.1 host mx.dest.example[192.0.2.25][2001:db8::25] {SAID}: 550 5.7.1 no"),
        "5.7.1 host mx.dest.example[2001:db8::25] says: 550 5.7.1 no".to_owned(),
        format!("5.7.1 TLS is required, but {}", &forged[10..]),
        status("2001:db8::25", SAID, "250 2.7.1 ok"),
        "5.4.6 mail for dest.example loops back to myself".to_owned(),
    ] {
        assert_eq!(lookup(&table, &text), None, "{text}");
    }
    // Mail routed to an address.
    let literal = format!("5.7.1 host 2001:db8::25[2001:db8::25] {SAID}: 550 5.7.1 no");
    assert_eq!(lookup(&table, &literal).as_deref(), Some(&*format!("4{}", &literal[1..])));
}
