use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::addr::Family;
use crate::policy::facts::{self, Answer};
use crate::time::Timestamp;

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn settings() -> DoorSettings {
    let seconds = Duration::from_secs;
    DoorSettings {
        grace: seconds(30),
        min_hold: seconds(120),
        retry: seconds(300),
        retry_max: seconds(1_000),
        probe_max_age: seconds(300),
        stall_duration: seconds(60),
        proof_max_age: seconds(3_600),
        ..DoorSettings::default()
    }
}

fn door() -> Door {
    Door::new(Family::Ipv6, settings(), START)
}

fn mail(seconds: u64) -> Signals {
    Signals { accepted: Some(at(seconds)), ..Signals::default() }
}

/// `count` probes in a row, one each minute, the last at `seconds`.
fn probes(reached: bool, count: u32, seconds: u64) -> Signals {
    let probes = ProbeResults {
        last: at(seconds),
        reached,
        in_a_row: count,
        last_reached: reached.then(|| at(seconds)),
        last_large: None,
        detail: Some("connect: timed out".to_owned()),
    };
    Signals { probes: Some(probes), has_vantage: true, ..Signals::default() }
}

fn stalled(sessions: u32, since: u64, last: u64) -> Signals {
    let alternatives = Alternatives { other_accepted: Some(at(last)), ..Alternatives::default() };
    let (since, last) = (at(since), at(last));
    let stalled = Some(StalledSessions { sessions, networks: sessions, since, last });
    Signals { stalled, alternatives, ..Signals::default() }
}

fn down() -> Signals {
    Signals { upstream_down: true, ..Signals::default() }
}

/// Updates the door every second until `until`; returns `second: state (reason)` of each change.
fn run(door: &mut Door, until: u64, signals: impl Fn(u64) -> Signals) -> Vec<String> {
    let from = door.status(START).at.since(START).as_secs();
    let mut changes = Vec::new();
    for second in from..=until {
        if let Some(change) = door.update(&signals(second), at(second)) {
            assert_eq!(change.to, door.state());
            changes.push(format!("{second}: {} ({})", change.to, change.reason));
        }
    }
    changes
}

#[test]
fn a_message_opens_and_a_quiet_night_keeps_open() {
    let mut door = door();
    let changes = run(&mut door, 90_000, |s| if s < 10 { Signals::default() } else { mail(10) });
    assert_eq!(changes, ["10: open (proven)"]);
    let status = door.status(at(90_000));
    assert_eq!((status.state, status.reason), (DoorState::Open, DoorReason::Unproven));
    assert_eq!(status.detail, "no proof for 1 d");
}

#[test]
fn without_proof_it_stays_on_trial() {
    let mut door = door();
    assert!(run(&mut door, 90_000, |_| Signals::default()).is_empty());
    assert_eq!(door.status(at(90_000)).reason, DoorReason::Started);
}

#[test]
fn when_unproven_close_closes_and_retries_with_doubling_delay() {
    let settings = DoorSettings { when_unproven: WhenUnproven::Close, ..settings() };
    let mut door = Door::new(Family::Ipv6, settings, START);
    let changes = run(&mut door, 2_400, |_| Signals::default());
    assert_eq!(
        changes,
        [
            "120: closing (unproven)",
            "150: closed (unproven)",
            "450: opening (trial)",
            "570: closing (unproven)",
            "600: closed (unproven)",
            "1200: opening (trial)",
            "1320: closing (unproven)",
            "1350: closed (unproven)",
            "2350: opening (trial)",
        ]
    );
}

#[test]
fn failed_probes_close_and_successful_probes_open() {
    let mut door = door();
    let changes = run(&mut door, 1_000, |s| match s {
        0 => Signals::default(),
        1..60 => probes(true, 1, 1),
        60..400 => probes(false, u32::try_from(s / 60).unwrap(), s - s % 60),
        _ => probes(true, u32::try_from((s - 400) / 60 + 1).unwrap(), s - (s - 400) % 60),
    });
    assert_eq!(
        changes,
        [
            "1: open (proven)",
            "180: closing (probes_failed)",
            "210: closed (probes_failed)",
            "460: opening (trial)",
            "520: open (proven)",
        ]
    );
}

#[test]
fn accepted_mail_outweighs_failed_probes() {
    let mut door = door();
    let changes = run(&mut door, 1_000, |s| Signals {
        accepted: Some(at(s / 100 * 100)),
        ..probes(false, 9, s)
    });
    assert_eq!(changes, ["100: open (proven)"]);
}

