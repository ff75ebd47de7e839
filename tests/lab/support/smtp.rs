//! A blocking SMTP client that sends exactly the given bytes, in plaintext or under TLS: no Debian tool supports BDAT or
//! smuggling.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::smtp_client::{Connection, Handshake, TlsClient};

/// The server's reply to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// The text after the code of every line.
    pub(crate) lines: Vec<String>,
}

impl Reply {
    /// The queue id that Postfix puts into the 250 after a message: proof that the 250 is Postfix's own.
    pub(crate) fn queue_id(&self) -> Option<&str> {
        let (_, id) = self.lines.last()?.split_once("queued as ")?;
        id.split_whitespace().next()
    }

    /// Whether the EHLO reply lists an extension.
    pub(crate) fn offers(&self, keyword: &str) -> bool {
        self.lines.iter().skip(1).any(|line| line.split(' ').next() == Some(keyword))
    }
}

pub(crate) struct Smtp {
    stream: BufReader<Connection>,
    /// The greeting that a dialogue begins with has been read.
    is_greeted: bool,
}

impl Smtp {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(Connection::new(stream)), is_greeted: false }
    }

    /// The client's address and port.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.get_ref().socket().local_addr().unwrap()
    }

    /// The connection, for what a test does to it below SMTP.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.stream.get_mut()
    }

    /// Starts TLS with the server `name`: after the reply to STARTTLS, or at once where TLS is implicit.
    ///
    /// # Errors
    /// Those of [`Connection::start_tls`].
    pub(crate) fn handshake(&mut self, tls: &TlsClient, name: &str) -> io::Result<Handshake> {
        let early = self.stream.buffer();
        assert!(early.is_empty(), "plaintext before the handshake: {:?}", early.escape_ascii());
        self.stream.get_mut().start_tls(tls, name)
    }

    /// Greeting, EHLO, STARTTLS, handshake; EHLO is next.
    #[track_caller]
    pub(crate) fn start_tls(&mut self, tls: &TlsClient, name: &str) -> Handshake {
        self.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: STARTTLS\n S: 220");
        let handshake = self.handshake(tls, name);
        self.is_greeted = true;
        handshake.unwrap_or_else(|error| panic!("the TLS handshake: {error}"))
    }

    /// Reads the greeting, unless TLS has been started, which is behind it.
    #[track_caller]
    pub(crate) fn greeting(&mut self) {
        if !self.is_greeted {
            self.dialogue("S: 220");
            self.is_greeted = true;
        }
    }

    /// Sends bytes unchanged.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next reply; `UnexpectedEof` when the server closed instead.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line)?;
            let Some(line) = line.strip_suffix(b"\r\n") else {
                return Err(if line.is_empty() {
                    io::ErrorKind::UnexpectedEof.into()
                } else {
                    broken(&line)
                });
            };
            let text = std::str::from_utf8(line).ok().ok_or_else(|| broken(line))?;
            let (code, rest) = text.split_at_checked(3).ok_or_else(|| broken(line))?;
            let code: u16 = code.parse().ok().ok_or_else(|| broken(line))?;
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
            if !rest.starts_with('-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let line = line.strip_suffix(b"\r\n").ok_or_else(|| broken(&line))?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    /// Sends a command and returns the reply.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> Reply {
        self.raw(format!("{command}\r\n").as_bytes()).unwrap();
        match self.reply() {
            Ok(reply) => reply,
            Err(error) => panic!("no reply to {command:?}: {error}"),
        }
    }

    /// Sends `C:` lines and expects `S:` lines; `S: 250` is a reply with that code, and text after it is the beginning of
    /// its last line. After [`Smtp::start_tls`] and [`Smtp::greeting`] a greeting at the beginning is left out.
    #[track_caller]
    pub(crate) fn dialogue(&mut self, script: &str) {
        let mut sent = "nothing".to_owned();
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let is_greeted = std::mem::take(&mut self.is_greeted);
            if is_greeted && line == "S: 220" {
                continue;
            } else if let Some(command) = line.strip_prefix("C: ") {
                self.raw(format!("{command}\r\n").as_bytes()).unwrap();
                sent = format!("{command:?}");
            } else if let Some(expected) = line.strip_prefix("S: ") {
                let reply = self.reply();
                let reply = reply.unwrap_or_else(|error| panic!("after {sent}: {error}"));
                let last = reply.lines.last().cloned().unwrap_or_default();
                let last = format!("{} {last}", reply.code);
                assert!(
                    last.starts_with(expected),
                    "after {sent}: expected {expected:?}, received {last:?}"
                );
            } else {
                panic!("a line of a dialogue starts with `C: ` or `S: `: {line:?}");
            }
        }
    }

    /// All replies until the server closes or resets the connection.
    pub(crate) fn replies_until_closed(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            match self.reply() {
                Ok(reply) => replies.push(reply),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("neither a reply nor an end in {PATIENCE:?}; before: {replies:?}")
                }
                Err(_) => return replies,
            }
        }
    }

    /// One more reply, with that beginning, and then the end of the connection.
    #[track_caller]
    pub(crate) fn expect_last_reply(&mut self, expected: &str) -> Reply {
        let mut replies = self.replies_until_closed();
        assert_eq!(replies.len(), 1, "expected {expected:?} and the end, read {replies:?}");
        let reply = replies.remove(0);
        let line = format!("{} {}", reply.code, reply.lines[0]);
        assert!(line.starts_with(expected), "expected {expected:?}, received {line:?}");
        reply
    }

    /// All bytes until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// All bytes until the server's close_notify; under TLS an end without one is an error.
    #[track_caller]
    pub(crate) fn rest_until_close_notify(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("close_notify");
        rest
    }

    /// Greeting, EHLO and an envelope with one recipient; what follows is the message.
    #[track_caller]
    pub(crate) fn begin(&mut self, sender: &str, recipient: &str) {
        self.dialogue(&format!(
            "S: 220
             C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<{sender}>
             S: 250
             C: RCPT TO:<{recipient}>
             S: 250"
        ));
    }

    /// Sends a message by DATA and returns the reply to its end.
    #[track_caller]
    pub(crate) fn data(&mut self, message: &[u8]) -> Reply {
        self.dialogue("C: DATA\n S: 354");
        self.raw(&dot_stuffed(message)).unwrap();
        self.reply().expect("a reply to the end of data")
    }

    /// Sends a message by BDAT (RFC 3030) in chunks of `size` bytes and returns the reply to the last one.
    #[track_caller]
    pub(crate) fn bdat(&mut self, message: &[u8], size: usize) -> Reply {
        let (mut left, mut reply) = (message.len(), None);
        for chunk in message.chunks(size) {
            left -= chunk.len();
            let last = if left == 0 { " LAST" } else { "" };
            let command = format!("BDAT {}{last}\r\n", chunk.len());
            self.raw(&[command.as_bytes(), chunk].concat()).unwrap();
            let answer = self.reply().expect("a reply to a chunk");
            assert!(left == 0 || answer.code == 250, "before the last chunk: {answer:?}");
            reply = Some(answer);
        }
        reply.expect("a message that is not empty")
    }
}

/// A message in DATA's form: dots at line starts doubled, `.` on a line of its own at the end (RFC 5321 §4.5.2).
pub(crate) fn dot_stuffed(message: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(message.len() + message.len() / 50 + 5);
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !message.is_empty() && !message.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

fn broken(line: &[u8]) -> io::Error {
    io::Error::other(format!("not an SMTP reply: {:?}", line.escape_ascii().to_string()))
}
