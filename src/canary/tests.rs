//! Tokens, the message, the table of marks, and pairs.

use std::time::Duration;

use super::*;
use crate::addr::Family;
use crate::dkim::{HeaderProgress, HeaderSection};
use crate::hmac_key::HmacKey;
use crate::time::Timestamp;

const RECIPIENT: &str = "canary@site.example";
const HOUR: Duration = Duration::from_secs(3600);

fn key(digits: &str) -> HmacKey {
    HmacKey::parse(digits.repeat(32).as_bytes()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_nanos(1_767_323_045_000_000_000)
}

fn token(family: Family) -> CanaryToken {
    let pair = PairId::new(*b"\x01\x23\x45\x67\x89\xab\xcd\xef");
    CanaryToken { pair, family, direction: CanaryDirection::Inbound, sent: now() }
}

fn message(family: Family) -> String {
    let addresses =
        CanaryAddresses { from: "check@vantage.example".to_owned(), to: RECIPIENT.to_owned() };
    compose(&token(family), &addresses, "vantage.example", &key("0b"))
}

fn section(header: &str) -> HeaderSection {
    let mut section = HeaderSection::new(64 * 1024);
    let progress = section.write(format!("{}\r\n\r\nbody\r\n", header.trim_end()).as_bytes());
    assert!(matches!(progress, HeaderProgress::Complete(_)));
    section
}

fn judge(header: &str, rules: &MarkRules) -> HeaderJudgement {
    HeaderJudgement::of(section(header).fields(), token(Family::Ipv4).pair, rules)
}

#[test]
fn only_the_key_makes_a_canary_for_a_recipient_of_this_time() {
    for (family, direction) in Family::ALL
        .into_iter()
        .flat_map(|family| CanaryDirection::ALL.map(|direction| (family, direction)))
    {
        let token = CanaryToken { direction, ..token(family) };
        let id = token.message_id(RECIPIENT, "vantage.example", &key("0b"));
        let recognise =
            |id: &str, to: &str, digits, at| CanaryToken::recognise(id, to, &key(digits), at);
        assert_eq!(recognise(&id, RECIPIENT, "0b", now()), Ok(token), "{id}");
        assert_eq!(recognise(&format!(" {id}\r\n"), "Canary@Site.EXAMPLE", "0b", now()), Ok(token));
        assert_eq!(recognise(&id, RECIPIENT, "0c", now()), Err(NotACanary::Signature));
        assert_eq!(recognise(&id, "other@site.example", "0b", now()), Err(NotACanary::Signature));
        let later = now() + MAX_AGE + Duration::from_secs(1);
        assert_eq!(recognise(&id, RECIPIENT, "0b", later), Err(NotACanary::Expired));
        let early = Timestamp::from_nanos((now() - Timestamp::default() - HOUR).as_nanos() as u64);
        assert_eq!(recognise(&id, RECIPIENT, "0b", early), Err(NotACanary::Future));
        // No part of it can be changed.
        let at = id.find('@').unwrap();
        for position in 1..at {
            let mut changed = id.clone().into_bytes();
            changed[position] = if changed[position] == b'7' { b'8' } else { b'7' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(recognise(&changed, RECIPIENT, "0b", now()).is_err(), "{changed}");
        }
    }
}

#[test]
fn other_message_ids_are_no_canaries() {
    for id in [
        "",
        "<>",
        "<c1@a>",
        "c1.0123456789abcdef.6i.6957370f.00@a",
        "<c1.0123456789abcdef.6i.6957370f@a>",
        "<c1.0123456789abcdef.5i.6957370f.b2a5f14ddb4c0f81ae8c5b47d689a4d2@a>",
        "<c2.0123456789abcdef.6i.6957370f.b2a5f14ddb4c0f81ae8c5b47d689a4d2@a>",
        "<c1.0123456789abcdef.6i.ffffffffffffffff.b2a5f14ddb4c0f81ae8c5b47d689a4d2@a>",
        "<c1.0123456789abcdef.6i.6957370f.more.b2a5f14ddb4c0f81ae8c5b47d689a4d2@a>",
        &format!(
            "<c1.0123456789abcdef.6i.6957370f.b2a5f14ddb4c0f81ae8c5b47d689a4d2@{}>",
            "a".repeat(300)
        ),
        "<c1.0123456789abcdéf.6i.6957370f.b2a5f14ddb4c0f81ae8c5b47d689a4d2@a>",
    ] {
        let found = CanaryToken::recognise(id, RECIPIENT, &key("0b"), now());
        assert_eq!(found, Err(NotACanary::Form), "{id}");
    }
}

#[test]
fn the_messages_differ_in_their_message_id_only() {
    let (ipv4, ipv6) = (message(Family::Ipv4), message(Family::Ipv6));
    let differing: Vec<_> =
        ipv4.lines().zip(ipv6.lines()).filter(|(one, other)| one != other).collect();
    assert_eq!(differing.len(), 1);
    assert!(differing[0].0.starts_with("Message-ID: <c1.0123456789abcdef.4i."));
    assert_eq!(ipv4.lines().count(), ipv6.lines().count());
    for line in ipv4.split("\r\n") {
        assert!(line.is_ascii() && line.len() <= 100 && !line.contains('\n'), "{line}");
        assert!(!line.starts_with('.'), "{line}");
    }
    assert!(ipv4.ends_with("\r\n"));
    let mut section = HeaderSection::new(4096);
    section.write(ipv6.as_bytes());
    let rules = MarkRules::default();
    let (found, report) =
        CanaryReport::of(section.fields(), RECIPIENT, &key("0b"), &rules, now()).unwrap();
    assert_eq!(found, token(Family::Ipv6));
    assert_eq!(report.judgement, HeaderJudgement::default());
    let json = serde_json::to_string(&report).unwrap();
    let parsed: CanaryReport = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed.token(&key("0b"), now()), Ok(found));
    let forged = CanaryReport { recipient: "a@site.example".to_owned(), ..parsed };
    assert_eq!(forged.token(&key("0b"), now()), Err(NotACanary::Signature));
}

#[test]
fn each_filter_is_known() {
    let rules = MarkRules::default();
    for (header, by) in [
        ("X-Spam-Flag: YES", Some("spamassassin")),
        ("X-Spam-Flag: NO", None),
        ("X-Spam-Status: Yes, score=7.4 required=5.0\r\n\ttests=A,B", Some("spamassassin")),
        ("X-Spam-Status: No, score=-0.7 required=5.0 tests=YES_A", None),
        ("X-Spam-Score: 3.76", None),
        ("X-Spam-Level: ***", None),
        ("X-Spam: Yes", Some("rspamd")),
        ("X-Spamd-Result: default: True [15.40 / 15.00];\r\n\tA(1.00)[]", Some("rspamd")),
        ("X-Spamd-Result: default: False [-3.71 / 50.00]; BAYES_HAM(-3.00)[True]", None),
        ("X-Rspamd-Action: add header", Some("rspamd")),
        ("X-Rspamd-Action: no action", None),
        ("X-Rspamd-Action: greylist", None),
        ("X-Barracuda-Spam-Status: Yes, SCORE=4.10 using global scores", Some("barracuda")),
        ("X-Barracuda-Spam-Status: No, SCORE=0.00 using global scores", None),
        ("X-Barracuda-Spam-Flag: YES", Some("barracuda")),
        ("X-MS-Exchange-Organization-SCL: 5", Some("exchange")),
        ("x-ms-exchange-organization-scl: 4", None),
        ("X-MS-Exchange-Organization-SCL: -1", None),
        (
            "X-Forefront-Antispam-Report: CIP:2001:db8::1; CTRY:; SCL:9; SRV:;\r\n SFV:SPM",
            Some("exchange"),
        ),
        ("X-Forefront-Antispam-Report: CIP:192.0.2.1;CTRY:;LANG:en;SCL:1;SRV:", None),
        (
            "X-Proofpoint-Spam-Details: rule=outbound_notspam policy=outbound score=0\r\n classifier=spam",
            None,
        ),
        (
            "X-Proofpoint-Spam-Details: rule=spam_definite policy=default score=100",
            Some("proofpoint"),
        ),
        ("Authentication-Results: mx.example; spf=pass; dkim=none", None),
        (
            "Authentication-Results: mx.example;\r\n spf=fail (no) smtp.mailfrom=a",
            Some("authentication"),
        ),
        ("Authentication-Results: spf=fail.example; none", None),
        ("Subject: Mail delivery check 0123456789abcdef", None),
        ("Subject: [SPAM] Mail delivery check 0123456789abcdef", Some("subject")),
        ("Subject: ***Spam*** Mail delivery check 0123456789abcdef", Some("subject")),
        ("Subject: [LIKELY_SPAM]Mail delivery\r\n check 0123456789abcdef", Some("subject")),
        ("Subject: [EXTERNAL] Mail delivery check 0123456789abcdef", None),
        ("Subject: {Junk?} something else", Some("subject")),
        ("X-Custom: it is Junk mail", None),
    ] {
        let judgement = judge(header, &rules);
        let found: Vec<_> = judgement.marks.iter().map(|mark| mark.by.as_str()).collect();
        assert_eq!(found, by.into_iter().collect::<Vec<_>>(), "{header}");
        let expected = match by {
            None => CanaryOutcome::Clean,
            Some("authentication") => CanaryOutcome::AuthenticationFailed,
            Some(_) => CanaryOutcome::MarkedSpam,
        };
        assert_eq!(judgement.outcome(), expected, "{header}");
    }
}

#[test]
fn scores_are_read_where_filters_write_them() {
    for (header, expected) in [
        ("X-Spam-Score: 3.76", Some("3.76")),
        ("X-Spam-Score: -0.7", Some("-0.70")),
        ("X-Spam-Score: high", None),
        ("X-Spam-Status: No, score=-0.7 required=5.0", Some("-0.70")),
        ("X-Barracuda-Spam-Score: 4.10", Some("4.10")),
        ("X-Spamd-Result: default: True [15.40 / 15.00];", Some("15.40")),
        ("X-Spam-Score: 1\r\nX-Spamd-Result: default: False [2.50 / 15.00]", Some("2.50")),
        ("X-Spam-Score: 1e300", None),
        ("Subject: 5", None),
    ] {
        let judgement = judge(header, &MarkRules::default());
        assert_eq!(judgement.score.map(|score| score.to_string()).as_deref(), expected, "{header}");
    }
}

#[test]
fn operators_add_marks() {
    for (pattern, header, is_marked) in [
        ("X-Custom: junk", "x-custom: JUNK", true),
        ("X-Custom: junk", "X-Custom: junk mail", false),
        ("X-Custom: *junk*", "X-Custom: it is\r\n Junk mail", true),
        ("X-Custom: a*b*c", "X-Custom: a b c", true),
        ("X-Custom: a*b*c", "X-Custom: a c b", false),
        ("X-Custom: ab*ba", "X-Custom: aba", false),
        ("X-Custom: *junk", "X-Custom: junk, or junk", true),
        ("X-Custom: junk", "X-Other: junk", false),
    ] {
        let rules = MarkRules::new(vec![MarkPattern::parse(pattern).unwrap()]);
        let by: Vec<_> = judge(header, &rules).marks.iter().map(|mark| mark.by).collect();
        let expected = if is_marked { vec![SpamFilter::Custom] } else { Vec::new() };
        assert_eq!(by, expected, "{pattern} {header}");
    }
    use MarkPatternError::{Colon, Name, Value};
    for (wrong, expected) in [
        ("", Colon),
        ("X-Custom", Colon),
        ("X-Custom:", Value),
        ("X-Custom: **", Value),
        (": junk", Name),
        ("X Custom: junk", Name),
    ] {
        assert_eq!(MarkPattern::parse(wrong), Err(expected), "{wrong}");
        assert!(expected.to_string().ends_with("where * stands for any text"));
    }
}

fn delivery(stage: DeliveryStage, code: Option<u16>) -> CanaryDelivery {
    let (text, took) = (String::new(), Duration::ZERO);
    CanaryDelivery { stage, server: None, code, text, tls: false, took }
}

fn accepted() -> CanaryDelivery {
    delivery(DeliveryStage::Content, Some(250))
}

fn spam() -> HeaderJudgement {
    judge("X-Spam: Yes", &MarkRules::default())
}

#[test]
fn a_pair_is_compared_when_both_messages_have_arrived() {
    for (ipv4, ipv6, expected) in [
        (HeaderJudgement::default(), HeaderJudgement::default(), Comparison::Equal),
        (HeaderJudgement::default(), spam(), Comparison::Ipv6Worse),
        (spam(), HeaderJudgement::default(), Comparison::Ipv4Worse),
        (spam(), spam(), Comparison::Equal),
    ] {
        let mut pairs = CanaryPairs::new(HOUR);
        let (four, six) = (token(Family::Ipv4), token(Family::Ipv6));
        assert_eq!(pairs.on_delivery(four, accepted(), now()), None);
        assert_eq!(pairs.on_delivery(six, accepted(), now()), None);
        assert_eq!(pairs.on_received(four, ipv4, now(), now()), None);
        assert_eq!(pairs.open().count(), 1);
        let result = pairs.on_received(six, ipv6, now(), now()).unwrap();
        assert_eq!(result.pair.comparison(), expected);
        assert_eq!(pairs.open().count(), 0);
        // A repeated report changes nothing and opens no new pair.
        assert_eq!(pairs.on_received(six, spam(), now(), now()), None);
        assert!(pairs.expire(now() + 2 * HOUR).is_empty());
    }
}

#[test]
fn what_is_missing_is_unknown_and_then_lost() {
    let mut pairs = CanaryPairs::new(HOUR);
    let (four, six) = (token(Family::Ipv4), token(Family::Ipv6));
    pairs.on_delivery(four, accepted(), now());
    pairs.on_received(four, HeaderJudgement::default(), now(), now());
    pairs.on_delivery(six, accepted(), now());
    assert!(pairs.expire(now() + HOUR).is_empty());
    let results = pairs.expire(now() + HOUR + Duration::from_secs(1));
    let [PairResult { pair, .. }] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!(pair.ipv6.outcome(), CanaryOutcome::Lost);
    assert_eq!(pair.comparison(), Comparison::Ipv6Worse);

    // Nobody knows whether the other message was sent.
    let mut pairs = CanaryPairs::new(HOUR);
    pairs.on_received(four, HeaderJudgement::default(), now(), now());
    let results = pairs.expire(now() + 2 * HOUR);
    assert_eq!(results[0].pair.ipv6.outcome(), CanaryOutcome::Unknown);
    assert_eq!(results[0].pair.comparison(), Comparison::Unknown);
}

#[test]
fn a_refusal_needs_no_report() {
    for (stage, code, outcome, comparison) in [
        (DeliveryStage::Recipient, Some(550), CanaryOutcome::Refused, Comparison::Ipv6Worse),
        (DeliveryStage::Content, Some(451), CanaryOutcome::Deferred, Comparison::Ipv6Worse),
        (DeliveryStage::Connect, None, CanaryOutcome::Unreachable, Comparison::Ipv6Worse),
        (DeliveryStage::NoRoute, None, CanaryOutcome::Unknown, Comparison::Unknown),
        (DeliveryStage::NoAddress, None, CanaryOutcome::Unknown, Comparison::Unknown),
        (DeliveryStage::Content, None, CanaryOutcome::Unknown, Comparison::Unknown),
    ] {
        let mut pairs = CanaryPairs::new(HOUR);
        let (four, six) = (token(Family::Ipv4), token(Family::Ipv6));
        pairs.on_delivery(four, accepted(), now());
        pairs.on_received(four, HeaderJudgement::default(), now(), now());
        let result = pairs.on_delivery(six, delivery(stage, code), now()).unwrap();
        assert_eq!(result.pair.ipv6.outcome(), outcome, "{stage} {code:?}");
        assert_eq!(result.pair.comparison(), comparison, "{stage} {code:?}");
    }
}

#[test]
fn the_latest_pair_decides_until_it_is_too_old() {
    let mut monitor = CanaryMonitor::new(HOUR, 24 * HOUR);
    let inbound = CanaryDirection::Inbound;
    assert_eq!(monitor.status(inbound, now()).comparison, Comparison::Unknown);
    let token = |number, family, at| {
        let pair = PairId::new([number; 8]);
        CanaryToken { pair, sent: at, ..token(family) }
    };
    let pair = |monitor: &mut CanaryMonitor, number, at, ipv6| {
        let [four, six] = Family::ALL.map(|family| token(number, family, at));
        assert_eq!(monitor.on_received(four, HeaderJudgement::default(), at, at), None);
        assert!(monitor.on_received(six, ipv6, at, at).is_some());
    };
    pair(&mut monitor, 2, now() + HOUR, spam());
    let status = monitor.status(inbound, now() + HOUR);
    assert_eq!(status.comparison, Comparison::Ipv6Worse);
    assert!(status.is_filtered(Family::Ipv6) && !status.is_filtered(Family::Ipv4));
    assert_eq!(status.marked_by().as_deref(), Some("by rspamd (X-Spam: Yes)"));
    assert_eq!(monitor.status(CanaryDirection::Outbound, now()).at, None);

    // A pair that was sent before and ends later.
    pair(&mut monitor, 1, now(), HeaderJudgement::default());
    assert_eq!(monitor.status(inbound, now() + HOUR).comparison, Comparison::Ipv6Worse);
    let late = monitor.status(inbound, now() + 26 * HOUR);
    assert_eq!((late.comparison, late.is_filtered(Family::Ipv6)), (Comparison::Unknown, false));
    pair(&mut monitor, 3, now() + 2 * HOUR, HeaderJudgement::default());
    let status = monitor.status(inbound, now() + 2 * HOUR);
    assert_eq!((status.comparison, status.mark), (Comparison::Equal, None));

    // One message was accepted and is lost; a refused one is for other signs.
    let at = now() + 3 * HOUR;
    let [four, six] = Family::ALL.map(|family| token(4, family, at));
    monitor.on_received(four, HeaderJudgement::default(), at, at);
    monitor.on_delivery(six, accepted(), at);
    assert_eq!(monitor.status(inbound, at).waiting, 1);
    assert_eq!(monitor.expire(at + 2 * HOUR).len(), 1);
    assert!(monitor.status(inbound, at + 2 * HOUR).is_filtered(Family::Ipv6));
    let [four, six] = Family::ALL.map(|family| token(5, family, at + HOUR));
    monitor.on_received(four, HeaderJudgement::default(), at, at);
    monitor.on_delivery(six, delivery(DeliveryStage::Connect, None), at);
    let status = monitor.status(inbound, at + HOUR);
    assert_eq!(status.comparison, Comparison::Ipv6Worse);
    assert!(!status.is_filtered(Family::Ipv6));
}

#[test]
fn a_mark_has_its_place() {
    for (passed, expected) in [
        (None, MarkedWhere::Unknown),
        (Some(HeaderJudgement::default()), MarkedWhere::BehindGateway),
        (Some(spam()), MarkedWhere::BeforeGateway),
    ] {
        let half = PairHalf { passed, received: Some((now(), spam())), ..PairHalf::default() };
        assert_eq!(half.marked_where(), Some(expected));
    }
    let received = Some((now(), HeaderJudgement::default()));
    let half = PairHalf { passed: Some(spam()), received, ..PairHalf::default() };
    assert_eq!(half.marked_where(), None);
}

fn numbered(number: u8, family: Family, sent: Timestamp) -> CanaryToken {
    CanaryToken { pair: PairId::new([number; 8]), sent, ..token(family) }
}

/// As written to disk and read again.
fn saved(monitor: &CanaryMonitor) -> SavedCanaries {
    let mut state = SavedCanaries::default();
    monitor.save(&mut state);
    serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap()
}

#[test]
fn a_restart_changes_no_result_and_a_pair_goes_on_waiting() {
    let mut monitor = CanaryMonitor::new(HOUR, 24 * HOUR);
    let [four, six] = Family::ALL.map(|family| numbered(1, family, now()));
    monitor.on_delivery(four, accepted(), now());
    monitor.on_received(four, HeaderJudgement::default(), now(), now());
    monitor.on_passed(six, HeaderJudgement::default(), now());
    assert!(monitor.on_received(six, spam(), now(), now()).is_some());
    let at = now() + HOUR;
    let outbound = |family| {
        let direction = CanaryDirection::Outbound;
        CanaryToken { direction, ..numbered(2, family, at) }
    };
    let [four, six] = Family::ALL.map(outbound);
    monitor.on_delivery(four, accepted(), at);
    monitor.on_delivery(six, accepted(), at);
    monitor.on_received(four, HeaderJudgement::default(), at, at);

    // The gateway was down for longer than the time for reports.
    let again = at + 2 * HOUR;
    let mut restored = CanaryMonitor::new(HOUR, 24 * HOUR);
    restored.restore(saved(&monitor), again);
    for direction in CanaryDirection::ALL {
        assert_eq!(restored.status(direction, again), monitor.status(direction, again));
    }
    let status = restored.status(CanaryDirection::Inbound, again);
    assert_eq!(status.marked_by().as_deref(), Some("by rspamd (X-Spam: Yes), behind the gateway"));
    assert_eq!(restored.waiting(CanaryDirection::Outbound), [four.pair]);
    assert!(restored.expire(again).is_empty(), "nobody could report");
    // A repeated report about a pair that has ended.
    let ended = numbered(1, Family::Ipv6, now());
    assert_eq!(restored.on_received(ended, HeaderJudgement::default(), again, again), None);
    assert!(restored.waiting(CanaryDirection::Inbound).is_empty());
    let result = restored.on_received(six, HeaderJudgement::default(), at, again).unwrap();
    assert_eq!(result.pair.comparison(), Comparison::Equal);

    let mut expiring = CanaryMonitor::new(HOUR, 24 * HOUR);
    expiring.restore(saved(&monitor), again);
    let [lost] = expiring.expire(again + HOUR + Duration::from_secs(1)).try_into().unwrap();
    assert_eq!(lost.pair.ipv6.outcome(), CanaryOutcome::Lost);
    // However often it restarts, a pair ends some day.
    expiring.restore(saved(&monitor), at + MAX_AGE);
    assert_eq!(expiring.expire(at + MAX_AGE).len(), 0);
    assert_eq!(expiring.waiting(CanaryDirection::Outbound).len(), 0, "it has ended");
    let mut restarting = CanaryMonitor::new(HOUR, 24 * HOUR);
    let late = at + MAX_AGE + Duration::from_secs(1);
    restarting.restore(saved(&monitor), late);
    assert_eq!(restarting.expire(late).len(), 1);
}

#[test]
fn results_from_the_future_and_of_another_mailbox_are_dropped() {
    let mut monitor = CanaryMonitor::new(HOUR, 24 * HOUR);
    let at = now() + 10 * HOUR;
    for (number, families) in [(1, &Family::ALL[..]), (2, &Family::ALL[..1])] {
        for family in families {
            monitor.on_received(numbered(number, *family, at), HeaderJudgement::default(), at, at);
        }
    }
    let mut restored = CanaryMonitor::new(HOUR, 24 * HOUR);
    restored.restore(saved(&monitor), now());
    assert_eq!(saved(&restored), SavedCanaries::default());
    restored.restore(saved(&monitor), at);
    assert_eq!(saved(&restored), saved(&monitor));
    restored.forget(CanaryDirection::Outbound);
    assert_eq!(saved(&restored), saved(&monitor));
    restored.forget(CanaryDirection::Inbound);
    assert_eq!(restored.status(CanaryDirection::Inbound, at).at, None);
    assert!(saved(&restored).pairs.open.is_empty());
}

#[test]
fn a_saved_state_is_bounded() {
    let mut monitor = CanaryMonitor::new(HOUR, 24 * HOUR);
    let mark = || Mark::new(SpamFilter::Custom, &"x".repeat(200), &"y".repeat(900));
    let judgement = || HeaderJudgement { marks: (0..8).map(|_| mark()).collect(), score: None };
    for number in 0..20_000_u64 {
        let pair = PairId::new(number.to_be_bytes());
        let sent = now() + Duration::from_secs(number / 1000);
        let token = |family| CanaryToken { pair, sent, ..token(family) };
        monitor.on_received(token(Family::Ipv4), judgement(), sent, sent);
        if number % 2 == 0 {
            monitor.on_received(token(Family::Ipv6), judgement(), sent, sent);
        }
    }
    let state = saved(&monitor);
    assert_eq!((state.pairs.open.len(), state.pairs.ended.len()), (64, 4096));
    let latest = now() + Duration::from_secs(19);
    assert!(state.pairs.open.iter().all(|pair| pair.sent == latest));
    let size = serde_json::to_vec(&state).unwrap().len();
    assert!(size < 1_000_000, "{size}");
}

#[test]
fn the_limit_of_a_day_survives_a_restart() {
    let mut limit = DailyLimit::default();
    assert_eq!(limit.last(), None);
    for number in 0..3 {
        assert!(limit.admit(3, now() + number * HOUR));
    }
    assert!(!limit.admit(3, now() + 3 * HOUR));
    let mut restored = DailyLimit::restored(limit.times(), now() + 4 * HOUR);
    assert_eq!((&restored, restored.last()), (&limit, Some(now() + 2 * HOUR)));
    assert!(!restored.admit(3, now() + 23 * HOUR));
    assert!(restored.admit(3, now() + 24 * HOUR));
    assert!(!restored.admit(3, now() + 24 * HOUR));
    // The clock was two years ahead: what was sent then counts for a day, not for two years.
    let ahead = (0..3).map(|_| now() + 365 * 24 * 2 * HOUR);
    let mut restored = DailyLimit::restored(ahead, now());
    assert!(!restored.admit(3, now() + 23 * HOUR));
    assert!(restored.admit(3, now() + 24 * HOUR));
}
