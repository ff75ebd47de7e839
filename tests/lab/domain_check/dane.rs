//! TLSA records and the certificates of real servers: `gatepost check` and Postfix's posttls-finger agree on each.

use std::fmt::Write as _;
use std::process::Command;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256, Sha512};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use crate::support::Lab;

/// What Postfix makes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A record authenticates the server.
    Verifies,
    /// TLS, but no record authenticates the server.
    DoesNotVerify,
    /// It keeps the mail, as it has no answer about the records, or no TLS.
    Defers,
}

pub(crate) struct DaneCase {
    pub(crate) domain: &'static str,
    /// With `^` for the domain. `{3 1 1 own}` is the data of a record: `own` for the server's certificate, `authority` for that of the
    /// authority which is sent along, `root` for the one above it, `other` for another
    /// certificate, `expired` and `self-signed` for those of two other servers.
    pub(crate) zone: &'static str,
    /// Over IPv6 and over IPv4.
    pub(crate) sender: [Sender; 2],
    pub(crate) found: &'static [&'static str],
}

use Sender::{Defers, DoesNotVerify, Verifies};

const fn case(
    domain: &'static str,
    zone: &'static str,
    sender: [Sender; 2],
    found: &'static [&'static str],
) -> DaneCase {
    DaneCase { domain, zone, sender, found }
}

macro_rules! zone {
    ($($line:literal)*) => {
        concat!("^ MX 10 mx-^\nmx-^ A 198.51.100.25\nmx-^ AAAA 2001:db8:2::25\n", $($line, "\n",)*)
    };
}

/// With the last number of the server's addresses.
macro_rules! zone_at {
    ($server:literal $($line:literal)*) => {
        concat!(
            "^ MX 10 mx-^\nmx-^ A 198.51.100.", $server, "\nmx-^ AAAA 2001:db8:2::", $server, "\n",
            $($line, "\n",)*
        )
    };
}

const MISMATCH: &[&str] = &["fail dane_certificate", "fail dane_certificate"];

