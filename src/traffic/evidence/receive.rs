//! The receive path: mail from others that our servers accepted.

use serde::Serialize;

use crate::time::Timestamp;
use crate::traffic::flow_summary::FlowSummary;
use crate::traffic::windows::{TrafficWindow, Windows};

/// Evidence of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReceivePathEvidence {
    /// Sessions in which a message got 250 after its data.
    pub accepted: AcceptedCounts,
    /// When the last of them ended.
    pub last_accepted: Option<Timestamp>,
    /// Sessions under TLS that completed, with as many bytes of both sides as a delivery takes: their messages are not known.
    pub under_tls: AcceptedCounts,
    /// When the last of these ended.
    pub last_under_tls: Option<Timestamp>,
    /// When the last connection began, whatever its outcome.
    pub last_connection: Option<Timestamp>,
}

/// Sessions by the window in which they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AcceptedCounts {
    pub minute: u64,
    pub ten_minutes: u64,
    pub hour: u64,
    /// Since the start.
    pub total: u64,
}

#[derive(Clone, Debug, Default)]
pub(in crate::traffic) struct ReceiveTracker {
    accepted: CountedSessions,
    under_tls: CountedSessions,
    last_connection: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
struct CountedSessions {
    windows: Windows<u64>,
    total: u64,
    last: Option<Timestamp>,
}

impl CountedSessions {
    fn add(&mut self, end: Timestamp, now: Timestamp) {
        self.windows.count_at(end, now, |count| *count += 1);
        self.total += 1;
        self.last = self.last.max(Some(end));
    }

    fn counts(&self, now: Timestamp) -> AcceptedCounts {
        AcceptedCounts {
            minute: self.windows.sum(TrafficWindow::Minute, now),
            ten_minutes: self.windows.sum(TrafficWindow::TenMinutes, now),
            hour: self.windows.sum(TrafficWindow::Hour, now),
            total: self.total,
        }
    }
}

impl ReceiveTracker {
    pub(in crate::traffic) fn add(&mut self, summary: &FlowSummary<'_>, now: Timestamp) {
        let (start, end) = (summary.flow.start.at, summary.flow.end);
        self.last_connection = self.last_connection.max(Some(start));
        if summary.messages.accepted > 0 {
            self.accepted.add(end, now);
        } else if summary.tls_proof {
            self.under_tls.add(end, now);
        }
    }

    pub(in crate::traffic) fn evidence(&self, now: Timestamp) -> ReceivePathEvidence {
        ReceivePathEvidence {
            accepted: self.accepted.counts(now),
            last_accepted: self.accepted.last,
            under_tls: self.under_tls.counts(now),
            last_under_tls: self.under_tls.last,
            last_connection: self.last_connection,
        }
    }
}
