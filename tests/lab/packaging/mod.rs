//! What is installed: the units, the package's list of files, the manual pages and the completions, as their own tools judge
//! them.

mod examples;
mod manager;
mod rights;
mod service;
mod systemd;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// The issue's own figure; systemd calls what is below 4 "OK".
const MOST_EXPOSED: f64 = 3.0;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder of a test's own, removed when dropped.
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

/// Runs a tool, or says that it is not here.
fn tool(test: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = command.get_program().display();
            let _ = writeln!(io::stderr(), "SKIPPED: {test}: needs {name}");
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_service_is_little_exposed() {
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--offline=true", "--no-pager"])
        .arg(here("packaging/gatepost.service"));
    let Some(output) = tool("exposure", &mut analyze) else { return };
    let said = both(&output);
    let (_, rest) = said.split_once("Overall exposure level for gatepost.service: ").expect(&said);
    let figure: f64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    assert!(figure <= MOST_EXPOSED, "{said}");
}

/// With the program where the unit looks for it.
#[test]
fn the_units_are_understood() {
    let folder = Folder::new("units");
    let unit = fs::read_to_string(here("packaging/gatepost.service")).unwrap();
    let path = |name: &str| folder.0.join(name);
    symlink(GATEPOST, path("gatepost")).unwrap();
    let unit = unit.replace("/usr/bin/gatepost", path("gatepost").to_str().unwrap());
    fs::write(path("gatepost.service"), unit).unwrap();
    fs::copy(here("packaging/gatepost.socket"), path("gatepost.socket")).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]).args([path("gatepost.service"), path("gatepost.socket")]);
    let Some(output) = tool("units", &mut analyze) else { return };
    assert!(output.status.success() && both(&output).is_empty(), "{}", both(&output));
}

/// What the program can keep, and the right to bind: no more is given to it.
#[test]
fn the_service_has_the_capabilities_that_the_program_knows() {
    let unit = fs::read_to_string(here("packaging/gatepost.service")).unwrap();
    let value = |key: &str| -> BTreeSet<String> {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split(' ').map(str::to_owned).collect()
    };
    let ambient = value("AmbientCapabilities=");
    assert_eq!(ambient, value("CapabilityBoundingSet="));
    let said = fs::read_to_string(here("src/privilege/mod.rs")).unwrap();
    let (_, table) = said.split_once("const USED").unwrap();
    let (table, _) = table.split_once("];").unwrap();
    let known = table.split('"').filter(|word| word.starts_with("CAP_"));
    // The unit is for kernels that have CAP_BPF.
    let known: BTreeSet<String> =
        known.filter(|name| *name != "CAP_SYS_ADMIN").map(str::to_owned).collect();
    assert_eq!(ambient, known);
}

#[test]
fn every_file_of_the_package_is_there() {
    let cargo: toml::Table = fs::read_to_string(here("Cargo.toml")).unwrap().parse().unwrap();
    let deb = &cargo["package"]["metadata"]["deb"];
    let assets: Vec<[&str; 3]> = deb["assets"].as_array().unwrap().iter().map(triple).collect();
    let made = ["target/release/gatepost", "target/packaging/"];
    for [source, ..] in &assets {
        if made.iter().any(|made| source.starts_with(made)) {
            continue;
        }
        let there = match source.split_once('*') {
            None => here(source).is_file(),
            Some((folder, suffix)) => fs::read_dir(here(folder))
                .unwrap()
                .any(|entry| entry.unwrap().file_name().to_str().unwrap().ends_with(suffix)),
        };
        assert!(there, "{source} is not there");
    }
    let places: Vec<String> =
        assets.iter().map(|[source, place, _]| installed(source, place)).collect();
    for file in deb["conf-files"].as_array().unwrap() {
        let file = file.as_str().unwrap().trim_start_matches('/');
        assert!(places.iter().any(|place| place == file), "{file} is not installed: {places:?}");
    }
    assert!(here(deb["changelog"].as_str().unwrap()).is_file());
    // What is made is what `make deb` makes.
    let makefile = fs::read_to_string(here("Makefile")).unwrap();
    for [source, ..] in assets.iter().filter(|[source, ..]| source.starts_with("target/packaging/"))
    {
        let (made, _) = source.split_once('*').unwrap_or((source, ""));
        assert!(makefile.contains(made.trim_end_matches('/')), "make deb does not make {source}");
    }
}

fn triple(asset: &toml::Value) -> [&str; 3] {
    let words: Vec<&str> =
        asset.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    words.try_into().unwrap()
}

/// A place that ends with a slash is a folder.
fn installed(source: &str, place: &str) -> String {
    match place.strip_suffix('/') {
        Some(folder) => format!("{folder}/{}", source.rsplit('/').next().unwrap()),
        None => place.to_owned(),
    }
}

#[test]
fn maintainer_scripts_are_shell() {
    for entry in fs::read_dir(here("packaging/debian")).unwrap() {
        let path = entry.unwrap().path();
        let output = Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), both(&output));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n#DEBHELPER#\n"), "cargo-deb has no place for its own in {path:?}");
    }
}

/// To restart the sockets would lose the clients that wait in them; cargo-deb would restart every unit.
#[test]
fn an_upgrade_restarts_the_service_alone() {
    let cargo: toml::Table = fs::read_to_string(here("Cargo.toml")).unwrap().parse().unwrap();
    let units = &cargo["package"]["metadata"]["deb"]["systemd-units"][0];
    for key in ["restart-after-upgrade", "stop-on-upgrade", "enable", "start"] {
        assert_eq!(units[key].as_bool(), Some(false), "{key}");
    }
    let script = fs::read_to_string(here("packaging/debian/postinst")).unwrap();
    assert!(script.contains("try-restart gatepost.service >"), "{script}");
    assert!(!script.contains("gatepost.socket"), "{script}");
}

#[test]
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
        let Some(read) = tool("manual pages", &mut man) else { return };
        let warned = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success() && warned.is_empty(), "{page}: {warned}");
    }
}

#[test]
fn completions_are_what_their_shells_read() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(GATEPOST).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
        let script = folder.0.join(shell);
        fs::write(&script, &output.stdout).unwrap();
        if let Some(read) = tool("completions", Command::new(shell).arg("-n").arg(&script)) {
            assert!(read.status.success(), "{shell}: {}", both(&read));
        }
    }
    let asked = "source \"$0\"; COMP_WORDS=(gatepost wa); COMP_CWORD=1; _gatepost gatepost wa gatepost; \
                 echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").args(["-c", asked]).arg(folder.0.join("bash")).output();
    assert_eq!(both(&completed.unwrap()).trim(), "watch");
}
