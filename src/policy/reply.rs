//! The SMTP reply of a policy rule that refuses: code, enhanced code (RFC 3463, RFC 7372, RFC 7505) and one line of text
//! for the sender's postmaster.
//!
//! The text repeats only what the client sent or is: never upstream's replies or address. The reply is the same for every
//! result of a probe that did not succeed, or the gateway would scan ports for its clients: refused, without a response,
//! stalled, rejected, or of an address that is not probed. The log has the detail.

use std::net::IpAddr;

use super::PolicyAction;
use super::facts::{Fact, FactState, Reason, Source};
use super::rules::{FactName, RuleMatch, Subject};
use crate::addr::Family;
use crate::humanize;
use crate::smtp::EnhancedCode;

/// Octets of the text, so that with its codes it fits into the 512 of a reply line (RFC 5321 §4.5.3.1.5).
pub const MAX_TEXT: usize = 380;

/// Octets of a client's argument that are repeated.
const MAX_ARGUMENT: usize = 80;
const MAX_RULE: usize = 64;

/// The reply for `matched`: printable ASCII, at most [`MAX_TEXT`] octets. An unknown fact never causes a 5xx, whatever the
/// rule's action (rule 6 of ARCHITECTURE.md).
pub fn reply(matched: &RuleMatch, subject: &Subject<'_>) -> (u16, EnhancedCode, String) {
    let unknown = matches!(&matched.cause, Some((_, fact)) if fact.state == FactState::Unknown);
    let class = if matched.action == PolicyAction::Reject && !unknown { 5 } else { 4 };
    let is_probe_result = matches!(&matched.cause, Some((name, fact)) if is_probed(*name, fact));
    let code = match (class, unknown && !is_probe_result) {
        (5, _) => 550,
        (_, true) => 451,
        _ => 450,
    };
    let ((about, detail), sentence) = match &matched.cause {
        Some((name, fact)) => (enhanced(*name, fact), sentence(*name, fact, class, subject)),
        None if class == 5 => ((7, 1), String::from("rejected by local policy")),
        None => ((7, 1), String::from("deferred by local policy")),
    };
    (code, EnhancedCode::new(class, about, detail), line(&sentence, matched))
}

/// Subject and detail of the enhanced code.
fn enhanced(name: FactName, fact: &Fact) -> (u16, u16) {
    match (name, fact.state, fact.reason) {
        (FactName::Fcrdns | FactName::ReverseName, ..) => (7, 25),
        (FactName::HeloResolves, ..) => (7, 1),
        (FactName::ReturnPath, FactState::Unknown, Some(Reason::NotProbed)) => (1, 8),
        (FactName::ReturnPath, FactState::Unknown, _) => {
            (4, if is_dns_failure(fact) { 3 } else { 1 })
        }
        (FactName::ReturnPath, _, Some(Reason::NullMx)) => (7, 27),
        (FactName::ReturnPath, ..) if is_probed(name, fact) => (4, 1),
        (FactName::ReturnPath, ..) => (1, 8),
        (FactName::Recipient, FactState::Unknown, _) => (4, 0),
        (FactName::Recipient, _, Some(Reason::NullMx)) => (1, 10),
        (FactName::Recipient, ..) => (1, 1),
        (FactName::ReceivePath, ..) => (3, 2),
        // RFC 7372 §3.2: validation failed, and validation error.
        (FactName::Spf, FactState::Unknown, _) | (FactName::Spf, _, Some(Reason::SpfPermerror)) => {
            (7, 24)
        }
        (FactName::Spf, ..) => (7, 23),
        // RFC 7372 §3.1, and §3.3: several checks failed.
        (FactName::Dkim, ..) => (7, 20),
        (FactName::Dmarc | FactName::Authenticated, ..) => (7, 26),
    }
}

/// Whether the fact shows how a probed server behaved, other than by accepting or rejecting a mailbox.
const fn is_probed(name: FactName, fact: &Fact) -> bool {
    let from_probe = matches!(fact.source, Source::Traffic | Source::Probe);
    matches!(name, FactName::ReturnPath)
        && match fact.reason {
            Some(
                Reason::NoResponse
                | Reason::Refused
                | Reason::EstablishedButStalled
                | Reason::RejectedBeforeRcpt
                | Reason::Deferred,
            ) => true,
            Some(Reason::Timeout | Reason::NoUsableAddress | Reason::Unreachable) => from_probe,
            _ => false,
        }
}

