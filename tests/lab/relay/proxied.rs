//! The PROXY protocol in front of the gateway: mandatory from trusted peers, refused from all others, and Postfix sees the
//! client of the header.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Smtp, port};

tests![
    postfix_sees_the_client_of_the_header_proxy_v2,
    postfix_sees_the_client_of_the_header_xclient,
    a_peer_without_a_client_is_not_passed_on_as_one,
    a_client_without_an_address_is_rejected,
    rules_and_limits_apply_to_the_client_of_the_header,
    headers_are_mandatory_from_trusted_peers,
    headers_from_others_are_rejected,
];

/// The lab's client is a load balancer.
const TRUSTED: &str = "trusted = [\"192.0.2.0/24\", \"2001:db8:1::/64\"]";

/// PROXY protocol, version 2, §2.2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn postfix_sees_the_client_of_the_header_proxy_v2() {
    postfix_sees_the_client_of_the_header("proxy-v2", port::PROXY_PROTOCOL);
}

fn postfix_sees_the_client_of_the_header_xclient() {
    postfix_sees_the_client_of_the_header("xclient", port::XCLIENT);
}

fn postfix_sees_the_client_of_the_header(identity: &str, upstream: u16) {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy)
        .upstream_port(&lab, upstream)
        .set("upstream", &format!("identity = {identity:?}"))
        .set("smtp", "hide = [\"STARTTLS\"]")
        .set("proxy_protocol", TRUSTED);
    let gateway = Gateway::start(&lab, &config);
    let mut number = 0;
    // The load balancer's family and its client's may differ.
    for family in Family::ALL {
        for named in Family::ALL {
            for version in [Version::One, Version::Two, Version::TwoWithTlv, Version::TwoMapped] {
                for cut in [false, true] {
                    eprintln!("case: {family}, header of {named}, {version:?}, cut: {cut}");
                    number += 1;
                    let client = SocketAddr::new(named_ip(named), 4000 + number);
                    let server = SocketAddr::new(balanced_ip(named), 25);
                    let header = version.header(client, server);
                    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
                    send(&mut smtp, &header, cut);

                    let recipient = format!("recipient-{number}@example.org");
                    deliver(&mut smtp, &recipient);
                    expect_at_postfix(&postfix, &recipient, client.ip());
                    let line = gateway.wait_for_log(&format!(" to=<{recipient}> "));
                    let expected = format!(" family={named} client={client} server={server} ");
                    assert!(line.contains(&expected), "no {expected:?} in\n{line}");
                }
            }
        }
    }
}

/// A header of version 2: command and version, family and protocol, and the bytes behind the length.
fn version_two(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// Each identity, and the port of Postfix for it.
const IDENTITIES: [(&str, u16); 4] = [
    ("none", port::SMTP),
    ("proxy-v1", port::PROXY_PROTOCOL),
    ("proxy-v2", port::PROXY_PROTOCOL),
    ("xclient", port::XCLIENT),
];

fn with_identity(lab: &Lab, identity: &str, upstream: u16) -> Config {
    Config::new(lab, Mode::Proxy)
        .upstream_port(lab, upstream)
        .set("upstream", &format!("identity = {identity:?}"))
        .set("smtp", "hide = [\"STARTTLS\"]")
        .set("proxy_protocol", TRUSTED)
}

/// LOCAL: a trusted peer connects for itself, as for a health check. Postfix takes the connection for what it is, one of the
/// gateway's; the gateway's own rules and log have the peer.
fn a_peer_without_a_client_is_not_passed_on_as_one() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let pretended = SocketAddr::new(named_ip(Family::Ipv6), 4000);
    let mut with_addresses = Version::Two.header(pretended, pretended);
    with_addresses[SIGNATURE.len()] = 0x20;
    let headers = [
        version_two(0x20, 0x00, b""),
        version_two(0x20, 0x00, b"\x04\x00\x03\r\n."),
        // Family and addresses are to be ignored.
        version_two(0x20, 0x11, b""),
        version_two(0x20, 0x31, &[b'/'; 216]),
        with_addresses,
    ];
    for (identity, upstream) in IDENTITIES {
        let gateway = Gateway::start(&lab, &with_identity(&lab, identity, upstream));
        for family in Family::ALL {
            for (number, header) in headers.iter().enumerate() {
                eprintln!("case: {identity}, {family}, {}", header.escape_ascii());
                let entrance = lab.entrance(Mode::Proxy, family);
                let mut smtp = lab.client.smtp(entrance);
                send(&mut smtp, header, number == 1);
                let recipient = format!("{identity}-{family}-{number}@example.org");
                deliver(&mut smtp, &recipient);
                expect_at_postfix(&postfix, &recipient, lab.gateway_ip_at_server(family));
                let line = gateway.wait_for_log(&format!(" to=<{recipient}> "));
                let expected = format!(" client={} server={entrance} ", smtp.local_addr());
                assert!(line.contains(&expected), "no {expected:?} in\n{line}");
            }
        }
    }
}

