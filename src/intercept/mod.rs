//! Interception in the kernel: nftables and policy routing for TPROXY, both families. Layer 4.
//! Beside it, with a table of its own: resets for our own mail to others (`outbound_reset`).
//!
//! The interception installs only: one nftables table `inet gatepost`, replaced in one transaction; and for each intercepted
//! family one `ip rule` (`fwmark MARK lookup TABLE`, priority [`PRIORITY`]) and one `local default dev lo` route in TABLE. Only
//! TCP is intercepted (rule 16 of ARCHITECTURE.md). The order of the nftables rules is part of the contract, see `ruleset`.
//!
//! **Ownership.** The table belongs to gatepost by its name. Rules and routes have the routing protocol number [`PROTOCOL`]
//! (`ip rule` and `ip route` print `proto 103`), which the kernel stores and iproute2 leaves unassigned. So they are
//! found after a kill -9 and after a change of the configuration, whatever their mark and table. Entries without the number,
//! or with it but of another shape, are never touched.
//!
//! **Scope.** New connections to one of `ports` that arrive on one of `interfaces` and are not for an address of this host:
//! mail to the gateway host goes to the host's own listener. Only connections to `destinations` count, so outbound mail of
//! the MTA behind passes. Without `interfaces` those of the default routes count.
//!
//! **Observed behaviour.** Found by experiment on Linux 6.18 with nft 1.0.6; the explanations are our reading.
//! `tests/lab/intercept.rs` covers forwarding without a gateway, the wildcard listener, strict rp_filter and SYN cookies (always on).
//! - *The gateway is dead and the rules stay* (kill -9): `tproxy` does not match without a listening socket, the packet is
//!   forwarded, and mail goes to the servers directly, in both families. Interception fails open; the last rules of chain
//!   `intercept` count these packets. This needs forwarding: with `ip_forward = 0` intercepted sessions still work, but
//!   nothing passes while the gateway is dead.
//! - *The rules of a dead gateway reset sessions that bypass it* as soon as a listener is there again and until the rules are
//!   replaced: those match the listener, which has no such connection. So a start removes the table first, and a new one
//!   spares them. Matching only SYNs would lose connections that were accepted by SYN cookies.
//! - *`socket transparent 1` alone also matches wildcard listeners*, and would intercept other hosts' traffic to the port of
//!   our own listener. Hence the earlier rule with `socket wildcard 1`.
//! - *`net.ipv4.conf.*.src_valid_mark = 1`* (set by wg-quick) on an interface of clients or servers breaks IPv4: the source is
//!   looked up with our mark, is found to be local, and the packet is dropped, unless accept_local is on and rp_filter not
//!   strict.
//! - *Clients on a bridge with br_netfilter* (`net.bridge.bridge-nf-call-iptables = 1`): the hooks of IP run before the host
//!   receives the frame, and then the kernel forgets the socket that `tproxy` found: mail is refused or times out.
//! - *`net.ipv6.conf.lo.disable_ipv6 = 1`* removes the IPv6 route to `lo`, and with it all interception of IPv6.
//! - *Strict rp_filter breaks nothing by itself*, neither towards clients nor towards servers. A client whose return route is
//!   another interface is dropped, as without the gateway.
//! - *`net.ipv4.tcp_fwmark_accept = 1`* would break both families, as accepted sockets would take our mark and their replies be
//!   routed to this host. Hence the listener has a mark of its own (SO_MARK). `fwmark_reflect` is harmless.
//! - *An upstream MTA on the gateway host* cannot see the client's address: its replies are routed to the client, past the
//!   gateway's socket. Use PROXY or XCLIENT there.
//!
//! The listener must be bound to the wildcard address of its family and be transparent (IP_TRANSPARENT). To stop: close the
//! listener, let sessions end, then [`remove`]; open sessions need the rules.

mod check;
mod counters;
pub mod door;
mod dynamic_sets;
mod error;
mod events;
mod interception;
mod listing;
mod losses;
mod nft;
pub mod outbound_reset;
mod ownership;
mod report;
mod routing;
mod ruleset;
mod settings;
pub mod watch;

pub use self::check::{
    InterceptCheckName, InterceptCheckReport, InterceptFinding, InterceptUpstream,
    before_start as check_before_start, full as check, remove_leftovers as remove_check_leftovers,
};
pub use self::counters::InterceptCounters;
pub use self::error::InterceptError;
pub use self::events::InterceptEvents;
pub use self::interception::{Inspection, Interception, SharedInterception};
pub use self::report::{ChainReport, InterceptReport, RemovalReport, RuleReport, TproxyReport};
pub use self::settings::{InterceptSettings, PRIORITY, PROTOCOL, REQUIRED_CAPABILITIES, TABLE};

use self::routing::Routing;

/// Removes everything that gatepost installed, with whatever settings; not an error if there is nothing.
pub async fn remove() -> Result<RemovalReport, InterceptError> {
    // The table first: a marked packet without a route is worse than a route without packets. After an error the routing is
    // removed all the same.
    let table = nft::delete().await;
    let routing = Routing::open()?;
    let mut removed = RemovalReport::default();
    for entry in routing.ours().await? {
        let text = entry.to_string();
        routing.delete(entry).await?;
        removed.routing.push(text);
    }
    removed.table = table?;
    Ok(removed)
}

/// The installed state, with warnings about problems.
pub async fn show() -> Result<InterceptReport, InterceptError> {
    let mut report = installed().await?;
    let checks = check::of_installed(&report).await;
    report.warnings.extend(checks.problems().iter().map(ToString::to_string));
    Ok(report)
}

/// The installed state, with warnings about inconsistencies only.
async fn installed() -> Result<InterceptReport, InterceptError> {
    let chains = nft::list().await?.map(|table| table.chains());
    let routing = Routing::open()?.ours().await?;
    Ok(InterceptReport::new(chains, &routing))
}