/// The DNS lookup failed, not a probe of a server.
const fn is_dns_failure(fact: &Fact) -> bool {
    match fact.reason {
        Some(Reason::Servfail) => true,
        Some(Reason::Unreachable | Reason::Timeout | Reason::NoResolver) | None => {
            !matches!(fact.source, Source::Traffic | Source::Probe)
        }
        Some(_) => false,
    }
}

/// One clause for the sender's postmaster: what is wrong.
fn sentence(name: FactName, fact: &Fact, class: u8, subject: &Subject<'_>) -> String {
    let client = subject.client;
    let helo = argument(subject.helo);
    let sender = argument(subject.sender);
    let recipient = argument(subject.recipient);
    if fact.state == FactState::Unknown && fact.reason == Some(Reason::HeaderTooLarge) {
        return String::from("header section is too large to verify its signatures");
    }
    if fact.state == FactState::Unknown {
        return match name {
            FactName::ReverseName => format!("cannot look up the PTR record of {client} right now"),
            FactName::Fcrdns => format!("cannot confirm the PTR name of {client} right now"),
            FactName::HeloResolves => format!("cannot look up HELO name {helo} right now"),
            FactName::ReturnPath if is_dns_failure(fact) => {
                format!("cannot look up the domain of <{sender}> right now")
            }
            FactName::ReturnPath if fact.reason == Some(Reason::NotProbed) => {
                format!("cannot verify <{sender}>: use a domain, not an address literal")
            }
            FactName::ReturnPath => format!("cannot verify <{sender}> right now"),
            FactName::Recipient => format!("cannot verify <{recipient}> right now"),
            FactName::ReceivePath => unproven(client),
            FactName::Spf => {
                format!("cannot look up the SPF record of {} right now", spf_domain(subject))
            }
            FactName::Dkim => String::from("cannot verify the DKIM signatures right now"),
            FactName::Dmarc => {
                format!("cannot verify DMARC of {} right now", author_domain(subject))
            }
            FactName::Authenticated => String::from("cannot verify SPF and DKIM right now"),
        };
    }
    match (name, fact.reason) {
        (FactName::ReverseName, _) | (FactName::Fcrdns, Some(Reason::NoPtr)) => {
            format!("client address {client} has no PTR record")
        }
        (FactName::Fcrdns, _) => format!("PTR name of {client} does not resolve back to {client}"),
        (FactName::HeloResolves, Some(Reason::NotADomain)) => {
            format!("HELO name {helo} is neither a domain nor an address literal")
        }
        (FactName::HeloResolves, _) => format!("HELO name {helo} has no address"),
        (FactName::ReturnPath, Some(Reason::Nxdomain)) => {
            format!("domain of <{sender}> does not exist")
        }
        (FactName::ReturnPath, Some(Reason::NotADomain)) => {
            format!("<{sender}> has no valid domain")
        }
        (FactName::ReturnPath, Some(Reason::NullMx)) => {
            format!("domain of <{sender}> accepts no mail (null MX)")
        }
        (FactName::ReturnPath, Some(Reason::NoSuchMailbox)) => {
            format!("mail server for <{sender}> rejects that address")
        }
        (FactName::ReturnPath, _) if is_probed(name, fact) => match class {
            5 => format!("no mail server for <{sender}> can be reached"),
            // As where the result is unknown.
            _ => format!("cannot verify <{sender}> right now"),
        },
        (FactName::ReturnPath, _) => {
            format!("no mail server for <{sender}> is reachable from the Internet")
        }
        (FactName::Recipient, Some(Reason::NullMx)) => {
            format!("domain of <{recipient}> accepts no mail")
        }
        (FactName::Recipient, _) => format!("unknown recipient <{recipient}>"),
        (FactName::ReceivePath, _) => unproven(client),
        (FactName::Spf, Some(Reason::SpfNone)) => {
            format!("{} has no SPF record", spf_domain(subject))
        }
        (FactName::Spf, Some(Reason::SpfPermerror)) => {
            format!("SPF record of {} is invalid", spf_domain(subject))
        }
        (FactName::Spf, Some(Reason::NotADomain)) => {
            format!("{} has no SPF record: it is no domain", spf_domain(subject))
        }
        (FactName::Spf, _) => {
            format!("SPF record of {} does not allow {client} to send", spf_domain(subject))
        }
        (FactName::Dkim, Some(Reason::DkimNone)) => String::from("message has no DKIM signature"),
        (FactName::Dkim, _) => String::from("no DKIM signature of the message verifies"),
        (FactName::Dmarc, Some(Reason::NoAuthorDomain)) => {
            String::from("From field has no author with a domain")
        }
        (FactName::Dmarc, Some(Reason::ManyAuthorDomains)) => {
            String::from("From field has authors of too many domains")
        }
        (FactName::Dmarc, _) => {
            let domain = author_domain(subject);
            format!(
                "message violates the DMARC policy of {domain}: neither SPF nor DKIM passes for it"
            )
        }
        (FactName::Authenticated, _) => format!(
            "message is not authenticated: SPF record of {} does not allow {client}, and no DKIM signature verifies",
            spf_domain(subject)
        ),
    }
}

