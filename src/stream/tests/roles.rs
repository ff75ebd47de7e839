//! Who is client, and which flows are told about.

use super::*;

const ELSEWHERE: (&str, &str) = ("192.0.2.1:40000", "192.0.2.2:8025");

fn elsewhere() -> Scene {
    Scene::new().between(ELSEWHERE.0, ELSEWHERE.1)
}

#[test]
fn without_a_syn_the_watched_port_is_the_server() {
    let mut scene = Scene::new();
    let start = scene.play("S data 0..9; C data 0..5").fact().start;
    assert_eq!((start.client, start.server), (scene.addresses[0], scene.addresses[1]));
    assert!(start.midstream);
    assert_eq!(scene.heard(), "S 0..9; C 0..5");
}

#[test]
fn a_syn_ack_is_the_servers() {
    let mut scene = Scene::new();
    let start = scene.play("S synack; C ack; S data 0..3").fact().start;
    assert_eq!((start.client, start.midstream), (scene.addresses[0], false));
}

#[test]
fn a_server_that_greets_on_any_port_is_told_about() {
    let mut scene = elsewhere();
    scene.play("C syn; S synack; C ack; S data 0..2; C data 0..4 ack 0");
    assert_eq!((scene.heard().as_str(), scene.ears.starts.len()), ("", 0));
    scene.play("S data 2..20; C data 4..9");
    assert_eq!(scene.heard(), "S 0..2; C 0..4; S 2..20; C 4..9", "in the order of the wire");
    let facts = scene.fact();
    assert_eq!((facts.syns, facts.handshake, facts.start.midstream), (1, Some(ms(2)), false));
}

#[test]
fn what_was_left_out_before_somebody_listened_is_told_as_that() {
    let mut scene = elsewhere();
    scene.play("C syn; S synack; C ack; C data 0..90 omit 80 ack 0; S data 0..20 ack 0");
    assert_eq!(scene.heard(), "C omitted 0..80; C 80..90; S 0..20");
    // It may be a greeting, and nobody can tell.
    let mut scene = elsewhere();
    scene.play("C syn; S synack; C ack; S data 0..9 omit 3; S data 9..20");
    assert_eq!((scene.heard().as_str(), scene.table.counters().ignored), ("", 0));
}

#[test]
fn one_that_does_not_greet_is_ignored() {
    let mut scene = elsewhere();
    scene.play("C syn; S synack; C ack; C data 0..400; S data 0..9 junk; S data 9..2000");
    assert_eq!((scene.table.held(), scene.table.counters().ignored), (0, 2));
    assert!(scene.facts().is_empty());
    // Another connection between the same may be SMTP.
    scene.play("C syn; S synack; C ack; S data 0..9 junk");
    scene.anew([5, 6]);
    scene.play("C syn; S synack; C ack; S data 0..9");
    assert_eq!(scene.heard(), "S 0..9");
}

#[test]
fn a_client_that_says_much_first_is_ignored() {
    let mut scene = elsewhere();
    scene.play("C syn; S synack; C ack; C data 0..4000");
    assert!(scene.table.held() > 4000);
    scene.play("C data 4000..8000");
    assert_eq!(scene.table.held(), 0);
    scene.play("S data 0..9");
    assert!(scene.facts().is_empty());
}

#[test]
fn who_greets_is_the_server_where_nothing_else_tells() {
    // The scene's client is the one on the left; the greeting comes from there.
    for (left, right) in [(ELSEWHERE.0, ELSEWHERE.1), ("192.0.2.1:25", "192.0.2.2:25")] {
        let mut scene = Scene::new().between(right, left);
        scene.play("C data 0..3; S data 0..9; C data 3..5");
        assert_eq!(scene.heard(), "C 0..3; S 0..9; C 3..5");
        let start = scene.fact().start;
        assert_eq!((start.client, start.server), (scene.addresses[0], scene.addresses[1]));
    }
    let mut scene = elsewhere();
    scene.play("S data 0..9; C data 0..3");
    assert_eq!(scene.heard(), "S 0..9; C 0..3");
    assert_eq!(scene.fact().start.client, scene.addresses[0]);
}

#[test]
fn between_watched_ports_a_flow_is_told_about_anyway() {
    let mut scene = Scene::new().between("192.0.2.1:25", "192.0.2.2:25");
    scene.play("C data 0..3; S data 0..9 junk");
    assert_eq!(scene.heard(), "C 0..3; S 0..9 differs");
    assert_eq!(scene.facts().len(), 1);
    let mut scene = Scene::new().between("192.0.2.1:25", "192.0.2.2:25");
    scene.play("C data 0..4000; C data 4000..8000; C data 8000..8001");
    assert_eq!(scene.heard(), "C 0..4000; C 4000..8000; C 8000..8001");
    assert_eq!(scene.fact().bytes, [8001, 0]);
}

#[test]
fn flows_that_were_never_answered_are_told_on_watched_ports_only() {
    let mut scene = elsewhere();
    scene.play("C syn; C syn; S rst ack 0");
    scene.addresses = Scene::new().addresses;
    scene.play("C syn");
    let facts = scene.facts();
    assert_eq!(facts.len(), 1);
    assert_eq!((facts[0].start.number, facts[0].start.server.port()), (1, 25));
}

#[test]
fn strays_begin_nothing() {
    let mut scene = Scene::new();
    scene.play("C ack 5; S fin; S rst; C rst");
    assert_eq!((scene.table.flows(), scene.table.counters().stray), (0, 4));
}

#[test]
fn mapped_addresses_are_ipv4() {
    let mut scene = Scene::new().between("[::ffff:192.0.2.1]:4000", "[::ffff:192.0.2.2]:25");
    let start = scene.play("C syn").fact().start;
    assert_eq!(start.client, "192.0.2.1:4000".parse().unwrap());
}
