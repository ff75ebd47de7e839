//! The queue between sessions and a thread that writes their lines, bounded in lines and bytes.
//!
//! A session never waits. A line that does not fit is counted, and the writer receives the count with the next batch.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Everything in the queue at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub lines: VecDeque<String>,
    /// Lines that did not fit since the last batch, all later than `lines`.
    pub(super) dropped: u64,
    pub(super) reopen: bool,
}

#[derive(Default)]
struct QueueState {
    next: Batch,
    /// Lines and bytes that are in `next` or with the writer.
    pending_lines: usize,
    pending_bytes: usize,
    /// The writer waits and must be notified.
    idle: bool,
    /// Callers waiting in [`LineQueue::drain`].
    draining: usize,
    closed: bool,
}

/// How long the writer lets lines accumulate: notifying it for each line would cost a busy gateway more than the line.
const GATHER: Duration = Duration::from_millis(10);

pub struct LineQueue {
    state: Mutex<QueueState>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes [`LineQueue::drain`].
    settled: Condvar,
    max_lines: usize,
    max_bytes: usize,
}

impl LineQueue {
    pub fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            settled: Condvar::new(),
            max_lines,
            max_bytes,
        }
    }

    /// False if the queue is full: the line is dropped and counted. An empty queue accepts a line of any length.
    pub fn push(&self, line: String) -> bool {
        let mut state = self.lock();
        let bytes = state.pending_bytes.saturating_add(line.len());
        let empty = state.pending_lines == 0;
        if state.closed
            || state.pending_lines >= self.max_lines
            || (bytes > self.max_bytes && !empty)
        {
            state.next.dropped += 1;
            return false;
        }
        state.pending_lines += 1;
        state.pending_bytes = bytes;
        state.next.lines.push_back(line);
        let idle = state.idle;
        drop(state);
        if idle {
            self.work.notify_one();
        }
        true
    }

    /// Makes the writer reopen its file before the lines of the next batch.
    pub(super) fn reopen(&self) {
        self.lock().next.reopen = true;
        self.work.notify_one();
    }

    /// Waits for lines, and a moment longer for more; `None` when the queue is closed and empty.
    pub fn take(&self) -> Option<Batch> {
        let mut state = self.lock();
        while state.next == Batch::default() {
            if state.closed {
                return None;
            }
            state.idle = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
        }
        let (mut state, _) = self
            .work
            .wait_timeout_while(state, GATHER, |state| !state.closed && state.draining == 0)
            .unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut state.next))
    }

    /// The writer has written or lost `lines` lines of `bytes` bytes.
    pub fn settle(&self, lines: usize, bytes: usize) {
        let mut state = self.lock();
        state.pending_lines = state.pending_lines.saturating_sub(lines);
        state.pending_bytes = state.pending_bytes.saturating_sub(bytes);
        drop(state);
        self.settled.notify_all();
    }

    /// Waits until every line is settled; false after `timeout`.
    pub fn drain(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.draining += 1;
        self.work.notify_one();
        while state.pending_lines > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let (next, _) =
                self.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        state.draining -= 1;
        state.pending_lines == 0
    }

    /// Accepts no more lines; the writer ends after the queued ones.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// Ignores poisoning: no code here panics between two changes of the state.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_bytes_are_bounded_until_settled() {
        let queue = LineQueue::new(3, 10);
        assert!(queue.push("a line longer than the queue".to_owned()));
        assert!(!queue.push(String::new()), "no bytes left");
        let batch = queue.take().unwrap();
        assert_eq!((batch.lines.len(), batch.dropped), (1, 1));
        assert!(!queue.push("b".to_owned()), "not yet settled");
        queue.settle(1, batch.lines[0].len());

        for _ in 0..3 {
            assert!(queue.push("c".to_owned()));
        }
        assert!(!queue.push("d".to_owned()), "no lines left");
        let batch = queue.take().unwrap();
        assert_eq!((batch.lines.len(), batch.dropped), (3, 2));
        assert!(!queue.drain(Duration::ZERO));
        queue.settle(3, 3);
        assert!(queue.drain(Duration::ZERO));
    }

    #[test]
    fn closing_keeps_queued_lines() {
        let queue = LineQueue::new(3, 10);
        assert!(queue.push("a".to_owned()));
        queue.reopen();
        queue.close();
        assert!(!queue.push("b".to_owned()));
        let batch = queue.take().unwrap();
        assert_eq!(batch.lines, ["a"]);
        assert!(batch.reopen);
        assert_eq!(queue.take(), None);
    }
}
