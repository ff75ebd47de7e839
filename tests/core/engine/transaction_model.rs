//! Random clients and a random strict server: rejected commands, several HELOs, AUTH between transactions, nested MAIL,
//! pipelined or not. The server is the reference: the policy decides on the envelope that the server used, the record has
//! what the server accepted, and an observer of the same dialogue records and decides the same.
//!
//! The rules are random as well: facts, conditions on domains, exemptions. A reference, which knows nothing of the engine,
//! says of each recipient that the server received whether the first matching rule lets it pass.

use proptest::prelude::*;

use gatepost::addr::Networks;
use gatepost::engine::{Profile, Timeouts};
use gatepost::policy::PolicyAction;
use gatepost::policy::facts::DomainName;
use gatepost::policy::rules::{
    Domains, Exemption, FactName, PolicyRule, PolicyRules, PolicyStage, When,
};

use crate::engine::driver::Driver;
use crate::engine::policy::{good, require, rule};

#[derive(Clone, Copy, Debug)]
enum Command {
    Ehlo(&'static str),
    Helo(&'static str),
    Mail(&'static str),
    Rcpt(&'static str),
    Rset,
    RsetNow,
    Auth,
    Noop,
    Data,
    Bdat { last: bool },
}

impl Command {
    fn bytes(self) -> String {
        match self {
            Self::Ehlo(name) => format!("EHLO {name}\r\n"),
            Self::Helo(name) => format!("HELO {name}\r\n"),
            Self::Mail(sender) => format!("MAIL FROM:<{sender}>\r\n"),
            Self::Rcpt(recipient) => format!("RCPT TO:<{recipient}>\r\n"),
            Self::Rset => "RSET\r\n".to_owned(),
            Self::RsetNow => "RSET now\r\n".to_owned(),
            Self::Auth => "AUTH PLAIN AGEAYg==\r\n".to_owned(),
            Self::Noop => "NOOP\r\n".to_owned(),
            Self::Data => "DATA\r\n".to_owned(),
            Self::Bdat { last: false } => "BDAT 4\r\nab\r\n".to_owned(),
            Self::Bdat { last: true } => "BDAT 4 LAST\r\ncd\r\n".to_owned(),
        }
    }
}

fn command() -> impl Strategy<Value = Command> {
    let names = proptest::sample::select(vec!["client.example", "bad.example", "other.example"]);
    let helo = names.clone();
    let senders = proptest::sample::select(vec![
        "a@a.example",
        "a@a.example",
        "x@nowhere.example",
        "x@nowhere.example",
        "",
        "",
        "x%nowhere.example@a.example",
        "@nowhere.example:a@a.example",
        ">a@a.example",
        "a@a.example(",
    ]);
    let recipients = proptest::sample::select(vec![
        "bob@b.example",
        "bob@b.example",
        "eve@b.example",
        "nobody@b.example",
        "nobody@b.example",
        "bob@c.example",
        "postmaster@b.example",
        "Postmaster",
        "ABUSE@b.example",
        "postmaster@c.example",
        "postmaster+x@b.example",
        "bob%c.example@b.example",
        "@c.example:bob@b.example",
        "c.example!bob@b.example",
        "postmaster>bob@c.example",
        "postmaster@b.example>,<bob@c.example",
        "bob @c.example",
        "bob@c.example\0",
    ]);
    prop_oneof![
        1 => names.prop_map(Command::Ehlo),
        1 => helo.prop_map(Command::Helo),
        4 => senders.prop_map(Command::Mail),
        5 => recipients.prop_map(Command::Rcpt),
        1 => Just(Command::Rset),
        1 => Just(Command::RsetNow),
        1 => Just(Command::Auth),
        1 => Just(Command::Noop),
        3 => Just(Command::Data),
        1 => any::<bool>().prop_map(|last| Command::Bdat { last }),
    ]
}

/// An envelope as the server has it.
#[derive(Clone, Debug, PartialEq)]
struct Envelope {
    sender: String,
    recipients: Vec<String>,
}

/// As strict as Postfix: rejects commands that are out of sequence, and others at random.
#[derive(Default)]
struct Server {
    read: usize,
    in_content: bool,
    helo: Option<String>,
    authenticated: bool,
    envelope: Option<Envelope>,
    /// HELO, AUTH, sender and recipient of each RCPT inside a transaction.
    decided: Vec<(Option<String>, bool, String, String)>,
    delivered: Vec<Envelope>,
    /// Whether a DATA or BDAT at this point would have a recipient.
    has_recipient: bool,
}

impl Server {
    /// Parses the data that the gateway sent so far; returns the replies to new commands.
    fn on_data(&mut self, sent: &[u8], rejects: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut replies = Vec::new();
        loop {
            let rest = &sent[self.read..];
            let end: &[u8] = if self.in_content { b"\r\n.\r\n" } else { b"\r\n" };
            let Some(at) = rest.windows(end.len()).position(|window| window == end) else {
                return replies;
            };
            let line = String::from_utf8_lossy(&rest[..at]).into_owned();
            if line.starts_with("BDAT") && rest.len() < at + end.len() + 4 {
                return replies;
            }
            self.read += at + end.len();
            let reply = if std::mem::take(&mut self.in_content) {
                self.on_message(rejects())
            } else {
                self.on_command(&line, rejects())
            };
            self.has_recipient = self.envelope.as_ref().is_some_and(|e| !e.recipients.is_empty());
            replies.extend(reply.bytes());
        }
    }

    fn on_message(&mut self, reject: bool) -> &'static str {
        let envelope = self.envelope.take();
        if reject {
            return "452 4.3.1 full\r\n";
        }
        self.delivered.extend(envelope);
        "250 2.0.0 queued\r\n"
    }

    fn on_command(&mut self, line: &str, reject: bool) -> &'static str {
        let path = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let verb = line.split([' ', ':']).next().unwrap_or_default();
        match (verb, &mut self.envelope) {
            ("EHLO" | "HELO", _) if reject => "501 5.5.4 no\r\n",
            ("EHLO" | "HELO", envelope) => {
                *envelope = None;
                self.helo = line.split(' ').nth(1).map(str::to_owned);
                if verb == "HELO" {
                    return "250 a\r\n";
                }
                "250-a\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n"
            }
            ("MAIL", Some(_)) => "503 5.5.1 nested MAIL\r\n",
            ("MAIL", None) if reject => "452 4.3.1 full\r\n",
            ("MAIL", envelope) => {
                *envelope = Some(Envelope { sender: path(), recipients: Vec::new() });
                "250 2.1.0 ok\r\n"
            }
            ("RCPT", None) => "503 5.5.1 need MAIL\r\n",
            ("RCPT", Some(envelope)) => {
                let (helo, sender) = (self.helo.clone(), envelope.sender.clone());
                self.decided.push((helo, self.authenticated, sender, path()));
                if reject {
                    return "550 5.1.1 no\r\n";
                }
                envelope.recipients.push(path());
                "250 2.1.5 ok\r\n"
            }
            ("RSET", _) if reject || line != "RSET" => "501 5.5.4 no\r\n",
            ("RSET", envelope) => {
                *envelope = None;
                "250 2.0.0 ok\r\n"
            }
            ("AUTH", Some(_)) => "503 5.5.1 not in a transaction\r\n",
            ("AUTH", None) if reject => "535 5.7.8 no\r\n",
            ("AUTH", None) => {
                self.authenticated = true;
                "235 2.7.0 ok\r\n"
            }
            ("DATA", Some(envelope)) if !envelope.recipients.is_empty() && !reject => {
                self.in_content = true;
                "354 go\r\n"
            }
            ("DATA", Some(envelope)) if !envelope.recipients.is_empty() => "451 4.3.0 no\r\n",
            ("DATA", _) => "554 5.5.1 no valid recipients\r\n",
            ("BDAT", envelope) => {
                self.read += 4;
                let last = line.ends_with("LAST");
                match envelope {
                    Some(envelope) if !envelope.recipients.is_empty() && !reject => {
                        if last {
                            self.on_message(false)
                        } else {
                            "250 2.0.0 ok\r\n"
                        }
                    }
                    // Servers differ: this one keeps the transaction.
                    _ => "503 5.5.1 no\r\n",
                }
            }
            _ => "250 2.0.0 ok\r\n",
        }
    }
}

/// One rule in the terms of the reference.
#[derive(Clone, Debug)]
struct Condition {
    facts: Vec<FactName>,
    /// Only mail from, or to, this domain.
    sender: Option<&'static str>,
    recipient: Option<&'static str>,
    exempt: Vec<Exemption>,
    accepts: bool,
}

impl Condition {
    fn rule(&self, number: usize) -> PolicyRule {
        let domains = |name: Option<&str>| Domains {
            exact: name.and_then(DomainName::parse).into_iter().collect(),
            below: Vec::new(),
        };
        let when = When {
            sender: domains(self.sender),
            recipient: domains(self.recipient),
            ..When::default()
        };
        let action = if self.accepts { PolicyAction::Accept } else { PolicyAction::Reject };
        let facts = self.facts.iter().map(|fact| fact.stage());
        PolicyRule {
            at: facts.chain([when.stage()]).max().unwrap(),
            when,
            exempt: self.exempt.clone(),
            require: self.facts.iter().map(|fact| require(*fact)).collect(),
            ..rule(&format!("rule {number}"), FactName::Recipient, action)
        }
    }

    /// The rule decides on this recipient: what it requires does not hold in the world of [`good`], where `client.example`
    /// has an address, `a.example` can be mailed, and `nobody` is no mailbox.
    fn matches(&self, helo: &str, authenticated: bool, sender: &str, recipient: &str) -> bool {
        let is_at = |path: &str, domain: &Option<&str>| {
            domain.is_none_or(|domain| path.rsplit_once('@').is_some_and(|(_, at)| at == domain))
        };
        let exempt = self.exempt.iter().any(|exemption| match exemption {
            Exemption::Postmaster => {
                ["postmaster", "postmaster@b.example"].contains(&&*recipient.to_lowercase())
            }
            Exemption::Abuse => recipient.to_lowercase() == "abuse@b.example",
            Exemption::Authenticated => authenticated,
        });
        let holds = |fact: &FactName| match fact {
            FactName::HeloResolves => helo == "client.example",
            FactName::ReturnPath => sender.is_empty() || sender.ends_with("@a.example"),
            _ => !recipient.starts_with("nobody"),
        };
        is_at(sender, &self.sender)
            && is_at(recipient, &self.recipient)
            && !exempt
            && (self.facts.is_empty() || !self.facts.iter().all(holds))
    }
}

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    use Exemption::{Abuse, Authenticated, Postmaster};
    let facts = vec![FactName::Recipient, FactName::HeloResolves, FactName::ReturnPath];
    let of = |domains: Vec<&'static str>| {
        proptest::option::weighted(0.3, proptest::sample::select(domains))
    };
    let one = (
        proptest::sample::subsequence(facts, 0..=3),
        of(vec!["a.example", "nowhere.example"]),
        of(vec!["b.example", "c.example"]),
        proptest::sample::subsequence(vec![Postmaster, Abuse, Authenticated], 0..=3),
        proptest::bool::weighted(0.2),
    );
    let one = one.prop_map(|(facts, sender, recipient, exempt, accepts)| Condition {
        facts,
        sender,
        recipient,
        exempt,
        accepts,
    });
    proptest::collection::vec(one, 0..4)
}

