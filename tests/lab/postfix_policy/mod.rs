//! Postfix asks the gateway's policy, with real Postfix: the table of verdicts, the documented lines, and what happens without
//! an answer.

pub(crate) mod authentication;
pub(crate) mod fail_open;
pub(crate) mod install;
pub(crate) mod joined;
pub(crate) mod load;
pub(crate) mod table;

use std::path::{Path, PathBuf};

use crate::docs::page::Page;
use crate::support::{Config, Family, Lab, Mode, Postfix, Smtp, port};

const CHAPTER: (&str, &str) = ("docs/policy.md", "Let Postfix ask");

/// The rest of Postfix's configuration: it delivers all recipients of these domains.
pub(crate) const DOMAINS: &str =
    "virtual_mailbox_domains = example.org, closed.example.org, elsewhere.example\n";

/// The documented block in `language` that has `part`.
pub(crate) fn documented(language: &str, part: &str) -> String {
    block(CHAPTER.1, language, part)
}

fn block(title: &str, language: &str, part: &str) -> String {
    let page = Page::open(CHAPTER.0);
    let sections = page.sections.iter().filter(|section| section.title == title);
    let mut blocks = sections.flat_map(|section| &section.blocks);
    let block = blocks.find(|block| block.language == language && block.text.contains(part));
    block.unwrap_or_else(|| panic!("no {language} with {part:?} in {title:?}")).text.clone()
}

/// The documented line of main.cf by which Postfix asks at `restriction` as well, behind the relay.
pub(crate) fn line_behind_the_relay(restriction: &str) -> String {
    let lines = block("Behind the relay", "text", restriction);
    let line = lines.lines().find(|line| line.starts_with(restriction));
    line.unwrap_or_else(|| panic!("{restriction} begins no line of {lines}")).to_owned()
}

/// The documented line of main.cf for the Unix socket.
pub(crate) fn unix_line() -> String {
    documented("text", "unix:private/gatepost")
}

/// The socket in the queue directory of a Postfix that the lab calls `name`.
pub(crate) fn socket(lab: &Lab, name: &str) -> PathBuf {
    let folder = lab.path(&format!("{name}/queue/private"));
    folder.join("gatepost")
}

/// A gateway without listeners, which asks no server.
pub(crate) fn policy_only(lab: &Lab, socket: &Path) -> Config {
    Config::new(lab, Mode::Proxy)
        .without("listen")
        .without("upstream")
        .set("log", "format = \"json\"")
        .set("postfix", &format!("policy = \"unix:{}\"", socket.display()))
}

/// Postfix on the gateway's host, on port 25.
pub(crate) fn asking<'lab>(lab: &'lab Lab, name: &str, lines: &str) -> Postfix<'lab> {
    // Postfix reads a line that begins with white space as part of the one before.
    Postfix::start(lab, &lab.gateway, name, None, &format!("{DOMAINS}{lines}"))
}

/// A session with it.
pub(crate) fn session(lab: &Lab, family: Family) -> Smtp {
    let at = std::net::SocketAddr::new(lab.gateway_ip(family), port::SMTP);
    lab.client.smtp(at)
}

/// Lines of JSON with this key.
pub(crate) fn lines_with(log: &str, key: &str) -> Vec<serde_json::Value> {
    let objects = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    objects.filter(|line: &serde_json::Value| line.get(key).is_some()).collect()
}
