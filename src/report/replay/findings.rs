//! What is odd: a line each, the most serious first.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use anstyle::Style;

use super::rows::{is_accepted, is_decided, significant_code};
use super::words::{self, count, duration, several};
use super::{BOLD, NumberedSession, PLAIN, Page, RED, YELLOW};
use crate::addr::Family;
use crate::engine::{Anomaly, Outcome, SessionRecord, ShadowRecord, VerdictRecord};
use crate::policy::PolicyAction;
use crate::report::escape::{Place, fitted};
use crate::report::text::refused;
use crate::stream::FlowOutcome;
use crate::traffic::fallback::{Fallback, FallbackReason, ServerMatch};

/// Lines of one kind; the others are counted.
const MAX_LINES: usize = 20;
/// Columns of the operator's own words.
const SAID: usize = 160;
/// Columns of a message about a file, with its name.
const MESSAGE: usize = 400;
/// Kinds of fact whose names are kept.
const FACTS: usize = 16;

/// Kinds of oddity, the most serious first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    FellBack,
    NotConnected,
    BlackHole,
    Verdict,
    Refused,
    Reset,
    Icmp,
    Damage,
    Anomaly,
    Gaps,
    Beginning,
    Unkept,
    Raced,
}

impl Kind {
    /// What further ones are called.
    const fn more(self) -> &'static str {
        match self {
            Self::FellBack => "fell back to IPv4",
            Self::NotConnected => "did not connect",
            Self::BlackHole => "may have met a black hole",
            Self::Verdict => "would not be accepted",
            Self::Refused => "had mail refused",
            Self::Reset => "were reset",
            Self::Icmp => "had ICMP errors",
            Self::Damage => "damages of files",
            Self::Anomaly => "anomalies",
            Self::Gaps => "that the capture lost pieces of",
            Self::Beginning => "begun before the capture",
            Self::Unkept => "with more transactions than are kept",
            Self::Raced => "lost a race to IPv4",
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::FellBack | Self::NotConnected | Self::BlackHole | Self::Verdict => RED,
            Self::Refused | Self::Reset | Self::Icmp | Self::Damage | Self::Anomaly => YELLOW,
            Self::Gaps | Self::Beginning | Self::Unkept | Self::Raced => PLAIN,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    kinds: BTreeMap<Kind, Lines>,
    /// Facts that nothing answered, and of how many sessions. No oddity of theirs: a capture seldom holds the DNS.
    unknown: BTreeSet<String>,
    unknown_of: u64,
}

/// The lines of the lowest numbers.
#[derive(Debug, Default)]
struct Lines {
    /// By the session's number and the order of telling.
    kept: BTreeMap<(u64, u64), String>,
    total: u64,
}

impl Findings {
    pub(super) fn total(&self) -> u64 {
        self.kinds.values().map(|lines| lines.total).sum()
    }

    /// There is nothing to tell.
    pub(super) fn is_silent(&self) -> bool {
        self.total() == 0 && self.unknown_of == 0
    }

    /// The most serious one.
    pub(super) fn first(&self) -> Option<(Style, &str)> {
        self.kinds
            .iter()
            .find_map(|(kind, lines)| Some((kind.style(), lines.kept.values().next()?.as_str())))
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.total() > 0 {
            page.line(BOLD, "ODD, the most serious first")?;
        }
        for (kind, lines) in &self.kinds {
            for line in lines.kept.values() {
                page.say(kind.style(), line)?;
            }
            let more = lines.total - lines.kept.len() as u64;
            if more > 0 {
                page.say(kind.style(), &format!("… and {} more {}", count(more), kind.more()))?;
            }
        }
        if self.unknown_of > 0 {
            if self.total() > 0 {
                page.line(PLAIN, "")?;
            }
            let facts: Vec<&str> = self.unknown.iter().map(String::as_str).collect();
            let sessions = several(self.unknown_of, "session");
            let note = format!(
                "Not known of {sessions}: {}. The capture holds no DNS answer for it; --zone or --dns can give it.",
                facts.join(", ")
            );
            page.say(PLAIN, &note)?;
        }
        Ok(())
    }