/// The last line of each reply that the client received.
fn replies(to_client: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(to_client).into_owned();
    let whole = text.rfind("\r\n").map_or("", |end| &text[..end]);
    let lines = whole.split("\r\n").filter(|line| line.as_bytes().get(3) == Some(&b' '));
    lines.map(str::to_owned).collect()
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(1000))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_transaction_is_the_servers(
        script in proptest::collection::vec((command(), any::<bool>()), 0..40),
        rejections in proptest::collection::vec(0u8..6, 1..40),
        schedule in proptest::collection::vec((any::<u8>(), 1usize..60), 1..40),
        conditions in conditions(),
        splice in any::<bool>(),
    ) {
        let list = conditions.iter().enumerate().map(|(number, condition)| condition.rule(number));
        let site = vec![DomainName::parse("b.example").unwrap()];
        let rules = PolicyRules::new(list.collect(), Networks::default()).with_site_domains(site);
        let mut profile = Profile { rules: rules.into(), ..Profile::default() };
        profile.limits.errors = 1000;
        let (client, destination) = ("[2001:db8::1]:4", "[2001:db8::2]:25");
        let mut driver = Driver::new(profile, Timeouts::RFC_5321, client, destination, splice);
        let mut rejections = rejections.into_iter().cycle();
        let mut rejects = || rejections.next() == Some(0);
        let mut schedule = schedule.into_iter().cycle();
        let mut server = Server::default();
        let mut from_server = b"220 a\r\n".to_vec();
        let mut flight: Vec<u8> = Vec::new();
        let mut script = script.into_iter().peekable();
        let (mut expected, mut awaits_data) = (1, false);
        let mut quit = false;
        for turn in 0.. {
            prop_assert!(turn < 100_000, "the session is stuck");
            from_server.extend(server.on_data(&driver.to_upstream, &mut rejects));
            let read = replies(&driver.to_client);
            let all_read = read.len() >= expected;
            if awaits_data && all_read {
                awaits_data = false;
                let reply = read.last().unwrap();
                if reply.starts_with("354") {
                    flight.extend(b"text\r\n.\r\n");
                    expected += 1;
                } else if reply.starts_with("554") {
                    prop_assert!(!server.has_recipient, "a false bounce: {read:?}");
                }
            }
            if flight.is_empty() && !awaits_data {
                match script.peek() {
                    Some((_, pipelined)) if *pipelined || read.len() >= expected => {
                        let (command, _) = script.next().unwrap();
                        flight.extend(command.bytes().bytes());
                        expected += 1;
                        awaits_data = matches!(command, Command::Data);
                    }
                    Some(_) => {}
                    None if quit => {}
                    None if read.len() >= expected => {
                        flight.extend(b"QUIT\r\n");
                        expected += 1;
                        quit = true;
                    }
                    None => {}
                }
            }
            if quit && flight.is_empty() && replies(&driver.to_client).len() >= expected {
                break;
            }
            let (which, count) = schedule.next().unwrap();
            let able = [!driver.needs.is_empty(), !flight.is_empty(), !from_server.is_empty()];
            match (0..3).map(|n| (usize::from(which) + n) % 3).find(|&n| able[n]) {
                Some(0) => driver.answer(count, good),
                Some(1) => {
                    let part: Vec<u8> = flight.drain(..flight.len().min(count)).collect();
                    driver.client_sends(&part);
                }
                Some(_) => {
                    let part: Vec<u8> = from_server.drain(..from_server.len().min(count)).collect();
                    driver.upstream_sends(&part);
                }
                None => {
                    let read = String::from_utf8_lossy(&driver.to_client).into_owned();
                    prop_assert!(false, "stuck after {read}");
                }
            }
        }
        prop_assert_eq!(replies(&driver.to_client).len(), expected, "one reply each");
        while !driver.needs.is_empty() {
            driver.answer(0, good);
        }
        let record = driver.finish();

        // The policy decided on the envelopes that the server used.
        if !conditions.is_empty() {
            let asked: Vec<_> = record.questions.iter().filter(|q| q.stage == PolicyStage::Rcpt).collect();
            let mut asked = asked.into_iter();
            for (helo, authenticated, sender, recipient) in &server.decided {
                let found = asked.any(|question| {
                    question.recipient.as_deref() == Some(recipient)
                        && question.sender.as_deref() == Some(sender)
                        && question.authenticated == *authenticated
                        && (helo.is_none() || question.helo.as_deref() == helo.as_deref())
                });
                prop_assert!(found, "undecided: {helo:?} {sender} {recipient}, {:?}", record.questions);
            }
        }
        // No recipient that a rule rejects reached it; and those that the rules rejected, the reference rejects as well.
        let decided = |helo: Option<&str>, authenticated, sender: &str, recipient: &str| {
            let mut matching = conditions.iter().filter(|condition| {
                condition.matches(helo.unwrap_or_default(), authenticated, sender, recipient)
            });
            matching.next().is_none_or(|condition| condition.accepts)
        };
        for (helo, authenticated, sender, recipient) in &server.decided {
            prop_assert!(
                helo.is_none() || decided(helo.as_deref(), *authenticated, sender, recipient),
                "let in: {helo:?} {sender} {recipient}"
            );
            prop_assert!(!recipient.contains([' ', '<', '>', '\0', '(']), "{}", recipient);
            let depends = conditions.iter().any(|condition| {
                condition.recipient.is_some() || condition.facts.contains(&FactName::Recipient)
            });
            prop_assert!(!depends || !recipient.contains(['%', '!']), "{}", recipient);
        }
        let rejected = record.questions.iter().filter(|asked| asked.stage == PolicyStage::Rcpt);
        let rejected = rejected.filter(|asked| {
            let (sender, recipient) = (asked.sender.as_deref(), asked.recipient.as_deref());
            !decided(asked.helo.as_deref(), asked.authenticated, sender.unwrap_or_default(), recipient.unwrap_or_default())
        });
        let by_rules = driver.events.iter()
            .filter(|event| matches!(event, gatepost::engine::Event::Refusal(gatepost::engine::Refusal::PolicyReject)));
        prop_assert_eq!(by_rules.count(), rejected.count(), "{:?}", record.questions);
        // The record has the messages that the server accepted.
        let delivered: Vec<Envelope> = record.smtp.transactions.iter()
            .filter(|transaction| transaction.data_code == Some(250))
            .map(|transaction| Envelope {
                sender: transaction.mail_from.clone(),
                recipients: transaction.rcpt_to.iter()
                    .filter(|to| to.code == Some(250)).map(|to| to.address.clone()).collect(),
            })
            .collect();
        prop_assert_eq!(&delivered, &server.delivered);
        if server.helo.is_some() {
            prop_assert_eq!(&record.smtp.helo, &server.helo);
        }
        prop_assert_eq!(record.smtp.auth, server.authenticated);

        // An observer of the client's leg records and decides the same.
        let observed = driver.observed();
        prop_assert_eq!(&observed.smtp.transactions, &record.smtp.transactions);
        if !conditions.is_empty() {
            prop_assert_eq!(&observed.questions, &record.questions);
        }
        driver.check_verdict_replays(&observed, &record, "a random client");
    }
}
