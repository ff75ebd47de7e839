//! The lookup service: one query at a time for a subject, caching, the deadline.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};

use super::super::clock::now;
use super::super::{CacheLimits, LookupService, LookupSettings, ProbeSettings, Ttls};
use super::resolver::{Resolver, SLOW};
use super::{brief, lookup};
use crate::addr::Networks;
use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};
use crate::policy::facts::{AnswerKind, LookupKind, LookupObserver, Resolution};
use crate::traffic::ConnectionResponse;

/// Fails a test that needs it.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct LookupEvents {
    pub(super) result: Mutex<Vec<(LookupKind, Resolution, AnswerKind)>>,
    pub(super) new_answers: Mutex<Vec<(LookupKind, AnswerKind)>>,
    pub(super) refreshed: Mutex<usize>,
    pub(super) cache_size: Mutex<(u64, u64)>,
}

impl LookupObserver for LookupEvents {
    fn on_answer(&self, kind: LookupKind, how: Resolution, told: AnswerKind, _: Duration) {
        self.result.lock().unwrap().push((kind, how, told));
    }
    fn on_new_answer(&self, lookup: &Lookup, result: &LookupResult) {
        self.new_answers.lock().unwrap().push((lookup.kind(), result.answer.kind()));
    }
    fn on_refresh(&self, _: LookupKind) {
        *self.refreshed.lock().unwrap() += 1;
    }
    fn on_shared_hit(&self, _: LookupKind) {}
    fn on_store_state(&self, _: bool) {}
    fn on_cache_size(&self, entries: u64, bytes: u64) {
        *self.cache_size.lock().unwrap() = (entries, bytes);
    }
    fn on_in_flight(&self, _: usize) {}
}

impl LookupEvents {
    /// How lookups were answered since the last call.
    pub(super) fn take(&self) -> Vec<Resolution> {
        std::mem::take(&mut *self.result.lock().unwrap()).into_iter().map(|it| it.1).collect()
    }
}

pub(super) fn settings(dns: SocketAddr) -> LookupSettings {
    LookupSettings {
        dns_servers: vec![dns],
        hostname: String::from("gate.example"),
        // Loopback addresses are probed here.
        special_networks: Networks::new(["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap())),
        ..LookupSettings::default()
    }
}

pub(super) fn start(settings: LookupSettings) -> (LookupService, Arc<LookupEvents>) {
    let events = Arc::new(LookupEvents::default());
    let observer = Arc::clone(&events) as Arc<dyn LookupObserver>;
    let (service, notices) = LookupService::start(settings, observer).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    (service, events)
}

async fn ask(service: &LookupService, text: &str) -> String {
    brief(&service.lookup(&lookup(text)).await.answer)
}

#[tokio::test]
async fn the_service_and_its_futures_can_be_sent() {
    let resolver = Resolver::start().await;
    let (service, _) = start(settings(resolver.address));
    let clone = service.clone();
    let future: Pin<Box<dyn Future<Output = LookupResult> + Send>> =
        Box::pin(async move { clone.lookup(&lookup("MX a.example")).await });
    assert_eq!(brief(&future.await.answer), "10 mx.a.example");
    let shared: &(dyn std::any::Any + Send + Sync) = &service;
    assert!(shared.is::<LookupService>());
}

#[tokio::test]
async fn concurrent_lookups_share_one_query() {
    let resolver = Resolver::start().await;
    let (service, events) = start(settings(resolver.address));
    let question = lookup("MX slow.example");
    let answers = join_all((0..500).map(|_| service.lookup(&question))).await;
    for result in answers {
        assert_eq!(brief(&result.answer), "10 mx.a.example");
        assert_eq!(result.source, Source::Dns);
    }
    assert_eq!(resolver.queries("slow.example"), 1);
    let how = events.take();
    let count = |what| how.iter().filter(|&&how| how == what).count();
    assert_eq!((count(Resolution::Queried), count(Resolution::Coalesced)), (1, 499));
    assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
    assert_eq!((resolver.queries("slow.example"), events.take()), (1, vec![Resolution::CacheHit]));
    let reported = [(LookupKind::MailExchanges, AnswerKind::Positive)];
    assert_eq!(*events.new_answers.lock().unwrap(), reported, "reported once");
}

#[tokio::test]
async fn a_query_continues_when_its_first_caller_leaves() {
    let resolver = Resolver::start().await;
    let (service, events) = start(settings(resolver.address));
    let question = lookup("AAAA slow.example");
    assert!(timeout(SLOW / 10, service.lookup(&question)).await.is_err(), "not answered yet");
    assert_eq!(brief(&service.lookup(&question).await.answer), "2001:db8::1");
    assert_eq!(events.take(), [Resolution::Coalesced]);
    assert_eq!(resolver.queries("slow.example"), 1);
}

/// The runtime of the first caller ends before the query does.
#[test]
fn a_query_continues_when_its_callers_thread_ends() {
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    main.block_on(async {
        let resolver = Resolver::start().await;
        let (service, _) = start(settings(resolver.address));
        let elsewhere = service.clone();
        let leaving = std::thread::spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            own.block_on(async {
                let question = lookup("AAAA slow.example");
                assert!(timeout(SLOW / 10, elsewhere.lookup(&question)).await.is_err());
            });
        });
        while !leaving.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
        leaving.join().unwrap();
        assert_eq!(ask(&service, "AAAA slow.example").await, "2001:db8::1");
        assert_eq!(resolver.queries("slow.example"), 1);
    });
}

