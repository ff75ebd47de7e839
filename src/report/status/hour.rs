//! The last hour of one family by the minute, in fixed room.

use std::time::Duration;

use crate::engine::{Outcome, SessionRecord};
use crate::policy::PolicyAction;
use crate::smtp::Verb;
use crate::time::Timestamp;

/// Minutes that are kept.
pub(super) const MINUTES: usize = 60;
const MINUTE: u64 = 60_000_000_000;
/// Classes of each power of two of microseconds: a quantile is right to an eighth.
const CLASSES: u32 = 4;
const BITS: u32 = CLASSES.ilog2();
const ALL_CLASSES: usize = (CLASSES * (33 - BITS)) as usize;

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    Well,
    /// The gateway refused it.
    Refused,
    /// It ended otherwise than either side wanted.
    Failed,
}

impl Went {
    pub(super) fn of(record: &SessionRecord) -> Self {
        if messages(record).0 > 0 {
            return Self::Well;
        }
        let refused = matches!(record.outcome, Outcome::Refused | Outcome::Limit);
        if refused || record.verdict.action >= PolicyAction::Tempfail {
            return Self::Refused;
        }
        match record.outcome {
            Outcome::Quit | Outcome::Shutdown | Outcome::CaptureEnded => Self::Well,
            // Whoever looks in and leaves, as monitoring does, has lost nothing.
            Outcome::ClientClosed if !record.smtp.commands.contains_key(&Verb::Mail) => Self::Well,
            _ => Self::Failed,
        }
    }
}

/// Messages that were taken and that were refused, as far as the record keeps them.
pub(super) fn messages(record: &SessionRecord) -> (u32, u32) {
    let (mut taken, mut refused) = (0, 0);
    for transaction in &record.smtp.transactions {
        match (transaction.data_code, transaction.deciding_code()) {
            (Some(200..300), _) => taken += 1,
            (_, Some(400..)) => refused += 1,
            _ => {}
        }
    }
    (taken, refused)
}

/// Counts of some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) well: u32,
    pub(super) refused: u32,
    pub(super) failed: u32,
    pub(super) messages_taken: u32,
    pub(super) messages_refused: u32,
}

impl Counts {
    pub(super) const fn sessions(self) -> u32 {
        self.well.saturating_add(self.refused).saturating_add(self.failed)
    }

    fn add(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.well, other.well),
            (&mut self.refused, other.refused),
            (&mut self.failed, other.failed),
            (&mut self.messages_taken, other.messages_taken),
            (&mut self.messages_refused, other.messages_refused),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// How often durations of each class came.
#[derive(Clone, Debug)]
struct Durations([u32; ALL_CLASSES]);

impl Default for Durations {
    fn default() -> Self {
        Self([0; ALL_CLASSES])
    }
}

impl Durations {
    fn count(&mut self, duration: Duration) {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        if let Some(count) = self.0.get_mut(class(micros)) {
            *count = count.saturating_add(1);
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// The middle of the class that `percent` of all do not exceed; `None` without any.
    fn at(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.0.iter().map(|&count| u64::from(count)).sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let class = self.0.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        })?;
        Some(Duration::from_micros(middle(class)))
    }
}

/// The leading bits of `micros`, and how many follow.
fn class(micros: u32) -> usize {
    let shift = (u32::BITS - micros.leading_zeros()).saturating_sub(BITS + 1);
    (shift * CLASSES + (micros >> shift)) as usize
}

/// Of the durations of a class.
fn middle(class: usize) -> u64 {
    let class = class as u64;
    let shift = (class / u64::from(CLASSES)).saturating_sub(1);
    let first = (class - shift * u64::from(CLASSES)) << shift;
    first + (1 << shift) / 2
}

#[derive(Clone, Debug, Default)]
struct Minute {
    /// Since 1970.
    number: u64,
    counts: Counts,
    greeting: Durations,
    reply: Durations,
}

/// Sixty minutes, each in its place.
#[derive(Debug)]
pub(super) struct Hour(Vec<Minute>);

impl Default for Hour {
    fn default() -> Self {
        Self(vec![Minute::default(); MINUTES])
    }
}

/// What an hour was like.
#[derive(Debug)]
pub(super) struct Past {
    /// The present minute last.
    pub(super) minutes: [Counts; MINUTES],
    pub(super) all: Counts,
    /// How long clients waited for the greeting: half of them at most so long, and 95 % of them.
    pub(super) greeting: Option<[Duration; 2]>,
    /// And for the reply to a message.
    pub(super) reply: Option<[Duration; 2]>,
}

impl Hour {
    /// A session is over.
    pub(super) fn add(&mut self, record: &SessionRecord) {
        let number = (record.start + record.duration).as_nanos() / MINUTE;
        let Some(minute) = self.0.get_mut(place(number)) else { return };
        if minute.number < number {
            *minute = Minute { number, ..Minute::default() };
        } else if minute.number > number {
            return;
        }
        let (messages_taken, messages_refused) = messages(record);
        let went = Went::of(record);
        let one = |what| u32::from(went == what);
        minute.counts.add(Counts {
            well: one(Went::Well),
            refused: one(Went::Refused),
            failed: one(Went::Failed),
            messages_taken,
            messages_refused,
        });
        let phases = &record.smtp.phases;
        if let (Some(connect), Some(greeting)) = (phases.connect, phases.greeting) {
            minute.greeting.count(connect + greeting);
        }
        if let Some(acceptance) = phases.acceptance {
            minute.reply.count(acceptance);
        }
    }

