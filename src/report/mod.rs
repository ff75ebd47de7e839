//! What people and log collectors read: session lines and notices, the report of a replay, the status page.
//!
//! Layer 4. A line is made by the session that it tells of and written by a thread of its own, through a bounded queue:
//! a log that blocks or fails costs lines, which are counted and told, and never a session.

pub(crate) mod columns;
pub mod door;
mod escape;
mod json;
mod queue;
pub mod readiness;
pub mod replay;
mod sink;
pub mod status;
#[cfg(test)]
mod tests;
mod text;
pub mod watch;

pub use self::escape::printable;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::addr::Family;
use crate::engine::{Event, Observe, SessionRecord};
use crate::label::labels;
use crate::time::Timestamp;
use queue::{Batch, Queue};
use sink::{Sink, complain};

/// Lines that wait for the writer: some seconds of a busy gateway.
const MAX_QUEUED_LINES: usize = 8192;
/// Octets of all of them; a line counts until it is written.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// Octets of a notice's message.
const MAX_NOTICE: usize = 4096;
/// How long [`SessionLog`] waits at its end for a log that does not take its lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// `[log]`, checked by `config/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// Standard output when absent.
    pub file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl LogFormat {
    fn session(self, record: &SessionRecord) -> String {
        match self {
            Self::Text => text::session(record),
            Self::Json => json::session(record),
        }
    }

    fn notice(self, at: Timestamp, level: LogLevel, message: &str) -> String {
        match self {
            Self::Text => text::notice(at, level, message),
            Self::Json => json::notice(at, level, message),
        }
    }
}

labels! {
    /// Severity of a notice.
    pub enum LogLevel {
        Info = "info",
        Warn = "warn",
        Error = "error",
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("cannot open the log file {}: {why}; make its directory writable or set log.file to another path", path.display())]
    Open { path: PathBuf, why: io::Error },
    #[error("standard output is closed: {0}; open it or set log.file")]
    Stdout(io::Error),
    #[error("cannot start the log's thread: {0}")]
    Thread(io::Error),
}

/// Who is told how many lines were lost; called by sessions too, so it must be cheap.
pub type OnLost = Box<dyn Fn(u64) + Send + Sync>;

/// The log: one line a session, and notices. What was logged before it is dropped is written, if the log takes it
/// within two seconds.
pub struct SessionLog {
    format: LogFormat,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Queue,
    on_lost: OnLost,
}

impl SessionLog {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started; nothing fails later.
    pub fn start(settings: &LogSettings, on_lost: OnLost) -> Result<Self, LogError> {
        let sink = Sink::open(settings.file.as_deref())?;
        let queue = Queue::new(MAX_QUEUED_LINES, MAX_QUEUED_BYTES);
        Self::with(settings.format, sink, queue, on_lost)
    }

    fn with(
        format: LogFormat,
        sink: Sink,
        queue: Queue,
        on_lost: OnLost,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(Shared { queue, on_lost });
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&writer, sink, format))
            .map_err(LogError::Thread)?;
        Ok(Self { format, shared })
    }

    /// Logs something that is not a session. `message` is one line; control characters in it are escaped.
    pub fn notice(&self, level: LogLevel, message: &str) {
        self.push(self.format.notice(now(), level, message));
    }

    /// Opens the log file anew, after it was moved away by log rotation. The writer does it before the next line; if
    /// it cannot, it says so and keeps the old file.
    pub fn reopen(&self) {
        self.shared.queue.reopen();
    }

    /// Waits until all that was logged so far is written, or `patience` is over; tells which.
    pub fn flush(&self, patience: Duration) -> bool {
        self.shared.queue.drain(patience)
    }

    fn push(&self, line: String) {
        if !self.shared.queue.push(line) {
            (self.shared.on_lost)(1);
        }
    }
}

impl Observe for SessionLog {
    /// Nothing: the session's record will tell.
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, record: &SessionRecord) {
        self.push(self.format.session(record));
    }
}

impl Drop for SessionLog {
    /// The writer is not joined: if its log blocks for ever, that must not keep the program from ending.
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.queue.drain(PATIENCE);
    }
}

/// The writer's thread.
fn write_all(shared: &Shared, mut sink: Sink, format: LogFormat) {
    // Lost and not yet told in the log.
    let mut untold = 0;
    while let Some(batch) = shared.queue.take() {
        let Batch { lines, dropped, reopen } = batch;
        if reopen && let Err(e) = sink.reopen() {
            let message = format!("{e}; the log stays in the file that was open");
            complain(&message);
            sink.write([format.notice(now(), LogLevel::Error, &message).as_str()].into_iter());
        }
        let failed = sink.write(lines.iter().map(String::as_str));
        if failed > 0 {
            (shared.on_lost)(failed);
        }
        untold += failed + dropped;
        if untold > 0 && failed == 0 {
            let message =
                format!("{untold} log lines were lost because the log could not take them in time");
            let notice = format.notice(now(), LogLevel::Warn, &message);
            if sink.write([notice.as_str()].into_iter()) == 0 {
                untold = 0;
            }
        }
        shared.queue.settle(lines.len(), lines.iter().map(String::len).sum());
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
