//! A host with a hundred interfaces: all are watched, within the memory that docs/watching.md names.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;

use crate::harness::tests;
use crate::support::watcher::{Source, Watcher};
use crate::support::{Lab, port};

tests![
    Alone:
        a_hundred_interfaces_fit_in_memory_ebpf,
        a_hundred_interfaces_fit_in_memory_pcap
];

/// Besides the lab's own.
const INTERFACES: u8 = 100;
/// Those over which mail comes.
const WITH_MAIL: [u8; 4] = [0, 1, 50, INTERFACES - 1];
/// Messages over each.
const MESSAGES: usize = 20;

const MAX_MIB: u64 = 256;

fn a_hundred_interfaces_fit_in_memory_ebpf() {
    many_interfaces(Source::Ebpf);
}

fn a_hundred_interfaces_fit_in_memory_pcap() {
    many_interfaces(Source::Pcap);
}

fn many_interfaces(source: Source) {
    let lab = Lab::new();
    source.require(&lab);
    for number in 0..INTERFACES {
        let name = format!("many{number}");
        lab.server.link(&name, &lab.client, &name);
        for (host, ip) in [(&lab.server, server(number)), (&lab.client, client(number))] {
            host.configure(&format!("addr add {ip}/24 dev {name}\n"));
        }
    }
    let sink = format!("0.0.0.0:{}", port::SMTP);
    let _sink = lab.server.spawn(["smtp-sink", "-u", "nobody", &sink, "4096"]);
    let at = |number| SocketAddr::new(server(number), port::SMTP);
    lab.client.in_thread(|| {
        crate::support::until("the sink", || std::net::TcpStream::connect(at(0)).ok().map(drop));
    });

    // Every interface that is up and has a global address.
    let watcher = Watcher::start(&lab, &lab.server, source, &[], &[]);
    assert!(watcher.log().contains("and 99 more by"), "{}", watcher.log());
    for number in WITH_MAIL {
        let to = format!("inet:{}", at(number));
        let messages = MESSAGES.to_string();
        lab.client.run(["smtp-source", "-s", "5", "-m", &messages, "-l", "4000", &to]);
    }
    let wanted = WITH_MAIL.len() * MESSAGES;
    watcher.wait_for_sessions(wanted as u64);
    let (pss, rss) = memory(watcher.process().id());
    eprintln!("{source:?}: {} interfaces, PSS {pss} MiB, RSS {rss} MiB", u32::from(INTERFACES) + 1);
    let output = watcher.finish();
    assert_eq!(output.lost(), (0, 0));
    for number in WITH_MAIL {
        let is_there =
            |session: &&&Value| session["server"]["address"] == server(number).to_string();
        let sessions = output.sessions();
        assert_eq!(sessions.iter().filter(is_there).count(), MESSAGES, "many{number}");
    }
    assert!(pss <= MAX_MIB && rss <= MAX_MIB, "{source:?}: PSS {pss} MiB, RSS {rss} MiB");
}

const fn server(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 9, number, 1))
}

const fn client(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 9, number, 2))
}

/// PSS and RSS of a process in MiB. Both contain the rings that the process shares with the kernel; RSS counts that of eBPF
/// twice, because it is mapped twice in a row.
fn memory(process: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap().div_ceil(1024)
    };
    (field("Pss:"), field("Rss:"))
}
