//! The exchanges' replies on port 25, over each family.
//!
//! RFC 5321 §4.2 and §4.3, RFC 3207.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::finding::{CheckName, FindingList, ServerMeasurement};
use super::known::KnownAnswers;
use super::mx::MxHost;
use super::outside_view::OutsideResult;
use super::own_network::{Egress, egress, is_own, outside};
use super::postmaster;
use super::rejection::{RejectedAt, RejectionSubject, subject};
use super::request::CheckRequest;
use super::survey::{ConnectResult, Survey, SurveyReply, SurveyResult};
use super::tls;
use crate::addr::Family;
use crate::humanize::{duration, family as family_name};
use crate::policy::facts::DomainName;

/// A slower reply is a warning. postscreen(8) waits six seconds by default.
const SLOW: Duration = Duration::from_secs(7);

pub(super) fn check(
    hosts: &[MxHost],
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let surveys: Vec<(&MxHost, IpAddr, &Survey)> = hosts
        .iter()
        .flat_map(|host| host.addresses.iter().map(move |ip| (host, *ip)))
        .filter_map(|(host, ip)| Some((host, ip, known.survey(ip, &host.name)?)))
        .collect();
    // A fault may be on this side.
    let egress = Family::ALL.map(|family| egress(family, hosts, request, known));
    let [Some(v4), Some(v6)] = egress else { return };
    let egress = |family| match family {
        Family::Ipv4 => &v4,
        Family::Ipv6 => &v6,
    };
    // The comparison of the families comes first in the report: it is the summary.
    for host in hosts {
        if host.addresses.iter().all(|ip| closed_door(*ip, request).is_none()) {
            compare_families(host, known, [&v6, &v4], findings);
        }
    }
    for (host, ip, survey) in &surveys {
        let other = Family::of(*ip).other();
        let other_greets =
            host.of(other).any(|ip| known.survey(ip, &host.name).is_some_and(greets));
        let other_greets = other_greets.then_some(other);
        check_reach(host, *ip, survey, request, known, findings);
        if let Some(why) = closed_door(*ip, request) {
            door_is_closed(host, *ip, why, findings);
            // The door admits this host, as it may.
            if !greets(survey) {
                continue;
            }
        }
        check_server(host, *ip, survey, egress(Family::of(*ip)), other_greets, findings);
        let other_accepts =
            host.of(other).any(|ip| known.survey(ip, &host.name).is_some_and(postmaster::accepts));
        let about = format!("{} {ip}", host.name);
        postmaster::check(&about, survey, other_accepts.then_some(other), findings);
    }
}

pub(super) fn measurements(hosts: &[MxHost], known: &KnownAnswers) -> Vec<ServerMeasurement> {
    let addresses = hosts.iter().flat_map(|host| host.addresses.iter().map(move |ip| (host, *ip)));
    let measurement = |(host, ip): (&MxHost, IpAddr)| {
        let survey = known.survey(ip, &host.name)?;
        let seconds = |result: &SurveyResult| result.reply().map(|reply| reply.took.as_secs_f64());
        Some(ServerMeasurement {
            exchange: host.name.to_string(),
            address: ip,
            family: Family::of(ip),
            called_from: survey.from,
            connect_s: match survey.reached {
                ConnectResult::Connected(took) => Some(took.as_secs_f64()),
                _ => None,
            },
            greeting_s: seconds(&survey.greeting),
            ehlo_s: seconds(&survey.ehlo),
            starttls: survey.ehlo.reply().map(|ehlo| ehlo.offers("STARTTLS")),
            tls: survey.established().map(|tls| tls.version.clone()),
            certificate_ends: survey.established().map(|tls| tls.not_after),
            path_mtu: survey.path.as_ref().and_then(|path| path.mtu),
            mss: survey.path.as_ref().and_then(|path| path.mss),
        })
    };
    addresses.filter_map(measurement).collect()
}