#[test]
fn signals_that_recover_within_the_grace_keep_it_open() {
    let mut door = door();
    let changes = run(&mut door, 400, |s| Signals {
        accepted: (s >= 5).then(|| at(5)),
        upstream_down: (200..220).contains(&s),
        ..Signals::default()
    });
    assert_eq!(changes, ["5: open (proven)", "200: closing (upstream_down)", "220: open (proven)"]);
}

#[test]
fn a_recovered_upstream_opens_without_the_retry_delay() {
    let mut door = door();
    let changes = run(&mut door, 600, |s| if s < 200 { down() } else { Signals::default() });
    assert_eq!(
        changes,
        ["0: closing (upstream_down)", "120: closed (upstream_down)", "240: opening (trial)",]
    );
}

#[test]
fn stalled_sessions_close_it_and_old_stalls_do_not_end_a_trial() {
    let mut door = door();
    let changes =
        run(&mut door, 800, |s| if s < 200 { Signals::default() } else { stalled(3, 130, 195) });
    assert_eq!(
        changes,
        ["200: closing (stalled)", "230: closed (stalled)", "530: opening (trial)"]
    );
}

#[test]
fn stalls_count_only_if_many_long_and_of_this_family_alone() {
    let bad = |signals: Signals| signals.are_bad(&settings(), at(100));
    assert!(bad(stalled(3, 1, 61)));
    assert!(!bad(stalled(2, 1, 61)), "few");
    assert!(!bad(stalled(3, 1, 60)), "within a short time");
    let mut both = stalled(3, 1, 61);
    both.alternatives.other_accepted = Some(at(1));
    assert!(!bad(both), "the other family accepts nothing either");
    let mut few = stalled(30, 1, 61);
    few.stalled.as_mut().unwrap().networks = 2;
    assert!(!bad(few), "from two networks");
    let accepted = Signals { accepted: Some(at(62)), ..stalled(3, 1, 61) };
    assert!(bad(accepted), "a message was accepted, which may have been small");
    // A vantage whose large segments pass, lately.
    let mut probed = Signals { probes: probes(true, 1, 60).probes, ..stalled(3, 1, 61) };
    assert!(bad(probed.clone()), "its probe was small");
    probed.probes.as_mut().unwrap().last_large = Some(at(60));
    assert!(!bad(probed.clone()));
    assert!(probed.are_bad(&settings(), at(361)), "long ago");
    probed.probes.as_mut().unwrap().reached = false;
    assert!(bad(probed), "and the last one did not arrive");
}

#[test]
fn an_encrypted_session_is_a_proof_like_a_message() {
    let encrypted = |seconds| Signals { encrypted: Some(at(seconds)), ..Signals::default() };
    let mut door = door();
    let changes = run(&mut door, 20, |s| if s < 10 { Signals::default() } else { encrypted(10) });
    assert_eq!(changes, ["10: open (proven)"]);
    let proof = door.status(at(20)).proof.unwrap();
    assert_eq!((proof.at, proof.by), (at(10), ProofSource::Session));
    assert_eq!(door.status(at(20)).detail, "a session under TLS was completed 10 s ago");
    let several = Signals { encrypted_total: 34, ..encrypted(10) };
    door.update(&several, at(21));
    assert_eq!(door.status(at(21)).detail, "34 sessions under TLS, the last completed 11 s ago");
    // It outweighs a vantage whose own path fails.
    let mut door = self::door();
    let changes = run(&mut door, 1_000, |s| Signals {
        encrypted: Some(at(s / 100 * 100)),
        ..probes(false, 9, s)
    });
    assert_eq!(changes, ["100: open (proven)"]);
}

