//! The hosts around the gateway: a DNS with names of every kind, senders, and exchanges that accept return mail or not.
//!
//! The lab's client has the addresses of all of them. Knot serves all zones; [`ZONES`] lists the faults in some.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr as _;
use std::time::Duration;

use hickory_proto::rr::Name;

use super::resolver::{Behaviour, Resolver};
use super::{Family, Lab, Postfix, Process, until};

/// Knot, and the forwarder in front of it, which the gateway queries.
pub(crate) const KNOT: &str = "[2001:db8:53::53]:53";
pub(crate) const ASKED: &str = "[2001:db8:53::54]:53";

/// Bytes of a packet; larger ones do not pass the black hole. Handshake, greeting and EHLO are smaller.
pub(crate) const LARGE: usize = 600;

/// Senders by name, with the last number of their addresses `203.0.113.N` and `2001:db8:c::N`.
pub(crate) const SENDERS: [(&str, u8); 11] = [
    ("good", 1),
    ("missing", 2),
    ("unconfirmed", 3),
    ("many", 4),
    ("too-many", 5),
    ("lame", 6),
    ("broken", 7),
    ("slow", 8),
    ("silent", 9),
    ("empty", 10),
    ("alias", 11),
];

/// Exchanges of the senders' domains by name, with the last number of their addresses `203.0.113.N` and `2001:db8:a::N`.
pub(crate) const RECEIVERS: [(&str, u8); 6] = [
    ("takes", 101),
    ("refuses", 102),
    ("drops", 103),
    ("turns-away", 104),
    ("stalls", 105),
    ("black-hole", 106),
];

/// Names in `client.example`. Reverse names are sorted, and the first ten are looked up.
const CLIENTS: &str = "\
good A 203.0.113.1\ngood AAAA 2001:db8:c::1
unconfirmed A 203.0.113.77\nunconfirmed AAAA 2001:db8:c::77
m03 A 203.0.113.4\nm03 AAAA 2001:db8:c::4
n12 A 203.0.113.5\nn12 AAAA 2001:db8:c::5
slow A 203.0.113.8\nslow AAAA 2001:db8:c::8
alias A 203.0.113.11\nalias AAAA 2001:db8:c::b
no-address TXT \"only words\"
";

/// Domains in `sender.example`, by the result of mail to them.
const DOMAINS: &str = "\
good MX 10 takes.mx.example.
second MX 10 gone.mx.example.\nsecond MX 20 takes.mx.example.
implicit A 203.0.113.101
null MX 0 .
only6 MX 10 takes6.mx.example.
only4 MX 10 takes4.mx.example.
loopback MX 10 loopback.mx.example.
mapped MX 10 mapped.mx.example.
private MX 10 private.mx.example.
dangling MX 10 gone.mx.example.
ours MX 10 ours.mx.example.
counted MX 10 counted.mx.example.
empty TXT \"no mail\"
slow MX 10 takes.mx.example.
silent MX 10 takes.mx.example.
refuses MX 10 refuses.mx.example.
drops MX 10 drops.mx.example.
turns-away MX 10 turns-away.mx.example.
stalls MX 10 stalls.mx.example.
black-hole MX 10 black-hole.mx.example.
";

const EXCHANGES: &str = "\
takes6 AAAA 2001:db8:a::65
takes4 A 203.0.113.101
loopback A 127.0.0.1\nloopback AAAA ::1
mapped AAAA ::ffff:203.0.113.101
private A 10.1.2.3\nprivate AAAA fd00::1
ours AAAA 2001:db8:2::25
counted AAAA 2001:db8:a::70
";

/// `203.0.113.N` or `2001:db8:c::N`.
pub(crate) fn sender_ip(name: &str, family: Family) -> IpAddr {
    let found = SENDERS.iter().find(|(known, _)| *known == name);
    let (_, n) = found.unwrap_or_else(|| panic!("no sender {name:?}"));
    match family {
        Family::Ipv4 => Ipv4Addr::new(203, 0, 113, *n).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, (*n).into()).into(),
    }
}

pub(crate) fn receiver_ip(name: &str, family: Family) -> IpAddr {
    let found = RECEIVERS.iter().find(|(known, _)| *known == name);
    let (_, n) = found.unwrap_or_else(|| panic!("no receiver {name:?}"));
    match family {
        Family::Ipv4 => Ipv4Addr::new(203, 0, 113, *n).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, (*n).into()).into(),
    }
}

