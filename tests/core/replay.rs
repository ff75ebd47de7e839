//! `gatepost replay` on the command line: standard output, standard error and exit status.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gatepost::addr::Side;
use gatepost::source::{CaptureFile, PacketSource, PcapngWriter};
use gatepost::time::Timestamp;
use gatepost::wire::{LinkType, PacketNote, SyntheticConnection};
use serde_json::Value;

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/captures");
const ACCESS: [&str; 2] = ["--config", "access-rule/config.toml"];

struct Printed {
    out: String,
    err: String,
    success: bool,
}

/// Runs in `captures/`.
fn replay(arguments: &[&str]) -> Printed {
    read(command(arguments).output().unwrap())
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.arg("replay").args(arguments).current_dir(CAPTURES);
    command
}

fn read(output: Output) -> Printed {
    Printed {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        success: output.status.success(),
    }
}

fn json(printed: &Printed) -> Vec<Value> {
    printed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("gatepost-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, octets: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, octets).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn recording(case: &str) -> Vec<u8> {
    fs::read(Path::new(CAPTURES).join(case).join("input.pcap")).unwrap()
}

#[test]
fn standard_input_and_gzip_are_read_like_files() {
    let folder = Folder::new("replay-inputs");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&recording("dns")).unwrap();
    let packed = folder.file("dns.pcap.gz", &packed.finish().unwrap());

    let mut piped = command(&["-"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(&recording("dns")).unwrap();
    let piped = read(piped.wait_with_output().unwrap());

    // The first lines name the input.
    let rest = |printed: &Printed| printed.out.split_once("\n\n").unwrap().1.to_owned();
    let expected = replay(&["dns/input.pcap"]);
    assert!(expected.success && expected.out.contains("fell back to IPv4"), "{}", expected.out);
    assert_eq!(rest(&replay(&[&packed])), rest(&expected));
    assert_eq!(rest(&piped), rest(&expected));
}

/// As in a capture of a router on two of its interfaces.
#[test]
fn packets_captured_on_two_interfaces_count_once() {
    let folder = Folder::new("replay-interfaces");
    let (alone, both) = (folder.0.join("alone.pcap"), folder.0.join("both.pcapng"));
    fs::write(&alone, recording("plain-ipv6")).unwrap();
    let mut packets = CaptureFile::open(&alone).unwrap();
    let mut writer = None;
    while let Some(packet) = packets.next().unwrap() {
        let writer = writer.get_or_insert_with(|| {
            let file = fs::File::create(&both).unwrap();
            let mut writer = PcapngWriter::new(file, packet.link, 0, "inside").unwrap();
            assert_eq!(writer.interface(packet.link, 0, "outside").unwrap(), 1);
            writer
        });
        for interface in [0, 1] {
            writer.packet_of(interface, packet.at, packet.bytes, packet.wire_len, None).unwrap();
        }
    }
    writer.unwrap().finish().unwrap();
    let sessions = [alone, both].map(|path| {
        let mut session = json(&replay(&["--format", "json", path.to_str().unwrap()])).remove(0);
        session.as_object_mut().unwrap().remove("file").unwrap();
        session
    });
    assert_eq!(sessions[0]["tcp"]["retransmits"], 0);
    assert_eq!(sessions[1], sessions[0]);
}

#[test]
fn a_truncated_file_is_analyzed_and_reported() {
    let folder = Folder::new("replay-cut");
    let octets = recording("plain-ipv6");
    let cut = folder.file("cut.pcap", &octets[..octets.len() - 10]);

    let printed = replay(&[&cut]);
    assert!(!printed.success);
    assert!(printed.out.contains("quit, mta.sender.example, mail 1/1 250"), "{}", printed.out);
    assert!(printed.out.contains("cut.pcap ends within packet"), "{}", printed.out);

    let printed = replay(&["--format", "json", &cut]);
    let kinds: Vec<Value> = json(&printed).iter().map(|line| line["type"].clone()).collect();
    assert_eq!(kinds, ["damage", "session"]);
    assert!(
        !printed.success && printed.err.contains("cut.pcap ends within packet"),
        "{}",
        printed.err
    );
}

#[test]
fn an_unreadable_file_is_reported_and_the_others_are_read() {
    let folder = Folder::new("replay-none");
    let none = folder.file("notes.txt", b"no capture at all");
    let printed = replay(&[&none]);
    assert_eq!((printed.out.as_str(), printed.success), ("", false));
    assert!(printed.err.contains("notes.txt is not a pcap or pcapng file"), "{}", printed.err);

    let printed = replay(&[&none, "no/such.pcap", "plain-ipv4/input.pcap"]);
    assert!(!printed.success);
    assert!(printed.out.contains("mail 1/1 250"), "{}", printed.out);
    assert!(printed.err.contains("cannot open no/such.pcap"), "{}", printed.err);
}

#[test]
fn sessions_are_numbered_over_all_files() {
    let files = ["ipv6-refused/input.pcap", "plain-ipv4/input.pcap"];
    let lines = json(&replay(&[&["--format", "json"], files.as_slice()].concat()));
    let mut numbers: Vec<(u64, &str)> = lines
        .iter()
        .filter(|line| line["type"] == "session")
        .map(|line| (line["number"].as_u64().unwrap(), line["file"].as_str().unwrap()))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [(1, files[0]), (2, files[0]), (3, files[1])]);

    let third = replay(&[&["--session", "3"], files.as_slice()].concat());
    assert!(third.success && third.out.starts_with("#3 IPv4: 192.0.2.10"), "{}", third.out);
    assert!(third.out.contains("C: EHLO mta.sender.example"), "{}", third.out);
    let none = replay(&[&["--session", "4"], files.as_slice()].concat());
    assert!(!none.success && none.err.contains("there is no session 4"), "{}", none.err);
}

#[test]
fn facts_come_from_the_capture_then_the_zone_or_are_unknown() {
    let folder = Folder::new("replay-facts");
    let zone = folder.file(
        "facts.zone",
        b"$TTL 60\n\
          10.2.0.192.in-addr.arpa. IN PTR other.sender.example.\n\
          other.sender.example. IN A 192.0.2.99\n\
          mta.sender.example. IN A 192.0.2.10\n",
    );
    let facts = |more: &[&str], file: &str| {
        let printed = replay(&[&["--format", "json"], ACCESS.as_slice(), more, &[file]].concat());
        assert!(printed.success, "{}", printed.err);
        let sessions = json(&printed);
        let over_ipv4 = sessions.iter().find(|line| line["family"] == "ipv4").unwrap();
        over_ipv4["facts"].clone()
    };
    let short = |fact: &Value| {
        let word = |key: &str| fact[key].as_str().unwrap_or("-").to_owned();
        [word("state"), word("reason"), word("source")].join(" ")
    };
    let file = "access-rule/input.pcap";
    let unknown = facts(&[], file);
    assert_eq!(short(&unknown["reverse_name"]), "unknown no_resolver none");
    assert_eq!(short(&unknown["fcrdns"]), "unknown no_resolver none");

    let known = facts(&["--zone", &zone], file);
    assert_eq!(short(&known["reverse_name"]), "true - zone");
    assert_eq!(short(&known["fcrdns"]), "false not_confirmed zone");
    assert_eq!(short(&known["helo_resolves"]), "true - zone");

    // The DNS answers in the capture come first: the receiver looked up the client's name.
    let own = facts(&["--zone", &zone], "ptr-refused/input.pcap");
    assert_eq!(short(&own["reverse_name"]), "true - capture");

    let without_policy = json(&replay(&["--format", "json", file]));
    assert!(without_policy.iter().all(|line| line["facts"].is_null()));
}

#[test]
fn facts_are_unknown_without_a_working_resolver() {
    let printed = replay(
        &[&["--format", "json"], ACCESS.as_slice(), &["--dns", "[::1]:9", "plain-ipv6/input.pcap"]]
            .concat(),
    );
    assert!(printed.success, "{}", printed.err);
    let session = &json(&printed)[0];
    for fact in ["reverse_name", "fcrdns", "return_path"] {
        assert_eq!(session["facts"][fact]["state"], "unknown", "{fact}");
    }
    assert_eq!(session["verdict"]["action"], "reject");
    let wrong =
        replay(&[ACCESS.as_slice(), &["--dns", "x.example", "plain-ipv6/input.pcap"]].concat());
    assert!(
        !wrong.success && wrong.err.contains("expected the address of a DNS server"),
        "{}",
        wrong.err
    );
}

#[test]
fn metrics_are_those_of_the_live_endpoint() {
    let folder = Folder::new("replay-metrics");
    let file = folder.file("metrics.prom", b"");
    let printed =
        replay(&["--metrics-out", &file, "plain-ipv6/input.pcap", "plain-ipv4/input.pcap"]);
    assert!(printed.success, "{}", printed.err);
    let metrics = fs::read_to_string(&file).unwrap();
    for family in ["ipv4", "ipv6"] {
        for (series, value) in [
            (format!("gatepost_sessions_total{{family=\"{family}\",outcome=\"quit\"}}"), 1),
            (format!("gatepost_messages_total{{class=\"2xx\",family=\"{family}\"}}"), 1),
            (format!("gatepost_commands_total{{family=\"{family}\",verb=\"MAIL\"}}"), 1),
            (
                format!(
                    "gatepost_tcp_connections_total{{direction=\"in\",family=\"{family}\",outcome=\"established\"}}"
                ),
                1,
            ),
        ] {
            assert!(metrics.contains(&format!("\n{series} {value}\n")), "{series} in:\n{metrics}");
        }
    }

    let nowhere = replay(&["--metrics-out", "/no/such/folder/m", "plain-ipv4/input.pcap"]);
    assert!(
        !nowhere.success && nowhere.err.contains("cannot write /no/such/folder/m"),
        "{}",
        nowhere.err
    );
}

/// The last line; only runs with `--local` have it.
fn evidence(arguments: &[&str]) -> Value {
    let lines = json(&replay(&[&["--format", "json"], arguments].concat()));
    let (last, others) = lines.split_last().unwrap();
    assert!(others.iter().all(|line| line["type"] != "evidence"));
    assert_eq!(last["type"], "evidence", "{last}");
    last.clone()
}

#[test]
fn sessions_of_the_sender_prove_the_return_path() {
    let ours = ["--local", "192.0.2.0/24", "--local", "2001:db8:1::/48"];
    let sender = [ours.as_slice(), &["dns/input.pcap"]].concat();
    let found = evidence(&sender);
    assert_eq!(found, evidence(&sender), "a second run prints the same");

    let servers = found["return"]["destinations"].as_array().unwrap();
    assert_eq!(servers.len(), 1, "{servers:?}");
    assert_eq!(servers[0]["server"], "mx.receiver.example");
    assert_eq!(servers[0]["ipv6"]["state"], "no_response");
    assert_eq!(servers[0]["ipv6"]["no_response"]["count"], 1);
    assert_eq!(servers[0]["ipv4"]["state"], "answered");
    assert_eq!(found["return"]["ipv6"]["no_response"], 1);
    assert_eq!(found["return"]["ipv4"]["answered"], 1);
    assert!(found["receive"]["ipv4"]["last_connection"].is_null());

    // A session with a suspected black hole is no answer; a server without a name is listed by its address.
    let found = evidence(&[ours.as_slice(), &["pmtu-black-hole/input.pcap"]].concat());
    assert_eq!(found["return"]["ipv6"]["black_hole"], 1);
    assert_eq!(found["return"]["destinations_total"], 2);

    let printed = replay(&sender);
    let line = printed.out.lines().find(|line| line.starts_with("mx.receiver.example")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[1..4], ["no", "response", "responded"], "{line}");
}

#[test]
fn sessions_of_the_receiver_prove_the_receive_path() {
    let folder = Folder::new("replay-evidence");
    let metrics = folder.file("metrics.prom", b"");
    let ours = ["--local", "198.51.100.25", "--local", "2001:db8:2::/48"];
    let files = ["ipv6-unanswered/input.pcap", "plain-ipv4/input.pcap"];
    let found = evidence(&[ours.as_slice(), &["--metrics-out", &metrics], &files].concat());
    let [ipv4, ipv6] = ["ipv4", "ipv6"].map(|family| &found["receive"][family]);
    // One in each file.
    assert_eq!(ipv4["accepted"]["total"], 2);
    assert!(ipv4["last_accepted"].is_string());
    assert_eq!(ipv6["accepted"]["total"], 0);
    assert!(ipv6["last_accepted"].is_null() && ipv6["last_connection"].is_string(), "{ipv6}");
    assert_eq!(found["return"]["destinations_total"], 0);

    let metrics = fs::read_to_string(&metrics).unwrap();
    for series in [
        "gatepost_receive_path_last_accepted_timestamp_seconds{family=\"ipv6\"} 0",
        "gatepost_tcp_connections_total{direction=\"in\",family=\"ipv6\",outcome=\"unanswered\"} 1",
        "gatepost_ipv6_fallbacks_total{direction=\"in\",reason=\"unanswered\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == series), "{series} in:\n{metrics}");
    }

    let without_local = replay(&[&["--format", "json"], files.as_slice()].concat());
    assert!(json(&without_local).iter().all(|line| line["type"] != "evidence"));
    let wrong = replay(&["--local", "mx.example", files[0]]);
    assert!(!wrong.success && wrong.err.contains("192.0.2.0/24"), "{}", wrong.err);
}

/// The test changes port 25 of the recording to an unwatched one; the server's SMTP greeting identifies the session.
#[test]
fn smtp_on_other_ports_is_found_by_its_greeting_or_by_option() {
    let folder = Folder::new("replay-ports");
    let mut octets = recording("plain-ipv4");
    let mut changed = 0;
    for at in 0..octets.len() - 4 {
        // In this recording the octets 0, 25 next to an ephemeral port occur only in TCP headers.
        let ports = [octets[at], octets[at + 1], octets[at + 2], octets[at + 3]];
        let is_head = at >= 20 && octets[at - 20] == 0x45;
        if is_head && ports[..2] == [0, 25] {
            octets[at + 1] = 26;
            changed += 1;
        } else if is_head && ports[2..] == [0, 25] {
            octets[at + 3] = 26;
            changed += 1;
        }
    }
    assert!(changed > 10, "{changed}");
    let file = folder.file("renamed.pcap", &octets);
    let lines = json(&replay(&["--format", "json", &file]));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["server"]["port"], 26);
    assert_eq!(lines[0]["smtp"]["commands"]["QUIT"], 1);
    assert_eq!(json(&replay(&["--format", "json", "--port", "26", &file])), lines);
}

