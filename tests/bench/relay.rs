//! The relay's benchmark: gatepost beside HAProxy, nginx and the direct path, in one run on the same namespaces.
//!
//! `cargo bench --bench relay` takes about six minutes and needs root, haproxy, nginx with its stream module, Postfix's
//! smtp-source and smtp-sink, iproute2 and util-linux. `-- --quick` checks in under a minute that the benchmark itself
//! works; `-- --ipv4` runs it over IPv4. Every raw figure goes to `target/bench/relay.json`.
//!
//! The paths take turns within each measure, and the medians of the rounds are compared, so that other load affects all of
//! them. A missed target is printed, and is no failure; a measure that did not run is one.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod mail;
mod measures;
mod net;
mod process;
mod proxies;
mod report;
mod results;
mod session;
mod sink;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, available_parallelism};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use mail::Batch;
use net::{Family, Lab};
use proxies::{Peer, Proxy};
use results::{Figures, Results};
use session::Direction;
use sink::Sink;

/// Two sockets for each of the sessions that the proxies allow, pipes for splicing, and room.
const OPEN_FILES: u64 = 20_000;

/// Set by SIGINT and SIGTERM; the run ends before its next step, and everything is cleaned up on the way out.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The size of the measures.
pub(crate) struct Plan {
    quick: bool,
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
        let mut family = Family::Ipv6;
        for argument in &arguments {
            match argument.as_str() {
                "--bench" => {}
                "--quick" => quick = true,
                "--ipv4" => family = Family::Ipv4,
                other => bail!("unknown argument {other}: there are --quick and --ipv4"),
            }
        }
        let threads = available_parallelism()?.get();
        Ok(if quick {
            Self {
                quick,
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
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
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
    print!("\n{}{}", report::heading(&plan, &machine), report::table(&results)?);
    for failure in results.failures() {
        println!("did not run: {failure}");
    }
    let path = folder.join("relay.json");
    let complete = outcome.is_ok() && results.complete();
    let json = report::json(&results, &plan, &machine, complete);
    fs::write(&path, format!("{json:#}\n")).with_context(|| path.display().to_string())?;
    println!("every figure: {}", path.display());
    outcome?;
    Ok(complete)
}

/// Sets the limit of open files, for this process and the proxies, which inherit it.
fn raise_open_files() -> Result<()> {
    let found = getrlimit(Resource::Nofile).maximum;
    // None means unlimited.
    let maximum = found.map(|found| found.max(OPEN_FILES));
    setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_FILES), maximum })
        .with_context(|| format!("open files: {OPEN_FILES} needed, at most {found:?} allowed"))
}

/// `target/bench`, which also keeps the proxies' configurations and logs of the last run.
fn folder() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn watch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    })?;
    Ok(())
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
        let (lab, folder) = (Arc::clone(&self.lab), self.folder.clone());

        let messages = self.plan.short_messages;
        self.rounds("message_per_session", &mut proxies, |proxy| {
            mail::batch(&lab, proxy, Batch::OneMessageEach, messages, &folder)
        })?;
        let messages = self.plan.long_messages;
        self.rounds("many_per_session", &mut proxies, |proxy| {
            mail::batch(&lab, proxy, Batch::ManyMessagesEach, messages, &folder)
        })?;

        let sink = Sink::start(&lab)?;
        let sessions = self.plan.latency_sessions;
        self.rounds("latency", &mut proxies, |proxy| {
            measures::latency(&lab, proxy, sink.counters(), sessions)
        })?;
        self.results.add_differences("latency");
        let messages = self.plan.large_messages;
        self.rounds("large_messages", &mut proxies, |proxy| {
            measures::large(&lab, proxy, sink.counters(), messages)
        })?;
        let length = self.plan.opaque_bytes;
        self.rounds("opaque_up", &mut proxies, |proxy| {
            measures::opaque(&lab, proxy, Direction::Up, length)
        })?;
        self.rounds("opaque_down", &mut proxies, |proxy| {
            measures::opaque(&lab, proxy, Direction::Down, length)
        })?;
        drop(sink);
        drop(proxies);
        self.idle_sessions()
    }

    /// The proxies that start and are in the path; failures of the others are recorded.
    fn start_proxies(&mut self) -> Result<Vec<Proxy>> {
        let mut proxies = Vec::new();
        for peer in Peer::ALL {
            check_interrupted()?;
            let started =
                Proxy::start(&self.lab, peer, self.plan.threads, &self.folder).and_then(|proxy| {
                    mail::check_path(&self.lab, &proxy, &self.folder)?;
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

    /// Measures every path in turn, round by round. A path that fails is left out of this measure's later rounds.
    fn rounds(
        &mut self,
        measure: &'static str,
        proxies: &mut [Proxy],
        mut work: impl FnMut(&Proxy) -> Result<Figures>,
    ) -> Result<()> {
        for round in 1..=self.plan.rounds {
            println!("{measure}: round {round} of {}", self.plan.rounds);
            for proxy in &mut *proxies {
                check_interrupted()?;
                if self.results.failed(measure, proxy.peer) {
                    continue;
                }
                let load = report::load();
                match proxy.check_alive().and_then(|()| work(proxy)) {
                    Ok(figures) => self.results.add(measure, proxy.peer, round, load, figures),
                    Err(error) => self.results.fail(measure, proxy.peer, &error),
                }
            }
        }
        Ok(())
    }

    fn idle_sessions(&mut self) -> Result<()> {
        let measure = "idle_sessions";
        for round in 1..=self.plan.idle_rounds {
            println!("{measure}: round {round} of {}", self.plan.idle_rounds);
            for peer in Peer::ALL.into_iter().filter(|peer| *peer != Peer::Direct) {
                check_interrupted()?;
                if self.results.failed(measure, peer) {
                    continue;
                }
                let (threads, count) = (self.plan.threads, self.plan.idle_sessions);
                let load = report::load();
                match measures::idle(&self.lab, peer, threads, count, &self.folder) {
                    Ok(figures) => self.results.add(measure, peer, round, load, figures),
                    Err(error) => self.results.fail(measure, peer, &error),
                }
            }
        }
        Ok(())
    }
}

fn check_interrupted() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted: the figures above are incomplete");
    Ok(())
}
