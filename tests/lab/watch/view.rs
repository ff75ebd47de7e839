//! The output of `gatepost watch` for real sessions, its end, and its view on a terminal; and `[watch]` of a gateway.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Process, until};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

tests![
    sessions_are_reported_counted_and_copied,
    text_output_has_a_line_per_session_and_a_summary,
    a_closed_pipe_ends_it_without_an_error,
    the_view_fits_the_terminal_and_restores_its_cursor,
    a_gateway_counts_connections_beside_its_relay,
    a_gateway_that_cannot_watch_relays,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const PORT: u16 = 25;
/// A port with an nftables drop rule.
const SILENT: u16 = 587;
/// To the alternate screen without a cursor, and back.
const TAKE: &str = "\x1b[?1049h\x1b[?25l";
const GIVE_BACK: &str = "\x1b[?25h\x1b[?1049l";
/// On the server's only interface.
const WATCH: [&str; 3] = ["watch", "-i", "gateway"];

/// smtp-sink on the server, for both families.
fn sinks(lab: &Lab) -> Vec<Process> {
    let start = |family| {
        let at = lab.server_socket(family, PORT);
        let sink = lab.server.spawn(["smtp-sink", "-u", "nobody", &format!("inet:{at}"), "256"]);
        lab.server.wait_for_listener(at);
        sink
    };
    Family::ALL.map(start).into()
}

/// Sends so many sessions of one message each, over each family.
fn send(lab: &Lab, sessions: usize) {
    for family in Family::ALL {
        let to = format!("inet:{}", lab.server_socket(family, PORT));
        let sessions = sessions.to_string();
        let words = ["smtp-source", "-s", "2", "-m", &sessions, "-l", "20000", "-f", "a@a.example"];
        lab.client.run(words.iter().chain(&["-t", "b@example.org", &to]));
    }
}

/// A `gatepost watch` on the server, ended when dropped.
struct Watching {
    child: Child,
}

impl Watching {
    /// Returns when it has printed which interface it watches.
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        Self::with_output(lab, arguments, Stdio::piped())
    }

    fn with_output(lab: &Lab, arguments: &[&str], to: Stdio) -> Self {
        let mut command = Command::new(GATEPOST);
        command.args(WATCH).args(arguments).env("TERM", "xterm");
        command.stdin(Stdio::null()).stdout(to).stderr(Stdio::piped());
        let child = lab.server.in_thread(|| command.spawn()).unwrap();
        let mut watching = Self { child };
        let mut line = String::new();
        let mut stderr = BufReader::new(watching.child.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("gatepost: watching gateway by "), "{line}");
        // A full pipe would block it.
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        watching
    }

    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.child.stdout.take().unwrap()).lines().map(Result::unwrap)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        until("the end of `gatepost watch`", || self.child.try_wait().unwrap())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// In `/metrics` at that address on the server: the sum over the series whose labels contain all of `labels`.
