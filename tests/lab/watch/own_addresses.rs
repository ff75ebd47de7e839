//! Addresses that a host gets after the watcher's start, such as a VIP, are its own, too.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use crate::harness::tests;
use crate::support::watcher::{Source, Watcher};
use crate::support::{Family, Lab, port};

tests![an_address_that_comes_later_is_ours_ebpf, an_address_that_comes_later_is_ours_pcap];

fn an_address_that_comes_later_is_ours_ebpf() {
    later_address(Source::Ebpf);
}

fn an_address_that_comes_later_is_ours_pcap() {
    later_address(Source::Pcap);
}

fn later_address(source: Source) {
    let lab = Lab::new();
    source.require(&lab);
    let watcher = Watcher::start(&lab, &lab.server, source, &["gateway"], &[]);
    let vips: [(Family, IpAddr, &str); 2] = [
        (Family::Ipv6, "2001:db8:2::77".parse().unwrap(), "/64 dev gateway nodad"),
        (Family::Ipv4, "198.51.100.77".parse().unwrap(), "/24 dev gateway"),
    ];
    let mut sinks = Vec::new();
    for (_, vip, options) in vips {
        lab.server.configure(&format!("addr add {vip}{options}\n"));
        let to = format!("inet:[{vip}]:{}", port::SMTP);
        sinks.push(lab.server.spawn(["smtp-sink", "-u", "nobody", &to, "10"]));
        lab.server.wait_for_listener((vip, port::SMTP).into());
    }
    // The watcher looks once a second.
    thread::sleep(Duration::from_secs(2));
    for (_, vip, _) in vips {
        let to = format!("inet:[{vip}]:{}", port::SMTP);
        lab.client.run(["smtp-source", "-m", "1", "-f", "a@a.example", "-t", "b@b.example", &to]);
    }
    watcher.wait_for_sessions(2);
    // Its connections are still ours.
    for (_, vip, options) in vips {
        let prefix = options.split(' ').next().unwrap();
        lab.server.configure(&format!("addr del {vip}{prefix} dev gateway\n"));
    }
    let output = watcher.finish();
    let evidence = &output.only("evidence")["receive"];
    for (family, ..) in vips {
        let accepted = &evidence[family.to_string().as_str()]["accepted"]["total"];
        assert_eq!(accepted, 1, "{source:?} {family}: {evidence}");
    }
}
