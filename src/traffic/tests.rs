//! Windows compared with a model that keeps every event, and the evidence from flows.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::fallback::{DeliveryOutcome, Fallback, FallbackReason, ServerMatch};
use super::*;
use crate::addr::Side;
use crate::stream::{FlowFacts, FlowOutcome, FlowStart};

const OUR4: &str = "198.51.100.25";
const OUR6: &str = "2001:db8:2::25";
const MX4: &str = "192.0.2.10";
const MX6: &str = "2001:db8:1::10";
/// 2026-01-02 03:04:05 UTC, in seconds.
const T0: u64 = 1_767_323_045;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos((T0 + seconds) * 1_000_000_000)
}

fn ours() -> Networks {
    Networks::new(["198.51.100.0/24", "2001:db8:2::/48"].map(|net| net.parse().unwrap()))
}

fn flow(client: &str, server: &str, end: u64, outcome: FlowOutcome) -> FlowFacts {
    let socket = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    let start = FlowStart {
        number: 1,
        client: socket(client, 40_000),
        server: socket(server, 25),
        at: at(end),
        midstream: false,
    };
    let answered = matches!(outcome, Established | Reset);
    FlowFacts {
        start,
        end: at(end),
        outcome,
        handshake: answered.then_some(Duration::from_millis(20)),
        syns: if answered { 1 } else { 3 },
        bytes: if answered { [300, 200] } else { [0, 0] },
        data_segments: if answered { [5, 4] } else { [0, 0] },
        retransmits: [0, 0],
        gaps: 0,
        icmp_errors: 0,
        icmp_kinds: [0; 5],
        path_mtu: None,
        black_hole: false,
        closed_by: None,
        reset_by: None,
        rtt: None,
        evicted: false,
        incomplete: false,
    }
}

fn summary<'a>(flow: &'a FlowFacts, name: Option<&str>, accepted: u64) -> FlowSummary<'a> {
    let (client, server) = (flow.start.client.ip(), flow.start.server.ip());
    let is_smtp = flow.bytes != [0, 0];
    FlowSummary {
        flow,
        direction: MailDirection::of(client, server, &ours()),
        name: name.map(str::to_owned),
        is_smtp,
        greeting: is_smtp.then_some(220),
        messages: MessageCounts { accepted, ..MessageCounts::default() },
        replies: if is_smtp { [4, 1, 0, 0] } else { [0; 4] },
        tls: StarttlsState::Offered,
        tls_proof: false,
        outcome: match flow.outcome {
            Unanswered => DeliveryOutcome::Unanswered,
            Refused => DeliveryOutcome::Refused,
            _ if accepted > 0 => DeliveryOutcome::Accepted,
            _ => DeliveryOutcome::Other,
        },
    }
}

use FlowOutcome::{Established, Refused, Reset, Unanswered, Unknown, Unreachable};

#[test]
fn direction_is_out_only_from_ours_to_others() {
    let ours = ours();
    for (client, server, expected) in [
        (MX6, OUR6, MailDirection::Inbound),
        (OUR6, MX6, MailDirection::Outbound),
        (OUR4, OUR6, MailDirection::Inbound),
        (MX4, MX6, MailDirection::Inbound),
    ] {
        let direction = MailDirection::of(client.parse().unwrap(), server.parse().unwrap(), &ours);
        assert_eq!(direction, expected, "{client} to {server}");
    }
}

#[test]
fn percentiles_are_within_a_tenth() {
    for exact in [20u64, 45, 300, 1100, 9_999, 100_000, 3_000_000, 400_000_000] {
        let mut histogram = DurationHistogram::default();
        histogram.add(Duration::from_micros(exact));
        let found = histogram.percentile(50).unwrap().as_secs_f64() * 1e6;
        let off = (found / exact as f64 - 1.0).abs();
        assert!(off < 0.1, "{exact} µs: {found}");
    }
    let mut histogram = DurationHistogram::default();
    assert_eq!(histogram.percentile(50), None);
    for millis in 1..=100 {
        histogram.add(Duration::from_millis(millis));
    }
    for (percent, exact) in [(50, 50.0), (95, 95.0), (100, 100.0), (0, 1.0)] {
        let found = histogram.percentile(percent).unwrap().as_secs_f64() * 1e3;
        assert!((found / exact - 1.0).abs() < 0.1, "{percent} %: {found} ms");
    }
    histogram.add(Duration::ZERO);
    histogram.add(Duration::MAX);
    assert_eq!(histogram.count(), 102);
}

fn evidence_json(traffic: &Traffic) -> serde_json::Value {
    serde_json::to_value(traffic.evidence()).unwrap()
}

