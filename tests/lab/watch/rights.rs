//! `gatepost watch` without some capability: the error names it, and the other source still works. Nothing stays in the
//! kernel.

use std::collections::BTreeSet;

use crate::harness::tests;
use crate::support::watcher::{Source, Watcher};
use crate::support::{Family, Host, Lab, port};
use nix::sys::signal::Signal;

tests![
    libpcap_without_its_capability_names_it,
    ebpf_without_a_capability_names_it,
    without_any_capability_all_are_named,
    nothing_stays_in_the_kernel_ebpf,
    nothing_stays_in_the_kernel_pcap,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// The capabilities that watching may need; the kernel accepts CAP_SYS_ADMIN in place of some.
const BPF: &str = "-bpf,-sys_admin";
const NET_ADMIN: &str = "-net_admin,-sys_admin";
const NET_RAW: &str = "-net_raw";
const PERFMON: &str = "-perfmon,-sys_admin";
const ALL: &str = "-bpf,-net_admin,-net_raw,-perfmon,-sys_admin";

/// Whether `watch` succeeded without these capabilities, and its standard error.
fn without(lab: &Lab, taken: &str, source: &str) -> (bool, String) {
    let bounding = format!("--bounding-set={taken}");
    let inheritable = format!("--inh-caps={taken}");
    let output = lab.server.output([
        "setpriv",
        &bounding,
        &inheritable,
        GATEPOST,
        "watch",
        "--source",
        source,
        "-i",
        "gateway",
        "--format",
        "json",
        "--duration",
        "300ms",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("without {taken}, {source}: {}: {}", output.status, stderr.trim());
    (output.status.success(), stderr)
}

/// The capabilities that a message reports as missing; its advice names more.
fn missing(stderr: &str) -> BTreeSet<&str> {
    let clauses = stderr.split(", which this process lacks").filter_map(|before| {
        let (_, needed) = before.rsplit_once(" needs ")?;
        Some(needed)
    });
    clauses
        .flat_map(|needed| needed.split(" and "))
        .filter(|word| word.starts_with("CAP_"))
        .collect()
}

fn libpcap_without_its_capability_names_it() {
    let lab = Lab::new();
    let (ran, stderr) = without(&lab, NET_RAW, "pcap");
    assert!(!ran);
    assert_eq!(missing(&stderr), ["CAP_NET_RAW"].into(), "{stderr}");
    assert!(stderr.contains("alternatively use eBPF (--source ebpf)"), "{stderr}");
    let (ran, stderr) = without(&lab, BPF, "pcap");
    assert!(ran, "{stderr}");
    let (ran, stderr) = without(&lab, NET_ADMIN, "pcap");
    assert!(ran, "{stderr}");
}

fn ebpf_without_a_capability_names_it() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    for (taken, named) in [(BPF, "CAP_BPF"), (NET_ADMIN, "CAP_NET_ADMIN")] {
        let (ran, stderr) = without(&lab, taken, "ebpf");
        assert!(!ran);
        assert_eq!(missing(&stderr), [named].into(), "{stderr}");
        assert!(stderr.contains("alternatively use libpcap (--source pcap)"), "{stderr}");
        let (ran, stderr) = without(&lab, taken, "auto");
        assert!(ran && stderr.contains("by libpcap, since eBPF"), "{stderr}");
        assert_eq!(missing(&stderr), [named].into(), "{stderr}");
    }
    let (ran, stderr) = without(&lab, NET_RAW, "auto");
    assert!(ran && stderr.contains("by eBPF"), "{stderr}");
    // Packets still arrive; the kernel's socket data does not.
    let (ran, stderr) = without(&lab, PERFMON, "ebpf");
    assert!(ran && stderr.contains("CAP_PERFMON"), "{stderr}");
}

fn without_any_capability_all_are_named() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let (ran, stderr) = without(&lab, ALL, "auto");
    assert!(!ran);
    assert_eq!(missing(&stderr), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW"].into(), "{stderr}");
}

fn nothing_stays_in_the_kernel_ebpf() {
    left_behind(Source::Ebpf);
}

fn nothing_stays_in_the_kernel_pcap() {
    left_behind(Source::Pcap);
}

/// After SIGTERM, kill -9 and a restart, the kernel never has more than one watcher's sockets and programs.
fn left_behind(source: Source) {
    let lab = Lab::new();
    source.require(&lab);
    let start = || Watcher::start(&lab, &lab.server, source, &["gateway"], &[]);
    let nothing = in_kernel(&lab.server);
    let watcher = start();
    let one = in_kernel(&lab.server);
    assert!(one > nothing, "{source:?} has nothing in the kernel: {one:?}");
    watcher.finish();
    assert_eq!(in_kernel(&lab.server), nothing, "{source:?}, after SIGTERM");

    let killed = start();
    killed.signal(Signal::SIGKILL);
    drop(killed);
    let watcher = start();
    assert_eq!(in_kernel(&lab.server), one, "{source:?}, started after kill -9");
    // And it watches.
    let at = lab.server_socket(Family::Ipv6, port::SMTP);
    drop(lab.client.connect(at));
    watcher.wait_for_sessions(1);
    assert_eq!(watcher.finish().sessions().len(), 1, "{source:?}, started after kill -9");
    assert_eq!(in_kernel(&lab.server), nothing, "{source:?}, at the end");
}

/// The watchers' objects in a host's kernel: packet sockets, and tcx programs of both directions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
struct InKernel {
    sockets: usize,
    programs: usize,
}

fn in_kernel(host: &Host) -> InKernel {
    let sockets = host.run(["cat", "/proc/net/packet"]).lines().count() - 1;
    InKernel { sockets, programs: programs(host) }
}

#[cfg(feature = "ebpf")]
fn programs(host: &Host) -> usize {
    use aya::programs::SchedClassifier;
    use aya::programs::tc::TcAttachType;

    host.in_thread(|| {
        let at = [TcAttachType::Ingress, TcAttachType::Egress];
        let query =
            |at| SchedClassifier::query_tcx("gateway", at).map_or(0, |(_, found)| found.len());
        at.into_iter().map(query).sum()
    })
}

#[cfg(not(feature = "ebpf"))]
fn programs(_: &Host) -> usize {
    0
}
