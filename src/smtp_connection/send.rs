//! Sends a canary once, as a mail server would (RFC 5321 §3.3, §5.1): to the first server that replies.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;

use super::connection::{Connection, ReplyResult};
use crate::canary::{CanaryAddresses, CanaryDelivery, DeliveryStage};

/// Servers that are tried.
const MAX_SERVERS: usize = 3;
/// Characters of a reply that are kept.
const MAX_TEXT: usize = 200;

/// A mail server of the recipient's domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryTarget {
    /// For the report.
    pub name: String,
    pub address: SocketAddr,
}

/// Sends canaries from this host.
#[derive(Clone, Debug)]
pub struct CanarySender {
    /// Of EHLO.
    pub hostname: String,
    /// For connecting, and for each reply.
    pub timeout: Duration,
    /// For servers that offer STARTTLS; as opportunistic TLS it verifies nothing (RFC 7435).
    pub tls: Arc<ClientConfig>,
}

impl CanarySender {
    /// Sends `message`, which has CRLF line ends and no line that begins with a dot, to one of `servers` of one family, which
    /// are in the order of preference.
    pub async fn send(
        &self,
        servers: &[CanaryTarget],
        addresses: &CanaryAddresses,
        message: &str,
    ) -> CanaryDelivery {
        let mut last = no_address();
        for server in servers.iter().take(MAX_SERVERS) {
            last = self.send_to(server, addresses, message).await;
            let is_over = !matches!(
                last.stage,
                DeliveryStage::NoRoute
                    | DeliveryStage::Connect
                    | DeliveryStage::Greeting
                    | DeliveryStage::Hello
            );
            if is_over {
                break;
            }
        }
        last
    }

    async fn send_to(
        &self,
        server: &CanaryTarget,
        addresses: &CanaryAddresses,
        message: &str,
    ) -> CanaryDelivery {
        let start = Instant::now();
        let mut attempt = self.attempt(server, addresses, message, Some(&self.tls)).await;
        if attempt.tls_failed {
            attempt = self.attempt(server, addresses, message, None).await;
        }
        let (code, text) = match attempt.end {
            AttemptEnd::Reply(ReplyResult::Reply { code, text }) => {
                (Some(code), text.rsplit('\n').next().unwrap_or_default().to_owned())
            }
            AttemptEnd::Reply(none) => (None, none.to_string()),
            AttemptEnd::Error(error) => (None, error),
        };
        CanaryDelivery {
            stage: attempt.stage,
            server: Some(format!("{} {}", server.name, server.address)),
            code,
            text: text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect(),
            tls: attempt.tls,
            took: start.elapsed(),
        }
    }

