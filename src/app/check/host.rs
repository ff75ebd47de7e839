//! Facts about this host: its interfaces, and its Postfix by postconf(1).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::Error;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};

use crate::readiness::{HostInterface, PARAMETERS, Postfix, RESTRICTIONS, UnsuitableSender};

const NO_LIST: &str = "cannot list this host's addresses by netlink, which a sandbox may forbid";
/// `IFA_F_TEMPORARY` of linux/if_addr.h: of IPv6 addresses, the same bit as `IFA_F_SECONDARY`.
const TEMPORARY: AddressFlags = AddressFlags::Secondary;

/// The interfaces that are up.
///
/// # Errors
/// The kernel does not list them.
pub(super) async fn interfaces() -> anyhow::Result<Vec<HostInterface>> {
    let (connection, handle, _) = rtnetlink::new_connection().context(NO_LIST)?;
    let connection = tokio::spawn(connection);
    let interfaces = list_interfaces(&handle).await;
    connection.abort();
    interfaces.context(NO_LIST)
}

async fn list_interfaces(handle: &rtnetlink::Handle) -> Result<Vec<HostInterface>, Error> {
    let mut links = handle.link().get().execute();
    let mut interfaces = BTreeMap::new();
    while let Some(link) = links.try_next().await? {
        if !link.header.flags.contains(LinkFlags::Up) {
            continue;
        }
        let mut interface = HostInterface::default();
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Mtu(mtu) => interface.mtu = Some(mtu),
                _ => {}
            }
        }
        interfaces.insert(link.header.index, interface);
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let Some(interface) = interfaces.get_mut(&message.header.index) else { continue };
        let Some(net) = own_net(&message) else { continue };
        interface.addresses.push(net);
        interface.unsuitable.extend(unsuitable(&message).map(|reason| (net.addr(), reason)));
    }
    Ok(interfaces.into_values().collect())
}

/// This host's address; on a link to a single peer `IFA_ADDRESS` is that of the peer.
fn own_net(message: &AddressMessage) -> Option<IpNet> {
    let address = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    };
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    };
    let attributes = &message.attributes;
    let own = attributes.iter().find_map(local).or_else(|| attributes.iter().find_map(address))?;
    IpNet::new(own, message.header.prefix_len).ok()
}

/// Why mail should not leave from an address. `IFA_FLAGS` has all flags, the header the first eight.
fn unsuitable(message: &AddressMessage) -> Option<UnsuitableSender> {
    if message.header.family != AddressFamily::Inet6 {
        // In IPv4 the flag of temporary addresses marks the second one of a network.
        return None;
    }
    let header = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let flags = flags.unwrap_or(header);
    if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
        Some(UnsuitableSender::Unconfirmed)
    } else if flags.contains(AddressFlags::Deprecated) {
        Some(UnsuitableSender::Deprecated)
    } else if flags.contains(TEMPORARY) {
        Some(UnsuitableSender::Temporary)
    } else {
        None
    }
}

pub(in crate::app) fn postfix(directory: Option<&Path>) -> anyhow::Result<Postfix> {
    let expanded = ["-x"].into_iter().chain(PARAMETERS).chain(RESTRICTIONS);
    let parameters = postconf(directory, expanded)?;
    let lists = postconf(directory, RESTRICTIONS)?;
    let services = postconf(directory, ["-M"])?;
    let own = postconf(directory, ["-P"])?;
    let directory = directory.map(|directory| directory.display().to_string());
    let postfix = Postfix::new(directory, &parameters, &services, &own).with_unexpanded(&lists);
    let program = std::env::current_exe().ok().map(|path| path.display().to_string());
    Ok(match program {
        Some(program) => postfix.with_program(program),
        None => postfix,
    })
}

/// The output of postconf. Users often have no /usr/sbin in their PATH.
fn postconf<'a>(
    directory: Option<&Path>,
    arguments: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<String> {
    let arguments: Vec<&str> = arguments.into_iter().collect();
    for program in ["postconf", "/usr/sbin/postconf"] {
        let mut command = Command::new(program);
        if let Some(directory) = directory {
            command.arg("-c").arg(directory);
        }
        let output = match command.args(&arguments).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            ended => ended.with_context(|| format!("cannot run {program}"))?,
        };
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "postconf cannot read Postfix' configuration: {}",
                crate::report::printable(error.trim())
            );
        }
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("--postfix needs postconf(1), which is not installed; run this on the Postfix host")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rtnetlink::packet_route::address::AddressHeaderFlags;

    use super::*;

    fn message(address: &str, flags: AddressFlags) -> AddressMessage {
        let address: IpAddr = address.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.family =
            if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.prefix_len = 24;
        message.attributes =
            vec![AddressAttribute::Address(address), AddressAttribute::Flags(flags)];
        message
    }

    #[test]
    fn addresses_that_do_not_last_are_no_senders() {
        let permanent = AddressFlags::Permanent;
        for (flags, expected) in [
            (permanent, None),
            (AddressFlags::Managetempaddr | AddressFlags::Noprefixroute, None),
            (AddressFlags::StablePrivacy, None),
            (permanent | AddressFlags::Deprecated, Some(UnsuitableSender::Deprecated)),
            (TEMPORARY, Some(UnsuitableSender::Temporary)),
            // Its lifetime is over; the kernel chooses another one.
            (TEMPORARY | AddressFlags::Deprecated, Some(UnsuitableSender::Deprecated)),
            (AddressFlags::Tentative, Some(UnsuitableSender::Unconfirmed)),
            (
                AddressFlags::Tentative | AddressFlags::Dadfailed,
                Some(UnsuitableSender::Unconfirmed),
            ),
            (permanent | AddressFlags::Dadfailed, Some(UnsuitableSender::Unconfirmed)),
        ] {
            assert_eq!(unsuitable(&message("2001:db8::5", flags)), expected, "{flags:?}");
            assert_eq!(unsuitable(&message("192.0.2.5", flags)), None, "{flags:?}");
        }
        // An old kernel has the header only.
        let mut old = message("2001:db8::5", permanent);
        old.attributes.pop();
        old.header.flags = AddressHeaderFlags::Deprecated;
        assert_eq!(unsuitable(&old), Some(UnsuitableSender::Deprecated));
    }

    #[test]
    fn the_peer_of_a_link_is_not_this_host() {
        let mut linked = message("192.0.2.9", AddressFlags::Permanent);
        assert_eq!(own_net(&linked), "192.0.2.9/24".parse().ok());
        linked.attributes.push(AddressAttribute::Local("192.0.2.5".parse().unwrap()));
        assert_eq!(own_net(&linked), "192.0.2.5/24".parse().ok());
    }
}
