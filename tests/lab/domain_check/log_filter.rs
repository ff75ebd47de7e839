//! What the checks and probes leave in a mail server's log: fail2ban's stock filter for Postfix must match none of it, in no
//! mode, or the host that asks is banned.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use super::recipients::zones;
use super::site::{self, SENDERS};
use crate::harness::tests;
use crate::support::world::{KNOT, knot};
use crate::support::{
    Authority, CertificateRequest, Config, Family, Gateway, KeyType, Lab, Mode, Postfix, Validity,
    port, require_program, until,
};

tests![fail2ban_matches_no_line_of_a_probe];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const SITE: &str = "quiet.example";
/// Of the exchange, and of another one behind postscreen(8).
const DIRECT: [&str; 2] = ["203.0.113.25", "2001:db8:c::25"];
const SCREENED: [&str; 2] = ["203.0.113.26", "2001:db8:c::26"];
/// Of one without STARTTLS.
const PLAIN: [&str; 2] = ["203.0.113.27", "2001:db8:c::27"];
const VANTAGE: &str = "[::1]:9626";
const MODES: [&str; 8] = ["normal", "auth", "rbl", "more", "ddos", "extra", "aggressive", "errors"];

/// The lines of a log that the filter matches in some mode.
fn matched(log: &Path) -> Vec<String> {
    let mut matched = Vec::new();
    for mode in MODES {
        let output = Command::new("fail2ban-regex")
            .args(["--out", "msg"])
            .arg(log)
            .arg(format!("/etc/fail2ban/filter.d/postfix.conf[mode={mode}]"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        matched.extend(lines.lines().map(|line| format!("{mode}: {line}")));
    }
    matched
}

/// As Postfix is by default; the lab's own settings switch some of it off.
const SETTINGS: &str = "\
virtual_mailbox_domains = static:all
postscreen_greet_wait = 2s
smtpd_data_restrictions = reject_unauth_pipelining
smtpd_recipient_restrictions = reject_unauth_pipelining
";

fn exchanges(lab: &Lab) -> [Postfix<'_>; 2] {
    for address in [DIRECT, SCREENED, PLAIN].concat() {
        lab.add_client_ip(address.parse().unwrap());
    }
    let authority = Authority::new(lab.folder("ca"), &format!("*.{SITE}"));
    assert_eq!(authority.certificate(), site::trusted(lab));
    let issued = authority.issue(&CertificateRequest {
        file: "mx",
        names: &[&*format!("*.{SITE}")],
        key: KeyType::EcdsaP256,
        validity: Validity::Days(60),
    });
    let listening = |addresses: &[[&str; 2]]| addresses.concat().join(", ");
    let main_cf = format!(
        "myhostname = mx.{SITE}\ninet_interfaces = {}\n{SETTINGS}{}",
        listening(&[DIRECT, SCREENED]),
        site::tls(&issued.fullchain, &issued.key)
    );
    let postfix = Postfix::start(lab, &lab.client, "exchange", None, &main_cf);
    let main_cf =
        format!("myhostname = mx.{SITE}\ninet_interfaces = {}\n{SETTINGS}", listening(&[PLAIN]));
    let plain = Postfix::start(lab, &lab.client, "plain", None, &main_cf);
    let screened = SCREENED.map(|ip| {
        let (family, to) = match ip.contains(':') {
            true => ("ip6", format!("[{ip}]")),
            false => ("ip", ip.to_owned()),
        };
        format!("{family} daddr {ip} tcp dport 25 dnat {family} to {to}:{}", port::POSTSCREEN)
    });
    lab.client.run([
        "nft",
        &format!(
            "table inet screened {{ chain c {{ type nat hook prerouting priority -100; {}\n }}\n }}",
            screened.join("\n ")
        ),
    ]);
    [postfix, plain]
}

fn records() -> String {
    let mut records = String::new();
    for (name, addresses) in [("direct", DIRECT), ("screened", SCREENED), ("plain", PLAIN)] {
        let [v4, v6] = addresses;
        writeln!(records, "{name} MX 10 mx-{name}\nmx-{name} A {v4}\nmx-{name} AAAA {v6}").unwrap();
        writeln!(records, "{name} TXT \"v=spf1 a:out.{SITE} -all\"").unwrap();
    }
    records
}

fn fail2ban_matches_no_line_of_a_probe() {
    require_program("fail2ban-regex", "fail2ban");
    let lab = Lab::new();
    let _knot = knot(&lab, &zones(SITE, &records()), &[]);
    let exchanges = exchanges(&lab);
    let _upstream = Family::ALL.map(|family| site::sink(&lab, lab.server_ip(family), "upstream"));

    // The probes of sessions first: postscreen lets a host pass that it has tested.
    for (level, settings) in [
        ("tcp", &[][..]),
        ("smtp", &[]),
        ("smtp", &["probe_large_segments = true"]),
        ("rcpt", &["callouts = true"]),
    ] {
        probes_of_sessions(&lab, &exchanges, level, settings);
    }
    let key = lab.path("vantage.key");
    fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    let key = key.to_str().unwrap();
    let vantage = vantage(&lab, key);
    for domain in ["screened", "direct", "plain", "screened", "direct", "plain", "direct"] {
        let control = format!("mx-{domain}.{SITE}");
        checks(&lab, domain, &[]);
        checks(&lab, domain, &["--control", &control]);
        checks(&lab, domain, &["--vantage", VANTAGE, "--vantage-key", key]);
    }
    drop(vantage);
    // Each connection has ended, and there were many.
    until("the end of all sessions", || {
        let ended = sessions(&exchanges, "disconnect");
        (sessions(&exchanges, "connect") == ended && ended > 60).then_some(())
    });
    for (exchange, large) in exchanges.iter().zip(["starttls=1 quit=1", "noop=1 quit=1"]) {
        let found = matched(exchange.log_file());
        assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
        let large = exchange.log().lines().filter(|line| line.contains(large)).count();
        assert!(large >= 6, "{large} probes with large segments");
    }

    // The filter reads this log.
    faults_are_matched(&lab, exchanges[0].log_file());
}

/// Sessions whose senders have these exchanges, behind a rule that has them probed.
fn probes_of_sessions(lab: &Lab, exchanges: &[Postfix<'_>], level: &str, settings: &[&str]) {
    let rule = format!(
        "\n[[policy]]\nname = \"return\"\nrequire = [{{ fact = \"return_path\", level = {level:?}, over = \"FAMILY\" }}]\n"
    );
    for family in ["ipv6", "ipv4"] {
        let mut config = Config::new(lab, Mode::Proxy)
            .set("lookup", &format!("dns = [{KNOT:?}]"))
            .set("lookup", "deadline = \"10s\"")
            .set("lookup", "probe_timeout = \"9s\"")
            .policies(&rule.replace("FAMILY", family));
        for line in settings {
            config = config.set("lookup", line);
        }
        let mut gateway = Gateway::start(lab, &config);
        let before = sessions(exchanges, "disconnect");
        for domain in ["screened", "direct", "plain"] {
            let mut session = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6));
            session.dialogue(&format!(
                "S: 220\n C: EHLO client.example.net\n S: 250\n C: MAIL FROM:<a@{domain}.{SITE}>\n S: 250\n \
                 C: RCPT TO:<b@example.org>\n S: 250\n C: QUIT\n S: 221"
            ));
        }
        // A probe that decides by the connection alone takes leave in the background.
        until("the end of the probes", || {
            (sessions(exchanges, "disconnect") == before + 3).then_some(())
        });
        gateway.terminate();
        gateway.wait();
    }
}

/// The number of sessions of smtpd(8) that began, by `connect`, or ended, by `disconnect`.
fn sessions(exchanges: &[Postfix<'_>], event: &str) -> usize {
    let words = format!("]: {event} from");
    let logs: String = exchanges.iter().map(Postfix::log).collect();
    logs.lines().filter(|line| line.contains("/smtpd[") && line.contains(&words)).count()
}

fn checks(lab: &Lab, domain: &str, options: &[&str]) {
    let domain = format!("{domain}.{SITE}");
    let trusted = format!("SSL_CERT_FILE={}", site::trusted(lab).display());
    let words = [
        "env",
        &trusted,
        GATEPOST,
        "check",
        &domain,
        "--dns",
        KNOT,
        "--timeout=4s",
        "--from",
        SENDERS[0],
        "--from",
        SENDERS[1],
    ];
    let output = lab.gateway.output(words.iter().chain(options));
    let printed = String::from_utf8_lossy(&output.stdout);
    // Without STARTTLS it does not know of large packets.
    let expected = if domain.starts_with("plain") { 4 } else { 0 };
    assert_eq!(output.status.code(), Some(expected), "{options:?}\n{printed}");
}

fn vantage(lab: &Lab, key: &str) -> crate::support::Process {
    let mut words = vec![GATEPOST, "vantage", "--listen", VANTAGE, "--key", key, "--dns", KNOT];
    let domains = ["screened", "direct", "plain"].map(|domain| format!("{domain}.{SITE}"));
    words.extend(domains.iter().flat_map(|domain| ["--domain", domain.as_str()]));
    words.extend(["--hostname", "vantage.example.net", "--timeout", "9s"]);
    let vantage = lab.gateway.spawn(words);
    until("a vantage", || vantage.log().contains("probes ").then_some(()));
    vantage
}

/// Clients that pipeline without leave, hang up, or want what there is not.
fn faults_are_matched(lab: &Lab, log: &Path) {
    let at = SocketAddr::new(DIRECT[1].parse::<IpAddr>().unwrap(), 25);
    let mut pipelines = lab.gateway.smtp(at);
    pipelines.dialogue("S: 220\n C: EHLO a.example\n S: 250");
    let noop = format!("NOOP {}\r\n", "x".repeat(500));
    pipelines.raw(noop.repeat(4).as_bytes()).unwrap();
    pipelines.dialogue("S: 250\n S: 250\n S: 250\n S: 250\n C: QUIT\n S: 221");
    lab.gateway.smtp(at).greeting();
    let found = until("matches", || {
        let found = matched(log);
        let has = |mode: &str, words: &str| {
            found.iter().any(|line| line.starts_with(mode) && line.contains(words))
        };
        (has("normal", "improper command pipelining after NOOP")
            && has("aggressive", "improper command pipelining after NOOP")
            && has("ddos", "lost connection after"))
        .then_some(found)
    });
    assert!(found.len() >= 5, "{found:?}");
}
