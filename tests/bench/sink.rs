//! The benchmark's own SMTP server: accepts and counts messages, holds thousands of idle sessions on one thread, and
//! after STARTTLS sends or discards bytes as fast as the kernel moves them.
//!
//! smtp-sink stays the server for messages from smtp-source, but has neither bulk transfers nor thousands of sessions.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::bulk::{Direction, discard, pour};
use crate::net::Lab;
use crate::server::Server;
use crate::smtp_client::prepare;

/// The sink's counters since its start.
#[derive(Default)]
pub(crate) struct Counters {
    open: AtomicU64,
    messages: AtomicU64,
}

impl Counters {
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}

/// A running sink; it stops when dropped.
pub(crate) struct Sink {
    counters: Arc<Counters>,
    _server: Server,
}

impl Sink {
    /// Listens in the server's namespace; connections are accepted when this returns.
    pub(crate) fn start(lab: &Arc<Lab>) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let _server = Server::start(
            "the sink",
            lab,
            |lab| lab.server.enter(),
            |lab| listen(lab.sink_address()),
            async move |listener| accept(&listener, &counted).await,
        )?;
        Ok(Self { counters, _server })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("the sink's address {address}"))?;
    Ok(socket.listen(4096)?)
}

async fn accept(listener: &TcpListener, counters: &Arc<Counters>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                eprintln!("bench: the sink cannot accept: {error}");
                return;
            }
        };
        let counters = Arc::clone(counters);
        tokio::spawn(async move {
            counters.open.fetch_add(1, Ordering::Relaxed);
            // A session that breaks is reported by the client's side.
            let _ended = session(stream, &counters).await;
            counters.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One dialogue. The client never pipelines, so a read that ends with a line end is one whole command.
async fn session(mut stream: TcpStream, counters: &Counters) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink.example ESMTP\r\n").await?;
    let mut line = Vec::with_capacity(256);
    loop {
        line.clear();
        while !line.ends_with(b"\r\n") {
            if stream.read_buf(&mut line).await? == 0 {
                return Ok(());
            }
        }
        let verb = line.split(|byte| matches!(byte, b' ' | b'\r')).next().unwrap_or_default();
        let reply: &[u8] = match verb {
            b"EHLO" => {
                b"250-sink.example\r\n250-8BITMIME\r\n250-SIZE 104857600\r\n250 STARTTLS\r\n"
            }
            b"MAIL" | b"RCPT" | b"NOOP" => b"250 2.0.0 Ok\r\n",
            b"DATA" => {
                stream.write_all(b"354 Go ahead\r\n").await?;
                receive_message(&mut stream).await?;
                counters.messages.fetch_add(1, Ordering::Relaxed);
                b"250 2.0.0 Ok\r\n"
            }
            b"STARTTLS" => {
                stream.write_all(b"220 2.0.0 Ready\r\n").await?;
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                thread::Builder::new().name("opaque".to_owned()).spawn(move || {
                    if let Err(error) = opaque(&stream) {
                        eprintln!("bench: the sink's opaque transfer: {error:#}");
                    }
                })?;
                return Ok(());
            }
            b"QUIT" => {
                stream.write_all(b"221 2.0.0 Bye\r\n").await?;
                return Ok(());
            }
            _ => b"500 5.5.2 What?\r\n",
        };
        stream.write_all(reply).await?;
    }
}

/// Reads to CRLF.CRLF. The client waits for the reply then, so the end of data is also the end of a read.
async fn receive_message(stream: &mut TcpStream) -> Result<()> {
    let mut room = vec![0; 64 * 1024];
    let mut tail = Vec::with_capacity(16);
    loop {
        let length = stream.read(&mut room).await?;
        if length == 0 {
            bail!("closed in mid-message");
        }
        let piece = &room[..length];
        tail.extend_from_slice(&piece[length.saturating_sub(5)..]);
        if tail.ends_with(b"\r\n.\r\n") {
            return Ok(());
        }
        tail.drain(..tail.len().saturating_sub(5));
    }
}

/// The bytes after STARTTLS: a header, then bulk one way.
fn opaque(mut stream: &StdStream) -> Result<()> {
    prepare(stream)?;
    let mut header = [0; 10];
    stream.read_exact(&mut header).context("the header")?;
    let [_handshake, direction, length @ ..] = header;
    let length = u64::from_be_bytes(length);
    match Direction::from_byte(direction).ok_or_else(|| anyhow!("no direction"))? {
        Direction::Up => {
            discard(stream, length)?;
            stream.write_all(&length.to_be_bytes())?;
        }
        Direction::Down => pour(stream, length)?,
    }
    Ok(())
}
