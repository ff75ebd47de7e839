//! Notifications of the kernel about changes that may concern an interception: netfilter tables, ip rules, routes, links.

use std::time::Duration;

use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

use super::error::InterceptError;

/// Groups of rtnetlink(7), as bits: RTNLGRP_LINK, and rules and routes of both families.
const ROUTE_GROUPS: u32 = 1 | group(8) | group(19) | group(7) | group(11);
/// NFNLGRP_NFTABLES
const NFT_GROUPS: u32 = group(7);

const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

const PAUSE: Duration = Duration::from_millis(50);

/// Sockets in the network namespace of the thread that opened them.
pub struct InterceptEvents {
    netfilter: TokioSocket,
    route: TokioSocket,
}

impl InterceptEvents {
    /// # Errors
    /// The kernel refuses, such as without CAP_NET_ADMIN.
    pub fn open() -> Result<Self, InterceptError> {
        let open = |protocol, groups| {
            let mut socket = TokioSocket::new(protocol)?;
            socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
            Ok(socket)
        };
        Ok(Self {
            netfilter: open(NETLINK_NETFILTER, NFT_GROUPS).map_err(InterceptError::Netlink)?,
            route: open(NETLINK_ROUTE, ROUTE_GROUPS).map_err(InterceptError::Netlink)?,
        })
    }

    /// Waits for a change; which one stays unknown. Can be cancelled.
    pub async fn changed(&mut self) {
        // The contents do not matter; the kernel cuts them off.
        let (mut buffer, mut other) = (Vec::with_capacity(64), Vec::with_capacity(64));
        let received = tokio::select! {
            received = self.netfilter.recv(&mut buffer) => received,
            received = self.route.recv(&mut other) => received,
        };
        // Notifications that were lost (ENOBUFS) are a change as well; other errors must not repeat at once.
        if received.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
