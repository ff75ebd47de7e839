//! Whether a domain's mail is ready for IPv6, for a person and for a program.
//!
//! What servers and the DNS said is part of it, and escaped.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Serializer;

use super::columns::{WIDTH, wrapped};
use super::escape::{Place, Visible, fitted};
use crate::readiness::{
    CheckReport, CheckRequest, CheckStatus, Finding, Portion, ServerMeasurement,
};

/// Where sentences begin.
const INDENT: usize = 11;
/// Columns of what was seen, in several lines: an SPF record that fills its place is shown whole.
const SEEN: usize = 800;

/// Lines of at most a hundred columns, but for those that are meant for a shell, with a newline after each.
pub fn text(asked: &CheckRequest, report: &CheckReport) -> String {
    let mut text = String::new();
    let counts = [CheckStatus::Fail, CheckStatus::Unknown, CheckStatus::Warn, CheckStatus::Pass];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|outcome| report.count(*outcome) > 0)
        .map(|outcome| format!("{} {}", report.count(outcome), outcome.as_str()))
        .collect();
    let answer = answer(report.outcome());
    push(&mut text, "", "", &format!("{}: {answer} ({})", asked.domain, counts.join(", ")));
    if let Some(worst) = report.worst().filter(|worst| worst.outcome != CheckStatus::Pass) {
        push(&mut text, "", "  ", &format!("first of all: {}", sentence(worst)));
    }
    for portion in Portion::ALL {
        let mut findings: Vec<&Finding> =
            report.findings.iter().filter(|one| one.portion == portion).collect();
        if findings.is_empty() {
            continue;
        }
        findings.sort_by_key(|one| std::cmp::Reverse(one.outcome));
        let _ = writeln!(text, "\n{}", title(portion));
        findings.into_iter().for_each(|one| finding(&mut text, one));
    }
    if !report.not_checked.is_empty() {
        text.push_str("\nNot looked at\n");
        for (portion, how) in &report.not_checked {
            push(&mut text, &format!("  {}", portion.as_str()), &" ".repeat(INDENT), how);
        }
    }
    if !report.activate.is_empty() {
        text.push_str("\nAfter those lines\n");
        report.activate.iter().for_each(|line| shell(&mut text, line));
    }
    text
}

/// Is it ready?
const fn answer(outcome: CheckStatus) -> &'static str {
    match outcome {
        CheckStatus::Pass => "ready for IPv6",
        CheckStatus::Warn => "ready for IPv6, with warnings",
        CheckStatus::Unknown => "nobody can say whether it is ready for IPv6",
        CheckStatus::Fail => "not ready for IPv6",
    }
}

const fn title(portion: Portion) -> &'static str {
    match portion {
        Portion::Mx => "Where mail goes (MX)",
        Portion::Smtp => "How its servers answer",
        Portion::Mtu => "Large packets over IPv6",
        Portion::Senders => "The addresses that it sends from",
        Portion::Spf => "SPF",
        Portion::Dkim => "DKIM",
        Portion::Dmarc => "DMARC",
        Portion::Postfix => "Postfix on this host",
    }
}

fn finding(text: &mut String, one: &Finding) {
    let indent = " ".repeat(INDENT);
    push(text, &format!("  {}", one.outcome.as_str()), &indent, &sentence(one));
    if let Some(advice) = &one.advice {
        push(text, &indent, &indent, &format!("→ {}", fitted(advice, Place::Sentence, SEEN)));
    }
    one.commands.iter().for_each(|line| shell(text, line));
}

fn sentence(one: &Finding) -> String {
    let about = fitted(&one.about, Place::Sentence, SEEN);
    format!("{about}: {}", fitted(&one.seen, Place::Sentence, SEEN))
}

/// Whole, however long it is: it is to be copied.
fn shell(text: &mut String, line: &str) {
    let line = fitted(line, Place::Sentence, usize::MAX);
    let _ = writeln!(text, "{:INDENT$}$ {line}", "");
}

