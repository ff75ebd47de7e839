//! The cost of policy when all facts are known.
//!
//! `cargo bench --bench decide` measures typical rules (a confirmed reverse name, a return path and a recipient):
//! `Rules::decide` at RCPT, whose target is 1 µs; the engine's additional time for a RCPT with these rules, when the session
//! has the answers and when it needs a lookup; and a cached `LookupService::lookup`. Each figure is the median of the rounds.
//! Without `--bench` it only checks that the benchmark works.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use gatepost::addr::{ClientAddr, Family, Networks, OriginalDst, UpstreamAddr};
use gatepost::engine::{Action, Output, Profile, Proxy, Timeouts};
use gatepost::lookup::{LookupService, LookupSettings};
use gatepost::policy;
use gatepost::policy::facts::{
    Answer, Answers, DnsRecord, DomainName, Lookup, LookupResult, Source,
};
use gatepost::policy::rules::{
    Exemption, FactName, PolicyRule, PolicyRules, PolicyStage, Requirement, RuleMode, Subject, When,
};
use gatepost::time::Timestamp;
use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::rdata::AAAA;
use hickory_proto::rr::{self, RData};
use rustix::time::{ClockId, clock_gettime};

/// Target of a cached decision, in nanoseconds.
const TARGET: f64 = 1000.0;
/// Decisions per round.
const DECISIONS: u32 = 100_000;
/// Lookups per round.
const LOOKUPS: u32 = 100_000;
/// Sessions per round, and recipients per session.
const SESSIONS: u32 = 200;
const RECIPIENTS: u32 = 100;

const AT: Timestamp = Timestamp::from_nanos(1_767_323_045_000_000_000);
const CLIENT: &str = "2a00:1450:4001:1::25";
const LISTENER: &str = "[2001:db8::25]:25";
const HOST: &str = "mta-7.mail.sender.example";

fn rule(name: &str, fact: FactName, family: Option<Family>) -> PolicyRule {
    PolicyRule {
        name: name.into(),
        at: fact.stage(),
        when: When { family, ..When::default() },
        exempt: Exemption::ALL.to_vec(),
        require: vec![Requirement::new(fact)],
        otherwise: policy::PolicyAction::Tempfail,
        on_unknown: policy::PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    }
}

fn rules() -> PolicyRules {
    PolicyRules::new(
        vec![
            rule("ipv6 needs a forward-confirmed name", FactName::Fcrdns, Some(Family::Ipv6)),
            rule("senders can be mailed", FactName::ReturnPath, None),
            rule("recipients exist", FactName::Recipient, None),
        ],
        Networks::default(),
    )
}

fn answer(lookup: &Lookup) -> Result<LookupResult> {
    let name = |text: &str| DomainName::parse(text).context("a domain name");
    let answer = match lookup {
        Lookup::Reverse(_) => Answer::Records(vec![DnsRecord::Name(name(HOST)?)]),
        Lookup::MailExchanges(_) => Answer::Records(vec![
            DnsRecord::Exchange { preference: 10, host: name("mx1.sender.example")? },
            DnsRecord::Exchange { preference: 20, host: name("mx2.sender.example")? },
        ]),
        Lookup::Addresses(host, Family::Ipv6) if *host == name(HOST)? => {
            Answer::Records(vec![DnsRecord::Address(CLIENT.parse()?)])
        }
        Lookup::Addresses(_, Family::Ipv6) => {
            Answer::Records(vec![DnsRecord::Address("2a00:1450:4001::25".parse()?)])
        }
        Lookup::Addresses(_, Family::Ipv4) => {
            Answer::Records(vec![DnsRecord::Address("8.8.4.4".parse()?)])
        }
        _ => Answer::Yes(None),
    };
    Ok(LookupResult { answer, source: Source::Dns, at: Some(AT) })
}

/// Answers lookups until the decision needs no more.
fn settled(rules: &PolicyRules, subject: &Subject<'_>) -> Result<Answers> {
    let mut known = Answers::default();
    loop {
        let decision = rules.decide(PolicyStage::Rcpt, subject, &known);
        if decision.need.is_empty() {
            ensure!(decision.enforced == Some(None), "the session passes every rule");
            return Ok(known);
        }
        for lookup in decision.need {
            let answered = answer(&lookup)?;
            known.insert(lookup, answered);
        }
    }
}

/// Nanoseconds per operation.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// CPU time of this thread, which other load does not affect.
    cpu: f64,
    wall: f64,
}

