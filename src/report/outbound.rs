//! The output of `gatepost outbound`: what became of our mail at each host, by family, and which IPv6 is avoided.

use super::columns::{WIDTH, cells, wrapped};
use super::escape::{EscapeContext, fitted};
use super::sending::SendingCheck;
use crate::addr::Family;
use crate::humanize::{ago, clock, count, counted, duration, family, short_duration};
use crate::outbound::{
    Avoidance, CanaryPreference, FamilyReport, LastAttempt, OutboundFinding, OutboundHostReport,
    OutboundOutcome, OutboundReport, OutboundResetReport, OutcomeCounts,
};
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

/// Columns of the table: host, family, delivered, others, connection, last attempt.
const WIDTHS: [usize; 6] = [38, 6, 9, 7, 8, 27];
const _: () = {
    let [a, b, c, d, e, f] = WIDTHS;
    assert!(a + b + c + d + e + f + WIDTHS.len() - 1 <= WIDTH, "the table is too wide");
};
const INDENT: &str = "  ";
/// Hosts of a table; the JSON form has all.
const MAX_ROWS: usize = 40;
/// Columns of a server's reply.
const REPLY: usize = 240;
/// Columns of the hosts whose IPv4 is preferred.
const HOSTS: usize = 240;

/// Lines of at most 100 columns. Of the hosts of a name each address and the latest replies; `check` where the headline suspects
/// this host.
pub fn outbound(
    report: &OutboundReport,
    name: Option<&DomainName>,
    check: Option<&SendingCheck>,
) -> String {
    let details = name.is_some();
    let mut lines = match check {
        Some(check) => [wrapped(&observation(report), WIDTH), check.lines()].concat(),
        None => wrapped(&headline(report), WIDTH),
    };
    if let Some(resets) = &report.resets {
        lines.extend(wrapped(&reset_line(resets), WIDTH));
    }
    if let Some(preference) = &report.canary_preference {
        lines.extend(wrapped(&preference_line(preference, report.at), WIDTH));
    }
    if let (Some(name), true) = (name, report.hosts.is_empty()) {
        let none =
            format!("No attempt to deliver mail to {name}, or to a host of that name, is known.");
        lines.extend(wrapped(&none, WIDTH));
    }
    if !report.hosts.is_empty() {
        lines.push(String::new());
        let heads = ["HOST", "FAMILY", "DELIVERED", "NOT", "CONNECT", "LAST ATTEMPT"];
        lines.push(cells(&heads.map(str::to_owned), WIDTHS));
    }
    for host in report.hosts.iter().take(MAX_ROWS) {
        add_host(&mut lines, host, report.at, details);
    }
    let more = report.hosts.len().saturating_sub(MAX_ROWS);
    if more > 0 {
        lines.push(format!("{} more: `--format json` lists all", counted(more as u64, "host")));
    }
    lines.iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// The sentence that someone without mail needs first, with the command that finds the cause.
pub(super) fn headline(report: &OutboundReport) -> String {
    let remedy = match report.finding() {
        OutboundFinding::RefusedByMany { .. } => {
            " Check the reverse DNS name, SPF and DKIM of our IPv6 addresses with `gatepost check DOMAIN`."
        }
        OutboundFinding::NoPath { .. } => " `gatepost check DOMAIN` tests this host's IPv6.",
        _ => "",
    };
    observation(report) + remedy
}

fn observation(report: &OutboundReport) -> String {
    let of = |part: usize, whole: usize| format!("{part} of {}", counted(whole as u64, "host"));
    match report.finding() {
        OutboundFinding::NoAttempts => {
            "No attempt of this server to deliver mail is known yet.".to_owned()
        }
        OutboundFinding::RefusedByMany { refused, tried } => format!(
            "{} tried over IPv6 refuse our mail for our address: the cause is probably here.",
            of(refused, tried)
        ),
        OutboundFinding::NoPath { tried } => format!(
            "IPv6 failed at all {} where it was tried: the cause is probably here.",
            counted(tried as u64, "host")
        ),
        OutboundFinding::Avoided { avoided, known } => {
            format!("IPv6 is avoided at {}, where it failed lately.", of(avoided, known))
        }
        OutboundFinding::NothingAvoided { ipv6, known } => {
            let nowhere = match report.canary_preference {
                None => "IPv6 is avoided nowhere.",
                Some(_) => "IPv6 is avoided nowhere for a failed attempt.",
            };
            format!("{nowhere} At the last attempt {} took mail over it.", of(ipv6, known))
        }
    }
}

/// Names the canary as the reason.
fn preference_line(preference: &CanaryPreference, now: Timestamp) -> String {
    let hosts: Vec<_> = preference.hosts.iter().map(ToString::to_string).collect();
    format!(
        "Mail to {} uses IPv4 where there is any, because of canaries (prefer_ipv4 in [canary]). Canaries to {}, {}: {}.",
        fitted(&hosts.join(", "), EscapeContext::Sentence, HOSTS),
        fitted(&preference.domain, EscapeContext::Sentence, HOSTS),
        ago(now.since(preference.since)),
        fitted(&preference.reason, EscapeContext::Sentence, REPLY)
    )
}

fn reset_line(resets: &OutboundResetReport) -> String {
    if let Some(problem) = &resets.problem {
        return format!("Connections to addresses that are avoided are not reset: {problem}.");
    }
    let addresses = match resets.addresses {
        1 => "1 address".to_owned(),
        number => format!("{} addresses", count(number as u64)),
    };
    let connections = counted(resets.connections, "connection");
    format!("Connections to {addresses} are reset for other MTAs: {connections} so far.")
}

fn add_host(lines: &mut Vec<String>, host: &OutboundHostReport, now: Timestamp, details: bool) {
    let mut name = fitted(&host.host, EscapeContext::Sentence, WIDTHS[0]);
    for (of, report) in [(Family::Ipv6, &host.ipv6), (Family::Ipv4, &host.ipv4)] {
        if report.last.is_some() {
            lines.push(row(std::mem::take(&mut name), of, report, now));
        }
    }
    if let Some(avoided) = &host.avoided {
        // The DNS filter knows whether there is one; here only attempts show it.
        let condition = match host.ipv4.last {
            Some(_) => "",
            None => " if the host has an IPv4 address",
        };
        let text = format!("IPv6 is avoided{condition}: {}", avoidance(avoided, now));
        lines.extend(indented(&text));
    }
    if host.ipv4_by_canary {
        lines.extend(indented("IPv4 is preferred: canaries over IPv6 were filtered away"));
    }
    if details {
        add_details(lines, host, now);
    }
}

fn row(name: String, of: Family, report: &FamilyReport, now: Timestamp) -> String {
    let delivered = report.counts.of(OutboundOutcome::Delivered);
    let others = report.counts.total() - delivered;
    let connection = report.connection.map(short_duration).unwrap_or_default();
    let last = report.last.as_ref().map(|last| last_attempt(last, now)).unwrap_or_default();
    let family = family(of).to_owned();
    cells(&[name, family, count(delivered), count(others), connection, last], WIDTHS)
}

fn add_details(lines: &mut Vec<String>, host: &OutboundHostReport, now: Timestamp) {
    if !host.domains.is_empty() {
        lines.extend(indented(&format!("for {}", host.domains.join(", "))));
    }
    for address in &host.addresses {
        let mut text = format!("{}: {}", address.ip, counts(&address.counts));
        if address.on_trial {
            text += "; one message tries it now";
        } else if let Some(avoided) = &address.avoided {
            text += &format!("; avoided: {}", avoidance(avoided, now));
        }
        lines.extend(indented(&text));
    }
    for (of, report) in [(Family::Ipv6, &host.ipv6), (Family::Ipv4, &host.ipv4)] {
        let Some(last) = &report.last else { continue };
        if let Some(reply) = &last.reply {
            let reply = fitted(reply, EscapeContext::Sentence, REPLY);
            lines.extend(indented(&format!("last reply over {}: {reply}", family(of))));
        }
    }
}

/// `delivered 3, no answer 1`
fn counts(counts: &OutcomeCounts) -> String {
    let counts = counts.most_frequent().into_iter();
    let counts = counts.map(|(outcome, number)| format!("{} {}", words(outcome), count(number)));
    counts.collect::<Vec<_>>().join(", ")
}

fn avoidance(avoided: &Avoidance, now: Timestamp) -> String {
    let since = ago(now.since(avoided.since));
    let next = match avoided.until > now {
        true => format!(
            "one message tries it after {} UTC (in {})",
            clock(avoided.until),
            duration(avoided.until.since(now))
        ),
        false => "the next message tries it".to_owned(),
    };
    format!("{}, {since}; {next}", words(avoided.cause))
}

fn last_attempt(last: &LastAttempt, now: Timestamp) -> String {
    format!("{}, {}", words(last.outcome), ago(now.since(last.at)))
}

/// For a sentence.
pub const fn words(outcome: OutboundOutcome) -> &'static str {
    match outcome {
        OutboundOutcome::Delivered => "delivered",
        OutboundOutcome::TimedOut => "no answer",
        OutboundOutcome::Refused => "port closed",
        OutboundOutcome::Unreachable => "unreachable",
        OutboundOutcome::GreetingRefused => "turned away",
        OutboundOutcome::Stalled => "stalled",
        OutboundOutcome::Lost => "broken off",
        OutboundOutcome::TlsFailed => "TLS failed",
        OutboundOutcome::PolicyRefused => "address refused",
        OutboundOutcome::Rejected => "rejected",
        OutboundOutcome::Deferred => "deferred",
    }
}

