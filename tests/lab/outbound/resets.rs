//! An Exim whose connections to avoided addresses the kernel resets. The watched traffic is the source of the evidence.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use gatepost::outbound::{Avoidance, OutboundOutcome, OutboundReport};
use nix::unistd::{User, setfsuid};

use crate::harness::tests;
use crate::mail_log::destinations::{self, DESTINATIONS};
use crate::mail_log::server::{Script, Seen, serve};
use crate::support::watcher::Source;
use crate::support::{
    Config, EXIM_USER, EximSender, Family, Gateway, Host, Lab, Mode, Process, Smtp, port, sites,
    until,
};

tests![
    the_second_message_meets_no_timeout,
    a_destination_that_heals_gets_mail_over_ipv6_again,
    open_connections_and_other_users_are_left_alone,
    elements_expire_without_the_gateway,
    the_table_follows_the_configuration,
    a_router_resets_for_the_mta_behind_it,
    without_its_capability_mail_flows_and_the_log_names_it,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const TABLE: [&str; 4] = ["list", "table", "inet", "gatepost_outbound"];
const HEALTHY: Script =
    Script { act: None, has_broken_tls: false, otherwise: OutboundOutcome::Rejected };

/// Destinations, and the DNS that an MTA on one of the hosts queries.
struct Scene {
    lab: Lab,
    seen: Seen,
    _knot: Process,
}

impl Scene {
    /// The MTA is on the client's host, behind the gateway's.
    fn router() -> Self {
        let lab = Lab::new();
        Source::Ebpf.require(&lab);
        let knot = sites::dns_with(
            &lab,
            &[("dest.example", &destinations::zone()), ("sender.example", "")],
        );
        let seen = Seen::default();
        destinations::start(&lab, &seen);
        Self { lab, seen, _knot: knot }
    }

    /// The MTA is on the gateway's host.
    fn host() -> Self {
        let scene = Self::router();
        scene.lab.gateway.resolve_at(sites::NAMESERVER.parse().unwrap());
        scene
    }

    /// A gateway that resets connections of Exim's user.
    fn config(&self, retry: &str) -> Config {
        self.watching(retry, &["lo", "server"]).set("outbound", &resets())
    }

    fn watching(&self, retry: &str, interfaces: &[&str]) -> Config {
        let map = self.lab.path("outbound.sock");
        Config::new(&self.lab, Mode::Proxy)
            .without("listen")
            .without("upstream")
            .set("lookup", &format!("dns = [\"[{}]:53\"]", sites::NAMESERVER))
            .set("watch", &format!("interfaces = {interfaces:?}"))
            .set("outbound", &format!("map = \"unix:{}\"", map.display()))
            .set("outbound", &format!("retry = {retry:?}"))
    }

    fn start(&self, config: &Config) -> Gateway<'_> {
        let gateway = Gateway::start(&self.lab, config);
        gateway.wait_for_log(" watching ");
        gateway
    }

    fn exim(&self) -> EximSender<'_> {
        EximSender::new(&self.lab, &self.lab.gateway)
    }

    /// Connections that a destination saw over a family.
    fn seen(&self, name: &str, family: Family) -> usize {
        let ip = address(name, family);
        self.seen.lock().unwrap().iter().filter(|(at, _)| *at == ip).count()
    }

    fn nft(&self, words: &[&str]) -> Option<String> {
        let output = self.lab.gateway.output(["nft"].iter().chain(words));
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn is_reset(&self, name: &str) -> bool {
        let table = self.nft(&TABLE).expect("the table");
        table.contains(&format!("{} timeout", address(name, Family::Ipv6)))
    }

    #[track_caller]
    fn wait_for_resets(&self, name: &str, expected: bool) {
        until(format_args!("resets for {name}: {expected}"), || {
            (self.is_reset(name) == expected).then_some(())
        });
    }

    /// Of a destination's IPv6.
    fn avoidance(&self, gateway: &Gateway<'_>, name: &str) -> Avoidance {
        let config = gateway.file().to_str().unwrap();
        let command = [GATEPOST, "outbound", &domain(name), "--format", "json", "--config", config];
        let report: OutboundReport = serde_json::from_str(&self.lab.gateway.run(command)).unwrap();
        report.hosts[0].avoided.unwrap()
    }

    fn outbound(&self, gateway: &Gateway<'_>, name: &str) -> String {
        let config = gateway.file().to_str().unwrap();
        self.lab.gateway.run([GATEPOST, "outbound", name, "--config", config])
    }
}

fn resets() -> String {
    format!("reset_users = [{EXIM_USER:?}]")
}

fn domain(name: &str) -> String {
    format!("{name}.dest.example")
}

fn address(name: &str, family: Family) -> IpAddr {
    let number = DESTINATIONS.iter().position(|one| one.name == name).unwrap();
    let is_of = |ip: &IpAddr| ip.is_ipv6() == (family == Family::Ipv6);
    DESTINATIONS[number].addresses(number).map(|(ip, _)| ip).find(is_of).unwrap()
}

