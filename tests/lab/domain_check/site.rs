//! A site for `gatepost check`: mail servers of every kind on the lab's server, with their zones in Knot on its gateway.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use hickory_proto::rr::Name;

use super::cases::CASES;
use super::special_addresses;
use crate::support::world::{knot_of_files, whole_zone};
use crate::support::{
    Authority, CertificateRequest, Family, IssuedCertificate, KeyType, Lab, Postfix, Process,
    Validity, until,
};

/// The parent of the cases' domains.
pub(crate) const SITE: &str = "ready.example";
/// Good senders.
pub(crate) const SENDERS: [&str; 2] = ["2001:db8:2::1", "198.51.100.1"];
/// An address without a DNS server.
pub(crate) const NOBODY: &str = "[2001:db8:2::39]:53";

/// Mail servers by name, with the last number of `198.51.100.N` and `2001:db8:2::N`.
const SERVERS: [(&str, u8); 18] = [
    ("mx", 25),
    ("silent6", 31),
    ("refuses", 32),
    ("stalls", 33),
    ("hole", 34),
    ("turns-away", 35),
    ("later", 36),
    ("plain", 37),
    ("half", 38),
    ("silent", 39),
    ("delays", 40),
    ("expired", 51),
    ("soon", 52),
    ("misnamed", 53),
    ("untrusted", 54),
    ("mismatch", 55),
    ("two", 56),
    ("no-cipher", 57),
];

/// The last number of the addresses of a name server without zones.
const LAME: u8 = 61;

/// Domains with other name servers than the site has: the names of the servers.
const NAME_SERVERS: [(&str, &[&str]); 6] = [
    ("ns-old", &["old"]),
    ("ns-half", &["half-dead"]),
    ("ns-silent", &["dead"]),
    ("ns-one-silent", &["dead", "ns"]),
    ("ns-lame", &["lame"]),
    ("ns-one-lame", &["lame", "ns"]),
];

/// Zone entries besides those of the cases.
const ZONE: &str = "\
_dmarc TXT \"v=DMARC1; p=quarantine; rua=mailto:dmarc@ready.example\"
out A 198.51.100.1
out AAAA 2001:db8:2::1
only4 A 198.51.100.25
unconfirmed AAAA 2001:db8:2::7777
named AAAA 2001:db8:2::74
foreign AAAA 2001:db8:2::41
loopback A 198.51.100.25\nloopback AAAA ::1
ula A 198.51.100.25\nula AAAA fd00::25
link-local A 198.51.100.25\nlink-local AAAA fe80::25
mapped A 198.51.100.25\nmapped AAAA ::ffff:198.51.100.25
alias CNAME mx
ns AAAA 2001:db8:53::53
old A 198.51.100.61
half-dead A 198.51.100.61\nhalf-dead AAAA 2001:db8:2::39
dead AAAA 2001:db8:2::39
lame AAAA 2001:db8:2::61
";

pub(crate) struct Site<'lab> {
    _name_servers: [Process; 2],
    _mx: Postfix<'lab>,
    /// With other certificates.
    _others: Vec<Postfix<'lab>>,
    _sinks: Vec<Process>,
}

/// The certificate of the authority that checks trust; it is missing where there is no site.
pub(crate) fn trusted(lab: &Lab) -> PathBuf {
    lab.path("ca").join("ca.pem")
}

pub(crate) fn address(n: u8, family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(198, 51, 100, n).into(),
        // The same digits.
        Family::Ipv6 => format!("2001:db8:2::{n}").parse().unwrap(),
    }
}

fn of(name: &str, family: Family) -> IpAddr {
    let (_, n) = SERVERS.iter().find(|(known, _)| *known == name).unwrap();
    address(*n, family)
}

