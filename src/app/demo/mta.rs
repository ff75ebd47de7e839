//! The demo's MTA: a small ESMTP receiver that stores accepted messages in a [`Mailbox`].
//!
//! Layer 5. RFC 5321 with PIPELINING (2920), SIZE (1870), 8BITMIME (6152), CHUNKING and BINARYMIME (3030),
//! ENHANCEDSTATUSCODES (2034) and SMTPUTF8 (6531); no STARTTLS. It is deliberately *lax*: a bare LF ends a line, so
//! `LF . LF` ends a message. SMTP smuggling exploits MTAs of that kind; behind the gateway it must fail.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::mailbox::{Mailbox, StoredMessage};

/// Bytes of one message (SIZE).
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of one command line or message line.
const MAX_LINE: usize = 8192;
const MAX_RECIPIENTS: usize = 100;
/// Delay of the greeting, about as long as the DNS lookups of a real server, so that early talkers are detected.
const GREETING_DELAY: Duration = Duration::from_millis(40);
/// Idle time before a session ends.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The running MTA; stops listening when dropped.
#[derive(Debug)]
pub(super) struct DemoMta {
    pub addresses: Vec<SocketAddr>,
    pub mailbox: Mailbox,
    listeners: Vec<JoinHandle<()>>,
}

impl DemoMta {
    /// Listens on free loopback ports and accepts mail for `domains`.
    pub(super) async fn start(ipv6: bool, domains: &'static [&'static str]) -> io::Result<Self> {
        let mut mta =
            Self { addresses: Vec::new(), mailbox: Mailbox::default(), listeners: Vec::new() };
        if ipv6 {
            mta.listen((Ipv6Addr::LOCALHOST, 0).into(), domains).await?;
        }
        mta.listen((Ipv4Addr::LOCALHOST, 0).into(), domains).await?;
        Ok(mta)
    }

    async fn listen(&mut self, on: SocketAddr, domains: &'static [&'static str]) -> io::Result<()> {
        let listener = TcpListener::bind(on).await?;
        self.addresses.push(listener.local_addr()?);
        let mailbox = self.mailbox.clone();
        self.listeners.push(tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let session = MtaSession::new(stream, mailbox.clone(), domains);
                        // A lost connection ends only its session; the client reports it.
                        tokio::spawn(async move { session.run().await.ok() });
                    }
                    // Most likely out of descriptors: wait for some sessions to end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }));
        Ok(())
    }
}

impl Drop for DemoMta {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterCommand {
    Continue,
    Close,
}

/// A line, or why there is none.
enum LineRead {
    /// Without its LF; a CR before it remains.
    Complete(Vec<u8>),
    TooLong,
    Closed,
}

struct MtaSession {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Replies not yet sent: those to a pipelined group leave in one write.
    out: Vec<u8>,
    mailbox: Mailbox,
    domains: &'static [&'static str],
    greeted: bool,
    /// From an accepted MAIL on.
    transaction: Option<StoredMessage>,
    /// A BDAT of the transaction was received.
    chunking: bool,
    /// The message exceeds [`MAX_MESSAGE`].
    too_big: bool,
}

