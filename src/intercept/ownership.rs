//! One gateway intercepts in a network namespace: two would replace each other's table.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt};

use super::error::InterceptError;

/// Abstract socket names belong to a network namespace (unix(7)), and the kernel frees them when the process ends.
const NAME: &str = "gatepost-intercept";

/// Held for as long as this process intercepts.
pub(super) struct Ownership(UnixListener);

impl Ownership {
    /// # Errors
    /// Another process holds it in the network namespace of this thread.
    pub(super) fn take() -> Result<Self, InterceptError> {
        let name = SocketAddr::from_abstract_name(NAME).map_err(InterceptError::Claim)?;
        let bound = UnixListener::bind_addr(&name);
        match bound.and_then(|held| held.set_nonblocking(true).map(|()| held)) {
            Ok(held) => Ok(Self(held)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(InterceptError::Owned { pid: holder() })
            }
            Err(error) => Err(InterceptError::Claim(error)),
        }
    }

    /// Accepts and closes the connections of [`holder`]: once the queue is full, the next one would wait for ever.
    pub(super) fn drain(&self) {
        while self.0.accept().is_ok() {}
    }
}

/// The process that intercepts in the network namespace of this thread.
pub(super) fn holder() -> Option<i32> {
    let name = SocketAddr::from_abstract_name(NAME).ok()?;
    let peer = UnixStream::connect_addr(&name).ok()?;
    getsockopt(&peer, sockopt::PeerCredentials).ok().map(|peer| peer.pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where no gateway intercepts.
    #[test]
    fn the_second_learns_who_is_first_however_often_it_asks() {
        let first = Ownership::take().unwrap();
        for _ in 0..10_000 {
            assert_eq!(holder(), i32::try_from(std::process::id()).ok());
            first.drain();
        }
        assert!(matches!(Ownership::take(), Err(InterceptError::Owned { .. })));
        drop(first);
        assert_eq!(holder(), None);
    }
}
