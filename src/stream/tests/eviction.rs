//! Memory limits and eviction.

use super::*;

const OPEN: &str = "C syn; S synack; C ack";

fn small() -> FlowLimits {
    FlowLimits { flows: 3, held_per_flow: 2000, held: 3000, ..FlowLimits::default() }
}

#[test]
fn a_flow_at_its_limit_gives_up_its_gap() {
    let mut simulation = Simulation::with(small());
    simulation.play(OPEN).play("C data 10..500; C data 600..1000; C data 1100..1800");
    assert_eq!(simulation.delivered(), "C gap 0..10; C 10..500");
    assert!(simulation.table.held() <= 2000);
    simulation.play("C data 500..600; C data 1000..1100; C data 0..10");
    assert_eq!(simulation.delivered(), "C 500..600; C 600..1000; C 1000..1100; C 1100..1800");
    let counts = *simulation.table.counters();
    assert_eq!((counts.bytes_given_up, counts.bytes_not_captured), (10, 0));
    assert_eq!(simulation.only_facts().retransmits, [1, 0]);
}

#[test]
fn a_segment_too_large_to_hold_is_delivered() {
    let mut simulation = Simulation::with(small());
    simulation.play(OPEN).play("C data 10..5000; C data 5000..5001");
    assert_eq!(simulation.delivered(), "C gap 0..10; C 10..5000; C 5000..5001");
    // A segment that fills the gap is never given up.
    let mut simulation = Simulation::with(small());
    simulation.play(OPEN).play("C data 1300..1310; C data 0..1300 ack 5");
    assert_eq!(simulation.delivered(), "C 0..1300; C 1300..1310");
}

#[test]
fn all_flows_share_one_limit() {
    let mut simulation = Simulation::with(FlowLimits { flows: 100, ..small() });
    for port in 1..50 {
        simulation.addresses[0].set_port(port);
        simulation.new_connection([port.into(), 9]);
        simulation.play(OPEN).play("C data 10..300; S data 5..10");
        assert!(simulation.table.held() <= 3000);
    }
    assert!(simulation.delivered().starts_with("C gap 0..10; C 10..300; S gap 0..5; S 5..10; #2"));
    assert_eq!(simulation.table.flows(), 49, "no flow is evicted");
}

#[test]
fn the_least_recently_active_flow_is_evicted() {
    let mut simulation = Simulation::with(small());
    for port in [1, 2, 3] {
        simulation.addresses[0].set_port(port);
        simulation.new_connection([port.into(), 9]);
        simulation.play(OPEN).play("C data 0..3; C data 5..9; +2s");
    }
    simulation.addresses[0].set_port(1);
    simulation.new_connection([1, 9]);
    simulation.play("C data 9..12; +2s");
    simulation.addresses[0].set_port(4);
    simulation.play("C syn");
    assert_eq!(simulation.table.flows(), 3);
    let evicted = simulation.flows.over.remove(0);
    assert_eq!((evicted.start.number, evicted.evicted, evicted.gaps), (2, true, 1));
    assert_eq!(simulation.table.counters().evicted, 1);
    assert!(simulation.facts().iter().all(|facts| !facts.evicted));
}

#[test]
fn flows_that_are_not_smtp_are_evicted_first() {
    let mut simulation = Simulation::with(small());
    simulation.play("C syn; +2s");
    simulation.addresses[1].set_port(443);
    for port in 1..20 {
        simulation.addresses[0].set_port(port);
        simulation.play("C syn; S synack; C ack; C data 0..5; S data 0..9 junk");
    }
    assert_eq!(simulation.table.flows(), 3);
    assert_eq!(
        (simulation.table.counters().evicted, simulation.table.counters().forgotten),
        (0, 17)
    );
    let facts = simulation.only_facts();
    assert_eq!(facts.start.server.port(), 25);
}
