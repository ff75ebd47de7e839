//! The capabilities of a running gateway: after start-up each of its threads has exactly those that its configuration needs,
//! and everything still works.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use crate::harness::tests;
use crate::support::watcher::Source;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, cannot_run, port, until};

tests![
    a_proxy_keeps_nothing_and_its_files_are_its_users,
    interception_keeps_the_capability_to_remove_it,
    a_door_of_the_kernel_keeps_nothing,
    watching_keeps_the_capabilities_of_its_source_ebpf,
    watching_keeps_the_capabilities_of_its_source_pcap,
    watching_keeps_the_capabilities_of_its_source_auto,
    the_clients_address_needs_one_capability,
    ambient_capabilities_suffice_without_root,
    a_failed_change_of_user_is_an_error,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// A user of every Debian system.
const USER: &str = "nobody";
const USER_ID: u32 = 65_534;

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// The credentials of a thread, from `/proc/PID/task/TID/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rights {
    uid: Vec<u32>,
    permitted: u64,
    effective: u64,
    inheritable: u64,
    ambient: u64,
    bounding: u64,
    no_new_privileges: bool,
}

impl Rights {
    /// `kept`, of which the programs that the gateway runs inherit `inherited`.
    fn expected(uid: u32, kept: u64, inherited: u64) -> Self {
        Self {
            uid: vec![uid; 4],
            permitted: kept,
            effective: kept,
            inheritable: inherited,
            ambient: inherited,
            bounding: 0,
            no_new_privileges: true,
        }
    }
}

/// The credentials of every thread, with its name.
fn threads(process: u32) -> Vec<(String, Rights)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .filter_map(|task| {
            // The thread may have ended.
            let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim_start_matches(':').trim().to_owned()
            };
            let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
            let rights = Rights {
                uid: field("Uid").split_whitespace().map(|id| id.parse().unwrap()).collect(),
                permitted: set("CapPrm"),
                effective: set("CapEff"),
                inheritable: set("CapInh"),
                ambient: set("CapAmb"),
                bounding: set("CapBnd"),
                no_new_privileges: field("NoNewPrivs") == "1",
            };
            Some((field("Name"), rights))
        })
        .collect()
}

/// Every thread has exactly these rights, and threads with these names exist.
#[track_caller]
fn all_have(gateway: &Gateway<'_>, expected: &Rights, named: &[&str]) {
    let threads = threads(gateway.id());
    for name in named {
        assert!(threads.iter().any(|(found, _)| found == name), "no thread {name} in {threads:?}");
    }
    for (name, rights) in &threads {
        assert_eq!(rights, expected, "thread {name}");
    }
}

/// A folder that [`USER`] owns.
fn own_folder(lab: &Lab) -> PathBuf {
    let folder = lab.folder("own");
    chown(&folder, Some(USER_ID), Some(USER_ID)).unwrap();
    folder
}

/// A configuration with that user and a control socket in that folder.
fn as_user(lab: &Lab, mode: Mode, folder: &Path) -> Config {
    Config::new(lab, mode)
        .without("control")
        .set("control", &format!("socket = {:?}", folder.join("control.sock")))
        .set("process", &format!("user = {USER:?}"))
}