impl MtaSession {
    fn new(stream: TcpStream, mailbox: Mailbox, domains: &'static [&'static str]) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
            out: Vec::new(),
            mailbox,
            domains,
            greeted: false,
            transaction: None,
            chunking: false,
            too_big: false,
        }
    }

    async fn run(mut self) -> io::Result<()> {
        tokio::time::sleep(GREETING_DELAY).await;
        self.reply("220 mta.demo.test ESMTP gatepost demo");
        loop {
            let line = match self.line().await? {
                LineRead::Complete(line) => line,
                LineRead::TooLong => {
                    self.reply("500 5.5.2 Line too long");
                    continue;
                }
                LineRead::Closed => return Ok(()),
            };
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            let line = String::from_utf8_lossy(line).into_owned();
            if self.command(line.trim_end()).await? == AfterCommand::Close {
                return self.flush().await;
            }
        }
    }

    async fn command(&mut self, line: &str) -> io::Result<AfterCommand> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => {
                self.greeted = true;
                self.reset();
                self.reply("250 mta.demo.test");
            }
            "EHLO" => {
                self.greeted = true;
                self.reset();
                self.reply("250-mta.demo.test");
                self.reply(&format!("250-SIZE {MAX_MESSAGE}"));
                for keyword in ["PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME"] {
                    self.reply(&format!("250-{keyword}"));
                }
                self.reply("250 ENHANCEDSTATUSCODES");
            }
            "MAIL" => self.mail(argument),
            "RCPT" => self.rcpt(argument),
            "DATA" => self.data().await?,
            "BDAT" => return self.bdat(argument).await,
            "RSET" => {
                self.reset();
                self.reply("250 2.0.0 Ok");
            }
            "NOOP" => self.reply("250 2.0.0 Ok"),
            "QUIT" => {
                self.reply("221 2.0.0 Bye");
                return Ok(AfterCommand::Close);
            }
            _ => self.reply("502 5.5.2 Command not known"),
        }
        Ok(AfterCommand::Continue)
    }

    fn mail(&mut self, argument: &str) {
        if !self.greeted {
            return self.reply("503 5.5.1 EHLO first");
        }
        if self.transaction.is_some() {
            return self.reply("503 5.5.1 A transaction is open");
        }
        let Some((mail_from, parameters)) = path(argument, "FROM:") else {
            return self.reply("501 5.5.4 MAIL FROM:<address> was expected");
        };
        let size =
            parameters.split(' ').find_map(|p| p.strip_prefix("SIZE=")?.parse::<usize>().ok());
        if size.is_some_and(|size| size > MAX_MESSAGE) {
            return self.reply("552 5.3.4 Message too big");
        }
        self.reset();
        self.transaction =
            Some(StoredMessage { mail_from: mail_from.to_owned(), ..StoredMessage::default() });
        self.reply("250 2.1.0 Sender ok");
    }

    fn rcpt(&mut self, argument: &str) {
        let Some(message) = &mut self.transaction else {
            return self.reply("503 5.5.1 MAIL first");
        };
        let Some((address, _)) = path(argument, "TO:") else {
            return self.reply("501 5.5.4 RCPT TO:<address> was expected");
        };
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        let ours = self.domains.iter().any(|d| d.eq_ignore_ascii_case(domain));
        let reply = if !ours {
            "550 5.7.1 Not a domain of ours"
        } else if local.eq_ignore_ascii_case("nobody") {
            "550 5.1.1 No such mailbox"
        } else if message.rcpt_to.len() == MAX_RECIPIENTS {
            "452 4.5.3 Too many recipients"
        } else {
            message.rcpt_to.push(address.to_owned());
            "250 2.1.5 Recipient ok"
        };
        self.reply(reply);
    }

    async fn data(&mut self) -> io::Result<()> {
        if self.chunking {
            self.reply("503 5.5.1 BDAT in progress");
            return Ok(());
        }
        match &self.transaction {
            Some(message) if !message.rcpt_to.is_empty() => {
                self.reply("354 End with a dot on a line")
            }
            Some(_) => {
                self.reply("554 5.5.1 No valid recipients");
                return Ok(());
            }
            None => {
                self.reply("503 5.5.1 MAIL first");
                return Ok(());
            }
        }
        loop {
            let line = match self.line().await? {
                LineRead::Complete(line) => line,
                LineRead::TooLong => {
                    self.too_big = true;
                    continue;
                }
                // A message without end of data is discarded (RFC 5321 §4.1.1.4).
                LineRead::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            // Lax: accepts LF as well as CRLF.
            if matches!(line.as_slice(), b"." | b".\r") {
                break;
            }
            let unstuffed = line.strip_prefix(b".").unwrap_or(&line);
            self.append(unstuffed);
            self.append(b"\n");
        }
        self.accept();
        Ok(())
    }

    async fn bdat(&mut self, argument: &str) -> io::Result<AfterCommand> {
        let (size, last) = argument.split_once(' ').unwrap_or((argument, ""));
        let Ok(size) = size.parse::<u64>() else {
            // The end of the chunk is unknown, so nothing after it can be parsed.
            self.reply("501 5.5.4 BDAT needs a size");
            return Ok(AfterCommand::Close);
        };
        let is_accepted = matches!(&self.transaction, Some(message) if !message.rcpt_to.is_empty());
        self.flush().await?;
        let mut left = size;
        let mut chunk = vec![0; MAX_LINE];
        while left > 0 {
            let want = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
            let part = chunk.get_mut(..want).unwrap_or_default();
            let read = within_timeout(self.reader.read(part)).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
            if is_accepted {
                self.append(chunk.get(..read).unwrap_or_default());
            }
        }
        if !is_accepted {
            self.reply("503 5.5.1 MAIL and a valid RCPT first");
        } else if last.eq_ignore_ascii_case("LAST") {
            self.accept();
        } else {
            self.chunking = true;
            self.reply(&format!("250 2.0.0 {size} bytes received"));
        }
        Ok(AfterCommand::Continue)
    }

    fn append(&mut self, bytes: &[u8]) {
        let Some(message) = &mut self.transaction else {
            return;
        };
        if message.content.len() + bytes.len() > MAX_MESSAGE {
            self.too_big = true;
        } else {
            message.content.extend_from_slice(bytes);
        }
    }

    fn accept(&mut self) {
        let too_big = self.too_big;
        let message = self.transaction.take();
        self.reset();
        if too_big {
            return self.reply("552 5.3.4 Message too big");
        }
        if let Some(message) = message {
            self.mailbox.deliver(message);
        }
        self.reply("250 2.0.0 Ok: stored");
    }

    fn reset(&mut self) {
        self.transaction = None;
        self.chunking = false;
        self.too_big = false;
    }

    fn reply(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            within_timeout(self.writer.write_all(&self.out)).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// The next line without its LF. Sends pending replies first, unless more commands are buffered.
    async fn line(&mut self) -> io::Result<LineRead> {
        if self.reader.buffer().is_empty() {
            self.flush().await?;
        }
        let mut line = Vec::new();
        let mut too_long = false;
        loop {
            let limited = (&mut self.reader).take(MAX_LINE as u64);
            if within_timeout({ limited }.read_until(b'\n', &mut line)).await? == 0 {
                return Ok(LineRead::Closed);
            }
            let complete = line.pop_if(|last| *last == b'\n').is_some();
            too_long |= line.len() >= MAX_LINE;
            match (complete, too_long) {
                (true, false) => return Ok(LineRead::Complete(line)),
                (true, true) => return Ok(LineRead::TooLong),
                // Discards a long line in bounded memory.
                (false, true) => line.clear(),
                // Closed in the middle of a line: the next read returns 0.
                (false, false) => {}
            }
        }
    }
}

/// Splits `FROM:<a@b> SIZE=1` into `a@b` and `SIZE=1`.
fn path<'a>(argument: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let head = argument.get(..prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) {
        return None;
    }
    let rest = argument.get(prefix.len()..)?.trim_start();
    let (address, parameters) = rest.strip_prefix('<')?.split_once('>')?;
    Some((address, parameters.trim_start()))
}