#[tokio::test]
async fn after_the_deadline_and_on_failure_an_answer_is_unknown() {
    let resolver = Resolver::start().await;
    let deadline = Duration::from_millis(500);
    let (service, events) = start(LookupSettings { deadline, ..settings(resolver.address) });
    let began = Instant::now();
    assert_eq!(ask(&service, "MX silent.example").await, "unknown timeout");
    assert!(began.elapsed() < DEADLINE);
    assert_eq!(events.take(), [Resolution::Timeout]);
    // Cached for a while: the next lookup does not wait.
    assert_eq!(ask(&service, "MX silent.example").await, "unknown timeout");
    assert_eq!(events.take(), [Resolution::CacheHit]);

    assert_eq!(ask(&service, "MX lame.example").await, "unknown servfail");
    assert_eq!(resolver.queries("lame.example"), 2, "one retry");
    assert_eq!(ask(&service, "MX once.example").await, "10 mx.a.example");
    assert_eq!(resolver.queries("once.example"), 2);
}

/// Lost packets do not pause queries while there are other responses.
#[tokio::test]
async fn queries_are_not_paused_while_the_server_answers_some() {
    let resolver = Resolver::start().await;
    let deadline = Duration::from_millis(300);
    let (service, _) = start(LookupSettings { deadline, ..settings(resolver.address) });
    let lost: Vec<_> = (0..60).map(|n| lookup(&format!("MX silent.n{n}.example"))).collect();
    join_all(lost.iter().map(|lookup| service.lookup(lookup))).await;
    assert_eq!(ask(&service, "MX a.example").await, "10 mx.a.example");
}

#[tokio::test]
async fn answers_are_cached_for_their_ttl_within_bounds() {
    let resolver = Resolver::start().await;
    let second = Duration::from_secs(1);
    let ttls = Ttls {
        dns_min: 5 * second,
        dns_max: 100 * second,
        dns_negative_max: 6 * second,
        ..Ttls::default()
    };
    let (service, _) = start(LookupSettings { ttls, ..settings(resolver.address) });
    for (query, seconds) in [
        ("MX a-50.example", 50),
        ("MX a-1.example", 5),
        ("MX a-1000.example", 100),
        ("MX nx.example", 6),
        ("MX none.example", 6),
        ("MX gone.example", 5),
        ("MX lame.example", 30),
    ] {
        service.lookup(&lookup(query)).await;
        let entry =
            service.all_entries().into_iter().find(|(of, _)| *of == lookup(query)).unwrap().1;
        let at = entry.result.at.unwrap();
        let ttl = (entry.expires_at - at).as_secs_f64();
        assert!((ttl - f64::from(seconds)).abs() < 1.0, "{query}: {ttl} s");
        assert!(entry.refresh_at - at > (entry.expires_at - at) * 7 / 10, "{query}");
    }
}

