//! Errors of starting or reloading the relay.

use std::io;
use std::net::SocketAddr;

/// Why the relay cannot run as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    #[error("cannot listen on {address}: {why}; {}", listen_hint(why))]
    Listen { address: SocketAddr, why: io::Error },
    #[error("cannot start a worker thread: {0}; raise the limit on processes (ulimit -u)")]
    Thread(io::Error),
}

fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program uses it, perhaps a second gateway: `ss -ltnp` shows which"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host does not have the address: `ip address` lists those it has"
        }
        io::ErrorKind::PermissionDenied => {
            "run as root, or give CAP_NET_BIND_SERVICE (ports below 1024) and, for tproxy, CAP_NET_ADMIN"
        }
        _ => "see `[listen] addresses`",
    }
}
