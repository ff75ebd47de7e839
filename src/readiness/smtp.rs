//! How the exchanges answer on port 25, over either family.
//!
//! RFC 5321 §4.2 and §4.3, RFC 3207.

use std::net::IpAddr;
use std::time::Duration;

use super::finding::{CheckName, Findings};
use super::mx::Host;
use super::{ConnectResult, KnownAnswers, ReplyResult, ServerMeasurement, Survey};
use crate::addr::Family;
use crate::policy::facts::DomainName;

/// postscreen(8) waits six seconds by default; whoever takes longer is slow.
const SLOW: Duration = Duration::from_secs(7);

pub(super) fn judge(hosts: &[Host], known: &KnownAnswers, findings: &mut Findings) {
    let calls: Vec<(&Host, IpAddr, &Survey)> = hosts
        .iter()
        .flat_map(|host| host.addresses.iter().map(move |ip| (host, *ip)))
        .filter_map(|(host, ip)| Some((host, ip, known.survey(ip)?)))
        .collect();
    // Where nobody anywhere answers, the fault may well be here.
    let somebody =
        calls.iter().any(|(.., survey)| matches!(survey.reached, ConnectResult::Connected(_)));
    // First what a family does beside the other: that is what a tired reader looks for.
    for host in hosts {
        families(host, known, findings);
    }
    for (host, ip, survey) in &calls {
        one(host, *ip, survey, somebody, findings);
    }
}

/// What the calls came to, in numbers.
pub(super) fn servers(hosts: &[Host], known: &KnownAnswers) -> Vec<ServerMeasurement> {
    let addresses = hosts.iter().flat_map(|host| host.addresses.iter().map(move |ip| (host, *ip)));
    let server = |(host, ip): (&Host, IpAddr)| {
        let survey = known.survey(ip)?;
        let seconds = |spoken: &ReplyResult| spoken.said().map(|said| said.took.as_secs_f64());
        Some(ServerMeasurement {
            exchange: host.name.to_string(),
            address: ip,
            family: Family::of(ip),
            connect_s: match survey.reached {
                ConnectResult::Connected(took) => Some(took.as_secs_f64()),
                _ => None,
            },
            greeting_s: seconds(&survey.greeting),
            ehlo_s: seconds(&survey.ehlo),
            starttls: survey.ehlo.said().map(|ehlo| ehlo.offers("STARTTLS")),
            path_mtu: survey.path.as_ref().and_then(|path| path.mtu),
            mss: survey.path.as_ref().and_then(|path| path.mss),
        })
    };
    addresses.filter_map(server).collect()
}

fn one(host: &Host, ip: IpAddr, survey: &Survey, somebody: bool, findings: &mut Findings) {
    let about = format!("{} {ip}", host.name);
    let check = CheckName::SmtpConnect;
    match survey.reached {
        ConnectResult::Connected(took) => {
            findings.pass(check, &about, format!("connected in {}", time(took)))
        }
        ConnectResult::Refused => {
            let advice =
                "Let the server listen on port 25 of this address, and let firewalls pass it.";
            findings.fail(check, &about, "the connection is refused", advice);
            return;
        }
        ConnectResult::NoResponse(after) if somebody => {
            let seen = format!("no answer to the SYN in {}", time(after));
            let advice = "Find what drops SYNs to port 25 of this address: a firewall, an appliance, or a route that \
                          leads nowhere. If it cannot be mended, remove the record: silence delays each message.";
            findings.fail(check, &about, seen, advice);
            return;
        }
        ConnectResult::NoResponse(after) => {
            let seen = format!("no answer in {}, nor from any other exchange", time(after));
            let advice = "Run this from a host that may send mail: many networks drop what leaves for port 25.";
            findings.unknown(check, &about, seen, advice);
            return;
        }
        ConnectResult::OutOfTime => {
            let advice = "Run this again with a longer --timeout, or ask what is slow here.";
            findings.unknown(check, &about, "not called: the time was over before", advice);
            return;
        }
        ConnectResult::NoRoute => {
            let family = word(Family::of(ip));
            let seen = format!("this host has no way to there over {family}");
            findings.unknown(
                check,
                &about,
                seen,
                format!("Run this from a host that has {family}."),
            );
            return;
        }
    }
    let spoke = said(CheckName::SmtpGreeting, &about, "greeting", &survey.greeting, findings)
        && said(CheckName::SmtpEhlo, &about, "answer to EHLO", &survey.ehlo, findings);
    let (Some(greeting), Some(ehlo), true) = (survey.greeting.said(), survey.ehlo.said(), spoke)
    else {
        return;
    };
    name(&about, &host.name, greeting.name(), ehlo.name(), findings);
    if ehlo.offers("STARTTLS") {
        findings.pass(CheckName::SmtpStarttls, &about, "STARTTLS is offered");
    } else {
        let advice =
            "Configure a certificate for this address (Postfix: smtpd_tls_security_level = may).";
        findings.warn(
            CheckName::SmtpStarttls,
            &about,
            "no STARTTLS: mail comes in the clear",
            advice,
        );
    }
}

