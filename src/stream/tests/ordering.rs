//! Order of delivery, gaps and overlaps.

use super::*;

#[test]
fn data_in_order_is_delivered_at_once() {
    assert_eq!(
        deliver("S data 0..50; C data 0..10; S data 50..60; C data 10..20"),
        "S 0..50; C 0..10; S 50..60; C 10..20"
    );
}

#[test]
fn data_out_of_order_is_held() {
    assert_eq!(deliver("C data 20..30; C data 10..20"), "");
    assert_eq!(
        deliver("C data 20..30; C data 10..20; C data 0..10"),
        "C 0..10; C 10..20; C 20..30"
    );
}

#[test]
fn the_first_copy_of_an_overlap_wins() {
    assert_eq!(deliver("C data 0..10; C data 5..15; C data 0..20"), "C 0..10; C 10..15; C 15..20");
    assert_eq!(
        deliver("C data 10..20; C data 15..25 junk; C data 5..30; C data 0..5"),
        "C 0..5; C 5..10; C 10..20; C 20..25 differs; C 25..30"
    );
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 10..20; C data 5..25 junk; C data 8..22");
    assert_eq!(simulation.table.counters().conflicts, 2, "differing copies are counted");
}

#[test]
fn retransmits_have_no_new_byte() {
    let mut simulation = Simulation::new();
    simulation
        .play("C syn; S synack; C ack; C data 0..10; C data 0..10; C data 2..9; C data 5..15");
    simulation.play("C data 20..30; C data 20..30; S data 0..7; S data 0..7");
    let facts = simulation.only_facts();
    assert_eq!(facts.retransmits, [3, 1]);
}

#[test]
fn keep_alives_and_window_probes_are_not_retransmits() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 0..10; S ack 10; C data 9..10; C ack at 9");
    simulation.play("S ack 10 window 0; C data 10..11; C data 10..11; C data 10..11");
    simulation.play("S ack 10 window 500; C data 10..20; S ack 20; C data 10..20");
    assert_eq!(simulation.delivered(), "C 0..10; C 10..11; C 11..20");
    assert_eq!(simulation.only_facts().retransmits, [1, 0]);
}

#[test]
fn data_follows_the_data_that_it_acknowledges() {
    assert_eq!(
        deliver("C data 0..10 ack 50; S data 0..50 ack 0; S data 50..60 ack 10"),
        "S 0..50; C 0..10; S 50..60"
    );
    // A retransmit of a lost reply acknowledges its own answer: no deadlock.
    assert_eq!(
        deliver("C data 10..20 ack 5; S data 0..5 ack 10; C data 0..10 ack 5"),
        "S 0..5; C 0..10; C 10..20"
    );
}

#[test]
fn an_acknowledged_gap_is_delivered_after_the_timeout() {
    let lost = "C data 0..10; C data 20..30; S ack 30";
    assert_eq!(deliver(lost), "C 0..10");
    assert_eq!(deliver(&format!("{lost}; +99ms")), "C 0..10");
    assert_eq!(deliver(&format!("{lost}; +101ms")), "C 0..10; C gap 10..20; C 20..30");
    assert_eq!(deliver(&format!("{lost}; C data 10..20")), "C 0..10; C 10..20; C 20..30");
    let packets = "S ack 30;".repeat(65);
    assert_eq!(deliver(&format!("{lost}; {packets}")), "C 0..10; C gap 10..20; C 20..30");
    assert_eq!(
        deliver("C data 0..10; C data 20..30; +50m"),
        "C 0..10",
        "not acknowledged: it may still arrive"
    );
}

#[test]
fn the_timeout_restarts_with_each_gap() {
    let mut script = String::new();
    for at in (0..3000).step_by(10) {
        // Each ACK precedes its data, for longer than the timeout of one gap.
        script += &format!("S ack {}; C data {at}..{};", at + 10, at + 10);
    }
    assert!(!deliver(&script).contains("gap"));
}

#[test]
fn held_data_keeps_its_time() {
    let mut simulation = Simulation::new();
    simulation
        .play("C syn; S synack; C ack; C data 0..10 ack 200; +20ms; C data 10..20 ack 250; +1s");
    simulation.play("+1s");
    assert_eq!(
        simulation.delivered_with_times(),
        "4ms S gap 0..200; 4ms C 0..10; 25ms S gap 200..250; 25ms C 10..20"
    );
    assert_eq!(simulation.table.counters().bytes_not_captured, 250);
}

#[test]
fn acks_reveal_the_missing_side_of_a_one_sided_capture() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; C ack; +1s; C data 0..10 ack 50; +1s; C data 10..20 ack 250; +1s");
    simulation.play("C data 20..30; C fin ack 300; +1s");
    assert_eq!(
        simulation.delivered(),
        "S gap 0..50; C 0..10; S gap 50..250; C 10..20; C 20..30; S gap 250..300; C end"
    );
    let facts = simulation.only_facts();
    assert_eq!((facts.outcome, facts.handshake), (FlowOutcome::Established, Some(ms(1))));
    assert_eq!((facts.bytes, facts.gaps), ([30, 300], 3));
}

#[test]
fn the_server_side_alone_suffices() {
    let mut simulation = Simulation::new();
    simulation
        .play("S synack; S data 0..50; +1s; S data 50..90 ack 20; +1s; S data 90..99 ack 30; +1s");
    assert_eq!(simulation.delivered(), "S 0..50; C gap 0..20; S 50..90; C gap 20..30; S 90..99");
    let facts = simulation.only_facts();
    assert_eq!((facts.outcome, facts.syns, facts.handshake), (FlowOutcome::Established, 0, None));
}

