//! Tables of answers and the facts that follow from them.

mod authentication;
mod probe;

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::addr::{Family, Networks};
use crate::time::Timestamp;

const CLIENT: &str = "2001:db8::25";

fn name(text: &str) -> DomainName {
    match text {
        "." => DomainName::from(hickory_proto::rr::Name::root()),
        _ => DomainName::parse(text).unwrap(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn lookup(kind: &str, of: &str) -> Lookup {
    match kind {
        "PTR" => Lookup::Reverse(ip(of)),
        "A" => Lookup::Addresses(name(of), Family::Ipv4),
        "AAAA" => Lookup::Addresses(name(of), Family::Ipv6),
        "MX" => Lookup::MailExchanges(name(of)),
        "CONNECT" => Lookup::Connect(ip(of)),
        "GREET" => Lookup::Greet(ip(of)),
        "CALLOUT" => Lookup::Callout(ip(of), String::from("u@a.example")),
        "RECIPIENT" => Lookup::Recipient(String::from(of)),
        "RECEIVE" => {
            Lookup::ReceivePath(Family::ALL.into_iter().find(|f| f.as_str() == of).unwrap())
        }
        _ => panic!("no type {kind}"),
    }
}

fn answer(kind: &str, words: &[&str]) -> Answer {
    let record = |text: &&str| match (kind, text.split_once('/')) {
        ("PTR", _) => DnsRecord::Name(name(text)),
        ("MX", Some((preference, host))) => {
            DnsRecord::Exchange { preference: preference.parse().unwrap(), host: name(host) }
        }
        _ => DnsRecord::Address(ip(text)),
    };
    let reason = |word: &str| Reason::ALL.into_iter().find(|r| r.as_str() == word).unwrap();
    match words {
        ["yes"] => Answer::Yes(None),
        ["no", word] => Answer::No(reason(word), None),
        ["unknown", word] => Answer::Unknown(reason(word)),
        ["nxdomain"] => Answer::NxDomain,
        ["nodata"] => Answer::NoData,
        ["servfail"] => Answer::Unknown(Reason::Servfail),
        ["timeout"] => Answer::Unknown(Reason::Timeout),
        records => Answer::Records(records.iter().map(record).collect()),
    }
}

/// `TYPE OWNER ANSWER…`, separated by `;`: MX as `PREFERENCE/HOST`, and `yes`, `no REASON` or `unknown REASON` for lookups
/// other than DNS queries. Lookups that are not listed have no resolver.
fn results(text: &str) -> Vec<(Lookup, LookupResult)> {
    let lines = text.split(';').map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let answered = LookupResult {
                answer: answer(words[0], &words[2..]),
                source: Source::Zone,
                at: None,
            };
            (lookup(words[0], words[1]), answered)
        })
        .collect()
}

/// Evaluates `fact` with the answers in `results`; `choose` selects which of several lookups to answer first.
fn settle(
    results: &[(Lookup, LookupResult)],
    fact: impl Fn(&Answers) -> Evaluation,
    mut choose: impl FnMut(usize) -> usize,
) -> Fact {
    let mut known = Answers::default();
    for _ in 0..100 {
        let needed = match fact(&known) {
            Evaluation::Known(fact) => return fact,
            Evaluation::NeedsLookups(needed) => needed,
        };
        assert!(!needed.is_empty(), "neither known nor in need of lookups");
        assert!(needed.iter().all(|lookup| known.get(lookup).is_none()), "needed twice");
        let lookup = needed[choose(needed.len())].clone();
        let listed = results.iter().find(|(known, _)| *known == lookup);
        let missing = LookupResult {
            answer: Answer::Unknown(Reason::NoResolver),
            source: Source::None,
            at: None,
        };
        known.insert(lookup, listed.map_or(missing, |(_, result)| result.clone()));
    }
    panic!("never known");
}

/// `true DETAIL`, `false REASON DETAIL`, `unknown REASON`.
fn describe(fact: &Fact) -> String {
    let detail = fact.detail.as_ref().map(ToString::to_string);
    let words = [Some(fact.state.as_str()), fact.reason.map(Reason::as_str), detail.as_deref()];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn table(rows: &[(&str, &str, &str)], fact: impl Fn(&str, &Answers) -> Evaluation) {
    for (subject, answers, expected) in rows {
        let results = results(answers);
        let found = settle(&results, |known| fact(subject, known), |_| 0);
        assert_eq!(describe(&found), *expected, "{subject} with {answers}");
    }
}

#[test]
fn reverse_name_needs_a_ptr() {
    let rows = [
        (CLIENT, "PTR 2001:db8::25 mx.a.example", "true mx.a.example"),
        (CLIENT, "PTR 2001:db8::25 b.example a.example", "true a.example"),
        (CLIENT, "PTR 2001:db8::25 nxdomain", "false no_ptr"),
        (CLIENT, "PTR 2001:db8::25 nodata", "false no_ptr"),
        (CLIENT, "PTR 2001:db8::25 servfail", "unknown servfail"),
        (CLIENT, "PTR 2001:db8::25 timeout", "unknown timeout"),
        (CLIENT, "", "unknown no_resolver"),
        ("::ffff:192.0.2.1", "PTR 192.0.2.1 mx.a.example", "true mx.a.example"),
    ];
    table(&rows, |client, known| reverse_name(ip(client), known));
}

#[test]
fn fcrdns_fails_in_three_ways() {
    let many = (0..MAX_NAMES + 5).map(|n| format!("n{n:02}.example")).collect::<Vec<_>>();
    let ptrs = format!("PTR 2001:db8::25 {}", many.join(" "));
    let all = |last: &str| {
        let lookups = many.iter().map(|name| format!("; AAAA {name} nxdomain"));
        lookups
            .collect::<String>()
            .replace(&format!("{last} nxdomain"), &format!("{last} {CLIENT}"))
    };
    let (in_cap, beyond) = (ptrs.clone() + &all("n09.example"), ptrs.clone() + &all("n12.example"));
    let ours = "PTR 2001:db8::25 mx.a.example; ";
    let two = "PTR 2001:db8::25 a.example b.example; ";
    let with = |before: &str, rest: &str| format!("{before}{rest}");
    let rows = [
        (with(ours, "AAAA mx.a.example 2001:db8::25"), "true mx.a.example"),
        (with(ours, "AAAA MX.a.Example. 2001:db8::25"), "true mx.a.example"),
        (with(ours, "AAAA mx.a.example 2001:db8::24 2001:db8::25"), "true mx.a.example"),
        // Another address of the same /64.
        (with(ours, "AAAA mx.a.example 2001:db8::24"), "false not_confirmed mx.a.example"),
        (with(ours, "AAAA mx.a.example nxdomain"), "false not_confirmed mx.a.example"),
        (with(ours, "AAAA mx.a.example nodata"), "false not_confirmed mx.a.example"),
        // The other family does not count.
        (
            with(ours, "AAAA mx.a.example nodata; A mx.a.example 192.0.2.25"),
            "false not_confirmed mx.a.example",
        ),
        (with(ours, "AAAA mx.a.example servfail"), "unknown servfail"),
        (with(ours, "AAAA mx.a.example timeout"), "unknown timeout"),
        (ours.to_owned(), "unknown no_resolver"),
        (String::from("PTR 2001:db8::25 nxdomain"), "false no_ptr"),
        (String::from("PTR 2001:db8::25 nodata"), "false no_ptr"),
        (String::from("PTR 2001:db8::25 servfail"), "unknown servfail"),
        (String::from("PTR 2001:db8::25 timeout"), "unknown timeout"),
        (String::new(), "unknown no_resolver"),
        // A hostile PTR.
        (String::from("PTR 2001:db8::25 ."), "false not_confirmed ."),
        // Confirmation takes precedence over unknown, that over a name that does not confirm.
        (with(two, "AAAA a.example servfail; AAAA b.example 2001:db8::25"), "true b.example"),
        (with(two, "AAAA a.example 2001:db8::25; AAAA b.example servfail"), "true a.example"),
        (with(two, "AAAA a.example nxdomain; AAAA b.example 2001:db8::25"), "true b.example"),
        (with(two, "AAAA a.example nxdomain; AAAA b.example timeout"), "unknown timeout"),
        (with(two, "AAAA a.example servfail; AAAA b.example nodata"), "unknown servfail"),
        (with(two, "AAAA a.example ::1; AAAA b.example nodata"), "false not_confirmed a.example"),
        (in_cap, "true n09.example"),
        (beyond, "false not_confirmed n00.example"),
    ];
    for (answers, expected) in &rows {
        table(&[(CLIENT, answers, expected)], |client, known| fcrdns(ip(client), known));
    }
    let v4 = "PTR 192.0.2.25 mx.a.example; A mx.a.example 192.0.2.25; AAAA mx.a.example nodata";
    // An AAAA record with a v4-mapped address is not an A record.
    let mapped = "PTR 192.0.2.25 m.example; A m.example nodata; AAAA m.example ::ffff:192.0.2.25";
    let rows = [
        ("192.0.2.25", v4, "true mx.a.example"),
        ("::ffff:192.0.2.25", v4, "true mx.a.example"),
        ("192.0.2.25", mapped, "false not_confirmed m.example"),
    ];
    table(&rows, |client, known| fcrdns(ip(client), known));
}

#[test]
fn helo_resolves_accepts_domains_and_literals() {
    let rows = [
        ("mx.a.example", "AAAA mx.a.example 2001:db8::1", "true mx.a.example 2001:db8::1"),
        (
            "MX.A.EXAMPLE.",
            "A mx.a.example 192.0.2.1; AAAA mx.a.example servfail",
            "true mx.a.example 192.0.2.1",
        ),
        ("a.example", "A a.example nodata; AAAA a.example servfail", "unknown servfail"),
        ("a.example", "A a.example nodata; AAAA a.example nodata", "false no_usable_address"),
        ("a.example", "A a.example nxdomain; AAAA a.example nxdomain", "false no_usable_address"),
        (
            "localhost",
            "A localhost 127.0.0.1; AAAA localhost ::1",
            "false no_usable_address localhost 127.0.0.1",
        ),
        ("a.example", "", "unknown no_resolver"),
        ("[192.0.2.1]", "", "true 192.0.2.1"),
        ("[IPv6:2001:db8::1]", "", "true 2001:db8::1"),
        ("[127.0.0.1]", "", "false no_usable_address 127.0.0.1"),
        ("192.0.2.1", "", "false not_a_domain"),
        ("[nonsense]", "", "false not_a_domain"),
        ("", "", "false not_a_domain"),
    ];
    table(&rows, helo_resolves);
}

fn over(over: FamilyRequirement, family: Family) -> impl Fn(&str, &Answers) -> Evaluation {
    let ours = Networks::new(["2001:db8:25::/48".parse().unwrap()]);
    move |sender, known| {
        return_path(
            &ReturnPathCheck { sender, family, over, level: ReturnPathLevel::Dns, ours: &ours },
            known,
        )
    }
}

#[test]
fn return_path_over_any_family() {
    let both = "MX a.example 10/mx.a.example; A mx.a.example 192.0.2.1; AAAA mx.a.example ";
    let mx = "MX a.example 10/mx.a.example; A mx.a.example nodata; AAAA mx.a.example ";
    let none = "false no_usable_address";
    let rows = [
        ("u@a.example", format!("{both} 2001:db8::1"), "true mx.a.example 2001:db8::1"),
        ("u@A.Example", format!("{both} nodata"), "true mx.a.example 192.0.2.1"),
        // One working family is enough.
        ("u@a.example", format!("{both} servfail"), "true mx.a.example 192.0.2.1"),
        ("u@a.example", format!("{both} ::1"), "true mx.a.example 192.0.2.1"),
        ("u@a.example", format!("{mx} nodata"), none),
        ("u@a.example", format!("{mx} nxdomain"), none),
        ("u@a.example", format!("{mx} servfail"), "unknown servfail"),
        ("u@a.example", format!("{mx} ::1"), "false no_usable_address mx.a.example ::1"),
        ("u@a.example", format!("{mx} ::"), "false no_usable_address mx.a.example ::"),
        ("u@a.example", format!("{mx} fe80::1"), "false no_usable_address mx.a.example fe80::1"),
        ("u@a.example", format!("{mx} fd00::1"), "false no_usable_address mx.a.example fd00::1"),
        ("u@a.example", format!("{mx} ff02::1"), "false no_usable_address mx.a.example ff02::1"),
        (
            "u@a.example",
            format!("{mx} ::ffff:192.0.2.1"),
            "false no_usable_address mx.a.example ::ffff:192.0.2.1",
        ),
        // Our own network.
        (
            "u@a.example",
            format!("{mx} 2001:db8:25::1"),
            "false no_usable_address mx.a.example 2001:db8:25::1",
        ),
        ("u@a.example", format!("{mx} ::1 2001:db8::1"), "true mx.a.example 2001:db8::1"),
        // Implicit MX, only without MX records.
        (
            "u@a.example",
            String::from("MX a.example nodata; A a.example 192.0.2.1; AAAA a.example nodata"),
            "true a.example 192.0.2.1",
        ),
        (
            "u@a.example",
            String::from("MX a.example nodata; A a.example nodata; AAAA a.example nodata"),
            none,
        ),
        ("u@a.example", format!("{mx} nodata; A a.example 192.0.2.1"), none),
        (
            "u@a.example",
            String::from("MX a.example servfail; A a.example 192.0.2.1"),
            "unknown servfail",
        ),
        ("u@a.example", String::from("A a.example 192.0.2.1"), "unknown no_resolver"),
        ("u@a.example", String::from("MX a.example nxdomain"), "false nxdomain"),
        ("u@a.example", String::from("MX a.example 0/."), "false null_mx"),
        (
            "u@a.example",
            format!("{both} 2001:db8::1").replace(" 10/", " 0/. 10/"),
            "true mx.a.example 2001:db8::1",
        ),
        (
            "u@a.example",
            String::from(
                "MX a.example 20/b.example 10/c.example; A c.example 10.0.0.1; AAAA c.example nodata; \
                 AAAA b.example 2001:db8::b; A b.example servfail",
            ),
            "true b.example 2001:db8::b",
        ),
        (
            "u@a.example",
            String::from(
                "MX a.example 20/b.example 10/c.example; A c.example 169.254.0.1; AAAA c.example nodata; \
                 AAAA b.example timeout; A b.example nxdomain",
            ),
            "unknown timeout",
        ),
        ("", String::new(), "true null_sender"),
        ("postmaster", String::new(), "false not_a_domain"),
        ("u@", String::new(), "false not_a_domain"),
        ("u@a..example", String::new(), "false not_a_domain"),
        ("u@[192.0.2.1]", String::new(), "true 192.0.2.1"),
        ("u@[127.0.0.1]", String::new(), "false no_usable_address 127.0.0.1"),
        ("u@[IPv6:2001:db8:25::1]", String::new(), "false no_usable_address 2001:db8:25::1"),
        ("\"a@b\"@a.example", String::from("MX a.example nxdomain"), "false nxdomain"),
    ];
    for (sender, answers, expected) in &rows {
        table(&[(sender, answers, expected)], over(FamilyRequirement::Any, Family::Ipv6));
    }
}

#[test]
fn return_path_over_one_family() {
    let six = "MX a.example 10/m.example; A m.example nodata; AAAA m.example 2001:db8::1";
    let four = "MX a.example 10/m.example; A m.example 192.0.2.1; AAAA m.example nodata";
    // A failure in a family that is not required has no effect.
    let lame = "MX a.example 10/m.example; A m.example 192.0.2.1; AAAA m.example servfail";
    let (yes6, yes4) = ("true m.example 2001:db8::1", "true m.example 192.0.2.1");
    let no = "false no_usable_address";
    for (rule, client, answers, expected) in [
        (FamilyRequirement::Ipv6, Family::Ipv4, six, yes6),
        (FamilyRequirement::Ipv6, Family::Ipv4, four, no),
        (FamilyRequirement::Ipv6, Family::Ipv4, lame, "unknown servfail"),
        (FamilyRequirement::Ipv4, Family::Ipv6, four, yes4),
        (FamilyRequirement::Ipv4, Family::Ipv6, lame, yes4),
        (FamilyRequirement::Ipv4, Family::Ipv6, six, no),
        (FamilyRequirement::SameFamily, Family::Ipv6, six, yes6),
        (FamilyRequirement::SameFamily, Family::Ipv6, four, no),
        (FamilyRequirement::SameFamily, Family::Ipv4, four, yes4),
        (FamilyRequirement::SameFamily, Family::Ipv4, six, no),
        (FamilyRequirement::Any, Family::Ipv4, six, yes6),
        (FamilyRequirement::Any, Family::Ipv6, four, yes4),
    ] {
        table(&[("u@a.example", answers, expected)], over(rule, client));
    }
    table(
        &[("u@[192.0.2.1]", "", "false no_usable_address 192.0.2.1")],
        over(FamilyRequirement::Ipv6, Family::Ipv6),
    );
}

#[test]
fn a_fact_has_the_greatest_source_and_the_oldest_time() {
    let mut known = Answers::default();
    let mut add = |kind, of, words: &[&str], source, at: Option<u64>| {
        let at = at.map(Timestamp::from_nanos);
        known.insert(lookup(kind, of), LookupResult { answer: answer(kind, words), source, at });
    };
    add("PTR", CLIENT, &["a.example", "b.example"], Source::Capture, Some(7));
    add("AAAA", "a.example", &["2001:db8::1"], Source::Dns, Some(3));
    add("AAAA", "b.example", &[CLIENT], Source::Zone, None);
    let at = |nanos| Some(Timestamp::from_nanos(nanos));
    let Evaluation::Known(fact) = fcrdns(ip(CLIENT), &known) else { panic!("all is known") };
    // Without a.example.
    assert_eq!(describe(&fact), "true b.example");
    assert_eq!((fact.source, fact.at), (Source::Zone, at(7)));
    let mut change = |answer, source, at| {
        known.insert(lookup("AAAA", "b.example"), LookupResult { answer, source, at });
        let Evaluation::Known(fact) = fcrdns(ip(CLIENT), &known) else { panic!("all is known") };
        (fact.state, fact.source, fact.at)
    };
    assert_eq!(
        change(Answer::NoData, Source::Zone, None),
        (FactState::False, Source::Dns, at(3)),
        "of all answers"
    );
    assert_eq!(
        change(Answer::Unknown(Reason::Timeout), Source::Zone, at(9)),
        (FactState::Unknown, Source::Zone, at(9)),
        "of the failed lookup only"
    );
    let mut known = Answers::default();
    known.insert(
        lookup("RECIPIENT", "u@a.example"),
        LookupResult { answer: Answer::Yes(None), source: Source::Upstream, at: at(5) },
    );
    let Evaluation::Known(fact) = recipient("u@a.example", &known) else { panic!("all is known") };
    assert_eq!((fact.source, fact.at), (Source::Upstream, at(5)));
}

#[test]
fn facts_of_one_lookup() {
    let rows = [
        ("u@b.example", "RECIPIENT u@b.example yes", "true"),
        ("u@b.example", "RECIPIENT u@b.example no no_such_mailbox", "false no_such_mailbox"),
        ("u@b.example", "RECIPIENT u@b.example unknown upstream_down", "unknown upstream_down"),
        ("u@b.example", "RECIPIENT u@b.example nxdomain", "unknown no_resolver"),
        ("u@b.example", "", "unknown no_resolver"),
    ];
    table(&rows, recipient);
    let rows = [
        ("ipv6", "RECEIVE ipv6 yes", "true"),
        ("ipv6", "RECEIVE ipv6 no not_reached; RECEIVE ipv4 yes", "false not_reached"),
        ("ipv4", "RECEIVE ipv6 no not_reached; RECEIVE ipv4 yes", "true"),
        ("ipv4", "RECEIVE ipv4 unknown no_proof", "unknown no_proof"),
    ];
    table(&rows, |family, known| {
        receive_path(Family::ALL.into_iter().find(|f| f.as_str() == family).unwrap(), known)
    });
}

/// The types do not tie answers to lookups: an answer of the wrong kind proves nothing.
#[test]
fn an_answer_of_another_kind_is_unknown() {
    let rows = [(CLIENT, "PTR 2001:db8::25 yes", "unknown no_resolver")];
    table(&rows, |client, known| reverse_name(ip(client), known));
    let rows = [
        (CLIENT, "PTR 2001:db8::25 no no_response", "unknown no_resolver"),
        (
            CLIENT,
            "PTR 2001:db8::25 a.example; AAAA a.example no no_response",
            "unknown no_resolver",
        ),
    ];
    table(&rows, |client, known| fcrdns(ip(client), known));
    let rows = [
        ("u@a.example", "MX a.example no null_mx", "unknown no_resolver"),
        (
            "u@a.example",
            "MX a.example 10/m.example; A m.example nodata; AAAA m.example yes",
            "unknown no_resolver",
        ),
    ];
    table(&rows, over(FamilyRequirement::Any, Family::Ipv6));
}

#[test]
fn recorded_answers_are_read_back() {
    let text = "PTR 2001:db8::25 a.example b_c.example; AAAA a.example 2001:db8::25 ::ffff:192.0.2.1; \
         A a.example nodata; MX a.example 10/mx.a.example 0/.; MX b.example nxdomain; \
         MX c.example servfail; CONNECT 192.0.2.1 yes; GREET 2001:db8::1 no established_but_stalled; \
         CALLOUT 192.0.2.1 unknown rate_limited; RECIPIENT \"a\\é\"@b.example no no_such_mailbox; \
         RECEIVE ipv6 unknown no_proof";
    let mut known = Answers::default();
    for (n, (lookup, result)) in (0..).zip(results(text)) {
        let at = (n % 2 == 0).then(|| Timestamp::from_nanos(1_767_323_045_000_001_000 + n * 1000));
        known.insert(lookup, LookupResult { at, ..result });
    }
    let json = known.to_json();
    assert_eq!(Answers::from_json(&json).unwrap(), known, "{json}");
    assert!(Answers::from_json("omitted, 50000 octets").is_err());
    let mut one = Answers::default();
    results("PTR 192.0.2.1 a.example").into_iter().for_each(|(l, a)| one.insert(l, a));
    assert_eq!(
        one.to_json(),
        r#"[[{"reverse":"192.0.2.1"},{"answer":{"records":[{"name":"a.example"}]},"source":"zone","at":null}]]"#
    );
}

#[test]
fn reasons_of_older_recordings_are_understood() {
    for (old, reason) in [
        ("no_source", Reason::NoResolver),
        ("silent", Reason::NoResponse),
        ("stalled", Reason::EstablishedButStalled),
        ("turned_away", Reason::RejectedBeforeRcpt),
        ("limited", Reason::RateLimited),
    ] {
        let json = format!(
            r#"[[{{"connect":"192.0.2.1"}},{{"answer":{{"unknown":"{old}"}},"source":"probe","at":null}}]]"#
        );
        let answers = Answers::from_json(&json).unwrap();
        let result = answers.get(&Lookup::Connect(ip("192.0.2.1"))).unwrap();
        assert_eq!(result.answer, Answer::Unknown(reason));
    }
}

#[test]
fn the_json_form() {
    let at = Some(Timestamp::from_nanos(1_000_000_000));
    let provenance = Provenance { source: Source::Capture, at };
    let host = DomainName::parse("mx.a.example").unwrap();
    let facts = Facts {
        reverse_name: Some(Fact::holds(provenance, Some(Detail::Name(host)))),
        return_path: Some(Fact::unknown(Reason::NoResolver, Provenance::NO_LOOKUP)),
        ..Facts::default()
    };
    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(
        json,
        r#"{"reverse_name":{"state":"true","reason":null,"source":"capture","detail":"mx.a.example","at":"1970-01-01T00:00:01.000000Z"},"fcrdns":null,"helo_resolves":null,"return_path":{"state":"unknown","reason":"no_resolver","source":"none","detail":null,"at":null},"recipient":null,"receive_path":null,"spf":null,"dkim":null,"dmarc":null,"authenticated":null}"#
    );
}

/// Answers to an address lookup; `X` is the suitable address.
fn any_addresses() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "X",
        "2001:db8::1 X",
        "2001:db8::1",
        "nodata",
        "nxdomain",
        "servfail",
        "timeout",
    ])
}

