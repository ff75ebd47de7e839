//! Lookups under load: two hundred new senders a second, and a DNS that is slow and sometimes fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::tests;
use crate::support::resolver::{Behaviour, Resolver};
use crate::support::world::{ASKED, KNOT, knot};
use crate::support::{Config, Family, Gateway, Lab, Mode, port};
use hickory_proto::rr::Name;

tests![Alone: new_senders_wait_no_longer_than_their_lookups];

const SENDERS: u16 = 2000;
const PACE: Duration = Duration::from_millis(5);
const DELAY: Duration = Duration::from_millis(300);
const FAILS_ONE_IN: u64 = 20;
/// Limit of the gateway's memory, with a cache of a thousand entries and two hundred concurrent sessions.
const MOST_KIB: u64 = 96 * 1024;

const RULES: &str = r#"
[[policy]]
name = "a forward-confirmed name"
when = { at = "connect" }
require = ["fcrdns"]

[[policy]]
name = "a return path"
require = ["return_path"]
"#;

/// The reply to a sender's RCPT, and its time since the connection.
struct TimedReply {
    code: u16,
    after: Duration,
}

fn new_senders_wait_no_longer_than_their_lookups() {
    let lab = Lab::new();
    // Every address of the network belongs to the client.
    lab.client.configure("route add local 2001:db8:5::/64 dev lo\n");
    lab.client.run(["sysctl", "-qw", "net.ipv6.ip_nonlocal_bind=1"]);
    lab.gateway.configure("route add 2001:db8:5::/64 via 2001:db8:1::10\n");
    let _knot = knot(&lab, &zones(), &[]);
    let behaviour = Behaviour {
        delay: DELAY,
        fails_one_in: FAILS_ONE_IN,
        about: Some(about),
        ..Behaviour::default()
    };
    let resolver =
        Resolver::start(&lab.gateway, ASKED.parse().unwrap(), KNOT.parse().unwrap(), behaviour);
    let at = lab.server_socket(Family::Ipv6, port::SMTP);
    let _sink = lab.server.spawn(["smtp-sink", "-u", "nobody", &format!("inet:{at}"), "1000"]);
    lab.gateway.wait_for_listener(at);
    let config = Config::new(&lab, Mode::Proxy)
        .for_crowds()
        .upstreams(&[at])
        .set("lookup", &format!("dns = [\"{ASKED}\"]"))
        .set("lookup", "cache_entries = 1000");
    // The same senders, without policy rules.
    let gateway = Gateway::start(&lab, &config);
    let plain = crowd(&lab);
    drop(gateway);
    assert!(plain.values().all(|reply| reply.code == 250));
    let gateway = Gateway::start(&lab, &config.policies(RULES));
    let replies = crowd(&lab);
    let spans = std::mem::take(&mut *resolver.log.spans.lock().unwrap());

    // A failed lookup is unknown: never a 5xx, and never without an answer.
    let codes: BTreeMap<u16, usize> = replies.values().fold(BTreeMap::new(), |mut codes, reply| {
        *codes.entry(reply.code).or_default() += 1;
        codes
    });
    assert!(codes.keys().all(|code| [250, 451].contains(code)), "{codes:?}");
    assert!(codes.get(&250).is_some_and(|taken| *taken > usize::from(SENDERS) / 2), "{codes:?}");
    let failed = resolver.log.failed.load(std::sync::atomic::Ordering::Relaxed);
    assert!(failed > 0);
    let twice = resolver.log.twice.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(twice, 0, "queries repeated while in flight");
    let resident = gateway.resident_kib();
    assert!(resident < MOST_KIB, "{resident} KiB");

    // The time that the policy added to a session, and the time from its first query to its last answer.
    let usual = percentile(plain.values().map(|reply| reply.after), 50);
    let waited = replies.values().map(|reply| reply.after.saturating_sub(usual));
    let looked_up = spans.values().map(|(first, last)| last.duration_since(*first));
    let (waited, looked_up) = (percentile(waited, 99), percentile(looked_up, 99));
    let _ = writeln!(
        std::io::stderr(),
        "{SENDERS} senders, {} questions, {failed} failed; p99: added {waited:.3?} to {usual:.3?}, looked up \
         {looked_up:.3?}, ratio {:.3}; {codes:?}; {resident} KiB",
        resolver.log.questions(),
        waited.as_secs_f64() / looked_up.as_secs_f64(),
    );
}

/// One session of each sender, at a fixed rate.
fn crowd(lab: &Lab) -> BTreeMap<u16, TimedReply> {
    let replies = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        let begun = Instant::now();
        for n in 0..SENDERS {
            thread::sleep((begun + PACE * n.into()).saturating_duration_since(Instant::now()));
            let replies = &replies;
            scope.spawn(move || {
                let reply = send(lab, n);
                replies.lock().unwrap().insert(n, reply);
            });
        }
    });
    replies.into_inner().unwrap()
}

fn percentile(times: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times[times.len() * percent / 100]
}

fn ip(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 1, n)
}

fn send(lab: &Lab, n: u16) -> TimedReply {
    let mut smtp = lab.client.smtp_from(IpAddr::V6(ip(n)), lab.entrance(Mode::Proxy, Family::Ipv6));
    let connected = Instant::now();
    // Without pauses, so that no lookup overlaps with waiting of the client's own.
    smtp.dialogue("S: 220");
    smtp.raw(format!("EHLO s{n}.crowd.example\r\n").as_bytes()).unwrap();
    smtp.dialogue("S: 250");
    smtp.dialogue(&format!("C: MAIL FROM:<u@s{n}.crowd.example>\n S: 250"));
    let reply = smtp.ask("RCPT TO:<someone@example.org>");
    let after = connected.elapsed();
    smtp.dialogue("C: QUIT\n S: 221");
    TimedReply { code: reply.code, after }
}

/// The sender by its label `sN`, or by the last group of its address.
fn about(name: &Name) -> Option<String> {
    let text = name.to_ascii();
    if text.ends_with(".ip6.arpa.") {
        let nibbles: Vec<&str> = text.split('.').take(4).collect();
        let number: String = nibbles.into_iter().rev().collect();
        return u16::from_str_radix(&number, 16).ok().map(|n| format!("s{n}"));
    }
    let label = text.split('.').next()?;
    label.strip_prefix('s')?.parse::<u16>().ok()?;
    Some(label.to_owned())
}

fn zones() -> BTreeMap<String, String> {
    let mut crowd = "ns AAAA 2001:db8:53::53\n".to_owned();
    let mut reverse = String::new();
    for n in 0..SENDERS {
        writeln!(crowd, "s{n} AAAA {}\ns{n} MX 10 s{n}", ip(n)).unwrap();
        writeln!(reverse, "{} PTR s{n}.crowd.example.", Name::from(IpAddr::V6(ip(n)))).unwrap();
    }
    [("crowd.example".to_owned(), crowd), ("8.b.d.0.1.0.0.2.ip6.arpa".to_owned(), reverse)].into()
}
