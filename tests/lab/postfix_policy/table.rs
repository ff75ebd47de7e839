//! The table of verdicts, asked for by Postfix and by the relay of the same gateway.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{asking, lines_with, socket, unix_line};
use crate::harness::tests;
use crate::reachable::{Case, RULES, UPSTREAM, cases};
use crate::support::world::{ASKED, World, sender_ip};
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Smtp, port};
use serde_json::Value;

tests![postfix_has_the_verdicts_of_the_relay, the_documented_lines_are_all_it_takes,];

/// Beside Postfix, which has port 25.
pub(super) const RELAY: u16 = 2525;

fn postfix_has_the_verdicts_of_the_relay() {
    let lab = Lab::new();
    let _world = World::new(&lab);
    let _upstream = Postfix::start(&lab, &lab.server, "upstream", None, UPSTREAM);
    let path = socket(&lab, "asking");
    // Longer than the gateway waits for a server that is silent.
    let line = "smtpd_recipient_restrictions = check_policy_service { unix:private/gatepost, timeout=20s }\n";
    let _asking = asking(&lab, "asking", line);
    let cases = cases();
    assert!(cases.len() >= 81, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, rules) in RULES {
        let config = Config::new(&lab, Mode::Proxy)
            .listen(&Family::ALL.map(|family| SocketAddr::new(lab.gateway_ip(family), RELAY)))
            .upstream_port(&lab, port::SMTP)
            .for_crowds()
            .set("log", "format = \"json\"")
            .set("site", "addresses = [\"198.51.100.0/24\", \"2001:db8:2::/64\"]")
            .set("site", "domains = [\"example.org\"]")
            .set("lookup", &format!("dns = [\"{ASKED}\"]"))
            .set("lookup", "deadline = \"2s\"")
            .set("lookup", "probe_timeout = \"1500ms\"")
            .set("postfix", &format!("policy = \"unix:{}\"", path.display()))
            .set("postfix", "policy_deadline = \"15s\"")
            .policies(rules);
        let mut gateway = Gateway::start(&lab, &config);
        let mut pairs = Vec::new();
        for case in cases.iter().filter(|case| case.rules == name) {
            // First Postfix's, so that its verdict does not come from what the relay has found out.
            let (by_postfix, reply) = send(&lab, case, port::SMTP);
            let (by_relay, inline) = send(&lab, case, RELAY);
            let same = reply.get(..1) == inline.get(..1)
                && (reply.starts_with('2') || enhanced(&reply) == at_recipient(&inline));
            if !same || !inline.starts_with(case.reply) || text(&inline) != text(&reply) {
                wrong.push(format!("{case:?}\n    inline: {inline}\n    Postfix: {reply}"));
            }
            pairs.push((case, by_postfix, by_relay));
        }
        gateway.terminate();
        gateway.wait();
        let verdicts = verdicts(&gateway.log());
        for (case, by_postfix, by_relay) in pairs {
            let (one, other) =
                (verdicts.get(&(by_postfix, port::SMTP)), verdicts.get(&(by_relay, RELAY)));
            if one.is_none() || one != other {
                wrong.push(format!("{case:?}\n    inline: {other:?}\n    Postfix: {one:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Returns the client's address and port, and the reply to RCPT in one line.
fn send(lab: &Lab, case: &Case, port: u16) -> (SocketAddr, String) {
    let family = if case.family == "ipv6" { Family::Ipv6 } else { Family::Ipv4 };
    let to = SocketAddr::new(lab.gateway_ip(family), port);
    let mut smtp: Smtp = lab.client.smtp_from(sender_ip(case.client, family), to);
    let client = smtp.local_addr();
    let Case { helo, sender, recipient, .. } = case;
    smtp.dialogue(&format!("S: 220\n C: EHLO {helo}\n S: 250\n C: MAIL FROM:<{sender}>\n S: 250"));
    let reply = smtp.ask(&format!("RCPT TO:<{recipient}>"));
    smtp.dialogue("C: QUIT\n S: 221");
    (client, format!("{} {}", reply.code, reply.lines.join(" / ")))
}

/// `5.7.25`
pub(super) fn enhanced(reply: &str) -> Option<String> {
    reply.split(' ').nth(1).map(str::to_owned)
}

/// Postfix replaces a code about the sender's address where it rejects a recipient (smtpd_dsn_fix).
fn at_recipient(inline: &str) -> Option<String> {
    enhanced(inline).map(|code| code.replace(".1.8", ".1.2").replace(".1.7", ".1.3"))
}

/// The gateway's text of a refusal: Postfix writes its own before it.
pub(super) fn text(reply: &str) -> Option<&str> {
    let refusal = Some(reply).filter(|reply| reply.starts_with(['4', '5']))?;
    let by_postfix = [": Recipient address rejected: ", ": End-of-data rejected: "];
    let by_postfix = by_postfix.into_iter().find_map(|before| refusal.split_once(before));
    by_postfix.map(|(_, text)| text).or_else(|| refusal.splitn(3, ' ').last())
}

/// The verdicts in lines of JSON, by the client's address and port and the server's port: a client's port may serve for both.
pub(super) fn verdicts(log: &str) -> BTreeMap<(SocketAddr, u16), Value> {
    let sessions = lines_with(log, "verdict").into_iter().filter_map(|session| {
        let port = |side: &str| u16::try_from(session[side]["port"].as_u64()?).ok();
        let client = session["client"]["address"].as_str()?.parse().ok()?;
        let client = SocketAddr::new(client, port("client")?);
        Some(((client, port("server")?), session["verdict"].clone()))
    });
    sessions.collect()
}

/// The configuration and the line of main.cf of the chapter, with another path.
fn the_documented_lines_are_all_it_takes() {
    let lab = Lab::new();
    let world = World::new(&lab);
    let path = socket(&lab, "documented");
    let postfix = asking(&lab, "documented", &unix_line());
    let toml = super::documented("toml", "unix:/var/spool/postfix/private/gatepost");
    let toml = toml.replace("/var/spool/postfix/private/gatepost", path.to_str().unwrap());
    let config = Config::new(&lab, Mode::Proxy)
        .without("listen")
        .without("upstream")
        .set("lookup", &format!("dns = [\"{ASKED}\"]"))
        .policies(&toml);
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("ready: answering Postfix on unix:/");
    let send = |client: &str| {
        let to = SocketAddr::new(lab.gateway_ip(Family::Ipv6), port::SMTP);
        let mut smtp = lab.client.smtp_from(sender_ip(client, Family::Ipv6), to);
        smtp.dialogue(
            "S: 220\n C: EHLO good.client.example\n S: 250\n C: MAIL FROM:<u@good.sender.example>\n S: 250
            C: RCPT TO:<\"b c\"@example.org>\n S: 250\n C: RCPT TO:<someone@example.org>\n S: 250",
        );
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
    };
    // In shadow mode nothing is refused, and Postfix logs what would have been, once for the message.
    send("good");
    send("missing");
    let warning = "gatepost would tempfail: rule \"clients have a confirmed name\" in shadow mode (fcrdns.no_ptr)";
    postfix.wait_for_log("the warning", |line| line.contains(warning));
    let line = gateway.wait_for_log("shadow=\"tempfail by clients have a confirmed name");
    assert!(line.contains("to=<\\x22b\\x20c\\x22@example.org>,<someone@example.org>"), "{line}");
    assert_eq!(postfix.log().matches("gatepost would").count(), 1);
    assert_eq!(gateway.metric("gatepost_policy_questions_total", &["action=\"warn\""]), 1.0);
    assert_eq!(gateway.metric("gatepost_policy_questions_total", &["action=\"dunno\""]), 3.0);
    drop(world);
}
