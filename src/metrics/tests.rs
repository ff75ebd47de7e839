//! Every series is there from the start, and every one can be reached.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::addr::{Networks, Side};
use crate::engine::{
    Anomaly, AttemptOutcome, Desync, Direction, Event, Observe as _, Outcome, Phase, Refusal,
    ReplySource, Starttls,
};
use crate::policy::PolicyAction;
use crate::policy::door::{self, Door, DoorTransition, Signals};
use crate::policy::facts::{
    AnswerKind, FactState, FamilyRequirement, LookupKind, LookupObserver as _, Resolution,
    ReturnPathLevel, Source,
};
use crate::policy::rules::{
    FactName, PolicyRule, PolicyRules, PolicyStage, Requirement, RuleMode, When,
};
use crate::smtp::Verb;
use crate::stream::{FlowFacts, FlowOutcome, FlowStart, StreamCounters};
use crate::time::Timestamp;
use crate::traffic::fallback::{DeliveryOutcome, Fallback, FallbackReason, ServerMatch};
use crate::traffic::{
    self, FlowObserver as _, FlowSummary, MailDirection, MessageCounts, ServerResponse,
};

/// As many rules as a configuration may have, each with two things that it may do.
fn rules() -> PolicyRules {
    PolicyRules::new((0..64).map(|n| rule(&format!("rule {n}"), n)).collect(), Networks::default())
}

fn rules_named(name: &str) -> PolicyRules {
    PolicyRules::new(vec![rule(name, 0)], Networks::default())
}

/// In shadow if its number is odd.
fn rule(name: &str, number: u32) -> PolicyRule {
    PolicyRule {
        name: name.into(),
        at: PolicyStage::Connect,
        when: When::default(),
        exempt: Vec::new(),
        require: vec![Requirement {
            fact: FactName::Fcrdns,
            level: ReturnPathLevel::Dns,
            over: FamilyRequirement::Any,
        }],
        otherwise: PolicyAction::Reject,
        on_unknown: PolicyAction::Tempfail,
        mode: if number.is_multiple_of(2) { RuleMode::Enforce } else { RuleMode::Shadow },
        url: None,
    }
}

/// Every event of every closed set, every code there is in a reply, and bytes.
fn feed_everything(metrics: &Metrics) {
    let seconds = Duration::from_millis(250);
    for family in Family::ALL {
        let tell = |event| metrics.event(family, event);
        tell(Event::SessionOpened);
        for &outcome in Outcome::ALL {
            tell(Event::SessionClosed(outcome));
        }
        for verb in Verb::ALL {
            tell(Event::Command(verb));
        }
        for &source in ReplySource::ALL {
            for code in (0..1000).chain([u16::MAX]) {
                tell(Event::Reply { code, source });
                tell(Event::Message { code, bytes: 1 });
            }
        }
        for &anomaly in Anomaly::ALL {
            tell(Event::Anomaly(anomaly));
        }
        for &reason in Refusal::ALL {
            tell(Event::Refusal(reason));
        }
        for &cause in Desync::ALL {
            tell(Event::Desync(cause));
        }
        for &outcome in Starttls::ALL {
            tell(Event::Starttls(outcome));
        }
        for &outcome in AttemptOutcome::ALL {
            for family in Family::ALL {
                tell(Event::Attempt { family, outcome });
            }
        }
        for &phase in Phase::ALL {
            tell(Event::Phase { phase, duration: seconds });
        }
        for &direction in Direction::ALL {
            tell(Event::Bytes { direction, count: u64::from(u32::MAX) });
        }
        for rule in rules().iter() {
            for action in [rule.otherwise, rule.on_unknown] {
                metrics.policy(family, &rule.name, action, rule.mode);
            }
        }
        for name in FactName::ALL {
            for state in [FactState::True, FactState::False, FactState::Unknown] {
                for source in [
                    Source::Capture,
                    Source::Zone,
                    Source::Dns,
                    Source::Traffic,
                    Source::Probe,
                    Source::Upstream,
                    Source::None,
                ] {
                    tell(Event::Fact { name, state, source });
                }
            }
        }
        tell(Event::Waited(seconds));
        feed_door(metrics, family);
    }
    feed_traffic(metrics);
    feed_lookups(metrics);
    metrics.on_config_applied();
    metrics.on_config_rejected();
    metrics.add_dropped_log_lines(3);
    metrics.add_record_omitted_bytes(5);
    metrics.set_sessions_limit(10_000);
    for family in Family::ALL {
        metrics.set_upstreams(family, 2, 1);
    }
    metrics.set_ready(true);
}

