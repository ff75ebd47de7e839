//! The relay with policy rules and a door: sockets on loopback, a simulated upstream and slow lookups.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gatepost::addr::{Family, Networks};
use gatepost::engine::{
    Event, Limits as SessionLimits, Observe, RefuseAt, SessionRecord, SmtpOptions, Timeouts,
    TlsMode,
};
use gatepost::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};
use gatepost::policy::rules::{FactName, PolicyRule, PolicyRules, Requirement, RuleMode, When};
use gatepost::policy::{AccessRules, PolicyAction};
use gatepost::recording::{FrameBody, FrameDecoder, RecordingFilter};
use gatepost::relay::{
    AfterTlsFailures, InheritedSockets, ListenerSettings, ListenerTls, Listeners, LookupFuture,
    LookupProvider, Relay, RelayLimits, RelaySettings, TimeoutSets, TlsConfigs, UpstreamCheck,
    UpstreamIdentity, UpstreamSettings, UpstreamTlsSettings,
};

/// The duration of a lookup.
const LOOKUP: Duration = Duration::from_millis(150);

/// Answers each lookup after [`LOOKUP`]: a PTR record exists or not, `nobody` is an unknown recipient.
#[derive(Default)]
struct SlowLookups {
    nameless: bool,
    /// Whether lookups never finish.
    silent: bool,
    requested: Mutex<Vec<Lookup>>,
    /// The number of lookups that were dropped or answered.
    ended: Arc<AtomicUsize>,
}

struct EndCounter(Arc<AtomicUsize>);

impl Drop for EndCounter {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl LookupProvider for SlowLookups {
    fn lookup(&self, lookup: Lookup) -> LookupFuture {
        self.requested.lock().unwrap().push(lookup.clone());
        let answer = match &lookup {
            Lookup::Reverse(_) if self.nameless => Answer::NxDomain,
            Lookup::Reverse(_) => Answer::Records(Vec::new()),
            Lookup::Recipient(path) if path.starts_with("nobody") => {
                Answer::No(Reason::NoSuchMailbox, None)
            }
            _ => Answer::Yes(None),
        };
        let (silent, counted) = (self.silent, EndCounter(Arc::clone(&self.ended)));
        Box::pin(async move {
            let _counted = counted;
            tokio::time::sleep(LOOKUP).await;
            if silent {
                std::future::pending::<()>().await;
            }
            LookupResult { answer, source: Source::Upstream, at: None }
        })
    }
}

/// Collects everything that the relay reports.
#[derive(Default)]
struct Reports {
    events: Mutex<Vec<Event>>,
    policy: Mutex<Vec<(String, PolicyAction, RuleMode)>>,
    sessions: Mutex<Vec<SessionRecord>>,
}

impl Observe for Reports {
    fn event(&self, _: Family, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn policy(&self, _: Family, rule: &str, action: PolicyAction, mode: RuleMode) {
        self.policy.lock().unwrap().push((rule.to_owned(), action, mode));
    }

    fn session(&self, record: &SessionRecord) {
        self.sessions.lock().unwrap().push(record.clone());
    }
}

fn rule(fact: FactName) -> PolicyRule {
    PolicyRule {
        name: fact.as_str().into(),
        at: fact.stage(),
        when: When::default(),
        exempt: Vec::new(),
        require: vec![Requirement::new(fact)],
        otherwise: PolicyAction::Reject,
        on_unknown: PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    }
}

fn settings(upstream: SocketAddr, rules: Vec<PolicyRule>) -> RelaySettings {
    RelaySettings {
        listeners: vec![ListenerSettings {
            name: "mx".into(),
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            transparent: false,
            proxy_trusted: Networks::default(),
            tls: ListenerTls::Passthrough,
            upstream: UpstreamSettings {
                addresses: vec![upstream.into()],
                resolve_interval: UpstreamSettings::RESOLVE_INTERVAL,
                identity: UpstreamIdentity::None,
                attempt_delay: Duration::from_millis(250),
                connect_timeout: Duration::from_secs(5),
                retry_after: Duration::from_secs(10),
                check: UpstreamCheck::None,
                check_interval: Duration::from_secs(30),
                tls: UpstreamTlsSettings::default(),
            },
        }],
        threads: 1,
        mark: None,
        access: AccessRules::default(),
        rules: PolicyRules::new(rules, Networks::default()).into(),
        smtp: SmtpOptions { hostname: "gate.example".to_owned(), ..SmtpOptions::default() },
        limits: RelayLimits {
            sessions: 100,
            sessions_per_client: 100,
            new_sessions_per_client_per_minute: None,
            sessions_per_network: 1000,
            new_sessions_per_network_per_minute: None,
            session: SessionLimits::default(),
        },
        timeouts: TimeoutSets {
            normal: Timeouts::RFC_5321,
            stress: Timeouts::STRESS,
            stress_above: 80,
        },
        tls: TlsMode::Passthrough,
        after_tls_failures: AfterTlsFailures::Offer,
        trace_header: false,
        canary_marks: None,
        drain: Duration::from_secs(1),
    }
}

/// An upstream that accepts every command and keeps all lines that it received.
struct Server {
    addr: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, lines) = (stream.unwrap(), Arc::clone(&lines));
                thread::spawn(move || Self::session(stream, &lines));
            }
        });
        Self { addr, received }
    }

    fn session(mut stream: TcpStream, received: &Mutex<Vec<String>>) {
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut send = |reply: &str| stream.write_all(reply.as_bytes()).is_ok();
        let mut open = send("220 mx.example\r\n");
        let mut content = false;
        let mut line = String::new();
        while open && lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            let command = line.trim_end().to_owned();
            line.clear();
            received.lock().unwrap().push(command.clone());
            if content {
                content = command != ".";
                open = content || send("250 queued\r\n");
            } else if command.starts_with("EHLO") {
                open = send("250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
            } else if command == "DATA" {
                content = true;
                open = send("354 go\r\n");
            } else if command == "QUIT" {
                send("221 bye\r\n");
                return;
            } else {
                open = send("250 ok\r\n");
            }
        }
    }

    fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

