use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::facts::{self, Answer};

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn settings() -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        confirm: seconds(30),
        dwell: seconds(120),
        retry: seconds(300),
        retry_longest: seconds(1_000),
        stalled_for: seconds(60),
        fresh: seconds(3_600),
        ..Settings::default()
    }
}

fn door() -> Door {
    Door::new(Family::Ipv6, settings(), START)
}

fn mail(seconds: u64) -> Signs {
    Signs { accepted: Some(at(seconds)), ..Signs::default() }
}

/// `count` probes in a row, one each minute, the last at `seconds`.
fn probes(reached: bool, count: u32, seconds: u64) -> Signs {
    let probes = Probes {
        last: at(seconds),
        reached,
        in_a_row: count,
        last_reached: reached.then(|| at(seconds)),
        detail: Some("connect: timed out".to_owned()),
    };
    Signs { probes: Some(probes), has_vantage: true, ..Signs::default() }
}

fn stalled(sessions: u32, since: u64, last: u64) -> Signs {
    let mut signs = Signs::default();
    signs.stalled = Some(Stalled { sessions, since: at(since), last: at(last) });
    signs.around.other_accepted = Some(at(last));
    signs
}

fn down() -> Signs {
    Signs { upstream_down: true, ..Signs::default() }
}

/// Looks each second until that time, with signs of each; returns `second: state (reason)` of each change.
fn play(door: &mut Door, until: u64, signs: impl Fn(u64) -> Signs) -> Vec<String> {
    let from = door.status(START).at.since(START).as_secs();
    let mut changes = Vec::new();
    for second in from..=until {
        if let Some(change) = door.look(&signs(second), at(second)) {
            assert_eq!(change.to, door.state());
            changes.push(format!("{second}: {} ({})", change.to, change.reason));
        }
    }
    changes
}

#[test]
fn the_first_message_opens_it_and_a_quiet_night_leaves_it_open() {
    let mut door = door();
    let changes = play(&mut door, 90_000, |s| if s < 10 { Signs::default() } else { mail(10) });
    assert_eq!(changes, ["10: open (proven)"]);
    let status = door.status(at(90_000));
    assert_eq!((status.state, status.reason), (State::Open, Reason::Unproven));
    assert_eq!(status.detail, "not proven for 24 h");
}

#[test]
fn nothing_proven_at_all_stays_on_trial() {
    let mut door = door();
    assert!(play(&mut door, 90_000, |_| Signs::default()).is_empty());
    assert_eq!(door.status(at(90_000)).reason, Reason::Started);
}

