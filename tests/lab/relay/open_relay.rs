//! In front of a Postfix with stock `mynetworks`, on the gateway's own host: a stranger relays by no configuration that the
//! gateway accepts, and the ones by which he could are rejected, at the start and in a reload.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::harness::tests;
use crate::support::{Authority, Config, DOMAIN, Family, Gateway, Lab, Mode, Postfix, Smtp, port};

tests![
    a_stranger_cannot_relay_by_an_accepted_configuration,
    an_address_of_the_host_is_found,
    a_stranger_can_relay_where_somebody_denied_that_he_could,
    a_dangerous_reload_changes_nothing,
    xclient_inside_tls_reaches_nobody,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Debian's own, which trusts this host alone.
const STOCK: &str = "mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\n";

/// Postfix beside the gateway, on loopback.
fn beside(lab: &Lab) -> Postfix<'_> {
    let main_cf = format!("{STOCK}inet_interfaces = loopback-only\n");
    Postfix::start(lab, &lab.gateway, "postfix", None, &main_cf)
}

fn loopback(port: u16) -> [SocketAddr; 2] {
    [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()]
        .map(|ip| SocketAddr::new(ip, port))
}

fn with_identity(lab: &Lab, upstream: u16, identity: &str) -> Config {
    let config = Config::new(lab, Mode::Proxy).upstreams(&loopback(upstream));
    let config = config.set("upstream", &format!("identity = {identity:?}"));
    if identity == "xclient" { config.set("smtp", "hide = [\"STARTTLS\"]") } else { config }
}

/// The reply to a recipient elsewhere, for a client that may submit mail for this domain only.
#[track_caller]
fn relay_reply(mut smtp: Smtp) -> u16 {
    smtp.dialogue(&format!(
        "S: 220
         C: EHLO stranger.example.net
         S: 250
         C: MAIL FROM:<stranger@example.net>
         S: 250
         C: RCPT TO:<recipient@{DOMAIN}>
         S: 250"
    ));
    let reply = smtp.ask("RCPT TO:<victim@elsewhere.example>").code;
    smtp.dialogue("C: QUIT\n S: 221");
    reply
}

fn a_stranger_cannot_relay_by_an_accepted_configuration() {
    let lab = Lab::new();
    let _postfix = beside(&lab);
    for (identity, upstream) in [
        ("proxy-v1", port::PROXY_PROTOCOL),
        ("proxy-v2", port::PROXY_PROTOCOL),
        ("xclient", port::XCLIENT),
    ] {
        let _gateway = Gateway::start(&lab, &with_identity(&lab, upstream, identity));
        for family in Family::ALL {
            eprintln!("case: {identity}, {family}");
            let reply = relay_reply(lab.client.smtp(lab.entrance(Mode::Proxy, family)));
            assert_eq!(reply, 554, "{identity}, {family}");
        }
    }
    // On the route to a Postfix elsewhere, which trusts the gateway's host.
    let gateways = Family::ALL.map(|family| lab.gateway_ip_at_server(family));
    let trusting = format!("mynetworks = 127.0.0.0/8 {}/32 [{}]/128\n", gateways[1], gateways[0]);
    let _server = Postfix::start(&lab, &lab.server, "server", None, &trusting);
    let _gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Tproxy));
    for family in Family::ALL {
        eprintln!("case: transparent, {family}");
        assert_eq!(relay_reply(lab.client.smtp(lab.entrance(Mode::Tproxy, family))), 554);
    }
}

