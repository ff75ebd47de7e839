//! Every series exists from the start, and an event reaches each of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::addr::{ClientAddr, Networks, OriginalDst, Side};
use crate::canary::{
    CanaryDelivery, CanaryDirection, CanaryMonitor, CanaryPair, DeliveryStage, HeaderJudgement,
    Mark, PairHalf, PairId, PairResult, SpamFilter,
};
use crate::engine::{
    Anomaly, AttemptOutcome, DelegatedAction, DelegationEvent, DelegationFault, Desync, Direction,
    Event, Observe as _, Observer, Outcome, Output, Phase, Profile, Refusal, ReplySource,
    SessionRecord, Starttls, TcpFacts, TlsHandshake, TlsVersion, TransactionRecord,
    UpstreamTlsResult,
};
use crate::outbound::{self, Delays, Hosts, OutboundAttempt, SteeringSettings};
use crate::policy::PolicyAction;
use crate::policy::door::{self, Door, DoorTransition, Signals};
use crate::policy::facts::{
    AnswerKind, DomainName, FactState, LookupKind, LookupObserver as _, Resolution, Source,
};
use crate::policy::rules::{
    FactName, PolicyRule, PolicyRules, PolicyStage, Requirement, RuleMode, When,
};
use crate::smtp::{TlsState, Verb};
use crate::stream::{FlowFacts, FlowOutcome, FlowStart, StreamCounters};
use crate::time::Timestamp;
use crate::traffic::fallback::{DeliveryOutcome, Fallback, FallbackReason, ServerMatch};
use crate::traffic::{
    self, ConnectionResponse, FlowObserver as _, FlowSummary, MailDirection, MessageCounts,
};

/// The maximum number of rules, each with two actions.
fn rules() -> PolicyRules {
    PolicyRules::new((0..64).map(|n| rule(&format!("rule {n}"), n)).collect(), Networks::default())
}

/// As many as a configuration may have.
fn listeners() -> Vec<Arc<str>> {
    (0..16).map(|n| format!("listener-{n}").into()).collect()
}

fn client(family: Family) -> ClientAddr {
    let client = match family {
        Family::Ipv4 => "192.0.2.1:4000",
        Family::Ipv6 => "[2001:db8::1]:4000",
    };
    ClientAddr::new(client.parse().unwrap())
}

/// A session with two messages, one of them accepted.
fn session(listener: &Arc<str>, family: Family, action: PolicyAction) -> SessionRecord {
    let client = client(family);
    let profile = Profile { listener: Some(Arc::clone(listener)), ..Profile::default() };
    let (server, at) = (OriginalDst::new("[::1]:25".parse().unwrap()), Timestamp::default());
    let mut observer = Observer::new(Arc::new(profile), client, server, at, false);
    let mut record = observer.finish(TcpFacts::default(), at, &mut Output::default());
    record.verdict.action = action;
    let message =
        |code| TransactionRecord { data_code: Some(code), ..TransactionRecord::default() };
    record.smtp.transactions = vec![message(250), message(550)];
    record
}

fn rules_named(name: &str) -> PolicyRules {
    PolicyRules::new(vec![rule(name, 0)], Networks::default())
}

/// In shadow mode if its number is odd.
fn rule(name: &str, number: u32) -> PolicyRule {
    PolicyRule {
        name: name.into(),
        at: PolicyStage::Connect,
        when: When::default(),
        exempt: Vec::new(),
        require: vec![Requirement::new(FactName::Fcrdns)],
        otherwise: PolicyAction::Reject,
        on_unknown: PolicyAction::Tempfail,
        mode: if number.is_multiple_of(2) { RuleMode::Enforce } else { RuleMode::Shadow },
        url: None,
    }
}

