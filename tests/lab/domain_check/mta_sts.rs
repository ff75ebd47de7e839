//! MTA-STS and TLSRPT: `gatepost check` against the policies that nginx serves, over each family.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;

use hickory_proto::rr::Name;

use super::cases::Case;
use super::site::{SENDERS, SITE, address, sink, tls, trusted};
use super::{AT_ONCE, arguments, check, differs_from};
use crate::harness::tests;
use crate::support::world::knot;
use crate::support::{
    Authority, CertificateRequest, Family, IssuedCertificate, KeyType, Lab, Postfix, Process,
    Validity, require_program,
};

tests![policies_are_judged_over_each_family];

/// Last numbers of addresses.
const WEB: u8 = 80;
/// No TLS at port 443.
const PLAIN_WEB: u8 = 81;
/// Drops what comes to port 443.
const SILENT_WEB: u8 = 82;
const EXPIRED_MX: u8 = 55;
const PLAIN_MX: u8 = 56;

/// The policy host of a case at [`WEB`].
#[derive(Clone, Copy, Debug)]
enum PolicyHost {
    /// With a good certificate, and these directives for the policy file.
    Good(&'static str),
    /// The policy over IPv6, and over IPv4.
    Two(&'static str, &'static str),
    /// With a good policy, and the certificate of this name.
    Certificate(&'static str),
}

use PolicyHost::{Certificate, Good, Two};

/// `records` replace those of [`RECORDS`] with the same name and type; `-` removes them. `^` is the case's name.
struct StsCase {
    name: &'static str,
    records: &'static [&'static str],
    host: PolicyHost,
    found: &'static [&'static str],
}

const fn case(
    name: &'static str,
    records: &'static [&'static str],
    host: PolicyHost,
    found: &'static [&'static str],
) -> StsCase {
    StsCase { name, records, host, found }
}

/// Of every case.
const RECORDS: &[&str] = &[
    "^ MX 10 mx",
    "^ TXT \"v=spf1 ip6:2001:db8:2::1 ip4:198.51.100.1 -all\"",
    "_mta-sts.^ TXT \"v=STSv1; id=20261203T1\"",
    "mta-sts.^ A 198.51.100.80",
    "mta-sts.^ AAAA 2001:db8:2::80",
    "_smtp._tls.^ TXT \"v=TLSRPTv1; rua=mailto:tls@ready.example\"",
];

macro_rules! policy {
    ($mode:literal, $mx:literal) => {
        policy!($mode, $mx, "604800")
    };
    ($mode:literal, $mx:literal, $max_age:literal) => {
        concat!(
            "return 200 \"version: STSv1\\nmode: ",
            $mode,
            "\\nmx: ",
            $mx,
            "\\nmax_age: ",
            $max_age,
            "\\n\";"
        )
    };
}

const ENFORCE: &str = policy!("enforce", "mx.ready.example");
const TESTING: &str = policy!("testing", "mx.ready.example");
const NONE: &str = policy!("none", "mx.ready.example");

const FETCH: &[&str] = &["fail mta_sts_fetch"; 2];
const CERTIFICATE: &[&str] = &["fail mta_sts_certificate"; 2];

