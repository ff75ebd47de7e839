//! The summary: the families side by side, so that a difference strikes the eye.

use std::io;

use super::quantile::Quantiles;
use super::words::{count, duration, has_smtp};
use super::{BOLD, NumberedSession, PLAIN, Page, RED, YELLOW};
use crate::addr::Family;
use crate::engine::TlsState;
use crate::policy::PolicyAction;
use crate::report::text::refused;
use crate::stream::FlowOutcome;
use crate::traffic::fallback::{Fallback, FallbackReason};

const LABEL: usize = 40;
const VALUE: usize = 19;
/// A longer number stands without its share.
const LONG: usize = 11;

/// In this order, IPv6 comes first: it is what is in question.
const FAMILIES: [Family; 2] = [Family::Ipv6, Family::Ipv4];

#[derive(Debug, Default)]
pub(super) struct Summary {
    /// As [`Family`] is numbered.
    families: [Counts; 2],
}

#[derive(Debug, Default)]
struct Counts {
    flows: u64,
    established: u64,
    midstream: u64,
    reset: u64,
    refused: u64,
    unanswered: u64,
    unreachable: u64,
    handshakes: Quantiles,
    sessions: u64,
    accepted: u64,
    tempfailed: u64,
    rejected: u64,
    undecided: u64,
    /// Transactions that the record counts and does not hold.
    unkept: u64,
    /// 2xx to 5xx.
    replies: [u64; 4],
    tls: u64,
    resent: u64,
    gaps: u64,
    black_holes: u64,
    icmp: u64,
    fall_backs: u64,
    races: u64,
    judged: u64,
    verdicts: [u64; 3],
}

impl Summary {
    pub(super) fn flows(&self) -> u64 {
        self.families.iter().map(|counts| counts.flows).sum()
    }

    pub(super) fn session(&mut self, told: &NumberedSession<'_>) {
        let counts = self.of(told.record.family);
        counts.tcp(told);
        counts.smtp(told);
        if told.policy_applied {
            counts.judged += 1;
            let [accept, tempfail, reject] = &mut counts.verdicts; // a tag is an accept
            *match told.record.verdict.action {
                PolicyAction::Accept | PolicyAction::Tag => accept,
                PolicyAction::Tempfail => tempfail,
                PolicyAction::Reject => reject,
            } += 1;
        }
    }

    pub(super) fn fall_back(&mut self, pair: &Fallback) {
        let counts = self.of(Family::Ipv6);
        match pair.why {
            FallbackReason::Race => counts.races += 1,
            _ => counts.fall_backs += 1,
        }
    }

    fn of(&mut self, family: Family) -> &mut Counts {
        let [ipv4, ipv6] = &mut self.families;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        let [ipv4, ipv6] = &self.families;
        let both = FAMILIES.map(|family| match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        });
        let [six, four] = FAMILIES.map(super::words::family);
        page.line(BOLD, &row("", [six.to_owned(), four.to_owned()]))?;
        let lines = both.map(Counts::lines);
        let [six, four] = &lines;
        for (a, b) in six.iter().zip(four) {
            if a.kind == Kind::Always || a.some || b.some {
                let style = match a.kind {
                    Kind::Bad if a.some || b.some => RED,
                    Kind::Doubtful => YELLOW,
                    _ => PLAIN,
                };
                page.line(style, &row(a.label, [a.value.clone(), b.value.clone()]))?;
            }
        }
        Ok(())
    }
}

fn row(label: &str, [six, four]: [String; 2]) -> String {
    format!("{label:<LABEL$} {six:>VALUE$} {four:>VALUE$}")
}

/// When a line is shown, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Always,
    /// If either family has any.
    IfAny,
    Bad,
    Doubtful,
}

struct Line {
    label: &'static str,
    kind: Kind,
    value: String,
    some: bool,
}

impl Counts {
    fn tcp(&mut self, told: &NumberedSession<'_>) {
        let tcp = &told.record.tcp;
        self.flows += 1;
        match tcp.outcome {
            Some(FlowOutcome::Established) => self.established += 1,
            Some(FlowOutcome::Midstream) => self.midstream += 1,
            Some(FlowOutcome::Reset) => self.reset += 1,
            Some(FlowOutcome::Refused) => self.refused += 1,
            Some(FlowOutcome::Unanswered) => self.unanswered += 1,
            Some(FlowOutcome::Unreachable) => self.unreachable += 1,
            None => {}
        }
        if let Some(handshake) = tcp.handshake {
            self.handshakes.add(handshake);
        }
        let any = |n: Option<u64>| u64::from(n.is_some_and(|n| n > 0));
        self.resent += any(tcp.retransmits);
        self.gaps += any(tcp.gaps);
        self.icmp += any(tcp.icmp_errors);
        self.black_holes += u64::from(tcp.black_hole == Some(true));
    }