#[test]
fn the_receive_path_is_proven_from_outside_only() {
    let mut traffic =
        Traffic::new(ours()).excluding(Networks::new(["192.0.2.99/32".parse().unwrap()]));
    for (client, server, accepted) in [
        // Our own client, a private one, an excluded one, and transit.
        (OUR6, OUR6, 1),
        ("fd00::1", OUR6, 1),
        ("192.0.2.99", OUR4, 1),
        (MX4, "203.0.113.25", 1),
    ] {
        traffic.on_flow(&summary(&flow(client, server, 10, Established), None, accepted));
    }
    let Evidence { receive, .. } = traffic.evidence();
    assert_eq!(receive, PerFamily::default());

    // Rejected, then accepted.
    traffic.on_flow(&summary(&flow(MX6, OUR6, 20, Established), None, 0));
    traffic.on_flow(&summary(&flow(MX6, OUR6, 15, Established), None, 2));
    let Evidence { receive, .. } = traffic.evidence();
    assert_eq!(receive.ipv4, ReceivePathEvidence::default());
    assert_eq!(receive.ipv6.last_connection, Some(at(20)));
    assert_eq!(receive.ipv6.last_accepted, Some(at(15)));
    assert_eq!(
        receive.ipv6.accepted,
        AcceptedCounts { minute: 1, ten_minutes: 1, hour: 1, total: 1 }
    );

    for (later, expected) in [(100, [0, 1, 1]), (700, [0, 0, 1]), (4000, [0, 0, 0])] {
        traffic.advance(at(later));
        let accepted = traffic.evidence().receive.ipv6.accepted;
        assert_eq!([accepted.minute, accepted.ten_minutes, accepted.hour], expected, "{later}");
        assert_eq!(accepted.total, 1);
    }
}

/// The messages of a session under TLS are not known: it counts by itself.
#[test]
fn sessions_under_tls_arrive_too() {
    let mut traffic = Traffic::new(ours());
    let flow = flow(MX6, OUR6, 15, Established);
    // A handshake alone proves nothing: its session may have stalled.
    for (tls, tls_proof) in [
        (StarttlsState::Completed, true),
        (StarttlsState::Completed, false),
        (StarttlsState::Failed, false),
        (StarttlsState::Started, false),
    ] {
        traffic.on_flow(&FlowSummary { tls, tls_proof, ..summary(&flow, None, 0) });
    }
    let Evidence { receive, .. } = traffic.evidence();
    assert_eq!(receive.ipv6.accepted, AcceptedCounts::default());
    assert_eq!(
        receive.ipv6.under_tls,
        AcceptedCounts { minute: 1, ten_minutes: 1, hour: 1, total: 1 }
    );
    assert_eq!(receive.ipv6.last_under_tls, Some(at(15)));
}

#[test]
fn the_return_path_lists_responses_over_each_family() {
    let mut traffic = Traffic::new(ours());
    let mut attempt = |server, end, outcome, name| {
        let client = if server == MX6 { OUR6 } else { OUR4 };
        traffic.on_flow(&summary(&flow(client, server, end, outcome), name, 0));
    };
    let mx = Some("mx.example");
    attempt(MX6, 10, Established, mx);
    attempt(MX6, 20, Unanswered, mx);
    attempt(MX4, 30, Established, mx);
    attempt("203.0.113.1", 5, Refused, None);
    // Out of order.
    attempt(MX6, 15, Unreachable, mx);
    // A private address.
    attempt("10.0.0.1", 40, Established, Some("relay.internal"));
    let return_path = traffic.evidence().return_path;
    let mut lines = vec![serde_json::to_string(&return_path.ipv4).unwrap()];
    lines.push(serde_json::to_string(&return_path.ipv6).unwrap());
    lines
        .extend(return_path.destinations.iter().map(|known| serde_json::to_string(known).unwrap()));
    insta::assert_snapshot!(lines.join("\n"));

    let pairs = return_path.pairs();
    let pair = |ipv6, ipv4| PerFamily { ipv4, ipv6 };
    assert_eq!(pairs.len(), 2);
    assert!(pairs.contains(&(
        pair(Some(ConnectionResponse::NoResponse), Some(ConnectionResponse::Answered)),
        1
    )));
    assert!(pairs.contains(&(pair(None, Some(ConnectionResponse::Refused)), 1)));
}

