//! A running `gatepost watch --format json` on a host of the lab, and its output.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use super::{Host, Lab, Process, cannot_run, until};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Without output for so long, the watcher has processed all packets. It reports a session a second or so after its end,
/// when no late segment can belong to it any more.
const QUIET: Duration = Duration::from_secs(3);

/// The capture source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Ebpf,
    Pcap,
}

impl Source {
    pub(crate) const ALL: [Self; 2] = [Self::Ebpf, Self::Pcap];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
        }
    }

    /// Ends the test as ignored where this source cannot capture although the process has all rights.
    pub(crate) fn require(self, lab: &Lab) {
        if let Err(why) = self.check(lab) {
            cannot_run(why);
        }
    }

    /// Captures for a moment.
    pub(crate) fn check(self, lab: &Lab) -> Result<(), String> {
        let command =
            [GATEPOST, "watch", "--source", self.name(), "-i", "lo", "--duration", "10ms"];
        let output = lab.gateway.output(command.into_iter().chain(["--format", "json"]));
        if output.status.success() {
            return Ok(());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("needs {}: {}", self.name(), error.trim()))
    }
}

/// The features of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Current,
    /// Before 6.6: programs are attached as filters of clsact.
    WithoutTcx,
}

/// A running `gatepost watch`.
pub(crate) struct Watcher<'lab> {
    host: &'lab Host,
    process: Process,
    output: PathBuf,
    metrics: SocketAddr,
}

impl<'lab> Watcher<'lab> {
    /// Starts it; when this returns, it misses nothing.
    #[track_caller]
    pub(crate) fn start(
        lab: &Lab,
        host: &'lab Host,
        source: Source,
        interfaces: &[&str],
        options: &[&str],
    ) -> Self {
        let port = Self::free_port();
        let output = lab.path(&format!("watched-{port}.json"));
        Self::start_into(output, port, host, (source.name(), Kernel::Current), interfaces, options)
    }

    /// With `--source` as given, on the interface `gateway` of the server's host.
    #[track_caller]
    pub(crate) fn start_on(kernel: Kernel, lab: &'lab Lab, source: &str) -> Self {
        let port = Self::free_port();
        let output = lab.path(&format!("watched-{port}.json"));
        Self::start_into(output, port, &lab.server, (source, kernel), &["gateway"], &[])
    }

    /// Several watchers may run on one host.
    fn free_port() -> u16 {
        static PORT: AtomicU16 = AtomicU16::new(9700);

        PORT.fetch_add(1, Ordering::Relaxed)
    }

    /// Into a pipe that nobody reads, until the second value is.
    #[track_caller]
    pub(crate) fn start_unread(
        lab: &Lab,
        host: &'lab Host,
        source: Source,
        interfaces: &[&str],
    ) -> (Self, File) {
        let port = Self::free_port();
        let pipe = lab.path(&format!("watched-{port}.pipe"));
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        // Reading and writing, so that neither end waits for the other.
        let both = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let source = (source.name(), Kernel::Current);
        let watcher = Self::start_into(pipe.clone(), port, host, source, interfaces, &[]);
        let unread = File::open(&pipe).unwrap();
        drop(both);
        (watcher, unread)
    }

    #[track_caller]
    fn start_into(
        output: PathBuf,
        port: u16,
        host: &'lab Host,
        (source, kernel): (&str, Kernel),
        interfaces: &[&str],
        options: &[&str],
    ) -> Self {
        let metrics = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command =
            vec!["sh", "-c", "output=$0 && exec \"$@\" >\"$output\"", output.to_str().unwrap()];
        let address = metrics.to_string();
        command.extend([GATEPOST, "watch", "--source", source, "--format", "json"]);
        command.extend(["--metrics", &address]);
        command.extend(interfaces.iter().flat_map(|name| ["-i", name]));
        command.extend(options);
        let mut process = match kernel {
            Kernel::Current => host.spawn(command),
            Kernel::WithoutTcx => host.spawn_without_tcx(command),
        };
        until(format_args!("`watching` from {source}"), || {
            assert!(!process.has_ended(), "watch ended at once:\n{}", process.log());
            process.log().contains("watching").then_some(())
        });
        Self { host, process, output, metrics }
    }

    /// Its output so far, whole lines only.
    pub(crate) fn output(&self) -> WatchOutput {
        let text = fs::read_to_string(&self.output).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        WatchOutput::parse(whole)
    }

    /// Waits until it prints no more.
    pub(crate) fn wait_until_quiet(&self) {
        let size = || fs::metadata(&self.output).unwrap().len();
        until("the end of the watcher's output", || {
            let before = size();
            thread::sleep(QUIET);
            (size() == before).then_some(())
        });
    }

    /// Waits until it has reported so many sessions, or prints no more.
    pub(crate) fn wait_for_sessions(&self, sessions: u64) {
        let mut seen = 0;
        let mut since = Instant::now();
        while seen < sessions && since.elapsed() < QUIET {
            thread::sleep(Duration::from_millis(20));
            let now = self.output().sessions().len() as u64;
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until standard error has this text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        until(format_args!("{text:?} from watch"), || self.log().contains(text).then_some(()));
    }

    /// `kill -9`
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM; returns the whole output.
    #[track_caller]
    pub(crate) fn finish(mut self) -> WatchOutput {
        self.signal(Signal::SIGTERM);
        let status = self.process.wait();
        assert!(status.success(), "watch: {status}\n{}", self.process.log());
        self.output()
    }

    /// Standard error so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Its metrics as they are now.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let mut stream = self.host.connect(self.metrics).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        Metrics(page)
    }
}

/// A page of metrics.
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum over the series of that name whose labels contain every one of `labels`, such as `family="ipv6"`.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let found = series.strip_prefix(name)?;
            (found.is_empty() || found.starts_with('{')).then_some((found, value))
        });
        let series: Vec<(&str, &str)> = series.collect();
        assert!(!series.is_empty(), "no metric {name} in:\n{}", self.0);
        let wanted = series.iter().filter(|(found, _)| labels.iter().all(|l| found.contains(l)));
        wanted.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }
}

/// The lines that a watcher or a replay printed.
#[derive(Debug)]
pub(crate) struct WatchOutput(pub(crate) Vec<Value>);

impl WatchOutput {
    /// The output of `gatepost replay` for a file that a watcher wrote.
    #[track_caller]
    pub(crate) fn replayed(lab: &Lab, file: &str, options: &[String]) -> Self {
        let command = [GATEPOST, "replay", "--format", "json", file].map(str::to_owned);
        Self::parse(&lab.gateway.run(command.iter().chain(options)))
    }

    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
    }

    pub(crate) fn of_type(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| line["type"] == kind)
    }

    pub(crate) fn sessions(&self) -> Vec<&Value> {
        self.of_type("session").collect()
    }

    /// The one line of a type.
    #[track_caller]
    pub(crate) fn only(&self, kind: &str) -> &Value {
        let lines: Vec<&Value> = self.of_type(kind).collect();
        assert_eq!(lines.len(), 1, "lines of type {kind}");
        lines[0]
    }

    /// The source's own count of lost packets: SYNs of clients, and others.
    #[track_caller]
    pub(crate) fn lost(&self) -> (u64, u64) {
        let lost = self.only("lost");
        (lost["openings"].as_u64().expect("openings"), lost["packets"].as_u64().expect("packets"))
    }
}
