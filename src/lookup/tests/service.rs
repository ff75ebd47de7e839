//! Lookups by a running gateway: asked once, kept for their time, never waited for longer than the deadline.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};

use super::super::{CacheLimits, LookupService, LookupSettings, ProbeSettings, Ttls, now};
use super::resolver::{Resolver, SLOW};
use super::{Answer, Lookup, LookupResult, Reason, Source, lookup, told};
use crate::addr::Networks;
use crate::policy::facts::{AnswerKind, LookupKind, LookupObserver, Resolution};
use crate::traffic::ConnectionResponse;

/// Longer than any of these takes; a test that needs it fails.
const GENEROUS: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Seen {
    pub(super) answered: Mutex<Vec<(LookupKind, Resolution, AnswerKind)>>,
    pub(super) learnt: Mutex<Vec<(LookupKind, AnswerKind)>>,
    pub(super) renewed: Mutex<usize>,
    pub(super) kept: Mutex<(u64, u64)>,
}

impl LookupObserver for Seen {
    fn on_answer(&self, kind: LookupKind, how: Resolution, told: AnswerKind, _: Duration) {
        self.answered.lock().unwrap().push((kind, how, told));
    }
    fn on_new_answer(&self, lookup: &Lookup, answered: &LookupResult) {
        self.learnt.lock().unwrap().push((lookup.kind(), answered.answer.kind()));
    }
    fn on_refresh(&self, _: LookupKind) {
        *self.renewed.lock().unwrap() += 1;
    }
    fn on_shared_hit(&self, _: LookupKind) {}
    fn on_store_state(&self, _: bool) {}
    fn on_cache_size(&self, entries: u64, octets: u64) {
        *self.kept.lock().unwrap() = (entries, octets);
    }
    fn on_in_flight(&self, _: usize) {}
}

impl Seen {
    /// How lookups were answered, so far; forgets it.
    pub(super) fn take(&self) -> Vec<Resolution> {
        std::mem::take(&mut *self.answered.lock().unwrap()).into_iter().map(|it| it.1).collect()
    }
}

pub(super) fn settings(dns: SocketAddr) -> LookupSettings {
    LookupSettings {
        dns_servers: vec![dns],
        hostname: String::from("gate.example"),
        ..LookupSettings::default()
    }
}

pub(super) fn start(settings: LookupSettings) -> (LookupService, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let observer = Arc::clone(&seen) as Arc<dyn LookupObserver>;
    let (service, notices) = LookupService::start(settings, observer).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    (service, seen)
}

async fn ask(service: &LookupService, text: &str) -> String {
    told(&service.lookup(&lookup(text)).await.answer)
}

/// What the relay needs of it.
#[tokio::test]
async fn a_question_may_be_asked_from_any_thread() {
    let resolver = Resolver::start().await;
    let (service, _) = start(settings(resolver.address));
    let asked = service.clone();
    let asking: Pin<Box<dyn Future<Output = LookupResult> + Send>> =
        Box::pin(async move { asked.lookup(&lookup("MX a.example")).await });
    assert_eq!(told(&asking.await.answer), "10 mx.a.example");
    let shared: &(dyn std::any::Any + Send + Sync) = &service;
    assert!(shared.is::<LookupService>());
}

#[tokio::test]
async fn many_askers_of_one_lookup_are_one_query() {
    let resolver = Resolver::start().await;
    let (service, seen) = start(settings(resolver.address));
    let question = lookup("MX slow.example");
    let answers = join_all((0..500).map(|_| service.lookup(&question))).await;
    for answered in answers {
        assert_eq!(told(&answered.answer), "10 mx.a.example");
        assert_eq!(answered.source, Source::Dns);
    }
    assert_eq!(resolver.asked("slow.example"), 1);
    let how = seen.take();
    let count = |what| how.iter().filter(|&&how| how == what).count();
    assert_eq!((count(Resolution::Queried), count(Resolution::Coalesced)), (1, 499));
    assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
    assert_eq!((resolver.asked("slow.example"), seen.take()), (1, vec![Resolution::CacheHit]));
    let learnt = [(LookupKind::MailExchanges, AnswerKind::Positive)];
    assert_eq!(*seen.learnt.lock().unwrap(), learnt, "once, however many asked");
}

