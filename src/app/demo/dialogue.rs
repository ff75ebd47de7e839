//! A client's side of one session: connects, runs its steps, and stops at the first unexpected reply.
//!
//! Layer 5. A pipelined group (RFC 2920) is one [`DemoStep::Send`] followed by several [`DemoStep::Reply`].

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::smtp_connection::{Connection, ReplyResult};
use crate::tls::{UpstreamVerification, upstream_config};

/// For connecting and for each reply; far above what loopback takes.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// The command, for the operator.
    pub to: &'static str,
    pub code: u16,
    /// All of these occur in the text.
    pub contains: &'static [&'static str],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DemoStep {
    /// One write.
    Send(Vec<u8>),
    Reply(Expected),
    /// A reply that a greeting may precede.
    ReplyAfterGreeting(Expected),
    /// STARTTLS if the last reply offers it, as senders use it; and EHLO again (RFC 3207 §4.2).
    TlsIfOffered {
        ehlo: Vec<u8>,
    },
    /// The server closes the connection.
    Closed,
}

/// The client's view of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientView {
    pub local: SocketAddr,
    pub server: SocketAddr,
    /// Destinations tried before that accepted no connection.
    pub unreachable: Vec<SocketAddr>,
    pub replies: Vec<ReplyResult>,
    /// The session went on inside TLS.
    pub tls: bool,
    /// The first unexpected reply; the client sent nothing after it.
    pub problem: Option<String>,
}

impl ClientView {
    /// The first reply that rejects something.
    pub(super) fn rejection(&self) -> Option<&ReplyResult> {
        self.replies.iter().find(|reply| reply.class() >= 4)
    }
}

/// Tries each path (own address, destination) until one connects, and runs `steps` on it.
pub(super) async fn run(
    paths: &[(IpAddr, SocketAddr)],
    steps: &[DemoStep],
) -> Result<ClientView, String> {
    let mut unreachable = Vec::new();
    for &(local, server) in paths {
        let Ok(connection) = Connection::open(Some(local), server, TIMEOUT).await else {
            unreachable.push(server);
            continue;
        };
        let local = connection.stream().local_addr().map_err(|error| error.to_string())?;
        let mut dialogue = ClientDialogue { connection, replies: Vec::new(), tls: false };
        let problem = dialogue.run(steps).await.err();
        let ClientDialogue { replies, tls, .. } = dialogue;
        return Ok(ClientView { local, server, unreachable, replies, tls, problem });
    }
    let tried: Vec<_> = unreachable.iter().map(ToString::to_string).collect();
    Err(format!("no connection to any of {}", tried.join(", ")))
}

struct ClientDialogue {
    connection: Connection,
    replies: Vec<ReplyResult>,
    tls: bool,
}

impl ClientDialogue {
    async fn run(&mut self, steps: &[DemoStep]) -> Result<(), String> {
        for step in steps {
            if let Err(problem) = self.step(step).await {
                // Replies to commands that this client did not send show that the server found some in the content.
                let _closed = self.connection.shutdown().await;
                while self.read().await.code().is_some() {}
                return Err(problem);
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &DemoStep) -> Result<(), String> {
        match step {
            DemoStep::Send(bytes) => {
                self.connection.send(bytes).await.map_err(|error| format!("cannot send: {error}"))
            }
            DemoStep::Reply(expected) => {
                let response = self.read().await;
                expected.check(&response)
            }
            DemoStep::ReplyAfterGreeting(expected) => {
                let mut response = self.read().await;
                if response.code() == Some(220) {
                    self.replies.pop();
                    response = self.read().await;
                }
                expected.check(&response)
            }
            DemoStep::TlsIfOffered { ehlo } => {
                if self.replies.last().is_some_and(offers_starttls) {
                    self.start_tls(ehlo).await?;
                }
                Ok(())
            }
            DemoStep::Closed => match self.read().await {
                ReplyResult::Closed => Ok(()),
                other => Err(format!("the server sent \"{other}\" and does not close")),
            },
        }
    }

    /// Most senders verify no certificate (RFC 7435), and this one is of the gateway's own making.
    async fn start_tls(&mut self, ehlo: &[u8]) -> Result<(), String> {
        let failed = |error: &dyn Display| format!("TLS: {error}");
        let config =
            upstream_config(&UpstreamVerification::None).map_err(|error| failed(&error))?;
        self.ask(b"STARTTLS\r\n", &Expected { to: "STARTTLS", code: 220, contains: &[] }).await?;
        self.connection.start_tls(config).await.map_err(|error| failed(&error))?;
        self.tls = true;
        self.ask(ehlo, &Expected { to: "EHLO inside TLS", code: 250, contains: &[] }).await
    }

    async fn ask(&mut self, command: &[u8], expected: &Expected) -> Result<(), String> {
        self.connection.send(command).await.map_err(|error| format!("cannot send: {error}"))?;
        expected.check(&self.read().await)
    }

    async fn read(&mut self) -> ReplyResult {
        let response = self.connection.reply().await;
        if response.code().is_some() {
            self.replies.push(response.clone());
        }
        response
    }
}

fn offers_starttls(reply: &ReplyResult) -> bool {
    matches!(reply, ReplyResult::Reply { code: 250, text } if text.lines().any(|line| line == "STARTTLS"))
}

impl Expected {
    fn check(&self, response: &ReplyResult) -> Result<(), String> {
        let Self { to, code, contains } = self;
        let is_as_expected = matches!(
            response,
            ReplyResult::Reply { code: found, text }
                if found == code && contains.iter().all(|word| text.contains(word))
        );
        if is_as_expected {
            return Ok(());
        }
        let words: String = contains.iter().map(|word| format!(" {word}")).collect();
        Err(format!("reply to {to}: \"{response}\", expected {code}{words}"))
    }
}