/// Whether it is as it should be.
fn said(
    check: CheckName,
    about: &str,
    what: &str,
    spoken: &ReplyResult,
    findings: &mut Findings,
) -> bool {
    match spoken {
        ReplyResult::NotRequested => false,
        ReplyResult::Received(said) if said.code / 100 == 2 => {
            let line = said.lines.first().map(String::as_str).unwrap_or_default();
            let seen = format!("{what} after {}: {} {line}", time(said.took), said.code);
            if said.took > SLOW {
                let advice = "Find what the server waits for: the DNS for the client's name, or a list that does not \
                              answer. Some senders leave before.";
                findings.warn(check, about, format!("slow, {seen}"), advice);
            } else {
                findings.pass(check, about, seen);
            }
            true
        }
        ReplyResult::Received(said) => {
            let seen = format!("{}: {}", said.code, said.lines.join(" "));
            if said.code / 100 == 4 {
                let advice = "Run this again later: the server says that it is about now.";
                findings.unknown(check, about, seen, advice);
            } else {
                let advice = "Let the server welcome hosts that it does not know, or run this from one that it likes.";
                findings.fail(check, about, seen, advice);
            }
            false
        }
        ReplyResult::TimedOut(after) => {
            let seen = format!("connected, but no {what} in {}", time(*after));
            let advice = "Look at what stands between: a proxy or filter that takes connections for a server that is \
                          away, or a server that waits for the DNS.";
            findings.fail(check, about, seen, advice);
            false
        }
        ReplyResult::Closed => {
            let advice =
                "Look into the server's log for why it hung up; it may limit or list this host.";
            findings.unknown(check, about, format!("it hung up in place of the {what}"), advice);
            false
        }
        ReplyResult::NotSmtp => {
            let advice = "Look at what listens there: it does not speak SMTP.";
            findings.fail(check, about, format!("the {what} is no SMTP"), advice);
            false
        }
    }
}

fn name(about: &str, exchange: &DomainName, greeting: &str, ehlo: &str, findings: &mut Findings) {
    let check = CheckName::SmtpName;
    let said = if greeting.eq_ignore_ascii_case(ehlo) {
        format!("it calls itself {greeting}")
    } else {
        format!("it greets as {greeting} and answers EHLO as {ehlo}")
    };
    let named = [greeting, ehlo].map(DomainName::parse);
    let [Some(greets), Some(answers)] = named else {
        let advice = format!(
            "Let the server call itself by its full name (Postfix: myhostname = {exchange})."
        );
        findings.warn(check, about, format!("{said}, which is no domain name"), advice);
        return;
    };
    if [&greets, &answers].iter().any(|name| !name.to_string().contains('.')) {
        let advice = format!(
            "Let the server call itself by its full name (Postfix: myhostname = {exchange})."
        );
        findings.warn(check, about, format!("{said}, which is not a full name"), advice);
    } else if greets == *exchange && answers == *exchange {
        findings.pass(check, about, said);
    } else if related(&greets, exchange) && related(&answers, exchange) {
        findings.pass(check, about, format!("{said}, in the same domain as the MX"));
    } else {
        let advice = format!(
            "Let the server call itself {exchange}, or name in the MX what it calls itself."
        );
        findings.warn(check, about, format!("{said}, not {exchange}"), advice);
    }
}