/// As in `gatepost replay … | head -1`.
#[test]
fn a_closed_pipe_is_no_failure() {
    let files = ["dns/input.pcap", "plain-ipv6/input.pcap"];
    let mut piped = command(&[&["--format", "json"], files.as_slice()].concat());
    let mut piped = piped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(piped.stdout.take());
    let ended = read(piped.wait_with_output().unwrap());
    assert_eq!((ended.err.as_str(), ended.success), ("", true));
}

#[test]
fn a_full_disk_is_reported() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(&["dns/input.pcap"]).stdout(full).output().unwrap();
    let printed = read(output);
    assert!(!printed.success);
    assert!(
        printed.err.starts_with("gatepost: cannot write to standard output; ")
            && printed.err.contains("No space left"),
        "{}",
        printed.err
    );
}

/// A session recorded by a gateway with policy rules, with or without the lookup results of its decision.
fn recorded_session(answers: Option<&str>) -> Vec<u8> {
    recorded_at(None, answers)
}

/// The same, accepted by the listener of that name.
fn recorded_at(listener: Option<&str>, answers: Option<&str>) -> Vec<u8> {
    let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "gatepost").unwrap();
    let (client, server) =
        ("[2001:db8:a::25]:40000".parse().unwrap(), "[2001:db8:b::25]:25".parse().unwrap());
    let mut connection = SyntheticConnection::new(client, server);
    let start = 1_767_323_045_000_000_000;
    let mut packets: Vec<(Timestamp, Vec<u8>, u32)> = Vec::new();
    let mut emit = |at, octets: &[u8], wire_len| packets.push((at, octets.to_vec(), wire_len));
    let at = |n: u64| Timestamp::from_nanos(start + n * 1_000_000);
    connection.open(at(0), &mut emit);
    let dialogue = "S: 220 mx.b.example\nC: EHLO mta.a.example\nS: 250 mx.b.example\n\
         C: MAIL FROM:<u@a.example>\nS: 250 2.1.0 ok\nC: RCPT TO:<bob@b.example>\n\
         S: 550 5.7.25 no name (rule \"named\")\nC: QUIT\nS: 221 bye";
    for (n, line) in (1..).zip(dialogue.lines()) {
        let (who, text) = line.split_at(3);
        let side = if who == "C: " { Side::Client } else { Side::Server };
        connection.send(side, format!("{text}\r\n").as_bytes(), at(n), &mut emit);
    }
    connection.close(Side::Server, at(20), &mut emit);
    let last = packets.len() - 1;
    for (n, (at, octets, wire_len)) in packets.iter().enumerate() {
        let comment = "gatepost: verdict=reject rule=\"named\" reason=fcrdns.no_ptr outcome=quit";
        let (note, comment) = match n {
            0 => (listener.map(PacketNote::Listener), None),
            n if n == last => (answers.map(PacketNote::Answers), Some(comment)),
            _ => (None, None),
        };
        match note {
            Some(note) => writer.packet_with_note(*at, octets, *wire_len, comment, note).unwrap(),
            None => writer.packet(*at, octets, *wire_len, None).unwrap(),
        }
    }
    writer.finish().unwrap()
}