fn check_server(
    host: &MxHost,
    ip: IpAddr,
    survey: &Survey,
    egress: &Egress,
    other_greets: Option<Family>,
    findings: &mut FindingList,
) {
    let about = format!("{} {ip}", host.name);
    let check = CheckName::SmtpConnect;
    match survey.reached {
        ConnectResult::Connected(took) => {
            findings.pass(check, &about, format!("connected in {}", duration(took)));
        }
        ConnectResult::Refused | ConnectResult::NoResponse(_)
            if matches!(egress, Egress::Blocked(_)) =>
        {
            blocked_here(&about, ip, egress, findings);
            return;
        }
        ConnectResult::Refused => {
            let advice =
                "Let the server listen on port 25 of this address, and let firewalls pass it.";
            findings.fail(check, &about, "connection refused", advice);
            return;
        }
        ConnectResult::NoResponse(after) if *egress == Egress::Open => {
            let seen = format!("no answer to the SYN in {}", duration(after));
            let advice = "Find the firewall, appliance or wrong route that drops SYNs to port 25 of this address. If it \
                          cannot be repaired, remove the record: each sender waits for a timeout.";
            findings.fail(check, &about, seen, advice);
            return;
        }
        ConnectResult::NoResponse(after) => {
            let family = family_name(Family::of(ip));
            let seen = format!(
                "no answer in {}, and nothing shows that connections to port 25 leave this network over {family}",
                duration(after)
            );
            let advice = format!(
                "Name a host that is known to answer over {family} with --control HOST, or run this from a host that may send mail: \
                 many networks block outgoing port 25."
            );
            findings.unknown(check, &about, seen, advice);
            return;
        }
        ConnectResult::OutOfTime => {
            let advice = "Run this again with a longer --timeout, or find out what is slow here.";
            findings.unknown(check, &about, "not tested: out of time", advice);
            return;
        }
        ConnectResult::NoRoute => {
            let family = family_name(Family::of(ip));
            let seen = format!("this host has no {family} route to it");
            let advice = format!("Run this from a host with {family}.");
            findings.unknown(check, &about, seen, advice);
            return;
        }
    }
    if let SurveyResult::TimedOut(after) = survey.greeting {
        no_greeting(&about, after, other_greets, findings);
        return;
    }
    let check = CheckName::SmtpGreeting;
    let Some(greeting) =
        check_reply(check, &about, "greeting", (&survey.greeting, survey.from), findings)
    else {
        return;
    };
    let check = CheckName::SmtpEhlo;
    let Some(ehlo) =
        check_reply(check, &about, "reply to EHLO", (&survey.ehlo, survey.from), findings)
    else {
        return;
    };
    check_name(&about, &host.name, greeting.host_name(), ehlo.host_name(), findings);
    let check = CheckName::SmtpStarttls;
    if ehlo.offers("STARTTLS") {
        findings.pass(check, &about, "offers STARTTLS");
        if let Some(survey) = &survey.tls {
            tls::check(&about, &host.name, survey, findings);
        }
    } else {
        let advice =
            "Configure a certificate for this address (Postfix: smtpd_tls_security_level = may).";
        findings.warn(check, &about, "no STARTTLS: mail is not encrypted", advice);
    }
}

/// Why the gateway on this host refuses mail to the address, if it does.
fn closed_door(ip: IpAddr, request: &CheckRequest) -> Option<&String> {
    let is_ours = is_own(ip, request) || request.behind_gateway.contains(ip);
    request.closed_doors.get(&Family::of(ip)).filter(|_| is_ours)
}

/// The server need not be at fault, and its records neither.
fn door_is_closed(host: &MxHost, ip: IpAddr, why: &str, findings: &mut FindingList) {
    let about = format!("{} {ip}", host.name);
    let family = Family::of(ip);
    let seen = format!("gatepost's door is closed for {}: {why}", family_name(family));
    let advice = format!(
        "Correct the cause; `gatepost door` says when it opens by itself, and `gatepost door {family} open` opens it now."
    );
    findings.fail(CheckName::SmtpConnect, about, seen, advice);
}

/// No control answers either, so nothing follows about the server.
fn blocked_here(about: &str, ip: IpAddr, egress: &Egress, findings: &mut FindingList) {
    let Egress::Blocked(controls) = egress else { return };
    let family = family_name(Family::of(ip));
    let controls: Vec<String> = controls.iter().map(ToString::to_string).collect();
    let seen = format!(
        "not reached, and neither is the control {}: this host's network blocks port 25 over {family}",
        controls.join(", ")
    );
    let advice = format!(
        "Run this from a host that may send mail over {family}, or ask a vantage with --vantage. The records may be right."
    );
    findings.unknown(CheckName::SmtpConnect, about, seen, advice);
}

