//! The gateway beside what routers run: twelve set-ups, each with the same rows, in both families.
//!
//! A set-up is a recipe of docs/transparent-mode.md, which the test follows, on top of the rules that a package installs.

mod outside;
pub(crate) mod path_mtu;
pub(crate) mod ports;
mod recipe;
mod scene;
mod senders;
mod topology;
pub(crate) mod uplinks;

use self::scene::{ROWS, Scene, small};
use self::topology::Network;
use crate::harness::tests;
use crate::support::{DOMAIN, Family};

tests![
    plain_routing,
    plain_nftables,
    iptables_with_docker,
    firewalld,
    ufw,
    masquerading,
    port_forwarding,
    two_uplinks,
    second_router,
    hairpin,
    strict_reverse_path_filters,
    invalid_packets_dropped,
];

/// One router set-up.
pub(crate) struct SetUp {
    /// The section of docs/transparent-mode.md.
    recipe: &'static str,
    /// Files of `rules/` that a package would have loaded on the router.
    rules: &'static [&'static str],
    /// Further changes to the network.
    prepare: fn(&Network),
    /// Clients connect to the router's own address, which is translated to the mail server's.
    forwards_own_port: bool,
    /// The families in which the mail server's outbound mail comes from the router's address.
    translates_outbound: &'static [Family],
    /// A row of this set-up alone.
    extra: Option<fn(&mut Scene<'_>)>,
}

const PLAIN: SetUp = SetUp {
    recipe: "Plain routing",
    rules: &[],
    prepare: |_| (),
    forwards_own_port: false,
    translates_outbound: &[],
    extra: None,
};

static MATRIX: [SetUp; 12] = [
    PLAIN,
    SetUp { recipe: "nftables", ..PLAIN },
    SetUp { recipe: "iptables, with Docker", rules: &["docker.v4", "docker.v6"], ..PLAIN },
    SetUp {
        recipe: "firewalld",
        rules: &["firewalld.nft"],
        // Its zone "external" does.
        translates_outbound: &[Family::Ipv4],
        ..PLAIN
    },
    SetUp { recipe: "ufw", rules: &["ufw.v4", "ufw.v6"], ..PLAIN },
    SetUp { recipe: "Masquerading", translates_outbound: &Family::ALL, ..PLAIN },
    SetUp {
        recipe: "Port forwarding",
        forwards_own_port: true,
        translates_outbound: &Family::ALL,
        ..PLAIN
    },
    SetUp { recipe: "Several uplinks", prepare: Network::use_second_uplink, ..PLAIN },
    SetUp { recipe: "Mail servers behind another router", prepare: filter_on_second, ..PLAIN },
    SetUp {
        recipe: "Hairpin",
        forwards_own_port: true,
        translates_outbound: &Family::ALL,
        extra: Some(hairpin_from_within),
        ..PLAIN
    },
    SetUp { recipe: "Strict reverse path filters", ..PLAIN },
    SetUp { recipe: "Invalid packets", ..PLAIN },
];

fn check(recipe: &str) {
    let set_up = MATRIX.iter().find(|set_up| set_up.recipe == recipe);
    let set_up = set_up.expect("a set-up of the matrix");
    let network = Network::new();
    let mut scene = Scene::open(&network, set_up);
    for (name, row) in ROWS {
        eprintln!("row: {name}");
        row(&mut scene);
    }
    if let Some(extra) = set_up.extra {
        extra(&mut scene);
    }
}

fn plain_routing() {
    check("Plain routing");
}

fn plain_nftables() {
    check("nftables");
}

fn iptables_with_docker() {
    check("iptables, with Docker");
}

fn firewalld() {
    check("firewalld");
}

fn ufw() {
    check("ufw");
}

fn masquerading() {
    check("Masquerading");
}

fn port_forwarding() {
    check("Port forwarding");
}

fn two_uplinks() {
    check("Several uplinks");
}

fn second_router() {
    check("Mail servers behind another router");
}

fn hairpin() {
    check("Hairpin");
}

fn strict_reverse_path_filters() {
    check("Strict reverse path filters");
}

fn invalid_packets_dropped() {
    check("Invalid packets");
}

/// A second router that knows connections, with a strict packet filter of its own.
fn filter_on_second(network: &Network) {
    recipe::load(&network.lab, &network.second, "second.nft", &recipe::rules("second.nft"));
    network.second.run([
        "sh",
        "-ec",
        "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done",
    ]);
}

/// The mail server reaches its own public address, past the gateway.
fn hairpin_from_within(scene: &mut Scene<'_>) {
    for family in Family::ALL {
        let recipient = format!("hairpin-{family}@{DOMAIN}");
        let mut smtp = scene.network.lab.server.smtp(scene.entrance(family));
        smtp.begin("sender@example.org", &recipient);
        assert_eq!(smtp.data(&small()).code, 250);
        scene.postfix.message_to(&recipient);
        assert!(!scene.passed_gateway(&recipient), "mail from within was intercepted");
    }
}
