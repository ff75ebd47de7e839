//! The summary: counts by family, side by side.

use std::io;

use super::{FAMILIES, NumberedSession, family_row, number};
use crate::addr::Family;
use crate::engine::Outcome;
use crate::humanize::{self, short_duration};
use crate::policy::PolicyAction;
use crate::report::page::{BOLD, PLAIN, Page, RED, YELLOW};
use crate::report::session::{SessionSummary, TransactionCounts, has_smtp};
use crate::stream::FlowOutcome;
use crate::traffic::DurationHistogram;
use crate::traffic::fallback::{Fallback, FallbackReason};

/// Longer numbers have no percentage.
const LONG: usize = 11;

#[derive(Debug, Default)]
pub(super) struct FamilySummary {
    /// Indexed by [`Family`].
    families: [FamilyCounts; 2],
}

#[derive(Debug, Default)]
struct FamilyCounts {
    flows: u64,
    established: u64,
    midstream: u64,
    reset: u64,
    refused: u64,
    unanswered: u64,
    unreachable: u64,
    unknown: u64,
    handshakes: DurationHistogram,
    sessions: u64,
    accepted: u64,
    deferred: u64,
    rejected: u64,
    incomplete: u64,
    /// Transactions beyond the limit of the record.
    unrecorded: u64,
    /// 2xx to 5xx.
    replies: [u64; 4],
    tls: u64,
    tls_completed: u64,
    tls_failed: u64,
    retransmits: u64,
    gaps: u64,
    black_holes: u64,
    icmp: u64,
    fallbacks: u64,
    races: u64,
    evaluated: u64,
    verdicts: [u64; 3],
}

impl FamilySummary {
    pub(super) fn flows(&self) -> u64 {
        self.families.iter().map(|counts| counts.flows).sum()
    }

    pub(super) fn add_session(&mut self, session: &NumberedSession<'_>) {
        let counts = self.counts(session.record.family);
        counts.add_tcp(session);
        counts.add_smtp(session);
        if session.policy_applied {
            counts.evaluated += 1;
            let [accept, tempfail, reject] = &mut counts.verdicts;
            *match session.record.verdict.action {
                PolicyAction::Accept | PolicyAction::Tag => accept,
                PolicyAction::Tempfail => tempfail,
                PolicyAction::Reject => reject,
            } += 1;
        }
    }

    pub(super) fn add_fallback(&mut self, fallback: &Fallback) {
        let counts = self.counts(Family::Ipv6);
        match fallback.why {
            FallbackReason::Race => counts.races += 1,
            _ => counts.fallbacks += 1,
        }
    }

    fn counts(&mut self, family: Family) -> &mut FamilyCounts {
        let [ipv4, ipv6] = &mut self.families;
        match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        }
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        let [ipv4, ipv6] = &self.families;
        let lines = FAMILIES.map(|family| match family {
            Family::Ipv4 => ipv4.lines(),
            Family::Ipv6 => ipv6.lines(),
        });
        page.line(BOLD, &family_row("", FAMILIES.map(|of| humanize::family(of).to_owned())))?;
        let [six, four] = &lines;
        for (a, b) in six.iter().zip(four) {
            let any = a.non_zero || b.non_zero;
            if a.kind == LineKind::Always || any {
                let style = match a.kind {
                    LineKind::Failure if any => RED,
                    LineKind::Doubtful => YELLOW,
                    _ => PLAIN,
                };
                page.line(style, &family_row(a.label, [a.value.clone(), b.value.clone()]))?;
            }
        }
        Ok(())
    }
}

/// When a line is shown, and its style.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Always,
    /// If either family has any.
    IfAny,
    /// If any, in red.
    Failure,
    /// If any, in yellow.
    Doubtful,
}

struct SummaryLine {
    label: &'static str,
    kind: LineKind,
    value: String,
    non_zero: bool,
}

impl FamilyCounts {
    fn add_tcp(&mut self, session: &NumberedSession<'_>) {
        let tcp = &session.record.tcp;
        self.flows += 1;
        match tcp.outcome {
            Some(FlowOutcome::Established) => self.established += 1,
            Some(FlowOutcome::Midstream) => self.midstream += 1,
            Some(FlowOutcome::Reset) => self.reset += 1,
            Some(FlowOutcome::Refused) => self.refused += 1,
            Some(FlowOutcome::Unanswered) => self.unanswered += 1,
            Some(FlowOutcome::Unreachable) => self.unreachable += 1,
            Some(FlowOutcome::Unknown) => self.unknown += 1,
            None => {}
        }
        if let Some(handshake) = tcp.handshake {
            self.handshakes.add(handshake);
        }
        let any = |n: Option<u64>| u64::from(n.is_some_and(|n| n > 0));
        self.retransmits += any(tcp.retransmits);
        self.gaps += any(tcp.gaps);
        self.icmp += any(tcp.icmp_errors);
        self.black_holes += u64::from(tcp.black_hole == Some(true));
    }

