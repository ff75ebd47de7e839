//! How flows begin and end, and when a 4-tuple is a new flow.

use super::*;

fn outcome(script: &str) -> (FlowOutcome, Option<Side>) {
    let facts = Scene::new().play(script).fact();
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
        // Windows tries again, and again.
        ("C syn; S rst ack 0; C syn; S rst ack 0", (Refused, Some(Side::Server))),
        ("C syn; S rst ack 0; C syn; S synack; C ack", (Established, None)),
        ("C syn; S rst ack 77", (Unanswered, None)),
        ("C syn; S synack", (Established, None)),
        (open, (Established, None)),
        (&format!("{open}; C data 0..5; S rst"), (Reset, Some(Side::Server))),
        (&format!("{open}; C fin; S rst"), (Established, Some(Side::Client))),
        (&format!("{open}; S fin; C ack 1; C fin; S ack 1"), (Established, Some(Side::Server))),
        // They cross.
        (&format!("{open}; C fin; S fin ack 0"), (Established, Some(Side::Server))),
        (&format!("{open}; S fin; C fin ack 0"), (Established, Some(Side::Server))),
        (&format!("{open}; C fin; S fin ack 1"), (Established, Some(Side::Client))),
        ("C data 0..5; S data 0..9", (Midstream, None)),
        ("S data 0..5; C rst", (Midstream, Some(Side::Client))),
        // PerSide SYN at once.
        ("C syn; S syn; C synack; S synack; C data 0..1", (Established, None)),
        ("C syn; S syn; S rst; C rst", (Refused, Some(Side::Server))),
    ] {
        assert_eq!(outcome(script), expected, "{script}");
    }
}

#[test]
fn handshake_is_from_the_first_syn() {
    let facts = Scene::new().play("C syn; +1s; C syn; S synack; C ack; C data 0..9").fact();
    assert_eq!((facts.handshake, facts.syns), (Some(ms(1003)), 2));
    assert!(!facts.start.midstream);
}

#[test]
fn an_error_that_answers_a_syn() {
    let mut scene = Scene::new();
    let facts = scene.play("C syn").error(IcmpKind::Prohibited, Side::Client, -1).fact();
    assert_eq!((facts.outcome, facts.icmp_errors), (FlowOutcome::Unreachable, 1));
    // Another try went through.
    let mut scene = Scene::new();
    scene.play("C syn").error(IcmpKind::Unreachable, Side::Client, -1);
    let facts = scene.play("C syn; S synack; C ack").fact();
    assert_eq!((facts.outcome, facts.icmp_errors), (FlowOutcome::Established, 1));
}

#[test]
fn a_connect_that_times_out_is_over_when_its_socket_is() {
    let mut scene = Scene::new();
    scene.play("C syn; +1s; C syn; +2s").socket(None, false);
    assert_eq!(scene.ears.over.len(), 0);
    scene.socket(None, true);
    let facts = scene.ears.over.remove(0);
    assert_eq!((facts.outcome, facts.syns, facts.rtt), (FlowOutcome::Unanswered, 2, None));
    // What comes late is late, and another try is another flow.
    scene.play("S synack");
    assert_eq!((scene.table.counters().stray, scene.table.counters().flows), (1, 1));
    scene.anew([5, 6]);
    scene.play("C syn; S synack; C ack");
    assert_eq!(scene.fact().outcome, FlowOutcome::Established);

    // What a filter said is the outcome, too.
    let mut scene = Scene::new();
    scene.play("C syn").error(IcmpKind::Prohibited, Side::Client, -1);
    scene.play("+1s").socket(None, true);
    assert_eq!(scene.ears.over.remove(0).outcome, FlowOutcome::Unreachable);
}