#[test]
fn a_response_needs_data_from_the_server() {
    let respond = |change: &dyn Fn(&mut FlowFacts)| {
        let mut flow = flow(OUR6, MX6, 10, Established);
        change(&mut flow);
        let mut summary = summary(&flow, None, 0);
        if flow.black_hole {
            summary.outcome = DeliveryOutcome::BlackHole;
        }
        summary.response()
    };
    let mute = |flow: &mut FlowFacts| flow.bytes = [0, 0];
    let late = |flow: &mut FlowFacts| flow.end = at(16);
    assert_eq!(respond(&|_| {}), Some(ConnectionResponse::Answered));
    assert_eq!(respond(&|flow| flow.black_hole = true), Some(ConnectionResponse::BlackHole));
    assert_eq!(respond(&mute), None, "lost a race");
    assert_eq!(respond(&|flow| (mute(flow), late(flow)).0), Some(ConnectionResponse::NoResponse));
    let was_reset = |flow: &mut FlowFacts| {
        mute(flow);
        late(flow);
        (flow.outcome, flow.reset_by) = (Reset, Some(Side::Server));
    };
    assert_eq!(respond(&was_reset), None);
    let evicted = |flow: &mut FlowFacts| (flow.outcome, flow.evicted) = (Unanswered, true);
    assert_eq!(respond(&evicted), None);
    // Lost packets may have been the greeting, or the SYN-ACK.
    let incomplete = |flow: &mut FlowFacts| {
        mute(flow);
        late(flow);
        flow.incomplete = true;
    };
    assert_eq!(respond(&incomplete), None);
    assert_eq!(respond(&|flow| flow.outcome = Unknown), None);
    assert_eq!(respond(&|flow| flow.incomplete = true), Some(ConnectionResponse::Answered));
}

#[test]
fn destinations_are_bounded_and_the_least_recent_is_evicted() {
    let mut traffic = Traffic::new(ours());
    let last = MAX_DESTINATIONS as u64 + 9;
    for n in 0..=last {
        let name = format!("mx{n}.example");
        traffic.on_flow(&summary(&flow(OUR6, MX6, n, Established), Some(&name), 1));
        if n == last - 5 {
            // A known destination becomes the most recent.
            traffic.on_flow(&summary(&flow(OUR6, MX6, n, Established), Some("mx8.example"), 1));
        }
    }
    let ReturnPathEvidence { destinations, destinations_total, forgotten, .. } =
        traffic.evidence().return_path;
    assert_eq!((destinations_total, destinations.len()), (4096, MAX_DESTINATIONS));
    let known = |n: u64| {
        let server = DestinationKey::Name(format!("mx{n}.example"));
        destinations.iter().any(|destination| destination.server == server)
    };
    assert_eq!(forgotten, 10);
    assert!(!known(0) && !known(9) && known(8) && known(11) && known(last), "{forgotten}");
}

/// An input of [`Traffic`], with times in seconds.
#[derive(Clone, Debug)]
enum TrafficInput {
    FlowEnded { inbound: bool, six: bool, end: u64, outcome: FlowOutcome, accepted: u64 },
    FellBack { at: u64, why: FallbackReason, inbound: bool },
    Advance(u64),
}

fn any_input() -> impl Strategy<Value = TrafficInput> {
    let seconds = 0..9000u64;
    prop_oneof![
        6 => (any::<bool>(), any::<bool>(), seconds.clone(), 0..6usize, 0..3u64).prop_map(
            |(inbound, six, end, outcome, accepted)| {
                let outcome = FlowOutcome::ALL[outcome];
                TrafficInput::FlowEnded { inbound, six, end, outcome, accepted }
            },
        ),
        1 => (seconds.clone(), 0..FallbackReason::ALL.len(), any::<bool>())
            .prop_map(|(at, why, inbound)| TrafficInput::FellBack { at, why: FallbackReason::ALL[why], inbound }),
        2 => seconds.prop_map(TrafficInput::Advance),
    ]
}

fn apply(traffic: &mut Traffic, input: &TrafficInput) {
    match *input {
        TrafficInput::FlowEnded { inbound, six, end, outcome, accepted } => {
            let (mx, our) = if six { (MX6, OUR6) } else { (MX4, OUR4) };
            let (client, server) = if inbound { (mx, our) } else { (our, mx) };
            let flow = flow(client, server, end, outcome);
            traffic.on_flow(&summary(&flow, Some("mx.example"), accepted));
        }
        TrafficInput::FellBack { at: time, why, inbound } => {
            traffic.on_fallback(&Fallback {
                from: 1,
                to: 2,
                at: at(time),
                direction: if inbound { MailDirection::Inbound } else { MailDirection::Outbound },
                after: Duration::from_secs(3),
                why,
                code: None,
                by: ServerMatch::Names,
            });
        }
        TrafficInput::Advance(time) => traffic.advance(at(time)),
    }
}

