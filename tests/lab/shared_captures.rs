//! Captures of other projects: `gatepost replay` against tshark, Zeek's baselines and Suricata's expectations.
//!
//! The captures are in `../shared/captures`, which is no part of this repository.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::harness::tests;
use crate::support::{require_program, shared};
use gatepost::addr::Side;
use gatepost::analyzer::{Analyzer, AnalyzerSettings, FinishedSession, PacketCounts, Transcripts};
use gatepost::engine::{Anomaly, TlsState, TransactionRecord, TranscriptItem};
use gatepost::source::{CaptureFile, PacketSource};
use gatepost::stream::{FlowLimits, FlowOutcome, WatchedPorts};
use gatepost::wire::{Decoded, Decoder, IcmpKind};

tests![
    every_capture_has_the_flows_of_tshark,
    envelopes_and_last_replies_match_zeek,
    tls_and_chunks_match_zeek,
    envelopes_match_suricata,
    single_captures,
];

/// A field of a flow where tshark differs, with the reason why it is wrong.
struct Difference {
    file: &'static str,
    /// The client's port.
    client: u16,
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    reason: &'static str,
}

const FOUR_LETTERS: &str =
    "tshark cuts a command to four bytes (packet-smtp.c); RFC 3207 has STARTTLS";

const DIFFERENCES: [Difference; 9] = [
    Difference {
        file: "arkime/tests/pcap/smtp-starttls.pcap",
        client: 57406,
        what: "commands",
        ours: "EHLO 1, STARTTLS 1",
        theirs: "EHLO 1, STAR 1",
        reason: FOUR_LETTERS,
    },
    Difference {
        file: "suricata-verify/tests/smtp-startssl/input.pcap",
        client: 34634,
        what: "commands",
        ours: "EHLO 1, STARTTLS 1",
        theirs: "EHLO 1, STAR 1",
        reason: FOUR_LETTERS,
    },
    Difference {
        file: "zeek/testing/btest/Traces/tls/smtp-starttls.pcap",
        client: 54170,
        what: "commands",
        ours: "EHLO 1, STARTTLS 1",
        theirs: "EHLO 1, STAR 1",
        reason: FOUR_LETTERS,
    },
    Difference {
        file: "smtp-out-of-order.pcap",
        client: 44526,
        what: "commands",
        ours: "DATA 2, HELO 1, MAIL 1, QUIT 1, RCPT 2",
        theirs: "DATA 1, HELO 1, QUIT 1, RCPT 1",
        reason: "the first DATA was answered by 503, so what follows are commands: mail data is sent after a 354 only \
                 (RFC 5321 section 4.1.1.4). tshark takes any DATA for the beginning of a message",
    },
    Difference {
        file: "smtp-bdat-bad-tail-next-mail/input.pcap",
        client: 47968,
        what: "commands",
        ours: "BDAT 2, DATA 1, EHLO 1, MAIL 2, RCPT 2",
        theirs: "BDAT 1, EHLO 1, MAIL 1, RCPT 1",
        reason: "`BDAT 5 X` is none by the grammar of RFC 3030 section 2 and was answered by 521, so no chunk follows; \
                 Suricata's README of this case reads it so too. tshark reads the number and takes the rest for content",
    },
    Difference {
        file: "smtp-bdat-last-next-mail/input.pcap",
        client: 37298,
        what: "commands",
        ours: "BDAT 1, DATA 1, EHLO 1, MAIL 2, QUIT 1, RCPT 2",
        theirs: "DATA 1, EHLO 1, MAIL 2, RCPT 2",
        reason: "tshark shows a segment that a BDAT begins and its chunk fills as content alone, and does not find the \
                 end of data that comes after a chunk, so that QUIT is content to it",
    },
    Difference {
        file: "smtp-long-command/input.pcap",
        client: 59096,
        what: "commands",
        ours: "AUTH 1, EHLO 1",
        theirs: "AUTH 1, EHLO 1, QUIT 1",
        reason: "after 334 the client's next line is its response, whatever it looks like (RFC 4954 section 4); the \
                 server took this one for a user's name and asked for the password",
    },
    Difference {
        file: "smtp-pipelining/input.pcap",
        client: 50287,
        what: "commands",
        ours: "DATA 1, EHLO 1, MAIL 1, RCPT 1",
        theirs: "EHLO 1",
        reason: "tshark shows a segment in which an end of data stands as content from its beginning, although MAIL, \
                 RCPT and DATA come first (RFC 2920), and the server answers them",
    },
    Difference {
        file: "issue-4220-01-ids/1flowB.pcap",
        client: 30709,
        what: "replies",
        ours: "220 1, 250 5, 354 1",
        theirs: "220 1, 250 3, 354 1",
        reason: "two replies were captured after the ACK of them, which tshark takes for spurious retransmissions; \
                 their sequence numbers show that they are new (RFC 9293 section 3.4)",
    },
];

