//! Fall-backs: an IPv6 attempt that came to nothing, and the IPv4 attempt that the same client made instead.
//!
//! The two attempts have different addresses at both ends, so each end must be shown to be the same, and when that is in
//! doubt nothing is said:
//!
//! - *The same server*: both addresses belong to one name ([`ServerMatch::Names`]); or the names of one of them are not known, and
//!   the IPv4 attempt came soon after ([`ServerMatch::Window`]). Where both are known and share no name, or the ports differ, it
//!   is another server.
//! - *The same client*: both addresses belong to one name; or both said the same HELO, which must be a host name with a
//!   domain; or one of them said none (a SYN that nobody answers carries no HELO) and there is no other client to confuse
//!   it with: no other IPv4 client tried that server in the time, and no other IPv6 client was failing.
//! - Without names, all that the client tried over IPv4 in the time must be one server: a busy sender tries many.
//!
//! The time counts from when the client gave up. That is the attempt's last packet, except where it waited for an answer:
//! each wait is twice the one before (RFC 6298 §5.5), so the silence after the last SYN lasts no longer than all before
//! it and a second. Postfix gives up after 30 s (`smtp_connect_timeout`), the kernel after 127 s; both are covered.
//!
//! An IPv6 attempt that succeeded is no fall-back. One that was given up without a word, while an IPv4 attempt begun
//! within 300 ms went on, lost a race (RFC 8305 §5: 250 ms between attempts). A SYN that was never answered is a failure
//! also where there was a race: a slow answer would be in the capture.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::direction::MailDirection;
use crate::addr::Family;
use crate::label::labels;
use crate::time::Timestamp;

/// From giving up to the IPv4 attempt, where names tie the servers: five other addresses (`smtp_mx_address_limit`) may
/// be tried before, 30 s each, and a large sender defers for some minutes after a 4xx.
const NAMED: Duration = Duration::from_secs(300);
/// The same where only time does: an MTA tries its next address at once.
const UNNAMED: Duration = Duration::from_secs(10);
/// Attempts are told when they are over. A session longer than this may come too late to be found.
const LONGEST_SESSION: Duration = Duration::from_secs(300);
/// The last packets of an attempt that the server ended may follow the client's next attempt.
const SLACK: Duration = Duration::from_secs(1);
/// Attempts begun within this time of each other race.
const RACE: Duration = Duration::from_millis(300);
/// How long an IPv4 attempt is remembered from its start: a waiting IPv6 attempt may be told this late.
const MEMORY: Duration = Duration::from_secs(900);
/// Attempts of each family that are kept, some 200 octets each and their HELO. The oldest go first.
const MAX_KEPT: usize = 4096;
/// Octets of a HELO that are kept.
const MAX_HELO: usize = 255;

/// Whether the capture's DNS answers gave two addresses to one name; `None` if it has no name for one of them.
pub type SharesName<'a> = &'a dyn Fn(IpAddr, IpAddr) -> Option<bool>;

/// One attempt of a client to bring mail to a server, when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Of the flow; no two are the same.
    pub number: u64,
    pub client: IpAddr,
    pub server: SocketAddr,
    pub start: Timestamp,
    /// The last packet.
    pub end: Timestamp,
    pub direction: MailDirection,
    pub ended: DeliveryOutcome,
    /// The argument of HELO or EHLO, if one was said.
    pub helo: Option<String>,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// No answer to the SYN.
    Unanswered,
    /// RST in answer to the SYN.
    Refused,
    /// An ICMP error in answer to the SYN.
    Unreachable,
    /// Large segments were lost again and again.
    BlackHole,
    /// RST after the handshake.
    Reset,
    /// The greeting was this 4xx or 5xx.
    GreetingRefused(u16),
    /// No recipient or message was accepted, and this was the reply.
    EnvelopeRefused(u16),
    /// A message was accepted.
    Accepted,
    /// Anything else, such as a session that went on under TLS.
    Other,
}

labels! {
    /// Why IPv6 was given up.
    pub enum FallbackReason {
        Unanswered = "unanswered",
        Refused = "refused",
        Unreachable = "unreachable",
        BlackHole = "black_hole",
        Reset = "reset",
        Greeting = "greeting",
        Envelope = "envelope",
        /// Nothing was wrong with it; IPv4 was faster.
        Race = "race",
    }
}

labels! {
    /// Evidence that both attempts went to the same server.
    pub enum ServerMatch {
        /// Both addresses belong to one name.
        Names = "names",
        /// The one attempt followed soon after the other.
        Window = "window",
    }
}