impl<'lab> Site<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        for n in SERVERS.iter().map(|(_, n)| *n).chain([41, LAME]).filter(|n| *n != 25) {
            for family in Family::ALL {
                let (length, options) =
                    if family == Family::Ipv6 { (64, " nodad") } else { (24, "") };
                lab.server.configure(&format!(
                    "addr add {}/{length} dev gateway{options}\n",
                    address(n, family)
                ));
            }
        }
        let authority = Authority::new(lab.folder("ca"), &format!("*.{SITE}"));
        let mut listening: Vec<String> = ["mx", "silent6", "stalls", "hole"]
            .iter()
            .flat_map(|name| Family::ALL.map(|family| of(name, family).to_string()))
            .collect();
        listening.push(of("half", Family::Ipv4).to_string());
        let names = [&*format!("*.{SITE}"), &*format!("*.no-a.{SITE}")];
        let issued = authority.issue(&CertificateRequest {
            file: "mx",
            names: &names,
            key: KeyType::EcdsaP256,
            validity: Validity::Days(60),
        });
        let main_cf = format!(
            "myhostname = mx.{SITE}\ninet_interfaces = {}\nvirtual_mailbox_domains = static:all\n{}",
            listening.join(", "),
            tls(&issued.fullchain, &issued.key)
        );
        let mx = Postfix::start(lab, &lab.server, "mx", None, &main_cf);
        let mut sinks = Vec::new();
        for (name, options) in [
            ("turns-away", "-f CONNECT"),
            ("later", "-r CONNECT"),
            ("plain", "-p"),
            ("delays", "-W CONNECT:12"),
        ] {
            sinks
                .extend(Family::ALL.map(|family| sink_named(lab, of(name, family), name, options)));
        }
        sinks.push(sink_named(lab, of("half", Family::Ipv6), "half", ""));
        sinks.push(sink_named(lab, address(41, Family::Ipv6), "elsewhere", ""));
        drops(lab);
        let lame = lame(lab);
        let mut files = BTreeMap::new();
        for (zone, records) in zones(&lab.folder("keys")) {
            let text = whole_zone(&zone, &records);
            files.insert(zone, text);
        }
        files.extend(name_server_zones());
        let knot = knot_of_files(lab, &files, &broken());
        let others = others(lab, &authority);
        assert_eq!(authority.certificate(), trusted(lab));
        Self { _name_servers: [knot, lame], _mx: mx, _others: others, _sinks: sinks }
    }
}

pub(crate) fn tls(certificate: &Path, key: &Path) -> String {
    format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n",
        certificate.display(),
        key.display()
    )
}

/// Servers that present other certificates, or none that works.
fn others<'lab>(lab: &'lab Lab, authority: &Authority) -> Vec<Postfix<'lab>> {
    let issue = |file: &str, names: &[&str], validity| {
        authority.issue(&CertificateRequest { file, names, key: KeyType::EcdsaP256, validity })
    };
    let stranger = Authority::new(lab.folder("stranger"), &format!("*.{SITE}"));
    let site = format!("*.{SITE}");
    let expired = issue("expired", &[&site], Validity::Expired);
    let soon = issue("soon", &[&site], Validity::Days(3));
    let good = issue("good", &[&site], Validity::Days(60));
    let misnamed = issue("misnamed", &["mail.elsewhere.example"], Validity::Days(60));
    let of_stranger = (stranger.server_certificate(), stranger.server_key());
    let files = |issued: &IssuedCertificate| (issued.fullchain.clone(), issued.key.clone());
    let both = &Family::ALL[..];
    let ipv6 = &[Family::Ipv6][..];
    let ipv4 = &[Family::Ipv4][..];
    let servers = [
        ("expired", both, files(&expired), ""),
        ("soon", both, files(&soon), ""),
        ("misnamed", both, files(&misnamed), ""),
        ("untrusted", both, of_stranger.clone(), ""),
        // A key of another certificate: Postfix offers STARTTLS and then has no TLS.
        ("mismatch", ipv6, (good.fullchain.clone(), expired.key.clone()), ""),
        ("mismatch", ipv4, files(&good), ""),
        ("two", ipv6, files(&good), ""),
        ("two", ipv4, files(&soon), ""),
        // No cipher that others have.
        (
            "no-cipher",
            both,
            files(&good),
            "smtpd_tls_ciphers = high\nsmtpd_tls_mandatory_ciphers = high\nsmtpd_tls_protocols = TLSv1.1\n",
        ),
    ];
    let start = |(name, families, (certificate, key), more): (
        &str,
        &[Family],
        (PathBuf, PathBuf),
        &str,
    )| {
        let listening: Vec<String> =
            families.iter().map(|family| of(name, *family).to_string()).collect();
        let first = families.first().unwrap();
        let main_cf = format!(
            "myhostname = {name}.{SITE}\ninet_interfaces = {}\nvirtual_mailbox_domains = static:all\n{}{more}",
            listening.join(", "),
            tls(&certificate, &key)
        );
        Postfix::start(lab, &lab.server, &format!("{name}-{first}"), None, &main_cf)
    };
    servers.into_iter().map(start).collect()
}