/// Flows without all bytes of both directions.
const NOT_WHOLE: [&str; 1] = ["zeek/testing/btest/Traces/tcp/truncated-header.pcap"];

/// The least number of flows to compare.
const COMPARED: usize = 41;

fn every_capture_has_the_flows_of_tshark() {
    require_program("tshark", "tshark");
    let captures = shared::folder();
    let (mut differences, mut known, mut compared, mut left) =
        (Vec::new(), Vec::new(), 0, Vec::new());
    for file in shared::below(&captures) {
        let name = file.strip_prefix(&captures).unwrap().display().to_string();
        let (sessions, counts) = replay(&file);
        let theirs = tshark(&file);
        let ours: Vec<_> = sessions.iter().map(key).collect();
        let mut seen: Vec<_> = theirs.values().map(|flow| flow.key).collect();
        seen.sort_unstable();
        let mut own = ours.clone();
        own.sort_unstable();
        assert_eq!(own, seen, "{name}: flows by client, server and begin");
        assert!(counts.packets > 0, "{name}");

        for session in &sessions {
            let flow = theirs.values().find(|flow| flow.key == key(session)).unwrap();
            let record = &session.record;
            let tcp = &record.tcp;
            let mut differs = |what: &'static str, ours: String, theirs: String| {
                if ours == theirs {
                    return;
                }
                let found = DIFFERENCES.iter().position(|known| {
                    name.ends_with(known.file)
                        && (known.client, known.what) == (record.client.port, what)
                        && (known.ours, known.theirs) == (ours.as_str(), theirs.as_str())
                });
                match found {
                    Some(found) => known.push(found),
                    None => differences.push(format!(
                        "{name} {}: {what}: {ours:?}, tshark {theirs:?}",
                        record.client.port
                    )),
                }
            };
            let handshake =
                |time: Option<u128>| time.map_or_else(String::new, |time| time.to_string());
            differs(
                "handshake",
                handshake(tcp.handshake.map(|time| time.as_nanos())),
                handshake(flow.handshake),
            );
            differs(
                "ICMP errors",
                format!("{:?}", tcp.icmp_errors),
                format!("{:?}", Some(flow.icmp_errors)),
            );
            differs("path MTU", format!("{:?}", tcp.path_mtu), format!("{:?}", flow.path_mtu));
            if tcp.gaps != Some(0)
                || tcp.outcome == Some(FlowOutcome::Midstream)
                || tcp.syns == Some(0)
            {
                left.push(name.clone());
                continue;
            }
            compared += 1;
            let verbs =
                record.smtp.commands.iter().map(|(verb, count)| (verb.as_str().to_owned(), *count));
            differs("commands", listed(verbs.collect()), listed(flow.commands.clone()));
            differs("replies", listed(record.smtp.replies.clone()), listed(flow.replies.clone()));
            assert_eq!(
                record.smtp.greeting.is_some(),
                flow.replies.values().sum::<u64>() > 0,
                "{name}"
            );
        }
    }
    println!(
        "{compared} flows compared, {} differences that are right, not whole: {left:?}",
        known.len()
    );
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
    assert_eq!(left, NOT_WHOLE);
    assert!(compared >= COMPARED, "{compared} flows");
    for (i, Difference { file, what, reason, .. }) in DIFFERENCES.iter().enumerate() {
        assert!(known.contains(&i), "{file}: {what} no longer differ as listed: {reason}");
    }
}