#[test]
fn a_snap_length_causes_gaps_of_known_length() {
    assert_eq!(
        deliver("C data 0..100 cut 60; C data 100..200 cut 0; C data 200..210"),
        "C 0..60; C gap 60..100; C gap 100..200; C 200..210"
    );
    assert_eq!(deliver("C data 10..100 cut 5; C data 0..10"), "C 0..10; C 10..15; C gap 15..100");
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 0..100 cut 60; S ack 100");
    let counts = *simulation.table.counters();
    assert_eq!((counts.bytes_truncated, counts.bytes_not_captured), (40, 0));
}

#[test]
fn omitted_bytes_are_delivered_in_order() {
    assert_eq!(
        deliver("C data 0..100 omit 60; C data 100..200 omit 100; C data 200..210"),
        "C omitted 0..60; C 60..100; C omitted 100..200; C 200..210"
    );
    // Out of order, and with a tail truncated by the snap length.
    assert_eq!(
        deliver("C data 10..100 omit 50 cut 20; C data 0..10"),
        "C 0..10; C omitted 10..60; C 60..80; C gap 80..100"
    );
    // Partly delivered already: within the omitted bytes, and beyond them.
    assert_eq!(
        deliver("C data 0..30; C data 10..100 omit 50"),
        "C 0..30; C omitted 30..60; C 60..100"
    );
    assert_eq!(deliver("C data 0..80; C data 10..100 omit 50"), "C 0..80; C 80..100");
    assert_eq!(
        deliver("C data 0..50 omit 40; C data 0..60"),
        "C omitted 0..40; C 40..50; C 50..60"
    );
    // Among held pieces the first copy wins, even if a later one shows more.
    assert_eq!(
        deliver("C data 40..60; C data 20..100 omit 50; C data 0..30"),
        "C 0..20; C omitted 20..40; C 40..60; C omitted 60..70; C 70..100"
    );
    assert_eq!(
        deliver("C data 20..60 omit 30; C data 10..70; C data 0..10"),
        "C 0..10; C 10..20; C omitted 20..50; C 50..60; C 60..70"
    );
    // Followed by a FIN, and acknowledged by the peer.
    assert_eq!(
        deliver("S data 0..9 ack 90; C data 0..90 omit 80 fin ack 0"),
        "C omitted 0..80; C 80..90; S 0..9; C end"
    );
}

#[test]
fn omitted_bytes_are_not_lost() {
    let mut simulation = Simulation::new();
    simulation
        .play("C syn; S synack; C ack; C data 0..100 omit 60 cut 20; C data 100..900 omit 800");
    simulation.play("C data 100..900 omit 700; C data 910..920 omit 5; C data 900..915 junk");
    let counts = *simulation.table.counters();
    assert_eq!(
        (counts.bytes_omitted, counts.bytes_truncated, counts.bytes_not_captured),
        (865, 20, 0)
    );
    assert_eq!(counts.conflicts, 0, "omitted bytes conflict with nothing");
    let facts = simulation.only_facts();
    assert_eq!((facts.gaps, facts.bytes, facts.retransmits), (1, [920, 0], [1, 0]));
}

#[test]
fn missing_bytes_become_gaps_when_the_flow_ends() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 10..20; C data 30..40; S ack 10");
    let facts = simulation.only_facts();
    assert_eq!(simulation.delivered(), "C gap 0..10; C 10..20; C gap 20..30; C 30..40");
    assert_eq!((facts.gaps, facts.bytes), (2, [40, 0]));
    let counts = simulation.table.counters();
    assert_eq!((counts.bytes_not_captured, counts.bytes_unfinished), (10, 10));
}

#[test]
fn sequence_numbers_wrap() {
    let mut simulation = Simulation::new();
    simulation.isn = [u32::MAX - 5, u32::MAX];
    simulation
        .play("C syn; S synack; C ack; C data 8..20; S data 0..9 ack 0; C data 0..8; S ack 20");
    assert_eq!(simulation.delivered(), "S 0..9; C 0..8; C 8..20");
}

#[test]
fn nothing_follows_a_fin() {
    assert_eq!(deliver("C data 0..10 fin; C data 10..20; C data 5..30"), "C 0..10; C end");
    // A FIN before bytes already seen is ignored.
    assert_eq!(deliver("C data 10..20; C fin at 5; C data 0..10"), "C 0..10; C 10..20");
    // A FIN out of order is held.
    assert_eq!(deliver("C fin at 10; C data 0..10"), "C 0..10; C end");
}

#[test]
fn segments_outside_the_window_are_only_counted() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack; C data 2000000000..2000000010; S ack 2000000000");
    simulation.play("C data 0..10 ack 0; +1s");
    assert_eq!(simulation.delivered(), "C 0..10");
    assert_eq!(simulation.table.counters().out_of_window, 2);
}

#[test]
fn data_before_a_late_syn_ack_is_not_lost() {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S data 10..20; S data 0..10; S synack; C ack");
    assert_eq!(simulation.delivered(), "S 0..10; S 10..20");
    let mut simulation = Simulation::new();
    simulation.play("S synack; C syn; C ack; C data 0..5");
    assert_eq!(simulation.delivered(), "C 0..5");
    let facts = simulation.only_facts();
    assert_eq!((facts.syns, facts.handshake), (1, Some(ms(1))));
}
