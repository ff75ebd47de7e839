//! Access rules and early talkers: the reply at the configured stage, and the session log.

use std::net::{IpAddr, SocketAddr};

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, PolicyGate, Postfix};
use serde_json::{Value, json};

tests![refused_at_rcpt, refused_at_connect, refused_by_family, early_talkers, json_log,];

/// The first matching rule decides: the friends are in the rejected network.
fn by_network(config: Config) -> Config {
    config
        .rule("name = \"friends\"\nnetworks = [\"192.0.2.66\", \"2001:db8:1::66\"]\naction = \"accept\"")
        .rule(
            "name = \"no mail from there\"\naction = \"reject\"\n\
             networks = [\"192.0.2.64/28\", \"2001:db8:1::60/124\"]",
        )
        .rule(
            "name = \"come back later\"\naction = \"tempfail\"\n\
             networks = [\"192.0.2.96/28\", \"2001:db8:1::90/124\"]",
        )
}

/// Clients that the rules of [`by_network`] match.
#[derive(Clone, Copy)]
enum Client {
    Friend,
    Rejected,
    Tempfailed,
}

impl Client {
    const ALL: [Self; 3] = [Self::Friend, Self::Rejected, Self::Tempfailed];

    fn ip(self, family: Family) -> IpAddr {
        let [ipv4, ipv6] = match self {
            Self::Friend => ["192.0.2.66", "2001:db8:1::66"],
            Self::Rejected => ["192.0.2.67", "2001:db8:1::67"],
            Self::Tempfailed => ["192.0.2.97", "2001:db8:1::97"],
        };
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
        .parse()
        .unwrap()
    }
}

fn lab_with_clients() -> Lab {
    let lab = Lab::new();
    for family in Family::ALL {
        for client in Client::ALL {
            lab.add_client_ip(client.ip(family));
        }
    }
    lab
}

/// The rejection waits for RCPT, so that the log has the recipients; upstream never receives those.
fn refused_at_rcpt() {
    let lab = lab_with_clients();
    let postfix = Postfix::receiver(&lab);
    for mode in Mode::ALL {
        let gateway = Gateway::start(&lab, &by_network(Config::new(&lab, mode)));
        for family in Family::ALL {
            eprintln!("case: {family}, {mode}");
            let name = format!("{family}-{mode}");
            for (client, reply, verdict, reason) in [
                (
                    Client::Rejected,
                    "550 5.7.1 no mail from there",
                    "verdict=reject rule=\"no mail from there\"",
                    "access_reject",
                ),
                (
                    Client::Tempfailed,
                    "450 4.7.1 come back later",
                    "verdict=tempfail rule=\"come back later\"",
                    "access_tempfail",
                ),
            ] {
                let ip = client.ip(family);
                let mut smtp = lab.client.smtp_from(ip, lab.entrance(mode, family));
                smtp.dialogue(&format!(
                    "S: 220
                     C: EHLO client.example.net
                     S: 250
                     C: MAIL FROM:<{name}@example.net>
                     S: 250
                     C: RCPT TO:<refused-1@example.org>
                     S: {reply}
                     C: RCPT TO:<refused-2@example.org>
                     S: {reply}
                     C: DATA
                     S: 554 5.5.1
                     C: RSET
                     S: 250
                     C: QUIT
                     S: 221"
                ));
                let (code, enhanced) = (&reply[..3], &reply[4..9]);
                let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
                for expected in [
                    format!(" family={family} "),
                    " helo=client.example.net ".to_owned(),
                    format!(
                        " from=<{name}@example.net> to=<refused-1@example.org>({code}/{enhanced}),\
                         <refused-2@example.org>({code}/{enhanced}) nrcpt=2 code={code} "
                    ),
                    " outcome=quit ".to_owned(),
                    format!(" {verdict} reason=\"{reason}\""),
                ] {
                    assert!(line.contains(&expected), "no {expected:?} in\n{line}");
                }
                let reason = format!("reason=\"{reason}\"");
                let labels = [reason.as_str(), &family.label()];
                gateway.wait_for_metric("gatepost_refusals_total", &labels, 2.0);
            }

            let line = deliver(&lab, &gateway, mode, family, Client::Friend.ip(family));
            assert!(line.ends_with(" verdict=accept rule=\"friends\""), "{line}");
            let line = deliver(&lab, &gateway, mode, family, lab.client_ip(family));
            assert!(line.ends_with(" verdict=accept"), "{line}");
        }
    }
    assert!(!postfix.log().contains("to=<refused-"), "Postfix received them");
}