#[test]
fn the_proof_names_as_much_as_is_known() {
    let session = Signals { encrypted: Some(at(10)), encrypted_total: 34, ..Signals::default() };
    let envelope = Signals { envelope: Some(at(10)), ..session.clone() };
    let received = Signals { received: Some(at(10)), ..envelope.clone() };
    let accepted = Signals { accepted: Some(at(10)), ..received.clone() };
    let later = Signals { encrypted: Some(at(11)), ..received.clone() };
    for (signals, by, text) in [
        (session, ProofSource::Session, "34 sessions under TLS, the last completed 2 s ago"),
        (
            envelope,
            ProofSource::Envelope,
            "a session under TLS with accepted recipients was completed 2 s ago",
        ),
        (received, ProofSource::Received, "a message under TLS was received in full 2 s ago"),
        (accepted, ProofSource::Message, "a message was accepted 2 s ago"),
        (later, ProofSource::Session, "34 sessions under TLS, the last completed 1 s ago"),
    ] {
        assert_eq!(signals.proof().map(|proof| proof.by), Some(by));
        let mut door = door();
        door.update(&signals, at(12));
        assert_eq!(door.status(at(12)).detail, text);
    }
    // The session ended in a time-out, so that it is no proof by itself.
    let received = Signals { received: Some(at(10)), ..Signals::default() };
    assert_eq!(received.arrived(), Some(at(10)));
}

/// With `when_unproven = "close"`, which is the default with a vantage.
#[test]
fn a_vantage_without_results_closes_nothing() {
    let settings = DoorSettings { when_unproven: WhenUnproven::Close, ..settings() };
    // It proved the path, and ended.
    let mut door = Door::new(Family::Ipv6, settings.clone(), START);
    let changes =
        run(&mut door, 20_000, |s| if s < 5 { Signals::default() } else { probes(true, 1, 5) });
    assert_eq!(changes, ["5: open (proven)"]);
    assert_eq!(door.status(at(20_000)).reason, DoorReason::Unproven);
    // It never answered.
    let mut door = Door::new(Family::Ipv6, settings.clone(), START);
    let mute = Signals { has_vantage: true, ..Signals::default() };
    assert!(run(&mut door, 20_000, |_| mute.clone()).is_empty());
    // It found the path broken, and ended: a trial, and nothing that closes the door again.
    let mut door = Door::new(Family::Ipv6, settings, START);
    let changes = run(&mut door, 20_000, |_| probes(false, 3, 200));
    assert_eq!(
        changes,
        ["0: closing (probes_failed)", "120: closed (probes_failed)", "500: opening (trial)"]
    );
}

#[test]
fn it_is_held_open_without_an_alternative() {
    let cases = [
        (
            Alternatives { mx_in_other_family: Some(false), ..Alternatives::default() },
            DoorReason::NoOtherAddress,
        ),
        (
            Alternatives { other: OtherFamily::Down, ..Alternatives::default() },
            DoorReason::OtherFamilyDown,
        ),
        (
            Alternatives { other: OtherFamily::NotServed, ..Alternatives::default() },
            DoorReason::OtherNotServed,
        ),
    ];
    for (alternatives, reason) in cases {
        let mut door = door();
        assert!(run(&mut door, 600, |_| Signals { alternatives, ..down() }).is_empty());
        let status = door.status(at(600));
        assert_eq!((status.state, status.reason), (DoorState::Opening, reason));
        assert!(status.detail.starts_with("held open although no upstream"), "{}", status.detail);
    }
    // An unknown MX holds nothing.
    let mut door = door();
    run(&mut door, 600, |_| down());
    assert_eq!(door.state(), DoorState::Closed);
    // A closed door opens at once, whatever `min_hold` is.
    let alternatives = Alternatives { other: OtherFamily::Down, ..Alternatives::default() };
    let change = door.update(&Signals { alternatives, ..down() }, at(601)).unwrap();
    assert_eq!((change.to, change.reason), (DoorState::Opening, DoorReason::OtherFamilyDown));
}

#[test]
fn the_operator_overrides_everything() {
    let mut door = door();
    let alternatives = Alternatives { mx_in_other_family: Some(false), ..Alternatives::default() };
    door.set_mode(OperatorMode::Close);
    assert_eq!(
        run(&mut door, 500, |_| Signals { alternatives, ..mail(1) }),
        ["0: closed (operator)"]
    );
    door.set_mode(OperatorMode::Open);
    assert_eq!(run(&mut door, 900, |_| down()), ["500: open (operator)"]);
    door.set_mode(OperatorMode::Close);
    run(&mut door, 901, |_| down());
    door.set_mode(OperatorMode::Auto);
    // It continues from closed, for `min_hold`.
    assert_eq!(run(&mut door, 1_200, |_| mail(1)), ["1020: opening (trial)"]);
}