/// Every kind of lookup, answered in every way.
fn feed_lookups(metrics: &Metrics) {
    for kind in LookupKind::ALL {
        for how in Resolution::ALL {
            for told in AnswerKind::ALL {
                metrics.on_answer(kind, how, told, Duration::from_millis(250));
            }
        }
        metrics.on_refresh(kind);
        metrics.on_shared_hit(kind);
    }
    metrics.on_store_state(true);
    metrics.on_cache_size(3, 4);
    metrics.on_in_flight(5);
}

/// Through every state, and closed in the end.
fn feed_door(metrics: &Metrics, family: Family) {
    let at = Timestamp::from_nanos(1_700_000_000_000_000_000);
    let mut door = Door::new(family, door::DoorSettings::default(), at);
    for (&from, &to) in door::DoorState::ALL.iter().zip(door::DoorState::ALL.iter().cycle().skip(1))
    {
        let detail = String::new();
        metrics.on_door_change(
            family,
            &DoorTransition { from, to, at, reason: door::DoorReason::Trial, detail },
        );
    }
    door.set_mode(door::OperatorMode::Close);
    door.update(&Signals { accepted: Some(at), ..Signals::default() }, at);
    metrics.set_door(&door.status(at + Duration::from_secs(90)));
    metrics.add_syn_refusals(family, 7);
}

#[test]
fn a_door_is_in_one_state() {
    let metrics = Metrics::new().unwrap();
    let before = series(&metrics);
    feed_door(&metrics, Family::Ipv6);
    insta::assert_snapshot!(changed(&metrics, &before));
}

/// Our own server's, and another's.
const ENDS: [[&str; 2]; 2] =
    [["198.51.100.25", "192.0.2.10"], ["2001:db8:2::25", "2001:db8:1::10"]];

/// A flow with something of everything.
fn flow(
    family: Family,
    direction: MailDirection,
    outcome: FlowOutcome,
    reset_by: Side,
) -> FlowFacts {
    let [our, other] = ENDS[family as usize].map(|ip| (ip.parse::<IpAddr>().unwrap(), 25).into());
    let (client, server) = match direction {
        MailDirection::Inbound => (other, our),
        MailDirection::Outbound => (our, other),
    };
    FlowFacts {
        start: FlowStart { number: 1, client, server, at: Timestamp::default(), midstream: false },
        end: Timestamp::from_nanos(1_767_323_045_600_000_000),
        outcome,
        handshake: Some(Duration::from_millis(3100)),
        syns: 3,
        bytes: [200, 100],
        data_segments: [20, 10],
        retransmits: [2, 1],
        gaps: 1,
        icmp_errors: 5,
        icmp_kinds: [1; 5],
        path_mtu: None,
        black_hole: true,
        closed_by: None,
        reset_by: Some(reset_by),
        rtt: Some(Duration::from_millis(20)),
        evicted: false,
    }
}

fn passed(flow: &FlowFacts, direction: MailDirection, ended: DeliveryOutcome) -> FlowSummary<'_> {
    FlowSummary {
        flow,
        direction,
        name: None,
        spoke: true,
        greeting: Some(220),
        messages: MessageCounts { accepted: 1, ..MessageCounts::default() },
        replies: [1; 4],
        tls: traffic::StarttlsState::Started,
        ended,
    }
}

fn fall_back(direction: MailDirection, why: FallbackReason) -> Fallback {
    Fallback {
        from: 1,
        to: 2,
        at: Timestamp::default(),
        direction,
        after: Duration::from_secs(30),
        why,
        code: None,
        by: ServerMatch::Names,
    }
}

