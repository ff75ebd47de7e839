//! Interception in a real kernel, in both families: client, gateway and server are network namespaces joined by veth pairs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::tests;
use crate::support::require_root;
use gatepost::addr::Networks;
use gatepost::intercept::{self, InterceptSettings, Interception};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

tests![
    mail_is_intercepted_in_both_families_and_all_rules_are_removed,
    leftovers_of_another_configuration_are_replaced_and_removed,
    only_named_interfaces_are_intercepted_and_obstacles_are_reported,
    without_the_capability_the_error_names_it,
];

/// Only failing tests wait so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server's addresses, each with the client's of the same family.
const PATHS: [(&str, &str); 2] = [("10.2.0.2", "10.1.0.2"), ("fd02::2", "fd01::2")];

fn mail_is_intercepted_in_both_families_and_all_rules_are_removed() {
    let lab = Lab::new();
    lab.gateway_sh("nft add table ip other; nft add chain ip other c '{ type filter hook forward priority 0; }'");
    lab.gateway_sh("ip rule add fwmark 9 lookup 99; ip route add local default dev lo table 99");
    let before = lab.state();
    let _mta = lab.greeting_servers(&[25, 2525]);

    lab.install(&settings()).unwrap();
    let first = lab.state();
    lab.install(&settings()).unwrap();
    assert_eq!(lab.state(), first, "installing twice changes nothing");
    assert!(first.contains("table ip other"), "{first}");

    // As after a kill -9, the rules stay without a listener: mail passes to the server.
    for (server, client) in PATHS {
        assert_eq!(lab.dialogue(server, 25), format!("direct {client}"));
    }
    let report = lab.show();
    for family in ["IPv4", "IPv6"] {
        let warning = format!("no socket listens on port 2525 of the {family} wildcard address");
        assert!(report.contains(&warning), "{report}");
    }

    let gateway = lab.transparent_gateway();
    for (server, client) in PATHS {
        assert_eq!(lab.dialogue(server, 25), format!("gateway {client}"));
        // The listener's port number on another host is not intercepted.
        assert_eq!(lab.dialogue(server, 2525), format!("direct {client}"));
    }
    let report = lab.show();
    assert!(!report.contains("warning"), "{report}");
    println!("{report}");

    // Nobody reaches the listener itself.
    for own in ["10.1.0.1", "fd01::1"] {
        let refused = "failed: Connection refused (os error 111)";
        assert_eq!(lab.dialogue(own, 2525), refused);
    }
    // Port 25 of the gateway host itself is not intercepted.
    let _own = lab.greeting_servers_in(&lab.gateway, &[25]);
    for (own, client) in [("10.1.0.1", "10.1.0.2"), ("fd01::1", "fd01::2")] {
        assert_eq!(lab.dialogue(own, 25), format!("direct {client}"));
    }

    // It works with strict reverse path filtering and with SYN cookies always on.
    lab.gateway_sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done");
    lab.gateway_sh("echo 2 > /proc/sys/net/ipv4/tcp_syncookies");
    for (server, client) in PATHS {
        assert_eq!(lab.dialogue(server, 25), format!("gateway {client}"));
    }

    gateway.stop();
    let removed = lab.in_gateway(intercept::remove).unwrap();
    assert!(removed.table, "{removed}");
    assert_eq!(removed.routing.len(), 4, "{removed}");
    assert_eq!(lab.state(), before);
    assert_eq!(lab.show(), "no interception is installed");
    for (server, client) in PATHS {
        assert_eq!(lab.dialogue(server, 25), format!("direct {client}"));
    }
}

