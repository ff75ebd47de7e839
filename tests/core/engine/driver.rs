//! A driver for the engine without sockets: does what the contract in `src/engine/mod.rs` asks of the relay, and checks what
//! the contract promises it.

#![allow(dead_code, reason = "each of its users needs a part of it")]

use std::sync::Arc;
use std::time::Duration;

use gatepost::addr::{ClientAddr, OriginalDst, UpstreamAddr};
use gatepost::engine::{
    Action, Event, Observer, Outcome, Output, Profile, Proxy, SessionRecord, Side, TcpFacts,
    Timeouts, evaluate_record,
};
use gatepost::policy;
use gatepost::policy::facts::{Lookup, LookupResult};
use gatepost::time::Timestamp;

/// 2026-01-02T03:04:05Z.
pub(crate) const START: Timestamp = Timestamp::from_nanos(1_767_323_045_000_000_000);

/// What a capture on the client's leg holds.
enum Captured {
    Data(Side, Vec<u8>),
    Closed(Side),
}

pub(crate) struct Driver {
    engine: Proxy,
    observer: Observer,
    captured: Vec<(Timestamp, Captured)>,
    profile: Arc<Profile>,
    /// Requested, and not answered yet.
    pub(crate) needs: Vec<Lookup>,
    asked: Vec<Lookup>,
    out: Output,
    now: Timestamp,
    /// Whether bytes that need not be looked at are passed without showing them, as with splice(2).
    splice: bool,
    from_client: Vec<u8>,
    from_upstream: Vec<u8>,
    client_said: Vec<u8>,
    upstream_said: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) to_upstream: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) closed: bool,
    abandoned: bool,
    shut_upstream: bool,
    shut_client: bool,
}

impl Driver {
    /// A session whose upstream took the connection, if it needs one.
    pub(crate) fn new(
        profile: Profile,
        timeouts: Timeouts,
        client: &str,
        destination: &str,
        splice: bool,
    ) -> Self {
        let client = ClientAddr::new(client.parse().unwrap());
        let destination = OriginalDst::new(destination.parse().unwrap());
        let profile = Arc::new(profile);
        let mut driver = Self {
            profile: Arc::clone(&profile),
            needs: Vec::new(),
            asked: Vec::new(),
            engine: Proxy::new(Arc::clone(&profile), timeouts, client, destination, START),
            observer: Observer::new(profile, client, destination, START, false),
            captured: Vec::new(),
            out: Output::default(),
            now: START,
            splice,
            from_client: Vec::new(),
            from_upstream: Vec::new(),
            client_said: Vec::new(),
            upstream_said: Vec::new(),
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            events: Vec::new(),
            closed: false,
            abandoned: false,
            shut_upstream: false,
            shut_client: false,
        };
        let needs_upstream = driver.engine.open(None, &mut driver.out);
        driver.carry_out(&[], Side::Client);
        if needs_upstream {
            let upstream = UpstreamAddr::new("[2001:db8::25]:25".parse().unwrap());
            driver.engine.on_connected(upstream, START, &mut driver.out);
            driver.carry_out(&[], Side::Client);
        } else {
            driver.abandoned = true;
        }
        driver
    }

    pub(crate) fn client_says(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        self.capture(Captured::Data(Side::Client, bytes.to_vec()));
        self.client_said.extend_from_slice(bytes);
        let passed = self.pass(Side::Client, self.from_client.is_empty(), bytes);
        self.from_client.extend_from_slice(bytes.get(passed..).unwrap_or_default());
        self.offer_client();
    }

    pub(crate) fn upstream_says(&mut self, bytes: &[u8]) {
        if self.closed || self.abandoned {
            return;
        }
        self.upstream_said.extend_from_slice(bytes);
        let passed = self.pass(Side::Server, self.from_upstream.is_empty(), bytes);
        self.from_upstream.extend_from_slice(bytes.get(passed..).unwrap_or_default());
        self.offer_upstream();
        self.offer_client();
    }

    /// What was asked is answered, by `answer`, in the order that `order` picks: the place among what is open.
    pub(crate) fn answer(&mut self, order: usize, answer: impl FnOnce(&Lookup) -> LookupResult) {
        if self.needs.is_empty() {
            return;
        }
        let lookup = self.needs.remove(order % self.needs.len());
        let answered = answer(&lookup);
        if self.closed {
            return;
        }
        self.engine.on_answers(vec![(lookup, answered)], self.now, &mut self.out);
        self.carry_out(&[], Side::Client);
        self.offer_both();
    }