pub(crate) const DANE_CASES: &[DaneCase] = &[
    case("key", zone!("_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 own}"), [Verifies; 2], &[]),
    case("key512", zone!("_25._tcp.mx-^ TLSA 3 1 2 {3 1 2 own}"), [Verifies; 2], &[]),
    case("cert", zone!("_25._tcp.mx-^ TLSA 3 0 1 {3 0 1 own}"), [Verifies; 2], &[]),
    case("whole-cert", zone!("_25._tcp.mx-^ TLSA 3 0 0 {3 0 0 own}"), [Verifies; 2], &[]),
    case("whole-key", zone!("_25._tcp.mx-^ TLSA 3 1 0 {3 1 0 own}"), [Verifies; 2], &[]),
    case(
        "rollover",
        zone!("_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 own}" "_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 other}"),
        [Verifies; 2],
        &[],
    ),
    case("too-late", zone!("_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 other}"), [DoesNotVerify; 2], MISMATCH),
    case("ta", zone!("_25._tcp.mx-^ TLSA 2 1 1 {2 1 1 authority}"), [Verifies; 2], &[]),
    case("ta-cert", zone!("_25._tcp.mx-^ TLSA 2 0 2 {2 0 2 authority}"), [Verifies; 2], &[]),
    // The root is not sent.
    case("ta-root", zone!("_25._tcp.mx-^ TLSA 2 0 1 {2 0 1 root}"), [DoesNotVerify; 2], MISMATCH),
    case("ta-whole-root", zone!("_25._tcp.mx-^ TLSA 2 0 0 {2 0 0 root}"), [Verifies; 2], &[]),
    case("ta-own", zone!("_25._tcp.mx-^ TLSA 2 1 1 {2 1 1 own}"), [DoesNotVerify; 2], MISMATCH),
    // The certificate is for names one label below the site.
    case(
        "x.ta-name",
        "^ MX 10 mx.^\nmx.^ A 198.51.100.25\nmx.^ AAAA 2001:db8:2::25\n_25._tcp.mx.^ TLSA 2 1 1 {2 1 1 authority}\n",
        [DoesNotVerify; 2],
        &[
            "fail dane_certificate",
            "fail dane_certificate",
            "warn smtp_certificate",
            "warn smtp_certificate",
        ],
    ),
    // The domain's own name is enough.
    case(
        "ta-domain",
        "^ MX 10 mx.^\nmx.^ A 198.51.100.25\nmx.^ AAAA 2001:db8:2::25\n_25._tcp.mx.^ TLSA 2 1 1 {2 1 1 authority}\n",
        [Verifies; 2],
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    // With usage 3 no name counts.
    case(
        "x.key-name",
        "^ MX 10 mx.^\nmx.^ A 198.51.100.25\nmx.^ AAAA 2001:db8:2::25\n_25._tcp.mx.^ TLSA 3 1 1 {3 1 1 own}\n",
        [Verifies; 2],
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "pkix",
        zone!("_25._tcp.mx-^ TLSA 1 1 1 {1 1 1 own}"),
        [DoesNotVerify; 2],
        &["warn dane_tlsa"],
    ),
    case(
        "pkix-beside",
        zone!("_25._tcp.mx-^ TLSA 1 1 1 {1 1 1 own}" "_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 own}"),
        [Verifies; 2],
        &["warn dane_tlsa"],
    ),
    case("no-records", zone!(), [DoesNotVerify; 2], &[]),
    case("no-answer", zone!("_tcp.mx-^ NS ns.client.example."), [Defers; 2], &["fail dane_tlsa"]),
    case(
        "alias",
        "^ MX 10 alias-^\nalias-^ CNAME mx-^\nmx-^ A 198.51.100.25\nmx-^ AAAA 2001:db8:2::25\n_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 own}\n",
        [Verifies; 2],
        &["warn mx_name"],
    ),
    case(
        "alias-own",
        "^ MX 10 alias-^\nalias-^ CNAME mx-^\nmx-^ A 198.51.100.25\nmx-^ AAAA 2001:db8:2::25\n_25._tcp.alias-^ TLSA 3 1 1 {3 1 1 own}\n",
        [Verifies; 2],
        &["warn mx_name"],
    ),
    // Records that are an alias.
    case(
        "shared",
        zone!("_25._tcp.mx-^ CNAME tlsa-^" "tlsa-^ TLSA 3 1 1 {3 1 1 own}"),
        [Verifies; 2],
        &[],
    ),
    case(
        "one-family",
        "^ MX 10 mx-^\nmx-^ A 198.51.100.25\nmx-^ AAAA 2001:db8:2::26\n_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 own}\n",
        [DoesNotVerify, Verifies],
        &["fail dane_certificate", "warn smtp_certificate"],
    ),
    case(
        "plain",
        "^ MX 10 mx-^\nmx-^ A 198.51.100.27\nmx-^ AAAA 2001:db8:2::27\n_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 own}\n",
        [Defers; 2],
        &[
            "fail dane_certificate",
            "fail dane_certificate",
            "unknown path_mtu",
            "warn smtp_starttls",
            "warn smtp_starttls",
        ],
    ),
    // With usage 3 the end does not count, with usage 2 it does.
    case(
        "expired-key",
        zone_at!("28" "_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 expired}"),
        [Verifies; 2],
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "expired-ta",
        zone_at!("28" "_25._tcp.mx-^ TLSA 2 1 1 {2 1 1 authority}"),
        [DoesNotVerify; 2],
        &[
            "fail dane_certificate",
            "fail dane_certificate",
            "warn smtp_certificate",
            "warn smtp_certificate",
        ],
    ),
    // A certificate that signs itself, as packages make them.
    case(
        "self-signed",
        zone_at!("29" "_25._tcp.mx-^ TLSA 3 1 1 {3 1 1 self-signed}"),
        [Verifies; 2],
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "self-signed-ta",
        zone_at!("29" "_25._tcp.mx-^ TLSA 2 1 1 {2 1 1 self-signed}"),
        [DoesNotVerify; 2],
        &[
            "fail dane_certificate",
            "fail dane_certificate",
            "warn smtp_certificate",
            "warn smtp_certificate",
        ],
    ),
    // The exchange is in a zone without signatures.
    case("unsigned-tlsa", "^ MX 10 mx-tlsa.unsigned\n", [DoesNotVerify; 2], &["warn dane_tlsa"]),
];

/// Records of the zone `unsigned`: DANE has no effect there.
pub(crate) const UNSIGNED: &str = "\
mx-tlsa A 198.51.100.25
mx-tlsa AAAA 2001:db8:2::25
_25._tcp.mx-tlsa TLSA 3 1 1 {3 1 1 own}
";

/// The certificates that records are about, in DER.
pub(crate) struct Certificates {
    pub(crate) own: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    pub(crate) root: Vec<u8>,
    pub(crate) other: Vec<u8>,
    pub(crate) expired: Vec<u8>,
    pub(crate) self_signed: Vec<u8>,
}

/// The certificate of a PEM file in DER.
pub(crate) fn der(file: &std::path::Path) -> Vec<u8> {
    let words = ["x509", "-outform", "der", "-in", file.to_str().unwrap()];
    let output = Command::new("openssl").args(words).output().expect("openssl (Debian: openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Certificates {
    /// Puts the data of TLSA records in the place of `{3 1 1 own}`.
    pub(crate) fn fill(&self, zone: &str) -> String {
        let mut filled = String::new();
        let mut parts = zone.split(['{', '}']);
        while let Some(text) = parts.next() {
            filled.push_str(text);
            if let Some(record) = parts.next() {
                filled.push_str(&self.data(record));
            }
        }
        filled
    }

    fn data(&self, record: &str) -> String {
        let [_, selector, matching, certificate] = record.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{record}")
        };
        let certificate = match certificate {
            "own" => &self.own,
            "authority" => &self.authority,
            "root" => &self.root,
            "expired" => &self.expired,
            "self-signed" => &self.self_signed,
            _ => &self.other,
        };
        let parsed = Certificate::from_der(certificate).unwrap();
        let selected = match selector {
            "0" => certificate.clone(),
            _ => parsed.tbs_certificate().subject_public_key_info().to_der().unwrap(),
        };
        HEXLOWER.encode(&match matching {
            "0" => selected,
            "1" => Sha256::digest(&selected).to_vec(),
            _ => Sha512::digest(&selected).to_vec(),
        })
    }
}

/// The lines of all cases for the zone of the site.
pub(crate) fn zone(certificates: &Certificates) -> String {
    let mut zone = String::new();
    for case in DANE_CASES {
        let name = case.domain.replace('.', "-");
        let lines = case
            .zone
            .replace("mx-^", &format!("mx-{name}"))
            .replace("alias-^", &format!("alias-{name}"));
        writeln!(zone, "{}", certificates.fill(&lines.replace('^', case.domain))).unwrap();
        writeln!(zone, "{} TXT \"v=spf1 a:out.signed.example -all\"", case.domain).unwrap();
        let reports = "\"v=TLSRPTv1; rua=mailto:tls@signed.example\"";
        writeln!(zone, "_smtp._tls.{} TXT {reports}", case.domain).unwrap();
    }
    zone
}

/// What posttls-finger(1) finds; the gateway's resolver is the one that validates.
pub(crate) fn postfix_finds(lab: &Lab, domain: &str, family: &str) -> (Sender, String) {
    let protocols = format!("inet_protocols={family}");
    let words = [
        "posttls-finger",
        "-o",
        &protocols,
        "-t",
        "10",
        "-l",
        "dane",
        "-L",
        "summary,certmatch",
        domain,
    ];
    let output = lab.gateway.output(words);
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let found = if text.contains("Verified TLS connection established") {
        Verifies
    } else if text.contains("TLS connection established") {
        DoesNotVerify
    } else {
        let has_no_tls = text.contains("250-8BITMIME") && !text.contains("STARTTLS");
        assert!(has_no_tls || text.contains("TLSA lookup error"), "{text}");
        Defers
    };
    (found, text)
}
