//! Packets captured on several interfaces.

use super::*;

/// A session through a router, captured on both of its interfaces.
const FORWARDED: &str = "C syn on 1; C syn on 2; S synack on 2; S synack on 1; C ack on 1; C ack on 2
    S data 0..9 on 2; S data 0..9 on 1; C data 0..5 on 1; C data 0..5 on 2; S ack on 2; S ack on 1
    C fin on 1; C fin on 2; S fin ack 6 on 2; S fin ack 6 on 1; C ack 10 at 6 on 1; C ack 10 at 6 on 2";

#[test]
fn each_packet_counts_once() {
    let mut simulation = Simulation::new();
    simulation.play(FORWARDED);
    assert_eq!(simulation.delivered(), "S 0..9; C 0..5; C end; S end");
    assert_eq!(
        (simulation.table.counters().other_interface, simulation.table.counters().stray),
        (9, 0)
    );
    let facts = simulation.only_facts();
    assert_eq!((facts.syns, facts.retransmits, facts.data_segments), (1, [0, 0], [1, 1]));
    assert_eq!((facts.outcome, facts.bytes), (FlowOutcome::Established, [5, 9]));
}

#[test]
fn retransmits_count_on_the_pinned_interface() {
    let mut simulation = Simulation::new();
    simulation.play("C syn on 1; C syn on 2; C syn on 1; C syn on 2; S synack on 2; C ack on 1");
    simulation.play("C data 0..5 on 1; C data 0..5 on 2; C data 0..5 on 1; C data 0..5 on 2");
    let facts = simulation.only_facts();
    assert_eq!((facts.syns, facts.retransmits), (2, [1, 0]));
}

/// One direction through interfaces 0 and 1, the other through 1 and 2.
#[test]
fn the_directions_may_use_different_interfaces() {
    let mut simulation = Simulation::new();
    simulation.play("C syn on 0; C syn on 1; S synack on 1; S synack on 2; C ack on 0; C ack on 1");
    simulation.play("S data 0..9 on 1; S data 0..9 on 2; C data 0..5 on 0; C data 0..5 on 1");
    assert_eq!(simulation.delivered(), "S 0..9; C 0..5");
    let facts = simulation.only_facts();
    assert_eq!((facts.syns, facts.retransmits, facts.gaps), (1, [0, 0], 0));
}

#[test]
fn a_route_may_change() {
    let mut simulation = Simulation::new();
    simulation.play("C syn on 1; S synack on 1; C ack on 1; C data 0..5 on 1; C data 5..7 on 2");
    assert_eq!(simulation.delivered(), "C 0..5");
    simulation
        .play("+1s; C data 5..7 on 2; C data 7..9 on 2; C data 7..9 on 1; S data 0..9 ack 9 on 1");
    assert_eq!(simulation.delivered(), "C 5..7; C 7..9; S 0..9");
    assert_eq!(simulation.table.counters().other_interface, 2);
}

#[test]
fn candidates_use_one_interface_too() {
    let mut simulation = Simulation::new().between("192.0.2.1:40000", "192.0.2.2:8025");
    simulation.play(FORWARDED);
    assert_eq!(simulation.delivered(), "S 0..9; C 0..5; C end; S end");
    let facts = simulation.only_facts();
    assert_eq!((facts.syns, facts.data_segments), (1, [1, 1]));
}

#[test]
fn a_new_flow_may_use_another_interface_at_once() {
    let mut simulation = Simulation::new();
    simulation.play(FORWARDED);
    simulation.new_connection([7, 8]);
    simulation.play("C syn on 2; C syn on 1; S synack on 1; S synack on 2; C ack on 2; C ack on 1");
    assert_eq!(simulation.facts().iter().map(|facts| facts.syns).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn errors_count_once() {
    let mut simulation = Simulation::new();
    simulation.play("C syn on 1; C syn on 2; S synack on 2; S synack on 1; C ack on 1; C ack on 2");
    for interface in [2, 1, 2, 1] {
        simulation.interface = interface;
        simulation.error(IcmpKind::PacketTooBig { mtu: 1280 }, Side::Client, -1);
    }
    // Errors about the other side's segments use another interface.
    simulation.error(IcmpKind::TimeExceeded, Side::Server, -1);
    assert_eq!(simulation.table.counters().other_interface, 5);
    assert_eq!(simulation.only_facts().icmp_errors, 3);
}
