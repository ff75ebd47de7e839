//! Start and end of flows, and reuse of a 4-tuple.

use super::*;

fn outcome(script: &str) -> (FlowOutcome, Option<Side>) {
    let facts = Simulation::new().play(script).only_facts();
    (facts.outcome, facts.closed_by)
}

#[test]
fn outcomes() {
    use FlowOutcome::{Established, Midstream, Refused, Reset, Unanswered};
    let open = "C syn; S synack; C ack";
    for (script, expected) in [
        ("C syn; C syn", (Unanswered, None)),
        ("C syn; C rst", (Unanswered, Some(Side::Client))),
        ("C syn; S rst ack 0", (Refused, Some(Side::Server))),
        // Windows retries after a RST.
        ("C syn; S rst ack 0; C syn; S rst ack 0", (Refused, Some(Side::Server))),
        ("C syn; S rst ack 0; C syn; S synack; C ack", (Established, None)),
        ("C syn; S rst ack 77", (Unanswered, None)),
        ("C syn; S synack", (Established, None)),
        (open, (Established, None)),
        (&format!("{open}; C data 0..5; S rst"), (Reset, Some(Side::Server))),
        (&format!("{open}; C fin; S rst"), (Established, Some(Side::Client))),
        (&format!("{open}; S fin; C ack 1; C fin; S ack 1"), (Established, Some(Side::Server))),
        // Crossing FINs.
        (&format!("{open}; C fin; S fin ack 0"), (Established, Some(Side::Server))),
        (&format!("{open}; S fin; C fin ack 0"), (Established, Some(Side::Server))),
        (&format!("{open}; C fin; S fin ack 1"), (Established, Some(Side::Client))),
        ("C data 0..5; S data 0..9", (Midstream, None)),
        ("S data 0..5; C rst", (Midstream, Some(Side::Client))),
        // Simultaneous open.
        ("C syn; S syn; C synack; S synack; C data 0..1", (Established, None)),
        ("C syn; S syn; S rst; C rst", (Refused, Some(Side::Server))),
    ] {
        assert_eq!(outcome(script), expected, "{script}");
    }
}

#[test]
fn handshake_is_from_the_first_syn() {
    let facts =
        Simulation::new().play("C syn; +1s; C syn; S synack; C ack; C data 0..9").only_facts();
    assert_eq!((facts.handshake, facts.syns), (Some(ms(1003)), 2));
    assert!(!facts.start.midstream);
}

#[test]
fn an_icmp_error_answers_a_syn() {
    let mut simulation = Simulation::new();
    let facts = simulation.play("C syn").error(IcmpKind::Prohibited, Side::Client, -1).only_facts();
    assert_eq!((facts.outcome, facts.icmp_errors), (FlowOutcome::Unreachable, 1));
    // A retry succeeded.
    let mut simulation = Simulation::new();
    simulation.play("C syn").error(IcmpKind::Unreachable, Side::Client, -1);
    let facts = simulation.play("C syn; S synack; C ack").only_facts();
    assert_eq!((facts.outcome, facts.icmp_errors), (FlowOutcome::Established, 1));
}

