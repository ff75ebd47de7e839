//! The bounded queue between sessions and the thread that writes: bounded in lines and in octets.
//!
//! Nothing here waits on the session's side. A line that does not fit is counted, and the count goes to the writer with
//! the next batch.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the writer gets at once: everything there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) lines: VecDeque<String>,
    /// Lines that did not fit since the last batch; they came after `lines`.
    pub(super) dropped: u64,
    pub(super) reopen: bool,
}

#[derive(Default)]
struct State {
    next: Batch,
    /// Lines and octets that were pushed and are not yet settled: in `next` or with the writer.
    pending_lines: usize,
    pending_bytes: usize,
    /// The writer has nothing to do and is to be woken.
    idle: bool,
    /// How many wait in [`Queue::drain`].
    draining: usize,
    closed: bool,
}

/// How long the writer lets lines gather before it takes them: waking it for each would cost a busy gateway more than the
/// line itself.
const GATHER: Duration = Duration::from_millis(10);

pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer waits here for work.
    work: Condvar,
    /// [`Queue::drain`] waits here for the writer.
    settled: Condvar,
    max_lines: usize,
    max_bytes: usize,
}

impl Queue {
    pub(super) fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            settled: Condvar::new(),
            max_lines,
            max_bytes,
        }
    }

    /// False if there was no room: then the line is dropped and counted. A line of any length fits an empty queue.
    pub(super) fn push(&self, line: String) -> bool {
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

    /// The next batch tells the writer to open its file again, before its lines.
    pub(super) fn reopen(&self) {
        self.lock().next.reopen = true;
        self.work.notify_one();
    }

    /// Waits for work, and a moment more for what comes with it; `None` when the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Batch> {
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

    /// The writer is done with `lines` lines of `bytes` octets that it took, written or lost.
    pub(super) fn settle(&self, lines: usize, bytes: usize) {
        let mut state = self.lock();
        state.pending_lines = state.pending_lines.saturating_sub(lines);
        state.pending_bytes = state.pending_bytes.saturating_sub(bytes);
        drop(state);
        self.settled.notify_all();
    }

    /// Waits until every line is settled, no longer than `patience`. False if some were not.
    pub(super) fn drain(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
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

    /// No more lines; the writer ends after those that there are.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// A panic elsewhere leaves counts that are still right: no code here panics between two changes.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_lines_and_octets_until_settled() {
        let queue = Queue::new(3, 10);
        assert!(queue.push("a line longer than the queue".to_owned()));
        assert!(!queue.push(String::new()), "octets are spent");
        let batch = queue.take().unwrap();
        assert_eq!((batch.lines.len(), batch.dropped), (1, 1));
        assert!(!queue.push("b".to_owned()), "not yet settled");
        queue.settle(1, batch.lines[0].len());

        for _ in 0..3 {
            assert!(queue.push("c".to_owned()));
        }
        assert!(!queue.push("d".to_owned()), "lines are spent");
        let batch = queue.take().unwrap();
        assert_eq!((batch.lines.len(), batch.dropped), (3, 2));
        assert!(!queue.drain(Duration::ZERO));
        queue.settle(3, 3);
        assert!(queue.drain(Duration::ZERO));
    }

    #[test]
    fn closing_keeps_what_there_is() {
        let queue = Queue::new(3, 10);
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