fn metric(lab: &Lab, at: SocketAddr, name: &str, labels: &[&str]) -> Option<f64> {
    let mut stream = lab.server.connect(at).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let series = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let wanted = series.filter(|rest| labels.iter().all(|label| rest.contains(label)));
    Some(wanted.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

fn sessions_are_reported_counted_and_copied() {
    let lab = Lab::new();
    let _sinks = sinks(&lab);
    let metrics: SocketAddr = "[::1]:9626".parse().unwrap();
    for source in ["pcap", "auto"] {
        let copy = lab.path(&format!("{source}.pcapng"));
        let copy = copy.to_str().unwrap();
        let mut watching = Watching::start(
            &lab,
            &["--source", source, "--format", "json", "-w", copy, "--metrics", "[::1]:9626"],
        );
        let lines = watching.lines();
        send(&lab, 5);
        // Lines arrive while it runs.
        let mut sessions: Vec<Value> = Vec::new();
        let mut lines = lines.map(|line| json(&line));
        while sessions.len() < 10 {
            sessions.push(lines.next().expect("ten sessions"));
        }
        for family in Family::ALL {
            let labels = [family.label(), "direction=\"in\"".to_owned()];
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            until(format_args!("5 connections over {family}, by {source}"), || {
                let count = metric(&lab, metrics, "gatepost_tcp_connections_total", &labels);
                (count == Some(5.0)).then_some(())
            });
        }
        watching.signal(Signal::SIGINT);
        let rest: Vec<Value> = lines.collect();
        assert!(watching.wait().success(), "{source}");

        for session in &sessions {
            assert_eq!(session["type"], "session", "{session}");
            assert_eq!(session["file"], "gateway", "{session}");
            assert_eq!(session["smtp"]["transactions"][0]["data_code"], 250, "{session}");
        }
        let over =
            |family: &str| sessions.iter().filter(|session| session["family"] == family).count();
        assert_eq!([over("ipv6"), over("ipv4")], [5, 5], "{source}");
        let kinds: Vec<&Value> = rest.iter().map(|line| &line["type"]).collect();
        assert_eq!(kinds, ["evidence", "lost"], "{source}");
        for family in ["ipv6", "ipv4"] {
            assert_eq!(rest[0]["receive"][family]["accepted"]["total"], 5, "{}", rest[0]);
        }
        for count in ["openings", "packets", "not_captured", "desyncs"] {
            assert_eq!(rest[1][count], 0, "{source}: {}", rest[1]);
        }
        check_copy(copy, &sessions);
    }
}

/// A replay of the copy has the same sessions.
fn check_copy(copy: &str, sessions: &[Value]) {
    let output = Command::new(GATEPOST).args(["replay", "--format", "json", copy]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = String::from_utf8(output.stdout).unwrap();
    let again = again.lines().map(json).filter(|line| line["type"] == "session");
    let known = |session: &Value| {
        let mut session = session.clone();
        session["file"].take();
        // Sessions that end at the same moment may be numbered differently.
        session["number"].take();
        session["tcp"]["rtt_s"].take();
        session
    };
    let by_client = |sessions: Vec<Value>| {
        let mut sessions = sessions;
        sessions.sort_by_key(|session| session["client"].to_string());
        sessions
    };
    let again = by_client(again.map(|session| known(&session)).collect());
    let sessions = by_client(sessions.iter().map(known).collect());
    assert_eq!(again, sessions, "{copy}");
}

fn text_output_has_a_line_per_session_and_a_summary() {
    let lab = Lab::new();
    let _sinks = sinks(&lab);
    let mut watching = Watching::start(&lab, &["--count", "6"]);
    let lines = watching.lines();
    send(&lab, 3);
    // It ends after the sixth session.
    let lines: Vec<String> = lines.collect();
    assert!(watching.wait().success());
    assert!(lines[0].contains("START (UTC)"), "{lines:?}");
    let rows = lines[1..7].iter().filter(|line| line.contains("mail 1/1 250"));
    assert_eq!(rows.count(), 6, "{lines:?}");
    let text = lines.join("\n");
    let accepted =
        "messages accepted                                  3 (100 %)           3 (100 %)";
    assert!(text.contains(accepted), "{text}");
    assert!(text.contains("0 sessions open, no packet loss"), "{text}");
    assert!(text.contains("IPv6 receive path: last message accepted"), "{text}");
}

fn a_closed_pipe_ends_it_without_an_error() {
    let lab = Lab::new();
    let _sinks = sinks(&lab);
    let mut watching = Watching::start(&lab, &["--format", "json"]);
    let mut lines = watching.lines();
    send(&lab, 1);
    assert!(lines.next().is_some());
    drop(lines);
    send(&lab, 3);
    assert!(watching.wait().success());
}

/// The bytes written to a terminal so far.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u8>>>);

impl Sent {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, what: &str) {
        until(format_args!("{what:?} on the terminal"), || {
            plain(&self.text()).contains(what).then_some(())
        });
    }

    /// Reads until the other end is closed.
    fn read(&self, master: OwnedFd) {
        let mut terminal = File::from(master);
        let mut chunk = [0; 4096];
        // EIO (pty(7)) is the end.
        while let Ok(read @ 1..) = terminal.read(&mut chunk) {
            self.0.lock().unwrap().extend_from_slice(&chunk[..read]);
        }
    }
}

/// The output on a terminal of that size: sessions, an unanswered connection, and a pause by Ctrl-Z.
fn on_a_terminal(lab: &Lab, columns: u16, lines: u16) -> String {
    let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).unwrap();
    // The child's end of the terminal closes with it.
    let mut watching = Watching::with_output(lab, &[], pair.slave.into());
    let sent = Sent::default();
    let reader = {
        let sent = sent.clone();
        thread::spawn(move || sent.read(pair.master))
    };

    send(lab, 2);
    sent.wait_for("mail 1/1 250");
    let silent = format!("inet:{}", lab.server_socket(Family::Ipv6, SILENT));
    let caller = lab.client.spawn(["smtp-source", "-m", "1", &silent]);
    sent.wait_for("waiting for SYN-ACK: 1 IPv6 connection, the oldest for ");
    drop(caller);

    watching.signal(Signal::SIGTSTP);
    let stat = format!("/proc/{}/stat", watching.child.id());
    until("the stop", || fs::read_to_string(&stat).unwrap().contains(") T ").then_some(()));
    // What it wrote before it stopped may still be read.
    until("the terminal's own screen", || sent.text().ends_with(GIVE_BACK).then_some(()));
    watching.signal(Signal::SIGCONT);
    until("another frame", || (!sent.text().ends_with(GIVE_BACK)).then_some(()));

    watching.signal(Signal::SIGTERM);
    assert!(watching.wait().success());
    reader.join().unwrap();
    sent.text()
}

/// `text` without control sequences.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once("\x1b[") {
        out.push_str(before);
        let end = sequence.find(|c: char| ('@'..='~').contains(&c)).unwrap();
        rest = &sequence[end + 1..];
    }
    out + rest
}