/// Zeek's baselines, by the trace of their test.
const BASELINES: [(&str, &str); 3] = [
    ("scripts.base.protocols.smtp.basic", "smtp.pcap"),
    ("scripts.base.protocols.smtp.bdat", "smtp/rfc3030-bdat-example1.pcap"),
    ("scripts.base.protocols.smtp.starttls", "tls/smtp-starttls.pcap"),
];

fn envelopes_and_last_replies_match_zeek() {
    let captures = shared::folder();
    let zeek = captures.join("zeek/testing/btest");
    let mut rows = 0;
    for (baseline, trace) in BASELINES {
        let (sessions, _) = replay(&zeek.join("Traces").join(trace));
        for row in log(&zeek.join("Baseline").join(baseline).join("smtp.log")) {
            let end = |side: &str| {
                let (address, port) =
                    (&row[&format!("id.{side}_h")], &row[&format!("id.{side}_p")]);
                SocketAddr::new(address.parse().unwrap(), port.parse().unwrap())
            };
            let session = sessions.iter().find(|session| key(session).0 == end("orig")).unwrap();
            let record = &session.record;
            assert_eq!(key(session).1, end("resp"), "{trace}");
            let depth: usize = row["trans_depth"].parse().unwrap();
            let field_of = |field: &str| Some(row[field].as_str()).filter(|value| *value != "-");
            assert_eq!(record.smtp.helo.as_deref(), field_of("helo"), "{trace}");
            assert_eq!(record.smtp.tls == TlsState::Started, row["tls"] == "T", "{trace}");

            let transaction = record.smtp.transactions.get(depth - 1);
            assert_eq!(transaction.map(|t| t.mail_from.as_str()), field_of("mailfrom"), "{trace}");
            let mut theirs: Vec<_> =
                field_of("rcptto").into_iter().flat_map(|set| set.split(',')).collect();
            theirs.sort_unstable(); // It is a set.
            let mut ours = recipients(transaction);
            ours.sort_unstable();
            assert_eq!(ours, theirs, "{trace}");
            let reply = field_of("last_reply").unwrap();
            assert_eq!(answer(session, transaction.map(|_| depth)), reply, "{trace}");
            if let Some(code) = transaction.map(|t| t.data_code.unwrap()) {
                assert_eq!(code.to_string(), reply[..3], "{trace}");
            }
            rows += 1;
        }
    }
    assert_eq!(rows, 4);
}

/// TLS versions and a chunk, from Zeek's other logs.
fn tls_and_chunks_match_zeek() {
    let captures = shared::folder();
    let zeek = captures.join("zeek/testing/btest");
    let (sessions, _) = replay(&zeek.join("Traces/tls/smtp-starttls.pcap"));
    let ssl = log(&zeek.join("Baseline/scripts.base.protocols.smtp.starttls/ssl.log"));
    assert_eq!(ssl[0]["version"], "TLSv12");
    assert_eq!(sessions[0].record.smtp.tls_version, Some("TLSv1.2"));
    assert_eq!((ssl[0]["server_name"].as_str(), &sessions[0].record.smtp.sni), ("-", &None));

    let (sessions, _) = replay(&zeek.join("Traces/smtp/rfc3030-bdat-example1.pcap"));
    let out =
        fs::read_to_string(zeek.join("Baseline/scripts.base.protocols.smtp.bdat/out")).unwrap();
    assert!(out.contains("BDAT, 86 LAST"), "{out}");
    let transaction = &sessions[0].record.smtp.transactions[0];
    assert_eq!((transaction.bytes, transaction.chunking), (86, true));
}