/// A client left IPv6 for IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The IPv6 attempt.
    pub from: u64,
    /// The first IPv4 attempt after it.
    pub to: u64,
    /// When that one began.
    pub at: Timestamp,
    /// Which way the IPv6 attempt went.
    pub direction: MailDirection,
    /// From the start of the IPv6 attempt to the start of the IPv4 attempt: what it cost the mail.
    pub after: Duration,
    pub why: FallbackReason,
    /// The reply, where one was why.
    pub code: Option<u16>,
    pub by: ServerMatch,
}

impl Attempt {
    pub fn family(&self) -> Family {
        Family::of(self.server.ip())
    }

    /// Why it may have been left for IPv4; `None` if it succeeded or it cannot be told.
    fn why(&self) -> Option<(FallbackReason, Option<u16>)> {
        Some(match self.ended {
            DeliveryOutcome::Unanswered => (FallbackReason::Unanswered, None),
            DeliveryOutcome::Refused => (FallbackReason::Refused, None),
            DeliveryOutcome::Unreachable => (FallbackReason::Unreachable, None),
            DeliveryOutcome::BlackHole => (FallbackReason::BlackHole, None),
            DeliveryOutcome::Reset => (FallbackReason::Reset, None),
            DeliveryOutcome::GreetingRefused(code) => (FallbackReason::Greeting, Some(code)),
            DeliveryOutcome::EnvelopeRefused(code) => (FallbackReason::Envelope, Some(code)),
            DeliveryOutcome::Other if self.helo.is_none() => (FallbackReason::Race, None),
            DeliveryOutcome::Other | DeliveryOutcome::Accepted => return None,
        })
    }

    /// The client waited for something that did not come.
    const fn waited(&self) -> bool {
        matches!(
            self.ended,
            DeliveryOutcome::Unanswered | DeliveryOutcome::Unreachable | DeliveryOutcome::BlackHole
        )
    }

    /// No earlier can an attempt begin that this one is the reason of.
    fn earliest_next(&self) -> Timestamp {
        if self.waited() || self.ended == DeliveryOutcome::Other {
            return self.start;
        }
        self.start + self.end.since(self.start).saturating_sub(SLACK)
    }

    /// No later did the client give up.
    fn given_up(&self) -> Timestamp {
        if self.waited() {
            self.end + self.end.since(self.start) + Duration::from_secs(1)
        } else {
            self.end
        }
    }
}

/// An IPv6 attempt that may have been left for IPv4.
#[derive(Debug)]
struct Left {
    attempt: Attempt,
    why: FallbackReason,
    code: Option<u16>,
    /// Another IPv6 client was failing at the same time: at this server, and at any.
    crowded_here: bool,
    crowded: bool,
}

/// What ties two clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tie {
    Shown,
    /// Nothing speaks against it.
    Possible,
    No,
}

/// Finds fall-backs among attempts, which may be told in any order.
#[derive(Debug, Default)]
pub struct FallbackDetector {
    /// IPv6, by the time at which everything about them is known, and number.
    left: BTreeMap<(Timestamp, u64), Left>,
    /// IPv4, by start and number.
    tried: BTreeMap<(Timestamp, u64), Attempt>,
    forgotten: u64,
}

impl FallbackDetector {
    pub fn new() -> Self {
        Self::default()
    }

