//! Gateways that share answers through a real Redis, and without it.

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
use crate::policy::facts::{Answer, Lookup, Reason};
use crate::policy::facts::{AnswerKind, LookupKind, LookupObserver, Resolution};

const DEADLINE: Duration = Duration::from_secs(20);

/// A Redis of the test's own, killed on drop.
struct Redis {
    child: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _result = self.child.kill();
        let _result = self.child.wait();
    }
}

/// Starts redis-server.
fn redis(port: u16) -> Redis {
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
    let child = child.unwrap_or_else(|e| panic!("redis-server (Debian package redis-server): {e}"));
    Redis { child, port }
}

async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

#[derive(Default)]
struct LookupEvents {
    up: AtomicBool,
    shared_hits: AtomicUsize,
}

impl LookupObserver for LookupEvents {
    fn on_answer(&self, _: LookupKind, _: Resolution, _: AnswerKind, _: Duration) {}
    fn on_refresh(&self, _: LookupKind) {}
    fn on_shared_hit(&self, _: LookupKind) {
        self.shared_hits.fetch_add(1, Ordering::Relaxed);
    }
    fn on_store_state(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }
    fn on_cache_size(&self, _: u64, _: u64) {}
    fn on_in_flight(&self, _: usize) {}
}

impl LookupEvents {
    async fn wait_until_up_is(&self, up: bool) {
        let began = Instant::now();
        while self.up.load(Ordering::Relaxed) != up {
            assert!(began.elapsed() < DEADLINE, "not reported: up = {up}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn gateway(redis_port: u16, mx_port: u16) -> (LookupService, Arc<LookupEvents>) {
    let events = Arc::new(LookupEvents::default());
    let probes = ProbeSettings { port: mx_port, ..ProbeSettings::default() };
    let redis = Some(format!("redis://127.0.0.1:{redis_port}/"));
    let settings = LookupSettings { probes, redis, ..settings((Ipv4Addr::LOCALHOST, 9).into()) };
    let observer = Arc::clone(&events) as Arc<dyn LookupObserver>;
    (LookupService::start(settings, observer).unwrap().0, events)
}

/// A slow server that counts connections.
async fn mx() -> (u16, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                sleep(Duration::from_millis(300)).await;
                let _result = stream.write_all(b"220 mx\r\n").await;
                let mut received = [0; 512];
                while let Ok(1..) = stream.read(&mut received).await {
                    let _result = stream.write_all(b"250 mx\r\n").await;
                }
            });
        }
    });
    (port, connections)
}

