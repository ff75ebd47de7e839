//! The installed units under a real systemd that runs only them: the sandbox permits all that the gateway needs, in each way
//! to run it.

use crate::harness::tests;
use crate::support::{cannot_run, require_root, until};
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

tests![the_units_run_under_systemd];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const SYSTEMD: &str = "/lib/systemd/systemd";
/// Long enough for a busy machine; only failing tests, or those where systemd does not start, wait so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Empty units in place of those of a whole system.
const TARGETS: [&str; 10] = [
    "basic",
    "emergency",
    "final",
    "multi-user",
    "network-online",
    "nss-lookup",
    "shutdown",
    "sockets",
    "sysinit",
    "umount",
];

const EVERYTHING: &str = "
[listen]
mode = \"tproxy\"
addresses = [\"[::]:2525\", \"0.0.0.0:2525\"]
[intercept]
destinations = [\"192.0.2.25\", \"2001:db8::25\"]
interfaces = [\"lo\"]
[door]
[watch]
interfaces = [\"lo\"]
[log]
file = \"/var/log/gatepost/gatepost.log\"
[lookup]
cache_file = \"/var/lib/gatepost/facts.redb\"
";

const HANDED: &str = "
[listen]
addresses = [\"[::]:25\", \"0.0.0.0:25\"]
[upstream]
addresses = [\"[::1]:2600\"]
identity = \"none\"
trusted_by_address = false
[door]
refuse = \"smtp\"
";

/// A systemd in namespaces, killed with all its services when dropped.
struct System {
    folder: PathBuf,
    process: Child,
    /// systemd's process id on this host.
    id: String,
}

impl System {
    fn boot() -> Self {
        require_root();
        if !Path::new(SYSTEMD).exists() {
            cannot_run("needs systemd (Debian package systemd)");
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = std::env::temp_dir().join(format!("gatepost-systemd-{}", std::process::id()));
        let units = folder.join("units");
        fs::create_dir_all(units.join("gatepost.service.d")).unwrap();
        for unit in ["gatepost.service", "gatepost.socket"] {
            fs::copy(here.join("packaging").join(unit), units.join(unit)).unwrap();
        }
        for target in TARGETS {
            let text = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
            fs::write(units.join(format!("{target}.target")), text).unwrap();
        }
        // Without a journal, output goes to a file.
        let output = "[Service]\nStandardOutput=append:/run/log\nStandardError=append:/run/log\nWatchdogSec=4s\n";
        fs::write(units.join("gatepost.service.d/output.conf"), output).unwrap();
        fs::copy(GATEPOST, folder.join("gatepost")).unwrap();
        let console = File::create(folder.join("console")).unwrap();
        let mut boot = Command::new("sh");
        boot.arg(here.join("tests/lab/packaging/boot.sh")).arg(&folder).process_group(0);
        boot.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        let process = boot.spawn().unwrap();
        let mut system = Self { folder, process, id: String::new() };
        if !system.comes_up() {
            cannot_run(format_args!("systemd does not start here: {}", system.console()));
        }
        system
    }

    fn comes_up(&mut self) -> bool {
        let unshare = self.process.id();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.process.try_wait().unwrap().is_none() {
            let children = format!("/proc/{unshare}/task/{unshare}/children");
            self.id = fs::read_to_string(children).unwrap_or_default().trim().to_owned();
            if !self.id.is_empty() && self.systemctl(&["show", "-P", "Version"]).1 {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn console(&self) -> String {
        fs::read_to_string(self.folder.join("console")).unwrap_or_default()
    }

    /// The output of a command inside, and whether it succeeded.
    fn inside(&self, command: &[&str]) -> (String, bool) {
        let output = Command::new("nsenter").args(["-t", &self.id, "-a"]).args(command).output();
        let output = output.expect("nsenter (Debian: util-linux)");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout) + &text(&output.stderr), output.status.success())
    }

    fn systemctl(&self, arguments: &[&str]) -> (String, bool) {
        self.inside(&[&["systemctl", "--no-pager"], arguments].concat())
    }

    /// Runs a command that must succeed; returns its output.
    #[track_caller]
    fn run(&self, command: &[&str]) -> String {
        let (output, succeeded) = self.inside(command);
        assert!(succeeded, "{command:?}: {output}\n{}\n{}", self.log(), self.console());
        output
    }

    fn property(&self, name: &str) -> String {
        self.systemctl(&["show", "-P", name, "gatepost.service"]).0.trim().to_owned()
    }

    fn log(&self) -> String {
        self.inside(&["sh", "-c", "cat /run/log /var/log/gatepost/*.log 2>/dev/null"]).0
    }

    #[track_caller]
    fn wait_for_log(&self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(wanted) {
            assert!(
                Instant::now() < deadline,
                "no {wanted:?} in\n{}\n{}",
                self.log(),
                self.console()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn configure(&self, text: &str) {
        // The host may have no name of its own.
        let text = format!("{text}\n[smtp]\nhostname = \"mx.example.org\"\n");
        fs::write(self.folder.join("gatepost.toml"), text).unwrap();
    }

    /// The values of a field in the status of all threads of the gateway.
    fn status(&self, field: &str) -> Vec<String> {
        let main = self.property("MainPID");
        let script = format!("cat /proc/{main}/task/*/status | grep ^{field}: | sort -u | cut -f2");
        self.run(&["sh", "-c", &script]).lines().map(str::to_owned).collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // `--kill-child` kills systemd, and with it all processes of its PID namespace.
        let _ended = self.process.kill();
        let _ended = self.process.wait();
        let name = self.folder.file_name().unwrap().to_owned();
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let roots = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        roots
            .map(|root| root.join(&name))
            .filter(|group| group.exists())
            .for_each(|group| remove(&group));
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// Removes a control group and those in it; the kernel refuses until its last process is gone.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::remove_dir(group).is_err() && group.exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
}

fn the_units_run_under_systemd() {
    let system = System::boot();

    // The installed configuration.
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/gatepost.toml");
    system.configure(&fs::read_to_string(packaged).unwrap());
    system.run(&["systemctl", "start", "gatepost"]);
    assert_eq!(system.property("ActiveState"), "active");
    // There is no mail server.
    let status = "doors: IPv6 always open, IPv4 always open; no upstream accepts connections";
    until("a status after the first check of the upstreams", || {
        (system.property("StatusText") == status).then_some(())
    });
    assert_eq!(system.status("CapEff"), ["0000000000000000"]);
    assert_eq!(system.status("Uid"), ["65533"]);
    assert_eq!(system.status("Seccomp"), ["2"]);
    system.run(&["systemctl", "reload", "gatepost"]);
    system.wait_for_log("configuration reloaded");
    system.configure("[listen]\nno_such_key = 1");
    let (output, succeeded) = system.systemctl(&["reload", "gatepost"]);
    assert!(!succeeded, "an invalid file: {output}");
    assert_eq!(system.property("ActiveState"), "active");

    // A configuration that needs every capability.
    system.configure(EVERYTHING);
    system.run(&["systemctl", "restart", "gatepost"]);
    system.wait_for_log("watching lo by ");
    let log = system.log();
    assert!(!log.contains("not permit") && !log.contains("lacks"), "{log}");
    let door = system.run(&["gatepost", "door", "ipv6", "close"]);
    assert!(door.contains("IPv6      CLOSED") && door.contains("at the SYN"), "{door}");
    let kernel = system.run(&["gatepost", "intercept", "show"]);
    assert!(kernel.contains("fwmark"), "{kernel}");
    system.run(&["sh", "-c", "test -s /var/lib/gatepost/facts.redb"]);
    system.run(&["systemctl", "stop", "gatepost"]);
    assert_eq!(system.run(&["nft", "list", "tables"]), "");
    assert_eq!(system.property("Result"), "success");

    // Socket activation, without any capability; a client's connection starts the service.
    let none = "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n";
    let drop_in = system.folder.join("units/gatepost.service.d/none.conf");
    fs::write(drop_in, none).unwrap();
    system.configure(HANDED);
    system.run(&["systemctl", "daemon-reload"]);
    system.run(&["systemctl", "start", "gatepost.socket"]);
    assert_eq!(system.property("ActiveState"), "inactive");
    for address in ["::1", "127.0.0.1"] {
        let script = format!("exec 3<>/dev/tcp/{address}/25; head -1 <&3");
        let output = system.run(&["bash", "-c", &script]);
        assert!(output.starts_with("421 4.3.2"), "without an upstream: {output}");
    }
    system.wait_for_log("info inherited sockets, open across restarts: [::]:25, 0.0.0.0:25");
    assert_eq!(system.status("CapBnd"), ["0000000000000000"]);
    system.run(&["systemctl", "restart", "gatepost"]);

    // Twice the time of WatchdogSec= above has passed.
    thread::sleep(Duration::from_secs(8));
    assert_eq!(system.property("NRestarts"), "0", "{}", system.console());
    assert_eq!(system.property("ActiveState"), "active");
}
