//! A process that a test started, ended when dropped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::{show_when_failing, until};

pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn new(child: Child, log: PathBuf) -> Self {
        Self { child, log }
    }

    /// Standard output and standard error so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Resident memory in KiB; zero once it has ended.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Sets the peak of resident memory to what is resident now: proc_pid_clear_refs(5).
    pub(super) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// The most resident memory in KiB since [`Self::forget_peak`].
    pub(super) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        status
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_default()
    }

    /// Its process id; wrappers such as `sh -c exec` have been replaced by the command by now.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads so far, ended ones included: `clock_getcpuclockid(3)`.
    #[track_caller]
    pub(crate) fn cpu(&self) -> Duration {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        clock_gettime(clock_getcpuclockid(pid).unwrap()).unwrap().into()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Waits until it exits.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the end of a process", || self.child.try_wait().unwrap())
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        show_when_failing("a process's output", &self.log);
    }
}
