//! Calls of other servers: do they take a connection, do they greet, do they take mail for a mailbox.
//!
//! RFC 5321 §3.1 to §3.3. Each question goes as far as it has to and no further: what sites see of us is a connection, then
//! EHLO and QUIT, and only where the operator wants it MAIL FROM:<> and RCPT.
//!
//! What is seen, and what it means:
//!
//! | seen | connect | greet | callout |
//! |---|---|---|---|
//! | RST, or an ICMP error | no: refused | no: refused | no: refused |
//! | nothing in answer to the SYNs | no: no_response | no: no_response | no: no_response |
//! | a connection, and then nothing | yes | no: established_but_stalled | no: established_but_stalled |
//! | it hangs up without a word of why | yes | unknown: turned away | unknown: turned away |
//! | 4xx for a greeting or to EHLO | yes | unknown: turned away | unknown: turned away |
//! | 5xx for a greeting or to EHLO, or no SMTP | yes | no: turned away | unknown: turned away |
//! | 250 to EHLO | yes | yes | goes on |
//! | MAIL FROM:<> is refused | | | unknown: turned away |
//! | RCPT: 2xx | | | yes |
//! | RCPT: 5xx, but of class x.7 | | | no: no such mailbox |
//! | RCPT: 5.7.x | | | unknown: turned away |
//! | RCPT: 4xx | | | unknown: deferred |
//!
//! A 5xx greeting (554, RFC 5321 §3.1) is a lasting statement of that server that no mail of ours gets in, so the way back
//! does not exist; a 4xx is one about now, and a hang-up may be either. Of a mailbox a refusal before RCPT says nothing, nor
//! one that is about us.

mod connect;
mod dialogue;
mod survey;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::connect::{Missed, connect};
pub(super) use self::dialogue::{Broken, Dialogue, Said};
pub use self::survey::{SurveySettings, survey};
use super::LookupSettings;
use super::limits::Limits;
use super::settings::ProbeSettings;
use crate::addr::Networks;
use crate::policy::facts::{Answer, Lookup, Reason};

/// Longest path that is asked about (RFC 5321 §4.5.3.1.3, without brackets).
const MAX_PATH: usize = 254;

/// What [`large`] says.
const NOOPS: usize = 4;
const ARGUMENT: usize = 500;
const LARGE: usize = NOOPS * (ARGUMENT + "NOOP \r\n".len());

/// Calls other servers, within limits.
#[derive(Debug)]
pub(super) struct Prober {
    settings: ProbeSettings,
    /// Of the patience, for the handshake: three SYNs at least with the default deadline.
    handshake: Duration,
    hostname: String,
    mark: Option<u32>,
    ours: Networks,
    limits: Limits,
}

impl Prober {
    pub(super) fn new(settings: &LookupSettings) -> Self {
        let patience = settings.probes.timeout;
        Self {
            settings: settings.probes,
            // That somebody is silent shall be known before the asker leaves.
            handshake: (settings.deadline * 4 / 5).min(patience),
            hostname: settings.hostname.clone(),
            mark: settings.mark,
            ours: settings.own_networks.clone(),
            limits: Limits::new(&settings.probes),
        }
    }

    pub(super) fn tidy(&self) {
        self.limits.tidy();
    }

