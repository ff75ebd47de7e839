//! The recorded client, live.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::v2;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::script::{Question, Script, Step, answer};
use super::{Answer, Difference, Performance};
use crate::smtp::{Reply, ReplyParse, Verb};

/// When the client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As soon as the replies that it had waited for are there.
    #[default]
    Reply,
    /// After the recorded pauses too.
    Recorded,
}

/// Plays recorded clients against one server.
#[derive(Clone, Debug)]
pub struct Client {
    pub to: SocketAddr,
    pub pace: Pace,
    /// How long a connection or a reply may take.
    pub patience: Duration,
    /// Told in a PROXY header (version 2): the recorded client and server.
    pub introduce: Option<(SocketAddr, SocketAddr)>,
}

impl Client {
    /// Says one session again.
    ///
    /// # Errors
    /// The server cannot be reached; whatever happens after that is part of the performance.
    pub async fn perform(&self, script: &Script) -> io::Result<Performance> {
        let connected = timeout(self.patience, TcpStream::connect(self.to)).await;
        let mut stream =
            connected.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        if let Some((client, server)) = self.introduce {
            let protocol = v2::Protocol::Stream;
            let header = v2::Builder::with_addresses(
                v2::Version::Two | v2::Command::Proxy,
                protocol,
                (client, server),
            );
            stream.write_all(&header.build()?).await?;
        }
        let mut play =
            Play { stream, held: Vec::new(), client: self, performance: Performance::default() };
        play.run(script).await;
        Ok(play.performance)
    }
}

/// How the play goes on.
enum Next {
    On,
    /// Content that the live server does not want is left out, and so is the reply to it.
    WithoutMessage,
    Over(Option<&'static str>),
}

struct Play<'a> {
    stream: TcpStream,
    /// Read and not yet taken.
    held: Vec<u8>,
    client: &'a Client,
    performance: Performance,
}

impl Play<'_> {
    async fn run(&mut self, script: &Script) {
        let mut without_message = false;
        for step in &script.steps {
            let next = match step {
                Step::Line { octets, pause } => {
                    without_message = false;
                    self.say(octets, *pause).await
                }
                Step::Content { .. } if without_message => Next::On,
                Step::Content { octets, pause } => self.say(octets, *pause).await,
                Step::Reply { asked: Question::Message, .. } if without_message => Next::On,
                Step::Reply { octets, asked } => self.compare(asked, answer(octets)).await,
            };
            match next {
                Next::On => {}
                Next::WithoutMessage => without_message = true,
                Next::Over(why) => {
                    self.performance.cut_short = why;
                    return;
                }
            }
        }
        for asked in &script.unanswered {
            if let Next::Over(_) = self.compare(asked, Answer::Closed).await {
                return;
            }
        }
        self.performance.cut_short = script.cut_short;
    }

    async fn say(&mut self, octets: &[u8], pause: Duration) -> Next {
        if self.client.pace == Pace::Recorded {
            sleep(pause).await;
        }
        // A server that closed has said why, and that is still to be read.
        let _read_tells = timeout(self.client.patience, self.stream.write_all(octets)).await;
        Next::On
    }

    /// Reads the next reply and compares it with the recorded one.
    async fn compare(&mut self, asked: &Question, recorded: Answer) -> Next {
        let now = self.read().await;
        if matches!(now, Answer::Reply { .. }) {
            self.performance.replies += 1;
        }
        let next = next(asked, &recorded, &now);
        if now.class() != recorded.class() {
            let after = asked.words();
            self.performance.differences.push(Difference { after, recorded, now });
        }
        next
    }

    async fn read(&mut self) -> Answer {
        loop {
            match Reply::parse(&self.held) {
                ReplyParse::Complete(reply) => {
                    let said = answer(reply.raw);
                    let len = reply.raw.len();
                    self.held.drain(..len);
                    return said;
                }
                ReplyParse::Malformed => return Answer::Closed,
                ReplyParse::Incomplete => {}
            }
            match timeout(self.client.patience, self.stream.read_buf(&mut self.held)).await {
                Err(_elapsed) => return Answer::Silence,
                Ok(Ok(0) | Err(_)) => return Answer::Closed,
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// What the live answer leaves of the play.
fn next(asked: &Question, recorded: &Answer, now: &Answer) -> Next {
    let (Answer::Reply { code: now, .. }, recorded) = (now, recorded) else {
        return Next::Over(None);
    };
    let recorded = match recorded {
        Answer::Reply { code, .. } => *code,
        Answer::Closed | Answer::Silence => 0,
    };
    match (asked.verb(), recorded, *now) {
        (_, _, 421 | 521) => Next::Over(None),
        (None, _, code) if *asked == Question::Connection && code >= 400 => Next::Over(None),
        (Some(Verb::Data), 354, 354) => Next::On,
        (Some(Verb::Data), 354, _) => Next::WithoutMessage,
        (Some(Verb::Data), _, 354) => {
            Next::Over(Some("the server asks for a message that the capture does not hold"))
        }
        (Some(Verb::Auth), 334, code) if code != 334 => {
            Next::Over(Some("the AUTH exchange takes another way"))
        }
        (Some(Verb::Auth), code, 334) if code != 334 => {
            Next::Over(Some("the AUTH exchange takes another way"))
        }
        (Some(Verb::Starttls), 220, code) if code != 220 => {
            Next::Over(Some("what follows STARTTLS is encrypted"))
        }
        (Some(Verb::Starttls), code, 220) if code != 220 => {
            Next::Over(Some("the server begins TLS and the capture does not"))
        }
        _ => Next::On,
    }
}