fn send(lab: &Lab, postfix: &Postfix<'_>, to: SocketAddr, recipient: &str) {
    let mut smtp = lab.client.smtp(to);
    smtp.begin("sender@example.net", recipient);
    assert_eq!(smtp.data(b"Subject: rights\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    postfix.message_to(recipient);
}

fn a_proxy_keeps_nothing_and_its_files_are_its_users() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let folder = own_folder(&lab);
    let (log, cache) = (folder.join("gatepost.log"), folder.join("facts.redb"));
    let config = as_user(&lab, Mode::Proxy, &folder)
        .set("listen", "threads = 3")
        .set("log", &format!("file = {log:?}"))
        .set("lookup", &format!("cache_file = {cache:?}"));
    let path = lab.path("gatepost.toml");
    fs::write(&path, config.toml()).unwrap();
    let mut process = lab.gateway.spawn([GATEPOST, "run", "--config", path.to_str().unwrap()]);
    let read = |log: &Path| fs::read_to_string(log).unwrap_or_default();
    until("the ready line", || {
        assert!(!process.has_ended(), "{}", process.log());
        read(&log).contains("ready: ").then_some(())
    });
    assert!(read(&log).contains("info capabilities: none; user: nobody"));
    let found = threads(process.id());
    let expected = Rights::expected(USER_ID, 0, 0);
    for name in ["gatepost", "gatepost-0", "gatepost-2", "log"] {
        assert!(found.iter().any(|(found, _)| found == name), "no thread {name} in {found:?}");
    }
    assert!(found.iter().all(|(_, rights)| *rights == expected), "{found:#?}");
    for family in Family::ALL {
        let to = lab.entrance(Mode::Proxy, family);
        send(&lab, &postfix, to, &format!("{family}@example.org"));
    }

    // Log rotation, a recording, the cache file: all work as that user.
    fs::rename(&log, folder.join("gatepost.log.1")).unwrap();
    process.signal(nix::sys::signal::Signal::SIGHUP);
    until("a new log", || read(&log).contains("configuration reloaded").then_some(()));
    for file in [&log, &cache, &folder.join("control.sock")] {
        assert_eq!(fs::metadata(file).unwrap().uid(), USER_ID, "{}", file.display());
    }
    let (socket, capture) = (folder.join("control.sock"), lab.path("session.pcapng"));
    let recorder = lab.gateway.spawn([
        GATEPOST,
        "record",
        "--socket",
        socket.to_str().unwrap(),
        "--count",
        "1",
        "-w",
        capture.to_str().unwrap(),
    ]);
    until("a recorder", || recorder.log().contains("recording new sessions").then_some(()));
    send(&lab, &postfix, lab.entrance(Mode::Proxy, Family::Ipv6), "recorded@example.org");
    until("a recording", || fs::metadata(&capture).is_ok_and(|it| it.len() > 500).then_some(()));

    // It can no longer bind a port below 1024, but one above.
    let entrance = lab.entrance(Mode::Proxy, Family::Ipv6);
    let (low, high) = (SocketAddr::new(entrance.ip(), 26), SocketAddr::new(entrance.ip(), 2626));
    let reload = |listen: &[SocketAddr], message: &str| {
        fs::write(&path, config.clone().listen(listen).toml()).unwrap();
        process.signal(nix::sys::signal::Signal::SIGHUP);
        until(message, || read(&log).contains(message).then_some(()));
    };
    reload(
        &[entrance, low],
        &format!("not reloaded, the old one stays in force: cannot listen on {low}"),
    );
    assert!(
        read(&log).contains("; a running gateway has dropped that privilege: restart it"),
        "{}",
        read(&log)
    );
    send(&lab, &postfix, entrance, "kept@example.org");
    reload(&[entrance, high], &format!("ready: listening on {entrance}, {high}"));
    send(&lab, &postfix, high, "high@example.org");
    let identity = config.clone().set("upstream", "identity = \"transparent\"");
    fs::write(&path, identity.toml()).unwrap();
    process.signal(nix::sys::signal::Signal::SIGHUP);
    let refused =
        "stays in force: [upstream] needs CAP_NET_RAW, which this process dropped or never had";
    until(refused, || read(&log).contains(refused).then_some(()));
}

fn interception_keeps_the_capability_to_remove_it() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let folder = own_folder(&lab);
    let config = as_user(&lab, Mode::Tproxy, &folder).set("door", "refuse = \"syn\"");
    let mut gateway = Gateway::start(&lab, &config);
    let kept = "capabilities: CAP_NET_ADMIN ([upstream], [intercept], [door]); user: nobody";
    gateway.wait_for_log(kept);
    let expected = Rights::expected(USER_ID, NET_ADMIN, NET_ADMIN);
    all_have(&gateway, &expected, &["gatepost", "gatepost-0", "log"]);
    for family in Family::ALL {
        let to = lab.entrance(Mode::Tproxy, family);
        send(&lab, &postfix, to, &format!("{family}@example.org"));
        let client = format!("[{}]", lab.client_ip(family));
        postfix.wait_for_log(&client, |line| line.contains("client=") && line.contains(&client));
    }
    // nft(8) inherits the capability, as that user.
    let socket = folder.join("control.sock");
    let door = [GATEPOST, "door", "ipv6", "close", "--socket", socket.to_str().unwrap()];
    let state = lab.gateway.run(door);
    assert!(state.contains("IPv6      CLOSED"), "{state}");
    let refused = lab.client.connect(lab.entrance(Mode::Tproxy, Family::Ipv6)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    all_have(&gateway, &expected, &[]);

    gateway.terminate();
    assert!(gateway.wait().success(), "{}", gateway.log());
    let left = lab.gateway.run([GATEPOST, "intercept", "show"]);
    assert!(!left.contains("fwmark"), "{left}");
    assert_eq!(lab.gateway.run(["nft", "list", "tables"]), "");
}

/// It stays root, without any capability.
fn a_door_of_the_kernel_keeps_nothing() {
    let lab = Lab::new();
    let config = Config::new(&lab, Mode::Proxy).set("door", "refuse = \"syn\"");
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("capabilities: none");
    all_have(&gateway, &Rights::expected(0, 0, 0), &["gatepost", "gatepost-0", "log"]);
    if gateway.log().contains("a closed door refuses with 421 only") {
        cannot_run("needs CAP_BPF for a door at the SYN");
    }
    let to = lab.entrance(Mode::Proxy, Family::Ipv6);
    let turn = |what| {
        let socket = config.socket().to_str().unwrap();
        lab.gateway.run([GATEPOST, "door", "ipv6", what, "--socket", socket]);
        lab.client.connect(to).err().map(|error| error.kind())
    };
    assert_eq!(turn("close"), Some(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(turn("open"), None);
}

fn watching_keeps_the_capabilities_of_its_source_ebpf() {
    watching_keeps(Source::Ebpf, "ebpf", BPF | PERFMON | NET_ADMIN);
}

fn watching_keeps_the_capabilities_of_its_source_pcap() {
    watching_keeps(Source::Pcap, "pcap", NET_RAW);
}

/// The next reload may choose either source.
fn watching_keeps_the_capabilities_of_its_source_auto() {
    watching_keeps(Source::Ebpf, "auto", BPF | PERFMON | NET_ADMIN | NET_RAW);
}

fn watching_keeps(source: Source, word: &str, kept: u64) {
    let lab = Lab::new();
    source.require(&lab);
    let _postfix = Postfix::receiver(&lab);
    let folder = own_folder(&lab);
    let config = as_user(&lab, Mode::Proxy, &folder)
        .set("watch", &format!("source = {word:?}"))
        .set("watch", "interfaces = [\"client\"]");
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("watching client by ");
    all_have(&gateway, &Rights::expected(USER_ID, kept, 0), &["gatepost-0", "watch"]);
    lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6)).dialogue("S: 220\nC: QUIT\nS: 221");
    let labels = ["family=\"ipv6\"", "outcome=\"established\""];
    gateway.wait_for_metric("gatepost_tcp_connections_total", &labels, 1.0);
}

/// A proxy that connects from the client's address; the host's own routing brings the packets back.
fn the_clients_address_needs_one_capability() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    for inet in ["-4", "-6"] {
        let smtp = port::SMTP.to_string();
        let rule =
            ["rule", "add", "iif", "server", "ipproto", "tcp", "sport", &smtp, "lookup", "99"];
        lab.gateway.run([&["ip", inet], &rule[..]].concat());
        lab.gateway
            .run(["ip", inet, "route", "add", "local", "default", "dev", "lo", "table", "99"]);
    }
    let folder = own_folder(&lab);
    let config = as_user(&lab, Mode::Proxy, &folder).set("upstream", "identity = \"transparent\"");
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("capabilities: CAP_NET_RAW ([upstream]); user: nobody");
    all_have(&gateway, &Rights::expected(USER_ID, NET_RAW, 0), &["gatepost-0"]);
    for family in Family::ALL {
        send(&lab, &postfix, lab.entrance(Mode::Proxy, family), &format!("{family}@example.org"));
        let client = format!("[{}]", lab.client_ip(family));
        postfix.wait_for_log(&client, |line| line.contains("client=") && line.contains(&client));
    }
}

