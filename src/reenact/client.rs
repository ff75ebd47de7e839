//! The recorded client, live.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::v2;
use tokio::time::sleep;

use super::connection::{Connection, ServerResponse};
use super::scenario::{ReplyTo, Scenario, Step, parse_response};
use crate::smtp::Verb;

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
}

/// A live response of another class than the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyDifference {
    /// The command line that was answered, or a description where it was none.
    pub after: String,
    pub recorded: ServerResponse,
    pub now: ServerResponse,
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
        let mut run = ClientRun { connection, pace: self.pace, report: RunReport::default() };
        run.run(scenario).await;
        Ok(run.report)
    }
}

/// How the run continues after a reply.
enum Next {
    Continue,
    /// The live server rejected DATA: skip the content and the reply to it.
    SkipMessage,
    Stop(Option<&'static str>),
}

struct ClientRun {
    connection: Connection,
    pace: Pace,
    report: RunReport,
}

impl ClientRun {
    async fn run(&mut self, scenario: &Scenario) {
        let mut skip_message = false;
        for step in &scenario.steps {
            let next = match step {
                Step::Line { bytes, pause } => {
                    skip_message = false;
                    self.send(bytes, *pause).await
                }
                Step::Content { .. } | Step::Reply { to: ReplyTo::Message, .. } if skip_message => {
                    Next::Continue
                }
                Step::Content { bytes, pause } => self.send(bytes, *pause).await,
                Step::Reply { bytes, to } => self.compare(to, parse_response(bytes)).await,
            };
            match next {
                Next::Continue => {}
                Next::SkipMessage => skip_message = true,
                Next::Stop(reason) => {
                    self.report.cut_short = reason;
                    return;
                }
            }
        }
        for to in &scenario.unanswered {
            if let Next::Stop(_) = self.compare(to, ServerResponse::Closed).await {
                return;
            }
        }
        self.report.cut_short = scenario.cut_short;
    }

    async fn send(&mut self, bytes: &[u8], pause: Duration) -> Next {
        if self.pace == Pace::Recorded {
            sleep(pause).await;
        }
        // A server that closed has sent its reason before; the next read returns it.
        let _read_reports_it = self.connection.send(bytes).await;
        Next::Continue
    }

    /// Reads the next reply and compares it with the recorded one.
    async fn compare(&mut self, to: &ReplyTo, recorded: ServerResponse) -> Next {
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

fn next(to: &ReplyTo, recorded: &ServerResponse, now: &ServerResponse) -> Next {
    let Some(now) = now.code() else {
        return Next::Stop(None);
    };
    match (to.verb(), recorded.code().unwrap_or(0), now) {
        (_, _, 421 | 521) => Next::Stop(None),
        (None, _, code) if *to == ReplyTo::Connection && code >= 400 => Next::Stop(None),
        (Some(Verb::Data), 354, 354) => Next::Continue,
        (Some(Verb::Data), 354, _) => Next::SkipMessage,
        (Some(Verb::Data), _, 354) => {
            Next::Stop(Some("the server accepts DATA and the capture holds no message"))
        }
        (Some(Verb::Auth), recorded, now) if (recorded == 334) != (now == 334) => {
            Next::Stop(Some("the AUTH exchange differs"))
        }
        (Some(Verb::Starttls), 220, code) if code != 220 => {
            Next::Stop(Some("what follows STARTTLS is encrypted"))
        }
        (Some(Verb::Starttls), code, 220) if code != 220 => {
            Next::Stop(Some("the server starts TLS and the capture does not"))
        }
        _ => Next::Continue,
    }
}