/// The rejection replaces the greeting, and the gateway opens no upstream connection.
fn refused_at_connect() {
    let lab = lab_with_clients();
    let _postfix = Postfix::receiver(&lab);
    let config = by_network(Config::new(&lab, Mode::Proxy)).set("smtp", "refuse_at = \"connect\"");
    for family in Family::ALL {
        eprintln!("case: {family}");
        let gateway = Gateway::start(&lab, &config);
        let entrance = lab.entrance(Mode::Proxy, family);

        let ip = Client::Rejected.ip(family);
        let mut smtp = lab.client.smtp_from(ip, entrance);
        smtp.dialogue(
            "S: 554 5.7.1 no mail from there
             C: EHLO client.example.net
             S: 503 5.5.1
             C: MAIL FROM:<sender@example.net>
             S: 503 5.5.1
             C: QUIT",
        );
        smtp.expect_last_reply("221 2.0.0 ");
        expect_refused_by(&gateway, smtp.local_addr(), "reject", "no mail from there");

        let ip = Client::Tempfailed.ip(family);
        let mut smtp = lab.client.smtp_from(ip, entrance);
        let reply = smtp.expect_last_reply("421 4.7.1 ");
        assert!(reply.lines[0].ends_with(" come back later"), "{reply:?}");
        expect_refused_by(&gateway, smtp.local_addr(), "tempfail", "come back later");

        assert_eq!(gateway.metric("gatepost_upstream_attempts_total", &[]), 0.0);
        deliver(&lab, &gateway, Mode::Proxy, family, Client::Friend.ip(family));
        deliver(&lab, &gateway, Mode::Proxy, family, lab.client_ip(family));
    }
}

fn refused_by_family() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let rule = format!("name = \"not this\"\nfamily = \"{family}\"\naction = \"reject\"");
        let gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Proxy).rule(&rule));
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        smtp.dialogue(
            "S: 220
             C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<sender@example.net>
             S: 250
             C: RCPT TO:<recipient@example.org>
             S: 550 5.7.1 not this",
        );
        let other = family.other();
        deliver(&lab, &gateway, Mode::Proxy, other, lab.client_ip(other));
    }
}

/// Postfix sends its policy request before its greeting, so the client talks early until the test responds.
fn early_talkers() {
    let lab = Lab::new();
    let gate = PolicyGate::open(lab.path("policy"));
    let restrictions =
        format!("smtpd_delay_reject = no\nsmtpd_client_restrictions = {}", gate.restriction());
    let _postfix = Postfix::start(&lab, &lab.server, "postfix", None, &restrictions);
    for (pregreet, refuse_at) in [("accept", "rcpt"), ("reject", "rcpt"), ("reject", "connect")] {
        let config = Config::new(&lab, Mode::Proxy)
            .set("smtp", &format!("pregreet = {pregreet:?}"))
            .set("smtp", &format!("refuse_at = {refuse_at:?}"));
        let gateway = Gateway::start(&lab, &config);
        for family in Family::ALL {
            eprintln!("case: {family}, pregreet = {pregreet}, refuse_at = {refuse_at}");
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            let question = gate.question();
            smtp.raw(b"EHLO client.example.net\r\n").unwrap();
            let labels = ["anomaly=\"pregreet\"", &family.label()];
            gateway.wait_for_metric("gatepost_anomalies_total", &labels, 1.0);
            if refuse_at == "connect" {
                smtp.dialogue("S: 554 5.5.1\n S: 503 5.5.1\n C: QUIT");
                smtp.expect_last_reply("221 2.0.0 ");
            } else {
                question.answer_dunno();
                let rcpt = if pregreet == "accept" { "250" } else { "550 5.5.1" };
                smtp.dialogue(&format!(
                    "S: 220
                     S: 250
                     C: MAIL FROM:<sender@example.net>
                     S: 250
                     C: RCPT TO:<recipient@example.org>
                     S: {rcpt}
                     C: QUIT
                     S: 221"
                ));
            }
            let client = smtp.local_addr();
            let line = gateway.wait_for_log(&format!(" client={client} "));
            assert!(line.contains(" anomalies=pregreet "), "{line}");
            let refused = f64::from(u8::from(pregreet == "reject"));
            let labels = ["reason=\"pregreet\"", &family.label()];
            gateway.wait_for_metric("gatepost_refusals_total", &labels, refused);
        }
    }
}

