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
    accepted: Windows<u64>,
    total: u64,
    last_accepted: Option<Timestamp>,
    last_connection: Option<Timestamp>,
}

impl ReceiveTracker {
    pub(in crate::traffic) fn add(&mut self, summary: &FlowSummary<'_>, now: Timestamp) {
        let (start, end) = (summary.flow.start.at, summary.flow.end);
        self.last_connection = self.last_connection.max(Some(start));
        if summary.messages.accepted > 0 {
            self.accepted.count_at(end, now, |count| *count += 1);
            self.total += 1;
            self.last_accepted = self.last_accepted.max(Some(end));
        }
    }

    pub(in crate::traffic) fn evidence(&self, now: Timestamp) -> ReceivePathEvidence {
        ReceivePathEvidence {
            accepted: AcceptedCounts {
                minute: self.accepted.sum(TrafficWindow::Minute, now),
                ten_minutes: self.accepted.sum(TrafficWindow::TenMinutes, now),
                hour: self.accepted.sum(TrafficWindow::Hour, now),
                total: self.total,
            },
            last_accepted: self.last_accepted,
            last_connection: self.last_connection,
        }
    }
}