struct Client {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    fn connect(relay: &Relay) -> Self {
        let stream = TcpStream::connect(relay.addresses().next().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines }
    }

    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The last line of the next reply.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Sends `text`; returns the last line of the reply.
    fn command(&mut self, text: &str) -> String {
        self.send(text);
        self.reply()
    }
}

fn start(
    settings: RelaySettings,
    reports: &Arc<Reports>,
    lookups: SlowLookups,
) -> (Relay, Arc<SlowLookups>) {
    let lookups = Arc::new(lookups);
    let listeners = Listeners::open(&settings, InheritedSockets::default()).unwrap();
    let relay = Relay::start(
        settings,
        listeners,
        TlsConfigs::default(),
        Arc::clone(reports) as _,
        Arc::clone(&lookups) as _,
    );
    (relay.unwrap(), lookups)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn recipients_wait_for_answers_and_replies_stay_in_order() {
    let (server, reports) = (Server::start(), Arc::new(Reports::default()));
    let (relay, lookups) = start(
        settings(server.addr, vec![rule(FactName::Recipient)]),
        &reports,
        SlowLookups::default(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut recorder = relay.taps().attach(RecordingFilter::default()).unwrap();

    let mut client = Client::connect(&relay);
    assert_eq!(client.reply(), "220 mx.example");
    assert_eq!(client.command("EHLO client.example\r\n"), "250 CHUNKING");
    let began = Instant::now();
    client.send(
        "MAIL FROM:<a@a.example>\r\nRCPT TO:<bob@b.example>\r\nRCPT TO:<nobody@b.example>\r\nDATA\r\n",
    );
    assert_eq!(client.reply(), "250 ok");
    assert!(began.elapsed() < LOOKUP, "the reply to MAIL waits for no lookup");
    assert_eq!(server.received().last().unwrap(), "MAIL FROM:<a@a.example>");
    assert_eq!(client.reply(), "250 ok");
    assert_eq!(
        client.reply(),
        "550 5.1.1 unknown recipient <nobody@b.example> (rule \"recipient\")"
    );
    assert!(began.elapsed() >= 2 * LOOKUP);
    assert_eq!(client.reply(), "354 go");
    assert_eq!(client.command("text\r\n.\r\n"), "250 queued");
    assert_eq!(client.command("QUIT\r\n"), "221 bye");
    let received = server.received();
    assert!(!received.iter().any(|line| line.contains("nobody")), "{received:?}");

    let record = until("record", || reports.sessions.lock().unwrap().pop());
    assert_eq!(record.verdict.reason.as_deref(), Some("recipient.no_such_mailbox"));
    let expected = ("recipient".to_owned(), PolicyAction::Reject, RuleMode::Enforce);
    assert_eq!(*reports.policy.lock().unwrap(), [expected]);
    let waited = |event: &Event| match event {
        Event::Waited(duration) => Some(*duration),
        _ => None,
    };
    let waited = reports.events.lock().unwrap().iter().find_map(waited).unwrap();
    assert!((2 * LOOKUP..10 * LOOKUP).contains(&waited), "{waited:?}");

    let mut framing = FrameDecoder::default();
    let answers = runtime.block_on(async {
        loop {
            framing.push(recorder.next().await);
            while let Some(frame) = framing.next_frame().unwrap() {
                if let FrameBody::End { summary: ending, .. } = frame.body {
                    return ending.answers.unwrap();
                }
            }
        }
    });
    let answers: Vec<(Lookup, LookupResult)> = serde_json::from_str(&answers).unwrap();
    let mut requested = lookups.requested.lock().unwrap().clone();
    requested.sort();
    assert_eq!(answers.iter().map(|(lookup, _)| lookup.clone()).collect::<Vec<_>>(), requested);
    runtime.block_on(relay.drain());
}

#[test]
fn a_verdict_at_connect_replaces_the_greeting() {
    let server = Server::start();
    for (nameless, first) in [(true, "554 5.7.25 "), (false, "220 mx.example")] {
        let reports = Arc::new(Reports::default());
        let mut settings = settings(server.addr, vec![rule(FactName::ReceivePath)]);
        settings.smtp.refuse_at = RefuseAt::Connect;
        if nameless {
            settings.rules =
                PolicyRules::new(vec![rule(FactName::ReverseName)], Networks::default()).into();
        }
        let (relay, _) =
            start(settings, &reports, SlowLookups { nameless, ..SlowLookups::default() });
        let began = Instant::now();
        let mut client = Client::connect(&relay);
        let reply = client.reply();
        assert!(reply.starts_with(first), "{reply}");
        assert!(began.elapsed() >= LOOKUP);
        let reply = client.command("QUIT\r\n");
        assert!(reply.starts_with("221 "), "{reply}");
        let record = until("record", || reports.sessions.lock().unwrap().pop());
        let expected = if nameless { PolicyAction::Reject } else { PolicyAction::Accept };
        assert_eq!(record.verdict.action, expected);
    }
}

/// Even if upstream accepts no connection.
#[test]
fn a_verdict_at_connect_does_not_wait_for_upstream() {
    // With a full backlog its SYNs stay unanswered.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let _full: Vec<_> =
        (0..4).map(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(50))).collect();
    let reports = Arc::new(Reports::default());
    let mut settings = settings(addr, vec![rule(FactName::ReverseName)]);
    settings.smtp.refuse_at = RefuseAt::Connect;
    let (relay, _) =
        start(settings, &reports, SlowLookups { nameless: true, ..SlowLookups::default() });
    let began = Instant::now();
    let mut client = Client::connect(&relay);
    assert!(client.reply().starts_with("554 5.7.25 "));
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(client.command("QUIT\r\n").starts_with("221 "));
    let record = until("record", || reports.sessions.lock().unwrap().pop());
    assert_eq!(record.upstream, None, "the connection to upstream was not established yet");
}

#[test]
fn a_session_that_ends_drops_its_lookups() {
    let (server, reports) = (Server::start(), Arc::new(Reports::default()));
    let lookups = SlowLookups { silent: true, ..SlowLookups::default() };
    let (relay, lookups) =
        start(settings(server.addr, vec![rule(FactName::ReverseName)]), &reports, lookups);
    let mut client = Client::connect(&relay);
    assert_eq!(client.reply(), "220 mx.example");
    assert_eq!(lookups.ended.load(Ordering::Relaxed), 0);
    drop(client);
    until("end of the lookup", || (lookups.ended.load(Ordering::Relaxed) == 1).then_some(()));
}

#[test]
fn a_closed_door_rejects_new_sessions_and_keeps_established_ones() {
    let (server, reports) = (Server::start(), Arc::new(Reports::default()));
    let (relay, _) = start(settings(server.addr, Vec::new()), &reports, SlowLookups::default());
    let mut inside = Client::connect(&relay);
    assert_eq!(inside.reply(), "220 mx.example");
    relay.handle().set_door(Family::Ipv4, false);
    let mut outside = Client::connect(&relay);
    let expected = "421 4.3.2 gate.example mail is not accepted over IPv4 for now; try IPv6";
    assert_eq!(outside.reply(), expected);
    let mut rest = Vec::new();
    outside.lines.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    let record = until("record", || reports.sessions.lock().unwrap().pop());
    assert_eq!((record.verdict.reason.as_deref(), record.upstream), (Some("door"), None));
    assert_eq!(inside.command("NOOP\r\n"), "250 ok");
    relay.handle().set_door(Family::Ipv4, true);
    relay.handle().set_door(Family::Ipv6, false);
    assert_eq!(Client::connect(&relay).reply(), "220 mx.example");
}
