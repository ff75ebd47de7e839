//! Exchange hosts of every kind on the lab's server, their zone in Knot on the gateway's host, and a Postfix there that sends
//! mail to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::support::world::{KNOT, knot};
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Process};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
pub(super) const ZONE: &str = "dest.example";

/// A destination: the domain `NAME.dest.example`, with the exchange host `mx.NAME.dest.example`.
pub(super) struct Destination {
    pub(super) name: &'static str,
    /// The last number of `198.51.100.N` and `2001:db8:2::N`.
    number: u8,
    families: &'static [Family],
    /// Options of smtp-sink(1) at the IPv6 address. `None` drops connections.
    ipv6: Option<&'static [&'static str]>,
    ipv4: &'static [&'static str],
}

const NO_PTR: &str = "550 5.7.25 [2001:db8:2::1] The IP address sending this message does not have a PTR record setup";

pub(super) const DESTINATIONS: &[Destination] = &[
    destination("healthy", 41),
    // Pinned to IPv4.
    destination("pinned", 42),
    Destination { ipv6: None, ..destination("silent", 43) },
    Destination { families: &[Family::Ipv6], ..destination("only6", 44) },
    Destination {
        families: &[Family::Ipv6],
        ipv6: Some(&["-f", "RCPT", "-B", NO_PTR]),
        ..destination("only6-no-ptr", 52)
    },
    Destination { ipv6: Some(&["-f", "RCPT", "-B", NO_PTR]), ..destination("no-ptr", 45) },
    Destination {
        ipv6: Some(&["-f", "RCPT", "-B", "550 5.1.1 The email account does not exist"]),
        ..destination("unknown", 46)
    },
    Destination { ipv6: Some(&["-f", ".", "-B", NO_PTR]), ..destination("no-ptr-at-end", 47) },
    Destination {
        ipv6: Some(&["-f", "MAIL", "-B", "554 All mail servers must have a PTR record"]),
        ..destination("no-code", 48)
    },
    Destination {
        families: &[Family::Ipv6],
        ipv6: Some(&["-f", "RCPT", "-B", NO_PTR]),
        ..destination("no-ptr-over-ipv6", 50)
    },
    Destination {
        families: &[Family::Ipv6],
        ipv6: Some(&["-f", "RCPT", "-B", "550 5.1.1 The email account does not exist"]),
        ..destination("unknown-over-ipv6", 51)
    },
    Destination {
        families: &[Family::Ipv4],
        ipv4: &["-f", "RCPT", "-B", NO_PTR],
        ..destination("no-ptr-over-ipv4", 49)
    },
];

/// A healthy one.
const fn destination(name: &'static str, number: u8) -> Destination {
    Destination { name, number, families: &Family::ALL, ipv6: Some(&[]), ipv4: &[] }
}

impl Destination {
    pub(super) fn of(name: &str) -> &'static Self {
        DESTINATIONS.iter().find(|one| one.name == name).unwrap()
    }

    pub(super) fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => Ipv4Addr::new(198, 51, 100, self.number).into(),
            // The same digits.
            Family::Ipv6 => format!("2001:db8:2::{}", self.number).parse().unwrap(),
        }
    }

    /// `relay=` of the log.
    pub(super) fn relay(&self, family: Family) -> String {
        format!("relay=mx.{}.{ZONE}[{}]:25", self.name, self.address(family))
    }
}

/// All destinations, the DNS server and the sending Postfix.
pub(super) struct Sender<'lab> {
    lab: &'lab Lab,
    pub(super) postfix: Postfix<'lab>,
    socket: PathBuf,
    _knot: Process,
    _sinks: Vec<Process>,
}

impl<'lab> Sender<'lab> {
    /// The Postfix prefers IPv6, so that a destination without the filter always gets mail over it.
    pub(super) fn new(lab: &'lab Lab, main_cf: &str) -> Self {
        let mut sinks = Vec::new();
        let (mut zone, mut dropped) = (String::new(), String::new());
        for destination in DESTINATIONS {
            let name = destination.name;
            writeln!(zone, "{name} MX 10 mx.{name}").unwrap();
            for family in destination.families {
                let (kind, length, options) = match family {
                    Family::Ipv4 => ("A", 24, ""),
                    Family::Ipv6 => ("AAAA", 64, " nodad"),
                };
                let ip = destination.address(*family);
                writeln!(zone, "mx.{name} {kind} {ip}").unwrap();
                lab.server.configure(&format!("addr add {ip}/{length} dev gateway{options}\n"));
                let options: Option<&[&str]> = match family {
                    Family::Ipv4 => Some(destination.ipv4),
                    Family::Ipv6 => destination.ipv6,
                };
                match options {
                    Some(options) => sinks.push(sink(lab, ip, name, options)),
                    None => writeln!(dropped, "ip6 daddr {ip} tcp dport 25 drop").unwrap(),
                }
            }
        }
        lab.server.run([
            "nft",
            &format!("table inet dest {{ chain input {{ type filter hook input priority 0;\n{dropped}}}\n}}"),
        ]);
        // No address of the sender has a name.
        let reverse = "8.b.d.0.1.0.0.2.ip6.arpa".to_owned();
        let zones = BTreeMap::from([(ZONE.to_owned(), zone), (reverse, String::new())]);
        let knot = knot(lab, &zones, &[]);
        let dns: SocketAddr = KNOT.parse().unwrap();
        lab.gateway.resolve_at(dns.ip());
        let main_cf = format!(
            "disable_dns_lookups = no\nsmtp_host_lookup = dns\nsmtp_address_preference = ipv6\nmydestination =\n\
             notify_classes =\n{main_cf}"
        );
        let postfix = Postfix::start(lab, &lab.gateway, "sender", None, &main_cf);
        Self { lab, postfix, socket: lab.path("outbound.sock"), _knot: knot, _sinks: sinks }
    }