/// Every event of every closed set, every reply code, and bytes.
/// A pair for each outcome in both directions.
fn feed_canaries(metrics: &Metrics) {
    let at = Timestamp::default();
    let delivery = |stage, code| CanaryDelivery {
        stage,
        server: None,
        code,
        text: String::new(),
        tls: false,
        took: Duration::ZERO,
    };
    let delivered = |delivery| PairHalf { delivery: Some(delivery), ..PairHalf::default() };
    let received = |by: Option<SpamFilter>| {
        let mark = |by| Mark { by, field: "X-Spam".to_owned(), value: "Yes".to_owned() };
        let marks = by.map(mark).into_iter().collect();
        let judgement = HeaderJudgement { marks, score: None };
        PairHalf { received: Some((at, judgement)), ..PairHalf::default() }
    };
    let halves = [
        received(None),
        received(Some(SpamFilter::Authentication)),
        received(Some(SpamFilter::Rspamd)),
        delivered(delivery(DeliveryStage::Recipient, Some(450))),
        delivered(delivery(DeliveryStage::Recipient, Some(550))),
        delivered(delivery(DeliveryStage::Connect, None)),
        delivered(delivery(DeliveryStage::Content, Some(250))),
        PairHalf::default(),
    ];
    for direction in CanaryDirection::ALL {
        for half in &halves {
            let mut pair = CanaryPair::new(PairId::new([1; 8]), direction, at);
            (pair.ipv4, pair.ipv6) = (half.clone(), half.clone());
            metrics.on_canaries(&PairResult { pair, at });
        }
        let monitor = CanaryMonitor::new(Duration::ZERO, Duration::ZERO);
        metrics.set_canary_parity(&monitor.status(direction, at));
    }
}

fn feed_everything(metrics: &Metrics) {
    feed_canaries(metrics);
    metrics.accept_error("too many open files");
    metrics.delegation(DelegationEvent::Connected);
    for action in DelegatedAction::ALL {
        let took = Duration::from_millis(250);
        metrics.delegation(DelegationEvent::Answered { action, took });
    }
    for reason in DelegationFault::ALL {
        metrics.delegation(DelegationEvent::Fault(reason));
    }
    let seconds = Duration::from_millis(250);
    for family in Family::ALL {
        let count = |event| metrics.event(family, event);
        count(Event::SessionOpened);
        for outcome in Outcome::ALL {
            count(Event::SessionClosed(outcome));
        }
        for verb in Verb::ALL {
            count(Event::Command(verb));
        }
        for source in ReplySource::ALL {
            for code in (0..1000).chain([u16::MAX]) {
                count(Event::Reply { code, source });
                count(Event::Message { code, bytes: 1 });
            }
        }
        for anomaly in Anomaly::ALL {
            count(Event::Anomaly(anomaly));
        }
        for reason in Refusal::ALL {
            count(Event::Refusal(reason));
        }
        for reason in Desync::ALL {
            count(Event::Desync(reason));
        }
        for outcome in Starttls::ALL {
            count(Event::Starttls(outcome));
        }
        for result in TlsHandshake::ALL {
            for version in TlsVersion::ALL {
                count(Event::TlsHandshake { version, result });
            }
        }
        count(Event::StarttlsHidden);
        metrics.starttls_hidden(client(family), 3);
        for result in UpstreamTlsResult::ALL {
            count(Event::UpstreamTls(result));
        }
        for state in TlsState::ALL {
            count(Event::SessionTls(state));
        }
        for outcome in AttemptOutcome::ALL {
            for family in Family::ALL {
                count(Event::Attempt { family, outcome });
            }
        }
        for phase in Phase::ALL {
            count(Event::Phase { phase, duration: seconds });
        }
        for direction in Direction::ALL {
            count(Event::Bytes { direction, count: u64::from(u32::MAX) });
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
                    count(Event::Fact { name, state, source });
                }
            }
        }
        count(Event::Waited(seconds));
        for name in listeners() {
            for action in PolicyAction::ALL {
                metrics.session(&session(&name, family, action));
            }
        }
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
        metrics.set_intercepted(family, Some(true));
        metrics.add_bypassed_packets(family, 2);
        metrics.add_lost_syns(family, 3);
    }
    metrics.set_upstream_names(3, 2, 1);
    metrics.on_interception_repaired();
    feed_outbound(metrics);
    metrics.set_ready(true);
    metrics.set_certificates_refused(true);
}