/// The domain of the author, or the first of several.
fn author_domain(subject: &Subject<'_>) -> String {
    let content = subject.message.and_then(|message| message.content.as_ref().ok());
    let domains = content.map(|content| content.authors.domains.as_slice()).unwrap_or_default();
    match domains {
        [] => String::from("the author's domain"),
        [one] => argument(Some(one)),
        [first, ..] => format!("an author's domain, of {} and others", argument(Some(first))),
    }
}

/// The domain whose SPF record counts: that of MAIL FROM, or the HELO name.
fn spf_domain(subject: &Subject<'_>) -> String {
    let sender = subject.sender.and_then(|sender| sender.rsplit_once('@'));
    match sender {
        Some((_, domain)) => argument(Some(domain)),
        None => format!("HELO name {}", argument(subject.helo)),
    }
}

fn unproven(client: IpAddr) -> String {
    let this = Family::of(client);
    let (this, other) = (humanize::family(this), humanize::family(this.other()));
    format!("mail reception over {this} is not verified, use {other}")
}

/// A client's argument, fit for a reply.
fn argument(text: Option<&str>) -> String {
    printable(text.unwrap_or_default(), MAX_ARGUMENT)
}

/// The first `most` characters, with `?` in place of those that are not printable ASCII.
fn printable(text: &str, most: usize) -> String {
    let ascii = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.chars().take(most).map(ascii).collect()
}