#[test]
fn unproven_closes_where_that_is_wanted_and_tries_again_later_and_later() {
    let settings = Settings { when_unproven: WhenUnproven::Close, ..settings() };
    let mut door = Door::new(Family::Ipv6, settings, START);
    let changes = play(&mut door, 2_400, |_| Signs::default());
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
fn probes_that_fail_close_it_and_probes_that_come_through_open_it() {
    let mut door = door();
    let changes = play(&mut door, 1_000, |s| match s {
        0 => Signs::default(),
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
fn mail_that_comes_through_outweighs_probes_that_do_not() {
    let mut door = door();
    let changes = play(&mut door, 1_000, |s| Signs {
        accepted: Some(at(s / 100 * 100)),
        ..probes(false, 9, s)
    });
    assert_eq!(changes, ["100: open (proven)"]);
}

#[test]
fn signs_that_turn_good_in_time_leave_it_open() {
    let mut door = door();
    let changes = play(&mut door, 400, |s| Signs {
        accepted: (s >= 5).then(|| at(5)),
        upstream_down: (200..220).contains(&s),
        ..Signs::default()
    });
    assert_eq!(changes, ["5: open (proven)", "200: closing (upstream_down)", "220: open (proven)"]);
}

#[test]
fn an_upstream_that_is_back_opens_it_without_waiting_for_a_trial() {
    let mut door = door();
    let changes = play(&mut door, 600, |s| if s < 200 { down() } else { Signs::default() });
    assert_eq!(
        changes,
        ["0: closing (upstream_down)", "120: closed (upstream_down)", "240: opening (trial)",]
    );
}

#[test]
fn sessions_that_stall_close_it_and_a_trial_is_not_ended_by_them() {
    let mut door = door();
    let changes =
        play(&mut door, 800, |s| if s < 200 { Signs::default() } else { stalled(3, 130, 195) });
    assert_eq!(
        changes,
        ["200: closing (stalled)", "230: closed (stalled)", "530: opening (trial)"]
    );
}

#[test]
fn stalls_tell_nothing_unless_they_are_many_long_and_of_this_family_alone() {
    let bad = |signs: Signs| signs.is_bad(&settings(), at(100));
    assert!(bad(stalled(3, 1, 61)));
    assert!(!bad(stalled(2, 1, 61)), "few");
    assert!(!bad(stalled(3, 1, 60)), "in a short time");
    let mut both = stalled(3, 1, 61);
    both.around.other_accepted = Some(at(1));
    assert!(!bad(both), "the other family delivers nothing either");
    let through = Signs { accepted: Some(at(2)), ..stalled(3, 1, 61) };
    assert!(!bad(through), "a message came through");
}

#[test]
fn it_is_held_open_where_there_is_no_other_way_in() {
    let arounds = [
        (Around { mx_elsewhere: Some(false), ..Around::default() }, Reason::NoOtherAddress),
        (Around { other: Other::Down, ..Around::default() }, Reason::OtherFamilyDown),
        (Around { other: Other::NotServed, ..Around::default() }, Reason::OtherNotServed),
    ];
    for (around, reason) in arounds {
        let mut door = door();
        assert!(play(&mut door, 600, |_| Signs { around, ..down() }).is_empty());
        let status = door.status(at(600));
        assert_eq!((status.state, status.reason), (State::Opening, reason));
        assert!(status.detail.starts_with("held open though no upstream"), "{}", status.detail);
    }
    // Whether the MX has one is not known: that holds nothing.
    let mut door = door();
    play(&mut door, 600, |_| down());
    assert_eq!(door.state(), State::Closed);
    // Held while it is closed: at once, whatever dwell says.
    let around = Around { other: Other::Down, ..Around::default() };
    let change = door.look(&Signs { around, ..down() }, at(601)).unwrap();
    assert_eq!((change.to, change.reason), (State::Opening, Reason::OtherFamilyDown));
}

#[test]
fn the_operator_is_above_all_of_it() {
    let mut door = door();
    let around = Around { mx_elsewhere: Some(false), ..Around::default() };
    door.set_mode(Mode::Close);
    assert_eq!(play(&mut door, 500, |_| Signs { around, ..mail(1) }), ["0: closed (operator)"]);
    door.set_mode(Mode::Open);
    assert_eq!(play(&mut door, 900, |_| down()), ["500: open (operator)"]);
    door.set_mode(Mode::Close);
    play(&mut door, 901, |_| down());
    door.set_mode(Mode::Auto);
    // It goes on from closed, and dwells.
    assert_eq!(play(&mut door, 1_200, |_| mail(1)), ["1020: opening (trial)"]);
}

#[test]
fn the_receive_path_is_what_the_signs_say() {
    let told = |signs: &Signs, second| receive_path(signs, &settings(), at(second));
    assert_eq!(told(&Signs::default(), 1), Answer::Unknown(facts::Reason::NoProof));
    assert_eq!(told(&mail(1), 3_602), Answer::Unknown(facts::Reason::NoProof));
    assert_eq!(told(&mail(1), 300), Answer::Yes(Some("a message was taken 4 min ago".to_owned())));
    for (signs, expected) in [
        (down(), facts::Reason::UpstreamDown),
        (probes(false, 3, 290), facts::Reason::NotReached),
        (stalled(5, 1, 290), facts::Reason::Stalled),
    ] {
        assert!(matches!(told(&signs, 300), Answer::No(reason, Some(_)) if reason == expected));
    }
}

#[test]
fn what_would_change_it_is_said() {
    let mut door = door();
    assert!(door.status(START).next.starts_with("opens with the first message"));
    play(&mut door, 130, |_| down());
    let status = door.status(at(130));
    assert_eq!(status.next, "opens on trial when an upstream takes connections");
    assert_eq!(status.next_at, Some(at(240)));
    door.set_mode(Mode::Open);
    assert_eq!(door.status(at(130)).next, "`gatepost door ipv6 auto`, and the signs then");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Quiet,
    Mail,
    Down,
    Probe(bool),
    Stall,
    Held(bool),
    Mode(Mode),
}

fn steps(operator: bool) -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = prop_oneof![
        3 => Just(Step::Quiet),
        1 => Just(Step::Mail),
        2 => Just(Step::Down),
        2 => any::<bool>().prop_map(Step::Probe),
        1 => Just(Step::Stall),
        1 => any::<bool>().prop_map(Step::Held),
        u32::from(operator) => prop::sample::select(Mode::ALL).prop_map(Step::Mode),
    ];
    prop::collection::vec((step, 1_u64..90), 1..120)
}

/// The signs as they build up, and what the door did, second by second.
fn walk(
    steps: &[(Step, u64)],
    settings: &Settings,
    mut seen: impl FnMut(&Door, &Signs, u64, Option<&Change>, Mode),
) {
    let mut door = Door::new(Family::Ipv6, settings.clone(), START);
    let (mut signs, mut mode, mut second) = (Signs::default(), Mode::Auto, 0);
    for &(step, lasts) in steps {
        signs.upstream_down = false;
        match step {
            Step::Quiet => {}
            Step::Mail => (signs.accepted, signs.stalled) = (Some(at(second)), None),
            Step::Down => signs.upstream_down = true,
            Step::Probe(reached) => {
                let before = signs.probes.take().filter(|before| before.reached == reached);
                let in_a_row = before.map_or(1, |before| before.in_a_row + 1);
                signs.probes = Some(Probes {
                    last: at(second),
                    reached,
                    in_a_row,
                    last_reached: reached.then(|| at(second)),
                    detail: None,
                });
                signs.has_vantage = true;
            }
            Step::Stall => {
                let since = signs.stalled.map_or(at(second), |stalled| stalled.since);
                let sessions = signs.stalled.map_or(1, |stalled| stalled.sessions + 1);
                signs.stalled = Some(Stalled { sessions, since, last: at(second) });
                signs.around.other_accepted = Some(at(second));
            }
            Step::Held(held) => signs.around.mx_elsewhere = Some(!held),
            Step::Mode(wanted) => {
                mode = wanted;
                door.set_mode(mode);
            }
        }
        for _ in 0..lasts {
            let change = door.look(&signs, at(second));
            seen(&door, &signs, second, change.as_ref(), mode);
            second += 1;
        }
    }
}

proptest! {
    #[test]
    fn never_two_turns_within_the_dwell(steps in steps(false), close in any::<bool>()) {
        let when_unproven = if close { WhenUnproven::Close } else { WhenUnproven::Open };
        let settings = Settings { when_unproven, ..settings() };
        let mut turned = 0;
        walk(&steps, &settings, |_, _, second, change, _| {
            let Some(change) = change else { return };
            if change.from.admits() == change.to.admits() { return }
            let held = change.reason == Reason::NoOtherAddress;
            assert!(held || second - turned >= 120, "{second}: {change:?}, after {turned}");
            turned = second;
        });
    }

    #[test]
    fn never_closed_when_held(steps in steps(false), close in any::<bool>()) {
        let when_unproven = if close { WhenUnproven::Close } else { WhenUnproven::Open };
        walk(&steps, &Settings { when_unproven, ..settings() }, |door, signs, second, _, _| {
            let held = signs.around.mx_elsewhere == Some(false);
            assert!(!held || door.admits(), "{second}");
        });
    }

    #[test]
    fn the_operator_always_wins(steps in steps(true)) {
        walk(&steps, &settings(), |door, _, second, _, mode| match mode {
            Mode::Open => assert_eq!(door.state(), State::Open, "{second}"),
            Mode::Close => assert_eq!(door.state(), State::Closed, "{second}"),
            Mode::Auto => {}
        });
    }

    #[test]
    fn it_closes_only_on_bad_signs(steps in steps(false)) {
        let settings = settings();
        walk(&steps, &settings, |_, signs, second, change, _| {
            if change.is_some_and(|change| change.to == State::Closed) {
                assert!(signs.is_bad(&settings, at(second)), "{second}: {change:?}");
            }
        });
    }

    #[test]
    fn time_alone_never_closes(steps in steps(false), days in 1_u64..400) {
        let settings = settings();
        let mut end = None;
        walk(&steps, &settings, |door, signs, second, _, _| {
            end = Some((door.clone(), signs.clone(), second));
        });
        let (mut door, signs, second) = end.unwrap();
        prop_assume!(door.state() != State::Closed && !signs.is_bad(&settings, at(second)));
        for day in 1..=days {
            door.look(&signs, at(second + day * 86_400));
            prop_assert!(door.admits());
        }
    }

    #[test]
    fn a_closed_door_opens_again_by_itself(steps in steps(false)) {
        let mut end = None;
        walk(&steps, &settings(), |door, _, second, _, _| end = Some((door.clone(), second)));
        let (mut door, second) = end.unwrap();
        // Nothing is heard any more, and the vantage is silent.
        for later in 0..2_000 {
            door.look(&Signs::default(), at(second + later));
        }
        prop_assert!(door.admits());
    }

    /// Every door says why it is as it is, and what would change it.
    #[test]
    fn there_is_always_a_reason(steps in steps(true)) {
        walk(&steps, &settings(), |door, _, second, change, _| {
            let status = door.status(at(second));
            assert!(!status.detail.is_empty() && !status.next.is_empty());
            assert_eq!(status.admits, status.state != State::Closed);
            assert!(change.is_none_or(|change| change.reason == status.reason));
        });
    }
}
