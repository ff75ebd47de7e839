//! Other filters before gatepost's programs: gatepost attaches first where the kernel allows it; where not, it names them, or
//! takes libpcap.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::load::{sinks, smtp_source};
use crate::harness::tests;
use crate::support::watcher::{Kernel, Source, WatchOutput, Watcher};
use crate::support::{Family, Host, Lab, port, require_program};

tests![
    filters_of_clsact_hide_nothing_from_tcx,
    a_tcx_program_that_was_there_hides_nothing,
    a_tcx_program_attached_first_is_named_and_proves_nothing,
    libpcap_takes_over_from_ebpf,
    a_clsact_filter_of_preference_1_is_named,
    libpcap_is_taken_if_a_clsact_filter_is_first,
    bpf_filters_of_preference_1_come_second,
    a_removed_filter_is_attached_again,
    libpcap_sees_what_filters_end,
    gateposts_do_not_hide_packets_from_each_other,
];

/// Sessions of each family.
const SESSIONS: u64 = 5;

/// Lets every packet pass and ends the chain (`TC_ACT_OK`).
const PROGRAM: &str = "\
__attribute__((section(\"classifier\"), used)) int pass_all(void *skb) { return 0; }
char LICENSE[] __attribute__((section(\"license\"), used)) = \"GPL\";
";

pub(super) fn program(lab: &Lab) -> PathBuf {
    require_program("clang", "clang");
    let (source, object) = (lab.path("pass_all.c"), lab.path("pass_all.o"));
    fs::write(&source, PROGRAM).unwrap();
    let (from, to) = (source.to_str().unwrap(), object.to_str().unwrap());
    lab.server.run(["clang", "-O2", "-g", "-target", "bpf", "-c", from, "-o", to]);
    object
}

/// A tcx program before all others, for packets that arrive.
#[cfg(feature = "ebpf")]
struct TcxProgram(#[allow(dead_code, reason = "attached until dropped")] aya::Ebpf);

#[cfg(feature = "ebpf")]
impl TcxProgram {
    fn attach(host: &Host, object: &Path) -> Self {
        use aya::programs::links::LinkOrder;
        use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};

        host.in_thread(|| {
            let mut loaded = aya::Ebpf::load_file(object).unwrap();
            let program = loaded.program_mut("pass_all").unwrap();
            let program: &mut SchedClassifier = program.try_into().unwrap();
            program.load().unwrap();
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            program.attach_with_options("gateway", TcAttachType::Ingress, first).unwrap();
            Self(loaded)
        })
    }
}

#[cfg(not(feature = "ebpf"))]
struct TcxProgram;

#[cfg(not(feature = "ebpf"))]
impl TcxProgram {
    fn attach(_: &Host, _: &Path) -> Self {
        crate::support::cannot_run("needs the feature ebpf")
    }
}

/// Sends messages over both families.
fn send(lab: &Lab) {
    for family in Family::ALL {
        let mut source = smtp_source(lab, family, 1, SESSIONS);
        assert!(source.wait().success(), "smtp-source: {}", source.log());
    }
}

/// A filter of preference 1 that ends the chain for all packets, in both directions.
fn end_chain(host: &Host) {
    host.run(["tc", "qdisc", "add", "dev", "gateway", "clsact"]);
    for direction in ["ingress", "egress"] {
        host.run([
            "tc", "filter", "add", "dev", "gateway", direction, "pref", "1", "protocol", "all",
            "u32", "match", "u32", "0", "0", "flowid", "1:1",
        ]);
    }
}

#[track_caller]
fn all_seen(watcher: Watcher<'_>, sessions: u64) -> WatchOutput {
    watcher.wait_for_sessions(sessions);
    let output = watcher.finish();
    let seen = output.sessions();
    assert_eq!(seen.len() as u64, sessions, "{seen:?}");
    let is_whole = |session: &&Value| {
        let tcp = &session["tcp"];
        // smtp-source does not always wait for the reply to its QUIT.
        let is_answered = tcp["outcome"] == "established" || tcp["outcome"] == "reset";
        is_answered && !tcp["handshake_s"].is_null() && tcp["gaps"] == 0
    };
    let incomplete: Vec<_> = seen.iter().filter(|session| !is_whole(session)).collect();
    assert!(incomplete.is_empty(), "{incomplete:?}");
    assert_eq!(output.lost(), (0, 0));
    output
}

#[track_caller]
fn nothing_hidden(output: &WatchOutput, log: &str) {
    assert_eq!(output.only("lost")["hidden"], 0);
    assert_eq!(output.of_type("damage").count(), 0, "{log}");
    assert!(!log.contains("hidden"), "{log}");
}

fn filters_of_clsact_hide_nothing_from_tcx() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    end_chain(&lab.server);
    let watcher = Watcher::start_on(Kernel::Current, &lab, "ebpf");
    send(&lab);
    let log = watcher.log();
    nothing_hidden(&all_seen(watcher, 2 * SESSIONS), &log);
}

fn a_tcx_program_that_was_there_hides_nothing() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    let _program = TcxProgram::attach(&lab.server, &program(&lab));
    for source in ["ebpf", "auto"] {
        let watcher = Watcher::start_on(Kernel::Current, &lab, source);
        assert!(watcher.log().contains("watching gateway by eBPF"), "{}", watcher.log());
        send(&lab);
        let log = watcher.log();
        nothing_hidden(&all_seen(watcher, 2 * SESSIONS), &log);
    }
}

fn a_tcx_program_attached_first_is_named_and_proves_nothing() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    let object = program(&lab);
    let watcher = Watcher::start_on(Kernel::Current, &lab, "ebpf");
    send(&lab);
    watcher.wait_for_sessions(2 * SESSIONS);
    let other = TcxProgram::attach(&lab.server, &object);
    watcher.wait_for_log(
        "packets that arrive on gateway may be hidden from gatepost: the tcx program \"pass_all\" (id ",
    );
    watcher.wait_for_log("attach it behind gatepost's, or use --source pcap");
    for _ in 0..3 {
        send(&lab);
    }
    watcher.wait_for_log("gatepost's program sees none of the packets that arrive on gateway, ");
    let before = watcher.output().sessions().len();
    drop(other);
    // Once it is gone, sessions are whole again.
    crate::support::until("a whole session", || {
        send(&lab);
        watcher.wait_for_sessions(u64::MAX);
        let output = watcher.output();
        let mut sessions = output.sessions().into_iter().skip(before);
        sessions.any(|session| session["tcp"]["outcome"] == "established").then_some(())
    });
    let warnings = watcher.log().matches("may be hidden").count();
    let output = watcher.finish();
    assert_eq!(warnings, 1);
    assert_eq!(output.of_type("damage").count(), 2);
    assert_eq!(output.only("lost")["hidden"], 0);
    let outcomes = output.sessions().into_iter().map(|session| &session["tcp"]["outcome"]);
    let wrong: Vec<_> =
        outcomes.filter(|&outcome| outcome == "unanswered" || outcome == "refused").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn libpcap_takes_over_from_ebpf() {
    let lab = Lab::new();
    Source::ALL.iter().for_each(|source| source.require(&lab));
    let _sinks = sinks(&lab);
    let object = program(&lab);
    let watcher = Watcher::start_on(Kernel::Current, &lab, "auto");
    assert!(watcher.log().contains("watching gateway by eBPF"), "{}", watcher.log());
    send(&lab);
    // A session that is open meanwhile; its packets are hidden for a moment.
    let mut open = lab.client.smtp(lab.server_socket(Family::Ipv6, port::SMTP));
    open.dialogue("S: 220\n C: HELO client.example\n S: 250");
    let _program = TcxProgram::attach(&lab.server, &object);
    watcher.wait_for_log("watching by libpcap from now on, since packets that arrive on gateway");
    open.dialogue("C: QUIT\n S: 221");
    drop(open);
    send(&lab);
    let output = all_seen(watcher, 4 * SESSIONS + 1);
    assert_eq!(output.only("lost")["hidden"], 0);
}

fn a_clsact_filter_of_preference_1_is_named() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    end_chain(&lab.server);
    let watcher = Watcher::start_on(Kernel::WithoutTcx, &lab, "ebpf");
    for verb in ["arrive", "leave"] {
        watcher.wait_for_log(&format!(
            "packets that {verb} on gateway may be hidden from gatepost: the filter of clsact with preference 1 (u32) runs"
        ));
    }
    let filters = filters(&lab.server);
    assert!(filters.contains("pref 2 bpf"), "{filters}");
    send(&lab);
    watcher.wait_until_quiet();
    let output = watcher.finish();
    assert_eq!(output.only("lost")["hidden"], 2);
    assert_eq!(output.sessions().len(), 0);
}