async fn within_timeout<T>(io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, io).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes of all replies to `input`, which is sent in writes of `piece` bytes.
    async fn codes(mta: &DemoMta, input: &[u8], piece: usize) -> Vec<String> {
        let to = *mta.addresses.last().unwrap();
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in input.chunks(piece) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.unwrap();
        let mut replies = String::new();
        stream.read_to_string(&mut replies).await.unwrap();
        let last_lines = replies.lines().filter(|line| line.as_bytes()[3] == b' ');
        last_lines.map(|line| line[..9].trim_end().to_owned()).collect()
    }

    const ENVELOPE: &str =
        "EHLO a.test\r\nMAIL FROM:<a@a.test> SIZE=9\r\nRCPT TO:<b@demo.test>\r\n";

    async fn mta() -> DemoMta {
        DemoMta::start(false, &["demo.test"]).await.unwrap()
    }

    #[tokio::test]
    async fn dots_are_unstuffed_under_every_segmentation() {
        let input = format!("{ENVELOPE}DATA\r\n..a\r\n.b\r\nc.\r\n...\r\n.\r\nQUIT\r\n");
        for piece in [1, 2, 3, 7, input.len()] {
            let mta = mta().await;
            let codes = codes(&mta, input.as_bytes(), piece).await;
            let accepted =
                ["250 ENHAN", "250 2.1.0", "250 2.1.5", "354 End w", "250 2.0.0", "221 2.0.0"];
            assert_eq!(codes[1..], accepted);
            let messages = mta.mailbox.with_token("");
            assert_eq!(messages.len(), 1);
            assert_eq!(messages[0].content, b".a\r\nb\r\nc.\r\n..\r\n");
            assert_eq!(messages[0].mail_from, "a@a.test");
            assert_eq!(messages[0].rcpt_to, ["b@demo.test"]);
        }
    }

    #[tokio::test]
    async fn chunks_are_counted_and_pipelined_commands_follow() {
        let input =
            format!("{ENVELOPE}BDAT 5\r\n.\r\n.\nBDAT 0 LAST\r\nNOOP\r\nBDAT 4\r\nQUIT RSET\r\n");
        for piece in [1, 3, input.len()] {
            let mta = mta().await;
            let codes = codes(&mta, input.as_bytes(), piece).await;
            assert_eq!(
                codes[4..],
                ["250 2.0.0", "250 2.0.0", "250 2.0.0", "503 5.5.1", "502 5.5.2"]
            );
            assert_eq!(mta.mailbox.with_token("")[0].content, b".\r\n.\n");
        }
    }

    #[tokio::test]
    async fn bare_line_feeds_end_a_message_here() {
        for end in ["\n.\n", "\r\n.\n", "\n.\r\n"] {
            let mta = mta().await;
            let input =
                format!("{ENVELOPE}DATA\r\none{end}{}DATA\r\ntwo\r\n.\r\n", &ENVELOPE[13..]);
            codes(&mta, input.as_bytes(), input.len()).await;
            assert_eq!(mta.mailbox.with_token("").len(), 2, "{end:?}");
        }
    }

    #[tokio::test]
    async fn misplaced_and_unknown_commands_are_rejected() {
        let long = "x".repeat(3 * MAX_LINE);
        let big = "x".repeat(1000) + "\r\n";
        let big = big.repeat(MAX_MESSAGE / 1000);
        let input = format!(
            "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@demo.test>\r\nDATA\r\n{long}\r\n\
             EHLO a.test\r\nMAIL a@a.test\r\nMAIL FROM:<> SIZE=9999999\r\nMAIL FROM:<>\r\nDATA\r\n\
             RCPT TO:<nobody@demo.test>\r\nRCPT TO:<b@elsewhere.test>\r\nRCPT TO:<b@DEMO.test>\r\n\
             DATA\r\n{big}.\r\nVRFY b\r\nBDAT x\r\nQUIT\r\n"
        );
        let mta = mta().await;
        let codes = codes(&mta, input.as_bytes(), input.len()).await;
        let expected = [
            "503 5.5.1",
            "503 5.5.1",
            "503 5.5.1",
            "500 5.5.2",
            "250 ENHAN",
            "501 5.5.4",
            "552 5.3.4",
            "250 2.1.0",
            "554 5.5.1",
            "550 5.1.1",
            "550 5.7.1",
            "250 2.1.5",
            "354 End w",
            "552 5.3.4",
            "502 5.5.2",
            "501 5.5.4",
        ];
        assert_eq!(codes[1..], expected);
        assert!(mta.mailbox.with_token("").is_empty());
    }
}
