//! The TLS benchmark: gatepost beside nginx mail, stunnel and HAProxy, all of which end the client's TLS, in one run on the
//! same namespaces.
//!
//! `cargo bench --bench tls` takes about nine minutes and needs root, haproxy, nginx with its mail module, stunnel4,
//! Postfix's smtp-sink, openssl, iproute2 and util-linux. `-- --quick` checks in under a minute that the benchmark itself
//! works; `-- --ipv4` runs it over IPv4; `-- --only PEER,PEER` leaves out the other proxies. Every raw figure goes to
//! `target/bench/tls.json`.
//!
//! The client offers TLS 1.3 with AES-128-GCM and X25519 alone, and every server has the same ECDSA P-256 certificate, with
//! one intermediate above it. The run fails if a server agrees on anything else, or does not resume where it should. The
//! four do not do the same: HAProxy cannot speak STARTTLS, so its clients begin with TLS; nginx answers EHLO and MAIL
//! itself, asks an HTTP server for the upstream and connects at RCPT; stunnel waits 200 ms for clients that begin with
//! TLS. gatepost alone follows the dialogue to its end.
//!
//! The paths take turns within each measure, and the medians of the rounds are compared. A missed target is printed, and is
//! no failure; a measure that did not run is one.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the certificates are made by the lab of the tests"
)]

mod auth;
#[allow(dead_code, reason = "the sink shares them with the relay's benchmark")]
#[path = "../bulk.rs"]
mod bulk;
#[allow(dead_code, reason = "the lab's tests use the rest")]
#[path = "../../lab/support/ca.rs"]
mod ca;
mod configurations;
#[path = "../gatepost.rs"]
mod gatepost;
mod measures;
#[path = "../net.rs"]
mod net;
#[allow(dead_code, reason = "the relay's benchmark uses the rest")]
#[path = "../process.rs"]
mod process;
mod proxies;
#[path = "../report.rs"]
mod report;
#[allow(dead_code, reason = "the relay's benchmark uses the rest")]
#[path = "../results.rs"]
mod results;
#[path = "../rounds.rs"]
mod rounds;
#[path = "../server.rs"]
mod server;
#[path = "../setup.rs"]
mod setup;
#[path = "../sink.rs"]
mod sink;
#[path = "../../smtp_client/mod.rs"]
mod smtp_client;
#[allow(dead_code, reason = "the relay's benchmark uses the rest")]
#[path = "../smtp_sink.rs"]
mod smtp_sink;
mod tables;
#[path = "../timing.rs"]
mod timing;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, bail, ensure};

use ca::{Authority, CertificateRequest, IssuedCertificate, KeyType, Validity};
use net::{Family, Lab};
use proxies::{Peer, Proxy};
use results::Results;
use rounds::{rounds, rounds_of_new_proxies};
use setup::{check_interrupted, folder, raise_open_files, watch_signals};
use sink::Sink;

/// The size of the measures.
pub(crate) struct Plan {
    quick: bool,
    family: Family,
    peers: Vec<Peer>,
    threads: usize,
    rounds: u32,
    idle_rounds: u32,
    /// Each with one message of 2 kB.
    sessions: u32,
    latency_sessions: u32,
    large_messages: u32,
    idle_sessions: u32,
}

impl Plan {
    fn from_arguments() -> Result<Self> {
        // cargo bench passes --bench; without it (cargo test --benches) this only checks that the benchmark works.
        let mut quick = !std::env::args().any(|argument| argument == "--bench");
        let (mut family, mut peers) = (Family::Ipv6, Peer::ALL.to_vec());
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--quick" => quick = true,
                "--ipv4" => family = Family::Ipv4,
                "--only" => {
                    let names = arguments.next().context("--only takes names of proxies")?;
                    peers.retain(|peer| {
                        *peer == Peer::Direct || names.split(',').any(|name| name == peer.name())
                    });
                }
                other => bail!("unknown argument {other}: --quick, --ipv4, --only PEER,PEER"),
            }
        }
        let threads = available_parallelism()?.get();
        Ok(if quick {
            Self {
                quick,
                family,
                peers,
                threads,
                rounds: 1,
                idle_rounds: 1,
                sessions: 400,
                latency_sessions: 100,
                large_messages: 2,
                idle_sessions: 200,
            }
        } else {
            Self {
                quick,
                family,
                peers,
                threads,
                rounds: 5,
                idle_rounds: 3,
                sessions: 2_000,
                latency_sessions: 200,
                large_messages: 10,
                idle_sessions: 2_000,
            }
        })
    }
}

