//! The gateway in front of the Postfix that asks it: what Postfix's questions show of a session under TLS that passes through is
//! in the session's one line.

use serde_json::Value;

use super::{line_behind_the_relay, lines_with, socket, unix_line};
use crate::door_evidence::report;
use crate::harness::tests;
use crate::support::smtp_client::{TlsClient, TlsOptions};
use crate::support::{
    Authority, Config, Entrance, Family, Gateway, HOSTNAME, Lab, Mode, Postfix, Smtp, Transport,
    port, until,
};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

tests![
    a_session_under_tls_has_envelope_verdict_and_queue_id,
    a_session_under_tls_proves_as_much_as_postfix_asked_about,
    sessions_of_one_address_are_joined_by_their_ports,
    the_client_in_xclient_is_the_one_that_postfix_asks_about,
];

const RULES: &str = r#"
[[policy]]
name = "not from there"
when = { sender = ["bad.example"] }
otherwise = "reject"
"#;

/// Postfix on the server, with a certificate of `authority`, asks the gateway on its socket at each of these restrictions.
fn asking_at<'lab>(
    lab: &'lab Lab,
    name: &str,
    authority: &Authority,
    restrictions: &[&str],
) -> Postfix<'lab> {
    let mut lines = unix_line() + "\n";
    for restriction in restrictions {
        lines += &(line_behind_the_relay(restriction) + "\n");
    }
    Postfix::start(lab, &lab.server, name, Some(authority), &lines)
}

/// In front of the Postfix with this name, which learns the client from a PROXY header.
fn in_front_of(lab: &Lab, name: &str) -> Config {
    Config::new(lab, Mode::Proxy)
        .upstream_port(lab, port::PROXY_PROTOCOL)
        .set("upstream", "identity = \"proxy-v2\"")
        .set("log", "format = \"json\"")
        // The name by which the tests request the page.
        .set("status", "hosts = [\"lab\"]")
        .set("postfix", &format!("policy = \"unix:{}\"", socket(lab, name).display()))
}

fn under_tls(lab: &Lab, authority: &Authority) -> Smtp {
    let trusted = authority.certificate();
    let tls = TlsClient::new(&TlsOptions { trusted: Some(&trusted), ..TlsOptions::default() });
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6));
    smtp.start_tls(&tls, HOSTNAME);
    smtp
}

fn sessions(gateway: &Gateway<'_>) -> Vec<Value> {
    lines_with(&gateway.log(), "verdict")
}

fn a_session_under_tls_has_envelope_verdict_and_queue_id() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let _postfix = asking_at(&lab, "behind", &authority, &["smtpd_end_of_data_restrictions"]);
    let config = in_front_of(&lab, "behind").set("status", "show_addresses = true").policies(RULES);
    let gateway = Gateway::start(&lab, &config);
    let mut smtp = under_tls(&lab, &authority);
    smtp.dialogue(
        "C: EHLO inside.example\n S: 250\n C: MAIL FROM:<a@good.example>\n S: 250
        C: RCPT TO:<ann@example.org>\n S: 250\n C: RCPT TO:<bob@example.org>\n S: 250",
    );
    assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
    smtp.dialogue(
        "C: MAIL FROM:<a@bad.example>\n S: 250\n C: RCPT TO:<ann@example.org>\n S: 554 5.7.1\n C: QUIT\n S: 221",
    );
    drop(smtp);
    let session = until("the session's line", || sessions(&gateway).pop());
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
    assert_eq!((&first["progress"], &second["progress"]), (&"received".into(), &Value::Null));
    assert_eq!(sessions(&gateway).len(), 1, "{}", gateway.log());
    gateway.wait_for_metric("gatepost_policy_verdicts_total", &["not from there"], 1.0);

    // The row of the page has the last transaction, which was rejected before it had a queue ID.
    let page = gateway.page();
    for shown in ["a@bad.example", "ann@example.org", "not from there", "rejected"] {
        assert!(page.contains(shown), "no {shown:?} in\n{page}");
    }
    let mut smtp = under_tls(&lab, &authority);
    smtp.dialogue(
        "C: EHLO inside.example\n S: 250\n C: MAIL FROM:<c@good.example>\n S: 250
        C: RCPT TO:<bob@example.org>\n S: 250",
    );
    let accepted = smtp.data(b"Subject: x\r\n\r\nx\r\n");
    smtp.dialogue("C: QUIT\n S: 221");
    drop(smtp);
    let queue_id = accepted.queue_id().unwrap();
    let page = until("the session on the page", || {
        Some(gateway.page()).filter(|page| page.contains(queue_id))
    });
    for shown in ["c@good.example", "bob@example.org", "received under TLS", "Queue ID"] {
        assert!(page.contains(shown), "no {shown:?} in\n{page}");
    }
}

