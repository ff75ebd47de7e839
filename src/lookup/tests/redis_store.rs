//! Gateways that share answers by a real Redis, and what becomes of them without it.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::super::{LookupService, LookupSettings, ProbeSettings};
use super::service::settings;
use super::{Answer, Lookup, Reason};
use crate::policy::facts::{AnswerKind, LookupKind, LookupObserver, Resolution};

const GENEROUS: Duration = Duration::from_secs(20);

/// A server of the test's own, killed at its end.
struct Redis {
    child: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// `None`, and said aloud, where there is none.
fn redis(port: u16) -> Option<Redis> {
    let child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Redis { child, port }),
        Err(_) => {
            // Past the test harness's capture, so that it is read.
            let note = "SKIPPED lookup::tests::shared: redis-server is not installed (Debian package redis-server)";
            writeln!(std::io::stderr(), "\n{note}").unwrap();
            None
        }
    }
}

async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

#[derive(Default)]
struct Seen {
    up: AtomicBool,
    taken_over: AtomicUsize,
}

impl LookupObserver for Seen {
    fn on_answer(&self, _: LookupKind, _: Resolution, _: AnswerKind, _: Duration) {}
    fn on_refresh(&self, _: LookupKind) {}
    fn on_shared_hit(&self, _: LookupKind) {
        self.taken_over.fetch_add(1, Ordering::Relaxed);
    }
    fn on_store_state(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }
    fn on_cache_size(&self, _: u64, _: u64) {}
    fn on_in_flight(&self, _: usize) {}
}

impl Seen {
    async fn is(&self, up: bool) {
        let began = Instant::now();
        while self.up.load(Ordering::Relaxed) != up {
            assert!(began.elapsed() < GENEROUS, "the store is not seen to be up: {up}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn gateway(port_of_redis: u16, port_of_mx: u16) -> (LookupService, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let probes = ProbeSettings { port: port_of_mx, ..ProbeSettings::default() };
    let redis = Some(format!("redis://127.0.0.1:{port_of_redis}/"));
    let settings = LookupSettings { probes, redis, ..settings((Ipv4Addr::LOCALHOST, 9).into()) };
    let observer = Arc::clone(&seen) as Arc<dyn LookupObserver>;
    (LookupService::start(settings, observer).unwrap().0, seen)
}

/// Greets slowly, and counts who calls.
async fn mx() -> (u16, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                sleep(Duration::from_millis(300)).await;
                let _gone = stream.write_all(b"220 mx\r\n").await;
                let mut heard = [0; 512];
                while let Ok(1..) = stream.read(&mut heard).await {
                    let _gone = stream.write_all(b"250 mx\r\n").await;
                }
            });
        }
    });
    (port, calls)
}

#[tokio::test]
async fn two_gateways_call_a_server_once() {
    let Some(redis) = redis(free_port().await) else { return };
    let (port, calls) = mx().await;
    let (one, seen_by_one) = gateway(redis.port, port);
    let (other, seen_by_other) = gateway(redis.port, port);
    seen_by_one.is(true).await;
    seen_by_other.is(true).await;
    let greet = Lookup::Greet(Ipv4Addr::LOCALHOST.into());
    let answers = join_all([one.lookup(&greet), other.lookup(&greet), one.lookup(&greet)]).await;
    for answered in &answers {
        assert_eq!(answered.answer, Answer::Yes(None));
        // Shared ones have microseconds.
        let apart = answered.at.unwrap().since(answers[0].at.unwrap());
        assert!(apart < Duration::from_micros(1), "it is one answer");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let taken = |seen: &Seen| seen.taken_over.load(Ordering::Relaxed);
    assert_eq!(taken(&seen_by_one) + taken(&seen_by_other), 1);
    // One that starts later knows too.
    let (third, seen_by_third) = gateway(redis.port, port);
    seen_by_third.is(true).await;
    assert_eq!(third.lookup(&greet).await.answer, Answer::Yes(None));
    assert_eq!((calls.load(Ordering::Relaxed), taken(&seen_by_third)), (1, 1));
    // Purged here is purged there, for whoever asks anew.
    assert_eq!(third.purge(|_| true).await, 1);
    assert_eq!(third.lookup(&greet).await.answer, Answer::Yes(None));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn without_redis_each_knows_for_itself_and_loses_no_time() {
    let port_of_redis = free_port().await;
    let Some(redis) = redis(port_of_redis) else { return };
    // The server itself is gone: refused at once.
    let (one, seen) = gateway(port_of_redis, free_port().await);
    seen.is(true).await;
    let ip = |n: u8| Lookup::Connect(Ipv4Addr::new(127, 0, 0, n).into());
    let refused = Answer::No(Reason::Refused, None);
    // It hangs: stopped, its connections stay.
    let pid = nix::unistd::Pid::from_raw(redis.child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    for n in 1..=40 {
        assert_eq!(one.lookup(&ip(n)).await.answer, refused);
    }
    // Forty times the patience would be 2 s and more.
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    seen.is(false).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    seen.is(true).await;
    drop(redis);
    seen.is(false).await;
    assert_eq!(one.lookup(&ip(50)).await.answer, refused);
    let Some(_again) = self::redis(port_of_redis) else { return };
    seen.is(true).await;
    assert_eq!(one.lookup(&ip(51)).await.answer, refused);
}
