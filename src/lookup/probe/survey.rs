//! A call of one's own servers, to tell all that can be seen of them: times, words, and how large packets may be.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Broken, Dialogue, LARGE, Missed, connect, large};
use crate::readiness::{Exchange, Large, Path, Reached, Spoken, Survey};
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
                Missed::Refused => Reached::Refused,
                Missed::Silent => Reached::Silent(began.elapsed()),
                Missed::NoRoute | Missed::Exhausted => Reached::NoWay,
            });
        }
    };
    let mut survey = Survey::only(Reached::Yes(began.elapsed()));
    let mut dialogue = Dialogue::new(stream, Instant::now() + caller.timeout);
    survey.greeting = hear(&mut dialogue, None).await;
    if !is_good(&survey.greeting) {
        dialogue.leave();
        return survey;
    }
    survey.ehlo = hear(&mut dialogue, Some(&format!("EHLO {}", caller.hostname))).await;
    if let Spoken::Said(Exchange { code: 500 | 502 | 504 | 550, .. }) = survey.ehlo {
        survey.ehlo = hear(&mut dialogue, Some(&format!("HELO {}", caller.hostname))).await;
    }
    if is_good(&survey.ehlo) {
        let pipelines = matches!(&survey.ehlo, Spoken::Said(said) if offers_pipelining(said));
        // Over IPv4 routers make packets smaller, and servers note it where commands come together.
        let tried = match pipelines && server.is_ipv6() {
            true => say_large(&mut dialogue, caller).await,
            false => Large::NotTried,
        };
        survey.path = Some(path(dialogue.stream(), tried));
    }
    dialogue.leave();
    survey
}

async fn say_large(dialogue: &mut Dialogue, caller: &SurveySettings) -> Large {
    let began = Instant::now();
    dialogue.end_by(began + caller.timeout);
    match large(dialogue).await {
        Ok(()) => Large::LookupResult(LARGE),
        Err(Broken::Stalled) => Large::Stalled(began.elapsed()),
        Err(Broken::Closed | Broken::Nonsense) => Large::TurnedAway,
    }
}

async fn hear(dialogue: &mut Dialogue, command: Option<&str>) -> Spoken {
    let began = Instant::now();
    if let Some(command) = command
        && let Err(broken) = dialogue.say(format!("{command}\r\n").as_bytes()).await
    {
        return spoken(broken, began);
    }
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let read = |reply: &Reply<'_>| (reply.code, reply.texts().take(MAX_LINES).map(text).collect());
    match dialogue.read(read).await {
        Ok((code, lines)) => Spoken::Said(Exchange { code, lines, took: began.elapsed() }),
        Err(broken) => spoken(broken, began),
    }
}

fn spoken(broken: Broken, began: Instant) -> Spoken {
    match broken {
        Broken::Stalled => Spoken::Stalled(began.elapsed()),
        Broken::Closed => Spoken::Closed,
        Broken::Nonsense => Spoken::Nonsense,
    }
}

const fn is_good(spoken: &Spoken) -> bool {
    matches!(spoken, Spoken::Said(Exchange { code: 200..=299, .. }))
}

fn offers_pipelining(said: &Exchange) -> bool {
    said.lines.iter().skip(1).any(|line| line.eq_ignore_ascii_case("PIPELINING"))
}

/// What the kernel knows of the way; what it does not tell is left out.
fn path(stream: &TcpStream, large: Large) -> Path {
    let peer = stream.peer_addr().ok();
    let mtu = match peer {
        Some(SocketAddr::V6(_)) => sockopt::ipv6_mtu(stream).ok(),
        Some(SocketAddr::V4(_)) => sockopt::ip_mtu(stream).ok(),
        None => None,
    };
    let mss = SockRef::from(stream).tcp_mss().ok();
    let local = stream.local_addr().ok().map(|own| own.ip());
    Path { local, mtu, mss, large }
}
