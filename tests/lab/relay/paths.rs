//! The envelope that rules judge is the envelope that a real Postfix uses: generated paths, each in a message of its own,
//! behind a Postfix that accepts and stores everything, so that its mailbox shows what it read.
//!
//! `GATEPOST_SEED` repeats a run, `GATEPOST_PATHS` sets the number of generated paths.

#[path = "../../core/engine/path_forms.rs"]
mod path_forms;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use self::path_forms::{KNOWN, LOCAL, OPEN, PROTECTED, forward_argument, reverse_argument};
use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, until};

tests![
    what_postfix_delivers_is_what_the_gateway_decided_on,
    known_forms_reach_the_protected_domain_through_a_lenient_gateway,
];

/// Accepts any path and recipient, completes and reroutes what it can, and stores each message.
fn postfix(lab: &Lab) -> Postfix<'_> {
    let main_cf = format!(
        "virtual_mailbox_domains = {OPEN} {PROTECTED}
mydestination = {LOCAL} mx.example
mydomain = example
myorigin = {PROTECTED}
append_dot_mydomain = yes
local_transport = virtual
relay_transport = virtual
default_transport = virtual
local_recipient_maps =
mynetworks = 0.0.0.0/0 [::]/0
resolve_numeric_domain = yes
allow_untrusted_routing = yes
allow_min_user = yes
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_soft_error_limit = 100000
smtpd_hard_error_limit = 100000
in_flow_delay = 0
"
    );
    Postfix::start(lab, &lab.server, "postfix", None, &main_cf)
}

/// Rules on both paths of the protected domain, with the exemptions that are the default.
const RULES: &str = r#"
[[policy]]
name = "no recipient there"
when = { recipient = ["protected.example"] }
otherwise = "reject"

[[policy]]
name = "no sender there"
when = { sender = ["protected.example"] }
otherwise = "reject"
"#;

/// The arguments of one MAIL and one RCPT.
type Paths = (Vec<u8>, Vec<u8>);

fn paths() -> impl Strategy<Value = Paths> {
    let plain =
        prop_oneof![Just("FROM:<a@sender.example>"), Just("FROM:<a@sender.example> SMTPUTF8")];
    let plain = plain.prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![
        3 => (plain, forward_argument()),
        1 => (reverse_argument(), Just(format!("TO:<b@{OPEN}>").into_bytes())),
    ]
}

/// What became of one envelope.
#[derive(Debug, Default)]
struct Fate {
    /// Postfix's 250 to the message.
    accepted: bool,
    /// Sender and recipient as Postfix used them.
    delivered: Vec<(String, String)>,
    /// Sender and recipient as the gateway's log has them.
    judged: Option<(String, String)>,
}

struct World<'lab> {
    lab: &'lab Lab,
    postfix: Postfix<'lab>,
    gateway: Gateway<'lab>,
    sent: usize,
}

impl<'lab> World<'lab> {
    fn open(lab: &'lab Lab, smtp: &str, rules: &str) -> Self {
        let config = Config::new(lab, Mode::Proxy)
            .set("log", "format = \"json\"")
            .set("smtp", smtp)
            .set("site", &format!("domains = [{OPEN:?}, {PROTECTED:?}, {LOCAL:?}]"))
            .policies(rules);
        Self { lab, postfix: postfix(lab), gateway: Gateway::start(lab, &config), sent: 0 }
    }

    /// Sends a message with each envelope; returns what became of them.
    fn send(&mut self, envelopes: &[Paths]) -> Vec<Fate> {
        let first = self.sent;
        let mut fates: Vec<Fate> =
            envelopes.iter().map(|envelope| self.send_one(envelope)).collect();
        self.postfix.wait_until_idle();
        for stored in self.postfix.messages() {
            let number =
                stored.header("X-Number: ").and_then(|number| number.parse::<usize>().ok());
            let Some(fate) = number.and_then(|number| fates.get_mut(number.checked_sub(first)?))
            else {
                continue;
            };
            let path = |field| stored.header(field).unwrap_or_default();
            let sender = path("Return-Path: ").trim_matches(['<', '>']).to_owned();
            fate.delivered.push((sender, path("Delivered-To: ").to_owned()));
        }
        let mut judged = self.judged(self.sent);
        for (at, fate) in fates.iter_mut().enumerate() {
            fate.judged = judged.remove(&(first + at));
        }
        fates
    }

    fn send_one(&mut self, (reverse, forward): &Paths) -> Fate {
        let number = self.sent;
        self.sent += 1;
        let family = Family::ALL[number % 2];
        let mut smtp = self.lab.client.smtp(self.lab.entrance(Mode::Proxy, family));
        smtp.dialogue(&format!("S: 220\n C: EHLO n{number}.client.example\n S: 250"));
        for (verb, argument) in [("MAIL", reverse), ("RCPT", forward)] {
            smtp.raw(&[verb.as_bytes(), b" ", argument, b"\r\n"].concat()).unwrap();
            if smtp.reply().expect("a reply").code != 250 {
                smtp.dialogue("C: QUIT\n S: 221");
                return Fate::default();
            }
        }
        let message = format!("X-Number: {number}\r\nSubject: a path\r\n\r\n");
        let accepted = smtp.data(message.as_bytes()).code == 250;
        smtp.dialogue("C: QUIT\n S: 221");
        Fate { accepted, ..Fate::default() }
    }

