//! The README and the policy guide, word for word: every command in them is run here, and every configuration is used.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Family, Host, Lab, Mode, Postfix, Process};
use gatepost::config::Config;

const PAGES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md"),
];
const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

const DEMO: &str = "Two commands";
const SMALLEST: &str = "The smallest configuration";
const IN_FRONT: &str = "Inline, step by step: in front of Postfix on the same host";
const POLICY: &str = "Rules";
const READING: &str = "Reading captures";
const RECORDING: &str = "Recording sessions";
const STATUS: &str = "The status page";
const DOOR: &str = "The door: IPv6 only while it works";
const ROUTER: &str = "Inline, step by step: on a router in front of other hosts' MTAs";

#[test]
fn commands_stand_only_in_sections_that_are_run() {
    for section in sections() {
        let has_commands = section.blocks.iter().any(|block| block.language == "console");
        let is_run = [DEMO, SMALLEST, IN_FRONT, ROUTER, POLICY, DOOR, RECORDING, READING]
            .contains(&section.title.as_str());
        assert_eq!(has_commands, is_run, "{}", section.title);
    }
}

/// `make demo` and `make test` themselves would build all of this again; what they run is run instead.
#[test]
fn the_two_commands() {
    let commands = section(DEMO).commands();
    let names: Vec<&str> = commands.iter().map(|c| c.line.as_str()).collect();
    assert_eq!(names, ["make demo DEMO=--once", "make test"]);
    assert!(recipe(names[0]).contains("-- demo --once"), "{}", recipe(names[0]));
    assert!(recipe(names[1]).contains("cargo test"), "{}", recipe(names[1]));

    let demo = Command::new(GATEPOST).args(["demo", "--once"]).output().unwrap();
    let printed = String::from_utf8(demo.stdout).unwrap();
    assert!(demo.status.success(), "{printed}{}", String::from_utf8_lossy(&demo.stderr));
    assert_eq!(shape(&printed), shape(&commands[0].output));
}

#[test]
fn the_smallest_configuration() {
    let Some(lab) = Lab::new("README, smallest configuration") else { return };
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(&section(SMALLEST), |text| text.to_owned());
    for entrance in ["[::1]:2525", "127.0.0.1:2525"] {
        let entrance: SocketAddr = entrance.parse().unwrap();
        lab.server.wait_for_listener(entrance);
        let to = format!("{}@example.org", entrance.port());
        lab.server.run(["swaks", "--server", &entrance.to_string(), "--to", &to]);
        postfix.take_message_to(&to);
    }
}

#[test]
fn in_front_of_postfix_on_the_same_host() {
    let Some(lab) = Lab::new("README, in front of Postfix") else { return };
    lab.server.configure("addr add 2001:db8::25/128 dev lo nodad\naddr add 192.0.2.25/32 dev lo\n");
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(&section(IN_FRONT), |text| text.to_owned());
    assert_eq!(postfix.count_to("postmaster@example.org"), 2);
    for client in ["client=unknown[2001:db8::25]", "client=unknown[192.0.2.25]"] {
        postfix.wait_for_log(client, |line| line.contains(client));
    }
}

#[test]
fn on_a_router() {
    let Some(lab) = Lab::new("README, router") else { return };
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.gateway, &postfix);
    // The lab names a link after who is at its other end.
    reader.follow(&section(ROUTER), |text| text.replace("wan0", "client"));
    for family in Family::ALL {
        let entrance = lab.entrance(Mode::Tproxy, family).to_string();
        let to = format!("{family}@example.org");
        lab.client.run(["swaks", "--server", &entrance, "--to", &to]);
        postfix.take_message_to(&to);
        let client = format!("[{}]", lab.client_ip(family));
        postfix.wait_for_log(&client, |line| line.contains("client=") && line.contains(&client));
    }
}

/// What is shown of `gatepost door` is the page's own snapshot, without what a prober said at length.
#[test]
fn the_door() {
    let Some(lab) = Lab::new("README, the door") else { return };
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(&section(DOOR), |text| text.to_owned());
    let snapshot = include_str!(
        "../../src/report/snapshots/gatepost__report__door__tests__it_reads_like_this.snap"
    );
    let shown = section(DOOR).blocks.into_iter().find(|block| block.language == "text").unwrap();
    for line in shown.text.lines() {
        assert!(snapshot.contains(line), "{line:?} is not in the snapshot");
    }
}

#[test]
fn the_status_page() {
    let configurations: Vec<_> = section(STATUS).blocks;
    assert_eq!(configurations.len(), 1);
    let config = Config::parse(&configurations[0].text, "README.md").unwrap();
    assert!(config.status.show_addresses);
}