const CASES: &[StsCase] = &[
    case("sts-enforce", &[], Good(ENFORCE), &[]),
    case("sts-testing", &[], Good(TESTING), &[]),
    case("sts-mode-none", &["_smtp._tls.^ TXT -"], Good(NONE), &[]),
    case(
        "sts-crlf",
        &[],
        Good(
            "return 200 \"version: STSv1\\r\\nmode: enforce\\r\\nmax_age: 604800\\r\\nmx: *.ready.example\\r\\n\";",
        ),
        &[],
    ),
    case(
        "sts-alias",
        &["_mta-sts.^ TXT -", "_mta-sts.^ CNAME _mta-sts.sts-enforce"],
        Good(ENFORCE),
        &[],
    ),
    // Records
    case(
        "sts-unused",
        &["_mta-sts.^ TXT -", "mta-sts.^ A -", "mta-sts.^ AAAA -", "_smtp._tls.^ TXT -"],
        Good(ENFORCE),
        &[],
    ),
    case("sts-no-record", &["_mta-sts.^ TXT -"], Good(ENFORCE), &["fail mta_sts_record"]),
    case("sts-removed", &["_mta-sts.^ TXT -"], Good(NONE), &[]),
    case("sts-web-page", &["_mta-sts.^ TXT -"], Good("return 200 \"<html>\";"), &[]),
    case(
        "sts-two-records",
        &["_mta-sts.^ TXT \"v=STSv1; id=1\"", "_mta-sts.^ TXT \"v=STSv1; id=2\""],
        Good(ENFORCE),
        &["fail mta_sts_record"],
    ),
    case(
        "sts-meant",
        &["_mta-sts.^ TXT \"v=stsv1; id=1\""],
        Good(ENFORCE),
        &["fail mta_sts_record"],
    ),
    case(
        "sts-odd-id",
        &["_mta-sts.^ TXT \"v=STSv1; id=2026-12-03\""],
        Good(ENFORCE),
        &["fail mta_sts_record"],
    ),
    case(
        "sts-no-host",
        &["mta-sts.^ A -", "mta-sts.^ AAAA -"],
        Good(ENFORCE),
        &["fail mta_sts_host"],
    ),
    // Families
    case("sts-only6", &["mta-sts.^ A -"], Good(ENFORCE), &["warn mta_sts_host"]),
    case("sts-only4", &["mta-sts.^ AAAA -"], Good(ENFORCE), &["warn mta_sts_host"]),
    case("sts-loopback", &["mta-sts.^ AAAA ::1"], Good(ENFORCE), &["fail mta_sts_host"]),
    case("sts-dead6", &["mta-sts.^ AAAA 2001:db8:2::82"], Good(ENFORCE), &["fail mta_sts_fetch"]),
    case(
        "sts-refuses6",
        &["mta-sts.^ AAAA 2001:db8:2::25"],
        Good(ENFORCE),
        &["fail mta_sts_fetch"],
    ),
    case(
        "sts-dead",
        &["mta-sts.^ A 198.51.100.82", "mta-sts.^ AAAA 2001:db8:2::82"],
        Good(ENFORCE),
        &["unknown mta_sts_fetch"; 2],
    ),
    case("sts-two-policies", &[], Two(ENFORCE, TESTING), &["warn mta_sts_families"]),
    case("sts-404-over-ipv4", &[], Two(ENFORCE, "return 404;"), &["fail mta_sts_fetch"]),
    // HTTPS
    case("sts-404", &[], Good("return 404;"), FETCH),
    case("sts-503", &[], Good("return 503;"), FETCH),
    case("sts-redirect", &[], Good("return 301 https://$host/policy.txt;"), FETCH),
    case(
        "sts-html",
        &[],
        Good(concat!("default_type text/html; ", policy!("enforce", "mx.ready.example"))),
        &["warn mta_sts_fetch"; 2],
    ),
    case("sts-too-large", &[], Good("root {large};"), FETCH),
    case("sts-hangs", &[], Good("proxy_pass http://198.51.100.82:443;"), FETCH),
    case(
        "sts-plain-http",
        &["mta-sts.^ A 198.51.100.81", "mta-sts.^ AAAA 2001:db8:2::81"],
        Good(ENFORCE),
        FETCH,
    ),
    case("sts-misnamed", &[], Certificate("misnamed"), CERTIFICATE),
    case("sts-expired", &[], Certificate("expired"), CERTIFICATE),
    case("sts-untrusted", &[], Certificate("untrusted"), CERTIFICATE),
    case("sts-ends-soon", &[], Certificate("soon"), &["warn mta_sts_certificate"; 2]),
    // Policies
    case("sts-syntax", &[], Good("return 200 \"mode: enforce\";"), &["fail mta_sts_policy"]),
    case(
        "sts-repeated",
        &[],
        Good(
            "return 200 \"version: STSv1\\nmode: testing\\nmode: enforce\\nmax_age: 604800\\nmx: mx.ready.example\\n\";",
        ),
        &["warn mta_sts_policy"],
    ),
    case(
        "sts-short",
        &[],
        Good(policy!("enforce", "mx.ready.example", "300")),
        &["warn mta_sts_max_age"],
    ),
    case(
        "sts-no-match",
        &[],
        Good(policy!("enforce", "mail.ready.example")),
        &["fail mta_sts_mx", "warn mta_sts_mx"],
    ),
    case(
        "sts-no-match-testing",
        &[],
        Good(policy!("testing", "mail.ready.example")),
        &["warn mta_sts_mx", "warn mta_sts_mx"],
    ),
    case("sts-wildcard", &[], Good(policy!("enforce", "*.ready.example")), &[]),
    case(
        "sts-wildcard-two",
        &["^ MX 10 mx.x.ready.example."],
        Good(policy!("enforce", "*.ready.example")),
        &["fail mta_sts_mx", "warn mta_sts_mx"],
    ),
    // Servers
    case(
        "sts-expired-mx",
        &["^ MX 10 expired"],
        Good(policy!("enforce", "expired.ready.example")),
        &[
            "fail mta_sts_server",
            "fail mta_sts_server",
            "warn smtp_certificate",
            "warn smtp_certificate",
        ],
    ),
    case(
        "sts-expired-mx-testing",
        &["^ MX 10 expired"],
        Good(policy!("testing", "expired.ready.example")),
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "sts-plain-mx",
        &["^ MX 10 plain"],
        Good(policy!("enforce", "plain.ready.example")),
        &[
            "fail mta_sts_server",
            "fail mta_sts_server",
            "unknown path_mtu",
            "warn smtp_starttls",
            "warn smtp_starttls",
        ],
    ),
    // TLSRPT
    case("tlsrpt-missing", &["_smtp._tls.^ TXT -"], Good(ENFORCE), &["warn tls_rpt_record"]),
    case(
        "tlsrpt-two",
        &[
            "_smtp._tls.^ TXT \"v=TLSRPTv1; rua=mailto:a@ready.example\"",
            "_smtp._tls.^ TXT \"v=TLSRPTv1; rua=mailto:b@ready.example\"",
        ],
        Good(ENFORCE),
        &["fail tls_rpt_record"],
    ),
    case(
        "tlsrpt-broken",
        &["_smtp._tls.^ TXT \"v=TLSRPTv1; rua=tls@ready.example\""],
        Good(ENFORCE),
        &["fail tls_rpt_reports"],
    ),
    case(
        "tlsrpt-meant",
        &["_smtp._tls.^ TXT \"v=TLSRPT1; rua=mailto:tls@ready.example\""],
        Good(ENFORCE),
        &["fail tls_rpt_record"],
    ),
    case(
        "tlsrpt-ftp",
        &["_smtp._tls.^ TXT \"v=TLSRPTv1; rua=https://ready.example/r,ftp://ready.example/r\""],
        Good(ENFORCE),
        &["warn tls_rpt_reports"],
    ),
];