fn leftovers_of_another_configuration_are_replaced_and_removed() {
    let lab = Lab::new();
    // Similar to ours, but with another protocol number or form: they must stay.
    lab.gateway_sh("ip rule add fwmark 0x40/0xc0 lookup 77 priority 100");
    lab.gateway_sh("ip rule add from 192.0.2.1 lookup 78 protocol 103");
    lab.gateway_sh("ip route add 192.0.2.0/24 dev lo table 78 protocol 103");
    let before = lab.state();

    // After a kill it starts with another configuration, without IPv6.
    lab.install(&InterceptSettings { mark: 0x1000, mask: 0x3000, table: 200, ..settings() })
        .unwrap();
    lab.install(&InterceptSettings {
        mark: 0x2000,
        mask: 0x6000,
        table: 70000,
        listen_ipv6: None,
        ..settings()
    })
    .unwrap();
    let state = lab.state();
    assert!(state.contains("fwmark 0x2000/0x6000 lookup 70000 proto 103"), "{state}");
    assert!(!state.contains("0x1000") && !state.contains("table 200"), "{state}");
    let removed = lab.in_gateway(intercept::remove).unwrap();
    assert_eq!(removed.routing.len(), 2, "{removed}");
    assert_eq!(lab.state(), before);

    // Only a part of the rules is left.
    lab.install(&settings()).unwrap();
    lab.gateway_sh(
        "nft delete table inet gatepost; ip rule del priority 100 fwmark 0x40/0xc0 lookup 26480",
    );
    let report = lab.show();
    assert!(report.contains("nftables table inet gatepost: missing"), "{report}");
    assert!(report.contains("warning: nothing is intercepted"), "{report}");
    lab.in_gateway(intercept::remove).unwrap();
    assert_eq!(lab.state(), before);
    let nothing = lab.in_gateway(intercept::remove).unwrap();
    assert_eq!(nothing.to_string(), "nothing to remove: no interception is installed");
}

fn only_named_interfaces_are_intercepted_and_obstacles_are_reported() {
    let lab = Lab::new();
    let _mta = lab.greeting_servers(&[25]);
    let _gateway = lab.transparent_gateway();
    let towards =
        |name: &str| InterceptSettings { interfaces: vec![name.to_owned()], ..settings() };

    // First only the server's interface is named, where no client arrives; then the client's.
    lab.install(&towards("to-server")).unwrap();
    assert_eq!(lab.dialogue("fd02::2", 25), "direct fd01::2");
    lab.install(&towards("to-client")).unwrap();
    assert_eq!(lab.dialogue("fd02::2", 25), "gateway fd01::2");

    lab.install(&towards("no-such")).unwrap();
    lab.gateway_sh("echo 1 > /proc/sys/net/ipv4/conf/to-server/src_valid_mark");
    lab.gateway_sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let report = lab.show();
    for warning in [
        "interface no-such does not exist",
        "src_valid_mark is 1 for to-server",
        "net.ipv4.ip_forward is 0",
    ] {
        assert!(report.contains(warning), "no `{warning}` in:\n{report}");
    }

    // A table of another program is not replaced, and the rules in force stay.
    lab.gateway_sh("ip route add 192.0.2.0/24 dev lo table 26481");
    let before = lab.state();
    let error = lab.install(&InterceptSettings { table: 26481, ..settings() }).unwrap_err();
    assert!(error.contains("table 26481 already holds an IPv4 route"), "{error}");
    assert_eq!(lab.state(), before);
}

