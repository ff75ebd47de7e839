//! The rules on authentication where Postfix asks, beside the relay: its questions have no content, so SPF alone can make
//! `authenticated` hold, and the rule is unknown without it.

use std::net::SocketAddr;

use super::table::{RELAY, enhanced, text, verdicts};
use super::{asking, lines_with, socket};
use crate::authentication::{Case, GOOGLE, Site, authenticated, grid};
use crate::harness::tests;
use crate::support::world::{KNOT, sender_ip};
use crate::support::{
    Config, Entrance, Family, Gateway, Lab, Mode, Postfix, Reply, Transport, port,
};

tests![
    without_content_spf_alone_authenticates,
    rules_on_spf_are_those_of_the_relay,
    googles_rule_defers_where_only_a_signature_could_help,
    a_message_that_the_relay_decided_is_not_decided_without_its_content,
    the_end_of_a_message_is_decided_for_all_its_recipients,
];

const TO: &str = "bob@example.org";

/// Postfix's reply where the relay's is that of the table of the rule: the rows are results of SPF, the columns signatures.
const AUTHENTICATED: &str = "\
spf      none good broken nokey lame
pass     250  250  250    250   250
none     450  450  450    450   450
fail     450  450  450    450   450
softfail 450  450  450    450   450
lame     450  450  450    450   450
";

/// Postfix's reply by the result of SPF, and the rule: at RCPT, and at the end of the message.
const SPF: &str = "\
spf      pass not_fail at_end
pass     250  250      250
none     554  250      554
fail     554  554      554
softfail 554  250      554
lame     450  450      450
";

/// A case with Postfix's reply.
struct Asked {
    case: Case,
    reply: String,
}

/// A reply, and the command that it is for.
#[derive(Debug)]
struct Answered {
    client: SocketAddr,
    command: &'static str,
    reply: String,
}

/// A case, and its two replies and verdicts.
struct Compared<'a> {
    asked: &'a Asked,
    inline: Answered,
    postfix: Answered,
    inline_verdict: serde_json::Value,
    verdict: serde_json::Value,
}

impl Compared<'_> {
    /// Whether both refuse alike: class, enhanced code, text, command and verdict.
    fn is_same(&self) -> bool {
        let Self { inline, postfix, .. } = self;
        inline.reply.get(..1) == postfix.reply.get(..1)
            && (inline.reply.starts_with('2')
                || enhanced(&inline.reply) == enhanced(&postfix.reply))
            && text(&inline.reply) == text(&postfix.reply)
            && inline.command == postfix.command
            && self.inline_verdict == self.verdict
    }

    fn report(&self) -> String {
        let Self { asked, inline, postfix, inline_verdict, verdict } = self;
        let case = &asked.case;
        format!(
            "{case:?}\n    expected of Postfix: {}\n    inline: {inline:?} {inline_verdict}\n    Postfix: {postfix:?} {verdict}",
            asked.reply
        )
    }
}

/// A gateway that relays and that Postfix asks at RCPT and at the end of the message.
struct Both<'lab> {
    lab: &'lab Lab,
    site: Site<'lab>,
    _asking: Postfix<'lab>,
    config: Config,
}

impl<'lab> Both<'lab> {
    fn new(lab: &'lab Lab, entrance: &'lab Entrance<'lab>) -> Self {
        let site = Site::new(lab, entrance);
        let path = socket(lab, "asking");
        let postfix = asking(lab, "asking", &lines());
        let config = Config::new(lab, Mode::Proxy)
            .listen(&Family::ALL.map(|family| SocketAddr::new(lab.gateway_ip(family), RELAY)))
            .upstream_port(lab, port::SMTP)
            .for_crowds()
            .set("log", "format = \"json\"")
            .set("lookup", &format!("dns = [\"{KNOT}\"]"))
            .set("lookup", "deadline = \"2s\"")
            .set("postfix", &format!("policy = \"unix:{}\"", path.display()))
            .set("postfix", "policy_deadline = \"15s\"");
        Self { lab, site, _asking: postfix, config }
    }

