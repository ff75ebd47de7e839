//! `gatepost canary receive` as the command of an alias, and `gatepost canary send` without mail servers.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const CANARY: &str = "canary@example.org";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("gatepost-canary-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("reports")).unwrap();
        fs::write(path.join("key"), "0b".repeat(32)).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn receive(&self, key: &str, reports: &str, message: &[u8]) -> Output {
        let (key, reports) = (self.path(key), self.path(reports));
        let words = ["canary", "receive", "--key", &key, "--to", CANARY, "--reports", &reports];
        let mut command = Command::new(GATEPOST);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It reads all of the message, whatever becomes of it.
        child.stdin.take().unwrap().write_all(message).unwrap();
        child.wait_with_output().unwrap()
    }

    fn send(&self, words: &[&str]) -> (Option<i32>, Value) {
        let key = self.path("key");
        let mut command = Command::new(GATEPOST);
        command.args(["canary", "send", "--key", &key, "--to", CANARY, "--from", "a@example.net"]);
        command.args(["--hostname", "example.net", "--format", "json"]).args(words);
        let output = command.output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Accepts one message and returns it.
fn mail_server(reply: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        for reply in ["220 s", "250 s", "250 ok", "250 ok", "354 go"] {
            if reply != "220 s" {
                line();
            }
            stream.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
        }
        let mut message = String::new();
        loop {
            let line = line();
            if line == "." {
                break;
            }
            message.push_str(&line);
            message.push('\n');
        }
        stream.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
        assert_eq!(line(), "QUIT");
        message
    });
    (address, serving)
}

#[test]
fn a_pipe_reports_canaries_and_loses_no_mail() {
    let folder = Folder::new("pipe");
    let (server, serving) = mail_server("250 ok");
    let (status, json) = folder.send(&["--server", &server]);
    let message = serving.join().unwrap();
    assert_eq!((status, &json["comparison"]), (Some(4), &Value::from("unknown")), "{json:#}");
    assert_eq!(json["ipv4"]["delivery"]["code"], 250);
    assert_eq!(json["ipv6"]["delivery"]["stage"], "no_address");

    // A report that cannot be stored now is tried again by the mail server; so is one without a key.
    let large = message.clone() + &"x".repeat(1_000_000);
    for (key, reports) in [("key", "missing"), ("missing", "reports")] {
        let output = folder.receive(key, reports, large.as_bytes());
        assert_eq!(output.status.code(), Some(75), "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("cannot "));
    }
    assert_eq!(fs::read_dir(folder.path("reports")).unwrap().count(), 0);

    let marked = format!("X-Spam-Flag: YES\n{large}");
    assert_eq!(folder.receive("key", "reports", marked.as_bytes()).status.code(), Some(0));
    let pair = json["pair"].as_str().unwrap();
    let report = fs::read(folder.path(&format!("reports/{pair}-ipv4.json"))).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["judgement"]["marks"][0]["by"], "spamassassin", "{report:#}");

    // Others get their mail back.
    let other = format!("Subject: Hello\n\n{}", "x".repeat(1_000_000));
    let changed = message.replace(&pair[..4], "0000");
    for message in [other.as_bytes(), changed.as_bytes(), b""] {
        let output = folder.receive("key", "reports", message);
        assert_eq!(output.status.code(), Some(67), "{output:?}");
        let reason = String::from_utf8(output.stderr).unwrap();
        assert!(reason.contains("canary@example.org takes canaries only"), "{reason}");
    }
}

#[test]
fn a_refusal_is_compared_without_a_report() {
    let folder = Folder::new("refused");
    let (server, _serving) = mail_server("554 5.7.1 no");
    let closed = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().to_string();
    let (status, json) = folder.send(&["--server", &server, "--server", &closed]);
    assert_eq!((status, &json["comparison"]), (Some(1), &Value::from("ipv6_worse")), "{json:#}");
    assert_eq!(json["ipv4"]["outcome"], "refused");
    assert_eq!(json["ipv6"]["outcome"], "unreachable");
}
