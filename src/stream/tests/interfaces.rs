//! The same packets on several interfaces.

use super::*;

/// A session through a router, as its two interfaces show it.
const FORWARDED: &str = "C syn on 1; C syn on 2; S synack on 2; S synack on 1; C ack on 1; C ack on 2
    S data 0..9 on 2; S data 0..9 on 1; C data 0..5 on 1; C data 0..5 on 2; S ack on 2; S ack on 1
    C fin on 1; C fin on 2; S fin ack 6 on 2; S fin ack 6 on 1; C ack 10 at 6 on 1; C ack 10 at 6 on 2";

#[test]
fn each_packet_counts_once() {
    let mut scene = Scene::new();
    scene.play(FORWARDED);
    assert_eq!(scene.heard(), "S 0..9; C 0..5; C end; S end");
    assert_eq!((scene.table.counters().elsewhere, scene.table.counters().stray), (9, 0));
    let facts = scene.fact();
    assert_eq!((facts.syns, facts.retransmits, facts.data_segments), (1, [0, 0], [1, 1]));
    assert_eq!((facts.outcome, facts.bytes), (FlowOutcome::Established, [5, 9]));
}

#[test]
fn a_retransmit_is_one_where_the_flow_is_listened_to() {
    let mut scene = Scene::new();
    scene.play("C syn on 1; C syn on 2; C syn on 1; C syn on 2; S synack on 2; C ack on 1");
    scene.play("C data 0..5 on 1; C data 0..5 on 2; C data 0..5 on 1; C data 0..5 on 2");
    let facts = scene.fact();
    assert_eq!((facts.syns, facts.retransmits), (2, [1, 0]));
}

/// The way there by 0 and 1, the way back by 1 and 2.
#[test]
fn the_directions_may_go_different_ways() {
    let mut scene = Scene::new();
    scene.play("C syn on 0; C syn on 1; S synack on 1; S synack on 2; C ack on 0; C ack on 1");
    scene.play("S data 0..9 on 1; S data 0..9 on 2; C data 0..5 on 0; C data 0..5 on 1");
    assert_eq!(scene.heard(), "S 0..9; C 0..5");
    let facts = scene.fact();
    assert_eq!((facts.syns, facts.retransmits, facts.gaps), (1, [0, 0], 0));
}

#[test]
fn a_route_may_change() {
    let mut scene = Scene::new();
    scene.play("C syn on 1; S synack on 1; C ack on 1; C data 0..5 on 1; C data 5..7 on 2");
    assert_eq!(scene.heard(), "C 0..5");
    scene.play("+1s; C data 5..7 on 2; C data 7..9 on 2; C data 7..9 on 1; S data 0..9 ack 9 on 1");
    assert_eq!(scene.heard(), "C 5..7; C 7..9; S 0..9");
    assert_eq!(scene.table.counters().elsewhere, 2);
}

#[test]
fn candidates_are_listened_to_in_one_place_too() {
    let mut scene = Scene::new().between("192.0.2.1:40000", "192.0.2.2:8025");
    scene.play(FORWARDED);
    assert_eq!(scene.heard(), "S 0..9; C 0..5; C end; S end");
    let facts = scene.fact();
    assert_eq!((facts.syns, facts.data_segments), (1, [1, 1]));
}

#[test]
fn a_new_flow_may_come_another_way_at_once() {
    let mut scene = Scene::new();
    scene.play(FORWARDED);
    scene.anew([7, 8]);
    scene.play("C syn on 2; C syn on 1; S synack on 1; S synack on 2; C ack on 2; C ack on 1");
    assert_eq!(scene.facts().iter().map(|facts| facts.syns).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn errors_count_once() {
    let mut scene = Scene::new();
    scene.play("C syn on 1; C syn on 2; S synack on 2; S synack on 1; C ack on 1; C ack on 2");
    for interface in [2, 1, 2, 1] {
        scene.interface = interface;
        scene.error(IcmpKind::PacketTooBig { mtu: 1280 }, Side::Client, -1);
    }
    // What the other side sent comes another way.
    scene.error(IcmpKind::TimeExceeded, Side::Server, -1);
    assert_eq!(scene.table.counters().elsewhere, 5);
    assert_eq!(scene.fact().icmp_errors, 3);
}