impl Cost {
    /// The cost of one of the `count` operations in `work`.
    fn of(count: u32, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let cpu = || {
            let spent = clock_gettime(ClockId::ThreadCPUTime);
            spent.tv_sec as f64 * 1e9 + spent.tv_nsec as f64
        };
        let (began, before) = (Instant::now(), cpu());
        work()?;
        let (cpu, wall) = (cpu() - before, began.elapsed().as_secs_f64() * 1e9);
        Ok(Self { cpu: cpu / f64::from(count), wall: wall / f64::from(count) })
    }
}

/// The median over the rounds; prints it with the range of the CPU times.
fn median(what: &str, rounds: usize, mut of: impl FnMut() -> Result<Cost>) -> Result<Cost> {
    let costs: Vec<Cost> = (0..rounds).map(|_| of()).collect::<Result<_>>()?;
    let sorted = |of: fn(&Cost) -> f64| {
        let mut figures: Vec<f64> = costs.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures
    };
    let (cpu, wall) = (sorted(|cost| cost.cpu), sorted(|cost| cost.wall));
    let middle = |figures: &[f64]| figures.get(figures.len() / 2).copied().unwrap_or_default();
    let (best, worst) = (cpu.iter().fold(f64::MAX, |a, &b| a.min(b)), cpu.last().copied());
    let median = Cost { cpu: middle(&cpu), wall: middle(&wall) };
    println!(
        "{what}: {:.0} ns CPU, {:.0} ns wall ({rounds} rounds, {best:.0} to {:.0} ns CPU)",
        median.cpu,
        median.wall,
        worst.unwrap_or_default(),
    );
    Ok(median)
}

/// A session without sockets, whose lookups are answered at once.
struct Conversation {
    engine: Proxy,
    out: Output,
}

impl Conversation {
    /// A session after MAIL.
    fn start(profile: &Arc<Profile>) -> Result<Self> {
        let client = ClientAddr::new(SocketAddr::new(CLIENT.parse()?, 40_000));
        let destination = OriginalDst::new(LISTENER.parse()?);
        let profile = Arc::clone(profile);
        let engine = Proxy::new(profile, Timeouts::RFC_5321, client, destination, AT);
        let mut new = Self { engine, out: Output::default() };
        ensure!(new.engine.open(None, &mut new.out), "an upstream is needed");
        new.engine.on_connected(UpstreamAddr::new("[2001:db8::26]:25".parse()?), AT, &mut new.out);
        new.apply_actions()?;
        new.upstream("220 mx.receiver.example ESMTP\r\n")?;
        new.exchange(&format!("EHLO {HOST}\r\n"), "250 mx.receiver.example\r\n")?;
        new.exchange("MAIL FROM:<alice@sender.example>\r\n", "250 2.1.0 Ok\r\n")?;
        Ok(new)
    }

    /// Passes a command and its reply through the engine, which must consume both.
    fn exchange(&mut self, command: &str, reply: &str) -> Result<()> {
        let mut left = command.as_bytes();
        loop {
            let used = self.engine.on_client_data(left, AT, &mut self.out);
            left = left.get(used..).unwrap_or_default();
            let answered = self.apply_actions()?;
            if left.is_empty() {
                return self.upstream(reply);
            }
            ensure!(answered, "it waits for answers only: {command}");
        }
    }

    fn upstream(&mut self, reply: &str) -> Result<()> {
        let used = self.engine.on_server_data(reply.as_bytes(), AT, &mut self.out);
        ensure!(used == reply.len(), "the reply is relayed: {reply}");
        self.apply_actions().map(|_| ())
    }

    /// Answers the engine's lookups; returns whether there were any.
    fn apply_actions(&mut self) -> Result<bool> {
        let mut answered = false;
        loop {
            let needed = self.out.actions.iter().filter_map(|action| match action {
                Action::Need(lookups) => Some(lookups),
                _ => None,
            });
            let each = needed.flatten().map(|lookup| Ok((lookup.clone(), answer(lookup)?)));
            let answers = each.collect::<Result<Vec<_>>>()?;
            self.out.clear();
            if answers.is_empty() {
                return Ok(answered);
            }
            answered = true;
            self.engine.on_answers(answers, AT, &mut self.out);
        }
    }

    fn recipients(&mut self, commands: &[String]) -> Result<()> {
        commands.iter().try_for_each(|command| self.exchange(command, "250 2.1.5 Ok\r\n"))
    }
}