/// A sentence broken at spaces, after `head` in the first line and `indent` in others.
fn push(text: &mut String, head: &str, indent: &str, sentence: &str) {
    let start = indent.chars().count();
    for (number, line) in wrapped(sentence, WIDTH - start).into_iter().enumerate() {
        let head = if number == 0 { head } else { "" };
        let _ = writeln!(text, "{head:start$}{line}");
    }
}

/// The words in it stay as they are.
#[derive(Serialize)]
struct Json<'a> {
    domain: String,
    outcome: CheckStatus,
    ready: Option<bool>,
    counts: Counts,
    senders: &'a [std::net::IpAddr],
    senders_from: &'static str,
    helo: Option<String>,
    findings: &'a [Finding],
    servers: &'a [ServerMeasurement],
    not_checked: Vec<NotChecked<'a>>,
    activate: &'a [String],
}

#[derive(Serialize)]
struct Counts {
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

/// One object on a line of its own.
pub fn json(asked: &CheckRequest, report: &CheckReport) -> String {
    let object = Json {
        domain: asked.domain.to_string(),
        outcome: report.outcome(),
        ready: match report.outcome() {
            CheckStatus::Pass | CheckStatus::Warn => Some(true),
            CheckStatus::Unknown => None,
            CheckStatus::Fail => Some(false),
        },
        counts: Counts {
            pass: report.count(CheckStatus::Pass),
            warn: report.count(CheckStatus::Warn),
            unknown: report.count(CheckStatus::Unknown),
            fail: report.count(CheckStatus::Fail),
        },
        senders: &asked.senders,
        senders_from: asked.senders_from.as_str(),
        helo: asked.helo.as_ref().map(|(name, _)| name.to_string()),
        findings: &report.findings,
        servers: &report.servers,
        not_checked: report
            .not_checked
            .iter()
            .map(|&(portion, how)| NotChecked { portion, how })
            .collect(),
        activate: &report.activate,
    };
    let mut out = Vec::new();
    // Strings, numbers and names only: that does not fail.
    let _ = object.serialize(&mut Serializer::with_formatter(&mut out, Visible));
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::facts::DomainName;
    use crate::readiness::{CheckName, Origin};

    /// What others said does not reach a terminal as it came, and no line is too wide.
    #[test]
    fn hostile_words_are_escaped() {
        let hostile = format!("\u{1b}[2J\u{202e}\r\nfail x {}", "x".repeat(3000));
        let finding = Finding {
            portion: Portion::Smtp,
            check: CheckName::SmtpGreeting,
            outcome: CheckStatus::Fail,
            about: hostile.clone(),
            seen: hostile.clone(),
            advice: Some(hostile.clone()),
            commands: vec![hostile],
        };
        let findings = vec![finding];
        let report = CheckReport {
            findings,
            servers: Vec::new(),
            not_checked: Vec::new(),
            activate: Vec::new(),
        };
        let asked = CheckRequest {
            domain: DomainName::parse("a.example").unwrap(),
            senders: Vec::new(),
            senders_from: Origin::Interfaces,
            helo: None,
            selectors: Vec::new(),
            interfaces: Vec::new(),
            postfix: None,
        };
        let text = text(&asked, &report);
        let lines: Vec<&str> = text.lines().collect();
        assert!(text.starts_with("a.example: not ready for IPv6 (1 fail)\n"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text}");
        let for_people = lines.iter().filter(|line| !line.trim_start().starts_with("$ "));
        assert!(for_people.clone().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("  fail")).count(), 1, "{text}");

        let json = json(&asked, &report);
        assert!(
            !json.contains(['\u{1b}', '\u{202e}', '\r']) && json.lines().count() == 1,
            "{json}"
        );
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["outcome"], &json["ready"]), (&"fail".into(), &false.into()));
    }
}
