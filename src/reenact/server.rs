//! The recorded server, live: the upstream of a gateway under test.
//!
//! It answers each command as the recorded server did. A gateway may answer a command itself, or send commands in another
//! order after it rejected one. A command therefore matches the next recorded exchange with the same line, else the next
//! one with the same verb.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::scenario::{ReplyTo, Scenario, ScenarioStep};
use crate::smtp::{BareNewlines, Command, DataScanner, Line, Split, Verb};

/// Bytes of one command line.
const MAX_LINE: usize = 64 * 1024;
/// Reply to a command that the capture does not hold.
const UNKNOWN: &[u8] = b"451 4.3.0 the capture holds no reply to this\r\n";
/// Time for the peer to leave after the client left; also the longest delay of a greeting.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the recorded server: {why}; name a free address of this host"
)]
pub struct RecordedServerError {
    address: SocketAddr,
    why: io::Error,
}

/// Listens at the address that the gateway has as its upstream.
#[derive(Debug)]
pub struct RecordedServer(TcpListener);

impl RecordedServer {
    /// # Errors
    /// The address belongs to another host, or is in use.
    pub async fn listen(address: SocketAddr) -> Result<Self, RecordedServerError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Self).map_err(|why| RecordedServerError { address, why })
    }

    /// The address it listens on; port 0 is replaced by the real port.
    ///
    /// # Errors
    /// The kernel does not report it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves `scenario` on each connection until `client` has finished and the peer has left: a server that closes earlier
    /// looks like a lost upstream to a gateway.
    ///
    /// # Errors
    /// Connections cannot be accepted.
    pub async fn serve<T>(
        &self,
        scenario: &Scenario,
        client: impl Future<Output = T>,
    ) -> io::Result<T> {
        let mut client = pin!(client);
        loop {
            let stream = tokio::select! {
                accepted = self.0.accept() => accepted?.0,
                finished = &mut client => return Ok(finished),
            };
            stream.set_nodelay(true)?;
            let mut run = pin!(ServerRun::new(stream, scenario).run());
            tokio::select! {
                // A peer that disconnects early is no error.
                _ended = &mut run => {}
                finished = &mut client => {
                    let _ended = timeout(GRACE, run).await;
                    return Ok(finished);
                }
            }
        }
    }
}

/// A recorded request and its reply; `None` where the server closed.
struct Exchange<'a> {
    to: &'a ReplyTo,
    reply: Option<&'a [u8]>,
}

struct ServerRun<'a> {
    stream: TcpStream,
    received: Vec<u8>,
    exchanges: Vec<Exchange<'a>>,
    /// Index of the first exchange that has not taken place.
    next: usize,
    greeting_delay: Duration,
}

impl<'a> ServerRun<'a> {
    fn new(stream: TcpStream, scenario: &'a Scenario) -> Self {
        let answered = scenario.steps.iter().filter_map(|step| match step {
            ScenarioStep::Reply { bytes, to } => Some(Exchange { to, reply: Some(bytes) }),
            _ => None,
        });
        let unanswered = scenario.unanswered.iter().map(|to| Exchange { to, reply: None });
        let exchanges = answered.chain(unanswered).collect();
        let greeting_delay = scenario.greeting_delay.min(GRACE);
        Self { stream, received: Vec::new(), exchanges, next: 0, greeting_delay }
    }

    async fn run(mut self) -> io::Result<()> {
        sleep(self.greeting_delay).await;
        if self.reply(|to| *to == ReplyTo::Connection).await?.is_none() {
            return Ok(());
        }
        while let Some(line) = self.line().await? {
            let command = Command::parse(line.trim_ascii_end());
            let chunk = if command.verb == Verb::Bdat { command.chunk().ok() } else { None };
            if let Some(chunk) = chunk {
                self.skip(usize::try_from(chunk.size).unwrap_or(usize::MAX)).await?;
            }
            let Some(class) = self.answer(&line, command.verb).await? else {
                return Ok(());
            };
            match (command.verb, class) {
                (Verb::Quit, _) => return self.stream.shutdown().await,
                (Verb::Data, b'3') => {
                    let complete = self.content().await?;
                    if !complete || self.reply(|to| *to == ReplyTo::Message).await?.is_none() {
                        return Ok(());
                    }
                }
                // The scenario ends here: the client leaves, and the gateway after it.
                (Verb::Starttls, b'2') if self.next == self.exchanges.len() => {
                    return self.skip(usize::MAX).await;
                }
                // It goes on inside TLS, which this server does not have.
                (Verb::Starttls, b'2') => return self.stream.shutdown().await,
                _ => {}
            }
        }
        Ok(())
    }

    /// Replies to a command, matched by its line, else by its verb. Returns the first digit.
    async fn answer(&mut self, line: &[u8], verb: Verb) -> io::Result<Option<u8>> {
        let line = line.trim_ascii_end();
        let same_line = |to: &ReplyTo| matches!(to, ReplyTo::Line(recorded) if recorded.trim_ascii_end().eq_ignore_ascii_case(line));
        if self.remaining().any(|exchange| same_line(exchange.to)) {
            self.reply(same_line).await
        } else {
            self.reply(|to| verb != Verb::Unknown && to.verb() == Some(verb)).await
        }
    }

    fn remaining(&self) -> impl Iterator<Item = &Exchange<'a>> {
        self.exchanges.iter().skip(self.next)
    }

    /// Sends the reply of the next exchange that `matches`, and continues after it.
    async fn reply(&mut self, matches: impl Fn(&ReplyTo) -> bool) -> io::Result<Option<u8>> {
        let found = self.remaining().position(|exchange| matches(exchange.to));
        let reply = match found.and_then(|n| self.exchanges.get(self.next + n)) {
            Some(exchange) => exchange.reply,
            None => Some(UNKNOWN),
        };
        if let Some(n) = found {
            self.next += n + 1;
        }
        let Some(reply) = reply else {
            return Ok(None);
        };
        self.stream.write_all(reply).await?;
        Ok(reply.first().copied())
    }

    /// The next line with its line end; `None` at the end of the stream.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match Line::split(&self.received, MAX_LINE) {
                Split::Line(line) => {
                    let len = line.len();
                    return Ok(Some(self.received.drain(..len).collect()));
                }
                Split::TooLong => return Ok(None),
                Split::Incomplete => {}
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads a message to its end of data; false if the client left before.
    async fn content(&mut self) -> io::Result<bool> {
        let mut scanner = DataScanner::new(BareNewlines::Pass);
        loop {
            if let Some(end) = scanner.scan(&self.received, |_| {}) {
                self.received.drain(..end);
                return Ok(true);
            }
            self.received.clear();
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Discards `count` bytes, or fewer if the stream ends.
    async fn skip(&mut self, mut count: usize) -> io::Result<()> {
        loop {
            let here = count.min(self.received.len());
            self.received.drain(..here);
            count -= here;
            if count == 0 || self.stream.read_buf(&mut self.received).await? == 0 {
                return Ok(());
            }
        }
    }
}