/// UNKNOWN, UNSPEC, UNIX, UDP: there is a client, and its address is not known. Postfix alone answers 421, and so does the gateway:
/// as the peer or as the gateway such a client could be trusted.
fn a_client_without_an_address_is_rejected() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let unknown = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 2001:db8:f::7 2001:db8:f::25 4000 25\r\n".to_vec(),
        version_two(0x21, 0x00, b""),
        version_two(0x21, 0x00, &[7; 12]),
        version_two(0x21, 0x31, &[b'/'; 216]),
        version_two(0x21, 0x32, &[b'/'; 216]),
        version_two(0x21, 0x12, &[192; 12]),
        version_two(0x21, 0x22, &[32; 36]),
    ];
    let alone = |header: &[u8]| {
        let mut smtp = lab.client.smtp(lab.server_socket(Family::Ipv6, port::PROXY_PROTOCOL));
        smtp.raw(header).unwrap();
        smtp.replies_until_closed()
    };
    for header in &unknown {
        let replies = alone(header);
        eprintln!("Postfix alone, {}: {replies:?}", header.escape_ascii());
        assert!(replies.iter().all(|reply| reply.code == 421), "{replies:?}");
    }
    for (identity, upstream) in IDENTITIES {
        let gateway = Gateway::start(&lab, &with_identity(&lab, identity, upstream));
        for family in Family::ALL {
            for header in &unknown {
                eprintln!("case: {identity}, {family}, {}", header.escape_ascii());
                let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
                smtp.raw(&[header, &b"EHLO client.example.net\r\n"[..]].concat()).unwrap();
                smtp.expect_last_reply("421 4.7.0 ");
            }
        }
        assert_eq!(gateway.metric("gatepost_upstream_attempts_total", &[]), 0.0);
    }
    let log = postfix.log();
    for family in Family::ALL {
        for peer in [lab.client_ip(family), lab.gateway_ip_at_server(family)] {
            assert!(!log.contains(&format!(" RCPT from unknown[{peer}]")), "{log}");
        }
    }
}

/// Rules and limits apply to the client of the header.
fn rules_and_limits_apply_to_the_client_of_the_header() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy)
        .set("proxy_protocol", TRUSTED)
        .set("smtp", "refuse_at = \"connect\"")
        .set("limits", "sessions_per_client = 1")
        .rule(
            "name = \"not named\"\naction = \"reject\"\n\
             networks = [\"203.0.113.66\", \"2001:db8:f:66::/64\"]",
        );
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let open = |client: &str| {
            let server = SocketAddr::new(balanced_ip(family), 25);
            let client = SocketAddr::new(client.parse().unwrap(), 4000);
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            send(&mut smtp, &Version::Two.header(client, server), false);
            smtp
        };
        let (rejected, first, another) = match family {
            Family::Ipv4 => ("203.0.113.66", "203.0.113.7", "203.0.113.8"),
            Family::Ipv6 => ("2001:db8:f:66::7", "2001:db8:f::7", "2001:db8:f:1::7"),
        };
        open(rejected).dialogue("S: 554 5.7.1 not named\n C: QUIT\n S: 221");
        let mut held = open(first);
        held.dialogue("S: 220");
        open(first).expect_last_reply("421 4.7.0 ");
        open(another).dialogue("S: 220\n C: QUIT\n S: 221");
        held.dialogue("C: QUIT\n S: 221");
    }
}

/// Without a header the client is unknown, and a 421 loses no mail.
fn headers_are_mandatory_from_trusted_peers() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy).set("proxy_protocol", TRUSTED);
    let gateway = Gateway::start(&lab, &config);
    let connect = |family| lab.client.smtp(lab.entrance(Mode::Proxy, family));
    // These wait for a greeting, as SMTP clients do; other clients send data meanwhile.
    let mut silent = Family::ALL.map(connect);
    let wrong: [&[u8]; 4] = [
        b"EHLO client.example.net\r\n",
        b"PROXY TCP4 nonsense\r\n",
        b"PROXY TCP4 203.0.113.7 203.0.113.25 4000 25 EHLO client.example.net\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\x00\x00",
    ];
    for family in Family::ALL {
        for start in wrong {
            eprintln!("case: {family}, {}", start.escape_ascii());
            let mut smtp = connect(family);
            smtp.raw(start).unwrap();
            smtp.expect_last_reply("421 4.7.0 ");
        }
    }
    for smtp in &mut silent {
        smtp.expect_last_reply("421 4.7.0 ");
    }
    for family in Family::ALL {
        let labels = ["reason=\"proxy_header\"", &family.label()];
        gateway.wait_for_metric("gatepost_refusals_total", &labels, 5.0);
    }
    assert_eq!(gateway.metric("gatepost_upstream_attempts_total", &[]), 0.0);
}

