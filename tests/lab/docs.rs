//! The guides, word for word: each command in them runs here, with each configuration.

#[allow(dead_code, reason = "tests/core/docs uses the rest")]
#[path = "../core/docs/page.rs"]
pub(crate) mod page;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::tests;
use crate::support::{Authority, Family, HOSTNAME, Host, Lab, Mode, Postfix, Process, until};
use nix::sys::signal::Signal;
use page::{DocumentedCommand, Page, Section};

tests![
    every_documented_command_runs,
    the_two_commands,
    the_smallest_deployment,
    in_front_of_postfix_on_one_host,
    on_a_router,
    the_door,
    postfix_asks,
    the_family_of_outbound_mail,
    recording_sessions,
    tls_from_postfix_to_the_gateway,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

const COMMANDS: (&str, &str) = ("README.md", "Two commands");
const SMALLEST: (&str, &str) = ("README.md", "The smallest deployment");
const POSTFIX: (&str, &str) = ("docs/getting-started.md", "Step by step");
const ROUTER: (&str, &str) = ("docs/transparent-mode.md", "Step by step");
const DOOR: (&str, &str) = ("docs/policy.md", "The door");
const ASKING: (&str, &str) = ("docs/policy.md", "Let Postfix ask");
const TLS: (&str, &str) = ("docs/tls.md", "Moving TLS from Postfix to the gateway");
const OUTBOUND: (&str, &str) = ("docs/outbound.md", "Step by step");
const RECORDING: (&str, &str) = ("docs/recording.md", "Recording sessions");

/// Sections whose commands run elsewhere.
const ELSEWHERE: [(&str, &str); 10] = [
    // tests/core/docs
    ("docs/policy.md", "Rules"),
    ("docs/replay.md", "Replay: reading captures"),
    ("docs/replay.md", "One dialogue"),
    ("docs/replay.md", "Evaluating a policy"),
    ("docs/replay.md", "Evidence about both families"),
    // tests/lab/outbound/evidence.rs
    ("docs/outbound.md", "Evidence"),
    ("docs/outbound.md", "Messages without another way"),
    // tests/lab/packaging
    ("docs/operations.md", "Install"),
    ("docs/operations.md", "Socket activation"),
    // make itself
    ("CONTRIBUTING.md", "Set-up"),
];

fn every_documented_command_runs() {
    let here = [COMMANDS, SMALLEST, POSTFIX, ROUTER, DOOR, ASKING, OUTBOUND, RECORDING, TLS];
    for page in Page::all() {
        for section in &page.sections {
            let has_commands = section.blocks.iter().any(|block| block.language == "console");
            let name = (&*page.name(), &*section.title);
            let runs = here.contains(&name) || ELSEWHERE.contains(&name);
            assert_eq!(has_commands, runs, "{name:?}");
        }
    }
}

/// `make demo` and `make check` themselves would build all of this again, so the programs that they start run instead.
fn the_two_commands() {
    let commands = commands(COMMANDS);
    let names: Vec<&str> = commands.iter().map(|command| &*command.line).collect();
    assert_eq!(names, ["make demo DEMO=--once", "make check"]);
    assert!(recipe(names[0]).contains("-- demo --once"), "{}", recipe(names[0]));
    assert!(recipe(names[1]).contains("cargo test"), "{}", recipe(names[1]));

    let demo = Command::new(GATEPOST).args(["demo", "--once"]).output().unwrap();
    let printed = String::from_utf8(demo.stdout).unwrap();
    assert!(demo.status.success(), "{printed}{}", String::from_utf8_lossy(&demo.stderr));
    assert_eq!(shape(&printed), shape(&commands[0].output));
}

fn the_smallest_deployment() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(SMALLEST, |text| text.to_owned());
    for entrance in ["[::1]:2525", "127.0.0.1:2525"] {
        let entrance: SocketAddr = entrance.parse().unwrap();
        lab.server.wait_for_listener(entrance);
        let to = format!("{}@example.org", entrance.port());
        lab.server.run(["swaks", "--server", &entrance.to_string(), "--to", &to]);
        postfix.take_message_to(&to);
    }
}

