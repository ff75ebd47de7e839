//! The scope of a domain check.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::policy_server::PolicyServer;
use super::postconf::Postfix;
use crate::addr::{Family, Networks};
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
    /// The zones of blocklists on which senders are looked up.
    pub dnsbls: Vec<DomainName>,
    /// The interfaces of this host that are up.
    pub interfaces: Vec<HostInterface>,
    /// The Postfix of this host; `None` skips its checks.
    pub postfix: Option<Postfix>,
    /// Hosts known to answer on port 25, each over the families of its addresses.
    pub controls: Vec<Control>,
    /// The vantage that is asked, as `address:port`; `None` asks none.
    pub vantage: Option<SocketAddr>,
    /// The doors that this host's gateway has closed, and why; a sentence without a full stop.
    pub closed_doors: BTreeMap<Family, String>,
    /// The networks behind that gateway (`[site] addresses`), besides this host's own addresses.
    pub behind_gateway: Networks,
    /// The policy service that Postfix should ask, if known.
    pub policy_server: Option<PolicyServer>,
}

/// A host that is known to answer on port 25.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Name(DomainName),
    Address(IpAddr),
}

impl Control {
    pub fn parse(text: &str) -> Option<Self> {
        match text.parse::<IpAddr>() {
            Ok(address) => Some(Self::Address(address.to_canonical())),
            Err(_) => DomainName::parse(text).map(Self::Name),
        }
    }
}

impl CheckRequest {
    /// Of the domain alone: no senders, nothing of this host, no optional part.
    pub fn new(domain: DomainName) -> Self {
        Self {
            domain,
            senders: Vec::new(),
            senders_from: Origin::Interfaces,
            helo: None,
            selectors: Vec::new(),
            dnsbls: Vec::new(),
            interfaces: Vec::new(),
            postfix: None,
            controls: Vec::new(),
            vantage: None,
            closed_doors: BTreeMap::new(),
            behind_gateway: Networks::default(),
            policy_server: None,
        }
    }
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostInterface {
    pub name: String,
    pub addresses: Vec<IpNet>,
    /// Those of the addresses from which mail should not leave.
    pub unsuitable: BTreeMap<IpAddr, UnsuitableSender>,
    /// Octets, if the system reports it.
    pub mtu: Option<u32>,
}

impl HostInterface {
    /// The addresses from which mail may leave.
    pub fn senders(&self) -> impl Iterator<Item = IpAddr> {
        let own = self.addresses.iter().map(IpNet::addr);
        own.filter(|ip| !self.unsuitable.contains_key(ip))
    }
}

labels! {
    /// Why an address of an interface cannot have a lasting PTR record and a place in SPF.
    pub enum UnsuitableSender {
        /// Changes every day (RFC 8981).
        Temporary = "temporary",
        /// Accepts connections and makes none (RFC 4862 §5.5.4).
        Deprecated = "deprecated",
        /// Another host may have it (RFC 4862 §5.4).
        Unconfirmed = "not confirmed as unique",
    }
}
