//! Postfix's questions to the policy: how many are answered in a second, and after what time.
//!
//! `cargo bench --bench policy` starts a gateway that has no listener but `[postfix] policy`, on a Unix socket and on TCP. As
//! many connections as a busy server has smtpd(8) processes at work ask one question after the other, ten recipients a
//! session; half of the sessions are rejected by a rule. The rules need no lookup, whose answers the gateway has in its cache
//! otherwise. In each round a program that answers `DUNNO` to everything and looks for nothing but the end of a request takes
//! its turn on the same kind of socket: it is the floor, which the client and the kernel take. Medians are compared.
//!
//! The target is 2,000 questions a second. `-- --quick` only checks that the benchmark works. Every raw figure goes to
//! `target/bench/policy.json`. A missed target is printed, and is no failure.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod client;
mod floor;
#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "../process.rs"]
mod process;
#[path = "../quick.rs"]
mod quick;
#[allow(dead_code, reason = "the replay's benchmark uses the rest")]
#[path = "../replay/timed.rs"]
mod timed;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use client::{Figures, PolicyAddress};
use process::Daemon;
use quick::is_quick;
use timed::median;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// Questions a second.
const TARGET: f64 = 2_000.0;
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Rules by network and sender, as a site has them.
const RULES: &str = r#"
[[policy]]
name = "friends"
when = { networks = ["203.0.113.0/24"] }
otherwise = "accept"

[[policy]]
name = "not from there"
when = { sender = [".bad.example"] }
otherwise = "reject"
"#;

struct Plan {
    rounds: u32,
    sessions: u16,
}

/// A program that answers on one socket.
struct Answering {
    program: &'static str,
    socket: &'static str,
    address: PolicyAddress,
    daemon: Daemon,
    figures: Vec<Figures>,
}

fn main() -> Result<ExitCode> {
    if let Some(address) = floor::address() {
        return floor::serve(&address);
    }
    let plan = match is_quick()? {
        true => Plan { rounds: 1, sessions: 20 },
        false => Plan { rounds: 7, sessions: 500 },
    };
    let folder = Folder::new()?;
    let mut answering = Vec::new();
    for socket in ["unix", "tcp"] {
        for program in ["gatepost", "floor"] {
            answering.push(Answering::start(program, socket, &folder.0)?);
        }
    }
    let questions = client::questions(plan.sessions);
    for round in 1..=plan.rounds {
        println!("round {round} of {}", plan.rounds);
        for one in &mut answering {
            one.measure(plan.sessions)?;
        }
    }
    report(&answering, questions)?;
    Ok(ExitCode::SUCCESS)
}

impl Answering {
    fn start(program: &'static str, socket: &'static str, folder: &Path) -> Result<Self> {
        let own = folder.join(format!("{program}-{socket}"));
        fs::create_dir(&own)?;
        let address = match socket {
            "unix" => PolicyAddress::Unix(own.join("policy")),
            // The port that is free now will be a moment later.
            _ => PolicyAddress::Tcp(TcpListener::bind("127.0.0.1:0")?.local_addr()?),
        };
        let command = match program {
            "gatepost" => gateway(&own, &address)?,
            _ => floor::command(&address)?,
        };
        let daemon = Daemon::start(program, command, &own.join("output"))?;
        let mut new = Self { program, socket, address, daemon, figures: Vec::new() };
        let deadline = Instant::now() + START_TIMEOUT;
        while new.address.connect().is_err() {
            new.daemon.check_alive()?;
            ensure!(Instant::now() < deadline, "{program} does not listen on {}", new.address);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(new)
    }

    fn measure(&mut self, sessions: u16) -> Result<()> {
        self.daemon.check_alive()?;
        let before = self.daemon.cpu()?;
        let (mut figures, rejected) = client::ask(&self.address, sessions)?;
        let cpu = self.daemon.cpu()? - before;
        let questions = client::questions(sessions);
        figures.cpu_us = cpu.as_secs_f64() * 1e6 / questions as f64;
        let expected = if self.program == "gatepost" { questions / 2 } else { 0 };
        ensure!(rejected == expected, "{}: {rejected} rejections of {expected}", self.program);
        self.figures.push(figures);
        Ok(())
    }

    fn median(&self, figure: fn(&Figures) -> f64) -> f64 {
        median(self.figures.iter().map(figure))
    }
}

/// `gatepost run` with a configuration of its own, which writes its log to standard output.
fn gateway(folder: &Path, address: &PolicyAddress) -> Result<Command> {
    let file = folder.join("gatepost.toml");
    let control = folder.join("control.sock");
    let toml = format!(
        "[postfix]\npolicy = \"{address}\"\n[control]\nsocket = {:?}\n{RULES}",
        control.display().to_string()
    );
    fs::write(&file, toml)?;
    let mut command = Command::new(GATEPOST);
    command.arg("run").arg("--config").arg(file);
    Ok(command)
}

fn report(answering: &[Answering], questions: usize) -> Result<()> {
    println!("\n{questions} questions a round over {} connections, medians", client::CONNECTIONS);
    println!(
        "{:<6} {:<10} {:>10} {:>9} {:>9} {:>18}",
        "socket", "program", "a second", "p50 µs", "p99 µs", "CPU µs a question"
    );
    for one in answering {
        println!(
            "{:<6} {:<10} {:>10.0} {:>9.0} {:>9.0} {:>18.1}",
            one.socket,
            one.program,
            one.median(|f| f.per_second),
            one.median(|f| f.p50_us),
            one.median(|f| f.p99_us),
            one.median(|f| f.cpu_us),
        );
    }
    let mut ratios = Vec::new();
    for own in answering.iter().filter(|one| one.program == "gatepost") {
        let floor =
            answering.iter().find(|one| one.program != own.program && one.socket == own.socket);
        let floor = floor.context("a floor")?;
        let rate = own.median(|f| f.per_second);
        let [rates, p99] = [
            rate / floor.median(|f| f.per_second),
            own.median(|f| f.p99_us) / floor.median(|f| f.p99_us),
        ];
        println!(
            "{}: {rates:.2} times the floor's rate, {p99:.2} times its p99; target {TARGET:.0} a second: {}",
            own.socket,
            if rate >= TARGET { "kept" } else { "MISSED" }
        );
        ratios.push(
            json!({ "socket": own.socket, "rate_times_floor": rates, "p99_times_floor": p99 }),
        );
    }
    let rounds = answering.iter().flat_map(|one| {
        let of = |(round, figures): (usize, &Figures)| {
            json!({ "socket": one.socket, "program": one.program, "round": round + 1, "figures": figures })
        };
        one.figures.iter().enumerate().map(of).collect::<Vec<Value>>()
    });
    let all = json!({
        "connections": client::CONNECTIONS, "questions": questions, "rounds": rounds.collect::<Vec<_>>(),
        "ratios": ratios,
    });
    let path = results()?.join("policy.json");
    fs::write(&path, format!("{all:#}\n")).with_context(|| path.display().to_string())?;
    println!("every figure: {}", path.display());
    Ok(())
}

fn results() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Of the sockets and logs, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let name = format!("gatepost-bench-policy-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _in_use = fs::remove_dir_all(&self.0);
    }
}
