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
        "mark {mark:#x} is invalid, because it and the next number must be non-zero 32-bit numbers: \
         set intercept.mark to another, such as 0x6770"
    )]
    Mark { mark: u32 },
    #[error(
        "`{name}` is not an interface name: expected 1 to 15 letters, digits, `.`, `_`, `-` or \
         `:` in intercept.interfaces"
    )]
    InterfaceName { name: String },
    #[error(
        "nothing to intercept: expected at least one port in intercept.ports and one address \
         in listen.addresses"
    )]
    NothingToIntercept,
}
