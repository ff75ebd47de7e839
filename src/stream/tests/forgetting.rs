//! Memory is bounded, and what is given up for it is said.

use super::*;

const OPEN: &str = "C syn; S synack; C ack";

fn small() -> FlowLimits {
    FlowLimits { flows: 3, held_per_flow: 2000, held: 3000, ..FlowLimits::default() }
}

#[test]
fn a_flow_at_its_bound_gives_up_its_hole() {
    let mut scene = Scene::with(small());
    scene.play(OPEN).play("C data 10..500; C data 600..1000; C data 1100..1800");
    assert_eq!(scene.heard(), "C gap 0..10; C 10..500");
    assert!(scene.table.held() <= 2000);
    scene.play("C data 500..600; C data 1000..1100; C data 0..10");
    assert_eq!(scene.heard(), "C 500..600; C 600..1000; C 1000..1100; C 1100..1800");
    let counts = *scene.table.counters();
    assert_eq!((counts.bytes_given_up, counts.bytes_not_captured), (10, 0));
    assert_eq!(scene.fact().retransmits, [1, 0]);
}

#[test]
fn a_segment_too_large_to_be_held_is_told() {
    let mut scene = Scene::with(small());
    scene.play(OPEN).play("C data 10..5000; C data 5000..5001");
    assert_eq!(scene.heard(), "C gap 0..10; C 10..5000; C 5000..5001");
    // The bytes that fill the hole are never given up for it.
    let mut scene = Scene::with(small());
    scene.play(OPEN).play("C data 1300..1310; C data 0..1300 ack 5");
    assert_eq!(scene.heard(), "C 0..1300; C 1300..1310");
}

#[test]
fn all_flows_together_are_bounded() {
    let mut scene = Scene::with(FlowLimits { flows: 100, ..small() });
    for port in 1..50 {
        scene.addresses[0].set_port(port);
        scene.anew([port.into(), 9]);
        scene.play(OPEN).play("C data 10..300; S data 5..10");
        assert!(scene.table.held() <= 3000);
    }
    assert!(scene.heard().starts_with("C gap 0..10; C 10..300; S gap 0..5; S 5..10; #2"));
    assert_eq!(scene.table.flows(), 49, "none is evicted for it");
}

#[test]
fn the_least_recently_active_flow_is_evicted() {
    let mut scene = Scene::with(small());
    for port in [1, 2, 3] {
        scene.addresses[0].set_port(port);
        scene.anew([port.into(), 9]);
        scene.play(OPEN).play("C data 0..3; C data 5..9; +2s");
    }
    scene.addresses[0].set_port(1);
    scene.anew([1, 9]);
    scene.play("C data 9..12; +2s");
    scene.addresses[0].set_port(4);
    scene.play("C syn");
    assert_eq!(scene.table.flows(), 3);
    let evicted = scene.ears.over.remove(0);
    assert_eq!((evicted.start.number, evicted.evicted, evicted.gaps), (2, true, 1));
    assert_eq!(scene.table.counters().evicted, 1);
    assert!(scene.facts().iter().all(|facts| !facts.evicted));
}

#[test]
fn flows_that_are_no_smtp_are_forgotten_first() {
    let mut scene = Scene::with(small());
    scene.play("C syn; +2s");
    scene.addresses[1].set_port(443);
    for port in 1..20 {
        scene.addresses[0].set_port(port);
        scene.play("C syn; S synack; C ack; C data 0..5; S data 0..9 junk");
    }
    assert_eq!(scene.table.flows(), 3);
    assert_eq!((scene.table.counters().evicted, scene.table.counters().forgotten), (0, 17));
    let facts = scene.fact();
    assert_eq!(facts.start.server.port(), 25);
}