    fn add_smtp(&mut self, session: &NumberedSession<'_>) {
        let smtp = &session.record.smtp;
        self.sessions += u64::from(has_smtp(session.record));
        self.tls += u64::from(smtp.tls.is_encrypted());
        self.tls_completed += u64::from(session.record.outcome == Outcome::TlsCompleted);
        self.tls_failed += u64::from(session.record.outcome == Outcome::TlsFailed);
        for (&code, &n) in &smtp.replies {
            let class = usize::from(code / 100).checked_sub(2);
            if let Some(replies) = class.and_then(|class| self.replies.get_mut(class)) {
                *replies = replies.saturating_add(n);
            }
        }
        // Only Postfix's questions show that one was received, and a capture has none.
        let TransactionCounts { accepted, deferred, rejected, received: _, incomplete } =
            SessionSummary::new(session.record).messages;
        self.accepted += u64::from(accepted);
        self.deferred += u64::from(deferred);
        self.rejected += u64::from(rejected);
        self.incomplete += u64::from(incomplete);
        let recorded = smtp.transactions.len() as u64;
        let unrecorded = smtp.transactions_total.saturating_sub(recorded);
        self.unrecorded = self.unrecorded.saturating_add(unrecorded);
    }

    /// The same labels in the same order for either family.
    fn lines(&self) -> Vec<SummaryLine> {
        use LineKind::{Always, Doubtful, Failure, IfAny};

        let replies = self.replies.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let messages = self.accepted + self.deferred + self.rejected + self.incomplete;
        let [ok, more, temporary, permanent] = self.replies;
        let [accept, tempfail, reject] = self.verdicts;
        let of = |label, kind, n: u64, all: u64| SummaryLine {
            label,
            kind,
            value: share(n, all),
            non_zero: n > 0,
        };
        let plain =
            |label, kind, n: u64| SummaryLine { label, kind, value: number(n), non_zero: n > 0 };
        let time = |label, percent| {
            let at = self.handshakes.percentile(percent);
            let value = at.map_or_else(|| "-".to_owned(), short_duration);
            SummaryLine { label, kind: Always, value, non_zero: at.is_some() }
        };
        vec![
            plain("flows", Always, self.flows),
            of("  established", Always, self.established, self.flows),
            of("  unanswered", Failure, self.unanswered, self.flows),
            of("  refused", Failure, self.refused, self.flows),
            of("  unreachable", Failure, self.unreachable, self.flows),
            of("  unknown, packets lost", IfAny, self.unknown, self.flows),
            of("  reset", Doubtful, self.reset, self.flows),
            of("  started before the capture", IfAny, self.midstream, self.flows),
            of("fallbacks to IPv4", Failure, self.fallbacks, self.flows),
            of("races won by IPv4", IfAny, self.races, self.flows),
            time("handshake, median", 50),
            time("handshake, 95th percentile", 95),
            of("flows with retransmissions", Always, self.retransmits, self.flows),
            of("flows with ICMP errors", Doubtful, self.icmp, self.flows),
            of("suspected path MTU black holes", Failure, self.black_holes, self.flows),
            of("flows with gaps in the capture", Doubtful, self.gaps, self.flows),
            plain("SMTP sessions", Always, self.sessions),
            of("  with STARTTLS", Always, self.tls, self.sessions),
            of("  under TLS, mail not visible", IfAny, self.tls_completed, self.sessions),
            of("  TLS failed", Failure, self.tls_failed, self.sessions),
            of("messages accepted", Always, self.accepted, messages),
            of("  deferred (4xx)", Failure, self.deferred, messages),
            of("  rejected (5xx)", Failure, self.rejected, messages),
            of("  incomplete", IfAny, self.incomplete, messages),
            plain("  not recorded in detail", Doubtful, self.unrecorded),
            of("replies 2xx", Always, ok, replies),
            of("  3xx", IfAny, more, replies),
            of("  4xx", IfAny, temporary, replies),
            of("  5xx", IfAny, permanent, replies),
            of("verdict accept", IfAny, accept, self.evaluated),
            of("  tempfail", IfAny, tempfail, self.evaluated),
            of("  reject", IfAny, reject, self.evaluated),
        ]
    }
}

/// `12 (34 %)`; 0 % and 100 % only if exact.
fn share(n: u64, all: u64) -> String {
    let number = number(n);
    if n == 0 || all == 0 || number.len() > LONG {
        return number;
    }
    // In u128 the product cannot overflow.
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
    fn shares_do_not_round_to_0_or_100_percent() {
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
