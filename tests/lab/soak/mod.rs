//! Endurance: ordinary mail between two Postfix while clients, an upstream, the resolver and Redis are hostile. Nothing is
//! lost, nothing arrives twice, memory stays flat, and the door stays open.
//!
//! `make soak` runs it, for `SOAK_MINUTES` (120).

mod hostile_clients;
mod hostile_services;
mod ordinary;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::hostile_clients::HostileClients;
use self::ordinary::OrdinaryMail;
use crate::harness::tests;
use crate::support::{Authority, Config, Family, Gateway, Lab, Mode};

tests![OnRequest: ordinary_mail_survives_hostile_neighbours];

/// Interval of the samples of memory and doors.
const SAMPLE: Duration = Duration::from_secs(15);
/// What the allocator may keep beyond a tenth.
const SLACK_KIB: u64 = 8 * 1024;

const DNS: &str = "[::1]:5300";
const REDIS: &str = "[::1]:6390";
/// Of the second gateway, whose upstream is hostile.
const SECOND_PORT: u16 = 2526;

const RULES: &str = r#"
[[policy]]
name = "a forward-confirmed name"
when = { at = "connect" }
require = ["fcrdns"]
otherwise = "tag"
on_unknown = "accept"

[[policy]]
name = "a return path"
require = ["return_path"]
mode = "shadow"
"#;

/// Tells the hostile threads of a run when it is over.
#[derive(Debug, Default)]
struct Over(AtomicBool);

impl Over {
    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn declare(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn ordinary_mail_survives_hostile_neighbours() {
    let minutes = std::env::var("SOAK_MINUTES").map_or(120, |text| text.parse().unwrap());
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), "mx.example.org");
    let listen = Family::ALL.map(|family| lab.entrance(Mode::Proxy, family));
    let plain = Family::ALL.map(|family| SocketAddr::new(lab.gateway_ip(family), ordinary::PLAIN));
    let config = Config::new(&lab, Mode::Proxy)
        .listen(&[listen, plain].concat())
        .with_upstream_checks()
        .set("door.ipv6", "")
        .set("lookup", &format!("dns = [{DNS:?}]"))
        .set("lookup", &format!("redis = \"redis://{REDIS}\""))
        .set("limits", "sessions = 400")
        .policies(RULES);
    let second_listen =
        Family::ALL.map(|family| SocketAddr::new(lab.gateway_ip(family), SECOND_PORT));
    let second_config = Config::new(&lab, Mode::Proxy)
        .listen(&second_listen)
        .metrics("[::1]:9626")
        .upstreams(&[lab.server_socket(Family::Ipv6, hostile_services::UPSTREAM_PORT)]);

    let over = Over::default();
    thread::scope(|scope| {
        hostile_services::spawn(scope, &lab, &over);
        let mail = OrdinaryMail::start(&lab, &authority);
        let gateway = Gateway::start(&lab, &config);
        let second = Gateway::start(&lab, &second_config);
        let clients = HostileClients::spawn(scope, &lab, &over, [listen, second_listen].concat());
        // Ends the threads also if an assertion fails.
        let _end = EndOnDrop(&over);

        let mut samples = Vec::new();
        let mut accepted = 0;
        let end = Instant::now() + Duration::from_secs(minutes * 60);
        while Instant::now() < end {
            let next = Instant::now() + SAMPLE;
            while Instant::now() < next {
                accepted += mail.submit_round(accepted);
            }
            samples.push((gateway.resident_kib(), second.resident_kib()));
            let open = gateway.metric("gatepost_door_state", &["family=\"ipv6\"", "\"closed\""]);
            assert!(open < 1.0, "the door closed:\n{}", gateway.log());
        }
        over.declare();
        mail.assert_each_arrived_once(accepted);
        let hostile = clients.sessions();
        eprintln!(
            "{minutes} min: {accepted} messages, each once; {hostile} hostile sessions; memory {:?} KiB, hostile upstream \
             {:?} KiB",
            range(samples.iter().map(|sample| sample.0)),
            range(samples.iter().map(|sample| sample.1)),
        );
        assert!(hostile > 0 && accepted > 0);
        assert_flat("gateway", samples.iter().map(|sample| sample.0).collect());
        assert_flat("second gateway", samples.iter().map(|sample| sample.1).collect());
        for log in [gateway.log(), second.log()] {
            assert!(!log.contains("panicked"), "a session panicked");
        }
    });
}

struct EndOnDrop<'a>(&'a Over);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.declare();
    }
}

fn range(samples: impl Iterator<Item = u64> + Clone) -> (u64, u64) {
    (samples.clone().min().unwrap_or_default(), samples.max().unwrap_or_default())
}

/// After a quarter of the time the memory grows no more: the last quarter's median is that of the second.
#[track_caller]
fn assert_flat(what: &str, samples: Vec<u64>) {
    let quarter = samples.len() / 4;
    let median = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    let early = median(&samples[quarter..quarter * 2]);
    let late = median(&samples[quarter * 3..]);
    assert!(late <= early + early / 10 + SLACK_KIB, "{what}: from {early} to {late} KiB");
}

/// A small generator (xorshift): the runs differ, and nothing depends on the sequence.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit as u64)).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
