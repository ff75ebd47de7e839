//! The contents of the Debian package: units, file list and maintainer scripts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost::config::Config;
use gatepost::source::live;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The unit grants only the capabilities that the program uses.
#[test]
fn the_service_has_the_capabilities_that_the_program_uses() {
    let unit = fs::read_to_string(here("packaging/gatepost.service")).unwrap();
    let value = |key: &str| -> BTreeSet<String> {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split(' ').map(str::to_owned).collect()
    };
    let ambient = value("AmbientCapabilities=");
    assert_eq!(ambient, value("CapabilityBoundingSet="));
    let source = fs::read_to_string(here("src/privilege/capabilities.rs")).unwrap();
    let (_, table) = source.split_once("const USED").unwrap();
    let (table, _) = table.split_once("];").unwrap();
    let known = table.split('"').filter(|word| word.starts_with("CAP_"));
    // The unit is for kernels that have CAP_BPF.
    let known: BTreeSet<String> =
        known.filter(|name| *name != "CAP_SYS_ADMIN").map(str::to_owned).collect();
    assert_eq!(ambient, known);
}

/// The limit holds what the default configuration may use, and leaves the rest of a small host to the mail server.
#[test]
fn the_service_may_use_the_memory_that_its_defaults_need() {
    const PER_SESSION: usize = 128 << 10;
    let unit = fs::read_to_string(here("packaging/gatepost.service")).unwrap();
    let limits: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix("MemoryMax=")).collect();
    let [limit] = limits.as_slice() else { panic!("{limits:?}") };
    let limit = gatepost::config::parse_size(limit).unwrap();
    let smallest = Config::load(&here("tests/config/valid/smallest.toml")).unwrap();
    let sessions = smallest.relay.limits.sessions * PER_SESSION;
    let needed = sessions + smallest.lookup.cache_limits.bytes + live::CaptureSettings::BUFFER;
    assert!(limit >= needed + needed / 4, "{limit} of {needed} bytes");
    assert!(limit <= 2 << 30, "{limit} bytes");
    // The comment above the key has the same figures.
    for figure in ["10000 sessions", "128 KiB each", "1.2 GiB", "64 MiB each"] {
        assert!(unit.contains(figure), "{figure}");
    }
    assert_eq!(smallest.relay.limits.sessions, 10_000);
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
    // `make deb` makes the generated files.
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

/// The unit of the vantage starts the program with options that it knows, without any privilege.
#[test]
fn the_vantage_has_a_service() {
    let unit = fs::read_to_string(here("packaging/gatepost-vantage.service")).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let start = value("ExecStart=");
    assert!(start.starts_with("/usr/bin/gatepost vantage --listen ${LISTEN} --key "), "{start}");
    assert_eq!(value("CapabilityBoundingSet="), "");
    assert_eq!(value("DynamicUser="), "yes");
    let output = Command::new(env!("CARGO_BIN_EXE_gatepost")).args(["vantage", "--help"]).output();
    let help = String::from_utf8(output.unwrap().stdout).unwrap();
    let defaults = fs::read_to_string(here("packaging/gatepost-vantage.default")).unwrap();
    let options =
        start.split(' ').chain(defaults.split([' ', '"'])).filter(|word| word.starts_with("--"));
    let options: BTreeSet<&str> = options.collect();
    assert!(options.contains("--domain"), "{options:?}");
    for option in options {
        assert!(help.contains(&format!("{option} ")), "{option} is unknown: {help}");
    }
}

#[test]
fn maintainer_scripts_are_shell() {
    for entry in fs::read_dir(here("packaging/debian")).unwrap() {
        let path = entry.unwrap().path();
        let output = Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n#DEBHELPER#\n"), "cargo-deb has no place for its own in {path:?}");
    }
}

/// A restart of the sockets would lose the clients in their queues; cargo-deb would restart every unit.
#[test]
fn an_upgrade_restarts_the_service_alone() {
    let cargo: toml::Table = fs::read_to_string(here("Cargo.toml")).unwrap().parse().unwrap();
    let units = cargo["package"]["metadata"]["deb"]["systemd-units"].as_array().unwrap();
    assert_eq!(units.len(), 2);
    for unit in units {
        for key in ["restart-after-upgrade", "stop-on-upgrade", "enable", "start"] {
            assert_eq!(unit[key].as_bool(), Some(false), "{key} of {unit}");
        }
        let folder = here(unit["unit-scripts"].as_str().unwrap());
        let name = format!("{}.service", unit["unit-name"].as_str().unwrap());
        assert!(folder.join(&name).is_file(), "{name} is not there");
    }
    let script = fs::read_to_string(here("packaging/debian/postinst")).unwrap();
    assert!(script.contains("try-restart gatepost.service >"), "{script}");
    assert!(!script.contains("gatepost.socket"), "{script}");
}
