//! Runs the probes, within limits.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::connect::{ConnectError, connect};
use super::large::{LARGE_ANSWERED, LargeSegment, send_large};
use super::smtp_client::{ProbeError, ProbeReply, SmtpClient};
use crate::addr::{Networks, is_special_purpose};
use crate::lookup::limits::ProbeLimits;
use crate::lookup::settings::{LookupSettings, ProbeSettings};
use crate::policy::facts::{Answer, Lookup, Reason};
use crate::smtp::{EnvelopeArgument, PathKind};

/// RFC 5321 §4.5.3.1.3 has 256, but bounce addresses may be longer, and servers read lines of 2048.
const MAX_PATH: usize = 1000;

#[derive(Debug)]
pub(in crate::lookup) struct Prober {
    settings: ProbeSettings,
    /// For large segments, if they are sent.
    large_hello: Option<Arc<ClientConfig>>,
    /// Time for the handshake: at least three SYNs with the default deadline.
    connect_timeout: Duration,
    hostname: String,
    mark: Option<u32>,
    own_networks: Networks,
    /// Those of this host's interfaces, its listeners and upstreams.
    own_addresses: ArcSwap<BTreeSet<IpAddr>>,
    /// Special-purpose networks that are probed nevertheless.
    special_networks: Networks,
    limits: ProbeLimits,
}

impl Prober {
    pub(in crate::lookup) fn new(settings: &LookupSettings) -> Self {
        let timeout = settings.probes.timeout;
        Self {
            settings: settings.probes,
            large_hello: settings.large_hello.clone().map(|hello| hello.0),
            // Shorter than the deadline: a caller still waits when a server does not respond.
            connect_timeout: (settings.deadline * 4 / 5).min(timeout),
            hostname: settings.hostname.clone(),
            mark: settings.mark,
            own_networks: settings.own_networks.clone(),
            own_addresses: ArcSwap::default(),
            special_networks: settings.special_networks.clone(),
            limits: ProbeLimits::new(&settings.probes),
        }
    }

    pub(in crate::lookup) fn set_own_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.own_addresses.store(Arc::new(addresses));
    }

    pub(in crate::lookup) fn maintain(&self) {
        self.limits.maintain();
    }

    /// The answer of a lookup that must not be probed: of our own address or one that no other site has (rule 11 of
    /// ARCHITECTURE.md), or one that the configuration forbids.
    pub(in crate::lookup) fn answer_without_probe(&self, lookup: &Lookup) -> Option<Answer> {
        let (Lookup::Connect(ip) | Lookup::Greet(ip) | Lookup::Callout(ip, _)) = lookup else {
            return None;
        };
        if !self.may_probe(*ip) {
            return Some(Answer::No(Reason::NoUsableAddress, None));
        }
        match lookup {
            Lookup::Callout(..) if !self.settings.callouts => {
                Some(Answer::Unknown(Reason::RateLimited))
            }
            Lookup::Callout(_, path) if !is_path(path) => Some(Answer::Unknown(Reason::NoResolver)),
            _ => None,
        }
    }

    fn may_probe(&self, ip: IpAddr) -> bool {
        // Before it is canonicalised: a v4-mapped address in an AAAA record is not one of another site.
        let is_special = is_special_purpose(ip) && !self.special_networks.contains(ip);
        let is_own = self.own_networks.contains(ip)
            || self.own_addresses.load().contains(&ip.to_canonical());
        !is_special && !is_own
    }

    /// Probes, for `[lookup] probe_timeout` at most. Call [`Self::answer_without_probe`] first.
    pub(in crate::lookup) async fn probe(&self, lookup: &Lookup) -> Answer {
        let (Lookup::Connect(ip) | Lookup::Greet(ip) | Lookup::Callout(ip, _)) = lookup else {
            return Answer::Unknown(Reason::NoResolver);
        };
        let ip = ip.to_canonical();
        let Some(permit) = self.limits.acquire(ip) else {
            return Answer::Unknown(Reason::RateLimited);
        };
        let deadline = Instant::now() + self.settings.timeout;
        let stream = match self.connect(ip).await {
            Ok(stream) => stream,
            Err(error) => return error.answer(),
        };
        match lookup {
            Lookup::Connect(_) => {
                leave(SmtpClient::new(stream, deadline), permit);
                Answer::Yes(None)
            }
            Lookup::Callout(_, path) => self.callout(SmtpClient::new(stream, deadline), path).await,
            _ => self.greet(SmtpClient::new(stream, deadline), ip).await,
        }
    }

    async fn connect(&self, ip: IpAddr) -> Result<TcpStream, ConnectError> {
        connect(SocketAddr::new(ip, self.settings.port), self.mark, self.connect_timeout).await
    }

    async fn greet(&self, mut client: SmtpClient, server: IpAddr) -> Answer {
        let ehlo = match self.begin(&mut client).await {
            Ok(ehlo) => ehlo,
            Err(rejection) => {
                rejection.end(client);
                return rejection.greet_answer();
            }
        };
        let mut large = LargeSegment::NotSent;
        if let Some(config) = &self.large_hello {
            let config = Arc::clone(config);
            large = match send_large(&mut client, ehlo.starttls, config, server).await {
                Ok(large) => large,
                Err(error) => return Rejection::Error(error).greet_answer(),
            };
        }
        if large != LargeSegment::EndedByServer {
            client.quit_in_background();
        }
        Answer::Yes((large != LargeSegment::NotSent).then(|| LARGE_ANSWERED.to_owned()))
    }

    async fn callout(&self, mut client: SmtpClient, path: &str) -> Answer {
        match self.begin(&mut client).await {
            Ok(_) => {}
            Err(rejection) => {
                rejection.end(client);
                return rejection.callout_answer();
            }
        }
        match client.command(null_sender_for(path)).await {
            Ok(reply) if reply.class() == 2 => {}
            other => {
                let rejection = other.map_or_else(Rejection::Error, Rejection::Reply);
                rejection.end(client);
                return rejection.callout_answer();
            }
        }
        let answer = match client.command(&format!("RCPT TO:<{path}>")).await {
            Ok(reply) if reply.class() == 2 => Answer::Yes(None),
            Ok(reply)
                if reply.class() == 5 && reply.enhanced.is_some_and(|code| code.subject == 7) =>
            {
                Answer::Unknown(Reason::RejectedBeforeRcpt)
            }
            Ok(reply) if reply.class() == 5 => {
                Answer::No(Reason::NoSuchMailbox, Some(reply.to_string()))
            }
            Ok(_) => Answer::Unknown(Reason::Deferred),
            Err(error) => return Rejection::Error(error).callout_answer(),
        };
        client.quit_in_background();
        answer
    }

    /// Reads the greeting and sends EHLO. Returns the reply to it.
    async fn begin(&self, client: &mut SmtpClient) -> Result<ProbeReply, Rejection> {
        let greeting = client.read_reply().await.map_err(Rejection::Error)?;
        if greeting.code != 220 {
            return Err(Rejection::Reply(greeting));
        }
        let reply = client.ehlo_or_helo(&self.hostname).await.map_err(Rejection::Error)?;
        if reply.class() == 2 { Ok(reply) } else { Err(Rejection::Reply(reply)) }
    }
}

