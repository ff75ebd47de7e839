//! `gatepost replay --against`: says captured sessions again and tells where the answers differ.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::net::lookup_host;

use crate::addr::Family;
use crate::analyzer::Session;
use crate::cli::{Act, ActFamily, ActPace, ReplayFormat};
use crate::reenact::{Client, Pace, Performance, Script, Server};
use crate::report::sentence;
use crate::stream::FlowOutcome;

/// How long a connection or a reply may take: less than RFC 5321 allows a server, more than one needs that is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the client goes, and who plays the server behind.
pub(super) struct Stage {
    against: Vec<SocketAddr>,
    family: ActFamily,
    pace: Pace,
    as_client: bool,
    server: Option<Server>,
}

/// What became of one session.
pub(super) enum Outcome {
    Performed {
        to: SocketAddr,
        performance: Performance,
    },
    /// Why it was not, in words.
    Left(String),
}

impl Stage {
    pub(super) async fn set(act: &Act) -> anyhow::Result<Self> {
        let mut against = Vec::new();
        for name in &act.against {
            let found = lookup_host(name).await.with_context(|| {
                format!("--against {name}: write HOST:PORT, IPv4:PORT or [IPv6]:PORT of a server")
            })?;
            against.extend(found);
        }
        let server = match act.act_upstream {
            Some(address) => Some(Server::listen(address).await?),
            None => None,
        };
        let pace = match act.pace {
            ActPace::Reply => Pace::Reply,
            ActPace::Recorded => Pace::Recorded,
        };
        Ok(Self { against, family: act.family, pace, as_client: act.as_client, server })
    }

    /// Says one session again.
    pub(super) async fn perform(&self, session: &Session) -> anyhow::Result<Outcome> {
        let record = &session.record;
        let midstream = record.tcp.outcome == Some(FlowOutcome::Midstream);
        let script = match Script::new(&session.transcript, midstream) {
            Ok(script) => script,
            Err(why) => return Ok(Outcome::Left(why.to_string())),
        };
        let family = match self.family {
            ActFamily::Keep => record.family,
            ActFamily::Ipv4 => Family::Ipv4,
            ActFamily::Ipv6 => Family::Ipv6,
        };
        let Some(to) = self.against.iter().copied().find(|to| Family::of(to.ip()) == family) else {
            let why = format!("--against names no {family} address; name one, or use --family");
            return Ok(Outcome::Left(why));
        };
        let recorded = (record.client.into(), record.server.into());
        let introduce = self.as_client.then_some(recorded);
        let client = Client { to, pace: self.pace, patience: PATIENCE, introduce };
        let performance = match &self.server {
            None => client.perform(&script).await,
            Some(server) => server
                .perform(&script, client.perform(&script))
                .await
                .context("the recorded server cannot accept connections")?,
        };
        let performance =
            performance.with_context(|| format!("cannot connect to {to}; is a server there?"))?;
        Ok(Outcome::Performed { to, performance })
    }
}

impl Outcome {
    /// Nothing differs from the capture.
    pub(super) fn is_as_recorded(&self) -> bool {
        match self {
            Self::Performed { performance, .. } => performance.differences.is_empty(),
            Self::Left(_) => true,
        }
    }

    /// One line, or one and one for each difference; with line ends.
    pub(super) fn told(&self, session: &Session, format: ReplayFormat) -> String {
        match format {
            ReplayFormat::Text => self.text(session),
            ReplayFormat::Json => self.json(session),
        }
    }

    fn text(&self, session: &Session) -> String {
        let number = session.number;
        let (to, performance) = match self {
            Self::Performed { to, performance } => (to, performance),
            Self::Left(why) => return format!("#{number} not said again: {why}\n"),
        };
        let mut out = format!("#{number} to {to}: {} replies, ", performance.replies);
        match performance.differences.len() {
            0 => out.push_str("as recorded"),
            1 => out.push_str("1 answer differs"),
            n => drop(write!(out, "{n} answers differ")),
        }
        if let Some(why) = performance.cut_short {
            let _ = write!(out, "; ended there: {why}");
        }
        out.push('\n');
        for difference in &performance.differences {
            let after = sentence(&difference.after);
            let recorded = sentence(&difference.recorded.to_string());
            let now = sentence(&difference.now.to_string());
            let _ = write!(out, "    {after}\n      recorded: {recorded}\n      now:      {now}\n");
        }
        out
    }

    fn json(&self, session: &Session) -> String {
        let line = match self {
            Self::Left(why) => {
                json!({"type": "reenacted", "number": session.number, "to": null, "left": why})
            }
            Self::Performed { to, performance } => {
                let differences: Vec<_> = performance
                    .differences
                    .iter()
                    .map(|difference| {
                        json!({
                            "after": difference.after,
                            "recorded": difference.recorded.to_string(),
                            "now": difference.now.to_string(),
                        })
                    })
                    .collect();
                json!({
                    "type": "reenacted",
                    "number": session.number,
                    "to": to.to_string(),
                    "replies": performance.replies,
                    "differences": differences,
                    "cut_short": performance.cut_short,
                })
            }
        };
        format!("{line}\n")
    }
}