/// The JSON form has every field of the record, with the text of commands and replies.
fn json_log() {
    let lab = lab_with_clients();
    let _postfix = Postfix::receiver(&lab);
    let config = by_network(Config::new(&lab, Mode::Proxy)).set("log", "format = \"json\"");
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let entrance = lab.entrance(Mode::Proxy, family);
        let mut smtp = lab.client.smtp(entrance);
        smtp.begin("sender@example.net", "first@example.org");
        smtp.dialogue("C: RCPT TO:<second@example.com>\n S: 554 5.7.1");
        let message = b"Subject: json\r\n\r\nhello\r\n";
        assert_eq!(smtp.data(message).code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        let client = smtp.local_addr();
        let mut record = record_of(&gateway, client);
        let upstream = SocketAddr::new(lab.server_ip(family), 25);

        let server_bytes = &record["tcp"]["server_bytes"];
        assert!(server_bytes.as_u64().unwrap() > 0, "{record}");
        let seconds = record["duration_s"].as_f64().unwrap();
        assert!(seconds > 0.0, "{record}");
        let start = record["start"].as_str().unwrap();
        assert!(start.starts_with("20") && start.ends_with('Z'), "{record}");
        for measured in ["start", "duration_s", "tcp"] {
            record.as_object_mut().unwrap().remove(measured);
        }
        let smtp = record["smtp"].as_object_mut().unwrap();
        let phases = smtp.remove("phases").unwrap();
        for phase in ["connect_s", "greeting_s", "envelope_s", "data_s", "acceptance_s"] {
            assert!(phases[phase].as_f64().unwrap() <= seconds, "{phases}");
        }
        let offered = smtp.remove("extensions").unwrap();
        assert!(offered.as_array().unwrap().contains(&json!("PIPELINING")), "{offered}");
        let expected = json!({
            "type": "session",
            "family": family.to_string(),
            "client": endpoint(client),
            "server": endpoint(entrance),
            "upstream": endpoint(upstream),
            "upstream_error": null,
            "listener": "default",
            "outcome": "quit",
            "smtp": {
                "greeting": 220,
                "helo": "client.example.net",
                "esmtp": true,
                "tls": "none",
                "tls_version": null,
                "tls_handshake": null,
                "tls_error": null,
                "sni": null,
                "auth": false,
                "transactions": [{
                    "mail_from": "sender@example.net",
                    "mail_code": 250,
                    "rcpt_to": [
                        { "address": "first@example.org", "code": 250, "enhanced": "2.1.5" },
                        { "address": "second@example.com", "code": 554, "enhanced": "5.7.1" },
                    ],
                    "rcpt_total": 2,
                    "data_code": 250,
                    "bytes": message.len(),
                    "chunking": false,
                }],
                "transactions_total": 1,
                "commands": { "EHLO": 1, "MAIL": 1, "RCPT": 2, "DATA": 1, "QUIT": 1 },
                "replies": { "220": 1, "221": 1, "250": 4, "354": 1, "554": 1 },
                "anomalies": [],
                "desyncs": 0,
                "resyncs": 0,
            },
            "facts": null,
            "verdict": { "action": "accept", "rule": null, "reason": null, "shadow": [] },
        });
        assert_eq!(record, expected, "{record:#}");

        let ip = Client::Rejected.ip(family);
        let mut smtp = lab.client.smtp_from(ip, entrance);
        smtp.dialogue(
            "S: 220
             C: XCLIENT ADDR=192.0.2.1
             S: 550 5.7.0
             C: HELO client.example.net
             S: 250
             C: MAIL FROM:<>
             S: 250
             C: RCPT TO:<first@example.org>
             S: 550 5.7.1 no mail from there",
        );
        let client = smtp.local_addr();
        drop(smtp);
        let record = record_of(&gateway, client);
        let verdict = json!({
            "action": "reject", "rule": "no mail from there", "reason": "access_reject", "shadow": []
        });
        assert_eq!(record["verdict"], verdict, "{record:#}");
        assert_eq!(record["outcome"], json!("client_closed"), "{record:#}");
        assert_eq!(record["smtp"]["anomalies"], json!(["xclient"]), "{record:#}");
        assert_eq!(record["smtp"]["esmtp"], json!(false), "{record:#}");
    }
}

/// The log record of that client's session.
fn record_of(gateway: &Gateway<'_>, client: SocketAddr) -> Value {
    let port = format!("\"port\":{}", client.port());
    let line = gateway.wait_for_log(&port);
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["client"], endpoint(client), "{record:#}");
    record
}

fn endpoint(socket: SocketAddr) -> Value {
    json!({ "address": socket.ip().to_string(), "port": socket.port() })
}

/// Delivers a message; returns the session's line in the gateway's log.
fn deliver(lab: &Lab, gateway: &Gateway<'_>, mode: Mode, family: Family, from: IpAddr) -> String {
    let mut smtp = lab.client.smtp_from(from, lab.entrance(mode, family));
    smtp.begin("sender@example.net", "recipient@example.org");
    assert_eq!(smtp.data(b"Subject: access\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()))
}

fn expect_refused_by(gateway: &Gateway<'_>, client: SocketAddr, action: &str, rule: &str) {
    let line = gateway.wait_for_log(&format!(" client={client} "));
    for expected in [
        " upstream=- ".to_owned(),
        " outcome=refused ".to_owned(),
        format!(" verdict={action} rule=\"{rule}\" reason=\"access_{action}\""),
    ] {
        assert!(line.contains(&expected), "no {expected:?} in\n{line}");
    }
}
