//! Call-ahead: recipient verification with our own upstream.
//!
//! RFC 5321 §3.3: MAIL FROM:<>, RCPT, QUIT. A 5xx reply to RCPT is an answer whatever its reason; a 4xx is not. An upstream
//! that is down, or rejects a command before RCPT, has not answered (rule 13 of ARCHITECTURE.md).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::probe::{ProbeError, ProbeReply, SmtpClient, connect, is_path, null_sender_for};
use super::settings::LookupSettings;
use crate::policy::facts::{Answer, Reason};

#[derive(Debug)]
pub(super) struct CallAhead {
    upstreams: ArcSwap<Vec<SocketAddr>>,
    proxy_header: Vec<u8>,
    proxy_v1: bool,
    hostname: String,
    mark: Option<u32>,
    deadline: Duration,
    pending: Arc<Semaphore>,
}

impl CallAhead {
    pub(super) fn new(settings: &LookupSettings) -> Self {
        Self {
            upstreams: ArcSwap::from_pointee(settings.upstreams.clone()),
            proxy_header: settings.upstream_proxy_header.clone(),
            proxy_v1: settings.upstream_proxy_v1,
            hostname: settings.hostname.clone(),
            mark: settings.mark,
            deadline: settings.deadline,
            pending: Arc::new(Semaphore::new(settings.max_pending_recipients.max(1))),
        }
    }

    pub(super) fn set_upstreams(&self, addresses: Vec<SocketAddr>) {
        if **self.upstreams.load() != addresses {
            self.upstreams.store(Arc::new(addresses));
        }
    }

    /// Tries the upstreams in order until one answers. Each gets a share of the remaining time.
    pub(super) async fn verify(&self, path: &str) -> Answer {
        let upstreams = self.upstreams.load_full();
        if upstreams.is_empty() || !is_path(path) {
            return Answer::Unknown(Reason::NoResolver);
        }
        let Ok(_pending) = self.pending.try_acquire() else {
            return Answer::Unknown(Reason::RateLimited);
        };
        let deadline = Instant::now() + self.deadline;
        let mut left = u32::try_from(upstreams.len()).unwrap_or(u32::MAX);
        for &upstream in upstreams.iter() {
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            left -= 1;
            match self.verify_with(upstream, path, share).await {
                Some(answer) => return answer,
                None => continue,
            }
        }
        Answer::Unknown(Reason::UpstreamDown)
    }

    /// `None` without a reply to RCPT within `limit`.
    async fn verify_with(
        &self,
        upstream: SocketAddr,
        path: &str,
        limit: Duration,
    ) -> Option<Answer> {
        let deadline = Instant::now() + limit;
        let stream = connect(upstream, self.mark, limit).await.ok()?;
        let header = if self.proxy_v1 {
            own_header(stream.local_addr().ok()?, upstream)
        } else {
            self.proxy_header.clone()
        };
        let mut client = SmtpClient::new(stream, deadline);
        match self.send_rcpt(&mut client, &header, path).await {
            Ok(reply) => {
                client.quit_in_background();
                reply.map(|reply| match reply.class() {
                    2 => Answer::Yes(None),
                    5 => Answer::No(Reason::NoSuchMailbox, Some(reply.to_string())),
                    _ => Answer::Unknown(Reason::Deferred),
                })
            }
            Err(_) => None,
        }
    }

    /// The reply to RCPT; `None` if upstream rejects a command before it.
    async fn send_rcpt(
        &self,
        client: &mut SmtpClient,
        header: &[u8],
        path: &str,
    ) -> Result<Option<ProbeReply>, ProbeError> {
        if !header.is_empty() {
            client.send(header).await?;
        }
        if client.read_reply().await?.code != 220
            || client.ehlo_or_helo(&self.hostname).await?.class() != 2
            || client.command(null_sender_for(path)).await?.class() != 2
        {
            return Ok(None);
        }
        client.command(&format!("RCPT TO:<{path}>")).await.map(Some)
    }
}

/// A PROXY header of version 1 for a connection of the gateway's own (proxy-protocol.txt §2.1: the addresses of the connection).
fn own_header(own: SocketAddr, upstream: SocketAddr) -> Vec<u8> {
    let protocol = if upstream.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (own.ip(), upstream.ip());
    format!("PROXY {protocol} {from} {to} {} {}\r\n", own.port(), upstream.port()).into_bytes()
}