fn in_front_of_postfix_on_one_host() {
    let lab = Lab::new();
    lab.server.configure("addr add 2001:db8::25/128 dev lo nodad\naddr add 192.0.2.25/32 dev lo\n");
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(POSTFIX, |text| text.to_owned());
    assert_eq!(postfix.count_to("postmaster@example.org"), 2);
    for client in ["client=unknown[2001:db8::25]", "client=unknown[192.0.2.25]"] {
        postfix.wait_for_log(client, |line| line.contains(client));
    }
}

fn on_a_router() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.gateway, &postfix);
    // The lab names a link after the host at its other end.
    reader.follow(ROUTER, |text| text.replace("wan0", "client"));
    for family in Family::ALL {
        let entrance = lab.entrance(Mode::Tproxy, family).to_string();
        let to = format!("{family}@example.org");
        lab.client.run(["swaks", "--server", &entrance, "--to", &to]);
        postfix.take_message_to(&to);
        let client = format!("[{}]", lab.client_ip(family));
        postfix.wait_for_log(&client, |line| line.contains("client=") && line.contains(&client));
    }
}

fn the_door() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(DOOR, |text| text.to_owned());
}

fn postfix_asks() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(ASKING, |text| text.to_owned());
    postfix.kill_sessions();
    let entrance = lab.entrance(Mode::Tproxy, Family::Ipv6).to_string();
    lab.client.run(["swaks", "--server", &entrance, "--to", "a@example.org"]);
    // Without a DNS server the name is unknown.
    let verdict = "shadow=\"tempfail by clients have a confirmed name";
    let gateway = reader.gateway.as_ref().unwrap();
    until("the verdict in shadow mode", || gateway.log().contains(verdict).then_some(()));
}

fn the_family_of_outbound_mail() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(OUTBOUND, |text| text.to_owned());
    let socket = postfix.queue_directory().join("private/gatepost-map");
    let map = format!("socketmap:unix:{}:dns", socket.display());
    let answer = |record: &str| {
        let output = lab.server.output(["postmap", "-q", record, &map]);
        String::from_utf8(output.stdout).unwrap()
    };
    for (host, expected) in [("mx.a", "IGNORE\n"), ("mx1.b", ""), ("mx2.b", "IGNORE\n"), ("c", "")]
    {
        assert_eq!(answer(&format!("{host}.example. 60 IN A 192.0.2.1")), "", "{host}");
        assert_eq!(answer(&format!("{host}.example. 60 IN AAAA 2001:db8::1")), expected, "{host}");
    }
}

fn recording_sessions() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(RECORDING, |text| text.to_owned());
    let redacted = fs::read(reader.folder.join("for-others.pcapng")).unwrap();
    let holds = |text: &[u8]| redacted.windows(text.len()).any(|window| window == text);
    assert!(holds(b"<postmaster@example.org>"), "a mailbox of no person");
    assert!(holds(b"FROM:<") && !holds(b"FROM:<root@"));
}

/// After the guide to a gateway in front of Postfix. DANE's digest stays the same, and the messages arrive through TLS that
/// the gateway ends.
fn tls_from_postfix_to_the_gateway() {
    let lab = Lab::new();
    lab.server.configure("addr add 2001:db8::25/128 dev lo nodad\naddr add 192.0.2.25/32 dev lo\n");
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let postfix = Postfix::start(&lab, &lab.server, "receiver", Some(&authority), "");
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    for command in commands(POSTFIX).iter().filter(|command| command.line.starts_with("post")) {
        reader.run(command);
    }
    reader.follow(TLS, |text| {
        let (certificate, key) = (authority.server_certificate(), authority.server_key());
        text.replace("/etc/gatepost/fullchain.pem", certificate.to_str().unwrap())
            .replace("/etc/gatepost/privkey.pem", key.to_str().unwrap())
    });
    assert_eq!(postfix.count_to("postmaster@example.org"), 2);
    let log = reader.gateway.as_ref().unwrap().log();
    let delivered = log.lines().filter(|line| line.contains("to=<postmaster@example.org>"));
    assert_eq!(delivered.filter(|line| line.contains(" tls=established ")).count(), 2, "{log}");
}

