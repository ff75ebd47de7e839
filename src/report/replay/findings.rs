//! Findings: one line each, the most serious first.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use anstyle::Style;

use super::NumberedSession;
use crate::addr::Family;
use crate::engine::{Anomaly, Outcome, SessionRecord, ShadowRecord, VerdictRecord};
use crate::humanize::{count, counted, duration, family};
use crate::policy::PolicyAction;
use crate::report::escape::{EscapeContext, fitted};
use crate::report::page::{BOLD, PLAIN, Page, RED, YELLOW};
use crate::report::session::{SessionSummary, SignificantCode, is_refusal, is_unconnected};
use crate::report::wording;
use crate::stream::FlowOutcome;
use crate::traffic::fallback::{Fallback, FallbackReason, ServerMatch};

/// Stored lines of one kind; the others are counted.
const MAX_LINES: usize = 20;
/// Columns of a text from the configuration.
const TEXT: usize = 160;
/// Columns of a message about a file, including its name.
const MESSAGE: usize = 400;
/// Stored names of unknown facts.
const FACTS: usize = 16;

/// Kinds of findings, the most serious first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FindingKind {
    Fallback,
    Unconnected,
    BlackHole,
    Verdict,
    Refused,
    TlsFailed,
    Reset,
    Icmp,
    Damage,
    Anomaly,
    Gaps,
    Midstream,
    Unrecorded,
    Race,
}

impl FindingKind {
    /// Name of further ones, after their number.
    const fn plural(self) -> &'static str {
        match self {
            Self::Fallback => "fallbacks to IPv4",
            Self::Unconnected => "failed connections",
            Self::BlackHole => "suspected black holes",
            Self::Verdict => "verdicts other than accept",
            Self::Refused => "sessions with refused mail",
            Self::TlsFailed => "sessions whose TLS failed",
            Self::Reset => "resets",
            Self::Icmp => "sessions with ICMP errors",
            Self::Damage => "damaged parts of files",
            Self::Anomaly => "anomalies",
            Self::Gaps => "sessions with gaps in the capture",
            Self::Midstream => "sessions that started before the capture",
            Self::Unrecorded => "sessions with more transactions than recorded",
            Self::Race => "races won by IPv4",
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::Fallback | Self::Unconnected | Self::BlackHole | Self::Verdict => RED,
            Self::Refused
            | Self::TlsFailed
            | Self::Reset
            | Self::Icmp
            | Self::Damage
            | Self::Anomaly => YELLOW,
            Self::Gaps | Self::Midstream | Self::Unrecorded | Self::Race => PLAIN,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    kinds: BTreeMap<FindingKind, FindingLines>,
    /// Facts without an answer. These are no findings: a capture seldom contains the DNS traffic.
    unknown_facts: BTreeSet<String>,
    /// Sessions with unknown facts.
    unknown_sessions: u64,
}

/// Lines with the lowest session numbers.
#[derive(Debug, Default)]
struct FindingLines {
    /// By session number and order of arrival.
    stored: BTreeMap<(u64, u64), String>,
    total: u64,
}

impl Findings {
    pub(super) fn total(&self) -> u64 {
        self.kinds.values().map(|lines| lines.total).sum()
    }

    /// Nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.total() == 0 && self.unknown_sessions == 0
    }

    /// The most serious one.
    pub(super) fn first(&self) -> Option<(Style, &str)> {
        self.kinds
            .iter()
            .find_map(|(kind, lines)| Some((kind.style(), lines.stored.values().next()?.as_str())))
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.total() > 0 {
            page.line(BOLD, "FINDINGS, most serious first")?;
        }
        for (kind, lines) in &self.kinds {
            for line in lines.stored.values() {
                page.paragraph(kind.style(), line)?;
            }
            let more = lines.total - lines.stored.len() as u64;
            if more > 0 {
                page.paragraph(
                    kind.style(),
                    &format!("… and {} more {}", count(more), kind.plural()),
                )?;
            }
        }
        if self.unknown_sessions > 0 {
            if self.total() > 0 {
                page.line(PLAIN, "")?;
            }
            let facts: Vec<&str> = self.unknown_facts.iter().map(String::as_str).collect();
            let sessions = counted(self.unknown_sessions, "session");
            let note = format!(
                "Unknown in {sessions}: {}. The capture contains no DNS answer; provide one with --zone or --dns.",
                facts.join(", ")
            );
            page.paragraph(PLAIN, &note)?;
        }
        Ok(())
    }

