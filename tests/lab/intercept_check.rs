//! `gatepost intercept check` on a router: each finding with a set-up in which it stands, then with the commands that it prints.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, cannot_run, require_program};

tests![
    each_obstacle_is_found_and_its_commands_help,
    obstacles_of_iptables_are_found_and_their_commands_help,
    clients_on_a_bridge_that_passes_the_rules_of_ip_are_found,
    a_gateway_refuses_to_start_where_mail_would_be_lost,
    replies_that_take_another_way_are_found,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// A set-up of a router, and what the check finds there.
struct Case {
    /// For `sh`.
    set_up: &'static str,
    finding: &'static str,
    seen: &'static str,
    /// Undoes the set-up, where the commands that the finding prints cannot.
    undo: &'static str,
}

const fn case(
    set_up: &'static str,
    finding: &'static str,
    seen: &'static str,
    undo: &'static str,
) -> Case {
    Case { set_up, finding, seen, undo }
}

/// The commands of the finding help, unless `undo` is given.
const CASES: [Case; 22] = [
    case("sysctl -w net.ipv4.ip_forward=0", "warn forwarding", "net.ipv4.ip_forward is 0", ""),
    case(
        "sysctl -w net.ipv6.conf.all.forwarding=0",
        "warn forwarding",
        "does not forward IPv6",
        "",
    ),
    case(
        "sysctl -w net.ipv6.conf.all.disable_ipv6=1",
        "fail family",
        "IPv6 is disabled (net.ipv6.conf.all.disable_ipv6)",
        "ip addr add 2001:db8:1::1/64 dev client nodad; ip addr add 2001:db8:2::1/64 dev server nodad",
    ),
    case(
        "sysctl -w net.ipv6.conf.lo.disable_ipv6=1",
        "fail family",
        "IPv6 is disabled (net.ipv6.conf.lo.disable_ipv6)",
        "",
    ),
    case(
        "sysctl -w net.ipv4.conf.server.src_valid_mark=1",
        "fail kernel",
        "src_valid_mark is 1 for server",
        "",
    ),
    case(
        "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; policy drop; }';
         nft add rule inet f in meta l4proto ipv6-icmp accept;
         nft add rule inet f in ct state established,related accept;
         nft add rule inet f in ct state invalid drop;
         nft add rule inet f in iifname lo accept; nft add rule inet f in tcp dport 22 accept",
        "fail input",
        "the policy of chain inet f in drops intercepted mail:",
        "",
    ),
    case(
        "nft add table ip6 f; nft add chain ip6 f in '{ type filter hook input priority 0; }';
         nft add chain ip6 f rest; nft add rule ip6 f in ct state established accept;
         nft add rule ip6 f in jump rest; nft add rule ip6 f rest meta l4proto tcp reject with tcp reset",
        "fail input",
        "of chain ip6 f rest drops intercepted mail over IPv6",
        "",
    ),
    case(
        "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; policy drop; }';
         nft add rule inet f in meta l4proto ipv6-icmp accept;
         nft add rule inet f in tcp dport 25 accept",
        "fail input",
        "drops the replies of",
        "",
    ),
    case(
        "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; }';
         nft add rule inet f in tcp dport 25 limit rate over 100/second drop",
        "warn input",
        "could not be evaluated",
        "",
    ),
    case(
        "nft add table ip f; nft add chain ip f in '{ type filter hook input priority 0; policy drop; }';
         nft add rule ip f in ct state established accept;
         nft add rule ip f in ip saddr 203.0.113.0/24 accept",
        "warn input",
        "of clients that no earlier rule accepts",
        "",
    ),
    case(
        "nft add table inet f; nft add chain inet f out '{ type filter hook output priority 0; policy drop; }';
         nft add rule inet f out meta l4proto ipv6-icmp accept;
         nft add rule inet f out ct state established accept",
        "fail output",
        "drops the gateway's connections to 198.51.100.25, 2001:db8:2::25",
        "",
    ),
    case(
        "nft add table inet f; nft add chain inet f fw '{ type filter hook forward priority 0; policy drop; }';
         nft add rule inet f fw ct state established accept",
        "fail forward",
        "does not forward mail to 198.51.100.25, 2001:db8:2::25",
        "",
    ),
    case(
        "nft add table inet f; nft add chain inet f fw '{ type filter hook forward priority 0; policy drop; }';
         nft add rule inet f fw iifname client oifname server tcp dport 587 accept;
         nft add rule inet f fw iifname client oifname server ip daddr 198.51.100.25 tcp dport 25 accept",
        "fail forward",
        "does not forward mail to 2001:db8:2::25, and",
        "",
    ),
    case(
        "nft add table inet f; nft add set inet f bad '{ type ipv4_addr; elements = { 203.0.113.1 }; }';
         nft add chain inet f fw '{ type filter hook forward priority 0; }';
         nft add rule inet f fw ip saddr @bad drop",
        "warn forward",
        "of some clients: FORWARD does not apply",
        "nft delete table inet f",
    ),
    case(
        "nft add table inet f; nft add chain inet f pre '{ type filter hook prerouting priority 2000; }';
         nft add rule inet f pre meta mark set ct mark",
        "fail chain_order",
        "chain inet f pre sets marks after gatepost's",
        "nft delete table inet f",
    ),
    case(
        "nft add table ip f; nft add chain ip f post '{ type nat hook postrouting priority 50; }';
         nft add rule ip f post oifname server masquerade",
        "warn nat",
        "chain ip f post translates sources before",
        "nft delete table ip f",
    ),
    case(
        "ip rule add priority 50 lookup main",
        "fail routing",
        "IPv4 rule with priority 50 precedes gatepost's",
        "ip rule del priority 50",
    ),
    case(
        "ip -6 rule add priority 50 from 2001:db8:1::/64 lookup main",
        "warn routing",
        "IPv6 rule with priority 50 precedes gatepost's (100) and may take",
        "ip -6 rule del priority 50",
    ),
    case(
        "ip rule add priority 200 fwmark 0x40/0xff lookup 77",
        "warn routing",
        "priority 200 matches gatepost's marks",
        "ip rule del priority 200",
    ),
    case(
        "ip route add 192.0.2.128/25 dev client table 26480",
        "fail routing",
        "routing table 26480 already holds an IPv4 route",
        "ip route del 192.0.2.128/25 dev client table 26480",
    ),
    case(
        "ip addr add 198.51.100.25/32 dev lo",
        "fail destination",
        "198.51.100.25 is an address of this host",
        "ip addr del 198.51.100.25/32 dev lo",
    ),
    case(
        "ip route add 198.51.100.25/32 via 192.0.2.10",
        "warn destination",
        "198.51.100.25 is reached through client, where clients arrive too",
        "ip route del 198.51.100.25/32",
    ),
];

/// As Docker and ufw leave it.
const IPTABLES: [Case; 5] = [
    case(
        "iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT;
         iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT;
         iptables -A INPUT -m conntrack --ctstate INVALID -j DROP;
         iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
        "fail input",
        "the policy of chain ip filter INPUT drops intercepted mail over IPv4:",
        "",
    ),
    case(
        "iptables -N ufw-before-input; iptables -N ufw-not-local; iptables -P INPUT DROP;
         iptables -A INPUT -j ufw-before-input;
         iptables -A ufw-before-input -i lo -j ACCEPT;
         iptables -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT;
         iptables -A ufw-before-input -m conntrack --ctstate INVALID -j DROP;
         iptables -A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT;
         iptables -A ufw-before-input -j ufw-not-local;
         iptables -A ufw-before-input -p tcp --dport 25 -j ACCEPT;
         iptables -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN;
         iptables -A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN;
         iptables -A ufw-not-local -m addrtype --dst-type BROADCAST -j RETURN;
         iptables -A ufw-not-local -j DROP",
        "fail input",
        "of chain ip filter ufw-not-local drops intercepted mail over IPv4:",
        "",
    ),
    case(
        "ip6tables -P OUTPUT DROP; ip6tables -A OUTPUT -p ipv6-icmp -j ACCEPT; ip6tables -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "fail output",
        "the policy of chain ip6 filter OUTPUT drops",
        "",
    ),
    case(
        "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER;
         iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT;
         iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
        "fail forward",
        "the policy of chain ip filter FORWARD does not forward mail to 198.51.100.25, and",
        "",
    ),
    case(
        "iptables -A INPUT -m string --string x --algo bm -j DROP",
        "warn input",
        "could not be evaluated",
        "",
    ),
];

fn each_obstacle_is_found_and_its_commands_help() {
    run(&CASES);
}

fn obstacles_of_iptables_are_found_and_their_commands_help() {
    require_program("iptables", "iptables");
    run(&IPTABLES);
}

/// Docker loads br_netfilter.
fn clients_on_a_bridge_that_passes_the_rules_of_ip_are_found() {
    if !Path::new("/proc/sys/net/bridge").exists() {
        cannot_run("needs the kernel module br_netfilter (modprobe br_netfilter)");
    }
    let router = Router::new();
    router.sh(
        "ip addr flush dev client scope global; ip link add br0 type bridge; ip link set client master br0;
         ip addr add 192.0.2.1/24 dev br0; ip addr add 2001:db8:1::1/64 dev br0 nodad; ip link set br0 up;
         sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
    );
    let toml = fs::read_to_string(&router.config).unwrap();
    fs::write(&router.config, toml.replace("\"client\"", "\"br0\"")).unwrap();
    let report = router.check();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|one| one["check"] == "bridge").unwrap();
    assert_eq!(found["outcome"], "fail", "{report:#}");
    for command in found["commands"].as_array().unwrap() {
        router.sh(command.as_str().unwrap());
    }
    router.expect_no_problem("with br_netfilter off");
}

