//! A service manager: the sockets that it passes to a gateway and keeps, and its notification socket (sd_notify(3)).

use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

use crate::support::{Host, Lab, until};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// Long enough for a busy machine; only failing tests wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// As systemd.socket(5) opens one with BindIPv6Only=ipv6-only.
pub(crate) fn listener(host: &Host, address: SocketAddr) -> TcpListener {
    host.in_thread(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(4096).unwrap();
        socket.into()
    })
}

/// Starts services and receives their notifications.
pub(crate) struct Manager<'lab> {
    host: &'lab Host,
    folder: PathBuf,
    notify_socket: UnixDatagram,
    watchdog: Option<Duration>,
}

impl<'lab> Manager<'lab> {
    pub(crate) fn new(lab: &Lab, host: &'lab Host) -> Self {
        let folder = lab.folder("manager");
        let path = folder.join("notify");
        let notify_socket = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        notify_socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { host, folder, notify_socket, watchdog: None }
    }

    /// Services started from now on must send watchdog messages.
    pub(crate) fn watchdog(&mut self, limit: Duration) {
        self.watchdog = Some(limit);
    }

    /// `gatepost run` with up to two sockets, at the descriptors 3 and 4.
    pub(crate) fn start(&self, config: &Path, sockets: [Option<OwnedFd>; 2]) -> Service {
        let count = sockets.iter().flatten().count();
        let [first, second] = sockets;
        let log = self.folder.join("log");
        let null = || File::open("/dev/null").unwrap().into();
        let output = File::options().create(true).append(true).open(&log).unwrap();
        // As with systemd, the started process has the descriptors, and its id in LISTEN_PID.
        let shell = "exec 3<&0 4<&1 0</dev/null 1>&2; export LISTEN_PID=$$; exec \"$@\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", shell, "sh", GATEPOST, "run", "--config"])
            .arg(config)
            .env("NOTIFY_SOCKET", self.folder.join("notify"))
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", ["", "smtp", "smtp:smtp"][count])
            .stdin(Stdio::from(first.unwrap_or_else(null)))
            .stdout(Stdio::from(second.unwrap_or_else(null)))
            .stderr(output);
        if let Some(limit) = self.watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        let child = self.host.in_thread(|| command.spawn()).unwrap();
        Service { child, log }
    }

    /// The next message that contains `wanted`.
    #[track_caller]
    pub(crate) fn wait_for(&self, wanted: &str) -> String {
        let mut message = [0; 4096];
        let mut messages = Vec::new();
        loop {
            let Ok(length) = self.notify_socket.recv(&mut message) else {
                panic!("no message with {wanted:?} in {PATIENCE:?}, but {messages:?}");
            };
            let message = String::from_utf8(message[..length].to_vec()).unwrap();
            if message.contains(wanted) {
                return message;
            }
            messages.push(message);
        }
    }
}

/// A gateway under the manager, killed when dropped.
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the end of the service", || self.child.try_wait().unwrap())
    }

    /// The log of all services of the manager.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, wanted: &str) {
        until(format_args!("{wanted:?} in {}", self.log()), || {
            self.log().contains(wanted).then_some(())
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of the service:\n{}", self.log());
        }
    }
}
