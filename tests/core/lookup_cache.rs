//! `gatepost cache` with and without a running gateway and after kill -9; `gatepost vantage` and its errors.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost::addr::{Family, Networks};
use gatepost::lookup::vantage::{Vantage, VantageError, VantageResult, VantageSettings};
use gatepost::lookup::{LookupService, LookupSettings, ProbeSettings};
use gatepost::policy::facts::{Answer, DomainName, Lookup, Reason};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const GENEROUS: Duration = Duration::from_secs(30);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("gatepost-reach-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Killed at the end of its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

impl Running {
    /// Waits for a line that contains `ready`, on either output.
    fn start(args: &[&str], ready: &str) -> Self {
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 2>&1", GATEPOST])
            .args(args)
            .stdout(Stdio::piped())
            .spawn();
        let mut running = Self(child.unwrap());
        let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let mut printed = Vec::new();
        for line in lines {
            printed.push(line.unwrap());
            if printed.last().is_some_and(|line| line.contains(ready)) {
                return running;
            }
        }
        panic!("it ended: {printed:?}");
    }
}

fn gatepost(args: &[&str]) -> Output {
    Command::new(GATEPOST).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

fn error(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Fills the cache as an earlier gateway would: with `count` loopback addresses that refuse connections.
fn fill_cache(file: &Path, count: u8) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = LookupSettings {
            dns_servers: vec!["127.0.0.1:9".parse().unwrap()],
            cache_file: Some(file.to_owned()),
            probes: ProbeSettings { port: free, ..ProbeSettings::default() },
            special_networks: Networks::new(["127.0.0.0/8".parse().unwrap()]),
            ..LookupSettings::default()
        };
        let (lookups, notices) = LookupService::start(settings, Arc::new(())).unwrap();
        assert!(notices.is_empty(), "{notices:?}");
        for n in 1..=count {
            let result = lookups.lookup(&Lookup::Connect([127, 0, 0, n].into())).await;
            assert_eq!(result.answer, Answer::No(Reason::Refused, None));
        }
        lookups.flush();
    });
}

#[test]
fn the_cache_is_shown_and_purged_with_a_gateway_and_without() {
    let folder = Folder::new("cache");
    let file = folder.path("facts.redb");
    fill_cache(&file, 12);
    let config = folder.path("gatepost.toml");
    let text = format!(
        "[listen]\naddresses = [\"127.0.0.1:0\"]\n[upstream]\naddresses = [\"127.0.0.1:1\"]\n\
         [smtp]\nhostname = \"gate.example\"\n[control]\nsocket = {:?}\n[lookup]\ndns = [\"127.0.0.1:9\"]\ncache_file = {file:?}\n",
        folder.path("control.sock")
    );
    fs::write(&config, text).unwrap();
    let with = config.to_str().unwrap();
    let run = || Running::start(&["run", "--config", with], "ready: listening on");

    let gateway = run();
    let shown = out(&gatepost(&["cache", "show", "--config", with]));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 13, "{shown}");
    assert!(lines[0].starts_with("KIND           SUBJECT"), "{shown}");
    assert!(lines.iter().skip(1).all(|line| line.contains("no: refused") && line.len() <= 100));
    let json =
        out(&gatepost(&["cache", "show", "--config", with, "--format", "json", "127.0.0.12"]));
    let row: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!(row["lookup"]["connect"], "127.0.0.12");
    assert_eq!(row["answer"]["no"][0], "refused");
    let purged = out(&gatepost(&["cache", "purge", "--config", with, "connect 127.0.0.12"]));
    assert_eq!(purged, "1 answer deleted\n");

    // A purge reaches the file within a second; then the gateway is killed.
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(1500));
    drop(gateway);
    let offline = gatepost(&["cache", "show", "--config", with]);
    assert!(String::from_utf8_lossy(&offline.stderr).contains("no gateway is running; reading"));
    assert_eq!(out(&offline).lines().count(), 12);
    assert_eq!(
        out(&gatepost(&["cache", "purge", "--config", with, "127.0.0.11"])),
        "1 answer deleted\n"
    );

    let gateway = run();
    assert_eq!(out(&gatepost(&["cache", "show", "--config", with])).lines().count(), 11);
    assert_eq!(out(&gatepost(&["cache", "purge", "--config", with])), "10 answers deleted\n");
    assert_eq!(out(&gatepost(&["cache", "show", "--config", with])), "the cache is empty\n");
    drop(gateway);
    assert!(began.elapsed() < GENEROUS);

    let socket = folder.path("nobody.sock");
    let alone = error(&gatepost(&["cache", "show", "--socket", socket.to_str().unwrap()]));
    assert!(alone.contains("is `gatepost run` running?"), "{alone}");
    fs::remove_file(&file).unwrap();
    let nothing = error(&gatepost(&["cache", "show", "--config", with]));
    assert!(nothing.contains("cannot open") && !file.exists(), "{nothing}");
}