    /// `message` names the file.
    pub(super) fn damage(&mut self, message: &str) {
        self.add(Kind::Damage, 0, fitted(message, Place::Sentence, MESSAGE));
    }

    pub(super) fn fall_back(&mut self, pair: &Fallback) {
        let &Fallback { from, to, after, why, code, by, .. } = pair;
        let after = duration(after);
        let is = match by {
            ServerMatch::Names => "is",
            ServerMatch::Window => "is probably",
        };
        let said = code.map_or_else(String::new, |code| format!(" with {code}"));
        let why = match why {
            FallbackReason::Race => {
                let line = format!(
                    "#{from} lost a race: the client also tried IPv4 {after} later and went on with it \
                     (session {to})"
                );
                return self.add(Kind::Raced, from, line);
            }
            FallbackReason::Unanswered => "IPv6 SYN unanswered".to_owned(),
            FallbackReason::Refused => "IPv6 connection refused".to_owned(),
            FallbackReason::Unreachable => "IPv6 unreachable".to_owned(),
            FallbackReason::BlackHole => "IPv6 loses large packets".to_owned(),
            FallbackReason::Reset => "IPv6 connection reset".to_owned(),
            FallbackReason::Greeting => format!("IPv6 greeted{said}"),
            FallbackReason::Envelope => format!("IPv6 mail refused{said}"),
        };
        // The same failure, told better. One that was only counted is counted twice.
        for kind in [Kind::NotConnected, Kind::Refused, Kind::Reset] {
            self.forget(kind, from);
        }
        let line =
            format!("#{from} fell back to IPv4 after {after}: {why} (session {to} {is} the retry)");
        self.add(Kind::FellBack, from, line);
    }

    pub(super) fn session(&mut self, told: &NumberedSession<'_>) {
        self.path(told.number, told.record);
        self.dialogue(told.number, told.record);
        if told.policy_applied {
            self.verdict(told.number, told.record);
        }
        if !told.unknown_facts.is_empty() {
            self.unknown_of += 1;
            for fact in told.unknown_facts.iter().take(FACTS.saturating_sub(self.unknown.len())) {
                self.unknown.insert(fitted(fact, Place::Sentence, SAID));
            }
        }
    }

    fn path(&mut self, n: u64, record: &SessionRecord) {
        let tcp = &record.tcp;
        let family = words::family(record.family);
        if words::not_connected(record) {
            let what = words::ending(record);
            let sent = match tcp.syns {
                Some(syns) if syns > 1 => {
                    format!(" ({syns} sent in {})", duration(record.duration))
                }
                _ => String::new(),
            };
            let left = match record.family {
                Family::Ipv6 => ", and no retry over IPv4 was seen",
                Family::Ipv4 => "",
            };
            self.add(Kind::NotConnected, n, format!("#{n} {family} {what}{sent}{left}"));
        }
        let mtu = match tcp.path_mtu {
            Some(mtu) => format!("path MTU {}", count(u64::from(mtu))),
            None => "no packet-too-big seen".to_owned(),
        };
        if tcp.black_hole == Some(true) {
            let line = format!(
                "#{n} {family} black hole suspected: large packets were lost again and again ({mtu})"
            );
            self.add(Kind::BlackHole, n, line);
        }
        if tcp.outcome == Some(FlowOutcome::Reset) && record.outcome != Outcome::Quit {
            let by =
                tcp.closed_by.map_or_else(String::new, |by| format!(" by the {}", words::side(by)));
            let line = format!("#{n} {family} reset{by} after {}", duration(record.duration));
            self.add(Kind::Reset, n, line);
        }
        if let Some(errors) = tcp.icmp_errors.filter(|&errors| errors > 0) {
            let mtu = if tcp.path_mtu.is_some() {
                format!(": packet too big, {mtu}")
            } else {
                String::new()
            };
            self.add(
                Kind::Icmp,
                n,
                format!("#{n} {family} {}{mtu}", several(errors, "ICMP error")),
            );
        }
        if let Some(gaps) = tcp.gaps.filter(|&gaps| gaps > 0) {
            let pieces = several(gaps, "piece");
            let line = format!("capture lost {pieces} of #{n}: its counts may be short");
            self.add(Kind::Gaps, n, line);
        }
        if tcp.outcome == Some(FlowOutcome::Midstream) {
            let line = format!("#{n} began before the capture: how is not known");
            self.add(Kind::Beginning, n, line);
        }
    }

