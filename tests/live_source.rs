//! Packets of real interfaces by `source::live`: everything that was sent is seen or counted as lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests end by panicking"
)]

mod lab;

use std::collections::HashMap;
use std::net::SocketAddr;

use gatepost::source::live::{Choice, Live, LiveError, Settings};
use gatepost::source::{Lost, PacketSource};
use gatepost::time::Timestamp;
use gatepost::wire::{Decoded, Decoder};
use lab::{Family, Host, Lab, Process};

const PORT: u16 = 25;

fn settings(interfaces: &[&str]) -> Settings {
    Settings {
        choice: Choice::Pcap,
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        ports: vec![PORT],
        buffer: Settings::BUFFER,
    }
}

fn open(host: &Host, settings: &Settings) -> Live {
    host.in_thread(|| Live::open(settings)).unwrap()
}

/// What of a TCP segment these tests look at.
#[derive(Clone, Debug)]
struct Seen {
    at: Timestamp,
    interface: u32,
    src: SocketAddr,
    dst: SocketAddr,
    syn: bool,
    ack: bool,
    /// FIN, or RST: smtp-source does not always wait for the reply to its QUIT.
    ends: bool,
    payload: usize,
}

impl Seen {
    fn is_opening(&self) -> bool {
        self.syn && !self.ack
    }
}

/// Everything until nothing comes for two pauses; and what was said to be wrong meanwhile.
fn drain(live: &mut Live) -> (Vec<Seen>, Vec<LiveError>) {
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::new();
    let mut quiet = 0;
    while quiet < 2 {
        let packet = match live.next() {
            Ok(Some(packet)) => packet,
            Ok(None) => {
                quiet += 1;
                continue;
            }
            Err(error) => {
                let ends = error.is_end();
                errors.push(error);
                if ends {
                    break;
                }
                continue;
            }
        };
        quiet = 0;
        if let Decoded::Tcp(segment) = decoder.decode(&packet) {
            seen.push(Seen {
                at: segment.at,
                interface: segment.interface,
                src: segment.src,
                dst: segment.dst,
                syn: segment.syn,
                ack: segment.ack.is_some(),
                ends: segment.fin || segment.rst,
                payload: segment.payload.len(),
            });
        }
    }
    (seen, errors)
}

/// Whole sessions: for each client, whether its SYN came first, how many octets came each way, and whether both closed.
fn check_sessions(seen: &[Seen], expected: usize, least: usize) {
    let mut sessions: HashMap<(u32, SocketAddr), Vec<&Seen>> = HashMap::new();
    for segment in seen {
        let client = if segment.dst.port() == PORT { segment.src } else { segment.dst };
        sessions.entry((segment.interface, client)).or_default().push(segment);
    }
    assert_eq!(sessions.len(), expected);
    for (client, segments) in sessions {
        assert!(segments[0].is_opening(), "{client:?} begins with {:?}", segments[0]);
        assert!(segments[1].syn && segments[1].ack, "{client:?} goes on with {:?}", segments[1]);
        let said = |server: bool| {
            let from = segments.iter().filter(|segment| (segment.src.port() == PORT) == server);
            from.fold((0, false), |(octets, ends), one| (octets + one.payload, ends || one.ends))
        };
        let (client_said, server_said) = (said(false), said(true));
        assert!(
            client_said.0 >= least && server_said.0 > 0,
            "{client:?}: {client_said:?} {server_said:?}"
        );
        assert!(client_said.1 || server_said.1, "{client:?} has no end");
    }
    assert!(seen.is_sorted_by_key(|segment| segment.at));
}

/// smtp-sink on the server, for both families.
fn sinks(lab: &Lab) -> Vec<Process> {
    let start = |family| {
        let at = lab.server_socket(family, PORT);
        let sink = lab.server.spawn(["smtp-sink", "-u", "nobody", &format!("inet:{at}"), "1024"]);
        lab.server.wait_for_listener(at);
        sink
    };
    Family::ALL.map(start).into()
}

/// So many sessions of one message each, from the client.
fn send(lab: &Lab, family: Family, sessions: usize, length: usize) {
    let to = format!("inet:{}", lab.server_socket(family, PORT));
    let (sessions, length) = (sessions.to_string(), length.to_string());
    let words = ["smtp-source", "-s", "4", "-m", &sessions, "-l", &length, "-f", "a@a.example"];
    lab.client.run(words.iter().chain(&["-t", "b@example.org", &to]));
}

#[test]
fn whole_sessions_of_both_families() {
    let Some(lab) = Lab::new("whole_sessions_of_both_families") else { return };
    let _sinks = sinks(&lab);
    let mut live = open(&lab.server, &settings(&["gateway"]));
    // The same by the names of two interfaces between which it is forwarded.
    let mut between = open(&lab.gateway, &settings(&["client", "server"]));
    // What the sinks' readiness took.
    drain(&mut live);
    drain(&mut between);
    for family in Family::ALL {
        send(&lab, family, 50, 100_000);
    }
    let (seen, errors) = drain(&mut live);
    assert!(errors.is_empty(), "{errors:?}");
    check_sessions(&seen, 100, 100_000);
    assert_eq!(live.lost(), Lost::default());
    let (seen, errors) = drain(&mut between);
    assert!(errors.is_empty(), "{errors:?}");
    check_sessions(&seen, 200, 100_000);
}
