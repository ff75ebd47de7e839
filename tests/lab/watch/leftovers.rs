//! Kernels without tcx: the filters of a killed watcher stay until `gatepost watch clean`, `gatepost intercept clean` or the
//! next start removes them, whatever that start uses. Those of others and of running watchers stay.

use nix::sys::signal::Signal;

use super::load::{sinks, smtp_source};
use super::order::{attach_filter, filters, program};
use crate::harness::tests;
use crate::support::watcher::{Kernel, Source, Watcher};
use crate::support::{Family, Lab};

tests![
    clean_removes_the_filters_of_killed_watchers_only,
    intercept_clean_removes_them_too,
    the_next_start_removes_them_also_by_tcx,
    an_ingress_qdisc_is_named,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// A watcher that was killed; returns the ids of its programs, which are still in the kernel.
#[track_caller]
fn killed(lab: &Lab) -> Vec<u32> {
    let before = program_ids(&filters(&lab.server));
    let watcher = Watcher::start_on(Kernel::WithoutTcx, lab, "ebpf");
    watcher.kill();
    let mut ids = program_ids(&filters(&lab.server));
    ids.retain(|id| !before.contains(id));
    assert_eq!(ids.len(), 2, "{}", filters(&lab.server));
    assert!(ids.iter().all(|id| is_loaded(*id)));
    ids
}

/// The programs of gatepost's filters.
fn program_ids(filters: &str) -> Vec<u32> {
    let lines = filters.lines().filter(|line| line.contains("watch_frame"));
    lines
        .map(|line| line.split(" id ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
        .collect()
}

/// Waits until the kernel has freed the programs, and with them their maps.
fn wait_until_freed(ids: &[u32]) {
    crate::support::until("the end of programs", || {
        ids.iter().all(|id| !is_loaded(*id)).then_some(())
    });
}

#[cfg(feature = "ebpf")]
fn is_loaded(id: u32) -> bool {
    aya::programs::loaded_programs().flatten().any(|program| program.id() == id)
}

#[cfg(not(feature = "ebpf"))]
fn is_loaded(_: u32) -> bool {
    unreachable!("Source::Ebpf.require ends the test")
}

fn clean(lab: &Lab) -> String {
    lab.server.run([GATEPOST, "watch", "clean"])
}

fn clean_removes_the_filters_of_killed_watchers_only() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    assert_eq!(clean(&lab), "no filters of killed gatepost processes\n");
    attach_filter(&lab.server, &program(&lab));
    let running = Watcher::start_on(Kernel::WithoutTcx, &lab, "ebpf");
    let of_running = program_ids(&filters(&lab.server));
    let ids = killed(&lab);
    let without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let refused = lab.server.output(without.into_iter().chain([GATEPOST, "watch", "clean"]));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    let expected = "cannot remove the filters of killed processes: eBPF needs CAP_NET_ADMIN, which this process lacks";
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(
        clean(&lab),
        "removed 2 filters of killed gatepost processes from gateway\n\
         kept 2 filters of running gatepost processes\n"
    );
    wait_until_freed(&ids);
    let rest = filters(&lab.server);
    assert_eq!(program_ids(&rest), of_running);
    assert_eq!(rest.matches("pass_all.o").count(), 2, "{rest}");
    assert_eq!(
        clean(&lab),
        "no filters of killed gatepost processes\nkept 2 filters of running gatepost processes\n"
    );
    let mut source = smtp_source(&lab, Family::Ipv6, 1, 1);
    assert!(source.wait().success());
    running.wait_for_sessions(1);
    assert_eq!(running.finish().sessions().len(), 1);
    let rest = filters(&lab.server);
    assert!(!rest.contains("watch_") && rest.contains("pass_all.o"), "{rest}");
}

fn intercept_clean_removes_them_too() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let ids = killed(&lab);
    let output = lab.server.run([GATEPOST, "intercept", "clean"]);
    assert!(
        output.contains("removed 2 filters of killed gatepost processes from gateway"),
        "{output}"
    );
    wait_until_freed(&ids);
}

fn the_next_start_removes_them_also_by_tcx() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    for next in [Kernel::Current, Kernel::WithoutTcx] {
        let ids = killed(&lab);
        let watcher = Watcher::start_on(next, &lab, "ebpf");
        wait_until_freed(&ids);
        watcher.signal(Signal::SIGTERM);
        drop(watcher.finish());
        let rest = filters(&lab.server);
        assert!(!rest.contains("watch_"), "{next:?}: {rest}");
    }
}

fn an_ingress_qdisc_is_named() {
    let lab = Lab::new();
    Source::ALL.iter().for_each(|source| source.require(&lab));
    lab.server.run(["tc", "qdisc", "add", "dev", "gateway", "ingress"]);
    let cause = "interface gateway has the qdisc `ingress` in the place of clsact, and it has no filters for packets that \
                 leave: run `tc qdisc del dev gateway ingress` and `tc qdisc add dev gateway clsact`";
    let command = ["watch", "--source", "ebpf", "-i", "gateway", "--duration", "100ms"];
    let mut refused = lab.server.spawn_without_tcx([GATEPOST].into_iter().chain(command));
    assert!(!refused.wait().success());
    assert!(refused.log().contains(cause), "{}", refused.log());
    let watcher = Watcher::start_on(Kernel::WithoutTcx, &lab, "auto");
    let log = watcher.log();
    assert!(log.contains("by libpcap, since") && log.contains(cause), "{log}");
    drop(watcher.finish());
    // tcx needs no qdisc.
    let watcher = Watcher::start_on(Kernel::Current, &lab, "auto");
    assert!(watcher.log().contains("watching gateway by eBPF"), "{}", watcher.log());
    drop(watcher.finish());
    // What the message says helps.
    lab.server.run(["tc", "qdisc", "del", "dev", "gateway", "ingress"]);
    lab.server.run(["tc", "qdisc", "add", "dev", "gateway", "clsact"]);
    drop(Watcher::start_on(Kernel::WithoutTcx, &lab, "ebpf").finish());
}
