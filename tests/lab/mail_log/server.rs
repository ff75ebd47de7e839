//! Mail servers that behave as a script says, and record what they saw of each connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use gatepost::outbound::OutboundOutcome;

use crate::support::Host;

/// Longer than every timeout of the sending Postfix.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place in the dialogue where a server may do something else than accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Greeting,
    Ehlo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    EndOfData,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Lines without their ends, in place of the usual reply.
    Reply(&'static str),
    /// Never replies.
    Stall,
    /// Closes the connection in place of a reply.
    Close,
}

/// How a server behaves at one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) act: Option<(Stage, Act)>,
    /// STARTTLS is offered; what follows its reply is no TLS.
    pub(crate) has_broken_tls: bool,
    /// The outcome of a connection on which no message was accepted.
    pub(crate) otherwise: OutboundOutcome,
}

/// The outcome of each connection, by the server's address, as the server saw it.
pub(crate) type Seen = Arc<Mutex<Vec<(IpAddr, OutboundOutcome)>>>;

/// Serves `at` on `host` until the test ends.
pub(crate) fn serve(host: &Host, at: SocketAddr, script: Script, seen: &Seen) {
    let listener = host.in_thread(|| TcpListener::bind(at)).unwrap();
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let mut session = Session { accepted: 0, has_tls_failed: false };
                // The client's end of the connection is no failure.
                let _ = session.run(client, script);
                let outcome = match session {
                    Session { has_tls_failed: true, .. } => OutboundOutcome::TlsFailed,
                    Session { accepted: 0, .. } => script.otherwise,
                    _ => OutboundOutcome::Delivered,
                };
                seen.lock().unwrap().push((at.ip(), outcome));
            });
        }
    });
}

struct Session {
    accepted: u32,
    has_tls_failed: bool,
}

impl Session {
    fn run(&mut self, client: TcpStream, script: Script) -> std::io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(client.try_clone()?);
        let mut client = client;
        let mut recipients = 0;
        let refuses = |stage| script.act.is_some_and(|(at, _)| at == stage);
        let mut reply = |stage: Option<Stage>, usual: &str| {
            let text = match script.act.filter(|(at, _)| Some(*at) == stage) {
                Some((_, Act::Reply(text))) => text,
                Some((_, Act::Close)) => return Err(std::io::ErrorKind::ConnectionAborted.into()),
                Some((_, Act::Stall)) => {
                    // Until the client gives up.
                    let _ = client.read_to_end(&mut Vec::new());
                    return Err(std::io::ErrorKind::TimedOut.into());
                }
                None => usual,
            };
            let text: String = text.lines().map(|line| format!("{line}\r\n")).collect();
            client.write_all(text.as_bytes())
        };
        reply(Some(Stage::Greeting), "220 mx.dest.example ESMTP")?;
        loop {
            let line = read_line(&mut lines)?;
            let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    let tls = if script.has_broken_tls { "\n250-STARTTLS" } else { "" };
                    reply(
                        Some(Stage::Ehlo),
                        &format!("250-mx.dest.example{tls}\n250-PIPELINING\n250 8BITMIME"),
                    )?;
                }
                "STAR" => {
                    reply(Some(Stage::StartTls), "220 Go ahead")?;
                    if script.act.is_none() {
                        self.has_tls_failed = true;
                        reply(None, "this is no TLS")?;
                        return Ok(());
                    }
                }
                "MAIL" => reply(Some(Stage::Mail), "250 2.1.0 Ok")?,
                "RCPT" if line.contains("<unknown") => {
                    reply(
                        None,
                        "550 5.1.1 <unknown@dest.example>: Recipient address rejected: User unknown",
                    )?;
                }
                "RCPT" if line.contains("<full") => {
                    reply(None, "452 4.2.2 <full@dest.example>: mailbox full")?;
                }
                "RCPT" => {
                    reply(Some(Stage::Rcpt), "250 2.1.5 Ok")?;
                    recipients += u32::from(!refuses(Stage::Mail) && !refuses(Stage::Rcpt));
                }
                "DATA" if recipients == 0 => reply(None, "554 5.5.1 No valid recipients")?,
                "DATA" => {
                    reply(Some(Stage::Data), "354 End data with <CR><LF>.<CR><LF>")?;
                    while read_line(&mut lines)? != "." {}
                    reply(Some(Stage::EndOfData), "250 2.0.0 Ok: queued")?;
                    self.accepted += u32::from(!refuses(Stage::EndOfData));
                    recipients = 0;
                }
                "QUIT" => {
                    reply(None, "221 2.0.0 Bye")?;
                    return Ok(());
                }
                "RSET" => reply(None, "250 2.0.0 Ok")?,
                _ => reply(None, "502 5.5.2 What?")?,
            }
        }
    }
}

fn read_line(lines: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = Vec::new();
    if lines.read_until(b'\n', &mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
