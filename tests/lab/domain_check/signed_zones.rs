//! Zones with signatures by ldns-signzone in Knot, and Unbound, which validates them from the lab's own root on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::world::{ASKED, KNOT, knot_of_files, whole_zone};
use crate::support::{Lab, Process, require_program, until};

/// Validates, and explains its failures (RFC 8914).
pub(crate) const VALIDATES: &str = ASKED;
/// Validates, and explains nothing.
pub(crate) const TACITURN: &str = "[2001:db8:53::55]:53";
/// Does not validate.
pub(crate) const CREDULOUS: &str = "[2001:db8:53::56]:53";

/// Makes AAAA records up (DNS64).
pub(crate) const SYNTHESISES: &str = "[2001:db8:53::57]:53";

/// How a zone is signed, and what its parent knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    Well,
    Not,
    /// The parent has no DS record.
    WithoutDs,
    /// The parent has the DS record of another key.
    WrongDs,
    /// Last year.
    Expired,
}

/// A zone with its records; its parent is in the list, too, and comes later.
pub(crate) struct SignedZone {
    pub(crate) name: &'static str,
    pub(crate) signed: Signed,
    pub(crate) records: String,
}

pub(crate) struct SignedZones {
    _knot: Process,
    _resolvers: Vec<Process>,
}

impl SignedZones {
    /// `zones` end with the root. Zones of `broken` are delegated by their parents' records, and get SERVFAIL.
    pub(crate) fn start(lab: &Lab, zones: Vec<SignedZone>, broken: &[String]) -> Self {
        require_program("unbound", "unbound");
        require_program("ldns-signzone", "ldnsutils");
        let folder = lab.folder("keys-of-zones");
        let mut delegations: Vec<(&str, String)> = Vec::new();
        let mut files = BTreeMap::new();
        let mut anchor = None;
        for SignedZone { name, signed, mut records } in zones {
            let (below, others): (Vec<_>, Vec<_>) =
                delegations.into_iter().partition(|(child, _)| is_parent(name, child));
            delegations = others;
            records.extend(below.into_iter().map(|(_, records)| records));
            let key = new_key(&folder, name);
            let text = whole_zone(name, &records);
            let text = match signed {
                Signed::Not => text,
                Signed::Expired => sign(&folder, name, &text, &key, &PAST),
                Signed::Well | Signed::WithoutDs | Signed::WrongDs => {
                    sign(&folder, name, &text, &key, &[])
                }
            };
            files.insert(name.to_owned(), text);
            let mut delegation = format!("{name}. NS ns.client.example.\n");
            match signed {
                Signed::Well | Signed::Expired => delegation += &ds(&folder, &key),
                Signed::WrongDs => delegation += &ds(&folder, &new_key(&folder, name)),
                Signed::Not | Signed::WithoutDs => {}
            }
            if name == "." {
                anchor = Some(folder.join(format!("{key}.ds")));
            }
            delegations.push((name, delegation));
        }
        let knot = knot_of_files(lab, &files, broken);
        let anchor = anchor.expect("the root");
        let resolvers = [
            (VALIDATES, "validator iterator", "ede: yes"),
            (TACITURN, "validator iterator", ""),
            (CREDULOUS, "iterator", ""),
            (SYNTHESISES, "dns64 iterator", "dns64-prefix: 2001:db8:64:64::/96"),
        ];
        let resolvers = resolvers.map(|(address, modules, option)| {
            unbound(lab, address.parse().unwrap(), &anchor, modules, option)
        });
        Self { _knot: knot, _resolvers: resolvers.into() }
    }
}

const PAST: [&str; 4] = ["-i", "20200101000000", "-e", "20200201000000"];

/// Of the zones of this lab: one label less, and all other zones directly below the root.
fn is_parent(name: &str, child: &str) -> bool {
    let parent = child.split_once('.').map_or("", |(_, parent)| parent);
    name == "." || name == parent
}

/// Returns the base name of the key's files.
fn new_key(folder: &Path, zone: &str) -> String {
    run(folder, &["ldns-keygen", "-k", "-a", "ECDSAP256SHA256", zone]).trim().to_owned()
}

fn ds(folder: &Path, key: &str) -> String {
    fs::read_to_string(folder.join(format!("{key}.ds"))).unwrap()
}

fn sign(folder: &Path, zone: &str, text: &str, key: &str, options: &[&str]) -> String {
    fs::write(folder.join("unsigned"), text).unwrap();
    let words = ["ldns-signzone", "-o", zone, "-f", "signed"];
    run(folder, &[&words[..], options, &["unsigned", key]].concat());
    fs::read_to_string(folder.join("signed")).unwrap()
}

fn run(folder: &Path, words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(folder).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn unbound(lab: &Lab, address: SocketAddr, anchor: &Path, modules: &str, option: &str) -> Process {
    let ip = address.ip();
    if address.to_string() != ASKED {
        lab.gateway.configure(&format!("addr add {ip}/128 dev lo nodad\n"));
    }
    let folder: PathBuf = lab.folder(&format!("unbound-{}", ip.to_string().replace(':', "-")));
    let knot: SocketAddr = KNOT.parse().unwrap();
    let hints = folder.join("root.hints");
    let hint = format!(". 300 NS ns.client.example.\nns.client.example. 300 AAAA {}\n", knot.ip());
    fs::write(&hints, hint).unwrap();
    let mut configuration = format!(
        "server:\n interface: {ip}\n access-control: ::/0 allow\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
         directory: {}\n pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n verbosity: 1\n num-threads: 1\n \
         root-hints: {}\n trust-anchor-file: {}\n module-config: \"{modules}\"\n {option}\n",
        folder.display(),
        hints.display(),
        anchor.display()
    );
    // Unbound answers for the reverse zones of documentation addresses itself, unless it is to ask.
    for zone in ["100.51.198.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"] {
        writeln!(configuration, " local-zone: \"{zone}\" nodefault").unwrap();
    }
    configuration.push_str("remote-control:\n control-enable: no\n");
    let file = folder.join("unbound.conf");
    fs::write(&file, configuration).unwrap();
    let unbound = lab.gateway.spawn(["unbound", "-d", "-c", file.to_str().unwrap()]);
    until("Unbound (Debian: unbound)", || unbound.log().contains("start of service").then_some(()));
    unbound
}