/// Every outcome over each family, and a host in every state.
fn feed_outbound(metrics: &Metrics) {
    let mut hosts = Hosts::new(SteeringSettings::default());
    let delays =
        Delays { connection: Duration::from_millis(40), transmission: Duration::from_millis(9) };
    for outcome in outbound::OutboundOutcome::ALL {
        for address in ["[2001:db8::1]:25", "192.0.2.1:25"] {
            let attempt = OutboundAttempt {
                at: Timestamp::from_nanos(1_700_000_000_000_000_000),
                host: DomainName::parse(&format!("{}.example", outcome.as_str())),
                address: address.parse().unwrap(),
                domain: None,
                outcome,
                reply: None,
                delays: Some(delays),
                queue_id: None,
            };
            metrics.on_outbound_attempt(&attempt);
            if attempt.family() == Family::Ipv6 {
                hosts.add(&attempt);
            }
        }
    }
    metrics.set_outbound(&hosts.summary(Timestamp::from_nanos(1_700_000_000_000_000_000)), 1);
    for answer in [MapMetric::Kept, MapMetric::Tried, MapMetric::Omitted] {
        metrics.on_map_answer(answer);
    }
    metrics.on_outbound_retry(true);
    metrics.on_outbound_retry(false);
    metrics.set_mail_log_up(Some(true));
    metrics.add_mail_log_lines(2, 1);
}

/// Every kind of lookup with every result and answer.
fn feed_lookups(metrics: &Metrics) {
    for kind in LookupKind::ALL {
        for result in Resolution::ALL {
            for answer in AnswerKind::ALL {
                metrics.on_answer(kind, result, answer, Duration::from_millis(250));
            }
        }
        metrics.on_refresh(kind);
        metrics.on_shared_hit(kind);
    }
    metrics.on_store_state(true);
    metrics.on_cache_size(3, 4);
    metrics.on_in_flight(5);
    metrics.on_damaged_rows(1);
}

/// Through every state; closed at the end.
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
    metrics.set_door_enforced(family, Some(true));
    metrics.set_silence(family, true);
    metrics.set_vantage_up(Some(true));
    metrics.add_syn_refusals(family, 7);
}

#[test]
fn a_door_is_in_one_state() {
    let metrics = Metrics::new().unwrap();
    let before = series(&metrics);
    feed_door(&metrics, Family::Ipv6);
    insta::assert_snapshot!(changed(&metrics, &before));
}

/// Our server's address and a remote one, by family.
const ENDS: [[&str; 2]; 2] =
    [["198.51.100.25", "192.0.2.10"], ["2001:db8:2::25", "2001:db8:1::10"]];

/// A flow with every kind of event.
fn flow(
    family: Family,
    direction: MailDirection,
    outcome: FlowOutcome,
    reset_by: Side,
) -> FlowFacts {
    let [ours, remote] = ENDS[family as usize].map(|ip| (ip.parse::<IpAddr>().unwrap(), 25).into());
    let (client, server) = match direction {
        MailDirection::Inbound => (remote, ours),
        MailDirection::Outbound => (ours, remote),
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
        incomplete: false,
    }
}