    fn dialogue(&mut self, n: u64, record: &SessionRecord) {
        let smtp = &record.smtp;
        let family = words::family(record.family);
        if let Some(code) = smtp.greeting.filter(|&code| refused(code)) {
            self.add(Kind::Refused, n, format!("#{n} {family} greeted with {code}"));
        } else if let Some((code, enhanced)) =
            significant_code(record).filter(|(code, _)| refused(*code))
            && smtp.transactions_total > 0
        {
            let accepted = smtp.transactions.iter().filter(|t| is_accepted(t)).count() as u64;
            let enhanced = enhanced.map_or_else(String::new, |enhanced| format!(" {enhanced}"));
            let messages = several(smtp.transactions_total, "message");
            let what = if smtp.transactions.iter().any(is_decided) { "mail" } else { "a command" };
            let line = format!(
                "#{n} {family} {what} refused with {code}{enhanced}, {} of {messages} accepted",
                count(accepted)
            );
            self.add(Kind::Refused, n, line);
        }
        // Holes are told by their number.
        let told = |anomaly: &&Anomaly| **anomaly != Anomaly::Gap || record.tcp.gaps.is_none();
        for &anomaly in smtp.anomalies.iter().filter(told) {
            let line = format!("#{n} {} ({})", words::meaning(anomaly), anomaly.as_str());
            self.add(Kind::Anomaly, n, line);
        }
        let kept = smtp.transactions.len() as u64;
        if smtp.transactions_total > kept {
            let all = several(smtp.transactions_total, "transaction");
            let line = format!("#{n} had {all}; what became of {} is told", count(kept));
            self.add(Kind::Unkept, n, line);
        }
    }

    fn verdict(&mut self, n: u64, record: &SessionRecord) {
        let VerdictRecord { action, rule, reason, shadow } = &record.verdict;
        if let Some(would) = would(*action) {
            let line = format!("#{n} {would}{}", by(rule.as_deref(), reason.as_deref()));
            self.add(Kind::Verdict, n, line);
        }
        for ShadowRecord { rule, action, reason } in shadow {
            if let Some(would) = would(*action) {
                let by = by(Some(rule), reason.as_deref());
                self.add(Kind::Verdict, n, format!("#{n} {would}, were it not in shadow,{by}"));
            }
        }
    }

    fn add(&mut self, kind: Kind, number: u64, line: String) {
        let lines = self.kinds.entry(kind).or_default();
        lines.kept.insert((number, lines.total), line);
        lines.total += 1;
        if lines.kept.len() > MAX_LINES {
            lines.kept.pop_last();
        }
    }

    fn forget(&mut self, kind: Kind, number: u64) {
        let Some(lines) = self.kinds.get_mut(&kind) else { return };
        let before = lines.kept.len();
        lines.kept.retain(|&(of, _), _| of != number);
        lines.total -= (before - lines.kept.len()) as u64;
    }
}

const fn would(action: PolicyAction) -> Option<&'static str> {
    match action {
        PolicyAction::Accept => None,
        PolicyAction::Tag => Some("would get a header field (tag)"),
        PolicyAction::Tempfail => Some("would be refused for now (tempfail)"),
        PolicyAction::Reject => Some("would be refused (reject)"),
    }
}

/// ` by rule "name": reason`
fn by(rule: Option<&str>, reason: Option<&str>) -> String {
    let mut said = String::new();
    if let Some(rule) = rule {
        said.push_str(&format!(" by rule \"{}\"", fitted(rule, Place::Quoted, SAID)));
    }
    if let Some(reason) = reason {
        said.push_str(&format!(": {}", fitted(&words::reason(reason), Place::Sentence, SAID)));
    }
    said
}