    pub(crate) fn client_closes(&mut self) {
        if !self.closed {
            self.capture(Captured::Closed(Side::Client));
            self.engine.on_closed(Side::Client, &mut self.out);
            self.carry_out(&[], Side::Client);
            self.offer_client();
        }
    }

    pub(crate) fn upstream_closes(&mut self) {
        if !self.closed && !self.abandoned {
            self.engine.on_closed(Side::Server, &mut self.out);
            self.carry_out(&[], Side::Server);
            self.offer_client();
        }
    }

    /// Time passes; the engine is woken at its deadlines.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.engine.deadline()
            && deadline <= end
        {
            self.now = deadline;
            self.engine.on_timeout(self.now, &mut self.out);
            self.carry_out(&[], Side::Client);
            self.offer_both();
            assert_ne!(
                self.engine.deadline(),
                Some(deadline),
                "a deadline must move when it was met"
            );
        }
        self.now = end;
        let before = self.out.actions.len();
        self.engine.on_timeout(self.now, &mut self.out);
        assert_eq!(self.out.actions.len(), before, "nothing is due before the deadline");
    }

    pub(crate) fn drain(&mut self) {
        if !self.closed {
            self.engine.drain(&mut self.out);
            self.carry_out(&[], Side::Client);
        }
    }

    pub(crate) fn abort(&mut self, outcome: Outcome) {
        if !self.closed {
            self.engine.abort(outcome, &mut self.out);
            self.carry_out(&[], Side::Client);
        }
    }

    pub(crate) fn finish(&mut self) -> SessionRecord {
        let record = self.engine.finish(self.now, &mut self.out);
        self.events.append(&mut self.out.events);
        record
    }

    fn capture(&mut self, what: Captured) {
        self.captured.push((self.now, what));
    }

    /// The record that an observer makes of the client's leg.
    pub(crate) fn observed(&mut self) -> SessionRecord {
        let mut out = Output::default();
        for (at, captured) in std::mem::take(&mut self.captured) {
            match captured {
                Captured::Data(from, octets) => self.observer.on_data(from, &octets, at, &mut out),
                Captured::Closed(from) => self.observer.on_closed(from, at, &mut out),
            }
            assert_eq!(out.actions, [], "a observer says nothing");
        }
        self.observer.finish(TcpFacts::default(), self.now, &mut out)
    }

    /// A decision that the gateway took replays to the same decision.
    #[track_caller]
    pub(crate) fn replays(&mut self, engine: &SessionRecord, what: &str) {
        let observer = self.observed();
        assert_eq!(observer.smtp.transactions, engine.smtp.transactions, "transactions, {what}");
        assert_eq!(observer.smtp.transactions_total, engine.smtp.transactions_total, "{what}");
        if self.engine.answers().is_some() {
            assert_eq!(observer.questions, engine.questions, "questions, {what}");
        }
        self.judged_again(&observer, engine, what);
        if self.is_untouched() && engine.smtp.anomalies.is_empty() {
            let mut told = engine.smtp.clone();
            told.phases.connect = None; // The observer knows of one connection.
            assert_eq!(observer.smtp, told, "what was said, {what}");
            assert_eq!((observer.start, observer.duration), (engine.start, engine.duration));
            if let Outcome::Quit | Outcome::ClientClosed | Outcome::UpstreamClosed = engine.outcome
                && self.closed
            {
                assert_eq!(observer.outcome, engine.outcome, "{what}");
            }
        }
    }

    /// With the answers that the gateway had, the record of an observer leads to the same verdict.
    #[track_caller]
    pub(crate) fn judged_again(
        &self,
        observer: &SessionRecord,
        engine: &SessionRecord,
        what: &str,
    ) {
        let mut verdict = engine.verdict.clone();
        if verdict.action == policy::PolicyAction::Accept {
            verdict.reason = None; // Circumstances, which a capture does not tell.
        }
        let known = self.engine.answers().cloned().unwrap_or_default();
        let reviewed = evaluate_record(&self.profile, observer, &known);
        assert_eq!(reviewed.verdict, verdict, "verdict, {what}");
        assert!(reviewed.is_decided, "the answers do not do, {what}");
    }

    /// Each side read what the other said, and nothing else.
    fn is_untouched(&self) -> bool {
        self.to_upstream == self.client_said && self.to_client == self.upstream_said
    }

    /// Bytes that the engine has not consumed.
    pub(crate) fn unconsumed(&self) -> (usize, usize) {
        (self.from_client.len(), self.from_upstream.len())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// What of `bytes` need not be shown to the engine goes on at once.
    fn pass(&mut self, side: Side, nothing_before: bool, bytes: &[u8]) -> usize {
        let passable = usize::try_from(self.engine.splice_budget(side)).unwrap_or(usize::MAX);
        let count = passable.min(bytes.len());
        if !self.splice || !nothing_before || count == 0 {
            return 0;
        }
        self.write(side, &bytes[..count]);
        self.engine.on_spliced(side, count as u64, self.now, &mut self.out);
        self.carry_out(&[], side);
        count
    }

    fn offer_both(&mut self) {
        self.offer_upstream();
        self.offer_client();
    }

    fn offer_upstream(&mut self) {
        if self.closed || self.abandoned {
            return;
        }
        let input = std::mem::take(&mut self.from_upstream);
        let used = self.engine.on_server_data(&input, self.now, &mut self.out);
        self.from_upstream = input[used..].to_vec();
        self.carry_out(&input[..used], Side::Server);
    }

    fn offer_client(&mut self) {
        if self.closed {
            return;
        }
        let input = std::mem::take(&mut self.from_client);
        let used = self.engine.on_client_data(&input, self.now, &mut self.out);
        self.from_client = input[used..].to_vec();
        self.carry_out(&input[..used], Side::Client);
    }

    /// `input`: what the engine consumed of `side`'s bytes in this call.
    fn carry_out(&mut self, input: &[u8], side: Side) {
        for action in std::mem::take(&mut self.out.actions) {
            assert!(!self.closed, "{action:?} after the end");
            match action {
                Action::Forward(range) => self.write(side, &input[range]),
                Action::Insert(bytes) => self.write(side, bytes),
                Action::ToClient(bytes) => self.write(Side::Server, &bytes),
                Action::ToUpstream(bytes) => self.write(Side::Client, &bytes),
                Action::DiscardClient => {
                    let count = std::mem::take(&mut self.from_client).len();
                    self.engine.on_discarded(count, &mut self.out);
                }
                Action::ShutdownUpstream => {
                    assert!(!self.shut_upstream, "shut down twice");
                    self.shut_upstream = true;
                }
                Action::ShutdownClient => {
                    assert!(!self.shut_client, "shut down twice");
                    self.capture(Captured::Closed(Side::Server));
                    self.shut_client = true;
                }
                Action::AbandonUpstream => self.abandoned = true,
                Action::Need(lookups) => {
                    assert!(!lookups.is_empty(), "nothing is asked");
                    for lookup in lookups {
                        assert!(!self.asked.contains(&lookup), "{lookup:?} is asked twice");
                        self.asked.push(lookup.clone());
                        self.needs.push(lookup);
                    }
                }
                Action::Close => {
                    self.capture(Captured::Closed(Side::Server));
                    self.closed = true;
                }
            }
        }
        self.events.append(&mut self.out.events);
        assert_eq!(self.closed, self.engine.is_closing());
        match self.engine.deadline() {
            None => assert!(self.closed, "an open session has a deadline"),
            Some(deadline) => {
                assert!(!self.closed, "a closed session has no deadline");
                assert!(deadline <= self.now + Duration::from_secs(3600));
            }
        }
    }

    /// What goes on from `side` reaches the other.
    fn write(&mut self, side: Side, bytes: &[u8]) {
        match side {
            Side::Client => {
                assert!(!self.abandoned && !self.shut_upstream, "upstream is gone");
                self.to_upstream.extend_from_slice(bytes);
            }
            Side::Server => {
                assert!(!self.shut_client, "the client was told that this is all");
                self.capture(Captured::Data(side, bytes.to_vec()));
                self.to_client.extend_from_slice(bytes);
            }
        }
    }
}