#[test]
fn the_receive_path_follows_the_signals() {
    let answer = |signals: &Signals, second| receive_path(signals, &settings(), at(second));
    assert_eq!(answer(&Signals::default(), 1), Answer::Unknown(facts::Reason::NoProof));
    assert_eq!(answer(&mail(1), 3_602), Answer::Unknown(facts::Reason::NoProof));
    assert_eq!(
        answer(&mail(1), 300),
        Answer::Yes(Some("a message was accepted 4 min 59 s ago".to_owned()))
    );
    for (signals, expected) in [
        (down(), facts::Reason::UpstreamDown),
        (probes(false, 3, 290), facts::Reason::NotReached),
        (stalled(5, 1, 290), facts::Reason::EstablishedButStalled),
    ] {
        assert!(matches!(answer(&signals, 300), Answer::No(reason, Some(_)) if reason == expected));
    }
}

#[test]
fn status_names_the_next_transition() {
    let mut door = door();
    assert!(door.status(START).next.starts_with("opens on the first accepted message; closes on "));
    run(&mut door, 130, |_| down());
    let status = door.status(at(130));
    assert_eq!(status.next, "opens on trial when an upstream accepts connections");
    assert_eq!(status.next_at, Some(at(240)));
    door.set_mode(OperatorMode::Open);
    assert_eq!(door.status(at(130)).next, "stays until `gatepost door ipv6 auto`");
}

#[derive(Clone, Copy, Debug)]
enum DoorStep {
    Quiet,
    Mail,
    Down,
    Probe(bool),
    Stall,
    Held(bool),
    Mode(OperatorMode),
}

fn steps(operator: bool) -> impl Strategy<Value = Vec<(DoorStep, u64)>> {
    let step = prop_oneof![
        3 => Just(DoorStep::Quiet),
        1 => Just(DoorStep::Mail),
        2 => Just(DoorStep::Down),
        2 => any::<bool>().prop_map(DoorStep::Probe),
        1 => Just(DoorStep::Stall),
        1 => any::<bool>().prop_map(DoorStep::Held),
        u32::from(operator) => prop::sample::select(OperatorMode::ALL.to_vec()).prop_map(DoorStep::Mode),
    ];
    prop::collection::vec((step, 1_u64..90), 1..120)
}

/// Runs the steps, and calls `observe` every second.
fn simulate(
    steps: &[(DoorStep, u64)],
    settings: &DoorSettings,
    mut observe: impl FnMut(&Door, &Signals, u64, Option<&DoorTransition>, OperatorMode),
) {
    let mut door = Door::new(Family::Ipv6, settings.clone(), START);
    let (mut signals, mut mode, mut second) = (Signals::default(), OperatorMode::Auto, 0);
    for &(step, lasts) in steps {
        signals.upstream_down = false;
        match step {
            DoorStep::Quiet => {}
            DoorStep::Mail => (signals.accepted, signals.stalled) = (Some(at(second)), None),
            DoorStep::Down => signals.upstream_down = true,
            DoorStep::Probe(reached) => {
                let before = signals.probes.take().filter(|before| before.reached == reached);
                let in_a_row = before.map_or(1, |before| before.in_a_row + 1);
                signals.probes = Some(ProbeResults {
                    last: at(second),
                    reached,
                    in_a_row,
                    last_reached: reached.then(|| at(second)),
                    last_large: None,
                    detail: None,
                });
                signals.has_vantage = true;
            }
            DoorStep::Stall => {
                let since = signals.stalled.map_or(at(second), |stalled| stalled.since);
                let sessions = signals.stalled.map_or(1, |stalled| stalled.sessions + 1);
                let networks = sessions;
                let last = at(second);
                signals.stalled = Some(StalledSessions { sessions, networks, since, last });
                signals.alternatives.other_accepted = Some(at(second));
            }
            DoorStep::Held(held) => signals.alternatives.mx_in_other_family = Some(!held),
            DoorStep::Mode(wanted) => {
                mode = wanted;
                door.set_mode(mode);
            }
        }
        for _ in 0..lasts {
            let change = door.update(&signals, at(second));
            observe(&door, &signals, second, change.as_ref(), mode);
            second += 1;
        }
    }
}