#[test]
fn a_vantage_answers_only_for_its_key_and_its_domains() {
    let folder = Folder::new("vantage");
    let (key, other) = (folder.path("vantage.key"), folder.path("other.key"));
    fs::write(&key, "5a".repeat(32)).unwrap();
    fs::write(&other, "5b".repeat(32)).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (listen, file) = (free.to_string(), key.to_str().unwrap());
    let _vantage = Running::start(
        &[
            "vantage",
            "--listen",
            &listen,
            "--key",
            file,
            "--domain",
            "a.example",
            "--domain",
            "B.example",
            "--dns",
            "127.0.0.1:9",
            "--hostname",
            "vantage.example",
        ],
        "probes a.example, b.example",
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |key: &Path, domain: &str| {
        let (timeout, domains) = (GENEROUS, Vec::new());
        let settings = VantageSettings { address: free, key: key.to_owned(), domains, timeout };
        let vantage = Vantage::new(&settings, None).unwrap();
        runtime.block_on(vantage.probe(&DomainName::parse(domain).unwrap(), Family::Ipv6))
    };
    // The vantage gets no answer from its DNS server and reports that.
    let found = ask(&key, "b.example").unwrap();
    assert!(matches!(found, VantageResult::Unknown(_)), "{found:?}");
    for (key, domain, status) in [(&other, "a.example", 401), (&key, "c.example", 403)] {
        match ask(key, domain).unwrap_err() {
            VantageError::Refused { status: received, .. } => {
                assert_eq!(received.as_u16(), status);
            }
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_vantage_that_cannot_run_reports_the_error() {
    let folder = Folder::new("mistakes");
    let key = folder.path("vantage.key");
    fs::write(&key, "not a key").unwrap();
    let file = key.to_str().unwrap();
    let run = |args: &[&str]| error(&gatepost(&[&["vantage"], args].concat()));
    let most = ["--listen", "127.0.0.1:0", "--domain", "a.example", "--key"];
    for (args, expected) in [
        ([&most[..], &[file]].concat(), "expected 64 hexadecimal digits"),
        ([&most[..], &["/nowhere/key"]].concat(), "cannot read the key in /nowhere/key"),
        (most[..4].to_vec(), "--key <FILE>"),
        ([&most[..], &[file, "--domain", "a b"]].concat(), "write a domain such as example.org"),
        ([&most[..], &[file, "--dns", "dns"]].concat(), "expected the address of a DNS server"),
        ([&most[..], &[file, "--requests-per-minute", "0"]].concat(), "--requests-per-minute"),
        (vec!["--listen", "here", "--domain", "a.example", "--key", file], "--listen"),
    ] {
        let stderr = run(&args);
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    fs::write(&key, "5a".repeat(32)).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let stderr = run(&["--listen", &address, "--domain", "a.example", "--key", file]);
    assert!(stderr.contains(&format!("cannot listen on {address}")), "{stderr}");
}
