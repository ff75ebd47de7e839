//! The gateway in front of the Postfix that asks it: what Postfix's questions show of a session under TLS that passes through is
//! in the session's one line.

use serde_json::Value;

use super::{lines_with, socket, unix_line};
use crate::harness::tests;
use crate::support::smtp_client::{TlsClient, TlsOptions};
use crate::support::{
    Authority, Config, Family, Gateway, HOSTNAME, Lab, Mode, Postfix, port, until,
};

tests![a_session_under_tls_has_envelope_verdict_and_queue_id];

const RULES: &str = r#"
[[policy]]
name = "not from there"
when = { sender = ["bad.example"] }
otherwise = "reject"
"#;

fn a_session_under_tls_has_envelope_verdict_and_queue_id() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let path = socket(&lab, "behind");
    let line = unix_line();
    let _postfix = Postfix::start(&lab, &lab.server, "behind", Some(&authority), &line);
    let config = Config::new(&lab, Mode::Proxy)
        .upstream_port(&lab, port::PROXY_PROTOCOL)
        .set("upstream", "identity = \"proxy-v2\"")
        .set("log", "format = \"json\"")
        .set("postfix", &format!("policy = \"unix:{}\"", path.display()))
        .policies(RULES);
    let gateway = Gateway::start(&lab, &config);
    let trusted = authority.certificate();
    let tls = TlsClient::new(&TlsOptions { trusted: Some(&trusted), ..TlsOptions::default() });
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6));
    smtp.start_tls(&tls, HOSTNAME);
    smtp.dialogue(
        "C: EHLO inside.example\n S: 250\n C: MAIL FROM:<a@good.example>\n S: 250
        C: RCPT TO:<ann@example.org>\n S: 250\n C: RCPT TO:<bob@example.org>\n S: 250",
    );
    assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
    smtp.dialogue(
        "C: MAIL FROM:<a@bad.example>\n S: 250\n C: RCPT TO:<ann@example.org>\n S: 554 5.7.1\n C: QUIT\n S: 221",
    );
    drop(smtp);
    let session = until("the session's line", || lines_with(&gateway.log(), "verdict").pop());
    assert_eq!(
        (&session["outcome"], &session["listener"]),
        (&"tls_completed".into(), &"default".into())
    );
    let smtp = &session["smtp"];
    assert_eq!(smtp["helo"], "inside.example");
    let [first, second] = smtp["transactions"].as_array().unwrap().as_slice() else {
        panic!("{session}");
    };
    let recipients: Vec<&Value> =
        first["rcpt_to"].as_array().unwrap().iter().map(|to| &to["address"]).collect();
    assert_eq!(recipients, ["ann@example.org", "bob@example.org"]);
    assert!(first["queue_id"].is_string(), "{first}");
    assert_eq!(second["rcpt_to"][0]["code"], 554);
    assert_eq!(session["verdict"]["action"], "reject");
    assert_eq!(session["verdict"]["rule"], "not from there");
    assert_eq!(lines_with(&gateway.log(), "verdict").len(), 1, "{}", gateway.log());
    gateway.wait_for_metric("gatepost_policy_verdicts_total", &["not from there"], 1.0);
}
