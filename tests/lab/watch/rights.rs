//! What `watch` says when a right is missing, what it still does then, and that nothing of it stays in the kernel.

use std::collections::BTreeSet;

use crate::harness::tests;
use crate::support::watcher::{Source, Watcher};
use crate::support::{Family, Host, Lab, port};
use nix::sys::signal::Signal;

tests![
    libpcap_without_its_right_says_which,
    ebpf_without_a_right_says_which,
    without_any_right_every_one_is_named,
    nothing_stays_in_the_kernel_ebpf,
    nothing_stays_in_the_kernel_pcap,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Every right that watching may need, and what the kernel takes in place of some: CAP_SYS_ADMIN.
const BPF: &str = "-bpf,-sys_admin";
const NET_ADMIN: &str = "-net_admin,-sys_admin";
const NET_RAW: &str = "-net_raw";
const PERFMON: &str = "-perfmon,-sys_admin";
const ALL: &str = "-bpf,-net_admin,-net_raw,-perfmon,-sys_admin";

/// How `watch` ended without these rights, and what it said on standard error.
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
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("without {taken}, {source}: {}: {}", output.status, said.trim());
    (output.status.success(), said)
}

/// The capabilities that a message says are missing; it names more in telling how to give them.
fn missing(said: &str) -> BTreeSet<&str> {
    let clauses = said.split(", which this process lacks").filter_map(|before| {
        let (_, needed) = before.rsplit_once(" needs ")?;
        Some(needed)
    });
    clauses
        .flat_map(|needed| needed.split(" and "))
        .filter(|word| word.starts_with("CAP_"))
        .collect()
}

fn libpcap_without_its_right_says_which() {
    let lab = Lab::new();
    let (ran, said) = without(&lab, NET_RAW, "pcap");
    assert!(!ran);
    assert_eq!(missing(&said), ["CAP_NET_RAW"].into(), "{said}");
    assert!(said.contains("without it there is eBPF (--source ebpf)"), "{said}");
    let (ran, said) = without(&lab, BPF, "pcap");
    assert!(ran, "{said}");
    let (ran, said) = without(&lab, NET_ADMIN, "pcap");
    assert!(ran, "{said}");
}

fn ebpf_without_a_right_says_which() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    for (taken, named) in [(BPF, "CAP_BPF"), (NET_ADMIN, "CAP_NET_ADMIN")] {
        let (ran, said) = without(&lab, taken, "ebpf");
        assert!(!ran);
        assert_eq!(missing(&said), [named].into(), "{said}");
        assert!(said.contains("without it there is libpcap (--source pcap)"), "{said}");
        let (ran, said) = without(&lab, taken, "auto");
        assert!(ran && said.contains("by libpcap, since eBPF"), "{said}");
        assert_eq!(missing(&said), [named].into(), "{said}");
    }
    let (ran, said) = without(&lab, NET_RAW, "auto");
    assert!(ran && said.contains("by eBPF"), "{said}");
    // Packets come all the same; what the kernel knows of sockets does not.
    let (ran, said) = without(&lab, PERFMON, "ebpf");
    assert!(ran && said.contains("CAP_PERFMON"), "{said}");
}

fn without_any_right_every_one_is_named() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let (ran, said) = without(&lab, ALL, "auto");
    assert!(!ran);
    assert_eq!(missing(&said), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW"].into(), "{said}");
}

fn nothing_stays_in_the_kernel_ebpf() {
    left_behind(Source::Ebpf);
}

fn nothing_stays_in_the_kernel_pcap() {
    left_behind(Source::Pcap);
}

/// WatchOutput to end, killed, and started again after that: never more in the kernel than one watcher's own.
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

/// What the kernel holds of watchers on a host: packet sockets, and programs at tcx of either direction.
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
