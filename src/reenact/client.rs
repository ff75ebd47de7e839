//! The recorded client, live.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ppp::v2;
use rustls::ClientConfig;
use tokio::time::sleep;

use super::scenario::{ReplyTo, Scenario, ScenarioStep, parse_response};
use crate::smtp::Verb;
use crate::smtp_connection::{Connection, ReplyResult};

/// When the client sends its next step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As soon as the replies that the recorded client waited for have arrived.
    #[default]
    Reply,
    /// After the recorded pauses as well.
    Recorded,
}

/// Runs recorded clients against one server.
#[derive(Clone, Debug)]
pub struct RecordedClient {
    pub server: SocketAddr,
    pub pace: Pace,
    /// For connecting, and for each reply.
    pub timeout: Duration,
    /// Source and destination for a PROXY header (version 2): the recorded client and server.
    pub proxy_header: Option<(SocketAddr, SocketAddr)>,
    /// For sessions that were recorded decrypted: they start TLS again.
    pub tls: Arc<ClientConfig>,
    /// Before the greeting (RFC 8314 §3.3).
    pub tls_first: bool,
}

/// A live response of another class than the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyDifference {
    /// The command line that was answered, or a description where it was none.
    pub after: String,
    pub recorded: ReplyResult,
    pub now: ReplyResult,
}

/// Result of one re-enacted session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    /// Replies read and compared.
    pub replies: u64,
    pub differences: Vec<ReplyDifference>,
    /// Why it ended before the recorded session did.
    pub cut_short: Option<&'static str>,
}

impl RecordedClient {
    /// Re-enacts one session.
    ///
    /// # Errors
    /// No connection to the server. Everything after that is part of the report.
    pub async fn run(&self, scenario: &Scenario) -> io::Result<RunReport> {
        let mut connection = Connection::open(None, self.server, self.timeout).await?;
        if let Some((client, server)) = self.proxy_header {
            let header = v2::Builder::with_addresses(
                v2::Version::Two | v2::Command::Proxy,
                v2::Protocol::Stream,
                (client, server),
            );
            connection.send(&header.build()?).await?;
        }
        let mut run = ClientRun {
            connection,
            pace: self.pace,
            tls: Arc::clone(&self.tls),
            report: RunReport::default(),
        };
        if !self.tls_first || run.start_tls(&ReplyTo::Connection, scenario.greeting()).await {
            run.run(scenario).await;
        }
        Ok(run.report)
    }
}

/// How the run continues after a reply.
enum AfterReply {
    Continue,
    /// The live server rejected DATA: skip the content and the reply to it.
    SkipMessage,
    /// Both servers start TLS.
    StartTls,
    Stop(Option<&'static str>),
}

struct ClientRun {
    connection: Connection,
    pace: Pace,
    tls: Arc<ClientConfig>,
    report: RunReport,
}

impl ClientRun {
    async fn run(&mut self, scenario: &Scenario) {
        let mut skip_message = false;
        let mut steps = scenario.steps.iter().peekable();
        while let Some(step) = steps.next() {
            let next = match step {
                ScenarioStep::Line { bytes, pause } => {
                    skip_message = false;
                    self.send(bytes, *pause).await
                }
                ScenarioStep::Content { .. } | ScenarioStep::Reply { to: ReplyTo::Message, .. }
                    if skip_message =>
                {
                    AfterReply::Continue
                }
                ScenarioStep::Content { bytes, pause } => self.send(bytes, *pause).await,
                ScenarioStep::Reply { bytes, to } => self.compare(to, parse_response(bytes)).await,
            };
            match next {
                AfterReply::Continue => {}
                AfterReply::SkipMessage => skip_message = true,
                // Without the dialogue inside it TLS would be started for nothing.
                AfterReply::StartTls if steps.peek().is_none() => {}
                AfterReply::StartTls => {
                    if let ScenarioStep::Reply { bytes, to } = step
                        && !self.start_tls(to, bytes).await
                    {
                        return;
                    }
                }
                AfterReply::Stop(reason) => {
                    self.report.cut_short = reason;
                    return;
                }
            }
        }
        for to in &scenario.unanswered {
            if let AfterReply::Stop(_) = self.compare(to, ReplyResult::Closed).await {
                return;
            }
        }
        self.report.cut_short = scenario.cut_short;
    }

    async fn send(&mut self, bytes: &[u8], pause: Duration) -> AfterReply {
        if self.pace == Pace::Recorded {
            sleep(pause).await;
        }
        // A server that closed has sent its reason before; the next read returns it.
        let _read_reports_it = self.connection.send(bytes).await;
        AfterReply::Continue
    }

    /// After `to`, which was answered with `recorded`. Returns whether the session goes on.
    async fn start_tls(&mut self, to: &ReplyTo, recorded: &[u8]) -> bool {
        if self.connection.start_tls(Arc::clone(&self.tls)).await.is_ok() {
            return true;
        }
        self.report.differences.push(ReplyDifference {
            after: format!("the TLS handshake after {to}"),
            recorded: parse_response(recorded),
            now: ReplyResult::Closed,
        });
        self.report.cut_short = Some("the TLS handshake failed");
        false
    }

    /// Reads the next reply and compares it with the recorded one.
    async fn compare(&mut self, to: &ReplyTo, recorded: ReplyResult) -> AfterReply {
        let now = self.connection.reply().await;
        if now.code().is_some() {
            self.report.replies += 1;
        }
        let next = next(to, &recorded, &now);
        if now.class() != recorded.class() {
            let after = to.to_string();
            self.report.differences.push(ReplyDifference { after, recorded, now });
        }
        next
    }
}

fn next(to: &ReplyTo, recorded: &ReplyResult, now: &ReplyResult) -> AfterReply {
    let Some(now) = now.code() else {
        return AfterReply::Stop(None);
    };
    match (to.verb(), recorded.code().unwrap_or(0), now) {
        (_, _, 421 | 521) => AfterReply::Stop(None),
        (None, _, code) if *to == ReplyTo::Connection && code >= 400 => AfterReply::Stop(None),
        (Some(Verb::Data), 354, 354) => AfterReply::Continue,
        (Some(Verb::Data), 354, _) => AfterReply::SkipMessage,
        (Some(Verb::Data), _, 354) => {
            AfterReply::Stop(Some("the server accepts DATA and the capture holds no message"))
        }
        (Some(Verb::Auth), recorded, now) if (recorded == 334) != (now == 334) => {
            AfterReply::Stop(Some("the AUTH exchange differs"))
        }
        (Some(Verb::Starttls), 220, 220) => AfterReply::StartTls,
        (Some(Verb::Starttls), 220, _) => {
            AfterReply::Stop(Some("the server starts no TLS and the capture does"))
        }
        (Some(Verb::Starttls), code, 220) if code != 220 => {
            AfterReply::Stop(Some("the server starts TLS and the capture does not"))
        }
        _ => AfterReply::Continue,
    }
}