    /// `message` names the file.
    pub(super) fn add_damage(&mut self, message: &str) {
        self.add(FindingKind::Damage, 0, fitted(message, EscapeContext::Sentence, MESSAGE));
    }

    pub(super) fn add_fallback(&mut self, fallback: &Fallback) {
        let &Fallback { from, to, after, why, code, by, .. } = fallback;
        let after = duration(after);
        let is = match by {
            ServerMatch::Names => "is",
            ServerMatch::Window => "is probably",
        };
        let code = code.map_or_else(String::new, |code| format!(" {code}"));
        let reason = match why {
            FallbackReason::Race => {
                let line = format!(
                    "#{from} IPv4 won the race: the client also tried IPv4 {after} later and continued there \
                     (session {to})"
                );
                return self.add(FindingKind::Race, from, line);
            }
            FallbackReason::Unanswered => "IPv6 SYN unanswered".to_owned(),
            FallbackReason::Refused => "IPv6 connection refused".to_owned(),
            FallbackReason::Unreachable => "IPv6 unreachable".to_owned(),
            FallbackReason::BlackHole => "large IPv6 packets lost".to_owned(),
            FallbackReason::Reset => "IPv6 connection reset".to_owned(),
            FallbackReason::Greeting => format!("IPv6 greeting{code}"),
            FallbackReason::Envelope => format!("IPv6 mail refused with{code}"),
        };
        // The fallback replaces the findings of its failed session that are stored; the others count twice.
        for kind in [FindingKind::Unconnected, FindingKind::Refused, FindingKind::Reset] {
            self.remove(kind, from);
        }
        let line = format!(
            "#{from} fell back to IPv4 after {after}: {reason} (session {to} {is} the retry)"
        );
        self.add(FindingKind::Fallback, from, line);
    }

    pub(super) fn add_session(&mut self, session: &NumberedSession<'_>) {
        self.add_path(session.number, session.record);
        self.add_dialogue(session.number, session.record);
        if session.policy_applied {
            self.add_verdict(session.number, session.record);
        }
        if !session.unknown_facts.is_empty() {
            self.unknown_sessions += 1;
            let free = FACTS.saturating_sub(self.unknown_facts.len());
            for fact in session.unknown_facts.iter().take(free) {
                self.unknown_facts.insert(fitted(fact, EscapeContext::Sentence, TEXT));
            }
        }
    }

    fn add_path(&mut self, n: u64, record: &SessionRecord) {
        let tcp = &record.tcp;
        let family = family(record.family);
        if is_unconnected(record) {
            let ending = wording::ending(record);
            let sent = match tcp.syns {
                Some(syns) if syns > 1 => {
                    format!(" ({syns} sent in {})", duration(record.duration))
                }
                _ => String::new(),
            };
            let retry = match record.family {
                Family::Ipv6 => ", no retry over IPv4 seen",
                Family::Ipv4 => "",
            };
            self.add(FindingKind::Unconnected, n, format!("#{n} {family} {ending}{sent}{retry}"));
        }
        let mtu = tcp.path_mtu.map(|mtu| format!("path MTU {}", count(u64::from(mtu))));
        if tcp.black_hole == Some(true) {
            let mtu = mtu.as_deref().unwrap_or("no \"packet too big\" seen");
            let line = format!(
                "#{n} {family} suspected path MTU black hole: large packets repeatedly lost ({mtu})"
            );
            self.add(FindingKind::BlackHole, n, line);
        }
        if tcp.outcome == Some(FlowOutcome::Reset) && !record.outcome.explains_reset() {
            let by = tcp
                .closed_by
                .map_or_else(String::new, |by| format!(" by the {}", wording::side(by)));
            let line = format!("#{n} {family} reset{by} after {}", duration(record.duration));
            self.add(FindingKind::Reset, n, line);
        }
        if let Some(errors) = tcp.icmp_errors.filter(|&errors| errors > 0) {
            let mtu = mtu.map_or_else(String::new, |mtu| format!(": packet too big, {mtu}"));
            let errors = counted(errors, "ICMP error");
            self.add(FindingKind::Icmp, n, format!("#{n} {family} {errors}{mtu}"));
        }
        if let Some(gaps) = tcp.gaps.filter(|&gaps| gaps > 0) {
            let gaps = counted(gaps, "gap");
            let line = format!("#{n} {family} {gaps} in the capture: its counts may be too low");
            self.add(FindingKind::Gaps, n, line);
        }
        if tcp.outcome == Some(FlowOutcome::Midstream) {
            let line = format!("#{n} {family} started before the capture: its start is unknown");
            self.add(FindingKind::Midstream, n, line);
        }
    }

