//! A sender's side of one connection: connect, say, read replies, and note where they were not what was claimed.
//!
//! Layer 5. RFC 5321 §4.2 replies; RFC 2920 groups are one [`Step::Send`] followed by several [`Step::Reply`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use crate::smtp::EnhancedCode;

/// For each connection and each reply; far above what loopback takes, so that only a standstill meets it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of one reply line (RFC 5321 §4.5.3.1.5 says 512).
const MAX_LINE: u64 = 4096;
/// Lines of one reply.
const MAX_LINES: usize = 100;

/// The reply that is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// What it answers, for people.
    pub to: &'static str,
    pub code: u16,
    /// All of these stand in its text.
    pub says: &'static [&'static str],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// One write.
    Send(Vec<u8>),
    Reply(Expected),
    /// A reply, before which a greeting may come.
    ReplyPastGreeting(Expected),
    /// The server closes.
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// What it answers, for people.
    pub to: &'static str,
    pub code: u16,
    /// The lines' text, joined by line feeds.
    pub text: String,
}

impl Reply {
    /// `550 5.7.1`, or the code alone.
    pub(super) fn codes(&self) -> String {
        match EnhancedCode::parse(self.text.as_bytes()) {
            Some(enhanced) => format!("{} {enhanced}", self.code),
            None => self.code.to_string(),
        }
    }

    fn is(&self, expected: &Expected) -> bool {
        self.code == expected.code && expected.says.iter().all(|word| self.text.contains(word))
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// The destinations tried before that took no connection.
    pub in_vain: Vec<SocketAddr>,
    pub replies: Vec<Reply>,
    /// Where it went otherwise than claimed; nothing after the first such place was said.
    pub problems: Vec<String>,
}

/// Tries each path (own address, destination) until one connects, and plays `steps` on it.
pub(super) async fn play(paths: &[(IpAddr, SocketAddr)], steps: &[Step]) -> Result<Told, String> {
    let mut in_vain = Vec::new();
    for &(own, to) in paths {
        match tokio::time::timeout(PATIENCE, connect(own, to)).await {
            Ok(Ok(stream)) => {
                let (told, stream) = Told::new(stream, in_vain).map_err(|e| e.to_string())?;
                return Ok(told.play(stream, steps).await);
            }
            Ok(Err(_)) | Err(_) => in_vain.push(to),
        }
    }
    let tried: Vec<_> = in_vain.iter().map(ToString::to_string).collect();
    Err(format!("no connection to any of {}", tried.join(", ")))
}

async fn connect(own: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match own {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(own, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Stream {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Told {
    fn new(stream: TcpStream, in_vain: Vec<SocketAddr>) -> io::Result<(Self, Stream)> {
        let told = Self {
            local: stream.local_addr()?,
            peer: stream.peer_addr()?,
            in_vain,
            replies: Vec::new(),
            problems: Vec::new(),
        };
        let (reader, writer) = stream.into_split();
        let reader = BufReader::new(reader);
        Ok((told, Stream { reader, writer }))
    }

    async fn play(mut self, mut stream: Stream, steps: &[Step]) -> Self {
        for step in steps {
            if let Err(problem) = self.step(&mut stream, step).await {
                self.problems.push(problem);
                self.give_up(stream).await;
                break;
            }
        }
        self
    }

    async fn step(&mut self, stream: &mut Stream, step: &Step) -> Result<(), String> {
        match step {
            Step::Send(bytes) => stream.send(bytes).await,
            Step::Reply(expected) => self.expect(stream, expected).await,
            Step::ReplyPastGreeting(expected) => {
                match self.expect(stream, expected).await {
                    // It is not a reply to what we said, so it proves nothing either way.
                    Err(_) if self.replies.last().is_some_and(|reply| reply.code == 220) => {
                        self.replies.pop();
                        self.expect(stream, expected).await
                    }
                    done => done,
                }
            }
            Step::Closed => match stream.reply("close").await? {
                None => Ok(()),
                Some(reply) => {
                    let problem = format!("{} where the server closes", reply.codes());
                    self.replies.push(reply);
                    Err(problem)
                }
            },
        }
    }

    async fn expect(&mut self, stream: &mut Stream, expected: &Expected) -> Result<(), String> {
        let Expected { to, code, says } = expected;
        let wanted = || {
            let says = says.iter().map(|word| format!(" {word}"));
            format!("{code}{}", says.collect::<String>())
        };
        let Some(reply) = stream.reply(to).await? else {
            return Err(format!("closed where {to} gets {}", wanted()));
        };
        let right = reply.is(expected);
        let found = format!("{} {}", reply.code, reply.text.replace('\n', " "));
        self.replies.push(reply);
        if right { Ok(()) } else { Err(format!("{to} got \"{found}\", not {}", wanted())) }
    }

    /// Says nothing more, but hears the server out: whatever it still makes of what was said shows in its replies.
    async fn give_up(&mut self, mut stream: Stream) {
        if stream.writer.shutdown().await.is_err() {
            return;
        }
        while let Ok(Some(reply)) = stream.reply("no step").await {
            self.replies.push(reply);
        }
    }
}

impl Stream {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match tokio::time::timeout(PATIENCE, self.writer.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(format!("could not send: {why}")),
            Err(_) => Err("could not send: the server reads nothing".to_owned()),
        }
    }

    /// `None`: the server closed instead.
    async fn reply(&mut self, to: &'static str) -> Result<Option<Reply>, String> {
        match tokio::time::timeout(PATIENCE, self.read_reply(to)).await {
            Ok(Ok(reply)) => Ok(reply),
            // A server that closes before it has read everything resets the connection.
            Ok(Err(why)) if why.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Ok(Err(why)) => Err(format!("{to} got no reply: {why}")),
            Err(_) => Err(format!("{to} got no reply in {} s", PATIENCE.as_secs())),
        }
    }

    async fn read_reply(&mut self, to: &'static str) -> io::Result<Option<Reply>> {
        let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut text = Vec::new();
        loop {
            let mut line = Vec::new();
            let mut reader = (&mut self.reader).take(MAX_LINE);
            if reader.read_until(b'\n', &mut line).await? == 0 && text.is_empty() {
                return Ok(None);
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.strip_suffix("\r\n");
            let line = line.ok_or_else(|| broken("a reply line without CRLF"))?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| broken("a reply line without a code"))?;
            text.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                let text = text.join("\n");
                return Ok(Some(Reply { to, code, text }));
            }
            if text.len() == MAX_LINES {
                return Err(broken("a reply without end"));
            }
        }
    }
}
