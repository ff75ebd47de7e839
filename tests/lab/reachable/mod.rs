//! Accept only if reachable: senders of every kind against rules of every kind, with the same verdict from a live gateway and
//! from a replay of its recording. Under TLS that the gateway ends the recording holds what was decrypted.

pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod path;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use crate::harness::tests;
use crate::record::record;
use crate::support::world::{ASKED, World, sender_ip};
use crate::support::{Entrance, Family, Gateway, Lab, Mode, Postfix, Process, Transport, port};
use serde_json::Value;
pub(crate) use table::{Case, RULES, cases};

tests![
    verdicts_are_as_listed_live_and_in_a_replay,
    verdicts_inside_tls_are_as_listed_live_and_in_a_replay,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Recipients that the upstream accepts, one that it rejects, and one that it defers.
pub(crate) const UPSTREAM: &str = "\
virtual_mailbox_domains = example.org, closed.example.org
smtpd_recipient_restrictions = check_recipient_access inline:{
  { nobody@example.org = 550 5.1.1 no such user },
  { later@example.org = 450 4.2.1 the mailbox is busy } }
";

fn verdicts_are_as_listed_live_and_in_a_replay() {
    verdicts_are_as_listed(Mode::Proxy, Transport::Plaintext);
}

fn verdicts_inside_tls_are_as_listed_live_and_in_a_replay() {
    verdicts_are_as_listed(Mode::Tproxy, Transport::OwnTls);
}

fn verdicts_are_as_listed(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let entrance = Entrance::new(&lab, mode, transport);
    let _world = World::new(&lab);
    let _upstream = Postfix::start(&lab, &lab.server, "upstream", None, UPSTREAM);
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, rules) in RULES {
        let cases: Vec<Case> = cases.iter().filter(|case| case.rules == name).copied().collect();
        let site = Site::open(&lab, &entrance, (name, rules), cases.len());
        let replies: Vec<(SocketAddr, Case, String)> = cases
            .into_iter()
            .map(|case| {
                let (client, reply) = site.send(&case);
                if !reply.starts_with(case.reply) {
                    wrong.push(format!("{case:?}\n    live: {reply}"));
                }
                (client, case, reply)
            })
            .collect();
        wrong.extend(site.close(&replies));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A gateway with some rules, and a recorder of its traffic.
struct Site<'lab> {
    lab: &'lab Lab,
    entrance: &'lab Entrance<'lab>,
    gateway: Gateway<'lab>,
    recorder: Process,
    config: std::path::PathBuf,
    capture: std::path::PathBuf,
}

impl<'lab> Site<'lab> {
    fn open(
        lab: &'lab Lab,
        entrance: &'lab Entrance<'lab>,
        (name, rules): (&str, &str),
        sessions: usize,
    ) -> Self {
        let name = name.replace(' ', "-");
        let config = entrance
            .config()
            // Recipients are verified there; the original destination of tproxy mode is the same server.
            .upstream_port(lab, port::SMTP)
            .for_crowds()
            .set("log", "format = \"json\"")
            .set("site", "addresses = [\"198.51.100.0/24\", \"2001:db8:2::/64\"]")
            .set("site", "domains = [\"example.org\"]")
            .set("lookup", &format!("dns = [\"{ASKED}\"]"))
            .set("lookup", "deadline = \"2s\"")
            // Shorter than the deadline, or a stalling server would be *unknown* in the first session.
            .set("lookup", "probe_timeout = \"1500ms\"")
            .policies(rules);
        let gateway = Gateway::start(lab, &config);
        let capture = lab.path(&format!("{name}.pcapng"));
        let file = lab.path(&format!("{name}.toml"));
        fs::write(&file, config.toml()).unwrap();
        let recorder = record(lab, &config, &capture, &["--count", &sessions.to_string()]);
        Self { lab, entrance, gateway, recorder, config: file, capture }
    }

    /// Returns the client's address and port, and the reply to RCPT in one line.
    fn send(&self, case: &Case) -> (SocketAddr, String) {
        let family = if case.family == "ipv6" { Family::Ipv6 } else { Family::Ipv4 };
        let from = sender_ip(case.client, family);
        let mut smtp = self.entrance.connect_from(from, family);
        let client = smtp.local_addr();
        let Case { helo, sender, recipient, .. } = case;
        smtp.dialogue(&format!(
            "S: 220\n C: EHLO {helo}\n S: 250\n C: MAIL FROM:<{sender}>\n S: 250"
        ));
        let reply = smtp.ask(&format!("RCPT TO:<{recipient}>"));
        smtp.dialogue("C: QUIT\n S: 221");
        (client, format!("{} {}", reply.code, reply.lines.join(" / ")))
    }

    /// The differences between the gateway's log, the replies, and a replay of the recording.
    fn close(mut self, replies: &[(SocketAddr, Case, String)]) -> Vec<String> {
        assert!(self.recorder.wait().success(), "{}", self.recorder.log());
        self.gateway.terminate();
        self.gateway.wait();
        let live = verdicts(&self.gateway.log());
        let config = self.config.to_str().unwrap();
        let capture = self.capture.to_str().unwrap();
        let words = [GATEPOST, "replay", "--config", config, "--format", "json", capture];
        let replayed = verdicts(&self.lab.gateway.run(words));
        let mut wrong = Vec::new();
        for (client, case, reply) in replies {
            let (live, replayed) = (live.get(client), replayed.get(client));
            if live.is_none() || live != replayed {
                wrong.push(format!("{case:?}\n    live: {live:?}\n    replayed: {replayed:?}"));
            }
            let wanted = match reply.as_bytes().first() {
                Some(b'4') => "tempfail",
                Some(b'5') => "reject",
                _ => "accept",
            };
            if live.is_some_and(|verdict| verdict["action"] != wanted) {
                wrong.push(format!("{case:?}\n    answered: {reply}\n    verdict: {live:?}"));
            }
        }
        wrong
    }
}

/// The verdicts in lines of JSON, by the client's address and port.
fn verdicts(lines: &str) -> BTreeMap<SocketAddr, Value> {
    let objects = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects
        .filter_map(|session| {
            let client = &session["client"];
            let address = client["address"].as_str()?.parse().ok()?;
            let port = client["port"].as_u64()?.try_into().ok()?;
            Some((SocketAddr::new(address, port), session["verdict"].clone()))
        })
        .collect()
}