/// The sentence, with the rule's name and its URL in brackets; without the URL if it does not fit.
fn line(sentence: &str, matched: &RuleMatch) -> String {
    let rule = format!(" (rule \"{}\"", printable(&matched.rule, MAX_RULE));
    let mut line = printable(sentence, MAX_TEXT - rule.len() - 1);
    line.push_str(&rule);
    if let Some(url) = &matched.url {
        let see = format!(", see {}", printable(url, MAX_TEXT));
        if line.len() + see.len() < MAX_TEXT {
            line.push_str(&see);
        }
    }
    line.push(')');
    line
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::facts::Detail;

    const ACTIONS: [PolicyAction; 2] = [PolicyAction::Tempfail, PolicyAction::Reject];

    fn matched(action: PolicyAction, cause: Option<(FactName, Fact)>) -> RuleMatch {
        let url = Some("https://mx.receiver.example/policy".into());
        RuleMatch { rule: "reachable over IPv6".into(), action, cause, url }
    }

    fn fact(state: FactState, reason: Reason, source: Source) -> Fact {
        // Must not appear in a reply.
        let detail = Some(Detail::Text(String::from("backend.internal: 550")));
        Fact { state, reason: Some(reason), source, detail, at: None }
    }

    fn subject() -> Subject<'static> {
        Subject {
            client: "2001:db8::25".parse().unwrap(),
            destination: "[2001:db8::1]:25".parse().unwrap(),
            listener: Some("mx"),
            helo: Some("mta.sender.example"),
            sender: Some("alice@sender.example"),
            recipient: Some("bob@receiver.example"),
            message: None,
            tls: false,
            authenticated: false,
        }
    }

    fn reply_line(matched: &RuleMatch, subject: &Subject<'_>) -> String {
        let (code, enhanced, text) = reply(matched, subject);
        format!("{code} {enhanced} {text}")
    }

    /// The states and sources that a reason occurs with.
    fn origins(reason: Reason) -> Vec<(FactState, Source)> {
        use Reason::*;
        match reason {
            Servfail => vec![(FactState::Unknown, Source::Dns)],
            NotProbed => vec![(FactState::Unknown, Source::None)],
            NoUsableAddress => {
                vec![(FactState::False, Source::Dns), (FactState::False, Source::Probe)]
            }
            Timeout | NoResolver | Unreachable => {
                vec![(FactState::Unknown, Source::Dns), (FactState::Unknown, Source::Probe)]
            }
            Deferred | RateLimited | NoProof | UpstreamDown => {
                vec![(FactState::Unknown, Source::Probe)]
            }
            NoResponse | Refused | EstablishedButStalled | RejectedBeforeRcpt => {
                vec![(FactState::False, Source::Probe), (FactState::Unknown, Source::Probe)]
            }
            ContentNotSeen | HeaderTooLarge => vec![(FactState::Unknown, Source::None)],
            _ => vec![(FactState::False, Source::Dns)],
        }
    }

    #[test]
    fn every_reply() {
        let mut table = reply_line(&matched(PolicyAction::Tempfail, None), &subject()) + "\n";
        table += &(reply_line(&matched(PolicyAction::Reject, None), &subject()) + "\n");
        for name in FactName::ALL {
            for reason in Reason::ALL {
                for (state, source) in origins(reason) {
                    for action in ACTIONS {
                        let cause = Some((name, fact(state, reason, source)));
                        let (code, enhanced, text) = reply(&matched(action, cause), &subject());
                        let text = text.split(" (rule").next().unwrap();
                        let (name, state) = (name.as_str(), state.as_str());
                        let (reason, source) = (reason.as_str(), source.as_str());
                        writeln!(
                            table,
                            "{name} {state} {reason} {source} {action}: {code} {enhanced} {text}"
                        )
                        .unwrap();
                    }
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    /// A client must not learn how a probed port behaves.
    #[test]
    fn replies_do_not_tell_one_probe_result_from_another() {
        use Reason::*;
        let results = [Refused, NoResponse, EstablishedButStalled, RejectedBeforeRcpt]
            .map(|reason| (FactState::False, reason, Source::Probe));
        let results = results.into_iter().chain([
            (FactState::False, NoUsableAddress, Source::Probe),
            (FactState::False, Refused, Source::Traffic),
        ]);
        let unknown = [Timeout, Unreachable, EstablishedButStalled, RejectedBeforeRcpt, Deferred]
            .map(|reason| (FactState::Unknown, reason, Source::Probe));
        let line = |action, (state, reason, source)| {
            let cause = Some((FactName::ReturnPath, fact(state, reason, source)));
            reply_line(&matched(action, cause), &subject())
        };
        let deferred = line(PolicyAction::Tempfail, (FactState::False, Refused, Source::Probe));
        let rejected = line(PolicyAction::Reject, (FactState::False, Refused, Source::Probe));
        assert!(rejected.starts_with("550 5.4.1 no mail server for "), "{rejected}");
        for result in results {
            assert_eq!(line(PolicyAction::Tempfail, result), deferred, "{result:?}");
            assert_eq!(line(PolicyAction::Reject, result), rejected, "{result:?}");
        }
        for result in unknown {
            assert_eq!(line(PolicyAction::Tempfail, result), deferred, "{result:?}");
            assert_eq!(line(PolicyAction::Reject, result), deferred, "{result:?}");
        }
    }

    #[test]
    fn the_reply_names_the_other_family_and_the_url() {
        let fact = fact(FactState::False, Reason::NotReached, Source::Probe);
        let matched = matched(PolicyAction::Tempfail, Some((FactName::ReceivePath, fact)));
        let client = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(
            reply_line(&matched, &Subject { client, ..subject() }),
            "450 4.3.2 mail reception over IPv4 is not verified, use IPv6 \
             (rule \"reachable over IPv6\", see https://mx.receiver.example/policy)"
        );
    }

    #[test]
    fn enhanced_codes_follow_the_cause() {
        use FactName::*;
        use Reason::*;
        for (name, state, reason, source, expected) in [
            (Fcrdns, FactState::False, NoPtr, Source::Dns, "550 5.7.25"),
            (Fcrdns, FactState::Unknown, Servfail, Source::Dns, "451 4.7.25"),
            (ReverseName, FactState::False, NoPtr, Source::Dns, "550 5.7.25"),
            (ReturnPath, FactState::False, Nxdomain, Source::Dns, "550 5.1.8"),
            (ReturnPath, FactState::False, NotADomain, Source::None, "550 5.1.8"),
            (ReturnPath, FactState::False, NoUsableAddress, Source::Dns, "550 5.1.8"),
            (ReturnPath, FactState::False, NullMx, Source::Dns, "550 5.7.27"),
            (ReturnPath, FactState::False, NoSuchMailbox, Source::Probe, "550 5.1.8"),
            (ReturnPath, FactState::False, NoResponse, Source::Probe, "550 5.4.1"),
            (ReturnPath, FactState::False, Refused, Source::Traffic, "550 5.4.1"),
            (ReturnPath, FactState::False, EstablishedButStalled, Source::Probe, "550 5.4.1"),
            (ReturnPath, FactState::False, RejectedBeforeRcpt, Source::Probe, "550 5.4.1"),
            (ReturnPath, FactState::Unknown, Timeout, Source::Dns, "451 4.4.3"),
            (ReturnPath, FactState::Unknown, Timeout, Source::Probe, "450 4.4.1"),
            (ReturnPath, FactState::Unknown, NotProbed, Source::None, "451 4.1.8"),
            (ReturnPath, FactState::Unknown, RateLimited, Source::None, "451 4.4.1"),
            (Recipient, FactState::False, NoSuchMailbox, Source::Upstream, "550 5.1.1"),
            (Recipient, FactState::False, NullMx, Source::Dns, "550 5.1.10"),
            (Recipient, FactState::Unknown, UpstreamDown, Source::Upstream, "451 4.4.0"),
            (HeloResolves, FactState::False, NoUsableAddress, Source::Dns, "550 5.7.1"),
            (ReceivePath, FactState::False, NotReached, Source::Probe, "550 5.3.2"),
        ] {
            let cause = Some((name, fact(state, reason, source)));
            let line = reply_line(&matched(PolicyAction::Reject, cause), &subject());
            assert!(line.starts_with(&format!("{expected} ")), "{expected}: {line}");
        }
        assert!(
            reply_line(&matched(PolicyAction::Reject, None), &subject()).starts_with("550 5.7.1 ")
        );
        assert!(
            reply_line(&matched(PolicyAction::Tempfail, None), &subject())
                .starts_with("450 4.7.1 ")
        );
    }

    fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
        prop::sample::select(all)
    }

    proptest! {
        #[test]
        fn hostile_arguments_give_one_ascii_line(
            name in any_of(&FactName::ALL),
            state in any_of(&[FactState::False, FactState::Unknown]),
            reason in any_of(&Reason::ALL),
            action in any_of(&[PolicyAction::Accept, PolicyAction::Tag, PolicyAction::Tempfail, PolicyAction::Reject]),
            arguments in prop::collection::vec("(?s).{0,300}|(\r\n250 ok){0,9}", 3),
            rule in "(?s).{0,100}",
            url in prop::option::of("(?s).{0,400}"),
            with_fact in any::<bool>(),
        ) {
            let cause = with_fact.then(|| (name, fact(state, reason, Source::Dns)));
            let url = url.map(Into::into);
            let matched = RuleMatch { rule: rule.as_str().into(), action, cause, url };
            let subject = Subject {
                helo: Some(&arguments[0]),
                sender: Some(&arguments[1]),
                recipient: Some(&arguments[2]),
                ..subject()
            };
            let (code, enhanced, text) = reply(&matched, &subject);
            let line = format!("{code} {enhanced} {text}");
            prop_assert!(line.len() <= 400, "{} octets", line.len());
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{:?}", line);
            prop_assert!(!text.contains("backend"));
            let permanent = code / 100 == 5;
            prop_assert_eq!(permanent, enhanced.class == 5);
            prop_assert!(!permanent || action == PolicyAction::Reject);
            prop_assert!(!permanent || !with_fact || state != FactState::Unknown);
        }
    }
}
