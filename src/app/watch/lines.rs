//! Lines on standard output, written by a thread of its own: a reader that does not read must not stop the capture.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::app::output::{note, write_now};
use crate::report::LineQueue;

/// Lines that wait for the reader; some seconds of a busy server.
const MAX_LINES: usize = 4096;
/// Bytes of these lines.
const MAX_BYTES: usize = 16 << 20;
/// How often the end of the queued lines is waited for before a failure of the writer is looked for.
const DRAIN: Duration = Duration::from_millis(100);

pub(super) struct LineOutput {
    shared: Arc<WriterState>,
    dropped: u64,
}

struct WriterState {
    queue: LineQueue,
    failure: Mutex<Option<anyhow::Error>>,
}

impl LineOutput {
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start() -> anyhow::Result<Self> {
        let queue = LineQueue::new(MAX_LINES, MAX_BYTES);
        let shared = Arc::new(WriterState { queue, failure: Mutex::default() });
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new().name("output".to_owned());
        thread.spawn(move || write_all(&writer)).context("cannot start the output thread")?;
        Ok(Self { shared, dropped: 0 })
    }

    /// Lines left out so far, because the reader was too slow.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Queues a line or several, with their line ends; drops them if too many wait.
    ///
    /// # Errors
    /// An earlier line could not be written.
    pub(super) fn push(&mut self, lines: String) -> anyhow::Result<()> {
        self.check()?;
        if !self.shared.queue.push(lines) {
            if self.dropped == 0 {
                note(
                    "standard output is read too slowly: sessions are left out there, not in the metrics",
                );
            }
            self.dropped += 1;
        }
        Ok(())
    }

    /// # Errors
    /// A line could not be written.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    /// Writes the last lines behind all queued ones, however long the reader takes.
    ///
    /// # Errors
    /// A line could not be written.
    pub(super) fn finish(&self, last: &str) -> anyhow::Result<()> {
        while !self.shared.queue.drain(DRAIN) {
            self.check()?;
        }
        self.check()?;
        write_now(last.as_bytes())
    }
}

impl Drop for LineOutput {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

fn write_all(shared: &WriterState) {
    while let Some(batch) = shared.queue.take() {
        for line in batch.lines {
            if let Err(error) = write_now(line.as_bytes()) {
                *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return shared.queue.close();
            }
            shared.queue.settle(1, line.len());
        }
    }
}
