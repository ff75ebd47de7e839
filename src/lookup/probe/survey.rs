//! A complete probe of one's own server, for the domain check: times, replies, and the size of packets that pass.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::{ConnectError, connect};
use super::large::{LARGE, send_large};
use super::smtp_client::{ProbeError, SmtpClient};
use crate::readiness::{ConnectResult, LargeProbe, NetworkPath, Survey, SurveyReply, SurveyResult};
use crate::smtp::Reply;

/// Lines of a reply that are kept.
const MAX_LINES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveySettings {
    /// Our name in EHLO.
    pub hostname: String,
    pub port: u16,
    /// For each of: the connection, the reply to EHLO, the large segment; a greeting has twice as long.
    pub timeout: Duration,
    /// The end of the whole check.
    pub deadline: Instant,
}

/// Servers delay the greeting to find out which clients do not wait for it: RFC 5321 §4.5.3.2.1 gives them five minutes.
const GREETING: u32 = 2;

/// Probes `server` as far as it responds, until the deadline at most.
pub async fn survey(server: IpAddr, settings: &SurveySettings) -> Survey {
    let began = Instant::now();
    let address = SocketAddr::new(server, settings.port);
    let limit = settings.timeout.min(settings.deadline.saturating_duration_since(began));
    let stream = match connect(address, None, limit).await {
        Ok(stream) => stream,
        Err(error) => {
            return Survey::only(match error {
                ConnectError::Refused => ConnectResult::Refused,
                ConnectError::NoResponse if limit < settings.timeout => ConnectResult::OutOfTime,
                ConnectError::NoResponse => ConnectResult::NoResponse(began.elapsed()),
                ConnectError::NoRoute | ConnectError::Exhausted => ConnectResult::NoRoute,
            });
        }
    };
    let mut survey = Survey::only(ConnectResult::Connected(began.elapsed()));
    survey.from = stream.local_addr().ok().map(|own| own.ip());
    let mut client = SmtpClient::new(stream, settings.deadline);
    survey.greeting = exchange(&mut client, None, settings.timeout * GREETING, settings).await;
    if !is_positive(&survey.greeting) {
        client.quit();
        return survey;
    }
    for command in ["EHLO", "HELO"] {
        let command = format!("{command} {}", settings.hostname);
        survey.ehlo = exchange(&mut client, Some(&command), settings.timeout, settings).await;
        let is_unknown = matches!(
            survey.ehlo,
            SurveyResult::Received(SurveyReply { code: 500 | 502 | 504 | 550, .. })
        );
        if !is_unknown {
            break;
        }
    }
    if is_positive(&survey.ehlo) {
        let pipelining =
            matches!(&survey.ehlo, SurveyResult::Received(reply) if offers_pipelining(reply));
        // Not over IPv4: its routers fragment, and servers log a group of NOOPs.
        let large = match pipelining && server.is_ipv6() {
            true => large_probe(&mut client, settings).await,
            false => LargeProbe::NotTried,
        };
        survey.path = Some(path(client.stream(), large));
    }
    client.quit();
    survey
}

async fn large_probe(client: &mut SmtpClient, settings: &SurveySettings) -> LargeProbe {
    let began = Instant::now();
    client.set_deadline(settings.deadline.min(began + settings.timeout));
    match send_large(client).await {
        Ok(()) => LargeProbe::Answered(LARGE),
        Err(ProbeError::TimedOut) if began.elapsed() < settings.timeout => LargeProbe::OutOfTime,
        Err(ProbeError::TimedOut) => LargeProbe::Stalled(began.elapsed()),
        Err(ProbeError::Closed | ProbeError::NotSmtp) => LargeProbe::Closed,
    }
}

/// Sends a command, if there is one, and reads a reply within `limit`.
async fn exchange(
    client: &mut SmtpClient,
    command: Option<&str>,
    limit: Duration,
    settings: &SurveySettings,
) -> SurveyResult {
    let began = Instant::now();
    client.set_deadline(settings.deadline.min(began + limit));
    if let Some(command) = command
        && let Err(error) = client.send(format!("{command}\r\n").as_bytes()).await
    {
        return no_reply(error, began, settings);
    }
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let convert =
        |reply: &Reply<'_>| (reply.code, reply.texts().take(MAX_LINES).map(text).collect());
    match client.read_reply_as(convert).await {
        Ok((code, lines)) => {
            SurveyResult::Received(SurveyReply { code, lines, took: began.elapsed() })
        }
        Err(error) => no_reply(error, began, settings),
    }
}

fn no_reply(error: ProbeError, began: Instant, settings: &SurveySettings) -> SurveyResult {
    match error {
        ProbeError::TimedOut if began.elapsed() < settings.timeout => {
            SurveyResult::OutOfTime(began.elapsed())
        }
        ProbeError::TimedOut => SurveyResult::TimedOut(began.elapsed()),
        ProbeError::Closed => SurveyResult::Closed,
        ProbeError::NotSmtp => SurveyResult::NotSmtp,
    }
}

const fn is_positive(result: &SurveyResult) -> bool {
    matches!(result, SurveyResult::Received(SurveyReply { code: 200..=299, .. }))
}

fn offers_pipelining(ehlo: &SurveyReply) -> bool {
    ehlo.lines.iter().skip(1).any(|line| line.eq_ignore_ascii_case("PIPELINING"))
}

/// The kernel's knowledge of the path; unavailable values are `None`.
fn path(stream: &TcpStream, large: LargeProbe) -> NetworkPath {
    let peer = stream.peer_addr().ok();
    let mtu = match peer {
        Some(SocketAddr::V6(_)) => sockopt::ipv6_mtu(stream).ok(),
        Some(SocketAddr::V4(_)) => sockopt::ip_mtu(stream).ok(),
        None => None,
    };
    let mss = SockRef::from(stream).tcp_mss().ok();
    NetworkPath { mtu, mss, large }
}