/// Follows a guide on one host.
struct Reader<'lab> {
    host: &'lab Host,
    postfix: &'lab Postfix<'lab>,
    folder: PathBuf,
    gateway: Option<Process>,
    /// Commands that were started with `&` and have not ended.
    background: Vec<Process>,
}

impl<'lab> Reader<'lab> {
    fn new(lab: &Lab, host: &'lab Host, postfix: &'lab Postfix<'lab>) -> Self {
        Self { host, postfix, folder: lab.folder("reader"), gateway: None, background: Vec::new() }
    }

    /// Writes each configuration to `gatepost.toml` and runs each command, in order.
    fn follow(&mut self, (page, title): (&str, &str), adapt: impl Fn(&str) -> String) {
        let page = Page::open(page);
        for block in &page.section(title).blocks {
            match block.language.as_str() {
                "toml" => fs::write(self.folder.join("gatepost.toml"), adapt(&block.text)).unwrap(),
                "console" => block.commands().iter().for_each(|command| self.run(command)),
                _ => {}
            }
        }
    }

    fn run(&mut self, command: &DocumentedCommand) {
        let binaries = Path::new(GATEPOST).parent().unwrap().display();
        let shell = format!(
            "cd {} && PATH={binaries}:$PATH && export MAIL_CONFIG={} && {}",
            self.folder.display(),
            self.postfix.config_directory().display(),
            command.line,
        );
        if command.line.starts_with("gatepost run ") {
            let shell = shell.replace("&& gatepost run", "&& exec gatepost run");
            let gateway = self.host.spawn(["sh", "-c", &shell]);
            until("the gateway's ready line", || gateway.log().contains("ready: ").then_some(()));
            self.gateway = Some(gateway);
            return;
        }
        if command.line == "systemctl reload gatepost" {
            let gateway = self.gateway.as_ref().expect("a gateway that runs");
            gateway.signal(Signal::SIGHUP);
            return until("the reload", || {
                gateway.log().contains("configuration reloaded").then_some(())
            });
        }
        if let Some(shell) = shell.strip_suffix(" &") {
            let recorder = self.host.spawn(["sh", "-c", shell]);
            until("a recorder that records", || {
                recorder.log().contains("recording new sessions").then_some(())
            });
            self.background.push(recorder);
            return;
        }
        if !command.line.starts_with("swaks ") {
            // They end before the reader goes on.
            self.background.drain(..).for_each(|mut process| assert!(process.wait().success()));
        }
        let printed = self.host.run(["sh", "-c", &shell]);
        for expected in command.output.lines() {
            assert!(printed.contains(expected), "`{}` printed:\n{printed}", command.line);
        }
    }
}

fn commands((page, title): (&str, &str)) -> Vec<DocumentedCommand> {
    Section::commands(Page::open(page).section(title))
}

/// The commands that make would run.
fn recipe(command: &str) -> String {
    let words = command.split(' ').skip(1);
    let folder = env!("CARGO_MANIFEST_DIR");
    let make = Command::new("make").args(["-n", "-C", folder]).args(words).output().unwrap();
    String::from_utf8(make.stdout).unwrap()
}

/// A text without the differences between runs: port digits, and the order of the rows, which are printed as senders end.
fn shape(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().map(without_digits).collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort_unstable();
    lines
}

/// Only numbers in addresses and times vary; a reply code is part of the claim.
fn without_digits(word: &str) -> String {
    let varies =
        word.contains("://") || word.contains("]:") || word.contains('.') && word.contains(':');
    if varies { word.replace(|c: char| c.is_ascii_digit(), "N") } else { word.to_owned() }
}