    pub(super) fn past(&self, now: Timestamp) -> Past {
        let now = now.as_nanos() / MINUTE;
        let mut past = Past {
            minutes: [Counts::default(); MINUTES],
            all: Counts::default(),
            greeting: None,
            reply: None,
        };
        let (mut greeting, mut reply) = (Durations::default(), Durations::default());
        for (counts, number) in past.minutes.iter_mut().rev().zip((0..=now).rev()) {
            let Some(minute) = self.0.get(place(number)).filter(|kept| kept.number == number)
            else {
                continue;
            };
            *counts = minute.counts;
            past.all.add(minute.counts);
            greeting.add(&minute.greeting);
            reply.add(&minute.reply);
        }
        let two = |durations: &Durations| Some([durations.at(50)?, durations.at(95)?]);
        (past.greeting, past.reply) = (two(&greeting), two(&reply));
        past
    }
}

impl Past {
    /// The last `minutes` of it.
    pub(super) fn latest(&self, minutes: usize) -> Counts {
        let mut sum = Counts::default();
        self.minutes.iter().rev().take(minutes).for_each(|counts| sum.add(*counts));
        sum
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % MINUTES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::status::tests::records::{a_session, at};

    #[test]
    fn an_hour_forgets() {
        let mut hour = Hour::default();
        for minute in [0, 1, 1, 59, 61] {
            let mut record = a_session();
            record.start = at(minute * 60);
            record.duration = Duration::from_secs(1);
            hour.add(&record);
        }
        // Too late: its place is taken by what came an hour after it.
        let mut late = a_session();
        late.start = at(60);
        hour.add(&late);
        let sessions = |minute: u64| hour.past(at(minute * 60)).all.sessions();
        assert_eq!((sessions(61), sessions(118), sessions(119), sessions(121)), (2, 2, 1, 0));
        assert_eq!(hour.past(at(61 * 60)).latest(1).sessions(), 1);
        assert_eq!(hour.past(Timestamp::default()).all.sessions(), 0, "no time before 1970");
    }

    #[test]
    fn quantiles_are_right_to_an_eighth() {
        for micros in [0, 1, 5, 1000, 34_567, 1 << 31, u32::MAX] {
            let middle = middle(class(micros));
            assert!(middle.abs_diff(micros.into()) <= u64::from(micros) / 8, "{micros}: {middle}");
        }
        let mut durations = Durations::default();
        assert_eq!(durations.at(50), None);
        for millis in 1..=100 {
            durations.count(Duration::from_millis(millis));
        }
        let millis = |percent| durations.at(percent).unwrap().as_millis();
        assert!((44..=56).contains(&millis(50)), "{}", millis(50));
        assert!((84..=106).contains(&millis(95)), "{}", millis(95));
        durations.count(Duration::MAX);
    }
}
