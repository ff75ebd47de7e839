//! The relay's benchmark: gatepost beside HAProxy, nginx and the direct path, in one run on the same namespaces.
//!
//! `cargo bench --bench relay` takes about six minutes and needs root, haproxy, nginx with its stream module, Postfix's
//! smtp-source and smtp-sink, iproute2 and util-linux. `-- --quick` checks in under a minute that the benchmark itself
//! works; `-- --ipv4` runs it over IPv4; `-- --only-mail` leaves out all but the 2 kB messages. Every raw figure goes to `target/bench/relay.json`.
//!
//! The paths take turns within each measure, and the medians of the rounds are compared, so that other load affects all of
//! them. A missed target is printed, and is no failure; a measure that did not run is one.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod bulk;
mod gatepost;
mod mail;
mod measures;
mod net;
mod process;
mod proxies;
mod report;
mod results;
mod rounds;
mod server;
mod setup;
mod sink;
#[path = "../smtp_client/mod.rs"]
mod smtp_client;
mod smtp_sink;
mod tables;
mod timing;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, bail, ensure};

use bulk::Direction;
use mail::Batch;
use net::{Family, Lab};
use proxies::{Peer, Proxy};
use results::Results;
use rounds::{rounds, rounds_of_new_proxies};
use setup::{check_interrupted, folder, raise_open_files, watch_signals};
use sink::Sink;

/// The size of the measures.
pub(crate) struct Plan {
    quick: bool,
    /// Only the measures of 2 kB messages.
    only_mail: bool,
    family: Family,
    threads: usize,
    rounds: u32,
    idle_rounds: u32,
    short_messages: u32,
    long_messages: u32,
    latency_sessions: u32,
    large_messages: u32,
    opaque_bytes: u64,
    idle_sessions: u32,
}

impl Plan {
    fn from_arguments() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        // cargo bench passes --bench; without it (cargo test --benches) this only checks that the benchmark works.
        let mut quick = !arguments.iter().any(|argument| argument == "--bench");
        let (mut only_mail, mut family) = (false, Family::Ipv6);
        for argument in &arguments {
            match argument.as_str() {
                "--bench" => {}
                "--quick" => quick = true,
                "--ipv4" => family = Family::Ipv4,
                "--only-mail" => only_mail = true,
                other => bail!("unknown argument {other}: --quick, --ipv4, --only-mail"),
            }
        }
        let threads = available_parallelism()?.get();
        Ok(if quick {
            Self {
                quick,
                only_mail,
                family,
                threads,
                rounds: 1,
                idle_rounds: 1,
                short_messages: 500,
                long_messages: 1_000,
                latency_sessions: 200,
                large_messages: 2,
                opaque_bytes: 256 << 20,
                idle_sessions: 500,
            }
        } else {
            Self {
                quick,
                only_mail,
                family,
                threads,
                rounds: 7,
                idle_rounds: 3,
                short_messages: 4_000,
                long_messages: 10_000,
                latency_sessions: 1_000,
                large_messages: 15,
                opaque_bytes: 4 << 30,
                idle_sessions: 5_000,
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
    let lab = Arc::new(Lab::new(plan.family)?);
    let mut run = Run { lab, plan, folder, results: Results::default() };
    let outcome = run.everything();
    let Run { plan, folder, results, .. } = run;
    print!(
        "\n{}{}",
        report::heading(plan.family, plan.threads, plan.rounds, &machine),
        tables::table(&results)?
    );
    for failure in results.failures() {
        println!("did not run: {failure}");
    }
    let path = folder.join("relay.json");
    let complete = outcome.is_ok() && results.complete();
    let json = tables::json(&results, &plan, &machine, complete);
    fs::write(&path, format!("{json:#}\n")).with_context(|| path.display().to_string())?;
    println!("every figure: {}", path.display());
    outcome?;
    Ok(complete)
}

struct Run {
    lab: Arc<Lab>,
    plan: Plan,
    folder: PathBuf,
    results: Results,
}

impl Run {
    fn everything(&mut self) -> Result<()> {
        let mut proxies = self.start_proxies()?;
        let Self { lab, plan, folder, results } = self;
        let count = plan.rounds;
        for (measure, batch, messages) in [
            ("message_per_session", Batch::OneMessageEach, plan.short_messages),
            ("many_per_session", Batch::ManyMessagesEach, plan.long_messages),
        ] {
            rounds(results, count, measure, &mut proxies, |proxy| {
                mail::batch(lab, proxy, batch, messages, folder)
            })?;
        }
        if plan.only_mail {
            return Ok(());
        }
        // It has a sink of its own until it is ready.
        let verifying = Proxy::start(lab, Peer::GatepostVerifying, plan.threads, folder);
        let sink = Sink::start(lab)?;
        let sessions = plan.latency_sessions;
        rounds(results, count, "latency", &mut proxies, |proxy| {
            measures::latency(lab, proxy, sink.counters(), sessions)
        })?;
        results.add_differences("latency");
        let messages = plan.large_messages;
        rounds(results, count, "large_messages", &mut proxies, |proxy| {
            measures::large(lab, proxy, sink.counters(), messages)
        })?;
        match verifying {
            Ok(verifying) => proxies.push(verifying),
            Err(error) => results.fail("signed_messages", Peer::GatepostVerifying, &error),
        }
        let of_gatepost =
            |proxy: &Proxy| matches!(proxy.peer, Peer::Gatepost | Peer::GatepostVerifying);
        let (mut both, mut others): (Vec<_>, Vec<_>) = proxies.into_iter().partition(of_gatepost);
        rounds(results, count, "signed_messages", &mut both, |proxy| {
            measures::large_signed(lab, proxy, sink.counters(), messages)
        })?;
        both.retain(|proxy| proxy.peer == Peer::Gatepost);
        others.append(&mut both);
        let mut proxies = others;
        let length = plan.opaque_bytes;
        for (measure, direction) in [("opaque_up", Direction::Up), ("opaque_down", Direction::Down)]
        {
            rounds(results, count, measure, &mut proxies, |proxy| {
                measures::opaque(lab, proxy, direction, length)
            })?;
        }
        drop(sink);
        drop(proxies);
        rounds_of_new_proxies(results, plan.idle_rounds, "idle_sessions", &Peer::ALL, |peer| {
            measures::idle(lab, peer, plan.threads, plan.idle_sessions, folder)
        })
    }

    /// The proxies that start and are in the path; failures of the others are recorded.
    fn start_proxies(&mut self) -> Result<Vec<Proxy>> {
        let mut proxies = Vec::new();
        for peer in Peer::ALL {
            check_interrupted()?;
            let started =
                Proxy::start(&self.lab, peer, self.plan.threads, &self.folder).and_then(|proxy| {
                    mail::check(&self.lab, &proxy, &self.folder)?;
                    Ok(proxy)
                });
            match started {
                Ok(proxy) => {
                    let threads = proxy.daemon.as_ref().map_or(Ok(0), |daemon| daemon.threads())?;
                    println!("{}: ready, in the path, {threads} threads", peer.name());
                    proxies.push(proxy);
                }
                Err(error) => self.results.fail("start", peer, &error),
            }
        }
        ensure!(!proxies.is_empty(), "not even the direct path works");
        Ok(proxies)
    }
}
