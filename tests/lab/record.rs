//! `gatepost record`: tshark reads the traffic of a running gateway from the file, with the verdicts; a redacted file has no
//! personal data; and no failure of the recorder affects mail.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Process, Smtp};
use nix::sys::signal::Signal;

tests![
    tshark_reads_sessions_and_verdicts,
    a_redacted_file_has_no_personal_data_and_keeps_lengths_and_times,
    spliced_octets_are_counted_and_with_content_they_are_there,
    mail_goes_on_when_a_recorder_is_killed_and_sockets_of_killed_gateways_are_replaced,
    a_slow_recorder_does_not_slow_mail_and_reports_its_gaps,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// The recorder's message when it is attached.
const RECORDING: &str = "gatepost: recording new sessions";

fn tshark_reads_sessions_and_verdicts() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let listed: IpAddr = "203.0.113.9".parse().unwrap();
    lab.add_client_ip(listed);
    let config = Config::new(&lab, Mode::Tproxy).rule(
        "name = \"no mail from there\"\nnetworks = [\"203.0.113.0/24\"]\naction = \"reject\"",
    );
    let _gateway = Gateway::start(&lab, &config);
    let file = lab.path("plain.pcapng");
    let mut recorder = record(&lab, &config, &file, &["--count", "3"]);

    for family in Family::ALL {
        swaks(&lab, Mode::Tproxy, family);
        postfix.message_to(&format!("{family}@example.org"));
    }
    let entrance = lab.entrance(Mode::Tproxy, Family::Ipv4);
    let mut refused = lab.client.smtp_from(listed, entrance);
    refused.dialogue(
        "S: 220
         C: EHLO client.example.net
         S: 250
         C: MAIL FROM:<sender@example.net>
         S: 250
         C: RCPT TO:<receiver@example.org>
         S: 550 5.7.1 no mail from there
         C: QUIT
         S: 221",
    );
    drop(refused);
    assert!(recorder.wait().success());
    let stderr = recorder.log();
    assert!(stderr.contains("3 sessions written (0 incomplete)"), "{stderr}");
    assert!(!stderr.contains("omitted"), "{stderr}");

    let accepted = "220 250 250 250 354 250 221";
    let codes = by_client(&file, "smtp.response", "smtp.response.code");
    let commands = by_client(&file, "smtp.req", "smtp.req.command");
    for family in Family::ALL {
        let client = lab.client_ip(family);
        assert_eq!(distinct(&codes[&client]), distinct(accepted), "{family}");
        assert_eq!(commands[&client], "EHLO MAIL RCPT DATA QUIT", "{family}");
    }
    assert_eq!(commands[&listed], "EHLO MAIL RCPT QUIT");
    assert!(codes[&listed].contains("550"), "{codes:?}");

    let comments = by_client(&file, "frame.comment", "frame.comment");
    for family in Family::ALL {
        let comment = &comments[&lab.client_ip(family)];
        let expected = "gatepost-listener: default gatepost: verdict=accept outcome=quit";
        assert_eq!(comment, expected, "{family}");
    }
    assert_eq!(
        comments[&listed],
        "gatepost-listener: default gatepost: verdict=reject rule=\"no mail from there\" reason=access_reject \
         outcome=quit"
    );
    assert_eq!(tshark(&file, "tcp.analysis.lost_segment || _ws.malformed", &["frame.number"]), "");
    // The recording has the client's original destination.
    let servers =
        tshark(&file, "tcp.flags.syn == 1 && tcp.flags.ack == 0", &["ip.dst", "ipv6.dst"]);
    for family in Family::ALL {
        assert!(servers.contains(&lab.server_ip(family).to_string()), "{servers}");
    }
    let content = tshark(&file, "smtp || imf", &["imf.subject"]);
    assert!(content.contains("a secret subject"), "{content}");
}

