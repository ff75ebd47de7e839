//! A capture re-sent through a live gateway, with the recorded server behind it, gets the verdicts of an offline replay;
//! without a refusal it gets the recorded replies.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::tests;
use crate::record::record;
use crate::support::{
    Config, Entrance, Family, Gateway, Lab, Mode, Postfix, Transport, port, until,
};
use serde_json::Value;

tests![
    an_open_gateway_answers_as_recorded,
    access_rules_give_the_same_verdicts,
    pregreet_and_bare_newlines_give_the_same_verdicts,
    a_real_server_answers_as_recorded_over_either_family,
    a_recipient_that_no_longer_exists_is_a_difference,
    sessions_that_cannot_be_sent_again_are_skipped_with_the_reason,
    sessions_recorded_inside_tls_are_sent_again_inside_tls,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/captures");
/// The gateway's listeners and its upstream, on the gateway host's loopback.
const GATEWAY: [&str; 2] = ["[::1]:2525", "127.0.0.1:2525"];
const UPSTREAM: &str = "[::1]:2626";

/// A gateway that trusts PROXY headers from its own host.
fn config(lab: &Lab) -> Config {
    Config::new(lab, Mode::Proxy)
        .listen(&GATEWAY.map(|address| address.parse().unwrap()))
        .upstreams(&[UPSTREAM.parse().unwrap()])
        .trusting()
        .set("proxy_protocol", "trusted = [\"::1/128\", \"127.0.0.0/8\"]")
        .set("log", "format = \"json\"")
}

/// Every recording of the repository, by name.
fn recordings() -> Vec<PathBuf> {
    let folders = fs::read_dir(CAPTURES).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        folders.map(|folder| folder.join("input.pcap")).filter(|file| file.exists()).collect();
    files.sort();
    assert!(files.len() >= 15, "{files:?}");
    files
}

fn json(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The sessions of `lines`, by client and verdict.
fn sessions(lines: &[Value]) -> impl Iterator<Item = &Value> {
    lines.iter().filter(|line| line["type"] == "session")
}

fn recording(name: &str) -> PathBuf {
    Path::new(CAPTURES).join(name).join("input.pcap")
}

/// Re-sends recordings through a gateway with that configuration and compares verdicts. Returns the verdicts compared, as
/// `action/reason`.
fn verdicts_agree(lab: &Lab, config: &Config, recordings: &[PathBuf]) -> Vec<String> {
    let file = lab.path("policy.toml");
    fs::write(&file, config.toml()).unwrap();
    let gateway = Gateway::start(lab, config);
    let mut compared = Vec::new();
    for recording in recordings {
        let name = recording.display();
        let offline = replay(lab, recording, &["--config", file.to_str().unwrap()]);
        let again = again(lab, recording);
        for performed in again.iter().filter(|line| line["to"].is_string()) {
            let offline =
                sessions(&offline).find(|session| session["number"] == performed["number"]);
            let offline = offline.unwrap_or_else(|| panic!("{name}: {performed}"));
            let live =
                until(format_args!("{name}: {} in the gateway's log", offline["client"]), || {
                    let log = json(&gateway.log());
                    sessions(&log)
                        .filter(|live| live["client"] == offline["client"])
                        .last()
                        .cloned()
                });
            assert_eq!(live["verdict"], offline["verdict"], "{name}: {performed}");
            let verdict = &live["verdict"];
            let reason = verdict["reason"].as_str().unwrap_or("-");
            compared.push(format!("{}/{reason}", verdict["action"].as_str().unwrap()));
        }
    }
    compared
}

fn replay(lab: &Lab, recording: &Path, arguments: &[&str]) -> Vec<Value> {
    let file = recording.to_str().unwrap();
    let command = [&[GATEPOST, "replay", "--format", "json"], arguments, &[file]].concat();
    // Its exit status reports differences, which these tests inspect themselves.
    let output = lab.gateway.output(&command);
    json(&String::from_utf8_lossy(&output.stdout))
}

/// One JSON line for each session of the recording.
fn again(lab: &Lab, recording: &Path) -> Vec<Value> {
    let [ipv6, ipv4] = GATEWAY;
    let act = ["--target", ipv6, "--target", ipv4, "--serve-upstream", UPSTREAM, "--proxy-header"];
    replay(lab, recording, &act)
}

fn count(verdicts: &[String], wanted: &str) -> usize {
    verdicts.iter().filter(|verdict| *verdict == wanted).count()
}

fn an_open_gateway_answers_as_recorded() {
    let lab = Lab::new();
    let _gateway = Gateway::start(&lab, &config(&lab));
    let mut replies = 0;
    for recording in recordings() {
        let name = recording.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        for performed in again(&lab, &recording) {
            replies += performed["replies"].as_u64().unwrap_or(0);
            let differences = performed["differences"].as_array().cloned().unwrap_or_default();
            // There the gateway differs on purpose: one message instead of two.
            if name != "smuggling" {
                assert_eq!(differences, [Value::Null; 0], "{name}");
            }
        }
    }
    assert!(replies > 100, "{replies}");
}

fn access_rules_give_the_same_verdicts() {
    let lab = Lab::new();
    let config = config(&lab)
        .rule("name = \"documentation\"\nnetworks = [\"2001:db8:1::/48\"]\naction = \"reject\"")
        .rule("name = \"later\"\nfamily = \"ipv4\"\naction = \"tempfail\"");
    let verdicts = verdicts_agree(&lab, &config, &recordings());
    assert!(count(&verdicts, "reject/access_reject") >= 5, "{verdicts:?}");
    assert!(count(&verdicts, "tempfail/access_tempfail") >= 5, "{verdicts:?}");
}

fn pregreet_and_bare_newlines_give_the_same_verdicts() {
    let lab = Lab::new();
    let config =
        config(&lab).set("smtp", "pregreet = \"reject\"").set("smtp", "bare_newlines = \"reject\"");
    let verdicts = verdicts_agree(&lab, &config, &recordings());
    assert!(count(&verdicts, "accept/-") >= 5, "{verdicts:?}");
    assert!(count(&verdicts, "reject/pregreet") >= 1, "{verdicts:?}");
    assert!(count(&verdicts, "reject/bare_newline") >= 1, "{verdicts:?}");
}

/// The output of replay, and whether every reply was as recorded.
fn reenact(lab: &Lab, recording: &Path, arguments: &[&str]) -> (String, bool) {
    let [ipv6, ipv4] = [Family::Ipv6, Family::Ipv4]
        .map(|family| lab.server_socket(family, port::SMTP).to_string());
    let against = [GATEPOST, "replay", "--target", &ipv6, "--target", &ipv4];
    let file = recording.to_str().unwrap();
    let output = lab.client.output([&against, arguments, &[file]].concat());
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

fn a_real_server_answers_as_recorded_over_either_family() {
    let lab = Lab::new();
    let domain = "virtual_mailbox_domains = receiver.example\n";
    let _receiver = Postfix::start(&lab, &lab.server, "receiver", None, domain);
    let [ipv6, ipv4] =
        [Family::Ipv6, Family::Ipv4].map(|family| lab.server_socket(family, port::SMTP));
    for (name, arguments, to) in [
        ("plain-ipv6", &[][..], ipv6),
        ("plain-ipv4", &["--pace", "recorded"], ipv4),
        ("plain-ipv6", &["--family", "ipv4"], ipv4),
        ("plain-ipv4", &["--family", "ipv6"], ipv6),
        ("bdat", &[], ipv6),
    ] {
        let (printed, same) = reenact(&lab, &recording(name), arguments);
        assert!(same && printed.starts_with(&format!("#1 to {to}: ")), "{arguments:?}: {printed}");
        assert!(printed.ends_with(" replies, as recorded\n"), "{arguments:?}: {printed}");
    }
}

fn a_recipient_that_no_longer_exists_is_a_difference() {
    let lab = Lab::new();
    let users = "virtual_mailbox_domains = receiver.example\n\
                 virtual_mailbox_maps = inline:{ carol@receiver.example=carol }\n";
    let _receiver = Postfix::start(&lab, &lab.server, "receiver", None, users);
    let (printed, same) = reenact(&lab, &recording("plain-ipv6"), &[]);
    assert!(!same, "{printed}");
    let recipient = printed.split("    RCPT TO:<bob@receiver.example>").nth(1);
    let answers = recipient.unwrap_or_else(|| panic!("{printed}"));
    assert!(answers.contains("recorded: 250 2.1.5"), "{printed}");
    assert!(answers.contains("now:      550 5.1.1"), "{printed}");
}

fn sessions_that_cannot_be_sent_again_are_skipped_with_the_reason() {
    let lab = Lab::new();
    let _gateway = Gateway::start(&lab, &config(&lab));
    let left = |name: &str| -> Vec<(u64, String)> {
        let performed = again(&lab, &recording(name));
        let reason = |line: &Value| {
            let why = if line["to"].is_null() { &line["skipped"] } else { &line["cut_short"] };
            (line["number"].as_u64().unwrap(), why.as_str().unwrap_or("-").to_owned())
        };
        let mut left: Vec<_> = performed.iter().map(reason).collect();
        left.sort();
        left
    };
    for (name, number, why) in [
        ("holes", 1, "the capture has gaps in it"),
        ("holes", 2, "the capture has gaps in it"),
        ("one-direction", 1, "the capture has gaps in it"),
        ("ipv6-unanswered", 1, "the session has no greeting and no command"),
        ("ipv6-unanswered", 2, "-"),
        ("pmtu-black-hole", 1, "the capture holds no answer to what follows"),
        ("starttls", 1, "what follows STARTTLS is encrypted"),
    ] {
        let left = left(name);
        assert!(left.contains(&(number, why.to_owned())), "{name}: {left:?}");
    }
}

/// A recording of what was decrypted leads a client through STARTTLS again: to the recorded replies and the same verdicts, and
/// to no word in plaintext where there is no TLS.
fn sessions_recorded_inside_tls_are_sent_again_inside_tls() {
    const RULE: &str = "[[policy]]\nname = \"not from there\"\notherwise = \"reject\"\n\
                        when = { sender = [\"blocked.example\"] }\n";
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let recording = lab.path("inside-tls.pcapng");
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::OwnTls);
    record_inside_tls(&lab, &entrance, RULE, &recording);

    let config = entrance.tls().configure(config(&lab)).policies(RULE);
    let verdicts = verdicts_agree(&lab, &config, std::slice::from_ref(&recording));
    assert_eq!(count(&verdicts, "reject/-"), 2, "{verdicts:?}");
    let gateway = Gateway::start(&lab, &config);
    let again = again(&lab, &recording);
    assert_eq!(again.len(), 2, "{again:?}");
    for performed in &again {
        assert_eq!(performed["differences"].as_array().unwrap(), &[Value::Null; 0], "{performed}");
        assert!(performed["cut_short"].is_null(), "{performed}");
        assert_eq!(performed["replies"], 14, "{performed}");
    }
    until("two sessions under TLS in the gateway's log", || {
        let log = json(&gateway.log());
        let inside_tls = sessions(&log).filter(|session| session["smtp"]["tls"] == "established");
        (inside_tls.count() == 2).then_some(())
    });

    let (printed, same) = reenact(&lab, &recording, &[]);
    assert!(
        !same && printed.contains("the server starts no TLS and the capture does"),
        "{printed}"
    );
    assert_eq!(postfix.recipients().len(), 2, "only the messages of the recording itself");
}

/// Records a session of each family with a recipient that the policy rejects, a message, and a recipient that Postfix rejects.
fn record_inside_tls(lab: &Lab, entrance: &Entrance<'_>, rule: &str, recording: &Path) {
    let config = entrance.config().policies(rule);
    let gateway = Gateway::start(lab, &config);
    let mut recorder = record(lab, &config, recording, &["--count", "2"]);
    for family in Family::ALL {
        let mut smtp = entrance.connect(family);
        smtp.dialogue(
            "C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<a@blocked.example>
             S: 250
             C: RCPT TO:<b@example.org>
             S: 550 5.7.1
             C: RSET
             S: 250
             C: MAIL FROM:<a@allowed.example>
             S: 250
             C: RCPT TO:<b@example.org>
             S: 250",
        );
        assert_eq!(smtp.data(b"Subject: one\r\n\r\n.dots\r\n..\r\n").code, 250);
        smtp.dialogue(
            "C: MAIL FROM:<a@allowed.example>\n S: 250\n C: RCPT TO:<unknown@example.net>\n S: 554",
        );
        smtp.dialogue("C: QUIT\n S: 221");
        gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
    }
    assert!(recorder.wait().success(), "{}", recorder.log());
}
