//! The replay's benchmark: gatepost beside tshark and capinfos on one capture, in one run.
//!
//! `cargo bench --bench replay` makes a capture of 256 MiB and one of four times that in `target/bench`, and reads them in turns:
//! tshark's SMTP analysis a few times, the others more often. Medians are compared; the targets are those of the README. `-- --quick`
//! checks with a small capture that the benchmark itself works. A missed target is printed, and is no failure; a program that
//! did not run is one.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod capture;
#[path = "../quick.rs"]
mod quick;
mod timed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use capture::Made;
use quick::is_quick;
use timed::{Run, median, peak_memory, run};

const MIB: u64 = 1 << 20;

struct Plan {
    capture: u64,
    rounds: usize,
    tshark_rounds: usize,
}

impl Plan {
    fn from_arguments() -> Result<Self> {
        Ok(if is_quick()? {
            Self { capture: 4 * MIB, rounds: 1, tshark_rounds: 1 }
        } else {
            Self { capture: 256 * MIB, rounds: 9, tshark_rounds: 3 }
        })
    }
}

/// One of the programs that read the capture.
struct Reader {
    name: &'static str,
    command: fn(&Path) -> Command,
    runs: Vec<Run>,
}

impl Reader {
    const fn new(name: &'static str, command: fn(&Path) -> Command) -> Self {
        Self { name, command, runs: Vec::new() }
    }

    fn read(&mut self, file: &Path) -> Result<()> {
        self.runs
            .push(run((self.command)(file)).with_context(|| format!("running {}", self.name))?);
        Ok(())
    }

    fn seconds(&self) -> f64 {
        median(self.runs.iter().map(|run| run.wall))
    }

    fn cpu(&self) -> f64 {
        median(self.runs.iter().map(|run| run.cpu))
    }
}

fn gatepost(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(["replay", "--format", "json"]).arg(file);
    command
}

/// Only counts packets: by default capinfos hashes the file too, which takes much longer than reading it.
fn capinfos(file: &Path) -> Command {
    let mut command = Command::new("capinfos");
    command.arg("-c").arg(file);
    command
}

/// Commands and reply codes, which both programs can print.
fn tshark(file: &Path) -> Command {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-Y", "smtp", "-T", "fields"]);
    command.args(["-e", "tcp.stream", "-e", "smtp.req.command", "-e", "smtp.response.code"]);
    command
}

fn main() -> Result<ExitCode> {
    let plan = Plan::from_arguments()?;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("replay.pcapng");
    let large = folder.join("replay-large.pcapng");
    let made = capture::make(&file, plan.capture)?;
    let made_large = capture::make(&large, plan.capture * 4)?;
    println!(
        "capture: {} MiB, {} sessions, {} packets, seed fixed",
        made.bytes / MIB,
        made.sessions,
        made.packets
    );
    check(&file, &made)?;

    let mut readers =
        [Reader::new("gatepost replay", gatepost), Reader::new("capinfos -c", capinfos)];
    let mut analyst = Reader::new("tshark", tshark);
    for round in 0..plan.rounds {
        for reader in &mut readers {
            reader.read(&file)?;
        }
        if round < plan.tshark_rounds {
            analyst.read(&file)?;
        }
    }
    let [ours, capinfos] = &readers;
    let (memory, memory_large) = (peak_memory(gatepost(&file))?, peak_memory(gatepost(&large))?);
    let rate = |seconds: f64| plan.capture as f64 / 1e6 / seconds;
    for reader in [ours, capinfos, &analyst] {
        println!(
            "{:16} {:8.3} s   CPU {:8.3} s   {:8.1} MB/s   {:3} rounds",
            reader.name,
            reader.seconds(),
            reader.cpu(),
            rate(reader.seconds()),
            reader.runs.len()
        );
    }
    let faster = analyst.cpu() / ours.cpu();
    let slower = ours.seconds() / capinfos.seconds();
    let verdict = |met: bool| if met { "met" } else { "MISSED" };
    println!(
        "rate beside tshark, CPU time      {faster:6.1}   wanted >= 50   {}",
        verdict(faster >= 50.0)
    );
    println!(
        "time beside capinfos              {slower:6.2}   wanted <= 2    {}",
        verdict(slower <= 2.0)
    );
    println!(
        "resident, at most                 {:6.1} MiB, and {:.1} MiB for {} MiB of capture",
        memory as f64 / MIB as f64,
        memory_large as f64 / MIB as f64,
        made_large.bytes / MIB
    );
    let figures = json!({
        "capture_bytes": made.bytes, "sessions": made.sessions, "packets": made.packets,
        "gatepost": ours.runs, "capinfos": capinfos.runs, "tshark": analyst.runs,
        "resident": memory, "resident_large": memory_large, "tshark_ratio": faster, "capinfos_ratio": slower,
    });
    fs::write(folder.join("replay.json"), serde_json::to_string_pretty(&figures)?)?;
    fs::remove_file(&large)?;
    fs::remove_file(&file)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that the output has every session and message of the capture.
fn check(file: &Path, made: &Made) -> Result<()> {
    let output = gatepost(file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut sessions, mut messages) = (0, 0);
    for line in output.stdout.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let line: serde_json::Value = serde_json::from_slice(line)?;
        if line["type"] != "session" {
            continue;
        }
        sessions += 1;
        let transactions = line["smtp"]["transactions"].as_array().context("transactions")?;
        messages += transactions.iter().filter(|t| t["data_code"] == 250).count() as u64;
    }
    ensure!(sessions == made.sessions, "{sessions} sessions of {}", made.sessions);
    ensure!(messages == made.messages, "{messages} messages of {}", made.messages);
    Ok(())
}
