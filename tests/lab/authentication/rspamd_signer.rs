//! Google's rule before mail of a sending Postfix whose milter, rspamd, signs it.

use std::fs;

use serde_json::{Value, json};

use super::{GOOGLE, Site};
use crate::support::rspamd::{MILTER, SigningKey, start_signer};
use crate::support::world::{KNOT, sender_ip};
use crate::support::{DOMAIN, Entrance, Family, Gateway, Lab, Mode, Postfix, Transport, port};

/// Messages with the reply to their end over IPv6; over IPv4 each is accepted.
const MESSAGES: [Message; 4] = [
    Message {
        name: "spf",
        client: "good",
        author: "alice@spf-pass.example",
        evidence: "spf=pass d=spf-pass.example by ip6:2001:db8:c::/64",
        refused: None,
    },
    Message {
        name: "signed",
        client: "good",
        author: "alice@signer.example",
        evidence: "dkim=pass d=signer.example s=mail",
        refused: None,
    },
    Message {
        name: "neither",
        client: "good",
        author: "alice@spf-none.example",
        evidence: "spf=none d=spf-none.example; dkim=none",
        refused: Some((
            "550 5.7.26 ",
            "message is not authenticated: SPF record of spf-none.example",
            "authenticated.not_authenticated",
        )),
    },
    Message {
        name: "nameless",
        client: "missing",
        author: "alice@spf-pass.example",
        evidence: "spf=pass d=spf-pass.example by ip6:2001:db8:c::/64",
        refused: Some((
            "550 5.7.25 ",
            "client address 2001:db8:c::2 has no PTR record",
            "fcrdns.no_ptr",
        )),
    },
];

/// A message of an author who is also its sender.
struct Message {
    name: &'static str,
    client: &'static str,
    author: &'static str,
    /// The detail of the fact `authenticated` over IPv6.
    evidence: &'static str,
    /// Codes and text of the reply over IPv6, and the reason of the verdict.
    refused: Option<(&'static str, &'static str, &'static str)>,
}

impl Message {
    fn recipient(&self, family: Family) -> String {
        format!("{}-{family}@{DOMAIN}", self.name)
    }
}

pub(super) fn googles_rule_decides_on_mail_that_rspamd_signed() {
    for (mode, transport) in [
        (Mode::Proxy, Transport::Plaintext),
        (Mode::Proxy, Transport::OwnTls),
        (Mode::Tproxy, Transport::Plaintext),
        (Mode::Tproxy, Transport::OwnTls),
    ] {
        let lab = Lab::new();
        let entrance = Entrance::new(&lab, mode, transport);
        let site = Site::new(&lab, &entrance);
        let config = entrance
            .config()
            .upstream_port(&lab, port::SMTP)
            .set("log", "format = \"json\"")
            .set("lookup", &format!("dns = [\"{KNOT}\"]"))
            .policies(GOOGLE);
        let mut gateway = Gateway::start(&lab, &config);
        let key = site.signer.key_file();
        let key = SigningKey { domain: "signer.example", selector: "mail", file: key };
        let _signer = start_signer(&lab, &lab.client, "rspamd", key);
        let sending = sending_postfix(&lab, &entrance, transport);
        submit_all(&lab);
        for message in &MESSAGES {
            for family in Family::ALL {
                let line = delivery(&sending, &message.recipient(family));
                let what = format!("{mode}, {transport}, {family}: {line}");
                match message.refused.filter(|_| family == Family::Ipv6) {
                    Some((reply, text, _)) => {
                        assert!(line.contains("status=bounced"), "{what}");
                        assert!(line.contains(&format!(" said: {reply}")), "{what}");
                        assert!(line.contains(text) && line.contains(RULE), "{what}");
                        assert!(line.contains("(in reply to end of DATA command)"), "{what}");
                    }
                    None => {
                        assert!(line.contains("status=sent (250 2.0.0 Ok: queued as "), "{what}");
                    }
                }
            }
        }
        sending.wait_until_idle();
        site.postfix.wait_until_idle();
        let under_tls = sending.log().matches("TLS connection established to ").count();
        let expected = if transport == Transport::OwnTls { MESSAGES.len() * 2 } else { 0 };
        assert_eq!(under_tls, expected, "each message has a connection of its own");
        assert_arrived(&site);
        gateway.terminate();
        gateway.wait();
        assert_logged(&gateway.log());
    }
}

const RULE: &str = "(rule \"IPv6 senders have a confirmed name and authenticate\"";

/// A Postfix of the client's host that sends from the addresses of the clients, and drops the bounces.
fn sending_postfix<'lab>(
    lab: &'lab Lab,
    entrance: &Entrance<'_>,
    transport: Transport,
) -> Postfix<'lab> {
    let level = if transport == Transport::OwnTls { "encrypt" } else { "none" };
    let mut routes = String::new();
    let mut services = String::new();
    for family in Family::ALL {
        for message in &MESSAGES {
            let (to, client) = (message.recipient(family), message.client);
            let at = entrance.address(family);
            let (ip, port) = (at.ip(), at.port());
            routes.push_str(&format!(" {{ {to} = {client}-{family}:[{ip}]:{port} }}"));
        }
        let parameter = match family {
            Family::Ipv6 => "smtp_bind_address6",
            Family::Ipv4 => "smtp_bind_address",
        };
        for client in ["good", "missing"] {
            let ip = sender_ip(client, family);
            services.push_str(&format!(
                "{client}-{family} unix - - n - - smtp\n  -o {parameter}={ip}\n"
            ));
        }
    }
    let main_cf = format!(
        "myhostname = mta.client.example\nvirtual_mailbox_domains =\n\
         default_transport = discard:\ntransport_maps = inline:{{{routes} }}\n\
         smtp_connection_cache_on_demand = no\n\
         smtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n\
         smtpd_milters = inet:{MILTER}\nmilter_default_action = tempfail\n"
    );
    let postfix = Postfix::start(lab, &lab.client, "sending", None, &main_cf);
    let master = postfix.config_directory().join("master.cf");
    fs::write(&master, fs::read_to_string(&master).unwrap() + &services).unwrap();
    postfix.stop();
    postfix.start_again();
    postfix
}