    /// IPv6 attempts that were forgotten before it could be told whether they were fall-backs, for want of room.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub fn push(&mut self, mut attempt: Attempt) {
        if attempt.helo.as_ref().is_some_and(|helo| helo.len() > MAX_HELO) {
            // No host name is that long.
            attempt.helo = Some(String::new());
        }
        match attempt.family() {
            Family::Ipv4 => {
                self.tried.insert((attempt.start, attempt.number), attempt);
                if self.tried.len() > MAX_KEPT {
                    self.tried.pop_first();
                }
            }
            Family::Ipv6 => {
                if let Some((why, code)) = attempt.why() {
                    self.wait(Left { attempt, why, code, crowded_here: false, crowded: false });
                }
            }
        }
    }

    fn wait(&mut self, mut new: Left) {
        for other in self.left.values_mut() {
            let apart = |a: &Attempt, b: &Attempt| a.given_up() + NAMED < b.start;
            if other.attempt.client == new.attempt.client
                || apart(&other.attempt, &new.attempt)
                || apart(&new.attempt, &other.attempt)
            {
                continue;
            }
            let here = other.attempt.server == new.attempt.server;
            for left in [other, &mut new] {
                left.crowded = true;
                left.crowded_here |= here;
            }
        }
        let known = new.attempt.given_up() + NAMED + LONGEST_SESSION;
        self.left.insert((known, new.attempt.number), new);
        if self.left.len() > MAX_KEPT {
            self.left.pop_first();
            self.forgotten += 1;
        }
    }

    /// It is `now`: what can be told by now goes to `found`.
    pub fn advance(
        &mut self,
        now: Timestamp,
        share: SharesName<'_>,
        found: &mut dyn FnMut(Fallback),
    ) {
        while let Some(first) = self.left.first_entry()
            && first.key().0 < now
        {
            let left = first.remove();
            self.decide(&left, share, found);
        }
        while let Some(first) = self.tried.first_entry()
            && first.key().0 + MEMORY < now
        {
            first.remove();
        }
    }

    /// No attempt follows.
    pub fn finish(&mut self, share: SharesName<'_>, found: &mut dyn FnMut(Fallback)) {
        while let Some((_, left)) = self.left.pop_first() {
            self.decide(&left, share, found);
        }
        self.tried.clear();
    }

    fn decide(&self, left: &Left, share: SharesName<'_>, found: &mut dyn FnMut(Fallback)) {
        let next = self.next(left, ServerMatch::Names, share);
        let next = next.map(|next| (next, ServerMatch::Names));
        let next = next
            .or_else(|| Some((self.next(left, ServerMatch::Window, share)?, ServerMatch::Window)));
        if let Some((next, by)) = next {
            found(Fallback {
                from: left.attempt.number,
                to: next.number,
                at: next.start,
                direction: left.attempt.direction,
                after: next.start.since(left.attempt.start),
                why: left.why,
                code: left.code,
                by,
            });
        }
    }

    /// The first IPv4 attempt that was made instead, if that is beyond doubt.
    fn next(&self, left: &Left, by: ServerMatch, share: SharesName<'_>) -> Option<&Attempt> {
        let six = &left.attempt;
        let latest = match (left.why, by) {
            (FallbackReason::Race, _) => (six.start + RACE).min(six.end),
            (_, ServerMatch::Names) => six.given_up() + NAMED,
            (_, ServerMatch::Window) => six.given_up() + UNNAMED,
        };
        let crowded = match by {
            ServerMatch::Names => left.crowded_here,
            ServerMatch::Window => left.crowded,
        };
        let same_server = match by {
            ServerMatch::Names => Some(true),
            ServerMatch::Window => None,
        };
        let earliest = six.earliest_next();
        if earliest > latest {
            return None;
        }
        let (mut shown, mut possible) = (First::None, First::None);
        for four in self.tried.range((earliest, 0)..=(latest, u64::MAX)).map(|(_, four)| four) {
            if four.server.port() != six.server.port()
                || (left.why == FallbackReason::Race && four.why().is_some())
            {
                continue;
            }
            if share(six.server.ip(), four.server.ip()) != same_server {
                continue;
            }
            match tie(six, four, share) {
                // Names are enough to tell one of many servers.
                Tie::Shown => {
                    shown.is(four, |first| by == ServerMatch::Names || first.server == four.server)
                }
                Tie::Possible if !crowded => possible.is(four, |first| {
                    first.client == four.client
                        && (by == ServerMatch::Names || first.server == four.server)
                }),
                Tie::Possible | Tie::No => {}
            }
        }
        match shown {
            First::Of(four) => Some(four),
            First::Doubtful => None,
            First::None => match possible {
                First::Of(four) => Some(four),
                First::Doubtful | First::None => None,
            },
        }
    }
}

/// The first of several attempts that must be alike.
enum First<'a> {
    None,
    Of(&'a Attempt),
    Doubtful,
}

impl<'a> First<'a> {
    fn is(&mut self, attempt: &'a Attempt, alike: impl Fn(&Attempt) -> bool) {
        match *self {
            Self::None => *self = Self::Of(attempt),
            Self::Of(first) if !alike(first) => *self = Self::Doubtful,
            Self::Of(_) | Self::Doubtful => {}
        }
    }
}

fn tie(six: &Attempt, four: &Attempt, share: SharesName<'_>) -> Tie {
    match share(six.client, four.client) {
        Some(true) => return Tie::Shown,
        Some(false) => return Tie::No,
        None => {}
    }
    match (six.helo.as_deref(), four.helo.as_deref()) {
        (Some(a), Some(b)) if !a.eq_ignore_ascii_case(b) => Tie::No,
        (Some(a), Some(_)) if is_telling(a) => Tie::Shown,
        _ => Tie::Possible,
    }
}

/// A host name with a domain, as one host has it and not many.
fn is_telling(helo: &str) -> bool {
    let helo = helo.trim_end_matches('.').to_ascii_lowercase();
    let local = ["localdomain", "local", "localhost", "lan", "home", "internal"];
    match helo.rsplit_once('.') {
        Some((_, last)) => !local.contains(&last) && !helo.starts_with('['),
        None => false,
    }
}
