//! Programs under measurement: started, ended by their own ids, and their CPU time and memory read.
//!
//! CPU time is the kernel's CPU clock of each process, clock_getcpuclockid(3): nanoseconds of all its threads, those that
//! have ended included. Work the kernel does in softirq context on a thread's back, such as the delivery over a veth
//! pair that a send sets off, is on that thread's clock; that holds for every proxy alike.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// How long a program has to end after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// A program in the background; it and its child processes are killed on drop.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Resident memory of all the program's processes, in bytes, from `smaps_rollup`.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss: f64,
    /// Shared pages divided among those that share them.
    pub(crate) pss: f64,
}

impl Daemon {
    /// Starts `command` with standard output and error going to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// An error, with the program's last output, if it is no longer running.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended early ({status}); its output: {}", self.name, self.last_output());
        }
        Ok(())
    }

    pub(crate) fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| self.log.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn last_output(&self) -> String {
        let output = self.output().unwrap_or_default();
        let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.get(lines.len().saturating_sub(4)..) {
            Some(last) if !last.is_empty() => last.join(" / "),
            _ => "nothing".to_owned(),
        }
    }

    /// The program's CPU time so far: every thread of every one of its processes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for pid in self.processes()? {
            let clock = clock_getcpuclockid(pid).with_context(|| format!("CPU clock of {pid}"))?;
            total += Duration::from(clock_gettime(clock)?);
        }
        Ok(total)
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let mut memory = Memory { rss: 0.0, pss: 0.0 };
        for pid in self.processes()? {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| path.clone())?;
            let field = |name: &str| -> Result<f64> {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                let kib = line.and_then(|rest| rest.split_whitespace().next());
                let kib = kib.with_context(|| format!("no {name} line in {path}"))?;
                Ok(kib.parse::<f64>()? * 1024.0)
            };
            memory.rss += field("Rss:")?;
            memory.pss += field("Pss:")?;
        }
        Ok(memory)
    }

    /// Threads in all its processes, to verify the configured number.
    pub(crate) fn threads(&self) -> Result<usize> {
        let mut threads = 0;
        for pid in self.processes()? {
            threads += fs::read_dir(format!("/proc/{pid}/task"))?.count();
        }
        Ok(threads)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The program and its children, such as nginx's workers.
    fn processes(&self) -> Result<Vec<Pid>> {
        let mut family = vec![self.pid()];
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // The process may have ended since the listing.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            if after_name.split(' ').nth(1) == Some(&self.child.id().to_string()) {
                family.push(Pid::from_raw(pid));
            }
        }
        Ok(family)
    }

    fn stop(&mut self) -> Result<()> {
        let family = self.processes()?;
        // SIGTERM to the parent alone: nginx's master ends its workers itself.
        signal(self.pid(), Signal::SIGTERM)?;
        if wait_until(&mut self.child, Instant::now() + GRACE)?.is_none() {
            for pid in family {
                signal(pid, Signal::SIGKILL)?;
            }
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        if let Err(error) = self.stop() {
            eprintln!("bench: {} could not be ended: {error:#}", self.name);
        }
    }
}

/// Runs a program in the foreground; it must succeed before `limit` has passed. Returns the time it took.
pub(crate) fn run(name: &str, mut command: Command, limit: Duration) -> Result<Duration> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let Some(status) = wait_until(&mut child, started + limit)? else {
        child.kill()?;
        child.wait()?;
        bail!("{name} did not end within {} s", limit.as_secs());
    };
    let took = started.elapsed();
    let stderr = child.stderr.take().map(io::read_to_string).transpose()?.unwrap_or_default();
    ensure!(status.success(), "{name}: {status}: {}", stderr.trim());
    Ok(took)
}

/// The program's exit status, or `None` when `deadline` passes first. Looks every millisecond.
fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{signal} to process {pid}")),
    }
}