/// Whether the address is reached from outside, as far as a vantage or the place of this host tells.
fn check_reach(
    host: &MxHost,
    ip: IpAddr,
    survey: &Survey,
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let about = format!("{} {ip}", host.name);
    let check = CheckName::SmtpReach;
    let is_own = is_own(ip, request);
    let Some(outside) = outside(ip, request, known) else { return };
    let vantage = request.vantage.map(|address| address.to_string()).unwrap_or_default();
    match outside {
        Some(Ok(OutsideResult::Greeted)) => {
            findings.pass(check, &about, format!("the vantage at {vantage} gets a greeting"));
        }
        Some(Ok(OutsideResult::NotReached(why))) => {
            let from_here = match survey.reached {
                ConnectResult::Connected(_) if is_own => ", only from inside this host",
                ConnectResult::Connected(_) => ", only from here",
                _ => "",
            };
            let seen = format!("the vantage at {vantage} does not reach it ({why}){from_here}");
            let advice = "Let firewalls and filters on the way pass port 25 of this address, and let the server listen on it.";
            findings.fail(check, &about, seen, advice);
        }
        Some(Ok(OutsideResult::Unknown)) => {
            let seen = format!("the vantage at {vantage} knows nothing of this address");
            let advice = "Compare the DNS answers there with those here, and the vantage's own connection of this family.";
            findings.unknown(check, &about, seen, advice);
        }
        Some(Err(why)) => {
            let advice = "Correct the address, the key or the list of domains of the vantage, or leave --vantage out.";
            findings.unknown(check, &about, why, advice);
        }
        None if is_own => {
            let seen = "this host's own address: it is reached inside the host, which shows nothing of the way from outside";
            let advice = "Run this on a host elsewhere, or have a `gatepost vantage` elsewhere look: --vantage ADDR:PORT \
                          --vantage-key FILE.";
            findings.unknown(check, &about, seen, advice);
        }
        None => {}
    }
}

/// No client knows whether the greeting would still come. It is a fault if the other family's has come.
fn no_greeting(
    about: &str,
    after: Duration,
    other_greets: Option<Family>,
    findings: &mut FindingList,
) {
    let check = CheckName::SmtpGreeting;
    let seen = format!("connected, but no greeting in {}", duration(after));
    let causes = "Either the server delays the greeting for unknown clients (a greet pause or tarpit), or a proxy or \
                  filter accepts connections for a server that is down.";
    if let Some(family) = other_greets {
        let family = family_name(family);
        let seen = format!("{seen}, while the server greets over {family}");
        let advice = format!("{causes} Compare the path and the settings with those for {family}.");
        findings.fail(check, about, seen, advice);
    } else {
        let advice = format!("{causes} Run this again with a longer --timeout to find out which.");
        findings.unknown(check, about, seen, advice);
    }
}

/// Returns the reply if it is positive. `from` is the address of this host.
fn check_reply<'a>(
    check: CheckName,
    about: &str,
    what: &str,
    (result, from): (&'a SurveyResult, Option<IpAddr>),
    findings: &mut FindingList,
) -> Option<&'a SurveyReply> {
    match result {
        SurveyResult::NotRequested => {}
        SurveyResult::Received(reply) if reply.is_positive() => {
            let line = reply.lines.first().map(String::as_str).unwrap_or_default();
            let seen = format!("{what} after {}: {} {line}", duration(reply.took), reply.code);
            if reply.took > SLOW {
                let advice = "Find out what the server waits for: a delay for unknown clients, DNS lookups of the \
                              client, or a blocklist that does not respond. Some senders disconnect earlier.";
                findings.warn(check, about, format!("slow {seen}"), advice);
            } else {
                findings.pass(check, about, seen);
            }
            return Some(reply);
        }
        SurveyResult::Received(reply) => {
            let seen = format!("{}: {}", reply.code, reply.lines.join(" "));
            if reply.code / 100 == 4 {
                let advice = "Run this again later: the reply is temporary.";
                findings.unknown(check, about, seen, advice);
            } else if subject(reply, rejected_at(check), from) == RejectionSubject::Caller {
                let seen = postmaster::caller_rejected(reply, from);
                findings.unknown(check, about, seen, postmaster::caller_advice(from));
            } else {
                let advice =
                    "Let the server accept unknown hosts, or run this from a host that it accepts.";
                findings.fail(check, about, seen, advice);
            }
        }
        SurveyResult::TimedOut(after) => {
            let seen = format!("connected, but no {what} in {}", duration(*after));
            let advice = "Look for a proxy or filter that accepts connections for a server that is down, or a server \
                          that waits for DNS lookups.";
            findings.fail(check, about, seen, advice);
        }
        SurveyResult::OutOfTime(after) => {
            let after = duration(*after);
            let seen = format!("no {what} in {after}, when the time for the whole check was over");
            let advice = "Run this again with a longer --timeout, or find out what is slow here.";
            findings.unknown(check, about, seen, advice);
        }
        SurveyResult::Closed => {
            let seen = format!("connection closed instead of a {what}");
            let advice = "Find the reason in the server's log; it may limit or block this host.";
            findings.unknown(check, about, seen, advice);
        }
        SurveyResult::NotSmtp => {
            let advice = "Find out which service listens there: it does not speak SMTP.";
            findings.fail(check, about, format!("{what} is not SMTP"), advice);
        }
    }
    None
}

