//! What all sources share: bytes in, batches out, and the wait in between.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{mpsc, watch};

use super::super::{LogZone, MailLogEvent, MailLogParser};
use super::status::{MailLogState, MailLogStatus};
use crate::time::Timestamp;

/// Nobody receives events any more.
#[derive(Debug)]
pub(super) struct Stopped;

/// The longest wait, after which attempts that wait for further lines are looked at.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// The parser and where its events go.
#[derive(Debug)]
pub(super) struct Feed {
    parser: MailLogParser,
    sender: mpsc::Sender<Vec<MailLogEvent>>,
    status: watch::Sender<MailLogStatus>,
    history: History,
    /// Ends with the follower.
    stop: UnixStream,
}

/// What the log had at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    /// Nothing has been read yet.
    Unread,
    /// Until the reader waits for new lines.
    Reading,
    Read,
}

/// The form of the bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Lines,
    JournalExport,
}

impl Feed {
    pub(super) fn new(
        zone: LogZone,
        sender: mpsc::Sender<Vec<MailLogEvent>>,
        status: watch::Sender<MailLogStatus>,
        stop: UnixStream,
    ) -> Self {
        let parser = MailLogParser::new(zone, now());
        Self { parser, sender, status, history: History::Unread, stop }
    }

    pub(super) fn on_bytes(&mut self, bytes: &[u8], form: Form) -> Result<(), Stopped> {
        let mut events = Vec::new();
        if self.history == History::Unread {
            self.history = History::Reading;
        }
        self.parser.set_reference(now());
        match form {
            Form::Lines => self.parser.on_bytes(bytes, &mut events),
            Form::JournalExport => self.parser.on_journal(bytes, &mut events),
        }
        let counts = self.parser.counts();
        self.status.send_if_modified(|status| {
            status.bytes += bytes.len() as u64;
            status.counts = counts;
            let is_new = status.state != MailLogState::Reading;
            status.state = MailLogState::Reading;
            is_new
        });
        self.send(events)
    }

    /// The log continues at another place.
    pub(super) fn on_restart(&mut self) {
        self.parser.on_gap();
        self.status.send_if_modified(|status| {
            status.restarts += 1;
            false
        });
    }

    pub(super) fn journal_cursor(&self) -> &str {
        self.parser.journal_cursor()
    }

    pub(super) fn set_state(&self, state: MailLogState) {
        self.status.send_if_modified(|status| {
            let is_new = status.state != state;
            status.state = state;
            is_new
        });
    }

    /// Sleeps until one of `sources` can be read, for `longest` (a [`TICK`] at the most); then emits what has waited.
    pub(super) fn wait(
        &mut self,
        sources: &[BorrowedFd<'_>],
        longest: Duration,
    ) -> Result<(), Stopped> {
        if self.history == History::Reading {
            self.history = History::Read;
            self.sender.blocking_send(Vec::new()).map_err(|_unsent| Stopped)?;
        }
        let mut polled = vec![PollFd::new(&self.stop, PollFlags::IN)];
        polled.extend(sources.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let longest = Timespec::try_from(longest.min(TICK)).ok();
        // A signal ends the wait early, which does no harm.
        let _ = poll(&mut polled, longest.as_ref());
        if polled.first().is_some_and(|stop| !stop.revents().is_empty()) {
            return Err(Stopped);
        }
        let mut events = Vec::new();
        self.parser.on_time(now(), &mut events);
        self.send(events)
    }

    /// The source has ended for good.
    pub(super) fn finish(&mut self) -> Result<(), Stopped> {
        let mut events = Vec::new();
        self.parser.finish(&mut events);
        let counts = self.parser.counts();
        self.status.send_if_modified(|status| {
            status.counts = counts;
            false
        });
        self.set_state(MailLogState::Ended);
        self.send(events)
    }

    fn send(&self, events: Vec<MailLogEvent>) -> Result<(), Stopped> {
        if events.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(events).map_err(|_unsent| Stopped)
    }
}

/// Whether a read from `source` returns at once.
pub(super) fn is_ready(source: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&source, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