#[test]
fn what_a_source_lost_may_have_been_the_answer() {
    let outcome = |before: &str, after: &str| {
        let mut simulation = Simulation::new();
        simulation.play(before);
        simulation.table.on_loss(simulation.now());
        let facts = simulation.play(after).only_facts();
        (facts.outcome, facts.incomplete)
    };
    assert_eq!(outcome("C syn; +1s", "C syn"), (FlowOutcome::Unknown, true));
    assert_eq!(outcome("+1s", "C syn"), (FlowOutcome::Unanswered, false));
    // A RST may end a connection whose SYN-ACK was lost.
    assert_eq!(outcome("C syn", "S rst"), (FlowOutcome::Unknown, true));
    // The client's kernel knows of an answer.
    let reused = |after: &str| {
        let mut simulation = Simulation::new();
        simulation.play("C syn").play(after);
        simulation.new_connection([5, 6]);
        let facts = simulation.play("C syn; S synack; C ack").facts();
        facts.iter().map(|facts| facts.outcome).collect::<Vec<_>>()
    };
    let established = FlowOutcome::Established;
    assert_eq!(reused("+900ms"), [FlowOutcome::Unknown, established]);
    assert_eq!(reused("+1100ms"), [FlowOutcome::Unanswered, established]);
    // What was captured happened.
    assert_eq!(outcome("C syn", "S synack"), (FlowOutcome::Established, true));
    let large = "C syn; S synack; C ack; C data 0..1400; +1s; C data 0..1400; +2s; C data 0..1400";
    let facts = Simulation::new().play(large).only_facts();
    assert!(facts.black_hole && !facts.incomplete);
    let mut simulation = Simulation::new();
    simulation.play(large);
    simulation.table.on_loss(simulation.now());
    assert!(!simulation.only_facts().black_hole);
    // The table's clock and the source's differ: a loss that was noticed earlier stays.
    let mut simulation = Simulation::new();
    simulation.play("C syn");
    simulation.table.on_loss(simulation.now());
    simulation.table.on_loss(Timestamp::default());
    assert_eq!(simulation.only_facts().outcome, FlowOutcome::Unknown);
}

#[test]
fn a_connect_that_times_out_ends_with_its_socket() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; +1s; C syn; +2s").socket(None, false);
    assert_eq!(simulation.flows.over.len(), 0);
    simulation.socket(None, true);
    let facts = simulation.flows.over.remove(0);
    assert_eq!((facts.outcome, facts.syns, facts.rtt), (FlowOutcome::Unanswered, 2, None));
    // A late segment is stray, and another attempt is another flow.
    simulation.play("S synack");
    assert_eq!((simulation.table.counters().stray, simulation.table.counters().flows), (1, 1));
    simulation.new_connection([5, 6]);
    simulation.play("C syn; S synack; C ack");
    assert_eq!(simulation.only_facts().outcome, FlowOutcome::Established);

    // With an ICMP error the outcome is unreachable.
    let mut simulation = Simulation::new();
    simulation.play("C syn").error(IcmpKind::Prohibited, Side::Client, -1);
    simulation.play("+1s").socket(None, true);
    assert_eq!(simulation.flows.over.remove(0).outcome, FlowOutcome::Unreachable);
}

#[test]
fn pending_connections_are_counted() {
    let mut simulation = Simulation::new();
    let v6 = simulation.addresses;
    let v4 = ["192.0.2.1:4000", "192.0.2.2:25"].map(|address| address.parse().unwrap());
    assert_eq!(simulation.table.pending_flows(), [PendingFlows::default(); 2]);
    simulation.play("C syn; +1s; C syn");
    let oldest = Some(Timestamp::from_nanos(START) + ms(1));
    for port in 1..=3 {
        simulation.addresses[0].set_port(port);
        simulation.play("C syn");
    }
    simulation.addresses = v4;
    simulation.play("C syn");
    let of_v4 = PendingFlows { flows: 1, retried: 0, since: Some(simulation.now()) };
    // A flow to an unwatched port does not count: it may not be SMTP.
    simulation.addresses[1].set_port(26);
    simulation.play("C syn");
    assert_eq!(
        simulation.table.pending_flows(),
        [of_v4, PendingFlows { flows: 4, retried: 1, since: oldest }]
    );
    simulation.addresses = v6;
    simulation.play("S synack");
    simulation.addresses[0].set_port(1);
    simulation.play("S rst ack 0");
    let [_, left] = simulation.table.pending_flows();
    assert_eq!((left.flows, left.retried), (2, 0));
    simulation.play("+3m");
    assert_eq!(simulation.table.pending_flows(), [PendingFlows::default(); 2]);
}

#[test]
fn an_answer_may_be_seen_after_its_socket_closed() {
    let mut simulation = Simulation::new();
    simulation.play("C syn").socket(None, true).play("S rst ack 0");
    assert_eq!(simulation.only_facts().outcome, FlowOutcome::Refused);
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 0..5; +1s").socket(None, true).play("C fin");
    assert_eq!(simulation.delivered(), "C 0..5; C end", "its packets decide");
}

