//! The door in a real kernel: by sk_lookup where the gateway listens, by nftables where it intercepts.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::tests;
use crate::support::{Family, Host, Lab, cannot_run};
use gatepost::addr::{self, Networks};
use gatepost::intercept::door::{DoorEnforcer, DoorError, Ingress, RefuseMethod};
use gatepost::intercept::{self, InterceptSettings, Interception};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use socket2::{Domain, Socket, Type};

tests![
    a_closed_door_refuses_one_family_where_the_gateway_listens,
    without_the_capabilities_it_names_them_and_the_relay_refuses,
    a_closed_door_refuses_one_family_of_what_is_intercepted,
];

/// A RST takes microseconds; the kernel retransmits a SYN after a second.
const AT_ONCE: Duration = Duration::from_millis(500);

const V6: addr::Family = addr::Family::Ipv6;

/// Runs a future in the host's namespace, on one thread.
fn within<F: Future<Output = T>, T: Send>(host: &Host, work: impl FnOnce() -> F + Send) -> T {
    host.in_thread(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work())
    })
}

fn listener(host: &Host, at: SocketAddr, transparent: bool) -> TcpListener {
    host.in_thread(|| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        if at.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        if transparent {
            socket.set_ip_transparent_v4(true).unwrap();
        }
        socket.bind(&at.into()).unwrap();
        socket.listen(64).unwrap();
        socket.into()
    })
}

/// Tries to connect; returns the result and its time.
fn connect(host: &Host, from: Option<IpAddr>, to: SocketAddr) -> (io::Result<()>, Duration) {
    host.in_thread(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        }
        let started = Instant::now();
        let result = socket.connect_timeout(&to.into(), Duration::from_secs(10));
        (result, started.elapsed())
    })
}

#[track_caller]
fn refused(host: &Host, to: SocketAddr) {
    let (result, took) = connect(host, None, to);
    let error = result.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    assert!(took < AT_ONCE, "{took:?}");
}

#[track_caller]
fn taken(host: &Host, from: Option<IpAddr>, to: SocketAddr) {
    connect(host, from, to).0.unwrap_or_else(|error| panic!("{to}: {error}"));
}

/// Gives the client a second address, which is exempt; returns it with the exempt networks.
fn exempt(lab: &Lab) -> (IpAddr, Networks) {
    let ip: IpAddr = "2001:db8:77::1".parse().unwrap();
    lab.add_client_ip(ip);
    (ip, Networks::new(["2001:db8:77::/48", "2001:db8:77::/64"].map(|net| net.parse().unwrap())))
}

/// Ends the test as ignored when these rights do not allow to refuse at the SYN.
fn at_the_syn(opened: (DoorEnforcer, Option<DoorError>)) -> DoorEnforcer {
    match opened {
        (enforcer, None) => enforcer,
        (_, Some(why @ DoorError::Rights { .. })) => cannot_run(why),
        (_, Some(why)) => panic!("{why}"),
    }
}

fn a_closed_door_refuses_one_family_where_the_gateway_listens() {
    let lab = Lab::new();
    // One listener has an address, one the wildcard address; a third is not the gateway's.
    let [own, any] = ["[2001:db8:1::1]:25", "[::]:587"].map(|at| at.parse::<SocketAddr>().unwrap());
    let (own_v4, other) = ("192.0.2.1:25".parse().unwrap(), "[::]:2500".parse().unwrap());
    let listeners = [own, any, own_v4, other].map(|at| listener(&lab.gateway, at, false));
    let to = |port| SocketAddr::new(own.ip(), port);
    let (friend, networks) = exempt(&lab);

    let entrance = Ingress::Listeners(vec![own, any, own_v4]);
    let opened =
        lab.gateway.in_thread(|| DoorEnforcer::start(RefuseMethod::Syn, networks, entrance));
    let mut door = at_the_syn(opened);
    let running = lab.client.connect(own).unwrap();
    let mut session = listeners[0].accept().unwrap().0;
    taken(&lab.client, None, to(587));

    within(&lab.gateway, || door.set(V6, false)).unwrap();
    refused(&lab.client, own);
    refused(&lab.client, to(587));
    // Unaffected: the other family, a foreign port, an exempt client, and an established connection.
    taken(&lab.client, None, own_v4);
    taken(&lab.client, None, to(2500));
    taken(&lab.client, Some(friend), own);
    session.write_all(b"220 still here\r\n").unwrap();
    let mut received = [0; 16];
    io::Read::read_exact(&mut &running, &mut received).unwrap();
    assert_eq!(&received, b"220 still here\r\n");
    assert_eq!(within(&lab.gateway, || door.enforcement()).refused_syns, [0, 2]);

    // Other listeners, after a reload.
    within(&lab.gateway, || door.update(Ingress::Listeners(vec![own]))).unwrap();
    taken(&lab.client, None, to(587));
    refused(&lab.client, own);

    within(&lab.gateway, || door.set(V6, true)).unwrap();
    taken(&lab.client, None, own);
    within(&lab.gateway, || door.set(V6, false)).unwrap();
    refused(&lab.client, own);
    drop(door);
    taken(&lab.client, None, own);
}

