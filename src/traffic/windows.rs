//! Counts of the last minute, ten minutes and hour in rings of slots.
//!
//! Slots begin at multiples of their width since the epoch. So the slot of an event depends on its time alone, and the
//! order of events within a window does not matter.

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

    /// The step by which the window moves.
    pub const fn slot(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 5,
            Self::TenMinutes => 30,
            Self::Hour => 120,
        })
    }

    /// One more than its length needs, so that a whole length is always covered.
    const fn slots(self) -> usize {
        (self.length().as_secs() / self.slot().as_secs()) as usize + 1
    }
}

/// One kind of counts in all windows: 65 slots, each with a number of 8 bytes.
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
    /// Applies `count` to the slot of `at` in each window that still covers it.
    pub(super) fn count_at(
        &mut self,
        at: Timestamp,
        now: Timestamp,
        mut count: impl FnMut(&mut T),
    ) {
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
    slots: Vec<RingSlot<T>>,
}

#[derive(Clone, Debug, Default)]
struct RingSlot<T> {
    /// Slots since the epoch.
    number: u64,
    counts: T,
}

impl<T: Clone + Default> Ring<T> {
    fn new(window: TrafficWindow) -> Self {
        let width = window.slot().as_secs() * 1_000_000_000;
        Self { width, slots: vec![RingSlot::default(); window.slots()] }
    }

    fn slot(&mut self, at: Timestamp, now: Timestamp) -> Option<&mut T> {
        let number = at.as_nanos() / self.width;
        if !self.covers(number, now) {
            return None;
        }
        let slots = self.slots.len() as u64;
        let slot = self.slots.get_mut(usize::try_from(number % slots).ok()?)?;
        if slot.number != number {
            *slot = RingSlot { number, counts: T::default() };
        }
        Some(&mut slot.counts)
    }

    fn covers(&self, number: u64, now: Timestamp) -> bool {
        let last = now.as_nanos() / self.width;
        number <= last && last - number < self.slots.len() as u64
    }

    fn sum(&self, now: Timestamp) -> T
    where
        T: for<'a> AddAssign<&'a T>,
    {
        let mut sum = T::default();
        for slot in self.slots.iter().filter(|slot| self.covers(slot.number, now)) {
            sum += &slot.counts;
        }
        sum
    }
}