/// Each message is submitted to the Postfix of the client's host once, by a client of that host.
fn submit_all(lab: &Lab) {
    for family in Family::ALL {
        for message in &MESSAGES {
            let (author, to) = (message.author, message.recipient(family));
            let mut smtp = lab.client.smtp(SUBMISSION.parse().unwrap());
            smtp.begin(author, &to);
            let content = format!(
                "From: Alice <{author}>\r\nTo: {to}\r\nSubject: {}\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
                 Message-ID: <{to}>\r\n\r\nFirst line\r\n.second line\r\n",
                message.name
            );
            let reply = smtp.data(content.as_bytes());
            assert_eq!(reply.code, 250, "{reply:?}");
            smtp.dialogue("C: QUIT\n S: 221");
        }
    }
}

/// The line on the delivery to a recipient, which is the first and last.
fn delivery(postfix: &Postfix<'_>, recipient: &str) -> String {
    let to = format!("to=<{recipient}>");
    let is_delivery = |line: &str| line.contains(&to) && line.contains(" status=");
    let line = postfix.wait_for_log(&to, is_delivery);
    assert_eq!(postfix.log().lines().filter(|line| is_delivery(line)).count(), 1, "{line}");
    line
}

/// Those that were not refused arrived once, with a signature by the author's domain where rspamd has a key for it.
fn assert_arrived(site: &Site<'_>) {
    let mut expected = Vec::new();
    for family in Family::ALL {
        for message in &MESSAGES {
            if message.refused.is_some() && family == Family::Ipv6 {
                continue;
            }
            let to = message.recipient(family);
            let stored = site.postfix.message_to(&to);
            let content = String::from_utf8_lossy(&stored.content).into_owned();
            let is_signed =
                content.contains("\nDKIM-Signature: ") || content.starts_with("DKIM-Signature: ");
            assert_eq!(is_signed, message.author.ends_with("@signer.example"), "{content}");
            expected.push(to);
        }
    }
    let mut arrived = site.postfix.recipients();
    arrived.sort();
    expected.sort();
    assert_eq!(arrived, expected);
}

/// Each message has a session in the log: over IPv6 with its evidence, over IPv4 without, as no rule concerns it.
fn assert_logged(log: &str) {
    let sessions: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line.get("verdict").is_some())
        .collect();
    assert_eq!(sessions.len(), MESSAGES.len() * 2, "{log}");
    for message in &MESSAGES {
        for family in Family::ALL {
            let to = message.recipient(family);
            let of_it = |session: &&Value| session["smtp"].to_string().contains(&to);
            let session = sessions.iter().find(of_it).unwrap_or_else(|| panic!("{to}: {log}"));
            assert_eq!(session["family"], family.to_string(), "{session:#}");
            let (verdict, fact) = (&session["verdict"], &session["facts"]["authenticated"]);
            if family == Family::Ipv4 {
                assert_eq!((&verdict["action"], fact), (&json!("accept"), &Value::Null), "{to}");
                continue;
            }
            assert_eq!(fact["detail"], message.evidence, "{to}");
            let reason = message.refused.map(|(_, _, reason)| reason);
            assert_eq!(verdict["reason"], json!(reason), "{to}: {verdict}");
            let action = if reason.is_some() { "reject" } else { "accept" };
            assert_eq!(verdict["action"], action, "{to}: {verdict}");
        }
    }
}

const SUBMISSION: &str = "127.0.0.1:25";