const fn rejected_at(check: CheckName) -> RejectedAt {
    match check {
        CheckName::SmtpGreeting => RejectedAt::Greeting,
        _ => RejectedAt::Ehlo,
    }
}

/// The server rejects this host before MAIL.
fn rejects_caller(survey: &Survey) -> bool {
    let replies =
        [(&survey.greeting, RejectedAt::Greeting), (&survey.ehlo, RejectedAt::Ehlo)].into_iter();
    let negative = replies.filter_map(|(result, at)| Some((result.reply()?, at)));
    let mut negative = negative.filter(|(reply, _)| !reply.is_positive());
    negative.any(|(reply, at)| subject(reply, at, survey.from) == RejectionSubject::Caller)
}

fn check_name(
    about: &str,
    exchange: &DomainName,
    greeting: &str,
    ehlo: &str,
    findings: &mut FindingList,
) {
    let check = CheckName::SmtpName;
    let seen = if greeting.eq_ignore_ascii_case(ehlo) {
        format!("server name {greeting}")
    } else {
        format!("server name {greeting} in the greeting, {ehlo} in the reply to EHLO")
    };
    let use_full_name =
        || format!("Configure the server's full name (Postfix: myhostname = {exchange}).");
    let [Some(greeting), Some(ehlo)] = [greeting, ehlo].map(DomainName::parse) else {
        findings.warn(check, about, format!("{seen}, not a domain name"), use_full_name());
        return;
    };
    let names = [&greeting, &ehlo];
    if names.iter().any(|name| !name.to_string().contains('.')) {
        findings.warn(check, about, format!("{seen}, not a full name"), use_full_name());
    } else if names.iter().all(|name| *name == exchange) {
        findings.pass(check, about, seen);
    } else if names.iter().all(|name| are_related(name, exchange)) {
        findings.pass(check, about, format!("{seen}, in the same domain as the MX"));
    } else {
        let advice =
            format!("Configure {exchange} as the server's name, or name the server in the MX.");
        findings.warn(check, about, format!("{seen}, not {exchange}"), advice);
    }
}

/// Their last two labels are equal: probably of one site.
fn are_related(one: &DomainName, other: &DomainName) -> bool {
    let top = |name: &DomainName| {
        let text = name.to_string();
        let labels: Vec<String> = text.rsplit('.').take(2).map(str::to_owned).collect();
        labels
    };
    top(one) == top(other)
}

