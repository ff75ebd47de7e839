//! Many sessions on parallel threads.

use std::borrow::Cow;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::session::{MessageTransfer, RECIPIENT, Session};
use super::tls::{Handshake, TlsClient, TlsOptions};

/// The stack of a client's thread, so that a thousand of them are cheap.
const STACK: usize = 512 * 1024;
/// The server's name in the handshake, unless `TlsOptions::without_sni`.
const NAME: &str = "mx.example.org";

/// When a session starts TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// Never.
    Plaintext,
    StartTls,
    /// From the first byte (RFC 8314).
    Implicit,
}

/// The work of one run.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) to: SocketAddr,
    /// Of all clients together.
    pub(crate) sessions: u32,
    pub(crate) messages_per_session: u32,
    /// Of every message.
    pub(crate) recipient: &'a str,
    /// Puts the number of the session in front of its recipient, as `smtp-source -N` does.
    pub(crate) numbered: bool,
    /// Ends with CRLF.CRLF.
    pub(crate) content: &'a [u8],
    pub(crate) transfer: MessageTransfer,
}

impl Default for Load<'_> {
    fn default() -> Self {
        Self {
            to: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 25),
            sessions: 1,
            messages_per_session: 1,
            recipient: RECIPIENT,
            numbered: false,
            content: b"Subject: load\r\n\r\nload\r\n.\r\n",
            transfer: MessageTransfer::Data,
        }
    }
}

/// The result of one run.
#[derive(Debug, Default)]
pub(crate) struct LoadReport {
    /// Handshakes with a certificate.
    pub(crate) full: u32,
    /// Handshakes by a ticket.
    pub(crate) resumed: u32,
    /// The last handshake of one of the clients.
    pub(crate) handshake: Option<Handshake>,
    /// From connect to the reply to QUIT, of each session.
    pub(crate) times: Vec<Duration>,
    /// From the start of the first session to the end of the last.
    pub(crate) took: Duration,
}

/// Clients that take sessions from one counter, each on its thread, one session after the other.
pub(crate) struct LoadClients {
    security: Security,
    /// One each, with tickets of its own; they last from one run to the next.
    clients: Vec<TlsClient>,
}

impl LoadClients {
    pub(crate) fn new(clients: usize, security: Security, options: &TlsOptions<'_>) -> Self {
        let clients = (0..clients).map(|_| TlsClient::new(options)).collect();
        Self { security, clients }
    }

    /// One session of each client without a message: what a client with `TlsOptions::resume` needs to resume the next one.
    ///
    /// # Errors
    /// Any of the sessions fails.
    pub(crate) fn connect_once(&self, to: SocketAddr) -> Result<()> {
        let nothing = Load { to, messages_per_session: 0, ..Load::default() };
        for client in &self.clients {
            session(self.security, client, &nothing, 0)?;
        }
        Ok(())
    }

    /// Opens that many sessions, which are idle after EHLO when this returns.
    ///
    /// # Errors
    /// The first session that failed.
    pub(crate) fn open(&self, to: SocketAddr, sessions: u32) -> Result<Vec<Session>> {
        let next = AtomicU32::new(0);
        thread::scope(|scope| -> Result<Vec<Session>> {
            let mut threads = Vec::new();
            for client in &self.clients {
                let next = &next;
                let work = move || -> Result<Vec<Session>> {
                    let mut opened = Vec::new();
                    while next.fetch_add(1, Ordering::Relaxed) < sessions {
                        opened.push(connect(self.security, client, to)?.0);
                    }
                    Ok(opened)
                };
                threads.push(thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?);
            }
            let mut opened = Vec::new();
            for thread in threads {
                opened.extend(thread.join().map_err(|_panic| anyhow!("a client panicked"))??);
            }
            Ok(opened)
        })
    }

    /// # Errors
    /// The first session that failed; the others stop after their current one.
    pub(crate) fn run(&self, load: &Load<'_>) -> Result<LoadReport> {
        let next = AtomicU32::new(0);
        let started = Instant::now();
        let mut report = LoadReport::default();
        thread::scope(|scope| -> Result<()> {
            let mut threads = Vec::new();
            for client in &self.clients {
                let next = &next;
                let work = move || {
                    let result = take_sessions(self.security, client, load, next);
                    if result.is_err() {
                        next.store(load.sessions, Ordering::Relaxed);
                    }
                    result
                };
                threads.push(thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?);
            }
            for thread in threads {
                report.add(thread.join().map_err(|_panic| anyhow!("a client panicked"))??);
            }
            Ok(())
        })?;
        report.took = started.elapsed();
        Ok(report)
    }
}

impl LoadReport {
    fn add(&mut self, other: Self) {
        self.full += other.full;
        self.resumed += other.resumed;
        self.handshake = other.handshake.or(self.handshake.take());
        self.times.extend(other.times);
    }
}

fn take_sessions(
    security: Security,
    client: &TlsClient,
    load: &Load<'_>,
    next: &AtomicU32,
) -> Result<LoadReport> {
    let mut report = LoadReport::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.sessions {
            return Ok(report);
        }
        let started = Instant::now();
        let handshake =
            session(security, client, load, number).with_context(|| format!("session {number}"))?;
        report.times.push(started.elapsed());
        match &handshake {
            Some(handshake) if handshake.resumed => report.resumed += 1,
            Some(_) => report.full += 1,
            None => {}
        }
        report.handshake = handshake.or(report.handshake.take());
    }
}

/// One whole session.
fn session(
    security: Security,
    client: &TlsClient,
    load: &Load<'_>,
    number: u32,
) -> Result<Option<Handshake>> {
    let (mut session, handshake) = connect(security, client, load.to)?;
    let recipient = if load.numbered {
        Cow::Owned(format!("{number}{}", load.recipient))
    } else {
        Cow::Borrowed(load.recipient)
    };
    for _ in 0..load.messages_per_session {
        session.message_by(load.transfer, &recipient, load.content)?;
    }
    session.quit()?;
    Ok(handshake)
}

fn connect(
    security: Security,
    client: &TlsClient,
    to: SocketAddr,
) -> Result<(Session, Option<Handshake>)> {
    let (mut session, handshake) = match security {
        Security::Plaintext => (Session::connect(to)?, None),
        Security::Implicit => {
            let (session, handshake) = Session::connect_tls(to, client, NAME)?;
            (session, Some(handshake))
        }
        Security::StartTls => {
            let mut session = Session::connect(to)?;
            session.hello()?;
            let handshake = session.start_tls(client, NAME)?;
            (session, Some(handshake))
        }
    };
    session.hello()?;
    Ok((session, handshake))
}
