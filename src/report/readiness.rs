//! The report of `gatepost check`, as text and as JSON. Replies of servers and DNS data are escaped.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Serializer;

use super::columns::{WIDTH, wrapped};
use super::escape::{EscapeContext, VisibleJson, fitted};
use crate::readiness::{
    CheckReport, CheckRequest, CheckStatus, Finding, Portion, ServerMeasurement,
};
use crate::time::Timestamp;

/// Columns before the sentences.
const INDENT: usize = 11;
/// Columns of an observation, in several lines: enough for the longest SPF record.
const OBSERVATION: usize = 800;

/// Lines of at most 100 columns, except shell commands, each with its line end. `shows_all`: also what passes.
pub fn text(request: &CheckRequest, report: &CheckReport, shows_all: bool) -> String {
    let mut text = String::new();
    let counts = [CheckStatus::Fail, CheckStatus::Unknown, CheckStatus::Warn, CheckStatus::Pass];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|outcome| report.count(*outcome) > 0)
        .map(|outcome| format!("{} {}", report.count(outcome), outcome.as_str()))
        .collect();
    let headline = match report.outcome() {
        CheckStatus::Pass if report.is_parked => "neither receives nor sends mail",
        CheckStatus::Warn if report.is_parked => "neither receives nor sends mail, with warnings",
        outcome => headline(outcome),
    };
    push(&mut text, "", "", &format!("{}: {headline} ({})", request.domain, counts.join(", ")));
    if let Some(worst) = report.worst().filter(|worst| worst.outcome != CheckStatus::Pass) {
        push(&mut text, "", "  ", &format!("most important: {}", sentence(worst)));
    }
    let called_from: Vec<String> = report.called_from.iter().map(ToString::to_string).collect();
    if !called_from.is_empty() {
        push(&mut text, "", "  ", &format!("called from {}", called_from.join(" and ")));
    }
    for portion in Portion::ALL {
        let mut findings: Vec<&Finding> =
            report.findings.iter().filter(|one| one.portion == portion).collect();
        findings.retain(|one| shows_all || one.outcome != CheckStatus::Pass);
        if findings.is_empty() {
            continue;
        }
        findings.sort_by_key(|one| std::cmp::Reverse(one.outcome));
        let _ = writeln!(text, "\n{}", title(portion));
        findings.into_iter().for_each(|one| finding(&mut text, one));
    }
    let ignored = report.ignored.iter().filter(|one| one.outcome != CheckStatus::Pass);
    let ignored: Vec<&Finding> = ignored.collect();
    if !ignored.is_empty() {
        text.push_str("\nIgnored\n");
        ignored.into_iter().for_each(|one| {
            let check = format!("  {}", one.check.as_str());
            let _ = writeln!(text, "{check}");
            finding(&mut text, one);
        });
    }
    if !report.not_checked.is_empty() {
        text.push_str("\nNot checked\n");
        for (portion, how) in &report.not_checked {
            push(&mut text, &format!("  {}", portion.as_str()), &" ".repeat(INDENT), how);
        }
    }
    if !report.activate.is_empty() {
        text.push_str("\nActivation\n");
        report.activate.iter().for_each(|line| shell(&mut text, line));
    }
    text
}

const fn headline(outcome: CheckStatus) -> &'static str {
    match outcome {
        CheckStatus::Pass => "ready for IPv6",
        CheckStatus::Warn => "ready for IPv6, with warnings",
        CheckStatus::Unknown => "readiness for IPv6 unknown",
        CheckStatus::Fail => "not ready for IPv6",
    }
}

const fn title(portion: Portion) -> &'static str {
    match portion {
        Portion::Mx => "MX",
        Portion::Dns => "DNS",
        Portion::Smtp => "SMTP servers",
        Portion::Dane => "DANE",
        Portion::Mtu => "Path MTU over IPv6",
        Portion::Senders => "Sending addresses",
        Portion::Spf => "SPF",
        Portion::Dkim => "DKIM",
        Portion::Dmarc => "DMARC",
        Portion::MtaSts => "MTA-STS",
        Portion::TlsRpt => "TLS reports",
        Portion::Postfix => "Postfix on this host",
    }
}

pub(super) fn finding(text: &mut String, one: &Finding) {
    let indent = " ".repeat(INDENT);
    push(text, &format!("  {}", one.outcome.as_str()), &indent, &sentence(one));
    if let Some(advice) = &one.advice {
        push(
            text,
            &indent,
            &indent,
            &format!("→ {}", fitted(advice, EscapeContext::Sentence, OBSERVATION)),
        );
    }
    one.commands.iter().for_each(|line| shell(text, line));
}