fn passed(flow: &FlowFacts, direction: MailDirection, outcome: DeliveryOutcome) -> FlowSummary<'_> {
    FlowSummary {
        flow,
        direction,
        name: None,
        is_smtp: true,
        greeting: Some(220),
        messages: MessageCounts { accepted: 1, ..MessageCounts::default() },
        replies: [1; 4],
        tls: traffic::StarttlsState::Started,
        tls_proof: false,
        outcome,
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

/// Every outcome in both directions, every response of a remote server, every loss.
fn feed_traffic(metrics: &Metrics) {
    let ours = ENDS.map(|[ours, _]| ours.parse::<IpAddr>().unwrap().into());
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
    let mut traffic = traffic::Traffic::new(Networks::new(ours));
    let responses = [
        (FlowOutcome::Established, DeliveryOutcome::Other),
        (FlowOutcome::Established, DeliveryOutcome::BlackHole),
        (FlowOutcome::Refused, DeliveryOutcome::Refused),
        (FlowOutcome::Unanswered, DeliveryOutcome::Unanswered),
        (FlowOutcome::Unreachable, DeliveryOutcome::Unreachable),
    ];
    assert_eq!(responses.len(), ConnectionResponse::ALL.len());
    for family in Family::ALL {
        let accepted = flow(family, MailDirection::Inbound, FlowOutcome::Established, Side::Client);
        let delivered = passed(&accepted, MailDirection::Inbound, DeliveryOutcome::Accepted);
        traffic.on_flow(&delivered);
        traffic.on_flow(&FlowSummary {
            messages: MessageCounts::default(),
            tls_proof: true,
            ..delivered
        });
        for (n, (outcome, ended)) in responses.into_iter().enumerate() {
            let tried = flow(family, MailDirection::Outbound, outcome, Side::Client);
            let name = Some(format!("mx{n}.example"));
            traffic
                .on_flow(&FlowSummary { name, ..passed(&tried, MailDirection::Outbound, ended) });
        }
    }
    metrics.set_evidence(&traffic.evidence());
    metrics.set_capturing(true);
    metrics.add_capture_drops(2, 3);
    let now = StreamCounters {
        evicted: 7,
        bytes_not_captured: 1,
        bytes_truncated: 2,
        bytes_given_up: 3,
        bytes_unfinished: 4,
        ..StreamCounters::default()
    };
    metrics.on_stream_counts(&StreamCounters::default(), &now);
}

/// Values by series (name and labels).
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

/// Our series whose value changed, one per line.
fn changed(metrics: &Metrics, before: &BTreeMap<String, f64>) -> String {
    let changed: Vec<String> = series(metrics)
        .into_iter()
        .filter(|(name, value)| name.starts_with("gatepost_") && before[name] != *value)
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    changed.join("\n")
}

#[test]
fn every_series_exists_from_the_start_and_no_event_adds_one() {
    let metrics = Metrics::new().unwrap();
    metrics.set_rules(&rules()).unwrap();
    metrics.set_listeners(&listeners()).unwrap();
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

    // Every series has a value; buckets below the one observed duration stay empty.
    for (name, value) in after.iter().filter(|(name, _)| ours(name)) {
        let bucket = name.contains("_bucket");
        // A door has one state.
        let other_state = name.contains("_door_state") && !name.contains("closed");
        assert!(bucket || other_state || *value != 0.0, "no event counts in {name}");
    }
}

#[test]
fn verdicts_count_by_active_rules() {
    let metrics = Metrics::new().unwrap();
    metrics.set_rules(&rules()).unwrap();
    let before = series(&metrics);
    let matched =
        |name| metrics.policy(Family::Ipv6, name, PolicyAction::Reject, RuleMode::Enforce);
    matched("rule 2");
    matched("rule 2");
    matched("a rule of an earlier configuration");
    metrics.event(
        Family::Ipv4,
        Event::Fact { name: FactName::ReturnPath, state: FactState::False, source: Source::Probe },
    );
    insta::assert_snapshot!(changed(&metrics, &before), @r#"
    gatepost_policy_facts_total{fact="return_path",family="ipv4",source="probe",state="false"} 1
    gatepost_policy_verdicts_total{action="reject",family="ipv6",mode="enforce",rule="rule 2"} 2
    "#);

    // A remaining rule keeps its count; a removed one leaves no series.
    let kept: Vec<PolicyRule> =
        rules().iter().filter(|rule| &*rule.name == "rule 2").cloned().collect();
    metrics.set_rules(&PolicyRules::new(kept, Networks::default())).unwrap();
    let now = series(&metrics);
    let verdicts = now.iter().filter(|(name, _)| name.contains("policy_verdicts"));
    assert_eq!(verdicts.map(|(_, count)| *count).sum::<f64>(), 2.0);
    assert!(!now.keys().any(|name| name.contains("rule 3")));
}

#[test]
fn sessions_count_by_listener() {
    let metrics = Metrics::new().unwrap();
    let names: [Arc<str>; 2] = ["mx".into(), "submission".into()];
    metrics.set_listeners(&names).unwrap();
    let before = series(&metrics);
    metrics.session(&session(&names[0], Family::Ipv6, PolicyAction::Accept));
    metrics.session(&session(&names[0], Family::Ipv6, PolicyAction::Accept));
    metrics.session(&session(&names[1], Family::Ipv4, PolicyAction::Tempfail));
    metrics.session(&session(
        &"of an earlier configuration".into(),
        Family::Ipv4,
        PolicyAction::Tag,
    ));
    insta::assert_snapshot!(changed(&metrics, &before), @r#"
    gatepost_listener_messages_total{family="ipv4",listener="submission"} 1
    gatepost_listener_messages_total{family="ipv6",listener="mx"} 2
    gatepost_listener_sessions_total{action="accept",family="ipv6",listener="mx"} 2
    gatepost_listener_sessions_total{action="tempfail",family="ipv4",listener="submission"} 1
    "#);

    // A listener that stays keeps its counts; a removed one leaves no series.
    metrics.set_listeners(&names[..1]).unwrap();
    let now = series(&metrics);
    let of =
        |name: &str| now.iter().filter(|(key, _)| key.contains(name)).map(|(_, n)| *n).sum::<f64>();
    assert_eq!(of("listener=\"mx\""), 4.0);
    assert!(!now.keys().any(|key| key.contains("submission")));
}

#[test]
fn each_event_counts_where_it_belongs() {
    let metrics = Metrics::new().unwrap();
    let count = |event| metrics.event(Family::Ipv6, event);
    let before = series(&metrics);
    count(Event::SessionOpened);
    count(Event::SessionOpened);
    count(Event::SessionClosed(Outcome::ClientClosed));
    count(Event::Command(Verb::Rcpt));
    for code in [250, 999, 599] {
        let source = ReplySource::Gateway;
        count(Event::Reply { code, source });
    }
    count(Event::Message { code: 250, bytes: 700 });
    count(Event::Message { code: 452, bytes: 5000 });
    count(Event::Attempt { family: Family::Ipv4, outcome: AttemptOutcome::Connected });
    count(Event::Phase { phase: Phase::Data, duration: Duration::from_secs(45) });
    count(Event::Bytes { direction: Direction::UpstreamToClient, count: 12 });

    insta::assert_snapshot!(changed(&metrics, &before));
}

/// A flow in each direction, a fallback, losses.
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
    let mut traffic = traffic::Traffic::new(ours);
    let accepted =
        flow(Family::Ipv6, MailDirection::Inbound, FlowOutcome::Established, Side::Client);
    traffic.on_flow(&passed(&accepted, MailDirection::Inbound, DeliveryOutcome::Accepted));
    metrics.set_evidence(&traffic.evidence());
    insta::assert_snapshot!(changed(&metrics, &before));
}

/// Output of `program` from a Debian package for all series in that format.
fn checked(package: &str, program: &[&str], format: ExpositionFormat) -> String {
    let metrics = Metrics::new().unwrap();
    feed_everything(&metrics);
    let checker = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut checker =
        checker.unwrap_or_else(|e| panic!("{} (Debian package {package}): {e}", program[0]));
    let mut stdin = checker.stdin.take().unwrap();
    stdin.write_all(metrics.encode(format).as_bytes()).unwrap();
    drop(stdin);
    let output = checker.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

#[test]
#[ignore = "needs promtool: make test"]
fn promtool_accepts_all_metrics() {
    let output = checked("prometheus", &["promtool", "check", "metrics"], ExpositionFormat::Text);
    assert_eq!(output, "");
}

/// The parser of Prometheus' Python client rejects violations of the standard. It prints the number of samples.
#[test]
#[ignore = "needs Prometheus' Python client: make test"]
fn openmetrics_is_well_formed() {
    let parse = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse; \
                 print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let program = ["/usr/bin/python3", "-c", parse];
    let output = checked("python3-prometheus-client", &program, ExpositionFormat::OpenMetrics);
    let metrics = Metrics::new().unwrap();
    assert_eq!(output.trim().parse::<usize>().unwrap(), series(&metrics).len());
}

#[test]
fn openmetrics_text() {
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