#[tokio::test]
async fn the_work_goes_on_when_the_first_asker_leaves() {
    let resolver = Resolver::start().await;
    let (service, seen) = start(settings(resolver.address));
    let question = lookup("AAAA slow.example");
    assert!(timeout(SLOW / 10, service.lookup(&question)).await.is_err(), "it was to be too early");
    assert_eq!(told(&service.lookup(&question).await.answer), "2001:db8::1");
    assert_eq!(seen.take(), [Resolution::Coalesced]);
    assert_eq!(resolver.asked("slow.example"), 1);
}

/// Askers on other threads, whose runtimes end in the middle.
#[test]
fn the_work_goes_on_when_the_thread_of_the_asker_ends() {
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
        assert_eq!(resolver.asked("slow.example"), 1);
    });
}

#[tokio::test]
async fn the_deadline_holds_and_a_failure_is_unknown() {
    let resolver = Resolver::start().await;
    let deadline = Duration::from_millis(500);
    let (service, seen) = start(LookupSettings { deadline, ..settings(resolver.address) });
    let began = Instant::now();
    assert_eq!(ask(&service, "MX silent.example").await, "unknown timeout");
    assert!(began.elapsed() < GENEROUS);
    assert_eq!(seen.take(), [Resolution::Timeout]);
    // Kept for a while: the next one does not wait again.
    assert_eq!(ask(&service, "MX silent.example").await, "unknown timeout");
    assert_eq!(seen.take(), [Resolution::CacheHit]);

    assert_eq!(ask(&service, "MX lame.example").await, "unknown servfail");
    assert_eq!(resolver.asked("lame.example"), 2, "asked once more, and no further");
    assert_eq!(ask(&service, "MX once.example").await, "10 mx.a.example");
    assert_eq!(resolver.asked("once.example"), 2);
}

/// Lost packets among answers are no reason not to ask.
#[tokio::test]
async fn silence_about_some_names_is_not_silence() {
    let resolver = Resolver::start().await;
    let deadline = Duration::from_millis(300);
    let (service, _) = start(LookupSettings { deadline, ..settings(resolver.address) });
    let lost: Vec<_> = (0..60).map(|n| lookup(&format!("MX silent.n{n}.example"))).collect();
    join_all(lost.iter().map(|lookup| service.lookup(lookup))).await;
    assert_eq!(ask(&service, "MX a.example").await, "10 mx.a.example");
}

#[tokio::test]
async fn answers_are_good_for_as_long_as_the_dns_says_within_bounds() {
    let resolver = Resolver::start().await;
    let second = Duration::from_secs(1);
    let ttls = Ttls {
        dns_min: 5 * second,
        dns_max: 100 * second,
        dns_negative_max: 6 * second,
        ..Ttls::default()
    };
    let (service, _) = start(LookupSettings { ttls, ..settings(resolver.address) });
    for (asked, seconds) in [
        ("MX a-50.example", 50),
        ("MX a-1.example", 5),
        ("MX a-1000.example", 100),
        ("MX nx.example", 6),
        ("MX none.example", 6),
        ("MX gone.example", 5),
        ("MX lame.example", 30),
    ] {
        service.lookup(&lookup(asked)).await;
        let entry = service.kept().into_iter().find(|(of, _)| *of == lookup(asked)).unwrap().1;
        let at = entry.answered.at.unwrap();
        let life = (entry.expires_at - at).as_secs_f64();
        assert!((life - f64::from(seconds)).abs() < 1.0, "{asked}: {life} s");
        assert!(entry.refresh_at - at > (entry.expires_at - at) * 7 / 10, "{asked}");
    }
}

#[tokio::test]
async fn what_ends_soon_is_asked_for_anew_while_it_still_serves() {
    let resolver = Resolver::start().await;
    let life = Duration::from_millis(1500);
    let ttls = Ttls { dns_min: life, dns_max: life, ..Ttls::default() };
    let (service, seen) = start(LookupSettings { ttls, ..settings(resolver.address) });
    assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
    let began = Instant::now();
    while *seen.renewed.lock().unwrap() == 0 && began.elapsed() < GENEROUS {
        seen.take();
        assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*seen.renewed.lock().unwrap(), 1);
    assert_eq!(seen.take(), [Resolution::CacheHit], "whoever reads it is answered at once");
    // The renewal came in time, or the entry would have ended.
    sleep(SLOW * 2).await;
    assert_eq!(ask(&service, "MX slow.example").await, "10 mx.a.example");
    assert_eq!((seen.take(), resolver.asked("slow.example")), (vec![Resolution::CacheHit], 2));
}

