//! Upstreams that are host names, in a zone of Knot: both families of a name, another address under load, a resolver that is down,
//! and names that lead nowhere or back to the gateway.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::upstream::{BlackHole, expect_unavailable};
use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Process, port, until};

tests![
    a_name_stands_for_its_addresses_of_both_families,
    a_black_hole_of_one_family_leads_to_the_other,
    another_address_under_load_loses_no_session,
    the_last_addresses_stay_in_use_while_the_resolver_is_down,
    a_name_that_does_not_resolve_leaves_the_gateway_not_ready,
    a_name_of_the_gateway_itself_is_not_used,
    the_documented_container_needs_no_privileges,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const SERVER: &str = "2001:db8:53::53";
const NAMES: &str = "gatepost_upstream_names";

/// The addresses that the server has from the start, and those to which the name moves.
const OLD: [&str; 2] = ["198.51.100.25", "2001:db8:2::25"];
const NEW: [&str; 2] = ["198.51.100.26", "2001:db8:2::26"];

/// Knot with the name `postfix.mail.example`, and the gateway's resolv.conf(5) that leads there by its search list.
struct Zone<'lab> {
    lab: &'lab Lab,
    folder: PathBuf,
    serial: AtomicU32,
    knot: Option<Process>,
}

impl<'lab> Zone<'lab> {
    /// With a TTL so long that the interval of the configuration counts.
    fn new(lab: &'lab Lab, addresses: &[&str]) -> Self {
        lab.gateway.configure(&format!("addr add {SERVER}/128 dev lo nodad\n"));
        lab.gateway
            .resolve_by(&format!("nameserver {SERVER}\nsearch nowhere.example mail.example\n"));
        let folder = lab.folder("names");
        let path = folder.display();
        let configuration = format!(
            "server:\n  listen: {SERVER}@53\n  rundir: {path}\ndatabase:\n  storage: {path}\n\
             log:\n- target: stderr\n  any: info\n\
             zone:\n- domain: mail.example\n  file: {path}/zone\n- domain: nowhere.example\n  file: {path}/empty\n\
             - domain: postfix\n  file: {path}/empty\n"
        );
        fs::write(folder.join("knot.conf"), configuration).unwrap();
        let mut zone = Self { lab, folder, serial: AtomicU32::new(1), knot: None };
        zone.write("empty", &[]);
        zone.write("zone", addresses);
        zone.start();
        zone
    }

    fn write(&self, file: &str, addresses: &[&str]) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut text =
            format!("$TTL 300\n@ SOA ns hostmaster {serial} 3600 600 86400 1\n@ NS ns\n");
        for address in addresses {
            let kind = if address.contains(':') { "AAAA" } else { "A" };
            text.push_str(&format!("postfix {kind} {address}\n"));
        }
        fs::write(self.folder.join(file), text).unwrap();
    }

    fn configuration(&self) -> String {
        self.folder.join("knot.conf").display().to_string()
    }

    fn start(&mut self) {
        let knot = self.lab.gateway.spawn(["knotd", "-c", &self.configuration()]);
        until("the DNS server (Debian: knot)", || {
            knot.log().contains("server started").then_some(())
        });
        self.knot = Some(knot);
    }

    fn stop(&mut self) {
        self.knot = None;
    }

    /// The name has these addresses from now on.
    fn set(&self, addresses: &[&str]) {
        self.write("zone", addresses);
        self.lab.gateway.run(["knotc", "-c", &self.configuration(), "-b", "zone-reload"]);
    }
}

fn config(lab: &Lab) -> Config {
    Config::new(lab, Mode::Proxy)
        .targets(&["postfix:25"])
        .set("upstream", "identity = \"none\"")
        .set("upstream", "trusted_by_address = false")
}

fn move_server(lab: &Lab) {
    let [ipv4, ipv6] = NEW;
    lab.server.configure(&format!(
        "addr add {ipv4}/24 dev gateway\naddr add {ipv6}/64 dev gateway nodad preferred_lft 0\n"
    ));
}

