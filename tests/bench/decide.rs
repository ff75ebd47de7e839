//! What a decision costs whose answers are all known.
//!
//! `cargo bench --bench decide` times `Rules::decide` at RCPT with the rules that people have: a confirmed reverse name, a
//! return path and a recipient; the target is 1 µs. Without `--bench` it only checks that it works.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figure")]

use std::hint::black_box;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use gatepost::addr::{Family, Networks};
use gatepost::policy::Action;
use gatepost::policy::facts::{
    Answer, Answered, Answers, DomainName, Level, Lookup, Over, Record, Source,
};
use gatepost::policy::rules::{
    Exempt, FactName, Mode, Moment, Require, Rule, Rules, Subject, When,
};
use rustix::time::{ClockId, clock_gettime};

/// The target, in nanoseconds.
const TARGET: f64 = 1000.0;
/// Decisions of one round.
const DECISIONS: u32 = 100_000;

fn rule(name: &str, fact: FactName, family: Option<Family>) -> Rule {
    Rule {
        name: name.into(),
        at: fact.moment(),
        when: When { family, ..When::default() },
        exempt: Exempt::ALL.to_vec(),
        require: vec![Require { fact, level: Level::Dns, over: Over::Any }],
        otherwise: Action::Tempfail,
        on_unknown: Action::Tempfail,
        mode: Mode::Enforce,
        url: None,
    }
}

/// Seconds of CPU that this thread took: what else the machine does is no matter.
fn cpu_time() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Asks and answers until nothing is asked any more.
fn settled(rules: &Rules, subject: &Subject<'_>) -> Result<Answers> {
    let name = |text: &str| DomainName::parse(text).context("a domain name");
    let mut known = Answers::default();
    loop {
        let decision = rules.decide(Moment::Rcpt, subject, &known);
        if decision.need.is_empty() {
            ensure!(decision.ruling == Some(None), "the session passes every rule");
            return Ok(known);
        }
        for lookup in decision.need {
            let answer = match &lookup {
                Lookup::Reverse(_) => {
                    Answer::Records(vec![Record::Name(name("mta-7.mail.sender.example")?)])
                }
                Lookup::MailExchanges(_) => Answer::Records(vec![
                    Record::Exchange { preference: 10, host: name("mx1.sender.example")? },
                    Record::Exchange { preference: 20, host: name("mx2.sender.example")? },
                ]),
                Lookup::Addresses(host, Family::Ipv6)
                    if *host == name("mta-7.mail.sender.example")? =>
                {
                    Answer::Records(vec![Record::Address(subject.client)])
                }
                Lookup::Addresses(_, Family::Ipv6) => {
                    Answer::Records(vec![Record::Address("2a00:1450:4001::25".parse()?)])
                }
                Lookup::Addresses(_, Family::Ipv4) => {
                    Answer::Records(vec![Record::Address("8.8.4.4".parse()?)])
                }
                _ => Answer::Yes(None),
            };
            known.insert(lookup, Answered { answer, source: Source::Dns, at: None });
        }
    }
}

fn main() -> Result<ExitCode> {
    // cargo bench passes --bench; without it (cargo test --benches) only the benchmark itself is tried.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 21 } else { 1 };
    let rules = Rules::new(
        vec![
            rule("ipv6 needs a forward-confirmed name", FactName::Fcrdns, Some(Family::Ipv6)),
            rule("senders can be mailed", FactName::ReturnPath, None),
            rule("recipients exist", FactName::Recipient, None),
        ],
        Networks::default(),
    );
    let subject = Subject {
        client: "2a00:1450:4001:1::25".parse()?,
        listener: "[2001:db8::25]:25".parse()?,
        helo: Some("mta-7.mail.sender.example"),
        sender: Some("alice@sender.example"),
        recipient: Some("bob@receiver.example"),
        tls: false,
        authenticated: false,
    };
    let known = settled(&rules, &subject)?;
    let mut nanoseconds: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = cpu_time();
            for _ in 0..DECISIONS {
                let subject = black_box(&subject);
                black_box(rules.decide(Moment::Rcpt, subject, black_box(&known)));
            }
            (cpu_time() - start) * 1e9 / f64::from(DECISIONS)
        })
        .collect();
    nanoseconds.sort_by(f64::total_cmp);
    let median = nanoseconds.get(nanoseconds.len() / 2).copied().unwrap_or_default();
    let (Some(best), Some(worst)) = (nanoseconds.first(), nanoseconds.last()) else {
        return Ok(ExitCode::FAILURE);
    };
    let judged = if median <= TARGET { "met" } else { "missed" };
    println!(
        "a cached decision: {median:.0} ns (of {rounds} rounds {best:.0} to {worst:.0}), target {TARGET:.0}: {judged}"
    );
    Ok(ExitCode::SUCCESS)
}