/// Every outcome in both directions, every way in which another server may respond, every loss.
fn feed_traffic(metrics: &Metrics) {
    let ours = ENDS.map(|[our, _]| our.parse::<IpAddr>().unwrap().into());
    for direction in MailDirection::ALL {
        for family in Family::ALL {
            for outcome in FlowOutcome::ALL {
                for side in Side::ALL {
                    let flow = flow(family, direction, outcome, side);
                    metrics.on_flow(&passed(&flow, direction, DeliveryOutcome::Other));
                }
            }
        }
        for why in FallbackReason::ALL {
            metrics.on_fallback(&fall_back(direction, why));
        }
    }
    let mut seen = traffic::Traffic::new(Networks::new(ours));
    let responses = [
        (FlowOutcome::Established, DeliveryOutcome::Other),
        (FlowOutcome::Established, DeliveryOutcome::BlackHole),
        (FlowOutcome::Refused, DeliveryOutcome::Refused),
        (FlowOutcome::Unanswered, DeliveryOutcome::Unanswered),
        (FlowOutcome::Unreachable, DeliveryOutcome::Unreachable),
    ];
    assert_eq!(responses.len(), ServerResponse::ALL.len());
    for family in Family::ALL {
        let taken = flow(family, MailDirection::Inbound, FlowOutcome::Established, Side::Client);
        seen.on_flow(&passed(&taken, MailDirection::Inbound, DeliveryOutcome::Accepted));
        for (n, (outcome, ended)) in responses.into_iter().enumerate() {
            let tried = flow(family, MailDirection::Outbound, outcome, Side::Client);
            let name = Some(format!("mx{n}.example"));
            seen.on_flow(&FlowSummary { name, ..passed(&tried, MailDirection::Outbound, ended) });
        }
    }
    metrics.set_evidence(&seen.evidence());
    metrics.set_capturing(true);
    metrics.add_capture_drops(2, 3);
    let now = StreamCounters {
        evicted: 7,
        bytes_not_captured: 1,
        bytes_cut: 2,
        bytes_given_up: 3,
        bytes_unfinished: 4,
        ..StreamCounters::default()
    };
    metrics.on_stream_counts(&StreamCounters::default(), &now);
}