fn without_the_capability_the_error_names_it() {
    let lab = Lab::new();
    let before = lab.state();
    let error = lab.in_gateway(|| {
        system::become_nobody();
        async { Interception::claim(settings())?.install().await }
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("needs the capability CAP_NET_ADMIN"), "{error}");
    assert_eq!(lab.state(), before);
}

fn settings() -> InterceptSettings {
    InterceptSettings {
        ports: vec![25],
        destinations: Networks::new(
            PATHS.map(|(server, _)| server.parse::<IpAddr>().unwrap().into()),
        ),
        interfaces: vec!["to-client".to_owned()],
        mark: 0x40,
        mask: 0xc0,
        table: 26480,
        listen_ipv4: Some(2525),
        listen_ipv6: Some(2525),
    }
}

/// Three namespaces, client — gateway — server, of which the gateway forwards. Removed on drop.
struct Lab {
    client: String,
    gateway: String,
    server: String,
}

impl Lab {
    fn new() -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        require_root();
        let id = format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self {
            client: format!("gpi-c-{id}"),
            gateway: format!("gpi-g-{id}"),
            server: format!("gpi-s-{id}"),
        };
        let Self { client: c, gateway: g, server: s } = &lab;
        sh(&format!(
            "for n in {c} {g} {s}; do ip netns add $n; ip -n $n link set lo up
               ip netns exec $n sh -c 'for c in all default; do echo 0 > /proc/sys/net/ipv6/conf/$c/accept_dad; done'
             done
             ip -n {c} link add uplink type veth peer name to-client netns {g}
             ip -n {s} link add uplink type veth peer name to-server netns {g}
             addr() {{ ip -n $1 addr add $3 dev $2; ip -n $1 addr add $4 dev $2 nodad; ip -n $1 link set $2 up; }}
             addr {c} uplink 10.1.0.2/24 fd01::2/64
             addr {g} to-client 10.1.0.1/24 fd01::1/64
             addr {s} uplink 10.2.0.2/24 fd02::2/64
             addr {g} to-server 10.2.0.1/24 fd02::1/64
             ip -n {c} route add default via 10.1.0.1; ip -n {c} route add default via fd01::1
             ip -n {s} route add default via 10.2.0.1; ip -n {s} route add default via fd02::1"
        ));
        // The kernel adds link-local addresses and their routes asynchronously.
        lab.gateway_sh(
            "n=0; until [ $(ip -6 addr show scope link -tentative | grep -c inet6) = 2 ]
             do n=$((n+1)); [ $n -lt 200 ]; sleep 0.05; done",
        );
        lab.gateway_sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        lab.gateway_sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        lab
    }

    fn gateway_sh(&self, script: &str) -> String {
        let script = script.to_owned();
        enter(&self.gateway, move || sh(&script)).join().unwrap()
    }

    /// Runs `work` in the gateway's namespace, on a runtime of one thread.
    fn in_gateway<F, T>(&self, work: impl FnOnce() -> F + Send + 'static) -> T
    where
        F: Future<Output = T>,
        T: Send + 'static,
    {
        let run = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(work())
        };
        enter(&self.gateway, run).join().unwrap()
    }

    fn install(&self, settings: &InterceptSettings) -> Result<(), String> {
        let settings = settings.clone();
        self.in_gateway(|| async move { Interception::claim(settings)?.install().await })
            .map_err(|error| error.to_string())
    }

    fn show(&self) -> String {
        self.in_gateway(intercept::show).unwrap().to_string()
    }

    /// The kernel's rules and routes, without counters.
    fn state(&self) -> String {
        self.gateway_sh(
            "nft -s list ruleset; for f in -4 -6; do ip $f rule; ip $f route show table all; done",
        )
    }

    fn greeting_servers(&self, ports: &[u16]) -> Vec<Service> {
        self.greeting_servers_in(&self.server, ports)
    }

    /// Servers that greet with their client's address, then echo.
    fn greeting_servers_in(&self, namespace: &str, ports: &[u16]) -> Vec<Service> {
        let mut services = Vec::new();
        for &port in ports {
            for any in ["0.0.0.0", "::"] {
                let address = SocketAddr::new(any.parse().unwrap(), port);
                services.push(Service::start(namespace, address, false, |mut stream, client| {
                    writeln!(stream, "{}", client.ip())?;
                    let mut reader = stream.try_clone()?;
                    std::io::copy(&mut reader, &mut stream)?;
                    Ok(())
                }));
            }
        }
        services
    }

    /// A minimal relay: connects to the original destination from the client's address, with the mark of own connections.
    fn transparent_gateway(&self) -> Gateway {
        let services = ["0.0.0.0", "::"].map(|any| {
            let address = SocketAddr::new(any.parse().unwrap(), 2525);
            Service::start(&self.gateway, address, true, |mut stream, client| {
                let original = stream.local_addr()?;
                assert_eq!(original.port(), 25, "accepted what was not intercepted");
                let upstream = socket(original, true);
                upstream.set_mark(settings().own_mark())?;
                upstream.bind(&SocketAddr::new(client.ip(), 0).into())?;
                upstream.connect(&original.into())?;
                let mut upstream = TcpStream::from(upstream);
                stream.write_all(b"gateway ")?;
                let (mut from_client, mut to_upstream) =
                    (stream.try_clone()?, upstream.try_clone()?);
                let up = thread::spawn(move || {
                    let _ = std::io::copy(&mut from_client, &mut to_upstream);
                    let _ = to_upstream.shutdown(Shutdown::Write);
                });
                std::io::copy(&mut upstream, &mut stream)?;
                stream.shutdown(Shutdown::Write)?;
                let _ = up.join();
                Ok(())
            })
        });
        Gateway(services)
    }

    /// Connects from the client, reads the greeting, sends 256 kB and reads them back. Returns `gateway` or `direct`, and the
    /// client's address at the server.
    fn dialogue(&self, server: &str, port: u16) -> String {
        let target = SocketAddr::new(server.parse::<IpAddr>().unwrap(), port);
        let exchange = move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut greeting = String::new();
            reader.read_line(&mut greeting)?;
            let sent: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
            let body = sent.clone();
            let writer = thread::spawn(move || {
                stream.write_all(&body)?;
                stream.shutdown(Shutdown::Write)
            });
            let mut echoed = Vec::new();
            reader.read_to_end(&mut echoed)?;
            writer.join().unwrap()?;
            assert!(echoed == sent, "{} bytes came back, not those that were sent", echoed.len());
            Ok(greeting.trim().to_owned())
        };
        match enter(&self.client, exchange).join().unwrap() {
            Ok(greeting) if greeting.starts_with("gateway ") => greeting,
            Ok(greeting) => format!("direct {greeting}"),
            Err(error) => format!("failed: {error}"),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.gateway, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// The gateway's listeners of both families.
struct Gateway([Service; 2]);

impl Gateway {
    fn stop(self) {
        drop(self.0);
    }
}

/// A listener with its thread; ends on drop.
struct Service {
    namespace: String,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Service {
    fn start(
        namespace: &str,
        address: SocketAddr,
        transparent: bool,
        serve: fn(TcpStream, SocketAddr) -> std::io::Result<()>,
    ) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let bind = move || {
            let listener = socket(address, transparent);
            listener.bind(&address.into()).unwrap();
            listener.listen(16).unwrap();
            TcpListener::from(listener)
        };
        // Bound before this returns.
        let listener = enter(namespace, bind).join().unwrap();
        let stopped = stop.clone();
        let thread = enter(namespace, move || {
            while let Ok((stream, client)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                thread::spawn(move || {
                    if let Err(error) = serve(stream, client) {
                        println!("service on {address}: {error}");
                    }
                });
            }
        });
        Self { namespace: namespace.to_owned(), address, thread: Some(thread), stop }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let loopback = match self.address {
            SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            SocketAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        };
        let target = SocketAddr::new(loopback, self.address.port());
        let wake = enter(&self.namespace, move || TcpStream::connect(target).is_ok());
        if wake.join().is_ok_and(|woken| woken)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn socket(address: SocketAddr, transparent: bool) -> Socket {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    if transparent {
        // Linux hands SOL_IP options of an IPv6 TCP socket to the same code: this is IPV6_TRANSPARENT as well.
        socket.set_ip_transparent_v4(true).unwrap();
    }
    socket
}

/// A system call that no safe crate has.
mod system {
    #![allow(unsafe_code, reason = "a user ID for one thread only")]

    /// For this thread and its children; the kernel drops the capabilities with the user ID.
    pub(super) fn become_nobody() {
        const NOBODY: libc::c_long = 65534;
        // SAFETY: the raw call (libc's own changes every thread) takes three numbers and touches no memory.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// A new thread in `namespace`; what it starts inherits the namespace.
fn enter<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    thread::spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-e", "-c", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