    async fn attempt(
        &self,
        server: &CanaryTarget,
        addresses: &CanaryAddresses,
        message: &str,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Attempt {
        if let Err(error) = route_to(server.address) {
            return Attempt::error(DeliveryStage::NoRoute, &error);
        }
        let connection = match Connection::open(None, server.address, self.timeout).await {
            Ok(connection) => connection,
            Err(error) => return Attempt::error(DeliveryStage::Connect, &error),
        };
        let mut dialogue = Dialogue { connection, tls: false };
        let end = dialogue.run(&self.hostname, tls, addresses, message).await;
        let tls = dialogue.tls;
        match end {
            Ok(reply) => Attempt {
                stage: DeliveryStage::Content,
                end: AttemptEnd::Reply(reply),
                tls,
                tls_failed: false,
            },
            Err(Stopped::Tls) => Attempt { tls_failed: true, ..Attempt::default() },
            Err(Stopped::At(stage, reply)) => {
                Attempt { stage, end: AttemptEnd::Reply(reply), tls, tls_failed: false }
            }
        }
    }
}

/// The result without an address of the family.
fn no_address() -> CanaryDelivery {
    CanaryDelivery {
        stage: DeliveryStage::NoAddress,
        server: None,
        code: None,
        text: "no mail server has an address of this family".to_owned(),
        tls: false,
        took: Duration::ZERO,
    }
}

struct Attempt {
    stage: DeliveryStage,
    end: AttemptEnd,
    tls: bool,
    tls_failed: bool,
}

enum AttemptEnd {
    Reply(ReplyResult),
    Error(String),
}

impl Default for Attempt {
    fn default() -> Self {
        let (stage, end) = (DeliveryStage::Hello, AttemptEnd::Reply(ReplyResult::Closed));
        Self { stage, end, tls: false, tls_failed: false }
    }
}

impl Attempt {
    fn error(stage: DeliveryStage, error: &io::Error) -> Self {
        Self { stage, end: AttemptEnd::Error(error.to_string()), ..Self::default() }
    }
}

/// Why a dialogue ended before the message was answered.
enum Stopped {
    At(DeliveryStage, ReplyResult),
    /// STARTTLS was offered and does not work.
    Tls,
}

struct Dialogue {
    connection: Connection,
    tls: bool,
}

impl Dialogue {
    /// Returns the reply to the message.
    async fn run(
        &mut self,
        hostname: &str,
        tls: Option<&Arc<ClientConfig>>,
        addresses: &CanaryAddresses,
        message: &str,
    ) -> Result<ReplyResult, Stopped> {
        let CanaryAddresses { from, to } = addresses;
        let greeting = self.connection.reply().await;
        positive(DeliveryStage::Greeting, greeting, 2)?;
        let offers = self.hello(hostname).await?;
        if let Some(tls) = tls
            && offers_starttls(&offers)
        {
            let reply = self.command("STARTTLS").await;
            if reply.class() != 2 || self.connection.start_tls(Arc::clone(tls)).await.is_err() {
                return Err(Stopped::Tls);
            }
            self.tls = true;
            self.hello(hostname).await?;
        }
        let reply = self.command(&format!("MAIL FROM:<{from}>")).await;
        positive(DeliveryStage::Sender, reply, 2)?;
        let reply = self.command(&format!("RCPT TO:<{to}>")).await;
        positive(DeliveryStage::Recipient, reply, 2)?;
        let reply = self.command("DATA").await;
        positive(DeliveryStage::Data, reply, 3)?;
        let reply = self.command(&format!("{message}.")).await;
        if reply.code().is_some() {
            let _closed = self.connection.send(b"QUIT\r\n").await;
        }
        Ok(reply)
    }

    /// EHLO, or HELO for a server that does not know it (RFC 5321 §3.2).
    async fn hello(&mut self, hostname: &str) -> Result<String, Stopped> {
        let mut reply = self.command(&format!("EHLO {hostname}")).await;
        if matches!(reply.code(), Some(500 | 502 | 504)) {
            reply = self.command(&format!("HELO {hostname}")).await;
        }
        match positive(DeliveryStage::Hello, reply, 2)? {
            ReplyResult::Reply { text, .. } => Ok(text),
            ReplyResult::Closed | ReplyResult::Timeout => Ok(String::new()),
        }
    }

    async fn command(&mut self, line: &str) -> ReplyResult {
        // A server that closed has sent its reason before; the next read returns it.
        let _read_reports_it = self.connection.send(format!("{line}\r\n").as_bytes()).await;
        self.connection.reply().await
    }
}

fn positive(stage: DeliveryStage, reply: ReplyResult, class: u16) -> Result<ReplyResult, Stopped> {
    match reply.class() == class {
        true => Ok(reply),
        false => Err(Stopped::At(stage, reply)),
    }
}

fn offers_starttls(offers: &str) -> bool {
    offers.lines().skip(1).any(|line| {
        line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case("STARTTLS"))
    })
}

/// Whether this host has a route to `server` and an address to send from. Sends nothing.
fn route_to(server: SocketAddr) -> io::Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))?.connect(server)
}
