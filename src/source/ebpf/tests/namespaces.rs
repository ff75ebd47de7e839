//! Two hosts in network namespaces, and a capture of their link.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{panic, thread};

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns};
use nix::unistd::Pid;

use crate::source::ebpf::Ebpf;
use crate::source::ebpf::error::EbpfError;
use crate::source::ebpf::programs::AttachMethod;
use crate::source::interface::WatchedInterface;
use crate::source::packet_source::PacketSource;
use crate::stream::SocketEvent;
use crate::wire::{Decoded, Decoder, LinkType, Packet, Segment};

/// Watched ports.
pub(super) const PORTS: [u16; 2] = [25, 2525];

/// Two namespaces, `near` (which captures) and `far`, joined by the interfaces `far` and `near`. Named like those of
/// tests/lab, whose clean-up removes the leftovers of killed tests.
pub(super) struct Pair {
    near: String,
    far: String,
}

/// A captured packet.
#[derive(Clone, Debug)]
pub(super) struct CapturedPacket {
    pub(super) bytes: Vec<u8>,
    pub(super) wire_len: u32,
    pub(super) omitted: u32,
    pub(super) interface: u32,
    pub(super) at: crate::time::Timestamp,
}

impl Pair {
    pub(super) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        stay_on_one_cpu();
        assert!(nix::unistd::geteuid().is_root(), "needs root, for namespaces and bpf(2)");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("gatepost-lab-{}-ebpf{number}-{role}", std::process::id());
        let pair = Self { near: name("near"), far: name("far") };
        for host in [&pair.near, &pair.far] {
            ip(&format!("netns add {host}"));
            in_namespace(host, || {
                fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
                fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0").unwrap();
            });
            ip(&format!("-n {host} link set lo up"));
        }
        let (near, far) = (&pair.near, &pair.far);
        ip(&format!("link add far netns {near} type veth peer name near netns {far}"));
        for (host, interface, address) in [(&pair.near, "far", 1), (&pair.far, "near", 2)] {
            ip(&format!("-n {host} link set {interface} up"));
            ip(&format!("-n {host} addr add 192.0.2.{address}/24 dev {interface}"));
            ip(&format!("-n {host} addr add 2001:db8::{address}/64 dev {interface} nodad"));
        }
        pair
    }

    pub(super) fn near<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.near, work)
    }

    pub(super) fn far<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.far, work)
    }

    pub(super) fn near_name(&self) -> &str {
        &self.near
    }

    /// Runs `ip` on both hosts; `LINK` is replaced by the interface.
    pub(super) fn both(&self, command: &str) {
        for (host, interface) in [(&self.near, "far"), (&self.far, "near")] {
            let command = command.replace("LINK", interface);
            ip(&format!("-n {host} {command}"));
        }
    }

    /// Captures on interfaces of `near` while `work` runs.
    pub(super) fn watch(&self, interfaces: &[&str], work: impl FnOnce() + Send) -> CaptureResult {
        let capture = self.near(|| Ebpf::open(&with_index(interfaces), &PORTS, BUFFER).unwrap());
        work();
        self.near(move || CaptureResult::drain(capture))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Holds two of the largest messages in these tests.
const BUFFER: usize = 16 << 20;

/// Opens a capture in the namespace of this thread.
pub(super) fn open(attach: AttachMethod, interfaces: &[&str]) -> Result<Ebpf, EbpfError> {
    Ebpf::open_with(Some(attach), &with_index(interfaces), &PORTS, BUFFER)
}

fn with_index(interfaces: &[&str]) -> Vec<WatchedInterface> {
    interfaces.iter().map(|name| interface(name)).collect()
}

pub(super) fn interface(name: &str) -> WatchedInterface {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    WatchedInterface { name: name.to_owned(), index, addresses: Vec::new() }
}

/// All packets and socket events of a capture.
#[derive(Debug, Default)]
pub(super) struct CaptureResult {
    pub(super) packets: Vec<CapturedPacket>,
    pub(super) socket_events: Vec<SocketEvent>,
}

impl CaptureResult {
    pub(super) fn drain(mut capture: Ebpf) -> Self {
        assert_eq!(capture.socket_events_unavailable(), None);
        let mut watched = Self::default();
        let mut silence = 0;
        while silence < 2 {
            silence += 1;
            if let Some(packet) = capture.next().unwrap() {
                assert_eq!(packet.link, LinkType::Raw);
                watched.packets.push(CapturedPacket {
                    bytes: packet.bytes.to_vec(),
                    wire_len: packet.wire_len,
                    omitted: packet.omitted,
                    interface: packet.interface,
                    at: packet.at,
                });
                silence = 0;
            }
            while let Some(socket) = capture.next_socket_event() {
                watched.socket_events.push(socket);
            }
        }
        let lost = capture.loss();
        assert_eq!((lost.syns, lost.packets), (0, 0));
        watched
    }

    /// Calls `visit` with every TCP segment, in order.
    pub(super) fn segments(&self, mut visit: impl FnMut(&Segment<'_>)) {
        let mut decoder = Decoder::new();
        for packet in &self.packets {
            if let Decoded::Tcp(segment) = decoder.decode(&packet.packet()) {
                visit(&segment);
            }
        }
    }
}

impl CapturedPacket {
    pub(super) fn packet(&self) -> Packet<'_> {
        let packet = Packet::new(self.at, LinkType::Raw, &self.bytes, self.wire_len);
        Packet { omitted: self.omitted, interface: self.interface, ..packet }
    }
}

pub(super) fn server(v6: bool, port: u16) -> SocketAddr {
    let ip = if v6 { "2001:db8::1" } else { "192.0.2.1" };
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Runs `work` on a thread inside the namespace.
pub(super) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(Path::new("/run/netns").join(name)).unwrap();
    let inside = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|panic| panic::resume_unwind(panic))
}

#[track_caller]
pub(super) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (iproute2)");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// For this thread and those that it starts. On two CPUs the kernel may reorder the segments of one connection on the link,
/// and the tests compare them in order.
fn stay_on_one_cpu() {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).unwrap();
    let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    sched_setaffinity(this_thread, &one).unwrap();
}