/// Their last two labels are the same: of one site, as far as that can be told from names.
fn related(one: &DomainName, other: &DomainName) -> bool {
    let top = |name: &DomainName| {
        let text = name.to_string();
        let labels: Vec<String> = text.rsplit('.').take(2).map(str::to_owned).collect();
        labels
    };
    top(one) == top(other)
}

/// What one family does beside the other.
fn families(host: &Host, known: &KnownAnswers, findings: &mut Findings) {
    let surveys = |family| {
        let found: Option<Vec<&Survey>> = host.of(family).map(|ip| known.survey(ip)).collect();
        found.filter(|found| !found.is_empty())
    };
    let (Some(v6), Some(v4)) = (surveys(Family::Ipv6), surveys(Family::Ipv4)) else { return };
    let check = CheckName::SmtpFamilies;
    let works = |of: &[&Survey]| of.iter().any(|survey| greets(survey));
    let silent =
        |of: &[&Survey]| of.iter().all(|one| matches!(one.reached, ConnectResult::NoResponse(_)));
    let no_way = |of: &[&Survey]| {
        of.iter()
            .any(|one| matches!(one.reached, ConnectResult::NoRoute | ConnectResult::OutOfTime))
    };
    match (works(&v6), works(&v4)) {
        (true, true) => {
            let tls = |of: &[&Survey]| {
                let offers = |survey: &&Survey| {
                    survey.ehlo.said().is_some_and(|ehlo| ehlo.offers("STARTTLS"))
                };
                of.iter().filter(|survey| greets(survey)).all(offers)
            };
            if tls(&v6) == tls(&v4) {
                findings.pass(check, &host.name, format!("both answer: {}", beside(&v6, &v4)));
            } else {
                let (with, sans) = if tls(&v6) { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
                let seen = format!("STARTTLS is offered over {with} and not over {sans}");
                let advice = format!(
                    "Find what takes STARTTLS away over {sans}: a filter, or a second server."
                );
                findings.fail(check, &host.name, seen, advice);
            }
        }
        _ if no_way(&v6) || no_way(&v4) => {}
        (false, true) if silent(&v6) => {
            let advice = "Open port 25 over IPv6 on the whole way, and let ICMPv6 pass (RFC 4890). Until then remove \
                          the AAAA record: senders wait for a time-out before they try IPv4, if they ever do.";
            let seen =
                "IPv6 is silent while IPv4 answers: the classic fault of a filter that drops IPv6";
            findings.fail(check, &host.name, seen, advice);
        }
        (false, true) => {
            let advice =
                "Compare how the server and its filters are set up for IPv6 with how for IPv4.";
            findings.fail(
                check,
                &host.name,
                "over IPv6 it does not take mail, over IPv4 it does",
                advice,
            );
        }
        (true, false) => {
            let advice =
                "Compare how the server and its filters are set up for IPv4 with how for IPv6.";
            findings.fail(
                check,
                &host.name,
                "over IPv4 it does not take mail, over IPv6 it does",
                advice,
            );
        }
        // Each of them was told.
        (false, false) => {}
    }
}

fn greets(survey: &Survey) -> bool {
    let good = |spoken: &ReplyResult| spoken.said().is_some_and(|said| said.code / 100 == 2);
    good(&survey.greeting) && good(&survey.ehlo)
}

/// `EHLO answered after 12 ms over IPv6, 11 ms over IPv4`: from the SYN on, by the fastest.
fn beside(v6: &[&Survey], v4: &[&Survey]) -> String {
    let fastest = |of: &[&Survey]| {
        let whole = of.iter().filter_map(|survey| {
            let ConnectResult::Connected(connect) = survey.reached else { return None };
            Some(connect + survey.greeting.said()?.took + survey.ehlo.said()?.took)
        });
        whole.min().unwrap_or_default()
    };
    format!("EHLO answered after {} over IPv6, {} over IPv4", time(fastest(v6)), time(fastest(v4)))
}

pub(super) const fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv6 => "IPv6",
        Family::Ipv4 => "IPv4",
    }
}

/// In milliseconds, or seconds with one decimal.
pub(super) fn time(took: Duration) -> String {
    match took.as_millis() {
        0 => "less than 1 ms".to_owned(),
        millis @ 1..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}