/// Servers and zones.
struct StsSite<'lab> {
    _knot: Process,
    _servers: [Postfix<'lab>; 2],
    _sinks: [Process; 2],
    _nginx: Process,
}

impl<'lab> StsSite<'lab> {
    fn start(lab: &'lab Lab) -> Self {
        require_program("nginx", "nginx-light");
        for n in [WEB, PLAIN_WEB, SILENT_WEB, EXPIRED_MX, PLAIN_MX] {
            lab.server.configure(&format!(
                "addr add 198.51.100.{n}/24 dev gateway\naddr add 2001:db8:2::{n}/64 dev gateway nodad\n"
            ));
        }
        let [v4, v6] = [Family::Ipv4, Family::Ipv6].map(|family| address(SILENT_WEB, family));
        // nginx connects to it from the same host.
        lab.server.run([
            "nft",
            &format!(
                "table inet silent {{ chain input {{ type filter hook input priority 0;
                   ip daddr {v4} tcp dport 443 drop; ip6 daddr {v6} tcp dport 443 drop; }}
                 }}"
            ),
        ]);
        let authority = Authority::new(lab.folder("ca"), &format!("*.{SITE}"));
        assert_eq!(authority.certificate(), trusted(lab));
        let knot = knot(lab, &zones(), &[]);
        let issue = |file: &str, validity| {
            let names = [&*format!("*.{SITE}"), &*format!("mx.x.{SITE}")];
            let key = KeyType::EcdsaP256;
            authority.issue(&CertificateRequest { file, names: &names, key, validity })
        };
        let server = |name: &str, n: u8, issued: &IssuedCertificate| {
            let addresses = Family::ALL.map(|family| address(n, family).to_string()).join(", ");
            let main_cf = format!(
                "myhostname = {name}.{SITE}\ninet_interfaces = {addresses}\nvirtual_mailbox_domains = static:all\n{}",
                tls(&issued.fullchain, &issued.key)
            );
            Postfix::start(lab, &lab.server, name, None, &main_cf)
        };
        let servers = [
            server("mx", 25, &issue("mx", Validity::Days(60))),
            server("expired", EXPIRED_MX, &issue("expired-mx", Validity::Expired)),
        ];
        let plain = format!("plain.{SITE}");
        let sinks = Family::ALL.map(|family| sink(lab, address(PLAIN_MX, family), &plain));
        let nginx = nginx(lab, &authority);
        Self { _knot: knot, _servers: servers, _sinks: sinks, _nginx: nginx }
    }
}