fn envelopes_match_suricata() {
    let captures = shared::folder();
    let mut checked = 0;
    for test in find(&captures.join("suricata-verify"), &|name| name == "test.yaml") {
        let text = fs::read_to_string(&test).unwrap();
        let Some(pcap) = pcap_of(&test, &text) else { continue };
        let (sessions, _) = replay(&pcap);
        for filter in text.split("- filter:").skip(1).map(Filter::read) {
            // Expectations for older versions have more events than the traffic; those with dropped flows have fewer.
            if !filter.is_envelope() {
                continue;
            }
            let all = sessions.iter().flat_map(|session| {
                let helo = session.record.smtp.helo.as_deref();
                session.record.smtp.transactions.iter().map(move |t| (helo, Some(t)))
            });
            let none =
                sessions.iter().filter(|session| session.record.smtp.transactions.is_empty());
            let none = none.map(|session| (session.record.smtp.helo.as_deref(), None));
            let found = all.chain(none).filter(|(helo, t)| filter.fits(*helo, *t)).count();
            assert!(found >= filter.count, "{}: {found} of {filter:?}", test.display());
            checked += 1;
        }
    }
    println!("{checked} of Suricata's expectations hold");
    assert!(checked >= 20, "{checked}");
}

/// Properties of single captures that no other program's log has.
fn single_captures() {
    let captures = shared::folder();
    let one = |end: &str| {
        let file =
            shared::below(&captures).into_iter().find(|file| file.ends_with(end)).expect(end);
        replay(&file)
    };
    let (sessions, _) = one("smtp-pipelining/input.pcap");
    let smtp = &sessions[0].record.smtp;
    assert_eq!((&smtp.anomalies[..], smtp.desyncs), (&[Anomaly::EarlyData][..], 0));
    assert_eq!((smtp.transactions[0].bytes, smtp.transactions[0].data_code), (16, Some(250)));

    // Nested MAIL is rejected: the first envelope is delivered.
    let (sessions, _) = one("smtp-nested-mail.pcap");
    let [first, nested] = &sessions[0].record.smtp.transactions[..] else { panic!() };
    assert_eq!((first.mail_from.as_str(), first.data_code), ("alice@example.com", Some(250)));
    assert_eq!((nested.mail_code, nested.rcpt_total, nested.data_code), (Some(503), 0, None));

    // ICMP errors about an echo request and UDP: none concerns a TCP segment.
    for end in ["toobig.pcap", "icmp6-toobig.pcap"] {
        let (sessions, counts) = one(end);
        assert_eq!((sessions.len(), counts.segments), (0, 0), "{end}");
        assert_eq!(counts.damaged, [], "{end}");
    }
    // Without checksum tests: with offloading, a capture on the sending host has none.
    for end in
        ["ip6-tcp-good-chksum.pcap", "ip6-tcp-bad-chksum.pcap", "frag-eth-vlan-ipv6-tcp.pcap"]
    {
        assert_eq!(one(end).1.segments, 1, "{end}");
    }
    // Fragments that must be dropped (RFC 8200 section 4.5), and complete ones.
    assert_eq!(one("frag-22.pcap").1.damaged.iter().map(|(_, count)| count).sum::<u64>(), 2);
    assert_eq!(one("ip6_fragments.pcap").1.damaged, []);
    // tshark's and our names of the same ICMP error.
    let file = shared::below(&captures)
        .into_iter()
        .find(|file| file.ends_with("Traces/smtp.pcap"))
        .unwrap();
    let mut kinds = Vec::new();
    let (mut capture, mut decoder) = (CaptureFile::open(&file).unwrap(), Decoder::new());
    while let Some(packet) = capture.next().unwrap() {
        if let Decoded::Icmp(error) = decoder.decode(&packet) {
            kinds.push(error.kind);
        }
    }
    assert_eq!(kinds, [IcmpKind::PacketTooBig { mtu: 1492 }; 4]);
}

