//! What this host's own network lets the check see: a host that does not answer may be one that this network hides.
//!
//! Many networks drop outgoing connections to port 25, often of one family only. A control, a host that is known to answer,
//! tells the two apart; so does a vantage, which looks from another network. An exchange that is this host itself is reached
//! inside it, whatever lies on the way from outside.

use std::net::IpAddr;

use super::dns64;
use super::known::KnownAnswers;
use super::mx::MxHost;
use super::outside_view::{OutsideResult, OutsideView};
use super::request::{CheckRequest, Control};
use super::survey::ConnectResult;
use crate::addr::Family;

/// Whether connections of a family to port 25 leave this host's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Egress {
    Open,
    /// No control answers: these were asked.
    Blocked(Vec<IpAddr>),
    NotKnown,
}

/// `None` while that is not known.
pub(super) fn egress(
    family: Family,
    hosts: &[MxHost],
    request: &CheckRequest,
    known: &KnownAnswers,
) -> Option<Egress> {
    let mut asked = Vec::new();
    for control in &request.controls {
        // Neither an exchange, whose silence is in question, nor this host shows that connections leave the network.
        let is_exchange = |ip: &IpAddr| hosts.iter().any(|host| host.addresses.contains(ip));
        let addresses = addresses(control, family, known)?.into_iter();
        for ip in addresses.filter(|ip| !is_exchange(ip) && !is_own(*ip, request)) {
            match known.control(ip)? {
                ConnectResult::Connected(_) => return Some(Egress::Open),
                ConnectResult::NoResponse(_) | ConnectResult::Refused => asked.push(ip),
                ConnectResult::NoRoute | ConnectResult::OutOfTime => {}
            }
        }
    }
    // An exchange elsewhere is as good as a control.
    for host in hosts {
        for ip in host.of(family).filter(|ip| !is_own(*ip, request)) {
            if let ConnectResult::Connected(_) = known.survey(ip, &host.name)?.reached {
                return Some(Egress::Open);
            }
        }
    }
    Some(if asked.is_empty() { Egress::NotKnown } else { Egress::Blocked(asked) })
}

/// Of a control; none if the lookup failed.
fn addresses(control: &Control, family: Family, known: &KnownAnswers) -> Option<Vec<IpAddr>> {
    Some(match control {
        Control::Address(ip) if Family::of(*ip) == family => vec![*ip],
        Control::Address(_) => Vec::new(),
        Control::Name(name) => {
            let found = known.addresses(name, family)?.unwrap_or_default();
            dns64::separate(found, known)?.0
        }
    })
}

/// Whether `ip` is an address of this host.
pub(super) fn is_own(ip: IpAddr, request: &CheckRequest) -> bool {
    let own = request.interfaces.iter().flat_map(|interface| &interface.addresses);
    own.map(ipnet::IpNet::addr).any(|own| own == ip)
}

/// The result for one address, or why the vantage has none. Without a vantage there is nothing to know.
pub(super) fn outside(
    ip: IpAddr,
    request: &CheckRequest,
    known: &KnownAnswers,
) -> Option<Option<Result<OutsideResult, String>>> {
    if request.vantage.is_none() {
        return Some(None);
    }
    Some(Some(match known.outside(Family::of(ip))? {
        OutsideView::Failed(why) => Err(why.clone()),
        OutsideView::Seen(seen) => {
            let of_ip = seen.iter().find(|(address, _)| *address == ip);
            Ok(of_ip.map_or(OutsideResult::Unknown, |(_, result)| result.clone()))
        }
    }))
}
