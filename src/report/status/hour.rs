//! The last hour of one family, by minute, in constant memory.

use std::time::Duration;

use crate::engine::{Outcome, SessionRecord};
use crate::report::session::{SessionResult, SessionSummary};
use crate::time::Timestamp;
use crate::traffic::DurationHistogram;

/// Stored minutes.
pub(super) const MINUTES: usize = 60;
const MINUTE: u64 = 60_000_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionCounts {
    pub(super) succeeded: u32,
    pub(super) refused: u32,
    pub(super) failed: u32,
    pub(super) messages_accepted: u32,
    pub(super) messages_refused: u32,
    /// Received in full, their replies not known.
    pub(super) messages_received: u32,
    /// Of `succeeded`: their TLS passed through, so that the replies to their messages are not known.
    pub(super) under_tls: u32,
}

impl SessionCounts {
    pub(super) const fn sessions(self) -> u32 {
        self.succeeded.saturating_add(self.refused).saturating_add(self.failed)
    }

    fn add(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.succeeded, other.succeeded),
            (&mut self.refused, other.refused),
            (&mut self.failed, other.failed),
            (&mut self.messages_accepted, other.messages_accepted),
            (&mut self.messages_refused, other.messages_refused),
            (&mut self.messages_received, other.messages_received),
            (&mut self.under_tls, other.under_tls),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Minute {
    /// Minutes since 1970.
    number: u64,
    counts: SessionCounts,
    greeting: DurationHistogram,
    reply: DurationHistogram,
}

/// A ring of 60 minutes.
#[derive(Debug)]
pub(super) struct LastHour(Vec<Minute>);

impl Default for LastHour {
    fn default() -> Self {
        Self(vec![Minute::default(); MINUTES])
    }
}

#[derive(Debug)]
pub(super) struct HourSummary {
    /// The current minute is last.
    pub(super) minutes: [SessionCounts; MINUTES],
    pub(super) all: SessionCounts,
    /// Time to the greeting: median and 95th percentile.
    pub(super) greeting: Option<[Duration; 2]>,
    /// Time to the reply to a message: median and 95th percentile.
    pub(super) reply: Option<[Duration; 2]>,
}

impl LastHour {
    pub(super) fn add(&mut self, record: &SessionRecord) {
        let SessionSummary { end, messages, result, .. } = SessionSummary::new(record);
        let number = end.as_nanos() / MINUTE;
        let Some(minute) = self.0.get_mut(index(number)) else { return };
        if minute.number < number {
            *minute = Minute { number, ..Minute::default() };
        } else if minute.number > number {
            return;
        }
        let one = |of| u32::from(result == of);
        minute.counts.add(SessionCounts {
            succeeded: one(SessionResult::Succeeded),
            refused: one(SessionResult::Refused),
            failed: one(SessionResult::Failed),
            messages_accepted: messages.accepted,
            messages_refused: messages.refused(),
            messages_received: messages.received,
            under_tls: u32::from(record.outcome == Outcome::TlsCompleted),
        });
        let phases = &record.smtp.phases;
        if let (Some(connect), Some(greeting)) = (phases.connect, phases.greeting) {
            minute.greeting.add(connect + greeting);
        }
        if let Some(acceptance) = phases.acceptance {
            minute.reply.add(acceptance);
        }
    }

    pub(super) fn summary(&self, now: Timestamp) -> HourSummary {
        let now = now.as_nanos() / MINUTE;
        let mut minutes = [SessionCounts::default(); MINUTES];
        let mut all = SessionCounts::default();
        let (mut greeting, mut reply) =
            (DurationHistogram::default(), DurationHistogram::default());
        for (counts, number) in minutes.iter_mut().rev().zip((0..=now).rev()) {
            let stored = self.0.get(index(number)).filter(|stored| stored.number == number);
            let Some(minute) = stored else { continue };
            *counts = minute.counts;
            all.add(minute.counts);
            greeting += &minute.greeting;
            reply += &minute.reply;
        }
        let quantiles =
            |times: &DurationHistogram| Some([times.percentile(50)?, times.percentile(95)?]);
        HourSummary { minutes, all, greeting: quantiles(&greeting), reply: quantiles(&reply) }
    }
}

impl HourSummary {
    /// Totals of the last `minutes`.
    pub(super) fn latest(&self, minutes: usize) -> SessionCounts {
        let mut sum = SessionCounts::default();
        self.minutes.iter().rev().take(minutes).for_each(|counts| sum.add(*counts));
        sum
    }
}

fn index(minute: u64) -> usize {
    usize::try_from(minute % MINUTES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::status::tests::records::{a_session, at};

    #[test]
    fn minutes_expire_after_an_hour() {
        let mut hour = LastHour::default();
        for minute in [0, 1, 1, 59, 61] {
            let mut record = a_session();
            record.start = at(minute * 60);
            record.duration = Duration::from_secs(1);
            hour.add(&record);
        }
        // Too late: a minute one hour later already has its place.
        let mut late = a_session();
        late.start = at(60);
        hour.add(&late);
        let sessions = |minute: u64| hour.summary(at(minute * 60)).all.sessions();
        assert_eq!((sessions(61), sessions(118), sessions(119), sessions(121)), (2, 2, 1, 0));
        assert_eq!(hour.summary(at(61 * 60)).latest(1).sessions(), 1);
        assert_eq!(hour.summary(Timestamp::default()).all.sessions(), 0, "no time before 1970");
    }
}
