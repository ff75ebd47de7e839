//! `gatepost check` behind resolvers that validate, with signed zones.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::thread;

use hickory_proto::rr::Name;

use super::dane::{self, Certificates, DANE_CASES, DaneCase};
use super::signed_zones::{
    CREDULOUS, SYNTHESISES, Signed, SignedZone, SignedZones, TACITURN, VALIDATES,
};
use super::site::SENDERS;
use super::{AT_ONCE, check, differs_from, site};
use crate::harness::tests;
use crate::support::{
    Authority, CertificateRequest, Family, IssuedCertificate, KeyType, Lab, Postfix, Process,
    Validity,
};

tests![
    signatures_are_judged_as_the_resolver_validates_them,
    tlsa_records_are_judged_as_postfix_does,
];

/// The parent of the domains.
const SITE: &str = "signed.example";

/// The domain's first label, the resolver, and the findings that do not pass.
type SignedCase = (&'static str, &'static str, &'static [&'static str]);

const CASES: &[SignedCase] = &[
    ("good", VALIDATES, &[]),
    ("unsigned", VALIDATES, &[]),
    ("island", VALIDATES, &["warn dns_signatures"]),
    ("wrong-ds", VALIDATES, BOGUS),
    ("expired", VALIDATES, BOGUS),
    // Without extended errors.
    ("expired", TACITURN, BOGUS),
    ("good", TACITURN, &[]),
    ("good", CREDULOUS, &[]),
    ("wrong-ds", CREDULOUS, &[]),
    ("island", CREDULOUS, &[]),
    ("good", SYNTHESISES, &[]),
    ("only4", VALIDATES, &["fail mx_ipv6"]),
    ("only4", SYNTHESISES, &["fail mx_ipv6"]),
    // An exchange in a zone that is bogus.
    (
        "elsewhere",
        VALIDATES,
        &["fail dns_signatures", "unknown mx_ipv4", "unknown mx_ipv6", "unknown mx_name"],
    ),
    // One in a zone without signatures.
    ("unsigned-mx", VALIDATES, &[]),
    ("island-mx", VALIDATES, &["warn dns_signatures"]),
];

/// Nothing of a bogus domain is known.
const BOGUS: &[&str] =
    &["fail dns_signatures", "unknown dmarc_record", "unknown mx_records", "unknown spf_record"];

const ZONE: &str = "\
_dmarc TXT \"v=DMARC1; p=quarantine; rua=mailto:dmarc@signed.example\"
out A 198.51.100.1
out AAAA 2001:db8:2::1
mx A 198.51.100.25
mx AAAA 2001:db8:2::25
good MX 10 mx
v4 A 198.51.100.25
only4 MX 10 v4
elsewhere MX 10 mx.wrong-ds
unsigned-mx MX 10 mx.unsigned
island-mx MX 10 mx.island
";

/// Records of a domain that is a zone of its own, with an exchange inside.
const OWN_ZONE: &str = "\
@ MX 10 mx
@ TXT \"v=spf1 a:out.signed.example -all\"
mx A 198.51.100.25
mx AAAA 2001:db8:2::25
";

const OWN_ZONES: [(&str, Signed); 4] = [
    ("unsigned.signed.example", Signed::Not),
    ("island.signed.example", Signed::WithoutDs),
    ("wrong-ds.signed.example", Signed::WrongDs),
    ("expired.signed.example", Signed::Expired),
];

fn zones(certificates: &Certificates) -> Vec<SignedZone> {
    let zone = |name, signed, records| SignedZone { name, signed, records };
    let records = |name: &str| match name {
        "unsigned.signed.example" => OWN_ZONE.to_owned() + &certificates.fill(dane::UNSIGNED),
        _ => OWN_ZONE.to_owned(),
    };
    let mut zones: Vec<SignedZone> =
        OWN_ZONES.iter().map(|(name, signed)| zone(name, *signed, records(name))).collect();
    let mut site = ZONE.to_owned() + &dane::zone(certificates);
    for name in ["good", "only4", "elsewhere", "unsigned-mx", "island-mx"] {
        writeln!(site, "{name} TXT \"v=spf1 a:out.signed.example -all\"").unwrap();
    }
    zones.push(zone(SITE, Signed::Well, site));
    let glue = "ns.client.example. AAAA 2001:db8:53::53\n";
    zones.push(zone("example", Signed::Well, glue.to_owned()));
    for (name, sender) in
        [("8.b.d.0.1.0.0.2.ip6.arpa", SENDERS[0]), ("100.51.198.in-addr.arpa", SENDERS[1])]
    {
        let owner = Name::from(sender.parse::<IpAddr>().unwrap());
        zones.push(zone(name, Signed::Not, format!("{owner} PTR out.{SITE}.\n")));
    }
    // By which a resolver with DNS64 is known.
    let known = "ipv4only.arpa. A 192.0.0.170\nipv4only.arpa. A 192.0.0.171\n";
    zones.push(zone(".", Signed::Well, format!("{glue}{known}")));
    zones
}

/// Mail servers and zones.
struct SignedSite<'lab> {
    _zones: SignedZones,
    _servers: [Postfix<'lab>; 4],
    _sinks: [Process; 2],
}