proptest! {
    #[test]
    fn never_two_turns_within_min_hold(steps in steps(false), close in any::<bool>()) {
        let when_unproven = if close { WhenUnproven::Close } else { WhenUnproven::Open };
        let settings = DoorSettings { when_unproven, ..settings() };
        let mut turned = 0;
        simulate(&steps, &settings, |_, _, second, change, _| {
            let Some(change) = change else { return };
            if change.from.admits() == change.to.admits() { return }
            let held = change.reason == DoorReason::NoOtherAddress;
            assert!(held || second - turned >= 120, "{second}: {change:?}, after {turned}");
            turned = second;
        });
    }

    #[test]
    fn never_closed_when_held(steps in steps(false), close in any::<bool>()) {
        let when_unproven = if close { WhenUnproven::Close } else { WhenUnproven::Open };
        simulate(&steps, &DoorSettings { when_unproven, ..settings() }, |door, signals, second, _, _| {
            let held = signals.alternatives.mx_in_other_family == Some(false);
            assert!(!held || door.admits(), "{second}");
        });
    }

    #[test]
    fn the_operator_always_prevails(steps in steps(true)) {
        simulate(&steps, &settings(), |door, _, second, _, mode| match mode {
            OperatorMode::Open => assert_eq!(door.state(), DoorState::Open, "{second}"),
            OperatorMode::Close => assert_eq!(door.state(), DoorState::Closed, "{second}"),
            OperatorMode::Auto => {}
        });
    }

    #[test]
    fn it_closes_only_on_bad_signals(steps in steps(false)) {
        let settings = settings();
        simulate(&steps, &settings, |_, signals, second, change, _| {
            if change.is_some_and(|change| change.to == DoorState::Closed) {
                assert!(signals.are_bad(&settings, at(second)), "{second}: {change:?}");
            }
        });
    }

    #[test]
    fn time_alone_never_closes(steps in steps(false), days in 1_u64..400) {
        let settings = settings();
        let mut end = None;
        simulate(&steps, &settings, |door, signals, second, _, _| {
            end = Some((door.clone(), signals.clone(), second));
        });
        let (mut door, signals, second) = end.unwrap();
        prop_assume!(door.state() != DoorState::Closed && !signals.are_bad(&settings, at(second)));
        for day in 1..=days {
            door.update(&signals, at(second + day * 86_400));
            prop_assert!(door.admits());
        }
    }

    #[test]
    fn a_closed_door_opens_again_by_itself(steps in steps(false)) {
        let mut end = None;
        simulate(&steps, &settings(), |door, _, second, _, _| end = Some((door.clone(), second)));
        let (mut door, second) = end.unwrap();
        // No more signals, and no response of the vantage.
        for later in 0..2_000 {
            door.update(&Signals::default(), at(second + later));
        }
        prop_assert!(door.admits());
    }

    #[test]
    fn status_always_has_a_reason_and_a_next_transition(steps in steps(true)) {
        simulate(&steps, &settings(), |door, _, second, change, _| {
            let status = door.status(at(second));
            assert!(!status.detail.is_empty() && !status.next.is_empty());
            assert_eq!(status.admits, status.state != DoorState::Closed);
            assert!(change.is_none_or(|change| change.reason == status.reason));
        });
    }
}

#[test]
fn filtered_mail_closes_the_door_only_where_that_is_asked_for() {
    let filtered = |until: u64| {
        move |s: u64| Signals {
            filtered: (s < until).then(|| "marked as spam over IPv6 only".to_owned()),
            ..mail(10)
        }
    };
    let mut warns = door();
    assert_eq!(run(&mut warns, 2_000, filtered(1_000)), ["0: open (proven)"]);
    let settings = DoorSettings { spam_parity: SpamParity::Close, ..settings() };
    let mut closes = Door::new(Family::Ipv6, settings.clone(), START);
    // It stays closed while the latest canaries are filtered, and opens on trial after `retry`.
    assert_eq!(
        run(&mut closes, 2_000, filtered(1_000)),
        ["0: closing (filtered)", "120: closed (filtered)", "1000: opening (trial)"]
    );
    // Mail that is filtered has been received.
    let answer = receive_path(&filtered(1_000)(20), &settings, at(20));
    assert!(matches!(answer, Answer::Yes(_)), "{answer:?}");
    let held = |s: u64| {
        let alternatives =
            Alternatives { mx_in_other_family: Some(false), ..Alternatives::default() };
        Signals { alternatives, ..filtered(1_000)(s) }
    };
    let mut last = Door::new(Family::Ipv6, settings, START);
    assert!(run(&mut last, 900, held).iter().all(|change| !change.contains("clos")));
}
