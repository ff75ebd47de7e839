//! Listening sockets: opened here, or inherited from the service manager, which keeps them open across restarts.
//!
//! For an address that is opened here each worker has its own socket, and the kernel distributes connections (SO_REUSEPORT,
//! Linux 3.9). An inherited socket is shared by all workers.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::error::RelayError;
use super::settings::RelaySettings;

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// All listeners of a relay, open but not served yet: connections wait in the kernel. Separate from
/// [`Relay::start`](super::Relay::start) because only binding needs privileges.
pub struct Listeners {
    pub(super) bound: Vec<BoundAddress>,
    pub(super) inherited: InheritedSockets,
    overlapping: Vec<SocketAddr>,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedAddress {
    pub(super) address: SocketAddr,
    /// Its listener's, see [`ListenerSettings`](super::settings::ListenerSettings).
    pub(super) transparent: bool,
}

impl WantedAddress {
    pub(super) fn all(settings: &RelaySettings) -> Vec<Self> {
        let each = settings.listeners.iter().flat_map(|listener| {
            let transparent = listener.transparent;
            listener.addresses.iter().map(move |&address| Self { address, transparent })
        });
        each.collect()
    }
}

/// An address with a socket for each worker.
pub(super) struct BoundAddress {
    pub(super) configured: WantedAddress,
    pub(super) bound: SocketAddr,
    pub(super) sockets: Vec<TcpListener>,
}

impl Listeners {
    /// Uses the sockets of `inherited` whose addresses `settings` names, and opens the others.
    ///
    /// # Errors
    /// An address cannot be bound; all sockets opened here are closed again.
    pub fn open(settings: &RelaySettings, inherited: InheritedSockets) -> Result<Self, RelayError> {
        let wanted = WantedAddress::all(settings);
        let (bound, overlapping) = inherited.open(&wanted, settings.threads, settings.mark, &[])?;
        Ok(Self { bound, inherited, overlapping })
    }

    /// The bound addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.bound.iter().map(|address| address.bound)
    }

    pub const fn inherited(&self) -> &InheritedSockets {
        &self.inherited
    }

