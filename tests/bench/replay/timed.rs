//! Runs one program; measures its time, CPU time and memory.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::Serialize;

/// Interval for reading the high-water mark.
const LOOK: Duration = Duration::from_millis(2);

/// Seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// Runs `command` without its output.
pub(crate) fn run(mut command: Command) -> Result<Run> {
    let (before, start) = (children_cpu()?, Instant::now());
    let status = start_quietly(&mut command)?.wait()?;
    let wall = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(Run { wall, cpu: children_cpu()? - before })
}

/// The peak resident memory of `command`, in bytes: the kernel's high-water mark, read until it exits.
pub(crate) fn peak_memory(mut command: Command) -> Result<u64> {
    let mut child = start_quietly(&mut command)?;
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default() << 10);
        thread::sleep(LOOK);
    }
    ensure!(peak > 0, "{command:?} ended before its memory could be read");
    Ok(peak)
}

fn start_quietly(command: &mut Command) -> Result<Child> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(quiet.spawn()?)
}

/// CPU time of all children that were waited for.
fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(micros as f64 / 1e6)
}

/// The median.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