    /// Adds the filter, and the service for its helper, by the commands that gatepost prints. The Postfix goes on to prefer
    /// IPv6, and to return what is refused.
    pub(super) fn filter(&self) {
        self.install();
        self.postconf(&["-e", "smtp_address_preference = ipv6", "smtp_delivery_status_filter ="]);
        self.reload();
    }

    /// Runs the commands of `gatepost postfix install --dry-run` in a shell.
    pub(super) fn install(&self) {
        let file = self.lab.path("for-install.toml");
        fs::write(&file, self.config(&[]).toml()).unwrap();
        let config = self.postfix.config_directory();
        let [file, config] = [&file, &config].map(|path| path.to_str().unwrap());
        let command = ["postfix", "install", "--dry-run", "-c", file, "--postfix-config", config];
        let commands = self.lab.gateway.run([GATEPOST].iter().chain(&command));
        self.lab.gateway.run(["sh", "-e", "-c", &commands]);
    }

    pub(super) fn postconf(&self, options: &[&str]) {
        let config = self.postfix.config_directory();
        let command = ["postconf", "-c", config.to_str().unwrap()];
        self.lab.gateway.run(command.iter().chain(options));
    }

    /// `main.cf` and `master.cf` as Postfix reads them.
    pub(super) fn settings(&self) -> String {
        let config = self.postfix.config_directory();
        let postconf = ["postconf", "-c", config.to_str().unwrap()];
        ["-n", "-M"].map(|option| self.lab.gateway.run(postconf.iter().chain(&[option]))).concat()
    }

    pub(super) fn reload(&self) {
        let config = self.postfix.config_directory();
        self.lab.gateway.run(["postfix", "-c", config.to_str().unwrap(), "reload"]);
    }

    /// A gateway without a listener, that pins these hosts.
    pub(super) fn gateway(&self, ipv4_only: &[&str]) -> Gateway<'lab> {
        Gateway::start(self.lab, &self.config(ipv4_only))
    }

    /// Its configuration.
    pub(super) fn config(&self, ipv4_only: &[&str]) -> Config {
        let hosts: Vec<String> = ipv4_only.iter().map(|name| format!("mx.{name}.{ZONE}")).collect();
        Config::new(self.lab, Mode::Proxy)
            .without("listen")
            .without("upstream")
            .set("lookup", &format!("dns = [{KNOT:?}]"))
            .set("outbound", &format!("map = \"unix:{}\"", self.socket.display()))
            .set("outbound", &format!("ipv4_only = {hosts:?}"))
    }

    /// Starts a server at the IPv6 address of a destination that dropped connections.
    pub(super) fn open(&self, name: &str) -> Process {
        let destination = Destination::of(name);
        sink(self.lab, destination.address(Family::Ipv6), name, &[])
    }

    /// The socket of the gateway.
    pub(super) fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// Sends a message to `user@NAME.dest.example`, and waits for the result of its first attempt: the line of the log.
    #[track_caller]
    pub(super) fn send(&self, user: &str, destination: &str) -> String {
        let to = format!("{user}@{destination}.{ZONE}");
        let own = "[::1]:25".parse().unwrap();
        assert!(self.lab.gateway.swaks(own, &to, &[]).status.success());
        let recipient = format!("to=<{to}>");
        let is_result = |line: &str| line.contains(&recipient) && line.contains(" status=");
        self.postfix.wait_for_log(&format!("the result for {to}"), is_result)
    }
}

/// Warnings in Postfix's log. A process that starts while `main.cf` is edited reads it twice, and warns of what changed.
pub(super) fn warnings(log: &str) -> Vec<&str> {
    let warnings = log.lines().filter(|line| line.contains("warning: "));
    warnings.filter(|line| !line.contains("overriding earlier entry")).collect()
}

/// Makes the files available that smtp(8) needs in the queue directory to look up names in a chroot.
pub(super) fn prepare_chroot(postfix: &Postfix<'_>) {
    let etc = postfix.queue_directory().join("etc");
    fs::create_dir_all(&etc).unwrap();
    let dns: SocketAddr = KNOT.parse().unwrap();
    fs::write(etc.join("resolv.conf"), format!("nameserver {}\n", dns.ip())).unwrap();
    for file in ["services", "nsswitch.conf", "hosts"] {
        let _missing = fs::copy(format!("/etc/{file}"), etc.join(file));
    }
}

fn sink(lab: &Lab, ip: IpAddr, name: &str, options: &[&str]) -> Process {
    let at = SocketAddr::new(ip, 25);
    let (host, inet) = (format!("mx.{name}.{ZONE}"), format!("inet:{at}"));
    let words = ["smtp-sink", "-u", "nobody", "-h", &host].into_iter();
    let words = words.chain(options.iter().copied()).chain([inet.as_str(), "10"]);
    let process = lab.server.spawn(words);
    lab.gateway.wait_for_listener(at);
    process
}
