//! Sessions through a running gatepost, recorded on the client's side of it.

use std::fs;

use crate::harness::tests;
use serde_json::Value;

use super::super::cases::case;
use super::super::expectation::{CONFIG, values};
use super::super::recorder::{Recorder, SMTP};
use crate::support::sites::{Sender, lab, receiver};
use crate::support::{Config, Family, Gateway, Lab, Mode, PolicyGate};

tests![
    OnRequest:
        upstream_lost,
        access_rule
];

/// The receiver dies after it has received the final dot, before its reply.
fn upstream_lost() {
    let lab = lab();
    let gate = PolicyGate::open(lab.path("policy"));
    let main_cf = format!("smtpd_end_of_data_restrictions = {}\n", gate.restriction());
    let receiver = receiver(&lab, &main_cf);
    let _gateway = Gateway::start(&lab, &config(&lab));
    let entrance = lab.entrance(Mode::Proxy, Family::Ipv6);
    let sender = Sender::to(&lab, &[("receiver.example", entrance)]);
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    let recipient = sender.submit(&["bob@receiver.example"], 400);
    let question = gate.question();
    receiver.kill_sessions();
    drop(question);
    sender.wait_for(&recipient, "deferred");
    case("upstream-lost").write(&recorder.stop());
}

/// A rule rejects the sender over IPv6; the gateway's verdicts are stored beside the recording.
fn access_rule() {
    let lab = lab();
    let _receiver = receiver(&lab, "");
    let config = config(&lab).set("log", "format = \"json\"").rule(
        "name = \"no mail over IPv6 from there\"\n\
         family = \"ipv6\"\n\
         networks = [\"2001:db8:1::/64\"]\n\
         action = \"reject\"",
    );
    let gateway = Gateway::start(&lab, &config);
    let entrance = |family| lab.entrance(Mode::Proxy, family);
    let [bob, carol] = ["bob@receiver.example", "carol@receiver.example"];
    let sender =
        Sender::to(&lab, &[(bob, entrance(Family::Ipv4)), (carol, entrance(Family::Ipv6))]);
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    sender.send(&[bob], 400, "sent");
    sender.send(&[carol], 400, "bounced");
    let recording = recorder.stop();

    let log = gateway.log();
    let sessions: Vec<&str> =
        log.lines().filter(|line| line.starts_with("{\"type\":\"session\"")).collect();
    let live: String = sessions.iter().map(|line| format!("{line}\n")).collect();
    let actions: Vec<Value> =
        values(&live).iter().map(|session| session["verdict"]["action"].clone()).collect();
    assert_eq!(actions, ["accept", "reject"], "{log}");

    let case = case("access-rule");
    fs::create_dir_all(case.folder()).unwrap();
    fs::write(case.folder().join(CONFIG), config.toml()).unwrap();
    fs::write(case.folder().join("live.json"), live).unwrap();
    case.write(&recording);
}

fn config(lab: &Lab) -> Config {
    Config::new(lab, Mode::Proxy).set("smtp", "hostname = \"mx.receiver.example\"")
}