/// Two recorders of the same sessions: the redacted file lacks what it must not have, and both have the same lengths and
/// times.
fn a_redacted_file_has_no_personal_data_and_keeps_lengths_and_times() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy);
    let _gateway = Gateway::start(&lab, &config);
    let (plain, redacted) = (lab.path("plain.pcapng"), lab.path("redacted.pcapng"));
    let mut recorders = [
        record(&lab, &config, &plain, &["--count", "4"]),
        record(&lab, &config, &redacted, &["--count", "4", "--redact"]),
    ];
    for family in Family::ALL {
        swaks(&lab, Mode::Proxy, family);
        postfix.message_to(&format!("{family}@example.org"));
        let mut chunked = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        chunked.begin("sender@example.net", "receiver@example.org");
        chunked.raw(b"BDAT 27 LAST\r\nSubject: x\r\n\r\nchunked text\r").unwrap();
        chunked.dialogue("S: 250\n C: QUIT\n S: 221");
    }
    assert!(recorders.iter_mut().all(|recorder| recorder.wait().success()));
    let stderr = recorders[1].log();
    assert!(stderr.contains("bytes omitted by --redact"), "{stderr}");

    for kept in [&b"MAIL FROM:<"[..], b"@example.org>", b"verdict=accept"] {
        assert!(holds(&redacted, kept), "{} is gone", kept.escape_ascii());
    }
    let mut secrets: Vec<Vec<u8>> =
        ["sender", "receiver", "ipv4@", "ipv6@", "secret", "chunked text"]
            .map(|text| text.as_bytes().to_vec())
            .into();
    for family in Family::ALL {
        for ip in [lab.client_ip(family), lab.gateway_ip(family)] {
            secrets.push(ip.to_string().into_bytes());
            secrets.push(match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            });
        }
    }
    for secret in secrets {
        assert!(!holds(&redacted, &secret), "{} is in the file", secret.escape_ascii());
    }
    assert_eq!(tshark(&redacted, "_ws.malformed", &["frame.number"]), "");
    // tshark itself desynchronises after BDAT, in either file.
    let known = "smtp.req.command in {\"EHLO\", \"MAIL\", \"RCPT\", \"DATA\"}";
    let commands = |file| tshark(file, known, &["smtp.req.command"]);
    assert_eq!(commands(&redacted), commands(&plain));
    assert_eq!(octets_by_time(&redacted), octets_by_time(&plain));

    let addresses = clients(&redacted);
    assert_eq!(addresses.len(), 2, "{addresses:?}");
}

fn spliced_octets_are_counted_and_with_content_they_are_there() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy);
    let gateway = Gateway::start(&lab, &config);
    let message = format!("Subject: x\r\n\r\n{}", "spliced text\r\n".repeat(400_000));
    let words = |name: &str, options: &[&str]| {
        let file = lab.path(&format!("{name}.pcapng"));
        let mut recorder = record(&lab, &config, &file, options);
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6));
        smtp.begin("sender@example.net", &format!("{name}@example.org"));
        smtp.raw(format!("BDAT {} LAST\r\n{message}", message.len()).as_bytes()).unwrap();
        smtp.dialogue("S: 250\n C: QUIT\n S: 221");
        drop(smtp);
        postfix.message_to(&format!("{name}@example.org"));
        assert!(recorder.wait().success());
        let total: u64 = octets_by_time(&file).values().sum();
        assert!(total > message.len() as u64, "{total}");
        (recorder.log(), fs::metadata(&file).unwrap().len())
    };
    let (stderr, _) = words("unseen", &["--count", "1"]);
    assert!(stderr.contains("bytes omitted that the gateway did not inspect"), "{stderr}");
    let (stderr, length) = words("content", &["--count", "1", "--content"]);
    assert!(!stderr.contains("unseen"), "{stderr}");
    assert!(length > message.len() as u64 || stderr.contains("too slow"), "{length}: {stderr}");
    drop(gateway);
}

fn mail_goes_on_when_a_recorder_is_killed_and_sockets_of_killed_gateways_are_replaced() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy);
    let mut gateway = Gateway::start(&lab, &config);
    let file = lab.path("killed.pcapng");
    let mut recorder = record(&lab, &config, &file, &[]);
    let mut smtp = begun(&lab, "while@example.org");
    crate::support::until("the envelope in the file", || {
        holds(&file, b"RCPT TO:<while@").then_some(())
    });
    recorder.kill();
    assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    postfix.message_to("while@example.org");
    gateway.wait_for_log("recorder detached");
    let commands = tshark(&file, "smtp.req", &["smtp.req.command"]);
    assert!(commands.starts_with("EHLO\nMAIL\nRCPT"), "{commands}");

    // Without --force the file is not overwritten.
    let again = lab.gateway.output(recorder_command(&config, &file, &[]));
    assert!(!again.status.success());
    let stderr = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(stderr.contains(" exists; name another file"), "{stderr}");

    // Another host, because of the ports; the file system is the same.
    let other = lab.client.output([GATEPOST, "run", "--config", &written(&lab, &config)]);
    let stderr = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(!other.status.success() && stderr.contains("another process listens on "), "{stderr}");

    gateway.kill_and_start_again();
    let mut recorder = record(&lab, &config, &file, &["--force", "--count", "1"]);
    let mut smtp = begun(&lab, "again@example.org");
    smtp.dialogue("C: QUIT\n S: 221");
    drop(smtp);
    assert!(recorder.wait().success());
    gateway.terminate();
    assert!(gateway.wait().success());
    assert!(!config.socket().exists(), "a gateway that ends removes its socket");
}

