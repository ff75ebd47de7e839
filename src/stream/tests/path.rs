//! ICMP errors and PMTU black holes.

use super::*;

const OPEN: &str = "C syn mss 1440; S synack mss 1440; C ack; S data 0..50; C data 0..20; S ack";

fn black_hole(script: &str) -> bool {
    Simulation::new().play(OPEN).play(script).only_facts().black_hole
}

#[test]
fn lost_large_segments_are_a_black_hole() {
    let again = |times| "C data 20..1448;".repeat(times);
    assert!(black_hole(&again(3)));
    assert!(!black_hole(&again(2)));
    assert!(!black_hole(&format!("{}; S ack", again(5))), "it was slow");
    assert!(!black_hole(&"C data 20..900;".repeat(5)), "not large");
    assert!(!black_hole(&format!("C data 20..1448; S ack; {}", "C data 1448..2800;".repeat(5))));
    assert!(!black_hole(&format!("S ack window 0; {}", again(5))), "the window is closed");
    // A burst, captured on the sending host before segmentation offload.
    let burst = "C data 20..4340; C data 4340..8000";
    assert!(black_hole(&format!("{burst}; C data 20..1448; C data 20..1448")));
    // The sender discovers the MTU by itself (RFC 4821).
    let smaller = "C data 20..532; S ack 532; C data 532..1044; S ack 1044";
    assert!(black_hole(&format!("{} {smaller}", again(3))));
}

#[test]
fn with_packet_too_big_it_is_a_black_hole_only_if_that_does_not_help() {
    let too_big = IcmpKind::PacketTooBig { mtu: 1300 };
    let mut simulation = Simulation::new();
    simulation.play(OPEN).play("C data 20..1448; C data 20..1448").error(too_big, Side::Client, 20);
    simulation.error(IcmpKind::PacketTooBig { mtu: 0 }, Side::Client, 20);
    let facts =
        simulation.play("C data 20..1248; S ack 1248; C data 1248..1448; S ack").only_facts();
    assert_eq!((facts.path_mtu, facts.icmp_errors, facts.black_hole), (Some(1300), 2, false));

    let mut simulation = Simulation::new();
    simulation.play(OPEN).play("C data 20..1448").error(too_big, Side::Client, 20);
    let facts = simulation.play("C data 20..1448; C data 20..1448; C data 20..1448").only_facts();
    assert!(facts.black_hole, "it did not help");
}

#[test]
fn errors_must_quote_a_sent_segment() {
    let mut simulation = Simulation::new();
    simulation.play(OPEN);
    simulation.error(IcmpKind::PacketTooBig { mtu: 1280 }, Side::Client, 5000);
    simulation.error(IcmpKind::PacketTooBig { mtu: 1400 }, Side::Client, 0);
    simulation.error(IcmpKind::PacketTooBig { mtu: 1350 }, Side::Server, 10);
    simulation.addresses[0].set_port(7);
    simulation.error(IcmpKind::PacketTooBig { mtu: 1290 }, Side::Client, 0);
    assert_eq!(simulation.table.counters().stray_icmp, 2);
    let facts = simulation.only_facts();
    assert_eq!((facts.icmp_errors, facts.path_mtu), (2, Some(1350)));
    assert_eq!(facts.outcome, FlowOutcome::Established);
}
