//! Ports for the gateway: free ones, the same number in both families, as port 25 would be.
//!
//! Layer 5. Each is held by a bound socket that never listens. With SO_REUSEPORT the gateway's listeners may bind it all
//! the same and nobody else's socket can; where the gateway does not listen, a connection is refused.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::addr::Family;

/// Attempts at a number that is free in both families.
const ATTEMPTS: usize = 32;

/// A port number that stays ours while this lives.
#[derive(Debug)]
pub(super) struct Reserved {
    pub port: u16,
    _held: Vec<Socket>,
}

impl Reserved {
    pub(super) fn new(ipv6: bool) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match Self::attempt(ipv6) {
                Ok(reserved) => return Ok(reserved),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn attempt(ipv6: bool) -> io::Result<Self> {
        let ipv4 = hold((Ipv4Addr::LOCALHOST, 0).into())?;
        let own = ipv4.local_addr()?.as_socket();
        let port = own.ok_or(io::ErrorKind::AddrNotAvailable)?.port();
        let mut held = vec![ipv4];
        if ipv6 {
            held.push(hold((Ipv6Addr::LOCALHOST, port).into())?);
        }
        Ok(Self { port, _held: held })
    }
}

fn hold(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether this host has `::1`.
pub(super) fn ipv6_loopback() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Which port stands for 25 at a site, per family: all that the senders are told besides the DNS.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports(BTreeMap<(&'static str, Family), u16>);

impl Ports {
    pub(super) fn set(&mut self, domain: &'static str, family: Family, port: u16) {
        self.0.insert((domain, family), port);
    }

    /// `ip` with the port of `domain`; where none is set, nobody can be reached.
    pub(super) fn destination(&self, domain: &'static str, ip: IpAddr) -> Option<SocketAddr> {
        let port = self.0.get(&(domain, Family::of(ip)))?;
        Some(SocketAddr::new(ip, *port))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn only_reuseport_listeners_get_a_held_port() {
        let reserved = Reserved::new(false).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, reserved.port));
        let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(stranger.bind(&address.into()).is_err());
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let gateway = hold(address).unwrap();
        gateway.listen(1).unwrap();
        TcpStream::connect(address).unwrap();
    }
}