    fn smtp(&mut self, told: &NumberedSession<'_>) {
        let smtp = &told.record.smtp;
        self.sessions += u64::from(has_smtp(told.record));
        self.tls += u64::from(smtp.tls == TlsState::Started);
        for (&code, &n) in &smtp.replies {
            let class = usize::from(code / 100).checked_sub(2);
            if let Some(replies) = class.and_then(|class| self.replies.get_mut(class)) {
                *replies = replies.saturating_add(n);
            }
        }
        for transaction in &smtp.transactions {
            *match transaction.deciding_code() {
                Some(code) if code >= 500 => &mut self.rejected,
                Some(code) if refused(code) => &mut self.tempfailed,
                Some(_) => &mut self.accepted,
                None => &mut self.undecided,
            } += 1;
        }
        let kept = smtp.transactions.len() as u64;
        let unkept = smtp.transactions_total.saturating_sub(kept);
        self.unkept = self.unkept.saturating_add(unkept);
    }

    /// The same lines in the same order for either family.
    fn lines(&self) -> Vec<Line> {
        let replies = self.replies.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let messages = self.accepted + self.tempfailed + self.rejected + self.undecided;
        let [ok, more, temporary, permanent] = self.replies;
        let [accept, tempfail, reject] = self.verdicts;
        let of =
            |label, kind, n: u64, all: u64| Line { label, kind, value: share(n, all), some: n > 0 };
        let plain = |label, kind, n: u64| Line { label, kind, value: number(n), some: n > 0 };
        let time = |label, percent| {
            let at = self.handshakes.at(percent);
            let value = at.map_or_else(|| "-".to_owned(), duration);
            Line { label, kind: Kind::Always, value, some: at.is_some() }
        };
        vec![
            plain("flows", Kind::Always, self.flows),
            of("  established", Kind::Always, self.established, self.flows),
            of("  unanswered", Kind::Bad, self.unanswered, self.flows),
            of("  refused", Kind::Bad, self.refused, self.flows),
            of("  unreachable", Kind::Bad, self.unreachable, self.flows),
            of("  reset", Kind::Doubtful, self.reset, self.flows),
            of("  begun before the capture", Kind::IfAny, self.midstream, self.flows),
            of("fell back to IPv4", Kind::Bad, self.fall_backs, self.flows),
            of("lost a race to IPv4", Kind::IfAny, self.races, self.flows),
            time("handshake, half within", 50),
            time("handshake, 95 % within", 95),
            of("flows with retransmits", Kind::Always, self.resent, self.flows),
            of("flows with ICMP errors", Kind::Doubtful, self.icmp, self.flows),
            of("black hole suspected", Kind::Bad, self.black_holes, self.flows),
            of("flows that the capture lost pieces of", Kind::Doubtful, self.gaps, self.flows),
            plain("SMTP sessions", Kind::Always, self.sessions),
            of("  STARTTLS started", Kind::Always, self.tls, self.sessions),
            of("messages accepted", Kind::Always, self.accepted, messages),
            of("  refused for now (4xx)", Kind::Bad, self.tempfailed, messages),
            of("  refused (5xx)", Kind::Bad, self.rejected, messages),
            of("  given up or cut off", Kind::IfAny, self.undecided, messages),
            plain("  more, only counted", Kind::Doubtful, self.unkept),
            of("replies 2xx", Kind::Always, ok, replies),
            of("  3xx", Kind::IfAny, more, replies),
            of("  4xx", Kind::IfAny, temporary, replies),
            of("  5xx", Kind::IfAny, permanent, replies),
            of("verdict accept", Kind::IfAny, accept, self.judged),
            of("  tempfail", Kind::IfAny, tempfail, self.judged),
            of("  reject", Kind::IfAny, reject, self.judged),
        ]
    }
}

/// None is a dash, so that the others strike the eye.
fn number(n: u64) -> String {
    if n == 0 { "-".to_owned() } else { count(n) }
}

/// `12 (34 %)`; never 0 % or 100 % of what is neither.
fn share(n: u64, all: u64) -> String {
    let number = number(n);
    if n == 0 || all == 0 || number.len() > LONG {
        return number;
    }
    // u128: no product overflows.
    let percent = (u128::from(n) * 100 + u128::from(all) / 2) / u128::from(all);
    match percent {
        0 => format!("{number} (<1 %)"),
        100 if n < all => format!("{number} (>99 %)"),
        percent => format!("{number} ({percent} %)"),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_do_not_round_to_none_or_all() {
        for (n, all, expected) in [
            (0, 10, "-"),
            (5, 0, "5"),
            (1, 1000, "1 (<1 %)"),
            (999, 1000, "999 (>99 %)"),
            (1000, 1000, "1,000 (100 %)"),
            (2, 3, "2 (67 %)"),
        ] {
            assert_eq!(share(n, all), expected);
        }
        assert_eq!(share(u64::MAX, u64::MAX), "18,446,744,073,709,551,615");
    }
}
