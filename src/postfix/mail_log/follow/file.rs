//! A log file and its rotation.
//!
//! After a rename (`create` of logrotate) the old file is read to its end, until the new one has bytes or [`OLD_FILE`] has
//! passed: the writer changes to it only when it is asked to. After a truncation (`copytruncate`) the file is read from its
//! beginning; it is recognised also if the file has grown beyond its old size since, by the last bytes that were read.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::input::{Feed, Form, Stopped, TICK};
use super::status::MailLogState;

const READ: usize = 256 * 1024;
/// For how long an old file is read while the new one is empty.
const OLD_FILE: Duration = Duration::from_secs(60);
/// After the kernel has reported new bytes, for more of them to come: one read for many lines.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes before the place of reading that are read again and compared.
const TAIL: usize = 64;

/// Follows `path` until the receiver has gone.
pub(super) fn follow(path: &Path, history: u64, mut feed: Feed) -> Result<(), Stopped> {
    let mut history = Some(history);
    let mut buffer = vec![0; READ];
    let mut replaced_since: Option<Instant> = None;
    let mut open: Option<OpenLog> = None;
    loop {
        let log = match &mut open {
            Some(log) => log,
            None => match OpenLog::new(path, history) {
                Ok(log) => {
                    history = None;
                    feed.set_state(MailLogState::Reading);
                    open.insert(log)
                }
                Err(error) => {
                    if error.kind() == ErrorKind::NotFound {
                        // A file that appears later is read from its beginning.
                        history = None;
                    }
                    feed.set_state(failure(path, &error));
                    feed.wait(&[], TICK)?;
                    continue;
                }
            },
        };
        if let Err(error) = log.read_to_end(&mut buffer, &mut feed)? {
            feed.set_state(failure(path, &error));
            feed.wait(&[], TICK)?;
        }
        match std::fs::metadata(path) {
            Ok(now) if identity(&now) != log.identity => {
                let since = *replaced_since.get_or_insert_with(Instant::now);
                if now.len() > 0 || since.elapsed() >= OLD_FILE {
                    // What was written since the last read.
                    let _ = log.read_to_end(&mut buffer, &mut feed)?;
                    feed.on_restart();
                    (open, replaced_since) = (None, None);
                    continue;
                }
            }
            // Renamed, and not created yet.
            _ => replaced_since = None,
        }
        log.wait(&mut feed)?;
    }
}

/// The file that is read.
struct OpenLog {
    file: File,
    identity: (u64, u64),
    /// Where reading continues.
    offset: u64,
    /// The bytes before `offset`, as they were read.
    tail: Vec<u8>,
    /// Reading began within a line, which is skipped.
    is_within_line: bool,
    /// Reports changes. Without it (no more instances, a network file system) the file is looked at once a second.
    changes: Option<Inotify>,
}

impl OpenLog {
    fn new(path: &Path, history: Option<u64>) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            // Opening a FIFO would block.
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let start = history.map_or(0, |history| metadata.len().saturating_sub(history));
        let changes = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let changes = changes.ok().filter(|changes| {
            let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF;
            changes.add_watch(path, flags | AddWatchFlags::IN_DELETE_SELF).is_ok()
        });
        Ok(Self {
            file,
            identity: identity(&metadata),
            // From the last byte of the line before, which may be its end.
            offset: start.saturating_sub(1),
            tail: Vec::new(),
            is_within_line: start > 0,
            changes,
        })
    }

    fn read_to_end(
        &mut self,
        buffer: &mut [u8],
        feed: &mut Feed,
    ) -> Result<io::Result<()>, Stopped> {
        loop {
            // With the bytes before: what a truncation has left at the old place is not taken for new lines.
            let known = self.tail.len();
            let from = self.offset.saturating_sub(known as u64);
            let length = match self.file.read_at(buffer, from) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let Some(mut bytes) = bytes.strip_prefix(self.tail.as_slice()) else {
                feed.on_restart();
                (self.offset, self.is_within_line) = (0, false);
                self.tail.clear();
                continue;
            };
            if bytes.is_empty() {
                return Ok(Ok(()));
            }
            self.offset += bytes.len() as u64;
            self.remember(bytes);
            if self.is_within_line {
                let end = memchr::memchr(b'\n', bytes);
                self.is_within_line = end.is_none();
                bytes = end.and_then(|end| bytes.get(end + 1..)).unwrap_or_default();
            }
            feed.on_bytes(bytes, Form::Lines)?;
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or(bytes));
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
    }

    /// Sleeps until the file changes, for a [`TICK`] at the most.
    fn wait(&self, feed: &mut Feed) -> Result<(), Stopped> {
        let Some(changes) = &self.changes else { return feed.wait(&[], TICK) };
        feed.wait(&[changes.as_fd()], TICK)?;
        let has_changed = changes.read_events().is_ok_and(|events| !events.is_empty());
        if has_changed { feed.wait(&[], GATHER) } else { Ok(()) }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn failure(path: &Path, error: &io::Error) -> MailLogState {
    let shown = path.display();
    let reason = match error.kind() {
        ErrorKind::NotFound => return MailLogState::Waiting,
        ErrorKind::PermissionDenied => format!(
            "{shown}: permission denied; add gatepost's user to the group that may read it (on Debian: adduser \
             gatepost adm) and restart gatepost"
        ),
        ErrorKind::InvalidInput => {
            format!(
                "{shown}: {error}; set mail_log to Postfix's log file, to \"journal\" or to \"-\""
            )
        }
        _ => format!("{shown}: {error}"),
    };
    MailLogState::Failed(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_reported_with_a_remedy() {
        let failure = |kind| failure(Path::new("/var/log/mail.log"), &io::Error::from(kind));
        let denied = failure(ErrorKind::PermissionDenied).to_string();
        assert!(
            denied.starts_with("/var/log/mail.log: permission denied; add gatepost's user"),
            "{denied}"
        );
        assert!(denied.contains("adduser gatepost adm"), "{denied}");
        assert_eq!(failure(ErrorKind::NotFound), MailLogState::Waiting);
        let other = failure(ErrorKind::InvalidInput).to_string();
        assert!(other.contains("set mail_log to Postfix's log file"), "{other}");
    }
}
