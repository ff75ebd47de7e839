//! A call of one's own servers, to tell all that can be seen of them: times, words, and how large packets may be.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Broken, Dialogue, LARGE, Missed, connect, large};
use crate::readiness::{ConnectResult, LargeProbe, NetworkPath, ReplyResult, Survey, SurveyReply};
use crate::smtp::Reply;

/// Of one reply, lines that are kept.
const MAX_LINES: usize = 64;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveySettings {
    /// What its EHLO says.
    pub hostname: String,
    pub port: u16,
    /// For the connection, for greeting and EHLO together, and for something large; each.
    pub timeout: Duration,
}

/// Calls `server` as far as it answers; takes three times the patience at most.
pub async fn survey(server: IpAddr, caller: &SurveySettings) -> Survey {
    let began = Instant::now();
    let stream = match connect(SocketAddr::new(server, caller.port), None, caller.timeout).await {
        Ok(stream) => stream,
        Err(missed) => {
            return Survey::only(match missed {
                Missed::Refused => ConnectResult::Refused,
                Missed::Silent => ConnectResult::NoResponse(began.elapsed()),
                Missed::NoRoute | Missed::Exhausted => ConnectResult::NoRoute,
            });
        }
    };
    let mut survey = Survey::only(ConnectResult::Connected(began.elapsed()));
    let mut dialogue = Dialogue::new(stream, Instant::now() + caller.timeout);
    survey.greeting = hear(&mut dialogue, None).await;
    if !is_good(&survey.greeting) {
        dialogue.leave();
        return survey;
    }
    survey.ehlo = hear(&mut dialogue, Some(&format!("EHLO {}", caller.hostname))).await;
    if let ReplyResult::Received(SurveyReply { code: 500 | 502 | 504 | 550, .. }) = survey.ehlo {
        survey.ehlo = hear(&mut dialogue, Some(&format!("HELO {}", caller.hostname))).await;
    }
    if is_good(&survey.ehlo) {
        let pipelines =
            matches!(&survey.ehlo, ReplyResult::Received(said) if offers_pipelining(said));
        // Over IPv4 routers make packets smaller, and servers note it where commands come together.
        let tried = match pipelines && server.is_ipv6() {
            true => say_large(&mut dialogue, caller).await,
            false => LargeProbe::NotTried,
        };
        survey.path = Some(path(dialogue.stream(), tried));
    }
    dialogue.leave();
    survey
}

async fn say_large(dialogue: &mut Dialogue, caller: &SurveySettings) -> LargeProbe {
    let began = Instant::now();
    dialogue.end_by(began + caller.timeout);
    match large(dialogue).await {
        Ok(()) => LargeProbe::Answered(LARGE),
        Err(Broken::Stalled) => LargeProbe::Stalled(began.elapsed()),
        Err(Broken::Closed | Broken::Nonsense) => LargeProbe::Closed,
    }
}

async fn hear(dialogue: &mut Dialogue, command: Option<&str>) -> ReplyResult {
    let began = Instant::now();
    if let Some(command) = command
        && let Err(broken) = dialogue.say(format!("{command}\r\n").as_bytes()).await
    {
        return spoken(broken, began);
    }
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let read = |reply: &Reply<'_>| (reply.code, reply.texts().take(MAX_LINES).map(text).collect());
    match dialogue.read(read).await {
        Ok((code, lines)) => {
            ReplyResult::Received(SurveyReply { code, lines, took: began.elapsed() })
        }
        Err(broken) => spoken(broken, began),
    }
}

fn spoken(broken: Broken, began: Instant) -> ReplyResult {
    match broken {
        Broken::Stalled => ReplyResult::TimedOut(began.elapsed()),
        Broken::Closed => ReplyResult::Closed,
        Broken::Nonsense => ReplyResult::NotSmtp,
    }
}

const fn is_good(spoken: &ReplyResult) -> bool {
    matches!(spoken, ReplyResult::Received(SurveyReply { code: 200..=299, .. }))
}

fn offers_pipelining(said: &SurveyReply) -> bool {
    said.lines.iter().skip(1).any(|line| line.eq_ignore_ascii_case("PIPELINING"))
}

/// What the kernel knows of the way; what it does not tell is left out.
fn path(stream: &TcpStream, large: LargeProbe) -> NetworkPath {
    let peer = stream.peer_addr().ok();
    let mtu = match peer {
        Some(SocketAddr::V6(_)) => sockopt::ipv6_mtu(stream).ok(),
        Some(SocketAddr::V4(_)) => sockopt::ip_mtu(stream).ok(),
        None => None,
    };
    let mss = SockRef::from(stream).tcp_mss().ok();
    let local = stream.local_addr().ok().map(|own| own.ip());
    NetworkPath { local, mtu, mss, large }
}
