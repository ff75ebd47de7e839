//! Detection of fallbacks among attempts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::attempt::{Attempt, Fallback, FallbackReason, ServerMatch};
use crate::addr::Family;
use crate::time::Timestamp;

/// From giving up to the IPv4 attempt, if names match the servers: five other addresses (`smtp_mx_address_limit`) may be
/// tried before, 30 s each, and a large sender defers for some minutes after a 4xx.
const WINDOW_WITH_NAMES: Duration = Duration::from_secs(300);
/// The same without names: an MTA tries its next address at once.
const WINDOW_WITHOUT_NAMES: Duration = Duration::from_secs(10);
/// Attempts are known when they are finished. A longer session may be known too late to be matched.
const LONGEST_SESSION: Duration = Duration::from_secs(300);
/// Attempts begun within this time of each other race.
const RACE: Duration = Duration::from_millis(300);
/// How long after its start an IPv4 attempt is kept: a pending IPv6 attempt may be known this late.
const IPV4_MEMORY: Duration = Duration::from_secs(900);
/// Attempts of each family that are kept, about 200 bytes each and their HELO. The oldest are evicted first.
pub(super) const MAX_KEPT: usize = 4096;
/// Octets of a HELO that are kept.
const MAX_HELO: usize = 255;

/// Whether two addresses belong to one name by the DNS answers in the capture; `None` if one of them has no known name.
pub type SharesName<'a> = &'a dyn Fn(IpAddr, IpAddr) -> Option<bool>;

/// An IPv6 attempt that may have led to a fallback.
#[derive(Debug)]
pub(super) struct PendingAttempt {
    attempt: Attempt,
    reason: FallbackReason,
    code: Option<u16>,
    /// Another IPv6 client was failing at the same time, at this server.
    crowded_here: bool,
    /// The same at any server.
    crowded: bool,
}

/// Whether two attempts have the same client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientMatch {
    Same,
    /// Nothing contradicts it.
    Possible,
    Different,
}

/// Finds fallbacks among attempts, which may arrive in any order.
#[derive(Debug, Default)]
pub struct FallbackDetector {
    /// IPv6, by the time at which all possible fallbacks are known, and number.
    pub(super) pending: BTreeMap<(Timestamp, u64), PendingAttempt>,
    /// IPv4, by start and number.
    pub(super) ipv4: BTreeMap<(Timestamp, u64), Attempt>,
    evicted: u64,
}

impl FallbackDetector {
    pub fn new() -> Self {
        Self::default()
    }

    /// Pending IPv6 attempts that were evicted.
    pub const fn forgotten(&self) -> u64 {
        self.evicted
    }

    pub fn push(&mut self, mut attempt: Attempt) {
        if attempt.helo.as_ref().is_some_and(|helo| helo.len() > MAX_HELO) {
            // Longer than any host name: it identifies no client.
            attempt.helo = Some(String::new());
        }
        match attempt.family() {
            Family::Ipv4 => {
                self.ipv4.insert((attempt.start, attempt.number), attempt);
                if self.ipv4.len() > MAX_KEPT {
                    self.ipv4.pop_first();
                }
            }
            Family::Ipv6 => {
                if let Some((reason, code)) = attempt.fallback_reason() {
                    let (crowded_here, crowded) = (false, false);
                    self.hold(PendingAttempt { attempt, reason, code, crowded_here, crowded });
                }
            }
        }
    }

    fn hold(&mut self, mut new: PendingAttempt) {
        for other in self.pending.values_mut() {
            let apart = |a: &Attempt, b: &Attempt| a.given_up() + WINDOW_WITH_NAMES < b.start;
            if other.attempt.client == new.attempt.client
                || apart(&other.attempt, &new.attempt)
                || apart(&new.attempt, &other.attempt)
            {
                continue;
            }
            let here = other.attempt.server == new.attempt.server;
            for pending in [other, &mut new] {
                pending.crowded = true;
                pending.crowded_here |= here;
            }
        }
        let due = new.attempt.given_up() + WINDOW_WITH_NAMES + LONGEST_SESSION;
        self.pending.insert((due, new.attempt.number), new);
        if self.pending.len() > MAX_KEPT {
            self.pending.pop_first();
            self.evicted += 1;
        }
    }

    /// Passes the fallbacks that are certain at `now` to `found`.
    pub fn advance(
        &mut self,
        now: Timestamp,
        shares_name: SharesName<'_>,
        found: &mut dyn FnMut(Fallback),
    ) {
        while let Some(first) = self.pending.first_entry()
            && first.key().0 < now
        {
            let pending = first.remove();
            self.resolve(&pending, shares_name, found);
        }
        while let Some(first) = self.ipv4.first_entry()
            && first.key().0 + IPV4_MEMORY < now
        {
            first.remove();
        }
    }

