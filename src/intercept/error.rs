//! Errors of interception, each with its remedy.

use std::io;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterceptError {
    #[error("`nft` is neither in PATH nor in /usr/sbin: install the package nftables")]
    NftMissing,
    #[error("cannot run `nft`: {0}")]
    NftRun(#[source] io::Error),
    #[error(
        "{what} needs the capability CAP_NET_ADMIN: run as root, or give the service \
         AmbientCapabilities=CAP_NET_ADMIN"
    )]
    NotPermitted { what: &'static str },
    #[error(
        "this kernel lacks {}: load it (modprobe {}), or use a kernel built with it",
        modules.join(", "), modules.join(" ")
    )]
    KernelLacks { modules: Vec<&'static str> },
    #[error("nft refused to {what}: {stderr}")]
    NftRefused { what: &'static str, stderr: String },
    #[error("cannot parse the output of `nft -j`: {0}; is nft built with JSON?")]
    NftOutput(#[source] serde_json::Error),
    #[error(
        "another gatepost{} intercepts in this network namespace, and two would replace each other's rules: stop \
         it first, or run this one with mode = \"proxy\"",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Owned { pid: Option<i32> },
    #[error(
        "cannot claim the interception of this network namespace: {0}; are Unix sockets allowed for this service?"
    )]
    Claim(#[source] io::Error),
    #[error("cannot open a netlink socket for routing: {0}; is netlink allowed for this service?")]
    Netlink(#[source] io::Error),
    #[error("the kernel refused to {what}: {reason}{hint}")]
    Routing { what: String, reason: String, hint: &'static str },
    #[error(
        "routing table {table} already holds {found}, which is not gatepost's: set intercept.table to an \
         unused number (`ip route show table all`)"
    )]
    TableInUse { table: u32, found: String },
    #[error(
        "routing table {table} is reserved by the kernel: set intercept.table to another number, such \
         as 26480"
    )]
    ReservedTable { table: u32 },
    #[error(
        "mark {mark:#x} is invalid with the mask {mask:#x}, because it must be some bits of the mask and leave others: \
         set intercept.mark and intercept.mask to others, such as 0x40 and 0xc0"
    )]
    Mark { mark: u32, mask: u32 },
    #[error(
        "no interface has a default route, so it is not known where clients arrive: name the interfaces in \
         intercept.interfaces"
    )]
    NoDefaultRoute,
    #[error(
        "IPv6 is disabled on this host (net.ipv6.conf.lo.disable_ipv6 is 1): set it to 0, or leave IPv6 out of \
         listen.addresses"
    )]
    Ipv6Disabled,
    #[error(
        "`{name}` is not an interface name: expected 1 to 15 letters, digits, `.`, `_`, `-` or \
         `:` in intercept.interfaces"
    )]
    InterfaceName { name: String },
    #[error(
        "nothing to intercept: expected at least one port in intercept.ports, one network in \
         intercept.destinations and one address in listen.addresses"
    )]
    NothingToIntercept,
}