/// A header from another peer is a protocol error, and has no effect.
fn headers_from_others_are_rejected() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let elsewhere = "trusted = [\"203.0.113.0/24\", \"2001:db8:f::/48\"]";
    for trusted in [None, Some(elsewhere)] {
        let mut config = Config::new(&lab, Mode::Proxy);
        if let Some(trusted) = trusted {
            config = config.set("proxy_protocol", trusted);
        }
        let gateway = Gateway::start(&lab, &config);
        for family in Family::ALL {
            for version in [Version::One, Version::Two] {
                for greeted in [false, true] {
                    eprintln!("case: {family}, {version:?}, greeted: {greeted}, {trusted:?}");
                    let client = SocketAddr::new(named_ip(family), 4000);
                    let mut header =
                        version.header(client, SocketAddr::new(balanced_ip(family), 25));
                    header.extend_from_slice(b"EHLO client.example.net\r\n");
                    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
                    if greeted {
                        smtp.dialogue("S: 220");
                    }
                    if let Version::One = version {
                        header.extend_from_slice(b"QUIT\r\n");
                    }
                    smtp.raw(&header).unwrap();
                    // After the greeting, and after replies to the empty lines at the start of version 2.
                    let replies = smtp.replies_until_closed();
                    let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
                    if let Version::One = version {
                        // An unknown command, as to any server that expects no header.
                        let expected =
                            if greeted { &[500, 250, 221][..] } else { &[220, 500, 250, 221] };
                        assert_eq!(codes, expected, "{replies:?}");
                    } else {
                        assert_eq!(codes.last(), Some(&554), "{replies:?}");
                        assert!(
                            replies.last().unwrap().lines[0].starts_with("5.5.1 "),
                            "{replies:?}"
                        );
                    }
                    let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
                    assert!(line.contains("junk_proxy"), "{line}");
                }
            }
            let labels = ["reason=\"junk\"", &family.label()];
            gateway.wait_for_metric("gatepost_refusals_total", &labels, 2.0);
        }
    }
    for family in Family::ALL {
        let named = format!("[{}]", named_ip(family));
        assert!(!postfix.log().contains(&named), "Postfix knows the client of the header");
    }
}

/// The form of the header.
#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Two,
    /// With an empty extension (§2.2.4, PP2_TYPE_NOOP).
    TwoWithTlv,
    /// IPv4 addresses in the form `::ffff:a.b.c.d`, as of dual-stack load balancers.
    TwoMapped,
}

impl Version {
    fn header(self, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        if let Self::One = self {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let ports = format!("{} {}", source.port(), destination.port());
            return format!("PROXY {family} {from} {to} {ports}\r\n").into_bytes();
        }
        let mapped = matches!(self, Self::TwoMapped);
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) if mapped => ip.to_ipv6_mapped().octets().to_vec(),
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut body = [octets(source.ip()), octets(destination.ip())].concat();
        let family = if body.len() == 8 { 0x11 } else { 0x21 };
        body.extend(source.port().to_be_bytes());
        body.extend(destination.port().to_be_bytes());
        if let Self::TwoWithTlv = self {
            body.extend(b"\x04\x00\x03\r\n.");
        }
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x21, family], &length, &body].concat()
    }
}

/// The client in the headers of a family.
fn named_ip(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => "203.0.113.7",
        Family::Ipv6 => "2001:db8:f::7",
    }
    .parse()
    .unwrap()
}

/// That client's destination.
fn balanced_ip(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => "203.0.113.25",
        Family::Ipv6 => "2001:db8:f::25",
    }
    .parse()
    .unwrap()
}

/// Sends at once, or in segments of one byte.
fn send(smtp: &mut Smtp, bytes: &[u8], cut: bool) {
    if !cut {
        return smtp.raw(bytes).unwrap();
    }
    for byte in bytes {
        smtp.raw(&[*byte]).unwrap();
        // So that the gateway usually reads it alone; the result must not depend on that.
        thread::sleep(Duration::from_millis(1));
    }
}

fn deliver(smtp: &mut Smtp, recipient: &str) {
    smtp.begin("sender@example.net", recipient);
    assert_eq!(smtp.data(b"Subject: proxied\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
}

fn expect_at_postfix(postfix: &Postfix<'_>, recipient: &str, client: IpAddr) {
    let line = postfix.wait_for_log(recipient, |line| {
        line.contains("info: RCPT from ") && line.contains(&format!("to=<{recipient}>"))
    });
    let expected = format!(" RCPT from unknown[{client}]: ");
    assert!(line.contains(&expected), "no {expected:?} in\n{line}");
}
