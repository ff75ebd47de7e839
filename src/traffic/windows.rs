//! Counts of the last minute, ten minutes and hour in rings of slots.
//!
//! Slots begin at multiples of their width since the epoch, so which slot an event counts in depends on its time alone,
//! and the order of events does not matter while the windows reach back to them.

use std::ops::AddAssign;
use std::time::Duration;

use crate::label::labels;
use crate::time::Timestamp;

labels! {
    pub enum TrafficWindow {
        Minute = "1 min",
        TenMinutes = "10 min",
        Hour = "1 h",
    }
}

impl TrafficWindow {
    pub const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::TenMinutes => 600,
            Self::Hour => 3600,
        })
    }

    /// The window moves on by this much at once.
    pub const fn slot(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 5,
            Self::TenMinutes => 30,
            Self::Hour => 120,
        })
    }

    /// One more than its length has, so that the whole of it is always there.
    const fn slots(self) -> usize {
        (self.length().as_secs() / self.slot().as_secs()) as usize + 1
    }
}

/// One count in every window: 65 of it, and 8 octets for each.
#[derive(Clone, Debug)]
pub(super) struct Windows<T> {
    minute: Ring<T>,
    ten_minutes: Ring<T>,
    hour: Ring<T>,
}

impl<T: Clone + Default> Default for Windows<T> {
    fn default() -> Self {
        let [minute, ten_minutes, hour] = TrafficWindow::ALL.map(Ring::new);
        Self { minute, ten_minutes, hour }
    }
}

impl<T: Clone + Default + for<'a> AddAssign<&'a T>> Windows<T> {
    /// Lets `count` have each slot that `at` lies in, if its window still reaches back to it.
    pub(super) fn at(&mut self, at: Timestamp, now: Timestamp, mut count: impl FnMut(&mut T)) {
        for ring in [&mut self.minute, &mut self.ten_minutes, &mut self.hour] {
            if let Some(slot) = ring.slot(at, now) {
                count(slot);
            }
        }
    }

    pub(super) fn sum(&self, window: TrafficWindow, now: Timestamp) -> T {
        match window {
            TrafficWindow::Minute => self.minute.sum(now),
            TrafficWindow::TenMinutes => self.ten_minutes.sum(now),
            TrafficWindow::Hour => self.hour.sum(now),
        }
    }
}

#[derive(Clone, Debug)]
struct Ring<T> {
    /// Nanoseconds.
    width: u64,
    slots: Vec<Slot<T>>,
}

#[derive(Clone, Debug, Default)]
struct Slot<T> {
    /// How many slots there were before, since the epoch.
    number: u64,
    of: T,
}

impl<T: Clone + Default> Ring<T> {
    fn new(window: TrafficWindow) -> Self {
        let width = window.slot().as_secs() * 1_000_000_000;
        Self { width, slots: vec![Slot::default(); window.slots()] }
    }

    fn slot(&mut self, at: Timestamp, now: Timestamp) -> Option<&mut T> {
        let number = at.as_nanos() / self.width;
        if !self.reaches(number, now) {
            return None;
        }
        let slots = self.slots.len() as u64;
        let slot = self.slots.get_mut(usize::try_from(number % slots).ok()?)?;
        if slot.number != number {
            *slot = Slot { number, of: T::default() };
        }
        Some(&mut slot.of)
    }

    fn reaches(&self, number: u64, now: Timestamp) -> bool {
        let last = now.as_nanos() / self.width;
        number <= last && last - number < self.slots.len() as u64
    }

    fn sum(&self, now: Timestamp) -> T
    where
        T: for<'a> AddAssign<&'a T>,
    {
        let mut sum = T::default();
        for slot in self.slots.iter().filter(|slot| self.reaches(slot.number, now)) {
            sum += &slot.of;
        }
        sum
    }
}
