//! The gateway under test: `gatepost run` on the lab's gateway host.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Family, Lab, Mode, Process, port, until};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Where the gateway serves its metrics.
pub(crate) const METRICS: &str = "[::1]:9625";

/// A configuration file in the making: sections and their lines.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    mode: Mode,
    sections: BTreeMap<String, Vec<String>>,
    /// The lines of each `[[access]]`.
    rules: Vec<String>,
    /// Whole `[[policy]]` sections.
    policies: String,
    /// The control socket: one for each configuration, since namespaces share the file system.
    socket: PathBuf,
}

impl Config {
    /// Listens for the lab's client in that mode and relays to the lab's server, both in both families.
    pub(crate) fn new(lab: &Lab, mode: Mode) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);

        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let socket = lab.path(&format!("control-{number}.sock"));
        let config = Self {
            mode,
            sections: BTreeMap::new(),
            rules: Vec::new(),
            policies: String::new(),
            socket,
        };
        let line = format!("socket = {:?}", config.socket);
        let config = config.set("control", &line);
        let config = config.set("metrics", &format!("address = {METRICS:?}"));
        // The lab's servers have documentation addresses, which a gateway does not probe.
        let nets = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"];
        let config = config.set("lookup", &format!("probe_special_networks = {nets:?}"));
        match mode {
            // Connections of its own would be in the way of tests that count them.
            Mode::Proxy => {
                let config = config.set("upstream", "check = \"none\"");
                let listen = Family::ALL.map(|family| lab.entrance(mode, family));
                config.listen(&listen).upstream_port(lab, port::SMTP)
            }
            Mode::Tproxy => config
                .set("listen", "mode = \"tproxy\"")
                .set("listen", "addresses = [\"[::]:2525\", \"0.0.0.0:2525\"]")
                .set(
                    "intercept",
                    &format!("destinations = {:?}", lab.server_ips().map(|ip| ip.to_string())),
                )
                .set("intercept", &format!("interfaces = [{:?}]", lab.client_link())),
        }
    }

    /// Adds a line to a section.
    pub(crate) fn set(mut self, section: &str, line: &str) -> Self {
        let lines = self.sections.entry(section.to_owned()).or_default();
        lines.push(line.to_owned());
        self
    }

    /// Removes a section.
    pub(crate) fn without(mut self, section: &str) -> Self {
        self.sections.remove(section);
        self
    }

    /// Relays to another port of the lab's server; in tproxy mode in place of the original destination.
    pub(crate) fn upstream_port(self, lab: &Lab, port: u16) -> Self {
        let upstreams = Family::ALL.map(|family| SocketAddr::new(lab.server_ip(family), port));
        self.upstreams(&upstreams)
    }

    /// Relays there.
    pub(crate) fn upstreams(self, upstreams: &[SocketAddr]) -> Self {
        self.addresses("upstream", upstreams)
    }

    /// Relays to these addresses or host names, each with its port.
    pub(crate) fn targets(self, targets: &[&str]) -> Self {
        self.replace("upstream", "addresses", format!("addresses = {targets:?}"))
    }

    /// Checks the upstreams every second.
    pub(crate) fn with_upstream_checks(mut self) -> Self {
        let lines = self.sections.entry("upstream".to_owned()).or_default();
        lines.retain(|line| !line.starts_with("check"));
        lines.extend(["check = \"smtp\"", "check_interval = \"1s\""].map(str::to_owned));
        self
    }

    /// Listens there.
    pub(crate) fn listen(self, listen: &[SocketAddr]) -> Self {
        self.addresses("listen", listen)
    }

    /// Serves its metrics there in place of [`METRICS`]: for a second gateway on one host.
    pub(crate) fn metrics(mut self, address: &str) -> Self {
        self.sections.insert("metrics".to_owned(), vec![format!("address = {address:?}")]);
        self
    }

    /// Intercepts there in place of the lab's own: a line of `[intercept]`.
    pub(crate) fn interfaces(self, line: &str) -> Self {
        self.replace("intercept", "interfaces", line.to_owned())
    }

    /// Intercepts connections to these networks in place of the lab's server.
    pub(crate) fn destinations(self, networks: &[&str]) -> Self {
        self.replace("intercept", "destinations", format!("destinations = {networks:?}"))
    }

    fn replace(mut self, section: &str, key: &str, line: String) -> Self {
        let lines = self.sections.entry(section.to_owned()).or_default();
        lines.retain(|line| !line.starts_with(key));
        lines.push(line);
        self
    }

    fn addresses(self, section: &str, addresses: &[SocketAddr]) -> Self {
        let quoted: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        self.replace(section, "addresses", format!("addresses = [{}]", quoted.join(", ")))
    }

    /// Adds an access rule after the others: the lines of an `[[access]]`.
    pub(crate) fn rule(mut self, lines: &str) -> Self {
        self.rules.push(lines.to_owned());
        self
    }

    /// Adds `[[policy]]` sections after the others.
    pub(crate) fn policies(mut self, sections: &str) -> Self {
        self.policies.push_str(sections);
        self
    }

    /// With limits that the tests' single client cannot reach.
    pub(crate) fn for_crowds(self) -> Self {
        self.set("limits", "sessions_per_client = 5000")
    }

    /// For an upstream on the gateway's own host, which would trust every client: the lab has no strangers.
    pub(crate) fn trusting(self) -> Self {
        self.set("upstream", "identity = \"none\"").set("upstream", "trusted_by_address = false")
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        for (section, lines) in &self.sections {
            writeln!(text, "[{section}]\n{}\n", lines.join("\n")).unwrap();
        }
        for rule in &self.rules {
            writeln!(text, "[[access]]\n{rule}\n").unwrap();
        }
        text.push_str(&self.policies);
        text
    }
}

