//! Listening sockets: opened here, or inherited from the service manager, which keeps them open across restarts.
//!
//! For an address that is opened here each worker has its own socket, and the kernel distributes connections (SO_REUSEPORT,
//! Linux 3.9). An inherited socket is shared by all workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::error::RelayError;
use super::settings::{ListenSettings, RelaySettings};

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// All listeners of a relay, open but not served yet: connections wait in the kernel. Separate from
/// [`Relay::start`](super::Relay::start) because only binding needs privileges.
pub struct Listeners {
    pub(super) bound: Vec<BoundAddress>,
    pub(super) inherited: InheritedSockets,
}

/// An address with a listener for each worker.
pub(super) struct BoundAddress {
    pub(super) configured: SocketAddr,
    pub(super) bound: SocketAddr,
    pub(super) listeners: Vec<TcpListener>,
}

impl Listeners {
    /// Uses the sockets of `inherited` whose addresses `settings` names, and opens the others.
    ///
    /// # Errors
    /// An address cannot be bound; all sockets opened here are closed again.
    pub fn open(settings: &RelaySettings, inherited: InheritedSockets) -> Result<Self, RelayError> {
        let listen = &settings.listen;
        let bound = inherited.open(&listen.addresses, listen, settings.upstream.mark, &[])?;
        Ok(Self { bound, inherited })
    }

    /// The bound addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.bound.iter().map(|address| address.bound)
    }

    pub const fn inherited(&self) -> &InheritedSockets {
        &self.inherited
    }
}

/// Listening sockets of the service manager, with their addresses. Unused ones are kept for a later reload.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<(SocketAddr, TcpListener)>);

impl InheritedSockets {
    /// # Errors
    /// A socket is not bound.
    pub fn new(sockets: Vec<TcpListener>) -> io::Result<Self> {
        let with_address = sockets.into_iter().map(|socket| Ok((socket.local_addr()?, socket)));
        with_address.collect::<io::Result<_>>().map(Self)
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|&(address, _)| address)
    }

    /// The addresses of IPv6 sockets that accept IPv4 connections as well (no IPV6_V6ONLY).
    pub fn dual_stack(&self) -> impl Iterator<Item = SocketAddr> {
        let is_dual = |&(address, socket): &(&SocketAddr, &TcpListener)| {
            address.is_ipv6() && SockRef::from(socket).only_v6().is_ok_and(|only| !only)
        };
        self.0.iter().map(|(address, socket)| (address, socket)).filter(is_dual).map(|(a, _)| *a)
    }

    /// A listener per worker for each address. `mark` is `upstream.mark`; `own` are the addresses that this process listens on
    /// already.
    pub(super) fn open(
        &self,
        addresses: &[SocketAddr],
        listen: &ListenSettings,
        mark: Option<u32>,
        own: &[SocketAddr],
    ) -> Result<Vec<BoundAddress>, RelayError> {
        let (transparent, workers) = (listen.transparent, listen.threads.max(1));
        // Before the first is opened: they may overlap with each other, and with our own of the same port, which a reload closes.
        let is_inherited = |new: &SocketAddr| self.0.iter().any(|(address, _)| address == new);
        let is_own = |new: &SocketAddr| own.iter().any(|own| own.port() == new.port());
        for &new in addresses.iter().filter(|new| !is_inherited(new) && !is_own(new)) {
            check_free(new, transparent).map_err(|why| RelayError::Listen { address: new, why })?;
        }
        let one = |&configured: &SocketAddr| {
            let failed = |why| RelayError::Listen { address: configured, why };
            if let Some((_, socket)) = self.0.iter().find(|(address, _)| *address == configured) {
                adopt(socket, transparent, mark).map_err(failed)?;
                let shared = (0..workers).map(|_| socket.try_clone()).collect::<io::Result<_>>();
                let listeners = shared.map_err(failed)?;
                return Ok(BoundAddress { configured, bound: configured, listeners });
            }
            let first = open(configured, transparent, mark).map_err(failed)?;
            let bound = first.local_addr().map_err(failed)?;
            let mut listeners = vec![first];
            for _ in 1..workers {
                listeners.push(open(bound, transparent, mark).map_err(failed)?);
            }
            Ok(BoundAddress { configured, bound, listeners })
        };
        addresses.iter().map(one).collect()
    }
}

/// Sets the options of [`open`] that can still be set. An option that has the value already is not set again: that may need
/// a capability that was given up.
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

/// SO_REUSEPORT lets a second process of the same user listen on the same port: the kernel would hand each of two gateways some
/// of the clients. Without the option the address must be free.
///
/// # Errors
/// Another process listens there, or the address cannot be bound for another reason.
fn check_free(address: SocketAddr, transparent: bool) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Only for connections of an earlier process in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if transparent {
        socket.set_ip_transparent_v4(true)?;
    }
    socket.bind(&address.into())
}

/// Opens a listener for one worker. IPv6 listeners accept IPv6 only (rule 8 of ARCHITECTURE.md). Accepted sockets inherit the
/// options.
///
/// # Errors
/// The address is in use or not of this host, or a capability is missing (for IP_TRANSPARENT: CAP_NET_ADMIN).
fn open(address: SocketAddr, transparent: bool, mark: Option<u32>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    if transparent {
        // On an IPv6 TCP socket Linux handles SOL_IP options by the same code: this sets IPV6_TRANSPARENT as well.
        socket.set_ip_transparent_v4(true)?;
    }
    if let Some(mark) = mark {
        // Otherwise `net.ipv4.tcp_fwmark_accept = 1` gives accepted sockets the mark of intercepted packets, and their replies
        // are routed to this host.
        socket.set_mark(mark)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_cannot_share_a_port() {
        let listen = |address: &str| ListenSettings {
            addresses: vec![address.parse().unwrap()],
            transparent: false,
            threads: 2,
        };
        let none = InheritedSockets::default();
        for (loopback, wildcard) in [("127.0.0.1", "0.0.0.0"), ("[::1]", "[::]")] {
            let first = listen(&format!("{loopback}:0"));
            let bound = none.open(&first.addresses, &first, None, &[]).unwrap();
            assert_eq!(bound[0].listeners.len(), 2, "its workers share the port");
            let taken = bound[0].bound;
            for same in [taken.to_string(), format!("{wildcard}:{}", taken.port())] {
                let second = listen(&same);
                let Err(error) = none.open(&second.addresses, &second, None, &[]) else {
                    panic!("{same} is shared with {taken}");
                };
                let text = error.to_string();
                assert!(text.contains("another program uses it"), "{text}");
                // A reload of the process that has it.
                none.open(&second.addresses, &second, None, &[taken]).unwrap();
            }
            drop(bound);
            let second = listen(&taken.to_string());
            none.open(&second.addresses, &second, None, &[]).unwrap();
        }
    }
}