#[track_caller]
fn assert_over(line: &str, name: &str, family: Family) {
    assert!(line.contains(&format!("[{}]", address(name, family))), "{line}");
}

/// A new connection of Exim's user.
fn connect(host: &Host, name: &str) -> std::io::Result<TcpStream> {
    let at = SocketAddr::new(address(name, Family::Ipv6), port::SMTP);
    let user = User::from_name(EXIM_USER).unwrap().unwrap();
    host.in_thread(|| {
        // Of this thread only.
        setfsuid(user.uid);
        TcpStream::connect_timeout(&at, Duration::from_secs(10))
    })
}

#[track_caller]
fn assert_refused(host: &Host, name: &str) {
    assert_eq!(connect(host, name).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn the_second_message_meets_no_timeout() {
    let scene = Scene::host();
    let gateway = scene.start(&scene.config("10m"));
    let exim = scene.exim();
    let name = "dropping";
    assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    gateway.wait_for_log("outbound: mx.dropping.dest.example: IPv6 is avoided");
    scene.wait_for_resets(name, true);
    for _ in 0..2 {
        assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
        assert_over(&exim.send(&domain("healthy")), "healthy", Family::Ipv6);
    }
    assert_eq!(exim.log().matches("Connection timed out").count(), 1, "{}", exim.log());
    assert_eq!(exim.log().matches("Connection refused").count(), 2, "{}", exim.log());
    until("the number of resets", || {
        let shown = scene.outbound(&gateway, &domain(name));
        shown.contains("are reset for other MTAs: 2 connections so far.").then_some(())
    });
    // Our own resets are no attempts.
    let shown = scene.outbound(&gateway, &domain(name));
    let address = address(name, Family::Ipv6);
    assert!(shown.contains(&format!("{address}: no answer 1; avoided: ")), "{shown}");
    let shown = scene.outbound(&gateway, &domain("healthy"));
    assert!(shown.contains("IPv6   2 "), "{shown}");
    // A host without an IPv4 address keeps its only way.
    let only = "only-ipv6-dropping";
    exim.try_to_send(&domain(only));
    gateway.wait_for_log("outbound: mx.only-ipv6-dropping.dest.example: IPv6 is avoided");
    assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    assert!(scene.is_reset(name) && !scene.is_reset(only));
}

fn a_destination_that_heals_gets_mail_over_ipv6_again() {
    let scene = Scene::host();
    // The watch reports a refused connection after ten seconds.
    let gateway = scene.start(&scene.config("15s"));
    let exim = scene.exim();
    let name = "refusing";
    assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    scene.wait_for_resets(name, true);
    let first = scene.avoidance(&gateway, name);
    assert_eq!(first.until.since(first.since), Duration::from_secs(15));
    // A trial that fails: the wait is longer.
    scene.wait_for_resets(name, false);
    until("the failure of a trial", || {
        assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
        (scene.avoidance(&gateway, name).until > first.until).then_some(())
    });
    let second = scene.avoidance(&gateway, name);
    assert_eq!(second.since, first.since);
    assert!(second.until.since(first.until) >= Duration::from_secs(30));
    let healed = SocketAddr::new(address(name, Family::Ipv6), port::SMTP);
    serve(&scene.lab.server, healed, HEALTHY, &scene.seen);
    until("mail over IPv6", || {
        exim.send(&domain(name)).contains(&format!("[{}]", healed.ip())).then_some(())
    });
    gateway.wait_for_log("outbound: mx.refusing.dest.example: IPv6 is used again");
    // The kernel's set follows within a second.
    scene.wait_for_resets(name, false);
    assert_over(&exim.send(&domain(name)), name, Family::Ipv6);
}

fn open_connections_and_other_users_are_left_alone() {
    let scene = Scene::host();
    let _gateway = scene.start(&scene.config("10m"));
    let (exim, host) = (scene.exim(), &scene.lab.gateway);
    let name = "greeting-421";
    let mut open = Smtp::new(connect(host, name).unwrap());
    assert_eq!(open.reply().unwrap().code, 421);
    assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    scene.wait_for_resets(name, true);
    assert_refused(host, name);
    assert_eq!(open.ask("EHLO still.open.example").code, 250);
    // Root, also gatepost's own user here.
    let at = SocketAddr::new(address(name, Family::Ipv6), port::SMTP);
    assert_eq!(host.smtp(at).reply().unwrap().code, 421);
    // Its other ports.
    let other = SocketAddr::new(at.ip(), 26);
    serve(&scene.lab.server, other, HEALTHY, &scene.seen);
    let user = User::from_name(EXIM_USER).unwrap().unwrap();
    let connected = host.in_thread(|| {
        setfsuid(user.uid);
        TcpStream::connect_timeout(&other, Duration::from_secs(10))
    });
    assert!(connected.is_ok(), "{connected:?}");
}

fn elements_expire_without_the_gateway() {
    let scene = Scene::host();
    let mut gateway = scene.start(&scene.config("15s"));
    let (exim, host) = (scene.exim(), &scene.lab.gateway);
    let name = "greeting-421";
    assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    scene.wait_for_resets(name, true);
    gateway.kill();
    scene.wait_for_resets(name, false);
    let mut smtp = Smtp::new(connect(host, name).unwrap());
    assert_eq!(smtp.reply().unwrap().code, 421);
    gateway.start_again();
    until("the new table", || scene.nft(&TABLE).filter(|table| table.contains("packets 0 ")));
    gateway.terminate();
    gateway.wait();
    assert_eq!(scene.nft(&TABLE), None);
}

fn the_table_follows_the_configuration() {
    let scene = Scene::host();
    let gateway = scene.start(&scene.config("10m"));
    let (exim, host) = (scene.exim(), &scene.lab.gateway);
    let name = "greeting-421";
    assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    scene.wait_for_resets(name, true);
    let toml = scene.config("10m").toml();
    let reload = |from: &str, to: &str| {
        let old = std::fs::read_to_string(gateway.file()).unwrap();
        assert!(old.contains(from), "{old}");
        gateway.reload(&old.replace(from, to));
    };
    assert!(toml.contains(&resets()));
    // Pinned, it is used again at once.
    reload(&resets(), &format!("{}\nkeep_ipv6 = [\".dest.example\"]", resets()));
    scene.wait_for_resets(name, false);
    reload("keep_ipv6 = [\".dest.example\"]", "");
    scene.wait_for_resets(name, true);
    // Another program removes it.
    scene.nft(&["delete", "table", "inet", "gatepost_outbound"]).unwrap();
    gateway.wait_for_log("another program removed the table inet gatepost_outbound");
    until("resets", || (scene.nft(&TABLE).is_some() && scene.is_reset(name)).then_some(()));
    assert_refused(host, name);
    reload(&resets(), "reset_sources = [\"2001:db8:1::/64\"]");
    until("the rules of a router", || {
        scene.nft(&TABLE).filter(|table| table.contains("hook forward"))
    });
    assert!(connect(host, name).is_ok());
    reload("reset_sources = [\"2001:db8:1::/64\"]", "");
    until("no table", || scene.nft(&TABLE).is_none().then_some(()));
    reload("[outbound]", &format!("[outbound]\n{}", resets()));
    until("the table", || scene.nft(&TABLE).filter(|table| table.contains("hook output")));
}

fn a_router_resets_for_the_mta_behind_it() {
    let scene = Scene::router();
    let lab = &scene.lab;
    let source = lab.client_ip(Family::Ipv6);
    let config = scene
        .watching("10m", &["client"])
        .set("outbound", &format!("reset_sources = [\"{source}\"]"))
        .set("site", "addresses = [\"192.0.2.10\"]");
    let gateway = scene.start(&config);
    let exim = EximSender::new(lab, &lab.client);
    let name = "greeting-421";
    assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    scene.wait_for_resets(name, true);
    let refused = scene.seen(name, Family::Ipv6);
    assert_eq!(refused, 1);
    for _ in 0..2 {
        assert_over(&exim.send(&domain(name)), name, Family::Ipv4);
    }
    assert_eq!(scene.seen(name, Family::Ipv6), refused);
    until("the number of resets", || {
        let shown = scene.outbound(&gateway, &domain(name));
        shown.contains("are reset for other MTAs: 2 connections so far.").then_some(())
    });
    // Resets that the router sees itself are no evidence. The deliveries over IPv4, seen later, are.
    let shown = until("the deliveries", || {
        let shown = scene.outbound(&gateway, &domain(name));
        shown.contains("IPv4   3 ").then_some(shown)
    });
    let ip = address(name, Family::Ipv6);
    assert!(shown.contains(&format!("{ip}: turned away 1; avoided: ")), "{shown}");
    // Other hosts, and the router itself.
    let at = SocketAddr::new(ip, port::SMTP);
    let other: IpAddr = "2001:db8:1::99".parse().unwrap();
    lab.add_client_ip(other);
    assert_eq!(lab.client.smtp_from(other, at).reply().unwrap().code, 421);
    assert_eq!(lab.gateway.smtp(at).reply().unwrap().code, 421);
    assert_refused(&lab.client, name);
}

fn without_its_capability_mail_flows_and_the_log_names_it() {
    let scene = Scene::host();
    let file = scene.lab.path("gatepost.toml");
    std::fs::write(&file, scene.config("10m").toml()).unwrap();
    let gateway = scene.lab.gateway.spawn([
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
        GATEPOST,
        "run",
        "--config",
        file.to_str().unwrap(),
    ]);
    let log = until("a warning", || {
        let log = gateway.log();
        log.contains("are not reset: ").then_some(log)
    });
    assert!(log.contains("CAP_NET_ADMIN") && log.contains("mail is sent as without it"), "{log}");
    let exim = scene.exim();
    assert_over(&exim.send(&domain("healthy")), "healthy", Family::Ipv6);
    assert_over(&exim.send(&domain("dropping")), "dropping", Family::Ipv4);
    let config = file.to_str().unwrap();
    let shown = scene.lab.gateway.run([GATEPOST, "outbound", "--config", config]);
    assert!(shown.contains("are not reset: access to nftables needs the capability"), "{shown}");
}
