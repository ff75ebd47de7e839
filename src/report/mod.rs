//! Output for people and log collectors: the session log, the reports of `replay`, `watch`, `door` and `check`, the status
//! page.
//!
//! Layer 4. A session formats its own log line; a separate thread writes it from a bounded queue. A log that blocks or fails
//! loses lines, which are counted and reported, but never delays a session.

pub mod canary;
pub(crate) mod columns;
pub mod door;
mod escape;
mod json;
mod losses;
pub mod outbound;
mod page;
mod queue;
pub mod readiness;
pub mod replay;
mod rows;
pub mod sending;
mod session;
mod sink;
pub mod status;
#[cfg(test)]
mod tests;
mod text;
pub mod watch;
mod wording;

pub use self::escape::printable;
pub use self::queue::LineQueue;
pub use self::wording::attempt as upstream_error;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::addr::{ClientAddr, Family, PrefixKey};
use crate::engine::{Event, Observe, SessionRecord};
use crate::label::labels;
use crate::time::Timestamp;
use queue::Batch;
use sink::{Sink, print_error};

/// Lines waiting for the writer: a few seconds of a busy gateway.
const MAX_QUEUED_LINES: usize = 8192;
/// Bytes of these lines; a line counts until it is written.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// Bytes of a notice's message.
const MAX_NOTICE: usize = 4096;
/// How long dropping [`SessionLog`] waits for the writer.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the log repeats that connections cannot be accepted.
const ACCEPT_ERROR_INTERVAL: Duration = Duration::from_secs(60);

/// `[log]`, checked by `config/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// `None`: standard output.
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

/// Errors of [`SessionLog::start`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("cannot open the log file {}: {error}; make its directory writable or set log.file to another path", path.display())]
    Open { path: PathBuf, error: io::Error },
    #[error("standard output is closed: {0}; open it or set log.file")]
    Stdout(io::Error),
    #[error("cannot start the log thread: {0}")]
    Thread(io::Error),
}

/// Called with the number of lost lines, also by sessions, so it must be cheap.
pub type OnLost = Box<dyn Fn(u64) + Send + Sync>;

/// The log: one line per session, and notices. Dropping it writes the queued lines, for two seconds at most.
pub struct SessionLog {
    format: LogFormat,
    shared: Arc<LogState>,
    accept_error_logged: Mutex<Option<Instant>>,
}

struct LogState {
    queue: LineQueue,
    on_lost: OnLost,
}

impl SessionLog {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started. Later failures only lose lines.
    pub fn start(settings: &LogSettings, on_lost: OnLost) -> Result<Self, LogError> {
        let sink = Sink::open(settings.file.as_deref())?;
        let queue = LineQueue::new(MAX_QUEUED_LINES, MAX_QUEUED_BYTES);
        Self::with(settings.format, sink, queue, on_lost)
    }

    fn with(
        format: LogFormat,
        sink: Sink,
        queue: LineQueue,
        on_lost: OnLost,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(LogState { queue, on_lost });
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&writer, sink, format))
            .map_err(LogError::Thread)?;
        Ok(Self { format, shared, accept_error_logged: Mutex::default() })
    }

    /// Logs one line that is not a session; control characters in `message` are escaped.
    pub fn notice(&self, level: LogLevel, message: &str) {
        self.push(self.format.notice(now(), level, message));
    }

    /// Reopens the log file after log rotation. The writer does it before the next line; if that fails, it logs the error and
    /// keeps the previous file.
    pub fn reopen(&self) {
        self.shared.queue.reopen();
    }

    /// Waits until all earlier lines are written; false after `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.shared.queue.drain(timeout)
    }

    fn push(&self, line: String) {
        if !self.shared.queue.push(line) {
            (self.shared.on_lost)(1);
        }
    }
}

impl Observe for SessionLog {
    /// Ignored: the session's record contains it.
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, record: &SessionRecord) {
        self.push(self.format.session(record));
    }

    fn starttls_hidden(&self, client: ClientAddr, failures: u32) {
        let network = PrefixKey::of(client.ip());
        let notice = format!(
            "STARTTLS is hidden from {network} for an hour: its last {failures} handshakes failed as those of old software do"
        );
        self.notice(LogLevel::Warn, &notice);
    }

    /// Logged once a minute.
    fn accept_error(&self, error: &str) {
        let mut last = self.accept_error_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= ACCEPT_ERROR_INTERVAL) {
            *last = Some(Instant::now());
            let notice = format!(
                "cannot accept connections: {error}; they wait in the kernel. Raise the limit on open files (LimitNOFILE= \
                 or ulimit -n), or lower limits.sessions"
            );
            self.notice(LogLevel::Error, &notice);
        }
    }
}

impl Drop for SessionLog {
    /// Does not join the writer: a blocked log must not keep the process from exiting.
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.queue.drain(DROP_TIMEOUT);
    }
}

/// The writer thread.
fn write_all(shared: &LogState, mut sink: Sink, format: LogFormat) {
    // Lost lines not yet reported in the log.
    let mut unreported = 0;
    while let Some(batch) = shared.queue.take() {
        let Batch { lines, dropped, reopen } = batch;
        if reopen && let Err(e) = sink.reopen() {
            let message = format!("{e}; logging continues in the previous file");
            print_error(&message);
            sink.write([format.notice(now(), LogLevel::Error, &message).as_str()].into_iter());
        }
        let failed = sink.write(lines.iter().map(String::as_str));
        if failed > 0 {
            (shared.on_lost)(failed);
        }
        unreported += failed + dropped;
        if unreported > 0 && failed == 0 {
            let message = format!(
                "{unreported} log lines lost: the log was written too slowly or not at all"
            );
            let notice = format.notice(now(), LogLevel::Warn, &message);
            if sink.write([notice.as_str()].into_iter()) == 0 {
                unreported = 0;
            }
        }
        shared.queue.settle(lines.len(), lines.iter().map(String::len).sum());
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
