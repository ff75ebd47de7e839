//! The cost of a closed door: refusal at the SYN against a 421 reply, and the sender's waiting time.
//!
//! `cargo bench --bench door` needs root, CAP_BPF and iproute2. A client in a namespace of its own connects to the gateway over IPv6
//! again and again; both ways take turns in each round, and medians are compared. `-- --quick` only checks that the benchmark
//! works. Every raw figure goes to `target/bench/door.json`. A missed target is printed, and is no failure.
//!
//! CPU time is that of the gateway's process and of the client's threads together: over a veth pair the kernel does the
//! gateway's part of a handshake on the client's thread. Both figures include the client's own work, which is larger with a 421,
//! and exclude the work of kernel threads.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lab is that of the tests"
)]

#[path = "../../lab/support/mod.rs"]
mod lab;
#[path = "../quick.rs"]
mod quick;
#[allow(dead_code, reason = "the replay's benchmark uses the rest")]
#[path = "../replay/timed.rs"]
mod timed;

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use lab::{Config, Family, Gateway, Lab, Mode};
use quick::is_quick;
use timed::median;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// Concurrent clients.
const CLIENTS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(10);

/// The promised limit.
const SOON: f64 = 0.001;
const CHEAP: f64 = 0.5;

struct Plan {
    rounds: u32,
    connects: u32,
    timed: u32,
}

impl Plan {
    fn from_arguments() -> Result<Self> {
        Ok(if is_quick()? {
            Self { rounds: 1, connects: 1_000, timed: 100 }
        } else {
            Self { rounds: 5, connects: 100_000, timed: 5_000 }
        })
    }
}

/// The result of one round of one method.
struct Figures {
    refuse: &'static str,
    round: u32,
    gateway_s: f64,
    clients_s: f64,
    took_s: f64,
}

impl Figures {
    fn cpu(&self) -> f64 {
        self.gateway_s + self.clients_s
    }
}

fn main() -> Result<ExitCode> {
    let plan = Plan::from_arguments()?;
    ensure!(lab::is_root(), "the benchmark needs root");
    let lab = Lab::new();
    let ways = ["syn", "smtp"].map(|refuse| (refuse, port_of(refuse)));
    let gateways = ways.map(|(refuse, port)| start(&lab, refuse, port));
    let gateways = [&gateways[0], &gateways[1]];

    let soon = {
        let to = SocketAddr::new(lab.gateway_ip(Family::Ipv6), port_of("syn"));
        let all: Vec<f64> = lab.client.in_thread(|| (0..plan.timed).map(|_| refused(to)).collect());
        median(all.into_iter())
    };
    let mut figures = Vec::new();
    for round in 1..=plan.rounds {
        println!("round {round} of {}", plan.rounds);
        // In alternating order.
        let turns = if round % 2 == 0 { [1, 0] } else { [0, 1] };
        for way in turns {
            let (refuse, port) = ways[way];
            figures.push(one_round(&lab, gateways[way], refuse, port, round, plan.connects));
        }
    }
    let of = |refuse: &str, figure: fn(&Figures) -> f64| {
        median(figures.iter().filter(|f| f.refuse == refuse).map(figure))
    };
    let ratio = of("syn", Figures::cpu) / of("smtp", Figures::cpu);
    println!("\nrefused over IPv6, {} connections a round, medians", plan.connects);
    println!(
        "{:<6} {:>10} {:>12} {:>12} {:>10}",
        "how", "CPU s", "gateway's", "clients'", "took s"
    );
    for (refuse, _) in ways {
        println!(
            "{refuse:<6} {:>10.3} {:>12.3} {:>12.3} {:>10.3}",
            of(refuse, Figures::cpu),
            of(refuse, |f| f.gateway_s),
            of(refuse, |f| f.clients_s),
            of(refuse, |f| f.took_s),
        );
    }
    let verdict = |kept: bool| if kept { "kept" } else { "MISSED" };
    println!(
        "CPU, at the SYN beside 421: {ratio:.2}, target at most {CHEAP}: {}",
        verdict(ratio <= CHEAP)
    );
    println!(
        "from SYN to reset: {:.0} µs, target at most {:.0} µs: {}",
        soon * 1e6,
        SOON * 1e6,
        verdict(soon <= SOON)
    );
    let path = folder()?.join("door.json");
    let rounds: Vec<Value> = figures.iter().map(|f| json!({
        "refuse": f.refuse, "round": f.round, "gateway_cpu_s": f.gateway_s, "clients_cpu_s": f.clients_s,
        "took_s": f.took_s,
    })).collect();
    let all = json!({
        "connects": plan.connects, "rounds": rounds, "cpu_ratio": ratio, "syn_to_reset_s": soon,
    });
    fs::write(&path, format!("{all:#}\n")).with_context(|| path.display().to_string())?;
    println!("every figure: {}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn port_of(refuse: &str) -> u16 {
    if refuse == "syn" { 25 } else { 587 }
}

/// A gateway whose IPv6 door is closed.
fn start<'lab>(lab: &'lab Lab, refuse: &str, port: u16) -> Gateway<'lab> {
    let listen = Family::ALL.map(|family| SocketAddr::new(lab.gateway_ip(family), port));
    let config = Config::new(lab, Mode::Proxy)
        .listen(&listen)
        .set("door", &format!("refuse = {refuse:?}"))
        .without("metrics");
    let gateway = Gateway::start(lab, &config);
    let socket = config.socket().to_str().unwrap();
    lab.gateway.run([GATEPOST, "door", "ipv6", "close", "--socket", socket]);
    let log = gateway.log();
    assert!(!log.contains("421 only"), "refusing at the SYN does not work here:\n{log}");
    gateway
}

fn one_round(
    lab: &Lab,
    gateway: &Gateway<'_>,
    refuse: &'static str,
    port: u16,
    round: u32,
    connects: u32,
) -> Figures {
    let to = SocketAddr::new(lab.gateway_ip(Family::Ipv6), port);
    let before = gateway.cpu();
    let started = Instant::now();
    let clients: Duration = thread::scope(|scope| {
        let client = || {
            lab.client.in_thread(|| {
                for _ in 0..connects / CLIENTS {
                    if refuse == "syn" {
                        refused(to);
                    } else {
                        turned_away(to);
                    }
                }
                Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    let took = started.elapsed();
    // The last sessions end after their clients have.
    thread::sleep(Duration::from_millis(100));
    let gateway = gateway.cpu() - before;
    Figures {
        refuse,
        round,
        gateway_s: gateway.as_secs_f64(),
        clients_s: clients.as_secs_f64(),
        took_s: took.as_secs_f64(),
    }
}

/// Connects and gets a RST; returns the time in seconds.
fn refused(to: SocketAddr) -> f64 {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    let started = Instant::now();
    let error = socket.connect(&to.into()).expect_err("a closed door");
    let took = started.elapsed();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    took.as_secs_f64()
}

/// Connects, reads the 421 and the end of the connection; returns the time in seconds.
fn turned_away(to: SocketAddr) {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(&to.into()).expect("a gateway that listens");
    let mut reply = Vec::new();
    (&socket).read_to_end(&mut reply).expect("a reply");
    assert!(reply.starts_with(b"421 4.3.2"), "{}", reply.escape_ascii());
}

fn folder() -> Result<std::path::PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