/// Compares the two families of one exchange. `egress` is that of IPv6 and of IPv4.
fn compare_families(
    host: &MxHost,
    known: &KnownAnswers,
    egress: [&Egress; 2],
    findings: &mut FindingList,
) {
    let surveys = |family| {
        let found: Option<Vec<&Survey>> =
            host.of(family).map(|ip| known.survey(ip, &host.name)).collect();
        found.filter(|found| !found.is_empty())
    };
    let (Some(v6), Some(v4)) = (surveys(Family::Ipv6), surveys(Family::Ipv4)) else { return };
    let check = CheckName::SmtpFamilies;
    let works = |of: &[&Survey]| of.iter().any(|survey| is_ready(survey));
    // The fault may be on this side.
    let hidden = |of: &[&Survey], egress: &Egress| {
        of.iter().all(|one| match one.reached {
            ConnectResult::NoResponse(_) => *egress != Egress::Open,
            ConnectResult::Refused => matches!(egress, Egress::Blocked(_)),
            _ => false,
        })
    };
    let no_response =
        |of: &[&Survey]| of.iter().all(|one| matches!(one.reached, ConnectResult::NoResponse(_)));
    let not_tested = |of: &[&Survey]| {
        of.iter().any(|one| {
            matches!(one.reached, ConnectResult::NoRoute | ConnectResult::OutOfTime)
                || rejects_caller(one)
                || [&one.greeting, &one.ehlo]
                    .iter()
                    .any(|result| matches!(result, SurveyResult::OutOfTime(_)))
        })
    };
    match (works(&v6), works(&v4)) {
        (true, true) => {
            postmaster::compare(host, &v6, &v4, findings);
            let tls = |of: &[&Survey]| {
                let offers = |survey: &&Survey| {
                    survey.ehlo.reply().is_some_and(|ehlo| ehlo.offers("STARTTLS"))
                        && survey.tls.as_ref().is_none_or(|tls| !tls.has_failed())
                };
                of.iter().filter(|survey| is_ready(survey)).all(offers)
            };
            let [of_v6, of_v4] = [&v6, &v4].map(|of| keywords(of));
            let digests = |of: &[&Survey]| {
                let established = of.iter().filter_map(|survey| survey.established());
                established.map(|tls| tls.digest).collect::<BTreeSet<_>>()
            };
            let (certificates_of_v6, certificates_of_v4) = (digests(&v6), digests(&v4));
            let is_comparable = !certificates_of_v6.is_empty() && !certificates_of_v4.is_empty();
            if is_comparable && certificates_of_v6.is_disjoint(&certificates_of_v4) {
                let seen = "another certificate over IPv6 than over IPv4";
                let advice = "Find the second server, or the setting for one family: a renewal may reach only one of them.";
                findings.warn(CheckName::SmtpCertificate, &host.name, seen, advice);
            }
            if tls(&v6) == tls(&v4) && of_v6 == of_v4 {
                findings.pass(check, &host.name, timing(&v6, &v4));
            } else if tls(&v6) == tls(&v4) {
                let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
                    one.difference(other).cloned().collect::<Vec<_>>().join(", ")
                };
                let differences = [("IPv6", only(&of_v6, &of_v4)), ("IPv4", only(&of_v4, &of_v6))];
                let differences = differences.iter().filter(|(_, words)| !words.is_empty());
                let seen: Vec<String> = differences
                    .map(|(family, words)| format!("{words} over {family} only"))
                    .collect();
                let advice = "Find the filter or second server that answers one family: mail is treated differently over it.";
                let seen = format!("the reply to EHLO offers {}", seen.join(", "));
                findings.warn(check, &host.name, seen, advice);
            } else {
                let (with, without) = if tls(&v6) { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
                let seen = format!("STARTTLS works over {with} but not over {without}");
                let advice = format!(
                    "Find the filter or second server that removes or breaks STARTTLS over {without}."
                );
                findings.fail(check, &host.name, seen, advice);
            }
        }
        _ if not_tested(&v6) || not_tested(&v4) => {}
        (false, true) if hidden(&v6, egress[0]) => {}
        (true, false) if hidden(&v4, egress[1]) => {}
        (false, true) if no_response(&v6) => {
            let seen = "no response over IPv6 while IPv4 works: a filter probably drops IPv6";
            let advice = "Open port 25 over IPv6 on the whole path, and let ICMPv6 pass (RFC 4890). Until then remove \
                          the AAAA record: senders wait for a timeout before they try IPv4, if they do.";
            findings.fail(check, &host.name, seen, advice).subject.family = Some(Family::Ipv6);
        }
        (false, true) => {
            let advice =
                "Compare the settings of the server and its filters for IPv6 with those for IPv4.";
            let seen = "accepts mail over IPv4 but not over IPv6";
            findings.fail(check, &host.name, seen, advice).subject.family = Some(Family::Ipv6);
        }
        (true, false) => {
            let advice =
                "Compare the settings of the server and its filters for IPv4 with those for IPv6.";
            let seen = "accepts mail over IPv6 but not over IPv4";
            findings.fail(check, &host.name, seen, advice).subject.family = Some(Family::Ipv4);
        }
        // Each address has a finding of its own.
        (false, false) => {}
    }
}

/// What each of the servers that reply offers, without parameters.
fn keywords(surveys: &[&Survey]) -> BTreeSet<String> {
    let ready = surveys.iter().filter(|survey| is_ready(survey));
    let sets = ready.filter_map(|survey| Some(survey.ehlo.reply()?.keywords()));
    sets.reduce(|one, other| one.intersection(&other).cloned().collect()).unwrap_or_default()
}

/// Greeting and reply to EHLO are positive.
fn is_ready(survey: &Survey) -> bool {
    greets(survey) && survey.ehlo.reply().is_some_and(SurveyReply::is_positive)
}

fn greets(survey: &Survey) -> bool {
    survey.greeting.reply().is_some_and(SurveyReply::is_positive)
}

/// `reply to EHLO after 12 ms over IPv6, 11 ms over IPv4`: from the SYN, the fastest of each family.
fn timing(v6: &[&Survey], v4: &[&Survey]) -> String {
    let fastest = |of: &[&Survey]| {
        let totals = of.iter().filter_map(|survey| {
            let ConnectResult::Connected(connect) = survey.reached else { return None };
            Some(connect + survey.greeting.reply()?.took + survey.ehlo.reply()?.took)
        });
        duration(totals.min().unwrap_or_default())
    };
    format!("reply to EHLO after {} over IPv6, {} over IPv4", fastest(v6), fastest(v4))
}
