//! One gateway intercepts in a network namespace: two would replace each other's table.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt};

use super::error::InterceptError;

/// Abstract socket names belong to a network namespace (unix(7)), and the kernel frees them when the process ends.
const NAME: &str = "gatepost-intercept";

/// Held for as long as this process intercepts.
pub(super) struct Ownership(#[expect(dead_code, reason = "holds the name")] UnixListener);

impl Ownership {
    /// # Errors
    /// Another process holds it in the network namespace of this thread.
    pub(super) fn take() -> Result<Self, InterceptError> {
        let name = SocketAddr::from_abstract_name(NAME).map_err(InterceptError::Netlink)?;
        match UnixListener::bind_addr(&name) {
            Ok(held) => Ok(Self(held)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(InterceptError::Owned { pid: holder() })
            }
            Err(error) => Err(InterceptError::Netlink(error)),
        }
    }
}

/// The process that intercepts in the network namespace of this thread.
pub(super) fn holder() -> Option<i32> {
    let name = SocketAddr::from_abstract_name(NAME).ok()?;
    let peer = UnixStream::connect_addr(&name).ok()?;
    getsockopt(&peer, sockopt::PeerCredentials).ok().map(|peer| peer.pid())
}
