//! The installed units, manual pages and completions, checked by systemd-analyze, man and the shells.

pub(crate) mod examples;
mod manager;
pub(crate) mod rights;
pub(crate) mod service;
pub(crate) mod systemd;

use crate::harness::tests;
use crate::support::cannot_run;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

tests![
    the_exposure_level_is_low,
    systemd_accepts_the_units,
    every_command_has_a_manual_page_and_groff_reads_it,
    shells_accept_their_completions,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// Limit of the exposure level; systemd calls levels below 4 "OK".
const MOST_EXPOSED: f64 = 3.0;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A temporary folder of one test, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gatepost-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program of that Debian package.
fn tool(package: &str, command: &mut Command) -> Output {
    match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = command.get_program().display();
            cannot_run(format_args!("needs {name} (Debian package {package})"))
        }
        output => output.unwrap_or_else(|error| panic!("{command:?}: {error}")),
    }
}

fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn the_exposure_level_is_low() {
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--offline=true", "--no-pager"])
        .arg(here("packaging/gatepost.service"));
    let output = tool("systemd", &mut analyze);
    let report = both(&output);
    let (_, rest) =
        report.split_once("Overall exposure level for gatepost.service: ").expect(&report);
    let figure: f64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    assert!(figure <= MOST_EXPOSED, "{report}");
}

/// With the path of the unit's program replaced.
fn systemd_accepts_the_units() {
    let folder = Folder::new("units");
    let unit = fs::read_to_string(here("packaging/gatepost.service")).unwrap();
    let path = |name: &str| folder.0.join(name);
    symlink(GATEPOST, path("gatepost")).unwrap();
    let unit = unit.replace("/usr/bin/gatepost", path("gatepost").to_str().unwrap());
    fs::write(path("gatepost.service"), unit).unwrap();
    fs::copy(here("packaging/gatepost.socket"), path("gatepost.socket")).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]).args([path("gatepost.service"), path("gatepost.socket")]);
    let output = tool("systemd", &mut analyze);
    assert!(output.status.success() && both(&output).is_empty(), "{}", both(&output));
}

fn every_command_has_a_manual_page_and_groff_reads_it() {
    let folder = Folder::new("man");
    let output = Command::new(GATEPOST).arg("man").arg(&folder.0).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let pages: BTreeSet<String> = fs::read_dir(&folder.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in ["gatepost.1", "gatepost-run.1", "gatepost-config-check.1", "gatepost-cache-show.1"]
    {
        assert!(pages.contains(page), "no {page} in {pages:?}");
    }
    let help = Command::new(GATEPOST).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.len() > 8, "{help}");
    for name in names.iter().filter(|name| **name != "help") {
        assert!(pages.contains(&format!("gatepost-{name}.1")), "no page of {name}");
    }
    for page in &pages {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(folder.0.join(page));
        man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80");
        let read = tool("man-db", &mut man);
        let warned = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success() && warned.is_empty(), "{page}: {warned}");
    }
}

fn shells_accept_their_completions() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(GATEPOST).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        let script = folder.0.join(shell);
        fs::write(&script, &output.stdout).unwrap();
        let read = tool(shell, Command::new(shell).arg("-n").arg(&script));
        assert!(read.status.success(), "{shell}: {}", both(&read));
    }
    let asked = "source \"$0\"; COMP_WORDS=(gatepost wa); COMP_CWORD=1; _gatepost gatepost wa gatepost; \
                 echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").args(["-c", asked]).arg(folder.0.join("bash")).output();
    assert_eq!(both(&completed.unwrap()).trim(), "watch");
}