fn libpcap_is_taken_if_a_clsact_filter_is_first() {
    let lab = Lab::new();
    Source::ALL.iter().for_each(|source| source.require(&lab));
    let _sinks = sinks(&lab);
    end_chain(&lab.server);
    let watcher = Watcher::start_on(Kernel::WithoutTcx, &lab, "auto");
    let log = watcher.log();
    let expected = "watching gateway by libpcap, since packets that arrive on gateway may be hidden from gatepost: \
                    the filter of clsact with preference 1 (u32) runs before its program";
    assert!(log.contains(expected), "{log}");
    // Nothing of eBPF stays.
    assert!(!filters(&lab.server).contains("watch_"), "{}", filters(&lab.server));
    send(&lab);
    all_seen(watcher, 2 * SESSIONS);
}

fn bpf_filters_of_preference_1_come_second() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    attach_filter(&lab.server, &program(&lab));
    let watcher = Watcher::start_on(Kernel::WithoutTcx, &lab, "ebpf");
    send(&lab);
    let log = watcher.log();
    nothing_hidden(&all_seen(watcher, 2 * SESSIONS), &log);
    // The other filter is still there.
    assert!(filters(&lab.server).contains("pass_all.o"), "{}", filters(&lab.server));
}

fn a_removed_filter_is_attached_again() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    let watcher = Watcher::start_on(Kernel::WithoutTcx, &lab, "ebpf");
    lab.server.run(["tc", "qdisc", "del", "dev", "gateway", "clsact"]);
    for verb in ["arrive", "leave"] {
        watcher.wait_for_log(&format!(
            "something detached gatepost's program for packets that {verb} on gateway; it is attached again"
        ));
    }
    send(&lab);
    all_seen(watcher, 2 * SESSIONS);
    assert!(!filters(&lab.server).contains("watch_"), "{}", filters(&lab.server));
}

