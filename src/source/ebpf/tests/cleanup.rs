//! Nothing remains in the kernel after a capture, however it ends.

use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};

use aya::programs::{SchedClassifier, TcAttachType};

use super::namespaces::{Pair, ip, open};
use crate::source::PacketSource;
use crate::source::ebpf::EbpfError;
use crate::source::ebpf::programs::AttachMethod;

/// Number of programs attached to the interface `far` with tcx, in the namespace of this thread.
fn tcx_programs() -> usize {
    let directions = [TcAttachType::Ingress, TcAttachType::Egress];
    directions
        .iter()
        .map(|direction| SchedClassifier::query_tcx("far", *direction).unwrap().1.len())
        .sum()
}

/// Handles of the clsact filters on `far`.
fn filter_handles() -> Vec<String> {
    let mut handles = Vec::new();
    for direction in ["ingress", "egress"] {
        let output =
            Command::new("tc").args(["filter", "show", "dev", "far", direction]).output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = listing.split_whitespace().collect();
        let handle = |pair: &[&str]| (pair[0] == "handle").then(|| pair[1].to_owned());
        handles.extend(words.windows(2).filter_map(handle));
    }
    handles
}

/// Waits until nothing is attached. The kernel frees a link with its last descriptor: a process that another test forks has a
/// copy until it calls exec, and a killed process ends with a delay.
fn assert_nothing_attached() {
    for _ in 0..6000 {
        if tcx_programs() == 0 && filter_handles().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("still attached: {} programs, filters {:?}", tcx_programs(), filter_handles());
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn nothing_is_attached_after_the_end_or_a_panic() {
    let pair = Pair::new();
    pair.near(|| {
        for attach in [AttachMethod::Tcx, AttachMethod::Netlink] {
            let capture = open(attach, &["far", "lo"]).unwrap();
            assert_eq!(tcx_programs() + filter_handles().len(), 2);
            drop(capture);
            assert_nothing_attached();

            let capture = open(attach, &["far"]).unwrap();
            let panic = catch_unwind(AssertUnwindSafe(|| {
                let _capture = capture;
                panic!("expected");
            }));
            assert!(panic.is_err());
            assert_nothing_attached();

            // If one of several interfaces is missing, nothing is attached to the others.
            let mut unknown = super::namespaces::interface("far");
            unknown.name = "nowhere".to_owned();
            let far = super::namespaces::interface("far");
            let error =
                crate::source::ebpf::Ebpf::open_with(Some(attach), &[far, unknown], &[25], 0).err();
            assert!(
                matches!(error, Some(EbpfError::InterfaceRemoved { name }) if name == "nowhere")
            );
            assert_nothing_attached();
        }
    });
}

/// Environment variable that turns this test binary into a capturing process.
const HOLD: &str = "GATEPOST_TEST_HOLD";

#[test]
#[ignore = "started by other tests as a process"]
fn holds_a_capture() {
    let Ok(attach) = std::env::var(HOLD) else { return };
    let attach = if attach == "tcx" { AttachMethod::Tcx } else { AttachMethod::Netlink };
    match open(attach, &["far"]) {
        Ok(mut capture) => {
            println!("held; no socket events: {:?}", capture.socket_events_unavailable());
            while capture.next().is_ok() {}
        }
        Err(error) => println!("refused: {error}"),
    }
}

/// Starts a capturing process with the command prefix `words`, in the namespace of this thread. Returns its report.
fn hold(words: &[&str], attach: &str) -> (Child, String) {
    let exe = std::env::current_exe().unwrap();
    let name = format!("{}::holds_a_capture", module_path!().split_once("::").unwrap().1);
    let mut all = words.to_vec();
    all.extend([exe.to_str().unwrap(), "--ignored", "--exact", &name, "--nocapture"]);
    let mut child = Command::new(all[0])
        .args(&all[1..])
        .env(HOLD, attach)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.as_mut().unwrap();
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    // The test harness prints the test's name on the same line.
    let report = lines.find(|line| line.contains("held;") || line.contains("refused:"));
    (child, report.unwrap_or_default())
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn nothing_is_attached_after_kill_9_with_tcx() {
    let pair = Pair::new();
    pair.near(|| {
        let (mut child, report) = hold(&[], "tcx");
        assert!(report.contains("held;"), "{report}");
        assert_eq!(tcx_programs(), 2);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_nothing_attached();
    });
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn filters_of_dead_processes_are_removed_at_the_next_start() {
    let pair = Pair::new();
    pair.near(|| {
        let living = open(AttachMethod::Netlink, &["far"]).unwrap();
        let (mut child, report) = hold(&[], "netlink");
        assert!(report.contains("held;"), "{report}");
        let slots = ["0x67700001", "0x67700002"];
        let of_both = [slots, slots].concat();
        let mut handles = filter_handles();
        handles.sort();
        let mut sorted = of_both;
        sorted.sort();
        assert_eq!(handles, sorted);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(filter_handles().len(), 4, "the filters remain");

        // Regardless of the interface.
        let next = open(AttachMethod::Netlink, &["lo"]).unwrap();
        assert_eq!(filter_handles(), [slots[0]; 2]);
        drop(next);
        assert_eq!(filter_handles(), [slots[0]; 2]);
        drop(living);
        assert!(filter_handles().is_empty());
    });
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn missing_capabilities_are_named() {
    let pair = Pair::new();
    pair.near(|| {
        let without = |capabilities: &str| {
            let all = format!("--bounding-set={capabilities}");
            let (mut child, report) = hold(&["setpriv", &all, "--"], "tcx");
            child.kill().unwrap();
            child.wait().unwrap();
            report
        };
        let report = without("-bpf,-sys_admin");
        assert!(report.contains("refused: eBPF needs CAP_BPF, which"), "{report}");
        let report = without("-net_admin");
        assert!(report.contains("refused: eBPF needs CAP_NET_ADMIN, which"), "{report}");
        // Two capabilities suffice for packets.
        let report = without("-all,+bpf,+net_admin");
        assert!(report.contains("held; no socket events: Some(\"CAP_PERFMON"), "{report}");
    });
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn a_removed_interface_is_reported_once() {
    let pair = Pair::new();
    pair.near(|| {
        let mut capture = open(AttachMethod::Tcx, &["lo", "far"]).unwrap();
        ip(&format!("-n {} link del far", pair.near_name()));
        let error = (0..600).find_map(|_| capture.next().err());
        assert!(
            matches!(error, Some(EbpfError::InterfaceRemoved { ref name }) if name == "far"),
            "{error:?}"
        );
        assert!((0..30).all(|_| capture.next().is_ok()));
    });
}
