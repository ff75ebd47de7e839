//! Lookups that hold under load: two hundred new senders a second, a DNS that takes its time and fails now and then.

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

tests![new_senders_wait_no_longer_than_their_lookups];

const SENDERS: u16 = 2000;
const PACE: Duration = Duration::from_millis(5);
const DELAY: Duration = Duration::from_millis(300);
const FAILS_ONE_IN: u64 = 20;
/// What the gateway may take, with a cache of a thousand entries; it relays two hundred sessions at once besides.
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

/// What a sender's RCPT got, and how long after its connection.
struct Heard {
    code: u16,
    after: Duration,
}

fn new_senders_wait_no_longer_than_their_lookups() {
    let lab = Lab::new();
    // Every address of the network is the client's own.
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
    // The same crowd, and nobody asks anything of it.
    let gateway = Gateway::start(&lab, &config);
    let plain = crowd(&lab);
    drop(gateway);
    assert!(plain.values().all(|heard| heard.code == 250));
    let gateway = Gateway::start(&lab, &config.policies(RULES));
    let heard = crowd(&lab);
    let spans = std::mem::take(&mut *resolver.log.spans.lock().unwrap());

    // A failed lookup is unknown: never a 5xx, and never without an answer.
    let codes: BTreeMap<u16, usize> = heard.values().fold(BTreeMap::new(), |mut codes, heard| {
        *codes.entry(heard.code).or_default() += 1;
        codes
    });
    assert!(codes.keys().all(|code| [250, 451].contains(code)), "{codes:?}");
    assert!(codes.get(&250).is_some_and(|taken| *taken > usize::from(SENDERS) / 2), "{codes:?}");
    let failed = resolver.log.failed.load(std::sync::atomic::Ordering::Relaxed);
    assert!(failed > 0);
    let twice = resolver.log.twice.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(twice, 0, "lookups were asked while they were open");
    let resident = gateway.resident_kib();
    assert!(resident < MOST_KIB, "{resident} KiB");

    // What the policy added to a sender's time, and how long the lookups about it took one after the other.
    let usual = percentile(plain.values().map(|heard| heard.after), 50);
    let waited = heard.values().map(|heard| heard.after.saturating_sub(usual));
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

/// All of the senders at their pace.
fn crowd(lab: &Lab) -> BTreeMap<u16, Heard> {
    let heard = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        let begun = Instant::now();
        for n in 0..SENDERS {
            thread::sleep((begun + PACE * n.into()).saturating_duration_since(Instant::now()));
            let heard = &heard;
            scope.spawn(move || {
                let told = say(lab, n);
                heard.lock().unwrap().insert(n, told);
            });
        }
    });
    heard.into_inner().unwrap()
}

fn percentile(times: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    times[times.len() * percent / 100]
}

fn ip(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 1, n)
}

fn say(lab: &Lab, n: u16) -> Heard {
    let mut smtp = lab.client.smtp_from(IpAddr::V6(ip(n)), lab.entrance(Mode::Proxy, Family::Ipv6));
    let connected = Instant::now();
    // All at once but for the greeting: nothing of the lookups hides behind the client's own pace.
    smtp.dialogue("S: 220");
    smtp.raw(format!("EHLO s{n}.crowd.example\r\n").as_bytes()).unwrap();
    smtp.dialogue("S: 250");
    smtp.dialogue(&format!("C: MAIL FROM:<u@s{n}.crowd.example>\n S: 250"));
    let reply = smtp.ask("RCPT TO:<someone@example.org>");
    let after = connected.elapsed();
    smtp.dialogue("C: QUIT\n S: 221");
    Heard { code: reply.code, after }
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