/// The running hosts.
pub(crate) struct World<'lab> {
    pub(crate) resolver: Resolver,
    _knot: Process,
    _mx: Postfix<'lab>,
    _turns_away: Vec<Process>,
}

impl<'lab> World<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        for (name, _) in SENDERS {
            Family::ALL.into_iter().for_each(|family| lab.add_client_ip(sender_ip(name, family)));
        }
        for (name, _) in RECEIVERS {
            Family::ALL.into_iter().for_each(|family| lab.add_client_ip(receiver_ip(name, family)));
        }
        let knot = knot(lab, &zones(), &broken());
        let slow = ["slow.client.example.", "slow.sender.example."];
        let mut silent = vec![Name::from_str("silent.sender.example.").unwrap()];
        silent.extend(Family::ALL.map(|family| Name::from(sender_ip("silent", family))));
        let behaviour = Behaviour {
            slow: slow
                .map(|name| (Name::from_str(name).unwrap(), Duration::from_millis(300)))
                .into(),
            silent,
            ..Behaviour::default()
        };
        let asked = ASKED.parse().unwrap();
        let resolver = Resolver::start(&lab.gateway, asked, KNOT.parse().unwrap(), behaviour);
        let (mx, turns_away) = receivers(lab);
        Self { resolver, _knot: knot, _mx: mx, _turns_away: turns_away }
    }
}

/// Knot on the gateway's host, with these zones. It lacks the files of the broken ones and answers SERVFAIL.
pub(crate) fn knot(lab: &Lab, zones: &BTreeMap<String, String>, broken: &[String]) -> Process {
    let whole = zones.iter().map(|(zone, records)| (zone.clone(), whole_zone(zone, records)));
    knot_of_files(lab, &whole.collect(), broken)
}

/// The text of a zone file with these records.
pub(crate) fn whole_zone(zone: &str, records: &str) -> String {
    let head = "$TTL 300\n@ SOA ns.client.example. hostmaster.client.example. 1 3600 600 86400 60\n\
                @ NS ns.client.example.\n";
    let origin = zone.trim_end_matches('.');
    format!("$ORIGIN {origin}.\n{head}{records}")
}

/// The same, with the whole texts of the zone files.
pub(crate) fn knot_of_files(
    lab: &Lab,
    zones: &BTreeMap<String, String>,
    broken: &[String],
) -> Process {
    for server in [KNOT, ASKED] {
        let server: SocketAddr = server.parse().unwrap();
        lab.gateway.configure(&format!("addr add {}/128 dev lo nodad\n", server.ip()));
    }
    let folder = lab.folder("dns");
    let path = folder.display();
    let listen: SocketAddr = KNOT.parse().unwrap();
    let mut configuration = format!(
        "server:\n  listen: {}@53\n  rundir: {path}\n\
         database:\n  storage: {path}\n\
         log:\n- target: stderr\n  any: info\n\
         zone:\n",
        listen.ip()
    );
    for (zone, text) in zones {
        fs::write(folder.join(format!("{zone}.zone")), text).unwrap();
        writeln!(configuration, "- domain: {zone}\n  file: {path}/{zone}.zone").unwrap();
    }
    for zone in broken {
        writeln!(configuration, "- domain: {zone}\n  file: {path}/there-is-none").unwrap();
    }
    let file = folder.join("knot.conf");
    fs::write(&file, configuration).unwrap();
    let knot = lab.gateway.spawn(["knotd", "-c", file.to_str().unwrap()]);
    until("the DNS server (Debian: knot)", || knot.log().contains("server started").then_some(()));
    knot
}