/// Zone entries besides those of the cases.
const ZONE: &str = "\
_dmarc TXT \"v=DMARC1; p=quarantine; rua=mailto:dmarc@ready.example\"
out A 198.51.100.1\nout AAAA 2001:db8:2::1
mx A 198.51.100.25\nmx AAAA 2001:db8:2::25
mx.x A 198.51.100.25\nmx.x AAAA 2001:db8:2::25
expired A 198.51.100.55\nexpired AAAA 2001:db8:2::55
plain A 198.51.100.56\nplain AAAA 2001:db8:2::56
";

fn zones() -> BTreeMap<String, String> {
    let key = |line: &str| -> Vec<String> { line.split(' ').take(2).map(str::to_owned).collect() };
    let mut site = ZONE.to_owned();
    for case in CASES {
        let replaced: Vec<Vec<String>> = case.records.iter().map(|line| key(line)).collect();
        let usual = RECORDS.iter().filter(|line| !replaced.contains(&key(line)));
        let own = case.records.iter().filter(|line| !line.ends_with(" -"));
        for line in usual.chain(own) {
            writeln!(site, "{}", line.replace('^', case.name)).unwrap();
        }
    }
    let parent = "ns.client AAAA 2001:db8:53::53\n".to_owned();
    let mut zones = BTreeMap::from([(SITE.to_owned(), site), ("example".to_owned(), parent)]);
    for sender in SENDERS {
        let ip: IpAddr = sender.parse().unwrap();
        let zone =
            if ip.is_ipv6() { "8.b.d.0.1.0.0.2.ip6.arpa" } else { "100.51.198.in-addr.arpa" };
        zones.insert(zone.to_owned(), format!("{} PTR out.{SITE}.\n", Name::from(ip)));
    }
    zones
}

/// The web servers of all policy hosts.
fn nginx(lab: &Lab, authority: &Authority) -> Process {
    let folder = lab.folder("nginx");
    let path = folder.display();
    let large = folder.join("large/.well-known");
    fs::create_dir_all(&large).unwrap();
    fs::write(large.join("mta-sts.txt"), "a: b\n".repeat(20_000)).unwrap();
    let certificates = certificates(lab, authority);
    let mut servers = String::new();
    for case in CASES {
        let (name, directives) = match case.host {
            Good(directives) => ("good", [directives; 2]),
            Two(v6, v4) => ("good", [v6, v4]),
            Certificate(name) => (name, [ENFORCE; 2]),
        };
        let (certificate, key) = &certificates[name];
        let (certificate, key) = (certificate.display(), key.display());
        for (family, directives) in [Family::Ipv6, Family::Ipv4].into_iter().zip(directives) {
            let listen = SocketAddr::new(address(WEB, family), 443);
            let directives = directives.replace("{large}", &format!("{path}/large"));
            writeln!(
                servers,
                "server {{ listen {listen} ssl; server_name mta-sts.{}.{SITE}; ssl_certificate {certificate};
                   ssl_certificate_key {key}; location = /.well-known/mta-sts.txt {{ {directives} }} }}",
                case.name
            )
            .unwrap();
        }
    }
    let plain = Family::ALL.map(|family| SocketAddr::new(address(PLAIN_WEB, family), 443));
    let configuration = format!(
        "daemon off;\npid {path}/pid;\nerror_log stderr warn;\nevents {{ }}\n\
         http {{ access_log off; default_type text/plain; server_names_hash_bucket_size 128;\n\
         server_names_hash_max_size 4096; client_body_temp_path {path}/1; proxy_temp_path {path}/2;\n\
         fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;\n\
         server {{ listen {}; listen {}; }}\n{servers} }}\n",
        plain[0], plain[1]
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    let words =
        ["nginx", "-p", folder.to_str().unwrap(), "-e", "stderr", "-c", file.to_str().unwrap()];
    let nginx = lab.server.spawn(words);
    for family in Family::ALL {
        lab.gateway.wait_for_listener(SocketAddr::new(address(WEB, family), 443));
    }
    nginx
}

