//! Lookups by a running gateway: asked once, kept for their time, never waited for longer than the deadline.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};

use super::super::{Keep, Lives, LookupService, Probes, Settings, now};
use super::resolver::{Resolver, SLOW};
use super::{Answer, Lookup, LookupResult, Reason, Source, lookup, told};
use crate::addr::Networks;
use crate::policy::facts::{LookupKind, ObserveLookups, Obtained, Told};
use crate::traffic::Response;

/// Longer than any of these takes; a test that needs it fails.
const GENEROUS: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Seen {
    pub(super) answered: Mutex<Vec<(LookupKind, Obtained, Told)>>,
    pub(super) learnt: Mutex<Vec<(LookupKind, Told)>>,
    pub(super) renewed: Mutex<usize>,
    pub(super) kept: Mutex<(u64, u64)>,
}

impl ObserveLookups for Seen {
    fn answered(&self, kind: LookupKind, how: Obtained, told: Told, _: Duration) {
        self.answered.lock().unwrap().push((kind, how, told));
    }
    fn learnt(&self, lookup: &Lookup, answered: &LookupResult) {
        self.learnt.lock().unwrap().push((lookup.kind(), answered.answer.told()));
    }
    fn renewed(&self, _: LookupKind) {
        *self.renewed.lock().unwrap() += 1;
    }
    fn taken_over(&self, _: LookupKind) {}
    fn store_up(&self, _: bool) {}
    fn kept(&self, entries: u64, octets: u64) {
        *self.kept.lock().unwrap() = (entries, octets);
    }
    fn under_way(&self, _: usize) {}
}

impl Seen {
    /// How lookups were answered, so far; forgets it.
    pub(super) fn take(&self) -> Vec<Obtained> {
        std::mem::take(&mut *self.answered.lock().unwrap()).into_iter().map(|it| it.1).collect()
    }
}

pub(super) fn settings(dns: SocketAddr) -> Settings {
    Settings { dns: vec![dns], hostname: String::from("gate.example"), ..Settings::default() }
}

pub(super) fn start(settings: Settings) -> (LookupService, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let observer = Arc::clone(&seen) as Arc<dyn ObserveLookups>;
    let (reach, notices) = LookupService::start(settings, observer).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    (reach, seen)
}

async fn ask(reach: &LookupService, text: &str) -> String {
    told(&reach.ask(&lookup(text)).await.answer)
}

/// What the relay needs of it.
#[tokio::test]
async fn a_question_may_be_asked_from_any_thread() {
    let resolver = Resolver::start().await;
    let (reach, _) = start(settings(resolver.address));
    let asked = reach.clone();
    let asking: Pin<Box<dyn Future<Output = LookupResult> + Send>> =
        Box::pin(async move { asked.ask(&lookup("MX a.example")).await });
    assert_eq!(told(&asking.await.answer), "10 mx.a.example");
    let shared: &(dyn std::any::Any + Send + Sync) = &reach;
    assert!(shared.is::<LookupService>());
}

#[tokio::test]
async fn many_askers_of_one_lookup_are_one_query() {
    let resolver = Resolver::start().await;
    let (reach, seen) = start(settings(resolver.address));
    let question = lookup("MX slow.example");
    let answers = join_all((0..500).map(|_| reach.ask(&question))).await;
    for answered in answers {
        assert_eq!(told(&answered.answer), "10 mx.a.example");
        assert_eq!(answered.source, Source::Dns);
    }
    assert_eq!(resolver.asked("slow.example"), 1);
    let how = seen.take();
    let count = |what| how.iter().filter(|&&how| how == what).count();
    assert_eq!((count(Obtained::Asked), count(Obtained::Joined)), (1, 499));
    assert_eq!(ask(&reach, "MX slow.example").await, "10 mx.a.example");
    assert_eq!((resolver.asked("slow.example"), seen.take()), (1, vec![Obtained::Cache]));
    let learnt = [(LookupKind::MailExchanges, Told::Positive)];
    assert_eq!(*seen.learnt.lock().unwrap(), learnt, "once, however many asked");
}

#[tokio::test]
async fn the_work_goes_on_when_the_first_asker_leaves() {
    let resolver = Resolver::start().await;
    let (reach, seen) = start(settings(resolver.address));
    let question = lookup("AAAA slow.example");
    assert!(timeout(SLOW / 10, reach.ask(&question)).await.is_err(), "it was to be too early");
    assert_eq!(told(&reach.ask(&question).await.answer), "2001:db8::1");
    assert_eq!(seen.take(), [Obtained::Joined]);
    assert_eq!(resolver.asked("slow.example"), 1);
}

