//! What a client is told that a policy rule refuses: code, enhanced code (RFC 3463, RFC 7372, RFC 7505) and one line
//! for its postmaster.
//!
//! The line repeats what the client itself said or is, and nothing else: never what upstream said, nor who it is.

use std::net::IpAddr;

use super::Action;
use super::facts::{Fact, Reason, Source, State};
use super::rules::{FactName, RuleMatch, Subject};
use crate::addr::Family;
use crate::smtp::EnhancedCode;

/// Octets of the text, so that with its codes it fits the 512 of a reply line (RFC 5321 §4.5.3.1.5).
pub const MAX_TEXT: usize = 380;

/// What is repeated of the client's is cut to so many octets.
const MAX_SAID: usize = 80;
const MAX_RULE: usize = 64;

/// How to refuse what `fired` wants refused. The text is printable ASCII of at most [`MAX_TEXT`] octets. A fact that is
/// unknown is never refused for good, whatever the rule says.
pub fn reply(fired: &RuleMatch, subject: &Subject<'_>) -> (u16, EnhancedCode, String) {
    let unknown = matches!(&fired.cause, Some((_, fact)) if fact.state == State::Unknown);
    let class = if fired.action == Action::Reject && !unknown { 5 } else { 4 };
    let code = match (class, unknown) {
        (5, _) => 550,
        (_, true) => 451,
        _ => 450,
    };
    let ((about, detail), sentence) = match &fired.cause {
        Some((name, fact)) => (enhanced(*name, fact), sentence(*name, fact, subject)),
        None => ((7, 1), String::from("the policy of this site does not take this mail")),
    };
    (code, EnhancedCode::new(class, about, detail), line(&sentence, fired))
}

/// Subject and detail of the enhanced code.
fn enhanced(name: FactName, fact: &Fact) -> (u16, u16) {
    match (name, fact.state, fact.reason) {
        (FactName::Fcrdns | FactName::ReverseName, ..) => (7, 25),
        (FactName::HeloResolves, ..) => (7, 1),
        (FactName::ReturnPath, State::Unknown, _) => (4, if is_of_dns(fact) { 3 } else { 1 }),
        (FactName::ReturnPath, _, Some(Reason::NullMx)) => (7, 27),
        (
            FactName::ReturnPath,
            _,
            Some(Reason::Silent | Reason::Refused | Reason::Stalled | Reason::TurnedAway),
        ) => (4, 1),
        (FactName::ReturnPath, ..) => (1, 8),
        (FactName::Recipient, State::Unknown, _) => (4, 0),
        (FactName::Recipient, _, Some(Reason::NullMx)) => (1, 10),
        (FactName::Recipient, ..) => (1, 1),
        (FactName::ReceivePath, ..) => (3, 2),
    }
}

/// Whether it is the DNS that did not tell, not a server that we called or wanted to.
const fn is_of_dns(fact: &Fact) -> bool {
    match fact.reason {
        Some(Reason::Servfail | Reason::Unreachable) => true,
        Some(Reason::Timeout | Reason::NoSource) | None => {
            !matches!(fact.source, Source::Traffic | Source::Probe)
        }
        Some(_) => false,
    }
}

/// What is wrong, in words for the sender's postmaster.
fn sentence(name: FactName, fact: &Fact, subject: &Subject<'_>) -> String {
    let client = subject.client;
    let sender = said(subject.sender);
    if fact.state == State::Unknown {
        return match name {
            FactName::ReverseName => {
                format!("the reverse name of {client} cannot be looked up now")
            }
            FactName::Fcrdns => format!("the reverse name of {client} cannot be confirmed now"),
            FactName::HeloResolves => {
                format!("the name {} cannot be looked up now", said(subject.helo))
            }
            FactName::ReturnPath if is_of_dns(fact) => {
                format!("the domain of <{sender}> cannot be looked up now")
            }
            FactName::ReturnPath => format!("whether <{sender}> takes mail cannot be told now"),
            FactName::Recipient => {
                format!("whether there is a <{}> cannot be told now", said(subject.recipient))
            }
            FactName::ReceivePath => unproven(client),
        };
    }
    match (name, fact.reason) {
        (FactName::ReverseName, _) | (FactName::Fcrdns, Some(Reason::NoPtr)) => {
            format!("your address {client} has no reverse name (PTR record)")
        }
        (FactName::Fcrdns, _) => {
            format!("no reverse name (PTR record) of your address {client} has that address")
        }
        (FactName::HeloResolves, Some(Reason::NotADomain)) => {
            format!("{} is neither a domain nor an address literal", said(subject.helo))
        }
        (FactName::HeloResolves, _) => {
            format!("the name {} that you gave has no address", said(subject.helo))
        }
        (FactName::ReturnPath, reason) => {
            let what = match reason {
                Some(Reason::Nxdomain) => "does not exist",
                Some(Reason::NotADomain) => "is no domain",
                Some(Reason::NullMx) => "says that it takes no mail (null MX)",
                Some(Reason::NoSuchMailbox) => "refuses mail for it",
                Some(Reason::Silent) => "has no mail server that answers",
                Some(Reason::Refused) => "has no mail server that takes connections",
                Some(Reason::Stalled) => "has mail servers that take connections and say nothing",
                Some(Reason::TurnedAway) => "has mail servers that turn us away",
                _ => "has no mail server that can be reached from the Internet",
            };
            format!("the domain of <{sender}> {what}")
        }
        (FactName::Recipient, Some(Reason::NullMx)) => {
            format!("the domain of <{}> takes no mail", said(subject.recipient))
        }
        (FactName::Recipient, _) => format!("there is no <{}> here", said(subject.recipient)),
        (FactName::ReceivePath, _) => unproven(subject.client),
    }
}

