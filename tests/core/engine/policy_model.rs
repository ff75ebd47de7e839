//! Random rules, random lookup results and a random schedule: at any time of the answers and with any segmentation, both
//! sides receive the same bytes and the record is the same.

use proptest::prelude::*;

use gatepost::addr::{Family, Networks};
use gatepost::engine::{Outcome, Profile, RefuseAt, SessionRecord, Timeouts};
use gatepost::policy::PolicyAction;
use gatepost::policy::facts::{
    Answer, DnsRecord, DomainName, Lookup, LookupResult, Reason, Source,
};
use gatepost::policy::rules::{FactName, PolicyRule, PolicyRules, RuleMode};

use crate::engine::driver::Driver;
use crate::engine::policy::{good, require, rule};

/// How lookup results differ from [`good`], by kind of lookup: not at all, unknown, or negative.
#[derive(Clone, Debug)]
struct LookupResults([u8; 5]);

impl LookupResults {
    fn answer(&self, lookup: &Lookup) -> LookupResult {
        let kind = match lookup {
            Lookup::Reverse(_) => 0,
            Lookup::Addresses(..) => 1,
            Lookup::MailExchanges(_) => 2,
            Lookup::Recipient(_) => 3,
            _ => 4,
        };
        let unlike = |answer| LookupResult { answer, source: Source::Dns, at: None };
        match (self.0[kind], lookup) {
            (1, _) => unlike(Answer::Unknown(Reason::Timeout)),
            (2, Lookup::Recipient(_) | Lookup::ReceivePath(_)) => {
                unlike(Answer::No(Reason::NoSuchMailbox, None))
            }
            (2, _) => unlike(Answer::NxDomain),
            // Several names; only the last one is the client's.
            (3, Lookup::Reverse(_)) => unlike(Answer::Records(
                ["a.other.example", "b.other.example", "client.example"]
                    .map(|name| DnsRecord::Name(DomainName::parse(name).unwrap()))
                    .to_vec(),
            )),
            _ => good(lookup),
        }
    }
}

/// Chooses the next action by the first number, and its size by the second.
struct Schedule<'a>(std::iter::Cycle<std::slice::Iter<'a, (u8, u8)>>);

impl Schedule<'_> {
    fn next(&mut self) -> (usize, usize) {
        let (turn, count) = self.0.next().unwrap();
        (usize::from(*turn), usize::from(*count))
    }
}

/// A server that accepts every valid command.
#[derive(Default)]
struct Server {
    read: usize,
    recipients: usize,
    in_content: bool,
}

impl Server {
    fn on_data(&mut self, sent: &[u8]) -> Vec<u8> {
        let mut replies = Vec::new();
        loop {
            let rest = &sent[self.read..];
            let end: &[u8] = if self.in_content { b"\r\n.\r\n" } else { b"\r\n" };
            let Some(at) = rest.windows(end.len()).position(|window| window == end) else {
                return replies;
            };
            let line = String::from_utf8_lossy(&rest[..at]).into_owned();
            self.read += at + end.len();
            if std::mem::take(&mut self.in_content) {
                replies.extend(b"250 queued\r\n");
                continue;
            }
            let reply = match line.split([' ', ':']).next().unwrap() {
                "EHLO" => "250-a\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
                "MAIL" => {
                    self.recipients = 0;
                    "250 sender\r\n"
                }
                "RCPT" if line.contains("gone") => "550 gone\r\n",
                "RCPT" => {
                    self.recipients += 1;
                    "250 recipient\r\n"
                }
                "DATA" if self.recipients > 0 => {
                    self.in_content = true;
                    "354 go\r\n"
                }
                "QUIT" => "221 bye\r\n",
                _ => "503 no\r\n",
            };
            replies.extend(reply.bytes());
        }
    }
}

const TRANSACTIONS: [&str; 3] = [
    "MAIL FROM:<a@a.example>\r\nRCPT TO:<bob@b.example>\r\nRCPT TO:<nobody@b.example>\r\nRCPT TO:<gone@b.example>\r\nDATA\r\n",
    "MAIL FROM:<>\r\nRCPT TO:<later@b.example>\r\nDATA\r\n",
    "MAIL FROM:<a@nowhere.example>\r\nRCPT TO:<bob@b.example>\r\nRCPT TO:<postmaster@b.example>\r\nDATA\r\n",
];
const CONTENT: &str = "Subject: x\r\ngatepost-verdict: forged\r\n\tand folded\r\n\r\nbody\r\n.\r\n";

/// The last line of each reply that the client received.
fn replies(to_client: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(to_client).into_owned();
    let whole = text.rfind("\r\n").map_or("", |end| &text[..end]);
    let lines = whole.split("\r\n").filter(|line| line.as_bytes().get(3) == Some(&b' '));
    lines.map(str::to_owned).collect()
}