/// Postfix asks at RCPT, also at DATA, also at the end of the message.
fn a_session_under_tls_proves_as_much_as_postfix_asked_about() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    for (name, restrictions, expected) in [
        ("rcpt", &[][..], ["session", "session under TLS completed"]),
        (
            "data",
            &["smtpd_data_restrictions"],
            ["envelope", "session under TLS with accepted recipients completed"],
        ),
        (
            "end",
            &["smtpd_data_restrictions", "smtpd_end_of_data_restrictions"],
            ["received", "message received in full under TLS"],
        ),
    ] {
        eprintln!("case: {name}");
        let _postfix = asking_at(&lab, name, &authority, restrictions);
        let config = in_front_of(&lab, name).set("door", "refuse = \"smtp\"");
        let gateway = Gateway::start(&lab, &config);
        let proof = || report(&lab, &config, "ipv6")["status"]["proof"].clone();
        assert_eq!(proof(), Value::Null);
        let mut smtp = under_tls(&lab, &authority);
        smtp.begin("a@good.example", "ann@example.org");
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        drop(smtp);
        let found = until("a proof", || Some(proof()).filter(|proof| !proof.is_null()));
        let [by, text] = expected;
        assert_eq!(found["by"], by);
        let socket = config.socket().to_str().unwrap();
        let printed = lab.gateway.run([GATEPOST, "door", "--socket", socket]);
        assert!(printed.contains(&format!("proof   {text} at ")), "{printed}");
        let page = gateway.page();
        assert!(page.contains(&format!("{text} <span")), "{page}");
    }
}

/// Two sessions at the same time, and a third that goes past the gateway.
fn sessions_of_one_address_are_joined_by_their_ports() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let _postfix = asking_at(&lab, "behind", &authority, &[]);
    let mut gateway = Gateway::start(&lab, &in_front_of(&lab, "behind"));
    let mut both = ["first", "second"].map(|name| (under_tls(&lab, &authority), name));
    for (smtp, name) in &mut both {
        smtp.dialogue(&format!(
            "C: EHLO {name}.example\n S: 250\n C: MAIL FROM:<{name}@good.example>\n S: 250"
        ));
    }
    for (smtp, _) in &mut both {
        smtp.dialogue("C: RCPT TO:<ann@example.org>\n S: 250");
    }
    let ports = both.each_ref().map(|(smtp, name)| (*name, smtp.local_addr().port()));
    for (smtp, _) in &mut both {
        smtp.dialogue("C: QUIT\n S: 221");
    }
    drop(both);
    until("both lines", || (sessions(&gateway).len() == 2).then_some(()));
    let mut beside = lab.client.smtp((lab.server_ip(Family::Ipv6), port::DIRECT).into());
    beside.begin("beside@good.example", "ann@example.org");
    beside.dialogue("C: QUIT\n S: 221");
    gateway.terminate();
    gateway.wait();
    let sender = |session: &Value| session["smtp"]["transactions"][0]["mail_from"].clone();
    let all = sessions(&gateway);
    assert_eq!(all.len(), 3, "{}", gateway.log());
    for (name, port) in ports {
        let session = all.iter().find(|one| one["client"]["port"] == port).unwrap();
        assert_eq!(sender(session), format!("{name}@good.example"));
        assert_eq!(session["outcome"], "tls_completed");
    }
    let own = all.iter().find(|one| one["outcome"] == "delegated").unwrap();
    assert_eq!(sender(own), "beside@good.example");
}

/// The gateway sees these messages itself; from Postfix it has their queue IDs.
fn the_client_in_xclient_is_the_one_that_postfix_asks_about() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("authority"), HOSTNAME);
    let _postfix = asking_at(&lab, "behind", &authority, &["smtpd_end_of_data_restrictions"]);
    for transport in Transport::ALL {
        let entrance = Entrance::new(&lab, Mode::Proxy, transport);
        let config = entrance
            .config()
            .upstream_port(&lab, port::XCLIENT)
            .set("upstream", "identity = \"xclient\"")
            .set("log", "format = \"json\"")
            .set("postfix", &format!("policy = \"unix:{}\"", socket(&lab, "behind").display()));
        let config = match transport {
            Transport::Plaintext => config.set("smtp", "hide = [\"STARTTLS\"]"),
            Transport::OwnTls => config,
        };
        let mut gateway = Gateway::start(&lab, &config);
        let mut ports = Vec::new();
        for family in Family::ALL {
            let mut smtp = entrance.connect(family);
            ports.push(smtp.local_addr().port());
            smtp.begin("a@good.example", "ann@example.org");
            let accepted = smtp.data(b"Subject: x\r\n\r\nx\r\n");
            smtp.dialogue("C: QUIT\n S: 221");
            drop(smtp);
            let count = ports.len();
            let all = until("the session's line", || {
                Some(sessions(&gateway)).filter(|all| all.len() == count)
            });
            let session = all.last().unwrap();
            let [message] = session["smtp"]["transactions"].as_array().unwrap().as_slice() else {
                panic!("{session}");
            };
            assert_eq!(message["queue_id"], accepted.queue_id().unwrap(), "{session}");
            assert_eq!(message["data_code"], 250);
        }
        gateway.terminate();
        gateway.wait();
        let all = sessions(&gateway);
        // Questions that name another client or server would have lines of their own.
        assert!(all.iter().all(|one| one["outcome"] == "quit"), "{}", gateway.log());
        let logged: Vec<_> = all.iter().map(|one| one["client"]["port"].clone()).collect();
        assert_eq!(logged, ports);
    }
}