proptest! {
    /// The state is that with all answers, whatever their order.
    #[test]
    fn the_order_of_answers_does_not_matter(
        answers in prop::collection::vec(any_addresses(), 0..6),
        order in prop::collection::vec(any::<usize>(), 40),
        back in any::<bool>(),
    ) {
        let suitable = if back { "192.0.2.1" } else { CLIENT };
        let answers: Vec<_> = answers.iter().map(|answer| answer.replace('X', CLIENT)).collect();
        let hosts: Vec<_> = (0..answers.len()).map(|n| format!("h{n}.example")).collect();
        let listed = |with: &str| hosts.iter().map(|h| format!("{with}{h}")).collect::<Vec<_>>().join(" ");
        let listed = if back { listed("10/") } else { listed("") };
        let first = if hosts.is_empty() { "nodata" } else { listed.as_str() };
        let kind = if back { "MX a.example" } else { "PTR 2001:db8::25" };
        let mut text = format!("{kind} {first}; A a.example nodata; AAAA a.example nodata");
        for (host, answer) in hosts.iter().zip(&answers) {
            let answer = answer.replace(CLIENT, suitable).replace("2001:db8::1", "10.0.0.1");
            let (kind, other) = if back { ("A", "AAAA") } else { ("AAAA", "A") };
            let answer = if back { answer } else { answer.replace("10.0.0.1", "2001:db8::1") };
            text += &format!("; {kind} {host} {answer}; {other} {host} nodata");
        }
        let results = results(&text);
        let ours = Networks::default();
        let check = ReturnPathCheck { sender: "u@a.example", family: Family::Ipv6, over: FamilyRequirement::Any, level: ReturnPathLevel::Dns, ours: &ours };
        let fact = |known: &Answers| match back {
            true => return_path(&check, known),
            false => fcrdns(ip(CLIENT), known),
        };
        let mut numbers = order.iter().cycle();
        let shuffled = settle(&results, fact, |count| numbers.next().unwrap() % count);
        let expected = if answers.iter().any(|answer| answer.contains(CLIENT)) {
            FactState::True
        } else if answers.iter().any(|answer| matches!(answer.as_str(), "servfail" | "timeout")) {
            FactState::Unknown
        } else {
            FactState::False
        };
        prop_assert_eq!(shuffled.state, expected);
        if expected != FactState::True {
            prop_assert_eq!(shuffled, settle(&results, fact, |_| 0));
        }
    }
}
