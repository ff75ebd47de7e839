//! Who sent it: rules on SPF, DKIM and DMARC at the end of a message, with a real signer, Postfix behind the gateway, and the
//! same verdicts from a replay of the recording.

mod memory;
mod rspamd_signer;
pub(crate) mod signer;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use self::memory::memory_is_flat_while_50_mb_are_verified;
use self::rspamd_signer::googles_rule_decides_on_mail_that_rspamd_signed;
use self::signer::Signer;
use crate::harness::tests;
use crate::record::record;
use crate::support::world::{KNOT, knot, sender_ip};
use crate::support::{Entrance, Family, Gateway, Lab, Mode, Postfix, Transport, port};

tests![
    verdicts_are_as_listed_live_and_in_a_replay,
    verdicts_inside_tls_are_as_listed_live_and_in_a_replay,
    googles_rule_concerns_ipv6_alone,
    googles_rule_decides_on_mail_that_rspamd_signed,
    memory_is_flat_while_50_mb_are_verified,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const TO: &str = "bob@example.org";

/// The documented rule, in force.
pub(crate) const GOOGLE: &str = "\
[[policy]]
name = \"IPv6 senders have a confirmed name and authenticate\"
when = { family = \"ipv6\" }
require = [\"fcrdns\", \"authenticated\"]
otherwise = \"reject\"
on_unknown = \"tempfail\"
";

/// The rows are results of SPF for the sender, the columns signatures.
const AUTHENTICATED: &str = "\
spf      none good broken nokey lame
pass     250  250  250    250   250
none     550  250  550    550   451
fail     550  250  550    550   451
softfail 550  250  550    550   451
lame     451  250  451    451   451
";

/// The rows are policies of the author's domain, the columns what passes for which domain.
const DMARC: &str = "\
policy     none good other spf
reject     550  250  550   250
quarantine 550  250  550   250
norequest  250  250  250   250
testing    550  250  550   250
absent     250  250  250   250
lame       451  451  451   451
";

/// A message of the table, and the reply to its end.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) client: &'static str,
    pub(crate) family: Family,
    pub(crate) sender: String,
    /// The domain in From.
    pub(crate) author: String,
    /// The domain that signs, with the kind of signature.
    pub(crate) signature: Option<(String, &'static str)>,
    pub(crate) reply: String,
}

impl Case {
    pub(crate) fn message(&self, signer: &Signer) -> Vec<u8> {
        let message = format!(
            "From: Alice <alice@{}>\r\nTo: {TO}\r\nSubject: a case\r\n\r\nFirst line\r\n.second line\r\n",
            self.author
        );
        let Some((domain, kind)) = &self.signature else { return message.into_bytes() };
        let selector = if *kind == "nokey" { "absent" } else { "mail" };
        let mut signed = signer.sign(domain, selector, message.as_bytes());
        if *kind == "broken" {
            signed.extend_from_slice(b"added on the way\r\n");
        }
        signed
    }
}

/// The cells of a table, each with the names of its row and column.
pub(crate) fn grid(text: &'static str) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let columns: Vec<&str> = lines.next().unwrap().skip(1).collect();
    let rows = lines.flat_map(|mut row| {
        let name = row.next().unwrap();
        columns.clone().into_iter().zip(row).map(move |(column, cell)| (name, column, cell))
    });
    rows.collect()
}

/// The table of results of SPF and signatures, in both families.
pub(crate) fn authenticated() -> Vec<Case> {
    let cases = Family::ALL.into_iter().flat_map(|family| {
        grid(AUTHENTICATED).into_iter().map(move |(spf, kind, reply)| {
            let sender =
                format!("alice@spf-{spf}.{}", if spf == "lame" { "lame" } else { "example" });
            let signer = if kind == "lame" { "spf-lame.lame" } else { "signer.example" };
            Case {
                client: "good",
                family,
                author: "author.example".to_owned(),
                signature: (kind != "none").then(|| (signer.to_owned(), kind)),
                sender,
                reply: reply.to_owned(),
            }
        })
    });
    cases.collect()
}

fn dmarc() -> Vec<Case> {
    let cases = grid(DMARC).into_iter().map(|(policy, passes, reply)| {
        let zone = if policy == "lame" { "lame" } else { "example" };
        let author = format!("policy-{policy}.{zone}");
        let signature = match passes {
            "good" => Some((author.clone(), "good")),
            "other" => Some(("signer.example".to_owned(), "good")),
            _ => None,
        };
        let sender = match passes {
            "spf" => format!("alice@mail.{author}"),
            _ => "alice@spf-none.example".to_owned(),
        };
        let reply = reply.to_owned();
        Case { client: "good", family: Family::Ipv6, sender, author, signature, reply }
    });
    cases.collect()
}

/// The zones of the senders and of the clients `good` and `missing`.
pub(crate) fn zones(signer: &Signer) -> BTreeMap<String, String> {
    const ALL: &str = "v=spf1 ip4:203.0.113.0/24 ip6:2001:db8:c::/64 -all";
    let key = signer.key_record();
    let mut example = format!("ns AAAA 2001:db8:53::53\nmail._domainkey.signer TXT {key}\n");
    for (name, record) in [
        ("spf-pass", ALL),
        ("spf-fail", "v=spf1 ip4:192.0.2.1 -all"),
        ("spf-softfail", "v=spf1 ip4:192.0.2.1 ~all"),
    ] {
        example.push_str(&format!("{name} TXT \"{record}\"\n"));
    }
    example.push_str("spf-none TXT \"no record\"\nauthor TXT \"no record\"\n");
    for (name, record) in [
        ("reject", Some("v=DMARC1; p=reject")),
        ("quarantine", Some("v=DMARC1; p=quarantine")),
        ("norequest", Some("v=DMARC1; p=none")),
        ("testing", Some("v=DMARC1; p=reject; t=y")),
        ("absent", None),
    ] {
        if let Some(record) = record {
            example.push_str(&format!("_dmarc.policy-{name} TXT \"{record}\"\n"));
        }
        example.push_str(&format!("mail.policy-{name} TXT \"{ALL}\"\n"));
        example.push_str(&format!("mail._domainkey.policy-{name} TXT {key}\n"));
    }
    let mut zones = BTreeMap::from([("example".to_owned(), example)]);
    zones.insert(
        "client.example".to_owned(),
        "ns AAAA 2001:db8:53::53\ngood A 203.0.113.1\ngood AAAA 2001:db8:c::1\n".to_owned(),
    );
    for (family, zone) in
        [(Family::Ipv4, "113.0.203.in-addr.arpa"), (Family::Ipv6, "8.b.d.0.1.0.0.2.ip6.arpa")]
    {
        let owner = hickory_proto::rr::Name::from(sender_ip("good", family)).to_ascii();
        zones.insert(zone.to_owned(), format!("{owner} PTR good.client.example.\n"));
    }
    zones
}

/// A gateway before a Postfix, with DNS around them.
pub(crate) struct Site<'lab> {
    lab: &'lab Lab,
    entrance: &'lab Entrance<'lab>,
    pub(crate) signer: Signer,
    pub(crate) postfix: Postfix<'lab>,
    _knot: crate::support::Process,
}

impl<'lab> Site<'lab> {
    pub(crate) fn new(lab: &'lab Lab, entrance: &'lab Entrance<'lab>) -> Self {
        Self::with_upstream(lab, entrance, "")
    }

    /// With further lines for the main.cf of the Postfix, which the lab calls `upstream`.
    pub(crate) fn with_upstream(
        lab: &'lab Lab,
        entrance: &'lab Entrance<'lab>,
        lines: &str,
    ) -> Self {
        for (client, family) in ["good", "missing"]
            .into_iter()
            .flat_map(|client| Family::ALL.into_iter().map(move |family| (client, family)))
        {
            lab.add_client_ip(sender_ip(client, family));
        }
        let signer = Signer::new(&lab.folder("signer"));
        let knot = knot(lab, &zones(&signer), &["lame".to_owned()]);
        let settings = format!(
            "virtual_mailbox_domains = example.org\n\
             message_size_limit = 100000000\nvirtual_mailbox_limit = 100000000\n{lines}"
        );
        let postfix = Postfix::start(lab, &lab.server, "upstream", None, &settings);
        Self { lab, entrance, signer, postfix, _knot: knot }
    }

    /// Sends each message through a gateway with these rules. Returns what is not as listed, live or in a replay.
    fn run(&self, name: &str, rules: &str, cases: &[Case]) -> Vec<String> {
        let config = self
            .entrance
            .config()
            .upstream_port(self.lab, port::SMTP)
            .for_crowds()
            .set("log", "format = \"json\"")
            .set("lookup", &format!("dns = [\"{KNOT}\"]"))
            .set("lookup", "deadline = \"2s\"")
            .policies(rules);
        let mut gateway = Gateway::start(self.lab, &config);
        let capture = self.lab.path(&format!("{name}.pcapng"));
        let file = self.lab.path(&format!("{name}.toml"));
        fs::write(&file, config.toml()).unwrap();
        let count = cases.len().to_string();
        let mut recorder = record(self.lab, &config, &capture, &["--count", &count]);
        let mut wrong = Vec::new();
        let mut clients = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let (client, reply) = self.send(case, number);
            if !reply.starts_with(&case.reply) {
                wrong.push(format!("{case:?}\n    live: {reply}"));
            }
            clients.push((client, case));
        }
        assert!(recorder.wait().success(), "{}", recorder.log());
        gateway.terminate();
        gateway.wait();
        let live = verdicts(&gateway.log());
        let words = [GATEPOST, "replay", "--config", file.to_str().unwrap(), "--format", "json"];
        let words = [&words[..], &[capture.to_str().unwrap()]].concat();
        let replayed = verdicts(&self.lab.gateway.run(words));
        for (client, case) in clients {
            let (live, replayed) = (live.get(&client), replayed.get(&client));
            if live.is_none() || live != replayed {
                wrong.push(format!("{case:?}\n    live: {live:?}\n    replayed: {replayed:?}"));
            }
        }
        wrong
    }

    /// Returns the client's address and port, and the reply to the message: half of them are sent in chunks.
    fn send(&self, case: &Case, number: usize) -> (SocketAddr, String) {
        let message = case.message(&self.signer);
        let mut smtp = self.entrance.connect_from(sender_ip(case.client, case.family), case.family);
        let client = smtp.local_addr();
        smtp.begin(&case.sender, TO);
        let reply =
            if number.is_multiple_of(2) { smtp.data(&message) } else { smtp.bdat(&message, 100) };
        smtp.dialogue("C: QUIT\n S: 221");
        (client, format!("{} {}", reply.code, reply.lines.join(" / ")))
    }
}

/// Verdict, rule and reason in lines of JSON, with the evidence, by the client's address and port.
fn verdicts(lines: &str) -> BTreeMap<SocketAddr, Value> {
    let objects = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let verdicts = objects.filter_map(|session| {
        let client = &session["client"];
        let address = client["address"].as_str()?.parse().ok()?;
        let port = client["port"].as_u64()?.try_into().ok()?;
        let facts = &session["facts"];
        let of = |name: &str| {
            let fact = &facts[name];
            serde_json::json!([fact["state"], fact["reason"], fact["detail"]])
        };
        let facts = ["authenticated", "dmarc"].map(of);
        Some((SocketAddr::new(address, port), serde_json::json!([session["verdict"], facts])))
    });
    verdicts.collect()
}

fn verdicts_are_as_listed_live_and_in_a_replay() {
    verdicts_are_as_listed(Mode::Proxy, Transport::Plaintext);
}

fn verdicts_inside_tls_are_as_listed_live_and_in_a_replay() {
    verdicts_are_as_listed(Mode::Tproxy, Transport::OwnTls);
}

fn verdicts_are_as_listed(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let entrance = Entrance::new(&lab, mode, transport);
    let site = Site::new(&lab, &entrance);
    let rule = |fact: &str| {
        format!("[[policy]]\nname = \"{fact}\"\nrequire = [\"{fact}\"]\notherwise = \"reject\"\n")
    };
    let (authenticated, dmarc) = (authenticated(), dmarc());
    assert!(authenticated.len() + dmarc.len() >= 40);
    let accepted = authenticated.iter().chain(&dmarc).filter(|case| case.reply == "250").count();
    let mut wrong = site.run("authenticated", &rule("authenticated"), &authenticated);
    wrong.extend(site.run("dmarc", &rule("dmarc"), &dmarc));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    site.postfix.wait_until_idle();
    assert_eq!(site.postfix.count_to(TO), accepted, "no rejected message is stored");
}

fn googles_rule_concerns_ipv6_alone() {
    let documented = include_str!("../../../docs/policy.md").replace("mode = \"shadow\"\n", "");
    assert!(documented.contains(GOOGLE), "docs/policy.md has another rule");
    for (mode, transport) in [(Mode::Proxy, Transport::Plaintext), (Mode::Proxy, Transport::OwnTls)]
    {
        let lab = Lab::new();
        let entrance = Entrance::new(&lab, mode, transport);
        let site = Site::new(&lab, &entrance);
        let signature = || Some(("signer.example".to_owned(), "good"));
        let mut cases = Vec::new();
        for (client, sender, signature, over_ipv6) in [
            ("good", "alice@spf-pass.example", None, "250"),
            ("good", "alice@spf-none.example", signature(), "250"),
            ("good", "alice@spf-none.example", None, "550 5.7.26"),
            ("missing", "alice@spf-pass.example", signature(), "550 5.7.25"),
        ] {
            for family in Family::ALL {
                cases.push(Case {
                    client,
                    family,
                    sender: sender.to_owned(),
                    author: "author.example".to_owned(),
                    signature: signature.clone(),
                    reply: if family == Family::Ipv6 { over_ipv6 } else { "250" }.to_owned(),
                });
            }
        }
        let wrong = site.run("google", GOOGLE, &cases);
        assert!(wrong.is_empty(), "{transport:?}: {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}
