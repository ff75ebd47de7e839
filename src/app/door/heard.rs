//! What the relay's own sessions tell of the way in: messages that were taken, sessions that stalled.

use std::sync::{Mutex, PoisonError};

use crate::addr::{Family, Networks, is_global};
use crate::engine::{Event, Observe, Outcome, SessionRecord};
use crate::policy::door::StalledSessions;
use crate::smtp::Verb;
use crate::time::Timestamp;

/// Told of sessions; asked by the keeper.
#[derive(Debug, Default)]
pub(in crate::app) struct Heard {
    /// They prove nothing: monitoring, the vantage.
    exempt: Networks,
    /// By family.
    of: Mutex<[Of; Family::ALL.len()]>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Of {
    /// When the latest session from outside ended in which a message got its 250.
    pub(super) accepted: Option<Timestamp>,
    /// Those since.
    pub(super) stalled: Option<StalledSessions>,
}

impl Heard {
    pub(in crate::app) fn new(exempt: Networks) -> Self {
        Self { exempt, of: Mutex::default() }
    }

    pub(super) fn of(&self, family: Family) -> Of {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)[family as usize]
    }

    /// The door turned: what stalled before it has been judged.
    pub(super) fn forget_stalled(&self, family: Family) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)[family as usize].stalled = None;
    }
}

impl Observe for Heard {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, record: &SessionRecord) {
        let client = record.client.address;
        if !is_global(client) || self.exempt.contains(client) {
            return;
        }
        let end = record.start + record.duration;
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let of = &mut all[record.family as usize];
        if accepted(record) {
            of.accepted = of.accepted.max(Some(end));
            of.stalled = None;
        } else if stalled(record) {
            let before = of.stalled.unwrap_or(StalledSessions {
                sessions: 0,
                since: record.start,
                last: end,
            });
            of.stalled = Some(StalledSessions {
                sessions: before.sessions.saturating_add(1),
                since: before.since.min(record.start),
                last: before.last.max(end),
            });
        }
    }
}

fn accepted(record: &SessionRecord) -> bool {
    let codes = record.smtp.transactions.iter().filter_map(|transaction| transaction.data_code);
    codes.into_iter().any(|code| (200..300).contains(&code))
}

/// Content was to come, and its end did not before somebody gave up: the client, or the gateway with its 421.
fn stalled(record: &SessionRecord) -> bool {
    let begun = record.smtp.replies.contains_key(&354)
        || record.smtp.commands.get(&Verb::Bdat).is_some_and(|count| *count > 0);
    let gave_up = |code: Option<u16>| match record.outcome {
        Outcome::ClientClosed => code.is_none(),
        Outcome::Timeout => code.is_none_or(|code| code == 421),
        _ => false,
    };
    let last = record.smtp.transactions.last();
    // Once the end of data was there, it is upstream that did not answer.
    let is_whole = record.smtp.phases.data.is_some();
    begun && !is_whole && last.is_some_and(|last| gave_up(last.deciding_code()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{Endpoint, SmtpFacts, TcpFacts, TransactionRecord, VerdictRecord};
    use crate::policy::PolicyAction;

    /// A session that came to DATA, from second `start` on, for 5 s.
    fn session(client: &str, start: u64, outcome: Outcome, code: Option<u16>) -> SessionRecord {
        let address = client.parse().unwrap();
        let end = Endpoint { address, port: 25 };
        let transaction = TransactionRecord { data_code: code, ..TransactionRecord::default() };
        SessionRecord {
            start: Timestamp::from_nanos(start * 1_000_000_000),
            duration: Duration::from_secs(5),
            family: Family::of(address),
            client: end,
            server: end,
            upstream: None,
            outcome,
            tcp: TcpFacts::default(),
            smtp: SmtpFacts {
                transactions: vec![transaction],
                replies: [(354, 1)].into(),
                ..SmtpFacts::default()
            },
            facts: None,
            verdict: VerdictRecord {
                action: PolicyAction::Accept,
                rule: None,
                reason: None,
                shadow: Vec::new(),
            },
        }
    }

    #[test]
    fn what_comes_through_and_what_stalls() {
        let heard = Heard::new(Networks::new(["2001:db8:7::/64".parse().unwrap()]));
        let seconds = |at: Timestamp| at.as_nanos() / 1_000_000_000;
        let stalls = || heard.of(Family::Ipv6).stalled.map_or(0, |stalled| stalled.sessions);
        let (client, gone) = ("2001:db8::1", Outcome::ClientClosed);
        for (session, expected) in [
            // Nobody outside, or nobody who counts.
            (session("::1", 1, gone, None), 0),
            (session("2001:db8:7::1", 1, gone, None), 0),
            (session("192.0.2.1", 1, gone, None), 0),
            // Refused, or ended by others.
            (session(client, 1, gone, Some(550)), 0),
            (session(client, 1, Outcome::UpstreamClosed, None), 0),
            (session(client, 10, Outcome::Timeout, Some(421)), 1),
            (session(client, 20, gone, None), 2),
            (session(client, 30, Outcome::Quit, Some(250)), 0),
            (session(client, 40, gone, None), 1),
        ] {
            heard.session(&session);
            assert_eq!(stalls(), expected, "{} {:?}", session.client.address, session.outcome);
        }
        assert_eq!(heard.of(Family::Ipv6).accepted.map(seconds), Some(35));
        assert_eq!(heard.of(Family::Ipv4).accepted, None);
        heard.forget_stalled(Family::Ipv6);
        assert_eq!(stalls(), 0);
    }
}
