//! Removes the namespaces and folders of test runs that were killed; their names have the id of a dead process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use super::host::remove_namespace;

/// The names of a lab's namespaces and folders: this, the id of the test process, `-`, and more.
pub(super) const PREFIX: &str = "gatepost-lab-";

/// Once per test process: removes the leftovers of test processes that no longer exist.
pub(super) fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let listing = Command::new("ip").args(["netns", "list"]).output();
        let listing = listing.expect("ip (Debian: iproute2)").stdout;
        for line in String::from_utf8_lossy(&listing).lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if is_of_a_dead_run(name) {
                remove_namespace(name);
            }
        }
        for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
            if is_of_a_dead_run(&entry.file_name().to_string_lossy()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
}

fn is_of_a_dead_run(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}