#[test]
fn accepting_only_who_can_be_reached() {
    let folder = std::env::temp_dir().join(format!("gatepost-readme-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let section = section(POLICY);
    for block in section.blocks.iter().filter(|block| block.language == "toml") {
        fs::write(folder.join("gatepost.toml"), &block.text).unwrap();
    }
    let checked = section.commands().into_iter().map(|command| {
        let words: Vec<&str> = command.line.split(' ').skip(1).collect();
        let output = Command::new(GATEPOST).args(words).current_dir(&folder).output().unwrap();
        let warned = String::from_utf8(output.stderr).unwrap();
        (String::from_utf8(output.stdout).unwrap() + &warned, command.output)
    });
    let checked: Vec<_> = checked.collect();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(checked.len(), 1);
    assert!(checked.iter().all(|(printed, shown)| printed == shown), "{checked:?}");
}

#[test]
fn recording_sessions() {
    let Some(lab) = Lab::new("README, recording") else { return };
    let postfix = Postfix::receiver(&lab);
    let mut reader = Reader::new(&lab, &lab.server, &postfix);
    reader.follow(&section(RECORDING), |text| text.to_owned());
    let redacted = fs::read(reader.folder.join("for-others.pcapng")).unwrap();
    let holds = |text: &[u8]| redacted.windows(text.len()).any(|window| window == text);
    assert!(holds(b"@example.org>") && !holds(b"postmaster"));
}

/// In the checkout, where the captures are. What is shown of a report stands in it line for line.
#[test]
fn reading_captures() {
    let commands = section(READING).commands();
    assert_eq!(commands.len(), 4);
    for command in commands {
        let words: Vec<&str> = command.line.split(' ').collect();
        assert_eq!(words.first(), Some(&"gatepost"));
        let folder = env!("CARGO_MANIFEST_DIR");
        let output = Command::new(GATEPOST).args(&words[1..]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let is_whole = command.output.lines().count() > 1;
        let printed = printed.trim_end();
        let shown = command.output.trim_end();
        assert!(
            if is_whole { printed == shown } else { printed.lines().any(|line| line == shown) },
            "`{}` printed:\n{printed}",
            command.line
        );
    }
}

/// Somebody who reads a section and does what it says, on one host.
struct Reader<'lab> {
    host: &'lab Host,
    postfix: &'lab Postfix<'lab>,
    folder: PathBuf,
    gateway: Option<Process>,
    /// What was started with `&` and is still to end.
    background: Vec<Process>,
}

impl<'lab> Reader<'lab> {
    fn new(lab: &Lab, host: &'lab Host, postfix: &'lab Postfix<'lab>) -> Self {
        Self { host, postfix, folder: lab.folder("reader"), gateway: None, background: Vec::new() }
    }

    /// Writes each configuration to `gatepost.toml` and types each command, in order.
    fn follow(&mut self, section: &Section, adapt: impl Fn(&str) -> String) {
        for block in &section.blocks {
            match block.language.as_str() {
                "toml" => fs::write(self.folder.join("gatepost.toml"), adapt(&block.text)).unwrap(),
                "console" => block.commands().iter().for_each(|command| self.type_in(command)),
                _ => {}
            }
        }
    }

    fn type_in(&mut self, command: &Typed) {
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
            crate::support::until("the gateway's ready line", || {
                gateway.log().contains("ready: ").then_some(())
            });
            self.gateway = Some(gateway);
            return;
        }
        if let Some(shell) = shell.strip_suffix(" &") {
            let recorder = self.host.spawn(["sh", "-c", shell]);
            crate::support::until("a recorder that records", || {
                recorder.log().contains("recording sessions").then_some(())
            });
            self.background.push(recorder);
            return;
        }
        if !command.line.starts_with("swaks ") {
            // The reader sees them end.
            self.background.drain(..).for_each(|mut process| assert!(process.wait().success()));
        }
        let printed = self.host.run(["sh", "-c", &shell]);
        for expected in command.output.lines() {
            assert!(printed.contains(expected), "`{}` printed:\n{printed}", command.line);
        }
    }
}

/// What stands under one heading.
struct Section {
    title: String,
    blocks: Vec<Block>,
}

/// A fenced block, without the indentation that it has in a list.
struct Block {
    language: String,
    text: String,
}

/// A command of a console block and what the README says it prints.
struct Typed {
    line: String,
    output: String,
}

impl Section {
    fn commands(&self) -> Vec<Typed> {
        self.blocks.iter().flat_map(Block::commands).collect()
    }
}

impl Block {
    fn commands(&self) -> Vec<Typed> {
        let mut commands: Vec<Typed> = Vec::new();
        for line in self.text.lines().filter(|_| self.language == "console") {
            if let Some(line) = line.strip_prefix("$ ") {
                commands.push(Typed { line: line.to_owned(), output: String::new() });
            } else {
                let command = commands.last_mut().expect("a block begins with a command");
                command.output.push_str(line);
                command.output.push('\n');
            }
        }
        commands
    }
}

fn sections() -> Vec<Section> {
    let pages = PAGES.map(|page| fs::read_to_string(page).unwrap()).concat();
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = pages.lines();
    while let Some(line) = lines.next() {
        if let Some(title) =
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
        {
            sections.push(Section { title: title.to_owned(), blocks: Vec::new() });
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            let indentation = line.len() - line.trim_start().len();
            let text: String = lines
                .by_ref()
                .take_while(|line| !line.trim_start().starts_with("```"))
                .map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default()))
                .collect();
            let block = Block { language: language.to_owned(), text };
            sections.last_mut().expect("a heading first").blocks.push(block);
        }
    }
    sections
}

fn section(title: &str) -> Section {
    sections().into_iter().find(|section| section.title == title).expect(title)
}

/// What make would run.
fn recipe(command: &str) -> String {
    let words = command.split(' ').skip(1);
    let folder = env!("CARGO_MANIFEST_DIR");
    let make = Command::new("make").args(["-n", "-C", folder]).args(words).output().unwrap();
    String::from_utf8(make.stdout).unwrap()
}

/// A text without what differs from run to run: digits, and the order of the rows, which end when they end.
fn shape(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().map(without_digits).collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort_unstable();
    lines
}

/// Only words that are all number, address or time differ; a reply code is part of the claim.
fn without_digits(word: &str) -> String {
    let is_port =
        word.contains("://") || word.contains("]:") || word.contains('.') && word.contains(':');
    if is_port { word.replace(|c: char| c.is_ascii_digit(), "N") } else { word.to_owned() }
}
