//! A driver for the engine without sockets: it follows the contract for the relay in `src/engine/mod.rs`, and checks
//! that the engine keeps its side.

#![allow(dead_code, reason = "each of its users needs a part of it")]

use std::sync::Arc;
use std::time::Duration;

use gatepost::addr::{ClientAddr, OriginalDst, UpstreamAddr};
use gatepost::engine::{
    Action, Event, Observer, Outcome, Output, Profile, Proxy, SessionRecord, Side, TcpFacts,
    Timeouts, TlsFacts, TlsMode, TlsVersion, UpstreamTls, UpstreamTlsFailure, UpstreamTlsResult,
    evaluate_record,
};
use gatepost::policy;
use gatepost::policy::facts::{Answers, ClientCertificate, Lookup, LookupResult};
use gatepost::time::Timestamp;

/// 2026-01-02T03:04:05Z.
pub(crate) const START: Timestamp = Timestamp::from_nanos(1_767_323_045_000_000_000);

/// The input of an observer on the client's leg.
enum Captured {
    Data(Side, Vec<u8>),
    Closed(Side),
}

pub(crate) struct Driver {
    engine: Proxy,
    observer: Observer,
    captured: Vec<(Timestamp, Captured)>,
    profile: Arc<Profile>,
    /// Lookups that the engine requested and that are not answered yet.
    pub(crate) needs: Vec<Lookup>,
    /// All that it requested.
    pub(crate) requested: Vec<Lookup>,
    out: Output,
    now: Timestamp,
    /// Whether bytes that the engine need not parse bypass it, as with splice(2).
    splice: bool,
    from_client: Vec<u8>,
    from_upstream: Vec<u8>,
    client_sent: Vec<u8>,
    upstream_sent: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) to_upstream: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) closed: bool,
    /// How often the engine gave up TLS with this upstream for a while.
    pub(crate) avoided_tls: u32,
    /// What the client presents in its handshake.
    pub(crate) client_certificate: Option<ClientCertificate>,
    /// Upstream does not complete the handshake by itself.
    holds_handshake: bool,
    abandoned: bool,
    shut_upstream: bool,
    shut_client: bool,
}