fn run(cases: &[Case]) {
    let router = Router::new();
    let clean = router.state();
    router.expect_no_problem("before");
    for case in cases {
        router.sh(case.set_up);
        let before = router.state();
        let report = router.check();
        let (outcome, name) = case.finding.split_once(' ').unwrap();
        let found = report["findings"].as_array().unwrap().iter().find(|one| {
            let seen = one["seen"].as_str().unwrap();
            one["outcome"] == outcome && one["check"] == name && seen.contains(case.seen)
        });
        let Some(found) = found else {
            panic!("no {} `{}` in {report:#}", case.finding, case.seen)
        };
        assert_eq!(router.state(), before, "it changes nothing");
        if case.undo.is_empty() {
            for command in found["commands"].as_array().unwrap() {
                router.sh(command.as_str().unwrap());
            }
        } else {
            for command in found["commands"].as_array().unwrap() {
                router.lab.gateway.output(["sh", "-c", command.as_str().unwrap()]);
            }
            router.sh(case.undo);
        }
        router.expect_no_problem(case.set_up);
        router.sh("nft flush ruleset");
    }
    router.sh("ip -6 route flush table 26481; ip route flush table 26481");
    assert_eq!(router.state(), clean);
}

fn a_gateway_refuses_to_start_where_mail_would_be_lost() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    lab.gateway.run([
        "nft",
        "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }",
    ]);
    lab.gateway.run([
        "nft",
        "add rule inet f in ct state established accept; add rule inet f in iifname lo accept; add rule inet f in meta l4proto { icmp, ipv6-icmp } accept",
    ]);
    let config = Config::new(&lab, Mode::Tproxy);
    let file = lab.path("refused.toml");
    fs::write(&file, config.toml()).unwrap();
    let refused = lab.gateway.output([GATEPOST, "run", "--config", file.to_str().unwrap()]);
    let log = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{log}");
    assert!(log.contains("the policy of chain inet f in drops intercepted mail"), "{log}");
    let (_, command) = log.split_once("; run: ").unwrap();
    let installed = lab.gateway.run([GATEPOST, "intercept", "show"]);
    assert_eq!(installed, "no interception is installed\n");

    // The line that it named helps.
    lab.gateway.run(["sh", "-c", command.lines().next().unwrap()]);
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let entrance = lab.entrance(Mode::Tproxy, family).to_string();
        let to = format!("{family}@example.org");
        lab.client.run(["swaks", "--server", &entrance, "--to", &to]);
        postfix.take_message_to(&to);
        gateway.wait_for_metric("gatepost_sessions_total", &[&family.label()], 1.0);
    }
    let report =
        lab.gateway.run([GATEPOST, "intercept", "check", "--config", file.to_str().unwrap()]);
    assert!(
        report.contains(&format!("a gateway intercepts (process {})", gateway.id())),
        "{report}"
    );
    for address in lab.server_ips() {
        let replies =
            format!("pass     replies of {address} to clients come back through this host");
        assert!(report.contains(&replies), "{report}");
    }
    let wide = report.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None, "{report}");
    println!("{report}");
}