fn sink_named(lab: &Lab, ip: IpAddr, name: &str, options: &str) -> Process {
    let host = if name == "elsewhere" {
        "mail.elsewhere.example".to_owned()
    } else {
        format!("{name}.{SITE}")
    };
    sink_with(lab, ip, &host, options)
}

/// A server without STARTTLS.
pub(crate) fn sink(lab: &Lab, ip: IpAddr, host: &str) -> Process {
    sink_with(lab, ip, host, "")
}

pub(crate) fn sink_with(lab: &Lab, ip: IpAddr, host: &str, options: &str) -> Process {
    let at = SocketAddr::new(ip, 25);
    let inet = format!("inet:{at}");
    let words = ["smtp-sink", "-u", "nobody", "-h", host].into_iter();
    let words = words.chain(options.split_whitespace()).chain([inet.as_str(), "10"]);
    let process = lab.server.spawn(words);
    lab.gateway.wait_for_listener(at);
    process
}

fn drops(lab: &Lab) {
    let mut rules = String::new();
    let silent6 = of("silent6", Family::Ipv6);
    writeln!(rules, "ip6 daddr {silent6} tcp dport 25 drop").unwrap();
    for (family, ip) in [(Family::Ipv4, "ip"), (Family::Ipv6, "ip6")] {
        let [silent, stalls, hole] = ["silent", "stalls", "hole"].map(|name| of(name, family));
        writeln!(rules, "{ip} daddr {silent} tcp dport {{ 25, 53 }} drop").unwrap();
        writeln!(rules, "{ip} daddr {silent} udp dport 53 drop").unwrap();
        writeln!(rules, "{ip} saddr {stalls} tcp sport 25 tcp flags & psh == psh drop").unwrap();
        writeln!(rules, "{ip} daddr {hole} tcp dport 25 meta length > 600 drop").unwrap();
    }
    lab.server.run([
        "nft",
        &format!(
            "table inet ready {{
               chain input {{ type filter hook input priority 0; {rules} }}
               chain output {{ type filter hook output priority 0; {rules} }}
             }}"
        ),
    ]);
}