#[tokio::test]
async fn an_answer_is_refreshed_before_it_expires() {
    let resolver = Resolver::start().await;
    let ttl = Duration::from_millis(1500);
    let ttls = Ttls { dns_min: ttl, dns_max: ttl, ..Ttls::default() };
    let (service, events) = start(LookupSettings { ttls, ..settings(resolver.address) });
    assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
    let began = Instant::now();
    while *events.refreshed.lock().unwrap() == 0 && began.elapsed() < DEADLINE {
        events.take();
        assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*events.refreshed.lock().unwrap(), 1);
    assert_eq!(events.take(), [Resolution::CacheHit], "the reader does not wait");
    // The refresh was in time; otherwise the entry would have expired.
    sleep(SLOW * 2).await;
    assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
    assert_eq!((events.take(), resolver.queries("slow.example")), (vec![Resolution::CacheHit], 2));
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_known_answer() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let deadline = Duration::from_millis(200);
    let (service, events) =
        start(LookupSettings { deadline, ..settings(silent.local_addr().unwrap()) });
    let question = lookup("MX a.example");
    let answer = Answer::NxDomain;
    let known = LookupResult { answer, source: Source::Dns, at: Some(now()) };
    service.insert(question.clone(), known.clone(), Duration::from_secs(60));
    service.make_due(&question);
    for _ in 0..3 {
        assert_eq!(service.lookup(&question).await, known);
        sleep(deadline * 2).await;
    }
    assert_eq!(events.take(), [Resolution::CacheHit; 3]);
    assert_eq!(*events.refreshed.lock().unwrap(), 1, "no second refresh at once");
}

#[tokio::test]
async fn memory_is_bounded_in_entries_and_in_bytes() {
    let resolver = Resolver::start().await;
    for cache_limits in [
        CacheLimits { entries: 50, bytes: 64 << 20 },
        CacheLimits { entries: 100_000, bytes: 64 << 10 },
    ] {
        let (service, events) =
            start(LookupSettings { cache_limits, ..settings(resolver.address) });
        for n in 0..400 {
            ask(&service, &format!("MX a.n{n}.example")).await;
        }
        service.maintain();
        let (entries, bytes) = *events.cache_size.lock().unwrap();
        assert!(
            (1..=cache_limits.entries as u64).contains(&entries),
            "{entries} entries of {cache_limits:?}"
        );
        assert!(bytes <= cache_limits.bytes as u64, "{bytes} bytes of {cache_limits:?}");
        assert!(entries < 200);
    }
}

#[tokio::test]
async fn observed_traffic_precedes_a_probe() {
    let resolver = Resolver::start().await;
    // Nothing listens there: a probe would be refused.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let probes = ProbeSettings { port: free.port(), callouts: true, ..ProbeSettings::default() };
    let (service, events) = start(LookupSettings { probes, ..settings(resolver.address) });
    let ip = free.ip();
    let no = |reason| Answer::No(reason, None);
    for (response, connect, greet) in [
        (ConnectionResponse::Answered, Answer::Yes(None), Answer::Yes(None)),
        (ConnectionResponse::BlackHole, Answer::Yes(None), no(Reason::EstablishedButStalled)),
        (ConnectionResponse::NoResponse, no(Reason::NoResponse), no(Reason::NoResponse)),
        (ConnectionResponse::Refused, no(Reason::Refused), no(Reason::Refused)),
        (ConnectionResponse::Unreachable, no(Reason::Refused), no(Reason::Refused)),
    ] {
        let at = now();
        service.on_response(ip, response, at);
        for (lookup, expected) in [(Lookup::Connect(ip), connect), (Lookup::Greet(ip), greet)] {
            let result = service.lookup(&lookup).await;
            assert_eq!(result.answer, expected, "{response:?}, {lookup:?}");
            assert_eq!((result.source, result.at), (Source::Traffic, Some(at)));
        }
    }
    assert_eq!(events.take(), [Resolution::Traffic; 10]);
    // A server that responds to our MTA proves nothing about a mailbox.
    service.on_response(ip, ConnectionResponse::Answered, now());
    let result = service.lookup(&Lookup::Callout(ip, String::from("a@a.example"))).await;
    assert_eq!((result.answer, result.source), (no(Reason::Refused), Source::Probe));
}