fn zones() -> BTreeMap<String, String> {
    let mut zones = BTreeMap::new();
    let mut clients = format!("ns AAAA 2001:db8:53::53\n{CLIENTS}");
    for n in 1..=12 {
        // Some addresses are not the client's; the records of two are above.
        for (prefix, own) in [("m", 3), ("n", 12)] {
            if n != own {
                writeln!(clients, "{prefix}{n:02} A 192.0.2.200").unwrap();
            }
        }
    }
    zones.insert("client.example".to_owned(), clients);
    let lame = "lame NS ns.nowhere.example.\n";
    zones.insert("sender.example".to_owned(), format!("{DOMAINS}{lame}"));
    let mut exchanges = EXCHANGES.to_owned();
    for (name, _) in RECEIVERS {
        for (family, kind) in [(Family::Ipv4, "A"), (Family::Ipv6, "AAAA")] {
            writeln!(exchanges, "{name} {kind} {}", receiver_ip(name, family)).unwrap();
        }
    }
    zones.insert("mx.example".to_owned(), exchanges);
    let (mut reverse4, mut reverse6) = (String::new(), String::new());
    for (name, _) in SENDERS {
        for (family, zone) in [(Family::Ipv4, &mut reverse4), (Family::Ipv6, &mut reverse6)] {
            let owner = Name::from(sender_ip(name, family)).to_ascii();
            let lines = match name {
                "missing" | "broken" => String::new(),
                "many" => names("m", &owner),
                "too-many" => names("n", &owner),
                "lame" => format!("{owner} NS ns.nowhere.example.\n"),
                "empty" => format!("{owner} TXT \"no name\"\n"),
                // As in RFC 2317.
                "alias" => format!("{owner} CNAME alias-{family}.client.example.\n"),
                _ => format!("{owner} PTR {name}.client.example.\n"),
            };
            zone.push_str(&lines);
        }
    }
    zones.insert("113.0.203.in-addr.arpa".to_owned(), reverse4);
    zones.insert("8.b.d.0.1.0.0.2.ip6.arpa".to_owned(), reverse6);
    let aliases = zones.get_mut("client.example").unwrap();
    for family in Family::ALL {
        writeln!(aliases, "alias-{family} PTR alias.client.example.").unwrap();
    }
    zones
}

/// Twelve reverse names.
fn names(prefix: &str, owner: &str) -> String {
    (1..=12).map(|n| format!("{owner} PTR {prefix}{n:02}.client.example.\n")).collect()
}

fn broken() -> Vec<String> {
    let mut zones = vec!["broken.sender.example".to_owned()];
    zones.extend(Family::ALL.map(|family| {
        Name::from(sender_ip("broken", family)).to_ascii().trim_end_matches('.').to_owned()
    }));
    zones
}

/// Servers at the senders' exchanges: a Postfix, one that rejects every connection, and hosts that do not answer.
fn receivers(lab: &Lab) -> (Postfix<'_>, Vec<Process>) {
    let takes = Family::ALL.map(|family| receiver_ip("takes", family).to_string());
    let stalls = Family::ALL.map(|family| receiver_ip("stalls", family).to_string());
    let black_hole = Family::ALL.map(|family| receiver_ip("black-hole", family).to_string());
    let main_cf = format!(
        "myhostname = takes.mx.example\ninet_interfaces = {}\nvirtual_mailbox_domains = static:all\n",
        [takes, stalls, black_hole].concat().join(", ")
    );
    let mx = Postfix::start(lab, &lab.client, "mx", None, &main_cf);
    let turns_away = Family::ALL.map(|family| {
        let address = receiver_ip("turns-away", family);
        let at = SocketAddr::new(address, 25);
        let process = lab.client.spawn([
            "smtp-sink",
            "-u",
            "nobody",
            "-f",
            "CONNECT",
            &format!("inet:{at}"),
            "10",
        ]);
        lab.gateway.wait_for_listener(at);
        process
    });
    let mut rules = String::new();
    for (family, ip) in [(Family::Ipv4, "ip"), (Family::Ipv6, "ip6")] {
        let [drops, stalls] = ["drops", "stalls"].map(|name| receiver_ip(name, family));
        writeln!(rules, "{ip} daddr {drops} tcp dport 25 drop").unwrap();
        // The handshake passes, but no segment with data.
        writeln!(rules, "{ip} saddr {stalls} tcp sport 25 tcp flags & psh == psh drop").unwrap();
        let black_hole = receiver_ip("black-hole", family);
        writeln!(rules, "{ip} daddr {black_hole} tcp dport 25 meta length > {LARGE} drop").unwrap();
        writeln!(rules, "{ip} saddr {black_hole} tcp sport 25 meta length > {LARGE} drop").unwrap();
    }
    lab.client.run([
        "nft",
        &format!(
            "table inet receivers {{
               chain input {{ type filter hook input priority 0; {rules} }}
               chain output {{ type filter hook output priority 0; {rules} }}
             }}"
        ),
    ]);
    (mx, turns_away.into())
}