/// Checks a configuration on the gateway's host. Returns its messages, without those of a success.
fn errors(lab: &Lab, config: &Config) -> Option<String> {
    let file = lab.path("checked.toml");
    fs::write(&file, config.toml()).unwrap();
    let output = lab.gateway.output([GATEPOST, "config", "check", file.to_str().unwrap()]);
    (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
}

/// Also addresses that only the host knows, not the configuration: of its interfaces and of its routing table.
fn an_address_of_the_host_is_found() {
    let lab = Lab::new();
    lab.gateway.configure("route add local 10.9.0.0/24 dev lo\n");
    let none = Config::new(&lab, Mode::Proxy);
    let to = |upstream: &str| errors(&lab, &none.clone().upstreams(&[upstream.parse().unwrap()]));
    for upstream in [
        "127.0.0.1:10025",
        "127.9.9.9:10025",
        "[::1]:10025",
        "192.0.2.1:10025",
        "[2001:db8:1::1]:10025",
        // Of another interface than that of the listeners.
        "198.51.100.1:10025",
        "[::ffff:198.51.100.1]:10025",
        "[2001:db8:2::1]:10025",
        "10.9.0.7:10025",
    ] {
        let errors = to(upstream).unwrap_or_else(|| panic!("{upstream} is accepted"));
        assert!(errors.contains("(open relay)"), "{upstream}: {errors}");
    }
    for upstream in ["198.51.100.25:25", "[2001:db8:2::25]:25", "10.8.0.7:25"] {
        assert_eq!(to(upstream), None);
    }
    // The MTA trusts the gateway by its address on the link to it.
    for network in ["198.51.100.0/24", "198.51.100.1", "198.51.100.25"] {
        let trusting = none.clone().upstreams(&["198.51.100.25:25".parse().unwrap()]);
        let trusting = trusting.set("upstream", &format!("trusted_networks = [{network:?}]"));
        let errors = errors(&lab, &trusting).unwrap_or_else(|| panic!("{network} is accepted"));
        assert!(errors.contains(" of trusted_networks: with identity"), "{errors}");
    }
}

/// That the danger is real: with both keys Postfix takes the stranger for its own host.
fn a_stranger_can_relay_where_somebody_denied_that_he_could() {
    let lab = Lab::new();
    let _postfix = beside(&lab);
    let config = with_identity(&lab, port::DIRECT, "none");
    let refused = errors(&lab, &config).unwrap();
    assert!(refused.contains("strangers can relay mail through it (open relay)"), "{refused}");
    let gateway = Gateway::start(&lab, &config.set("upstream", "trusted_by_address = false"));
    gateway.wait_for_log(" warn trusted_by_address = false: every client looks like this host");
    for family in Family::ALL {
        assert_eq!(relay_reply(lab.client.smtp(lab.entrance(Mode::Proxy, family))), 250);
    }
}

fn a_dangerous_reload_changes_nothing() {
    let lab = Lab::new();
    let _postfix = beside(&lab);
    let safe = with_identity(&lab, port::PROXY_PROTOCOL, "proxy-v2");
    let gateway = Gateway::start(&lab, &safe);
    for (dangerous, word) in [
        (with_identity(&lab, port::DIRECT, "none"), "(open relay)"),
        (Config::new(&lab, Mode::Proxy).upstreams(&loopback(port::DIRECT)), "(open relay)"),
        (
            Config::new(&lab, Mode::Proxy)
                .upstreams(&loopback(port::XCLIENT))
                .set("upstream", "identity = \"xclient\""),
            "(impersonation)",
        ),
    ] {
        let before = gateway.log().len();
        gateway.reload(&dangerous.toml());
        crate::support::until("the reload to be rejected", || {
            let log = gateway.log();
            let new = log.get(before..).unwrap_or_default();
            let mut lines = new.lines();
            lines
                .any(|line| line.contains("the old one stays in force: ") && line.contains(word))
                .then_some(())
        });
        for family in Family::ALL {
            assert_eq!(relay_reply(lab.client.smtp(lab.entrance(Mode::Proxy, family))), 554);
        }
    }
}

/// Postfix accepts XCLIENT from the gateway, and TLS. A client gets neither.
fn xclient_inside_tls_reaches_nobody() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), "mx.example.org");
    let _postfix = Postfix::start(&lab, &lab.server, "postfix", Some(&authority), "");
    let passed = Config::new(&lab, Mode::Proxy)
        .upstream_port(&lab, port::XCLIENT)
        .set("upstream", "identity = \"xclient\"");
    let refused = errors(&lab, &passed).unwrap();
    assert!(refused.contains("claim any address (impersonation)"), "{refused}");
    let _gateway = Gateway::start(&lab, &passed.set("smtp", "hide = [\"STARTTLS\"]"));
    for family in Family::ALL {
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        smtp.dialogue("S: 220");
        let offered = smtp.ask("EHLO client.example.net");
        assert!(!offered.offers("STARTTLS") && !offered.offers("XCLIENT"), "{offered:?}");
        smtp.dialogue("C: STARTTLS\n S: 502");
        smtp.dialogue("C: XCLIENT ADDR=127.0.0.1\n S: 550 5.7.0");
        // TLS without asking, as on port 465: never passed on.
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        smtp.raw(b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03").unwrap();
        let replies = smtp.replies_until_closed();
        // The greeting may be under way by then.
        let mut answers = replies.iter().skip_while(|reply| reply.code == 220);
        assert!(answers.all(|reply| reply.code >= 400), "{replies:?}");
    }
}
