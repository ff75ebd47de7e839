//! Roles of client and server, and which flows are reported.

use super::*;

const UNWATCHED: (&str, &str) = ("192.0.2.1:40000", "192.0.2.2:8025");

fn unwatched() -> Simulation {
    Simulation::new().between(UNWATCHED.0, UNWATCHED.1)
}

#[test]
fn without_a_syn_the_watched_port_is_the_server() {
    let mut simulation = Simulation::new();
    let start = simulation.play("S data 0..9; C data 0..5").only_facts().start;
    assert_eq!((start.client, start.server), (simulation.addresses[0], simulation.addresses[1]));
    assert!(start.midstream);
    assert_eq!(simulation.delivered(), "S 0..9; C 0..5");
}

#[test]
fn the_sender_of_a_syn_ack_is_the_server() {
    let mut simulation = Simulation::new();
    let start = simulation.play("S synack; C ack; S data 0..3").only_facts().start;
    assert_eq!((start.client, start.midstream), (simulation.addresses[0], false));
}

#[test]
fn a_server_with_a_greeting_is_reported_on_any_port() {
    let mut simulation = unwatched();
    simulation.play("C syn; S synack; C ack; S data 0..2; C data 0..4 ack 0");
    assert_eq!((simulation.delivered().as_str(), simulation.flows.starts.len()), ("", 0));
    simulation.play("S data 2..20; C data 4..9");
    assert_eq!(
        simulation.delivered(),
        "S 0..2; C 0..4; S 2..20; C 4..9",
        "in the order of the wire"
    );
    let facts = simulation.only_facts();
    assert_eq!((facts.syns, facts.handshake, facts.start.midstream), (1, Some(ms(2)), false));
}

#[test]
fn omitted_bytes_of_a_candidate_are_delivered_as_omitted() {
    let mut simulation = unwatched();
    simulation.play("C syn; S synack; C ack; C data 0..90 omit 80 ack 0; S data 0..20 ack 0");
    assert_eq!(simulation.delivered(), "C omitted 0..80; C 80..90; S 0..20");
    // It may be a greeting; its first bytes are omitted.
    let mut simulation = unwatched();
    simulation.play("C syn; S synack; C ack; S data 0..9 omit 3; S data 9..20");
    assert_eq!((simulation.delivered().as_str(), simulation.table.counters().ignored), ("", 0));
}

#[test]
fn a_flow_without_a_greeting_is_ignored() {
    let mut simulation = unwatched();
    simulation.play("C syn; S synack; C ack; C data 0..400; S data 0..9 junk; S data 9..2000");
    assert_eq!((simulation.table.held(), simulation.table.counters().ignored), (0, 2));
    assert!(simulation.facts().is_empty());
    // Another connection between the same endpoints may be SMTP.
    simulation.play("C syn; S synack; C ack; S data 0..9 junk");
    simulation.new_connection([5, 6]);
    simulation.play("C syn; S synack; C ack; S data 0..9");
    assert_eq!(simulation.delivered(), "S 0..9");
}

#[test]
fn a_client_that_sends_much_data_first_is_ignored() {
    let mut simulation = unwatched();
    simulation.play("C syn; S synack; C ack; C data 0..4000");
    assert!(simulation.table.held() > 4000);
    simulation.play("C data 4000..8000");
    assert_eq!(simulation.table.held(), 0);
    simulation.play("S data 0..9");
    assert!(simulation.facts().is_empty());
}

#[test]
fn without_other_evidence_the_sender_of_the_greeting_is_the_server() {
    // The host on the left sends the greeting.
    for (left, right) in [(UNWATCHED.0, UNWATCHED.1), ("192.0.2.1:25", "192.0.2.2:25")] {
        let mut simulation = Simulation::new().between(right, left);
        simulation.play("C data 0..3; S data 0..9; C data 3..5");
        assert_eq!(simulation.delivered(), "C 0..3; S 0..9; C 3..5");
        let start = simulation.only_facts().start;
        assert_eq!(
            (start.client, start.server),
            (simulation.addresses[0], simulation.addresses[1])
        );
    }
    let mut simulation = unwatched();
    simulation.play("S data 0..9; C data 0..3");
    assert_eq!(simulation.delivered(), "S 0..9; C 0..3");
    assert_eq!(simulation.only_facts().start.client, simulation.addresses[0]);
}

#[test]
fn a_flow_between_watched_ports_is_always_reported() {
    let mut simulation = Simulation::new().between("192.0.2.1:25", "192.0.2.2:25");
    simulation.play("C data 0..3; S data 0..9 junk");
    assert_eq!(simulation.delivered(), "C 0..3; S 0..9 differs");
    assert_eq!(simulation.facts().len(), 1);
    let mut simulation = Simulation::new().between("192.0.2.1:25", "192.0.2.2:25");
    simulation.play("C data 0..4000; C data 4000..8000; C data 8000..8001");
    assert_eq!(simulation.delivered(), "C 0..4000; C 4000..8000; C 8000..8001");
    assert_eq!(simulation.only_facts().bytes, [8001, 0]);
}

#[test]
fn unanswered_flows_are_reported_on_watched_ports_only() {
    let mut simulation = unwatched();
    simulation.play("C syn; C syn; S rst ack 0");
    simulation.addresses = Simulation::new().addresses;
    simulation.play("C syn");
    let facts = simulation.facts();
    assert_eq!(facts.len(), 1);
    assert_eq!((facts[0].start.number, facts[0].start.server.port()), (1, 25));
}

#[test]
fn stray_segments_start_no_flow() {
    let mut simulation = Simulation::new();
    simulation.play("C ack 5; S fin; S rst; C rst");
    assert_eq!((simulation.table.flows(), simulation.table.counters().stray), (0, 4));
}

#[test]
fn mapped_addresses_are_ipv4() {
    let mut simulation =
        Simulation::new().between("[::ffff:192.0.2.1]:4000", "[::ffff:192.0.2.2]:25");
    let start = simulation.play("C syn").only_facts().start;
    assert_eq!(start.client, "192.0.2.1:4000".parse().unwrap());
}