/// Waits for the greeting in the background and sends QUIT: servers log clients that hang up before, and others make bans of
/// that.
fn leave(mut client: SmtpClient, permit: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        if client.read_reply().await.is_ok() {
            client.quit().await;
        }
        drop(permit);
    });
}

/// Why a server did not come as far as RCPT.
#[derive(Clone, Copy, Debug)]
enum Rejection {
    Reply(ProbeReply),
    Error(ProbeError),
}

impl Rejection {
    /// Ends the connection. A server that owes a reply would take QUIT for pipelining.
    fn end(self, client: SmtpClient) {
        if matches!(self, Self::Reply(_)) {
            client.quit_in_background();
        }
    }

    fn greet_answer(self) -> Answer {
        match self {
            Self::Reply(reply) if reply.class() == 4 => Answer::Unknown(Reason::RejectedBeforeRcpt),
            Self::Reply(reply) => Answer::No(Reason::RejectedBeforeRcpt, Some(reply.to_string())),
            Self::Error(ProbeError::TimedOut) => Answer::No(Reason::EstablishedButStalled, None),
            Self::Error(ProbeError::NotSmtp) => Answer::No(Reason::RejectedBeforeRcpt, None),
            Self::Error(ProbeError::Closed) => Answer::Unknown(Reason::RejectedBeforeRcpt),
        }
    }

    /// Nothing is known about the mailbox, unless no session with the server is possible at all.
    fn callout_answer(self) -> Answer {
        match self {
            Self::Error(ProbeError::TimedOut) => Answer::No(Reason::EstablishedButStalled, None),
            Self::Reply(_) | Self::Error(_) => Answer::Unknown(Reason::RejectedBeforeRcpt),
        }
    }
}

/// Whether `path` is a mailbox, which servers read as it is meant.
pub(in crate::lookup) fn is_path(path: &str) -> bool {
    let argument = format!("TO:<{path}>");
    let read = EnvelopeArgument::parse(PathKind::Forward, argument.as_bytes());
    path.len() <= MAX_PATH && read.is_ok_and(|read| read.mailbox() == path)
}

/// MAIL for a RCPT of `path`, which may have UTF-8 (RFC 6531 §3.4).
pub(in crate::lookup) const fn null_sender_for(path: &str) -> &'static str {
    if path.is_ascii() { "MAIL FROM:<>" } else { "MAIL FROM:<> SMTPUTF8" }
}
