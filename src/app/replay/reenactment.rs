//! `gatepost replay --target`: re-enacts captured sessions against a live server and reports replies that differ.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ClientConfig;
use serde_json::json;
use tokio::net::lookup_host;

use crate::addr::Family;
use crate::analyzer::FinishedSession;
use crate::cli::{OutputFormat, ReenactArgs, ReenactFamily, ReenactPace};
use crate::reenact::{Pace, RecordedClient, RecordedServer, RunReport, Scenario};
use crate::report::printable;
use crate::smtp::SUBMISSIONS;
use crate::stream::FlowOutcome;
use crate::tls::{UpstreamVerification, upstream_config};

/// For connecting and for each reply: less than RFC 5321 §4.5.3.2 grants a server, more than a healthy one needs.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The target of re-enacted clients, and the recorded server behind it.
pub(super) struct Reenactment {
    targets: Vec<SocketAddr>,
    family: ReenactFamily,
    pace: Pace,
    proxy_header: bool,
    tls: Arc<ClientConfig>,
    server: Option<RecordedServer>,
}

/// What became of one session.
pub(super) enum Reenacted {
    Done {
        target: SocketAddr,
        report: RunReport,
    },
    /// Not re-enacted, for this reason.
    Skipped(String),
}

impl Reenactment {
    pub(super) async fn start(options: &ReenactArgs) -> anyhow::Result<Self> {
        let mut targets = Vec::new();
        for name in &options.target {
            let found = lookup_host(name).await.with_context(|| {
                format!("--target {name}: write HOST:PORT, IPv4:PORT or [IPv6]:PORT of a server")
            })?;
            targets.extend(found);
        }
        let server = match options.serve_upstream {
            Some(address) => Some(RecordedServer::listen(address).await?),
            None => None,
        };
        let pace = match options.pace {
            ReenactPace::Reply => Pace::Reply,
            ReenactPace::Recorded => Pace::Recorded,
        };
        Ok(Self {
            targets,
            family: options.family,
            pace,
            proxy_header: options.proxy_header,
            // A target on loopback or in a test network has no certificate that anybody could verify.
            tls: upstream_config(&UpstreamVerification::None)?,
            server,
        })
    }

    /// Re-enacts one session.
    pub(super) async fn run(&self, session: &FinishedSession) -> anyhow::Result<Reenacted> {
        let record = &session.record;
        let midstream = record.tcp.outcome == Some(FlowOutcome::Midstream);
        let scenario = match Scenario::new(&session.transcript, midstream) {
            Ok(scenario) => scenario,
            Err(reason) => return Ok(Reenacted::Skipped(reason.to_string())),
        };
        let family = match self.family {
            ReenactFamily::Keep => record.family,
            ReenactFamily::Ipv4 => Family::Ipv4,
            ReenactFamily::Ipv6 => Family::Ipv6,
        };
        let of_family = |target: &SocketAddr| Family::of(target.ip()) == family;
        let Some(target) = self.targets.iter().copied().find(of_family) else {
            let reason = format!("--target names no {family} address; name one, or use --family");
            return Ok(Reenacted::Skipped(reason));
        };
        let recorded = (record.client.into(), record.server.into());
        let client = RecordedClient {
            server: target,
            pace: self.pace,
            timeout: TIMEOUT,
            proxy_header: self.proxy_header.then_some(recorded),
            tls: Arc::clone(&self.tls),
            tls_first: [target.port(), record.server.port].contains(&SUBMISSIONS),
        };
        let report = match &self.server {
            None => client.run(&scenario).await,
            Some(server) => server
                .serve(&scenario, client.run(&scenario))
                .await
                .context("the recorded server cannot accept connections")?,
        };
        let report =
            report.with_context(|| format!("cannot connect to {target}; is a server there?"))?;
        Ok(Reenacted::Done { target, report })
    }
}

impl Reenacted {
    pub(super) fn is_as_recorded(&self) -> bool {
        match self {
            Self::Done { report, .. } => report.differences.is_empty(),
            Self::Skipped(_) => true,
        }
    }

    /// One line for the session, with text one more for each difference; with line ends.
    pub(super) fn format(&self, session: &FinishedSession, format: OutputFormat) -> String {
        match format {
            OutputFormat::Text => self.text(session.number),
            OutputFormat::Json => self.json(session.number),
        }
    }

    fn text(&self, number: u64) -> String {
        let (target, report) = match self {
            Self::Done { target, report } => (target, report),
            Self::Skipped(reason) => return format!("#{number} not re-sent: {reason}\n"),
        };
        let mut out = format!("#{number} to {target}: {} replies, ", report.replies);
        match report.differences.len() {
            0 => out.push_str("as recorded"),
            1 => out.push_str("1 answer differs"),
            n => drop(write!(out, "{n} answers differ")),
        }
        if let Some(reason) = report.cut_short {
            let _ = write!(out, "; ended there: {reason}");
        }
        out.push('\n');
        for difference in &report.differences {
            let after = printable(&difference.after);
            let recorded = printable(&difference.recorded.to_string());
            let now = printable(&difference.now.to_string());
            let _ = write!(out, "    {after}\n      recorded: {recorded}\n      now:      {now}\n");
        }
        out
    }

    fn json(&self, number: u64) -> String {
        let line = match self {
            Self::Skipped(reason) => {
                json!({"type": "reenacted", "number": number, "to": null, "skipped": reason})
            }
            Self::Done { target, report } => {
                let differences = report.differences.iter().map(|difference| {
                    json!({
                        "after": difference.after,
                        "recorded": difference.recorded.to_string(),
                        "now": difference.now.to_string(),
                    })
                });
                json!({
                    "type": "reenacted",
                    "number": number,
                    "to": target.to_string(),
                    "replies": report.replies,
                    "differences": differences.collect::<Vec<_>>(),
                    "cut_short": report.cut_short,
                })
            }
        };
        format!("{line}\n")
    }
}
