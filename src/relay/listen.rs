//! Listening sockets: opened here, or inherited over by the service manager, which keeps them open while nobody runs.
//!
//! Opened here there is one per address and worker, so that the kernel spreads connections (SO_REUSEPORT, Linux 3.9). One that
//! was inherited over is shared by all workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{ListenSettings, RelayError, RelaySettings};

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Every listener of a relay, open and not yet served: what connects waits in the kernel. It is apart from
/// [`Relay::start`](super::Relay::start) because only this needs the right to bind.
pub struct Listeners {
    pub(super) opened: Vec<Opened>,
    pub(super) inherited: InheritedSockets,
}

/// An address with a listener for each worker.
pub(super) struct Opened {
    pub(super) configured: SocketAddr,
    pub(super) bound: SocketAddr,
    pub(super) listeners: Vec<TcpListener>,
}

impl Listeners {
    /// Takes those of `inherited` that `settings` name, and opens the others.
    ///
    /// # Errors
    /// An address cannot be listened on; nothing is left behind then.
    pub fn open(settings: &RelaySettings, inherited: InheritedSockets) -> Result<Self, RelayError> {
        let listen = &settings.listen;
        let opened = inherited.open(&listen.addresses, listen, settings.upstream.mark)?;
        Ok(Self { opened, inherited })
    }

    /// Where clients can connect.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.opened.iter().map(|opened| opened.bound)
    }

    /// What was inherited over.
    pub const fn inherited(&self) -> &InheritedSockets {
        &self.inherited
    }
}

/// Listening sockets that somebody else opened, by their addresses. They are kept for a configuration that names them later.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<(SocketAddr, TcpListener)>);

impl InheritedSockets {
    /// # Errors
    /// One of them is not bound.
    pub fn new(sockets: Vec<TcpListener>) -> io::Result<Self> {
        let named = sockets.into_iter().map(|socket| Ok((socket.local_addr()?, socket)));
        named.collect::<io::Result<_>>().map(Self)
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|&(address, _)| address)
    }

    /// Those that would take IPv4 too, so that two of them may claim the same clients.
    pub fn dual_stack(&self) -> impl Iterator<Item = SocketAddr> {
        let is_dual = |&(address, socket): &(&SocketAddr, &TcpListener)| {
            address.is_ipv6() && SockRef::from(socket).only_v6().is_ok_and(|only| !only)
        };
        self.0.iter().map(|(address, socket)| (address, socket)).filter(is_dual).map(|(a, _)| *a)
    }

    /// A listener of each worker for each address. `mark` is upstream's.
    pub(super) fn open(
        &self,
        addresses: &[SocketAddr],
        listen: &ListenSettings,
        mark: Option<u32>,
    ) -> Result<Vec<Opened>, RelayError> {
        let (transparent, workers) = (listen.transparent, listen.threads.max(1));
        let one = |&configured: &SocketAddr| {
            let failed = |why| RelayError::Listen { address: configured, why };
            if let Some((_, socket)) = self.0.iter().find(|(address, _)| *address == configured) {
                adopt(socket, transparent, mark).map_err(failed)?;
                let shared = (0..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>();
                let listeners = shared.map_err(failed)?;
                return Ok(Opened { configured, bound: configured, listeners });
            }
            let first = open(configured, transparent, mark).map_err(failed)?;
            let bound = first.local_addr().map_err(failed)?;
            let mut listeners = vec![first];
            for _ in 1..workers {
                listeners.push(open(bound, transparent, mark).map_err(failed)?);
            }
            Ok(Opened { configured, bound, listeners })
        };
        addresses.iter().map(one).collect()
    }
}

/// Sets what [`open`] sets and can still be set. What is set already is let be: it may have taken a right that is gone.
fn adopt(socket: &TcpListener, transparent: bool, mark: Option<u32>) -> io::Result<()> {
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    if options.ip_transparent_v4()? != transparent {
        options.set_ip_transparent_v4(transparent)?;
    }
    let mark = mark.unwrap_or_default();
    if options.mark()? != mark {
        options.set_mark(mark)?;
    }
    socket.set_nonblocking(true)
}

/// Opens a listener for one worker. IPv6 listeners take IPv6 only (trap 8); options that accepted sockets inherit are set
/// here once.
///
/// # Errors
/// The address is not ours or taken, or the right to bind it (or to use IP_TRANSPARENT: CAP_NET_ADMIN) is missing.
fn open(address: SocketAddr, transparent: bool, mark: Option<u32>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    if transparent {
        // Linux hands SOL_IP options of an IPv6 TCP socket to the same code: this is IPV6_TRANSPARENT as well.
        socket.set_ip_transparent_v4(true)?;
    }
    if let Some(mark) = mark {
        // Else `net.ipv4.tcp_fwmark_accept = 1` would give accepted sockets the mark of intercepted packets, and their
        // replies would be routed to this host.
        socket.set_mark(mark)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