fn replies_that_take_another_way_are_found() {
    let router = Router::new();
    let replies = |report: &Value, outcome: &str| {
        let findings = report["findings"].as_array().unwrap();
        let of_replies = findings
            .iter()
            .filter(|one| one["check"] == "return_route" && one["outcome"] == outcome);
        of_replies.map(|one| one["seen"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    router.sh("nft add table ip nat; nft add chain ip nat post '{ type nat hook postrouting priority 100; }';
               nft add rule ip nat post masquerade");
    assert_eq!(replies(&router.check(), "pass").len(), 2, "also where this host translates");

    // Their replies find no other way either; the gateway's host itself is a neighbour.
    router
        .lab
        .server
        .configure("route del default via 198.51.100.1\nroute del default via 2001:db8:2::1\n");
    let before = router.state();
    let report = router.check();
    for (number, address) in router.lab.server_ips().iter().enumerate() {
        let seen = replies(&report, "fail");
        assert_eq!(seen.len(), 2, "{report:#}");
        assert!(
            seen[number].starts_with(&format!("{address} does not answer a client's")),
            "{seen:?}"
        );
    }
    assert_eq!(router.state(), before, "the rules of the test are removed");

    router.lab.server.run([
        "nft",
        "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }",
    ]);
    let unknown = replies(&router.check(), "unknown");
    assert!(
        unknown.len() == 2 && unknown[0].contains("does not answer this host either"),
        "{unknown:?}"
    );
}

/// The lab's gateway without a gateway, and servers that accept connections.
struct Router {
    lab: Lab,
    config: PathBuf,
    _servers: Vec<TcpListener>,
}

impl Router {
    fn new() -> Self {
        let lab = Lab::new();
        let config = lab.path("check.toml");
        fs::write(&config, Config::new(&lab, Mode::Tproxy).toml()).unwrap();
        let servers = lab
            .server_ips()
            .map(|ip| lab.server.in_thread(|| TcpListener::bind(SocketAddr::new(ip, 25)).unwrap()));
        Self { lab, config, _servers: servers.into() }
    }

    fn sh(&self, script: &str) {
        self.lab.gateway.run(["sh", "-e", "-c", script]);
    }

    fn check(&self) -> Value {
        let config = self.config.to_str().unwrap();
        let command = [GATEPOST, "intercept", "check", "--config", config, "--format", "json"];
        let output = self.lab.gateway.output(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).expect(&errors);
        assert_eq!(output.status.success(), report["outcome"] != "fail", "{report:#}");
        report
    }

    #[track_caller]
    fn expect_no_problem(&self, when: &str) {
        let report = self.check();
        assert_eq!(report["outcome"], "pass", "{when}: {report:#}");
    }

    /// Rules and routes, without counters.
    fn state(&self) -> String {
        let list =
            "nft -s list ruleset; for f in -4 -6; do ip $f rule; ip $f route show table all; done";
        let mut lines: Vec<String> =
            self.lab.gateway.run(["sh", "-c", list]).lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}