/// The first answer is good, the one that should replace it is none.
#[tokio::test]
async fn a_failed_renewal_leaves_what_is_known() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let deadline = Duration::from_millis(200);
    let (service, seen) =
        start(LookupSettings { deadline, ..settings(silent.local_addr().unwrap()) });
    let question = lookup("MX a.example");
    let answer = Answer::NxDomain;
    let known = LookupResult { answer, source: Source::Dns, at: Some(now()) };
    service.keep(question.clone(), known.clone(), Duration::from_secs(60));
    service.make_due(&question);
    for _ in 0..3 {
        assert_eq!(service.lookup(&question).await, known);
        sleep(deadline * 2).await;
    }
    assert_eq!(seen.take(), [Resolution::CacheHit; 3]);
    assert_eq!(*seen.renewed.lock().unwrap(), 1, "not again at once");
}

#[tokio::test]
async fn memory_is_bounded_by_entries_and_by_octets() {
    let resolver = Resolver::start().await;
    for cache_limits in [
        CacheLimits { entries: 50, bytes: 64 << 20 },
        CacheLimits { entries: 100_000, bytes: 64 << 10 },
    ] {
        let (service, seen) = start(LookupSettings { cache_limits, ..settings(resolver.address) });
        for n in 0..400 {
            ask(&service, &format!("MX a.n{n}.example")).await;
        }
        service.tidy();
        let (entries, octets) = *seen.kept.lock().unwrap();
        assert!(
            (1..=cache_limits.entries as u64).contains(&entries),
            "{entries} entries of {cache_limits:?}"
        );
        assert!(octets <= cache_limits.bytes as u64, "{octets} octets of {cache_limits:?}");
        assert!(entries < 200);
    }
}

#[tokio::test]
async fn traffic_comes_first() {
    let resolver = Resolver::start().await;
    // Nobody listens there: a probe would be refused.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let probes = ProbeSettings { port: free.port(), callouts: true, ..ProbeSettings::default() };
    let (service, seen) = start(LookupSettings { probes, ..settings(resolver.address) });
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
            let answered = service.lookup(&lookup).await;
            assert_eq!(answered.answer, expected, "{response:?}, {lookup:?}");
            assert_eq!((answered.source, answered.at), (Source::Traffic, Some(at)));
        }
    }
    assert_eq!(seen.take(), [Resolution::Traffic; 10]);
    // That it talks to our MTA says nothing of a mailbox.
    service.on_response(ip, ConnectionResponse::Answered, now());
    let answered = service.lookup(&Lookup::Callout(ip, String::from("a@a.example"))).await;
    assert_eq!((answered.answer, answered.source), (no(Reason::Refused), Source::Probe));
}

#[tokio::test]
async fn nobody_calls_himself_nor_asks_about_mailboxes_unless_he_may() {
    let resolver = Resolver::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let here = listener.local_addr().unwrap();
    let own_networks = Networks::new(["127.0.0.0/8".parse().unwrap()]);
    let probes = ProbeSettings { port: here.port(), ..ProbeSettings::default() };
    let (service, _) = start(LookupSettings { own_networks, probes, ..settings(resolver.address) });
    for lookup in [Lookup::Connect(here.ip()), Lookup::Greet(here.ip())] {
        let answered = service.lookup(&lookup).await;
        assert_eq!(answered.answer, Answer::No(Reason::NoUsableAddress, None));
    }
    let (service, _) = start(LookupSettings { probes, ..settings(resolver.address) });
    let callout = Lookup::Callout(here.ip(), String::from("a@a.example"));
    assert_eq!(service.lookup(&callout).await.answer, Answer::Unknown(Reason::RateLimited));
    // Nobody has called so far.
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    assert_eq!(resolver.asked_in_all(), 0);
}