/// The counts from all inputs. An event counts if its window covered it at the time of the input, and does at the end.
fn model(
    inputs: &[TrafficInput],
    window: TrafficWindow,
    family: Family,
    direction: MailDirection,
) -> FlowCounts {
    let slot = |seconds: u64| (T0 + seconds) / window.slot().as_secs();
    let slots = window.length().as_secs() / window.slot().as_secs();
    let covers = |now: u64, time: u64| slot(now) - slot(time) <= slots;
    let (mut now, mut counted) = (None, Vec::new());
    for input in inputs {
        let time = match *input {
            TrafficInput::FlowEnded { end, .. } => end,
            TrafficInput::FellBack { at, .. } => at,
            TrafficInput::Advance(time) => time,
        };
        now = now.max(Some(time));
        let time = match *input {
            TrafficInput::FlowEnded { outcome: Unanswered | Unknown, .. } => now.unwrap_or(time),
            _ => time,
        };
        if now.is_some_and(|now| covers(now, time)) {
            counted.push((time, input));
        }
    }
    let mut counts = FlowCounts::default();
    for (_, input) in counted.iter().filter(|(time, _)| now.is_some_and(|n| covers(n, *time))) {
        let way =
            |inbound: bool| if inbound { MailDirection::Inbound } else { MailDirection::Outbound };
        match **input {
            TrafficInput::FlowEnded { inbound, six, outcome, accepted, .. } => {
                let of = if six { Family::Ipv6 } else { Family::Ipv4 };
                if (of, way(inbound)) != (family, direction) {
                    continue;
                }
                counts.outcomes[outcome.index()] += 1;
                counts.messages.accepted += accepted;
                if matches!(outcome, Established | Reset) {
                    counts.handshakes.add(Duration::from_millis(20));
                    counts.data_segments += 9;
                    counts.sessions += 1;
                    counts.tls[StarttlsState::Offered.index()] += 1;
                    counts.replies[0] += 4;
                    counts.replies[1] += 1;
                } else {
                    counts.syn_retransmits += 2;
                }
            }
            TrafficInput::FellBack { why, inbound, .. } => {
                if (Family::Ipv6, way(inbound)) != (family, direction) {
                    continue;
                }
                counts.fallbacks[why.index()] += 1;
                if why != FallbackReason::Race {
                    counts.fallback_delays.add(Duration::from_secs(3));
                }
            }
            TrafficInput::Advance(_) => {}
        }
    }
    counts
}

proptest! {
    #[test]
    fn windows_agree_with_a_model_that_keeps_every_event(
        inputs in prop::collection::vec(any_input(), 0..80)
    ) {
        let mut traffic = Traffic::new(ours());
        for (n, input) in inputs.iter().enumerate() {
            apply(&mut traffic, input);
            if n % 20 != 0 && n + 1 != inputs.len() {
                continue;
            }
            let so_far = &inputs[..=n];
            for window in TrafficWindow::ALL {
                for family in Family::ALL {
                    for direction in MailDirection::ALL {
                        let expected = model(so_far, window, family, direction);
                        prop_assert_eq!(traffic.counts(window, family, direction), expected);
                    }
                }
            }
        }
    }

    /// While no input is too late for the longest window.
    #[test]
    fn evidence_does_not_depend_on_the_order(
        (inputs, shuffled) in prop::collection::vec(any_input(), 0..60)
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
    ) {
        let evidence = |inputs: &[TrafficInput]| {
            let mut traffic = Traffic::new(ours());
            inputs.iter().for_each(|input| apply(&mut traffic, input));
            evidence_json(&traffic)
        };
        let [first, again, other] = [evidence(&inputs), evidence(&inputs), evidence(&shuffled)];
        prop_assert_eq!(&first, &again);
        prop_assert_eq!(&first, &other);
    }
}

/// Many clients end with a RST after QUIT, or after their message was decided.
#[test]
fn only_a_reset_that_nothing_explains_breaks_a_connection_off() {
    let mut traffic = Traffic::new(ours());
    let flow = flow(MX6, OUR6, 10, Reset);
    for outcome in [DeliveryOutcome::Accepted, DeliveryOutcome::Other, DeliveryOutcome::Reset] {
        traffic.on_flow(&FlowSummary { outcome, ..summary(&flow, None, 0) });
    }
    let counts = traffic.counts(TrafficWindow::Hour, Family::Ipv6, MailDirection::Inbound);
    assert_eq!((counts.connections(), counts.broken_off), (3, 1));
}
