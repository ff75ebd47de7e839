//! What scanners find wrong with TLS that the gateway ends: nothing. testssl.sh and sslscan, of Debian.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::harness::tests;
use crate::support::{
    CertificateRequest, Config, Family, Gateway, HOSTNAME, IssuedCertificate, KeyType, Lab, Mode,
    OwnTls, Postfix, Validity, require_program,
};

tests![
    testssl_finds_no_fault_in_versions_ciphers_and_certificates,
    testssl_finds_no_vulnerability,
    sslscan_finds_no_fault,
];

/// Findings of testssl.sh that are the lab's and not the gateway's.
const EXPECTED: [(&str, &str); 1] =
    [("cert_revocation", "the lab's authority publishes neither a CRL nor an OCSP responder")];

fn testssl_finds_no_fault_in_versions_ciphers_and_certificates() {
    let findings =
        testssl(Mode::Proxy, Family::Ipv4, &["--protocols", "--server-defaults", "--fs"]);
    for (id, expected) in [
        ("SSLv2", "not offered"),
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered"),
        ("PFS", "offered"),
    ] {
        expect(&findings, id, expected);
    }
}

fn testssl_finds_no_vulnerability() {
    let findings = testssl(Mode::Tproxy, Family::Ipv6, &["--vulnerable"]);
    for id in [
        "heartbleed",
        "CCS",
        "ROBOT",
        "secure_client_renego",
        "CRIME_TLS",
        "POODLE_SSL",
        "SWEET32",
        "FREAK",
        "DROWN",
        "LOGJAM",
        "BEAST",
        "LUCKY13",
    ] {
        expect(&findings, id, "not vulnerable");
    }
}

/// `--vulnerable` and the like are `sections`. Returns all findings; none is of severity LOW or worse but those of [`EXPECTED`].
fn testssl(mode: Mode, family: Family, sections: &[&str]) -> Vec<Value> {
    require_program("testssl", "testssl.sh");
    let lab = Lab::new();
    without_dns(&lab);
    let _postfix = Postfix::receiver(&lab);
    let (tls, config) = with_both_keys(&lab, mode);
    let _gateway = Gateway::start(&lab, &config);
    let to = lab.entrance(mode, family);
    let ip = if to.is_ipv6() { format!("[{}]", to.ip()) } else { to.ip().to_string() };
    let file = lab.path("findings.json");
    let mut command = vec!["testssl", "--quiet", "--color", "0", "--warnings", "off", "--fast"];
    command.extend(["--nodns", "none", "--starttls", "smtp"]);
    let authority = tls.authority.certificate();
    command.extend(["--add-ca", authority.to_str().unwrap()]);
    command.extend(["--jsonfile", file.to_str().unwrap()]);
    if family == Family::Ipv6 {
        command.push("-6");
    }
    command.extend(sections);
    let at = format!("{HOSTNAME}:{}", to.port());
    command.extend(["--ip", &ip, &at]);
    // Its exit status counts what it could not test too.
    let output = lab.client.output(&command);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings = fs::read_to_string(&file).unwrap_or_default();
    let findings: Vec<Value> = serde_json::from_str(&findings)
        .unwrap_or_else(|error| panic!("{error} in {findings}\n{printed}"));
    expect(&findings, "scanTime", "");

    let is_bad = |finding: &&Value| {
        let severity = finding["severity"].as_str().unwrap();
        let id = finding["id"].as_str().unwrap();
        // With several certificates it numbers what it finds of them: `cert_revocation <cert#2>`.
        let id = id.split(' ').next().unwrap();
        !["OK", "INFO", "WARN"].contains(&severity)
            && !EXPECTED.iter().any(|(expected, _reason)| *expected == id)
    };
    let bad: Vec<&Value> = findings.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{bad:#?}\n{printed}");
    findings
}

#[track_caller]
fn expect(findings: &[Value], id: &str, expected: &str) {
    let found = findings.iter().find(|finding| finding["id"] == id);
    let found = found.unwrap_or_else(|| panic!("no {id} in {findings:#?}"));
    let text = found["finding"].as_str().unwrap();
    assert!(text.starts_with(expected), "{id}: {text:?}");
}

fn sslscan_finds_no_fault() {
    require_program("sslscan", "sslscan");
    let lab = Lab::new();
    without_dns(&lab);
    let _postfix = Postfix::receiver(&lab);
    let (_tls, config) = with_both_keys(&lab, Mode::Proxy);
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let file = lab.path(&format!("{family}.xml"));
        let to = lab.entrance(Mode::Proxy, family).to_string();
        let (xml, name) = (format!("--xml={}", file.display()), format!("--sni-name={HOSTNAME}"));
        let ip = format!("--{family}");
        let printed =
            lab.client.run(["sslscan", "--starttls-smtp", "--no-colour", &ip, &xml, &name, &to]);
        let found = fs::read_to_string(&file).unwrap();
        let elements = |name: &str| -> Vec<&str> {
            let start = format!("<{name} ");
            found.lines().map(str::trim).filter(|line| line.starts_with(&start)).collect()
        };
        let enabled: Vec<&str> = elements("protocol")
            .into_iter()
            .filter(|line| line.contains("enabled=\"1\""))
            .collect();
        assert_eq!(
            enabled,
            ["1.2", "1.3"].map(|version| format!(
                r#"<protocol type="tls" version="{version}" enabled="1" />"#
            )),
            "{printed}"
        );
        let ciphers = elements("cipher");
        assert!(ciphers.len() > 5, "{printed}");
        for cipher in ciphers {
            let is_strong = ["strong", "acceptable"]
                .iter()
                .any(|strength| cipher.contains(&format!("strength=\"{strength}\"")));
            assert!(is_strong, "{cipher}");
        }
        for element in elements("renegotiation") {
            assert!(element.contains("supported=\"0\""), "{element}");
        }
        let heartbleed = elements("heartbleed");
        assert!(heartbleed.iter().all(|line| line.contains("vulnerable=\"0\"")), "{heartbleed:?}");
        assert!(!heartbleed.is_empty(), "{printed}");
    }
}

/// No server answers at port 53, so that lookups of the client fail at once: testssl.sh has openssl connect to "invalid." to
/// find what it supports.
fn without_dns(lab: &Lab) {
    lab.client.resolve_at(Ipv4Addr::LOCALHOST.into());
}

/// A gateway with an ECDSA and an RSA certificate, since some attacks need the latter.
fn with_both_keys(lab: &Lab, mode: Mode) -> (OwnTls, Config) {
    let tls = OwnTls::new(lab);
    let issue = |file, key| {
        // Scanners report a certificate that expires within 60 days.
        let validity = Validity::Days(89);
        tls.authority.issue(&CertificateRequest { file, names: &[HOSTNAME], key, validity })
    };
    let issued = [issue("ecdsa", KeyType::EcdsaP256), issue("rsa", KeyType::Rsa2048)];
    let section = |one: &IssuedCertificate| {
        format!("[[tls.certificate]]\nfile = {:?}\nkey = {:?}\n", one.fullchain, one.key)
    };
    let config =
        Config::new(lab, mode).for_crowds().policies(&issued.each_ref().map(section).concat());
    (tls, config)
}