/// Askers on other threads, whose runtimes end in the middle.
#[test]
fn the_work_goes_on_when_the_thread_of_the_asker_ends() {
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    main.block_on(async {
        let resolver = Resolver::start().await;
        let (reach, _) = start(settings(resolver.address));
        let elsewhere = reach.clone();
        let leaving = std::thread::spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            own.block_on(async {
                let question = lookup("AAAA slow.example");
                assert!(timeout(SLOW / 10, elsewhere.ask(&question)).await.is_err());
            });
        });
        while !leaving.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
        leaving.join().unwrap();
        assert_eq!(ask(&reach, "AAAA slow.example").await, "2001:db8::1");
        assert_eq!(resolver.asked("slow.example"), 1);
    });
}

#[tokio::test]
async fn the_deadline_holds_and_a_failure_is_unknown() {
    let resolver = Resolver::start().await;
    let deadline = Duration::from_millis(500);
    let (reach, seen) = start(Settings { deadline, ..settings(resolver.address) });
    let began = Instant::now();
    assert_eq!(ask(&reach, "MX silent.example").await, "unknown timeout");
    assert!(began.elapsed() < GENEROUS);
    assert_eq!(seen.take(), [Obtained::Timeout]);
    // Kept for a while: the next one does not wait again.
    assert_eq!(ask(&reach, "MX silent.example").await, "unknown timeout");
    assert_eq!(seen.take(), [Obtained::Cache]);

    assert_eq!(ask(&reach, "MX lame.example").await, "unknown servfail");
    assert_eq!(resolver.asked("lame.example"), 2, "asked once more, and no further");
    assert_eq!(ask(&reach, "MX once.example").await, "10 mx.a.example");
    assert_eq!(resolver.asked("once.example"), 2);
}

/// Lost packets among answers are no reason not to ask.
#[tokio::test]
async fn silence_about_some_names_is_not_silence() {
    let resolver = Resolver::start().await;
    let deadline = Duration::from_millis(300);
    let (reach, _) = start(Settings { deadline, ..settings(resolver.address) });
    let lost: Vec<_> = (0..60).map(|n| lookup(&format!("MX silent.n{n}.example"))).collect();
    join_all(lost.iter().map(|lookup| reach.ask(lookup))).await;
    assert_eq!(ask(&reach, "MX a.example").await, "10 mx.a.example");
}

#[tokio::test]
async fn answers_are_good_for_as_long_as_the_dns_says_within_bounds() {
    let resolver = Resolver::start().await;
    let second = Duration::from_secs(1);
    let lives = Lives {
        dns_min: 5 * second,
        dns_max: 100 * second,
        dns_negative_max: 6 * second,
        ..Lives::default()
    };
    let (reach, _) = start(Settings { lives, ..settings(resolver.address) });
    for (asked, seconds) in [
        ("MX a-50.example", 50),
        ("MX a-1.example", 5),
        ("MX a-1000.example", 100),
        ("MX nx.example", 6),
        ("MX none.example", 6),
        ("MX gone.example", 5),
        ("MX lame.example", 30),
    ] {
        reach.ask(&lookup(asked)).await;
        let entry = reach.kept().into_iter().find(|(of, _)| *of == lookup(asked)).unwrap().1;
        let at = entry.answered.at.unwrap();
        let life = (entry.until - at).as_secs_f64();
        assert!((life - f64::from(seconds)).abs() < 1.0, "{asked}: {life} s");
        assert!(entry.renew - at > (entry.until - at) * 7 / 10, "{asked}");
    }
}

#[tokio::test]
async fn what_ends_soon_is_asked_for_anew_while_it_still_serves() {
    let resolver = Resolver::start().await;
    let life = Duration::from_millis(1500);
    let lives = Lives { dns_min: life, dns_max: life, ..Lives::default() };
    let (reach, seen) = start(Settings { lives, ..settings(resolver.address) });
    assert_eq!(ask(&reach, "MX slow.example").await, "10 mx.a.example");
    let began = Instant::now();
    while *seen.renewed.lock().unwrap() == 0 && began.elapsed() < GENEROUS {
        seen.take();
        assert_eq!(ask(&reach, "MX slow.example").await, "10 mx.a.example");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*seen.renewed.lock().unwrap(), 1);
    assert_eq!(seen.take(), [Obtained::Cache], "whoever reads it is answered at once");
    // The renewal came in time, or the entry would have ended.
    sleep(SLOW * 2).await;
    assert_eq!(ask(&reach, "MX slow.example").await, "10 mx.a.example");
    assert_eq!((seen.take(), resolver.asked("slow.example")), (vec![Obtained::Cache], 2));
}