#[test]
fn the_last_round_trip_time_is_kept() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack").socket(Some(ms(40)), false);
    // The server's kernel has local and peer exchanged.
    simulation.addresses.reverse();
    simulation.socket(Some(ms(30)), false).socket(None, false);
    simulation.addresses.reverse();
    assert_eq!(simulation.only_facts().rtt, Some(ms(30)));
    // An event of an unknown flow.
    simulation.socket(Some(ms(30)), true);
    assert_eq!(simulation.table.flows(), 0);
}

#[test]
fn a_reset_ends_both_sides_and_delivers_held_data() {
    assert_eq!(deliver("C data 0..5; S rst"), "C 0..5; S end; C end");
    // Data sent before it may be captured after it.
    assert_eq!(deliver("S rst at 20; S data 0..20"), "S 0..20");
    assert_eq!(deliver("S rst at 20; S data 0..20; +1s"), "S 0..20; S end; C end");
    assert_eq!(deliver("S data 10..20; S rst at 20; +1s"), "S gap 0..10; S 10..20; S end; C end");
}

#[test]
fn a_reset_outside_the_window_is_ignored() {
    let mut simulation = Simulation::new();
    simulation
        .play("C syn; S synack; C ack; S data 0..50; C data 0..9; S rst at 40; S rst at 2000000");
    simulation.play("S data 50..60");
    assert_eq!(simulation.delivered(), "S 0..50; C 0..9; S 50..60");
    assert_eq!(simulation.table.counters().out_of_window, 2);
    assert_eq!(simulation.only_facts().closed_by, None);
}

#[test]
fn a_reset_that_answers_data_which_crossed_the_fin_ends_the_flow() {
    let open = "C syn; S synack; C ack; C data 0..5; S data 0..9 fin";
    for crossing in ["C data 5..7 ack 9; C ack 10", "C data 5..7 fin ack 9; C ack 10"] {
        let mut simulation = Simulation::new();
        simulation.play(&format!("{open}; {crossing}; S rst at 8"));
        assert!(simulation.flows.over.is_empty(), "{crossing}: before the FIN");
        simulation.play("S rst at 9");
        assert_eq!(simulation.flows.over.len(), 1, "{crossing}");
        let facts = simulation.only_facts();
        assert_eq!(facts.outcome, FlowOutcome::Established, "{crossing}");
        assert_eq!(facts.closed_by, Some(Side::Server), "{crossing}");
    }
}

#[test]
fn acknowledged_fins_end_the_flow_at_once() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 0..6; S data 0..9 fin; C fin ack 10");
    assert_eq!(simulation.delivered(), "C 0..6; S 0..9; S end; C end");
    assert!(simulation.flows.over.is_empty(), "the last ACK is missing");
    simulation.play("S ack 7");
    assert_eq!(simulation.flows.over.len(), 1);
    simulation.play("S ack 7; C data 0..6; C fin");
    assert_eq!(simulation.table.counters().stray, 3, "late segments start no new flow");
    assert_eq!(simulation.only_facts().end + ms(3), simulation.now());
}

#[test]
fn without_the_last_ack_the_flow_ends_after_a_timeout() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C fin; S fin; +9s");
    assert!(simulation.flows.over.is_empty());
    simulation.play("+2s");
    assert_eq!(simulation.flows.over.len(), 1);
}

#[test]
fn a_syn_with_another_number_starts_a_new_flow_after_the_end() {
    for before in [
        "C syn",
        "C syn; S rst ack 0",
        "C syn; S synack; C ack; S rst",
        "C syn; S synack; C ack; C fin; S fin ack 1; C ack 1",
        "C syn; S synack; C ack; C fin; S fin",
        "C syn; S synack; C ack; +2m",
        "C data 0..5; +2m",
    ] {
        let mut simulation = Simulation::new();
        simulation.play(before).new_connection([77_000, 5]);
        simulation.play("C syn; S synack; C ack; S data 0..9").delivered();
        let facts = simulation.facts();
        assert_eq!(facts.len(), 2, "{before}");
        assert_eq!((facts[1].syns, facts[1].bytes), (1, [0, 9]), "{before}");
        assert_eq!(facts[1].start.number, 2);
    }
}