const POLICY: &str = r#"
[listen]
addresses = ["[::1]:2525"]
[upstream]
addresses = ["[::1]:25"]
[[policy]]
name = "reachable"
require = [{ fact = "return_path", level = "smtp" }]
mode = "shadow"
[[policy]]
name = "named"
require = ["fcrdns"]
otherwise = "reject"
"#;

/// The listener of a captured session is the recorded one, or the one at its destination. Otherwise it is not known, and no
/// rule matches that names one.
#[test]
fn rules_on_listeners_are_evaluated_in_a_replay() {
    let folder = Folder::new("replay-listeners");
    let config = |mx: &str, submission: &str| {
        format!(
            "[[listener]]\nname = \"mx\"\naddresses = [\"{mx}\"]\n[[listener]]\nname = \"submission\"\naddresses = [\"{submission}\"]\n\
             [upstream]\naddresses = [\"[2001:db8:c::25]:25\"]\n\
             [[access]]\nname = \"access\"\nlisteners = [\"submission\"]\naction = \"tempfail\"\n\
             [[policy]]\nname = \"policy\"\nwhen = {{ listeners = [\"mx\"] }}\notherwise = \"reject\"\n"
        )
    };
    let (there, elsewhere) = ("[2001:db8:b::25]:25", "[2001:db8:b::26]:25");
    let wildcard = "[::]:25";
    for (n, (config, recorded, expected)) in [
        (config(there, elsewhere), None, Some("mx")),
        (config(elsewhere, there), None, Some("submission")),
        (config(there, wildcard), None, Some("mx")),
        (config(elsewhere, wildcard), None, Some("submission")),
        (config(elsewhere, "[2001:db8:b::25]:587"), None, None),
        (config(elsewhere, there), Some("mx"), Some("mx")),
        // Of an earlier configuration.
        (config(there, elsewhere), Some("internal"), Some("mx")),
    ]
    .into_iter()
    .enumerate()
    {
        let config = folder.file(&format!("{n}.toml"), config.as_bytes());
        let capture = folder.file(&format!("{n}.pcapng"), &recorded_at(recorded, None));
        let printed = replay(&["--config", &config, "--format", "json", &capture]);
        assert!(printed.success, "{}", printed.err);
        let session = &json(&printed)[0];
        assert_eq!(session["listener"], serde_json::json!(expected), "case {n}");
        let verdict = match expected {
            Some("mx") => serde_json::json!(["reject", "policy"]),
            Some(_) => serde_json::json!(["tempfail", "access"]),
            None => serde_json::json!(["accept", null]),
        };
        let found = serde_json::json!([session["verdict"]["action"], session["verdict"]["rule"]]);
        assert_eq!(found, verdict, "case {n}");
    }
}

