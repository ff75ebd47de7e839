//! The check of our own sending over IPv6, below the headline of `gatepost outbound`.

use std::net::IpAddr;

use serde::Serialize;

use super::columns::{WIDTH, wrapped};
use super::escape::{EscapeContext, fitted};
use super::readiness::finding;
use crate::readiness::{CheckName, CheckReport, CheckRequest, CheckStatus, Finding};

/// Columns of an observation.
const OBSERVATION: usize = 400;
const INDENT: &str = "  ";

/// The serde form is part of the public JSON form.
#[derive(Clone, Debug, Serialize)]
pub struct SendingCheck {
    /// Whose SPF and DMARC records were looked up, and the setting that names it.
    pub domain: String,
    pub domain_from: &'static str,
    /// The IPv6 addresses from which this host sends.
    pub senders: Vec<IpAddr>,
    /// Faults, the most severe first.
    pub findings: Vec<Finding>,
    /// What was looked at without a fault.
    pub passed: Vec<CheckName>,
    /// What was not looked at, and why.
    pub not_checked: Vec<String>,
}

impl SendingCheck {
    pub fn new(request: &CheckRequest, report: CheckReport, domain_from: &'static str) -> Self {
        let is_ipv4 = |one: &Finding| {
            one.about == "IPv4" || one.about.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4())
        };
        let mut check = Self::skipped(request.domain.to_string(), domain_from, None);
        check.senders.extend(request.senders.iter().copied().filter(IpAddr::is_ipv6));
        for one in report.findings.into_iter().filter(|one| !is_ipv4(one)) {
            match one.outcome {
                CheckStatus::Pass => check.passed.push(one.check),
                CheckStatus::Unknown => {
                    check.not_checked.push(format!("{}: {}", one.about, one.seen));
                }
                CheckStatus::Warn | CheckStatus::Fail => check.findings.push(one),
            }
        }
        check.passed.dedup();
        check.findings.sort_by_key(|one| std::cmp::Reverse(one.outcome));
        if request.helo.is_none() {
            check.not_checked.push("EHLO name: no Postfix was found here".to_owned());
        }
        check.not_checked.push("DKIM: `gatepost check DOMAIN --selector NAME` does".to_owned());
        check
    }

    /// A check that cannot run, for this reason.
    pub fn skipped(domain: String, domain_from: &'static str, reason: Option<String>) -> Self {
        Self {
            domain,
            domain_from,
            senders: Vec::new(),
            findings: Vec::new(),
            passed: Vec::new(),
            not_checked: reason.into_iter().collect(),
        }
    }

    /// Lines of at most 100 columns, except shell commands.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut senders: Vec<String> = self.senders.iter().map(ToString::to_string).collect();
        if senders.is_empty() {
            senders.push("no IPv6 address".to_owned());
        }
        let domain = fitted(&self.domain, EscapeContext::Sentence, OBSERVATION);
        let about =
            format!("Checked now for {} and {domain} ({})", senders.join(", "), self.domain_from);
        let result = match (self.findings.is_empty(), self.good_parts()) {
            (false, _) => String::new(),
            (true, parts) if parts.is_empty() => " nothing, see below".to_owned(),
            (true, parts) => format!(" no fault in {}", parts.join(", ")),
        };
        let mut lines = wrapped(&format!("{about}:{result}"), WIDTH);
        let mut text = String::new();
        self.findings.iter().for_each(|one| finding(&mut text, one));
        lines.extend(text.lines().map(str::to_owned));
        for reason in &self.not_checked {
            let reason = fitted(reason, EscapeContext::Sentence, OBSERVATION);
            let reason = wrapped(&format!("not checked: {reason}"), WIDTH - INDENT.len());
            lines.extend(reason.into_iter().map(|line| format!("{INDENT}{line}")));
        }
        lines
    }

    fn good_parts(&self) -> Vec<&'static str> {
        let mut parts: Vec<&str> = self.passed.iter().filter_map(|check| part(*check)).collect();
        parts.dedup();
        parts
    }
}

/// What a check looked at.
const fn part(check: CheckName) -> Option<&'static str> {
    match check {
        CheckName::SenderPtr => Some("the reverse name"),
        CheckName::SenderFcrdns => Some("its address"),
        CheckName::SenderHelo => Some("the EHLO name"),
        CheckName::SpfSender => Some("SPF"),
        CheckName::DmarcRecord => Some("DMARC"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::DomainName;
    use crate::readiness::{FindingSubject, Origin};

    fn found(check: CheckName, outcome: CheckStatus, about: &str, seen: &str) -> Finding {
        let advice = (outcome != CheckStatus::Pass).then(|| "Do it.".to_owned());
        let (about, seen) = (about.to_owned(), seen.to_owned());
        let (portion, subject) = (check.portion(), FindingSubject::default());
        Finding { portion, check, outcome, about, subject, seen, advice, commands: vec![] }
    }

    fn check(findings: Vec<Finding>) -> SendingCheck {
        let request = CheckRequest {
            senders: ["2001:db8::1", "192.0.2.1"].map(|ip| ip.parse().unwrap()).to_vec(),
            senders_from: Origin::Interfaces,
            ..CheckRequest::new(DomainName::parse("a.example").unwrap())
        };
        let report = CheckReport { findings, ..CheckReport::default() };
        SendingCheck::new(&request, report, "smtp.hostname")
    }

    #[test]
    fn faults_over_ipv6_and_what_was_not_checked_are_shown() {
        use CheckStatus::{Fail, Pass, Unknown, Warn};
        let check = check(vec![
            found(CheckName::SenderAddress, Pass, "IPv6", "2001:db8::1"),
            found(CheckName::SenderPtr, Fail, "2001:db8::1", "no PTR record"),
            found(CheckName::SenderPtr, Fail, "192.0.2.1", "no PTR record"),
            found(
                CheckName::SpfRecord,
                Unknown,
                "a.example",
                "TXT unknown: \u{1b}DNS query timed out",
            ),
            found(CheckName::DmarcRecord, Warn, "a.example", "no DMARC record"),
        ]);
        let text = check.lines().join("\n");
        let expected = "\
Checked now for 2001:db8::1 and a.example (smtp.hostname):
  fail     2001:db8::1: no PTR record
           → Do it.
  warn     a.example: no DMARC record
           → Do it.
  not checked: a.example: TXT unknown: \\x1bDNS query timed out
  not checked: EHLO name: no Postfix was found here
  not checked: DKIM: `gatepost check DOMAIN --selector NAME` does";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_check_without_a_fault_names_what_it_looked_at() {
        let pass = |check| found(check, CheckStatus::Pass, "2001:db8::1", "good");
        let names = [CheckName::SenderPtr, CheckName::SenderFcrdns, CheckName::SpfSender];
        let lines = check(names.map(pass).to_vec()).lines();
        let text = lines[..2].join(" ");
        let expected = "Checked now for 2001:db8::1 and a.example (smtp.hostname): no fault in the reverse name, its \
                        address, SPF";
        assert_eq!(text, expected);
        let none =
            SendingCheck::skipped("a.example".to_owned(), "smtp.hostname", Some("why".to_owned()));
        let text = none.lines().join("\n");
        let expected = "Checked now for no IPv6 address and a.example (smtp.hostname): nothing, see below\n  \
                        not checked: why";
        assert_eq!(text, expected);
    }
}