/// Delivers a message; returns the line of the log.
#[track_caller]
fn deliver(lab: &Lab, gateway: &Gateway<'_>, family: Family) -> String {
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
    smtp.begin("sender@example.net", "someone@example.org");
    assert_eq!(smtp.data(b"Subject: names\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()))
}

/// Where a message went, by the line of the log.
#[track_caller]
fn expect_upstream(line: &str, upstream: SocketAddr) {
    let expected = format!(" upstream={upstream} upstream_name=postfix:25 ");
    assert!(line.contains(&expected), "no {expected:?} in\n{line}");
}

fn a_name_stands_for_its_addresses_of_both_families() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let _zone = Zone::new(&lab, &OLD);
    let gateway = Gateway::start(
        &lab,
        &config(&lab).with_upstream_checks().set("status", "hosts = [\"lab\"]"),
    );
    gateway.wait_for_log("upstream postfix:25 resolves to 198.51.100.25:25, [2001:db8:2::25]:25");
    gateway.wait_for_readiness(200);
    for family in Family::ALL {
        let line = deliver(&lab, &gateway, family);
        expect_upstream(&line, lab.server_socket(family, port::SMTP));
        gateway.wait_for_metric("gatepost_upstreams", &["state=\"up\"", &family.label()], 1.0);
    }
    gateway.wait_for_metric(NAMES, &["state=\"resolved\""], 1.0);
    let page = gateway.page();
    assert!(page.contains("postfix:25 (198.51.100.25:25)"), "{page}");
}

fn a_black_hole_of_one_family_leads_to_the_other() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let _zone = Zone::new(&lab, &OLD);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let gateway = Gateway::start(&lab, &config(&lab));
        let _hole = BlackHole::dig(&lab, &[family]);
        let line = deliver(&lab, &gateway, family);
        expect_upstream(&line, lab.server_socket(family.other(), port::SMTP));
        let lost = ["outcome=\"lost\"", &family.label()];
        gateway.wait_for_metric("gatepost_upstream_attempts_total", &lost, 1.0);
    }
}

/// The old addresses refuse connections from one moment to the next, as when a container is replaced. The gateway would look the
/// name up only hours later: a session that finds no address alive has it looked up.
fn another_address_under_load_loses_no_session() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    move_server(&lab);
    let zone = Zone::new(&lab, &OLD);
    let config = config(&lab).set("upstream", "resolve_interval = \"1h\"").for_crowds();
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("resolves to 198.51.100.25:25");
    let (over, delivered) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        for number in 0..8 {
            let family = Family::ALL[number % 2];
            let (lab, over, delivered) = (&lab, &over, &delivered);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
                    smtp.begin("sender@example.net", "load@example.org");
                    assert_eq!(smtp.data(b"Subject: load\r\n\r\nhello\r\n").code, 250);
                    smtp.dialogue("C: QUIT\n S: 221");
                    delivered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let some_more = || {
            let before = delivered.load(Ordering::Relaxed);
            until("mail under load", || {
                (delivered.load(Ordering::Relaxed) > before + 50).then_some(())
            });
        };
        some_more();
        zone.set(&NEW);
        let rules = OLD.map(|ip| {
            let kind = if ip.contains(':') { "ip6" } else { "ip" };
            format!("{kind} daddr {ip} tcp dport 25 tcp flags & (syn | ack) == syn reject with tcp reset;")
        });
        lab.server.run([
            "nft",
            &format!(
                "table inet moved {{ chain input {{ type filter hook input priority 0; {} }}\n }}",
                rules.concat()
            ),
        ]);
        some_more();
        over.store(true, Ordering::Relaxed);
    });
    gateway.wait_for_log(
        "upstream postfix:25 has new addresses: 198.51.100.26:25, [2001:db8:2::26]:25",
    );
    let line = deliver(&lab, &gateway, Family::Ipv6);
    expect_upstream(&line, "[2001:db8:2::26]:25".parse().unwrap());
    let delivered = delivered.load(Ordering::Relaxed) as usize;
    postfix.wait_until_idle();
    assert_eq!(postfix.count_to("load@example.org"), delivered);
    let log = gateway.log();
    assert!(!log.contains("upstream_unavailable"), "{log}");
}

fn the_last_addresses_stay_in_use_while_the_resolver_is_down() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let mut zone = Zone::new(&lab, &OLD);
    let config = config(&lab).set("upstream", "resolve_interval = \"1s\"");
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("resolves to 198.51.100.25:25");
    zone.stop();
    gateway.wait_for_log("upstream postfix:25 cannot be resolved: ");
    gateway.wait_for_metric(NAMES, &["state=\"stale\""], 1.0);
    for family in Family::ALL {
        let line = deliver(&lab, &gateway, family);
        expect_upstream(&line, lab.server_socket(family, port::SMTP));
    }
    gateway.wait_for_readiness(200);
    zone.start();
    gateway.wait_for_log("upstream postfix:25 can be resolved again, unchanged: ");
    gateway.wait_for_metric(NAMES, &["state=\"resolved\""], 1.0);
    gateway.wait_for_metric(NAMES, &["state=\"stale\""], 0.0);
}

