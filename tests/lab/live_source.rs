//! Packets of real interfaces by `source::live`: every packet sent is delivered or counted as lost.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};

use crate::harness::tests;
use crate::support::{Family, Host, Lab, Process};
use gatepost::source::live::{CaptureSettings, LiveCapture, LiveError, SourceChoice, SourceKind};
use gatepost::source::{CaptureLoss, PacketSource};
use gatepost::time::Timestamp;
use gatepost::wire::{Decoded, Decoder, SyntheticConnection};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

tests![
    whole_sessions_of_both_families,
    packets_not_read_in_time_are_counted,
    a_lost_interface_is_reported_once,
    an_interface_that_returns_is_watched_again,
    vlan_tags_are_skipped,
    interfaces_are_chosen,
    the_capabilities_of_the_process_decide,
];

const PORT: u16 = 25;

fn settings(interfaces: &[&str]) -> CaptureSettings {
    CaptureSettings {
        choice: SourceChoice::Pcap,
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        ports: vec![PORT],
        buffer: CaptureSettings::BUFFER,
    }
}

fn open(host: &Host, settings: &CaptureSettings) -> LiveCapture {
    host.in_thread(|| LiveCapture::open(settings)).unwrap()
}

/// The fields of a TCP segment that these tests compare.
#[derive(Clone, Debug)]
struct Seen {
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

/// All segments until nothing arrives for two pauses, and the errors meanwhile.
fn drain(live: &mut LiveCapture) -> (Vec<Seen>, Vec<LiveError>) {
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
                let ends = error.is_fatal();
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

/// Checks that each client's session is whole: it begins with a SYN, has enough bytes each way, and has an end.
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
        let sent = |server: bool| {
            let from = segments.iter().filter(|segment| (segment.src.port() == PORT) == server);
            from.fold((0, false), |(octets, ends), one| (octets + one.payload, ends || one.ends))
        };
        let (client_sent, server_sent) = (sent(false), sent(true));
        assert!(
            client_sent.0 >= least && server_sent.0 > 0,
            "{client:?}: {client_sent:?} {server_sent:?}"
        );
        assert!(client_sent.1 || server_sent.1, "{client:?} has no end");
    }
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

/// Sends so many sessions of one message each, from the client.
fn send(lab: &Lab, family: Family, sessions: usize, length: usize) {
    let to = format!("inet:{}", lab.server_socket(family, PORT));
    let (sessions, length) = (sessions.to_string(), length.to_string());
    let words = ["smtp-source", "-s", "4", "-m", &sessions, "-l", &length, "-f", "a@a.example"];
    lab.client.run(words.iter().chain(&["-t", "b@example.org", &to]));
}

fn whole_sessions_of_both_families() {
    let lab = Lab::new();
    let _sinks = sinks(&lab);
    let mut live = open(&lab.server, &settings(&["gateway"]));
    // The same sessions at both interfaces of the forwarding host.
    let mut between = open(&lab.gateway, &settings(&["client", "server"]));
    // The connections that waited for the sinks to listen.
    drain(&mut live);
    drain(&mut between);
    for family in Family::ALL {
        send(&lab, family, 50, 100_000);
    }
    let (seen, errors) = drain(&mut live);
    assert!(errors.is_empty(), "{errors:?}");
    check_sessions(&seen, 100, 100_000);
    assert_eq!(live.loss(), CaptureLoss::default());
    let (seen, errors) = drain(&mut between);
    assert!(errors.is_empty(), "{errors:?}");
    check_sessions(&seen, 200, 100_000);
}

/// So many connections to a closed port: a SYN each, and a RST in response.
fn knock(host: &Host, to: IpAddr, times: usize) {
    host.in_thread(|| {
        for _ in 0..times {
            let refused = TcpStream::connect((to, PORT)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}: {refused}");
        }
    });
}

/// The numbers of SYNs and of responses.
fn knocks(seen: &[Seen]) -> (usize, usize) {
    let openings = seen.iter().filter(|segment| segment.is_opening()).count();
    (openings, seen.len() - openings)
}

fn packets_not_read_in_time_are_counted() {
    const KNOCKS: usize = 6000;
    let lab = Lab::new();
    let small = CaptureSettings { buffer: 1 << 20, ..settings(&["gateway"]) };
    let mut live = open(&lab.server, &small);
    let on_lo = CaptureSettings { buffer: 1 << 20, ..settings(&["lo"]) };
    let mut loopback = open(&lab.server, &on_lo);
    for family in Family::ALL {
        knock(&lab.client, lab.server_ip(family), KNOCKS / 2);
        knock(&lab.server, lab.server_ip(family), KNOCKS / 2);
    }
    for live in [&mut live, &mut loopback] {
        let (seen, errors) = drain(live);
        assert!(errors.is_empty(), "{errors:?}");
        let (openings, answers) = knocks(&seen);
        let lost = live.loss();
        assert!(lost.syns > 0 && lost.packets > 0, "nothing was lost: {lost:?}");
        assert_eq!(openings as u64 + lost.syns, KNOCKS as u64, "{lost:?}");
        // Further packets, lost or seen, may be multicast listener reports (RFC 3810).
        assert!(answers as u64 + lost.packets >= KNOCKS as u64, "{answers} {lost:?}");
        // It goes on, and the counters keep their values.
        assert!(openings > 0 && answers > 0);
    }
    knock(&lab.client, lab.server_ip(Family::Ipv6), 3);
    let before = live.loss();
    let (seen, _) = drain(&mut live);
    assert_eq!((knocks(&seen), live.loss()), ((3, 3), before));
}

fn a_lost_interface_is_reported_once() {
    let lab = Lab::new();
    let mut both = open(&lab.gateway, &settings(&["client", "lo"]));
    let mut one = open(&lab.gateway, &settings(&["client"]));
    knock(&lab.client, lab.gateway_ip(Family::Ipv6), 2);
    for live in [&mut both, &mut one] {
        let (seen, errors) = drain(live);
        assert_eq!((knocks(&seen), errors.len()), ((2, 2), 0));
    }
    lab.gateway.configure("link del client\n");
    knock(&lab.gateway, "::1".parse().unwrap(), 3);
    let (seen, errors) = drain(&mut both);
    assert_eq!(knocks(&seen), (3, 3));
    assert!(seen.iter().all(|segment| segment.interface == 1));
    let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].starts_with("capture on client ended: "), "{messages:?}");
    assert!(messages[0].ends_with("; 1 other interface is still watched"), "{messages:?}");
    knock(&lab.gateway, "127.0.0.1".parse().unwrap(), 3);
    let (seen, errors) = drain(&mut both);
    assert_eq!((knocks(&seen), errors.len()), ((3, 3), 0));

    let (_, errors) = drain(&mut one);
    let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].ends_with("; no interface is left"), "{messages:?}");
    assert!(matches!(errors[1], LiveError::NoInterfaceLeft), "{messages:?}");
    assert!(matches!(one.next(), Err(LiveError::NoInterfaceLeft)));
    assert_eq!(one.loss(), CaptureLoss::default());
}

