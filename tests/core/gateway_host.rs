//! What `gatepost run` and `gatepost config check` find out about the host: secrets that others can read, a taken port, a
//! missing key, an account with too much power; and which requests its status page answers.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Removed at the end of its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("gatepost-host-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A configuration that listens at `listen`.
    fn config(&self, name: &str, listen: SocketAddr, more: &str) -> PathBuf {
        let socket = self.0.join(format!("{name}.sock"));
        let text = format!(
            "listen.addresses = [\"{listen}\"]\nupstream.addresses = [\"127.0.0.1:1\"]\n\
             smtp.hostname = \"gate.example\"\ncontrol.socket = {socket:?}\nlookup.dns = [\"127.0.0.1:9\"]\n{more}"
        );
        self.write(name, &text, 0o600)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// `gatepost run`, killed at the end of its test.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Running {
    /// Returns its log until it is ready.
    fn start(config: &Path) -> (Self, String) {
        let child = Command::new(GATEPOST)
            .args(["run", "--config", config.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self { child, lines };
        let log = running.wait_for("ready: listening on");
        (running, log)
    }

    /// The log up to a line with `wanted`.
    fn wait_for(&mut self, wanted: &str) -> String {
        let mut log = String::new();
        for line in self.lines.by_ref() {
            log.push_str(&line.unwrap());
            log.push('\n');
            if log.lines().next_back().is_some_and(|line| line.contains(wanted)) {
                return log;
            }
        }
        panic!("no {wanted:?} in:\n{log}");
    }

    fn reload(&self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn check(config: &Path) -> Output {
    Command::new(GATEPOST).args(["config", "check"]).arg(config).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_second_gateway_does_not_take_clients_from_the_first() {
    let folder = Folder::new("two");
    let listen = free();
    let (_first, _) = Running::start(&folder.config("first.toml", listen, ""));
    let second = folder.config("second.toml", listen, "");
    let output = Command::new(GATEPOST).args(["run", "--config"]).arg(&second).output().unwrap();
    assert!(!output.status.success());
    let expected = format!(
        "cannot listen on {listen}: Address already in use (os error 98); another program uses it, perhaps a second gateway: \
         `ss -ltnp` shows which"
    );
    assert!(errors(&output).contains(&expected), "{}", errors(&output));
    // Its own port remains its own in a reload with other addresses.
    let (mut third, _) = Running::start(&folder.config("third.toml", free(), ""));
    folder.config("third.toml", free(), "");
    third.reload();
    third.wait_for("configuration reloaded");
    folder.config("third.toml", listen, "");
    third.reload();
    let log =
        third.wait_for("configuration not reloaded, the old one stays in force: cannot listen on");
    assert!(log.contains("perhaps a second gateway"), "{log}");
}

#[test]
fn a_gateway_that_stays_root_warns() {
    let folder = Folder::new("root");
    let (_running, log) = Running::start(&folder.config("gatepost.toml", free(), ""));
    assert_eq!(
        log.contains(" warn the gateway runs as root; set user in [process]"),
        geteuid().is_root(),
        "{log}"
    );
}

#[test]
fn secrets_that_others_can_read_are_reported_by_check_and_at_the_start() {
    let folder = Folder::new("secrets");
    let key = folder.write("vantage.key", &"0f".repeat(32), 0o644);
    let more = format!(
        "lookup.redis = \"redis://:secret@127.0.0.1:1/\"\n\
         [vantage]\naddress = \"127.0.0.1:9\"\nkey_file = {key:?}\ndomains = [\"example.org\"]\n"
    );
    let config = folder.config("gatepost.toml", free(), &more);
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = [
        "the configuration has the password of lookup.redis and can be read by every account of this host".to_owned(),
        format!("vantage.key_file: {} can be read by every account of this host", key.display()),
    ];
    let output = check(&config);
    assert!(output.status.success(), "{}", errors(&output));
    let (running, log) = Running::start(&config);
    for warning in &warnings {
        let expected = format!("{}: {warning}; `chmod 600 ", config.display());
        assert!(errors(&output).contains(&expected), "{}", errors(&output));
        assert!(log.contains(&format!(" warn {warning}; `chmod 600 ")), "{log}");
        assert!(!log.contains("secret@"), "{log}");
    }
    drop(running);
    for path in [&key, &config] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(errors(&check(&config)), "");
}

#[test]
fn a_key_that_cannot_be_read_is_an_error_of_the_configuration() {
    let folder = Folder::new("key");
    let key = folder.0.join("vantage.key");
    let more = format!(
        "[vantage]\naddress = \"127.0.0.1:9\"\nkey_file = {key:?}\ndomains = [\"example.org\"]\n"
    );
    let config = folder.config("gatepost.toml", free(), &more);
    let missing = check(&config);
    assert!(!missing.status.success());
    assert!(missing.stdout.is_empty(), "not OK");
    let expected = format!(
        "{}: vantage.key_file: cannot read the key in {}: ",
        config.display(),
        key.display()
    );
    assert!(errors(&missing).starts_with(&expected), "{}", errors(&missing));
    assert!(errors(&missing).contains("openssl rand -hex 32"), "{}", errors(&missing));
    // A folder is as unreadable for root as for anybody.
    fs::create_dir(&key).unwrap();
    assert!(errors(&check(&config)).starts_with(&expected), "{}", errors(&check(&config)));
    fs::remove_dir(&key).unwrap();
    folder.write("vantage.key", "no key", 0o600);
    let wrong = check(&config);
    assert!(!wrong.status.success());
    assert!(errors(&wrong).contains("expected 64 hexadecimal digits"), "{}", errors(&wrong));
}

/// The status line and the body of a response.
fn get(address: SocketAddr, target: &str, head: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\n{head}Connection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn the_status_page_answers_only_requests_for_this_gateway() {
    let folder = Folder::new("status");
    let page = free();
    let more = format!("metrics.address = \"{page}\"\nstatus.hosts = [\"status.example.org\"]\n");
    let (_running, _) = Running::start(&folder.config("gatepost.toml", free(), &more));
    let port = page.port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "gate.example".to_owned(),
        "Status.Example.org".to_owned(),
        // By a tunnel.
        "[::1]:8080".to_owned(),
    ] {
        for target in ["/", "/status.js"] {
            let (status, _) = get(page, target, &format!("Host: {host}\r\n"));
            assert_eq!(status, "HTTP/1.1 200 OK", "{host} {target}");
        }
    }
    for head in [
        "Host: rebound.example\r\n".to_owned(),
        format!("Host: rebound.example:{port}\r\n"),
        format!("Host: 127.0.0.1.rebound.example:{port}\r\n"),
        "Host: 192.0.2.1\r\n".to_owned(),
        "Host:\r\n".to_owned(),
        String::new(),
        "Host: localhost\r\nHost: rebound.example\r\n".to_owned(),
    ] {
        for target in ["/", "/status.css", "/status.js", "/status.svg"] {
            let (status, body) = get(page, target, &head);
            assert_ne!(status, "HTTP/1.1 200 OK", "{head:?} {target}");
            assert!(!body.contains("gatepost on"), "{head:?} {target}: {body}");
        }
    }
    let (status, body) = get(page, "/", "Host: rebound.example\r\n");
    assert_eq!(status, "HTTP/1.1 421 Misdirected Request");
    assert!(body.contains("add the name to hosts in [status]"), "{body}");
    let absolute = get(page, "http://rebound.example/", "Host: localhost\r\n");
    assert_eq!(absolute.0, "HTTP/1.1 421 Misdirected Request");
    // Prometheus names its target as it likes; there is nothing private in it.
    assert_eq!(get(page, "/metrics", "Host: gateway-7.monitoring\r\n").0, "HTTP/1.1 200 OK");
    assert_ne!(get(page, "/readyz", "Host: probe\r\n").0, "HTTP/1.1 421 Misdirected Request");
}

#[test]
fn an_open_relay_neither_starts_nor_is_reloaded() {
    let folder = Folder::new("relay");
    let port = free().port();
    let public: SocketAddr = format!("0.0.0.0:{port}").parse().unwrap();
    let dangerous = folder.config("dangerous.toml", public, "");
    for command in [&["config", "check"][..], &["run", "--config"]] {
        let output = Command::new(GATEPOST).args(command).arg(&dangerous).output().unwrap();
        assert!(!output.status.success(), "{command:?}");
        assert!(output.stdout.is_empty(), "{command:?}");
        let errors = errors(&output);
        assert!(errors.contains("127.0.0.1:1 is a loopback address: with identity = \"none\", the default, the MTA sees every client as this host, and strangers can relay mail through it (open relay)"), "{errors}");
    }
    // A running gateway keeps what it has.
    let loopback = SocketAddr::new([127, 0, 0, 1].into(), port);
    let config = folder.config("gatepost.toml", loopback, "");
    let (mut running, log) = Running::start(&config);
    assert!(!log.contains("trusted_by_address"), "{log}");
    folder.config("gatepost.toml", public, "");
    running.reload();
    let log = running.wait_for("configuration not reloaded, the old one stays in force: ");
    assert!(log.contains("(open relay)"), "{log}");
    assert!(TcpStream::connect(loopback).is_ok(), "it still listens");
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err(), "and nowhere else");
    // Whoever writes both keys gets what they say, and a warning wherever it can be seen.
    let page = free();
    let more = format!(
        "metrics.address = \"{page}\"\nupstream.identity = \"none\"\nupstream.trusted_by_address = false\n"
    );
    drop(running);
    let chosen = folder.config("chosen.toml", public, &more);
    let warning = "trusted_by_address = false: every client looks like this host to the MTA, and strangers can relay mail if it \
                   trusts that address after all (Postfix: mynetworks)";
    let output = check(&chosen);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(errors(&output).contains(warning), "{}", errors(&output));
    let (_running, log) = Running::start(&chosen);
    assert!(log.contains(&format!(" warn {warning}")), "{log}");
    let (_, body) = get(page, "/", "Host: localhost\r\n");
    assert!(body.contains(warning), "{body}");
}
