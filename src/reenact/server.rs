//! The recorded server, live: what stands behind the gateway when a capture tests it.
//!
//! It answers each command as the recorded one did. The gateway may keep a command to itself, or ask in another order after
//! it refused one; so a command finds the next exchange that asked the same, else the next with its verb.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::script::{Question, Script, Step};
use crate::smtp::{BareNewlines, Command, DataScanner, Line, Split, Verb};

/// Octets of one command line.
const LINE: usize = 64 * 1024;
/// What a command hears that the capture does not hold.
const UNKNOWN: &[u8] = b"451 4.3.0 the capture holds no reply to this\r\n";
/// How long the peer may stay after the client has left, and a greeting may be held back at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no recorded server.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the recorded server: {why}; name a free address of this host"
)]
pub struct ServerError {
    address: SocketAddr,
    why: io::Error,
}

/// Listens where the gateway looks for its upstream.
#[derive(Debug)]
pub struct Server(TcpListener);

impl Server {
    /// # Errors
    /// The address is not this host's, or taken.
    pub async fn listen(address: SocketAddr) -> Result<Self, ServerError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Self).map_err(|why| ServerError { address, why })
    }

    /// Where it listens; port 0 has become a real one.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Plays the server of `script` for whoever connects, until the client's play is over and the peer has taken its leave:
    /// left alone before that, a gateway would tell of a lost upstream.
    ///
    /// # Errors
    /// Connections cannot be accepted.
    pub async fn perform<T>(
        &self,
        script: &Script,
        client: impl Future<Output = T>,
    ) -> io::Result<T> {
        let mut client = pin!(client);
        loop {
            let stream = tokio::select! {
                accepted = self.0.accept() => accepted?.0,
                performance = &mut client => return Ok(performance),
            };
            stream.set_nodelay(true)?;
            let mut play = pin!(Play::new(stream, script).run_to_end());
            tokio::select! {
                () = &mut play => {}
                performance = &mut client => {
                    let _patient = timeout(PATIENCE, play).await;
                    return Ok(performance);
                }
            }
        }
    }
}

/// A question and its answer; none where the server closed.
struct Exchange<'a> {
    asked: &'a Question,
    reply: Option<&'a [u8]>,
}

struct Play<'a> {
    stream: TcpStream,
    held: Vec<u8>,
    exchanges: Vec<Exchange<'a>>,
    /// The first exchange that did not happen yet.
    at: usize,
    /// A client that does not wait has to be heard first, as it was in the capture.
    greets_after: Duration,
}

impl<'a> Play<'a> {
    fn new(stream: TcpStream, script: &'a Script) -> Self {
        let answered = script.steps.iter().filter_map(|step| match step {
            Step::Reply { octets, asked } => Some(Exchange { asked, reply: Some(octets) }),
            _ => None,
        });
        let unanswered = script.unanswered.iter().map(|asked| Exchange { asked, reply: None });
        let exchanges = answered.chain(unanswered).collect();
        let greets_after = script.greets_after.min(PATIENCE);
        Self { stream, held: Vec::new(), exchanges, at: 0, greets_after }
    }

    /// A peer that goes away in the middle is nothing special.
    async fn run_to_end(mut self) {
        let _gone = self.run().await;
    }

    async fn run(&mut self) -> io::Result<()> {
        sleep(self.greets_after).await;
        if self.reply(|asked| *asked == Question::Connection).await?.is_none() {
            return Ok(());
        }
        while let Some(line) = self.line().await? {
            let command = Command::parse(line.trim_ascii_end());
            let chunk = if command.verb == Verb::Bdat { command.chunk().ok() } else { None };
            if let Some(chunk) = chunk {
                self.skip(usize::try_from(chunk.size).unwrap_or(usize::MAX)).await?;
            }
            let Some(code) = self.answer(&line, command.verb).await? else {
                return Ok(());
            };
            match (command.verb, code) {
                (Verb::Quit, _) => return self.stream.shutdown().await,
                (Verb::Data, b'3') => {
                    let whole = self.content().await?;
                    if !whole || self.reply(|asked| *asked == Question::Message).await?.is_none() {
                        return Ok(());
                    }
                }
                // The client leaves here, and the gateway after it.
                (Verb::Starttls, b'2') => return self.skip(usize::MAX).await,
                _ => {}
            }
        }
        Ok(())
    }

    /// The reply to a command, by its line, else by its verb. Returns the first digit.
    async fn answer(&mut self, line: &[u8], verb: Verb) -> io::Result<Option<u8>> {
        let same = |asked: &Question| matches!(asked, Question::Line(recorded) if recorded.trim_ascii_end().eq_ignore_ascii_case(line.trim_ascii_end()));
        if self.remaining().any(|exchange| same(exchange.asked)) {
            self.reply(same).await
        } else {
            self.reply(|asked| verb != Verb::Unknown && asked.verb() == Some(verb)).await
        }
    }

    fn remaining(&self) -> impl Iterator<Item = &Exchange<'a>> {
        self.exchanges.iter().skip(self.at)
    }

    /// Says what the next question that `fits` was answered, and moves behind it.
    async fn reply(&mut self, fits: impl Fn(&Question) -> bool) -> io::Result<Option<u8>> {
        let found = self.remaining().position(|exchange| fits(exchange.asked));
        let reply = match found.and_then(|n| self.exchanges.get(self.at + n)) {
            Some(exchange) => exchange.reply,
            None => Some(UNKNOWN),
        };
        if let Some(n) = found {
            self.at += n + 1;
        }
        let Some(reply) = reply else {
            return Ok(None);
        };
        self.stream.write_all(reply).await?;
        Ok(reply.first().copied())
    }

    /// The next line, with its ending; `None` at the end.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match Line::split(&self.held, LINE) {
                Split::Line(line) => {
                    let len = line.len();
                    return Ok(Some(self.held.drain(..len).collect()));
                }
                Split::TooLong => return Ok(None),
                Split::Incomplete => {}
            }
            if self.stream.read_buf(&mut self.held).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads a message to its end of data; false if the client left before.
    async fn content(&mut self) -> io::Result<bool> {
        let mut scanner = DataScanner::new(BareNewlines::Pass);
        loop {
            if let Some(end) = scanner.scan(&self.held, |_| {}) {
                self.held.drain(..end);
                return Ok(true);
            }
            self.held.clear();
            if self.stream.read_buf(&mut self.held).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Reads a chunk, or as much of it as comes.
    async fn skip(&mut self, mut count: usize) -> io::Result<()> {
        loop {
            let here = count.min(self.held.len());
            self.held.drain(..here);
            count -= here;
            if count == 0 || self.stream.read_buf(&mut self.held).await? == 0 {
                return Ok(());
            }
        }
    }
}