/// Certificates and keys by name.
fn certificates(lab: &Lab, authority: &Authority) -> BTreeMap<&'static str, (PathBuf, PathBuf)> {
    let names: Vec<String> =
        CASES.iter().map(|case| format!("mta-sts.{}.{SITE}", case.name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issue = |by: &Authority, file: &str, names: &[&str], validity| {
        let key = KeyType::EcdsaP256;
        let issued = by.issue(&CertificateRequest { file, names, key, validity });
        let path = |file: &Path| file.to_owned();
        (path(&issued.fullchain), path(&issued.key))
    };
    let stranger = Authority::new(lab.folder("stranger"), &format!("*.{SITE}"));
    let site = format!("*.{SITE}");
    BTreeMap::from([
        ("good", issue(authority, "web", &names, Validity::Days(60))),
        ("soon", issue(authority, "web-soon", &names, Validity::Days(3))),
        ("expired", issue(authority, "web-expired", &names, Validity::Expired)),
        // One label more than the wildcard has.
        ("misnamed", issue(authority, "web-misnamed", &[&site], Validity::Days(60))),
        ("untrusted", issue(&stranger, "web", &names, Validity::Days(60))),
    ])
}

fn policies_are_judged_over_each_family() {
    let lab = Lab::new();
    let _site = StsSite::start(&lab);
    let words = |name| arguments(&Case { name, zone: "", options: "", found: &[] });
    assert!(CASES.len() >= 45, "{} cases", CASES.len());
    let mut wrong: Vec<String> = Vec::new();
    for cases in CASES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let differs = |case: &StsCase| {
                let mut found = case.found.to_vec();
                found.sort_unstable();
                differs_from(&lab, case.name, words(case.name), &found)
            };
            let running: Vec<_> =
                cases.iter().map(|case| scope.spawn(move || differs(case))).collect();
            wrong.extend(running.into_iter().filter_map(|one| one.join().unwrap()));
        });
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));

    for (name, sentence) in [
        ("sts-enforce", "pass mta-sts.sts-enforce.ready.example: the same policy at 2 addresses"),
        ("sts-unused", "pass sts-unused.ready.example: no MTA-STS record: senders do not verify"),
        ("sts-mode-none", "mode none: senders do not verify the exchanges"),
        ("sts-hangs", "mta-sts.sts-hangs.ready.example 198.51.100.80: no complete response in 4 s"),
        ("sts-404", "2001:db8:2::80: HTTP status 404"),
        (
            "sts-redirect",
            "a redirect (301) to https://mta-sts.sts-redirect.ready.example/policy.txt",
        ),
        ("sts-too-large", "the policy is larger than 64 KiB"),
        ("sts-misnamed", "certificate for *.ready.example: not for the name of this server"),
        ("sts-html", "Content-Type: text/html"),
        ("sts-no-match", "senders that enforce it refuse to deliver to this exchange"),
        (
            "sts-expired-mx",
            "the certificate is expired: senders that enforce the policy refuse to deliver to expired.ready.example",
        ),
    ] {
        let mut words = words(name);
        words.push("--all".to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let printed = check(&lab, &words).printed;
        let text = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(sentence), "{sentence:?} is not in:\n{printed}");
    }
}
