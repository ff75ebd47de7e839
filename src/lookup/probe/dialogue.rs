//! The client's side of a short SMTP dialogue: one line said, one reply read.
//!
//! RFC 5321 §3.1, §3.2, §4.2. Only what is needed to ask and to leave.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::smtp::{EnhancedCode, MAX_REPLY, Reply, ReplyParse};

/// How long the 221 may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a dialogue ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lookup) enum Broken {
    /// Nothing came in time, or what we said was not taken.
    Stalled,
    /// The server hung up.
    Closed,
    /// What came is no SMTP.
    Nonsense,
}

/// What of a reply matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lookup) struct Said {
    pub(in crate::lookup) code: u16,
    pub(in crate::lookup) enhanced: Option<EnhancedCode>,
    /// EHLO offers PIPELINING (RFC 2920).
    pub(in crate::lookup) pipelining: bool,
}

impl Said {
    /// 2 to 5.
    pub(in crate::lookup) const fn class(self) -> u16 {
        self.code / 100
    }
}

/// For people: `550 5.1.1`.
impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.enhanced {
            Some(enhanced) => write!(f, "{} {enhanced}", self.code),
            None => self.code.fmt(f),
        }
    }
}

pub(in crate::lookup) struct Dialogue {
    stream: TcpStream,
    until: Instant,
    held: Vec<u8>,
}

impl Dialogue {
    /// Over by `until`.
    pub(in crate::lookup) const fn new(stream: TcpStream, until: Instant) -> Self {
        Self { stream, until, held: Vec::new() }
    }

    /// Over by `until` from now on.
    pub(in crate::lookup) const fn end_by(&mut self, until: Instant) {
        self.until = until;
    }

    pub(in crate::lookup) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Says octets as they are, in as few segments as they fit.
    pub(in crate::lookup) async fn say(&mut self, octets: &[u8]) -> Result<(), Broken> {
        let saying = timeout_at(self.until, self.stream.write_all(octets)).await;
        match saying {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(error.kind())),
            Err(_elapsed) => Err(Broken::Stalled),
        }
    }

    /// Says a command and reads its reply.
    pub(in crate::lookup) async fn ask(&mut self, command: &str) -> Result<Said, Broken> {
        self.say(format!("{command}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// EHLO, or HELO where that is not known (RFC 5321 §3.2).
    pub(in crate::lookup) async fn greet(&mut self, hostname: &str) -> Result<Said, Broken> {
        let said = self.ask(&format!("EHLO {hostname}")).await?;
        if !matches!(said.code, 500 | 502 | 504 | 550) {
            return Ok(said);
        }
        self.ask(&format!("HELO {hostname}")).await
    }

    /// The next reply, all its lines.
    pub(in crate::lookup) async fn reply(&mut self) -> Result<Said, Broken> {
        self.read(|reply| Said {
            code: reply.code,
            enhanced: reply.enhanced(),
            pipelining: reply.texts().any(|text| {
                let keyword = text.split(|octet| *octet == b' ').next();
                keyword.is_some_and(|word| word.eq_ignore_ascii_case(b"PIPELINING"))
            }),
        })
        .await
    }

    /// What `take` makes of the next reply.
    pub(in crate::lookup) async fn read<T>(
        &mut self,
        take: impl Fn(&Reply<'_>) -> T,
    ) -> Result<T, Broken> {
        let mut whole = 0;
        loop {
            match Reply::parse_on(&self.held, &mut whole) {
                ReplyParse::Complete(reply) => {
                    let taken = take(&reply);
                    let length = reply.raw.len();
                    self.held.drain(..length);
                    return Ok(taken);
                }
                ReplyParse::Malformed => return Err(Broken::Nonsense),
                ReplyParse::Incomplete => {}
            }
            // The parser refuses more than this.
            self.held.reserve(512.min(MAX_REPLY));
            match timeout_at(self.until, self.stream.read_buf(&mut self.held)).await {
                Ok(Ok(0)) => return Err(Broken::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(broken(error.kind())),
                Err(_elapsed) => return Err(Broken::Stalled),
            }
        }
    }

    /// Takes leave, in the background: nobody needs to wait for the 221, and not for long.
    pub(in crate::lookup) fn leave(mut self) {
        self.until = self.until.min(Instant::now() + FAREWELL);
        tokio::spawn(async move {
            if self.say(b"QUIT\r\n").await.is_ok() {
                let _taken_or_not = self.reply().await;
            }
        });
    }
}

const fn broken(error: ErrorKind) -> Broken {
    match error {
        // The kernel gave up sending it again.
        ErrorKind::TimedOut => Broken::Stalled,
        _ => Broken::Closed,
    }
}
