//! One host: a network namespace, with the processes and connections started in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

use super::old_kernel::forget_tcx;
use super::{Process, Smtp, until};

/// Seconds that a command may take before it is ended and the test fails.
const COMMAND_LIMIT: &str = "300";

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A namespace that the lab made.
pub(crate) struct Host {
    name: String,
    logs: PathBuf,
    /// Stands in for `/etc/resolv.conf`; see [`Host::resolve_at`].
    resolver: OnceLock<PathBuf>,
}

impl Host {
    pub(super) fn new(name: &str, logs: &Path) -> Self {
        ip(&["netns", "add", name]);
        let (name, logs) = (name.to_owned(), logs.to_owned());
        let host = Self { name, logs, resolver: OnceLock::new() };
        host.in_thread(|| {
            // No duplicate address detection, for link-local addresses either: a neighbour answers at once.
            sysctl("net/ipv6/conf/default/accept_dad", "0");
            sysctl("net/ipv6/conf/all/accept_dad", "0");
            // Room for tens of thousands of short sessions a minute from one address, above the ports on which tests listen.
            sysctl("net/ipv4/ip_local_port_range", "16384 65535");
            sysctl("net/core/somaxconn", "4096");
            sysctl("net/ipv4/tcp_max_syn_backlog", "4096");
            // Postfix's postlogd(8) logs to its own socket and deadlocks once that is full: by default after ten lines.
            sysctl("net/unix/max_dgram_qlen", "4096");
        });
        host.configure("link set lo up\n");
        host
    }

    /// Joins two hosts by a veth pair; each names its end after the other.
    pub(crate) fn link(&self, name: &str, other: &Self, name_there: &str) {
        ip(&[
            "link",
            "add",
            name,
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            name_there,
            "netns",
            &other.name,
        ]);
        self.configure(&format!("link set {name} up\n"));
        other.configure(&format!("link set {name_there} up\n"));
    }

    /// Lines for `ip -batch`.
    pub(crate) fn configure(&self, lines: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip (Debian: iproute2)");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success(), "ip -batch: {lines}");
    }

    /// Makes the host a router of both families.
    pub(crate) fn forward(&self) {
        self.in_thread(|| {
            sysctl("net/ipv4/ip_forward", "1");
            sysctl("net/ipv6/conf/all/forwarding", "1");
        });
    }

    /// Processes started here from now on query that DNS server, by a private `/etc/resolv.conf`.
    pub(crate) fn resolve_at(&self, server: IpAddr) {
        self.resolve_by(&format!("nameserver {server}\n"));
    }

    /// The same, by a whole resolv.conf(5).
    pub(crate) fn resolve_by(&self, resolv_conf: &str) {
        let file = self.logs.join(format!("{}-resolv.conf", self.name));
        fs::write(&file, resolv_conf).unwrap();
        self.resolver.set(file).expect("a host has one resolver");
    }

    /// The words in front of a command that give it the host's resolver.
    fn with_resolver(&self) -> Vec<&OsStr> {
        let Some(file) = self.resolver.get() else { return Vec::new() };
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        ["unshare", "--mount", "sh", "-c", script]
            .map(OsStr::new)
            .into_iter()
            .chain([file.as_os_str()])
            .collect()
    }

    /// Kills the remaining processes, all of them started by this test, and removes the namespace.
    pub(crate) fn remove(&self) {
        remove_namespace(&self.name);
    }

    /// Does the work on a fresh thread inside the namespace. Sockets opened and processes started there stay there.
    pub(crate) fn in_thread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        let inside = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Runs a command until it exits, with any status.
    pub(crate) fn output<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Output {
        let mut limited = Command::new("timeout");
        limited.args(["-k", "5", COMMAND_LIMIT]).args(self.with_resolver()).args(command);
        self.in_thread(|| limited.output()).unwrap()
    }

    /// Sends a message with swaks; its output has the dialogue.
    pub(crate) fn swaks(&self, to: SocketAddr, recipient: &str, options: &[&str]) -> Output {
        let (server, port) = (to.ip().to_string(), to.port().to_string());
        let mut command = vec!["swaks", "--server", &server, "--port", &port];
        command.extend(["--ehlo", "client.example.net", "--from", "sender@example.net"]);
        command.extend(["--to", recipient]);
        command.extend(options);
        self.output(command)
    }

    /// Runs a command that must succeed; returns its standard output.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> String {
        let command: Vec<S> = command.into_iter().collect();
        let words: Vec<_> = command.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        let output = self.output(&command);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "`{}` ended with {}\n{stdout}{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
        );
        stdout
    }

    /// Starts a command that runs until the [`Process`] is dropped; its output is its log.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Process {
        self.spawn_after(|| {}, command)
    }

    /// As [`Host::spawn`], with the features of a kernel before 6.6.
    pub(crate) fn spawn_without_tcx<S: AsRef<OsStr>>(
        &self,
        command: impl IntoIterator<Item = S>,
    ) -> Process {
        self.spawn_after(forget_tcx, command)
    }

    /// Calls `prepare` on the thread that starts the command.
    fn spawn_after<S: AsRef<OsStr>>(
        &self,
        prepare: impl FnOnce() + Send,
        command: impl IntoIterator<Item = S>,
    ) -> Process {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let log =
            self.logs.join(format!("process-{}.log", COUNTER.fetch_add(1, Ordering::Relaxed)));
        let output = File::create(&log).unwrap();

        let own = self.with_resolver().into_iter().map(OsStr::to_owned);
        let mut words = own.chain(command.into_iter().map(|word| word.as_ref().to_owned()));
        let mut command = Command::new(words.next().expect("a program to run"));
        command.args(words).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = self.in_thread(|| {
            prepare();
            command.spawn()
        });
        Process::new(child.unwrap_or_else(|error| panic!("{command:?}: {error}")), log)
    }

    /// Opens a connection from this host.
    pub(crate) fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.in_thread(|| TcpStream::connect_timeout(&to, CONNECT_PATIENCE))
    }

    /// Opens an SMTP session from this host, without reading the greeting.
    #[track_caller]
    pub(crate) fn smtp(&self, to: SocketAddr) -> Smtp {
        let stream = self.connect(to);
        Smtp::new(stream.unwrap_or_else(|error| panic!("connecting to {to}: {error}")))
    }

    /// As [`Host::smtp`], from the given address of the host.
    #[track_caller]
    pub(crate) fn smtp_from(&self, from: IpAddr, to: SocketAddr) -> Smtp {
        let connected = self.in_thread(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), CONNECT_PATIENCE)?;
            Ok::<TcpStream, std::io::Error>(socket.into())
        });
        Smtp::new(connected.unwrap_or_else(|error| panic!("from {from} to {to}: {error}")))
    }

    /// Waits until a socket on this host listens at `at`.
    pub(crate) fn wait_for_listener(&self, at: SocketAddr) {
        until(format_args!("a listener at {at}"), || {
            // A connection from a free port to itself succeeds, too (RFC 9293 §3.5, simultaneous open), and then nobody can listen.
            let stream = self.connect(at).ok()?;
            (stream.local_addr().ok()? != at).then_some(())
        });
    }
}

fn sysctl(path: &str, value: &str) {
    let file = Path::new("/proc/sys").join(path);
    fs::write(&file, value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.expect("ip (Debian: iproute2)");
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Kills the processes of a lab's namespace, by their ids, and deletes it.
pub(super) fn remove_namespace(name: &str) {
    if let Ok(listing) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&listing.stdout).lines() {
            let pid: i32 = pid.trim().parse().unwrap_or_default();
            if pid > 1 && pid.unsigned_abs() != std::process::id() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}
