//! ICMP errors about the gateway's connections reach the gateway, and all others their own hosts.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::PLAIN;
use super::scene::{Scene, large};
use super::topology::{Network, counter};
use crate::harness::tests;
use crate::support::{Authority, Config, Family, Gateway, Mode, Postfix, port, until};

tests![
    a_large_certificate_passes_a_small_mtu,
    an_unreachable_mail_server_is_reported_at_once,
    errors_about_other_connections_are_forwarded,
    fragments_are_reassembled,
];

/// The certificates of the mail server fill several segments, over a hop of 1280 in front.
fn a_large_certificate_passes_a_small_mtu() {
    let network = Network::new();
    let lab = &network.lab;
    let authority = Authority::new(lab.folder("ca"), "mx.example.org");
    let chain = lab.path("chain.pem");
    let own = fs::read_to_string(authority.server_certificate()).unwrap();
    let issuer = fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&chain, own + &issuer.repeat(12)).unwrap();
    let main_cf = format!(
        "smtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\nsmtpd_tls_security_level = may",
        chain.display(),
        authority.server_key().display()
    );
    let _postfix = Postfix::start(lab, &lab.server, "postfix", None, &main_cf);
    let _gateway = Gateway::start(lab, &Config::new(lab, Mode::Tproxy));
    network.with_small_mtu_in_front(|| {
        for family in Family::ALL {
            let to = lab.entrance(Mode::Tproxy, family);
            // A client that waits in vain is ended.
            let client = format!(
                "timeout 30 openssl s_client -starttls smtp -connect {to} -brief </dev/null 2>&1"
            );
            let printed = lab.client.run(["sh", "-c", &client]);
            assert!(printed.contains("CONNECTION ESTABLISHED"), "{family}: {printed}");
        }
    });
}

/// The second router answers for a mail server that is gone: the client learns it at once, not after the time-out.
fn an_unreachable_mail_server_is_reported_at_once() {
    let network = Network::new();
    network.second.configure(
        "route add unreachable 198.51.100.99\n\
         route add unreachable 2001:db8:2::99\n",
    );
    let config = Config::new(&network.lab, Mode::Tproxy)
        .destinations(&["198.51.100.0/24", "2001:db8:2::/64"]);
    let gateway = Gateway::start(&network.lab, &config);
    for gone in ["198.51.100.99", "2001:db8:2::99"] {
        let gone = SocketAddr::new(gone.parse().unwrap(), port::SMTP);
        network.lab.client.smtp(gone).expect_last_reply("421 4.3.2");
        let logged = gateway.wait_for_log(&format!("{gone}: "));
        let at_once = ["no route to host", "network is unreachable"];
        assert!(at_once.iter().any(|reason| logged.contains(reason)), "{logged}");
    }
}

/// Without the gateway's process, and about connections that it does not have, errors take the way that they took before.
fn errors_about_other_connections_are_forwarded() {
    let network = Network::new();
    let mut scene = Scene::open(&network, &PLAIN);
    let lab = &network.lab;
    for family in Family::ALL {
        let received = || match family {
            Family::Ipv4 => counter(&lab.client, "Icmp", "InDestUnreachs"),
            Family::Ipv6 => counter(&lab.client, "Icmp6", "InPktTooBigs"),
        };
        let before = received();
        let (client, server) = (lab.client_ip(family), lab.server_ip(family));
        network.second.in_thread(|| send_too_big(client, server));
        until("the error at the client", || (received() > before).then_some(()));
    }
    scene.gateway.kill();
    network.with_small_mtu_behind(|| {
        for family in Family::ALL {
            scene.deliver(family, "direct", &large());
        }
    });
}

/// "Fragmentation needed" or "packet too big" to `client`, about a segment from its port 4444 to port 25 of `server`.
fn send_too_big(client: IpAddr, server: IpAddr) {
    const MTU: u16 = 1280;
    // TCP: source port, destination port, sequence number, and the rest of a header without options.
    let mut tcp = [4444u16.to_be_bytes(), 25u16.to_be_bytes()].concat();
    tcp.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    let mut message = Vec::new();
    let protocol = match (client, server) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            message.extend_from_slice(&[3, 4, 0, 0, 0, 0]);
            message.extend_from_slice(&MTU.to_be_bytes());
            message.extend_from_slice(&with_checksum(ipv4_header(client, server)));
            message.extend_from_slice(&tcp);
            let sum = checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
            Protocol::ICMPV4
        }
        (IpAddr::V6(client), IpAddr::V6(server)) => {
            // The kernel fills in the checksum.
            message.extend_from_slice(&[2, 0, 0, 0]);
            message.extend_from_slice(&u32::from(MTU).to_be_bytes());
            message.extend_from_slice(&[0x60, 0, 0, 0, 0x05, 0x00, 6, 64]);
            message.extend_from_slice(&client.octets());
            message.extend_from_slice(&server.octets());
            message.extend_from_slice(&tcp);
            Protocol::ICMPV6
        }
        _ => unreachable!("addresses of one family"),
    };
    let to = SocketAddr::new(client, 0);
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(protocol)).unwrap();
    socket.send_to(&message, &to.into()).unwrap();
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr) -> [u8; 20] {
    let mut header = [0; 20];
    header[..10].copy_from_slice(&[0x45, 0, 0x05, 0xdc, 0, 1, 0x40, 0, 64, 6]);
    header[12..16].copy_from_slice(&from.octets());
    header[16..].copy_from_slice(&to.octets());
    header
}

fn with_checksum(mut header: [u8; 20]) -> [u8; 20] {
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}

/// RFC 1071, of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// IPv4 only: in IPv6 no router makes fragments, and TCP makes none.
fn fragments_are_reassembled() {
    let network = Network::new();
    let scene = Scene::open(&network, &PLAIN);
    // Segments without "don't fragment", which the ISP cuts.
    network.lab.client.run(["sysctl", "-qw", "net.ipv4.ip_no_pmtu_disc=1"]);
    network.isp.configure("route add 198.51.100.25 via 203.0.113.2 mtu 1280\n");
    scene.deliver_through_gateway(Family::Ipv4, "fragments", &large());
    assert!(counter(&network.isp, "Ip", "FragCreates") > 0, "no packet was cut");
}