#[tokio::test]
async fn special_purpose_and_own_addresses_get_no_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probes = ProbeSettings { port, callouts: true, ..ProbeSettings::default() };
    let resolver = Resolver::start().await;
    let dns = resolver.address;
    let (service, _) =
        start(LookupSettings { probes, special_networks: Networks::default(), ..settings(dns) });
    let no = Answer::No(Reason::NoUsableAddress, None);
    for ip in [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::1",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        let callout = Lookup::Callout(ip, String::from("a@a.example"));
        for lookup in [Lookup::Connect(ip), Lookup::Greet(ip), callout] {
            let result = service.lookup(&lookup).await;
            assert_eq!((result.answer, result.source), (no.clone(), Source::Probe), "{lookup:?}");
        }
    }
    // Excepted as a test network, but this host's own.
    let (service, _) = start(LookupSettings { probes, ..settings(dns) });
    let here = Lookup::Connect(Ipv4Addr::LOCALHOST.into());
    service.set_own_addresses([Ipv4Addr::LOCALHOST.into()].into());
    assert_eq!(service.lookup(&here).await.answer, no);
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    service.set_own_addresses([].into());
    assert_eq!(service.lookup(&here).await.answer, Answer::Yes(None));
}

/// The other client's lookup is answered although the first uses up its share; what is in flight or cached costs nothing.
#[tokio::test]
async fn a_client_that_has_used_its_share_stands_alone() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probes = ProbeSettings { port, per_second: 32, ..ProbeSettings::default() };
    let resolver = Resolver::start().await;
    let (service, _) = start(LookupSettings { probes, ..settings(resolver.address) });
    let connect = |n: u8| Lookup::Connect(Ipv4Addr::new(127, 0, 1, n).into());
    let limited = Answer::Unknown(Reason::RateLimited);
    let mut answers = Vec::new();
    for n in 1..=60 {
        let client = format!("2001:db8:66:{n:x}::{n:x}").parse().unwrap();
        answers.push(service.lookup_for(&connect(n), Some(client)).await.answer);
    }
    let refused = answers.iter().filter(|answer| **answer == limited).count();
    assert!((50..=56).contains(&refused), "{refused} of 60, with bursts of four");
    let attacker = Some("2001:db8:66::1".parse().unwrap());
    let other = Some("2001:db8:67::1".parse().unwrap());
    assert_eq!(service.lookup_for(&connect(200), attacker).await.answer, limited);
    assert_eq!(service.lookup_for(&connect(200), other).await.answer, Answer::Yes(None));
    // Cached by now.
    assert_eq!(service.lookup_for(&connect(200), attacker).await.answer, Answer::Yes(None));
}

#[tokio::test]
async fn own_addresses_are_never_probed_and_callouts_are_opt_in() {
    let resolver = Resolver::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let here = listener.local_addr().unwrap();
    let own_networks = Networks::new(["127.0.0.0/8".parse().unwrap()]);
    let probes = ProbeSettings { port: here.port(), ..ProbeSettings::default() };
    let (service, _) = start(LookupSettings { own_networks, probes, ..settings(resolver.address) });
    for lookup in [Lookup::Connect(here.ip()), Lookup::Greet(here.ip())] {
        let result = service.lookup(&lookup).await;
        assert_eq!(result.answer, Answer::No(Reason::NoUsableAddress, None));
    }
    let (service, _) = start(LookupSettings { probes, ..settings(resolver.address) });
    let callout = Lookup::Callout(here.ip(), String::from("a@a.example"));
    assert_eq!(service.lookup(&callout).await.answer, Answer::Unknown(Reason::RateLimited));
    // No connection so far.
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    assert_eq!(resolver.total_queries(), 0);
}