fn without_the_capabilities_it_names_them_and_the_relay_refuses() {
    let lab = Lab::new();
    let open = || {
        let entrance = Ingress::Listeners(vec!["[::]:25".parse().unwrap()]);
        let (door, error) = DoorEnforcer::start(RefuseMethod::Syn, Networks::default(), entrance);
        (door.method(), error.map(|error| error.to_string()))
    };
    let (bpf, admin) = (CapabilitySet::BPF, CapabilitySet::NET_ADMIN);
    for (has, expected) in [
        (admin, Some("needs CAP_BPF, which")),
        (bpf, Some("needs CAP_NET_ADMIN, which")),
        (CapabilitySet::NET_RAW, Some("needs CAP_BPF and CAP_NET_ADMIN, which")),
        (bpf | admin, None),
    ] {
        let (refuses, error) = lab.gateway.in_thread(|| {
            let sets = capabilities(None).unwrap();
            set_capabilities(None, CapabilitySets { effective: has, ..sets }).unwrap();
            open()
        });
        match expected {
            Some(expected) => {
                assert!(error.as_ref().unwrap().contains(expected), "{has:?}: {error:?}");
                assert_eq!(refuses, RefuseMethod::Smtp);
            }
            None => assert_eq!((refuses, error), (RefuseMethod::Syn, None)),
        }
    }
}

fn a_closed_door_refuses_one_family_of_what_is_intercepted() {
    let lab = Lab::new();
    let _servers =
        ["[::]:25", "0.0.0.0:25"].map(|at| listener(&lab.server, at.parse().unwrap(), false));
    let (friend, networks) = exempt(&lab);
    lab.server.configure("route add 2001:db8:77::/48 via 2001:db8:2::1\n");
    let settings = InterceptSettings {
        ports: vec![25],
        destinations: Networks::new(Family::ALL.map(|family| lab.server_ip(family).into())),
        interfaces: vec!["client".to_owned()],
        mark: 0x40,
        mask: 0xc0,
        table: 26480,
        listen_ipv4: Some(2525),
        listen_ipv6: Some(2525),
    };
    let interception = lab.gateway.in_thread(|| Interception::claim(settings)).unwrap().shared();
    let install = || within(&lab.gateway, || async { interception.lock().await.install().await });
    install().unwrap();
    let open = || {
        ["[::]:2525", "0.0.0.0:2525"].map(|at| listener(&lab.gateway, at.parse().unwrap(), true))
    };
    let gateway = open();
    let [v6, v4] = Family::ALL.map(|family| lab.server_socket(family, 25));
    let entrance = || Ingress::Intercepted(Arc::clone(&interception));
    let opened =
        lab.gateway.in_thread(|| DoorEnforcer::start(RefuseMethod::Syn, networks, entrance()));
    let mut door = opened.0;
    assert!(opened.1.is_none());

    let running = lab.client.connect(v6).unwrap();
    let mut session = gateway[0].accept().unwrap().0;
    within(&lab.gateway, || door.set(V6, false)).unwrap();
    refused(&lab.client, v6);
    refused(&lab.client, v6);
    taken(&lab.client, None, v4);
    taken(&lab.client, Some(friend), v6);
    assert!(gateway[0].accept().unwrap().1.ip() == friend, "the exempt client came to the gateway");
    session.write_all(b"220 still here\r\n").unwrap();
    let mut received = [0; 16];
    io::Read::read_exact(&mut &running, &mut received).unwrap();
    let enforcement = within(&lab.gateway, || door.enforcement());
    assert_eq!(enforcement.refused_syns, [0, 2]);
    assert!(enforcement.in_force[V6 as usize]);
    let report = within(&lab.gateway, intercept::show).unwrap().to_string();
    assert!(report.contains("2  door closed: refused"), "{report}");
    assert!(!report.contains("warning"), "{report}");

    // The rules are replaced, as by a reload: the door stays closed, and goes on counting.
    install().unwrap();
    refused(&lab.client, v6);
    assert_eq!(within(&lab.gateway, || door.enforcement()).refused_syns, [0, 3]);

    // Without our table it refuses nothing.
    lab.gateway.run(["nft", "delete", "table", "inet", "gatepost"]);
    assert!(!within(&lab.gateway, || door.enforcement()).in_force[V6 as usize]);
    install().unwrap();
    refused(&lab.client, v6);

    // As after a kill -9, the rules stay without a gateway: the door no longer refuses mail.
    drop((gateway, session, running));
    taken(&lab.client, None, v6);
    let _gateway = open();
    refused(&lab.client, v6);
    within(&lab.gateway, || door.set(V6, true)).unwrap();
    taken(&lab.client, None, v6);
    within(&lab.gateway, intercept::remove).unwrap();
}