/// After SIGSTOP the queue fills, and mail flows on; later the gap is reported with its exact length.
fn a_slow_recorder_does_not_slow_mail_and_reports_its_gaps() {
    const MESSAGE: usize = 8 << 20;
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy);
    let gateway = Gateway::start(&lab, &config);
    let file = lab.path("slow.pcapng");
    let recorder = record(&lab, &config, &file, &[]);
    recorder.signal(Signal::SIGSTOP);
    let body = "0123456789abcdef0123456789abcdef\r\n".repeat(MESSAGE / 34);
    let mut smtp = begun(&lab, "slow-0@example.org");
    for n in 0..3 {
        if n > 0 {
            smtp.dialogue(&format!(
                "C: MAIL FROM:<sender@example.net>\n S: 250\n C: RCPT TO:<slow-{n}@example.org>\n S: 250"
            ));
        }
        assert_eq!(smtp.data(format!("Subject: x\r\n\r\n{body}").as_bytes()).code, 250);
    }
    for n in 0..3 {
        postfix.message_to(&format!("slow-{n}@example.org"));
    }
    crate::support::until("the metric", || {
        (gateway.metric("gatepost_record_omitted_bytes_total", &[]) > 0.0).then_some(())
    });
    recorder.signal(Signal::SIGCONT);
    smtp.dialogue("C: QUIT\n S: 221");
    drop(smtp);
    crate::support::until("the session's end in the file", || {
        holds(&file, b"verdict=accept ").then_some(())
    });
    let mut recorder = recorder;
    recorder.signal(Signal::SIGINT);
    assert!(recorder.wait().success());
    let stderr = recorder.log();
    assert!(stderr.contains("bytes omitted because this recorder was too slow"), "{stderr}");
    let total: u64 = octets_by_time(&file).values().sum();
    assert!(total > 3 * body.len() as u64, "{total}");
    assert_eq!(tshark(&file, "tcp.analysis.lost_segment", &["frame.number"]), "");
}

fn recorder_command(config: &Config, file: &Path, options: &[&str]) -> Vec<String> {
    let socket = config.socket().to_str().unwrap();
    let words = [GATEPOST, "record", "--socket", socket, "-w", file.to_str().unwrap()];
    words.iter().chain(options).map(|word| (*word).to_owned()).collect()
}

/// Starts a recorder and waits until it is attached.
pub(crate) fn record(lab: &Lab, config: &Config, file: &Path, options: &[&str]) -> Process {
    let mut recorder = lab.gateway.spawn(recorder_command(config, file, options));
    crate::support::until("a recorder that records", || {
        assert!(!recorder.has_ended(), "{}", recorder.log());
        recorder.log().contains(RECORDING).then_some(())
    });
    recorder
}

/// Whether the file holds these bytes, in upper or lower case.
fn holds(file: &Path, wanted: &[u8]) -> bool {
    let raw = fs::read(file).unwrap();
    raw.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

fn written(lab: &Lab, config: &Config) -> String {
    let path: PathBuf = lab.path("other.toml");
    fs::write(&path, config.toml()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn begun(lab: &Lab, recipient: &str) -> Smtp {
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6));
    smtp.begin("sender@example.net", recipient);
    smtp
}

fn swaks(lab: &Lab, mode: Mode, family: Family) {
    let to = format!("{family}@example.org");
    let helo = format!("[{}]", lab.client_ip(family));
    let options = ["--ehlo", &helo, "--header", "Subject: a secret subject"];
    let sent = lab.client.swaks(lab.entrance(mode, family), &to, &options);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
}

/// One line for each packet, fields separated by tabs.
#[track_caller]
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> String {
    let mut command = std::process::Command::new("tshark");
    command.args(["-r", file.to_str().unwrap(), "-Y", filter, "-T", "fields"]);
    // With the lab's ports, and without names, which would be looked up.
    command.args(["-n", "-o", "tcp.desegment_tcp_streams:TRUE"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark (Debian: tshark)");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The values of a field in packets of the filter, by the client of their connection.
fn by_client(file: &Path, filter: &str, field: &str) -> BTreeMap<IpAddr, String> {
    let fields = ["tcp.srcport", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst", field];
    let mut found: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for line in tshark(file, filter, &fields).lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let [port, source4, source6, to4, to6, value] = parts.as_slice() else {
            panic!("{line:?}")
        };
        let client = if *port == "25" { [to4, to6] } else { [source4, source6] };
        let client = client.into_iter().find(|ip| !ip.is_empty()).unwrap().parse().unwrap();
        found.entry(client).or_default().extend(value.split(',').map(str::to_owned));
    }
    found.into_iter().map(|(client, values)| (client, values.join(" "))).collect()
}

fn clients(file: &Path) -> Vec<IpAddr> {
    by_client(file, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "tcp.seq").into_keys().collect()
}

/// tshark lists the code of each line of a reply; EHLO's has many lines.
fn distinct(codes: &str) -> Vec<&str> {
    let mut codes: Vec<&str> = codes.split(' ').collect();
    codes.dedup();
    codes
}

/// Payload bytes by time and port of the sender.
fn octets_by_time(file: &Path) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for line in tshark(file, "tcp.len > 0", &["frame.time_epoch", "tcp.srcport", "tcp.len"]).lines()
    {
        let parts: Vec<&str> = line.split('\t').collect();
        let [time, port, length] = parts.as_slice() else { panic!("{line:?}") };
        let sum: &mut u64 = sums.entry(((*time).to_owned(), (*port).to_owned())).or_default();
        *sum += length.parse::<u64>().unwrap();
    }
    sums
}
