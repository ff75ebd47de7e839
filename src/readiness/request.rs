//! The scope of a domain check.

use std::net::IpAddr;

use ipnet::IpNet;

use super::policy_server::PolicyServer;
use super::postconf::Postfix;
use crate::label::labels;
use crate::policy::facts::DomainName;

/// The domain and the optional parts of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRequest {
    pub domain: DomainName,
    /// Addresses from which the domain sends mail, and their origin.
    pub senders: Vec<IpAddr>,
    pub senders_from: Origin,
    /// The EHLO name of the senders and its origin; `None` skips its checks.
    pub helo: Option<(DomainName, Origin)>,
    /// DKIM selectors; empty skips the DKIM checks.
    pub selectors: Vec<String>,
    /// The interfaces of this host that are up.
    pub interfaces: Vec<HostInterface>,
    /// The Postfix of this host; `None` skips its checks.
    pub postfix: Option<Postfix>,
    /// The policy service that Postfix should ask, if known.
    pub policy_server: Option<PolicyServer>,
}

labels! {
    /// Where a value was taken from.
    pub enum Origin {
        CommandLine = "command_line",
        Postfix = "postfix",
        Interfaces = "interfaces",
    }
}

/// A network interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    pub name: String,
    pub addresses: Vec<IpNet>,
    /// Octets, if the system reports it.
    pub mtu: Option<u32>,
}