fn sentence(one: &Finding) -> String {
    let about = fitted(&one.about, EscapeContext::Sentence, OBSERVATION);
    format!("{about}: {}", fitted(&one.seen, EscapeContext::Sentence, OBSERVATION))
}

/// Not wrapped, so that it can be copied.
fn shell(text: &mut String, line: &str) {
    let line = fitted(line, EscapeContext::Sentence, usize::MAX);
    let _ = writeln!(text, "{:INDENT$}$ {line}", "");
}

/// A wrapped sentence, after `head` in the first line and `indent` in the others.
fn push(text: &mut String, head: &str, indent: &str, sentence: &str) {
    let start = indent.chars().count();
    for (number, line) in wrapped(sentence, WIDTH - start).into_iter().enumerate() {
        let head = if number == 0 { head } else { "" };
        let _ = writeln!(text, "{head:start$}{line}");
    }
}

/// Key names are stable.
#[derive(Serialize)]
struct JsonReport<'a> {
    /// Of gatepost.
    version: &'static str,
    /// RFC 3339, UTC: when the check ended.
    time: String,
    domain: String,
    outcome: CheckStatus,
    ready: Option<bool>,
    counts: OutcomeCounts,
    senders: &'a [std::net::IpAddr],
    senders_from: &'static str,
    helo: Option<String>,
    findings: &'a [Finding],
    ignored: &'a [Finding],
    called_from: &'a [std::net::IpAddr],
    servers: &'a [ServerMeasurement],
    not_checked: Vec<NotChecked<'a>>,
    activate: &'a [String],
}

#[derive(Serialize)]
struct OutcomeCounts {
    pass: usize,
    warn: usize,
    unknown: usize,
    fail: usize,
}

#[derive(Serialize)]
struct NotChecked<'a> {
    portion: Portion,
    how: &'a str,
}

/// One object on one line.
pub fn json(request: &CheckRequest, report: &CheckReport, time: Timestamp) -> String {
    let object = JsonReport {
        version: env!("CARGO_PKG_VERSION"),
        time: time.to_string(),
        domain: request.domain.to_string(),
        outcome: report.outcome(),
        ready: report.is_ready(),
        counts: OutcomeCounts {
            pass: report.count(CheckStatus::Pass),
            warn: report.count(CheckStatus::Warn),
            unknown: report.count(CheckStatus::Unknown),
            fail: report.count(CheckStatus::Fail),
        },
        senders: &request.senders,
        senders_from: request.senders_from.as_str(),
        helo: request.helo.as_ref().map(|(name, _)| name.to_string()),
        findings: &report.findings,
        ignored: &report.ignored,
        called_from: &report.called_from,
        servers: &report.servers,
        not_checked: report
            .not_checked
            .iter()
            .map(|&(portion, how)| NotChecked { portion, how })
            .collect(),
        activate: &report.activate,
    };
    let mut out = Vec::new();
    // Strings and numbers cannot fail.
    let _ = object.serialize(&mut Serializer::with_formatter(&mut out, VisibleJson));
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::facts::DomainName;
    use crate::readiness::{CheckName, FindingSubject, Origin};

    /// Remote text reaches the terminal escaped, and no line is too wide.
    #[test]
    fn remote_text_is_escaped() {
        let hostile = format!("\u{1b}[2J\u{202e}\r\nfail x {}", "x".repeat(3000));
        let finding = Finding {
            portion: Portion::Smtp,
            check: CheckName::SmtpGreeting,
            outcome: CheckStatus::Fail,
            about: hostile.clone(),
            subject: FindingSubject::default(),
            seen: hostile.clone(),
            advice: Some(hostile.clone()),
            commands: vec![hostile],
        };
        let findings = vec![finding];
        let report = CheckReport { findings, ..CheckReport::default() };
        let request = CheckRequest {
            senders: Vec::new(),
            senders_from: Origin::Interfaces,
            ..CheckRequest::new(DomainName::parse("a.example").unwrap())
        };
        let text = text(&request, &report, true);
        let lines: Vec<&str> = text.lines().collect();
        assert!(text.starts_with("a.example: not ready for IPv6 (1 fail)\n"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text}");
        let mut sentences = lines.iter().filter(|line| !line.trim_start().starts_with("$ "));
        assert!(sentences.all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("  fail")).count(), 1, "{text}");

        let json = json(&request, &report, Timestamp::from_nanos(0));
        assert!(
            !json.contains(['\u{1b}', '\u{202e}', '\r']) && json.lines().count() == 1,
            "{json}"
        );
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["outcome"], &json["ready"]), (&"fail".into(), &false.into()));
    }
}