/// Every session of a capture; the whole file must be readable.
fn replay(file: &Path) -> (Vec<FinishedSession>, PacketCounts) {
    let mut analyzer = Analyzer::new(AnalyzerSettings {
        profiles: Arc::default(),
        ports: WatchedPorts::default(),
        limits: FlowLimits::default(),
        observer: Arc::new(()),
        transcripts: Transcripts::All,
        numbered: 0,
    });
    let mut capture = CaptureFile::open(file).unwrap_or_else(|error| panic!("{error}"));
    while let Some(packet) = capture.next().unwrap_or_else(|error| panic!("{error}")) {
        analyzer.packet(&packet);
    }
    analyzer.finish();
    (analyzer.sessions().collect(), analyzer.packet_counts().clone())
}

/// Client, server, and start of the flow in nanoseconds.
type Key = (SocketAddr, SocketAddr, u64);

fn key(session: &FinishedSession) -> Key {
    let record = &session.record;
    (record.client.into(), record.server.into(), record.start.as_nanos())
}

/// The reply to the message of this transaction, or the last one in plain text.
fn answer(session: &FinishedSession, transaction: Option<usize>) -> String {
    let mut messages = 0;
    let mut within = false;
    let mut last = String::new();
    for entry in &session.transcript {
        match (&entry.item, entry.from) {
            (TranscriptItem::Content(_), Side::Client) => {
                messages += usize::from(!within);
                within = true;
            }
            (TranscriptItem::Line(line), Side::Server) => {
                last = String::from_utf8_lossy(line).trim_end().to_owned();
                if within && Some(messages) == transaction {
                    break;
                }
                within = false;
            }
            _ => {}
        }
    }
    last
}

fn recipients(transaction: Option<&TransactionRecord>) -> Vec<&str> {
    let all = transaction.map_or(&[][..], |transaction| &transaction.rcpt_to);
    all.iter().map(|recipient| recipient.address.as_str()).collect()
}

/// `EHLO 1, MAIL 2`
fn listed<K: Display + Ord>(counts: BTreeMap<K, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    counts.sort_unstable();
    counts.join(", ")
}

/// A flow in tshark's output.
struct Flow {
    key: Key,
    commands: BTreeMap<String, u64>,
    replies: BTreeMap<u16, u64>,
    /// Nanoseconds.
    handshake: Option<u128>,
    icmp_errors: u64,
    path_mtu: Option<u32>,
}

const FIELDS: [&str; 15] = [
    "tcp.stream",
    "frame.time_epoch",
    "ip.src",
    "ipv6.src",
    "tcp.srcport",
    "ip.dst",
    "ipv6.dst",
    "tcp.dstport",
    "smtp.req.command",
    "smtp.response.code",
    "tcp.analysis.initial_rtt",
    "icmp.type",
    "icmpv6.type",
    "icmp.mtu",
    "icmpv6.mtu",
];

/// The flows of the watched ports, by `tcp.stream`.
fn tshark(file: &Path) -> BTreeMap<u64, Flow> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "separator=;", "-r"]).arg(file);
    command.args(["-Y", "tcp.port in {25, 587, 2525}"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut flows = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(';').collect();
        let [
            stream,
            at,
            src4,
            src6,
            sport,
            dst4,
            dst6,
            dport,
            command,
            code,
            rtt,
            icmp4,
            icmp6,
            mtu4,
            mtu6,
        ] = fields[..]
        else {
            panic!("{} fields: {line}", fields.len());
        };
        let stream: u64 = stream.parse().unwrap();
        if !icmp4.is_empty() || !icmp6.is_empty() {
            // It quotes a segment of a flow seen before.
            let flow: &mut Flow = flows.get_mut(&stream).unwrap();
            flow.icmp_errors += 1;
            let mtu = format!("{mtu4}{mtu6}").parse().ok();
            flow.path_mtu = [flow.path_mtu, mtu].into_iter().flatten().min();
            continue;
        }
        let end = |v4: &str, v6: &str, port: &str| {
            let address: IpAddr = format!("{v4}{v6}").parse().unwrap();
            SocketAddr::new(address, port.parse().unwrap())
        };
        let flow = flows.entry(stream).or_insert_with(|| Flow {
            // The first packet is the client's: a SYN.
            key: (end(src4, src6, sport), end(dst4, dst6, dport), nanos(at)),
            commands: BTreeMap::new(),
            replies: BTreeMap::new(),
            handshake: None,
            icmp_errors: 0,
            path_mtu: None,
        });
        for command in command.split(',').filter(|command| !command.is_empty()) {
            *flow.commands.entry(command.to_ascii_uppercase()).or_default() += 1;
        }
        for code in code.split(',').filter(|code| !code.is_empty()) {
            *flow.replies.entry(code.parse().unwrap()).or_default() += 1;
        }
        if !rtt.is_empty() {
            flow.handshake = Some(nanos(rtt).into());
        }
    }
    flows
}