/// A replay uses the recorded lookup results, not the current ones.
#[test]
fn recorded_answers_lead_to_the_recorded_verdict() {
    let folder = Folder::new("replay-answers");
    let config = folder.file("policy.toml", POLICY.as_bytes());
    let at = r#""2026-01-02T03:04:05.000007Z""#;
    let answers = format!(
        r#"[[{{"reverse":"2001:db8:a::25"}},{{"answer":"nx_domain","source":"dns","at":{at}}}],
            [{{"mail_exchanges":"a.example"}},{{"answer":{{"records":[{{"exchange":{{"preference":10,"host":"mx.a.example"}}}}]}},"source":"dns","at":null}}],
            [{{"addresses":["mx.a.example","ipv6"]}},{{"answer":"no_data","source":"dns","at":null}}],
            [{{"addresses":["mx.a.example","ipv4"]}},{{"answer":{{"records":[{{"address":"198.41.0.4"}}]}},"source":"dns","at":null}}],
            [{{"greet":"198.41.0.4"}},{{"answer":{{"no":["stalled",null]}},"source":"probe","at":null}}]]"#
    );
    let known = folder.file("known.pcapng", &recorded_session(Some(&answers)));
    let printed = replay(&["--config", &config, "--format", "json", &known]);
    assert!(printed.success, "{}", printed.err);
    let session = &json(&printed)[0];
    assert_eq!(
        session["verdict"],
        serde_json::json!({
            "action": "reject",
            "rule": "named",
            "reason": "fcrdns.no_ptr",
            "shadow": [
                {"rule": "reachable", "action": "tempfail", "reason": "return_path.established_but_stalled"}
            ],
        })
    );
    let fcrdns = &session["facts"]["fcrdns"];
    assert_eq!((&fcrdns["state"], &fcrdns["source"]), (&"false".into(), &"dns".into()));
    assert_eq!(fcrdns["at"].to_string(), at);
    let path = &session["facts"]["return_path"];
    assert_eq!(
        (&path["reason"], &path["source"]),
        (&"established_but_stalled".into(), &"probe".into())
    );
    assert_eq!(path["detail"], "mx.a.example 198.41.0.4");

    let text = replay(&["--config", &config, &known]).out;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = "#1 would be rejected (reject) by rule \"named\": \
         forward-confirmed reverse name: no PTR record (fcrdns.no_ptr)";
    assert!(text.contains(line), "{text}");

    // Without recorded results the facts are unknown, which never causes a 5xx.
    for (name, answers) in [("none", None), ("many", Some("omitted, 50000 octets"))] {
        let unknown = folder.file(name, &recorded_session(answers));
        let printed = replay(&["--config", &config, "--format", "json", &unknown]);
        let verdict = &json(&printed)[0]["verdict"];
        let found = (&verdict["action"], &verdict["reason"]);
        assert_eq!(found, (&"tempfail".into(), &"fcrdns.no_resolver".into()));
    }
}