/// The first answer is good, the one that should replace it is none.
#[tokio::test]
async fn a_failed_renewal_leaves_what_is_known() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let deadline = Duration::from_millis(200);
    let (reach, seen) = start(Settings { deadline, ..settings(silent.local_addr().unwrap()) });
    let question = lookup("MX a.example");
    let answer = Answer::NxDomain;
    let known = LookupResult { answer, source: Source::Dns, at: Some(now()) };
    reach.keep(question.clone(), known.clone(), Duration::from_secs(60));
    reach.make_due(&question);
    for _ in 0..3 {
        assert_eq!(reach.ask(&question).await, known);
        sleep(deadline * 2).await;
    }
    assert_eq!(seen.take(), [Obtained::Cache; 3]);
    assert_eq!(*seen.renewed.lock().unwrap(), 1, "not again at once");
}

#[tokio::test]
async fn memory_is_bounded_by_entries_and_by_octets() {
    let resolver = Resolver::start().await;
    for keep in [Keep { entries: 50, size: 64 << 20 }, Keep { entries: 100_000, size: 64 << 10 }] {
        let (reach, seen) = start(Settings { keep, ..settings(resolver.address) });
        for n in 0..400 {
            ask(&reach, &format!("MX a.n{n}.example")).await;
        }
        reach.tidy();
        let (entries, octets) = *seen.kept.lock().unwrap();
        assert!((1..=keep.entries as u64).contains(&entries), "{entries} entries of {keep:?}");
        assert!(octets <= keep.size as u64, "{octets} octets of {keep:?}");
        assert!(entries < 200);
    }
}

#[tokio::test]
async fn traffic_comes_first() {
    let resolver = Resolver::start().await;
    // Nobody listens there: a probe would be refused.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let probes = Probes { port: free.port(), callouts: true, ..Probes::default() };
    let (reach, seen) = start(Settings { probes, ..settings(resolver.address) });
    let ip = free.ip();
    let no = |reason| Answer::No(reason, None);
    for (response, connect, greet) in [
        (Response::LookupResult, Answer::Yes(None), Answer::Yes(None)),
        (Response::BlackHole, Answer::Yes(None), no(Reason::Stalled)),
        (Response::Silent, no(Reason::Silent), no(Reason::Silent)),
        (Response::Refused, no(Reason::Refused), no(Reason::Refused)),
        (Response::Unreachable, no(Reason::Refused), no(Reason::Refused)),
    ] {
        let at = now();
        reach.passed(ip, response, at);
        for (lookup, expected) in [(Lookup::Connect(ip), connect), (Lookup::Greet(ip), greet)] {
            let answered = reach.ask(&lookup).await;
            assert_eq!(answered.answer, expected, "{response:?}, {lookup:?}");
            assert_eq!((answered.source, answered.at), (Source::Traffic, Some(at)));
        }
    }
    assert_eq!(seen.take(), [Obtained::Traffic; 10]);
    // That it talks to our MTA says nothing of a mailbox.
    reach.passed(ip, Response::LookupResult, now());
    let answered = reach.ask(&Lookup::Callout(ip, String::from("a@a.example"))).await;
    assert_eq!((answered.answer, answered.source), (no(Reason::Refused), Source::Probe));
}

#[tokio::test]
async fn nobody_calls_himself_nor_asks_about_mailboxes_unless_he_may() {
    let resolver = Resolver::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let here = listener.local_addr().unwrap();
    let ours = Networks::new(["127.0.0.0/8".parse().unwrap()]);
    let probes = Probes { port: here.port(), ..Probes::default() };
    let (reach, _) = start(Settings { ours, probes, ..settings(resolver.address) });
    for lookup in [Lookup::Connect(here.ip()), Lookup::Greet(here.ip())] {
        let answered = reach.ask(&lookup).await;
        assert_eq!(answered.answer, Answer::No(Reason::NoUsableAddress, None));
    }
    let (reach, _) = start(Settings { probes, ..settings(resolver.address) });
    let callout = Lookup::Callout(here.ip(), String::from("a@a.example"));
    assert_eq!(reach.ask(&callout).await.answer, Answer::Unknown(Reason::Limited));
    // Nobody has called so far.
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    assert_eq!(resolver.asked_in_all(), 0);
}