#[tokio::test]
#[ignore = "needs redis-server: make test"]
async fn two_gateways_probe_a_server_once() {
    let redis = redis(free_port().await);
    let (port, connections) = mx().await;
    let (one, events_of_one) = gateway(redis.port, port);
    let (other, events_of_other) = gateway(redis.port, port);
    events_of_one.wait_until_up_is(true).await;
    events_of_other.wait_until_up_is(true).await;
    let greet = Lookup::Greet(Ipv4Addr::LOCALHOST.into());
    let answers = join_all([one.lookup(&greet), other.lookup(&greet), one.lookup(&greet)]).await;
    for result in &answers {
        assert_eq!(result.answer, Answer::Yes(None));
        // In Redis times have microseconds.
        let apart = result.at.unwrap().since(answers[0].at.unwrap());
        assert!(apart < Duration::from_micros(1), "one answer");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    let shared_hits = |events: &LookupEvents| events.shared_hits.load(Ordering::Relaxed);
    assert_eq!(shared_hits(&events_of_one) + shared_hits(&events_of_other), 1);
    // A gateway that starts later gets the answer.
    let (third, events_of_third) = gateway(redis.port, port);
    events_of_third.wait_until_up_is(true).await;
    assert_eq!(third.lookup(&greet).await.answer, Answer::Yes(None));
    assert_eq!((connections.load(Ordering::Relaxed), shared_hits(&events_of_third)), (1, 1));
    // A purge includes Redis.
    assert_eq!(third.purge(|_| true).await, 1);
    assert_eq!(third.lookup(&greet).await.answer, Answer::Yes(None));
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
#[ignore = "needs redis-server: make test"]
async fn without_redis_each_gateway_probes_without_delay() {
    let redis_port = free_port().await;
    let redis = redis(redis_port);
    // Nothing listens on the probed port: refused at once.
    let (one, events) = gateway(redis_port, free_port().await);
    events.wait_until_up_is(true).await;
    let ip = |n: u8| Lookup::Connect(Ipv4Addr::new(127, 0, 0, n).into());
    let refused = Answer::No(Reason::Refused, None);
    // Redis hangs: its process is stopped, its connections stay.
    let pid = nix::unistd::Pid::from_raw(redis.child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    for n in 1..=40 {
        assert_eq!(one.lookup(&ip(n)).await.answer, refused);
    }
    // Forty command timeouts would take 2 s.
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    events.wait_until_up_is(false).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    events.wait_until_up_is(true).await;
    drop(redis);
    events.wait_until_up_is(false).await;
    assert_eq!(one.lookup(&ip(50)).await.answer, refused);
    let _again = self::redis(redis_port);
    events.wait_until_up_is(true).await;
    assert_eq!(one.lookup(&ip(51)).await.answer, refused);
}

/// A Redis that answers every request for an answer with `value`, whatever the length that was asked for.
async fn hostile_redis(value: Vec<u8>) -> u16 {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let value = value.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                // `*2`, then `$3` and `GET` for each word.
                while let Ok(1..) = stream.read_line(&mut line).await {
                    let count: usize = line.trim_start_matches('*').trim().parse().unwrap();
                    let mut words = Vec::new();
                    for _ in 0..count {
                        line.clear();
                        stream.read_line(&mut line).await.unwrap();
                        let length: usize = line.trim_start_matches('$').trim().parse().unwrap();
                        let mut word = vec![0; length + 2];
                        stream.read_exact(&mut word).await.unwrap();
                        words.push(String::from_utf8_lossy(&word[..length]).into_owned());
                    }
                    line.clear();
                    let reply = match words[0].as_str() {
                        "GET" | "GETRANGE" => {
                            [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()
                        }
                        "PING" => b"+PONG\r\n".to_vec(),
                        "DEL" => b":1\r\n".to_vec(),
                        _ => b"+OK\r\n".to_vec(),
                    };
                    if stream.write_all(&reply).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// The server is refused. A Redis that says otherwise is believed for as long as a probe would be, and not at all if no probe
/// could say so.
#[tokio::test]
async fn a_hostile_redis_gives_no_eternal_or_absurd_answer() {
    let server = Lookup::Connect(Ipv4Addr::LOCALHOST.into());
    let refused = Answer::No(Reason::Refused, None);
    let answer = |answer: &str| {
        format!(
            "{{\"answer\":{answer},\"source\":\"upstream\",\"at\":\"2099-01-02T03:04:05.000000Z\",\
             \"until\":\"2199-01-02T03:04:05.000000Z\",\"renew\":\"2199-01-02T03:04:05.000000Z\"}}"
        )
    };
    let long = format!("{{\"no\":[\"refused\",\"{}\"]}}", "x".repeat(1 << 20));
    for (value, expected) in [
        (answer("{\"yes\":null}"), Answer::Yes(None)),
        (answer("{\"records\":[]}"), refused.clone()),
        (answer("\"nx_domain\""), refused.clone()),
        (answer("{\"no\":[\"null_mx\",null]}"), refused.clone()),
        (answer("{\"unknown\":\"rate_limited\"}"), refused.clone()),
        (answer(&long), refused.clone()),
        ("[[[".to_owned(), refused.clone()),
        ("\0".repeat(1 << 20), refused.clone()),
    ] {
        let shown = value.get(..60).unwrap_or(&value).to_owned();
        let redis_port = hostile_redis(value.into_bytes()).await;
        let (gateway, events) = gateway(redis_port, free_port().await);
        events.wait_until_up_is(true).await;
        let began = super::super::clock::now();
        let result = gateway.lookup(&server).await;
        assert_eq!(result.answer, expected, "{shown}");
        let now = super::super::clock::now();
        assert!((began..=now).contains(&result.at.unwrap()), "{shown}: {result:?}");
        let entries = gateway.all_entries();
        assert_eq!(entries.len(), 1, "{shown}");
        let ttls = super::super::Ttls::default();
        let longest = now + ttls.probe_positive.max(ttls.probe_negative);
        assert!(entries[0].1.expires_at <= longest, "{shown}: {:?}", entries[0].1);
        assert!(entries[0].1.refresh_at < entries[0].1.expires_at, "{shown}");
    }
}
