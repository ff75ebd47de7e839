//! Programs that save and restore marks, each in its own way, beside the gateway's.

use super::scene::{Scene, small};
use super::topology::Network;
use super::{PLAIN, recipe};
use crate::harness::tests;
use crate::support::Family;

tests![marks_of_other_programs_do_no_harm];

/// Replies leave over the uplink on which the client came: files of `rules/`, and the commands that remove their rules.
const VARIANTS: [(&[&str], &str); 3] = [
    (&["marks-whole.nft"], "nft delete table inet uplinks"),
    (&["marks-after.nft"], "nft delete table inet uplinks"),
    (
        &["marks-mwan3.v4", "marks-mwan3.v6"],
        "nft delete table ip mangle; nft delete table ip6 mangle",
    ),
];

fn marks_of_other_programs_do_no_harm() {
    let network = Network::new();
    let router = &network.lab.gateway;
    router.run(["sh", "-ec", &recipe::rules("marks-routing.sh")]);
    network.use_second_uplink();
    let scene = Scene::with_interfaces(&network, &PLAIN, Some("interfaces = [\"wan0\", \"wan1\"]"));
    for (files, remove) in VARIANTS {
        eprintln!("case: {files:?}");
        for file in files {
            recipe::load(&network.lab, router, file, &recipe::rules(file));
        }
        let name = files[0].split('.').next().unwrap();
        for family in Family::ALL {
            scene.deliver_through_gateway(family, name, &small());
        }
        router.run(["sh", "-ec", remove]);
    }
}
