//! Asking our own upstream whether it takes mail for a recipient (call-ahead).
//!
//! RFC 5321 §3.3: MAIL FROM:<>, RCPT, and then we leave. What upstream says to RCPT with a 5xx is its word, whatever it is
//! for; a 4xx is no answer; an upstream that is down, or refuses before RCPT, has said nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::LookupSettings;
use super::probe::{Broken, Dialogue, connect, is_path};
use crate::policy::facts::{Answer, Reason};

#[derive(Debug)]
pub(super) struct CallAhead {
    upstreams: Vec<SocketAddr>,
    preface: Vec<u8>,
    hostname: String,
    mark: Option<u32>,
    deadline: Duration,
    pending: Arc<Semaphore>,
}

impl CallAhead {
    pub(super) fn new(settings: &LookupSettings) -> Self {
        Self {
            upstreams: settings.upstreams.clone(),
            preface: settings.upstream_proxy_header.clone(),
            hostname: settings.hostname.clone(),
            mark: settings.mark,
            deadline: settings.deadline,
            pending: Arc::new(Semaphore::new(settings.max_pending_recipients.max(1))),
        }
    }

    /// Asks one upstream after the other, until one answers; none of them may use up the time of all.
    pub(super) async fn answer(&self, path: &str) -> Answer {
        if self.upstreams.is_empty() || !is_path(path) {
            return Answer::Unknown(Reason::NoResolver);
        }
        let Ok(_pending) = self.pending.try_acquire() else {
            return Answer::Unknown(Reason::RateLimited);
        };
        let until = Instant::now() + self.deadline;
        let mut left = u32::try_from(self.upstreams.len()).unwrap_or(u32::MAX);
        for &upstream in &self.upstreams {
            let share = until.saturating_duration_since(Instant::now()) / left;
            left -= 1;
            match self.ask(upstream, path, share).await {
                Some(answer) => return answer,
                None => continue,
            }
        }
        Answer::Unknown(Reason::UpstreamDown)
    }

    /// `None`: no answer to RCPT within `patience`.
    async fn ask(&self, upstream: SocketAddr, path: &str, patience: Duration) -> Option<Answer> {
        let until = Instant::now() + patience;
        let stream = connect(upstream, self.mark, patience).await.ok()?;
        let mut dialogue = Dialogue::new(stream, until);
        let said = self.rcpt(&mut dialogue, path).await;
        let answer = match said {
            Ok(Some(said)) => match said.class() {
                2 => Answer::Yes(None),
                5 => Answer::No(Reason::NoSuchMailbox, Some(said.to_string())),
                _ => Answer::Unknown(Reason::Deferred),
            },
            Ok(None) | Err(_) => {
                if said.is_ok() {
                    dialogue.leave();
                }
                return None;
            }
        };
        dialogue.leave();
        Some(answer)
    }

    /// The reply to RCPT; `None` if it refuses before.
    async fn rcpt(
        &self,
        dialogue: &mut Dialogue,
        path: &str,
    ) -> Result<Option<super::probe::Said>, Broken> {
        if !self.preface.is_empty() {
            dialogue.say(&self.preface).await?;
        }
        if dialogue.reply().await?.code != 220
            || dialogue.greet(&self.hostname).await?.class() != 2
            || dialogue.ask("MAIL FROM:<>").await?.class() != 2
        {
            return Ok(None);
        }
        dialogue.ask(&format!("RCPT TO:<{path}>")).await.map(Some)
    }
}