fn unproven(client: IpAddr) -> String {
    let (this, other) = match Family::of(client) {
        Family::Ipv6 => ("IPv6", "IPv4"),
        Family::Ipv4 => ("IPv4", "IPv6"),
    };
    format!("mail over {this} is not known to reach us, please send it over {other}")
}

/// What the client said, fit to be said to it.
fn said(text: Option<&str>) -> String {
    printable(text.unwrap_or_default(), MAX_SAID)
}

/// The first `most` characters, those that are no printable ASCII as `?`.
fn printable(text: &str, most: usize) -> String {
    let ascii = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.chars().take(most).map(ascii).collect()
}

/// The sentence, the rule's name, and where there is more to read, if that fits.
fn line(sentence: &str, fired: &RuleMatch) -> String {
    let rule = format!(" (rule \"{}\")", printable(&fired.rule, MAX_RULE));
    let mut line = printable(sentence, MAX_TEXT - rule.len());
    line.push_str(&rule);
    if let Some(url) = &fired.url {
        let see = format!(" see {}", printable(url, MAX_TEXT));
        if line.len() + see.len() <= MAX_TEXT {
            line.push_str(&see);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::facts::Detail;

    const ACTIONS: [Action; 2] = [Action::Tempfail, Action::Reject];

    fn fired(action: Action, cause: Option<(FactName, Fact)>) -> RuleMatch {
        let url = Some("https://mx.receiver.example/policy".into());
        RuleMatch { rule: "reachable over IPv6".into(), action, cause, url }
    }

    fn fact(state: State, reason: Reason, source: Source) -> Fact {
        // Nothing of this may be told.
        let detail = Some(Detail::Said(String::from("backend.internal said 550")));
        Fact { state, reason: Some(reason), source, detail, at: None }
    }

    fn subject() -> Subject<'static> {
        Subject {
            client: "2001:db8::25".parse().unwrap(),
            listener: "[2001:db8::1]:25".parse().unwrap(),
            helo: Some("mta.sender.example"),
            sender: Some("alice@sender.example"),
            recipient: Some("bob@receiver.example"),
            tls: false,
            authenticated: false,
        }
    }

    fn told(fired: &RuleMatch, subject: &Subject<'_>) -> String {
        let (code, enhanced, text) = reply(fired, subject);
        format!("{code} {enhanced} {text}")
    }

    /// Where each reason comes from: states, sources.
    fn ways(reason: Reason) -> Vec<(State, Source)> {
        use Reason::*;
        match reason {
            Servfail | Unreachable => vec![(State::Unknown, Source::Dns)],
            Timeout | NoSource => {
                vec![(State::Unknown, Source::Dns), (State::Unknown, Source::Probe)]
            }
            Deferred | Limited | NoProof | UpstreamDown => vec![(State::Unknown, Source::Probe)],
            Silent | Refused | Stalled | TurnedAway => {
                vec![(State::False, Source::Probe), (State::Unknown, Source::Probe)]
            }
            _ => vec![(State::False, Source::Dns)],
        }
    }

    #[test]
    fn every_reply() {
        let mut table = told(&fired(Action::Tempfail, None), &subject()) + "\n";
        table += &(told(&fired(Action::Reject, None), &subject()) + "\n");
        for name in FactName::ALL {
            for reason in Reason::ALL {
                for (state, source) in ways(reason) {
                    for action in ACTIONS {
                        let cause = Some((name, fact(state, reason, source)));
                        let (code, enhanced, text) = reply(&fired(action, cause), &subject());
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

    #[test]
    fn ipv4_is_told_of_ipv6() {
        let fact = fact(State::False, Reason::NotReached, Source::Probe);
        let fired = fired(Action::Tempfail, Some((FactName::ReceivePath, fact)));
        let client = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(
            told(&fired, &Subject { client, ..subject() }),
            "450 4.3.2 mail over IPv4 is not known to reach us, please send it over IPv6 \
             (rule \"reachable over IPv6\") see https://mx.receiver.example/policy"
        );
    }

    #[test]
    fn the_codes_of_the_table() {
        use FactName::*;
        use Reason::*;
        for (name, state, reason, source, expected) in [
            (Fcrdns, State::False, NoPtr, Source::Dns, "550 5.7.25"),
            (Fcrdns, State::Unknown, Servfail, Source::Dns, "451 4.7.25"),
            (ReverseName, State::False, NoPtr, Source::Dns, "550 5.7.25"),
            (ReturnPath, State::False, Nxdomain, Source::Dns, "550 5.1.8"),
            (ReturnPath, State::False, NotADomain, Source::None, "550 5.1.8"),
            (ReturnPath, State::False, NoUsableAddress, Source::Dns, "550 5.1.8"),
            (ReturnPath, State::False, NullMx, Source::Dns, "550 5.7.27"),
            (ReturnPath, State::False, NoSuchMailbox, Source::Probe, "550 5.1.8"),
            (ReturnPath, State::False, Silent, Source::Probe, "550 5.4.1"),
            (ReturnPath, State::False, Refused, Source::Traffic, "550 5.4.1"),
            (ReturnPath, State::False, Stalled, Source::Probe, "550 5.4.1"),
            (ReturnPath, State::False, TurnedAway, Source::Probe, "550 5.4.1"),
            (ReturnPath, State::Unknown, Timeout, Source::Dns, "451 4.4.3"),
            (ReturnPath, State::Unknown, Timeout, Source::Probe, "451 4.4.1"),
            (ReturnPath, State::Unknown, Limited, Source::None, "451 4.4.1"),
            (Recipient, State::False, NoSuchMailbox, Source::Upstream, "550 5.1.1"),
            (Recipient, State::False, NullMx, Source::Dns, "550 5.1.10"),
            (Recipient, State::Unknown, UpstreamDown, Source::Upstream, "451 4.4.0"),
            (HeloResolves, State::False, NoUsableAddress, Source::Dns, "550 5.7.1"),
            (ReceivePath, State::False, NotReached, Source::Probe, "550 5.3.2"),
        ] {
            let cause = Some((name, fact(state, reason, source)));
            let told = told(&fired(Action::Reject, cause), &subject());
            assert!(told.starts_with(&format!("{expected} ")), "{expected}: {told}");
        }
        assert!(told(&fired(Action::Reject, None), &subject()).starts_with("550 5.7.1 "));
        assert!(told(&fired(Action::Tempfail, None), &subject()).starts_with("450 4.7.1 "));
    }

    fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
        prop::sample::select(all)
    }

    proptest! {
        #[test]
        fn whatever_a_client_says_the_reply_is_one_ascii_line(
            name in any_of(&FactName::ALL),
            state in any_of(&[State::False, State::Unknown]),
            reason in any_of(&Reason::ALL),
            action in any_of(&[Action::Accept, Action::Tag, Action::Tempfail, Action::Reject]),
            said in prop::collection::vec("(?s).{0,300}|(\r\n250 ok){0,9}", 3),
            rule in "(?s).{0,100}",
            url in prop::option::of("(?s).{0,400}"),
            with_fact in any::<bool>(),
        ) {
            let cause = with_fact.then(|| (name, fact(state, reason, Source::Dns)));
            let url = url.map(Into::into);
            let fired = RuleMatch { rule: rule.as_str().into(), action, cause, url };
            let subject = Subject {
                helo: Some(&said[0]),
                sender: Some(&said[1]),
                recipient: Some(&said[2]),
                ..subject()
            };
            let (code, enhanced, text) = reply(&fired, &subject);
            let line = format!("{code} {enhanced} {text}");
            prop_assert!(line.len() <= 400, "{} octets", line.len());
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{:?}", line);
            prop_assert!(!text.contains("backend"));
            let for_good = code / 100 == 5;
            prop_assert_eq!(for_good, enhanced.class == 5);
            prop_assert!(!for_good || action == Action::Reject);
            prop_assert!(!for_good || !with_fact || state != State::Unknown);
        }
    }
}