fn an_interface_that_returns_is_watched_again() {
    let lab = Lab::new();
    let mut live = open(&lab.gateway, &settings(&["client"]));
    lab.gateway.configure("link set client down\n");
    let (_, errors) = drain(&mut live);
    assert!(errors.is_empty(), "{errors:?}");
    lab.gateway.configure("link set client up\n");
    crate::support::until("the link", || {
        lab.client
            .connect((lab.gateway_ip(Family::Ipv4), PORT).into())
            .err()
            .filter(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    drain(&mut live);
    knock(&lab.client, lab.gateway_ip(Family::Ipv4), 2);
    let (seen, errors) = drain(&mut live);
    assert_eq!((knocks(&seen), errors.len()), ((2, 2), 0));
}

/// Frames of a handshake behind so many VLAN tags, to addresses that do not exist.
fn tagged_handshake(family: Family, tags: usize) -> Vec<Vec<u8>> {
    let (client, server) = match family {
        Family::Ipv4 => ("203.0.113.1:40000", "203.0.113.2:25"),
        Family::Ipv6 => ("[2001:db8:7::1]:40000", "[2001:db8:7::2]:25"),
    };
    let mut frames = Vec::new();
    let mut connection = SyntheticConnection::new(client.parse().unwrap(), server.parse().unwrap());
    connection.open(Timestamp::default(), &mut |_, packet, _| {
        let mut frame = [[2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]].concat();
        // 802.1ad outside, 802.1Q inside.
        let tag: [&[u8]; 2] = [&[0x88, 0xa8, 0, 7], &[0x81, 0, 0, 7]];
        frame.extend(tag[2 - tags..].concat());
        frame.extend(if family == Family::Ipv4 { [8, 0] } else { [0x86, 0xdd] });
        frame.extend(packet);
        frames.push(frame);
    });
    frames
}

fn vlan_tags_are_skipped() {
    let lab = Lab::new();
    let mut near = open(&lab.client, &settings(&["gateway"]));
    let mut far = open(&lab.gateway, &settings(&["client"]));
    let mut sender =
        lab.client.in_thread(|| pcap::Capture::from_device("gateway").unwrap().open()).unwrap();
    for family in Family::ALL {
        for tags in 0..=2 {
            for frame in tagged_handshake(family, tags) {
                sender.sendpacket(frame).unwrap();
            }
            for live in [&mut near, &mut far] {
                let (seen, errors) = drain(live);
                assert_eq!((knocks(&seen), errors.len()), ((1, 2), 0), "{family}, {tags} tags");
                assert!(seen[0].is_opening(), "{family}, {tags} tags");
            }
        }
    }
}

fn interfaces_are_chosen() {
    let lab = Lab::new();
    let names = |settings: &CaptureSettings| {
        let live = lab.gateway.in_thread(|| LiveCapture::open(settings));
        live.map(|live| live.interfaces().iter().map(|one| one.name.clone()).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    };
    assert_eq!(names(&settings(&[])).unwrap(), ["client", "server"]);
    assert_eq!(names(&settings(&["server", "lo"])).unwrap(), ["server", "lo"]);
    let error = names(&settings(&["eth33"])).unwrap_err();
    assert_eq!(error, "no interface \"eth33\"; available interfaces: lo, client, server");
    lab.gateway.configure("link set client down\nlink set server down\n");
    let error = names(&settings(&[])).unwrap_err();
    assert!(error.contains("-i lo"), "{error}");
    let error = names(&settings(&["client"])).unwrap_err();
    assert!(error.contains("ip link set client up"), "{error}");
}

fn the_capabilities_of_the_process_decide() {
    let lab = Lab::new();
    let open = |choice, taken: CapabilitySet| {
        let settings = CaptureSettings { choice, ..settings(&["client"]) };
        lab.gateway.in_thread(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective -= taken;
            // Drops the capability of this thread only.
            set_capabilities(None, sets).unwrap();
            LiveCapture::open(&settings)
        })
    };
    let raw = CapabilitySet::NET_RAW;
    let admin = CapabilitySet::SYS_ADMIN;
    let ebpf = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | admin;
    let live = open(SourceChoice::Pcap, CapabilitySet::all() - raw).unwrap();
    assert_eq!((live.kind(), live.choice_reason()), (SourceKind::Pcap, None));
    let live = open(SourceChoice::Auto, ebpf).unwrap();
    assert_eq!(live.kind(), SourceKind::Pcap);
    assert!(
        live.choice_reason().is_some_and(|why| why.contains("eBPF")),
        "{:?}",
        live.choice_reason()
    );
    for (choice, taken) in [(SourceChoice::Pcap, raw), (SourceChoice::Auto, CapabilitySet::all())] {
        let error = open(choice, taken).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("libpcap needs CAP_NET_RAW, which this process lacks"), "{error}");
        assert!(error.contains("setcap cap_net_raw,"), "{error}");
    }
}
