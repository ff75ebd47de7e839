//! What is left in the kernel when a capture ends, however it does.

use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};

use aya::programs::{SchedClassifier, TcAttachType};

use super::namespaces::{Pair, ip, open};
use crate::source::PacketSource;
use crate::source::ebpf::EbpfError;
use crate::source::ebpf::programs::Attach;

/// Programs attached to both sides of the interface `far`, in the namespace of this thread.
fn by_tcx() -> usize {
    let sides = [TcAttachType::Ingress, TcAttachType::Egress];
    sides.iter().map(|side| SchedClassifier::query_tcx("far", *side).unwrap().1.len()).sum()
}

/// The handles of the filters there.
fn by_netlink() -> Vec<String> {
    let mut handles = Vec::new();
    for side in ["ingress", "egress"] {
        let output =
            Command::new("tc").args(["filter", "show", "dev", "far", side]).output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = listing.split_whitespace().collect();
        let handle = |pair: &[&str]| (pair[0] == "handle").then(|| pair[1].to_owned());
        handles.extend(words.windows(2).filter_map(handle));
    }
    handles
}

/// The kernel frees a link with its last descriptor: a process that another test starts has a copy until it runs its own
/// program, and one that was killed goes a moment later.
fn nothing_is_left() {
    for _ in 0..6000 {
        if by_tcx() == 0 && by_netlink().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("left: {} programs, filters {:?}", by_tcx(), by_netlink());
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn nothing_is_left_after_the_end_or_a_panic() {
    let pair = Pair::new();
    pair.near(|| {
        for attach in [Attach::Tcx, Attach::Netlink] {
            let capture = open(attach, &["far", "lo"]).unwrap();
            assert_eq!(by_tcx() + by_netlink().len(), 2);
            drop(capture);
            nothing_is_left();

            let capture = open(attach, &["far"]).unwrap();
            let panic = catch_unwind(AssertUnwindSafe(|| {
                let _capture = capture;
                panic!("as it was to");
            }));
            assert!(panic.is_err());
            nothing_is_left();

            // One of several interfaces is not there: the others are left in peace.
            let mut unknown = super::namespaces::interface("far");
            unknown.name = "nowhere".to_owned();
            let far = super::namespaces::interface("far");
            let error =
                crate::source::ebpf::Ebpf::attached(attach, &[far, unknown], &[25], 0).err();
            assert!(matches!(error, Some(EbpfError::Gone { name }) if name == "nowhere"));
            nothing_is_left();
        }
    });
}

/// The variable that makes this test binary a process that captures.
const HOLD: &str = "GATEPOST_TEST_HOLD";

#[test]
#[ignore = "a process that other tests start"]
fn holds_a_capture() {
    let Ok(attach) = std::env::var(HOLD) else { return };
    let attach = if attach == "tcx" { Attach::Tcx } else { Attach::Netlink };
    match open(attach, &["far"]) {
        Ok(mut capture) => {
            println!("held; without sockets: {:?}", capture.socket_events_unavailable());
            while capture.next().is_ok() {}
        }
        Err(error) => println!("refused: {error}"),
    }
}

/// Starts a process that captures, behind `words`, in the namespace of this thread; returns what it says of it.
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
    // The harness puts the test's name before it.
    let said = lines.find(|line| line.contains("held;") || line.contains("refused:"));
    (child, said.unwrap_or_default())
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn nothing_is_left_after_kill_9_with_tcx() {
    let pair = Pair::new();
    pair.near(|| {
        let (mut child, said) = hold(&[], "tcx");
        assert!(said.contains("held;"), "{said}");
        assert_eq!(by_tcx(), 2);
        child.kill().unwrap();
        child.wait().unwrap();
        nothing_is_left();
    });
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn filters_of_the_dead_go_with_the_next_start() {
    let pair = Pair::new();
    pair.near(|| {
        let living = open(Attach::Netlink, &["far"]).unwrap();
        let (mut child, said) = hold(&[], "netlink");
        assert!(said.contains("held;"), "{said}");
        let slots = ["0x67700001", "0x67700002"];
        let of_both = [slots, slots].concat();
        let mut handles = by_netlink();
        handles.sort();
        let mut sorted = of_both;
        sorted.sort();
        assert_eq!(handles, sorted);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(by_netlink().len(), 4, "filters went by themselves");

        // On whatever interface they are.
        let next = open(Attach::Netlink, &["lo"]).unwrap();
        assert_eq!(by_netlink(), [slots[0]; 2]);
        drop(next);
        assert_eq!(by_netlink(), [slots[0]; 2]);
        drop(living);
        assert!(by_netlink().is_empty());
    });
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn every_right_that_is_missing_is_named() {
    let pair = Pair::new();
    pair.near(|| {
        let without = |capabilities: &str| {
            let all = format!("--bounding-set={capabilities}");
            let (mut child, said) = hold(&["setpriv", &all, "--"], "tcx");
            child.kill().unwrap();
            child.wait().unwrap();
            said
        };
        let said = without("-bpf,-sys_admin");
        assert!(said.contains("refused: eBPF needs CAP_BPF, which"), "{said}");
        let said = without("-net_admin");
        assert!(said.contains("refused: eBPF needs CAP_NET_ADMIN, which"), "{said}");
        // Two rights are enough for packets.
        let said = without("-all,+bpf,+net_admin");
        assert!(said.contains("held; without sockets: Some(\"CAP_PERFMON"), "{said}");
    });
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn an_interface_that_goes_is_told_once() {
    let pair = Pair::new();
    pair.near(|| {
        let mut capture = open(Attach::of_this_kernel(), &["lo", "far"]).unwrap();
        ip(&format!("-n {} link del far", pair.near_name()));
        let error = (0..600).find_map(|_| capture.next().err());
        assert!(matches!(error, Some(EbpfError::Gone { ref name }) if name == "far"), "{error:?}");
        assert!((0..30).all(|_| capture.next().is_ok()));
    });
}