fn a_name_that_does_not_resolve_leaves_the_gateway_not_ready() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let zone = Zone::new(&lab, &[]);
    let gateway = Gateway::start(&lab, &config(&lab));
    gateway.wait_for_log(
        "upstream postfix:25 has no address, no mail for it is accepted: the name has no address",
    );
    gateway.wait_for_readiness(503);
    gateway.wait_for_metric(NAMES, &["state=\"unresolved\""], 1.0);
    expect_unavailable(&lab, Family::Ipv6);
    let line = gateway.wait_for_log("reason=\"upstream_unavailable\"");
    assert!(line.contains("upstream_error=\"postfix:25: the name has no address\""), "{line}");
    let checked =
        lab.gateway.output([GATEPOST, "config", "check", gateway.file().to_str().unwrap()]);
    let printed = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{printed}");
    let expected = "upstream.addresses: postfix:25 cannot be resolved on this host (the name has no address): ";
    assert!(printed.contains(expected), "{printed}");
    zone.set(&OLD);
    gateway.wait_for_readiness(200);
    let line = deliver(&lab, &gateway, Family::Ipv4);
    expect_upstream(&line, lab.server_socket(Family::Ipv4, port::SMTP));
}

fn a_name_of_the_gateway_itself_is_not_used() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let own = lab.gateway_ip(Family::Ipv6).to_string();
    let zone = Zone::new(&lab, &[&own, OLD[0]]);
    let wildcards = ["[::]:25", "0.0.0.0:25"].map(|address| address.parse().unwrap());
    let gateway = Gateway::start(&lab, &config(&lab).listen(&wildcards));
    gateway.wait_for_log(&format!(
        "upstream postfix:25 has the address [{own}]:25, where the gateway itself listens"
    ));
    // The other address is the MTA's.
    let line = deliver(&lab, &gateway, Family::Ipv6);
    expect_upstream(&line, lab.server_socket(Family::Ipv4, port::SMTP));
    zone.set(&[&own]);
    gateway.hang_up();
    gateway.wait_for_readiness(503);
    expect_unavailable(&lab, Family::Ipv6);
    let checked =
        lab.gateway.output([GATEPOST, "config", "check", gateway.file().to_str().unwrap()]);
    assert!(!checked.status.success());
    let printed = String::from_utf8_lossy(&checked.stderr);
    assert!(printed.contains("where the gateway itself listens; name the MTA"), "{printed}");
}

/// The configuration in docs/containers.md, as an account without capabilities.
fn the_documented_container_needs_no_privileges() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let _zone = Zone::new(&lab, &OLD);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/containers.md"));
    let page = page.unwrap();
    let (_, section) = page.split_once("## Configuration\n").unwrap();
    let toml = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // The manifest has the same.
    for line in toml.lines().filter(|line| !line.is_empty()) {
        assert!(page.contains(&format!("\n    {line}\n")), "{line:?} is not in the manifest");
    }
    let file = lab.path("container.toml");
    let port = port::PROXY_PROTOCOL.to_string();
    fs::write(&file, toml.replace("10025", &port)).unwrap();
    let gateway = lab.gateway.spawn([
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
        GATEPOST,
        "run",
        "--config",
        file.to_str().unwrap(),
    ]);
    until("a gateway that is ready", || {
        let ready = lab.gateway.output(["curl", "-sf", "http://[::1]:9625/readyz"]);
        let alive = lab.gateway.output(["curl", "-sf", "http://[::1]:9625/healthz"]);
        (ready.status.success() && alive.status.success()).then_some(())
    });
    for family in Family::ALL {
        let mut smtp = lab.client.smtp(SocketAddr::new(lab.gateway_ip(family), 2525));
        smtp.begin("sender@example.net", "someone@example.org");
        assert_eq!(smtp.data(b"Subject: container\r\n\r\nhello\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        let client = smtp.local_addr().ip();
        postfix.wait_for_log("the client's own address", |line| {
            line.contains(&format!("connect from unknown[{client}]"))
        });
    }
    let log = gateway.log();
    assert!(log.contains("capabilities: none"), "{log}");
    assert!(!log.contains("Z error "), "{log}");
}