fn main() -> ExitCode {
    setup::exit_code(bench())
}

/// Returns true if every measure ran.
fn bench() -> Result<bool> {
    let plan = Plan::from_arguments()?;
    raise_open_files()?;
    watch_signals()?;
    let machine = report::machine()?;
    let folder = folder()?;
    let certificate = certificate(&folder)?;
    let lab = Arc::new(Lab::new(plan.family)?);
    let mut run = Run { lab, plan, folder, certificate, results: Results::default() };
    let outcome = run.everything();
    let Run { plan, folder, results, .. } = run;
    let heading = report::heading(plan.family, plan.threads, plan.rounds, &machine);
    print!("\n{heading}{}", tables::table(&results)?);
    for failure in results.failures() {
        println!("did not run: {failure}");
    }
    let path = folder.join("tls.json");
    let complete = outcome.is_ok() && results.complete();
    let json = tables::json(&results, &plan, &machine, complete);
    fs::write(&path, format!("{json:#}\n")).with_context(|| path.display().to_string())?;
    println!("every figure: {}", path.display());
    outcome?;
    Ok(complete)
}

/// One certificate for all proxies.
fn certificate(folder: &std::path::Path) -> Result<IssuedCertificate> {
    let folder = folder.join("certificates");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let root = Authority::new(folder, "mx.example.org");
    Ok(root.intermediate("intermediate").issue(&CertificateRequest {
        file: "bench",
        names: &["mx.example.org"],
        key: KeyType::EcdsaP256,
        validity: Validity::Days(1),
    }))
}

struct Run {
    lab: Arc<Lab>,
    plan: Plan,
    folder: PathBuf,
    certificate: IssuedCertificate,
    results: Results,
}

impl Run {
    fn everything(&mut self) -> Result<()> {
        let mut proxies = self.start_proxies()?;
        let Self { lab, plan, folder, certificate, results } = self;
        let count = plan.rounds;
        for (measure, resume) in [("full_handshake", false), ("resumed", true)] {
            rounds(results, count, measure, &mut proxies, |proxy| {
                measures::sessions(lab, proxy, resume, plan.sessions, folder)
            })?;
        }
        let sink = Sink::start(lab)?;
        for (measure, resume) in [("latency", false), ("latency_resumed", true)] {
            rounds(results, count, measure, &mut proxies, |proxy| {
                measures::latency(lab, proxy, resume, sink.counters(), plan.latency_sessions)
            })?;
            results.add_differences(measure);
        }
        rounds(results, count, "large_messages", &mut proxies, |proxy| {
            measures::large(lab, proxy, sink.counters(), plan.large_messages)
        })?;
        drop(sink);
        drop(proxies);
        let peers = &plan.peers;
        rounds_of_new_proxies(results, plan.idle_rounds, "idle_sessions", peers, |peer| {
            let site = proxies::Site { lab, threads: plan.threads, certificate, folder };
            measures::idle(&site, peer, plan.idle_sessions)
        })
    }

    /// The proxies that start and are in the path; failures of the others are recorded.
    fn start_proxies(&mut self) -> Result<Vec<Proxy>> {
        let Self { lab, plan, folder, certificate, results } = self;
        let site = proxies::Site { lab, threads: plan.threads, certificate, folder };
        let mut proxies = Vec::new();
        for &peer in &plan.peers {
            check_interrupted()?;
            let started = Proxy::start(&site, peer)
                .and_then(|proxy| Ok((measures::check(lab, &proxy, folder)?, proxy)));
            match started {
                Ok((handshake, proxy)) => {
                    let threads = proxy.daemon.as_ref().map_or(Ok(0), |daemon| daemon.threads())?;
                    println!("{}: in the path, {threads} threads, {handshake}", peer.name());
                    proxies.push(proxy);
                }
                Err(error) => results.fail("start", peer, &error),
            }
        }
        ensure!(!proxies.is_empty(), "not even the direct path works");
        Ok(proxies)
    }
}