    /// The end of the input.
    pub fn finish(&mut self, shares_name: SharesName<'_>, found: &mut dyn FnMut(Fallback)) {
        while let Some((_, pending)) = self.pending.pop_first() {
            self.resolve(&pending, shares_name, found);
        }
        self.ipv4.clear();
    }

    fn resolve(
        &self,
        pending: &PendingAttempt,
        shares_name: SharesName<'_>,
        found: &mut dyn FnMut(Fallback),
    ) {
        let next = ServerMatch::ALL
            .into_iter()
            .find_map(|by| Some((self.next_attempt(pending, by, shares_name)?, by)));
        if let Some((next, by)) = next {
            found(Fallback {
                from: pending.attempt.number,
                to: next.number,
                at: next.start,
                direction: pending.attempt.direction,
                after: next.start.since(pending.attempt.start),
                why: pending.reason,
                code: pending.code,
                by,
            });
        }
    }

    /// The first IPv4 attempt made instead, if it is unambiguous.
    fn next_attempt(
        &self,
        pending: &PendingAttempt,
        by: ServerMatch,
        shares_name: SharesName<'_>,
    ) -> Option<&Attempt> {
        let six = &pending.attempt;
        let latest = match (pending.reason, by) {
            (FallbackReason::Race, _) => (six.start + RACE).min(six.end),
            (_, ServerMatch::Names) => six.given_up() + WINDOW_WITH_NAMES,
            (_, ServerMatch::Window) => six.given_up() + WINDOW_WITHOUT_NAMES,
        };
        let (crowded, same_server) = match by {
            ServerMatch::Names => (pending.crowded_here, Some(true)),
            ServerMatch::Window => (pending.crowded, None),
        };
        let earliest = six.earliest_next();
        if earliest > latest {
            return None;
        }
        let (mut certain, mut possible) = (Candidate::None, Candidate::None);
        for four in self.ipv4.range((earliest, 0)..=(latest, u64::MAX)).map(|(_, four)| four) {
            if four.server.port() != six.server.port()
                || (pending.reason == FallbackReason::Race && four.fallback_reason().is_some())
            {
                continue;
            }
            if shares_name(six.server.ip(), four.server.ip()) != same_server {
                continue;
            }
            match client_match(six, four, shares_name) {
                // With names, the server is the right one even if the client tried several.
                ClientMatch::Same => certain
                    .add(four, |first| by == ServerMatch::Names || first.server == four.server),
                ClientMatch::Possible if !crowded => possible.add(four, |first| {
                    first.client == four.client
                        && (by == ServerMatch::Names || first.server == four.server)
                }),
                ClientMatch::Possible | ClientMatch::Different => {}
            }
        }
        match (certain, possible) {
            (Candidate::First(four), _) | (Candidate::None, Candidate::First(four)) => Some(four),
            _ => None,
        }
    }
}

/// The first of several attempts, unless these contradict each other.
enum Candidate<'a> {
    None,
    First(&'a Attempt),
    Ambiguous,
}

impl<'a> Candidate<'a> {
    fn add(&mut self, attempt: &'a Attempt, agrees: impl Fn(&Attempt) -> bool) {
        match *self {
            Self::None => *self = Self::First(attempt),
            Self::First(first) if !agrees(first) => *self = Self::Ambiguous,
            Self::First(_) | Self::Ambiguous => {}
        }
    }
}

fn client_match(six: &Attempt, four: &Attempt, shares_name: SharesName<'_>) -> ClientMatch {
    match shares_name(six.client, four.client) {
        Some(true) => return ClientMatch::Same,
        Some(false) => return ClientMatch::Different,
        None => {}
    }
    match (six.helo.as_deref(), four.helo.as_deref()) {
        (Some(a), Some(b)) if !a.eq_ignore_ascii_case(b) => ClientMatch::Different,
        (Some(a), Some(_)) if identifies_a_host(a) => ClientMatch::Same,
        _ => ClientMatch::Possible,
    }
}

/// A host name with a public domain, which one host has and not many.
fn identifies_a_host(helo: &str) -> bool {
    let helo = helo.trim_end_matches('.').to_ascii_lowercase();
    let local = ["localdomain", "local", "localhost", "lan", "home", "internal"];
    match helo.rsplit_once('.') {
        Some((_, last)) => !local.contains(&last) && !helo.starts_with('['),
        None => false,
    }
}