fn indented(text: &str) -> impl Iterator<Item = String> {
    wrapped(text, WIDTH - INDENT.len()).into_iter().map(|line| format!("{INDENT}{line}"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::outbound::{Delays, Hosts, OutboundAttempt, SteeringSettings};

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos(1_767_323_045_000_000_000) + Duration::from_secs(second)
    }

    fn attempt(second: u64, host: &str, ip: &str, outcome: OutboundOutcome) -> OutboundAttempt {
        let delays = Delays {
            connection: Duration::from_millis(40 + second),
            transmission: Duration::from_millis(9),
        };
        OutboundAttempt {
            at: at(second),
            host: DomainName::parse(host),
            address: SocketAddr::new(ip.parse().unwrap(), 25),
            domain: DomainName::parse("example.net"),
            outcome,
            reply: (outcome == OutboundOutcome::PolicyRefused).then(|| {
                "550-5.7.1 [2001:db8::9] Our system has detected that this message does 550-5.7.1 not meet IPv6 \
                 sending guidelines regarding PTR records and authentication."
                    .to_owned()
            }),
            delays: Some(delays),
            queue_id: None,
        }
    }

    #[test]
    fn reports_as_text() {
        use OutboundOutcome::{Delivered, PolicyRefused, TimedOut};
        let mut hosts = Hosts::new(SteeringSettings::default());
        let mut text = outbound(&hosts.report(None, at(0)), None, None);
        let one = |hosts: &mut Hosts, second, host: &str, ip: &str, outcome| {
            hosts.add(&attempt(second, host, ip, outcome));
        };
        one(&mut hosts, 1, "mx.example.net", "2001:db8:1::1", Delivered);
        one(&mut hosts, 2, "mx.example.net", "192.0.2.1", Delivered);
        text += &outbound(&hosts.report(None, at(5)), None, None);
        one(&mut hosts, 30, "mx.refuses.example", "2001:db8:2::1", PolicyRefused);
        one(&mut hosts, 31, "mx.refuses.example", "192.0.2.2", Delivered);
        one(
            &mut hosts,
            60,
            "a-long-name-of-an-exchange.dropping.example",
            "2001:db8:3::1",
            TimedOut,
        );
        text += &outbound(&hosts.report(None, at(90)), None, None);
        for name in ["refuses.example", "other.example"] {
            let name = DomainName::parse(name);
            text += &outbound(&hosts.report(name.as_ref(), at(700)), name.as_ref(), None);
        }
        let problem = "`nft` is neither in PATH nor in /usr/sbin: install the package nftables";
        for (addresses, connections, problem) in
            [(1, 1, None), (2, 1234, None), (0, 0, Some(problem.to_owned()))]
        {
            let resets = Some(OutboundResetReport { addresses, connections, problem });
            text += &outbound(&OutboundReport { resets, ..hosts.summary(at(750)) }, None, None);
        }
        let preference = |hosts: &[&str]| {
            Some(CanaryPreference {
                domain: "example.net".to_owned(),
                hosts: hosts.iter().filter_map(|host| DomainName::parse(host)).collect(),
                reason: "IPv6 mail is treated worse: the message over IPv6 was marked as spam, the one over IPv4 arrived \
                     without a mark; marked by rspamd (X-Spam: Yes)"
                    .to_owned(),
                since: at(400),
            })
        };
        let example = DomainName::parse("example.net");
        for (name, canary) in [
            (example.as_ref(), &["mx.example.net"][..]),
            (None, &["mx1.other.example", "mx2.other.example"]),
        ] {
            let mut delivered = Hosts::new(SteeringSettings::default());
            one(&mut delivered, 1, "mx.example.net", "2001:db8:1::1", Delivered);
            let report = delivered.report(name, at(760)).with_canary(preference(canary), name);
            text += &outbound(&report, name, None);
        }
        for number in 0..4 {
            let host = format!("mx{number}.example");
            one(&mut hosts, 800, &host, "2001:db8:4::1", PolicyRefused);
        }
        text += &outbound(&hosts.summary(at(801)), None, None);
        assert!(text.lines().all(|line| super::super::columns::width(line) <= WIDTH), "{text}");
        insta::assert_snapshot!(text);
    }
}