impl<'lab> SignedSite<'lab> {
    fn start(lab: &'lab Lab) -> Self {
        for n in [26, 27, 28, 29] {
            lab.server.configure(&format!(
                "addr add 198.51.100.{n}/24 dev gateway\naddr add 2001:db8:2::{n}/64 dev gateway nodad\n"
            ));
        }
        let root = Authority::new(lab.folder("ca"), &format!("*.{SITE}"));
        assert_eq!(root.certificate(), site::trusted(lab));
        let authority = root.intermediate("below");
        let mut names = vec![format!("*.{SITE}")];
        names.extend(OWN_ZONES.iter().map(|(name, _)| format!("*.{name}")));
        let issue = |file, validity| {
            authority.issue(&CertificateRequest {
                file,
                names: &names.iter().map(String::as_str).collect::<Vec<_>>(),
                key: KeyType::EcdsaP256,
                validity,
            })
        };
        let [own, other] = ["own", "other"].map(|file| issue(file, Validity::Days(60)));
        let expired = issue("expired", Validity::Expired);
        let self_signed = Authority::new(lab.folder("own-authority"), &format!("*.{SITE}"));
        let self_signed = IssuedCertificate {
            certificate: self_signed.certificate(),
            fullchain: self_signed.certificate(),
            key: lab.path("own-authority").join("ca.key"),
        };
        let certificates = Certificates {
            own: dane::der(&own.certificate),
            authority: dane::der(&authority.certificate()),
            root: dane::der(&root.certificate()),
            other: dane::der(&other.certificate),
            expired: dane::der(&expired.certificate),
            self_signed: dane::der(&self_signed.certificate),
        };
        let server = |name, addresses: &str, issued: &IssuedCertificate| {
            let main_cf = format!(
                "myhostname = mx.{SITE}\ninet_interfaces = {addresses}\nvirtual_mailbox_domains = static:all\n{}",
                site::tls(&issued.fullchain, &issued.key)
            );
            Postfix::start(lab, &lab.server, name, None, &main_cf)
        };
        let servers = [
            server("mx", "198.51.100.25, 2001:db8:2::25", &own),
            server("other", "2001:db8:2::26", &other),
            server("expired", "198.51.100.28, 2001:db8:2::28", &expired),
            server("self-signed", "198.51.100.29, 2001:db8:2::29", &self_signed),
        ];
        let sinks = Family::ALL.map(|family| site::sink(lab, site::address(27, family), SITE));
        let broken = [format!("_tcp.mx-no-answer.{SITE}")];
        let zones = SignedZones::start(lab, zones(&certificates), &broken);
        Self { _zones: zones, _servers: servers, _sinks: sinks }
    }
}

fn arguments(domain: &str, resolver: &str) -> Vec<String> {
    let domain = format!("{domain}.{SITE}");
    let words =
        [&domain, "--dns", resolver, "--timeout=4s", "--from", SENDERS[0], "--from", SENDERS[1]];
    words.map(str::to_owned).into()
}

fn signatures_are_judged_as_the_resolver_validates_them() {
    let lab = Lab::new();
    let _site = SignedSite::start(&lab);
    let mut wrong: Vec<String> = Vec::new();
    thread::scope(|scope| {
        let differs = |(domain, resolver, found): &SignedCase| {
            differs_from(&lab, domain, arguments(domain, resolver), found)
        };
        let running: Vec<_> = CASES.iter().map(|case| scope.spawn(move || differs(case))).collect();
        wrong.extend(running.into_iter().filter_map(|one| one.join().unwrap()));
    });
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));

    let printed = |domain: &str, resolver: &str| {
        let mut words = arguments(domain, resolver);
        words.push("--all".to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        check(&lab, &words).printed.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (domain, resolver, sentence) in [
        ("good", VALIDATES, "pass signed.example: signed, and validated (DNSSEC)"),
        ("unsigned", VALIDATES, "pass unsigned.signed.example: not signed (DNSSEC)"),
        (
            "expired",
            VALIDATES,
            "expired.signed.example: bogus: a signature has expired, on 2020-02-01",
        ),
        (
            "expired",
            TACITURN,
            "expired.signed.example: bogus: a signature has expired, on 2020-02-01",
        ),
        ("wrong-ds", VALIDATES, "wrong-ds.signed.example: bogus: "),
        ("wrong-ds", TACITURN, "wrong-ds.signed.example: bogus: the signatures, the keys"),
        (
            "good",
            CREDULOUS,
            "dns DNSSEC, DANE: the resolver does not validate; name one that does with --dns ADDRESS",
        ),
    ] {
        let text = printed(domain, resolver);
        assert!(text.contains(sentence), "{sentence:?} is not in:\n{text}");
    }
}

fn tlsa_records_are_judged_as_postfix_does() {
    let lab = Lab::new();
    let _site = SignedSite::start(&lab);
    let resolver: SocketAddr = VALIDATES.parse().unwrap();
    lab.gateway.resolve_by(&format!("nameserver {}\noptions edns0 trust-ad\n", resolver.ip()));
    let differs = |case: &DaneCase| {
        let name = case.domain.split('.').next().unwrap();
        let differs = differs_from(&lab, name, arguments(case.domain, VALIDATES), case.found);
        let domain = format!("{}.{SITE}", case.domain);
        let of_postfix = ["ipv6", "ipv4"].map(|family| dane::postfix_finds(&lab, &domain, family));
        let [v6, v4] = of_postfix;
        let oracle = ([v6.0, v4.0] != case.sender).then(|| {
            format!(
                "{domain}: Postfix over IPv6: {:?}, {}\nover IPv4: {:?}, {}",
                v6.0, v6.1, v4.0, v4.1
            )
        });
        differs.into_iter().chain(oracle).collect::<Vec<String>>()
    };
    let mut wrong: Vec<String> = Vec::new();
    for cases in DANE_CASES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> = cases.iter().map(|case| scope.spawn(|| differs(case))).collect();
            wrong.extend(running.into_iter().flat_map(|one| one.join().unwrap()));
        });
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