fn libpcap_sees_what_filters_end() {
    let lab = Lab::new();
    Source::Pcap.require(&lab);
    let _sinks = sinks(&lab);
    end_chain(&lab.server);
    let _program = TcxProgram::attach(&lab.server, &program(&lab));
    let watcher = Watcher::start_on(Kernel::Current, &lab, "pcap");
    send(&lab);
    let log = watcher.log();
    nothing_hidden(&all_seen(watcher, 2 * SESSIONS), &log);
}

fn gateposts_do_not_hide_packets_from_each_other() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    for kernel in [Kernel::Current, Kernel::WithoutTcx] {
        let watchers = [(); 3].map(|()| Watcher::start_on(kernel, &lab, "auto"));
        // Longer than the interval of the checks.
        std::thread::sleep(std::time::Duration::from_secs(5));
        send(&lab);
        for watcher in watchers {
            let log = watcher.log();
            assert!(log.contains("by eBPF"), "{kernel:?}: {log}");
            nothing_hidden(&all_seen(watcher, 2 * SESSIONS), &log);
        }
    }
}

/// A filter that ends the chain, of the kind of gatepost's own.
pub(super) fn attach_filter(host: &Host, object: &Path) {
    host.run(["tc", "qdisc", "add", "dev", "gateway", "clsact"]);
    for direction in ["ingress", "egress"] {
        let object = object.to_str().unwrap();
        host.run([
            "tc",
            "filter",
            "add",
            "dev",
            "gateway",
            direction,
            "pref",
            "1",
            "bpf",
            "da",
            "obj",
            object,
            "sec",
            "classifier",
        ]);
    }
}

/// All filters of clsact on `gateway`, as `tc` prints them.
pub(super) fn filters(host: &Host) -> String {
    let of = |direction| host.run(["tc", "filter", "show", "dev", "gateway", direction]);
    of("ingress") + &of("egress")
}