/// Runs the session; returns the bytes that the client and upstream received, and the record.
fn run(
    profile: &Profile,
    results: &LookupResults,
    mut schedule: Schedule<'_>,
) -> (String, String, SessionRecord) {
    let (client, server_addr) = ("[2001:db8::1]:4", "[2001:db8::2]:25");
    let mut driver = Driver::new(profile.clone(), Timeouts::RFC_5321, client, server_addr, false);
    let mut server = Server::default();
    let mut from_server = b"220 a\r\n".to_vec();
    let mut flight: Vec<u8> = Vec::new();
    let mut script: Vec<&str> =
        [&["EHLO client.example\r\n"], &TRANSACTIONS[..], &["QUIT\r\n"]].concat();
    let mut expected = 1;
    let mut awaits_data = false;
    for turn in 0.. {
        assert!(turn < 100_000, "the session is stuck");
        if driver.closed {
            break;
        }
        from_server.extend(server.on_data(&driver.to_upstream));
        let read = replies(&driver.to_client);
        if flight.is_empty() && read.len() >= expected {
            let go = std::mem::take(&mut awaits_data) && read.last().unwrap().starts_with("354");
            if !go && script.is_empty() {
                driver.upstream_closes();
                break;
            }
            // Before QUIT, so that every schedule answers the lookups of rules in shadow mode.
            if !go && script.len() == 1 && !driver.needs.is_empty() {
                awaits_data = false;
            } else {
                let next = if go { CONTENT } else { script.remove(0) };
                awaits_data = next.ends_with("DATA\r\n");
                expected += if go { 1 } else { next.matches("\r\n").count() };
                flight.extend(next.bytes());
            }
        }
        let (which, count) = schedule.next();
        let able = [!driver.needs.is_empty(), !flight.is_empty(), !from_server.is_empty()];
        match (0..3).map(|n| (which + n) % 3).find(|&n| able[n]) {
            Some(0) => driver.answer(count, |lookup| results.answer(lookup)),
            Some(1) => {
                let part: Vec<u8> = flight.drain(..flight.len().min(count + 1)).collect();
                driver.client_sends(&part);
            }
            Some(_) => {
                let part: Vec<u8> = from_server.drain(..from_server.len().min(count + 1)).collect();
                driver.upstream_sends(&part);
                if driver.is_abandoned() {
                    from_server.clear();
                }
            }
            None => panic!("stuck after {}", String::from_utf8_lossy(&driver.to_client)),
        }
    }
    let mut record = driver.finish();
    let observer = driver.observed();
    driver.check_verdict_replays(&observer, &record, "in a random schedule");
    // How much of the input was not read depends on the schedule.
    record.tcp = Default::default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&driver.to_client), text(&driver.to_upstream), record)
}

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let facts = [
        FactName::Fcrdns,
        FactName::HeloResolves,
        FactName::ReturnPath,
        FactName::Recipient,
        FactName::ReceivePath,
    ];
    let parts = (
        proptest::sample::subsequence(facts.to_vec(), 1..=3),
        proptest::sample::select(vec![
            PolicyAction::Accept,
            PolicyAction::Tag,
            PolicyAction::Tempfail,
            PolicyAction::Reject,
        ]),
        proptest::sample::select(vec![
            PolicyAction::Accept,
            PolicyAction::Tag,
            PolicyAction::Tempfail,
            PolicyAction::Reject,
        ]),
        prop_oneof![3 => Just(RuleMode::Enforce), 1 => Just(RuleMode::Shadow)],
    );
    let one = parts.prop_map(|(facts, otherwise, on_unknown, mode)| PolicyRule {
        at: facts.iter().map(|fact| fact.stage()).max().unwrap(),
        require: facts.into_iter().map(require).collect(),
        on_unknown,
        mode,
        ..rule("", FactName::Fcrdns, otherwise)
    });
    proptest::collection::vec(one, 1..4).prop_map(|mut rules| {
        for (number, rule) in rules.iter_mut().enumerate() {
            rule.name = format!("rule {number}").into();
        }
        rules
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_schedule_changes_neither_received_bytes_nor_the_record(
        list in rules(),
        kinds in proptest::array::uniform5(0u8..4),
        at_connect in any::<bool>(),
        schedule in proptest::collection::vec((any::<u8>(), 0u8..40), 1..60),
        other in proptest::collection::vec((any::<u8>(), 0u8..40), 1..60),
    ) {
        let mut profile = Profile { rules: PolicyRules::new(list, Networks::default()).into(), ..Profile::default() };
        if at_connect {
            profile.smtp.refuse_at = RefuseAt::Connect;
        }
        let results = LookupResults(kinds);
        let mut one = run(&profile, &results, Schedule(schedule.iter().cycle()));
        let mut two = run(&profile, &results, Schedule(other.iter().cycle()));
        if one.2.outcome == Outcome::Refused {
            // The rejection at connect does not wait for lookups that only rules in shadow mode need.
            (one.2.verdict.shadow, two.2.verdict.shadow) = Default::default();
        }
        prop_assert_eq!(&one.0, &two.0);
        prop_assert_eq!(&one.1, &two.1);
        prop_assert_eq!(&one.2.verdict, &two.2.verdict);
        prop_assert_eq!(&one.2.smtp, &two.2.smtp);
    }

    /// Even if the rule's `on_unknown` is `reject`.
    #[test]
    fn an_unknown_fact_never_causes_a_5xx(
        list in rules(),
        kinds in proptest::array::uniform5(0u8..2),
        at_connect in any::<bool>(),
        schedule in proptest::collection::vec((any::<u8>(), 0u8..40), 1..60),
    ) {
        let mut profile = Profile { rules: PolicyRules::new(list, Networks::default()).into(), ..Profile::default() };
        if at_connect {
            profile.smtp.refuse_at = RefuseAt::Connect;
        }
        // Every known result is positive.
        let results = LookupResults(kinds);
        let answers = |lookup: &Lookup| match (results.answer(lookup), lookup) {
            (LookupResult { answer: Answer::No(..) | Answer::NxDomain, .. }, _) => {
                LookupResult { answer: Answer::Unknown(Reason::Servfail), source: Source::Dns, at: None }
            }
            (LookupResult { answer: Answer::NoData, .. }, Lookup::Addresses(_, Family::Ipv4)) => LookupResult {
                answer: Answer::Unknown(Reason::Servfail),
                source: Source::Dns,
                at: None,
            },
            (result, _) => result,
        };
        let mut driver = Driver::new(profile, Timeouts::RFC_5321, "[2001:db8::1]:4", "[2001:db8::2]:25", false);
        let mut schedule = Schedule(schedule.iter().cycle());
        driver.upstream_sends(b"220 a\r\n");
        for command in ["EHLO client.example\r\n", "MAIL FROM:<a@a.example>\r\n", "RCPT TO:<bob@b.example>\r\n"] {
            driver.client_sends(command.as_bytes());
            while !driver.needs.is_empty() {
                driver.answer(schedule.next().0, answers);
            }
            if driver.closed {
                break;
            }
            if driver.to_upstream.ends_with(command.as_bytes()) {
                driver.upstream_sends(b"250 a\r\n");
            }
        }
        let read = replies(&driver.to_client);
        prop_assert!(!read.iter().any(|reply| reply.starts_with('5')), "{:?}", read);
        prop_assert!(driver.finish().verdict.action <= PolicyAction::Tempfail);
    }
}

/// `content` without forged fields, by a simple line-based implementation.
fn unforged(content: &str) -> String {
    let name = "gatepost-verdict";
    let (mut left, mut over, mut forged) = (String::new(), false, true);
    for line in content.split_inclusive("\r\n") {
        over |= line == "\r\n";
        let plain = line.strip_prefix('.').unwrap_or(line).to_ascii_lowercase();
        let named = plain.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':'));
        forged = !over && (named || forged && plain.starts_with([' ', '\t']));
        if !forged {
            left.push_str(line);
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_tagged_message_is_the_tag_and_the_content_without_forged_fields(
        lines in proptest::collection::vec(
            proptest::sample::select(vec![
                "Subject: x", "Gatepost-Verdict: a", "GATEPOST-verdict\t: a", ".Gatepost-Verdict: a", " folded",
                ". folded", "\tfolded", "Gatepost-Verdicts: a", "..", "", "text",
            ]),
            0..12,
        ),
        cuts in proptest::collection::vec(1usize..30, 1..12),
    ) {
        let tag = PolicyRule { exempt: Vec::new(), require: Vec::new(), ..rule("all", FactName::Fcrdns, PolicyAction::Tag) };
        let profile = Profile { rules: PolicyRules::new(vec![tag], Networks::default()).into(), ..Profile::default() };
        let mut driver = Driver::new(profile, Timeouts::RFC_5321, "[2001:db8::1]:4", "[2001:db8::2]:25", false);
        driver.upstream_sends(b"220 a\r\n");
        driver.client_sends(b"HELO a\r\n");
        driver.upstream_sends(b"250 a\r\n");
        driver.client_sends(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        driver.upstream_sends(b"250 b\r\n250 c\r\n354 d\r\n");
        let before = driver.to_upstream.len();
        let mut content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        content.push_str(".\r\n");
        let (mut rest, mut cuts) = (content.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            driver.client_sends(part);
            rest = more;
        }
        let sent = String::from_utf8_lossy(&driver.to_upstream[before..]).into_owned();
        prop_assert_eq!(sent, format!("Gatepost-Verdict: tag; rule=\"all\"\r\n{}", unforged(&content)));
    }
}