/// Series (name and labels) to value.
fn series(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.encode(ExpositionFormat::Text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Our series that are not what they were, a line each.
fn changed(metrics: &Metrics, before: &BTreeMap<String, f64>) -> String {
    let changed: Vec<String> = series(metrics)
        .into_iter()
        .filter(|(name, value)| name.starts_with("gatepost_") && before[name] != *value)
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    changed.join("\n")
}

#[test]
fn every_series_is_there_from_the_start_at_zero_and_no_event_adds_one() {
    let metrics = Metrics::new().unwrap();
    metrics.set_rules(&rules()).unwrap();
    let before = series(&metrics);
    let ours = |name: &str| name.starts_with("gatepost_") && !name.contains("build_info");
    for (name, value) in before.iter().filter(|(name, _)| ours(name)) {
        assert_eq!(*value, 0.0, "{name}");
    }

    feed_everything(&metrics);
    let after = series(&metrics);
    let names = |series: &BTreeMap<String, f64>| series.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    assert!(after.len() < 2000, "{} series", after.len());

    // Each one can be reached; buckets below the one duration that was fed stay empty.
    for (name, value) in after.iter().filter(|(name, _)| ours(name)) {
        let bucket = name.contains("_bucket");
        // A door is in one state.
        let other_state = name.contains("_door_state") && !name.contains("closed");
        assert!(bucket || other_state || *value != 0.0, "nothing counts in {name}");
    }
}

#[test]
fn verdicts_count_by_rules_that_are_in_force() {
    let metrics = Metrics::new().unwrap();
    metrics.set_rules(&rules()).unwrap();
    let before = series(&metrics);
    let fired = |name| metrics.policy(Family::Ipv6, name, PolicyAction::Reject, RuleMode::Enforce);
    fired("rule 2");
    fired("rule 2");
    fired("a rule of a configuration that was");
    metrics.event(
        Family::Ipv4,
        Event::Fact { name: FactName::ReturnPath, state: FactState::False, source: Source::Probe },
    );
    insta::assert_snapshot!(changed(&metrics, &before), @r#"
    gatepost_policy_facts_total{fact="return_path",family="ipv4",source="probe",state="false"} 1
    gatepost_policy_verdicts_total{action="reject",family="ipv6",mode="enforce",rule="rule 2"} 2
    "#);

    // A rule that stays keeps its count, and one that goes leaves nothing behind.
    let kept: Vec<PolicyRule> =
        rules().iter().filter(|rule| &*rule.name == "rule 2").cloned().collect();
    metrics.set_rules(&PolicyRules::new(kept, Networks::default())).unwrap();
    let now = series(&metrics);
    let verdicts = now.iter().filter(|(name, _)| name.contains("policy_verdicts"));
    assert_eq!(verdicts.map(|(_, count)| *count).sum::<f64>(), 2.0);
    assert!(!now.keys().any(|name| name.contains("rule 3")));
}

#[test]
fn each_event_counts_where_it_belongs() {
    let metrics = Metrics::new().unwrap();
    let tell = |event| metrics.event(Family::Ipv6, event);
    let before = series(&metrics);
    tell(Event::SessionOpened);
    tell(Event::SessionOpened);
    tell(Event::SessionClosed(Outcome::ClientClosed));
    tell(Event::Command(Verb::Rcpt));
    for code in [250, 999, 599] {
        let source = ReplySource::Gateway;
        tell(Event::Reply { code, source });
    }
    tell(Event::Message { code: 250, bytes: 700 });
    tell(Event::Message { code: 452, bytes: 5000 });
    tell(Event::Attempt { family: Family::Ipv4, outcome: AttemptOutcome::Connected });
    tell(Event::Phase { phase: Phase::Data, duration: Duration::from_secs(45) });
    tell(Event::Bytes { direction: Direction::UpstreamToClient, count: 12 });

    insta::assert_snapshot!(changed(&metrics, &before));
}

/// A flow each way, a fall-back, losses; only what differs from zero.
#[test]
fn traffic_counts_where_it_belongs() {
    let metrics = Metrics::new().unwrap();
    let before = series(&metrics);
    let direction = MailDirection::Outbound;
    let reset = flow(Family::Ipv6, direction, FlowOutcome::Reset, Side::Server);
    metrics.on_flow(&passed(&reset, direction, DeliveryOutcome::Reset));
    let unanswered = FlowFacts {
        handshake: None,
        rtt: None,
        reset_by: None,
        black_hole: false,
        icmp_kinds: [0; 5],
        data_segments: [0; 2],
        retransmits: [0; 2],
        gaps: 0,
        ..flow(Family::Ipv4, MailDirection::Inbound, FlowOutcome::Unanswered, Side::Server)
    };
    metrics.on_flow(&passed(&unanswered, MailDirection::Inbound, DeliveryOutcome::Unanswered));
    metrics.on_fallback(&fall_back(direction, FallbackReason::Unanswered));
    metrics.on_fallback(&fall_back(direction, FallbackReason::Race));
    metrics.add_capture_drops(1, 20);
    let counts =
        |n| StreamCounters { evicted: n, bytes_not_captured: 100 * n, ..StreamCounters::default() };
    metrics.on_stream_counts(&counts(1), &counts(3));
    let ours = Networks::new([ENDS[1][0].parse::<IpAddr>().unwrap().into()]);
    let mut seen = traffic::Traffic::new(ours);
    let taken = flow(Family::Ipv6, MailDirection::Inbound, FlowOutcome::Established, Side::Client);
    seen.on_flow(&passed(&taken, MailDirection::Inbound, DeliveryOutcome::Accepted));
    metrics.set_evidence(&seen.evidence());
    insta::assert_snapshot!(changed(&metrics, &before));
}

/// What `program` of a Debian package says of all series in that format; `None` if it is not there.
fn judged(package: &str, program: &[&str], format: ExpositionFormat) -> Option<String> {
    let metrics = Metrics::new().unwrap();
    feed_everything(&metrics);
    let judge = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut judge = match judge {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // Past the test harness's capture, so that it is read.
            let note = format!("SKIPPED {}: it is not here (Debian: {package})", program.join(" "));
            writeln!(std::io::stderr(), "\n{note}").unwrap();
            return None;
        }
        spawned => spawned.unwrap(),
    };
    let mut stdin = judge.stdin.take().unwrap();
    stdin.write_all(metrics.encode(format).as_bytes()).unwrap();
    drop(stdin);
    let output = judge.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    Some(said)
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let said = judged("prometheus", &["promtool", "check", "metrics"], ExpositionFormat::Text);
    assert!(said.is_none_or(|said| said.is_empty()));
}

/// The parser of Prometheus' own Python client refuses whatever the standard forbids. It tells how many samples it read.
#[test]
fn openmetrics_is_well_formed() {
    let parse = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse; \
                 print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let program = ["/usr/bin/python3", "-c", parse];
    let Some(said) = judged("python3-prometheus-client", &program, ExpositionFormat::OpenMetrics)
    else {
        return;
    };
    let metrics = Metrics::new().unwrap();
    assert_eq!(said.trim().parse::<usize>().unwrap(), series(&metrics).len());
}

#[test]
fn openmetrics_reads_like_this() {
    let metrics = Metrics::new().unwrap();
    metrics.event(Family::Ipv6, Event::Waited(Duration::from_millis(2)));
    metrics.set_rules(&rules_named(r#"a "b" \ c"#)).unwrap();
    let text = metrics.encode(ExpositionFormat::OpenMetrics);
    let shown =
        ["gatepost_policy_wait_seconds", "gatepost_policy_verdicts", "gatepost_sessions_limit"];
    let lines = text.lines().filter(|line| {
        let name = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        shown.iter().any(|shown| name.starts_with(shown)) || name.starts_with("# EOF")
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}