    /// Sends each message to Postfix and through the relay.
    fn compare<'a>(&self, rules: &str, cases: &'a [Asked]) -> Vec<Compared<'a>> {
        let mut gateway = Gateway::start(self.lab, &self.config.clone().policies(rules));
        let send = |(number, asked): (usize, &'a Asked)| {
            let message = asked.case.message(&self.site.signer);
            let is_chunked = number % 2 == 1;
            // First Postfix's, so that its verdict does not come from what the relay has found out.
            let postfix = self.send(&asked.case, &message, port::SMTP, is_chunked);
            let inline = self.send(&asked.case, &message, RELAY, is_chunked);
            (asked, postfix, inline)
        };
        let sent: Vec<_> = cases.iter().enumerate().map(send).collect();
        gateway.terminate();
        gateway.wait();
        let verdicts = verdicts(&gateway.log());
        let verdict = |answered: &Answered, port| {
            let verdict = verdicts.get(&(answered.client, port)).cloned();
            verdict.unwrap_or_else(|| panic!("no verdict on {answered:?}"))
        };
        let compared = sent.into_iter().map(|(asked, postfix, inline)| {
            let (inline_verdict, verdict) =
                (verdict(&inline, RELAY), verdict(&postfix, port::SMTP));
            Compared { asked, inline, postfix, inline_verdict, verdict }
        });
        compared.collect()
    }

    fn send(&self, case: &Case, message: &[u8], port: u16, is_chunked: bool) -> Answered {
        let to = SocketAddr::new(self.lab.gateway_ip(case.family), port);
        let mut smtp = self.lab.client.smtp_from(sender_ip(case.client, case.family), to);
        let client = smtp.local_addr();
        let sender = &case.sender;
        smtp.dialogue(&format!(
            "S: 220\n C: EHLO client.example.net\n S: 250\n C: MAIL FROM:<{sender}>\n S: 250"
        ));
        let mut command = "RCPT";
        let mut reply = smtp.ask(&format!("RCPT TO:<{TO}>"));
        if reply.code == 250 {
            command = "end of data";
            reply = if is_chunked { smtp.bdat(message, 100) } else { smtp.data(message) };
        }
        smtp.ask("QUIT");
        let reply = format!("{} {}", reply.code, reply.lines.join(" / "));
        Answered { client, command, reply }
    }
}

/// Of main.cf: Postfix asks at RCPT and at the end of the message.
fn lines() -> String {
    let item = "check_policy_service { unix:private/gatepost, timeout=20s }";
    format!("smtpd_recipient_restrictions = {item}\nsmtpd_end_of_data_restrictions = {item}\n")
}