fn zones(keys: &Path) -> BTreeMap<String, String> {
    let mut site = ZONE.to_owned();
    for (name, _) in SERVERS {
        for (family, kind) in [(Family::Ipv4, "A"), (Family::Ipv6, "AAAA")] {
            writeln!(site, "{name} {kind} {}", of(name, family)).unwrap();
        }
    }
    site.push_str(&special_addresses::zone());
    for case in CASES {
        site.push_str(&case.zone.replace('^', case.name));
    }
    for (selector, bits) in [("long", 2048), ("medium", 1024), ("short", 768)] {
        let key = rsa(keys, bits);
        let (one, two) = key.split_at(key.len() / 2);
        writeln!(site, "{selector}._domainkey.keys TXT \"v=DKIM1; k=rsa; p={one}\" \"{two}\"")
            .unwrap();
        if bits == 2048 {
            writeln!(site, "testing._domainkey.keys TXT \"v=DKIM1; t=y; p={one}\" \"{two}\"")
                .unwrap();
        }
    }
    let mut zones = BTreeMap::from([(SITE.to_owned(), site)]);
    // The parent zone, and a domain without a parent's DMARC record.
    let alone = format!(
        "ns.client AAAA 2001:db8:53::53\nalone MX 10 mx.{SITE}.\nalone TXT \"v=spf1 a:out.{SITE} -all\"\n"
    );
    let taker = format!(
        "_report._dmarc.taker TXT none\nreports-taken.{SITE}._report._dmarc.taker TXT v=DMARC1\n"
    );
    zones.insert("example".to_owned(), alone + &taker);
    let mut reverse4 = String::new();
    let mut reverse6 = String::new();
    for (ip, name) in [
        (SENDERS[0], "out"),
        (SENDERS[1], "out"),
        ("2001:db8:2::72", "unconfirmed"),
        ("2001:db8:2::74", "named"),
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        let zone = if ip.is_ipv6() { &mut reverse6 } else { &mut reverse4 };
        writeln!(zone, "{} PTR {name}.{SITE}.", Name::from(ip)).unwrap();
    }
    zones.insert("100.51.198.in-addr.arpa".to_owned(), reverse4);
    zones.insert("8.b.d.0.1.0.0.2.ip6.arpa".to_owned(), reverse6);
    zones
}

/// The zone files of [`NAME_SERVERS`].
fn name_server_zones() -> BTreeMap<String, String> {
    let file = |(domain, servers): (&str, &[&str])| {
        let zone = format!("{domain}.{SITE}");
        let records = format!(
            "@ MX 10 mx.{SITE}.\n@ TXT \"v=spf1 ip6:2001:db8:2::1 ip4:198.51.100.1 -all\"\n"
        );
        let usual = "@ NS ns.client.example.\n";
        let servers: String =
            servers.iter().map(|server| format!("@ NS {server}.{SITE}.\n")).collect();
        let text = whole_zone(&zone, &records).replace(usual, &servers);
        (zone, text)
    };
    NAME_SERVERS.into_iter().map(file).collect()
}

/// A name server without zones: it refuses to answer (REFUSED).
fn lame(lab: &Lab) -> Process {
    let folder = lab.folder("lame");
    let listen = Family::ALL.map(|family| format!("{}@53", address(LAME, family))).join(", ");
    let path = folder.display();
    let configuration = format!(
        "server:\n  listen: [ {listen} ]\n  rundir: {path}\ndatabase:\n  storage: {path}\nlog:\n- target: stderr\n  any: info\n"
    );
    let file = folder.join("knot.conf");
    fs::write(&file, configuration).unwrap();
    let knot = lab.server.spawn(["knotd", "-c", file.to_str().unwrap()]);
    until("the lame DNS server", || knot.log().contains("server started").then_some(()));
    knot
}

/// Zones without a file, for which Knot answers SERVFAIL.
fn broken() -> Vec<String> {
    let ptr = Name::from("2001:db8:2::73".parse::<IpAddr>().unwrap()).to_ascii();
    vec![format!("broken.{SITE}"), ptr.trim_end_matches('.').to_owned()]
}

/// The public half in base64.
fn rsa(folder: &Path, bits: u32) -> String {
    let file = folder.join(bits.to_string());
    let file = file.to_str().unwrap();
    let openssl = |words: &[&str]| {
        let output =
            Command::new("openssl").args(words).output().expect("openssl (Debian: openssl)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["genrsa", "-out", file, &bits.to_string()]);
    let public = format!("{file}.pub");
    openssl(&["rsa", "-in", file, "-pubout", "-out", &public]);
    let pem = fs::read_to_string(public).unwrap();
    pem.lines().filter(|line| !line.starts_with("---")).collect()
}