#[test]
fn what_waits_for_its_first_answer_is_known() {
    let mut scene = Scene::new();
    let v6 = scene.addresses;
    let v4 = ["192.0.2.1:4000", "192.0.2.2:25"].map(|address| address.parse().unwrap());
    assert_eq!(scene.table.pending_connections(), [PendingConnections::default(); 2]);
    scene.play("C syn; +1s; C syn");
    let oldest = Some(Timestamp::from_nanos(START) + ms(1));
    for port in 1..=3 {
        scene.addresses[0].set_port(port);
        scene.play("C syn");
    }
    scene.addresses = v4;
    scene.play("C syn");
    let of_v4 = PendingConnections { flows: 1, again: 0, since: Some(scene.now()) };
    // On a port that is not watched nobody knows yet what it will be.
    scene.addresses[1].set_port(26);
    scene.play("C syn");
    assert_eq!(
        scene.table.pending_connections(),
        [of_v4, PendingConnections { flows: 4, again: 1, since: oldest }]
    );
    scene.addresses = v6;
    scene.play("S synack");
    scene.addresses[0].set_port(1);
    scene.play("S rst ack 0");
    let [_, left] = scene.table.pending_connections();
    assert_eq!((left.flows, left.again), (2, 0));
    scene.play("+3m");
    assert_eq!(scene.table.pending_connections(), [PendingConnections::default(); 2]);
}

#[test]
fn an_answer_may_be_seen_after_its_socket_closed() {
    let mut scene = Scene::new();
    scene.play("C syn").socket(None, true).play("S rst ack 0");
    assert_eq!(scene.fact().outcome, FlowOutcome::Refused);
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack; C data 0..5; +1s").socket(None, true).play("C fin");
    assert_eq!(scene.heard(), "C 0..5; C end", "its packets tell");
}

#[test]
fn the_last_round_trip_time_is_kept() {
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack").socket(Some(ms(40)), false);
    // The kernel of the server has it the other way round.
    scene.addresses.reverse();
    scene.socket(Some(ms(30)), false).socket(None, false);
    scene.addresses.reverse();
    assert_eq!(scene.fact().rtt, Some(ms(30)));
    // Of nothing that was seen.
    scene.socket(Some(ms(30)), true);
    assert_eq!(scene.table.flows(), 0);
}

#[test]
fn a_reset_ends_both_sides_and_tells_what_was_held() {
    assert_eq!(told("C data 0..5; S rst"), "C 0..5; S end; C end");
    // What came before it on the wire may come after it in the capture.
    assert_eq!(told("S rst at 20; S data 0..20"), "S 0..20");
    assert_eq!(told("S rst at 20; S data 0..20; +1s"), "S 0..20; S end; C end");
    assert_eq!(told("S data 10..20; S rst at 20; +1s"), "S gap 0..10; S 10..20; S end; C end");
}

#[test]
fn a_reset_outside_the_window_is_ignored() {
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack; S data 0..50; C data 0..9; S rst at 40; S rst at 2000000");
    scene.play("S data 50..60");
    assert_eq!(scene.heard(), "S 0..50; C 0..9; S 50..60");
    assert_eq!(scene.table.counters().out_of_window, 2);
    assert_eq!(scene.fact().closed_by, None);
}

#[test]
fn fins_that_are_acknowledged_end_the_flow_at_once() {
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack; C data 0..6; S data 0..9 fin; C fin ack 10");
    assert_eq!(scene.heard(), "C 0..6; S 0..9; S end; C end");
    assert!(scene.ears.over.is_empty(), "the last ACK is to come");
    scene.play("S ack 7");
    assert_eq!(scene.ears.over.len(), 1);
    scene.play("S ack 7; C data 0..6; C fin");
    assert_eq!(scene.table.counters().stray, 3, "late ones belong to no other flow");
    assert_eq!(scene.fact().end + ms(3), scene.now());
}

#[test]
fn a_last_ack_that_is_missing_ends_the_flow_soon() {
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack; C fin; S fin; +9s");
    assert!(scene.ears.over.is_empty());
    scene.play("+2s");
    assert_eq!(scene.ears.over.len(), 1);
}

#[test]
fn a_syn_with_another_number_begins_a_new_flow_where_the_old_one_is_over() {
    for before in [
        "C syn",
        "C syn; S rst ack 0",
        "C syn; S synack; C ack; S rst",
        "C syn; S synack; C ack; C fin; S fin ack 1; C ack 1",
        "C syn; S synack; C ack; C fin; S fin",
        "C syn; S synack; C ack; +2m",
        "C data 0..5; +2m",
    ] {
        let mut scene = Scene::new();
        scene.play(before).anew([77_000, 5]);
        scene.play("C syn; S synack; C ack; S data 0..9").heard();
        let facts = scene.facts();
        assert_eq!(facts.len(), 2, "{before}");
        assert_eq!((facts[1].syns, facts[1].bytes), (1, [0, 9]), "{before}");
        assert_eq!(facts[1].start.number, 2);
    }
}