/// The reports of those that are not as they should be.
#[track_caller]
fn assert_all(compared: &[Compared<'_>], is_right: impl Fn(&Compared<'_>) -> bool) {
    let wrong: Vec<String> =
        compared.iter().filter(|one| !is_right(one)).map(Compared::report).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Each reply is that of its table.
fn is_as_listed(one: &Compared<'_>) -> bool {
    one.inline.reply.starts_with(&one.asked.case.reply)
        && one.postfix.reply.starts_with(&one.asked.reply)
}

/// Postfix deferred the message at its end, as nobody knows its content.
fn is_deferred(one: &Compared<'_>) -> bool {
    one.postfix.command == "end of data"
        && enhanced(&one.postfix.reply).as_deref() == Some("4.7.26")
        && text(&one.postfix.reply)
            .is_some_and(|text| text.starts_with("cannot verify SPF and DKIM right now"))
        && one.verdict["action"] == "tempfail"
}

fn rule(fact: &str, more: &str) -> String {
    format!("[[policy]]\nname = \"the rule\"\nrequire = [{fact}]\notherwise = \"reject\"\n{more}")
}

fn without_content_spf_alone_authenticates() {
    let lab = Lab::new();
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    let both = Both::new(&lab, &entrance);
    let replies = grid(AUTHENTICATED);
    let replies = replies.iter().cycle().map(|(.., reply)| (*reply).to_owned());
    let cases: Vec<Asked> = authenticated()
        .into_iter()
        .zip(replies)
        .map(|(case, reply)| Asked { case, reply })
        .collect();
    assert_eq!(cases.len(), 50);
    let compared = both.compare(&rule("\"authenticated\"", ""), &cases);
    assert_all(&compared, is_as_listed);
    assert_all(&compared, |one| {
        let sender = &one.asked.case.sender;
        let is_deferred_inline = one.inline.reply.starts_with("451");
        if sender.contains("spf-pass") || sender.contains("spf-lame") && is_deferred_inline {
            return one.is_same();
        }
        let has_inline_text =
            !is_deferred_inline || text(&one.inline.reply) == text(&one.postfix.reply);
        is_deferred(one) && has_inline_text
    });
}

fn rules_on_spf_are_those_of_the_relay() {
    let lab = Lab::new();
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    let both = Both::new(&lab, &entrance);
    for (column, rules) in [
        ("pass", rule("\"spf\"", "")),
        ("not_fail", rule("{ fact = \"spf\", level = \"not_fail\" }", "")),
        ("at_end", rule("\"spf\"", "when = { at = \"data\" }\n")),
    ] {
        let replies = grid(SPF);
        let reply_of = |case: &Case| {
            let is_row = |spf: &str| case.sender.contains(&format!("@spf-{spf}."));
            let mut column = replies.iter().filter(|(_, rule, _)| *rule == column);
            column.find(|(spf, ..)| is_row(spf)).unwrap().2
        };
        // What the relay replies is the same, by other codes.
        let inline = |reply| match reply {
            "554" => "550",
            "450" => "451",
            other => other,
        };
        let cases = authenticated().into_iter().map(|case| {
            let reply = reply_of(&case);
            Asked {
                case: Case { reply: inline(reply).to_owned(), ..case },
                reply: reply.to_owned(),
            }
        });
        let cases: Vec<Asked> = cases.collect();
        let compared = both.compare(&rules, &cases);
        assert_all(&compared, |one| {
            let is_at_end = one.postfix.command == "end of data";
            let is_refused = !one.postfix.reply.starts_with('2');
            is_as_listed(one) && one.is_same() && (!is_refused || is_at_end == (column == "at_end"))
        });
    }
}

fn googles_rule_defers_where_only_a_signature_could_help() {
    let lab = Lab::new();
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    let both = Both::new(&lab, &entrance);
    let mut cases = Vec::new();
    for (client, spf, is_signed, inline, asked) in [
        ("good", "pass", false, "250", "250"),
        ("good", "none", true, "250", "450 4.7.26"),
        ("good", "none", false, "550 5.7.26", "450 4.7.26"),
        ("missing", "pass", true, "550 5.7.25", "554 5.7.25"),
        ("missing", "none", false, "550 5.7.25", "554 5.7.25"),
    ] {
        for family in Family::ALL {
            let over = |reply: &str| if family == Family::Ipv6 { reply } else { "250" }.to_owned();
            let case = Case {
                client,
                family,
                sender: format!("alice@spf-{spf}.example"),
                author: "author.example".to_owned(),
                signature: is_signed.then(|| ("signer.example".to_owned(), "good")),
                reply: over(inline),
            };
            cases.push(Asked { case, reply: over(asked) });
        }
    }
    let compared = both.compare(GOOGLE, &cases);
    assert_all(&compared, is_as_listed);
    assert_all(&compared, |one| match one.asked.reply.as_str() {
        "450 4.7.26" => is_deferred(one),
        _ => one.is_same(),
    });
}

/// The Postfix behind the relay asks about the relay's own sessions, with less knowledge than the relay has.
fn a_message_that_the_relay_decided_is_not_decided_without_its_content() {
    for transport in Transport::ALL {
        let lab = Lab::new();
        let entrance = Entrance::new(&lab, Mode::Proxy, transport);
        let site = Site::with_upstream(&lab, &entrance, &lines());
        for (mode, refused) in [("enforce", "550 5.7.26"), ("shadow", "250")] {
            let config = entrance
                .config()
                .upstream_port(&lab, port::PROXY_PROTOCOL)
                .set("upstream", "identity = \"proxy-v2\"")
                .set("log", "format = \"json\"")
                .set("lookup", &format!("dns = [\"{KNOT}\"]"))
                .set(
                    "postfix",
                    &format!("policy = \"unix:{}\"", socket(&lab, "upstream").display()),
                )
                .policies(&rule("\"authenticated\"", &format!("mode = \"{mode}\"\n")));
            let mut gateway = Gateway::start(&lab, &config);
            let of_dkim = |case: &Case| {
                let kind = case.signature.as_ref().map(|(_, kind)| *kind);
                case.sender.contains("spf-none") && matches!(kind, None | Some("good"))
            };
            let cases: Vec<Case> = authenticated().into_iter().filter(of_dkim).collect();
            assert_eq!(cases.len(), 4);
            for case in &cases {
                let mut smtp =
                    entrance.connect_from(sender_ip(case.client, case.family), case.family);
                if transport == Transport::Plaintext {
                    smtp.greeting();
                }
                smtp.dialogue("C: EHLO client.example.net\n S: 250");
                // Several in a session, by DATA and by BDAT.
                for is_chunked in [true, false] {
                    let message = case.message(&site.signer);
                    smtp.dialogue(&format!(
                        "C: MAIL FROM:<{}>\n S: 250\n C: RCPT TO:<{TO}>\n S: 250",
                        case.sender
                    ));
                    let reply =
                        if is_chunked { smtp.bdat(&message, 100) } else { smtp.data(&message) };
                    let reply = format!("{} {}", reply.code, reply.lines.join(" / "));
                    let expected = if case.signature.is_some() { "250" } else { refused };
                    assert!(reply.starts_with(expected), "{transport}, {case:?}: {reply}");
                    if !reply.starts_with("250") {
                        break;
                    }
                }
            }
            gateway.terminate();
            gateway.wait();
            let sessions = lines_with(&gateway.log(), "verdict");
            assert_eq!(sessions.len(), cases.len(), "each session has one line: {}", gateway.log());
            for (session, case) in sessions.iter().zip(&cases) {
                let verdict = &session["verdict"];
                let shadow = verdict["shadow"].as_array().unwrap();
                let is_match = case.signature.is_none();
                let is_rejected = is_match && mode == "enforce";
                assert_eq!(
                    verdict["action"],
                    if is_rejected { "reject" } else { "accept" },
                    "{session}"
                );
                assert_eq!(shadow.len(), usize::from(is_match && mode == "shadow"), "{session}");
                let detail = session["facts"]["authenticated"]["detail"].as_str().unwrap();
                let evidence =
                    if is_match { "dkim=none" } else { "dkim=pass d=signer.example s=mail" };
                assert!(detail.contains(evidence), "{session}");
            }
        }
        assert!(!site.postfix.log().contains("gatepost would tempfail"), "{}", site.postfix.log());
    }
}

/// At the end of a message with several recipients Postfix names none.
fn the_end_of_a_message_is_decided_for_all_its_recipients() {
    let lab = Lab::new();
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    let both = Both::new(&lab, &entrance);
    let config = both.config.clone().set("site", "domains = [\"example.org\"]");
    let _gateway = Gateway::start(&lab, &config.policies(&rule("\"authenticated\"", "")));
    for (spf, recipients, end) in [
        ("none", &[("bob", "250 2.1.5"), ("ann", "250 2.1.5")][..], "450 4.7.26"),
        ("pass", &[("bob", "250 2.1.5"), ("ann", "250 2.1.5")], "250 2.0.0"),
        // The exempt recipient has the message for itself.
        ("none", &[("postmaster", "250 2.1.5"), ("bob", "450 4.5.3")], "250 2.0.0"),
        ("none", &[("bob", "250 2.1.5"), ("postmaster", "450 4.5.3")], "450 4.7.26"),
    ] {
        for port in [port::SMTP, RELAY] {
            let to = SocketAddr::new(lab.gateway_ip(Family::Ipv6), port);
            let mut smtp = lab.client.smtp_from(sender_ip("good", Family::Ipv6), to);
            smtp.dialogue(&format!(
                "S: 220\n C: EHLO client.example.net\n S: 250\n C: MAIL FROM:<alice@spf-{spf}.example>\n S: 250"
            ));
            let is_relay = port == RELAY;
            let check = |reply: &Reply, expected: &str| {
                // The relay knows that there is no signature, and has codes of its own.
                let expected = match expected {
                    "450 4.5.3" if is_relay => "452 4.5.3",
                    "450 4.7.26" if is_relay => "550 5.7.26",
                    other => other,
                };
                let reply = format!("{} {}", reply.code, reply.lines.join(" / "));
                assert!(reply.starts_with(expected), "{spf}, {recipients:?}, {port}: {reply}");
            };
            for (recipient, expected) in recipients {
                check(&smtp.ask(&format!("RCPT TO:<{recipient}@example.org>")), expected);
            }
            check(&smtp.data(b"From: a@author.example\r\n\r\nx\r\n"), end);
            smtp.ask("QUIT");
        }
    }
}