/// The cost of a RCPT, first with a lookup of the recipient, then with its result known.
fn recipients(profile: &Arc<Profile>, commands: &[String]) -> Result<[Cost; 2]> {
    let (mut first, mut known) = (Cost::default(), Cost::default());
    for _ in 0..SESSIONS {
        let mut session = Conversation::start(profile)?;
        for cost in [&mut first, &mut known] {
            let one = Cost::of(RECIPIENTS * SESSIONS, || session.recipients(commands))?;
            cost.cpu += one.cpu;
            cost.wall += one.wall;
            session.exchange("RSET\r\n", "250 2.0.0 Ok\r\n")?;
            session.exchange("MAIL FROM:<alice@sender.example>\r\n", "250 2.1.0 Ok\r\n")?;
        }
    }
    Ok([first, known])
}

fn engine(rounds: usize) -> Result<()> {
    let commands: Vec<String> =
        (0..RECIPIENTS).map(|n| format!("RCPT TO:<bob-{n}@receiver.example>\r\n")).collect();
    let with = Arc::new(Profile { rules: Arc::new(rules()), ..Profile::default() });
    let without = Arc::new(Profile::default());
    for (place, what) in ["looked up", "known"].into_iter().enumerate() {
        let of =
            |profile| Ok(recipients(profile, &commands)?.get(place).copied().unwrap_or_default());
        let with = median(&format!("the engine's RCPT, {what}, with rules"), rounds, || of(&with))?;
        let without = median("  without rules", rounds, || of(&without))?;
        println!("  the rules' part: {:.0} ns CPU", with.cpu - without.cpu);
    }
    Ok(())
}

/// A DNS server that answers every query with one AAAA record.
fn name_server() -> Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    let serve = move || -> Result<()> {
        let mut octets = [0; 2048];
        loop {
            let (count, peer) = socket.recv_from(&mut octets)?;
            let query = Message::from_vec(octets.get(..count).unwrap_or_default())?;
            let question = query.queries.first().context("a question")?.clone();
            let data = RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
            let record = rr::Record::from_rdata(question.name().clone(), 86_400, data);
            let mut response = Message::response(query.metadata.id, OpCode::Query);
            response.add_query(question);
            response.add_answer(record);
            socket.send_to(&response.to_vec()?, peer)?;
        }
    };
    // It stops with the process.
    thread::spawn(serve);
    Ok(address)
}

fn reach(rounds: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings =
        LookupSettings { dns_servers: vec![name_server()?], ..LookupSettings::default() };
    let start = async { LookupService::start(settings, Arc::new(())) };
    let (reach, _) = runtime.block_on(start)?;
    let lookup = Lookup::Addresses(DomainName::parse(HOST).context("a domain name")?, Family::Ipv6);
    let first = runtime.block_on(reach.lookup(&lookup));
    ensure!(matches!(first.answer, Answer::Records(_)), "the server answers: {first:?}");
    median("LookupService::lookup of what is cached", rounds, || {
        Cost::of(LOOKUPS, || {
            runtime.block_on(async {
                for _ in 0..LOOKUPS {
                    black_box(reach.lookup(black_box(&lookup)).await);
                }
            });
            Ok(())
        })
    })?;
    ensure!(runtime.block_on(reach.lookup(&lookup)) == first, "it is the answer that was cached");
    Ok(())
}

fn main() -> Result<ExitCode> {
    // cargo bench passes --bench; without it (cargo test --benches) this only checks that the benchmark works.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 21 } else { 1 };
    let rules = rules();
    let client: IpAddr = CLIENT.parse()?;
    let subject = Subject {
        client,
        destination: LISTENER.parse()?,
        listener: Some("mx"),
        helo: Some(HOST),
        sender: Some("alice@sender.example"),
        recipient: Some("bob@receiver.example"),
        message: None,
        tls: false,
        authenticated: false,
    };
    let known = settled(&rules, &subject)?;
    let decision = median("a cached decision", rounds, || {
        Cost::of(DECISIONS, || {
            for _ in 0..DECISIONS {
                let subject = black_box(&subject);
                black_box(rules.decide(PolicyStage::Rcpt, subject, black_box(&known)));
            }
            Ok(())
        })
    })?;
    let judged = if decision.cpu <= TARGET { "met" } else { "missed" };
    println!("  target {TARGET:.0} ns: {judged}");
    engine(rounds)?;
    reach(rounds)?;
    Ok(ExitCode::SUCCESS)
}