/// Started as by systemd with `User=` and `AmbientCapabilities=`: never as root.
fn ambient_capabilities_suffice_without_root() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let folder = own_folder(&lab);
    let path = lab.path("gatepost.toml");
    fs::write(&path, as_user(&lab, Mode::Tproxy, &folder).toml()).unwrap();
    let user = format!("--reuid={USER_ID}");
    let group = format!("--regid={USER_ID}");
    let caps = "+net_bind_service,+net_admin,+net_raw,+bpf,+perfmon";
    let (inheritable, ambient) =
        (format!("--inh-caps=-all,{caps}"), format!("--ambient-caps=-all,{caps}"));
    let bounding = format!("--bounding-set=-all,{caps}");
    let mut process = lab.gateway.spawn([
        "setpriv",
        &user,
        &group,
        "--clear-groups",
        &inheritable,
        &ambient,
        &bounding,
        "--no-new-privs",
        GATEPOST,
        "run",
        "--config",
        path.to_str().unwrap(),
    ]);
    until("the ready line", || {
        assert!(!process.has_ended(), "{}", process.log());
        process.log().contains("ready: ").then_some(())
    });
    for (name, rights) in threads(process.id()) {
        // Without CAP_SETPCAP it cannot reduce the bounding set, which no_new_privs makes harmless.
        let bounding = 1 << 10 | NET_ADMIN | NET_RAW | PERFMON | BPF;
        let expected = Rights { bounding, ..Rights::expected(USER_ID, NET_ADMIN, NET_ADMIN) };
        assert_eq!(rights, expected, "thread {name}");
    }
    send(&lab, &postfix, lab.entrance(Mode::Tproxy, Family::Ipv6), "ambient@example.org");
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(process.wait().success(), "{}", process.log());
    assert_eq!(lab.gateway.run(["nft", "list", "tables"]), "");
}

fn a_failed_change_of_user_is_an_error() {
    let lab = Lab::new();
    let path = lab.path("gatepost.toml");
    let run = |user: &str, setpriv: &[&str]| {
        let config = Config::new(&lab, Mode::Proxy).set("process", &format!("user = {user:?}"));
        fs::write(&path, config.toml()).unwrap();
        let words = [GATEPOST, "run", "--config", path.to_str().unwrap()];
        let output = lab.gateway.output([setpriv, &words].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let message = run("no-such-user", &[]);
    assert!(
        message.contains("the user \"no-such-user\" does not exist on this host: `adduser"),
        "{message}"
    );
    let message = run("mail", &["setpriv", "--reuid=65534", "--clear-groups"]);
    assert!(
        message
            .contains("only root can switch to the user \"mail\"; this process runs as uid 65534"),
        "{message}"
    );
}
