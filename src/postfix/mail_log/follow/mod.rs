//! Following the log: a thread of its own reads a file, the journal or standard input, and sends events in batches.
//!
//! The channel is bounded. While the receiver is behind, the thread does not read, and a file or the journal keeps its lines;
//! a writer to a pipe waits. Between two reads the thread sleeps until the kernel reports new bytes, at most a second.

mod file;
mod input;
mod journal;
mod settings;
mod status;
mod stdin;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixStream;
use std::thread;

use tokio::sync::{mpsc, watch};

pub use self::settings::{MailLogSettings, MailLogSource};
pub use self::status::{MailLogState, MailLogStatus};

use self::input::Feed;
use super::MailLogEvent;

/// Batches that wait for the receiver. A batch has the events of one read at the most.
const BATCHES: usize = 16;

/// A running reader. Dropping it ends its thread.
#[derive(Debug)]
pub struct MailLogFollower {
    batches: mpsc::Receiver<Vec<MailLogEvent>>,
    status: watch::Receiver<MailLogStatus>,
    /// Its end wakes the thread.
    _running: UnixStream,
}

impl MailLogFollower {
    /// Starts to read `settings.source`, from its end minus `settings.history`. A source that cannot be read is no error: see
    /// [`Self::status`].
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(settings: MailLogSettings) -> io::Result<Self> {
        let (running, stop) = UnixStream::pair()?;
        let (sender, batches) = mpsc::channel(BATCHES);
        let (status_sender, status) = watch::channel(MailLogStatus::default());
        let feed = Feed::new(settings.zone, sender, status_sender, stop);
        let (source, history) = (settings.source, settings.history);
        thread::Builder::new().name("mail-log".to_owned()).spawn(move || {
            // The receiver has gone, or standard input has ended.
            let _ = match source {
                MailLogSource::File(path) => file::follow(&path, history, feed),
                MailLogSource::Journal { directory } => {
                    journal::follow(directory.as_deref(), history, feed)
                }
                MailLogSource::Stdin => stdin::follow(io::stdin(), feed),
            };
        })?;
        Ok(Self { batches, status, _running: running })
    }

    /// The next events, in the order of the log. An empty batch, once, follows what the log had at the start; the latest attempts
    /// of that may come after it, while the parser waits for further lines about them. `None` once standard input has ended.
    pub async fn next(&mut self) -> Option<Vec<MailLogEvent>> {
        self.batches.recv().await
    }

    /// The state of the source and the counts of its lines, for log and metrics. The state changes rarely; the counts are
    /// those of the last batch.
    pub fn status(&self) -> watch::Receiver<MailLogStatus> {
        self.status.clone()
    }
}
