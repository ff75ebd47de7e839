//! The journal, by journalctl(1): it reads every format and compression of the journal, follows its rotation, and needs no C
//! library in this process.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::input::{Feed, Form, Stopped, TICK, is_ready};
use super::status::MailLogState;

const READ: usize = 256 * 1024;
/// Bytes of standard error that are kept for the reason of a failure.
const MAX_ERROR: u64 = 4096;
/// An entry's share of the history: a line of smtp(8) or of qmgr(8).
const LINE: u64 = 200;
/// Before journalctl is started again; doubled each time that it brings nothing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A journalctl that has run for so long reads, even if nothing is there to be read.
const SETTLED: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Follows the journal until the receiver has gone.
pub(super) fn follow(
    directory: Option<&Path>,
    history: u64,
    mut feed: Feed,
) -> Result<(), Stopped> {
    let mut buffer = vec![0; READ];
    let mut pause = FIRST_PAUSE;
    loop {
        let started = command(directory, history, feed.journal_cursor()).spawn();
        let reason = match started {
            Ok(child) => {
                let (reason, has_read) = Running(child).read(&mut buffer, &mut feed)?;
                if has_read {
                    pause = FIRST_PAUSE;
                }
                reason
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                "journalctl is not installed: set mail_log to Postfix's log file, or install systemd".to_owned()
            }
            Err(error) => format!("cannot start journalctl: {error}"),
        };
        feed.set_state(MailLogState::Failed(reason.into()));
        feed.on_restart();
        let again = Instant::now() + pause;
        while Instant::now() < again {
            feed.wait(&[], again.saturating_duration_since(Instant::now()).min(TICK))?;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Entries of the mail facility, and those of Postfix's programs under another one (`syslog_facility`).
fn command(directory: Option<&Path>, history: u64, cursor: &str) -> Command {
    let mut command = Command::new("journalctl");
    command.args(["--follow", "--quiet", "--all", "--output=export"]);
    command.arg("--output-fields=MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_HOSTNAME");
    if let Some(directory) = directory {
        command.arg("--directory").arg(directory);
    }
    if cursor.is_empty() {
        command.arg(format!("--lines={}", history / LINE));
    } else {
        command.arg("--no-tail").arg(format!("--after-cursor={cursor}"));
    }
    command.args(["SYSLOG_FACILITY=2", "+", "_COMM=smtp", "+", "_COMM=qmgr"]);
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A journalctl, which ends with this.
struct Running(Child);

impl Running {
    /// Reads until journalctl ends. Returns why it ended, and whether it had written anything.
    fn read(mut self, buffer: &mut [u8], feed: &mut Feed) -> Result<(String, bool), Stopped> {
        let (Some(mut output), Some(errors)) = (self.0.stdout.take(), self.0.stderr.take()) else {
            return Ok(("journalctl has no output".to_owned(), false));
        };
        let mut has_read = false;
        let started = Instant::now();
        loop {
            while !is_ready(output.as_fd()) {
                feed.wait(&[output.as_fd()], TICK)?;
                // Without permission it ends at once.
                if started.elapsed() >= SETTLED {
                    feed.set_state(MailLogState::Reading);
                }
            }
            match output.read(buffer) {
                Ok(0) => break,
                Ok(length) => {
                    has_read = true;
                    let bytes = buffer.get(..length).unwrap_or_default();
                    feed.on_bytes(bytes, Form::JournalExport)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Its output has ended, so that it does too.
        let _ = self.0.kill();
        let status = self.0.wait().map_or_else(|error| error.to_string(), |s| s.to_string());
        let mut text = Vec::new();
        let _ = errors.take(MAX_ERROR).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let remedy = if text.contains("permission") || text.contains("Permission") {
            "; add gatepost's user to the group systemd-journal (adduser gatepost systemd-journal) and restart gatepost"
        } else {
            ""
        };
        let colon = if last.is_empty() { "" } else { ": " };
        Ok((
            format!("journalctl ended ({status}){colon}{last}{remedy}; it is started again"),
            has_read,
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