#[test]
fn a_syn_in_the_middle_is_a_new_flow_if_it_is_answered() {
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack; C data 0..5");
    scene.anew([77_000, 5]);
    scene.play("C syn");
    let asked = scene.now();
    assert_eq!(scene.table.counters().out_of_window, 1);
    scene.play("S synack; C ack; C data 0..7");
    assert_eq!(scene.heard(), "C 0..5; #2 C 0..7");
    let facts = scene.facts();
    assert_eq!((facts[1].syns, facts[1].handshake), (1, Some(ms(2))));
    assert_eq!(facts[1].start.at, asked);
}

/// The capture lacks the end of the first connection, and more and more of the others on the same ports.
#[test]
fn syns_in_the_middle_are_flows_if_nothing_of_the_old_one_follows() {
    for (others, due) in [
        (["", "", ""], [FlowOutcome::Unanswered; 3]),
        (["S synack; C ack", "C ack", "C data 0..7"], [FlowOutcome::Established; 3]),
        (["S data 0..7", "C ack; S ack 5", "C syn; C ack"], [FlowOutcome::Established; 3]),
        (
            ["S noack rst ack 0", "C rst", "C syn"],
            [FlowOutcome::Refused, FlowOutcome::Unanswered, FlowOutcome::Unanswered],
        ),
    ] {
        for last in ["", "+70s", "+2h"] {
            let mut scene = Scene::new();
            scene.play("C syn; S synack; C ack; C data 0..5");
            // As kernels choose them (RFC 6528), 10 s apart.
            for (other, isn) in others.into_iter().zip([156_000_000, 312_000_000, 468_000_000]) {
                scene.anew([isn, isn ^ 77]);
                scene.play("C syn").play(other);
            }
            let facts = scene.play(last).facts();
            let outcomes: Vec<_> = facts.iter().skip(1).map(|facts| facts.outcome).collect();
            assert_eq!(outcomes, due, "{others:?} {last}");
            let syns: u32 = facts.iter().map(|facts| facts.syns).sum();
            let sent = 4 + others.iter().filter(|other| other.contains("C syn")).count();
            assert_eq!(syns as usize, sent, "{others:?} {last}");
        }
    }
}

/// As a server does that has a connection there (RFC 5961 §4), and then goes on.
#[test]
fn a_flow_goes_on_after_a_syn_that_was_no_beginning() {
    for after in ["S ack 5", "C data 5..9", "S data 0..9", "S ack 5; C data 5..9"] {
        let mut scene = Scene::new();
        scene.play("C syn; S synack; C ack; C data 0..5");
        scene.anew([156_000_000, 5]);
        scene.play("C syn");
        scene.anew([1000, u32::MAX - 3]);
        let facts = scene.play(after).play("+2h").fact();
        assert_eq!((facts.syns, facts.outcome), (1, FlowOutcome::Established), "{after}");
    }
}

#[test]
fn a_syn_again_is_no_new_flow() {
    let facts = Scene::new().play("C syn; C syn; S synack; S synack; C syn; C ack; C syn").fact();
    assert_eq!((facts.syns, facts.outcome), (4, FlowOutcome::Established));
}

#[test]
fn flows_go_when_they_are_silent() {
    for (script, silence) in [
        ("C syn", "2m"),
        ("C syn; S synack; C ack; C data 0..5", "1h"),
        ("C data 0..5", "1h"),
        ("C syn; S rst ack 0", "10s"),
    ] {
        let mut scene = Scene::new();
        scene.play(script).play(&format!("+{silence}"));
        scene.play("+2s");
        let over = scene.ears.over.len();
        assert_eq!((over, scene.table.flows()), (1, 0), "{script}");
        assert!(!scene.ears.over[0].evicted);
    }
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack");
    for _ in 0..5 {
        scene.play("+50m; C ack");
    }
    assert_eq!(scene.table.flows(), 1, "not silent");
}