impl Driver {
    /// A session whose upstream accepted the connection, if it needs one.
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
            requested: Vec::new(),
            engine: Proxy::new(Arc::clone(&profile), timeouts, client, destination, START),
            observer: Observer::new(profile, client, destination, START, false),
            captured: Vec::new(),
            out: Output::default(),
            now: START,
            splice,
            from_client: Vec::new(),
            from_upstream: Vec::new(),
            client_sent: Vec::new(),
            upstream_sent: Vec::new(),
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            events: Vec::new(),
            closed: false,
            avoided_tls: 0,
            client_certificate: None,
            holds_handshake: false,
            abandoned: false,
            shut_upstream: false,
            shut_client: false,
        };
        if driver.profile.tls == TlsMode::Implicit {
            driver.engine.begin_implicit_tls(&mut driver.out);
            driver.apply_actions(&[], Side::Client);
        }
        let needs_upstream = driver.engine.open(None, &mut driver.out);
        driver.apply_actions(&[], Side::Client);
        if needs_upstream {
            let upstream = UpstreamAddr::new("[2001:db8::25]:25".parse().unwrap());
            driver.engine.on_connected(upstream, START, &mut driver.out);
            driver.apply_actions(&[], Side::Client);
        } else {
            driver.abandoned = true;
        }
        driver
    }

    /// Handshakes of the client failed again and again.
    pub(crate) fn hide_starttls(&mut self) {
        self.engine.hide_starttls(&mut self.out);
        self.apply_actions(&[], Side::Client);
    }

    /// The gateway uses TLS with upstream in this way, whose handshake is complete at once.
    pub(crate) fn use_upstream_tls(&mut self, level: UpstreamTls) {
        if !self.abandoned {
            self.engine.use_upstream_tls(level);
        }
    }

    /// The handshake stays incomplete until [`Driver::fail_handshake`].
    pub(crate) fn hold_handshake(&mut self) {
        self.holds_handshake = true;
    }

    pub(crate) fn fail_handshake(&mut self, result: UpstreamTlsResult) {
        let failure = UpstreamTlsFailure { result, reason: "as the test has it".to_owned() };
        self.engine.on_upstream_tls_failed(failure, &mut self.out);
        self.apply_actions(&[], Side::Server);
        self.feed_client();
    }

    pub(crate) fn client_sends(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        self.capture(Captured::Data(Side::Client, bytes.to_vec()));
        self.client_sent.extend_from_slice(bytes);
        let spliced = self.splice_through(Side::Client, self.from_client.is_empty(), bytes);
        self.from_client.extend_from_slice(bytes.get(spliced..).unwrap_or_default());
        self.feed_client();
    }

    pub(crate) fn upstream_sends(&mut self, bytes: &[u8]) {
        if self.closed || self.abandoned {
            return;
        }
        self.upstream_sent.extend_from_slice(bytes);
        let spliced = self.splice_through(Side::Server, self.from_upstream.is_empty(), bytes);
        self.from_upstream.extend_from_slice(bytes.get(spliced..).unwrap_or_default());
        self.feed_upstream();
        self.feed_client();
    }

    /// Answers one pending lookup with `answer`; `order` chooses which.
    pub(crate) fn answer(&mut self, order: usize, answer: impl FnOnce(&Lookup) -> LookupResult) {
        if self.needs.is_empty() {
            return;
        }
        let lookup = self.needs.remove(order % self.needs.len());
        let result = answer(&lookup);
        if self.closed {
            return;
        }
        self.engine.on_answers(vec![(lookup, result)], self.now, &mut self.out);
        self.apply_actions(&[], Side::Client);
        self.feed_both();
    }

    pub(crate) fn client_closes(&mut self) {
        if !self.closed {
            self.capture(Captured::Closed(Side::Client));
            self.engine.on_closed(Side::Client, &mut self.out);
            self.apply_actions(&[], Side::Client);
            self.feed_client();
        }
    }

    pub(crate) fn upstream_closes(&mut self) {
        if !self.closed && !self.abandoned {
            self.engine.on_closed(Side::Server, &mut self.out);
            self.apply_actions(&[], Side::Server);
            self.feed_client();
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
            self.apply_actions(&[], Side::Client);
            self.feed_both();
            assert_ne!(
                self.engine.deadline(),
                Some(deadline),
                "a deadline must move once it has passed"
            );
        }
        self.now = end;
        let before = self.out.actions.len();
        self.engine.on_timeout(self.now, &mut self.out);
        assert_eq!(self.out.actions.len(), before, "nothing is due before the deadline");
    }

    /// Bytes for upstream wait from now on.
    pub(crate) fn upstream_accepts_nothing(&mut self) {
        self.engine.on_upstream_written(true, false, self.now);
    }

    /// Upstream accepts a part of the bytes that wait.
    pub(crate) fn upstream_accepts_some(&mut self) {
        self.engine.on_upstream_written(true, true, self.now);
    }

    pub(crate) fn upstream_accepts_all(&mut self) {
        self.engine.on_upstream_written(false, true, self.now);
    }

    pub(crate) fn drain(&mut self) {
        if !self.closed {
            self.engine.drain(&mut self.out);
            self.apply_actions(&[], Side::Client);
        }
    }

    pub(crate) fn abort(&mut self, outcome: Outcome) {
        if !self.closed {
            self.engine.abort(outcome, &mut self.out);
            self.apply_actions(&[], Side::Client);
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
            assert_eq!(out.actions, [], "an observer emits no actions");
        }
        self.observer.finish(TcpFacts::default(), self.now, &mut out)
    }

    /// Checks that an observer of the client's leg records the same session and replays to the same verdict.
    #[track_caller]
    pub(crate) fn check_replay(&mut self, engine: &SessionRecord, what: &str) {
        let observer = self.observed();
        assert_eq!(observer.smtp.transactions, engine.smtp.transactions, "transactions, {what}");
        assert_eq!(observer.smtp.transactions_total, engine.smtp.transactions_total, "{what}");
        if self.engine.answers().is_some() {
            assert_eq!(observer.questions, engine.questions, "questions, {what}");
        }
        self.check_verdict_replays(&observer, engine, what);
        if self.is_untouched() && engine.smtp.anomalies.is_empty() {
            let mut expected = engine.smtp.clone();
            expected.phases.connect = None; // The observer sees no connection to upstream.
            if self.profile.tls == TlsMode::Implicit {
                // Nor a handshake: what it sees is decrypted.
                (expected.tls_version, expected.tls_handshake) = (None, None);
                expected.phases.tls_handshake = None;
            }
            assert_eq!(observer.smtp, expected, "the SMTP record, {what}");
            assert_eq!((observer.start, observer.duration), (engine.start, engine.duration));
            use Outcome::{ClientClosed, Quit, TlsCompleted, TlsFailed, UpstreamClosed};
            let ended = [Quit, ClientClosed, UpstreamClosed, TlsCompleted, TlsFailed];
            if ended.contains(&engine.outcome) && self.closed {
                assert_eq!(observer.outcome, engine.outcome, "{what}");
            }
        }
    }

    /// What the gateway decided on.
    pub(crate) fn answers(&self) -> Answers {
        self.engine.answers().cloned().unwrap_or_default()
    }

    /// Checks that the observer's record, with the gateway's lookup results, leads to the same verdict.
    #[track_caller]
    pub(crate) fn check_verdict_replays(
        &self,
        observer: &SessionRecord,
        engine: &SessionRecord,
        what: &str,
    ) {
        let mut verdict = engine.verdict.clone();
        if verdict.action == policy::PolicyAction::Accept {
            verdict.reason = None; // A capture does not show it.
        }
        let known = self.answers();
        let evaluated = evaluate_record(&self.profile, observer, &known);
        assert_eq!(evaluated.verdict, verdict, "verdict, {what}");
        assert!(evaluated.is_decided, "the answers do not suffice, {what}");
    }

    /// Whether each side received exactly the bytes that the other sent.
    fn is_untouched(&self) -> bool {
        self.to_upstream == self.client_sent && self.to_client == self.upstream_sent
    }

    /// Bytes that the engine has not consumed.
    pub(crate) fn unconsumed(&self) -> (usize, usize) {
        (self.from_client.len(), self.from_upstream.len())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Relays the part of `bytes` that the engine need not parse; returns its length.
    fn splice_through(&mut self, side: Side, nothing_before: bool, bytes: &[u8]) -> usize {
        let budget = usize::try_from(self.engine.splice_budget(side)).unwrap_or(usize::MAX);
        let count = budget.min(bytes.len());
        if !self.splice || !nothing_before || count == 0 {
            return 0;
        }
        self.write(side, &bytes[..count]);
        self.engine.on_spliced(side, count as u64, self.now, &mut self.out);
        self.apply_actions(&[], side);
        count
    }

    fn feed_both(&mut self) {
        self.feed_upstream();
        self.feed_client();
    }

    fn feed_upstream(&mut self) {
        if self.closed || self.abandoned {
            return;
        }
        let input = std::mem::take(&mut self.from_upstream);
        let used = self.engine.on_server_data(&input, self.now, &mut self.out);
        self.from_upstream = input[used..].to_vec();
        self.apply_actions(&input[..used], Side::Server);
    }

    fn feed_client(&mut self) {
        if self.closed {
            return;
        }
        let input = std::mem::take(&mut self.from_client);
        let used = self.engine.on_client_data(&input, self.now, &mut self.out);
        self.from_client = input[used..].to_vec();
        self.apply_actions(&input[..used], Side::Client);
    }

    /// `input`: the bytes from `side` that the engine consumed in this call.
    fn apply_actions(&mut self, input: &[u8], side: Side) {
        let (mut starts_tls, mut starts_upstream_tls) = (false, false);
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
                Action::StartTls => starts_tls = true,
                Action::StartUpstreamTls => starts_upstream_tls = true,
                Action::AvoidUpstreamTls => self.avoided_tls += 1,
                Action::ShutdownUpstream => {
                    assert!(!self.shut_upstream, "shut down twice");
                    self.shut_upstream = true;
                }
                Action::ShutdownClient => {
                    assert!(!self.shut_client, "shut down twice");
                    self.capture(Captured::Closed(Side::Server));
                    self.shut_client = true;
                }
                Action::MessageDecided(_) => {}
                Action::AbandonUpstream => self.abandoned = true,
                Action::Need(lookups) => {
                    assert!(!lookups.is_empty(), "no lookup is requested");
                    for lookup in lookups {
                        assert!(!self.requested.contains(&lookup), "{lookup:?} is requested twice");
                        self.requested.push(lookup.clone());
                        self.needs.push(lookup);
                    }
                }
                Action::Close => {
                    self.capture(Captured::Closed(Side::Server));
                    self.closed = true;
                }
            }
        }
        if starts_upstream_tls {
            let count = std::mem::take(&mut self.from_upstream).len();
            self.engine.on_upstream_discarded(count, &mut self.out);
            if !self.holds_handshake {
                // Upstream's bytes are the decrypted ones from now on.
                let facts = TlsFacts {
                    version: TlsVersion::Tls13,
                    resumed: false,
                    cipher_suite: None,
                    client_certificate: None,
                    client_hello: Vec::new(),
                };
                self.engine.on_upstream_tls_established(&facts, self.now, &mut self.out);
                return self.apply_actions(&[], Side::Server);
            }
        }
        if starts_tls {
            // The client's bytes are the decrypted ones from now on.
            let facts = TlsFacts {
                version: TlsVersion::Tls13,
                resumed: false,
                client_certificate: self.client_certificate.clone(),
                cipher_suite: Some("TLS_AES_256_GCM_SHA384"),
                client_hello: Vec::new(),
            };
            self.engine.on_tls_established(&facts, self.now, &mut self.out);
            return self.apply_actions(&[], Side::Client);
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

    /// Sends bytes that came from `side` to the other side.
    fn write(&mut self, side: Side, bytes: &[u8]) {
        match side {
            Side::Client => {
                assert!(!self.abandoned && !self.shut_upstream, "upstream is gone");
                self.to_upstream.extend_from_slice(bytes);
            }
            Side::Server => {
                assert!(!self.shut_client, "the client's side is shut down");
                self.capture(Captured::Data(side, bytes.to_vec()));
                self.to_client.extend_from_slice(bytes);
            }
        }
    }
}