    fn add_dialogue(&mut self, n: u64, record: &SessionRecord) {
        let smtp = &record.smtp;
        let family = family(record.family);
        let SessionSummary { messages, code, .. } = SessionSummary::new(record);
        if let Some(code) = smtp.greeting.filter(|&code| is_refusal(code)) {
            self.add(FindingKind::Refused, n, format!("#{n} {family} greeting {code}"));
        } else if let Some(code) = code.filter(|code| SignificantCode::is_refusal(*code))
            && smtp.transactions_total > 0
        {
            let subject = if messages.any_decided() { "mail" } else { "command" };
            let line = format!(
                "#{n} {family} {subject} refused with {code}, {} of {} accepted",
                count(messages.accepted.into()),
                counted(smtp.transactions_total, "message")
            );
            self.add(FindingKind::Refused, n, line);
        }
        if record.outcome == Outcome::TlsFailed {
            let is_reset = record.tcp.outcome == Some(FlowOutcome::Reset);
            let how = if is_reset { "reset" } else { "closed" };
            let by = record.tcp.closed_by.map(|by| format!(", {how} by the {}", wording::side(by)));
            let line = format!("#{n} {family} TLS failed{}", by.unwrap_or_default());
            self.add(FindingKind::TlsFailed, n, line);
        }
        // Gaps that are counted have a finding of their own.
        let is_reported =
            |anomaly: &&Anomaly| **anomaly != Anomaly::Gap || record.tcp.gaps.is_none();
        for &anomaly in smtp.anomalies.iter().filter(is_reported) {
            let line = format!("#{n} {} ({})", wording::anomaly(anomaly), anomaly.as_str());
            self.add(FindingKind::Anomaly, n, line);
        }
        let recorded = smtp.transactions.len() as u64;
        if smtp.transactions_total > recorded {
            let all = counted(smtp.transactions_total, "transaction");
            let line = format!("#{n} {all}, {} recorded in detail", count(recorded));
            self.add(FindingKind::Unrecorded, n, line);
        }
    }

    fn add_verdict(&mut self, n: u64, record: &SessionRecord) {
        let VerdictRecord { action, rule, reason, shadow } = &record.verdict;
        if let Some(effect) = effect(*action) {
            let rule = rule_and_reason(rule.as_deref(), reason.as_deref());
            self.add(FindingKind::Verdict, n, format!("#{n} would be {effect}{rule}"));
        }
        for ShadowRecord { rule, action, reason } in shadow {
            if let Some(effect) = effect(*action) {
                let rule = rule_and_reason(Some(rule), reason.as_deref());
                let line = format!("#{n} would be {effect} without shadow mode{rule}");
                self.add(FindingKind::Verdict, n, line);
            }
        }
    }

    fn add(&mut self, kind: FindingKind, number: u64, line: String) {
        let lines = self.kinds.entry(kind).or_default();
        lines.stored.insert((number, lines.total), line);
        lines.total += 1;
        if lines.stored.len() > MAX_LINES {
            lines.stored.pop_last();
        }
    }

    fn remove(&mut self, kind: FindingKind, number: u64) {
        let Some(lines) = self.kinds.get_mut(&kind) else { return };
        let before = lines.stored.len();
        lines.stored.retain(|&(of, _), _| of != number);
        lines.total -= (before - lines.stored.len()) as u64;
    }
}

const fn effect(action: PolicyAction) -> Option<&'static str> {
    match action {
        PolicyAction::Accept => None,
        PolicyAction::Tag => Some("tagged (tag)"),
        PolicyAction::Tempfail => Some("deferred (tempfail)"),
        PolicyAction::Reject => Some("rejected (reject)"),
    }
}

/// ` by rule "name": reason`
fn rule_and_reason(rule: Option<&str>, reason: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(rule) = rule {
        text.push_str(&format!(" by rule \"{}\"", fitted(rule, EscapeContext::Quoted, TEXT)));
    }
    if let Some(reason) = reason {
        let reason = wording::verdict_reason(reason);
        text.push_str(&format!(": {}", fitted(&reason, EscapeContext::Sentence, TEXT)));
    }
    text
}