fn the_view_fits_the_terminal_and_restores_its_cursor() {
    let lab = Lab::new();
    let _sinks = sinks(&lab);
    let silence = format!(
        "add table inet silent; add chain inet silent in {{ type filter hook input priority 0; }}; \
         add rule inet silent in tcp dport {SILENT} drop"
    );
    lab.server.run(["nft", &silence]);
    for (columns, lines) in [(60, 15), (100, 30), (140, 40)] {
        let sent = on_a_terminal(&lab, columns, lines);
        assert_eq!(sent.matches(TAKE).count(), 2, "{columns}x{lines}");
        assert_eq!(sent.matches(GIVE_BACK).count(), 2, "{columns}x{lines}");
        let (view, after) = sent.rsplit_once(GIVE_BACK).unwrap();
        let (before, view) = view.split_once(TAKE).unwrap();
        assert_eq!(before, "", "{columns}x{lines}");
        let frames = view.split("\x1b[H").chain([after]).map(plain);
        for frame in frames.filter(|frame| !frame.is_empty()) {
            assert!(frame.lines().count() <= usize::from(lines), "{columns}x{lines}:\n{frame}");
            // The terminal puts a CR before each LF, also where there is one.
            for line in frame.lines().map(|line| line.trim_end_matches('\r')) {
                assert!(line.chars().count() <= usize::from(columns), "{columns}x{lines}: {line}");
            }
        }
        // The last frame stays, as ordinary lines.
        assert!(!after.contains("\x1b[H"), "{after:?}");
        let after = plain(after);
        assert!(after.contains("gateway via ") && after.contains("1 MIN"), "{after}");
        assert!(after.contains("mail 1/1 250"), "{after}");
    }
}

fn a_gateway_counts_connections_beside_its_relay() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy).set("watch", "source = \"auto\"");
    let mut gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("watching client and server by ");
    for family in Family::ALL {
        let to = format!("{family}@example.org");
        deliver(&lab, family, &to);
        postfix.message_to(&to);
    }
    for family in Family::ALL {
        let family = family.label();
        for direction in ["direction=\"in\"", "direction=\"out\""] {
            let labels = [family.as_str(), direction];
            gateway.wait_for_metric("gatepost_tcp_connections_total", &labels, 1.0);
        }
        // Once: the relay counts its own.
        gateway.wait_for_metric("gatepost_messages_total", &[&family, "class=\"2xx\""], 1.0);
        let states = [family.as_str()];
        assert_eq!(gateway.metric("gatepost_return_path_destinations", &states), 0.0);
    }
    gateway.reload(&config.clone().set("watch", "buffer = \"32M\"").toml());
    gateway.wait_for_log("[watch] changed: restart gatepost to apply it");
    gateway.terminate();
    assert!(gateway.wait().success());
}

fn a_gateway_that_cannot_watch_relays() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy).set("watch", "interfaces = [\"none0\"]");
    let gateway = Gateway::start(&lab, &config);
    let line = gateway.wait_for_log("not watching");
    let expected = "not watching, retried every 30 s; mail is not affected: no interface \"none0\"";
    assert!(line.contains(expected), "{line}");
    deliver(&lab, Family::Ipv6, "there@example.org");
    postfix.message_to("there@example.org");
}

/// One message through the gateway.
fn deliver(lab: &Lab, family: Family, recipient: &str) {
    let to = format!("inet:{}", lab.entrance(Mode::Proxy, family));
    lab.client.run(["smtp-source", "-m", "1", "-f", "a@a.example", "-t", recipient, &to]);
}