    /// By number of the session: the envelope of the message that was accepted.
    fn judged(&self, sessions: usize) -> BTreeMap<usize, (String, String)> {
        let records = until(format_args!("{sessions} sessions in the gateway's log"), || {
            let log = self.gateway.log();
            let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let records: Vec<Value> =
                records.filter(|record| record["type"] == "session").collect();
            (records.len() == sessions).then_some(records)
        });
        let envelope = |record: &Value| {
            let helo = record["smtp"]["helo"].as_str()?;
            let number = helo.strip_prefix('n')?.split('.').next()?.parse().ok()?;
            let transactions = record["smtp"]["transactions"].as_array()?;
            let accepted =
                transactions.iter().find(|transaction| transaction["data_code"] == 250)?;
            let sender = accepted["mail_from"].as_str()?.to_owned();
            Some((number, (sender, accepted["rcpt_to"][0]["address"].as_str()?.to_owned())))
        };
        records.iter().filter_map(envelope).collect()
    }
}

/// A path as its server means it: the local part without quotes, the domain in lower case.
fn meaning(path: &str) -> (String, String) {
    let (local, domain) = path.rsplit_once('@').unwrap_or((path, ""));
    let quoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let local = match quoted {
        None => local.to_owned(),
        Some(inside) => {
            let mut chars = inside.chars();
            let mut text = String::new();
            while let Some(c) = chars.next() {
                text.extend(if c == '\\' { chars.next() } else { Some(c) });
            }
            text
        }
    };
    (local, domain.to_lowercase())
}

/// Why a fate breaks the promise, if it does.
fn fault(fate: &Fate) -> Option<String> {
    let Fate { accepted, delivered, judged } = fate;
    if !accepted {
        return (!delivered.is_empty()).then(|| "delivered without a 250".to_owned());
    }
    let ([(sender, recipient)], Some((from, to))) = (&delivered[..], judged) else {
        return Some("not delivered once, or not in the log".to_owned());
    };
    // Postfix completes a lone postmaster by `myorigin`.
    let to = if to.contains('@') { to.clone() } else { format!("{to}@{PROTECTED}") };
    let (local, domain) = meaning(&to);
    let role = ["postmaster", "abuse"].contains(&&*local.to_lowercase());
    if meaning(recipient) != (local, domain.clone()) {
        return Some(format!("judged {to}, delivered to {recipient}"));
    }
    if meaning(sender) != meaning(from) {
        return Some(format!("judged {from}, sent by {sender}"));
    }
    if domain == PROTECTED && !role || meaning(sender).1 == PROTECTED {
        return Some("a protected domain".to_owned());
    }
    None
}

fn what_postfix_delivers_is_what_the_gateway_decided_on() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("GATEPOST_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    println!("GATEPOST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(RunnerConfig::default(), rng);
    let count = number("GATEPOST_PATHS").unwrap_or(300);
    let mut trees: Vec<_> = (0..count).map(|_| paths().new_tree(&mut runner).unwrap()).collect();

    let lab = Lab::new();
    let mut world = World::open(&lab, "paths = \"strict\"", RULES);
    let mut envelopes: Vec<Paths> = trees.iter().map(|tree| tree.current()).collect();
    let known =
        KNOWN.iter().map(|argument| (b"FROM:<a@sender.example>".to_vec(), argument.to_vec()));
    envelopes.extend(known);
    envelopes.push((b"FROM:<>".to_vec(), b"TO:<postmaster>".to_vec()));
    envelopes.push((
        b"FROM:<a@sender.example>".to_vec(),
        format!("TO:<Abuse@{PROTECTED}>").into_bytes(),
    ));
    let fates = world.send(&envelopes);
    let accepted = fates.iter().filter(|fate| fate.accepted).count();
    println!("{} envelopes, {accepted} accepted", envelopes.len());
    assert!(accepted >= envelopes.len() / 20, "only {accepted} accepted: the test shows nothing");
    for (at, fate) in fates.iter().enumerate() {
        let Some(mut why) = fault(fate) else { continue };
        let mut smallest = envelopes[at].clone();
        if let Some(tree) = trees.get_mut(at) {
            let mut smaller = tree.simplify();
            for _ in 0..50 {
                if !smaller {
                    break;
                }
                let found = world.send(&[tree.current()]);
                smaller = match fault(&found[0]) {
                    Some(same) => {
                        (smallest, why) = (tree.current(), same);
                        tree.simplify()
                    }
                    None => tree.complicate(),
                };
            }
        }
        let [reverse, forward] =
            [smallest.0, smallest.1].map(|argument| argument.escape_ascii().to_string());
        panic!("MAIL {reverse}, RCPT {forward}: {why} (GATEPOST_SEED={seed})");
    }
}

/// Proof that the test above can fail: without rules, and with lenient paths, most of the forms arrive.
fn known_forms_reach_the_protected_domain_through_a_lenient_gateway() {
    let lab = Lab::new();
    let mut world = World::open(&lab, "paths = \"lenient\"", "");
    let envelopes: Vec<Paths> = KNOWN
        .iter()
        .map(|argument| (b"FROM:<a@sender.example>".to_vec(), argument.to_vec()))
        .collect();
    let fates = world.send(&envelopes);
    let reached = |fate: &&Fate| fate.delivered.iter().any(|(_, to)| meaning(to).1 == PROTECTED);
    let count = fates.iter().filter(reached).count();
    println!("{count} of {} forms reach the protected domain", KNOWN.len());
    assert!(count >= KNOWN.len() / 2, "only {count} of {}", KNOWN.len());
    let by_name =
        |fate: &Fate| fate.judged.as_ref().is_some_and(|(_, to)| meaning(to).1 == PROTECTED);
    let unseen = fates.iter().filter(reached).filter(|fate| !by_name(fate)).count();
    assert!(unseen >= 10, "only {unseen} would have passed a rule");
}