    /// Whether nobody has to be called to answer: it is we ourselves, or the configuration forbids it.
    pub(super) fn settled(&self, lookup: &Lookup) -> Option<Answer> {
        let (Lookup::Connect(ip) | Lookup::Greet(ip) | Lookup::Callout(ip, _)) = lookup else {
            return None;
        };
        if self.ours.contains(*ip) {
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

    /// Calls; takes as long as `probe_timeout` at most. [`Self::settled`] comes first.
    pub(super) async fn answer(&self, lookup: &Lookup) -> Answer {
        let (Lookup::Connect(ip) | Lookup::Greet(ip) | Lookup::Callout(ip, _)) = lookup else {
            return Answer::Unknown(Reason::NoResolver);
        };
        let ip = ip.to_canonical();
        let Some(_permit) = self.limits.permit(ip) else {
            return Answer::Unknown(Reason::RateLimited);
        };
        let until = Instant::now() + self.settings.timeout;
        let stream = match self.connect(ip).await {
            Ok(stream) => stream,
            Err(missed) => return missed.answer(),
        };
        let dialogue = match lookup {
            Lookup::Connect(_) => return Answer::Yes(None),
            _ => Dialogue::new(stream, until),
        };
        match lookup {
            Lookup::Callout(_, path) => self.call_out(dialogue, path).await,
            _ => self.greet(dialogue).await,
        }
    }

    async fn connect(&self, ip: IpAddr) -> Result<tokio::net::TcpStream, Missed> {
        connect(SocketAddr::new(ip, self.settings.port), self.mark, self.handshake).await
    }

    async fn greet(&self, mut dialogue: Dialogue) -> Answer {
        let met = match self.meet(&mut dialogue).await {
            Ok(met) => met,
            Err(turned) => return turned.answer(),
        };
        if self.settings.large_segments
            && met.pipelining
            && let Err(broken) = large(&mut dialogue).await
        {
            return Turned::Broken(broken).answer();
        }
        dialogue.leave();
        Answer::Yes(None)
    }

    async fn call_out(&self, mut dialogue: Dialogue, path: &str) -> Answer {
        match self.meet(&mut dialogue).await {
            Ok(_) => {}
            Err(turned) => return turned.answer_of_a_mailbox(),
        }
        match dialogue.ask("MAIL FROM:<>").await {
            Ok(said) if said.class() == 2 => {}
            other => {
                dialogue.leave();
                return other.map_or_else(Turned::Broken, Turned::Said).answer_of_a_mailbox();
            }
        }
        let answer = match dialogue.ask(&format!("RCPT TO:<{path}>")).await {
            Ok(said) if said.class() == 2 => Answer::Yes(None),
            Ok(said)
                if said.class() == 5 && said.enhanced.is_some_and(|code| code.subject == 7) =>
            {
                Answer::Unknown(Reason::RejectedBeforeRcpt)
            }
            Ok(said) if said.class() == 5 => {
                Answer::No(Reason::NoSuchMailbox, Some(said.to_string()))
            }
            Ok(_) => Answer::Unknown(Reason::Deferred),
            Err(broken) => return Turned::Broken(broken).answer_of_a_mailbox(),
        };
        dialogue.leave();
        answer
    }

    /// Reads the greeting and says EHLO.
    async fn meet(&self, dialogue: &mut Dialogue) -> Result<Said, Turned> {
        let greeting = dialogue.reply().await.map_err(Turned::Broken)?;
        if greeting.code != 220 {
            return Err(Turned::Said(greeting));
        }
        let said = dialogue.greet(&self.hostname).await.map_err(Turned::Broken)?;
        if said.class() == 2 { Ok(said) } else { Err(Turned::Said(said)) }
    }
}

/// How a server turned us away before the question.
#[derive(Clone, Copy, Debug)]
enum Turned {
    Said(Said),
    Broken(Broken),
}

impl Turned {
    fn answer(self) -> Answer {
        match self {
            Self::Said(said) if said.class() == 4 => Answer::Unknown(Reason::RejectedBeforeRcpt),
            Self::Said(said) => Answer::No(Reason::RejectedBeforeRcpt, Some(said.to_string())),
            Self::Broken(Broken::Stalled) => Answer::No(Reason::EstablishedButStalled, None),
            Self::Broken(Broken::Nonsense) => Answer::No(Reason::RejectedBeforeRcpt, None),
            Self::Broken(Broken::Closed) => Answer::Unknown(Reason::RejectedBeforeRcpt),
        }
    }

    /// Of the mailbox it says nothing, unless the server cannot be talked to at all.
    fn answer_of_a_mailbox(self) -> Answer {
        match self {
            Self::Broken(Broken::Stalled) => Answer::No(Reason::EstablishedButStalled, None),
            Self::Said(_) | Self::Broken(_) => Answer::Unknown(Reason::RejectedBeforeRcpt),
        }
    }
}

/// Says something that fills a segment of any usual path MTU (1280 to 1500 octets), and waits until all of it is answered:
/// then large segments of ours get through. A path MTU black hole lets the handshake and EHLO pass and stalls here. Whether
/// large segments of theirs get through it cannot tell: an EHLO reply is rarely large.
///
/// It is four NOOPs (RFC 5321 §4.1.1.9, whose argument is ignored) of no more than 512 octets each, in one write, to a
/// server that offers PIPELINING. RFC 2920 §3.1 wants a NOOP at the end of a group only. Servers that pipeline at all
/// answer them, but a strict one may take offence; there is nothing else that is long, changes nothing and is in order. So
/// it is done only where the operator says so (`[lookup] probe_large_segments`). What the answers are does not matter.
async fn large(dialogue: &mut Dialogue) -> Result<(), Broken> {
    let noop = format!("NOOP {}\r\n", "x".repeat(ARGUMENT));
    dialogue.say(noop.repeat(NOOPS).as_bytes()).await?;
    for _ in 0..NOOPS {
        match dialogue.reply().await {
            Ok(_) => {}
            // It took offence, and for that it has to have read.
            Err(Broken::Closed | Broken::Nonsense) => return Ok(()),
            Err(stalled) => return Err(stalled),
        }
    }
    Ok(())
}

/// A path that can be said within `<>`: nothing in it ends the command or the path.
pub(super) fn is_path(path: &str) -> bool {
    let plain = |octet| (b' '..=b'~').contains(&octet) && !matches!(octet, b'<' | b'>');
    !path.is_empty() && path.len() <= MAX_PATH && path.bytes().all(plain)
}