#[test]
fn an_answered_syn_in_the_middle_starts_a_new_flow() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 0..5");
    simulation.new_connection([77_000, 5]);
    simulation.play("C syn");
    let syn_at = simulation.now();
    assert_eq!(simulation.table.counters().out_of_window, 1);
    simulation.play("S synack; C ack; C data 0..7");
    assert_eq!(simulation.delivered(), "C 0..5; #2 C 0..7");
    let facts = simulation.facts();
    assert_eq!((facts[1].syns, facts[1].handshake), (1, Some(ms(2))));
    assert_eq!(facts[1].start.at, syn_at);
}

/// The capture lacks the end of the first connection, and parts of the later ones on the same ports.
#[test]
fn syns_in_the_middle_start_flows_if_the_old_one_does_not_continue() {
    for (others, expected) in [
        (["", "", ""], [FlowOutcome::Unknown, FlowOutcome::Unknown, FlowOutcome::Unanswered]),
        (["S synack; C ack", "C ack", "C data 0..7"], [FlowOutcome::Established; 3]),
        (["S data 0..7", "C ack; S ack 5", "C syn; C ack"], [FlowOutcome::Established; 3]),
        (
            ["S noack rst ack 0", "C rst", "C syn"],
            [FlowOutcome::Refused, FlowOutcome::Unknown, FlowOutcome::Unanswered],
        ),
    ] {
        for last in ["", "+70s", "+2h"] {
            let mut simulation = Simulation::new();
            simulation.play("C syn; S synack; C ack; C data 0..5");
            // Initial sequence numbers of connections 10 s apart (RFC 6528).
            for (other, isn) in others.into_iter().zip([156_000_000, 312_000_000, 468_000_000]) {
                simulation.new_connection([isn, isn ^ 77]);
                simulation.play("C syn").play(other);
            }
            let facts = simulation.play(last).facts();
            let outcomes: Vec<_> = facts.iter().skip(1).map(|facts| facts.outcome).collect();
            assert_eq!(outcomes, expected, "{others:?} {last}");
            let syns: u32 = facts.iter().map(|facts| facts.syns).sum();
            let sent = 4 + others.iter().filter(|other| other.contains("C syn")).count();
            assert_eq!(syns as usize, sent, "{others:?} {last}");
        }
    }
}

/// A server with an established connection answers a SYN with an ACK (RFC 5961 §4), and the connection continues.
#[test]
fn a_flow_continues_after_a_stray_syn() {
    for after in ["S ack 5", "C data 5..9", "S data 0..9", "S ack 5; C data 5..9"] {
        let mut simulation = Simulation::new();
        simulation.play("C syn; S synack; C ack; C data 0..5");
        simulation.new_connection([156_000_000, 5]);
        simulation.play("C syn");
        simulation.new_connection([1000, u32::MAX - 3]);
        let facts = simulation.play(after).play("+2h").only_facts();
        assert_eq!((facts.syns, facts.outcome), (1, FlowOutcome::Established), "{after}");
    }
}

#[test]
fn a_repeated_syn_starts_no_new_flow() {
    let facts = Simulation::new()
        .play("C syn; C syn; S synack; S synack; C syn; C ack; C syn")
        .only_facts();
    assert_eq!((facts.syns, facts.outcome), (4, FlowOutcome::Established));
}

#[test]
fn idle_flows_end() {
    for (script, silence) in [
        ("C syn", "2m"),
        ("C syn; S synack; C ack; C data 0..5", "1h"),
        ("C data 0..5", "1h"),
        ("C syn; S rst ack 0", "10s"),
    ] {
        let mut simulation = Simulation::new();
        simulation.play(script).play(&format!("+{silence}"));
        simulation.play("+2s");
        let over = simulation.flows.over.len();
        assert_eq!((over, simulation.table.flows()), (1, 0), "{script}");
        assert!(!simulation.flows.over[0].evicted);
    }
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack");
    for _ in 0..5 {
        simulation.play("+50m; C ack");
    }
    assert_eq!(simulation.table.flows(), 1, "not idle");
}
