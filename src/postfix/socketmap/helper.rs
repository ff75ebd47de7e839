//! The process that spawn(8) starts for a connection of Postfix: passes each question to the daemon, and answers by itself
//! what the daemon does not answer in time.
//!
//! Whatever happens to the daemon, Postfix gets an answer: `NOTFOUND`, by which it treats the record as without a filter.
//! Started by each smtp(8) process, so it is one thread with blocking sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::MAX_EXCHANGED;
use super::netstring::Netstring;
use super::protocol::{MapAnswer, MapRequest};
use super::record::FilteredRecord;
use crate::addr::Family;

/// Time for the daemon's answer to a question, connecting included.
pub const QUESTION_TIMEOUT: Duration = Duration::from_millis(300);
/// Time for which a daemon that did not answer in time gets no question: a message has a question for each address, and all of
/// them must not wait for a process that hangs.
const HOLD_OFF: Duration = Duration::from_secs(2);
/// Limit, in bytes, of a request of Postfix: its own for answers (`socketmap_max_reply_size`).
const MAX_KEY: usize = 100_000;
const READ_SIZE: usize = 4096;

/// Serves Postfix on `input` and `output` until the end of `input`.
///
/// # Errors
/// The connection with Postfix fails, or is no socketmap connection; never because of the daemon.
pub fn run_helper(mut input: impl Read, mut output: impl Write, daemon: &Path) -> io::Result<()> {
    let mut daemon = DaemonConnection::new(daemon);
    let mut received = Vec::new();
    let mut buffer = [0; READ_SIZE];
    loop {
        let answer = match Netstring::parse(&received, MAX_KEY) {
            Netstring::Incomplete => {
                let count = match input.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    count => count?,
                };
                received.extend_from_slice(buffer.get(..count).unwrap_or_default());
                continue;
            }
            Netstring::Malformed => {
                return Err(io::Error::new(ErrorKind::InvalidData, "not a socketmap request"));
            }
            Netstring::Complete { content, length } => {
                let answer = daemon.answer(content);
                received.drain(..length);
                answer
            }
        };
        output.write_all(&answer.encode())?;
        output.flush()?;
    }
}

struct DaemonConnection {
    path: PathBuf,
    stream: Option<UnixStream>,
    /// No question before.
    hold_off_until: Option<Instant>,
}

impl DaemonConnection {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stream: None, hold_off_until: None }
    }

    fn answer(&mut self, content: &[u8]) -> MapAnswer {
        let record =
            MapRequest::parse(content).and_then(|request| FilteredRecord::parse(request.key));
        // Nothing is decided on other records.
        let Some(record) = record else { return MapAnswer::NotFound };
        // Only an AAAA record is ever omitted, whatever the answer.
        match self.ask(content) {
            Some(MapAnswer::Ok(value))
                if value == MapAnswer::IGNORE && record.family() == Family::Ipv6 =>
            {
                MapAnswer::Ok(value)
            }
            _ => MapAnswer::NotFound,
        }
    }

    /// The daemon's answer, `None` if there is none in time.
    fn ask(&mut self, content: &[u8]) -> Option<MapAnswer> {
        let start = Instant::now();
        if self.hold_off_until.is_some_and(|until| start < until) {
            return None;
        }
        let deadline = start + QUESTION_TIMEOUT;
        let mut question = Vec::with_capacity(content.len() + 8);
        Netstring::append(&mut question, content);
        let had_stream = self.stream.is_some();
        let mut answer = self.exchange(&question, deadline);
        // A daemon that was restarted has closed the connection.
        if had_stream && answer.as_ref().is_err_and(|error| !is_timeout(error)) {
            answer = self.exchange(&question, deadline);
        }
        self.hold_off_until = match &answer {
            Err(error) if is_timeout(error) => Some(Instant::now() + HOLD_OFF),
            _ => None,
        };
        answer.ok()
    }

    /// After an error the connection is closed: a late answer would be taken for that to the next question.
    fn exchange(&mut self, question: &[u8], deadline: Instant) -> io::Result<MapAnswer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.path)?,
        };
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        stream.write_all(question)?;
        let mut received = Vec::new();
        let mut buffer = [0; READ_SIZE];
        let invalid = || io::Error::from(ErrorKind::InvalidData);
        loop {
            match Netstring::parse(&received, MAX_EXCHANGED) {
                Netstring::Incomplete => {}
                Netstring::Complete { content, length } if length == received.len() => {
                    let answer = MapAnswer::parse(content).ok_or_else(invalid)?;
                    self.stream = Some(stream);
                    return Ok(answer);
                }
                Netstring::Complete { .. } | Netstring::Malformed => return Err(invalid()),
            }
            stream.set_read_timeout(Some(remaining(deadline)?))?;
            match stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                count => received.extend_from_slice(buffer.get(..count?).unwrap_or_default()),
            }
        }
    }
}

/// Never waits: the kernel connects at once, or reports a full backlog by EAGAIN.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

/// Linux reports the time-out of a socket, and a full backlog, as EAGAIN.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}