/// A running `gatepost run`.
pub(crate) struct Gateway<'lab> {
    lab: &'lab Lab,
    file: PathBuf,
    process: Process,
}

impl<'lab> Gateway<'lab> {
    /// Starts it and waits for its ready line.
    #[track_caller]
    pub(crate) fn start(lab: &'lab Lab, config: &Config) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);

        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let file = lab.path(&format!("gatepost-{number}.toml"));
        fs::write(&file, config.toml()).unwrap();
        let process = run(lab, &file);
        Self { lab, file, process }
    }

    /// `kill -9`, then the same configuration again.
    #[track_caller]
    pub(crate) fn kill_and_start_again(&mut self) {
        self.kill();
        self.start_again();
    }

    /// The same configuration again, after the end of the process.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.process = run(self.lab, &self.file);
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM: transactions in progress end first.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// Waits until the process exits.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Writes another configuration and sends SIGHUP.
    pub(crate) fn reload(&self, toml: &str) {
        fs::write(&self.file, toml).unwrap();
        self.process.signal(Signal::SIGHUP);
    }

    /// SIGHUP, with the configuration as it is.
    pub(crate) fn hang_up(&self) {
        self.process.signal(Signal::SIGHUP);
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// `gatepost intercept clean` on the gateway host.
    pub(crate) fn intercept_clean(lab: &Lab) {
        lab.gateway.run([GATEPOST, "intercept", "clean"]);
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, wanted: &str) -> String {
        until(format_args!("{wanted:?} in the gateway's log"), || {
            let log = self.log();
            log.lines().find(|line| line.contains(wanted)).map(str::to_owned)
        })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its soft limit on open files (RLIMIT_NOFILE).
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let pid = self.id().to_string();
        let limit = format!("--nofile={limit}:");
        self.lab.gateway.run(["prlimit", "--pid", &pid, &limit]);
    }

    /// The number that its next descriptor gets.
    pub(crate) fn free_descriptor(&self) -> u64 {
        let folder = PathBuf::from(format!("/proc/{}/fd", self.id()));
        (0..).find(|number| fs::read_link(folder.join(number.to_string())).is_err()).unwrap()
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.process.cpu()
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        self.process.resident_kib()
    }

    /// The most resident memory in KiB while `action` runs.
    pub(crate) fn peak_kib_during(&self, action: impl FnOnce()) -> u64 {
        self.process.forget_peak();
        action();
        self.process.peak_kib()
    }

    /// The sum of a metric over the series whose labels contain every one of `labels`, such as `family="ipv6"`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.get("/metrics");
        let series: Vec<(&str, f64)> = page.lines().filter_map(|line| sample(line, name)).collect();
        assert!(!series.is_empty(), "no metric {name} in:\n{page}");
        let wanted =
            series.iter().filter(|(found, _)| labels.iter().all(|label| found.contains(label)));
        wanted.map(|(_, value)| value).sum()
    }

    /// Whether a metric has any series.
    pub(crate) fn has_metric(&self, name: &str) -> bool {
        self.get("/metrics").lines().any(|line| sample(line, name).is_some())
    }

    /// Waits until a metric has a value: an event is counted just after the client receives the reply.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[&str], value: f64) {
        until(format_args!("{name} {labels:?} = {value}"), || {
            (self.metric(name, labels) == value).then_some(())
        });
    }

    /// Waits until `/readyz` answers with a status.
    #[track_caller]
    pub(crate) fn wait_for_readiness(&self, status: u16) {
        let wanted = format!("HTTP/1.1 {status} ");
        until(format_args!("{wanted:?} from /readyz"), || {
            self.get("/readyz").starts_with(&wanted).then_some(())
        });
    }

    /// The status page.
    pub(crate) fn page(&self) -> String {
        self.get("/")
    }

    /// The response of the metrics endpoint, with its head.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = self.lab.gateway.connect(METRICS.parse().unwrap()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[track_caller]
fn run(lab: &Lab, file: &Path) -> Process {
    let config = file.to_str().unwrap();
    let mut process = lab.gateway.spawn([GATEPOST, "run", "--config", config]);
    until("`ready: ` in the gateway's log", || {
        assert!(!process.has_ended(), "the gateway ended at once:\n{}", process.log());
        process.log().contains("ready: ").then_some(())
    });
    process
}

/// `name{labels} value` to labels and value.
fn sample<'a>(line: &'a str, name: &str) -> Option<(&'a str, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let labels = series.strip_prefix(name)?;
    if !labels.is_empty() && !labels.starts_with('{') {
        return None;
    }
    Some((labels, value.parse().ok()?))
}