    /// Addresses on whose port another process listens, at an overlapping address.
    pub fn overlapping(&self) -> &[SocketAddr] {
        &self.overlapping
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

    /// A socket per worker for each address, and the addresses that overlap with another process's. `mark` is that of the
    /// settings; `own` are the addresses that this process listens on already.
    pub(super) fn open(
        &self,
        wanted: &[WantedAddress],
        workers: usize,
        mark: Option<u32>,
        own: &[SocketAddr],
    ) -> Result<(Vec<BoundAddress>, Vec<SocketAddr>), RelayError> {
        // Before the first is opened: they may overlap with each other, and with our own of the same port, which a reload closes.
        let is_inherited = |new: SocketAddr| self.0.iter().any(|&(address, _)| address == new);
        let is_own = |new: SocketAddr| own.iter().any(|own| own.port() == new.port());
        let mut overlapping = Vec::new();
        for &WantedAddress { address, transparent } in wanted {
            if is_inherited(address) || is_own(address) {
                continue;
            }
            let port = check_free(address, transparent);
            match port.map_err(|why| RelayError::Listen { address, why })? {
                PortUse::Free => {}
                PortUse::Overlapping => overlapping.push(address),
            }
        }
        let one = |&configured: &WantedAddress| {
            let WantedAddress { address, transparent } = configured;
            let failed = |why| RelayError::Listen { address, why };
            if let Some((_, socket)) = self.0.iter().find(|(inherited, _)| *inherited == address) {
                adopt(socket, transparent, mark).map_err(failed)?;
                let shared =
                    (0..workers.max(1)).map(|_| socket.try_clone()).collect::<io::Result<_>>();
                let sockets = shared.map_err(failed)?;
                return Ok(BoundAddress { configured, bound: address, sockets });
            }
            let first = open(address, transparent, mark).map_err(failed)?;
            let bound = first.local_addr().map_err(failed)?;
            let mut sockets = vec![first];
            for _ in 1..workers {
                sockets.push(open(bound, transparent, mark).map_err(failed)?);
            }
            Ok(BoundAddress { configured, bound, sockets })
        };
        let bound: Result<Vec<_>, _> = wanted.iter().map(one).collect();
        Ok((bound?, overlapping))
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

/// Other listeners on the port of an address that is not open yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortUse {
    Free,
    /// On an overlapping address, such as a wildcard: the kernel prefers the more specific one.
    Overlapping,
}

/// SO_REUSEPORT lets a second process of the same user listen on the same address: the kernel would hand each of two gateways
/// some of the clients. Without the option the address must be free. An overlapping address is no error: idle processes
/// of a server that was told to leave the port keep it for a while.
///
/// # Errors
/// Another process listens at exactly this address, or it cannot be bound for another reason.
fn check_free(address: SocketAddr, transparent: bool) -> io::Result<PortUse> {
    if address.port() == 0 {
        return Ok(PortUse::Free);
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
    match socket.bind(&address.into()) {
        Ok(()) => Ok(PortUse::Free),
        Err(why) if why.kind() == io::ErrorKind::AddrInUse && !is_taken(address) => {
            Ok(PortUse::Overlapping)
        }
        Err(why) => Err(why),
    }
}

/// Whether a socket listens at exactly this address; also if that is not known.
fn is_taken(address: SocketAddr) -> bool {
    let table = match address {
        SocketAddr::V4(_) => "/proc/self/net/tcp",
        SocketAddr::V6(_) => "/proc/self/net/tcp6",
    };
    std::fs::read_to_string(table).map_or(true, |table| has_listener(&table, address))
}

/// `table` as in proc_net_tcp: the address in words of the host's byte order, and 0A for a listener.
fn has_listener(table: &str, address: SocketAddr) -> bool {
    let octets = match address {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    };
    let (words, _) = octets.as_chunks::<4>();
    let words: String =
        words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect();
    let local = format!("{words}:{:04X}", address.port());
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(local.as_str()) && fields.nth(1) == Some("0A")
    })
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

    fn wanted(address: &str) -> [WantedAddress; 1] {
        [WantedAddress { address: address.parse().unwrap(), transparent: false }]
    }

    #[test]
    fn a_second_process_cannot_share_an_address() {
        let none = InheritedSockets::default();
        let open = |wanted: &[WantedAddress], own: &[SocketAddr]| none.open(wanted, 2, None, own);
        for (loopback, wildcard) in [("127.0.0.1", "0.0.0.0"), ("[::1]", "[::]")] {
            let (bound, overlapping) = open(&wanted(&format!("{loopback}:0")), &[]).unwrap();
            assert_eq!(bound[0].sockets.len(), 2, "its workers share the port");
            assert_eq!(overlapping, []);
            let taken = bound[0].bound;
            let same = wanted(&taken.to_string());
            let Err(error) = open(&same, &[]) else { panic!("{taken} is shared") };
            assert!(error.to_string().contains("another program uses it"), "{error}");
            // A reload of the process that has it.
            open(&same, &[taken]).unwrap();
            // The more specific address wins: nobody gets only some of the clients.
            let wider = wanted(&format!("{wildcard}:{}", taken.port()));
            assert_eq!(open(&wider, &[]).unwrap().1, [wider[0].address]);
            drop(bound);
            assert_eq!(open(&same, &[]).unwrap().1, []);
        }
    }

    #[test]
    fn only_listeners_at_exactly_an_address_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let taken = |address: SocketAddr| is_taken(address);
        assert!(taken(address));
        assert!(!taken(client.local_addr().unwrap()), "a connection is no listener");
        assert!(!taken(SocketAddr::from(([0, 0, 0, 0], address.port()))));
        assert!(!taken(SocketAddr::from(([127, 0, 0, 2], address.port()))));
    }
}