/// `1439753725.701568` in nanoseconds.
fn nanos(seconds: &str) -> u64 {
    let (whole, part) = seconds.split_once('.').unwrap();
    whole.parse::<u64>().unwrap() * 1_000_000_000 + format!("{part:0<9}").parse::<u64>().unwrap()
}

/// The rows of a Zeek log, by field.
fn log(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).unwrap();
    let fields = text.lines().find_map(|line| line.strip_prefix("#fields\t")).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let values = row.split('\t').map(str::to_owned);
        fields.split('\t').map(str::to_owned).zip(values).collect()
    })
    .collect()
}

/// The capture of a Suricata test: the one named in its configuration, or the only one in its folder.
fn pcap_of(test: &Path, text: &str) -> Option<PathBuf> {
    let folder = test.parent().unwrap();
    if let Some(named) = text.lines().find_map(|line| line.strip_prefix("pcap: ")) {
        return Some(folder.join(named.trim()));
    }
    find(folder, &|name| name.ends_with(".pcap")).into_iter().next()
}

/// A Suricata expectation: so many events with these fields.
#[derive(Debug, Default)]
struct Filter {
    count: usize,
    fields: BTreeMap<String, String>,
    /// For a version other than the newest.
    old: bool,
    /// Indices of recipients that must not exist.
    absent: Vec<usize>,
}

impl Filter {
    fn read(text: &str) -> Self {
        let mut filter = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once(": ") else { continue };
            match name {
                "count" => filter.count = value.parse().unwrap(),
                "lt-version" => filter.old = true,
                "not-has-key" if value.contains("smtp.rcpt_to[1]") => filter.absent.push(1),
                "not-has-key" if value.contains("smtp.rcpt_to") => filter.absent.push(0),
                _ if name.starts_with('#') => {}
                _ => {
                    // Suricata keeps the CR of a line that exceeds its limit.
                    let value = value.trim_matches(['"', '<', '>']).trim_end_matches("\\r");
                    filter.fields.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        filter
    }

    fn is_envelope(&self) -> bool {
        let is_smtp = self.fields.get("event_type").is_some_and(|kind| kind == "smtp");
        let named = ["smtp.helo", "smtp.mail_from"];
        is_smtp
            && self.count > 0
            && !self.old
            && named.iter().any(|name| self.fields.contains_key(*name))
    }

    fn fits(&self, helo: Option<&str>, transaction: Option<&TransactionRecord>) -> bool {
        let is = |name: &str, value: Option<&str>| {
            self.fields.get(name).is_none_or(|wanted| Some(wanted.as_str()) == value)
        };
        let to = recipients(transaction);
        is("smtp.helo", helo)
            && is("smtp.mail_from", transaction.map(|t| t.mail_from.as_str()))
            && (0..3).all(|i| is(&format!("smtp.rcpt_to[{i}]"), to.get(i).copied()))
            && self.absent.iter().all(|&i| to.len() <= i)
    }
}

fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(find(&path, wanted));
        } else if path.file_name().and_then(|name| name.to_str()).is_some_and(wanted) {
            found.push(path);
        }
    }
    found.sort();
    found
}
